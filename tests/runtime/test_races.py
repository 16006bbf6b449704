"""Many runtimes at once on one container or on many: every answer is one of the known ones, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

CROWD = 50
LOOPS = 100

EXISTS = "container with given ID already exists"
MISSING = "container does not exist"
STOPPED = "cannot start a container that has stopped"
ALREADY = "cannot start an already running container"
NOT_RUNNING = "container not running"
# What a verb may answer, whoever else is at it.
ANSWERS = {
    "create": [EXISTS],
    "start": [
        MISSING,
        STOPPED,
        ALREADY,
        "cannot start a container in the creating state",
        "the program could not be started: init was killed by signal 9",
    ],
    "state": [MISSING],
    "kill": [MISSING, NOT_RUNNING, "container not running: it is being created"],
    "delete": [MISSING, r"cannot delete container [^ ]+ that is not stopped: (running|paused|creating)"],
    "exec": [
        MISSING,
        "cannot exec in a stopped container",
        "cannot exec in a container that is still being created",
    ],
}


class Crowd:
    """Commands that run at the same time. Their output are files: an init keeps them open after its runtime."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._commands: list[tuple[list[str], subprocess.Popen[bytes]]] = []

    def _path(self, number: int, name: str) -> str:
        return os.path.join(self._directory, f"crowd{number}.{name}")

    def add(self, *argv: str) -> None:
        """Start one more."""
        number = len(self._commands)
        with open(self._path(number, "out"), "wb") as out, open(self._path(number, "err"), "wb") as err:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/")
        self._commands.append((list(argv), process))

    def wait(self, timeout: float = 150) -> list[support.Result]:
        """Everyone's result, in the order of adding; meanwhile orphaned containers are reaped, as an engine does."""
        ours = {process.pid for _, process in self._commands}

        def over() -> bool:
            for pid in support.children():
                if pid not in ours:
                    os.waitpid(pid, os.WNOHANG)
            return all(process.poll() is not None for _, process in self._commands)

        support.wait_until(over, "the end of all commands", timeout)
        results = []
        for number, (argv, process) in enumerate(self._commands):
            texts = []
            for name in ("out", "err"):
                with open(self._path(number, name), encoding="utf-8", errors="surrogateescape") as stream:
                    texts.append(stream.read())
            results.append(support.Result(argv, process.returncode, *texts))
        self._commands.clear()
        return results


@pytest.fixture
def crowd(scratch: str) -> Iterator[Crowd]:
    one = Crowd(scratch)
    yield one
    one.wait()


def create_argv(one: Container) -> list[str]:
    return [*one.command, "create", "--bundle", one.bundle.path, one.id]


def counted(results: Sequence[support.Result], verb: str) -> dict[str, int]:
    """How often each answer came, "" being success; asserts that each is one of the verb's."""
    counts: dict[str, int] = {}
    for result in results:
        if result.status == 0:
            assert result.err == "", result
            key = ""
        else:
            assert result.status == 1, result
            key = checked(verb, result.err)
        counts[key] = counts.get(key, 0) + 1
    return counts


def checked(verb: str, stderr: str) -> str:
    """The answer in what a failed verb printed; asserts that it is one of ANSWERS."""
    first = stderr.partition("\n")[0].removeprefix(f"pyrunc: {verb}: ")
    assert any(re.fullmatch(answer, first) for answer in ANSWERS[verb]), f"{verb}: {stderr!r}"
    return first


def loop(one: Container, *commands: str) -> list[str]:
    """A shell that does this LOOPS times; a command is "VERB [WORD...]". Its output: "VERB STATUS MESSAGE" each."""
    program = " ".join(f"'{word}'" for word in one.command)
    options = {"create": f"--bundle '{one.bundle.path}'"}
    lines = [f"i=0; while [ $i -lt {LOOPS} ]; do i=$((i+1))"]
    for command in commands:
        verb, _, rest = command.partition(" ")
        words = f"{verb} {options.get(verb, '')} {rest if rest.startswith('-') else ''} {one.id}"
        words += "" if rest.startswith("-") else f" {rest}"
        lines.append(f'{program} {words} >/dev/null 2>"$0"; echo "{verb} $? $(head -n 1 "$0")"')
    return [
        "sh",
        "-c",
        "; ".join([*lines, "done"]),
        os.path.join(os.path.dirname(one.error_file), f"loop-{id(lines)}"),
    ]


