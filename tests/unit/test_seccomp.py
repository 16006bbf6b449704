"""Seccomp with the real libseccomp: filters against a simulator and against the kernel, and the cache."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import bpf_sim
from pyrunc.config.rules import seccomp as rules
from pyrunc.errors import ConfigError
from pyrunc.kernel import seccomp as kernel_seccomp
from pyrunc.seccomp import compile as seccomp
from pyrunc.seccomp import profile as seccomp_profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyrunc.spec.shapes import Seccomp, SeccompRule

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64")

X32 = seccomp_profile.ARCH_X32
BIT = bpf_sim.X32_BIT
EPERM = bpf_sim.errno(errno.EPERM)
ENOSYS = bpf_sim.errno(errno.ENOSYS)
ALL_ARCHES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]

# The library asked directly, as an oracle: nothing of ours in between.
ORACLE = ctypes.CDLL("libseccomp.so.2")
ORACLE.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
LIBC = ctypes.CDLL(None)
LIBC.free.argtypes = [ctypes.c_void_p]


def name_of(arch: int, number: int) -> str:
    """The system call with this number, "" for none."""
    text = ORACLE.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(arch), ctypes.c_int(number))
    if not text:
        return ""
    found = ctypes.string_at(text).decode()
    LIBC.free(text)
    return found


def number_of(arch: int, name: str) -> int:
    """The number of the system call, negative when the architecture lacks it."""
    number: int = ORACLE.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(arch), name.encode())
    return number


def numbers(arch: int) -> range:
    return range(BIT, BIT + 560) if arch == X32 else range(560)


def answer(bpf: bytes, arch: int, number: int, *args: int) -> int:
    return bpf_sim.run(bpf, bpf_sim.X86_64 if arch == X32 else arch, number, args)


def call(*names: str, **members: object) -> SeccompRule:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **members}  # type: ignore[typeddict-item]  # given by name


def compile_bpf(*rules: SeccompRule, **members: object) -> bytes:
    """A checked filter; the default action is ERRNO, the architecture the native one unless given."""
    profile: Seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **members}  # type: ignore[typeddict-item]  # given by name
    bpf = seccomp.compile(profile).bpf
    bpf_sim.check(bpf)
    return bpf


ONE = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
DENIED = {
    "mount",
    "umount2",
    "pivot_root",
    "reboot",
    "swapon",
    "init_module",
    "add_key",
    "kexec_load",
    "ptrace",
}
MASK = 0x7E020000


def large_profile() -> Seccomp:
    """What engines send: three architectures, more than 300 names, a few conditions, one call that "does not exist"."""
    listed = (name_of(bpf_sim.X86_64, number) for number in range(334))
    names = [name for name in listed if name and name not in {*DENIED, "clone", "personality"}]
    new = ("no_such_call", "statx", "faccessat2")
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": ALL_ARCHES,
        "syscalls": [
            call(*names, *new),
            *(
                call("personality", args=[{"index": 0, "value": v, "op": "SCMP_CMP_EQ"}])
                for v in (0, 8, 0xFFFFFFFF)
            ),
            call("clone", args=[{"index": 0, "value": MASK, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
            call("clone3", action="SCMP_ACT_ERRNO", errnoRet=errno.ENOSYS),
        ],
    }


def newest(arch: int) -> int:
    """The largest number among the calls that large_profile() names."""
    rules = large_profile()["syscalls"]
    assert isinstance(rules, list)
    return max(number_of(arch, name) for rule in rules for name in rule["names"])


def expected(arch: int, number: int, arg: int, last: int) -> int:
    """What large_profile() says, read from the profile and not from any program."""
    if number > last:
        return ENOSYS
    name = name_of(arch, number)
    if name == "clone3":
        return ENOSYS
    if name == "personality":
        return bpf_sim.ALLOW if arg in (0, 8, 0xFFFFFFFF) else EPERM
    if name == "clone":
        return bpf_sim.ALLOW if arg & MASK == 0 else EPERM
    if arch == bpf_sim.X86 and name == "socketcall":
        # The calls behind it are allowed (8 is socketpair).
        return bpf_sim.ALLOW if arg in range(1, 21) else EPERM
    allowed = {"statx", "faccessat2"}
    if name and name not in DENIED and number_of(bpf_sim.X86_64, name) in range(334):
        allowed.add(name)
    return bpf_sim.ALLOW if name in allowed else EPERM


@pytest.mark.parametrize("arch", [bpf_sim.X86_64, bpf_sim.X86, X32])
def test_large_profile(arch: int) -> None:
    """Every number, several arguments, three architectures: the filter does what the profile says."""
    profile = large_profile()
    bpf = seccomp.compile(profile).bpf
    bpf_sim.check(bpf)
    last = newest(arch)
    assert last % BIT >= 439
    for number, arg in itertools.product(numbers(arch), (0, 8, 0x10000000, 0x00020000, 0xFFFFFFFF)):
        assert answer(bpf, arch, number, arg) == expected(arch, number, arg, last), (
            name_of(arch, number),
            arg,
        )


def test_large_profile_is_a_tree() -> None:
    """More than 32 calls are searched, not compared one after the other."""
    few = [call(name_of(bpf_sim.X86_64, number)) for number in range(32)]
    many = [*few, call(name_of(bpf_sim.X86_64, 32))]

    def comparisons(rules: list[SeccompRule]) -> int:
        """Instructions that only a tree has: "above this number, go there"."""
        bpf = compile_bpf(*rules, defaultAction="SCMP_ACT_LOG")
        return sum(code == 0x25 for code, *_ in bpf_sim.decode(bpf))

    assert comparisons(few) == 0
    assert comparisons(many) > 0


def test_kernel_takes_it() -> None:
    """The kernel loads the large filter, and applies it as the simulator does."""
    profile = large_profile()
    script = """
