"""The seccomp filter: what it forbids, who hears of it, and what init does behind it."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from init.machine import Machine, box, in_rootfs, op, shell
from pyrunc.plan import numbers

if TYPE_CHECKING:
    from pathlib import Path


def _forbid(call: str, error: int) -> bytes:
    """A filter under which one call fails."""
    block = struct.pack("=HBBI", 0x20, 0, 0, 0) + struct.pack("=HBBI", 0x15, 0, 1, os_call(call))
    return (
        block
        + struct.pack("=HBBI", 0x06, 0, 0, 0x50000 | error)
        + struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    )


def test_seccomp(machine: Machine, rootfs: Path) -> None:
    """The filter binds the program: a call that it refuses fails with its errno."""
    block = _forbid("mkdir", errno.EMLINK)
    plan = [*in_rootfs(rootfs), op("SECCOMP", block, 0, 0, 0), *shell("mkdir /x 2>&1 || true")]
    assert "Too many links" in machine.run(plan).ok()
    assert not (rootfs / "x").exists()
    broken = machine.run([op("SECCOMP", block[:-8], 0, 0, 0), op("DONE")]).failed()
    assert (broken.step, broken.errno) == ("seccomp", errno.EINVAL)


def os_call(name: str) -> int:
    """Numbers of x86_64."""
    return {"getcwd": 79, "mkdir": 83}[name]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64")
def test_seccomp_listener(machine: Machine, rootfs: Path) -> None:
    """NEW_LISTENER: the descriptor is sent and not left in the program."""
    allow = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    plan = [*box(rootfs), op("SECCOMP", allow, 8, 1, 0), *shell("ls /proc/self/fd")]
    with machine.start(plan) as running:
        result = running.serve()
        assert result.codes == ["SECCOMP"]
        assert "seccomp notify" in os.readlink(f"/proc/self/fd/{running.fds[0]}")
        assert running.wait().ok().split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("flags", "listener"), [(8, 0), (0, 1)])
def test_a_listener_that_is_not_sent(machine: Machine, flags: int, listener: int) -> None:
    """It would stay open where others see init; without the flag something else would be sent."""
    allow = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    refused = machine.run([op("SECCOMP", allow, flags, listener, 0), op("DONE")]).failed()
    assert (refused.step, refused.text) == ("plan", "SECCOMP's flags and its listener differ")


def test_working_directory_behind_a_filter(machine: Machine, rootfs: Path) -> None:
    """CHDIR_FILTERED: what was verified before the filter is not verified again, what was not still is."""
    first = op("CHDIR", "/tmp", numbers.CHDIR_TRY)
    again = op("CHDIR", "/tmp", numbers.CHDIR_FILTERED)
    (rootfs / "tmp").mkdir(exist_ok=True)
    forbid = [op("SECCOMP", _forbid("getcwd", errno.EPERM), 0, 0, 0)]
    assert machine.run([*in_rootfs(rootfs), first, *forbid, again, *shell("echo x")]).ok() == "x\n"
    error = machine.run([*in_rootfs(rootfs), *forbid, again, op("DONE")]).failed()
    assert (error.step, error.errno) == ("getcwd", errno.EPERM)
