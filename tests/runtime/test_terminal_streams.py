"""A terminal that run and exec serve: whoever does not read or write at one end stops nothing at the other.

What each test compares with is runc 1.1.5, where the runtime's own streams are concerned.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

import support
import terminals
from machines import patience

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Sequence
    from typing import IO, Protocol

    from containers import Bundle, BundleFactory, Container, ContainerFactory, User

    Stream = int | IO[bytes]

    class AttachedFactory(Protocol):
        """The fixture `attached`."""

        def __call__(
            self, verb: str, script: str, *, terminal: bool = True, user: User | None = None
        ) -> Attached:
            """Words that run the script."""


pytestmark = pytest.mark.root

LINE = b"x" * 78 + b"\n"
VERBS = pytest.mark.parametrize("verb", ["run", "exec"])


def shell(what: Bundle, script: str, *, terminal: bool = True) -> Bundle:
    """With a terminal and a script."""
    what.args("sh", "-c", script).mapping("process")["terminal"] = terminal
    return what


class Attached:
    """Words of an attached run or exec of one script, and the runtime's process once `begin` has started them."""

    def __init__(self, one: Container, words: list[str]) -> None:
        self.one = one
        self.words = words
        self.process: subprocess.Popen[bytes] | None = None

    def begin(
        self,
        prefix: Sequence[str] = (),
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start it."""
        self.process = subprocess.Popen(
            [*prefix, *self.words], stdin=stdin, stdout=stdout, stderr=stderr, cwd="/"
        )
        return self.process

    def end(self) -> None:
        """Whatever became of it."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


@pytest.fixture
def attached(container: ContainerFactory, bundle: BundleFactory) -> Iterator[AttachedFactory]:
    """A factory: attached("exec", SCRIPT), with a terminal unless said otherwise."""
    made: list[Attached] = []

    def make(verb: str, script: str, *, terminal: bool = True, user: User | None = None) -> Attached:
        if verb == "run":
            one = container(shell(bundle("busybox", user=user), script, terminal=terminal), user=user)
            words = [*one.command, "run", "--bundle", one.bundle.path, one.id]
        else:
            one = container(bundle("probe").probe("pause")).up()
            one.expect("ready")
            words = [*one.command, "exec", *(["-t"] if terminal else []), one.id, "/bin/busybox", "sh", "-c"]
            words.append(script)
        made.append(Attached(one, words))
        return made[-1]

    yield make
    for each in made:
        each.end()


def typing(screen: terminals.Screen, data: bytes, until: bytes, seconds: float = 60) -> bytes:
    """Type `data` and read what is shown, at once, until `until` is shown; all that was shown."""
    deadline = time.monotonic() + patience(seconds)
    os.set_blocking(screen.master, False)
    left, shown = memoryview(data), bytearray()
    while until not in shown:
        assert time.monotonic() < deadline, f"{len(left)} bytes not typed, {len(shown)} shown"
        ready, room, _ = select.select([screen.master], [screen.master] if left else [], [], 1)
        with contextlib.suppress(BlockingIOError):
            if ready:
                shown += os.read(screen.master, 65536)
            if room:
                left = left[os.write(screen.master, left[:4096]) :]
    return bytes(shown)


def waiting_in(fd: int) -> int:
    """How many bytes wait in a pipe. FIONREAD."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return [int(child) for child in stream.read().split()]


def read_all(fd: int, seconds: float = 30) -> bytes:
    """Until nobody can write any more."""
    deadline = time.monotonic() + patience(seconds)
    got = bytearray()
    while True:
        assert select.select([fd], [], [], max(0, deadline - time.monotonic()))[0], (
            f"no end after {len(got)}"
        )
        piece = os.read(fd, 65536)
        if not piece:
            return bytes(got)
        got += piece


# --- Both directions --------------------------------------------------------------------------------------------------


@VERBS
@pytest.mark.parametrize(("mode", "size"), [("raw", 300_000), ("cooked", 300_000), ("raw", 10_000_000)])
def test_a_paste(attached: AttachedFactory, verb: str, mode: str, size: int) -> None:
    """Every byte arrives; in cooked mode the echo goes the other way meanwhile."""
    data = LINE * (size // len(LINE))
    settings = "stty raw -echo; " if mode == "raw" else ""
    run = attached(verb, f"{settings}echo ready; head -c {len(data)} | md5sum; echo the end; exit 3")
    with terminals.Screen(run.words) as screen:
        screen.expect("ready")
        shown = typing(screen, data, b"the end")
        assert hashlib.md5(data).hexdigest().encode() in shown
        assert screen.wait() == 3


@VERBS
def test_both_ways_at_once(attached: AttachedFactory, verb: str) -> None:
    """More than the pty holds, out while in, byte for byte."""
    data = LINE * 4000
    run = attached(verb, f"stty raw -echo; echo ready; head -c {len(data)}; echo the end; exit 3")
    with terminals.Screen(run.words) as screen:
        screen.expect("ready\n")
        shown = typing(screen, data, b"the end")
        assert shown.removesuffix(b"\n").removesuffix(b"the end") == data
        assert screen.wait() == 3


@VERBS
def test_input_that_nobody_reads(attached: AttachedFactory, verb: str) -> None:
    """What comes beside it still comes: a signal."""
    run = attached(verb, "stty raw -echo; trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done")
    source, sink = os.pipe()
    process = run.begin(stdin=source, stdout=subprocess.PIPE)
    os.close(source)
    assert process.stdout is not None
    terminals.read_until(process.stdout.fileno(), "ready")
    os.set_blocking(sink, False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(200):
            os.write(sink, b"y" * 4096)
            select.select([], [sink], [], 0.05)
    process.terminate()
    assert process.wait(timeout=patience(10)) == 9
    os.close(sink)


NOISE = "trap 'exit 9' TERM; echo ready; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done & wait"


def full(run: Attached) -> tuple[subprocess.Popen[bytes], int, bytes]:
    """Started with a pipe for its output that is full: the process, the pipe's other end, what was read from it."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = run.begin(stdout=write)
    os.close(write)
    seen, _ = terminals.read_until(read, "ready")
    support.wait_until(lambda: waiting_in(read) > 0, "output")
    return process, read, seen


@pytest.mark.slow
@VERBS
def test_output_that_nobody_reads(attached: AttachedFactory, verb: str) -> None:
    """The program is told to end, and does; then nobody waits for the reader any more."""
    process, read, _ = full(attached(verb, NOISE))
    process.terminate()
    assert process.wait(timeout=patience(15)) == 9
    os.close(read)


@VERBS
def test_a_slow_reader_loses_nothing(attached: AttachedFactory, verb: str) -> None:
    """The program has long ended when the reader begins; nobody told anything to end."""
    data = LINE * 110
    run = attached(verb, f"stty -onlcr; echo ready; head -c {len(data)} /dev/zero | tr '\\0' z; exit 4")
    process, read, seen = full(run)
    support.wait_until(lambda: all(map(support.process_gone, children(process.pid))), "the program's end")
    assert process.poll() is None
    rest = seen + read_all(read)
    assert rest.count(b"z") == len(data)
    assert process.wait(timeout=10) == 4
    os.close(read)


@VERBS
def test_megabytes_at_the_end(attached: AttachedFactory, verb: str) -> None:
    run = attached(verb, "head -c 3000000 /dev/zero | tr '\\0' z; exit 4")
    read, write = os.pipe()
    process = run.begin(stdout=write)
    os.close(write)
    assert read_all(read) == b"z" * 3_000_000
    assert process.wait(timeout=10) == 4
    os.close(read)


def test_a_child_that_stays_in_the_background(attached: AttachedFactory) -> None:
    """It holds the terminal; exec ends with its program."""
    run = attached("exec", "sleep 600 & echo done; exit 6")
    process = run.begin(stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert read_all(process.stdout.fileno()) == b"done\r\n"
    assert process.wait(timeout=10) == 6


@VERBS
def test_a_terminal_that_nobody_has_open_for_a_while(attached: AttachedFactory, verb: str) -> None:
    """Programs as getty close it and open it again: more than a pty holds comes afterwards."""
    script = (
        "echo one; exec </dev/null >/dev/null 2>&1; sleep 0.5; exec </dev/tty >/dev/tty; read x; echo $x;"
        "head -c 300000 /dev/zero | tr '\\0' z; exit 3"
    )
    run = attached(verb, script)
    with terminals.Screen(run.words) as screen:
        screen.expect("one")
        screen.send("two\r")
        screen.expect("two\r\ntwo\r\n")
        assert screen.expect("z" * 300_000)
        assert screen.wait() == 3


# --- Ends -------------------------------------------------------------------------------------------------------------


@VERBS
@pytest.mark.parametrize("kind", ["pipe", "file", "socket", "/dev/null"])
def test_the_end_of_our_input(
    attached: AttachedFactory, verb: str, kind: str, tmp_path: pathlib.Path
) -> None:
    """All of it arrives. The program is not told of the end: it has a terminal, as with runc."""
    run = attached(verb, "trap 'exit 9' TERM; echo ready; read x; echo got $x; sleep 600 & wait")
    data = b"one\n"
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(theirs)
        if kind == "/dev/null":
            stdin: Stream = subprocess.DEVNULL
        elif kind == "file":
            path = str(tmp_path / "input")
            with open(path, "wb") as stream:
                stream.write(data)
            stdin = stack.enter_context(open(path, "rb"))
        elif kind == "socket":
            stdin = theirs.fileno()
        else:
            stdin = subprocess.PIPE
        process = run.begin(stdin=stdin, stdout=subprocess.PIPE)
        assert process.stdout is not None
        seen, _ = terminals.read_until(process.stdout.fileno(), "ready\r\n")
        if kind == "socket":
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)
        elif process.stdin is not None:
            process.stdin.write(data)
            process.stdin.close()
        if kind != "/dev/null":
            terminals.read_until(process.stdout.fileno(), "got one\r\n", seen)
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=patience(10)) == 9