import ctypes, os, struct, sys
bpf = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(bpf, len(bpf))
program = struct.pack("HxxxxxxQ", len(bpf) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(317, 1, int(sys.argv[1]), program) == 0, ctypes.get_errno()
for number in (435, 157, 165, 450, 101):
    libc.syscall(number, -1, 0, 0, 0, 0)
    print(ctypes.get_errno())
"""
    made = seccomp.compile(profile)
    run = subprocess.run(
        [sys.executable, "-c", script, str(made.flags)], input=made.bpf, stdout=subprocess.PIPE, check=True
    )
    # clone3 and a call that nobody knows, prctl (which is allowed), mount and ptrace.
    assert [int(line) for line in run.stdout.split()] == [
        errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EPERM,
    ]  # fmt: skip


OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "SCMP_CMP_NE": lambda a, b: a != b,
    "SCMP_CMP_LT": lambda a, b: a < b,
    "SCMP_CMP_LE": lambda a, b: a <= b,
    "SCMP_CMP_EQ": lambda a, b: a == b,
    "SCMP_CMP_GE": lambda a, b: a >= b,
    "SCMP_CMP_GT": lambda a, b: a > b,
}
VALUES = (
    0,
    1,
    5,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x100000000,
    0x100000005,
    0x8000000000000000,
    2**64 - 1,
)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators(operator: str) -> None:
    """Comparisons are unsigned and 64 bits wide, in every argument."""
    for index, value in itertools.product((0, 5), VALUES):
        # "nothing is less than 0" and its like: libseccomp makes what it is told of them.
        bpf = compile_bpf(call("mmap", args=[{"index": index, "value": value, "op": operator}]))
        for given in VALUES:
            args = [0] * 6
            args[index] = given
            wanted = bpf_sim.ALLOW if OPERATORS[operator](given, value) else EPERM
            assert answer(bpf, bpf_sim.X86_64, 9, *args) == wanted, (given, operator, value)


def test_masked_equal() -> None:
    """value is the mask, valueTwo what must be left; both halves of the argument count."""
    for mask, left in (
        (MASK, 0),
        (0xFF, 0x12),
        (0xFF000000FF, 0x1200000034),
        (2**64 - 1, 5),
        (1 << 63, 1 << 63),
    ):
        arg = {"index": 1, "value": mask, "valueTwo": left, "op": "SCMP_CMP_MASKED_EQ"}
        bpf = compile_bpf(call("mmap", args=[arg]))
        for given in (
            *VALUES,
            left,
            left | ~mask & 2**64 - 1,
            left ^ (mask & -mask),
            0x1200000034,
            0x12,
            0x112,
        ):
            wanted = bpf_sim.ALLOW if given & mask == left else EPERM
            assert answer(bpf, bpf_sim.X86_64, 9, 0, given) == wanted, (hex(given), hex(mask), hex(left))


def test_conditions_and() -> None:
    """Conditions on different arguments must all hold."""
    args = [{"index": index, "value": index, "op": "SCMP_CMP_EQ"} for index in (1, 2)]
    bpf = compile_bpf(call("mmap", args=args))
    for first, second in itertools.product(range(4), repeat=2):
        wanted = bpf_sim.ALLOW if (first, second) == (1, 2) else EPERM
        assert answer(bpf, bpf_sim.X86_64, 9, 0, first, second) == wanted


def test_conditions_or() -> None:
    """Two conditions on one argument make each condition of the rule a rule of its own."""
    args = [
        {"index": index, "value": value, "op": "SCMP_CMP_EQ"} for index, value in ((1, 1), (1, 3), (2, 2))
    ]
    bpf = compile_bpf(call("mmap", args=args))
    for first, second in itertools.product(range(5), repeat=2):
        wanted = bpf_sim.ALLOW if first in (1, 3) or second == 2 else EPERM
        assert answer(bpf, bpf_sim.X86_64, 9, 0, first, second) == wanted


@pytest.mark.parametrize(
    ("action", "errno_ret", "wanted"),
    [
        ("SCMP_ACT_ALLOW", None, bpf_sim.ALLOW),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", 0, bpf_sim.errno(0)),
        ("SCMP_ACT_ERRNO", 4094, bpf_sim.errno(4094)),
        ("SCMP_ACT_KILL", None, bpf_sim.KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, bpf_sim.KILL_PROCESS),
        ("SCMP_ACT_KILL_THREAD", None, bpf_sim.KILL_THREAD),
        ("SCMP_ACT_LOG", None, bpf_sim.LOG),
        ("SCMP_ACT_NOTIFY", None, bpf_sim.NOTIFY),
        ("SCMP_ACT_TRACE", None, bpf_sim.trace(errno.EPERM)),
        ("SCMP_ACT_TRACE", 0xFFFF, bpf_sim.trace(0xFFFF)),
        ("SCMP_ACT_TRAP", None, bpf_sim.TRAP),
    ],
)
def test_actions(action: str, errno_ret: int | None, wanted: int) -> None:
    """Every action of the specification, with its number, in a rule and (but for NOTIFY) as default."""
    default = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    rule = call("mmap", action=action, errnoRet=errno_ret)
    bpf = compile_bpf(rule, defaultAction=default, listenerPath="/x")
    assert answer(bpf, bpf_sim.X86_64, 9) == wanted
    assert answer(bpf, bpf_sim.X86_64, 10) == seccomp_profile.ACTIONS[default]
    if action != "SCMP_ACT_NOTIFY":
        bpf = compile_bpf(call("mmap", action=default), defaultAction=action, defaultErrnoRet=errno_ret)
        assert answer(bpf, bpf_sim.X86_64, 8) == wanted


def test_redundant_and_unknown_rules() -> None:
    """A rule that repeats the default is skipped but tells that the call is known; an unknown name is skipped."""
    bpf = compile_bpf(call("read"), call("mount", action="SCMP_ACT_ERRNO"), call("no_such_call"))
    assert [answer(bpf, bpf_sim.X86_64, number) for number in (0, 1, 165, 166)] == [
        bpf_sim.ALLOW, EPERM, EPERM, ENOSYS,
    ]  # fmt: skip


def test_tree_without_rules() -> None:
    """Many names and not one rule: libseccomp 2.5 makes nonsense of a tree of nothing."""
    names = [name_of(bpf_sim.X86_64, number) for number in range(100)]
    bpf = compile_bpf(call(*names), defaultAction="SCMP_ACT_ALLOW")
    assert {answer(bpf, bpf_sim.X86_64, number) for number in range(500)} == {bpf_sim.ALLOW}
    other = compile_bpf(call(*[f"no_such_call{index}" for index in range(100)]))
    assert {answer(other, bpf_sim.X86_64, number) for number in range(500)} == {EPERM}


@pytest.mark.parametrize("listed", [[], ["SCMP_ARCH_X86"], ["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"]])
def test_native_always(listed: list[str]) -> None:
    """The native architecture is in the filter whatever is listed, x32 is not, and others are killed."""
    bpf = compile_bpf(call("read", "mmap"), architectures=listed)
    assert answer(bpf, bpf_sim.X86_64, 0) == bpf_sim.ALLOW
    assert answer(bpf, bpf_sim.X86_64, 1) == EPERM
    assert answer(bpf, bpf_sim.X86_64, 10) == ENOSYS
    assert answer(bpf, X32, BIT) == bpf_sim.KILL_THREAD
    assert answer(bpf, bpf_sim.X86, 3) == (
        bpf_sim.ALLOW if "SCMP_ARCH_X86" in listed else bpf_sim.KILL_THREAD
    )
    assert answer(bpf, bpf_sim.AARCH64, 63) == (bpf_sim.ALLOW if len(listed) == 2 else bpf_sim.KILL_THREAD)


def test_socketcall() -> None:
    """On x86 a socket call is also reached through socketcall(2)."""
    bpf = compile_bpf(call("socket"), architectures=["SCMP_ARCH_X86"])
    assert answer(bpf, bpf_sim.X86, 102, 1) == bpf_sim.ALLOW
    assert answer(bpf, bpf_sim.X86, 102, 2) == EPERM


def test_joined_equals_library(tmp_path: Path) -> None:
    """One program per architecture, joined, answers as libseccomp's one program for all of them."""
    names = [name_of(bpf_sim.X86_64, number) for number in range(0, 440, 3)]
    listed = [name for name in names if name]
    bpf = compile_bpf(call(*listed), architectures=ALL_ARCHES, defaultAction="SCMP_ACT_LOG")
    ORACLE.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(ORACLE.seccomp_init(ctypes.c_uint32(bpf_sim.LOG)))
    for arch in (bpf_sim.X86, X32):
        assert ORACLE.seccomp_arch_add(context, ctypes.c_uint32(arch)) == 0
    for name in listed:
        number = ORACLE.seccomp_syscall_resolve_name(name.encode())
        assert ORACLE.seccomp_rule_add_array(context, ctypes.c_uint32(bpf_sim.ALLOW), number, 0, None) == 0
    with (tmp_path / "bpf").open("wb+") as stream:
        assert ORACLE.seccomp_export_bpf(context, stream.fileno()) == 0
        stream.seek(0)
        reference = stream.read()
    ORACLE.seccomp_release(context)
    for arch in (bpf_sim.X86_64, bpf_sim.X86, X32, bpf_sim.ARM):
        for number in numbers(arch):
            assert answer(bpf, arch, number) == answer(reference, arch, number), (hex(arch), number)


@pytest.mark.parametrize(
    ("profile", "path", "message"),
    [
        (
            {"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390X"]},
            "$.linux.seccomp.architectures[1]",
            "architecture 'SCMP_ARCH_S390X' has another byte order than this machine",
        ),
        (
            {
                "syscalls": [
                    call("read", args=[ONE]),
                    call("close", "read", action="SCMP_ACT_LOG", args=[ONE]),
                ]
            },
            "$.linux.seccomp.syscalls[1].names[1]",
            "the rule for 'read' contradicts an earlier one",
        ),
    ],
)
def test_refused_by_library(profile: Seccomp, path: str, message: str) -> None:
    """What only libseccomp can refuse is an error of the configuration with its place."""
    with pytest.raises(ConfigError) as caught:
        seccomp.compile({"defaultAction": "SCMP_ACT_ERRNO", **profile})
    assert (caught.value.path, caught.value.message) == (path, message)


