"""Terminals: send the master to a console socket, or serve it ourselves while run or exec is attached.

An attached run or exec also forwards signals and the window size, and returns the exit status.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import fcntl
import os
import select
import sys
import time

from pyrunc.errors import KernelError, StateError
from pyrunc.kernel import descriptors, wait_status
from pyrunc.kernel import process as kernel_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from pyrunc.host.terminal import Terminal

    class Readiness(Protocol):
        """Something that an attached run serves meanwhile: notify.Proxy."""

        def waits_for(self) -> tuple[int, int] | None:
            """Return the descriptor and the poll(2) events it waits for, or None if it is done."""

        def step(self) -> None:
            """Continue, as the events have come."""

        def owes(self) -> bool:
            """Return whether it has begun something that it must finish."""


_SIGCHLD, _SIGURG, _SIGWINCH, _SIGPIPE, _SIGCONT = (
    int(_signal.SIGCHLD),
    int(_signal.SIGURG),
    int(_signal.SIGWINCH),
    int(_signal.SIGPIPE),
    int(_signal.SIGCONT),
)
# All but those that cannot be caught, the C library's own, and those that report a fault of our own process.
_TAKEN = frozenset(range(1, 65)) - {
    *(int(_signal.SIGKILL), int(_signal.SIGSTOP), 32, 33),
    *(int(_signal.SIGSEGV), int(_signal.SIGBUS), int(_signal.SIGFPE), int(_signal.SIGILL)),
}
_TOLD_TO_END = frozenset(
    {int(_signal.SIGHUP), int(_signal.SIGINT), int(_signal.SIGQUIT), int(_signal.SIGTERM)}
)
_SIGINFO_SIZE = 128  # struct signalfd_siginfo: ssi_signo at 0, ssi_pid at 12
# How long the last output may stay unread after a signal to end.
_PATIENCE_SECONDS = 2.0
# How long the side task may take after the program's end.
_SIDE_SECONDS = 30.0
_TIOCGPTN = 0x80045430
_PTMX = os.makedev(5, 2)
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
    read: containerd accepts later. Raise KernelError.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    call, hint = "connect", f"{asker} wants a listening socket"
    try:
        sock.settimeout(_SEND_SECONDS)
        _connect(sock, path)
        call = "sendmsg"
        rights = descriptors.beside(fd)
        sent = sock.sendmsg([message], rights)
        # "The file descriptors MUST be sent with the first sendmsg only": what did not fit follows alone.
        if sent < len(message):
            sock.sendall(message[sent:])
    except OSError as error:
        raise KernelError(call, error.errno or errno.ETIMEDOUT, path, path=json_path, hint=hint) from error
    finally:
        sock.close()


def check(*, terminal: bool, detached: bool, console_socket: str) -> None:
    """Raise StateError, with runc's message, if terminal, detaching and console socket do not fit together."""
    if terminal and detached and not console_socket:
        raise StateError(
            "cannot allocate tty if runc will detach without setting console socket",
            path="$.process.terminal",
            hint="give --console-socket, or set terminal to false",
        )
    if console_socket and not (terminal and detached):
        raise StateError("cannot use console socket if runc will not detach or allocate tty")


def is_master(fd: int) -> bool:
    """Return whether a descriptor is the master of a pty. pty(7), ioctl_tty(2)"""
    try:
        if os.fstat(fd).st_rdev != _PTMX:
            return False
        fcntl.ioctl(fd, _TIOCGPTN, bytes(4))
    except (OSError, ValueError):
        return False
    return True


# Set by a command that returns the program's exit status: no signal may end the process before that, and all of its
# children are its own. Otherwise we are a library in another program, which may have other children.
process_ends = False


