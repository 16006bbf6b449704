"""libseccomp (csrc/shim/seccomp_filter.c), and what the kernel knows of seccomp(2)."""

from __future__ import annotations

import os

from pyrunc._shim import ffi, lib
from pyrunc.kernel.shim import check

TYPE_CHECKING = False

_SECCOMP_SPACE = 1 << 18  # bytes for the programs of all architectures; the kernel takes 32 kB in the end


def compile_profile(
    description: bytes,
) -> tuple[int, tuple[int, int, int, int], list[tuple[int, int, bytes]]]:
    """Return libseccomp's programs for a description (csrc/shim/seccomp_filter.h): (answer, where, parts).

    `answer` is negative (-errno) on failure, then `where` is (step, arch, rule, name); a part is (SCMP_ARCH_* token,
    largest system call number named, struct sock_filter[]). The caller has the names for the error message.
    """
    space = ffi.new("uint8_t[]", _SECCOMP_SPACE)
    result = ffi.new("struct shim_seccomp_result *")
    answer = lib.shim_seccomp_compile(
        ffi.from_buffer(description), len(description), space, _SECCOMP_SPACE, result
    )
    parts = []
    offset = 0
    for index in range(result.part_count):
        part = result.parts[index]
        parts.append((part.arch, part.last, bytes(ffi.buffer(space + offset, part.length))))
        offset += part.length
    return answer, (result.step, result.arch, result.rule, result.name), parts


def own_calls(bpf: bytes, own: int) -> bytes:
    """Return the instructions to put before a filter that refuses init's later calls; b"" if it does not."""
    space = ffi.new("uint8_t[]", 1024)
    size = check(lib.shim_seccomp_own_calls(ffi.from_buffer(bpf), len(bpf), own, space, 1024), "seccomp")
    return bytes(ffi.buffer(space, size))


def answer_to_execve(bpf: bytes) -> int:
    """What a filter answers execve(2) in a program of this architecture: SECCOMP_RET_*."""
    answer: int = lib.shim_seccomp_execve(ffi.from_buffer(bpf), len(bpf))
    return answer


def version() -> str:
    """Return libseccomp's version, "" if it cannot be loaded."""
    version = lib.shim_seccomp_version()
    return "" if version < 0 else f"{version >> 16}.{version >> 8 & 0xFF}.{version & 0xFF}"


def library() -> str:
    """The file libseccomp was loaded from. dladdr(3)."""
    name = ffi.new("char[]", 4096)
    check(lib.shim_seccomp_library(name, 4096), "dlopen", "libseccomp.so.2")
    return os.fsdecode(ffi.string(name))


def knows_arch(name: str) -> bool:
    """Return whether libseccomp knows an architecture of this name ("x86_64")."""
    answer: int = lib.shim_seccomp_knows_arch(name.encode())
    return answer > 0


def has_action(action: int) -> bool:
    """Return whether the kernel has a SECCOMP_RET_* action. seccomp(2) SECCOMP_GET_ACTION_AVAIL."""
    answer: int = lib.shim_seccomp_has_action(action)
    return answer > 0


def has_flags(flags: int) -> bool:
    """Return whether the kernel accepts these SECCOMP_FILTER_FLAG_* together. seccomp(2)."""
    answer: int = lib.shim_seccomp_has_flags(flags)
    return answer > 0
