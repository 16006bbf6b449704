"""PURE: the resources of `update`: from its options, completed by the stored ones, and what is stored afterwards.

The units are those of linux.resources, config-linux.md; sizes in options may have runc's suffixes (k, kb, kib, ...,
powers of 1024).
"""

from __future__ import annotations

from pyrunc.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

    from pyrunc.spec.shapes import Resources

    Table = dict[str, object]

_UNITS = "bkmgtp"
_UINT64 = (1 << 64) - 1
_INT64 = (1 << 63) - 1
# Leading zeros and a long fraction included.
_MOST_DIGITS = 100

# option -> (section, member, kind): an unsigned number, a signed one, a size in bytes or -1, or as it is.
_OPTIONS = {
    "blkio-weight": ("blockIO", "weight", "count"),
    "cpu-period": ("cpu", "period", "unsigned"),
    "cpu-quota": ("cpu", "quota", "signed"),
    "cpu-burst": ("cpu", "burst", "unsigned"),
    "cpu-share": ("cpu", "shares", "unsigned"),
    "cpu-rt-period": ("cpu", "realtimePeriod", "unsigned"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", "signed"),
    "cpu-idle": ("cpu", "idle", "signed"),
    "cpuset-cpus": ("cpu", "cpus", "text"),
    "cpuset-mems": ("cpu", "mems", "text"),
    "memory": ("memory", "limit", "size"),
    "memory-reservation": ("memory", "reservation", "size"),
    "memory-swap": ("memory", "swap", "size"),
    "pids-limit": ("pids", "limit", "count"),
}
# Without effect since Linux 5.16, which has no limit for kernel memory alone; callers still pass them.
WITHOUT_EFFECT = ("kernel-memory", "kernel-memory-tcp")

# Members whose value 0 or "" means "leave unchanged": nothing is stored for them.
_UNSET_BY_ZERO = {
    "blockIO": ("weight", "leafWeight"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"),
    "memory": ("limit", "reservation", "swap", "kernel", "kernelTCP"),
    "network": ("classID",),
}
# The members that identify an entry of a list.
_IDENTITY = {"hugepageLimits": ("pageSize",), "blockIO": ("major", "minor"), "network": ("name",)}


def _refused(option: str, what: str, hint: str | None = None) -> UsageError:
    return UsageError(f"invalid value for {option}: {what}", hint=hint)


def _is_number(digits: str) -> bool:
    """Return whether int() takes the text; it refuses more than a few thousand digits."""
    return digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS


def _integer(option: str, text: str, low: int, high: int) -> int:
    digits = text.removeprefix("-")
    if not (_is_number(digits) and low <= int(text) <= high):
        raise _refused(option, f"parsing '{text}'", f"give a whole number from {low} to {high}")
    return int(text)


def size(option: str, text: str) -> int:
    """Return `text` in bytes: digits, optionally a fraction and a unit such as k, MB or GiB; -1 stays -1.

    Raise UsageError, which names `option`, if it is not a size.
    """
    if text == "-1":
        return -1
    number = text.rstrip("bBkKmMgGtTpPiI")
    unit = text[len(number) :].lower() or "b"
    number = number.removesuffix(" ")
    whole, dot, fraction = number.partition(".")
    good = (
        unit in (unit[0], f"{unit[0]}b", f"{unit[0]}ib") and unit not in ("bb", "bib") and unit[0] in _UNITS
    )
    for part in (whole, fraction) if dot else (whole,):
        good = good and _is_number(part)
    factor = 1 << 10 * max(_UNITS.find(unit[0]), 0)
    if not good or int(whole) * factor > _INT64:
        raise _refused(option, f"invalid size: '{text}'", "give bytes, or a number with k, m or g")
    return int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)


def _value(option: str, kind: str, given: object) -> object:
    if not isinstance(given, str) or kind == "text":
        return given
    if kind == "size":
        return size(option, given)
    return _integer(option, given, *((0, _UINT64) if kind == "unsigned" else (-_INT64 - 1, _INT64)))


def from_options(given: Mapping[str, object]) -> tuple[Resources, dict[str, str]]:
    """Return (resources, JSON path -> option) of the options that are given. Raise UsageError if one is invalid.

    An empty text counts as not given. pids-limit 0 is the limit 0: config-linux.md says "treated as such".
    """
    wanted: dict[str, Table] = {}
    names: dict[str, str] = {}
    for option, (section, member, kind) in _OPTIONS.items():
        if option in given and given[option] != "":
            wanted.setdefault(section, {})[member] = _value(option, kind, given[option])
            names[f"$.{section}.{member}"] = f"--{option}"
    return wanted, names  # type: ignore[return-value]  # runtime.update checks the form


def _section(resources: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = resources.get(name)
    return found if isinstance(found, dict) else {}


def complete(wanted: Mapping[str, object], stored: Mapping[str, object]) -> tuple[Table, dict[str, str]]:
    """Complete `wanted` by the `stored` values that it depends on.

    Return it, and for each value added its JSON path -> the path that needs it. On v2 quota and period are one file,
    and swap is counted without memory. Once asked for, the check of a memory limit is repeated.
    """
    full: Table = dict(wanted)
    stands_for: dict[str, str] = {}
    cpu, before = _section(wanted, "cpu"), _section(stored, "cpu")
    if cpu.get("period") and not cpu.get("quota") and before.get("quota"):
        full["cpu"] = {**cpu, "quota": before["quota"]}
        stands_for["$.cpu.quota"] = "$.cpu.period"
    elif cpu.get("quota") and not cpu.get("period") and before.get("period"):
        # With a quota of -1 systemd sets its own default period.
        full["cpu"] = {**cpu, "period": before["period"]}
        stands_for["$.cpu.period"] = "$.cpu.quota"
    memory, before = _section(wanted, "memory"), _section(stored, "memory")
    if memory.get("swap") not in (None, 0, -1) and not memory.get("limit") and before.get("limit"):
        full["memory"] = {**memory, "limit": before["limit"]}
        stands_for["$.memory.limit"] = "$.memory.swap"
    elif memory.get("limit") and "checkBeforeUpdate" not in memory and before.get("checkBeforeUpdate"):
        full["memory"] = {**memory, "checkBeforeUpdate": True}
    return full, stands_for


def _is_table(value: object) -> TypeGuard[list[Table]]:
    """Return whether it is an array of objects: a member that is not in the schema may be anything."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _merged_list(before: object, items: list[Table], identity: tuple[str, ...]) -> list[object]:
    """Return `before`, with `items` replacing the entries of the same identity member by member, or appended."""
    kept: dict[str, Table] = {}
    for item in [*(before if _is_table(before) else ()), *items]:
        kept.setdefault(repr([item.get(name) for name in identity]), {}).update(item)
    return list(kept.values())


def _merged_section(name: str, before: Mapping[str, object], wanted: Mapping[str, object]) -> Table:
    merged = dict(before)
    for member, value in wanted.items():
        if isinstance(value, list) and name in _IDENTITY and _is_table(value):
            merged[member] = _merged_list(before.get(member), value, _IDENTITY[name])
        elif isinstance(value, dict):
            merged[member] = {**_section(before, member), **value}
        elif value not in (0, "") or member not in _UNSET_BY_ZERO.get(name, ()):
            merged[member] = value
    if name == "memory" and wanted.get("limit") == -1 and not wanted.get("swap") and "swap" in merged:
        merged["swap"] = -1
    if name == "cpu" and "idle" in wanted and not wanted.get("shares"):
        merged.pop("shares", None)  # the kernel resets them
    return merged


def merge(stored: Mapping[str, object], wanted: Mapping[str, object]) -> Table:
    """Return `stored` after the update `wanted`; device rules stay as they are."""
    merged: Table = dict(stored)
    for name, value in wanted.items():
        if name in _IDENTITY and _is_table(value):
            merged[name] = _merged_list(stored.get(name), value, _IDENTITY[name])
        elif isinstance(value, dict):
            merged[name] = _merged_section(name, _section(stored, name), value)
    return merged
