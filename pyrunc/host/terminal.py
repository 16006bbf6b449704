"""Serving a pty with our own standard streams: bytes both ways, the settings and the size of our terminal.

No read or write here blocks, whatever the other end does: at most one piece of data is pending in each direction, and
until it is written no more is read. Our standard streams are shared with our caller, so O_NONBLOCK, a flag of the
shared open file description, is not set on them.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PIECE = 65536
_S_IFMT, _S_IFIFO, _S_IFSOCK = 0o170000, 0o010000, 0o140000
_TIOCGWINSZ, _TIOCSWINSZ = 0x5413, 0x5414
# The interval for polling what causes no event.
_AGAIN_MS = 200
# More than a pty can hold at the program's end.
_LEFT_AT_THE_END = 1 << 20
_NOTHING = memoryview(b"")


def _own(fd: int, flags: int) -> int:
    """Open the same terminal or pipe with a non-blocking open file description of our own; -1 if that fails.

    EACCES after su(1): the terminal belongs to another user.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1


def _kind(fd: int) -> int:
    try:
        return os.fstat(fd).st_mode & _S_IFMT
    except OSError:
        return 0  # closed: read and write report it


def _socket_of(fd: int) -> _socket.socket | None:
    if _kind(fd) != _S_IFSOCK:
        return None
    try:
        return _socket.socket(fileno=os.dup(fd))
    except OSError:
        return None


def _can_wait(fd: int) -> bool:
    """Return whether a read or write may block: not for a file, /dev/null or the like."""
    return _kind(fd) == _S_IFIFO or os.isatty(fd)


class _Input:
    """Standard input, read without blocking."""

    __slots__ = ("fd", "socket")

    def __init__(self, fd: int) -> None:
        self.socket = _socket_of(fd)
        own = _own(fd, os.O_RDONLY) if _can_wait(fd) else -1
        # If it is not our own description, it is read only after poll(2); another reader may still be faster.
        self.fd = own if own >= 0 else fd

    def read(self) -> bytes | None:
        """Read one piece; return None if there is none now. Raise OSError."""
        try:
            return (
                self.socket.recv(_PIECE, _socket.MSG_DONTWAIT) if self.socket else os.read(self.fd, _PIECE)
            )
        except BlockingIOError:
            return None


class _Output:
    """Standard output, written without blocking."""

    __slots__ = ("delivered", "fd", "socket")

    def __init__(self, fd: int) -> None:
        self.socket = _socket_of(fd)
        self.delivered = -1
        self.fd = fd
        if not self.socket and _can_wait(fd):
            self.fd = _own(fd, os.O_WRONLY)
            if self.fd < 0:
                self.fd, self.delivered = _writer(fd)

    def write(self, data: memoryview) -> int:
        """Write, and return how much was written. Raise OSError if nothing more can be."""
        try:
            return self.socket.send(data, _socket.MSG_DONTWAIT) if self.socket else os.write(self.fd, data)
        except BlockingIOError:
            return 0

    def finish(self) -> bool:
        """Return whether everything has arrived; nothing may be written afterwards."""
        if self.delivered < 0:
            return True
        if self.fd != self.delivered:
            os.close(self.fd)
            self.fd = self.delivered
        return bool(select.select([self.delivered], [], [], 0)[0])


def _writer(fd: int) -> tuple[int, int]:
    """Return a pipe from which a thread writes to `fd`, and a descriptor that ends when all is written."""
    import _thread

    source, pipe = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(pipe, False)
    delivered, held = os.pipe2(os.O_CLOEXEC)

    def write() -> None:
        try:
            while data := memoryview(os.read(source, _PIECE)):
                while data:
                    data = data[os.write(fd, data) :]
        except OSError:
            pass  # the writer of the pipe gets EPIPE
        os.close(source)
        os.close(held)

    _thread.start_new_thread(write, ())
    return pipe, delivered


