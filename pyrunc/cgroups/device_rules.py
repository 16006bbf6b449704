"""PURE: `linux.resources.devices` -> lines for the v1 devices controller, or a program for v2 (BPF_CGROUP_DEVICE).

Source: runtime-spec config-linux.md "Allowed Device list"; Linux Documentation/admin-guide/cgroup-v1/devices.rst,
include/uapi/linux/bpf.h (struct bpf_cgroup_dev_ctx), Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import sys

from pyrunc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEVICES = "$.linux.resources.devices"
ANY = -1
MKNOD, READ, WRITE = 1, 2, 4
_BITS = {"m": MKNOD, "r": READ, "w": WRITE}
_ALL = MKNOD | READ | WRITE
BLOCK, CHAR = 1, 2  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_TYPES = {"b": BLOCK, "c": CHAR}

# Always allowed, whatever the list says, as in runc and crun: making nodes (not using them), the default devices,
# pseudo terminals, tun.
_DEFAULTS = (
    (CHAR, ANY, ANY, MKNOD),
    (BLOCK, ANY, ANY, MKNOD),
    (CHAR, 1, 3, _ALL),  # null
    (CHAR, 1, 8, _ALL),  # random
    (CHAR, 1, 7, _ALL),  # full
    (CHAR, 5, 0, _ALL),  # tty
    (CHAR, 1, 5, _ALL),  # zero
    (CHAR, 1, 9, _ALL),  # urandom
    (CHAR, 136, ANY, _ALL),  # pts
    (CHAR, 5, 2, _ALL),  # ptmx
    (CHAR, 10, 200, _ALL),  # tun
)


class Rule:
    """allow or deny `access` (MKNOD | READ | WRITE) to devices of `kind` (BLOCK, CHAR), numbers or ANY."""

    __slots__ = ("access", "allow", "kind", "major", "minor", "path")

    def __init__(
        self, kind: int, major: int, minor: int, access: int, allow: bool, path: str = DEVICES
    ) -> None:
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access
        self.allow = allow
        self.path = path

    def __repr__(self) -> str:
        return f"{'allow' if self.allow else 'deny'} {self.line()}"

    def line(self) -> str:
        """Return the rule as devices.allow and devices.deny read it."""
        numbers = ":".join(["*" if number == ANY else str(number) for number in (self.major, self.minor)])
        return f"{'b' if self.kind == BLOCK else 'c'} {numbers} {self.letters}"

    @property
    def letters(self) -> str:
        """Return the access as letters."""
        return "".join([letter for letter in "rwm" if self.access & _BITS[letter]])


class Policy:
    """The meaning of a list of rules: the answer for devices that no rule names, then rules; the last match wins.

    `widened` are the JSON paths of rules of type 'a' with numbers or access, which are ignored.
    """

    __slots__ = ("allow", "path", "rules", "widened")

    def __init__(self, allow: bool, rules: list[Rule], path: str) -> None:
        self.widened: list[str] = []
        self.allow = allow
        self.rules = rules
        self.path = path


def _device_number(entry: Mapping[str, object], key: str) -> int:
    value = entry.get(key)
    if value is None:
        return ANY
    assert isinstance(value, int)
    return value


def _access(entry: Mapping[str, object]) -> int:
    value = entry.get("access")
    if value is None:
        return _ALL
    assert isinstance(value, str)
    access = 0
    for letter in value:
        access |= _BITS[letter]
    return access


def policy(devices: Sequence[object], path: str = DEVICES) -> Policy:
    """Return the policy of the checked list with the default rules appended; for an empty list the default rules."""
    result = Policy(False, [], path)
    for index, entry in enumerate(devices):
        where = f"{path}[{index}]"
        assert isinstance(entry, dict)
        allow, kind = entry["allow"], entry.get("type") or "a"
        major, minor = _device_number(entry, "major"), _device_number(entry, "minor")
        access = _access(entry)
        if kind == "a":
            # All devices and all access, as for the v1 controller and runc: earlier rules no longer matter.
            widened = (
                result.widened if major == minor == ANY and access == _ALL else [*result.widened, where]
            )
            result = Policy(allow, [], where)
            result.widened = widened
        else:
            result.rules.append(Rule(_TYPES[kind], major, minor, access, allow, where))
    result.rules += [Rule(*numbers, True, path) for numbers in _DEFAULTS]
    return result


def _covers(outer: Rule, inner: Rule) -> bool:
    return (
        outer.kind == inner.kind and outer.major in (ANY, inner.major) and outer.minor in (ANY, inner.minor)
    )


def _overlap(a: Rule, b: Rule) -> bool:
    return (
        a.kind == b.kind
        and (ANY in (a.major, b.major) or a.major == b.major)
        and (ANY in (a.minor, b.minor) or a.minor == b.minor)
    )


def exceptions(wanted: Policy) -> list[Rule]:
    """Return the policy as exceptions from its answer for the rest, one per device.

    The v1 controller and systemd support nothing else. Raise ConfigError if the rules do not have such a form (an
    exception inside a wider exception, which the v1 controller would silently ignore).
    """
    found: list[Rule] = []
    for rule in wanted.rules:
        if rule.allow != wanted.allow:
            found.append(rule)
            continue
        kept = []
        for old in found:
            common = old.access & rule.access if _overlap(old, rule) else 0
            if common and not _covers(rule, old):
                raise ConfigError(
                    f"cgroup v1 cannot {rule!r} inside the wider {old!r}",
                    path=rule.path,
                    hint="name the devices one by one, or use a cgroup v2 host",
                )
            if old.access != common:
                kept.append(Rule(old.kind, old.major, old.minor, old.access & ~common, old.allow, old.path))
        found = kept
    # This saves more than writes: engines list the default devices themselves.
    merged: dict[tuple[int, int, int], Rule] = {}
    for rule in found:
        key = (rule.kind, rule.major, rule.minor)
        if key in merged:
            merged[key] = Rule(*key, merged[key].access | rule.access, rule.allow, merged[key].path)
        else:
            merged[key] = rule
    return list(merged.values())


def v1_lines(wanted: Policy) -> list[tuple[str, str, str]]:
    """(file, line, JSON path) in order: first the answer for everything, then the exceptions. Raise ConfigError."""
    opposite = "devices.deny" if wanted.allow else "devices.allow"
    default = "devices.allow" if wanted.allow else "devices.deny"
    lines = [(opposite, rule.line(), rule.path) for rule in exceptions(wanted)]
    return [(default, "a", wanted.path), *lines]


# BPF: operation codes (class | source | operation) of the few instructions in use.
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_AND, _SHIFT_RIGHT, _MOVE, _MOVE_REGISTER = 0x54, 0x74, 0xB4, 0xBC  # 32 bit: BPF_ALU
_JUMP_EQUAL, _JUMP_UNEQUAL = 0x16, 0x56  # 32 bit: BPF_JMP32
_EXIT = 0x95
_R0, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5
_ORDER = sys.byteorder


def _instruction(code: int, register: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    registers = register | source << 4 if _ORDER == "little" else register << 4 | source
    return (
        bytes((code, registers))
        + offset.to_bytes(2, _ORDER, signed=True)
        + (value & 0xFFFFFFFF).to_bytes(4, _ORDER)
    )


def _tests(rule: Rule) -> list[tuple[int, int]]:
    tests = [(_TYPE, rule.kind)]
    if rule.major != ANY:
        tests.append((_MAJOR, rule.major))
    if rule.minor != ANY:
        tests.append((_MINOR, rule.minor))
    return tests


def program(wanted: Policy) -> bytes:
    """struct bpf_insn[] that returns 1 (allow) or 0 for a struct bpf_cgroup_dev_ctx.

    The rules are checked from the last to the first. Each removes the bits it allows from the requested access, or
    denies if it names one that is left: for each bit the last rule that names it decides, as "in the listed order"
    in the specification demands.
    """
    blocks: list[bytes] = [
        _instruction(_LOAD_WORD, _WANTED, _CONTEXT, 0)  # access_type: access << 16 | type
        + _instruction(_MOVE_REGISTER, _TYPE, _WANTED)
        + _instruction(_AND, _TYPE, value=0xFFFF)
        + _instruction(_SHIFT_RIGHT, _WANTED, value=16)
        + _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4)
        + _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8)
    ]
    for rule in reversed(wanted.rules):
        if rule.allow:
            decide = [(_AND, _WANTED, _ALL & ~rule.access), (_JUMP_UNEQUAL, _WANTED, 0)]
            verdict = _instruction(_MOVE, _R0, value=1)
        else:
            decide = [(_MOVE_REGISTER, _R0, _WANTED), (_AND, _R0, rule.access), (_JUMP_EQUAL, _R0, 0)]
            verdict = _instruction(_MOVE, _R0, value=0)
        tests = _tests(rule)
        size = len(tests) + len(decide) + 2
        code = [
            _instruction(_JUMP_UNEQUAL, register, offset=size - at - 1, value=value)
            for at, (register, value) in enumerate(tests)
        ]
        for operation, register, value in decide:
            if operation == _MOVE_REGISTER:
                code.append(_instruction(operation, register, value))
            else:
                jump = 2 if operation in (_JUMP_EQUAL, _JUMP_UNEQUAL) else 0
                code.append(_instruction(operation, register, offset=jump, value=value))
        blocks.append(b"".join(code) + verdict + _instruction(_EXIT))
    blocks.append(_instruction(_MOVE, _R0, value=1 if wanted.allow else 0) + _instruction(_EXIT))
    return b"".join(blocks)
