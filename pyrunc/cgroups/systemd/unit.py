"""PURE: a container as a systemd unit: its name and place, `linux.resources` and annotations as its properties.

Source: systemd.slice(5), systemd.scope(5), systemd.resource-control(5), org.freedesktop.systemd1(5), systemd.unit(5).
"""

from __future__ import annotations

from pyrunc.cgroups import device_rules
from pyrunc.cgroups.systemd import variants
from pyrunc.errors import ConfigError
from pyrunc.json_text.path import member
from pyrunc.spec import number_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyrunc.cgroups.resources import Write

    Property = tuple[str, str, object]  # name, D-Bus signature, value

_PATH = "$.linux.cgroupsPath"
ANNOTATION = "org.systemd.property."
_UNLIMITED = (1 << 64) - 1
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_UNIT_CHARACTERS = frozenset(_LETTERS + "0123456789:-_.\\@")
_PROPERTY_CHARACTERS = frozenset(_LETTERS + "0123456789")
_LONGEST = 255
DEFAULT_PERIOD = 100_000
# As many as kernels support; a larger number would make a string of any length.
_MOST_CPUS = 8192
# The version of systemd that added a property; before it the value goes to the cgroup file system only.
_SINCE_QUOTA_PERIOD, _SINCE_CPUSET, _SINCE_IDLE, _SINCE_OOM_POLICY = 242, 244, 252, 253
# Names that a cgroup directory may not have; systemd's cgroup-util.c escapes them with "_".
_CONTROLLERS = (
    "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids", "bpf-firewall", "bpf-devices",
    "bpf-foreign", "bpf-socket-bind", "bpf-restrict-network-interfaces",
)  # fmt: skip


class Unit:
    """`name` of the unit and the `slice` it is in; `directory` is its cgroup below the manager's own."""

    __slots__ = ("name", "slice")

    def __init__(self, slice_name: str, name: str) -> None:
        self.slice = slice_name
        self.name = name

    @property
    def directory(self) -> str:
        """Return the path relative, without a slash at either end."""
        return f"{expand_slice(self.slice)}/{_escaped(self.name)}".strip("/")


def _escaped(name: str) -> str:
    reserved = name.startswith(("_", ".", "cgroup.", *[f"{controller}." for controller in _CONTROLLERS]))
    return f"_{name}" if reserved else name


def expand_slice(name: str) -> str:
    """Return a slice's directory: `a-b.slice` is in `a.slice`, at /a.slice/a-b.slice; `-.slice` is the root, "".

    Raise ConfigError. systemd.slice(5).
    """
    stem = name.removesuffix(".slice")
    if stem == "-":
        return ""
    names = stem.split("-")
    if stem == name or "" in names or not _UNIT_CHARACTERS.issuperset(name):
        raise ConfigError(
            f"invalid slice name: '{name}'",
            path=_PATH,
            hint="a slice ends in .slice; dashes separate the slices it is in",
        )
    return "".join([f"/{'-'.join(names[: count + 1])}.slice" for count in range(len(names))])


def of(cgroups_path: str, container_id: str, *, rootless: bool) -> Unit:
    """Return the unit for a cgroupsPath `slice:prefix:name`, or for none. Raise ConfigError."""
    slice_name = "user.slice" if rootless else "system.slice"
    if not cgroups_path:
        # The only character of a container id that a unit name cannot have.
        return Unit(slice_name, f"runc-{container_id}.scope".replace("+", "\\x2b"))
    parts = cgroups_path.split(":")
    if len(parts) != 3:
        raise ConfigError(
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f'got "{cgroups_path}" instead',
            path=_PATH,
            hint="leave out --systemd-cgroup to use a path",
        )
    if parts[2].endswith(".slice"):
        raise ConfigError(
            f"'{parts[2]}' would be a slice, and systemd puts no process into one",
            path=_PATH,
            hint="the last part names a scope; the slice it is in is the first part",
        )
    found = Unit(parts[0] or slice_name, f"{parts[1]}-{parts[2]}.scope")
    if not _UNIT_CHARACTERS.issuperset(found.name) or len(found.name) > _LONGEST:
        raise ConfigError(
            f"invalid unit name: '{found.name}'",
            path=_PATH,
            hint=f"letters, digits and any of : - _ . \\ @, {_LONGEST} of them",
        )
    expand_slice(found.slice)
    return found


