"""The runtime is killed at any moment of any verb while others work on the same container: delete --force cleans up.

Each round brings a container into a state, starts several verbs on it at once, and kills one of them, or all, with or
without what it has started, after a chance time. PYRUNC_ATTACK_ROUNDS and PYRUNC_ATTACK_SEED: tests/support/rounds.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import rounds
import support
from namespaces import mapped

if TYPE_CHECKING:
    import pathlib
    import random

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

# In every process of a round, of the runtime and, by the configuration, of the container.
MARK = "PYRUNC_STORM"
# How long a verb may take here, beside others on few processors.
PATIENCE = 60.0
# Nothing works longer than this on anything: later there is only waiting to be killed.
LATEST = 0.06


def bundle_of(kind: str, bundle: BundleFactory) -> Bundle:
    """What there is to kill: alone, with children, in a user namespace, with hooks, in the host's pid namespace."""
    if kind == "children":
        script = "sleep 600 & sleep 600 & setsid sleep 600 & echo ready; wait"
        return bundle("busybox", "sh", "-c", script)
    if kind == "host pid":
        return bundle(
            "busybox", "sh", "-c", "setsid sleep 600 & echo ready; exec sleep 600"
        ).without_namespace("pid")
    what = bundle("probe").probe("pause")
    if kind == "user":
        return mapped(what)
    if kind == "hooks":
        names = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        inside: support.Spec = {"path": "/bin/probe", "args": ["probe", "stdin"], "timeout": 20}
        outside: support.Spec = {"path": "/bin/cat", "args": ["cat"], "timeout": 20}
        what.spec["hooks"] = {name: [inside if name == "startContainer" else outside] for name in names}
    return what


KINDS = ("probe", "children", "user", "hooks", "host pid")


def verbs(one: Container, mounts: str) -> dict[str, list[str]]:
    """What stands behind --root for each."""
    new = ["--bundle", one.bundle.path, "--pid-file", one.pid_file]
    return {
        "create": ["create", *new, one.id],
        "run": ["run", *new, one.id],
        "run -d": ["run", "--detach", *new, one.id],
        "start": ["start", one.id],
        "exec": ["exec", one.id, "/bin/probe", "ids"],
        "exec -d": ["exec", "--detach", one.id, "/bin/probe", "pause"],
        "exec -t": ["exec", "--tty", one.id, "/bin/probe", "ids"],
        "kill TERM": ["kill", one.id, "TERM"],
        "kill KILL": ["kill", one.id, "KILL"],
        "kill --all": ["kill", "--all", one.id, "KILL"],
        "delete": ["delete", one.id],
        "delete --force": ["delete", "--force", one.id],
        "pause": ["pause", one.id],
        "resume": ["resume", one.id],
        "update": ["update", "--pids-limit", "500", one.id],
        "mounts add": ["mounts", "add", one.id, mounts],
        "mounts remove": ["mounts", "remove", one.id, mounts],
        "state": ["state", one.id],
        "list": ["list"],
        "ps": ["ps", one.id],
        "events": ["events", "--stats", one.id],
    }


# What ends by itself, and so can be waited for beside the one that is killed.
ENDLESS = {"run"}
STATES = ("none", "none", "created", "running", "running", "paused")


def marked(container_id: str) -> list[int]:
    """Processes of the round, zombies excepted: by environment, argv or cgroup."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        if int(entry) == os.getpid() or support.process_gone(int(entry)):
            continue
        for name in ("environ", "cmdline", "cgroup"):
            with contextlib.suppress(OSError), open(f"/proc/{entry}/{name}", "rb") as stream:
                text = stream.read()
                if f"{MARK}={container_id}".encode() in text or (
                    name != "environ" and f"/{container_id}".encode() in text
                ):
                    found.append(int(entry))
                    break
    return found


def describe(pid: int) -> str:
    """A process for a failure's text."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read().replace(b"\0", b" ").decode("utf-8", "replace")
        return f"{pid} '{words}' {support.status_field(pid, 'State')}, child of {support.status_field(pid, 'PPid')}"
    return f"{pid} gone"


def descendants(pid: int) -> list[int]:
    """The processes below one, as far as they are still below it."""
    found: list[int] = []
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream,
    ):
        for child in map(int, stream.read().split()):
            found += [child, *descendants(child)]
    return found