def answers(results: Sequence[support.Result]) -> dict[str, int]:
    """How often each answer came out of loop(), as "VERB ANSWER"."""
    counts: dict[str, int] = {}
    for result in results:
        assert (result.status, result.err) == (0, ""), result
        for line in result.out.splitlines():
            verb, status, message = line.split(" ", 2)
            assert (status == "0") == (message == ""), line
            assert status in ("0", "1"), line
            key = verb if status == "0" else f"{verb} {checked(verb, message)}"
            counts[key] = counts.get(key, 0) + 1
    return counts


def assert_gone(*containers: Container) -> None:
    """No state, no cgroup and no process of them exists."""
    for one in containers:
        assert not os.path.lexists(os.path.join(one.root, one.id))
        assert support.find_cgroups(f"/{one.id}") == []


@pytest.fixture
def pausing(bundle: BundleFactory) -> Bundle:
    return bundle("probe").probe("pause").write()


@pytest.mark.slow
def test_many_containers_at_once(
    container: ContainerFactory, pausing: Bundle, crowd: Crowd, view: str
) -> None:
    """They do not get into each other's way: cgroup parents, the root directory, the seccomp cache."""
    pausing.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    ones = []
    for number in range(CROWD):
        one = container(pausing, name=f"{support.ID_PREFIX}many{number}", view=view)
        path = os.path.join(os.path.dirname(one.error_file), f"many{number}")
        os.mkdir(path)
        os.symlink(pausing.rootfs, os.path.join(path, "rootfs"))
        pausing.mapping("linux")["cgroupsPath"] = f"/{support.ID_PREFIX}parent/deep/{one.id}"
        with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(pausing.spec, stream)
        ones.append((one, path))
    for one, path in ones:
        crowd.add(*one.command, "create", "--bundle", path, one.id)
    assert counted(crowd.wait(), "create") == {"": CROWD}
    for verb, word in (("start", []), ("kill", ["KILL"])):
        for one, _ in ones:
            crowd.add(*one.command, verb, one.id, *word)
        assert counted(crowd.wait(), verb) == {"": CROWD}
    for one, _ in ones:
        crowd.add(*one.command, "delete", "--force", one.id)
    assert counted(crowd.wait(), "delete") == {"": CROWD}
    assert_gone(*[one for one, _ in ones])
    # Who makes a parent removes it, unless others still use it; then it stays, empty.
    left = support.find_cgroups(f"{support.ID_PREFIX}parent")
    support.remove_cgroups(left)
    assert {os.path.basename(path) for path in left} <= {f"{support.ID_PREFIX}parent", "deep"}


def test_one_of_many_creates_wins(container: ContainerFactory, pausing: Bundle, crowd: Crowd) -> None:
    """All others say who was first, and leave the winner's container alone."""
    one = container(pausing)
    for _ in range(CROWD):
        crowd.add(*create_argv(one))
    assert counted(crowd.wait(), "create") == {"": 1, EXISTS: CROWD - 1}
    assert one.status() == "created"
    one.start().ok()
    assert one.status() == "running"
    crowd.add(*one.command, "delete", "--force", one.id)
    assert counted(crowd.wait(), "delete") == {"": 1}
    assert_gone(one)


@pytest.mark.slow
def test_create_against_delete(
    container: ContainerFactory, pausing: Bundle, crowd: Crowd, view: str
) -> None:
    """Who makes and who removes the same name never see each other's halves."""
    one = container(pausing, view=view)
    for commands in (
        ["create"],
        ["delete --force"],
        ["create", "delete"],
        ["create", "start", "delete --force"],
    ):
        crowd.add(*loop(one, *commands))
    counts = answers(crowd.wait())
    crowd.add(*one.command, "delete", "--force", one.id)
    assert counted(crowd.wait(), "delete") == {"": 1}
    assert_gone(one)
    # Both must have had their turn, or nothing was raced.
    assert counts["create"] > LOOPS / 4, counts
    assert counts.get(f"create {EXISTS}", 0) > 0, counts
    assert counts["delete"] > LOOPS / 2, counts


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_delete_against_delete(
    container: ContainerFactory, pausing: Bundle, crowd: Crowd, force: list[str]
) -> None:
    """One removes it; the others find nothing, which is fine with --force."""
    for _ in range(10):
        one = container(pausing)
        one.create().ok()
        for _ in range(4):
            crowd.add(*one.command, "delete", *force, one.id)
        counts = counted(crowd.wait(), "delete")
        assert counts == ({"": 4} if force else {"": 1, MISSING: 3})
        assert_gone(one)


