"""Kernels that lack a system call or refuse it, and runtimes that die or fail at a certain call.

csrc/testing/fail_syscall.c and at_call.c, and how to put them before a command.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import support

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = ["-std=gnu11", "-O1", "-static", "-Wall", "-Wextra", "-Werror"]
USAGE_ERROR = 125
NO_COMMAND = 127


class FailSyscall:
    """The helper, ready to run."""

    def __init__(self, program: str) -> None:
        self.program = program

    def prefix(self, *rules: str) -> list[str]:
        """What stands before a command: prefix("openat2 ENOSYS", "mount EPERM when 3==4096")."""
        return [self.program, *(word for rule in rules for word in rule.split()), "--"]


class AtCall:
    """The calls of a command that change something: listed, or the command killed or failed at one of them."""

    def __init__(self, program: str, report: str) -> None:
        self.program = program
        self.report = report

    def kill(self, number: int) -> list[str]:
        """What stands before a command that dies right behind its call `number` (1 is the first, 0: before it)."""
        return [self.program, self.report, "kill", str(number), "--"]

    def fail(self, number: int, error: int) -> list[str]:
        """What stands before a command whose call `number` is not made and answers the errno `error`."""
        return [self.program, self.report, "fail", str(number), str(error), "--"]

    def calls(self) -> list[str]:
        """The calls of the last command, "name detail" each, up to where it was stopped."""
        with open(self.report, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().splitlines()


def build(folder: Path) -> FailSyscall:
    """The helper as meson built it, or built on the spot in `folder`."""
    return FailSyscall(program("fail_syscall", folder))


def build_at_call(folder: Path) -> AtCall:
    """The helper as meson built it, or built on the spot in `folder`, where its report goes in any case."""
    return AtCall(program("at_call", folder), str(folder / "calls"))


def program(name: str, folder: Path) -> str:
    """A program of csrc/testing as meson built it, or built on the spot in `folder`."""
    source = os.path.join(support.PROJECT, f"csrc/testing/{name}.c")
    ready = os.path.join(support.BUILD, name)
    if os.path.exists(ready) and os.stat(ready).st_mtime >= os.stat(source).st_mtime:
        return ready
    built = str(folder / name)
    subprocess.run(
        ["cc", *_FLAGS, "-I", os.path.join(support.PROJECT, "csrc"), source, "-o", built], check=True
    )
    return built