@pytest.mark.parametrize(("code", "taken"), [(0, True), (4094, True), (4095, False)])
def test_largest_errno(code: int, taken: bool) -> None:
    """The rules allow what libseccomp takes: one less than the kernel, whose MAX_ERRNO is 4095."""
    profile: Seccomp = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": code,
        "syscalls": [call("read")],
    }
    answer, _, parts = kernel_seccomp.compile_profile(seccomp_profile.describe(profile).description)
    assert (answer > 0, bool(parts)) == (taken, taken)
    if taken:
        rules.check(profile)
        return
    with pytest.raises(ConfigError, match="4095 is greater than 4094, the largest errno") as caught:
        rules.check(profile)
    assert caught.value.path == "$.linux.seccomp.defaultErrnoRet"


def test_unknown_architecture() -> None:
    """An architecture that the library does not know is told by its index."""
    description = struct.pack("=3I", 0x50001, 2, 0) + b"x86\0vax\0"
    refused, where, parts = kernel_seccomp.compile_profile(description)
    assert (refused, where[:2], parts) == (-errno.ENOENT, (seccomp_profile.STEP_ARCH, 1), [])


@pytest.mark.parametrize("cut", [0, 3, 11, 20, 30, 44, 60])
def test_malformed_description(cut: int) -> None:
    """A description that ends too early is refused, not read beyond its end."""
    whole = seccomp_profile.describe(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ALL_ARCHES,
            "syscalls": [call("read", args=[ONE])],
        }
    ).description
    assert kernel_seccomp.compile_profile(whole)[0] > 0
    refused, where, parts = kernel_seccomp.compile_profile(whole[:cut])
    assert (refused, where[0], parts) == (-errno.EBADMSG, seccomp_profile.STEP_DESCRIPTION, [])
    assert kernel_seccomp.compile_profile(whole[:-1])[0] == -errno.EBADMSG


