"""init treats its plan as hostile: whatever the bytes are, it ends with an error about the plan, never by a signal."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from init.machine import NEWIPC, NEWNET, NEWNS, NEWPID, NEWUTS, mount_bind, mount_new, op
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from init.machine import Machine

EVERYTHING = NEWNS | NEWPID | NEWUTS | NEWIPC | NEWNET
SEED = 20240601


@pytest.fixture
def hardened(sanitized: Machine) -> Machine:
    """Hostile bytes always meet the sanitizers."""
    return sanitized


def every_field() -> list[wire.Op]:
    """Ops with every kind of field, none of which could hurt when a mutation lets it run."""
    return [
        op("RLIMIT", 4, 0, 0),
        op("PROC_SELF", "no/such/file", "value"),
        mount_new("/a", "nosuchfs", params=["a=b", "c"], attrs=1, steps=[1, 2, 3]),
        mount_bind("/a", "/no/such/source", steps=[1, 2]),
        op("REMOUNT", "/no/such", 1, 2, 1, ["x", "y=z"], [4]),
        op("HOOK", "/no/such/hook", ["a", "b"], ["C=d"], b"\0\1\2", 5, 0, 2),
        op("SECCOMP", b"\0" * 16, 0, 0, 0),
        op("USER", 0, 0, [1, 2, 3], 0),
        op("MASKED_PATH", "/no/such/path", "label"),
        op("UMOUNT", "/no/such", ["/a", "b"], 1),
        op("TREE", "/no/such/source", 4),
        op("ADD_BEGIN"),
        op("ADD_END"),
        op("EXEC", ["/no/such/program", "a"], ["B=c"], 0),
    ]


def refused(machine: Machine, data: bytes) -> wire.Message:
    """A clean refusal before the first op."""
    error = machine.run(data, unshare=0).failed()
    assert error.step == "plan", error.step
    assert error.errno == 0
    assert error.text
    return error


@pytest.mark.slow
def test_truncation_at_every_length(hardened: Machine) -> None:
    """The file ends early: at every single byte."""
    data = wire.encode([*every_field()[:4], op("DONE")])
    for size in range(0, len(data), 1 if len(data) < 600 else 3):
        assert refused(hardened, data[:size]).op == numbers.PLAN_NO_PATH


def test_truncation_with_a_matching_size(hardened: Machine) -> None:
    """The header admits the shorter size: then a record or a field ends early."""
    data = wire.encode([*every_field()[:4], op("DONE")])
    for size in range(numbers.PLAN_HEADER_SIZE, len(data), 4):
        refused(hardened, data[:8] + size.to_bytes(4, wire.ORDER) + data[12:size])


def test_header(hardened: Machine) -> None:
    """Each word of it is checked."""
    data = wire.encode([op("DONE")])
    for offset, width in ((0, 4), (4, 2), (6, 2), (8, 4), (12, 4), (16, 1)):
        for value in (0, 1, 0x7F, (1 << 8 * width) - 1):
            changed = data[:offset] + value.to_bytes(width, wire.ORDER) + data[offset + width :]
            if changed != data:
                refused(hardened, changed)


def record(number: int, body: bytes, size: int | None = None) -> bytes:
    """One record with any size."""
    body += bytes(-(12 + len(body)) % 8)
    stated = 12 + len(body) if size is None else size
    head = number.to_bytes(2, wire.ORDER) + b"\0\0" + stated.to_bytes(4, wire.ORDER) + b"\0" * 4
    return head + body


def whole(*records: bytes) -> bytes:
    """A plan of raw records and DONE."""
    empty = wire.encode([])
    done = record(numbers.OPS["DONE"][0], b"")
    body = b"".join(records) + done
    size, count = (
        (len(empty) + len(body)).to_bytes(4, wire.ORDER),
        (len(records) + 1).to_bytes(4, wire.ORDER),
    )
    return empty[:8] + size + count + empty[16:] + body


def number(value: int, width: int = 4) -> bytes:
    """Little or big, as the machine is."""
    return value.to_bytes(width, wire.ORDER)


def hostile_records() -> Iterator[tuple[str, bytes]]:
    """Lies that a single record can tell."""
    ops = {name: code for name, (code, _) in numbers.OPS.items()}
    for size in (0, 4, 11, 12, 13, 20, 1 << 20, 0xFFFFFFF8, 0xFFFFFFFF):
        yield f"size {size}", record(ops["HOSTNAME"], number(1) + b"a\0", size)
    for code in (0, 50, 63, 64, 1000, 0xFFFF):
        yield f"op {code}", record(code, b"")
    for length in (3, 100, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"string of {length}", record(ops["HOSTNAME"], number(length) + b"ab\0")
        yield (
            f"blob of {length + 100}",
            record(ops["SCHEDULER"], number((length + 100) & 0xFFFFFFFF) + b"ab\0"),
        )
    yield "string without NUL", record(ops["HOSTNAME"], number(8) + b"abcdefgh")
    yield "string with NUL inside", record(ops["HOSTNAME"], number(3) + b"a\0b\0")
    for count in (2, 1000, 0x10000000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF):
        yield f"list of {count}", record(ops["EXEC"], number(count) + number(0) + b"\0")
        yield f"numbers: {count}", record(ops["USER"], number(0) * 2 + number(count) + number(1))
    yield "bytes behind the fields", record(ops["SETSID"], b"\0" * 8)
    yield "padding that is not zero", record(ops["UMASK"], number(18) + b"\0\0\0\1\0\0\0\0")[:24]
    for fd in (0, 1, 2, 100, 0x80000000, 0xFFFFFFFE):
        yield f"descriptor {fd}", record(ops["SETNS"], number(fd) + number(0))
    for first in (0, 1, 2, 101, 1000, 0xFFFFFFFF):
        yield f"close from {first}", record(ops["CLOSE_FROM"], number(first))


@pytest.mark.parametrize(
    ("name", "raw"), list(hostile_records()), ids=[name for name, _ in hostile_records()]
)
def test_lies_of_a_record(hardened: Machine, name: str, raw: bytes) -> None:
    """CVE-2021-43784: sizes, counts, descriptors and numbers that do not fit are refused before anything is done."""
    refused(hardened, whole(record(numbers.OPS["HOSTNAME"][0], number(70) + b"x" * 70 + b"\0"), raw))


def test_a_plan_without_an_end(hardened: Machine) -> None:
    """The last op must be one that ends or waits."""
    refused(hardened, wire.encode([]))
    refused(hardened, wire.encode([op("SETSID")]))


def test_another_version(hardened: Machine) -> None:
    """A runtime and an init of different installations do not work together."""
    data = wire.encode([op("DONE")])
    error = refused(hardened, data[:16] + b"0.0.other".ljust(32, b"\0") + data[48:])
    assert "version" in error.text


@pytest.mark.slow
def test_random_mutations(hardened: Machine) -> None:
    """Bytes changed at random: an error or the end of the plan, but no crash and no report of a sanitizer."""
    rng = random.Random(SEED)
    plan = wire.encode([*every_field(), op("DONE")])
    rounds = int(os.environ.get("PYRUNC_FUZZ_ROUNDS", "150"))
    for round_number in range(rounds):
        data = bytearray(plan)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        result = hardened.run(bytes(data), unshare=EVERYTHING)
        assert result.exit_code in (0, 1), f"round {round_number}: {result.exit_code}: {result.out}"
        assert result.out == "", f"round {round_number}: {result.out}"


def test_wrong_arguments(machine: Machine, tmp_path: Path) -> None:
    """Without a socket there is nobody to tell: exit code 2."""
    for argv in (
        [],
        ["1"],
        ["a", "b"],
        ["1", "-2"],
        ["1", "99999999999"],
        ["1", "2", "x"],
        ["1", "2", "3", "4"],
        ["", ""],
    ):
        assert os.waitstatus_to_exitcode(os.spawnv(os.P_WAIT, machine.program, ["init", *argv]) << 8) == 2