# --- Annotations ------------------------------------------------------------------------------------------------------


# What an engine's user may set: resources of the unit, when and how it ends, and its order among units that start or
# stop. Not allowed is what starts another unit (Wants=poweroff.target) or stops one, runs a program or loads one into
# the kernel, acts on the host (SuccessAction), allows devices, or moves the unit and its processes away from where the
# engine has put them (Slice, PIDs, Delegate, User).
_ALLOWED = frozenset(
    {
        *("Description", "Documentation", "CollectMode", "DefaultDependencies", "IgnoreOnIsolate"),
        *("After", "Before", "PartOf", "Requisite", "StopWhenUnneeded"),
        *("TimeoutStopUSec", "RuntimeMaxUSec", "RuntimeRandomizedExtraUSec"),
        *(
            "KillMode",
            "KillSignal",
            "FinalKillSignal",
            "RestartKillSignal",
            "WatchdogSignal",
            "SendSIGHUP",
            "SendSIGKILL",
        ),
        *("OOMPolicy", "ManagedOOMSwap", "ManagedOOMMemoryPressure", "ManagedOOMMemoryPressureLimit"),
        *("ManagedOOMMemoryPressureDurationUSec", "ManagedOOMPreference"),
        *("CPUAccounting", "CPUShares", "StartupCPUShares", "CPUWeight", "StartupCPUWeight"),
        *("CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"),
        *("AllowedCPUs", "StartupAllowedCPUs", "AllowedMemoryNodes", "StartupAllowedMemoryNodes"),
        *("MemoryAccounting", "MemoryLimit", "MemoryPressureWatch", "MemoryPressureThresholdUSec"),
        *("MemoryZSwapWriteback", "DefaultMemoryMin", "DefaultMemoryLow"),
        *(
            f"{moment}Memory{kind}{scale}"
            for moment in ("", "Startup")
            for kind in ("Min", "Low", "High", "Max", "SwapMax", "ZSwapMax")
            for scale in ("", "Scale")
        ),
        *("TasksAccounting", "TasksMax", "TasksMaxScale"),
        *("IOAccounting", "IOWeight", "StartupIOWeight", "IODeviceWeight", "IODeviceLatencyTargetUSec"),
        *("IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"),
        *("BlockIOAccounting", "BlockIOWeight", "StartupBlockIOWeight", "BlockIODeviceWeight"),
        *("BlockIOReadBandwidth", "BlockIOWriteBandwidth", "IPAccounting", "IPAddressDeny"),
    }
)


def _in_microseconds(signature: str, value: object, path: str) -> int:
    if signature not in variants.NUMBERS or not isinstance(value, (int, float)) or not 0 <= value < 1 << 44:
        raise ConfigError(f"value parse error: must be a number of seconds, got {value!r}", path=path)
    return int(value * 1_000_000)


def from_annotations(annotations: Mapping[str, str]) -> list[Property]:
    """The properties of `org.systemd.property.NAME`; NAMESec in seconds becomes NAMEUSec. Raise ConfigError.

    systemd's documentation has TimeoutStopSec where its bus interface has TimeoutStopUSec. Only those of _ALLOWED are
    accepted: systemd obeys as root, and annotations come from users of engines.
    """
    found: list[Property] = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        name, path = key.removeprefix(ANNOTATION), member("$.annotations", key)
        if len(name) < 3 or not _PROPERTY_CHARACTERS.issuperset(name):
            raise ConfigError(f"'{name}' is no name of a property", path=path)
        seconds = name.endswith("Sec") and name[-4:-3].islower()
        if seconds:
            name = name.removesuffix("Sec") + "USec"
        if name not in _ALLOWED:
            raise ConfigError(
                f"the unit property '{name}' cannot be set by an annotation",
                path=path,
                hint="limits and weights of resources can, and when, how and in which order the unit ends",
            )
        signature, value = variants.parse(text, path)
        if seconds:
            signature, value = "t", _in_microseconds(signature, value, path)
        found.append((name, signature, value))
    return found


