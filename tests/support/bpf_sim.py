"""The kernel's classic BPF, as far as seccomp allows it: check a program as it would be loaded, then run it.

kernel/seccomp.c seccomp_check_filter() and net/core/filter.c bpf_check_classic() say what is valid.
"""

from __future__ import annotations

import functools
import struct

MAX_INSTRUCTIONS = 4096
ALLOW = 0x7FFF0000
KILL_THREAD = 0x00000000
KILL_PROCESS = 0x80000000
NOTIFY = 0x7FC00000
LOG = 0x7FFC0000
TRAP = 0x00030000

X86 = 0x40000003
X86_64 = 0xC000003E
AARCH64 = 0xC00000B7
ARM = 0x40000028
X32_BIT = 0x40000000

_LD_W_ABS, _LD_IMM, _LDX_IMM, _LD_MEM, _LDX_MEM, _ST, _STX = 0x20, 0x00, 0x01, 0x60, 0x61, 0x02, 0x03
_JA, _RET_K, _RET_A, _TAX, _TXA = 0x05, 0x06, 0x16, 0x07, 0x87
_JUMPS = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: a & k != 0,
}
_ALU = {
    0x04: lambda a, k: a + k,
    0x14: lambda a, k: a - k,
    0x44: lambda a, k: a | k,
    0x54: lambda a, k: a & k,
    0x64: lambda a, k: a << k,
    0x74: lambda a, k: a >> k,
    0xA4: lambda a, k: a ^ k,
}
_DATA_SIZE = 64


def errno(number: int) -> int:
    """The action SECCOMP_RET_ERRNO with this number."""
    return 0x00050000 | number


def trace(number: int) -> int:
    """The action SECCOMP_RET_TRACE with this number."""
    return 0x7FF00000 | number


@functools.lru_cache
def decode(bpf: bytes) -> list[tuple[int, int, int, int]]:
    """struct sock_filter[] -> (code, jump if true, jump if false, operand)."""
    assert len(bpf) % 8 == 0
    return list(struct.iter_unpack("=HBBI", bpf))


def check(bpf: bytes) -> None:
    """AssertionError for a program that the kernel would not load."""
    program = decode(bpf)
    count = len(program)
    assert 0 < count <= MAX_INSTRUCTIONS
    for at, (code, if_true, if_false, k) in enumerate(program):
        if code == _JA:
            assert at + 1 + k < count
        elif code in _JUMPS:
            assert at + 1 + max(if_true, if_false) < count
        elif code == _LD_W_ABS:
            assert k % 4 == 0
            assert k < _DATA_SIZE
        else:
            assert code in (
                _RET_K,
                _RET_A,
                _TAX,
                _TXA,
                _LD_IMM,
                _LDX_IMM,
                _LD_MEM,
                _LDX_MEM,
                _ST,
                _STX,
                *_ALU,
            )
    assert program[-1][0] in (_RET_K, _RET_A)


def run(bpf: bytes, arch: int, number: int, args: tuple[int, ...] = ()) -> int:
    """What the filter answers to a system call: SECCOMP_RET_* with its data. `args` are 64 bits wide, absent ones 0."""
    six = [*args, *[0] * (6 - len(args))]
    data = struct.pack("=iIQ6Q", struct.unpack("=i", struct.pack("=I", number))[0], arch, 0, *six)
    memory = [0] * 16
    a = x = at = 0
    program = decode(bpf)
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        if code == _LD_W_ABS:
            a = struct.unpack_from("=I", data, k)[0]
        elif code == _JA:
            at += k
        elif code in _JUMPS:
            at += if_true if _JUMPS[code](a, k) else if_false
        elif code in _ALU:
            a = _ALU[code](a, k) & 0xFFFFFFFF
        elif code == _RET_K:
            return k
        elif code == _RET_A:
            return a
        elif code == _ST:
            memory[k] = a
        elif code == _STX:
            memory[k] = x
        elif code in (_LD_MEM, _LD_IMM):
            a = memory[k] if code == _LD_MEM else k
        elif code in (_LDX_MEM, _LDX_IMM):
            x = memory[k] if code == _LDX_MEM else k
        elif code in (_TAX, _TXA):
            a, x = (a, a) if code == _TAX else (x, x)
        else:
            raise AssertionError(f"instruction {at - 1}: code {code:#x}")
