"""run and exec in the foreground: signals, standard streams, orphans; and what create leaves to its caller."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import IO, TYPE_CHECKING

import pytest

import support
import terminals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root


@contextlib.contextmanager
def attached(
    argv: Sequence[str], **streams: int | IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command in the background with pipes of ours; the process and the descriptor of its output."""
    process = subprocess.Popen(
        argv, **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **streams}, cwd="/"
    )  # type: ignore[call-overload]
    try:
        assert process.stdout is not None
        yield process, process.stdout.fileno()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


def run_words(one: Container, *options: str) -> list[str]:
    """The words of `run` in the foreground."""
    return [*one.command, "run", "--bundle", one.bundle.path, "--pid-file", one.pid_file, *options, one.id]


# --- Signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_signals_are_forwarded(container: ContainerFactory, bundle: BundleFactory, verb: str) -> None:
    """All but those that are the runtime's own; in the end the program decides about TERM."""
    one = container(bundle("probe").probe("sigwait"))
    words = run_words(one)
    if verb == "exec":
        one.up().expect("ready")
        words = [*one.command, "exec", one.id, "/bin/probe", "sigwait"]
    with attached(words) as (process, output):
        seen, _ = terminals.read_until(output, "ready\n")
        for kind in (signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH):
            process.send_signal(kind)
        for number in (1, 2, 3, 10, 12, 18, 35, 64):
            process.send_signal(number)
            # Had one of the first three been forwarded, it would show up here.
            seen, text = terminals.read_until(output, "\n", seen)
            assert text == f"signal {number}\n"
        process.send_signal(signal.SIGTERM)
        terminals.read_until(output, "signal 15\n", seen)
        assert process.wait(timeout=10) == 0


