"""Kernels that lack a system call or refuse it: csrc/testing/fail_syscall.c, and how to put it before a command."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import support

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = os.path.join(support.PROJECT, "csrc/testing/fail_syscall.c")
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


def build(folder: Path) -> FailSyscall:
    """The helper as meson built it, or built on the spot in `folder`."""
    ready = os.path.join(support.BUILD, "fail_syscall")
    if os.path.exists(ready) and os.stat(ready).st_mtime >= os.stat(_SOURCE).st_mtime:
        return FailSyscall(ready)
    program = str(folder / "fail_syscall")
    subprocess.run(["cc", *_FLAGS, _SOURCE, "-o", program], check=True)
    return FailSyscall(program)