def test_kill_against_delete(container: ContainerFactory, pausing: Bundle, crowd: Crowd) -> None:
    """kill finds init, or nobody, or no container; delete succeeds whenever it was killed before."""
    for _ in range(10):
        one = container(pausing).up()
        crowd.add(*one.command, "kill", one.id, "KILL")
        crowd.add(*one.command, "kill", "--all", one.id, "KILL")
        crowd.add(*one.command, "delete", one.id)
        crowd.add(*one.command, "delete", "--force", one.id)
        results = crowd.wait()
        counted(results[:2], "kill")
        counted(results[2:3], "delete")
        assert counted(results[3:], "delete") == {"": 1}
        assert_gone(one)


def test_one_of_many_starts_wins(
    container: ContainerFactory, pausing: Bundle, crowd: Crowd, view: str
) -> None:
    """The program runs once, and the others are told."""
    for _ in range(5):
        one = container(pausing, view=view)
        one.create().ok()
        for _ in range(8):
            crowd.add(*one.command, "start", one.id)
        assert counted(crowd.wait(), "start") == {"": 1, ALREADY: 7}
        one.expect("ready")
        one.kill().ok()
        one.wait()
        one.delete().ok()
        assert_gone(one)


def test_start_against_delete(container: ContainerFactory, pausing: Bundle, crowd: Crowd) -> None:
    """start answers, whatever becomes of its container meanwhile."""
    for _ in range(10):
        one = container(pausing)
        one.create().ok()
        crowd.add(*one.command, "start", one.id)
        crowd.add(*one.command, "delete", "--force", one.id)
        started, deleted = crowd.wait()
        counted([started], "start")
        assert counted([deleted], "delete") == {"": 1}
        assert_gone(one)


@pytest.mark.slow
def test_looking_while_it_changes(container: ContainerFactory, pausing: Bundle, crowd: Crowd) -> None:
    """state and list always give whole documents, in an order that a container's life can have."""
    one = container(pausing)
    crowd.add(*loop(one, "create", "start", "delete --force"))
    crowd.add(*loop(one, "state"))
    crowd.add(*loop(one, "state", "kill 0"))
    crowd.add(
        "sh",
        "-c",
        f"for i in 1 2 3 4 5 6 7 8 9 10; do {' '.join(one.command)} list --format json; echo; done",
    )
    *loops, listing = crowd.wait()
    counts = answers(loops)
    assert counts["create"] == LOOPS
    assert listing.status == 0, listing
    for line in listing.out.splitlines():
        documents = json.loads(line) if line else None
        assert documents is None or [document["id"] for document in documents] == [one.id], listing


def test_state_during_create(
    container: ContainerFactory, bundle: BundleFactory, crowd: Crowd, scratch: str
) -> None:
    """A hook holds create up: now it is "creating" and can neither be started, killed, deleted nor entered."""
    gate = os.path.join(scratch, "gate")
    os.mkfifo(gate)
    target = bundle("probe").probe("pause")
    script = f"echo >{gate}; read -r go <{gate}"
    target.mapping("hooks")["createRuntime"] = [{"path": "/bin/sh", "args": ["sh", "-c", script]}]
    one = container(target)
    crowd.add(*create_argv(one))
    with open(gate, "rb") as stream:
        stream.read()
    state = one.state()
    assert state["status"] == "creating"
    assert isinstance(state["pid"], int)
    assert state["pid"] > 0
    one.kill().fails("container not running: it is being created")
    one.exec("/bin/probe", "ids").fails("cannot exec in a container that is still being created", status=255)
    one.pyrunc(*create_argv(one)[len(one.command) :]).fails(EXISTS)
    with open(gate, "wb") as stream:
        stream.write(b"go\n")
    assert counted(crowd.wait(), "create") == {"": 1}
    assert one.status() == "created"