def test_a_signal_that_ends_the_program(container: ContainerFactory, bundle: BundleFactory) -> None:
    one = container(bundle("busybox", "sh", "-c", "trap 'exit 33' INT; echo ready; sleep 600 & wait"))
    with attached(run_words(one)) as (process, output):
        terminals.read_until(output, "ready\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 33
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_a_signal_while_it_comes_up(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """It is not lost: a hook waits until the signal was sent, the program gets it once it runs."""
    what = bundle("busybox", "sh", "-c", "trap 'exit 44' TERM; echo ready; sleep 600 & wait")
    sent, reached = os.path.join(scratch, "sent"), os.path.join(scratch, "reached")
    os.mkfifo(sent)
    os.mkfifo(reached)
    script = f"echo > {reached}; read x < {sent}"
    what.spec["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20}]
    }
    one = container(what)
    with attached(run_words(one)) as (process, output):
        with open(reached, encoding="ascii") as stream:
            stream.read()
            process.send_signal(signal.SIGUSR1)
        with open(sent, "w", encoding="ascii") as stream:
            stream.write("\n")
        # USR1 ends nothing in a pid namespace's init that has no handler; TERM does its work.
        terminals.read_until(output, "ready\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 44


# --- Whose end it is --------------------------------------------------------------------------------------------------


def test_another_container_of_the_same_name_stays(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """run removes the one it made: what somebody else made when that was gone is none of its business."""
    one = container(bundle("probe").probe("pause"))
    with attached(run_words(one)) as (process, output):
        terminals.read_until(output, "ready\n")
        # The program may be quicker than run, which would be stopped with the lock in its hands.
        one.wait_unlocked()
        process.send_signal(signal.SIGSTOP)
        one.delete("--force").ok()
        one.up().expect("ready")
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=10) == 128 + signal.SIGKILL
    assert one.status() == "running"


# --- Streams ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_deleted(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The program has ended as it has: its exit status counts more than what is left of the container."""
    one = container(bundle("busybox", "sh", "-c", "echo ready; read line; exit 7"))
    kept = os.path.join(one.root, one.id, "config.json")
    with attached(run_words(one), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as (process, output):
        terminals.read_until(output, "ready\n")
        os.unlink(kept)
        os.mkdir(kept)
        support.run("mount", "-t", "tmpfs", "none", kept).ok()
        try:
            _, errors = process.communicate(b"\n", timeout=20)
        finally:
            support.run("umount", kept).ok()
    assert process.returncode == 7, errors
    assert b"run: the container is not deleted: " in errors
    assert b"device or resource busy\nhint: try: pyrunc delete --force " in errors
    one.delete("--force").ok()


def test_the_end_of_input(container: ContainerFactory, bundle: BundleFactory) -> None:
    result = container(bundle("probe").probe("stdin", "--", "echo", "the end")).run(stdin="a\nb").ok()
    assert result.out == "a\nbthe end\n"


def test_big_output(container: ContainerFactory, bundle: BundleFactory) -> None:
    """20 MB through the program's own descriptors."""
    one = container(bundle("busybox", "sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x"))
    assert one.run().ok().out == "x" * 20_000_000


def test_output_that_nobody_reads(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The program gets its SIGPIPE or EPIPE, as without a container."""
    one = container(bundle("busybox", "sh", "-c", "trap '' PIPE; read x; while echo y; do :; done; exit 3"))
    with attached(run_words(one), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as (process, _):
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(timeout=10) == 3


def test_closed_standard_streams(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Descriptors of the runtime must not take their places and end up inside."""
    one = container(bundle("busybox", "sh", "-c", "/bin/probe fds > /out"))
    support.run("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *run_words(one)).ok()
    with open(os.path.join(one.bundle.rootfs, "out"), encoding="ascii") as stream:
        facts = support.Facts(stream.read())
    assert facts.all("fd") == ["0 /dev/null", "1 /out", "2 /dev/null"]


# --- Orphans ----------------------------------------------------------------------------------------------------------

ORPHANS = "sh -c 'sh -c \"echo \\$\\$; exec sleep 600\" & :'; exec sleep 600"


@pytest.mark.parametrize("reaps", [True, False])
def test_orphans_of_an_attached_run(container: ContainerFactory, bundle: BundleFactory, reaps: bool) -> None:
    """In the host's pid namespace they come to the nearest subreaper: run itself, or its caller."""
    one = container(bundle("busybox", "sh", "-c", ORPHANS).without_namespace("pid"))
    with attached(run_words(one, *([] if reaps else ["--no-subreaper"]))) as (process, output):
        _, text = terminals.read_until(output, "\n")
        orphan = int(text)
        expected = process.pid if reaps else os.getpid()
        support.wait_until(
            lambda: support.status_field(orphan, "PPid") == str(expected), "the orphan's new parent"
        )
        os.kill(orphan, signal.SIGKILL)
        if reaps:
            support.wait_until(lambda: not os.path.exists(f"/proc/{orphan}"), "the orphan being reaped")
        else:
            assert support.wait_for_exit(orphan) == -9
        assert process.poll() is None
        one.kill("KILL").ok()
        assert process.wait(timeout=10) == 137


def test_orphans_that_outlive_the_program(container: ContainerFactory, bundle: BundleFactory) -> None:
    """run returns when the program ends, and its delete ends what is left in the cgroup."""
    script = "sh -c 'echo $$; exec sleep 600' & read x; exit 6"
    one = container(bundle("busybox", "sh", "-c", script).without_namespace("pid"))
    with attached(run_words(one), stdin=subprocess.PIPE) as (process, output):
        _, text = terminals.read_until(output, "\n")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(timeout=10) == 6
    support.wait_until(lambda: support.process_gone(int(text)), "the orphan's end")


def test_init_becomes_the_callers_child(container: ContainerFactory, bundle: BundleFactory) -> None:
    """create ends, and whoever started it adopts init, whose end it will want to know."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    assert support.status_field(one.pid, "PPid") == str(os.getpid())
    assert support.children().count(one.pid) == 1


@pytest.mark.parametrize("verb", ["create", "run"])
def test_the_callers_parent_death_signal_stays_outside(
    container: ContainerFactory, bundle: BundleFactory, verb: str
) -> None:
    """An engine sets it on the runtime, whose end would otherwise end the container."""
    one = container(bundle("probe").probe("process", "--", "pause"))
    one.command[:0] = ["setpriv", "--pdeathsig", "KILL"]
    if verb == "create":
        one.create().ok()
        one.start().ok()
        assert support.Facts(one.expect("ready"))["pdeathsig"] == "0"
        assert one.status() == "running"
        return
    with attached(run_words(one)) as (process, output):
        _, text = terminals.read_until(output, "ready\n")
        assert support.Facts(text)["pdeathsig"] == "0"
        process.kill()
        process.wait(timeout=10)
        assert not support.process_gone(one.pid)
    one.command[:3] = []


def test_signal_settings_of_the_caller(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Python ignores SIGPIPE, nohup ignores SIGHUP: neither is the program's business, as with runc and crun."""
    one = container(bundle("probe").probe("signals"))
    words = ["env", "--ignore-signal=HUP,INT,PIPE", "--block-signal=USR1,TERM", *run_words(one)]
    assert support.run(*words).ok().out == "signals done\n"


def test_a_caller_that_ignores_sigchld(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The kernel would keep the status of hooks and of init from whoever inherits that."""
    what = bundle("probe").probe("pause")
    what.spec["hooks"] = {"createRuntime": [{"path": "/bin/true"}], "poststop": [{"path": "/bin/true"}]}
    one = container(what)
    one.command[:0] = ["env", "--ignore-signal=CHLD"]
    one.up().expect("ready")
    one.exec("/bin/probe", "exit", "3").fails(status=3)
    one.exec("/no/such").fails("no such file or directory", status=255)
    one.kill("KILL").ok()
    assert one.wait() == -9
    one.delete().ok()
