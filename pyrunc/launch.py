"""The parent side of one init: start it, answer it, hear why it failed.

    runtime                                   init (static C, from a sealed memfd)
      open what the plan names, encode
      spawn: clone3(namespaces [+ INTO_CGROUP]) ──▶ read plan, do its ops in order
      ◀── FORKED pid        only with joined pid or user namespaces: the process that goes on
      ◀── MAPS              uid_map and gid_map are written           ──▶ go
      ◀── CGROUP            it is in its cgroup                       ──▶ go
      ◀── ENV               mounts are there: limits, prestart and createRuntime hooks ──▶ go
      ◀── CONSOLE, SECCOMP  with a descriptor that is passed on       ──▶ go
      ◀── READY             state is written                          ──▶ go
      end of file: exec closed the socket, or init waits on exec.fifo
      ◀── ERROR             at any time: {op, step, errno, text}, then it exits

Imported by runtime; imports errors, failures, kernel and wire.
"""

from __future__ import annotations

import _signal
import _socket
import os
import select

from pyrunc import failures, kernel, wire
from pyrunc.errors import ContainerError, KernelError, PyruncError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.trees import Trees

# Between two messages init waits for nobody but hooks, which have timeouts of their own, and file systems.
STEP_SECONDS = 120
_SIGKILL = 9
_CODES = {number: name for name, number in wire.SYNC.items()}