class _Settings:
    """Our own terminal, standard input: raw while we are in the foreground, restored at the end."""

    __slots__ = ("raw", "saved")

    def __init__(self) -> None:
        self.raw = False
        self.saved: list[int | list[bytes | int]] | None = None

    def in_front(self) -> bool:
        """Return whether we may use it: always, unless it is our session's and we are a shell's background job."""
        try:
            return os.tcgetpgrp(0) == os.getpgrp()
        except OSError:
            return True

    def make_raw(self) -> None:
        """Make it raw, so that all keys are sent to the container. cfmakeraw(3)."""
        import termios

        try:
            settings = termios.tcgetattr(0)
            if self.saved is None:
                self.saved = termios.tcgetattr(0)
            settings[0] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            settings[1] &= ~termios.OPOST
            settings[2] = settings[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            settings[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSANOW, settings)
        except termios.error:
            pass  # it is gone; reading reports that, too
        self.raw = True

    def restore(self) -> None:
        """Restore it. Not with TCSADRAIN, which blocks on a terminal without a reader or stopped by ^S."""
        if self.saved is None or not self.in_front():
            return
        import termios

        try:
            termios.tcsetattr(0, termios.TCSANOW, self.saved)
        except termios.error:
            pass


class Terminal:
    """A pty's master, served with standard input and output."""

    __slots__ = (
        *("ended", "from_program", "hung", "input", "left", "master", "output", "settings", "to_program"),
        "written",
    )

    def __init__(self, master: int) -> None:
        """Take the descriptor `master`."""
        self.master = master
        os.set_blocking(master, False)
        self.input: _Input | None = _Input(0)
        self.output = _Output(1)
        self.to_program = self.from_program = _NOTHING
        self.hung = (
            False  # no process of the container has it open: maybe only for now, as with getty and systemd
        )
        self.ended = False
        self.left = _LEFT_AT_THE_END
        self.written = 0
        self.settings = _Settings() if os.isatty(0) else None
        self.resize()
        if self.settings and self.settings.in_front():
            self.settings.make_raw()

    def resize(self) -> None:
        """Set the size of the container's terminal to that of ours."""
        for fd in (0, 1, 2):
            try:
                size = fcntl.ioctl(fd, _TIOCGWINSZ, bytes(8))
            except OSError:
                continue
            if self.master >= 0:
                fcntl.ioctl(self.master, _TIOCSWINSZ, size)
            return

    def may_have_changed(self) -> None:
        """Handle that we were stopped: another process may have changed our terminal."""
        if self.settings:
            self.settings.raw = False
        self.resize()

    def register(self, poller: select.poll, wait_ms: int) -> int:
        """Register what can be read or written; return how long to wait, at most `wait_ms`."""
        again = False
        if self.from_program or self.ended:
            poller.register(
                self.output.fd, select.POLLIN if self.output.delivered == self.output.fd else select.POLLOUT
            )
        if self.master < 0 or self.ended:
            return wait_ms
        wanted = (0 if self.from_program else select.POLLIN) | (select.POLLOUT if self.to_program else 0)
        if self.hung:
            again = True
        elif wanted:
            poller.register(self.master, wanted)
        if self.input and not self.to_program:
            if self._mine():
                poller.register(self.input.fd, select.POLLIN)
            else:
                again = True
        return _AGAIN_MS if again or self.to_program else wait_ms

    def _mine(self) -> bool:
        """Return whether we may read our input; if we may again, our terminal becomes raw."""
        if self.settings is None:
            return True
        if not self.settings.in_front():
            self.settings.raw = False
            return False
        if not self.settings.raw:
            self.settings.make_raw()
            self.resize()
        return True

    def move(self, ready: Mapping[int, int]) -> bool:
        """Read and write what is `ready`. Return True if our output is a pipe whose reader has closed it.

        The caller signals the program and then calls `hang_up`. In the other order the program could get EIO first.
        """
        if self.master < 0:
            return False
        if not self.ended and not self.from_program and (self.hung or self.master in ready):
            self._read_program()
        if self._write_reader():
            return True
        if self.input and not self.to_program and self.input.fd in ready:
            self._read_input(self.input)
        if self.to_program and self.master >= 0:
            self._write_program()
        return False

    def _read_program(self) -> bool:
        """Return whether there was something to read."""
        try:
            self.from_program = memoryview(os.read(self.master, _PIECE))
            self.hung = False
        except BlockingIOError:
            self.hung = False
        except OSError:
            self.hung = True
        return bool(self.from_program)

    def _write_reader(self) -> bool:
        """Return True if the reader has closed the pipe; the caller then calls `hang_up`."""
        if not self.from_program:
            return False
        try:
            taken = self.output.write(self.from_program)
        except OSError as error:
            if error.errno == errno.EPIPE:
                return True
            self.hang_up()
            return False
        self.written += taken
        self.from_program = self.from_program[taken:]
        return False

    def _read_input(self, source: _Input) -> None:
        try:
            data = source.read()
        except OSError:
            # EIO in the background is temporary; that of a terminal that was hung up is not.
            if self.settings and not self.settings.in_front():
                return
            data = b""
        if data is None:
            return
        self.to_program = memoryview(data)
        if not data:
            self.input = None  # the program is not told: it has a terminal, whose end is ^D

    def _write_program(self) -> None:
        try:
            self.to_program = self.to_program[os.write(self.master, self.to_program) :]
        except BlockingIOError:
            pass
        except OSError:
            self.hung = True

    def hang_up(self) -> None:
        """Close the master, as the output has no reader: the program gets SIGHUP and EIO as after a hang-up."""
        os.close(self.master)
        self.master = -1
        self.to_program = self.from_program = _NOTHING

    def last_words(self) -> bool:
        """Return whether there is still something to write after the program's end."""
        self.ended = True
        self.input = None
        self.to_program = _NOTHING
        while self.master >= 0 and not self.from_program:
            # Another process of the container may write forever.
            if self.left <= 0 or not self._read_program():
                return not self.output.finish()
            self.left -= len(self.from_program)
            if self._write_reader():
                self.hang_up()
        return bool(self.from_program)

    def close(self) -> None:
        """Restore the settings of our terminal."""
        if self.settings:
            self.settings.restore()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