@VERBS
def test_a_socket_for_our_output(attached: AttachedFactory, verb: str) -> None:
    """With a reader who comes late."""
    run = attached(verb, "head -c 1000000 /dev/zero | tr '\\0' z; exit 3")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = run.begin(stdout=theirs.fileno())
        theirs.close()
        assert read_all(ours.fileno()) == b"z" * 1_000_000
        assert process.wait(timeout=10) == 3


@pytest.mark.parametrize(("verb", "status"), [("run", 7), ("exec", 128 + 13)])
def test_a_reader_that_goes(attached: AttachedFactory, verb: str, status: int) -> None:
    """The program gets SIGPIPE, which the init of a pid namespace ignores, and its terminal is hung up."""
    run = attached(verb, "trap '' HUP; echo ready; read x; while echo y; do :; done; exit 7")
    read, write = os.pipe()
    process = run.begin(stdin=subprocess.PIPE, stdout=write)
    os.close(write)
    # The echo of the newline is output as well, and hangs up a shell that has not set its trap yet.
    terminals.read_until(read, "ready\r\n")
    os.close(read)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(timeout=patience(10)) == status


@VERBS
def test_output_to_a_full_device(attached: AttachedFactory, verb: str) -> None:
    """Nobody will ever take it: as on a terminal that was hung up."""
    run = attached(verb, "trap 'exit 7' HUP; while :; do echo y; sleep 0.1; done")
    with open("/dev/full", "wb") as stream:
        assert run.begin(stdout=stream).wait(timeout=patience(10)) == 7


