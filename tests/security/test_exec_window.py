"""Processes of a container that wait for init where it comes to them.

That is `exec`, `mounts add`, and `create` in a shared pid namespace. With CAP_SYS_PTRACE and without a user namespace
they may trace it, read and write its memory and take its descriptors, from its first instruction in there on.
csrc/testing/neighbour.c does, and says what it has found: nothing of the host must be among it, and no right beyond the
container's. What it says in init's name must have no effect outside.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import faults
import hostile_init as hostile
import rounds
import support
import terminals
from pyrunc.host import gather
from pyrunc.plan import numbers, planner
from pyrunc.plan.job import PlanOptions
from pyrunc.spec import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from pyrunc.spec.shapes import Spec
    from support import Json

    class NeighbourFactory(Protocol):
        """A neighbour that runs; `change` may change its bundle, `more` are its last arguments."""

        def __call__(
            self, change: Callable[[Bundle], object] | None = None, *more: str, caps: list[str] = ...
        ) -> Neighbour: ...


pytestmark = pytest.mark.root

ROUNDS = 20
LONG = "3600"
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CAPS = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
]


def mask(names: list[str]) -> str:
    return f"{sum(1 << capabilities.NAMES.index(name) for name in names):x}"


class Neighbour:
    """A container whose program attacks whoever comes, and what it has said so far."""

    def __init__(self, one: Container) -> None:
        self.container = one
        self.said = ""

    def caught(self) -> int:
        """How many inits it has stopped so far."""
        return self.lines().count("init ")

    def lines(self) -> str:
        os.set_blocking(self.container._reader, False)
        try:
            while chunk := os.read(self.container._reader, 1 << 16):
                self.said += chunk.decode()
        except BlockingIOError:
            pass
        return self.said

    def findings(self) -> list[str]:
        """What it has got hold of."""
        return [line for line in self.lines().splitlines() if line.startswith("FOUND")]


@pytest.fixture
def marker(scratch: str) -> str:
    """A file that is on the host only."""
    path = os.path.join(scratch, "marker")
    with open(path, "w", encoding="ascii") as stream:
        stream.write("of the host")
    return path


@pytest.fixture
def neighbour(
    container: ContainerFactory, bundle: BundleFactory, tmp_path: Path, marker: str
) -> NeighbourFactory:
    """neighbour(): one that runs; `change` may change its bundle, `more` are its last arguments."""
    program = faults.program("neighbour", tmp_path)

    def make(
        change: Callable[[Bundle], object] | None = None, *more: str, caps: list[str] = CAPS
    ) -> Neighbour:
        target = bundle("probe", "/bin/neighbour", LONG, mask(caps), marker, str(os.getpid()), *more)
        install(target, program)
        target.mapping("process")["capabilities"] = {
            kind: list(caps) for kind in ("bounding", "effective", "permitted")
        }
        if change:
            change(target)
        one = container(target).up()
        one.expect("ready")
        return Neighbour(one)

    return make


def install(target: Bundle, program: str) -> None:
    place = os.path.join(target.rootfs, "bin/neighbour")
    with open(program, "rb") as source, open(place, "wb") as stream:
        stream.write(source.read())
    os.chmod(place, 0o755)


def reap() -> None:
    """Processes that exec has left to us: a pid namespace is not gone while one of them is not collected."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def until_caught(attacker: Neighbour, act: Callable[[], object], count: int = ROUNDS) -> Iterator[int]:
    """Rounds of `act`, more of them while nobody was caught: an attack that never was one says nothing."""
    for turn in rounds.loop(count):
        act()
        reap()
        yield turn
    for turn in range(10 * count):
        if attacker.caught():
            return
        act()
        reap()
        yield turn
    pytest.fail("no init was ever caught")


def test_exec(neighbour: NeighbourFactory) -> None:
    """Nothing of the host, and no more rights than the container's."""
    attacker = neighbour()
    for _ in until_caught(attacker, lambda: attacker.container.exec("/bin/true")):
        assert attacker.findings() == []


@pytest.mark.slow
def test_exec_with_a_filter(neighbour: NeighbourFactory) -> None:
    """Without noNewPrivileges a filter needs CAP_SYS_ADMIN: one that forbids clone(2) leaves it to no child."""

    def forbid(target: Bundle) -> None:
        target.mapping("process")["noNewPrivileges"] = False
        names: list[Json] = ["clone", "setsid"]
        rule: Json = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
        target.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}

    attacker = neighbour(forbid)
    for _ in until_caught(attacker, lambda: attacker.container.exec("/bin/true")):
        assert attacker.findings() == []


