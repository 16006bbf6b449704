"""Readiness notification (sd_notify(3)) from inside a container to the NOTIFY_SOCKET of our caller.

    create    makes <root>/<id>/notify, which the container sees at /run/notify, and tells it where the socket will be
    start     makes the socket in it, lets the program run, and waits until it says READY=1, or ends

Only READY=1 is passed on: the container must not send anything else to the host's service manager.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from pyrunc.errors import KernelError
from pyrunc.kernel import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pyrunc.spec.shapes import Spec

DIRECTORY = "notify"
NAME = "notify.sock"
INSIDE = "/run/notify"
ENVIRONMENT = f"NOTIFY_SOCKET={INSIDE}/{NAME}"
# The time that systemd's own clients wait for it to process a message, sd_notify_barrier(3).
_BARRIER_SECONDS = 30.0
_LONGEST = 4096
_LISTENING, _SENDING, _BARRING, _BARRED, _DONE = range(5)


def wanted() -> str:
    """Return our caller's socket: a path, or "@" and an abstract name; "" if it is not a service manager."""
    return os.environ.get("NOTIFY_SOCKET", "")


def mount(spec: Spec, directory: str) -> None:
    """Mount what make() makes in the state directory, in the configuration in memory."""
    options = ["bind", "nosuid", "nodev", "noexec", "ro"]
    spec["mounts"] = [
        *(spec.get("mounts") or ()),
        {"destination": INSIDE, "type": "bind", "source": f"{directory}/{DIRECTORY}", "options": options},
    ]


def make(directory: str) -> None:
    """Make the directory for the socket in the state directory. Raise KernelError."""
    path = f"{directory}/{DIRECTORY}"
    try:
        os.mkdir(path)
        # The state directory has mode 0700, so no other user gets here; inside, any user of the container must.
        os.chmod(path, 0o755)  # noqa: S103 - as said
    except OSError as error:
        raise KernelError("mkdir", error.errno or 0, path) from error


def _bind(sock: _socket.socket, directory: str) -> None:
    path = f"{directory}/{DIRECTORY}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # By descriptor: the path itself may be longer than the 107 bytes of a socket address.
            sock.bind(f"/proc/self/fd/{fd}/{NAME}")
            _open_to_all(NAME, fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError("bind", error.errno or 0, f"{path}/{NAME}") from error


def _open_to_all(name: str, directory: int) -> None:
    """Let any user of the container send. No link is followed: a container that may mount can write here."""
    made = os.open(name, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{made}", 0o777)  # noqa: S103 - see make
    finally:
        os.close(made)


def _connect(sock: _socket.socket, address: str) -> None:
    try:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        raise KernelError(
            "connect", error.errno or 0, address, hint="NOTIFY_SOCKET names the service manager's socket"
        ) from error


class Proxy:
    """The container's socket and the host's: made before the program runs, so that no message is lost.

    It waits in turn for READY=1 from the container, for room in the manager's queue, and until the manager has
    processed the message (the barrier). Only the first wait has no deadline.
    """

    __slots__ = ("_barrier", "_host", "_inside", "_main_pid", "_state", "failure")

    def __init__(self, directory: str, address: str, main_pid: int) -> None:
        """`main_pid` is reported to the manager as the service's main process."""
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC
        self._main_pid = main_pid
        self._state = _LISTENING
        self._barrier = -1
        self.failure: KernelError | None = None
        self._host = _socket.socket(_socket.AF_UNIX, kind)
        self._inside = _socket.socket(_socket.AF_UNIX, kind)
        try:
            _connect(self._host, address)
            _bind(self._inside, directory)
        except BaseException:
            self.__exit__()
            raise

    def waits_for(self) -> tuple[int, int] | None:
        """Return the descriptor and the poll(2) events that `step` waits for, or None if all is done."""
        return {
            _LISTENING: (self._inside.fileno(), select.POLLIN),
            _SENDING: (self._host.fileno(), select.POLLOUT),
            _BARRING: (self._host.fileno(), select.POLLOUT),
            _BARRED: (self._barrier, 0),
        }.get(self._state)

    def owes(self) -> bool:
        """Return whether the container is ready and the manager does not know yet."""
        return self._state in (_SENDING, _BARRING, _BARRED)

    def step(self) -> None:
        """Continue after the events that were waited for. After a `failure` do nothing more."""
        state, self._state = self._state, _DONE
        try:
            self._state = self._next(state)
        except BlockingIOError:
            self._state = state
        except OSError as error:
            self.failure = KernelError("send", error.errno or 0, wanted())

    def _next(self, state: int) -> int:
        if state == _LISTENING:
            said = self._inside.recv(_LONGEST, _socket.MSG_DONTWAIT)
            return _SENDING if b"READY=1" in said.split(b"\n") else _LISTENING
        if state == _SENDING:
            self._host.send(b"READY=1\nMAINPID=%d\n" % self._main_pid, _socket.MSG_DONTWAIT)
            return _BARRING
        if state == _BARRING:
            self._send_barrier()
            return _BARRED
        return _DONE

    def _send_barrier(self) -> None:
        """Send a pipe, which the manager closes when it has processed all messages before. sd_notify_barrier(3)."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self._host.sendmsg([b"BARRIER=1"], descriptors.beside(write), _socket.MSG_DONTWAIT)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._barrier = read

    def wait(self, pidfd: int) -> None:
        """Wait until the manager knows that the container is ready, or init has ended. Raise KernelError."""
        deadline = 0.0
        while (wanted_now := self.waits_for()) is not None:
            poller = select.poll()
            poller.register(*wanted_now)
            if not self.owes():
                poller.register(pidfd, select.POLLIN)
            elif not deadline:
                deadline = time.monotonic() + _BARRIER_SECONDS
            left = max(deadline - time.monotonic(), 0) if deadline else -1
            ready = dict(poller.poll(left * 1000 if deadline else None))
            if wanted_now[0] in ready:
                # A message that it sent before it ended still counts.
                self.step()
            elif not ready or pidfd in ready:
                return
        if self.failure:
            raise self.failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.close()
        self._host.close()
        if self._barrier >= 0:
            os.close(self._barrier)