def test_hostile_counts() -> None:
    """Counts that the bytes do not bear out are refused quickly."""
    most = 0xFFFFFFFF
    for numbers_ in ((0, most, 0), (0, 0, most), (0, 32, 0)):
        assert kernel_seccomp.compile_profile(struct.pack("=3I", *numbers_))[0] == -errno.EBADMSG
    for rule in ((0x7FFF0000, most, 0), (0x7FFF0000, 0, most), (0x7FFF0000, 1, 0, 7)):
        description = struct.pack(f"={3 + len(rule)}I", 0, 0, 1, *rule)
        assert kernel_seccomp.compile_profile(description)[0] == -errno.EBADMSG


# --- cache ------------------------------------------------------------------------------------------------------------


def entries(root: Path) -> list[Path]:
    return sorted((root / seccomp.CACHE_NAME).iterdir())


PROFILE: Seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [call("read")]}
# A valid program that no profile leads to: who gets it got it from the cache.
PLANTED = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF1234)


def plant(entry: Path) -> None:
    """Replace the program of an entry, checksum included."""
    fields = entry.read_bytes().split(b"\n", 1)[0].split(b" ", 3)
    fields[1] = seccomp._digest(PLANTED).encode()
    entry.write_bytes(b" ".join(fields) + b"\n" + PLANTED)


