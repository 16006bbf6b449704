"""A tiny spawner for init's tests: new namespaces, the real program, the parent's side of the sync protocol.

os.fork is fine here: the child does nothing but system calls before it execs init.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

libc = ctypes.CDLL(None, use_errno=True)

NEWTIME, NEWNS, NEWCGROUP = 0x80, 0x20000, 0x2000000
NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC = 1, 2, 4, 4096, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOATIME = 1, 2, 4, 8, 0x10

# One answer of init takes microseconds; this only ends a test that hangs.
PATIENCE = 60.0
# init's own descriptors start here, so that a plan may give lower ones to the program.
OWN_FDS = 100
# What a careless caller leaves open: init must close it.
LEAKED_FD = 200


def op(name: str, *fields: wire.Field) -> wire.Op:
    """An op whose JSON path tells nothing."""
    return wire.Op(name, *fields)


def mount_new(
    target: str,
    fstype: str,
    *,
    source: str = "",
    params: Sequence[str] = (),
    attrs: int = 0,
    steps: Sequence[int] = (),
    flags: int = 0,
) -> wire.Op:
    """MOUNT_NEW with defaults."""
    return op("MOUNT_NEW", target, fstype, source or fstype, list(params), attrs, list(steps), flags)


def mount_bind(
    target: str,
    source: str,
    *,
    tree: int = -1,
    attrs: tuple[int, int, int, int] = (0, 0, 0, 0),
    steps: Sequence[int] = (),
    flags: int = 0,
) -> wire.Op:
    """MOUNT_BIND with defaults; attrs: set, clear, recursively set, recursively clear."""
    return op("MOUNT_BIND", target, source, tree, *attrs, list(steps), flags)


def shell(script: str) -> list[wire.Op]:
    """Run a script of the rootfs' busybox."""
    return [op("EXEC", ["/bin/sh", "-c", script], ["PATH=/bin"], numbers.PLAN_NO_PATH)]


def in_rootfs(rootfs: Path, *before: wire.Op, propagation: int = MS_SLAVE | MS_REC) -> list[wire.Op]:
    """Enter `rootfs` after the given mounts."""
    return [op("ROOTFS", str(rootfs), propagation, 0), *before, op("PIVOT", numbers.PIVOT_ROOT)]


def box(rootfs: Path, *before: wire.Op) -> list[wire.Op]:
    """in_rootfs with a /proc (the host's processes: no pid namespace needed)."""
    return in_rootfs(rootfs, mount_bind("/proc", "/proc", flags=numbers.MOUNT_FLAG_RECURSIVE), *before)


class Mount:
    """One line of /proc/self/mountinfo."""

    def __init__(self, line: str) -> None:
        left, right = line.split(" - ")
        words = left.split()
        self.root, self.point, self.tags = words[3], words[4], words[6:]
        self.options = set(words[5].split(","))
        self.fstype, self.source, super_options = right.split()
        self.super_options = set(super_options.split(","))


def mounts(out: str) -> dict[str, Mount]:
    """Mount point -> the topmost mount there, from the text of mountinfo."""
    return {mount.point: mount for mount in (Mount(line) for line in out.splitlines() if " - " in line)}


def host_mounts() -> dict[str, Mount]:
    """The mounts that the test itself sees."""
    return mounts(Path("/proc/self/mountinfo").read_text())


def open_tree(path: Path, flags: int = 0x8000) -> int:
    """A detached recursive copy of what is at `path`."""
    fd: int = libc.syscall(428, -100, str(path).encode(), flags | 1)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


def map_root(pid: int) -> None:
    """0 is 0 and 1000 is 1000, nobody else is mapped: as good for files of the test as no user namespace."""
    for kind in ("uid", "gid"):
        Path(f"/proc/{pid}/{kind}_map").write_text("0 0 1\n1000 1000 1\n")


