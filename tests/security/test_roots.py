"""Roots of other people: a state that somebody else could have written names pids to kill and hooks to run.

csrc/container/trust.c is the rule. A victim and a hook stand for what root would do; each verb, through both doors,
must refuse.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
from typing import TYPE_CHECKING

import pytest

import containers
import state_dirs
import support
from pyrunc.container.record import Record
from pyrunc.kernel import container as kernel_container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

FORGED = "forged"
DOORS = {"command": [support.PYRUNC], "module": [support.PYTHON, "-m", "pyrunc"]}
VERBS = [
    "state ID",
    "start ID",
    "kill ID KILL",
    "kill --all ID KILL",
    "kill --regex for KILL",
    "delete ID",
    "delete --force ID",
    "delete --force --regex for",
    "exec ID true",
    "list",
    "ps ID",
    "pause ID",
    "resume ID",
    "update --pids-limit 5 ID",
    "events --stats ID",
    "wait ID",
    "checkpoint --image-path DIR/image ID",
    "mounts add ID DIR/mounts.json",
    "mounts remove ID DIR/mounts.json",
    "create --bundle DIR/bundle new",
    "run --bundle DIR/bundle new",
    "restore --image-path DIR/image --bundle DIR/bundle new",
]


class Forgery:
    """A root with a container that never was: `victim` is its init, `marker` what its hooks write."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = f"{directory}/above/root"
        self.marker = f"{directory}/marker"
        os.makedirs(self.root, 0o755)
        self.states = state_dirs.Root(self.root)
        self.victim = self.states.process("sleep", "1000")
        self.bundle = containers.make_bundle("hello", f"{directory}/bundle")
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo ran >>{self.marker}"]}
        hooks = {name: [hook] for name in ("prestart", "createRuntime", "poststart", "poststop")}
        self.bundle.spec["hooks"] = hooks  # type: ignore[assignment]  # JSON it is
        self.bundle.write()
        with open(f"{directory}/mounts.json", "w", encoding="ascii") as stream:
            json.dump([{"destination": "/x", "source": "/etc", "options": ["bind"]}], stream)
        self.forge()

    def forge(self) -> None:
        """Write what pyrunc would have written."""
        record = Record(
            bundle=self.bundle.path, rootfs=self.bundle.rootfs, container_id=FORGED, annotations=None
        )
        record.pid = self.victim
        record.start_time = kernel_container.process_start_time(self.victim)
        record.needs = ["prestart", "poststart", "poststop"]
        self.states.write(record, FORGED, fifo=True)
        shutil.copy(f"{self.bundle.path}/config.json", self.states.at(FORGED, "config.json"))

    def call(self, verb: str, door: str) -> support.Result:
        """Run a verb on it as root."""
        words = [word.replace("ID", FORGED).replace("DIR", self.directory) for word in verb.split()]
        return support.run(*DOORS[door], "--root", self.root, *words, timeout=20)

    def nothing_happened(self) -> None:
        """No hook ran, the victim lives, no container was made."""
        assert not os.path.exists(self.marker)
        assert self.states.alive(self.victim)
        assert os.listdir(self.root) == [FORGED]

    def end(self) -> None:
        """Clean up."""
        for process in self.states.started:
            process.kill()
            process.wait()


@pytest.fixture
def forgery(scratch: str) -> Iterator[Forgery]:
    """A forged container in a root that is trusted so far."""
    one = Forgery(scratch)
    yield one
    one.end()


def stranger() -> int:
    """The uid of an ordinary user."""
    return pwd.getpwnam("nobody").pw_uid


def _give_all(one: Forgery) -> None:
    for directory, names, files in os.walk(one.root):
        for name in (".", *names, *files):
            os.lchown(os.path.join(directory, name), stranger(), stranger())


def _linked(one: Forgery) -> None:
    """A link of theirs, which may lead elsewhere a moment later, to what is root's."""
    os.rename(one.root, f"{one.directory}/real")
    os.symlink(f"{one.directory}/real", one.root)
    os.lchown(one.root, stranger(), stranger())


def _linked_above(one: Forgery) -> None:
    """The same further up, relative and through "..": the directory that holds the link may be written."""
    os.rename(f"{one.directory}/above", f"{one.directory}/real")
    os.mkdir(f"{one.directory}/theirs")
    os.symlink("../theirs/../real", f"{one.directory}/theirs/link")
    os.symlink("theirs/link", f"{one.directory}/above")
    os.chmod(f"{one.directory}/theirs", 0o777)


# What is wrong, and what the error must name.
WRONG: dict[str, tuple[Callable[[Forgery], object], str]] = {
    "all of it is theirs": (_give_all, "belongs to user"),
    "the root is theirs": (lambda one: os.chown(one.root, stranger(), 0), "belongs to user"),
    "the root may be written": (lambda one: os.chmod(one.root, 0o757), "may be written by others"),
    "their group may write it": (lambda one: os.chmod(one.root, 0o775), "may be written by others"),
    "what is above is theirs": (
        lambda one: os.chown(os.path.dirname(one.root), stranger(), 0),
        "belongs to user",
    ),
    "what is above may be written": (
        lambda one: os.chmod(os.path.dirname(one.root), 0o777),
        "may be written by others",
    ),
    "a link of theirs": (_linked, "belongs to user"),
    "a link in a directory of theirs": (_linked_above, "may be written by others"),
}


