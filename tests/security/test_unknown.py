"""A container is "stopped" when that is known: whatever keeps a verb from looking is an error, by either door.

Descriptors run out, an outer seccomp filter refuses, memory is short, /proc is missing or shows other processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import faults
import support

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from containers import BundleFactory, Container, ContainerFactory
    from faults import FailSyscall
    from support import Result

pytestmark = pytest.mark.root

# Every verb that looks at a container, and never ends or changes this one for good. {}: its id.
LOOKING = {
    "state": ["state", "{}"],
    "start": ["start", "{}"],
    "kill": ["kill", "{}", "0"],
    "kill --all": ["kill", "--all", "{}", "0"],
    "delete": ["delete", "{}"],
    "list": ["list"],
    "ps": ["ps", "-f", "json", "{}"],
    "exec": ["exec", "{}", "/bin/probe", "ids"],
    "pause": ["pause", "{}"],
    "resume": ["resume", "{}"],
    "update": ["update", "--pids-limit", "100", "{}"],
    "events": ["events", "--stats", "{}"],
    "checkpoint": ["checkpoint", "--image-path", "/dev/null/images", "{}"],
}
# The C program answers these itself; by the other door Python reaches the same functions.
DOORS = {"command": [support.PYRUNC], "module": [support.PYTHON, "-I", "-m", "pyrunc"]}
WRONG = ("stopped", "does not exist", "not running", "please report", "Traceback")


@pytest.fixture
def one(container: ContainerFactory, bundle: BundleFactory) -> Iterator[Container]:
    """A container that runs, and still does at the end."""
    made = container(bundle("probe").probe("pause")).up()
    made.expect("ready")
    yield made
    made.pyrunc("resume", made.id)
    assert made.status() == "running"
    assert os.path.exists(f"/proc/{made.pid}")


@pytest.fixture
def fail_syscall(tmp_path: pathlib.Path) -> FailSyscall:
    """The program that runs another one under a filter of ours."""
    return faults.build(tmp_path)


def _argv(one: Container, door: str, verb: str) -> list[str]:
    return [*DOORS[door], "--root", one.root, *(word.format(one.id) for word in LOOKING[verb])]


def _check(one: Container, verb: str, result: Result) -> None:
    """An answer that is right, or an error in words; never one that takes the container for a stopped one."""
    text = result.out + result.err
    assert result.status in (0, 1, 255), result
    if result.status == 0:
        assert verb not in ("start", "delete"), result
        assert '"status": "stopped"' not in text, result
        if verb == "list":
            assert f"container '{one.id}' is left out: " in text or "running" in text or "paused" in text, (
                result
            )
        return
    assert result.err.strip(), result
    if verb == "start" and "already running" in text:
        return
    if verb == "delete" and "that is not stopped: " in text:
        assert "running" in text or "paused" in text
        return
    if verb in ("pause", "resume") and (
        "container not running: paused" in text or "container not paused" in text
    ):
        return
    assert not any(word in text for word in WRONG), result


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_descriptors_run_out(one: Container, door: str) -> None:
    """RLIMIT_NOFILE from what is not enough to begin to what is enough for all."""
    for verb in LOOKING:
        # Python itself reads its modules; below that it does not come up.
        lowest = 4 if door == "command" and verb in ("state", "start", "kill", "kill --all", "delete") else 7
        for limit in range(lowest, 14):
            argv = ["prlimit", f"--nofile={limit}:{limit}", "--", *_argv(one, door, verb)]
            result = support.run(*argv)
            if "init_import_site" in result.err or "Fatal Python error" in result.err:
                continue
            _check(one, verb, result)


REFUSED = [
    f"{call} {error}"
    for call in ("pidfd_open", "pidfd_send_signal", "flock", "faccessat", "fstatfs")
    for error in ("EPERM", "ENOMEM", "ENFILE")
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("rule", REFUSED)
def test_a_filter_around_us(one: Container, fail_syscall: FailSyscall, door: str, rule: str) -> None:
    """An outer seccomp filter, as a builder or a sandbox has one."""
    for verb in LOOKING:
        result = support.run(*fail_syscall.prefix(rule), *_argv(one, door, verb))
        _check(one, verb, result)
        if rule.startswith("pidfd_open") and verb != "list":
            assert result.status != 0, result
            assert "pidfd_open" in result.err, result


@pytest.mark.parametrize("rule", ["prlimit64 EPERM", "waitid EPERM", "waitid ENOSYS"])
def test_a_filter_around_a_verb_that_makes(
    container: ContainerFactory, bundle: BundleFactory, fail_syscall: FailSyscall, rule: str
) -> None:
    """What it forbids is no fault of ours to be reported, and nothing is left."""
    one = container(bundle("probe").probe("ids"))
    words = ["--root", one.root, "run", "--bundle", one.bundle.path, one.id]
    result = support.run(*fail_syscall.prefix(rule), support.PYRUNC, *words)
    result.fails("a system call was refused: ", "hint: a seccomp filter around pyrunc may forbid it")
    assert "unexpected" not in result.err
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_proc_that_is_not_there(one: Container) -> None:
    """Without /proc nobody knows whose pid it is."""
    for verb in ("state", "start", "kill", "delete"):
        script = 'mount -t tmpfs none /proc; exec "$@"'
        argv = ["unshare", "--mount", "sh", "-c", script, "sh", *_argv(one, "command", verb)]
        result = support.run(*argv).fails("open '/proc/")
        assert "/proc is not mounted, or hides the processes of others (hidepid)" in result.err
        assert "stopped" not in result.err


def test_proc_of_another_pid_namespace(one: Container) -> None:
    """It tells of other processes by the same numbers."""
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep 1000"],
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with open(f"/proc/{other.pid}/task/{other.pid}/children", encoding="ascii") as stream:
            inside = stream.read().split()[0]
        script = (
            f"mount --make-rprivate /; nsenter --pid=/proc/{inside}/ns/pid mount -t proc proc /proc; "
            'exec "$@"'
        )
        for verb in ("state", "start", "kill", "delete"):
            argv = ["unshare", "--mount", "sh", "-c", script, "sh", *_argv(one, "command", verb)]
            result = support.run(*argv)
            assert result.status == 1, result
            assert "stopped" not in result.err, result
            assert "/proc" in result.err, result
        other.kill()


@pytest.mark.parametrize("door", DOORS)
def test_from_another_pid_namespace(one: Container, door: str) -> None:
    """There the pid is nobody's, or somebody else's, which says nothing."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    for verb in LOOKING:
        result = support.run(*inside, *_argv(one, door, verb))
        _check(one, verb, result)
        if verb not in ("list", "checkpoint"):
            assert result.status != 0, result
            assert "the container was created in another pid namespace" in result.err, result


