"""Containers that are frozen, from outside or by themselves: every verb answers, and SIGKILL ends them.

The v1 freezer keeps SIGKILL from a process; a container with a writable cgroup of its own can freeze what is below.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.kernel import container as kernel_container
from pyrunc.launch import ending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

VIEWS = pytest.mark.parametrize("view", ["v1", "v2", "host"])
# What a verb may take when nothing keeps it: far less than any deadline of ours.
SOON = 8.0
# $1: the directory of the hierarchy that freezes, $2: the file, $3: what freezes.
_FREEZER = (
    "cd $1; mkdir sub; (while :; do echo $3 >sub/$2; $4; done) 2>/dev/null & echo 1 >sub/cgroup.procs; "
)
_WORDS = {
    1: ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"),
    2: ("/sys/fs/cgroup", "cgroup.freeze", "1"),
}


def _version(view: str) -> int:
    return 2 if view == "v2" or not os.path.isdir("/sys/fs/cgroup/freezer") else 1


def _writable(bundle: Bundle) -> Bundle:
    """With the cgroups of the container's own, for it to change."""
    for mount in bundle.list_of("mounts"):
        assert isinstance(mount, dict)
        if mount["type"] == "cgroup":
            assert isinstance(mount["options"], list)
            mount["options"].remove("ro")
    return bundle.write()


def _opened(pid: int) -> list[str]:
    """What the descriptors of a process are."""
    found = []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    except OSError:
        pass  # closed by now
    return found


def _directory(one: Container) -> str:
    """Where the freezer of the container is on this host, in whose mount namespace the views are not."""
    with open(f"/proc/{one.pid}/cgroup", encoding="ascii") as stream:
        places = {line.split(":", 2)[1]: line.strip().split(":", 2)[2] for line in stream}
    mounts = support.cgroup_mounts()
    if _version_of(one) == 1:
        return next(path for path in mounts if path.endswith("/freezer")) + places["freezer"]
    return next(path for path in mounts if os.path.exists(f"{path}/cgroup.controllers")) + places[""]


def _version_of(one: Container) -> int:
    with open(os.path.join(one.root, one.id, "state"), encoding="utf-8") as stream:
        return 1 if "\ncgroup freezer:" in stream.read() else 2


def _is_frozen(directory: str) -> bool:
    try:
        with open(f"{directory}/freezer.state", encoding="ascii") as stream:
            return stream.read() == "FROZEN\n"
    except FileNotFoundError:
        pass
    try:
        with open(f"{directory}/cgroup.events", encoding="ascii") as stream:
            return "frozen 1" in stream.read()
    except FileNotFoundError:
        return False


def _freezes_itself(make: BundleFactory, view: str, busy: bool) -> Bundle:
    words = _WORDS[_version(view)]
    script = _FREEZER + "echo thawed; sleep 1000"
    pace = ":" if busy else "sleep 1000"
    return _writable(make("busybox")).args("/bin/sh", "-c", script, "sh", *words, pace)