@pytest.mark.slow
def test_exec_with_a_terminal(neighbour: NeighbourFactory) -> None:
    """The master goes to the runtime before the child is there."""
    attacker = neighbour()
    one = attacker.container
    path = os.path.join(os.path.dirname(one.root), "console")
    server = terminals.FdSocket(path)

    def act() -> None:
        if one.detached("exec", "-t", "-d", "--console-socket", path, one.id, "/bin/true").status == 0:
            _, master = server.receive()
            os.close(master)

    try:
        for _ in until_caught(attacker, act, ROUNDS // 2):
            assert attacker.findings() == []
    finally:
        server.close()


@pytest.mark.slow
def test_the_callers_terminal(neighbour: NeighbourFactory) -> None:
    """Who stops init has not the terminal that exec is called from, nor the process group there."""
    attacker = neighbour()
    one = attacker.container
    words = [*one.command, "exec", "-d", one.id, "/bin/true"]
    quiet = ["sh", "-c", f"{shlex.join(words)} </dev/null >/dev/null 2>&1; echo done $?"]

    def act() -> None:
        with terminals.Screen(quiet) as screen:
            screen.expect("done 0")

    for _ in until_caught(attacker, act):
        assert "terminal" not in attacker.lines()
        assert attacker.findings() == []


def test_exec_in_a_user_namespace(neighbour: NeighbourFactory) -> None:
    """There the program of init belongs to the runtime's user namespace, and nobody may look at it."""
    attacker = neighbour(in_user_namespace)
    for _ in rounds.loop(ROUNDS):
        attacker.container.exec("/bin/true")
        reap()
        assert attacker.findings() == []


def in_user_namespace(target: Bundle) -> None:
    target.namespace("user")
    linux = target.mapping("linux")
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    for directory, names, files in os.walk(target.rootfs):
        for name in (".", *names, *files):
            os.lchown(os.path.join(directory, name), 300000, 300000)


@pytest.fixture
def dumpable() -> Iterator[None]:
    """fs.suid_dumpable=1, as a pipe in core_pattern is often set up with."""
    path = "/proc/sys/fs/suid_dumpable"
    with open(path, encoding="ascii") as stream:
        before = stream.read()
    with open(path, "w", encoding="ascii") as stream:
        stream.write("1")
    yield
    with open(path, "w", encoding="ascii") as stream:
        stream.write(before)


@pytest.mark.slow
@pytest.mark.usefixtures("dumpable")
def test_exec_of_the_same_user(neighbour: NeighbourFactory) -> None:
    """fs.suid_dumpable=1: who is no root and has no capabilities gets no descriptor of an init that becomes him."""

    def ordinary(target: Bundle) -> None:
        target.mapping("process", "user").update({"uid": 1000, "gid": 1000})

    attacker = neighbour(ordinary, caps=[])
    for _ in until_caught(attacker, lambda: attacker.container.exec("/bin/true")):
        assert attacker.findings() == []


@pytest.fixture(params=["a parameter", "a helper"])
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """What stands before a command: nothing, or Linux before 6.17, where a procfs takes no pid namespace."""
    if request.param == "a parameter":
        return []
    return faults.build(tmp_path).prefix("fsconfig EINVAL when 1==5")


def test_mounts_add_of_proc(neighbour: NeighbourFactory, kernel: list[str]) -> None:
    """A new proc shows the container's processes; who mounts it is not among them, or has nothing."""
    attacker = neighbour()
    one = attacker.container
    one.command = [*kernel, *one.command]
    for turn in rounds.loop(ROUNDS // 2):
        wanted = [{"destination": f"/p{turn}", "type": "proc", "source": "proc"}]
        if one.pyrunc("mounts", "add", one.id, "-", stdin=json.dumps(wanted)).status == 0:
            one.pyrunc("mounts", "remove", one.id, "-", stdin=json.dumps(wanted)).ok()
        reap()
        assert attacker.findings() == []
    if not kernel:
        assert attacker.caught() == 0


def test_a_proc_of_the_container(
    container: ContainerFactory, bundle: BundleFactory, kernel: list[str]
) -> None:
    """It is of the right pid namespace, and no process is left in there."""
    one = container(bundle("probe").probe("pause")).up()
    one.command = [*kernel, *one.command]
    one.pyrunc("mounts", "add", one.id, "-", stdin=json.dumps([{"destination": "/p", "type": "proc"}])).ok()
    assert one.exec("/bin/sh", "-c", "cat /p/1/comm; set -- /p/[0-9]*; echo $#").ok().out.split() == [
        "probe",
        "2",
    ]


def test_neither_a_parameter_nor_a_helper(
    container: ContainerFactory, bundle: BundleFactory, tmp_path: Path
) -> None:
    """An old kernel without user namespaces: refused, rather than done where others may take the process that does it.

    A container without a proc of its own waits for its start with its pod's, or not at all.
    """
    first = container(bundle("probe").probe("pause")).up()
    target = bundle("probe").probe("pause").namespace("pid", f"/proc/{first.pid}/ns/pid")
    rules = ("fsconfig EINVAL when 1==5", f"unshare ENOSPC when 0=={CLONE_NEWUSER | CLONE_NEWNS}")
    command = [*faults.build(tmp_path).prefix(*rules), *first.command[:1]]
    container(target, command=command).create().fails(
        "$.mounts[0]: fsopen 'proc': no space left on device",
        "hint: a proc of a joined pid namespace needs Linux 6.17",
    )
    mounts = target.list_of("mounts")
    mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != "/proc"]
    for name in ("maskedPaths", "readonlyPaths"):
        target.mapping("linux").pop(name, None)
    container(target, command=command).create().fails("'/proc' is not on the file system it must be on")
    target.mount("/proc", "bind", "/proc", "rbind", "ro")
    one = container(target, command=command).up()
    one.expect("ready")
    one.clean_up()
    reap()


@pytest.mark.slow
def test_create_in_a_shared_pid_namespace(
    neighbour: NeighbourFactory, container: ContainerFactory, bundle: BundleFactory, kernel: list[str]
) -> None:
    """Pods with one process namespace: mounts, hooks and masks of the second container are done out of sight."""
    attacker = neighbour()
    path = f"/proc/{attacker.container.pid}/ns/pid"

    def create() -> None:
        target = bundle("probe").probe("pause").without_namespace("pid").namespace("pid", path)
        target.mapping("process")["capabilities"] = {
            kind: list(CAPS) for kind in ("bounding", "effective", "permitted")
        }
        target.mapping("hooks")["createContainer"] = [{"path": "/bin/true"}]
        one = container(target)
        one.command = [*kernel, *one.command]
        if one.create().status == 0:
            one.start()
        one.clean_up()

    for _ in until_caught(attacker, create, ROUNDS // 2):
        assert attacker.findings() == []


@pytest.mark.slow
def test_hooks_of_a_shared_user_namespace(
    neighbour: NeighbourFactory, container: ContainerFactory, bundle: BundleFactory, kernel: list[str]
) -> None:
    """Pods with one user and one process namespace: a createContainer hook has the host's files, out of sight."""
    attacker = neighbour(in_user_namespace)
    first = attacker.container.pid

    def create() -> None:
        target = bundle("probe").probe("pause")
        in_user_namespace(target)
        linux = target.mapping("linux")
        del linux["uidMappings"], linux["gidMappings"]
        for kind in ("pid", "user"):
            target.namespace(kind, f"/proc/{first}/ns/{kind}")
        target.mapping("hooks")["createContainer"] = [{"path": "/bin/sleep", "args": ["sleep", "0.1"]}]
        one = container(target)
        one.command = [*kernel, *one.command]
        one.create().ok()
        one.start()
        one.clean_up()

    for _ in until_caught(attacker, create, ROUNDS // 4):
        assert attacker.findings() == []


@pytest.mark.parametrize("verb", ["exec", "create"])
def test_forged_messages(
    neighbour: NeighbourFactory, container: ContainerFactory, bundle: BundleFactory, verb: str
) -> None:
    """Who has taken init names another process in its place: it is not followed, and not killed."""
    victim = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    chance = rounds.chance()
    pod = bundle("probe").probe("pause").without_namespace("pid").namespace("pid", "/proc/self/ns/pid")
    try:
        step = fork_of(pod, verb) + chance.choice((-1, 0, 0, 0, 1))
        attacker = neighbour(None, str(victim.pid), str(step))

        def act() -> None:
            if verb == "exec":
                attacker.container.exec("/bin/true")
                return
            one = container(pod.namespace("pid", f"/proc/{attacker.container.pid}/ns/pid"))
            one.create()
            one.clean_up()

        for _ in until_caught(attacker, act, ROUNDS // 2):
            assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def fork_of(target: Bundle, verb: str) -> int:
    """The number of the step FORK when `verb` is done to such a container; give or take one."""
    options = PlanOptions(
        bundle=target.path, container_id="x", rootfs=target.rootfs, init_pid=1 if verb == "exec" else 0
    )
    spec: Spec = json.loads(json.dumps(target.spec))
    facts = gather.gather()
    made = (
        planner.exec_process(spec["process"], spec, facts, options)
        if verb == "exec"
        else planner.create(spec, facts, options)
    )
    return [op.name for op in made.ops].index("FORK")


@pytest.mark.parametrize(
    "step", ["hook", "hook_timeout", "seccomp", "not_ordinary_dir", "plan", "step 4000"]
)
@pytest.mark.parametrize("size", [512, 511])
def test_forged_reports_to_start(
    container: ContainerFactory, bundle: BundleFactory, step: str, size: int
) -> None:
    """Who holds the waiting init's fifo may tell `start` anything: it is told as a failure, in bounded words."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    number = numbers.STEPS.index(step) if step in numbers.STEPS else 4000
    report = hostile.encode(
        1, 7, step=number, error=-5, flags=3 | 999 << 16, value=-1, text=b"\x1b]0;x\x07\n" * 40
    )
    fifo = os.path.join(one.root, one.id, "exec.fifo")
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(fd, report[:size])
        starting = subprocess.Popen(
            [*one.command, "start", one.id], stderr=subprocess.PIPE, text=True, errors="surrogateescape"
        )
        # It has what was said, and waits for the end of who said it.
        support.wait_until(lambda: not os.path.exists(fifo), "start to open the fifo")
        os.kill(one.pid, signal.SIGKILL)
        _, said = starting.communicate(timeout=30)
    finally:
        os.close(fd)
    assert starting.returncode == 1 and "unexpected" not in said, said
    assert "\x1b" not in said and len(said) < 4096, said
