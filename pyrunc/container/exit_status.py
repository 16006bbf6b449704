"""The exit status of a container whose process is gone: recorded by csrc/recorder/main.c, read by wait.

The file `exit` of the state directory is empty while the container runs; then it has the wait status (waitpid(2)) in
decimal.
"""

from __future__ import annotations

import fcntl
import os
import time

from pyrunc.container.directory import EXIT, open_ours
from pyrunc.errors import ContainerError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.container.directory import StateDir

_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(__file__)), "recorder")
# How long the recorder may take to write the file after the end of the container.
_WRITE_SECONDS = 5.0


def start(directory: StateDir, pidfd: int) -> None:
    """Start a recorder for the process of `pidfd`, which outlives us. Raise KernelError, ContainerError."""
    directory.write(EXIT, b"")
    fds = []
    try:
        # An open file description of its own: ours would share the lock. And not one of the numbers 3 and 4.
        fresh = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fds.append(fresh)
        fds += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (pidfd, fresh)]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
            (os.POSIX_SPAWN_DUP2, fds[1], 3),
            (os.POSIX_SPAWN_DUP2, fds[2], 4),
        ]
        pid = os.posix_spawn(_PROGRAM, ["pyrunc-recorder"], {}, file_actions=actions, setsigmask=[])
    except OSError as error:
        raise KernelError("posix_spawn", error.errno or 0, _PROGRAM) from error
    finally:
        for fd in fds:
            os.close(fd)
    # The first of its two processes, which only starts the other.
    if os.waitpid(pid, 0)[1] != 0:
        raise ContainerError("the recorder of the exit status could not be started")


def recorded(directory: str) -> int | None:
    """Return the wait status of the stopped container, or None if it was not recorded."""
    deadline = time.monotonic() + _WRITE_SECONDS
    while True:
        try:
            with open(open_ours(f"{directory}/{EXIT}"), encoding="ascii") as stream:
                text = stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KernelError("open", error.errno or 0, f"{directory}/{EXIT}") from error
        if text:
            return int(text)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)
