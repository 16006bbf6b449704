"""PURE: `linux.resources` -> an ordered list of writes to cgroup files, for cgroup v1 and v2 from one table.

May be imported by the cgroups package and explain. Imports errors only. Devices are not here but in device_rules.
Source: runtime-spec config-linux.md "Control groups"; Linux Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Table = Mapping[str, object]
    Maker = Callable[[object, str, Table], list["Write"]]

RESOURCES = "$.linux.resources"
_UNSET_SWAPPINESS = (1 << 64) - 1


class Write:
    """One value for one controller.

    `choices` are (file, value) pairs of which the first existing file is written; `path` is the JSON path that asked.
    `optional`: no such file is no error. `again`: the kernel may refuse (EINVAL) until a later write of the list is
    done, so it is tried a second time. `below`: a file whose number must be smaller than `value`, else nothing may
    be written. `warning`: what is to be known of its effect.
    """

    __slots__ = ("again", "below", "choices", "controller", "optional", "path", "warning")

    def __init__(
        self,
        controller: str,
        path: str,
        *choices: tuple[str, str],
        optional: bool = False,
        again: bool = False,
        below: str = "",
        warning: str = "",
    ) -> None:
        self.controller = controller
        self.path = path
        self.choices = choices
        self.optional = optional
        self.again = again
        self.below = below
        self.warning = warning

    @property
    def file(self) -> str:
        """The file of first choice."""
        return self.choices[0][0]

    @property
    def value(self) -> str:
        """What the file of first choice gets."""
        return self.choices[0][1]

    def with_choice(self, file: str, value: str) -> Write:
        """The same for one file that exists, with another value, that the kernel may refuse at first."""
        return Write(self.controller, self.path, (file, value), again=True)

    def __repr__(self) -> str:
        return f"{self.path}: " + " or ".join([f"{file} = {value!r}" for file, value in self.choices])


def _number(value: object, path: str, low: int | None = None, high: int | None = None) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"must be a whole number, got {value!r}", path=path)
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"must be {span}, got {value}", path=path)
    return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"must be a string, got {value!r}", path=path)
    return value


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"must be true or false, got {value!r}", path=path)
    return value


def _table(value: object, path: str) -> Table:
    if not isinstance(value, dict):
        raise ConfigError(f"must be an object, got {value!r}", path=path)
    return value


def _given(table: Table, key: str, path: str) -> int:
    """A sibling's number, 0 when it is not there."""
    value = table.get(key)
    return 0 if value is None else _number(value, path.rpartition(".")[0] + "." + key)


