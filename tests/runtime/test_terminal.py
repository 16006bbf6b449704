"""Terminals: console and pidfd sockets, attached run and exec on a terminal of ours."""

from __future__ import annotations

import os
import re
import stat
import termios
from typing import TYPE_CHECKING

import pytest

import support
import terminals
from namespaces import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root


def on_terminal(what: Bundle, rows: int = 0, columns: int = 0) -> Bundle:
    """With a terminal."""
    what.mapping("process")["terminal"] = True
    if rows:
        what.mapping("process")["consoleSize"] = {"height": rows, "width": columns}
    return what


@pytest.fixture
def fd_socket(scratch: str) -> Iterator[terminals.FdSocket]:
    """A socket that takes the terminal or a pidfd."""
    made = terminals.FdSocket(os.path.join(scratch, "fd.sock"))
    yield made
    made.close()


def run_command(one: Container, *options: str) -> list[str]:
    """The words of `run` in the foreground."""
    return [*one.command, "run", "--bundle", one.bundle.path, *options, one.id]


# --- Console socket ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [False, True])
def test_console_socket(
    container: ContainerFactory, bundle: BundleFactory, fd_socket: terminals.FdSocket, user: bool
) -> None:
    """The receiver accepts only after create has returned, as containerd does, and answers nothing."""
    what = on_terminal(bundle("probe"), 11, 22).probe(
        "tty", "--", "process", "--", "winsize", "--", "stat", "/dev/console", "--", "mounts", "--", "fds",
        "--", "pause",
    )  # fmt: skip
    if user:
        mapped(what)
    one = container(what)
    one.create("--console-socket", fd_socket.path).ok()
    payload, master = fd_socket.receive()
    try:
        assert 0 < len(payload) < 4096
        assert os.isatty(master)
        # Nothing of the container holds what create was given.
        assert one.output() == ""
        one.start().ok()
        _, text = terminals.read_until(master, "ready\r\n")
        facts = support.Facts(text.replace("\r\n", "\n"))
        device = re.fullmatch(r"0 yes (136:\d+) uid 0 gid 5", facts.all("tty")[0])
        assert device, facts.text
        assert facts.all("tty")[1:] == [f"{fd} yes {device[1]} uid 0 gid 5" for fd in (1, 2)]
        assert facts["controlling"] == "yes"
        assert facts["sid"] == "1"
        assert facts["winsize"] == "11 22"
        assert f"mode {stat.S_IFCHR | 0o620:06o} uid 0 gid 5" in facts["stat"]
        assert facts["stat"].endswith(f"rdev {device[1]}")
        assert " /dev/console " in facts.text
        assert [line.split()[0] for line in facts.all("fd")] == ["0", "1", "2"]
    finally:
        os.close(master)


def test_the_terminal_is_the_users(
    container: ContainerFactory, bundle: BundleFactory, fd_socket: terminals.FdSocket
) -> None:
    what = on_terminal(bundle("probe")).probe(
        "tty", "--", "open", "/dev/tty", "rw", "--", "open", "/dev/console", "rw"
    )
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1000}
    one = container(what)
    one.create("--console-socket", fd_socket.path).ok()
    _, master = fd_socket.receive()
    try:
        one.start().ok()
        _, text = terminals.read_until(master, "/dev/console 0\r\n")
        assert "uid 1000 gid 5" in text
        assert "open /dev/tty 0" in text
    finally:
        os.close(master)


def test_hanging_up_ends_the_program(
    container: ContainerFactory, bundle: BundleFactory, fd_socket: terminals.FdSocket
) -> None:
    """It is the controlling terminal: closing the master is a SIGHUP."""
    script = "trap 'exit 5' HUP; sleep 600 & echo ready; wait"
    one = container(on_terminal(bundle("busybox", "sh", "-c", script)))
    one.create("--console-socket", fd_socket.path).ok()
    _, master = fd_socket.receive()
    one.start().ok()
    terminals.read_until(master, "ready")
    os.close(master)
    assert one.wait() == 5


def test_exec_with_a_console_socket(
    container: ContainerFactory, bundle: BundleFactory, fd_socket: terminals.FdSocket
) -> None:
    one = container(bundle("probe").probe("pause")).up()
    one.expect("ready")
    pid_file = one.pid_file + ".exec"
    options = ["--tty", "--detach", "--pid-file", pid_file, "--console-socket", fd_socket.path]
    one.exec("/bin/probe", "tty", "--", "process", "--", "stdin", options=options).ok()
    payload, master = fd_socket.receive()
    try:
        assert payload
        _, text = terminals.read_until(master, "pdeathsig")
        facts = support.Facts(text.replace("\r\n", "\n"))
        assert facts["controlling"] == "yes"
        assert facts["sid"] == facts["pid"]
        os.write(master, b"typed\n")
        terminals.read_until(master, "typed\r\ntyped\r\n")
        os.write(master, b"\x04")
        with open(pid_file, encoding="ascii") as stream:
            assert support.wait_for_exit(int(stream.read())) == 0
    finally:
        os.close(master)


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_socket_that_nobody_listens_at(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, verb: str
) -> None:
    one = container(on_terminal(bundle("probe")))
    path = os.path.join(scratch, "missing.sock")
    words = ["--detach"] if verb == "run" else []
    result = one.pyrunc(verb, "--bundle", one.bundle.path, "--console-socket", path, *words, one.id)
    result.fails("connect", path, "no such file or directory", "--console-socket")
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_terminal_and_options_must_fit(
    container: ContainerFactory, bundle: BundleFactory, fd_socket: terminals.FdSocket
) -> None:
    """runc's words, which its users know."""
    allocate = "cannot allocate tty if runc will detach without setting console socket"
    use = "cannot use console socket if runc will not detach or allocate tty"
    one = container(on_terminal(bundle("probe")))
    one.create().fails(allocate)
    one.run("--detach").fails(allocate)
    one.run("--console-socket", fd_socket.path).fails(use)
    two = container(bundle("probe").probe("pause"))
    two.create("--console-socket", fd_socket.path).fails(use)
    two.up().expect("ready")
    two.exec("/bin/probe", "ids", options=["-t", "-d"]).fails(allocate, status=255)
    two.exec("/bin/probe", "ids", options=["--console-socket", fd_socket.path]).fails(use, status=255)


