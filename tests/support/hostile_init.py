"""Messages as a process that has taken init's place may send them, for dialogue.Dialogue; see fuzz().

python3 -c 'import hostile_init, random; hostile_init.fuzz(random.Random(1), 100000)'    # from tests/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import plan_specs as specs
from pyrunc.errors import ContainerError
from pyrunc.launch.dialogue import Dialogue, OutOfTurnError, turns
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

_MAX = (1 << 32) - 1


def encode(
    code: int,
    op: int = 0,
    *,
    step: int = 0,
    error: int = 0,
    flags: int = 0,
    value: int = 0,
    text: bytes = b"",
) -> bytes:
    """A struct sync_message."""
    words = (code, op, op, step, error & _MAX, flags)
    head = b"".join([(word & _MAX).to_bytes(4, wire.ORDER) for word in words])
    return head + (value & (1 << 64) - 1).to_bytes(8, wire.ORDER) + text[:480].ljust(480, b"\0")


def plans() -> list[Sequence[wire.Op]]:
    """Plans with every kind of message: exec, create in a pod, in a user namespace, with a terminal and a listener."""
    listener = specs.Filter(notify=True)
    return [
        specs.enter(specs.process(terminal=True), specs.userns(), seccomp=specs.Filter()).ops,
        specs.enter(specs.process(), specs.docker_like(), seccomp=listener).ops,
        specs.create(specs.joined(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS, seccomp=listener).ops,
        specs.create(specs.userns(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS).ops,
        specs.create(specs.terminal(), specs.V2_HOST).ops,
    ]


def _number(chance: random.Random, near: int) -> int:
    return chance.choice((near, near + 1, near - 1, 0, 1, _MAX, 1 << 31, chance.getrandbits(32)))


def _hostile(chance: random.Random, dialogue: Dialogue) -> tuple[bytes, int]:
    """Bytes and a number of descriptors: mostly close to what is due."""
    due, name = dialogue.turns[dialogue.place] if dialogue.next else (len(dialogue.ops), "ERROR")
    data = encode(
        chance.choice((numbers.SYNC[name], *numbers.SYNC.values(), _number(chance, 10))),
        _number(chance, due),
        step=chance.choice((chance.randrange(len(numbers.STEPS)), _number(chance, len(numbers.STEPS)))),
        error=_number(chance, chance.randrange(140)),
        flags=chance.choice((0, 1, 2, 3, chance.getrandbits(32))),
        value=chance.choice((1, chance.getrandbits(64), chance.randrange(1 << 23), 0, -1)),
        text=chance.choice((b"", chance.randbytes(480), b"\x1b]0;x\x07\n", b"/proc/1/root", b"\xff" * 480)),
    )
    if chance.random() < 0.1:
        data = chance.choice((data[:-1], data + b"\0", b"", chance.randbytes(chance.randrange(1024))))
    return data, chance.choice((0, 0, 0, 1, 1, 2, 5))


def _honest(chance: random.Random, dialogue: Dialogue) -> tuple[bytes, int]:
    index, name = dialogue.turns[dialogue.place]
    value = chance.randrange(1, 1 << 22)
    return encode(numbers.SYNC[name], index, value=value), 1 if name in ("CONSOLE", "SECCOMP") else 0


def converse(chance: random.Random, ops: Sequence[wire.Op]) -> int:
    """One conversation to its end, its number of messages. What was taken is what the plan says, once, in order."""
    dialogue, expected = Dialogue(ops), turns(ops)
    taken: list[str] = []
    honest, heard = chance.random(), 0
    for _ in range(200):
        message, fds = (
            _honest(chance, dialogue)
            if dialogue.next and chance.random() < honest
            else _hostile(chance, dialogue)
        )
        heard += 1
        was_over = dialogue.ended
        try:
            name, said = dialogue.hear(message, fds)
        except OutOfTurnError:
            assert dialogue.ended
            break
        assert not was_over
        assert len(message) == numbers.SYNC_MESSAGE_SIZE
        if name in ("ERROR", "WARNING"):
            words = dialogue.words(said)
            assert isinstance(words, ContainerError)
            assert str(words)
            assert fds == 0
        else:
            assert (said.op, name) == expected[len(taken)]
            assert fds == (1 if name in ("CONSOLE", "SECCOMP") else 0)
            assert name != "FORKED" or 0 < said.value <= 1 << 22
            taken.append(name)
    assert taken == [name for _, name in expected[: len(taken)]]
    return heard


def fuzz(chance: random.Random, conversations: int) -> int:
    """Many of them; the number of messages. Nothing but OutOfTurnError is ever raised."""
    known = plans()
    return sum(converse(chance, chance.choice(known)) for _ in range(conversations))
