"""One runtime under measurement: its commands, each timed, and each looked at: did it do what it was asked to?

A command that fails, or that says it worked when it did not, ends the measurement with CommandError.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workload import Bundles

HERE = os.path.dirname(os.path.realpath(__file__))
MEASURE = os.path.join(HERE, "../build/dev/measure")
COMMANDS = ("create", "start", "state", "exec", "kill", "delete", "run")
LIFECYCLE = ("create", "start", "state", "kill", "delete")
# What may take a moment after a command has returned; it ends nothing but a hang.
PATIENCE = 10.0
# Lines of /proc/PID/status that say what a process may do.
_FACTS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")


class CommandError(Exception):
    """A runtime failed, or did not do what it said."""


class Sample:
    """What one command cost: wall clock and CPU time in ms, peak memory in kB, instructions (-1: not counted here)."""

    __slots__ = ("cpu_ms", "instructions", "kb", "ms")

    def __init__(self, ms: float, kb: float = 0, cpu_ms: float = 0, instructions: float = -1) -> None:
        self.ms = ms
        self.kb = kb
        self.cpu_ms = cpu_ms
        self.instructions = instructions


def _wait_until(what: str, check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not check():
        if time.monotonic() > deadline:
            raise CommandError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.0002)


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def proportional_size(pid: int) -> int:
    """The process's share of memory in kB. proc(5), smaps_rollup."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("Pss:"))


def process_facts(pid: int) -> dict[str, str]:
    """What a process may do and what it sees: the same for every runtime, or they do not do the same work."""
    facts: dict[str, str] = {}
    with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            if name in _FACTS:
                facts[name] = value.strip()
    for name in _NAMESPACES:
        same = _same_file(f"/proc/{pid}/ns/{name}", f"/proc/self/ns/{name}")
        facts[f"{name} namespace"] = "the host's" if same else "its own"
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as stream:
        facts["mount points"] = " ".join(sorted(line.split()[4] for line in stream))
    with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as stream:
        facts["oom_score_adj"] = stream.read().strip()
    with open(f"/proc/{pid}/limits", encoding="ascii") as stream:
        facts["open files"] = " ".join(next(line for line in stream if "open files" in line).split()[3:5])
    return facts


def cgroup_directories(pid: int) -> list[str]:
    """The cgroups of a process as directories of this view, but for those that are the caller's own."""
    found: list[str] = []
    own = _cgroups("self")
    for controllers, path in _cgroups(str(pid)).items():
        if own.get(controllers) == path:
            continue
        for top in ("/sys/fs/cgroup/" + controllers.removeprefix("name="), "/sys/fs/cgroup"):
            if os.path.isdir(top + path):
                found.append(top + path)
                break
    return found


def _cgroups(pid: str) -> dict[str, str]:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split(":", 2) for line in stream]
    return {row[1]: row[2] for row in rows}


