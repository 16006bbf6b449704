"""A container, and a CRIU that does as a test says: what the tests of a hostile CRIU and of hostile images share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import fake_criu
import support
from machines import patience

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containers import Container
    from fake_criu import Act
    from support import Result

# The command with deadlines that a test can wait for.
_QUICK = (
    "import sys; from pyrunc.cli import main as cli; from pyrunc.criu import server as criu, process as criu_process;"
    "from pyrunc.verbs import checkpoint;"
    "criu._ANSWER_SECONDS = criu_process.STALL_SECONDS = 1.5; criu_process.UNDO_STALL_SECONDS = 1.0;"
    "criu_process.UNDO_SECONDS = criu_process.SPIN_SECONDS = 3.0;"
    "checkpoint._KILLED_SECONDS = checkpoint._READY_SECONDS = 1.0;"
    "sys.exit(cli.main())"
)
IMPATIENT = [support.PYTHON, "-I", "-c", _QUICK]
# No case takes longer than that, whatever CRIU does.
LIMIT = 45.0


def with_criu(directory: str, acts: Mapping[str, Sequence[Act]]) -> list[str]:
    """What stands before a command that is to have this CRIU."""
    there = fake_criu.install(directory, acts)
    return ["env", f"PATH={there}:{os.environ['PATH']}"]


class Scene:
    """A container, and a CRIU that does as it is told."""

    def __init__(self, one: Container, scratch: str) -> None:
        self.one = one
        self.criu = os.path.join(scratch, "fake")
        self.image = os.path.join(scratch, "image")
        self.work = os.path.join(scratch, "work")
        self.scratch = scratch

    def argv(self, acts: Mapping[str, Sequence[Act]], *words: str) -> list[str]:
        """The command with that CRIU."""
        options = self.one.command[self.one.command.index("--root") :]
        return [*with_criu(self.criu, acts), *IMPATIENT, *options, *words]

    def saves(self, acts: Sequence[Act], *options: str) -> Result:
        """checkpoint, in time."""
        words = ["checkpoint", "--image-path", self.image, "--work-path", self.work, *options, self.one.id]
        return support.run(*self.argv({"DUMP": acts, "PRE_DUMP": acts}, *words), timeout=LIMIT)

    def comes_back(self, acts: Sequence[Act], *options: str) -> Result:
        """restore, in time."""
        made = ["--pid-file", self.one.pid_file, "--bundle", self.one.bundle.path, "--work-path", self.work]
        words = ["restore", "--detach", "--image-path", self.image, *made, *options, self.one.id]
        with open(self.one.error_file, "wb") as errors:
            done = subprocess.run(
                self.argv({"RESTORE": acts}, *words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                timeout=patience(LIMIT),
                check=False,
            )
        return support.Result(words, done.returncode, "", self.one.errors())

    def begins(self, acts: Mapping[str, Sequence[Act]], *words: str) -> subprocess.Popen[bytes]:
        """A command that goes on."""
        return subprocess.Popen(
            self.argv(acts, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
        )

    def left(self) -> list[int]:
        """The processes of CRIU that still run."""
        return [pid for pid in fake_criu.children(self.criu) if not support.process_gone(pid)]

    def goes_on(self, status: str = "running") -> None:
        """The container is as it was, and nothing of CRIU is left."""
        assert self.one.status() == status
        assert not self.left()
        if status == "paused":
            self.one.pyrunc("resume", self.one.id).ok()
        self.one.exec("/bin/probe", "ids").ok()
        self.one.kill("USR1").ok()
        self.one.expect(f"signal {int(signal.SIGUSR1)}")

    def left_nothing(self) -> None:
        """No state, no cgroup, no mount, no pid file, no process."""
        assert not os.path.exists(os.path.join(self.one.root, self.one.id))
        assert not support.find_cgroups(self.one.id)
        assert not support.mounts_below(self.scratch)
        assert not os.path.exists(self.one.pid_file)
        assert not self.left()


def images(directory: str) -> None:
    """A directory as checkpoint leaves it."""
    os.mkdir(directory, 0o700)
    with open(os.path.join(directory, "descriptors.json"), "w", encoding="ascii") as stream:
        json.dump(["/dev/null"] * 3, stream)
    for name in ("inventory.img", "core-1.img"):
        with open(os.path.join(directory, name), "w", encoding="ascii") as stream:
            stream.write("image")