@VERBS
@pytest.mark.parametrize("script", ["sleep 0.5; exit 7", "sleep 0.5; trap '' HUP; seq 1 30000; exit 7"])
def test_our_terminal_is_closed(attached: AttachedFactory, verb: str, script: str) -> None:
    """It is not our controlling one, so nothing says so but EIO; the program's status is what counts."""
    run = attached(verb, f"trap '' HUP; echo ready; {script}")
    master, slave = pty.openpty()
    process = run.begin(stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    terminals.read_until(master, "ready")
    os.close(master)
    assert process.wait(timeout=patience(10)) == 7


@VERBS
def test_our_controlling_terminal_is_closed(attached: AttachedFactory, verb: str) -> None:
    """SIGHUP is forwarded, and the status comes back although nothing can be written any more."""
    run = attached(verb, "trap 'exit 7' HUP; echo ready; while :; do sleep 0.1; done")
    master, slave = pty.openpty()
    process = run.begin(["setsid", "--ctty", "--wait"], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    terminals.read_until(master, "ready")
    os.close(master)
    assert process.wait(timeout=patience(10)) == 7


@pytest.mark.slow
@VERBS
def test_our_terminal_is_stopped(attached: AttachedFactory, verb: str) -> None:
    """As by ^S: giving it back its settings waits for nothing."""
    run = attached(verb, "trap 'exit 9' TERM; echo ready; read x; echo more; while :; do sleep 0.1; done")
    with terminals.Screen(run.words) as screen:
        screen.expect("ready")
        termios.tcflow(screen.slave, termios.TCOOFF)
        screen.send("\r")
        screen.process.terminate()
        assert screen.wait(timeout=patience(15)) == 9
        assert termios.tcgetattr(screen.slave) == screen.before
        termios.tcflow(screen.slave, termios.TCOON)


def test_streams_that_cannot_be_opened_anew(attached: AttachedFactory, rootless: User) -> None:
    """After su(1) the terminal is somebody else's: it is read and written all the same, and blocks nothing."""
    run = attached(
        "run",
        "echo ready; read x; echo got $x; trap 'exit 9' TERM; seq 1 30000; sleep 600 & wait",
        user=rootless,
    )
    with terminals.Screen(run.words) as screen:
        os.chmod(os.ttyname(screen.slave), 0o600)
        screen.expect("ready")
        screen.send("one\r")
        screen.expect("got one")
        screen.expect("\r\n30000\r\n")
        screen.process.terminate()
        assert screen.wait(timeout=patience(10)) == 9


# --- Signals ----------------------------------------------------------------------------------------------------------


@VERBS
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("how", ["block", "ignore"])
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "CHLD"])
def test_what_our_caller_blocked_or_ignored(
    attached: AttachedFactory, verb: str, terminal: bool, how: str, name: str
) -> None:
    """It is forwarded, as runc does it, and with SIGCHLD ignored the status is known all the same."""
    sent = "TERM" if name == "CHLD" else name
    run = attached(verb, f"trap 'exit 9' {sent}; echo ready; while :; do sleep 0.1; done", terminal=terminal)
    process = run.begin(["env", f"--{how}-signal={name}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    terminals.read_until(process.stdout.fileno(), "ready")
    process.send_signal(getattr(signal, f"SIG{sent}"))
    assert process.wait(timeout=patience(10)) == 9


@VERBS
def test_many_signals(container: ContainerFactory, bundle: BundleFactory, verb: str) -> None:
    """All that came while the runtime stood still are counted: real-time signals queue."""
    one = container(bundle("probe").probe("sigwait"))
    words = [*one.command, "run", "--bundle", one.bundle.path, one.id]
    if verb == "exec":
        one.up().expect("ready")
        words = [*one.command, "exec", one.id, "/bin/probe", "sigwait"]
    run = Attached(one, words)
    process = run.begin(stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        seen, _ = terminals.read_until(process.stdout.fileno(), "ready\n")
        process.send_signal(signal.SIGSTOP)
        for _ in range(1000):
            process.send_signal(40)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGCONT)
        for _ in range(1002):
            seen, _ = terminals.read_until(process.stdout.fileno(), "\n", seen)
        process.terminate()
        _, text = terminals.read_until(process.stdout.fileno(), "signal 15\n", seen)
        assert text == "signal 15\n"
        assert process.wait(timeout=10) == 0
    finally:
        run.end()


@VERBS
def test_signals_at_the_end(attached: AttachedFactory, verb: str) -> None:
    """One that comes when the program has ended is not the end of the runtime, whose status is the program's."""
    run = attached(verb, "trap '' TERM; echo ready; exit 5", terminal=False)
    for _ in range(5):
        process = run.begin(stdout=subprocess.PIPE)
        assert process.stdout is not None
        terminals.read_until(process.stdout.fileno(), "ready")
        deadline = time.monotonic() + patience(20)
        while process.poll() is None and time.monotonic() < deadline:
            process.terminate()
        assert process.wait(timeout=10) == 5
        run.end()


# --- Job control ------------------------------------------------------------------------------------------------------


def test_in_the_background_of_a_shell(attached: AttachedFactory) -> None:
    """It goes on, leaves the terminal alone, and has it once it is in the foreground; also after a stop."""
    run = attached("run", "echo in; read x; echo got $x; read y; echo then $y; exit 3")
    words = " ".join(run.words)
    with terminals.Screen(["bash", "--norc", "--noprofile", "-i"]) as screen:
        screen.send("PS1='prompt''> '\r")
        screen.expect("prompt> ")
        screen.send(f"{words} &\r")
        screen.expect("in\r")
        screen.send("echo shell $((40 + 2))\r")
        screen.expect("shell 42")
        screen.send("jobs\r")
        screen.expect("Running")
        screen.send("fg\r")
        screen.expect("run --bundle")
        support.wait_until(
            lambda: not termios.tcgetattr(screen.slave)[3] & (termios.ICANON | termios.ECHO),
            "the raw terminal",
        )
        screen.send("hello\r")
        screen.expect("hello\r\ngot hello\r\n")
        os.kill(_job(run.one.id), signal.SIGSTOP)
        screen.expect("Stopped")
        screen.expect("prompt> ")
        screen.send("fg\r")
        screen.expect("run --bundle")
        support.wait_until(
            lambda: not termios.tcgetattr(screen.slave)[3] & (termios.ICANON | termios.ECHO),
            "the raw terminal",
        )
        screen.send("again\r")
        screen.expect("again\r\nthen again\r\n")
        screen.expect("prompt> ")
        screen.send("echo status $?\r")
        screen.expect("status 3\r")


def _job(container_id: str) -> int:
    """The runtime that runs this container."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")
            if b"run" in words and container_id.encode() in words:
                return int(entry)
    raise AssertionError(f"no runtime of {container_id}")