class Life:
    """One container on its way; what was seen of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0
        self.cgroups: list[str] = []
        self.waiting_kb = 0
        self.samples: dict[str, Sample] = {}


class Runtime:
    """One program, its state directory, and where its output goes."""

    def __init__(self, name: str, program: str, scratch: str, event: str = "instructions") -> None:
        self.name = name
        self.program = program
        self.root = os.path.join(scratch, f"root-{name}")
        self.scratch = scratch
        self.event = event
        self.facts: dict[str, dict[str, str]] = {}

    def version(self) -> str:
        """What `--version` says first."""
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True)
        first = done.stdout.split("\n", 1)[0]
        # Engines want to read runc's name there; ours stands behind it.
        return (
            f"pyrunc {first.partition('+pyrunc.')[2]}"
            if "+pyrunc." in first
            else first.replace(" version", "")
        )

    def file(self, name: str, kind: str) -> str:
        """A scratch file of one container."""
        return os.path.join(self.scratch, f"{name}.{kind}")

    def call(self, name: str, *words: str, status: int = 0) -> Sample:
        """Run one command about the container `name`. Raise CommandError for another exit status than `status`."""
        argv = [self.program, "--root", self.root, *words]
        # Each has its own: what create was given is the program's, too, which writes when it likes.
        out, errors = self.file(name, f"{words[0]}.out"), self.file(name, f"{words[0]}.err")
        done = subprocess.run([MEASURE, self.event, out, errors, *argv], capture_output=True, check=True)
        ns, wait_status, kb, cpu_us, events = map(int, done.stdout.split())
        if os.waitstatus_to_exitcode(wait_status) != status:
            with open(errors, encoding="utf-8", errors="replace") as stream:
                raise CommandError(
                    f"{' '.join(argv)}: exit status {os.waitstatus_to_exitcode(wait_status)}, "
                    f"expected {status}: {stream.read().strip()}"
                )
        return Sample(ns / 1e6, kb, cpu_us / 1000, events)

    def wrong(self, name: str, text: str) -> CommandError:
        """The exception for a command that lied."""
        return CommandError(f"{self.name}: container {name}: {text}")

    # --- The commands, each with a look at what it did ----------------------------------------------------------------

    def create(self, life: Life, bundle: str) -> None:
        """create; the process waits in the container's root and is not the program yet."""
        pid_file = self.file(life.name, "pid")
        life.samples["create"] = self.call(
            life.name, "create", "--bundle", bundle, "--pid-file", pid_file, life.name
        )
        with open(pid_file, encoding="ascii") as stream:
            life.pid = int(stream.read())
        probe = os.path.join(bundle, "rootfs/bin/probe")
        if not _same_file(f"/proc/{life.pid}/root/bin/probe", probe):
            raise self.wrong(life.name, "after create its process is not in the root file system")
        if _same_file(f"/proc/{life.pid}/exe", probe):
            raise self.wrong(life.name, "after create the program runs already")
        life.cgroups = cgroup_directories(life.pid)
        if not life.cgroups:
            raise self.wrong(life.name, "after create it is in no cgroup of its own")

    def start(self, life: Life, bundle: str) -> None:
        """start; the process becomes the program."""
        life.samples["start"] = self.call(life.name, "start", life.name)
        probe = os.path.join(bundle, "rootfs/bin/probe")
        _wait_until("start: the program", lambda: _same_file(f"/proc/{life.pid}/exe", probe))

    def state(self, life: Life) -> None:
        """state; a document with id, pid and status."""
        life.samples["state"] = self.call(life.name, "state", life.name)
        with open(self.file(life.name, "state.out"), encoding="utf-8") as stream:
            text = stream.read()
        try:
            document = json.loads(text)
            said = (document["id"], document["pid"], document["status"])
        except (ValueError, KeyError, TypeError) as error:
            raise self.wrong(life.name, f"state says {text!r}: {error}") from error
        if said != (life.name, life.pid, "running"):
            raise self.wrong(life.name, f"state says {said}")

    def exec(self, life: Life) -> None:
        """exec; its exit status is that of the program in the container."""
        life.samples["exec"] = self.call(
            life.name, "exec", life.name, "/bin/probe", "exit", str(workload.EXEC_STATUS),
            status=workload.EXEC_STATUS,
        )  # fmt: skip

    def kill(self, life: Life) -> None:
        """kill; the process ends by that signal. We are its parent by now, being a subreaper."""
        life.samples["kill"] = self.call(life.name, "kill", life.name, "KILL")
        _, status = os.waitpid(life.pid, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise self.wrong(life.name, f"after kill its wait status is {status}")

    def delete(self, life: Life) -> None:
        """delete; neither state nor cgroup is left."""
        life.samples["delete"] = self.call(life.name, "delete", life.name)
        left = [path for path in (os.path.join(self.root, life.name), *life.cgroups) if os.path.exists(path)]
        if left:
            raise self.wrong(life.name, f"after delete there is still {', '.join(left)}")

    def run(self, name: str, bundle: str) -> Sample:
        """run; its exit status is the program's, and nothing is left."""
        sample = self.call(name, "run", "--bundle", bundle, name, status=workload.RUN_STATUS)
        if os.path.exists(os.path.join(self.root, name)):
            raise self.wrong(name, "after run there is still its state")
        return sample

    # --- Lives --------------------------------------------------------------------------------------------------------

    def whole_life(self, name: str, bundles: Bundles, quiet: float = 0) -> Life:
        """Every command once, `quiet` seconds of nothing before each."""
        life = Life(name)
        steps: dict[str, Callable[[], None]] = {
            "create": lambda: self.create(life, bundles.pause),
            "start": lambda: self.start(life, bundles.pause),
            "state": lambda: self.state(life),
            "exec": lambda: self.exec(life),
            "kill": lambda: self.kill(life),
            "delete": lambda: self.delete(life),
        }
        for command, step in steps.items():
            time.sleep(quiet)
            step()
            if command == "create":
                life.waiting_kb = proportional_size(life.pid)
            elif command == "start":
                self.facts[bundles.name] = process_facts(life.pid)
        time.sleep(quiet)
        life.samples["run"] = self.run(name, bundles.exit)
        return life

    def short_life(self, name: str, bundle: str) -> None:
        """create, start, wait for the program's end, delete."""
        life = Life(name)
        self.create(life, bundle)
        life.samples["start"] = self.call(name, "start", name)
        _, status = os.waitpid(life.pid, 0)
        if os.waitstatus_to_exitcode(status) != workload.RUN_STATUS:
            raise self.wrong(name, f"the program's wait status is {status}")
        self.delete(life)

    def clean_up(self) -> None:
        """Leave nothing behind when a round was cut off."""
        names = os.listdir(self.root) if os.path.isdir(self.root) else []
        names = [name for name in names if not name.startswith("@")]  # caches
        for name in names:
            subprocess.run([self.program, "--root", self.root, "delete", "--force", name], check=False)


def find(wanted: Sequence[str], scratch: str) -> list[Runtime]:
    """The runtimes by name or NAME=PATH; $RUNC and $CRUN name theirs; pyrunc is the one beside this Python."""
    found: list[Runtime] = []
    for item in wanted:
        name, _, path = item.partition("=")
        beside = os.path.join(os.path.dirname(sys.executable), name)
        path = path or os.environ.get(name.upper(), "") or (beside if os.path.exists(beside) else "")
        program = shutil.which(path or name)
        if program is None:
            raise CommandError(
                f"there is no {path or name} here: install it, or name it by {name.upper()}=PATH"
            )
        found.append(Runtime(name, os.path.abspath(program), scratch))
    return found


def _only(one: str, other: str) -> tuple[str, str]:
    """The words that only one of two lists has."""
    ours, theirs = {*one.split()}, {*other.split()}
    return f"alone has {' '.join(sorted(ours - theirs))}", f"alone has {' '.join(sorted(theirs - ours))}"


def differences(runtimes: Sequence[Runtime]) -> list[str]:
    """Where the containers of two runtimes were not alike, in words."""
    found: list[str] = []
    first = runtimes[0]
    for other in runtimes[1:]:
        for bundle, facts in first.facts.items():
            for key, value in facts.items():
                theirs = other.facts.get(bundle, {}).get(key, "")
                if theirs != value:
                    pair = _only(value, theirs) if key == "mount points" else (value, theirs)
                    found.append(f"{bundle}: {key}: {first.name} {pair[0]}, {other.name} {pair[1]}")
    return found