# --- Resources --------------------------------------------------------------------------------------------------------

_AMOUNTS = {
    "memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax", "memory.limit_in_bytes": "MemoryLimit",
}  # fmt: skip
_NUMBERS = {"cpu.shares": "CPUShares", "cpu.weight": "CPUWeight", "blkio.weight": "BlockIOWeight"}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_SUFFIXES = {"K": 10, "M": 20, "G": 30, "T": 40}


def _amount(text: str) -> int | None:
    """Return a number of the cgroup file system; None if it is not a number, which the kernel then reports."""
    if text in ("max", "-1"):
        return _UNLIMITED
    shift = _SUFFIXES.get(text[-1:].upper(), 0)
    digits = text[:-1] if shift else text
    return int(digits) << shift if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def set_bits(text: str) -> list[int] | None:
    """Return the bytes of a list such as "0-3,7", lowest first, none for "" (any); None if it is no list. cpuset(7)."""
    try:
        mask = number_list.mask(text)
    except ValueError:
        return None
    return list(mask.to_bytes((mask.bit_length() + 7) // 8, "little")) if mask < 1 << _MOST_CPUS else None


def _quota(files: Mapping[str, str], systemd: int, current: tuple[int, int]) -> list[Property]:
    """Return CPUQuotaPerSecUSec and CPUQuotaPeriodUSec; defaults are `current` (quota or -1, period)."""
    words = files.get("cpu.max", "").split()
    quota = words[0] if words else files.get("cpu.cfs_quota_us")
    period = words[1] if len(words) > 1 else files.get("cpu.cfs_period_us")
    if quota is None and period is None:
        return []
    found: list[Property] = []
    length = _amount(period) if period is not None else current[1]
    amount = _amount(quota) if quota is not None else current[0] if current[0] >= 0 else _UNLIMITED
    if not length or amount is None:
        return []
    if period is not None and systemd >= _SINCE_QUOTA_PERIOD:
        found.append(("CPUQuotaPeriodUSec", "t", length))
    if amount != _UNLIMITED:
        # systemd rounds down to a whole percentage; the quota must not become smaller than asked for.
        amount = -(-(amount * 1_000_000 // length) // 10_000) * 10_000
    found.append(("CPUQuotaPerSecUSec", "t", amount))
    return found


def _weights(files: Mapping[str, str], systemd: int) -> list[Property]:
    found: list[Property] = []
    for file, name in _NUMBERS.items():
        number = _amount(files.get(file, ""))
        if number is not None:
            found.append((name, "t", number))
    if files.get("cpu.idle") == "1" and systemd >= _SINCE_IDLE:
        # systemd's value for cpu.idle; a weight beside it would override it.
        found = [entry for entry in found if entry[0] != "CPUWeight"] + [("CPUWeight", "t", 0)]
    number = _amount(files.get("io.weight", "").removeprefix("default").strip())
    if number is not None:
        found.append(("IOWeight", "t", number))
    return found


def from_writes(writes: Sequence[Write], systemd: int, current: tuple[int, int]) -> list[Property]:
    """Return the unit's properties for writes to cgroup files: systemd writes these files too, and must write the same.

    `systemd` is its version, `current` the present CPU quota (-1: none) and period in microseconds. One table has the
    files of both cgroup versions and keys of `unified` for which systemd has a property.
    """
    files: dict[str, str] = {}
    for item in writes:
        # A value for one device ("8:0 100") is in the same file; systemd would need a device node for it.
        files.update({file: value.strip() for file, value in item.choices if ":" not in value})
    found: list[Property] = []
    for file, name in _AMOUNTS.items():
        amount = _amount(files.get(file, ""))
        if amount is not None:
            found.append((name, "t", amount))
    tasks = _amount(files.get("pids.max", ""))
    if tasks is not None:
        # systemd has no 0; with its one process the container may not fork either way.
        found.append(("TasksMax", "t", max(tasks, 1)))
    found += _weights(files, systemd) + _quota(files, systemd, current)
    for file, name in _SETS.items():
        bits = set_bits(files[file]) if file in files else None
        if bits is not None and systemd >= _SINCE_CPUSET:
            found.append((name, "ay", bits))
    return found


def at_start(writes: Sequence[Write], systemd: int) -> list[Property]:
    """Return the properties that can only be set when the unit is made."""
    for item in writes:
        if item.file == "memory.oom.group" and item.value in ("0", "1") and systemd >= _SINCE_OOM_POLICY:
            return [("OOMPolicy", "s", "kill" if item.value == "1" else "continue")]
    return []


# --- Devices ----------------------------------------------------------------------------------------------------------

_FREE: list[Property] = [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]


def _device(rule: device_rules.Rule, groups: Mapping[tuple[int, int], str]) -> str | None:
    """Return systemd's name for the devices of a rule, or None if there is none."""
    kind = "block" if rule.kind == device_rules.BLOCK else "char"
    if rule.major == device_rules.ANY:
        return f"{kind}-*" if rule.minor == device_rules.ANY else None
    if rule.minor != device_rules.ANY:
        return f"/dev/{kind}/{rule.major}:{rule.minor}"
    name = groups.get((rule.kind, rule.major), "")
    # With such a name systemd would allow devices that the rule does not.
    shared = sum(1 for (group, _), other in groups.items() if (group, other) == (rule.kind, name)) > 1
    return (
        f"{kind}-{name}"
        if name and not shared and name.isprintable() and not set(name) & set("*?[]\\ ")
        else None
    )


def from_devices(
    wanted: device_rules.Policy, groups: Mapping[tuple[int, int], str], version: int
) -> tuple[list[Property], list[str]]:
    """Return DevicePolicy and DeviceAllow for the rules, and which rules are missing. `groups` is /proc/devices.

    systemd has its own list, which it applies in addition to (v2) or instead of (v1) ours, also on every daemon-reload.
    If it cannot express the rules, it gets none on v2, as our program is enough; on v1 it gets those it can express,
    and the second list has the others. Raise ConfigError if v1 cannot express the rules either.
    """
    try:
        rules = device_rules.exceptions(wanted)
    except ConfigError:
        if version == 1:
            raise
        return list(_FREE), []
    entries: list[object] = []
    lost: list[str] = []
    for rule in rules:
        name = None if wanted.allow else _device(rule, groups)
        if name is None:
            lost.append(f"systemd cannot hold the device rule '{rule!r}'")
        else:
            entries.append([name, rule.letters])
    if (wanted.allow and not rules) or (version == 2 and lost):
        return list(_FREE), []
    return [
        ("DevicePolicy", "s", "strict"),
        ("DeviceAllow", "a(ss)", []),  # an empty one clears the list
        ("DeviceAllow", "a(ss)", entries),
    ], lost


def device_groups(text: str) -> dict[tuple[int, int], str]:
    """Return (BLOCK or CHAR, major) -> name, from the text of /proc/devices. proc(5)."""
    found: dict[tuple[int, int], str] = {}
    kind = device_rules.CHAR
    for line in text.split("\n"):
        if line.startswith("Block"):
            kind = device_rules.BLOCK
        number, _, name = line.strip().partition(" ")
        if number.isdigit() and name:
            found[(kind, int(number))] = name
    return found
