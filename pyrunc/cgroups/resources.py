"""PURE: `linux.resources` -> an ordered list of writes to cgroup files, for cgroup v1 and v2 from one table.

Devices are in device_rules.py. Only what one version cannot express is refused here: the form of the document (config)
and the rules that hold on every host (config/rules/resources.py) have been checked before. Source:
runtime-spec config-linux.md "Control groups"; Linux Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Table = Mapping[str, object]
    Maker = Callable[[object, str, Table], list["Write"]]

RESOURCES = "$.linux.resources"


class Write:
    """One value for one controller.

    `choices` are (file, value) pairs of which the first existing file is written; `path` is the JSON path of the value.
    `optional`: a missing file is not an error. `again`: the kernel may refuse (EINVAL) until a later write of the list
    is done, so it is tried a second time. `below`: a file whose number must be smaller than `value`, else nothing may
    be written. `warning`: a warning about its effect.
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
        """Return the file of first choice."""
        return self.choices[0][0]

    @property
    def value(self) -> str:
        """Return the value for the file of first choice."""
        return self.choices[0][1]

    def with_choice(self, file: str, value: str) -> Write:
        """Return a write of another value to one existing file, which the kernel may refuse at first."""
        return Write(self.controller, self.path, (file, value), again=True)

    def __repr__(self) -> str:
        return f"{self.path}: " + " or ".join([f"{file} = {value!r}" for file, value in self.choices])


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _text(value: object) -> str:
    assert isinstance(value, str)
    return value


def _table(value: object) -> Table:
    assert isinstance(value, dict)
    return value


def _given(table: Table, key: str) -> int:
    """Return the number of a sibling member, 0 if it is absent."""
    return _number(table.get(key) or 0)


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
    """Return a function that refuses a value which this version of cgroups cannot express, except 0 and `harmless`."""

    def make(value: object, path: str, _: Table) -> list[Write]:
        if value == harmless or value in (0, []):
            return []
        raise ConfigError(what, path=path, hint=hint)

    return make


def _nothing(_value: object, _path: str, _table: Table) -> list[Write]:
    return []


def _limit(file: str, *, unlimited: str) -> Maker:
    """Return a write of a number of bytes: 0 leaves the file unchanged, -1 removes the limit."""

    def make(value: object, path: str, _: Table) -> list[Write]:
        number = _number(value)
        text = unlimited if number == -1 else str(number)
        return [Write("memory", path, (file, text))] if number else []

    return make


def _plain(controller: str, file: str) -> Maker:
    """Return a write of the number as it is; 0 leaves the file unchanged."""

    def make(value: object, path: str, _: Table) -> list[Write]:
        number = _number(value)
        return [Write(controller, path, (file, str(number)), again=True)] if number else []

    return make


