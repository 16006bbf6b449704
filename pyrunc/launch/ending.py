"""A child of ours comes to its end within a deadline: also one that a freezer holds or a debugger keeps."""

from __future__ import annotations

import _signal
import os
import select
import time

from pyrunc.errors import ContainerError, KernelError
from pyrunc.host import proc

_SIGKILL = 9
# For what SIGKILL does not end at once: a process that is frozen, or hangs in a device or file system.
_END_SECONDS = 10.0
_TRY_SECONDS = 0.2


def collect(pid: int, pidfd: int, seconds: float, lost: int = 0) -> int | None:
    """The wait status of a child once it has ended; None if it has not in time, `lost` when it was collected before.

    The pidfd alone does not tell: a dead process that somebody traces is not ours before the tracer has let go.
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
    """SIGKILL for a child, which may have ended or been collected already; its wait status, 0 if that was collected.

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
    """Take a process out of the v1 freezer cgroup that holds it: SIGKILL does not reach it there, as it does on v2.

    The cgroup itself stays as it is: it may be that of a paused container.
    """
    try:
        for line in proc.read_file(f"/proc/{pid}/cgroup").split("\n"):
            _, _, place = line.partition(":")
            controllers, _, path = place.partition(":")
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