def init_program() -> bytes:
    """The static init of this installation."""
    try:
        fd = os.open(os.path.join(os.path.dirname(__file__), "init"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(
            "open", error.errno or 0, "pyrunc/init", hint="the installation is incomplete"
        ) from error


def end(pid: int, pidfd: int) -> None:
    """End a child of ours, which may have ended or been collected already, and wait until it is gone."""
    try:
        _signal.pidfd_send_signal(pidfd, _SIGKILL)
    except ProcessLookupError:
        pass
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


class SilentDeathError(ContainerError):
    """init came to its end and has not said why."""


class Init:
    """One init being brought up. `pid` and `pidfd` follow it through FORKED; `ops` are its plan."""

    __slots__ = ("deadline", "ops", "pid", "pidfd", "sock", "warnings")

    def __init__(
        self, ops: Sequence[wire.Op], pid: int, pidfd: int, sock: _socket.socket, deadline: bool
    ) -> None:
        self.ops = ops
        self.pid = pid
        self.pidfd = pidfd
        self.sock = sock
        self.deadline = deadline
        self.warnings: list[str] = []

    def receive(self) -> tuple[str, int]:
        """The next thing init wants: (name of the sync code, descriptor that came with it or -1).

        "" is the end: init closed the socket (it runs the program, or waits for start). Raises what init reports.
        """
        while True:
            data, fd = self._read()
            if not data:
                return "", -1
            message = wire.message(data)
            name = _CODES.get(message.code, "")
            if name == "ERROR":
                raise failures.explain(self.ops, message)
            if name == "WARNING":
                self.warnings.append(str(failures.explain(self.ops, message)))
            elif name == "FORKED":
                self._follow(message.value)
            else:
                return name, fd

    def _read(self) -> tuple[bytes, int]:
        poller = select.poll()
        poller.register(self.sock.fileno(), select.POLLIN)
        if not poller.poll(STEP_SECONDS * 1000 if self.deadline else None):
            raise ContainerError(f"init did not answer for {STEP_SECONDS} s")
        try:
            data, ancillary, _flags, _address = self.sock.recvmsg(
                wire.SYNC_SIZE, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return b"", -1
        except OSError as error:
            raise KernelError("recvmsg", error.errno or 0, "init's socket") from error
        fd = -1
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                fd = int.from_bytes(content[:4], wire.ORDER)
        return data, fd

    def _follow(self, pid: int) -> None:
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def go(self) -> None:
        """Let init go on."""
        try:
            self.sock.send(wire.SYNC_GO.to_bytes(4, wire.ORDER))
        except BrokenPipeError:
            pass  # it is gone: receive() tells why
        except OSError as error:
            raise KernelError("send", error.errno or 0, "init's socket") from error

    def died(self, before: str = "the container was ready") -> SilentDeathError:
        """Why there was an end of file where there should be none: reaps init."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        how = f"was killed by signal {status & 0x7F}" if status & 0x7F else f"exited with {status >> 8}"
        return SilentDeathError(f"init {how} before {before}")

    def raise_death(self) -> None:
        """Raise what init reports when it has already ended; content when it has not."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        if poller.poll(0):
            self.receive()

    def while_it_lives(self, act: Callable[[], None]) -> None:
        """Do something that needs init; when it has failed meanwhile, its own words are the better ones."""
        try:
            act()
        except PyruncError:
            self.raise_death()
            raise

    def abort(self) -> None:
        """End init and wait until it is gone."""
        while self.pid:
            end(self.pid, self.pidfd)
            self.pid = self._successor()
        self.close()

    def dismiss(self) -> int:
        """Close the socket and wait until init has ended: one whose plan ends with DONE undoes what was not granted.

        Its wait status; 0 when it was collected before.
        """
        self.sock.close()
        status = 0
        if self.pid:
            poller = select.poll()
            poller.register(self.pidfd, select.POLLIN)
            if not poller.poll(STEP_SECONDS * 1000):
                _signal.pidfd_send_signal(self.pidfd, _SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
        self.close()
        return status

    def _successor(self) -> int:
        """Who goes on for the process that has just ended, by a FORKED that nobody has read yet; 0 for nobody."""
        while True:
            try:
                data = self.sock.recv(wire.SYNC_SIZE, _socket.MSG_DONTWAIT)
            except OSError:
                return 0
            if not data:
                return 0
            message = wire.message(data)
            if _CODES.get(message.code) == "FORKED":
                os.close(self.pidfd)
                self.pidfd = os.pidfd_open(message.value)
                return message.value

    def close(self) -> None:
        """Close the socket and the pidfd; init goes on by itself."""
        self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _open(op: wire.Op, fd: wire.Fd) -> int:
    try:
        return os.open(fd.arg, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        hint = "the namespace's file or process is gone" if fd.kind == "ns" else None
        raise KernelError("open", error.errno or 0, fd.arg, path=op.path, hint=hint) from error


def _open_all(ops: Sequence[wire.Op], known: dict[str, int], opened: dict[wire.Fd, int]) -> None:
    makers: list[Trees] = []
    try:
        for op in ops:
            for field in op.fields:
                if not isinstance(field, wire.Fd) or field in opened:
                    continue
                if field.kind in ("tree", "filesystem"):
                    if not makers:
                        from pyrunc import trees

                        makers.append(trees.Trees())
                    opened[field] = makers[0].open(field, op.path)
                else:
                    opened[field] = known[field.kind] if field.kind in known else _open(op, field)
    finally:
        for maker in makers:
            maker.close()


def start(
    ops: Sequence[wire.Op],
    *,
    known: dict[str, int],
    clone_flags: int = 0,
    cgroup_fd: int = -1,
    deadline: bool = True,
) -> Init:
    """Start init with these ops. `known` gives descriptors by Fd kind ("fifo"); all others are opened here.

    `deadline` False leaves the time between two messages open (hooks without a timeout run inside init). Raises
    KernelError with the JSON path of the op whose file could not be opened.
    """
    try:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        raise KernelError("socketpair", error.errno or 0) from error
    opened: dict[wire.Fd, int] = {}
    memfds: list[int] = []
    try:
        _open_all(ops, known, opened)
        memfds.append(kernel.sealed_memfd("plan", wire.encode(ops, opened)))
        memfds.append(kernel.sealed_memfd("pyrunc-init", init_program()))
        argv = [b"pyrunc: [init]", b"%d" % theirs.fileno(), b"%d" % memfds[0]]
        keep = [theirs.fileno(), memfds[0], *[fd for fd in opened.values() if fd >= 0]]
        pid, pidfd = kernel.spawn(
            argv, [], exe_fd=memfds[1], keep=keep, clone_flags=clone_flags, cgroup_fd=cgroup_fd
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in memfds:
            os.close(fd)
        for key, fd in opened.items():
            if key.kind not in known and fd >= 0:
                os.close(fd)
    return Init(ops, pid, pidfd, ours, deadline)
