"""What tests of terminals share: a pty of our own with a command on it, and sockets that receive descriptors."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


class Screen:
    """A command whose standard streams and controlling terminal are a pty of ours.

    `expect` reads what it shows; `send` types; `resize` changes the window, which raises SIGWINCH.
    """

    def __init__(self, argv: Sequence[str], rows: int = 30, columns: int = 100) -> None:
        self.master, self.slave = pty.openpty()
        self._seen = b""
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd="/",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        """Type."""
        os.write(self.master, text.encode())

    def expect(self, text: str, timeout: float = 30) -> str:
        """Read until `text` is shown; all that was shown up to and with it."""
        self._seen, found = read_until(self.master, text, self._seen, timeout)
        return found

    def wait(self, timeout: float = 10) -> int:
        """The command's exit status."""
        return self.process.wait(timeout=timeout)


def read_until(fd: int, text: str, seen: bytes = b"", timeout: float = 10) -> tuple[bytes, str]:
    """Read `fd` until `text` comes; what is left behind it, and all up to and with it."""
    deadline = time.monotonic() + timeout
    wanted = text.encode()
    while wanted not in seen:
        ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"'{text}' did not come; so far {seen!r}"
        try:
            piece = os.read(fd, 65536)
        except OSError:
            piece = b""
        assert piece, f"the end came before '{text}': {seen!r}"
        seen += piece
    end = seen.index(wanted) + len(wanted)
    return seen[end:], seen[:end].decode("utf-8", "replace")


class FdSocket:
    """A listening unix socket that takes one descriptor, as engines' console sockets do."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(path)
        self._socket.listen()
        self._socket.settimeout(10)

    def receive(self) -> tuple[bytes, int]:
        """Accept one connection: payload and descriptor; nothing else comes, and nothing is answered."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(10)
            payload, fds, _flags, _address = socket.recv_fds(connection, 4096, 4)
            assert len(fds) == 1, fds
            assert connection.recv(1) == b""
        return payload, fds[0]

    def close(self) -> None:
        """Close it; whoever waits in its queue is refused."""
        self._socket.close()