def _cpus(file: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        text = _text(value)
        return [Write("cpuset", path, (file, text))] if text else []

    return make


def _memory_limit_v1(value: object, path: str, memory: Table) -> list[Write]:
    limit = _number(value)
    if limit == 0:
        return []
    # limit <= memsw must hold after each write: raising needs memsw first, lowering needs it last. Instead of reading
    # the present values, refused writes are tried again.
    writes = [Write("memory", path, ("memory.limit_in_bytes", str(limit)), again=True)]
    if limit == -1 and not _given(memory, "swap"):
        writes.append(
            Write("memory", path, ("memory.memsw.limit_in_bytes", "-1"), optional=True, again=True)
        )
    return writes


def _memory_swap_v1(value: object, path: str, _: Table) -> list[Write]:
    swap = _number(value)
    if swap == 0:
        return []
    return [
        Write("memory", path, ("memory.memsw.limit_in_bytes", str(swap)), again=True, optional=swap == -1),
    ]


def _memory_limit_v2(value: object, path: str, memory: Table) -> list[Write]:
    limit = _number(value)
    if limit == 0:
        return []
    writes = []
    if limit == -1 and not _given(memory, "swap"):
        writes.append(Write("memory", path, ("memory.swap.max", "max"), optional=True))
    # On v1 the kernel itself refuses a limit that it cannot reach by reclaim.
    below = "memory.current" if memory.get("checkBeforeUpdate") is True and limit > 0 else ""
    writes.append(Write("memory", path, ("memory.max", "max" if limit == -1 else str(limit)), below=below))
    return writes


def _memory_swap_v2(value: object, path: str, memory: Table) -> list[Write]:
    swap = _number(value)
    if swap == 0:
        return []
    # config-linux.md: "memory+Swap usage"; v2 counts swap alone.
    text = "max" if swap == -1 else str(swap - _given(memory, "limit"))
    return [Write("memory", path, ("memory.swap.max", text), optional=text in ("max", "0"))]


def _is_unset(swappiness: int) -> bool:
    """The only number above 100 that the rules accept is Docker's for "not set"."""
    return swappiness > 100


def _swappiness_v1(value: object, path: str, _: Table) -> list[Write]:
    swappiness = _number(value)
    return [] if _is_unset(swappiness) else [Write("memory", path, ("memory.swappiness", str(swappiness)))]


def _swappiness_v2(value: object, path: str, _: Table) -> list[Write]:
    if _is_unset(_number(value)):
        return []
    raise ConfigError(
        "cgroup v2 has no swappiness per cgroup", path=path, hint="use memory.swap to bound swapping"
    )


def _kernel_v1(file: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        number = _number(value)
        # config-linux.md: NOT RECOMMENDED. Linux ignores the first since 5.16, and may drop both.
        warning = "limits of kernel memory alone have no effect on current kernels"
        return [Write("memory", path, (file, str(number)), optional=True, warning=warning)] if number else []

    return make


def _oom_killer_v1(value: object, path: str, _: Table) -> list[Write]:
    return [Write("memory", path, ("memory.oom_control", "1"))] if value else []


def _hierarchy_v1(value: object, path: str, _: Table) -> list[Write]:
    return [Write("memory", path, ("memory.use_hierarchy", "1" if value else "0"))]


def _hierarchy_v2(value: object, path: str, _: Table) -> list[Write]:
    if value:
        return []
    raise ConfigError("cgroup v2 always accounts for the whole hierarchy", path=path)


def _shares_v1(value: object, path: str, _: Table) -> list[Write]:
    shares = _number(value)
    if shares == 0:
        return []
    # The kernel would silently apply another value.
    if shares < 2:
        raise ConfigError(f"the minimum allowed cpu-shares is 2, got {shares}", path=path)
    if shares > 262_144:
        raise ConfigError(f"the maximum allowed cpu-shares is 262144, got {shares}", path=path)
    return [Write("cpu", path, ("cpu.shares", str(shares)))]


def _shares_v2(value: object, path: str, _: Table) -> list[Write]:
    shares = _number(value)
    return [Write("cpu", path, ("cpu.weight", str(weight_from_shares(shares))))] if shares else []


def _not_idle_yet(value: object, path: str, cpu: Table) -> list[Write]:
    """Around shares, as the kernel refuses shares of an idle group: idle is cleared before them and set after them."""
    idle = _number(value)
    if idle and not _given(cpu, "shares"):
        return []
    return [Write("cpu", path, ("cpu.idle", "0"), optional=not idle)]


def _idle(value: object, path: str, _: Table) -> list[Write]:
    return [Write("cpu", path, ("cpu.idle", "1"))] if value else []


def _burst(file: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        burst = _number(value)
        return [Write("cpu", path, (file, str(burst)), again=True, optional=burst == 0)]

    return make


def _quota_v1(value: object, path: str, _: Table) -> list[Write]:
    quota = _number(value)
    return [Write("cpu", path, ("cpu.cfs_quota_us", str(max(quota, -1))), again=True)] if quota else []


def _quota_v2(value: object, path: str, cpu: Table) -> list[Write]:
    quota = _number(value)
    period = _given(cpu, "period")
    if quota == 0:
        return []
    text = str(quota) if quota > 0 else "max"
    # A number alone leaves the period unchanged.
    return [Write("cpu", path, ("cpu.max", f"{text} {period}" if period else text), again=True)]


def _period_v2(value: object, path: str, cpu: Table) -> list[Write]:
    period = _number(value)
    if period == 0 or _given(cpu, "quota"):
        return []
    return [Write("cpu", path, ("cpu.max", f"max {period}"), again=True)]


def _pids(value: object, path: str, _: Table) -> list[Write]:
    limit = _number(value)
    # config-linux.md: 0 is a limit like any other; init exists already and may not fork.
    return [Write("pids", path, ("pids.max", "max" if limit < 0 else str(limit)))]


def _weight_v1(value: object, path: str, _: Table) -> list[Write]:
    weight = _number(value)
    text = str(weight)
    return [Write("blkio", path, ("blkio.weight", text), ("blkio.bfq.weight", text))] if weight else []


def _weight_v2(value: object, path: str, _: Table) -> list[Write]:
    weight = _number(value)
    if weight == 0:
        return []
    return [Write("io", path, ("io.bfq.weight", str(weight)), ("io.weight", str(io_weight(weight))))]


def _leaf_weight_v1(value: object, path: str, _: Table) -> list[Write]:
    weight = _number(value)
    return [Write("blkio", path, ("blkio.leaf_weight", str(weight)))] if weight else []


def _device(table: Table) -> str:
    return f"{_number(table['major'])}:{_number(table['minor'])}"


def _weight_device_v1(value: object, path: str, _: Table) -> list[Write]:
    table = _table(value)
    device, weight, leaf = _device(table), _given(table, "weight"), _given(table, "leafWeight")
    writes = []
    if weight:
        text = f"{device} {weight}"
        choices = (("blkio.weight_device", text), ("blkio.bfq.weight_device", text))
        writes.append(Write("blkio", path + ".weight", *choices))
    if leaf:
        writes.append(Write("blkio", path + ".leafWeight", ("blkio.leaf_weight_device", f"{device} {leaf}")))
    return writes


def _weight_device_v2(value: object, path: str, _: Table) -> list[Write]:
    table = _table(value)
    device, weight = _device(table), _given(table, "weight")
    if _given(table, "leafWeight"):
        raise ConfigError("cgroup v2 has no leaf weights", path=path + ".leafWeight")
    if not weight:
        return []
    choices = (("io.bfq.weight", f"{device} {weight}"), ("io.weight", f"{device} {io_weight(weight)}"))
    return [Write("io", path + ".weight", *choices)]


def _throttle_v1(file: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        table = _table(value)
        rate = _number(table["rate"])
        return [Write("blkio", path, (f"blkio.throttle.{file}_device", f"{_device(table)} {rate}"))]

    return make


def _throttle_v2(key: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        table = _table(value)
        # 0 removes the limit on v1; io.max has "max" for that and refuses 0.
        rate = _number(table["rate"]) or "max"
        return [Write("io", path, ("io.max", f"{_device(table)} {key}={rate}"))]

    return make


def _hugepages(suffix: str) -> Maker:
    def make(value: object, path: str, _: Table) -> list[Write]:
        table = _table(value)
        size, limit = _text(table["pageSize"]), str(_number(table["limit"]))
        # With a reservation limit a program fails early and cleanly; kernels before 5.7 only limit page faults.
        return [
            Write("hugetlb", path, (f"hugetlb.{size}.{suffix}", limit)),
            Write("hugetlb", path, (f"hugetlb.{size}.rsvd.{suffix}", limit), optional=True),
        ]

    return make


def _class_id_v1(value: object, path: str, _: Table) -> list[Write]:
    number = _number(value)
    return [Write("net_cls", path, ("net_cls.classid", str(number)))] if number else []


def _priority_v1(value: object, path: str, _: Table) -> list[Write]:
    table = _table(value)
    line = f"{_text(table['name'])} {_number(table['priority'])}"
    return [Write("net_prio", path, ("net_prio.ifpriomap", line))]


def _rdma(value: object, path: str, _: Table) -> list[Write]:
    table = _table(value)
    words = [path[path.index("rdma['") + 6 : -2]]
    for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
        if table.get(key) is not None:
            words.append(f"{word}={_number(table[key])}")
    return [Write("rdma", path, ("rdma.max", " ".join(words)))]


def _unified_v2(value: object, path: str, _: Table) -> list[Write]:
    file = path[path.index("unified['") + 9 : -2]
    return [Write(file.partition(".")[0], path, (file, _text(value)))]


_NO_NETWORK = refuse("network limits not supported on cgroup v2", hint="use eBPF or nftables by cgroup path")
_NO_REALTIME = refuse("cgroup v2 has no realtime bandwidth per cgroup")
_NO_KERNEL = refuse("cannot set kernel memory with cgroup v2", harmless=-1, hint="memory.limit includes it")
_NO_UNIFIED = refuse("cannot use unified on cgroup v1", hint="unified needs a pure cgroup v2 host")

# One row per property: its place in `linux.resources` ([] = for each element, {} = for each value), its function for
# v1 and the one for v2. The order of the rows is the order of the writes.
TABLE: tuple[tuple[str, Maker, Maker], ...] = (
    ("pids.limit", _pids, _pids),
    ("memory.useHierarchy", _hierarchy_v1, _hierarchy_v2),
    # v2: first the swap limit, then the memory limit that causes swapping. v1: the memory limit comes first.
    ("memory.swap", _nothing, _memory_swap_v2),
    ("memory.limit", _memory_limit_v1, _memory_limit_v2),
    ("memory.swap", _memory_swap_v1, _nothing),
    (
        "memory.reservation",
        _limit("memory.soft_limit_in_bytes", unlimited="-1"),
        _limit("memory.low", unlimited="max"),
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
    ("cpu.period", _plain("cpu", "cpu.cfs_period_us"), _period_v2),
    ("cpu.quota", _quota_v1, _quota_v2),
    ("cpu.idle", _idle, _idle),
    ("cpu.realtimePeriod", _plain("cpu", "cpu.rt_period_us"), _NO_REALTIME),
    ("cpu.realtimeRuntime", _plain("cpu", "cpu.rt_runtime_us"), _NO_REALTIME),
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
    """Yield (value, its JSON path, the table it is in) for a row's key; nothing if it is not configured."""
    section, dot, name = key.rstrip("[]{}").rpartition(".")
    table, where = resources, path
    if dot:
        where = f"{path}.{section}"
        found = resources.get(section)
        if found is None:
            return
        table = _table(found)
    value = table.get(name)
    where = f"{where}.{name}"
    if value is None:
        return
    if key.endswith("[]"):
        assert isinstance(value, list)
        for index, item in enumerate(value):
            yield item, f"{where}[{index}]", table
    elif key.endswith("{}"):
        for name, item in _table(value).items():
            yield item, f"{where}['{name}']", table
    else:
        yield value, where, table


def plan_writes(resources: Table, version: int, path: str = RESOURCES) -> list[Write]:
    """Return all writes for `resources`, in order, for cgroup `version` 1 or 2. `path` is the JSON path of `resources`.

    Raise ConfigError if this version cannot express a value (config-linux.md: the runtime "MUST generate an error").
    """
    writes: list[Write] = []
    for key, v1, v2 in TABLE:
        for value, where, table in _values(resources, key, path):
            writes += (v1 if version == 1 else v2)(value, where, table)
    return writes
