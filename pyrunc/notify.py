"""Readiness as systemd knows it (sd_notify(3)), from inside a container to the NOTIFY_SOCKET of our caller.

    create    makes <root>/<id>/notify, which the container sees at /run/notify, and tells it where the socket will be
    start     makes the socket in it, lets the program run, and waits until it says READY=1, or ends

What the container says is not passed on as it is: of the host's service manager it may only ask this one thing.
Imported by runtime and runtime_create when NOTIFY_SOCKET is in play. Imports errors only.
"""

from __future__ import annotations

import _socket
import os
import select

from pyrunc.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pyrunc.spec_types import Spec

DIRECTORY = "notify"
NAME = "notify.sock"
INSIDE = "/run/notify"
ENVIRONMENT = f"NOTIFY_SOCKET={INSIDE}/{NAME}"
# As long as systemd's own clients wait for it to have seen a message, sd_notify_barrier(3).
_BARRIER_MS = 30_000
_LONGEST = 4096


def wanted() -> str:
    """Our caller's socket: a path, or "@" and an abstract name; "" when it is no service manager."""
    return os.environ.get("NOTIFY_SOCKET", "")


def prepare(spec: Spec, directory: str) -> None:
    """Make the directory for the socket in the state directory, and mount it in the configuration in memory.

    Raises KernelError.
    """
    path = f"{directory}/{DIRECTORY}"
    try:
        os.mkdir(path)
        # Behind the state directory's 0700 nobody else gets here; inside, any user of the container must.
        os.chmod(path, 0o755)  # noqa: S103 - as said
    except OSError as error:
        raise KernelError("mkdir", error.errno or 0, path) from error
    options = ["bind", "nosuid", "nodev", "noexec", "ro"]
    spec["mounts"] = [
        *(spec.get("mounts") or ()),
        {"destination": INSIDE, "type": "bind", "source": path, "options": options},
    ]


def _bind(sock: _socket.socket, directory: str) -> None:
    path = f"{directory}/{DIRECTORY}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # By descriptor: the path itself may be longer than the 107 bytes of a socket address.
            sock.bind(f"/proc/self/fd/{fd}/{NAME}")
            os.chmod(NAME, 0o777, dir_fd=fd)  # noqa: S103 - see prepare
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError("bind", error.errno or 0, f"{path}/{NAME}") from error


def _connect(sock: _socket.socket, address: str) -> None:
    try:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        raise KernelError(
            "connect", error.errno or 0, address, hint="NOTIFY_SOCKET names the service manager's socket"
        ) from error


class Proxy:
    """The container's socket and the host's: made before the program runs, so that no word of it is lost."""

    __slots__ = ("_host", "_inside")

    def __init__(self, directory: str, address: str) -> None:
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC
        self._host = _socket.socket(_socket.AF_UNIX, kind)
        self._inside = _socket.socket(_socket.AF_UNIX, kind)
        try:
            _connect(self._host, address)
            _bind(self._inside, directory)
        except BaseException:
            self.__exit__()
            raise

    def fileno(self) -> int:
        """What becomes readable when the container has said something."""
        return self._inside.fileno()

    def relay(self, main_pid: int) -> bool:
        """Read one message; when it says READY=1 pass that on with `main_pid`, the service's main process.

        False when it says something else. Raises KernelError.
        """
        if b"READY=1" not in self._inside.recv(_LONGEST).split(b"\n"):
            return False
        try:
            self._host.send(b"READY=1\nMAINPID=%d\n" % main_pid)
            self._barrier()
        except OSError as error:
            raise KernelError("send", error.errno or 0, wanted()) from error
        return True

    def _barrier(self) -> None:
        """Wait until the message was seen: the manager closes the pipe that comes after it. sd_notify_barrier(3)."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, write.to_bytes(4, "little"))
                self._host.sendmsg([b"BARRIER=1"], [rights])
            finally:
                os.close(write)
            poller = select.poll()
            poller.register(read, 0)
            poller.poll(_BARRIER_MS)
        finally:
            os.close(read)

    def wait(self, pid: int, pidfd: int) -> None:
        """Come back when the container is ready, or its init has ended. Raises KernelError."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        while True:
            events = dict(poller.poll())
            if self.fileno() in events:
                # What it said before it ended still counts.
                if self.relay(pid):
                    return
            elif pidfd in events:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.close()
        self._host.close()
