"""PURE: the document of `events` about a container's resource usage, made from the texts of cgroup files.

Keys, their order, and which are left out if 0 are those of runc, as its readers (go-runc) expect. Times are in
nanoseconds; "no limit" is 2^64-1, for pids 0.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Json = dict[str, object]
    Files = Mapping[str, str]
    Entries = list[Json]

UNLIMITED = (1 << 64) - 1
_TICK = 10_000_000  # ns: USER_HZ is 100 on every architecture. proc(5)
_CPUSET_FLAGS = (
    *("cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page"),
    *("memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level"),
)
# Key, and the name after blkio.bfq., blkio. or blkio.throttle. on v1.
_BLKIO = (
    ("ioServiceBytesRecursive", "io_service_bytes"),
    ("ioServicedRecursive", "io_serviced"),
    ("ioQueueRecursive", "io_queued"),
    ("ioServiceTimeRecursive", "io_service_time"),
    ("ioWaitTimeRecursive", "io_wait_time"),
    ("ioMergedRecursive", "io_merged"),
    ("ioTimeRecursive", "time"),
    ("sectorsRecursive", "sectors"),
)
_IO_STAT = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}
_NET_DEV = ("Bytes", "Packets", "Errors", "Dropped")


def _number(files: Files, name: str) -> int:
    text = files.get(name, "").strip()
    if text == "max":
        return UNLIMITED
    try:
        return min(max(int(text), -1), UNLIMITED)
    except ValueError:
        return 0


def _table(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.isdigit()]


def _list(text: str) -> list[int]:
    """ "0-2,5" as [0, 1, 2, 5]. cpuset(7), List format."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += range(int(first), int(last or first) + 1)
    return found


def _without_zeros(document: Json, *always: str) -> Json:
    return {key: value for key, value in document.items() if value or key in always}


def _psi(document: Json, files: Files, name: str) -> None:
    lines = [line.split() for line in files.get(name, "").splitlines() if line]
    if lines:
        zero: Json = {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}
        parts: Json = {"some": zero, "full": zero}
        for words in lines:
            pairs = (word.partition("=") for word in words[1:])
            parts[words[0]] = {key: _decimal(value) for key, _, value in pairs}
        document["psi"] = parts


def _decimal(text: str) -> int | float:
    value = float(text)
    return int(value) if value == int(value) else value


def _cpu(files: Files, version: int) -> Json:
    stat = _table(files.get("cpu.stat", ""))
    usage: Json
    if version == 2:
        usage = {
            "total": stat.get("usage_usec", 0) * 1000,
            "kernel": stat.get("system_usec", 0) * 1000,
            "user": stat.get("user_usec", 0) * 1000,
        }
        throttled = stat.get("throttled_usec", 0) * 1000
    else:
        split = _table(files.get("cpuacct.stat", ""))
        rows = [_numbers(line) for line in files.get("cpuacct.usage_all", "").splitlines()[1:]]
        usage = {
            "total": _number(files, "cpuacct.usage"),
            "percpu": _numbers(files.get("cpuacct.usage_percpu", "")),
            "percpu_kernel": [row[2] for row in rows if len(row) > 2],
            "percpu_user": [row[1] for row in rows if len(row) > 2],
            "kernel": split.get("system", 0) * _TICK,
            "user": split.get("user", 0) * _TICK,
        }
        throttled = stat.get("throttled_time", 0)
    throttling: Json = {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": throttled,
    }
    document: Json = {
        "usage": _without_zeros(usage, "kernel", "user"),
        "throttling": _without_zeros(throttling),
    }
    _psi(document, files, "cpu.pressure")
    return document


def _cpuset(files: Files, version: int) -> Json:
    if version == 2:
        files = {}  # the values of v2 have other meanings
    flags = {name: _number(files, f"cpuset.{name}") for name in _CPUSET_FLAGS}
    document: Json = {
        "cpus": _list(files.get("cpuset.cpus", "")),
        "cpu_exclusive": flags.pop("cpu_exclusive"),
        "mems": _list(files.get("cpuset.mems", "")),
        **flags,
    }
    return _without_zeros(document, *_CPUSET_FLAGS)


def _memory_entry(files: Files, name: str) -> dict[str, int]:
    return {
        "limit": _number(files, f"{name}.limit_in_bytes"),
        "usage": _number(files, f"{name}.usage_in_bytes"),
        "max": _number(files, f"{name}.max_usage_in_bytes"),
        "failcnt": _number(files, f"{name}.failcnt"),
    }


def _memory_entry_v2(files: Files, name: str) -> dict[str, int]:
    return {
        "limit": _number(files, f"{name}.max"),
        "usage": _number(files, f"{name}.current"),
        "max": _number(files, f"{name}.peak"),
        "failcnt": 0,
    }


