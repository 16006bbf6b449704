"""wait: the exit status of a container that another process than its parent asks for. pidfd_open(2), ioctl_pidfd(2).

Who has a pidfd from before the end learns the status from it once the parent has collected init (Linux 6.15). Until
then, and on older kernels, /proc tells it of a process that is dead and not collected. Of one that is gone the recorder
has kept it, where create was asked for one.
"""

from __future__ import annotations

import errno
import os
import select

from pyrunc.container import process as container_process
from pyrunc.errors import KernelError, StateError
from pyrunc.kernel import container as kernel_container
from pyrunc.kernel import process as kernel_process
from pyrunc.kernel import wait_status
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.kernel.container import Container
    from pyrunc.requests import Context

# How long a dead init may stay uncollected when only its collection tells us the status.
_COLLECT_MS = 10_000


def wait(ctx: Context, container_id: str) -> int:
    """Block until init ends, be it started by then or not; its exit status, or 128 + the signal.

    Raise StateError if there is no such container, or when its status cannot be known any more.
    """
    found = lookup.load(ctx, container_id)
    if found.status == "creating":
        raise StateError("cannot wait for a container that is still being created")
    pidfd = _open(found)
    if pidfd < 0:
        status = _recorded(ctx, container_id)
    else:
        try:
            status = _status(found, pidfd)
        finally:
            os.close(pidfd)
    return wait_status.shell(status)


def _recorded(ctx: Context, container_id: str) -> int:
    from pyrunc.container import exit_status

    status = exit_status.recorded(f"{ctx.root}/{container_id}")
    if status is None:
        raise StateError(
            f"the exit status of container '{container_id}' is not known: it ended before",
            hint="call wait while the container is created or running, or create it with --record-exit",
        )
    return status


def _open(found: Container) -> int:
    """A pidfd of init, dead or alive; -1 if it is gone, or another process has its pid by now."""
    if found.init_pid <= 0:
        return -1
    try:
        pidfd = os.pidfd_open(found.init_pid)
    except ProcessLookupError:
        return -1
    except OSError as error:
        raise KernelError("pidfd_open", error.errno or 0, str(found.init_pid)) from error
    if kernel_container.process_start_time(found.init_pid) == found.start_time:
        return pidfd
    os.close(pidfd)
    return -1


def _status(found: Container, pidfd: int) -> int:
    """The wait status (waitpid(2)) of the process when it has ended."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.poll()
    # /proc first: it is the one that forgets.
    status = container_process.exit_code(found.init_pid, found.start_time)
    if status is not None:
        return status
    try:
        status = kernel_process.pidfd_exit_code(pidfd)
        if status is None:
            # Dead, but its parent has not asked yet: POLLHUP, which is always reported, tells when it has.
            poller.modify(pidfd, 0)
            poller.poll(_COLLECT_MS)
            status = kernel_process.pidfd_exit_code(pidfd)
    except KernelError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
        raise StateError(
            "the exit status is not known: before Linux 6.15 only the parent of the container's process is told",
            hint="use a newer kernel, or pyrunc run without --detach",
        ) from error
    if status is None:
        raise StateError(
            "the exit status is not known: the container has ended, but nobody collects its process"
        )
    return status
