"""Device rules, by simulation: the v2 program by a BPF interpreter, the v1 lists by the controller's own rules.

Both are compared with what config-linux.md says: entries apply in order, so per access the last one that matches.
"""

from __future__ import annotations

import random
import sys
from itertools import product

import pytest

from pyrunc.cgroups import device_rules
from pyrunc.cgroups.device_rules import ANY, BLOCK, CHAR, MKNOD, READ, WRITE, Policy
from pyrunc.errors import ConfigError

Entry = dict[str, object]
LETTERS = {"r": READ, "w": WRITE, "m": MKNOD}


class Machine:
    """The part of eBPF that our programs may use. Anything else fails the test, as the verifier would fail it."""

    def __init__(self, program: bytes) -> None:
        assert len(program) % 8 == 0
        self.code = [program[at : at + 8] for at in range(0, len(program), 8)]

    @staticmethod
    def decode(word: bytes) -> tuple[int, int, int, int, int]:
        """(code, destination, source, offset, immediate). struct bpf_insn."""
        low, high = word[1] & 15, word[1] >> 4
        target, source = (low, high) if sys.byteorder == "little" else (high, low)
        offset = int.from_bytes(word[2:4], sys.byteorder, signed=True)
        return word[0], target, source, offset, int.from_bytes(word[4:8], sys.byteorder)

    def run(self, kind: int, access: int, major: int, minor: int) -> int:
        """r0 for one struct bpf_cgroup_dev_ctx."""
        context = b"".join(
            number.to_bytes(4, sys.byteorder) for number in (access << 16 | kind, major, minor)
        )
        registers: dict[int, int] = {1: -1}  # the pointer to the context
        at = 0
        while True:
            code, target, source, offset, value = self.decode(self.code[at])
            at += 1
            if code == 0x95:
                return registers[0]
            if code == 0x61:
                assert registers[source] == -1
                registers[target] = int.from_bytes(context[offset : offset + 4], sys.byteorder)
            elif code in (0x54, 0x74, 0xB4, 0xBC):
                old = registers.get(target, 0)
                assert old >= 0, "arithmetic on a pointer"
                registers[target] = {
                    0x54: old & value,
                    0x74: old >> value,
                    0xB4: value,
                    0xBC: registers.get(source, 0),
                }[code]
            else:
                taken = {0x16: registers[target] == value, 0x56: registers[target] != value}[code]
                assert offset >= 0, "a loop"
                at += offset if taken else 0


def specified(entries: list[Entry], kind: int, access: int, major: int, minor: int) -> bool:
    """Straight from the text: the answer for one single access bit."""
    allowed = False
    everything = [*entries, *DEFAULTS]
    for entry in everything:
        if entry.get("type", "a") == "a":
            # As the v1 controller has it, whatever else the entry says.
            allowed = entry["allow"] is True
            continue
        kinds = {"b": (BLOCK,), "c": (CHAR,)}[str(entry["type"])]
        wants = sum(LETTERS[letter] for letter in str(entry.get("access", "rwm")))
        if (
            kind in kinds
            and entry.get("major", major) == major
            and entry.get("minor", minor) == minor
            and wants & access
        ):
            allowed = entry["allow"] is True
    return allowed


def allow(kind: str = "a", major: int | None = None, minor: int | None = None, access: str = "rwm") -> Entry:
    entry: Entry = {"allow": True, "type": kind, "access": access}
    if major is not None:
        entry["major"] = major
    if minor is not None:
        entry["minor"] = minor
    return entry


def deny(kind: str = "a", major: int | None = None, minor: int | None = None, access: str = "rwm") -> Entry:
    return allow(kind, major, minor, access) | {"allow": False}