def _memory(files: Files, version: int) -> Json:
    raw = _table(files.get("memory.stat", ""))
    if version == 2:
        entries = {
            "usage": _memory_entry_v2(files, "memory"),
            "swap": _memory_entry_v2(files, "memory.swap"),
        }
        swap = entries["swap"]
        # As on v1: memory and swap together, for which there is no peak. The same without swap accounting.
        swap["usage"] += entries["usage"]["usage"]
        swap["limit"] = min(swap["limit"] + entries["usage"]["limit"], UNLIMITED)
        swap["max"] = 0
        none = {"limit": 0, "usage": 0, "max": 0, "failcnt": 0}
        entries.update(kernel=none, kernelTCP=none)
    else:
        names = {"usage": "", "swap": ".memsw", "kernel": ".kmem", "kernelTCP": ".kmem.tcp"}
        entries = {key: _memory_entry(files, f"memory{part}") for key, part in names.items()}
    document: Json = {"cache": raw.get("file" if version == 2 else "cache", 0)}
    for key, entry in entries.items():
        document[key] = _without_zeros(dict(entry), "limit", "failcnt")
    document["raw"] = dict(sorted(raw.items()))
    document = _without_zeros(document)
    _psi(document, files, "memory.pressure")
    return document


def _pids(files: Files) -> Json:
    limit = _number(files, "pids.max")
    return _without_zeros(
        {"current": _number(files, "pids.current"), "limit": 0 if limit == UNLIMITED else limit}
    )


def _blkio_v1(text: str) -> Entries:
    entries: Entries = []
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) < 3 or not all(word.isdigit() for word in (words[0], words[1], words[-1])):
            continue
        entry: Json = {"major": int(words[0]), "minor": int(words[1])}
        entry["op"] = words[2] if len(words) == 4 else ""
        entry["value"] = int(words[-1])
        entries.append(_without_zeros(entry))
    return entries


def _blkio(files: Files, version: int) -> Json:
    found: dict[str, Entries] = {key: [] for key, _ in _BLKIO}
    if version == 2:
        for line in files.get("io.stat", "").splitlines():
            device, *pairs = line.split()
            major, _, minor = device.partition(":")
            for pair in pairs:
                name, _, value = pair.partition("=")
                if name in _IO_STAT and value.isdigit() and minor.isdigit():
                    key, op = _IO_STAT[name]
                    entry: Json = {"major": int(major), "minor": int(minor), "op": op, "value": int(value)}
                    found[key].append(_without_zeros(entry))
    else:
        # The scheduler with the most statistics comes first; throttling is used if no scheduler has any.
        for prefix, suffix in (
            ("bfq.", "_recursive"),
            ("", "_recursive"),
            ("throttle.", "_recursive"),
            ("throttle.", ""),
        ):
            for key, name in _BLKIO:
                found[key] = _blkio_v1(files.get(f"blkio.{prefix}{name}{suffix}", ""))
            if any(found.values()):
                break
    document = _without_zeros(dict(found))
    _psi(document, files, "io.pressure")
    return document


def _hugetlb(files: Files, version: int) -> Json:
    document: Json = {}
    current = "current" if version == 2 else "usage_in_bytes"
    for name in sorted(files):
        if name.startswith("hugetlb.") and name.endswith(f".{current}") and ".rsvd." not in name:
            size = name.removeprefix("hugetlb.").removesuffix(f".{current}")
            prefix = f"hugetlb.{size}.rsvd"
            if f"{prefix}.{current}" not in files:
                prefix = f"hugetlb.{size}"
            events = _table(files.get(f"hugetlb.{size}.events", ""))
            entry: Json = {
                "usage": _number(files, f"{prefix}.{current}"),
                "max": _number(files, f"{prefix}.max_usage_in_bytes"),
                "failcnt": events.get("max", 0) if version == 2 else _number(files, f"{prefix}.failcnt"),
            }
            document[size] = _without_zeros(entry, "failcnt")
    return document


def interfaces(text: str) -> Entries | None:
    """Return the network devices of a /proc/PID/net/dev except lo, None if there are none. proc_pid_net(5)."""
    found: Entries = []
    for line in text.splitlines()[2:]:
        name, _, values = line.partition(":")
        numbers = _numbers(values)
        if name.strip() != "lo" and len(numbers) >= 16:
            entry: Json = {"Name": name.strip()}
            entry.update({f"Rx{what}": value for what, value in zip(_NET_DEV, numbers, strict=False)})
            entry.update({f"Tx{what}": value for what, value in zip(_NET_DEV, numbers[8:], strict=False)})
            found.append(entry)
    return found or None


def document(files: Files, version: int, net_dev: str = "") -> Json:
    """Return the `data` of a stats event. `files`: name -> text, of all hierarchies; `version` of cgroups: 1 or 2."""
    return {
        "cpu": _cpu(files, version),
        "cpuset": _cpuset(files, version),
        "memory": _memory(files, version),
        "pids": _pids(files),
        "blkio": _blkio(files, version),
        "hugetlb": _hugetlb(files, version),
        "intel_rdt": {},
        "network_interfaces": interfaces(net_dev),
    }
