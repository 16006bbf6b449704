"""The runtime's end of the conversation with init, when somebody else holds the other one."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

import hostile_init as hostile
from pyrunc.launch import init as launch
from pyrunc.launch.dialogue import OutOfTurnError
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from collections.abc import Iterator

FORK = [wire.Op("FORK", -1, -1), wire.Op("DONE")]


def sleeper() -> int:
    """A child that waits for its end."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


@pytest.fixture
def child() -> Iterator[int]:
    """One that is ended and collected after the test, unless that was done."""
    pid = sleeper()
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def conversation(
    ops: list[wire.Op], pid: int, pid_space: tuple[int, int] | None = None
) -> tuple[launch.Init, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return launch.Init(ops, pid, os.pidfd_open(pid), ours, True, (-1, -1), pid_space), theirs


def said(ops: list[wire.Op], pid: int, value: int, pid_space: tuple[int, int] | None = None) -> str:
    """Why a FORKED of this value is not believed; nobody but `pid` is ended by it."""
    init, theirs = conversation(ops, pid, pid_space)
    with theirs:
        theirs.send(hostile.encode(numbers.SYNC["FORKED"], 0, value=value))
        with pytest.raises(OutOfTurnError) as caught:
            init.receive()
        init.abort()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return str(caught.value)


def test_a_process_that_is_no_child(child: int) -> None:
    """Any process of the host, ours above all."""
    assert "is no child of the runtime" in said(FORK, child, max(1, os.getppid()))


def test_a_child_of_another_container(child: int) -> None:
    """A child of ours, but not where the container is."""
    other = sleeper()
    assert "is not in the container's pid namespace" in said(FORK, child, other, (1, 2))
    assert os.waitpid(other, os.WNOHANG) == (0, 0)
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)


def test_init_itself(child: int) -> None:
    """It cannot go on for itself."""
    assert "pid namespace" in said(FORK, child, child)


def test_a_process_that_there_is_not(child: int) -> None:
    """The largest number there may be."""
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as stream:
        most = int(stream.read())
    assert f"there is no process {most}" in said(FORK, child, most)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_descriptors_that_nobody_asked_for(child: int, count: int) -> None:
    """They are closed, as many as there may be."""
    init, theirs = conversation([wire.Op("SYNC", numbers.SYNC["READY"]), wire.Op("DONE")], child)
    with theirs:
        message = hostile.encode(numbers.SYNC["READY"], 0)
        socket.send_fds(theirs, [message], [theirs.fileno()] * count)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OutOfTurnError):
            init.receive()
        assert len(os.listdir("/proc/self/fd")) == before
        init.abort()


def test_a_socket_that_is_closed_by_who_lives_on(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the messages is not the end of the process, and nobody waits for that without end."""
    monkeypatch.setattr(launch, "END_SECONDS", 0.2)
    init, theirs = conversation([wire.Op("SYNC", numbers.SYNC["READY"]), wire.Op("DONE")], child)
    theirs.close()
    assert init.receive() == ("", -1)
    assert "gone silent before the container was ready" in str(init.died())
    init.abort()
