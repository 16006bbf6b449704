"""wait: the exit status of a container, told to whoever asks in time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import faults
import support
from pyrunc import runtime
from pyrunc.errors import StateError
from pyrunc.requests import Context

if TYPE_CHECKING:
    from pathlib import Path

    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

PIDFD_GET_INFO = 0xC040FF0B


class Waiter:
    """A `pyrunc wait` that is known to wait."""

    def __init__(self, one: Container) -> None:
        self.process = subprocess.Popen(
            [*one.command, "wait", one.id], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        support.wait_until(self._polls, "the wait")

    def _polls(self) -> bool:
        with open(f"/proc/{self.process.pid}/wchan", encoding="ascii") as file:
            return "poll" in file.read()

    def result(self) -> tuple[int, str, str]:
        """Its exit status, output and errors."""
        with self.process:
            out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def created(container: ContainerFactory, bundle: BundleFactory) -> Container:
    """A container whose program, once started, waits for a signal."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    return one


@pytest.mark.parametrize("status", [0, 7, 255])
def test_the_status_of_an_exit(container: ContainerFactory, bundle: BundleFactory, status: int) -> None:
    """Asked for by two before the start, who are no parents of the container."""
    one = container(bundle("probe").probe("exit", str(status)))
    one.create().ok()
    waiters = [Waiter(one), Waiter(one)]
    one.start().ok()
    assert one.wait() == status
    assert [waiter.result() for waiter in waiters] == [(0, f"{status}\n", "")] * 2


@pytest.mark.parametrize(("name", "status"), [("KILL", 137), ("USR1", 138)])
def test_the_status_of_a_signal(
    container: ContainerFactory, bundle: BundleFactory, name: str, status: int
) -> None:
    """128 and the signal, as attached run has it."""
    one = container(bundle("busybox", "sleep", "600").without_namespace("pid")).up()
    waiter = Waiter(one)
    one.kill(name).ok()
    one.wait()
    assert waiter.result() == (0, f"{status}\n", "")


def test_deleted_while_waited_for(created: Container) -> None:
    """The process counts, not the state directory."""
    waiter = Waiter(created)
    created.delete("--force").ok()
    created.wait()
    assert waiter.result() == (0, "137\n", "")


def test_beside_an_attached_run(container: ContainerFactory, bundle: BundleFactory) -> None:
    """run collects the status that it hands on, wait tells it all the same."""
    one = container(bundle("busybox", "sh", "-c", "echo ready; read x; exit 9"))
    argv = [*one.command, "run", "--bundle", one.bundle.path, one.id]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        assert run.stdout.readline() == b"ready\n"
        waiter = Waiter(one)
        run.stdin.close()
        assert run.wait(30) == 9
    assert waiter.result() == (0, "9\n", "")


def test_after_its_end(created: Container) -> None:
    """As long as nobody has collected it the status is there; then nobody can know it."""
    created.start().ok()
    created.kill("KILL").ok()
    support.wait_until(lambda: created.status() == "stopped", "its end")
    assert created.pyrunc("wait", created.id).ok().out == "137\n"
    created.wait()
    created.pyrunc("wait", created.id).fails(
        f"the exit status of container '{created.id}' is not known: it ended before",
        "hint: call wait while the container is created or running",
    )


def recorders() -> list[int]:
    """Those that run now: children of ours, as we adopt orphans."""
    found = []
    for pid in support.children():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if file.read().startswith(b"pyrunc-recorder"):
                found.append(pid)
    return found