class Result:
    """What became of one init: `error` is its report (None: none), `status` its wait status, `out` its stdout."""

    def __init__(self) -> None:
        self.error: wire.Message | None = None
        self.warnings: list[wire.Message] = []
        self.codes: list[str] = []
        self.out = ""
        self.status = 0

    @property
    def exit_code(self) -> int:
        """Exit status, or -signal."""
        return os.waitstatus_to_exitcode(self.status)

    def ok(self) -> str:
        """The output of a run in which nothing failed."""
        assert self.error is None, describe(self.error)
        assert self.exit_code == 0, f"exit code {self.exit_code}: {self.out}"
        return self.out

    def failed(self) -> wire.Message:
        """The error of a run that failed, after a clean exit with 1."""
        assert self.error is not None, f"init reported nothing: {self.exit_code}: {self.out}"
        assert self.exit_code == 1, self.exit_code
        return self.error


def describe(message: wire.Message) -> str:
    """One line for an assertion."""
    reason = os.strerror(message.errno) if message.errno else "-"
    return f"op {message.op}: {message.step} '{message.text}': {reason} (value {message.value})"


class Running:
    """One init that was started. Close it, or use it as a context manager."""

    def __init__(self, pid: int, sync: socket.socket, out: int) -> None:
        self.pid = pid
        self.sync = sync
        self.out = out
        self.result = Result()
        self.fds: list[int] = []
        self.reaped = False

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.reaped = True
        self.sync.close()
        if self.out >= 0:
            os.close(self.out)
            self.out = -1
        for fd in self.fds:
            os.close(fd)

    def receive(self) -> wire.Message | None:
        """The next message; None at the end of file."""
        self.sync.settimeout(PATIENCE)
        try:
            data, ancillary, _, _ = self.sync.recvmsg(numbers.SYNC_MESSAGE_SIZE, socket.CMSG_SPACE(4))
        except ConnectionResetError:
            return None
        for _, _, content in ancillary:
            fds = array.array("i")
            fds.frombytes(content[:4])
            self.fds.extend(fds)
        return wire.message(data) if data else None

    def go(self) -> None:
        """Answer a message that waits."""
        self.sync.send(numbers.SYNC_GO.to_bytes(4, wire.ORDER))

    def serve(self, answers: Mapping[str, Callable[[Running], None]] | None = None) -> Result:
        """Answer everything until init closes the socket."""
        names = {number: name for name, number in numbers.SYNC.items()}
        while (message := self.receive()) is not None:
            name = names[message.code]
            self.result.codes.append(name)
            if name == "ERROR":
                self.result.error = message
            elif name == "WARNING":
                self.result.warnings.append(message)
            elif name == "FORKED":
                _, status = os.waitpid(self.pid, 0)
                assert status == 0
                self.pid = message.value
                self.go()
            else:
                if answers and name in answers:
                    answers[name](self)
                self.go()
        return self.result

    def wait(self) -> Result:
        """Read the output to its end and reap."""
        chunks = []
        while select.select([self.out], [], [], PATIENCE)[0] and (chunk := os.read(self.out, 65536)):
            chunks.append(chunk)
        self.result.out = b"".join(chunks).decode(errors="replace")
        pidfd = os.pidfd_open(self.pid)
        try:
            assert select.select([pidfd], [], [], PATIENCE)[0], "init hangs"
        finally:
            os.close(pidfd)
        _, self.result.status = os.waitpid(self.pid, 0)
        self.reaped = True
        return self.result


def _memfd(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, 0)
    os.write(fd, content)
    return fd


