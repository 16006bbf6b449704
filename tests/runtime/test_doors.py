"""The light verbs on real containers: `pyrunc` without Python, `python3 -m pyrunc` with it, and nobody can tell.

tests/unit/test_cli_doors.py holds what needs no container: argv, logs, unknown ids.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

PYTHON_DOOR = [support.PYTHON, "-I", "-m", "pyrunc"]
DOORS = {"command": [support.PYRUNC], "python": PYTHON_DOOR}
_VARIES = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "TIME"),
    (re.compile(r'"pid": [1-9]\d*'), '"pid": PID'),
]


class Story:
    """What one container is asked through one door; `told` is what it answered, without what must differ."""

    def __init__(self, one: Container, door: Sequence[str]) -> None:
        self.one = one
        self.told: list[tuple[str, int, str, str, str]] = []
        # Made by the same command, whichever the door: the verbs under test are the light ones.
        self.command = [*one.command[: one.command.index(support.PYRUNC)], *door, "--root", one.root]
        self.log = os.path.join(os.path.dirname(one.root), "log")

    def ask(self, *argv: str, log: str = "") -> support.Result:
        """Call a verb and keep the answer."""
        options = ["--log", self.log, "--log-format", log] if log else []
        result = support.run(*self.command, *options, *argv)
        written = ""
        if os.path.exists(self.log):
            with open(self.log, encoding="utf-8") as stream:
                written = stream.read()
            os.unlink(self.log)
        out, err, written = (self._common(text) for text in (result.out, result.err, written))
        self.told.append((" ".join(argv), result.status, out, err, written))
        return result

    def _common(self, text: str) -> str:
        for pattern, word in _VARIES:
            text = pattern.sub(word, text)
        return text


def compare(
    tell: Callable[[Story], None], prepare: Callable[[], Container]
) -> list[tuple[str, int, str, str, str]]:
    """Tell the story once through each door, with a container of the same id, and compare; what was told."""
    stories = []
    for door in DOORS.values():
        one = prepare()
        story = Story(one, door)
        tell(story)
        one.clean_up()
        stories.append(story.told)
    assert stories[0] == stories[1]
    return stories[0]


def test_a_whole_life(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Every light verb in every state, and its refusals."""
    what = bundle("busybox", "sleep", "600")

    def tell(story: Story) -> None:
        one = story.one
        one.create().ok()
        pid = one.pid
        story.ask("state", one.id)
        story.ask("kill", one.id, "0")
        story.ask("start", one.id)
        story.ask("state", one.id)
        story.ask("start", one.id, log="json")
        story.ask("delete", one.id)
        story.ask("delete", one.id, log="text")
        story.ask("delete", one.id, log="json")
        story.ask("kill", "--all", one.id, "SIGCONT")
        one.pyrunc("pause", one.id).ok()
        story.ask("state", one.id)
        story.ask("delete", one.id)
        story.ask("start", one.id)
        one.pyrunc("resume", one.id).ok()
        story.ask("kill", one.id, "kill")
        assert support.wait_for_exit(pid) == -9
        story.ask("state", one.id)
        story.ask("start", one.id)
        story.ask("kill", one.id, "0")
        story.ask("kill", one.id, "9", log="json")
        story.ask("kill", "-a", one.id, "9")
        story.ask("delete", one.id)
        story.ask("delete", one.id)
        story.ask("state", one.id)

    name = f"{support.ID_PREFIX}door-{view}"
    told = compare(tell, lambda: container(what, name=name, view=view))
    statuses = [status for _, status, _, _, _ in told]
    assert statuses == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert [text.split('"status": "')[1].split('"')[0] for _, _, text, _, _ in told if text] == [
        "created",
        "running",
        "paused",
        "stopped",
    ]


def test_force(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """delete of a created, delete --force of a running and of a paused container."""
    what = bundle("busybox", "sleep", "600")

    def tell(story: Story) -> None:
        one = story.one
        one.create().ok()
        story.ask("delete", one.id)
        one.wait()
        for pause in (False, True):
            one.up()
            if pause:
                one.pyrunc("pause", one.id).ok()
            story.ask("delete", "--force", one.id)
            one.wait()
            assert support.find_cgroups(f"/{one.id}") == []

    told = compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}force-{view}", view=view))
    assert [row[1:] for row in told] == [(0, "", "", "")] * 3


def test_a_shared_pid_namespace(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """SIGKILL of init takes the others along, also when init is dead already."""
    what = bundle("busybox", "sh", "-c", "sleep 600 & echo child $!; exec sleep 600").without_namespace(
        "pid"
    )

    def tell(story: Story) -> None:
        one = story.one
        one.up()
        child = int(one.expect("child").split()[1])
        os.kill(one.pid, 9)
        one.wait()
        story.ask("kill", one.id, "TERM")
        story.ask("kill", one.id, "KILL")
        support.wait_until(lambda: support.process_gone(child), "the other process's end")
        story.ask("delete", one.id)

    told = compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}pid-{view}", view=view))
    assert [row[1] for row in told] == [1, 0, 0]