def test_the_forgery_would_work(forgery: Forgery) -> None:
    """In a root that is trusted, root believes it: the tests below prove something."""
    forgery.call("delete --force ID", "command").ok()
    assert os.path.exists(forgery.marker)
    assert not forgery.states.alive(forgery.victim)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_root_of_others_is_refused(forgery: Forgery, wrong: str, door: str) -> None:
    """By every verb, before anything is read, made, run or killed; the message names the directory."""
    spoil, reason = WRONG[wrong]
    spoil(forgery)
    for verb in VERBS:
        done = forgery.call(verb, door)
        done.fails("cannot be trusted", status=255 if verb.startswith("exec") else 1)
        assert reason in done.err, (verb, done)
        assert "hint: choose a --root" in done.err, (verb, done)
        forgery.nothing_happened()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("wrong", ["owner", "mode"])
def test_a_container_of_others_is_refused(forgery: Forgery, wrong: str, door: str) -> None:
    """In a sticky root, such as /tmp, everybody may make a directory with a container's name."""
    os.chmod(forgery.root, 0o1777)
    if wrong == "owner":
        os.chown(forgery.states.at(FORGED), stranger(), 0)
    else:
        os.chmod(forgery.states.at(FORGED), 0o777)
    for verb in VERBS:
        if verb.endswith(" new") or verb == "list" or "--regex" in verb:
            continue
        done = forgery.call(verb, door)
        done.fails("cannot be trusted", status=255 if verb.startswith("exec") else 1)
        forgery.nothing_happened()
    listed = forgery.call("list", door)
    assert FORGED not in listed.out
    assert f"container '{FORGED}' is left out" in listed.err
    forgery.nothing_happened()


def _second_name(path: str) -> None:
    os.link(path, f"{path}-too")


def _fifo(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path)


def _directory(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


def _symlink(path: str) -> None:
    os.rename(path, f"{path}-real")
    os.symlink(f"{path}-real", path)


FILES: dict[str, Callable[[str], object]] = {
    "owner": lambda path: os.chown(path, stranger(), 0),
    "mode": lambda path: os.chmod(path, 0o666),
    "second name": _second_name,
    "fifo": _fifo,
    "link": _symlink,
    "directory": _directory,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("wrong", FILES)
def test_a_state_that_is_no_file_of_ours(forgery: Forgery, wrong: str, door: str) -> None:
    """It is damaged, and nobody waits for it; forced, delete takes the directory away and nothing else."""
    FILES[wrong](forgery.states.at(FORGED, "state"))
    for verb in ("state ID", "start ID", "kill ID KILL", "delete ID", "exec ID true", "ps ID", "wait ID"):
        done = forgery.call(verb, door)
        done.fails(status=255 if verb.startswith("exec") else 1)
        forgery.nothing_happened()
    forgery.call("delete --force ID", door)
    assert forgery.states.alive(forgery.victim)


@pytest.mark.parametrize("wrong", FILES)
def test_a_configuration_that_is_no_file_of_ours(forgery: Forgery, wrong: str) -> None:
    """Its hooks are not run, and nobody waits for it."""
    os.unlink(forgery.states.at(FORGED, "exec.fifo"))
    FILES[wrong](forgery.states.at(FORGED, "config.json"))
    for verb in ("exec ID true", "update --pids-limit 5 ID"):
        forgery.call(verb, "command").fails(status=255 if verb.startswith("exec") else 1)
    assert not os.path.exists(forgery.marker)


def test_a_root_that_is_a_file(scratch: str) -> None:
    """A clear word from every verb."""
    path = f"{scratch}/file"
    with open(path, "w", encoding="ascii"):
        pass
    containers.make_bundle("hello", f"{scratch}/bundle")
    for door, program in DOORS.items():
        for verb in VERBS:
            words = verb.replace("ID", FORGED).replace("DIR", scratch).split()
            if words[0] in ("restore", "mounts"):
                continue
            done = support.run(*program, "--root", path, *words)
            done.fails(status=255 if words[0] == "exec" else 1)
            assert f"open '{path}': not a directory" in done.err, (door, verb, done)


def test_usual_roots_are_trusted(scratch: str) -> None:
    """A directory of our own in a sticky one, a link of our own, and one that is not there yet."""
    os.mkdir(f"{scratch}/sticky")
    os.chmod(f"{scratch}/sticky", 0o1777)
    os.mkdir(f"{scratch}/sticky/own", 0o700)
    os.symlink("sticky/own", f"{scratch}/link")
    containers.make_bundle("hello", f"{scratch}/bundle")
    for root in ("sticky", "sticky/own", "sticky/new", "link", "link/new/deep"):
        argv = [support.PYRUNC, "--root", f"{scratch}/{root}"]
        name = f"{support.ID_PREFIX}trusted"
        done = support.run(*argv, "run", "--bundle", f"{scratch}/bundle", name).ok()
        assert "hello" in done.out
        support.run(*argv, "state", name).fails("container does not exist")
