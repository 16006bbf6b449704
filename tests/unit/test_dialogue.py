"""What init may say, and when: everything else ends the dialogue."""

from __future__ import annotations

import errno

import pytest

import hostile_init as hostile
import plan_specs as specs
import rounds
from pyrunc.launch import failures
from pyrunc.launch.dialogue import Dialogue, OutOfTurnError, turns
from pyrunc.plan import numbers, wire

EXEC = specs.enter(
    specs.process(terminal=True), specs.docker_like(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS
).ops
FORK = next(index for index, op in enumerate(EXEC) if op.name == "FORK")


def place(name: str) -> int:
    return next(index for index, op in enumerate(EXEC) if op.name == name)


def behind_fork() -> Dialogue:
    """Where a process of the container may speak."""
    dialogue = Dialogue(EXEC)
    for index, name in dialogue.turns:
        dialogue.hear(hostile.encode(numbers.SYNC[name], index, value=7), 1 if name == "CONSOLE" else 0)
        if name == "FORKED":
            return dialogue
    raise AssertionError


def test_the_turns_of_exec() -> None:
    """In the plan's order, each once."""
    assert [name for _, name in turns(EXEC)] == ["CGROUP", "CONSOLE", "FORKED", "READY"]


def test_an_honest_init() -> None:
    """Warnings between, no error, nothing left in the end."""
    dialogue = Dialogue(EXEC)
    assert dialogue.next == "CGROUP"
    dialogue.hear(hostile.encode(numbers.SYNC["CGROUP"], place("SYNC")), 0)
    dialogue.hear(hostile.encode(numbers.SYNC["CONSOLE"], place("CONSOLE")), 1)
    name, said = dialogue.hear(hostile.encode(numbers.SYNC["WARNING"], place("CAPSET"), step=29, error=1), 0)
    assert (name, dialogue.next) == ("WARNING", "FORKED") and "capset" in str(dialogue.words(said))
    dialogue.hear(hostile.encode(numbers.SYNC["FORKED"], FORK, value=4242), 0)
    dialogue.hear(hostile.encode(numbers.SYNC["READY"], len(EXEC) - 2), 0)
    assert dialogue.next == "" and not dialogue.ended
    _, said = dialogue.hear(
        hostile.encode(numbers.SYNC["ERROR"], len(EXEC) - 1, step=34, error=errno.ENOENT, text=b"/bin/x"), 0
    )
    assert 'exec: "/bin/x"' in str(dialogue.words(said)) and dialogue.ended


@pytest.mark.parametrize(
    ("name", "op", "value", "fds"),
    [
        ("FORKED", FORK, 1, 0),  # a second one
        ("READY", FORK, 0, 0),
        ("READY", len(EXEC) - 2, 0, 1),
        ("CONSOLE", place("CONSOLE"), 0, 1),
        ("SECCOMP", FORK + 1, 0, 1),
        ("MAPS", FORK + 1, 0, 0),
        ("ENV", FORK + 1, 0, 0),
        ("CGROUP", place("SYNC"), 0, 0),
        ("WARNING", place("CAPSET"), 0, 0),
        ("WARNING", FORK + 1, 0, 0),
        ("ERROR", 0, 0, 0),
        ("ERROR", place("CAPSET"), 0, 0),
        ("ERROR", numbers.PLAN_NO_PATH, 0, 0),
        ("ERROR", len(EXEC), 0, 0),
        ("ERROR", FORK + 1, 0, 1),
    ],
)
def test_behind_fork_nothing_else(name: str, op: int, value: int, fds: int) -> None:
    """One step too early or too late, twice, or with a descriptor."""
    dialogue = behind_fork()
    with pytest.raises(OutOfTurnError, match="init does not follow its plan"):
        dialogue.hear(hostile.encode(numbers.SYNC[name], op, value=value), fds)
    with pytest.raises(OutOfTurnError, match="behind its last one"):
        dialogue.hear(hostile.encode(numbers.SYNC["READY"], len(EXEC) - 2), 0)


@pytest.mark.parametrize("pid", [0, -1, 1 << 22 | 1, -(1 << 63)])
def test_no_process_has_that_number(pid: int) -> None:
    """pid 0 and negative ones mean other things to kill(2) and waitpid(2)."""
    dialogue = Dialogue(EXEC)
    dialogue.hear(hostile.encode(numbers.SYNC["CGROUP"], place("SYNC")), 0)
    dialogue.hear(hostile.encode(numbers.SYNC["CONSOLE"], place("CONSOLE")), 1)
    with pytest.raises(OutOfTurnError, match=f"process {pid}"):
        dialogue.hear(hostile.encode(numbers.SYNC["FORKED"], FORK, value=pid), 0)


def test_warnings_end() -> None:
    """Each is kept until the end, so there are not any number of them."""
    dialogue = Dialogue(EXEC)
    dialogue.hear(hostile.encode(numbers.SYNC["CGROUP"], place("SYNC")), 0)
    dialogue.hear(hostile.encode(numbers.SYNC["CONSOLE"], place("CONSOLE")), 1)
    with pytest.raises(OutOfTurnError, match="warning 67"):
        for _ in range(100):
            dialogue.hear(hostile.encode(numbers.SYNC["WARNING"], place("CAPSET")), 0)


@pytest.mark.parametrize("data", [b"", b"x", bytes(511), bytes(513), bytes(512), b"\xff" * 512])
def test_no_message(data: bytes) -> None:
    """Sizes and codes that there are not."""
    with pytest.raises(OutOfTurnError):
        Dialogue(EXEC).hear(data, 0)


def test_steps_that_the_op_does_not_have() -> None:
    """A failure is told in words that belong to another op: said to be what it is, and no fault of ours."""
    for step in range(len(numbers.STEPS) + 2):
        dialogue = behind_fork()
        _, said = dialogue.hear(
            hostile.encode(numbers.SYNC["ERROR"], FORK + 1, step=step, error=-(1 << 31)), 0
        )
        assert str(dialogue.words(said))


def test_every_step_of_every_op() -> None:
    """What a report says of an op that cannot say it is told, and no fault of ours."""
    for op in [op for ops in hostile.plans() for op in ops]:
        for step in (*numbers.STEPS, "step 99"):
            for error in (0, 2, -1, 1 << 30):
                message = wire.Message(1, 0, 0, step, error, 3 | 77 << 16, -(1 << 63), "\x1b[2J")
                assert str(failures.explain_op(op, message))


def test_hostile_conversations() -> None:
    """Any bytes in any order: what is taken is a beginning of the plan's own turns."""
    chance = rounds.chance()
    heard = 0
    for _ in rounds.loop(40):
        heard += hostile.fuzz(chance, 50)
    assert heard > 2000
