"""CRIU's process: started, waited for, and ended with everything it has forked.

CRIU is a large program that stops a container while it works. It may be killed, be stopped, or hang on a file of an
image, and processes that it forked may outlive it and keep our socket open. So a wait ends with the process and not
with the socket, a process that makes no progress is ended, and a signal interrupts us at any time.
"""

from __future__ import annotations

import _signal
import errno
import os
import select
import time

from pyrunc.container import process as container_process
from pyrunc.errors import CriuError, KernelError, PyruncError
from pyrunc.kernel import container as kernel_container
from pyrunc.kernel import process as kernel_process
from pyrunc.launch import ending
from pyrunc.spec.process import PID_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Self

# CRIU is considered stuck after so long without processor time, even on a slow disk or a busy host.
STALL_SECONDS = 120.0
# The same with processor time, but nothing read or written: CRIU reads a truncated image forever.
SPIN_SECONDS = 600.0
# The time for undoing after we have closed the socket, and the stall that ends it sooner.
UNDO_SECONDS = 60.0
UNDO_STALL_SECONDS = 10.0
# How long a killed process may take to end.
_KILLED_SECONDS = 10
_SLICE_SECONDS = 0.5
_SIGKILL = 9
# PID_MAX_LIMIT of the kernel
_LONGEST_ENVIRONMENT = 1 << 21
_OUTPUT = 1 << 16
# CRIU's part of the caller's environment: it finds iptables by PATH and ~/.criu/default.conf by HOME. Others name
# libraries to load, for the dynamic linker (LD_PRELOAD) or CRIU itself (CRIU_LIBS_DIR).
_VARIABLES = frozenset((b"PATH", b"HOME"))
_ENDING = (int(_signal.SIGTERM), int(_signal.SIGINT), int(_signal.SIGHUP), int(_signal.SIGQUIT))
# In the environment of CRIU and of everything it forks. A session or a group would not do: a daemon leaves both, and a
# restored shell job must be in our session.
_MARK = b"PYRUNC_CRIU"


class InterruptedError(CriuError):  # noqa: A001 - the builtin one is an errno
    """We got a signal to end."""


class Interrupts:
    """TERM, INT, HUP and QUIT, held back while CRIU works, so that nothing is left unfinished.

    Python has signal handlers only in the main thread; in another one this does nothing. Ignored signals stay ignored.
    """

    __slots__ = ("_blocked", "_caught", "_main", "_outer", "_passed_on", "_saved", "_write", "fd")

    def __init__(self) -> None:
        self.fd = self._write = self._outer = -1
        self._main = False
        self._blocked: set[int] = set()
        self._caught = 0
        self._passed_on = b""
        self._saved: dict[int, object] = {}

    def __enter__(self) -> Self:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._outer = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        except ValueError:
            return self
        self._main = True
        for number in _ENDING:
            before = _signal.getsignal(number)
            if before is not None and before != _signal.SIG_IGN:
                self._saved[number] = _signal.signal(number, _noted)
        # An attached restore blocks all, to forward them once the container's process exists.
        self._blocked = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, self._saved)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._read()
        if self._main:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._blocked)
            for number, before in self._saved.items():
                _signal.signal(number, before)
            _signal.set_wakeup_fd(self._outer, warn_on_full_buffer=False)
        if self._outer >= 0 and self._passed_on:
            try:
                os.write(self._outer, self._passed_on)
            except BlockingIOError:
                pass  # full: the reader will wake up anyway
        os.close(self.fd)
        os.close(self._write)
        if self._caught and kind is None:
            # It came too late to undo anything: the earlier handler gets it.
            _signal.raise_signal(self._caught)

    def _read(self) -> None:
        try:
            data = os.read(self.fd, 4096)
        except BlockingIOError:
            return
        for number in data:
            if number in self._saved:
                self._caught = number
            else:
                self._passed_on += bytes([number])

    def pending(self) -> bool:
        """Return whether a signal has come; `fd` is readable if one may have."""
        self._read()
        return self._caught != 0

    def taken(self) -> int:
        """Return the signal that has come since the last call, 0 for none."""
        self._read()
        caught, self._caught = self._caught, 0
        return caught

    def check(self) -> None:
        """Raise InterruptedError if a signal has come."""
        if number := self.taken():
            raise InterruptedError(f"interrupted by {_signal_name(number)}")