class Round:
    """One container, and the verbs that work on it at once."""

    def __init__(self, one: Container, chance: random.Random, mounts: str) -> None:
        self.one = one
        self.chance = chance
        self.words = verbs(one, mounts)
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.known = support.children()
        self.story: list[str] = []
        self.errors = open(one.error_file, "wb")  # noqa: SIM115 - closed with the round

    def begin(self, verb: str) -> subprocess.Popen[bytes]:
        """Start a verb; what it says is for a failure's text."""
        process = subprocess.Popen(
            [*self.one.command, *self.words[verb]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env={**os.environ, MARK: self.one.id},
            cwd="/",
        )
        self.running.append((verb, process))
        return process

    def tend(self) -> bool:
        """Reap what became ours, as an engine does; whether all verbs have ended."""
        ours = {process.pid for _, process in self.running} | set(self.known)
        for pid in support.children():
            if pid not in ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        return [process.poll() for _, process in self.running].count(None) == 0

    def finish(self, what: str) -> None:
        """Wait for all verbs."""
        if not support.comes_true(self.tend, PATIENCE):
            left = [verb for verb, process in self.running if process.poll() is None]
            below = [describe(pid) for pid in marked(self.one.id)]
            for _, process in self.running:
                process.kill()
                process.wait()
            raise AssertionError(f"{what}: {left} do not end; {self.story}; {below}")

    def reach(self, state: str) -> None:
        """Bring the container there."""
        self.story.append(state)
        steps = {
            "none": (),
            "created": ("create",),
            "running": ("create", "start"),
            "paused": ("create", "start", "pause"),
        }
        for verb in steps[state]:
            process = self.begin(verb)
            self.finish(f"before the storm, {verb}")
            assert process.returncode == 0, (verb, self.story, self.one.errors())

    def storm(self) -> None:
        """Start, wait a chance time, kill."""
        victim = self.chance.choice(list(self.words))
        others = [
            self.chance.choice([verb for verb in self.words if verb not in ENDLESS])
            for _ in range(self.chance.randrange(4))
        ]
        at = self.chance.randrange(len(others) + 1)
        begun = [(verb, self.begin(verb)) for verb in [*others[:at], victim, *others[at:]]]
        delay = self.chance.uniform(0, LATEST) ** 1.5 / LATEST**0.5
        all_of_them = self.chance.random() < 0.2
        with_children = self.chance.random() < 0.4
        self.story += [
            f"{victim} beside {others}",
            f"{delay * 1000:.1f} ms",
            f"{all_of_them} {with_children}",
        ]
        deadline = time.monotonic() + delay
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(left)
        for index, (_, process) in enumerate(begun):
            if index == at or all_of_them:
                # From the top down: who is killed first starts nothing more.
                below = descendants(process.pid) if with_children else []
                process.kill()
                for pid in below:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def clean(self) -> None:
        """delete --force does all, once; what works on a container that somebody has paused waits for it as well."""
        while True:
            alone = support.comes_true(self.tend, 3)
            process = self.begin("delete --force")
            self.finish("delete --force")
            assert process.returncode == 0, (process.returncode, self.story, self.one.errors())
            if alone:
                return  # nobody was left who could make it anew

    def left(self) -> list[str]:
        """What there is of the container; processes may take a moment to be gone, and are reaped by us."""

        def over() -> bool:
            self.tend()
            return not marked(self.one.id)

        support.comes_true(over, 10)
        names = os.listdir(self.one.root) if os.path.isdir(self.one.root) else []
        return [
            *map(describe, marked(self.one.id)),
            *support.find_cgroups(f"/{self.one.id}"),
            *(name for name in names if not name.startswith("@")),
            *support.mounts_below(self.one.bundle.path),
            *support.mounts_below(self.one.root),
        ]


def files_below(directory: str) -> set[str]:
    """All of a bundle."""
    return {os.path.join(path, name) for path, names, files in os.walk(directory) for name in names + files}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment(
    container: ContainerFactory, bundle: BundleFactory, tmp_path: pathlib.Path, view: str, kind: str
) -> None:
    """Nothing is left in any hierarchy, mount table, process list or directory."""
    what = bundle_of(kind, bundle)
    mounts = tmp_path / "mounts.json"
    mounts.write_text(json.dumps([{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]))
    one = container(what, view=view)
    what.list_of("process", "env").append(f"{MARK}={one.id}")
    what.write()
    before = files_below(one.bundle.path)
    chance = rounds.chance()
    for turn in rounds.loop(10):
        each = Round(one, chance, str(mounts))
        each.reach(chance.choice(STATES))
        each.storm()
        each.clean()
        each.errors.close()
        assert not (found := each.left()), (turn, each.story, found)
        # A pid file that was there before is the engine's; what is written is moved there whole.
        there = files_below(one.bundle.path)
        assert there == before, (turn, each.story, there ^ before)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one.pid_file)
