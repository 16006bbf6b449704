"""A process by its pid and start time, from /proc."""

from __future__ import annotations

import errno
import os

from pyrunc.errors import KernelError
from pyrunc.kernel import container as kernel_container

TYPE_CHECKING = False

# include/linux/sched.h
_PF_EXITING = 4


def has_ended(pid: int, started: int) -> bool:
    """Return whether the process of that pid and start time is gone or a zombie.

    Raise KernelError, StateError if that cannot be found out.
    """
    pidfd = kernel_container.process_open(pid, started)
    if pidfd >= 0:
        os.close(pidfd)
    return pidfd < 0


def _read_proc(pid: int, name: str) -> bytes | None:
    """Return a file of /proc/PID, or None if the process is gone or we may not read it. Raise KernelError."""
    path = f"/proc/{pid}/{name}"
    call = "open"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            call = "read"
            return os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM):
            return None
        raise KernelError(call, error.errno or 0, path) from error


def stat_fields(stat: bytes) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third (the state) on; none if the file was empty. proc(5)

    The name before them, in parentheses, may itself contain spaces and parentheses.
    """
    return stat.rpartition(b")")[2].split()


def stat(pid: int) -> list[bytes] | None:
    """Return stat_fields() of a process, or None if it is gone or we may not look. Raise KernelError."""
    text = _read_proc(pid, "stat")
    return None if text is None else stat_fields(text)


def is_ending(pid: int, started: int) -> bool:
    """Whether it has ended, or is about to: its namespaces go, and those with it in a pid namespace, before it is dead.

    Raise KernelError, StateError if that cannot be known.
    """
    if has_ended(pid, started):
        return True
    fields = stat(pid)
    if fields is None:
        return has_ended(pid, started)
    return bool(int(fields[6]) & _PF_EXITING)


def exit_code(pid: int, started: int) -> int | None:
    """Return the wait status of a zombie: field 52 of /proc/PID/stat. proc(5).

    None if it is not a zombie, or if we may not know: the kernel then shows 0 as well.
    """
    # This needs more permission than the status: if we can read it, the status is real. ptrace(2), access mode checking
    if _read_proc(pid, "personality") is None:
        return None
    fields = stat(pid) or []
    if len(fields) < 50 or int(fields[19]) != started or fields[0] != b"Z":
        return None
    return int(fields[49])