# --- Pidfd socket -----------------------------------------------------------------------------------------------------


def pid_of(pidfd: int) -> int:
    """The process a pidfd stands for."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("Pid:"))


def test_pidfd_socket(
    container: ContainerFactory, bundle: BundleFactory, fd_socket: terminals.FdSocket
) -> None:
    one = container(bundle("probe").probe("pause"))
    one.create("--pidfd-socket", fd_socket.path).ok()
    payload, pidfd = fd_socket.receive()
    assert (payload, pid_of(pidfd)) == (b"standard", one.pid)
    os.close(pidfd)
    one.start().ok()
    one.expect("ready")
    assert one.exec("/bin/probe", "echo", "x", options=["--pidfd-socket", fd_socket.path]).ok().out == "x\n"
    payload, pidfd = fd_socket.receive()
    assert payload == b"setns"
    os.close(pidfd)


# --- Attached ---------------------------------------------------------------------------------------------------------


def test_run_on_a_terminal(container: ContainerFactory, bundle: BundleFactory) -> None:
    """What is typed is echoed once and arrives, output keeps its line ends, our settings come back."""
    one = container(
        on_terminal(bundle("probe")).probe("tty", "--", "winsize", "--", "stdin", "--", "exit", "7")
    )
    with terminals.Screen(run_command(one), 30, 100) as screen:
        shown = screen.expect("winsize 30 100\r\n")
        assert "controlling yes" in shown
        screen.send("hello\r")
        assert screen.expect("hello\r\nhello\r\n").count("hello") == 2
        local = termios.tcgetattr(screen.slave)[3]
        assert not local & (termios.ECHO | termios.ICANON | termios.ISIG)
        screen.send("\x04")
        assert screen.wait() == 7
        assert termios.tcgetattr(screen.slave) == screen.before
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_the_window_is_followed(container: ContainerFactory, bundle: BundleFactory) -> None:
    one = container(on_terminal(bundle("probe")).probe("winsize", "wait"))
    with terminals.Screen(run_command(one), 30, 100) as screen:
        screen.expect("winsize 30 100")
        screen.resize(41, 81)
        screen.expect("winsize 41 81")
        assert screen.wait() == 0


def test_keys_are_the_containers(container: ContainerFactory, bundle: BundleFactory) -> None:
    """^C reaches the program inside through its own terminal, and not the runtime."""
    one = container(on_terminal(bundle("probe")).probe("sigwait"))
    with terminals.Screen(run_command(one)) as screen:
        screen.expect("ready")
        screen.send("\x03")
        screen.expect("signal 2")
        one.kill("TERM").ok()
        screen.expect("signal 15")
        assert screen.wait() == 0


def test_settings_come_back_after_a_failure(container: ContainerFactory, bundle: BundleFactory) -> None:
    one = container(on_terminal(bundle("probe", "/no/such")))
    with terminals.Screen(run_command(one)) as screen:
        screen.expect("no such file or directory\r\n")
        assert screen.wait() == 1
        assert termios.tcgetattr(screen.slave) == screen.before


def test_much_output(container: ContainerFactory, bundle: BundleFactory) -> None:
    """All of it arrives, the last line included, although the program ends at once."""
    one = container(on_terminal(bundle("busybox", "sh", "-c", "seq 1 20000; echo the end")))
    with terminals.Screen(run_command(one)) as screen:
        shown = screen.expect("the end\r\n")
        assert screen.wait() == 0
    assert shown.split() == [str(number) for number in range(1, 20001)] + ["the", "end"]


def test_exec_on_a_terminal(container: ContainerFactory, bundle: BundleFactory) -> None:
    one = container(bundle("probe").probe("pause")).up()
    one.expect("ready")
    words = [
        *one.command,
        "exec",
        "-t",
        one.id,
        "/bin/probe",
        "tty",
        "--",
        "winsize",
        "wait",
        "--",
        "signal",
        "TERM",
    ]
    with terminals.Screen(words, 20, 60) as screen:
        shown = screen.expect("winsize 20 60")
        assert "controlling yes" in shown
        screen.resize(21, 61)
        screen.expect("winsize 21 61")
        assert screen.wait() == 128 + 15
        assert termios.tcgetattr(screen.slave) == screen.before


def test_terminal_without_one_of_ours(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Standard streams are pipes: everything still goes through."""
    one = container(on_terminal(bundle("probe")).probe("tty", "--", "stdin", "--", "echo", "done"))
    result = one.run(stdin="hello\n\x04", timeout=20).ok()
    assert result.out.count("hello\n") == 2
    assert result.out.endswith("done\n")