@pytest.mark.parametrize(
    ("words", "signal_name", "status"), [(["exit", "7"], "", 7), (["pause"], "KILL", 137)]
)
def test_a_recorded_status(
    container: ContainerFactory, bundle: BundleFactory, words: list[str], signal_name: str, status: int
) -> None:
    """Known for as long as the container is there, though the process is long gone."""
    one = container(bundle("probe").probe(*words))
    one.create("--record-exit").ok()
    (recorder,) = recorders()
    one.start().ok()
    if signal_name:
        one.kill(signal_name).ok()
    one.wait()
    for _ in range(2):
        assert one.pyrunc("wait", one.id).ok().out == f"{status}\n"
    assert support.wait_for_exit(recorder) == 0
    assert one.pyrunc("wait", one.id).ok().out == f"{status}\n"
    one.delete().ok()
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_a_recorder_holds_nothing(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Neither the lock nor the standard output of its caller; a session of its own keeps terminals' signals away."""
    one = container(bundle("probe").probe("pause"))
    one.create("--record-exit").ok()
    (recorder,) = recorders()
    there = {os.readlink(f"/proc/{recorder}/fd/{fd}") for fd in os.listdir(f"/proc/{recorder}/fd")}
    assert there - {"anon_inode:[pidfd]"} == {"/dev/null", os.path.join(one.root, one.id)}
    assert os.getsid(recorder) == recorder
    assert os.readlink(f"/proc/{recorder}/cwd") == "/"
    one.start().ok()
    one.delete("--force").ok()
    one.wait()
    # Its container is deleted: there is nowhere left to write to.
    assert support.wait_for_exit(recorder) in (0, 1)


@pytest.mark.slow
def test_a_recorder_that_was_killed(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Then the status is not known, and wait says so in the end."""
    one = container(bundle("probe").probe("pause"))
    one.create("--record-exit").ok()
    (recorder,) = recorders()
    os.kill(recorder, signal.SIGKILL)
    support.wait_for_exit(recorder)
    one.start().ok()
    one.kill("KILL").ok()
    one.wait()
    one.pyrunc("wait", one.id).fails("is not known: it ended before", "--record-exit")


def test_a_recorder_of_what_is_never_created(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """A create that fails behind it leaves neither it nor its file."""
    one = container(bundle("probe").probe("pause"))
    one.pid_file = os.path.join(scratch, "no", "such", "directory")
    one.create("--record-exit").fails("no such file or directory")
    support.wait_until(lambda: recorders() == [], "the end of the recorder")
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_unknown(created: Container) -> None:
    created.pyrunc("wait", "other").fails("container does not exist")


def test_while_it_is_created(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """From a hook, say: what will be its process need not be there yet."""
    what = bundle("probe").probe("exit", "0")
    errors = os.path.join(scratch, "errors")
    one = container(what)
    command = " ".join([*one.command, "wait", one.id, "2>", errors, "|| true"])
    what.mapping("hooks")["createRuntime"] = [{"path": "/bin/sh", "args": ["sh", "-c", command]}]
    what.write()
    one.run().ok()
    with open(errors, encoding="utf-8") as stream:
        assert stream.read() == "pyrunc: wait: cannot wait for a container that is still being created\n"


@pytest.mark.parametrize("error", [errno.ENOTTY, errno.EINVAL])
def test_an_older_kernel(created: Container, tmp_path: Path, error: int) -> None:
    """Without the call it is an error with the kernel's version in it, not a number made up."""
    plain = created.command
    created.command = [*faults.build(tmp_path).prefix(f"ioctl {error} when 1=={PIDFD_GET_INFO}"), *plain]
    waiter = Waiter(created)
    created.command = plain
    os.kill(waiter.process.pid, signal.SIGSTOP)
    created.kill("KILL").ok()
    created.wait()
    os.kill(waiter.process.pid, signal.SIGCONT)
    status, out, err = waiter.result()
    assert (status, out) == (1, "")
    assert "before Linux 6.15 only the parent of the container's process is told" in err


def test_python_api(created: Container) -> None:
    """The same number from a program; for a parent, too, who still has to collect its child."""
    ctx = Context(created.root)
    created.start().ok()
    created.kill("KILL").ok()
    assert runtime.wait(ctx, created.id) == 137
    assert created.wait() == -9
    with pytest.raises(StateError, match="it ended before"):
        runtime.wait(ctx, created.id)