# features of every container, written as configuration entries
DEFAULTS = [
    allow("c", access="m"),
    allow("b", access="m"),
    *[allow("c", 1, minor) for minor in (3, 5, 7, 8, 9)],
    allow("c", 5, 0),
    allow("c", 5, 2),
    allow("c", 136),
    allow("c", 10, 200),
]
LISTS: dict[str, list[Entry]] = {
    "none": [],
    "denied, as engines begin": [deny()],
    "docker": [deny(), allow("c", 1, 5), allow("c", 1, 3), allow("c", 5, 1), deny("c", 10, 229)],
    "privileged": [{"allow": True, "access": "rwm"}],
    "privileged but one": [allow(), deny("c", 10, 229)],
    "split access": [deny(), allow("c", 10, 229, "r"), allow("c", 10, 229, "w"), deny("c", 10, 229, "r")],
    "partial wildcard": [deny(), allow("b", access="r"), allow("c", access="r")],
    "all with access": [deny(), allow("a", access="r")],
    "all with numbers": [allow(), deny("a", 1, 3), allow("c", 10, 229)],
    "only a major": [deny(), allow("b", 8)],
    "only a minor": [deny(), allow("b", None, 1, "rw")],
    "a default denied comes back": [deny(), deny("c", 1, 3)],
    "begun anew": [allow("c", 10, 229), deny(), allow("c", 10, 228), allow(), deny(), allow("b", 7, 0)],
}
DEVICES = list(
    product((BLOCK, CHAR), (MKNOD, READ, WRITE), (0, 1, 5, 7, 8, 10, 136), (0, 1, 2, 3, 200, 228, 229))
)


@pytest.mark.parametrize("name", LISTS)
def test_program_against_the_text(name: str) -> None:
    """For every device and access bit the program says what the list says."""
    entries = LISTS[name]
    machine = Machine(device_rules.program(device_rules.policy(entries)))
    for device in DEVICES:
        kind, access, major, minor = device
        wanted = specified(entries, kind, access, major, minor)
        assert machine.run(kind, access, major, minor) == int(wanted), device


def controller(lines: list[tuple[str, str, str]], kind: int, access: int, major: int, minor: int) -> bool:
    """The v1 devices controller: one behaviour for all, exceptions from it. security/device_cgroup.c."""
    behaviour = True
    exceptions: dict[tuple[str, str], set[str]] = {}
    for file, line, _ in lines:
        if line == "a":
            behaviour = file == "devices.allow"
            exceptions.clear()
            continue
        letter, numbers, access_letters = line.split(" ")
        found = exceptions.setdefault((letter, numbers), set())
        if (file == "devices.allow") != behaviour:
            found |= set(access_letters)
        else:
            found -= set(access_letters)
    for (letter, numbers), letters in exceptions.items():
        first, second = numbers.split(":")
        same = (
            (letter == "b") == (kind == BLOCK) and first in ("*", str(major)) and second in ("*", str(minor))
        )
        if same and any(LETTERS[one] & access for one in letters):
            return not behaviour
    return behaviour


@pytest.mark.parametrize("name", LISTS)
def test_lines_against_the_text(name: str) -> None:
    """The v1 list means the same, with one write per device at most."""
    entries = LISTS[name]
    lines = device_rules.v1_lines(device_rules.policy(entries))
    assert lines[0][1] == "a"
    devices = [line.rsplit(" ", 1)[0] for _, line, _ in lines]
    assert len(devices) == len(set(devices))
    for device in DEVICES:
        assert controller(lines, *device) == specified(entries, *device), device


def test_random_lists() -> None:
    """Thousands of lists, seeded: the program always agrees with the text, the v1 lines agree or are refused."""
    dice = random.Random(20)
    refused = 0
    for _ in range(300):
        entries: list[Entry] = []
        for _ in range(dice.randrange(8)):
            entry = dice.choice((allow, deny))(
                dice.choice("abc"),
                dice.choice((None, 1, 8)),
                dice.choice((None, 1, 3)),
                dice.choice(("r", "w", "m", "rw", "rwm", "wm")),
            )
            entries.append(entry)
        policy = device_rules.policy(entries)
        machine = Machine(device_rules.program(policy))
        try:
            lines = device_rules.v1_lines(policy)
        except ConfigError:
            lines = None
            refused += 1
        for device in product((BLOCK, CHAR), (MKNOD, READ, WRITE), (1, 8, 9), (1, 3, 4)):
            wanted = specified(entries, *device)
            assert machine.run(*device) == int(wanted), (entries, device)
            assert lines is None or controller(lines, *device) == wanted, (entries, device)
    assert 10 < refused < 250, "the lists should be of both kinds"