def test_what_init_says_instead_of_the_program(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The record goes from C to Python's words; the container has stopped."""
    what = bundle("busybox", "/script")
    with open(os.path.join(what.rootfs, "script"), "w", encoding="ascii") as stream:
        stream.write("#!/no/such/interpreter\n")
    os.chmod(stream.name, 0o755)

    def tell(story: Story) -> None:
        for log in ("", "json"):
            story.one.create().ok()
            story.ask("start", story.one.id, log=log)
            story.ask("state", story.one.id)
            story.ask("delete", story.one.id)

    told = compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}door-exec"))
    assert [row[1] for row in told] == [1, 0, 0] * 2
    assert 'exec: "/script": no such file or directory' in told[0][3]


def test_hooks(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Hooks that concern start and delete bring Python in, through either door."""
    trace = os.path.join(scratch, "trace")

    def hook(kind: str) -> dict[str, support.Json]:
        return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} >>{trace}"]}

    what = bundle("busybox", "sleep", "600")
    what.spec["hooks"] = {"poststart": [hook("poststart")], "poststop": [hook("poststop")]}
    what.write()

    def tell(story: Story) -> None:
        story.one.create().ok()
        story.ask("start", story.one.id)
        story.ask("delete", "-f", story.one.id)
        with open(trace, encoding="ascii") as stream:
            assert stream.read() == "poststart\npoststop\n"
        os.unlink(trace)

    compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}door-hooks"))


def test_the_light_verbs_need_no_python(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """A copy of the command alone, which could not find Python, leads through a whole life."""
    alone = os.path.join(scratch, "bin", "pyrunc")
    os.mkdir(os.path.dirname(alone))
    shutil.copy(support.PYRUNC, alone)
    one = container(bundle("busybox", "sleep", "600"))
    one.create().ok()
    for argv, status in (
        (["state", one.id], 0),
        (["start", one.id], 0),
        (["start", one.id], 1),
        (["delete", one.id], 1),
        (["kill", "--all", one.id, "KILL"], 0),
        (["delete", "--force", one.id], 0),
        (["state", one.id], 1),
        (["delete", "--force", one.id], 0),
    ):
        result = support.run(alone, "--root", one.root, *argv, env={})
        assert result.status == status, result
    missing = "cannot find lib/python3*/site-packages/pyrunc/boot.py"
    support.run(alone, "--root", one.root, "list", env={}).fails(missing, status=127)


def test_nobody_else_becomes_our_child(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The child that primes the cgroup lock is collected; an engine's shim adopts init and nothing else."""
    before = set(support.children())
    one = container(bundle("busybox", "sleep", "600"))
    one.create().ok()
    assert set(support.children()) - before == {one.pid}


@pytest.mark.parametrize("user", ["root", "other", None])
def test_the_default_root_is_the_same(scratch: str, user: str | None) -> None:
    """$XDG_RUNTIME_DIR counts for whoever is not the machine's root, and in a user namespace."""
    support.needs_program("unshare")
    directory = os.path.join(scratch, "pyrunc", "c1")
    os.makedirs(directory)
    with open(os.path.join(directory, "state"), "wb") as stream:
        stream.write(b"damage")
    os.chmod(scratch, 0o755)
    os.chmod(os.path.dirname(directory), 0o755)
    environment = {"XDG_RUNTIME_DIR": scratch, "PATH": os.environ["PATH"]}
    if user is not None:
        environment["USER"] = user
    for prefix in ([], ["unshare", "-U", "-r"], ["unshare", "-U", "--map-user=5"]):
        answers = [support.run(*prefix, *door, "state", "c1", env=environment) for door in DOORS.values()]
        assert [answers[0].status, answers[0].err] == [answers[1].status, answers[1].err]
        found = bool(prefix) and (user != "root" or "--map-user=5" in prefix)
        answers[0].fails("damage" if found else "does not exist")


def test_pyrunc_runs_without_an_environment(container: ContainerFactory, bundle: BundleFactory) -> None:
    """podman gives kill, state and delete nothing but XDG_RUNTIME_DIR: the interpreter is not looked up by PATH."""
    one = container(bundle("busybox", "sleep", "600"), command=["/usr/bin/env", "-i", support.PYRUNC])
    one.up()
    one.pyrunc("list", "--format", "json").ok()
    one.pyrunc("exec", one.id, "true").ok()
    one.delete("--force").ok()
    one.wait()
