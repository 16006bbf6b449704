"""plan/wire.py against csrc/plan.h, its single source: numbers, layout, round trips, and hostile bytes."""

from __future__ import annotations

import os
import random
import re

import pytest

import support
from pyrunc import __version__
from pyrunc.errors import ConfigError, InternalError
from pyrunc.plan import wire

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


def header() -> str:
    """plan.h without comments and continuations."""
    with open(os.path.join(support.PROJECT, "csrc/plan.h"), encoding="utf-8") as stream:
        text = re.sub(r"/\*.*?\*/", " ", stream.read().replace("\\\n", " "), flags=re.DOTALL)
    return re.sub(r"[ \t]+", " ", text)


HEADER = header()


def table(name: str) -> str:
    """The entries of an X-macro."""
    found = re.search(rf"#define {name}\(X\)(.*)", HEADER)
    assert found, name
    return found.group(1)


def constant(name: str) -> int:
    """The value of a #define, or of an enumerator with a value."""
    found = re.search(rf"#define {name} (.*)", HEADER) or re.search(rf"\b{name} = ([^,}}]*)", HEADER)
    assert found, name
    text = re.sub(r"(?<=[0-9a-fA-F])u\b", "", found.group(1)).strip(" ()")
    left, _, shift = text.partition("<<")
    return int(left, 0) << (int(shift, 0) if shift else 0)


def test_ops_equal_the_header() -> None:
    """Every op has the same number, name and payload on both sides, and no number is used twice."""
    entries = re.findall(r'X\((\d+), (\w+), "(\w*)"\)', table("PLAN_OPS"))
    assert len(entries) == table("PLAN_OPS").count("X(")
    assert {name: (int(number), letters) for number, name, letters in entries} == wire.OPS
    assert len({number for number, _, _ in entries}) == len(entries)


def test_steps_equal_the_header() -> None:
    """The steps are numbered without holes, and their names are the header's in small letters."""
    entries = re.findall(r"X\((\d+), (\w+)\)", table("PLAN_STEPS"))
    assert [int(number) for number, _ in entries] == list(range(len(entries)))
    assert tuple(name.lower() for _, name in entries) == wire.STEPS


def test_sync_codes_equal_the_header() -> None:
    """The sync protocol's codes are equal on both sides."""
    entries = re.findall(r"X\((\d+), (\w+)\)", table("SYNC_CODES"))
    assert {name: int(number) for number, name in entries} == wire.SYNC


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("MAGIC", "PLAN_MAGIC"),
        ("FORMAT", "PLAN_FORMAT"),
        ("MAX_SIZE", "PLAN_MAX_SIZE"),
        ("NO_PATH", "PLAN_NO_PATH"),
        ("SYNC_GO", "SYNC_GO"),
        ("FLAG_KERNEL_TEXT", "SYNC_FLAG_KERNEL_TEXT"),
        ("FLAG_HOOK_OUTPUT", "SYNC_FLAG_HOOK_OUTPUT"),
    ],
)
def test_single_numbers_equal_the_header(ours: str, theirs: str) -> None:
    """Numbers that have another name in C."""
    assert getattr(wire, ours) == constant(theirs)


def test_flags_equal_the_header() -> None:
    """Every flag of the header is known here under the same name, and the other way round."""
    pattern = r"\b((?:MOUNT|DEVICE)_FLAG_\w+|PIVOT_[A-Z]+)\b"
    names = set(re.findall(pattern, HEADER))
    ours = {name for name in vars(wire) if re.fullmatch(pattern, name)}
    assert ours == names
    for name in names:
        assert getattr(wire, name) == constant(name), name


def test_hook_kinds_equal_the_header() -> None:
    """The hook kinds have the spec's names, in the header's order."""
    kinds = re.findall(r"HOOK_([A-Z_]+) = (\d+)", HEADER)
    in_camel_case = [re.sub(r"_(\w)", lambda m: m.group(1).upper(), name.lower()) for name, _ in kinds]
    assert [int(number) for _, number in kinds] == list(range(len(kinds)))
    assert tuple(in_camel_case) == wire.HOOK_KINDS


def _size(struct: str) -> int:
    """The size of a struct of the header: its fields are naturally aligned, in order, without holes."""
    found = re.search(rf"struct {struct} {{(.*?)}};", HEADER, flags=re.DOTALL)
    assert found, struct
    sizes = {"uint16_t": 2, "uint32_t": 4, "int32_t": 4, "uint64_t": 8, "int64_t": 8, "char": 1}
    total = 0
    for kind, count in re.findall(r"(\w+) \w+(?:\[(\d+)\])?;", found.group(1)):
        assert total % sizes[kind] == 0, "a hole, which C would fill"
        total += sizes[kind] * int(count or 1)
    return total


def test_layout_equals_the_header() -> None:
    """Header, record head and sync message have the sizes that plan/wire.py reckons with."""
    assert _size("plan_header") == wire.HEADER_SIZE
    assert _size("plan_record") == 12
    assert _size("sync_message") == wire.SYNC_SIZE


def sample(name: str, turn: int) -> wire.Op:
    """An op with one of the awkward values in each field."""
    letters = wire.OPS[name][1]
    return wire.Op(
        name, *[VALUES[letter][(turn + i) % len(VALUES[letter])] for i, letter in enumerate(letters)]
    )


@pytest.mark.parametrize("name", wire.OPS)
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
    assert data[:4] == wire.MAGIC.to_bytes(4, "little") if data[:4] == b"PYRC" else True
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
        wire.encode([wire.Op("SCHEDULER", bytes(wire.MAX_SIZE))])


PLAN = wire.encode([sample(name, turn) for turn, name in enumerate(wire.OPS)])


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
    data[wire.HEADER_SIZE + 12 : wire.HEADER_SIZE + 16] = b"\xff\xff\xff\x7f"
    with pytest.raises(InternalError):
        wire.decode(bytes(data))


def test_message_of_init() -> None:
    """A sync message is read field by field; negative numbers stay negative."""
    words = (wire.SYNC["ERROR"], 3, 3, wire.STEPS.index("move_mount"), 2, wire.FLAG_KERNEL_TEXT)
    data = b"".join(word.to_bytes(4, "little") for word in words) + (-5).to_bytes(8, "little", signed=True)
    data += b"the argument \xff".ljust(wire.SYNC_SIZE - wire.TEXT_OFFSET, b"\0")
    message = wire.message(data)
    assert (message.code, message.op, message.path) == (wire.SYNC["ERROR"], 3, 3)
    assert (message.step, message.errno, message.flags) == ("move_mount", 2, wire.FLAG_KERNEL_TEXT)
    assert (message.value, message.text) == (-5, "the argument \udcff")


@pytest.mark.parametrize("size", [0, 1, wire.SYNC_SIZE - 1, wire.SYNC_SIZE + 1])
def test_message_of_another_size_is_refused(size: int) -> None:
    """The protocol has one message size; a stranger's bytes are refused."""
    with pytest.raises(InternalError):
        wire.message(bytes(size))