def _noted(_number: int, _frame: FrameType | None) -> None:
    """An empty handler: with one, Python writes the signal to the wake-up descriptor."""


def _signal_name(number: int) -> str:
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS"):
        if getattr(_signal, name) == number:
            return name
    return f"signal {number}"


def _read_proc(name: str, most: int = 1 << 16) -> bytes:
    """Return a file of /proc, empty if its process is gone."""
    try:
        fd = os.open(f"/proc/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise KernelError("open", error.errno, f"/proc/{name}") from error
        return b""
    try:
        pieces = []
        while most > 0 and (piece := os.read(fd, min(most, 1 << 16))):
            pieces.append(piece)
            most -= len(piece)
    except OSError:
        return b""
    finally:
        os.close(fd)
    return b"".join(pieces)


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on. proc(5)."""
    return container_process.stat_fields(_read_proc(f"{pid}/stat"))


def _children(pid: str, thread: str) -> list[int]:
    return [int(child) for child in _read_proc(f"{pid}/task/{thread}/children").split()]


def _ready(fd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _none() -> int:
    return 0


def _nothing() -> None:
    """Do nothing: for a CRIU whose cgroup is not frozen."""


def _environment() -> list[bytes]:
    found = {name: value for name, value in os.environb.items() if name in _VARIABLES}
    if not _is_ours(found.get(b"HOME", b"/")):
        found.pop(b"HOME", None)
    return [b"%s=%s" % item for item in found.items()]


def _is_ours(home: bytes) -> bool:
    """Return whether only we could write a configuration of CRIU there, which names programs. sudo may keep HOME."""
    try:
        return home.startswith(b"/") and kernel_container.check_root(os.fsdecode(home))
    except PyruncError:
        return False


class Process:
    """A `criu swrk FD`, a child of ours. The arguments after `argv` are those of kernel.spawn."""

    __slots__ = (
        "_interrupts",
        "_mark",
        "_moved",
        "_showed",
        "_shown",
        "_spent",
        "pid",
        "pidfd",
        "thaw",
        "written",
    )

    def __init__(
        self,
        path: str,
        argv: Sequence[bytes],
        interrupts: Interrupts,
        *,
        stdio: tuple[int, int, int],
        keep: Sequence[int],
        cgroup_fd: int = -1,
        bound: tuple[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        self._interrupts = interrupts
        self._mark = b"%s=%s" % (_MARK, os.urandom(16).hex().encode())
        # Thaws its cgroup if that is frozen: on v1 a frozen process does not handle SIGKILL.
        self.thaw: Callable[[], None] = _nothing
        # The size of its files: its own counters do not include what it splices there.
        self.written: Callable[[], int] = _none
        self._spent = self._shown = -1
        self._moved = self._showed = time.monotonic()
        self.pid, self.pidfd = kernel_process.spawn(
            argv,
            [*_environment(), self._mark],
            path=path,
            stdio=stdio,
            keep=keep,
            cgroup_fd=cgroup_fd,
            bound=bound,
            new_session=new_session,
        )

    def wait_for(self, fd: int, *, seconds: float | None, stall: float | None) -> bool:
        """Wait until `fd` can be read; False if CRIU has ended before.

        Raise CriuError after `seconds`, after `stall` seconds without work, and when a signal asks us to end.
        """
        poller = select.poll()
        for one in (fd, self.pidfd, self._interrupts.fd):
            poller.register(one, select.POLLIN)
        self._moved = self._showed = began = time.monotonic()
        while True:
            events = dict(poller.poll(_SLICE_SECONDS * 1000))
            if self._interrupts.fd in events:
                self._interrupts.check()
            if fd in events:
                return True
            if self.pidfd in events:
                # Its last message may have come after the poll.
                return _ready(fd, 0)
            if seconds is not None and time.monotonic() - began >= seconds:
                raise CriuError(f"criu failed: no answer within {seconds:g} s", hint=self._hint())
            if stall is None:
                continue
            if not self._works(stall):
                raise CriuError(f"criu failed: it has done nothing for {stall:g} s", hint=self._hint())
            if not self._shows_work():
                message = f"criu failed: for {SPIN_SECONDS:g} s it has read nothing, and written no image"
                raise CriuError(message, hint="an image may be truncated; the log file may show which")

    def _hint(self) -> str:
        fields = _stat(self.pid)
        if fields and fields[0] == b"T":
            return "criu was stopped by a signal"
        return "its log file may say what it waits for"

    def _works(self, stall: float) -> bool:
        spent = sum(_ticks(pid) for pid in self._tree())
        now = time.monotonic()
        if spent != self._spent:
            self._spent, self._moved = spent, now
        return now - self._moved < stall

    def _shows_work(self) -> bool:
        shown = self.written() + sum(_bytes(pid) for pid in self._tree())
        now = time.monotonic()
        if shown != self._shown:
            self._shown, self._showed = shown, now
        return now - self._showed < SPIN_SECONDS

    def _tree(self) -> list[int]:
        """Return it, the children it has made for us, and their descendants that still have their parents."""
        began = kernel_container.process_start_time(self.pid)
        ours = [child for thread in os.listdir("/proc/self/task") for child in _children("self", thread)]
        found = [pid for pid in ours if kernel_container.process_start_time(pid) >= began]
        for pid in found:
            found += [child for child in _children(str(pid), str(pid)) if child not in found]
        return found

    def end(self, *, answered: bool, succeeded: bool, seconds: float) -> str | None:
        """Wait until it is gone after the socket was closed. Return a message if it does not end.

        It has `seconds` to undo what it did, as long as it makes progress. Then, or if it has ended without an
        answer, everything it has forked is ended, too, unless it `succeeded` and its processes are to stay. A signal
        to us ends them at once.
        """
        self.thaw()
        orderly = self._ends_itself(seconds)
        gone = orderly or self._killed()
        gone = gone and ending.collect(self.pid, self.pidfd, _KILLED_SECONDS) is not None
        os.close(self.pidfd)
        if not gone:
            return f"criu, process {self.pid}, does not end, not even by SIGKILL"
        if succeeded or (orderly and answered):
            return None
        return self._end_orphans()

    def _ends_itself(self, seconds: float) -> bool:
        began = self._moved = time.monotonic()
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        poller.register(self._interrupts.fd, select.POLLIN)
        while time.monotonic() - began < seconds and self._works(UNDO_STALL_SECONDS):
            events = dict(poller.poll(_SLICE_SECONDS * 1000))
            if self.pidfd in events:
                return True
            if self._interrupts.fd in events and self._interrupts.taken():
                return False
        return False

    def _killed(self) -> bool:
        self._signal(self.pidfd)
        for _ in range(_KILLED_SECONDS):
            self.thaw()
            if _ready(self.pidfd, 1):
                return True
        return False

    @staticmethod
    def _signal(pidfd: int) -> None:
        try:
            _signal.pidfd_send_signal(pidfd, _SIGKILL)
        except ProcessLookupError:
            pass

    def _end_orphans(self) -> str | None:
        """End the processes that it has forked. One that forks meanwhile is found in the next round."""
        until = time.monotonic() + _KILLED_SECONDS
        while True:
            found = [
                pid for name in os.listdir("/proc") if name.isdigit() and self._is_marked(pid := int(name))
            ]
            if not found:
                return None
            if time.monotonic() > until:
                return f"processes of criu do not end: {', '.join(map(str, found))}"
            for pid in found:
                self._end_marked(pid)

    def _is_marked(self, pid: int) -> bool:
        return self._mark in _read_proc(f"{pid}/environ", _LONGEST_ENVIRONMENT).split(b"\0")

    def _end_marked(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError as error:
            raise KernelError("pidfd_open", error.errno or 0, str(pid)) from error
        try:
            # Only now the pid cannot be that of another process.
            if self._is_marked(pid):
                self._signal(pidfd)
                _ready(pidfd, 1)
        finally:
            os.close(pidfd)

    def how_it_ended(self) -> str:
        """Return a description of its end."""
        if not _ready(self.pidfd, 1):
            return "it closed its socket"
        try:
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            found = None
        if found is None:
            return "it has ended"
        if found.si_code == os.CLD_EXITED:
            return f"it exited with {found.si_status}"
        return f"it was killed by {_signal_name(found.si_status)}"

    def own_sibling(self, pid: int) -> int:
        """Return a pidfd of `pid`, a child that CRIU has made for us in its cgroups. Raise CriuError if it is not."""
        try:
            # os.pidfd_open() raises OverflowError for what is larger than a C int.
            pidfd = os.pidfd_open(max(-1, min(pid, PID_MAX)))
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
                raise KernelError("pidfd_open", error.errno or 0, str(pid)) from error
            raise CriuError(
                f"criu failed: the container's init is to be process {pid}: there is none"
            ) from error
        problem = self._foreign(pid, pidfd)
        if problem:
            os.close(pidfd)
            raise CriuError(f"criu failed: the container's init is to be process {pid}: {problem}")
        return pidfd

    def _foreign(self, pid: int, pidfd: int) -> str:
        try:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return "it is no child of ours"
        if pid == self.pid or kernel_container.process_start_time(pid) < kernel_container.process_start_time(
            self.pid
        ):
            return "it was there before"
        if not _all_below(_cgroups(pid), _cgroups(self.pid)):
            return "it is not in the container's cgroup"
        return ""


def _ticks(pid: int) -> int:
    """Return the processor time of a process in nanoseconds, and that with the children it has waited for in ticks."""
    fields = _stat(pid)
    own = _read_proc(f"{pid}/schedstat").split()
    return sum(int(field) for field in fields[11:15]) + (int(own[0]) if own else 0)


def _bytes(pid: int) -> int:
    """Return what a process has read, and its memory. proc(5). What it writes may be the same log line forever."""
    lines = [line.split() for line in _read_proc(f"{pid}/io").splitlines()[:1]]
    resident = _read_proc(f"{pid}/statm").split()[1:2]
    return sum(int(line[1]) for line in lines) + sum(int(pages) for pages in resident)


def _cgroups(pid: int) -> dict[bytes, bytes]:
    """Return hierarchy -> path."""
    lines = [line.split(b":", 2) for line in _read_proc(f"{pid}/cgroup").splitlines()]
    return {line[1]: line[2] for line in lines}


def _all_below(theirs: dict[bytes, bytes], tops: dict[bytes, bytes]) -> bool:
    return theirs.keys() == tops.keys() and all(
        theirs[name] == top or theirs[name].startswith(top.rstrip(b"/") + b"/") for name, top in tops.items()
    )


def run(
    argv: Sequence[str], path: str, *, stdin: bytes = b"", keep: Sequence[int] = (), seconds: float
) -> tuple[int, str]:
    """Run a helper for at most `seconds`. Return its wait status (that of SIGKILL if it took longer) and its output."""
    said, asked = os.memfd_create("output", os.MFD_CLOEXEC), os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        os.pwrite(asked, stdin, 0)
        words = [os.fsencode(word) for word in argv]
        pid, pidfd = kernel_process.spawn(
            words, _environment(), path=path, stdio=(asked, said, said), keep=keep, new_session=True
        )
        try:
            status = ending.collect(pid, pidfd, seconds)
            if status is None:
                try:
                    os.killpg(pid, _SIGKILL)
                except ProcessLookupError:
                    pass  # it has just ended
                status = ending.end(pid, pidfd)
        finally:
            os.close(pidfd)
        return status, os.pread(said, _OUTPUT, 0).decode("utf-8", "replace")
    finally:
        os.close(said)
        os.close(asked)
