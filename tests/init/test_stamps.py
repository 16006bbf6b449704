"""init writes when each op began into the memory it is given, and only then."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING

import pytest

from init.machine import NEWNS, op
from pyrunc.plan import numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from init.machine import Machine

ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
PLAN = [
    op("UMASK", 0o22),
    op("SETSID"),
    op("SYNC", numbers.SYNC["READY"]),
    op("SECCOMP", ALLOW_ALL, 0, 0, 0),
    op("DONE"),
]


@pytest.fixture
def memory() -> Iterator[int]:
    """A memfd with room for the plan."""
    fd = os.memfd_create("trace", 0)
    os.ftruncate(fd, 8 * len(PLAN))
    yield fd
    os.close(fd)


def stamps(fd: int) -> list[int]:
    """What stands in it."""
    return list(struct.unpack(f"={len(PLAN)}Q", os.pread(fd, 8 * len(PLAN), 0)))


@pytest.mark.root
def test_each_op_has_its_time(machine: Machine, memory: int) -> None:
    """In order, by the real-time clock; none behind a filter, which could kill for asking."""
    before = time.time_ns()
    assert machine.run(PLAN, unshare=NEWNS, trace=memory).status == 0
    found = stamps(memory)
    assert before < found[0] <= found[1] <= found[2] < found[3] < time.time_ns()
    assert found[4] == 0


@pytest.mark.root
def test_an_op_that_waits_for_the_parent(machine: Machine, memory: int) -> None:
    """The next one begins when the parent has answered."""
    with machine.start(PLAN, trace=memory) as running:
        assert running.receive() is not None
        asked = time.time_ns()
        assert stamps(memory)[3] == 0
        running.go()
        running.serve()
        assert running.wait().status == 0
    assert stamps(memory)[2] < asked < stamps(memory)[3]


@pytest.mark.root
def test_without_room_nothing_is_done(machine: Machine, memory: int) -> None:
    """A file that is too short would be a SIGBUS later."""
    os.ftruncate(memory, 8 * len(PLAN) - 1)
    error = machine.run(PLAN, trace=memory).failed()
    assert (error.step, error.text) == ("plan", "no room for the time of each op")
