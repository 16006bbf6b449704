"""System calls that Python lacks, about processes, descriptors and memory files. Every function raises KernelError."""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from pyrunc._shim import ffi, lib
from pyrunc.errors import KernelError
from pyrunc.kernel.shim import check
from pyrunc.spec.namespaces import CLONE_NEWNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# struct pidfd_info in its first size: mask in the first 8 bytes, exit_code in the last 4. linux/pidfd.h
_PIDFD_INFO_SIZE = 64
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_SIZE << 16 | 0xFF << 8 | 11
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 1, 2, 0x10
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL SHRINK GROW WRITE
_SIZE_SEALS = 0x1 | 0x2 | 0x4  # SEAL SHRINK GROW
_SPAWN_STEPS = ("clone3", "chdir", "dup2", "execve", "mount")


def snapshot(fd: int, watched: Sequence[str]) -> tuple[list[str], dict[bytes, bytes], list[str]] | None:
    """Write the memory of this process to `fd`: csrc/command/snapshot.h. `watched` are the paths it also depends on.

    Return None in this process; in each restored from the snapshot its (argv, environment, options of boot.py).
    """
    arrival = ffi.new("struct snapshot_arrival *")
    paths = b"".join([os.fsencode(path) + b"\0" for path in watched])
    if not check(lib.snapshot_write(fd, paths, len(paths), arrival), "snapshot"):
        return None
    argv = [os.fsdecode(ffi.string(arrival.argv[i])) for i in range(arrival.argc)]
    told = [os.fsdecode(ffi.string(arrival.told[i])) for i in range(arrival.told_count)]
    environment: dict[bytes, bytes] = {}
    at = 0
    while arrival.envp[at] != ffi.NULL:
        name, equals, value = ffi.string(arrival.envp[at]).partition(b"=")
        if equals:
            environment.setdefault(name, value)
        at += 1
    return argv, environment, told


def spawn(
    argv: Sequence[bytes],
    env: Sequence[bytes],
    *,
    exe_fd: int = -1,
    path: str = "",
    cwd: str = "",
    stdio: tuple[int, int, int] = (-1, -1, -1),
    keep: Sequence[int] = (),
    clone_flags: int = 0,
    cgroup_fd: int = -1,
    new_session: bool = False,
    bound: tuple[str, str] | None = None,
) -> tuple[int, int]:
    """Start a program and return (pid, pidfd) once it has exec'd; the child never runs Python.

    The program is `exe_fd` (a memfd) or `path`; `stdio` entries of -1 are inherited; `keep` are the descriptors that
    survive exec; `clone_flags` are CLONE_NEW* bits; `cgroup_fd` a cgroup v2 directory to start in. `bound`: in a mount
    namespace of its own, the first path with all that is mounted below it shows on the second. clone3(2).
    """
    held = [ffi.new("char[]", item) for item in (*argv, *env)]
    request = ffi.new("struct shim_spawn *")
    request.exe_fd = exe_fd
    path_bytes = ffi.new("char[]", os.fsencode(path))
    request.path = path_bytes
    argv_array = ffi.new("char *[]", [*held[: len(argv)], ffi.NULL])
    env_array = ffi.new("char *[]", [*held[len(argv) :], ffi.NULL])
    request.argv = argv_array
    request.envp = env_array
    cwd_bytes = ffi.new("char[]", os.fsencode(cwd)) if cwd else ffi.NULL
    request.cwd = cwd_bytes
    request.stdio = stdio
    keep_array = ffi.new("int[]", list(keep))
    request.keep = keep_array
    request.keep_count = len(keep)
    request.clone_flags = clone_flags | (CLONE_NEWNS if bound else 0)
    if bound:
        bound_bytes = [ffi.new("char[]", os.fsencode(item)) for item in bound]
        request.bound, request.bound_on = bound_bytes
    request.cgroup_fd = cgroup_fd
    request.new_session = 1 if new_session else 0
    pid = lib.shim_spawn(request)
    if pid < 0:
        step = _SPAWN_STEPS[request.failed_step]
        names = {"chdir": cwd, "execve": path or None, "mount": bound[0] if bound else None}
        raise KernelError(step, -pid, names.get(step))
    return pid, request.pidfd


def sealed_memfd(name: str, content: bytes) -> int:
    """Return a close-on-exec memfd with `content`, sealed against changes. memfd_create(2), fcntl(2) F_ADD_SEALS."""
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    call = "memfd_create"
    fd = -1
    try:
        try:
            fd = os.memfd_create(name, flags | _MFD_EXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 6.3
                raise
            fd = os.memfd_create(name, flags)
        call = "write"
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        call = "fcntl"
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise KernelError(call, error.errno or 0, name) from error
    return fd


def shared_memfd(name: str, size: int) -> int:
    """Return a close-on-exec memfd of `size` zeros that can be written but keeps its size. memfd_create(2)."""
    try:
        fd = os.memfd_create(name, _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
    except OSError as error:
        raise KernelError("memfd_create", error.errno or 0, name) from error
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SIZE_SEALS)
    except OSError as error:
        os.close(fd)
        raise KernelError("ftruncate", error.errno or 0, name) from error
    return fd


def pidfd_exit_code(pidfd: int) -> int | None:
    """Return the wait status of a process that was reaped, by any process; None before that. ioctl_pidfd(2).

    Raise KernelError: ENOTTY or EINVAL before Linux 6.13; up to 6.14 the answer is EINVAL, too.
    """
    info = bytearray(_PIDFD_INFO_SIZE)
    info[:8] = _PIDFD_INFO_EXIT.to_bytes(8, sys.byteorder)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except ProcessLookupError:
        # Reaped: a kernel that keeps the status would have returned it.
        raise KernelError("ioctl", errno.EINVAL, "PIDFD_GET_INFO") from None
    except OSError as error:
        raise KernelError("ioctl", error.errno or 0, "PIDFD_GET_INFO") from error
    if not int.from_bytes(info[:8], sys.byteorder) & _PIDFD_INFO_EXIT:
        return None
    return int.from_bytes(info[-4:], sys.byteorder)


def netlink_in(netns: int) -> int:
    """Return a route netlink socket in the descriptor's network namespace; we stay in ours. rtnetlink(7)."""
    return check(lib.shim_netlink_in(netns), "setns", "the container's network namespace")


def signal_fd(numbers: Iterable[int]) -> int:
    """Return a descriptor that reads these signals, which the caller has blocked. signalfd(2)."""
    return check(lib.shim_signal_fd(sum(1 << number - 1 for number in numbers)), "signalfd4")


def set_subreaper(on: bool) -> None:
    """Adopt the orphans of our children, so that attached run and exec can wait for them. prctl(2)."""
    import prctl  # takes 1 ms, only for attached commands

    try:
        prctl.set_child_subreaper(1 if on else 0)
    except OSError as error:
        raise KernelError("prctl", error.errno or 0, "PR_SET_CHILD_SUBREAPER") from error


# --- seccomp: libseccomp behind csrc/shim/seccomp_filter.c ------------------------------------------------------------


def sched_setattr(pid: int, attributes: bytes) -> None:
    """Set a process's struct sched_attr. sched_setattr(2)."""
    check(lib.shim_sched_setattr(pid, ffi.from_buffer(attributes)), "sched_setattr")


# --- Service managers: libsystemd's sd-bus behind csrc/shim/sdbus.c ---------------------------------------------------
