"""Terminals: hand the master to a console socket, or serve it ourselves while run or exec is attached.

Also the waiting of attached run and exec: signals are forwarded, the window size follows, the exit status comes back.
Imported by runtime; imports errors and kernel only.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import fcntl
import os
import select
import sys

from pyrunc import kernel
from pyrunc.errors import KernelError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_SIGCHLD, _SIGURG, _SIGWINCH, _SIGKILL, _SIGSTOP = (
    int(_signal.SIGCHLD),
    int(_signal.SIGURG),
    int(_signal.SIGWINCH),
    int(_signal.SIGKILL),
    int(_signal.SIGSTOP),
)
# Signals that are ours, that cannot be caught, or that mean a fault of our own and not of the container's.
_NOT_FORWARDED = frozenset(
    {_SIGCHLD, _SIGURG, _SIGWINCH, _SIGKILL, _SIGSTOP}
    | {int(_signal.SIGSEGV), int(_signal.SIGBUS), int(_signal.SIGFPE), int(_signal.SIGILL), 32, 33}
)
_TIOCGWINSZ, _TIOCSWINSZ = 0x5413, 0x5414
_TIOCGPTN = 0x80045430
_SEND_SECONDS = 10.0
_LONGEST_ADDRESS = 108  # sun_path, with its NUL


def _connect(sock: _socket.socket, path: str) -> None:
    if len(os.fsencode(path)) < _LONGEST_ADDRESS:
        sock.connect(path)
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def send_fd(path: str, fd: int, message: bytes, asker: str, *, json_path: str | None = None) -> None:
    """Connect to a listening AF_UNIX stream socket, send `message` and `fd` (SCM_RIGHTS) in one sendmsg(2), close.

    `asker` is the option or property that named the socket, `json_path` its place in the configuration. No answer is
    read: containerd accepts later. Raises KernelError.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    call, hint = "connect", f"{asker} wants a listening socket"
    try:
        sock.settimeout(_SEND_SECONDS)
        _connect(sock, path)
        call = "sendmsg"
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]
        sent = sock.sendmsg([message], rights)
        # "The file descriptors MUST be sent with the first sendmsg only": what did not fit follows alone.
        if sent < len(message):
            sock.sendall(message[sent:])
    except OSError as error:
        raise KernelError(call, error.errno or errno.ETIMEDOUT, path, path=json_path, hint=hint) from error
    finally:
        sock.close()


def check(*, terminal: bool, detached: bool, console_socket: str) -> None:
    """Whether terminal, detaching and console socket fit together. Raises StateError with runc's words."""
    if terminal and detached and not console_socket:
        raise StateError(
            "cannot allocate tty if runc will detach without setting console socket",
            path="$.process.terminal",
            hint="give --console-socket, or set terminal to false",
        )
    if console_socket and not (terminal and detached):
        raise StateError("cannot use console socket if runc will not detach or allocate tty")


def is_master(fd: int) -> bool:
    """Whether a descriptor is the master of a pty. pty(7), ioctl_tty(2)"""
    try:
        fcntl.ioctl(fd, _TIOCGPTN, bytes(4))
    except (OSError, ValueError):
        return False
    return True


class Attendance:
    """Being there for a process until it ends: made before init starts, so that no signal is lost."""

    __slots__ = ("master", "saved_terminal", "wakeup")

    def __init__(self) -> None:
        self.master = -1
        self.saved_terminal: list[int | list[bytes | int]] | None = None
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.wakeup = read
        _signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in range(1, 65):
            if number not in _NOT_FORWARDED or number in (_SIGCHLD, _SIGWINCH):
                try:
                    _signal.signal(number, _noted)
                except (OSError, ValueError):
                    continue  # a number this kernel or libc keeps for itself

    def take_terminal(self, master: int) -> None:
        """Serve the pty `master` with our own stdio; our terminal goes raw until `close`."""
        self.master = master
        os.set_blocking(master, False)
        self.resize()
        if os.isatty(0):
            import termios

            self.saved_terminal = termios.tcgetattr(0)
            raw = termios.tcgetattr(0)
            raw[0] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            raw[1] &= ~termios.OPOST
            raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            termios.tcsetattr(0, termios.TCSANOW, raw)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        if self.master < 0:
            return
        for fd in (0, 1, 2):
            try:
                size = fcntl.ioctl(fd, _TIOCGWINSZ, bytes(8))
            except OSError:
                continue
            fcntl.ioctl(self.master, _TIOCSWINSZ, size)
            return

    def wait(self, pid: int, pidfd: int, also: tuple[int, Callable[[], bool]] | None = None) -> int:
        """Forward and relay until `pid`, a child of ours, ends. Its exit status, or 128 + the signal.

        `also`: a descriptor and what to call when it is readable, until that returns True.
        """
        poller = select.poll()
        poller.register(self.wakeup, select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        if self.master >= 0:
            poller.register(self.master, select.POLLIN)
            poller.register(0, select.POLLIN)
        if also:
            poller.register(also[0], select.POLLIN)
        while True:
            ended = False
            for fd, _event in poller.poll():
                if fd == self.wakeup:
                    self._forward(pidfd)
                elif also and fd == also[0]:
                    if also[1]():
                        poller.unregister(fd)
                elif fd == pidfd:
                    ended = True
                elif fd == self.master and not _copy(self.master, 1):
                    poller.unregister(self.master)
                elif fd == 0 and not _copy(0, self.master):
                    poller.unregister(0)
            if ended:
                _, status = os.waitpid(pid, 0)
                if self.master >= 0:
                    while _copy(self.master, 1, only_ready=True):
                        pass
                return 128 + (status & 0x7F) if status & 0x7F else status >> 8

    def _forward(self, pidfd: int) -> None:
        for number in os.read(self.wakeup, 512):
            if number == _SIGWINCH:
                self.resize()
            elif number == _SIGCHLD:
                _reap_others(pidfd)
            elif number not in _NOT_FORWARDED:
                try:
                    _signal.pidfd_send_signal(pidfd, number)
                except ProcessLookupError:
                    return

    def close(self) -> None:
        """Give the terminal back its settings."""
        if self.saved_terminal is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self.saved_terminal)
            self.saved_terminal = None


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The handler that lets the wake-up descriptor tell of a signal."""


def _reap_others(pidfd: int) -> None:
    """Reap orphans that became ours, but leave the one we wait for (its status is wanted)."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        try:
            ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            ended = None
        if ended is not None and ended.si_pid == found.si_pid:
            return
        os.waitpid(found.si_pid, 0)


def _copy(source: int, target: int, *, only_ready: bool = False) -> bool:
    """Copy one piece; False at the end of the source (a pty whose slave is closed says EIO)."""
    try:
        data = os.read(source, 65536)
    except BlockingIOError:
        return not only_ready
    except OSError:
        return False
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(target, select.POLLOUT)
            waiter.poll(1000)
        except OSError:
            return False
    return bool(data)


def adopt_orphans(on: bool) -> None:
    """Become the subreaper while attached, so that daemons of the container end up with us and are reaped."""
    kernel.set_subreaper(on)