@VIEWS
@pytest.mark.parametrize("busy", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("verb", ["kill", "kill --all", "delete"])
def test_it_froze_itself(
    container: ContainerFactory, bundle: BundleFactory, view: str, busy: bool, verb: str
) -> None:
    """init sits in a frozen cgroup below the container's, and somebody who does not keeps it frozen."""
    one = container(_freezes_itself(bundle, view, busy), view=view).up()
    below = os.path.join(_directory(one).removesuffix("/sub"), "sub")
    support.wait_until(lambda: _is_frozen(below), "the container's own freezer")
    assert one.status() == "running"
    began = time.monotonic()
    if verb == "delete":
        one.delete("--force").ok()
    else:
        one.kill("KILL", *verb.split(" ")[1:]).ok()
        assert one.wait() == -signal.SIGKILL
        assert one.status() == "stopped"
        one.delete().ok()
    assert time.monotonic() - began < SOON
    assert not os.path.exists(below)
    assert one.pyrunc("state", one.id).status == 1


@VIEWS
def test_pause_and_resume_leave_its_own_freezer(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """What the container froze stays frozen; the container itself is paused and resumed."""
    one = container(_freezes_itself(bundle, view, busy=False), view=view).up()
    below = os.path.join(_directory(one).removesuffix("/sub"), "sub")
    support.wait_until(lambda: _is_frozen(below), "the container's own freezer")
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "paused"
    one.pyrunc("resume", one.id).ok()
    assert one.status() == "running"
    assert _is_frozen(below)


@pytest.mark.slow
@VIEWS
def test_exec_in_one_that_waits_and_is_paused(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """Its status is created; exec refuses it all the same, and with --ignore-paused waits for resume."""
    one = container(bundle("probe").probe("pause"), view=view)
    one.create().ok()
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "created"
    text = "cannot exec in a paused container (use --ignore-paused to override)"
    one.exec("/bin/probe", "ids").fails(text, status=255)
    argv = [*one.command, "exec", "--ignore-paused", one.id, "/bin/probe", "ids"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    ) as waiting:
        # Nobody of ours goes into the frozen cgroup, so there is nobody to wait for in it.
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        with open(os.path.join(_directory(one), "cgroup.procs"), encoding="ascii") as stream:
            assert stream.read().split() == [str(one.pid)]
        one.pyrunc("resume", one.id).ok()
        output, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, output
    assert b"uid 0 0 0" in output
    one.start().ok()


@VIEWS
def test_exec_that_waits_for_resume_ends_with_the_container(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    one = container(bundle("probe").probe("pause"), view=view).up()
    one.pyrunc("pause", one.id).ok()
    argv = [*one.command, "exec", "--ignore-paused", one.id, "/bin/probe", "ids"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    ) as waiting:
        one.kill("KILL").ok()
        output, _ = waiting.communicate(timeout=30)
    # It may have been thawed and not dead yet: what then fails is said in other words.
    assert waiting.returncode == 255, output
    assert output.startswith(b"pyrunc: exec: ")


@pytest.mark.slow
@VIEWS
def test_started_while_it_is_being_paused(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """Whoever was told that it may run, and is frozen before it does: start says so and does not wait for ever."""
    one = container(bundle("probe").probe("pause"), view=view)
    one.create().ok()
    os.kill(one.pid, signal.SIGSTOP)
    with subprocess.Popen([*one.command, "start", one.id], stderr=subprocess.PIPE) as starting:
        fifo = os.path.join(one.root, one.id, "exec.fifo")
        support.wait_until(lambda: not os.path.exists(fifo), "start")
        one.pyrunc("pause", one.id).ok()
        _, said = starting.communicate(timeout=SOON)
    assert starting.returncode == 1
    assert b"the container was paused before its program ran" in said
    assert b"pyrunc resume" in said
    one.kill("KILL").ok()
    assert one.wait() == -signal.SIGKILL


@pytest.mark.parametrize("view", ["v1", "host"])
def test_a_create_that_fails_while_it_is_frozen(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """A hook froze the new cgroup and failed: init is ended all the same, and nothing is left."""
    support.needs(_version(view) == 1, "cgroup v1")
    target = bundle("probe")
    one = container(target, view=view)
    script = f"echo FROZEN >/sys/fs/cgroup/freezer/{one.id}/freezer.state; exit 3"
    target.mapping("hooks")["createRuntime"] = [{"path": "/bin/sh", "args": ["sh", "-c", script]}]
    target.write()
    began = time.monotonic()
    one.create().fails("createRuntime hook #0")
    assert time.monotonic() - began < SOON
    assert support.find_cgroups(one.id) == []
    assert not os.path.exists(os.path.join(one.root, one.id))


# --- The tree of a hostile container ------------------------------------------------------------------------------


def _nest(directory: str, depth: int) -> int:
    """Make that many cgroups one below the other, further than any path is long; a descriptor of the last."""
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("x" * 200, dir_fd=at)
        below = os.open("x" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    return at


def _write(directory: int, name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY, dir_fd=directory)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


@VIEWS
@pytest.mark.parametrize("verb", ["kill --all", "delete"])
def test_frozen_deeper_than_any_path(
    container: ContainerFactory, bundle: BundleFactory, view: str, verb: str
) -> None:
    """100 cgroups below, beside 500 others: found, thawed, ended and removed."""
    one = container(bundle("busybox", "/bin/sh", "-c", "sleep 1000 & sleep 1000"), view=view).up()
    directory, words = _directory(one), _WORDS[_version_of(one)]
    with open(f"{directory}/cgroup.procs", encoding="ascii") as stream:
        inside = [int(line) for line in stream]
    for number in range(500):
        os.mkdir(f"{directory}/{number} $(x) \x7f\xc3;")
    at = _nest(directory, 100)
    for pid in inside:
        _write(at, "cgroup.procs", str(pid))
    _write(at, words[1], words[2])
    os.close(at)
    if verb != "delete":
        one.kill("KILL", "--all").ok()
        assert one.wait() == -signal.SIGKILL
        one.delete().ok()
    else:
        one.delete("--force").ok()
    assert not os.path.exists(directory)


@pytest.mark.slow
def test_so_many_that_looking_takes_long(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The walk over what the container made is held up for longer than thawing may take: no reason to give up."""
    one = container(bundle("busybox", "/bin/sh", "-c", "sleep 1000"), view="v1").up()
    directory = _directory(one)
    for number in range(4000):
        os.mkdir(f"{directory}/{number}")
    with subprocess.Popen([*one.command, "delete", "--force", one.id], stderr=subprocess.PIPE) as verb:
        deadline = time.monotonic() + 10
        while not any(os.path.dirname(path) == directory for path in _opened(verb.pid)):
            assert time.monotonic() < deadline
        verb.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            verb.wait(timeout=2.5)
        verb.send_signal(signal.SIGCONT)
        assert verb.stderr is not None
        assert (verb.stderr.read(), verb.wait(timeout=60)) == (b"", 0)
    assert not os.path.exists(directory)


@pytest.fixture
def threaded(container: ContainerFactory, bundle: BundleFactory) -> tuple[Container, str]:
    """A container on v2 with a threaded cgroup below, which lists no processes."""
    one = container(bundle("busybox", "/bin/sh", "-c", "sleep 1000 & sleep 1000"), view="v2").up()
    below = f"{_directory(one)}/threaded"
    os.mkdir(below)
    with open(f"{below}/cgroup.type", "w", encoding="ascii") as stream:
        stream.write("threaded")
    with open(f"{below}/cgroup.threads", "w", encoding="ascii") as stream:
        stream.write(str(one.pid))
    return one, below


@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_threaded(threaded: tuple[Container, str], name: str) -> None:
    """Its processes are listed one above, and signalled once."""
    one, below = threaded
    with (
        open(f"{below}/cgroup.procs", encoding="ascii") as stream,
        pytest.raises(OSError, match="not supported"),
    ):
        stream.read()
    one.kill(name, "--all").ok()
    if name == "TERM":
        # A pid 1 without a handler does not hear it; the other one does.
        assert one.status() == "running"
    one.delete("--force").ok()
    assert not os.path.exists(below)


@pytest.fixture
def few_processes() -> Iterator[list[str]]:
    """A command prefix with a limit of processes around all that it runs, whatever the container's own limits are."""
    mount = next(
        (path for path in support.cgroup_mounts() if os.path.exists(f"{path}/pids")), "/sys/fs/cgroup/pids"
    )
    directory = f"{mount}/few-{os.getpid()}"
    support.needs(os.path.isdir(mount), "cgroup v1")
    os.mkdir(directory)
    with open(f"{directory}/pids.max", "w", encoding="ascii") as stream:
        stream.write("150")
    yield ["sh", "-c", f'echo $$ >{directory}/cgroup.procs; exec "$@"', "sh"]
    support.wait_until(lambda: not _members(directory), "the end of all")
    os.rmdir(directory)


def _members(directory: str) -> list[str]:
    with open(f"{directory}/cgroup.procs", encoding="ascii") as stream:
        return stream.read().split()


@VIEWS
@pytest.mark.parametrize("verb", ["pause", "kill", "delete"])
def test_a_fork_bomb(
    few_processes: list[str], container: ContainerFactory, bundle: BundleFactory, view: str, verb: str
) -> None:
    """Below a limit of processes it makes new ones as fast as it can."""
    bomb = "bomb() { bomb & bomb & bomb & wait; }; bomb 2>/dev/null & echo lit; exec sleep 1000"
    target = bundle("busybox", "/bin/sh", "-c", bomb)
    limited = container(target.write(), command=[*few_processes, *support.VIEWS[view], support.PYRUNC])
    limited.create().ok()
    del limited.command[: len(few_processes)]
    with open(f"/proc/{limited.pid}/cgroup", encoding="ascii") as stream:
        assert "/few-" in next(line for line in stream if ":pids:" in line)
    limited.start().ok()
    limited.expect("lit")
    directory = _directory(limited)
    for _ in range(3 if verb == "pause" else 0):
        limited.pyrunc("pause", limited.id).ok()
        assert limited.status() == "paused"
        limited.pyrunc("resume", limited.id).ok()
    if verb == "kill":
        limited.kill("KILL", "--all").ok()
        assert limited.wait() == -signal.SIGKILL
    limited.delete("--force").ok()
    assert not os.path.exists(directory)


# --- Children of ours -------------------------------------------------------------------------------------------------


@pytest.fixture
def frozen_child() -> Iterator[tuple[int, str]]:
    """A child of ours in a frozen v1 cgroup."""
    mount = next((path for path in support.cgroup_mounts() if path.endswith("/freezer")), "")
    support.needs(bool(mount), "cgroup v1")
    directory = f"{mount}/{support.ID_PREFIX}frozen"
    os.mkdir(directory)
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    kernel_path = [("freezer", directory)]
    with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as stream:
        stream.write(str(pid))
    kernel_container.cgroup_freeze(kernel_path)
    yield pid, directory
    kernel_container.cgroup_thaw(kernel_path)
    kernel_container.cgroup_remove(kernel_path, [directory])


def test_a_frozen_child_is_ended(frozen_child: tuple[int, str]) -> None:
    """It leaves the frozen cgroup, which stays frozen: it may be that of a container that somebody has paused."""
    pid, directory = frozen_child
    pidfd = os.pidfd_open(pid)
    try:
        assert ending.collect(pid, pidfd, 0.05) is None
        assert ending.end(pid, pidfd) == signal.SIGKILL
        assert ending.end(pid, pidfd) == 0
    finally:
        os.close(pidfd)
    assert _is_frozen(directory)