def test_all_is_all() -> None:
    """Type 'a' with numbers or some access means everything, as runc reads it, and is told of."""
    entries = [
        allow("a", 10, 200),
        deny("c", 1, 3),
        deny("a", access="w"),
        allow("c", 10, 229),
        deny("b", 8),
    ]
    policy = device_rules.policy(entries, "$.d")
    assert (policy.allow, policy.path) == (False, "$.d[2]")
    assert policy.widened == ["$.d[0]", "$.d[2]"]
    assert device_rules.policy([deny(), allow("c", 1, 3)]).widened == []


def test_several_accesses_at_once() -> None:
    """open(O_RDWR) asks for two: both must be allowed, whichever rules allow them."""
    machine = Machine(
        device_rules.program(
            device_rules.policy([deny(), allow("c", 10, None, "r"), allow("c", 10, 229, "w")])
        )
    )
    assert machine.run(CHAR, READ | WRITE, 10, 229) == 1
    assert machine.run(CHAR, READ | WRITE, 10, 228) == 0
    assert machine.run(CHAR, READ, 10, 228) == 1


def test_numbers_beyond_an_int() -> None:
    """A number that no device has must not be taken for one that some device has."""
    machine = Machine(
        device_rules.program(device_rules.policy([deny(), allow("b", 0xFFFFFFFF, 0xFFFFFFFE, "r")]))
    )
    assert machine.run(BLOCK, READ, 0xFFFFFFFF, 0xFFFFFFFE) == 1
    assert machine.run(BLOCK, READ, 0x7FFFFFFF, 0xFFFFFFFE) == 0


def test_program_has_one_end_only() -> None:
    """No jump leaves the program and the last instruction ends it."""
    machine = Machine(device_rules.program(device_rules.policy(LISTS["docker"])))
    for at, word in enumerate(machine.code):
        code, _, _, offset, _ = Machine.decode(word)
        if code in (0x16, 0x56):
            assert at + 1 + offset < len(machine.code)
    assert machine.code[-1][0] == 0x95


def test_lines_in_full() -> None:
    """What the kernel gets for the list that engines send; runc 1.1.5 leaves the same devices.list."""
    lines = device_rules.v1_lines(device_rules.policy([deny()]))
    assert [(file, line) for file, line, _ in lines] == [
        ("devices.deny", "a"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "c 1:3 rwm"),
        ("devices.allow", "c 1:8 rwm"),
        ("devices.allow", "c 1:7 rwm"),
        ("devices.allow", "c 5:0 rwm"),
        ("devices.allow", "c 1:5 rwm"),
        ("devices.allow", "c 1:9 rwm"),
        ("devices.allow", "c 136:* rwm"),
        ("devices.allow", "c 5:2 rwm"),
        ("devices.allow", "c 10:200 rwm"),
    ]


def test_paths_of_lines() -> None:
    """A write the kernel refuses can be traced to its entry."""
    lines = device_rules.v1_lines(device_rules.policy([deny(), allow("b", 8, 0)]))
    assert lines[0][2] == "$.linux.resources.devices[0]"
    assert ("devices.allow", "b 8:0 rwm", "$.linux.resources.devices[1]") in lines


def test_hole_in_a_wildcard() -> None:
    """v1 would silently ignore it."""
    policy = device_rules.policy([deny(), allow("c", 10), deny("c", 10, 229)])
    with pytest.raises(ConfigError) as caught:
        device_rules.v1_lines(policy)
    assert caught.value.path == "$.linux.resources.devices[2]"
    assert caught.value.message == "cgroup v1 cannot deny c 10:229 rwm inside the wider allow c 10:* rwm"
    assert Machine(device_rules.program(policy)).run(CHAR, READ, 10, 229) == 0


def test_negative_numbers_are_wildcards() -> None:
    """As in runc, where -1 stands for "not given"."""
    policy: Policy = device_rules.policy(
        [{"allow": True, "type": "c", "major": -1, "minor": -1, "access": "r"}]
    )
    assert (policy.rules[0].major, policy.rules[0].minor) == (ANY, ANY)