def test_deleted_by_force_from_another_pid_namespace(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Whoever is in its own cgroups is the container's."""
    one = container(bundle("probe").probe("pause"), view="v2").up()
    script = 'unshare --pid --fork --mount-proc "$@"'
    support.run(
        *one.command[:-3], "sh", "-c", script, "sh", *one.command[-3:], "delete", "--force", one.id
    ).ok()
    assert one.wait() == -signal.SIGKILL
    assert not os.path.exists(f"{one.root}/{one.id}")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("seconds", [1000000, -5])
def test_from_another_time_namespace(one: Container, door: str, seconds: int) -> None:
    """There /proc shows other start times."""
    inside = ["unshare", "--time", "--boottime", str(seconds)]
    argv = support.run(*inside, *_argv(one, door, "state")).ok()
    assert '"status": "running"' in argv.out
    support.run(*inside, *_argv(one, door, "delete")).fails("that is not stopped: running")


def test_created_in_another_time_namespace(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The recorded start time is good everywhere."""
    one = container(bundle("probe").probe("pause"))
    one.bundle.write()
    words = ["run", "--detach", "--bundle", one.bundle.path, "--pid-file", one.pid_file, one.id]
    with open(os.devnull, "r+b") as null:
        subprocess.run(
            ["unshare", "--time", "--boottime", "1000", *one.command, *words],
            stdin=null, stdout=null, check=True, timeout=60,
        )  # fmt: skip
    assert one.status() == "running"
    support.run("unshare", "--time", "--boottime", "77", *_argv(one, "command", "delete")).fails(
        "that is not stopped: running"
    )
