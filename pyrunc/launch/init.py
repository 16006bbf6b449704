"""The parent side of one init: start it, answer it, receive its errors.

    runtime                                   init (static C, from a sealed memfd)
      open what the plan names, encode
      spawn: clone3(namespaces [+ INTO_CGROUP]) ──▶ read plan, do its ops in order
      ◀── FORKED pid        early, into a new pid namespace: the child goes on                    ──▶ go
      ◀── MAPS              uid_map and gid_map are written           ──▶ go
      ◀── CGROUP            it is in its cgroup                       ──▶ go
      ◀── ENV               mounts are there: limits, prestart and createRuntime hooks ──▶ go
      ◀── CONSOLE, SECCOMP  with a descriptor that is passed on       ──▶ go
      end of the socket     late, into the pid namespace of others: from here on through two pipes, since a socket
                            leads to the process at its other end
      ◀── FORKED pid        a child of ours in that namespace, or the end of it                   ──▶ go
      ◀── READY             state is written                          ──▶ go
      end of file: exec closed socket and pipes, or init waits on exec.fifo
      ◀── ERROR             at any time: {op, step, errno, text}, then it exits

After a late FORKED a process of the container that may trace others can send messages in place of init: they are not
trusted (dialogue.py). Whatever it does, each wait ends.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import time

from pyrunc import log
from pyrunc.errors import ContainerError, KernelError, PyruncError
from pyrunc.kernel import descriptors, wait_status
from pyrunc.kernel import process as kernel_process
from pyrunc.launch import ending
from pyrunc.launch.dialogue import Dialogue, OutOfTurnError
from pyrunc.launch.ending import collect
from pyrunc.plan import numbers, wire
from pyrunc.spec.namespaces import CLONE_NEWPID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from pyrunc.launch.detached_mounts import Trees

    Answer = TypeVar("Answer")

# Between two messages init only waits for hooks, which have their own timeouts, and for file systems.
STEP_SECONDS = 120
_SIGKILL = 9
# The time for a process that was killed: it may be frozen or traced.
END_SECONDS = 10
# The time from exec's closing of descriptors to the program's name, or to the end of a dying process.
NAME_SECONDS = 0.5
_SIGSYS = 31
_MOST_UNREAD = 128


def init_program() -> bytes:
    """Return the static init of this installation."""
    try:
        fd = os.open(
            os.path.join(os.path.dirname(os.path.dirname(__file__)), "init"), os.O_RDONLY | os.O_CLOEXEC
        )
        try:
            return os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    except OSError as error:
        hint = "the installation is incomplete" if error.errno == errno.ENOENT else None
        raise KernelError("open", error.errno or 0, "pyrunc/init", hint=hint) from error


def end(pid: int, pidfd: int) -> None:
    """Kill a child of ours, which may have ended or been reaped already, and wait until it is gone."""
    try:
        ending.end(pid, pidfd, END_SECONDS)
    except ContainerError as error:
        log.warning(str(error))


class SilentDeathError(ContainerError):
    """init ended without a message."""


def _pid_namespace(pid: int) -> tuple[int, int] | None:
    """Return what identifies a process's pid namespace, or None if it is not visible."""
    try:
        found = os.stat(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Init:
    """One init being brought up. `pid` and `pidfd` follow it through FORKED; `ops` are its plan.

    `pipes` (messages, answers) take the place of `sock` when others may see init. `pid_space` is the pid namespace it
    must then be in. `held`: a descriptor, and what is to be done when it becomes readable or init has forked.
    """

    __slots__ = (
        "deadline",
        "dialogue",
        "held",
        "ops",
        "pid",
        "pid_space",
        "pidfd",
        "pipes",
        "sock",
        "sock_open",
        "warnings",
        "words",
    )

    def __init__(
        self,
        ops: Sequence[wire.Op],
        pid: int,
        pidfd: int,
        sock: _socket.socket,
        deadline: bool,
        pipes: tuple[int, int] = (-1, -1),
        pid_space: tuple[int, int] | None = None,
        words: int = -1,
    ) -> None:
        self.ops = ops
        self.pid = pid
        self.pidfd = pidfd
        self.sock = sock
        self.sock_open = True
        self.deadline = deadline
        self.pipes = pipes
        self.pid_space = pid_space
        self.dialogue = Dialogue(ops)
        self.held: tuple[int, Callable[[int], None]] | None = None
        self.words = words
        self.warnings: list[str] = []

    def receive(self) -> tuple[str, int]:
        """Return init's next request: (name of the sync code, descriptor that came with it or -1).

        "" is the end: init closed the socket (it runs the program, or waits for start). Raises what init reports.
        """
        while True:
            data, fds = self._read()
            if not data:
                return "", -1
            try:
                name, message = self.dialogue.hear(data, len(fds))
            except OutOfTurnError:
                for fd in fds:
                    os.close(fd)
                raise
            if name == "ERROR":
                raise self.dialogue.words(message)
            if name == "WARNING":
                self.warnings.append(str(self.dialogue.words(message)))
            elif name == "FORKED":
                self._follow(message.value)
                self.go()
            else:
                return name, fds[0] if fds else -1

    def _read(self) -> tuple[bytes, list[int]]:
        while True:
            if self.sock_open:
                self._wait(self.sock.fileno())
                data, fds = self._from_socket()
                if data or self.pipes[0] < 0:
                    return data, fds
                # It enters the pid namespace of others, or has ended: then the pipe is at its end as well.
                self.sock.close()
                self.sock_open = False
            self._wait(self.pipes[0])
            try:
                return os.read(self.pipes[0], numbers.SYNC_MESSAGE_SIZE), []
            except OSError as error:
                raise KernelError("read", error.errno or 0, "init's messages") from error

    def _wait(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if self.held is not None:
            poller.register(self.held[0], select.POLLIN)
        # With the pipes no hook runs any more.
        limit = STEP_SECONDS * 1000 if self.deadline or not self.sock_open else None
        while True:
            ready = [found for found, _events in poller.poll(limit)]
            if not ready:
                raise ContainerError(f"init did not answer for {STEP_SECONDS} s")
            if fd in ready:
                return
            poller.unregister(ready[0])
            self._let_go()

    def _from_socket(self) -> tuple[bytes, list[int]]:
        try:
            data, ancillary, flags, _address = self.sock.recvmsg(
                numbers.SYNC_MESSAGE_SIZE, _socket.CMSG_SPACE(descriptors.SIZE), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return b"", []
        except OSError as error:
            raise KernelError("recvmsg", error.errno or 0, "init's socket") from error
        fds = descriptors.received(ancillary)
        if flags & (_socket.MSG_CTRUNC | _socket.MSG_TRUNC):
            for fd in fds:
                os.close(fd)
            raise OutOfTurnError("a message larger than any")
        return data, fds

    def _adopt(self, pid: int) -> int:
        """Return a pidfd of the process that init reports as its child. Raise OutOfTurnError if it is not one."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise OutOfTurnError(f"there is no process {pid}") from None
        except OSError as error:
            raise KernelError("pidfd_open", error.errno or 0, str(pid)) from error
        try:
            # It was not reaped before the pidfd was opened, so it is this one.
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if pid == self.pid or not self._in_place(pid):
                raise OutOfTurnError(f"process {pid} is not in the container's pid namespace")
        except ChildProcessError:
            os.close(pidfd)
            raise OutOfTurnError(f"process {pid} is no child of the runtime") from None
        except BaseException:
            os.close(pidfd)
            raise
        return pidfd

    def _in_place(self, pid: int) -> bool:
        if self.pid_space is None:
            return True
        found = _pid_namespace(pid)
        if found is not None:
            return found == self.pid_space
        # Without privileges over it the kernel only shows how deep it is: "NSpid:	4242	7"
        try:
            with open(f"/proc/{pid}/status", "rb") as stream:
                fields = [line.split() for line in stream if line.startswith(b"NSpid:")]
        except OSError as error:
            raise KernelError("open", error.errno or 0, f"/proc/{pid}/status") from error
        return bool(fields) and len(fields[0]) > 2

    def _follow(self, pid: int) -> None:
        pidfd = self._adopt(pid)
        before, self.pid = self.pid, pid
        before_fd, self.pidfd = self.pidfd, pidfd
        try:
            if collect(before, before_fd, END_SECONDS) is None:
                raise ContainerError(f"process {before} has not ended for {END_SECONDS} s: is it frozen?")
        finally:
            os.close(before_fd)
        self._let_go()

    def hold(self, fd: int, act: Callable[[int], None]) -> None:
        """Call `act` with `fd`, then close it: when init has forked, or earlier, when `fd` becomes readable."""
        self.held = fd, act

    def _let_go(self) -> None:
        if self.held is not None:
            (fd, act), self.held = self.held, None
            try:
                act(fd)
            finally:
                os.close(fd)

    def go(self) -> None:
        """Let init continue."""
        answer = numbers.SYNC_GO.to_bytes(4, wire.ORDER)
        try:
            if self.sock_open:
                self.sock.send(answer)
            else:
                os.write(self.pipes[1], answer)
        except BrokenPipeError:
            pass  # it is gone: receive() reports why
        except OSError as error:
            raise KernelError("send", error.errno or 0, "init's answers") from error

    def check_words(self) -> int:
        """Raise the error that init could not send because of the container's filter; else return the op it came to."""
        if self.words < 0:
            return numbers.PLAN_NO_PATH
        return self.dialogue.unsaid(os.pread(self.words, numbers.LAST_WORDS_SIZE, 0))

    def check_program(self) -> None:
        """Raise, after the end of init's messages, unless it has become the program.

        A filter may have forbidden it to report an error; then it is dead, and still has init's name.
        """
        if self.words < 0:
            return
        self.check_words()
        deadline = time.monotonic() + NAME_SECONDS
        while time.monotonic() < deadline:
            try:
                with open(f"/proc/{self.pid}/stat", "rb") as stream:
                    name, _, rest = stream.read().partition(b"(")[2].rpartition(b")")
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ESRCH):
                    return  # another part of the process reaps our children
                raise KernelError("open", error.errno or 0, f"/proc/{self.pid}/stat") from error
            if name != numbers.INIT_NAME:
                return
            if rest[1:2] in b"ZX":
                raise self.dialogue.suspect_filter(self.died("its program ran"))

    def died(self, before: str = "the container was ready") -> PyruncError:
        """Return the error for an unexpected end of file, and reap init."""
        status = collect(self.pid, self.pidfd, END_SECONDS)
        if status is None:
            return OutOfTurnError(f"it has gone silent before {before}, and has not ended")
        self.pid = 0
        try:
            op = self.check_words()
        except PyruncError as error:
            return error
        if self.words >= 0 and wait_status.signal(status) == _SIGSYS:
            # After a late FORK nothing is noted any more.
            return self.dialogue.filtered(op if self.sock_open else numbers.PLAN_NO_PATH)
        signal = wait_status.signal(status)
        how = f"was killed by signal {signal}" if signal else f"exited with {wait_status.exit_code(status)}"
        return SilentDeathError(f"init {how} before {before}")

    def raise_death(self) -> None:
        """Raise init's error if it has already ended; else do nothing."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        if poller.poll(0):
            self.receive()

    def while_it_lives(self, act: Callable[[int], Answer]) -> Answer:
        """Call a function that uses init's pid. If init has failed meanwhile, raise its own error."""
        try:
            return act(self.pid)
        except PyruncError:
            self.raise_death()
            raise

    def abort(self) -> None:
        """Kill init and wait until it is gone."""
        while self.pid:
            end(self.pid, self.pidfd)
            self.pid = self._successor()
        self.close()

    def dismiss(self) -> int:
        """Close the socket and wait until init has ended: a plan that ends with DONE undoes its changes then.

        Return its wait status; 0 if it was reaped before.
        """
        self.sock.close()
        status = 0
        if self.pid:
            ended = collect(self.pid, self.pidfd, STEP_SECONDS)
            if ended is None:
                end(self.pid, self.pidfd)
            status = _SIGKILL if ended is None else ended
            self.pid = 0
        self.close()
        return status

    def _successor(self) -> int:
        """Return the pid of the successor of a process that has just ended, by an unread FORKED; 0 if there is none."""
        for _ in range(_MOST_UNREAD):
            try:
                data = self._unread()
                if not data:
                    return 0
                name, message = self.dialogue.hear(data, 0)
                if name == "FORKED":
                    pidfd = self._adopt(message.value)
                    os.close(self.pidfd)
                    self.pidfd = pidfd
                    return message.value
            except (OSError, PyruncError):
                return 0
        return 0

    def _unread(self) -> bytes:
        if self.sock_open and (data := self.sock.recv(numbers.SYNC_MESSAGE_SIZE, _socket.MSG_DONTWAIT)):
            return data
        if self.pipes[0] < 0:
            return b""
        os.set_blocking(self.pipes[0], False)
        return os.read(self.pipes[0], numbers.SYNC_MESSAGE_SIZE)

    def close(self) -> None:
        """Close the socket and the pidfd; init continues by itself."""
        self.sock.close()
        self.sock_open = False
        for fd in self.pipes:
            if fd >= 0:
                os.close(fd)
        self.pipes = -1, -1
        if self.held is not None:
            os.close(self.held[0])
            self.held = None
        for fd in (self.pidfd, self.words):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.words = -1


def _open(op: wire.Op, fd: wire.Fd) -> int:
    try:
        return os.open(fd.arg, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        gone = fd.kind == "ns" and error.errno in (errno.ENOENT, errno.ESRCH)
        hint = "the namespace's file or process is gone" if gone else None
        raise KernelError("open", error.errno or 0, fd.arg, path=op.path, hint=hint) from error


def _open_all(ops: Sequence[wire.Op], known: dict[str, int], opened: dict[wire.Fd, int]) -> None:
    makers: list[Trees] = []
    try:
        for op in ops:
            for field in op.fields:
                if not isinstance(field, wire.Fd) or field in opened:
                    continue
                if field.kind == "words" and field.kind not in known:
                    opened[field] = kernel_process.shared_memfd("words", numbers.LAST_WORDS_SIZE)
                elif field.kind in ("tree", "filesystem"):
                    if not makers:
                        from pyrunc.launch import detached_mounts

                        makers.append(detached_mounts.Trees())
                    opened[field] = makers[0].open(field, op.path)
                else:
                    opened[field] = known[field.kind] if field.kind in known else _open(op, field)
    finally:
        for maker in makers:
            maker.close()


def _pipes(ops: Sequence[wire.Op]) -> tuple[list[int], dict[str, int]]:
    """Make the pipes for a late FORK: our ends (messages, answers), and init's by kind. Raise KernelError."""
    if not any(op.name == "FORK" and isinstance(op.fields[0], wire.Fd) for op in ops):
        return [-1, -1], {}
    made: list[int] = []
    try:
        made += os.pipe2(os.O_CLOEXEC)
        made += os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        for fd in made:
            os.close(fd)
        raise KernelError("pipe2", error.errno or 0) from error
    # The reader at the other end may also fill them.
    os.set_blocking(made[3], False)
    return [made[0], made[3]], {"messages": made[1], "answers": made[2]}


def _joined_pid_namespace(ops: Sequence[wire.Op], opened: dict[wire.Fd, int]) -> tuple[int, int] | None:
    for op in ops:
        if op.name == "SETNS" and op.fields[1] == CLONE_NEWPID:
            fd = op.fields[0]
            found = os.fstat(opened[fd] if isinstance(fd, wire.Fd) else int(fd))  # type: ignore[arg-type]
            return found.st_dev, found.st_ino
    return None


def start(
    ops: Sequence[wire.Op],
    *,
    known: dict[str, int],
    clone_flags: int = 0,
    cgroup_fd: int = -1,
    deadline: bool = True,
) -> Init:
    """Start init with these ops. `known` gives descriptors by Fd kind ("fifo"); all others are opened here.

    `deadline` False leaves the time between two messages open (hooks without a timeout run inside init). Raise
    KernelError with the JSON path of the op whose file could not be opened.
    """
    pipes, theirs_by_kind = _pipes(ops)
    known = {**known, **theirs_by_kind}
    opened: dict[wire.Fd, int] = {}
    memfds: list[int] = []
    socks: list[_socket.socket] = []
    try:
        try:
            ours, theirs = _socket.socketpair(
                _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0
            )
        except OSError as error:
            raise KernelError("socketpair", error.errno or 0) from error
        socks += [theirs, ours]
        _open_all(ops, known, opened)
        pid_space = _joined_pid_namespace(ops, opened)
        memfds.append(kernel_process.sealed_memfd("plan", wire.encode(ops, opened)))
        memfds.append(kernel_process.sealed_memfd("pyrunc-init", init_program()))
        argv = [b"pyrunc: [init]", b"%d" % theirs.fileno(), b"%d" % memfds[0]]
        keep = [theirs.fileno(), memfds[0], *[fd for fd in opened.values() if fd >= 0]]
        pid, pidfd = kernel_process.spawn(
            argv, [], exe_fd=memfds[1], keep=keep, clone_flags=clone_flags, cgroup_fd=cgroup_fd
        )
        filtered = any(op.name == "SECCOMP" for op in ops)
        words = [os.dup(fd) for key, fd in opened.items() if key.kind == "words" and filtered]
        init = Init(ops, pid, pidfd, ours, deadline, (pipes[0], pipes[1]), pid_space, *words)
        socks, pipes = [theirs], []
        return init
    finally:
        for sock in socks:
            sock.close()
        for fd in (*memfds, *theirs_by_kind.values(), *pipes):
            if fd >= 0:
                os.close(fd)
        for key, fd in opened.items():
            if key.kind not in known and fd >= 0:
                os.close(fd)