class Machine:
    """Starts one build of init."""

    def __init__(self, program: Path, *, sanitized: bool = False) -> None:
        self.program = program
        self.sanitized = sanitized

    def start(
        self,
        plan: Sequence[wire.Op] | bytes,
        *,
        unshare: int = NEWNS,
        keep: Sequence[int] = (),
        stdin: int = -1,
        prepare: Callable[[], object] | None = None,
        outside: Callable[[int], None] | None = None,
        wrapper: Sequence[str] = (),
        trace: int = -1,
    ) -> Running:
        """Fork, unshare, exec init. A new pid namespace costs a second fork.

        `prepare` runs in the child right before exec; `outside` in the test, with the child's pid, once it has its
        namespaces, when a user namespace is among them; `wrapper` is a command that stands before init; `trace` the
        descriptor that gets the time of each op.
        """
        data = plan if isinstance(plan, bytes) else wire.encode(plan)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        out_read, out_write = os.pipe()
        plan_fd = _memfd("plan", data)
        pid_read, pid_write = os.pipe()
        go_read, go_write = os.pipe()
        middle = os.fork()
        if middle == 0:
            try:
                self._child(
                    theirs,
                    plan_fd,
                    out_write,
                    (pid_write, go_read),
                    unshare,
                    keep,
                    stdin,
                    prepare,
                    wrapper,
                    trace,
                )
            finally:
                os._exit(99)
        for fd in (out_write, plan_fd, pid_write, go_read):
            os.close(fd)
        theirs.close()
        if unshare & NEWUSER:
            os.read(pid_read, 4)
            if outside:
                outside(middle)
            os.write(go_write, b"x")
        pid = middle
        if unshare & NEWPID:
            pid = self._second_child(pid_read, middle)
        os.close(pid_read)
        os.close(go_write)
        return Running(pid, ours, out_read)

    @staticmethod
    def _second_child(pid_read: int, middle: int) -> int:
        data = os.read(pid_read, 4)
        os.waitpid(middle, 0)
        return int(struct.unpack("i", data)[0])

    def _child(
        self,
        sync: socket.socket,
        plan_fd: int,
        out: int,
        pipes: tuple[int, int],
        unshare: int,
        keep: Sequence[int],
        stdin: int,
        prepare: Callable[[], object] | None,
        wrapper: Sequence[str],
        trace: int,
    ) -> None:
        if unshare and libc.unshare(unshare) < 0:
            raise OSError(ctypes.get_errno(), "unshare")
        pid_write, go_read = pipes
        if unshare & NEWUSER:
            os.write(pid_write, b"here")
            os.read(go_read, 1)
        if unshare & NEWPID:
            # The test run is a subreaper (tests/conftest.py) and inherits it.
            pid = os.fork()
            if pid:
                os.write(pid_write, struct.pack("i", pid))
                os._exit(0)
        if stdin < 0:
            stdin = os.open("/dev/null", os.O_RDONLY)
        os.dup2(stdin, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        # as the runtime leaves it: nothing but the named descriptors survives exec
        traces = [trace] if trace >= 0 else []
        own = [fcntl.fcntl(fd, fcntl.F_DUPFD, OWN_FDS) for fd in (sync.fileno(), plan_fd, *traces)]
        for fd in keep:
            os.set_inheritable(fd, True)
        low = 3
        for fd in sorted({*own, *keep}):
            os.closerange(low, fd)
            low = fd + 1
        os.dup2(0, LEAKED_FD)
        environment = {"ASAN_OPTIONS": "detect_leaks=0"} if self.sanitized else {}
        if prepare:
            prepare()
        argv = [*wrapper, str(self.program), *map(str, own)]
        os.execve(argv[0], argv, environment)

    def run(
        self,
        plan: Sequence[wire.Op] | bytes,
        *,
        unshare: int = NEWNS,
        keep: Sequence[int] = (),
        stdin: int = -1,
        prepare: Callable[[], object] | None = None,
        answers: Mapping[str, Callable[[Running], None]] | None = None,
        outside: Callable[[int], None] | None = None,
        wrapper: Sequence[str] = (),
        trace: int = -1,
    ) -> Result:
        """Start, answer everything, wait."""
        with self.start(
            plan,
            unshare=unshare,
            keep=keep,
            stdin=stdin,
            prepare=prepare,
            outside=outside,
            wrapper=wrapper,
            trace=trace,
        ) as running:
            running.serve(answers)
            return running.wait()
