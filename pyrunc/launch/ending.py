"""Ends a child of ours within a deadline, even if it is frozen or traced."""

from __future__ import annotations

import _signal
import os
import select
import time

from pyrunc.errors import ContainerError, KernelError
from pyrunc.host import proc

_SIGKILL = 9
# The time for a process that SIGKILL does not end at once: it is frozen, or hangs in a device or file system.
_END_SECONDS = 10.0
_TRY_SECONDS = 0.2


def collect(pid: int, pidfd: int, seconds: float, lost: int = 0) -> int | None:
    """Return the wait status of a child; None if it does not end in time, `lost` if it was reaped before.

    The pidfd is not enough: a dead process that is traced cannot be reaped by us before its tracer detaches.
    """
    deadline = time.monotonic() + seconds
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    pause = 0.001
    while True:
        left = deadline - time.monotonic()
        ended = bool(poller.poll(max(0, left) * 1000))
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return lost
        if found:
            return status
        if left <= 0:
            return None
        if ended:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)


def end(pid: int, pidfd: int, seconds: float = _END_SECONDS) -> int:
    """Kill a child, which may have ended or been reaped already. Return its wait status, 0 if it was reaped.

    Raise ContainerError if it does not end in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            _signal.pidfd_send_signal(pidfd, _SIGKILL)
        except ProcessLookupError:
            pass
        status = collect(pid, pidfd, _TRY_SECONDS)
        if status is not None:
            return status
        if time.monotonic() > deadline:
            raise ContainerError(
                f"process {pid} does not end {seconds:.0f} s after SIGKILL",
                hint="it hangs in a device or file system, or another process traces it",
            )
        _unfreeze(pid)


def _unfreeze(pid: int) -> None:
    """Move a process out of its v1 freezer cgroup: SIGKILL does not end it there, unlike on v2.

    The cgroup itself stays as it is: it may be that of a paused container.
    """
    try:
        for controllers, path in proc.cgroups(pid):
            if "freezer" not in controllers.split(","):
                continue
            top = _freezer_mount()
            if top and path != "/":
                with open(f"{top}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(pid))
    except (OSError, KernelError):
        pass  # who does not end is reported


def _freezer_mount() -> str:
    for fields, (kind, _source, options) in proc.mountinfo():
        if kind == "cgroup" and "freezer" in options.split(","):
            return proc.unescape(fields[4])
    return ""