def test_cache_hit(tmp_path: Path) -> None:
    """The second filter of a profile comes from the cache, private to its owner; another profile's does not."""
    first = seccomp.compile(PROFILE, str(tmp_path)).bpf
    (entry,) = entries(tmp_path)
    assert (tmp_path / seccomp.CACHE_NAME).stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o777 == 0o600
    assert seccomp.compile(PROFILE, str(tmp_path)).bpf == first == seccomp.compile(PROFILE).bpf
    plant(entry)
    assert seccomp.compile(PROFILE, str(tmp_path)).bpf == PLANTED
    # Differs in what is not part of libseccomp's input alone.
    other: Seccomp = {**PROFILE, "defaultErrnoRet": errno.ENOSYS}
    assert seccomp.compile(other, str(tmp_path)).bpf == seccomp.compile(other).bpf != first
    assert len(entries(tmp_path)) == 2


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def act(entry: Path) -> None:
        entry.write_bytes(change(entry.read_bytes()))

    return act


def make_link(entry: Path) -> None:
    target = entry.parent.parent / "target"
    entry.rename(target)
    entry.symlink_to(target)


@pytest.mark.parametrize(
    "spoil",
    [
        rewrite(lambda content: content[:-1]),
        rewrite(lambda content: content[:-1] + b"\x01"),
        rewrite(lambda content: b"\0" * len(content)),
        rewrite(lambda _: b""),
        rewrite(lambda content: content.replace(b":", b":1", 1)),  # another library
        rewrite(lambda content: content.replace(b" /", b" /no-such", 1)),
        rewrite(lambda content: content.replace(b"seccomp-1", b"seccomp-0", 1)),
        lambda entry: entry.chmod(0o640),
        lambda entry: entry.parent.chmod(0o770),
        make_link,
    ],
)
def test_cache_distrust(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """An entry that is damaged, of another library or open to others is not used."""
    good = seccomp.compile(PROFILE, str(tmp_path)).bpf
    (entry,) = entries(tmp_path)
    plant(entry)
    spoil(entry)
    assert seccomp.compile(PROFILE, str(tmp_path)).bpf == good


@pytest.mark.root
def test_cache_of_another(tmp_path: Path) -> None:
    """A directory that somebody else owns is not used."""
    good = seccomp.compile(PROFILE, str(tmp_path)).bpf
    plant(entries(tmp_path)[0])
    os.chown(tmp_path / seccomp.CACHE_NAME, 65534, 65534)
    assert seccomp.compile(PROFILE, str(tmp_path)).bpf == good


def test_cache_linked_directory(tmp_path: Path) -> None:
    """A symbolic link in the cache's place is not followed, not even to write."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / seccomp.CACHE_NAME).symlink_to("elsewhere")
    assert seccomp.compile(PROFILE, str(tmp_path)).bpf == seccomp.compile(PROFILE).bpf
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_cache_no_root(tmp_path: Path) -> None:
    """Without a root directory there is a filter, and no directory is made for the cache alone."""
    assert seccomp.compile(PROFILE, str(tmp_path / "no" / "such")).bpf == seccomp.compile(PROFILE).bpf
    assert list(tmp_path.iterdir()) == []


def test_cache_limit(tmp_path: Path) -> None:
    """The cache does not grow without end, keeps the newest, and clears up after killed writers."""
    for code in range(100):
        seccomp.compile({**PROFILE, "defaultErrnoRet": code + 100}, str(tmp_path))
        if code == 10:
            (tmp_path / seccomp.CACHE_NAME / ".1").touch()
        assert len(entries(tmp_path)) <= 65
    last: Seccomp = {**PROFILE, "defaultErrnoRet": 199}
    newest = max(entries(tmp_path), key=lambda entry: entry.stat().st_mtime_ns)
    plant(newest)
    assert seccomp.compile(last, str(tmp_path)).bpf == PLANTED
    assert not (tmp_path / seccomp.CACHE_NAME / ".1").exists()


# --- what exists here -------------------------------------------------------------------------------------------------


def test_supported() -> None:
    """What `features` tells is what the kernel and the library say."""
    with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as stream:
        words = stream.read().split()
    actions = {"SCMP_ACT_" + word.upper() for word in words if word != "user_notif"} | {"SCMP_ACT_KILL"}
    actions |= {"SCMP_ACT_NOTIFY"} if "user_notif" in words else set()
    found = seccomp.supported()
    assert set(found.actions) == actions
    assert found.enabled
    assert {"SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"} <= set(found.archs)
    assert len(found.operators) == 7
    assert set(found.supported_flags) <= set(found.known_flags)
    assert "SECCOMP_FILTER_FLAG_SPEC_ALLOW" in found.supported_flags
    assert tuple(int(part) for part in found.version.split(".")) >= (2, 5, 0)
    assert kernel_seccomp.has_action(0x12340000) is False
    assert kernel_seccomp.has_flags(1 << 31) is False
    # WAIT_KILLABLE_RECV needs a listener.
    assert kernel_seccomp.has_flags(1 << 5) is False


def test_library_is_lazy() -> None:
    """The shim does not load libseccomp before it is asked for."""
    script = (
        "from pyrunc.kernel import seccomp; maps = lambda: 'libseccomp' in open('/proc/self/maps').read();"
        "print(maps(), seccomp.version() != '', maps())"
    )
    run = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert run.stdout == "False True True\n"
