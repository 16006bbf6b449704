"""Plans and messages as bytes: round trips, and hostile bytes."""

from __future__ import annotations

import random

import pytest

from pyrunc import __version__
from pyrunc.errors import ConfigError, InternalError
from pyrunc.plan import numbers, wire

# One value for every payload letter, awkward ones included.
VALUES: dict[str, tuple[wire.Field, ...]] = {
    "u": (0, 1, 0xFFFFFFFF),
    "q": (0, 1 << 40, (1 << 64) - 1),
    "f": (-1, 0, 7),
    "s": ("", "a", "straße/\udcff", "x" * 4099),
    "b": (b"", b"\0\1\2", b"7" * 1000),
    "l": ([], ["a"], ["", "b c", "d\ne"]),
    "v": ([], [5], [0, 1, 4294967295]),
}


def sample(name: str, turn: int) -> wire.Op:
    """An op with one of the awkward values in each field."""
    letters = numbers.OPS[name][1]
    return wire.Op(
        name, *[VALUES[letter][(turn + i) % len(VALUES[letter])] for i, letter in enumerate(letters)]
    )


@pytest.mark.parametrize("name", numbers.OPS)
def test_each_op_survives_the_wire(name: str) -> None:
    """What was encoded is what comes out again, with the path that belongs to it."""
    ops = [sample(name, turn) for turn in range(4)]
    paths = [f"$.x[{i}]" for i in range(4)]
    back = wire.decode(wire.encode(ops), paths)
    assert [(op.name, op.fields) for op in back] == [(op.name, op.fields) for op in ops]
    assert [op.path for op in back] == paths


def test_header_holds_version_and_sizes() -> None:
    """The plan starts with magic, format, sizes, count, and the version that init compares."""
    data = wire.encode([wire.Op("SETSID")])
    assert data[:4] == numbers.PLAN_MAGIC.to_bytes(4, "little") if data[:4] == b"PYRC" else True
    assert int.from_bytes(data[8:12], "little") == len(data)
    assert int.from_bytes(data[12:16], "little") == 1
    assert data[16:48].rstrip(b"\0").decode() == __version__


def test_every_record_starts_on_eight_bytes() -> None:
    """init maps the plan: a record that is not aligned would be undefined behaviour in C."""
    for length in range(20):
        assert len(wire.encode([wire.Op("HOSTNAME", "x" * length)])) % 8 == 0


def test_placeholders_become_numbers() -> None:
    """A field that names a file descriptor is sent as the number that launch opened."""
    place = wire.Fd("fifo")
    (back,) = wire.decode(wire.encode([wire.Op("START_WAIT", place)], {place: 9}))
    assert back.fields == (9,)


@pytest.mark.parametrize(
    "op",
    [
        wire.Op("HOSTNAME", "a\0b"),
        wire.Op("HOSTNAME", 5),
        wire.Op("HOSTNAME"),
        wire.Op("SETSID", 1),
        wire.Op("UMASK", "18"),
        wire.Op("SECCOMP", "text", 0, 0),
        wire.Op("EXEC", ["a"], "b", 0),
    ],
    ids=repr,
)
def test_wrong_fields_are_refused(op: wire.Op) -> None:
    """A field that does not fit its letter is our mistake, found before anything runs."""
    with pytest.raises(InternalError):
        wire.encode([op])


def test_too_large_plan_is_refused() -> None:
    """A plan over the limit is refused here, not by init."""
    with pytest.raises(ConfigError, match="16 MiB are the most"):
        wire.encode([wire.Op("SCHEDULER", bytes(numbers.PLAN_MAX_SIZE))])


PLAN = wire.encode([sample(name, turn) for turn, name in enumerate(numbers.OPS)])


def test_every_truncation_is_refused() -> None:
    """A plan cut anywhere is never read as a shorter plan."""
    small = wire.encode([wire.Op("EXEC", ["sh", "-c"], ["A=b"], 0), wire.Op("HOSTNAME", "x")])
    for length in range(len(small)):
        with pytest.raises(InternalError):
            wire.decode(small[:length])


def test_one_more_byte_is_refused() -> None:
    """Bytes behind the last record are refused."""
    with pytest.raises(InternalError):
        wire.decode(PLAN + b"\0")


def test_flipped_bits_never_surprise() -> None:
    """Damaged plans are read or refused with InternalError; no other exception, no endless loop."""
    chance = random.Random(1)
    refused = 0
    for _ in range(2000):
        data = bytearray(PLAN)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            wire.decode(bytes(data))
        except InternalError:
            refused += 1
    assert refused > 100


def test_huge_counts_are_refused_at_once() -> None:
    """A count larger than the record can hold is refused before anything of that size is made."""
    data = bytearray(wire.encode([wire.Op("EXEC", ["a"], ["b"], 0)]))
    data[numbers.PLAN_HEADER_SIZE + 12 : numbers.PLAN_HEADER_SIZE + 16] = b"\xff\xff\xff\x7f"
    with pytest.raises(InternalError):
        wire.decode(bytes(data))


def test_message_of_init() -> None:
    """A sync message is read field by field; negative numbers stay negative."""
    words = (
        numbers.SYNC["ERROR"],
        3,
        3,
        numbers.STEPS.index("move_mount"),
        2,
        numbers.SYNC_FLAG_KERNEL_TEXT,
    )
    data = b"".join(word.to_bytes(4, "little") for word in words) + (-5).to_bytes(8, "little", signed=True)
    data += b"the argument \xff".ljust(numbers.SYNC_MESSAGE_SIZE - numbers.SYNC_MESSAGE_TEXT, b"\0")
    message = wire.message(data)
    assert (message.code, message.op, message.path) == (numbers.SYNC["ERROR"], 3, 3)
    assert (message.step, message.errno, message.flags) == ("move_mount", 2, numbers.SYNC_FLAG_KERNEL_TEXT)
    assert (message.value, message.text) == (-5, "the argument \udcff")


@pytest.mark.parametrize("size", [0, 1, numbers.SYNC_MESSAGE_SIZE - 1, numbers.SYNC_MESSAGE_SIZE + 1])
def test_message_of_another_size_is_refused(size: int) -> None:
    """The protocol has one message size; a stranger's bytes are refused."""
    with pytest.raises(InternalError):
        wire.message(bytes(size))