class Attendance:
    """The attachment to a process until it ends: made before init starts, so that no signal is lost.

    The signals are blocked and read from a descriptor: none interrupts anything, the kernel queues real-time signals,
    and those that our caller had blocked or ignored arrive as well, as all are forwarded to the program.
    """

    __slots__ = ("blocked_before", "on_child_before", "signals", "terminal", "told_to_end")

    def __init__(self) -> None:
        self.terminal: Terminal | None = None
        self.told_to_end = 0.0
        self.blocked_before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _TAKEN)
        self.signals = kernel_process.signal_fd(_TAKEN)
        self.on_child_before = _signal.getsignal(_SIGCHLD)
        try:
            # If it were ignored, the kernel would reap the program and drop its status.
            _signal.signal(_SIGCHLD, _signal.SIG_DFL)
        except ValueError:
            self.on_child_before = None  # not the main thread: the program handles its children itself

    def take_terminal(self, master: int) -> None:
        """Take the pty `master` and serve it with our own stdio; our terminal is raw until `close`."""
        from pyrunc.host.terminal import Terminal

        self.terminal = Terminal(master)

    def wait(self, pid: int, pidfd: int, also: Readiness | None = None) -> int:
        """Forward and relay until our child `pid` ends. Return its exit status, or 128 + the signal.

        `also` is served meanwhile.
        """
        while not self._turn(pidfd, also, -1):
            pass
        _, status = os.waitpid(pid, 0)
        self._hand_on_the_rest(also)
        return wait_status.shell(status)

    def _turn(self, pidfd: int, also: Readiness | None, wait_ms: int) -> bool:
        """Wait for events and handle them. Return whether the program has ended; `pidfd` is -1 if it had before."""
        poller = select.poll()
        poller.register(self.signals, select.POLLIN)
        if pidfd >= 0:
            poller.register(pidfd, select.POLLIN)
        side = also.waits_for() if also else None
        if side:
            poller.register(*side)
        if self.terminal:
            wait_ms = self.terminal.register(poller, wait_ms)
        ready = dict(poller.poll(wait_ms))
        if self.signals in ready:
            self._forward(pidfd)
        if also and side and side[0] in ready:
            also.step()
        if self.terminal and self.terminal.move(ready):
            # A program that writes to such a pipe itself gets this signal; its terminal is hung up as well.
            _send(pidfd, _SIGPIPE)
            self.terminal.hang_up()
        return pidfd in ready

    def _hand_on_the_rest(self, also: Readiness | None) -> None:
        """Finish after the program's end. The reader of its output may take long, unless we got a signal to end."""
        began = moved = time.monotonic()
        written = -1
        while True:
            until = None
            if self.terminal and self.terminal.last_words():
                if self.terminal.written != written:
                    written, moved = self.terminal.written, time.monotonic()
                if self.told_to_end:
                    until = max(moved, self.told_to_end) + _PATIENCE_SECONDS
            elif also and also.owes():
                until = self.told_to_end + _PATIENCE_SECONDS if self.told_to_end else began + _SIDE_SECONDS
            else:
                return
            left = until - time.monotonic() if until else 0
            if until and left <= 0:
                return
            self._turn(-1, also, int(left * 1000) + 1 if until else -1)

    def _forward(self, pidfd: int) -> None:
        try:
            arrived = os.read(self.signals, _SIGINFO_SIZE * 64)
        except BlockingIOError:
            return
        for at in range(0, len(arrived), _SIGINFO_SIZE):
            number = int.from_bytes(arrived[at : at + 4], sys.byteorder)
            sender = int.from_bytes(arrived[at + 12 : at + 16], sys.byteorder)
            if number == _SIGCHLD:
                if process_ends:
                    _reap_others(pidfd)
            elif number == _SIGWINCH:
                if self.terminal:
                    self.terminal.resize()
            # SIGPIPE and SIGXFSZ come from our own writes.
            elif number != _SIGURG and sender != os.getpid():
                if number in _TOLD_TO_END:
                    self.told_to_end = time.monotonic()
                if number == _SIGCONT and self.terminal:
                    self.terminal.may_have_changed()
                _send(pidfd, number)

    def close(self) -> None:
        """Restore the settings of the terminal and the signals."""
        if self.terminal is not None:
            self.terminal.close()
            self.terminal = None
        if self.signals >= 0:
            # A signal after the program's end must not kill us before its exit status is returned.
            while select.select([self.signals], [], [], 0)[0]:
                os.read(self.signals, _SIGINFO_SIZE * 64)
            os.close(self.signals)
            self.signals = -1
            if not process_ends:
                if self.on_child_before is not None:
                    _signal.signal(_SIGCHLD, self.on_child_before)
                _signal.pthread_sigmask(_signal.SIG_SETMASK, self.blocked_before)
                if callable(self.on_child_before):
                    # Other children of the caller may have ended, and we have read their SIGCHLD.
                    _signal.raise_signal(_SIGCHLD)


def _send(pidfd: int, number: int) -> None:
    if pidfd < 0:
        return
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _reap_others(pidfd: int) -> None:
    """Reap orphans that became our children, but not the process we wait for (its status is needed)."""
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


def adopt_orphans(on: bool) -> None:
    """Become the subreaper while attached, so that daemons of the container become our children and are reaped.

    Not as a library in another program, which may have children whose status it needs itself.
    """
    if process_ends:
        kernel_process.set_subreaper(on)