def weight_from_shares(shares: int) -> int:
    """cpu.weight (1..10000) for cpu.shares (2..262144); 1024 shares, the default, are weight 100, the default.

    The quadratic curve through minimum, default and maximum that runc and crun use since 2025.
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    from math import ceil, log2

    exponent = log2(shares)
    return ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """io.weight (1..10000) for blkio.weight (10..1000), linearly."""
    return 1 + (weight - 10) * 9999 // 990


def refuse(what: str, *, harmless: object = 0, hint: str | None = None) -> Maker:
    """A maker for a value that this version of cgroups cannot express; `harmless` and 0 mean "leave alone"."""

    def make(value: object, path: str, _: Table) -> list[Write]:
        if value == harmless or value in (0, []):
            return []
        raise ConfigError(what, path=path, hint=hint)

    return make


def _nothing(_value: object, _path: str, _table: Table) -> list[Write]:
    return []


def _limit(controller: str, file: str, *, unlimited: str, again: bool = False) -> Maker:
    """A number of bytes: 0 leaves the file alone, -1 lifts the limit."""

    def make(value: object, path: str, _: Table) -> list[Write]:
        number = _number(value, path, -1)
        text = unlimited if number == -1 else str(number)
        return [Write(controller, path, (file, text), again=again)] if number else []

    return make


def _plain(
    controller: str, file: str, *, low: int | None = None, keep: int | None = 0, again: bool = False
) -> Maker:
    """A number written as it is; `keep` is the value that leaves the file alone."""

    def make(value: object, path: str, _: Table) -> list[Write]:
        number = _number(value, path, low)
        return [] if number == keep else [Write(controller, path, (file, str(number)), again=again)]

    return make


def _cpus(file: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        text = _text(value, path)
        return [Write("cpuset", path, (file, text))] if text else []

    return make


def _swap_checked(value: object, path: str, memory: Table) -> tuple[int, int]:
    """(swap, limit), checked against each other. config-linux.md: swap is "memory+Swap usage"."""
    swap = _number(value, path, -1)
    limit = _given(memory, "limit", path)
    if swap > 0 and limit == 0:
        raise ConfigError(
            "unable to set swap limit without memory limit", path=path, hint="set memory.limit as well"
        )
    if 0 < swap < limit:
        raise ConfigError(f"memory+swap limit should be >= memory limit, got {swap} < {limit}", path=path)
    return swap, limit


def _memory_limit_v1(value: object, path: str, memory: Table) -> list[Write]:
    limit = _number(value, path, -1)
    if limit == 0:
        return []
    # limit <= memsw must hold after each write: raising needs memsw first, lowering needs it last. Without looking at
    # the present values: try, and try again what was refused.
    writes = [Write("memory", path, ("memory.limit_in_bytes", str(limit)), again=True)]
    if limit == -1 and not _given(memory, "swap", path):
        writes.append(
            Write("memory", path, ("memory.memsw.limit_in_bytes", "-1"), optional=True, again=True)
        )
    return writes


def _memory_swap_v1(value: object, path: str, memory: Table) -> list[Write]:
    swap, _ = _swap_checked(value, path, memory)
    if swap == 0:
        return []
    return [
        Write("memory", path, ("memory.memsw.limit_in_bytes", str(swap)), again=True, optional=swap == -1),
    ]


def _memory_limit_v2(value: object, path: str, memory: Table) -> list[Write]:
    limit = _number(value, path, -1)
    if limit == 0:
        return []
    writes = []
    if limit == -1 and not _given(memory, "swap", path):
        writes.append(Write("memory", path, ("memory.swap.max", "max"), optional=True))
    below = "memory.current" if memory.get("checkBeforeUpdate") is True and limit > 0 else ""
    writes.append(Write("memory", path, ("memory.max", "max" if limit == -1 else str(limit)), below=below))
    return writes


def _memory_swap_v2(value: object, path: str, memory: Table) -> list[Write]:
    swap, limit = _swap_checked(value, path, memory)
    if swap == 0:
        return []
    text = "max" if swap == -1 else str(swap if limit == -1 else swap - limit)
    return [Write("memory", path, ("memory.swap.max", text), optional=text in ("max", "0"))]


def _swappiness_v1(value: object, path: str, _: Table) -> list[Write]:
    if value in (-1, _UNSET_SWAPPINESS):
        return []
    return [Write("memory", path, ("memory.swappiness", str(_number(value, path, 0, 100))))]


def _swappiness_v2(value: object, path: str, _: Table) -> list[Write]:
    if value in (-1, _UNSET_SWAPPINESS):
        return []
    raise ConfigError(
        "cgroup v2 has no swappiness per cgroup", path=path, hint="use memory.swap to bound swapping"
    )


def _kernel_v1(file: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        number = _number(value, path, -1)
        # config-linux.md: NOT RECOMMENDED. Linux takes the first and forgets it since 5.16, and may lose both.
        warning = "limits of kernel memory alone have no effect on kernels of today"
        return [Write("memory", path, (file, str(number)), optional=True, warning=warning)] if number else []

    return make


def _oom_killer_v1(value: object, path: str, _: Table) -> list[Write]:
    return [Write("memory", path, ("memory.oom_control", "1"))] if _flag(value, path) else []


def _hierarchy_v1(value: object, path: str, _: Table) -> list[Write]:
    return [Write("memory", path, ("memory.use_hierarchy", "1" if _flag(value, path) else "0"))]


def _hierarchy_v2(value: object, path: str, _: Table) -> list[Write]:
    if _flag(value, path):
        return []
    raise ConfigError("cgroup v2 always accounts for the whole hierarchy", path=path)


def _check_before_update(value: object, path: str, _: Table) -> list[Write]:
    # On v1 the kernel itself refuses a limit it cannot reclaim down to; on v2 memory.limit carries the check.
    _flag(value, path)
    return []


def _shares_v1(value: object, path: str, _: Table) -> list[Write]:
    shares = _number(value, path, 0)
    if shares == 0:
        return []
    # The kernel clamps silently, which would be a value applied other than the one asked for.
    if shares < 2:
        raise ConfigError(f"the minimum allowed cpu-shares is 2, got {shares}", path=path)
    if shares > 262_144:
        raise ConfigError(f"the maximum allowed cpu-shares is 262144, got {shares}", path=path)
    return [Write("cpu", path, ("cpu.shares", str(shares)))]


def _shares_v2(value: object, path: str, _: Table) -> list[Write]:
    shares = _number(value, path, 0)
    return [Write("cpu", path, ("cpu.weight", str(weight_from_shares(shares))))] if shares else []


def _not_idle_yet(value: object, path: str, cpu: Table) -> list[Write]:
    """Before shares: the kernel refuses shares of an idle group, so idleness ends first and begins last."""
    idle = _number(value, path, 0, 1)
    if idle and not _given(cpu, "shares", path):
        return []
    return [Write("cpu", path, ("cpu.idle", "0"), optional=not idle)]


def _idle(value: object, path: str, _: Table) -> list[Write]:
    return [Write("cpu", path, ("cpu.idle", "1"))] if _number(value, path, 0, 1) else []


def _burst_checked(value: object, path: str, cpu: Table) -> str:
    burst = _number(value, path, 0)
    quota = _given(cpu, "quota", path)
    if 0 < quota < burst:
        raise ConfigError(f"must not be above the quota, got {burst} > {quota}", path=path)
    return str(burst)


def _burst(file: str) -> Maker:
    def make(value: object, path: str, cpu: Table) -> list[Write]:
        text = _burst_checked(value, path, cpu)
        return [Write("cpu", path, (file, text), again=True, optional=text == "0")]

    return make


def _quota_v1(value: object, path: str, _: Table) -> list[Write]:
    quota = _number(value, path)
    return [Write("cpu", path, ("cpu.cfs_quota_us", str(max(quota, -1))), again=True)] if quota else []


def _quota_v2(value: object, path: str, cpu: Table) -> list[Write]:
    quota = _number(value, path)
    period = _given(cpu, "period", path)
    if quota == 0:
        return []
    text = str(quota) if quota > 0 else "max"
    # A lone number keeps the period that is set.
    return [Write("cpu", path, ("cpu.max", f"{text} {period}" if period else text), again=True)]


def _period_v2(value: object, path: str, cpu: Table) -> list[Write]:
    period = _number(value, path, 0)
    if period == 0 or _given(cpu, "quota", path):
        return []
    return [Write("cpu", path, ("cpu.max", f"max {period}"), again=True)]


def _pids(value: object, path: str, _: Table) -> list[Write]:
    limit = _number(value, path)
    # config-linux.md: 0 is a limit like any other; the init process is there already and it may not fork.
    return [Write("pids", path, ("pids.max", "max" if limit < 0 else str(limit)))]


def _weight(value: object, path: str) -> int:
    weight = _number(value, path, 0, 1000)
    if 0 < weight < 10:
        raise ConfigError(f"must be from 10 to 1000, got {weight}", path=path)
    return weight


def _weight_v1(value: object, path: str, _: Table) -> list[Write]:
    text = str(_weight(value, path))
    return [] if text == "0" else [Write("blkio", path, ("blkio.weight", text), ("blkio.bfq.weight", text))]


def _weight_v2(value: object, path: str, _: Table) -> list[Write]:
    weight = _weight(value, path)
    if weight == 0:
        return []
    return [Write("io", path, ("io.bfq.weight", str(weight)), ("io.weight", str(io_weight(weight))))]


def _leaf_weight_v1(value: object, path: str, _: Table) -> list[Write]:
    weight = _weight(value, path)
    return [Write("blkio", path, ("blkio.leaf_weight", str(weight)))] if weight else []


def _device(table: Table, path: str) -> str:
    for key in ("major", "minor"):
        if key not in table:
            raise ConfigError(f"'{key}' is missing", path=path)
    return f"{_number(table['major'], path + '.major', 0)}:{_number(table['minor'], path + '.minor', 0)}"


def _device_weights(value: object, path: str) -> tuple[str, int, int]:
    table = _table(value, path)
    if table.get("weight") is None and table.get("leafWeight") is None:
        raise ConfigError(
            "needs 'weight' or 'leafWeight' (config-linux.md: at least one MUST be given)", path=path
        )
    weight = _weight(table.get("weight") or 0, path + ".weight")
    return _device(table, path), weight, _weight(table.get("leafWeight") or 0, path + ".leafWeight")


def _weight_device_v1(value: object, path: str, _: Table) -> list[Write]:
    device, weight, leaf = _device_weights(value, path)
    writes = []
    if weight:
        text = f"{device} {weight}"
        choices = (("blkio.weight_device", text), ("blkio.bfq.weight_device", text))
        writes.append(Write("blkio", path + ".weight", *choices))
    if leaf:
        writes.append(Write("blkio", path + ".leafWeight", ("blkio.leaf_weight_device", f"{device} {leaf}")))
    return writes


def _weight_device_v2(value: object, path: str, _: Table) -> list[Write]:
    device, weight, leaf = _device_weights(value, path)
    if leaf:
        raise ConfigError("cgroup v2 has no leaf weights", path=path + ".leafWeight")
    if not weight:
        return []
    choices = (("io.bfq.weight", f"{device} {weight}"), ("io.weight", f"{device} {io_weight(weight)}"))
    return [Write("io", path + ".weight", *choices)]


def _throttle_v1(file: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        table = _table(value, path)
        rate = _number(table.get("rate"), path + ".rate", 0)
        return [Write("blkio", path, (f"blkio.throttle.{file}_device", f"{_device(table, path)} {rate}"))]

    return make


def _throttle_v2(key: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        table = _table(value, path)
        # 0 lifts the limit on v1; io.max calls that "max" and refuses 0.
        rate = _number(table.get("rate"), path + ".rate", 0) or "max"
        return [Write("io", path, ("io.max", f"{_device(table, path)} {key}={rate}"))]

    return make


def _page_size(value: object, path: str) -> str:
    text = _text(value, path)
    digits = text[:-2]
    if (
        text[-2:] not in ("KB", "MB", "GB")
        or not (digits.isascii() and digits.isdigit())
        or digits[0] == "0"
    ):
        raise ConfigError(f"must be a size such as '2MB' or '1GB', got {text!r}", path=path)
    return text


def _hugepages(suffix: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        table = _table(value, path)
        size = _page_size(table.get("pageSize"), path + ".pageSize")
        limit = str(_number(table.get("limit"), path + ".limit", 0))
        # Reservations are what makes a program fail early and cleanly; kernels before 5.7 only count page faults.
        return [
            Write("hugetlb", path, (f"hugetlb.{size}.{suffix}", limit)),
            Write("hugetlb", path, (f"hugetlb.{size}.rsvd.{suffix}", limit), optional=True),
        ]

    return make


def _class_id_v1(value: object, path: str, _: Table) -> list[Write]:
    number = _number(value, path, 0, 0xFFFFFFFF)
    return [Write("net_cls", path, ("net_cls.classid", str(number)))] if number else []


def _priority_v1(value: object, path: str, _: Table) -> list[Write]:
    table = _table(value, path)
    name = _text(table.get("name"), path + ".name")
    priority = _number(table.get("priority"), path + ".priority", 0, 0xFFFFFFFF)
    return [Write("net_prio", path, ("net_prio.ifpriomap", f"{name} {priority}"))]


def _rdma(value: object, path: str, _: Table) -> list[Write]:
    table = _table(value, path)
    words = [path[path.index("rdma['") + 6 : -2]]
    for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
        if table.get(key) is not None:
            words.append(f"{word}={_number(table[key], f'{path}.{key}', 0, 0xFFFFFFFF)}")
    if len(words) == 1:
        raise ConfigError(
            "needs 'hcaHandles' or 'hcaObjects' (config-linux.md: at least one MUST be given)", path=path
        )
    return [Write("rdma", path, ("rdma.max", " ".join(words)))]


def _unified_v2(value: object, path: str, _: Table) -> list[Write]:
    file = path[path.index("unified['") + 9 : -2]
    controller, dot, _rest = file.partition(".")
    if "/" in file:
        raise ConfigError(f"unified resource {file!r} must be a file name (no slashes)", path=path)
    if not dot or not controller:
        raise ConfigError(f"unified resource {file!r} must be in the form CONTROLLER.PARAMETER", path=path)
    return [Write(controller, path, (file, _text(value, path)))]


_NO_NETWORK = refuse("network limits not supported on cgroup v2", hint="use eBPF or nftables by cgroup path")
_NO_REALTIME = refuse("cgroup v2 has no realtime bandwidth per cgroup")
_NO_KERNEL = refuse("cannot set kernel memory with cgroup v2", harmless=-1, hint="memory.limit includes it")
_NO_UNIFIED = refuse("cannot use unified on cgroup v1", hint="unified needs a pure cgroup v2 host")

# One row per property: where it stands in `linux.resources` ([] = for each element, {} = for each value), what writes
# it on v1, what on v2. The order of the rows is the order of the writes.
TABLE: tuple[tuple[str, Maker, Maker], ...] = (
    ("pids.limit", _pids, _pids),
    ("memory.useHierarchy", _hierarchy_v1, _hierarchy_v2),
    ("memory.checkBeforeUpdate", _check_before_update, _check_before_update),
    # v2: first how much may be swapped out, then the limit that makes it so. v1: the limit first fits a new cgroup.
    ("memory.swap", _nothing, _memory_swap_v2),
    ("memory.limit", _memory_limit_v1, _memory_limit_v2),
    ("memory.swap", _memory_swap_v1, _nothing),
    (
        "memory.reservation",
        _limit("memory", "memory.soft_limit_in_bytes", unlimited="-1"),
        _limit("memory", "memory.low", unlimited="max"),
    ),
    ("memory.kernel", _kernel_v1("memory.kmem.limit_in_bytes"), _NO_KERNEL),
    ("memory.kernelTCP", _kernel_v1("memory.kmem.tcp.limit_in_bytes"), _NO_KERNEL),
    (
        "memory.disableOOMKiller",
        _oom_killer_v1,
        refuse("cannot disable OOM killer with cgroup v2", harmless=False),
    ),
    ("memory.swappiness", _swappiness_v1, _swappiness_v2),
    ("cpu.idle", _not_idle_yet, _not_idle_yet),
    ("cpu.shares", _shares_v1, _shares_v2),
    ("cpu.burst", _burst("cpu.cfs_burst_us"), _burst("cpu.max.burst")),
    ("cpu.period", _plain("cpu", "cpu.cfs_period_us", low=0, again=True), _period_v2),
    ("cpu.quota", _quota_v1, _quota_v2),
    ("cpu.idle", _idle, _idle),
    ("cpu.realtimePeriod", _plain("cpu", "cpu.rt_period_us", low=0, again=True), _NO_REALTIME),
    ("cpu.realtimeRuntime", _plain("cpu", "cpu.rt_runtime_us", again=True), _NO_REALTIME),
    ("cpu.cpus", _cpus("cpuset.cpus"), _cpus("cpuset.cpus")),
    ("cpu.mems", _cpus("cpuset.mems"), _cpus("cpuset.mems")),
    ("blockIO.weight", _weight_v1, _weight_v2),
    ("blockIO.leafWeight", _leaf_weight_v1, refuse("cgroup v2 has no leaf weights")),
    ("blockIO.weightDevice[]", _weight_device_v1, _weight_device_v2),
    ("blockIO.throttleReadBpsDevice[]", _throttle_v1("read_bps"), _throttle_v2("rbps")),
    ("blockIO.throttleWriteBpsDevice[]", _throttle_v1("write_bps"), _throttle_v2("wbps")),
    ("blockIO.throttleReadIOPSDevice[]", _throttle_v1("read_iops"), _throttle_v2("riops")),
    ("blockIO.throttleWriteIOPSDevice[]", _throttle_v1("write_iops"), _throttle_v2("wiops")),
    ("hugepageLimits[]", _hugepages("limit_in_bytes"), _hugepages("max")),
    ("rdma{}", _rdma, _rdma),
    ("network.classID", _class_id_v1, _NO_NETWORK),
    ("network.priorities[]", _priority_v1, _NO_NETWORK),
    ("unified{}", _NO_UNIFIED, _unified_v2),
)


def _values(resources: Table, key: str, path: str) -> Iterator[tuple[object, str, Table]]:
    """(value, its JSON path, the table it stands in) for a row's key; nothing where the configuration has none."""
    section, dot, name = key.rstrip("[]{}").rpartition(".")
    table, where = resources, path
    if dot:
        where = f"{path}.{section}"
        found = resources.get(section)
        if found is None:
            return
        table = _table(found, where)
    value = table.get(name)
    where = f"{where}.{name}"
    if value is None:
        return
    if key.endswith("[]"):
        if not isinstance(value, list):
            raise ConfigError(f"must be an array, got {value!r}", path=where)
        for index, item in enumerate(value):
            yield item, f"{where}[{index}]", table
    elif key.endswith("{}"):
        for name, item in _table(value, where).items():
            yield item, f"{where}['{name}']", table
    else:
        yield value, where, table


def plan_writes(resources: Table, version: int, path: str = RESOURCES) -> list[Write]:
    """All writes for `resources`, in order, for cgroup `version` 1 or 2. `path` is the JSON path of `resources`.

    Raises ConfigError for values of the wrong kind, contradictions, and what this version cannot express
    (config-linux.md: the runtime "MUST generate an error" there).
    """
    writes: list[Write] = []
    for key, v1, v2 in TABLE:
        for value, where, table in _values(resources, key, path):
            writes += (v1 if version == 1 else v2)(value, where, table)
    return writes
