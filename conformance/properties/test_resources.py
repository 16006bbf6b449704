"""Rows of `linux.cgroupsPath` and `linux.resources`: config-linux.md, "Control groups"."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

import support
from box import cgroup_mount, lacks, row

if TYPE_CHECKING:
    from box import Box
    from support import Json, Spec

R = "linux.resources"
MIB = 1 << 20

# Row, property, value, (v1 controller, file, content), (v2 file, content).
Case = tuple[str, str, "Json", "tuple[str, str, str] | None", "tuple[str, str] | None"]
CASES: list[Case] = [
    (
        "memory.limit",
        "memory",
        {"limit": 64 * MIB},
        ("memory", "memory.limit_in_bytes", str(64 * MIB)),
        ("memory.max", str(64 * MIB)),
    ),
    (
        "memory.reservation",
        "memory",
        {"reservation": 32 * MIB},
        ("memory", "memory.soft_limit_in_bytes", str(32 * MIB)),
        ("memory.low", str(32 * MIB)),
    ),
    (
        "memory.swap",
        "memory",
        {"limit": 64 * MIB, "swap": 96 * MIB},
        ("memory", "memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory.swap.max", str(32 * MIB)),
    ),
    ("memory.swappiness", "memory", {"swappiness": 33}, ("memory", "memory.swappiness", "33"), None),
    ("memory.kernel", "memory", {"kernel": 64 * MIB}, None, None),
    ("memory.kernelTCP", "memory", {"kernelTCP": 64 * MIB}, None, None),
    ("memory.useHierarchy", "memory", {"useHierarchy": True}, ("memory", "memory.use_hierarchy", "1"), None),
    ("cpu.shares", "cpu", {"shares": 512}, ("cpu", "cpu.shares", "512"), ("cpu.weight", "59")),
    (
        "cpu.quota",
        "cpu",
        {"quota": 50000, "period": 100000},
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu.max", "50000 100000"),
    ),
    (
        "cpu.period",
        "cpu",
        {"quota": 20000, "period": 50000},
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu.max", "20000 50000"),
    ),
    (
        "cpu.burst",
        "cpu",
        {"quota": 50000, "period": 100000, "burst": 10000},
        ("cpu", "cpu.cfs_burst_us", "10000"),
        ("cpu.max.burst", "10000"),
    ),
    ("cpu.idle", "cpu", {"idle": 1}, ("cpu", "cpu.idle", "1"), ("cpu.idle", "1")),
    (
        "cpu.realtimeRuntime",
        "cpu",
        {"realtimePeriod": 1000000, "realtimeRuntime": 1000},
        ("cpu", "cpu.rt_runtime_us", "1000"),
        None,
    ),
    (
        "cpu.realtimePeriod",
        "cpu",
        {"realtimePeriod": 500000, "realtimeRuntime": 0},
        ("cpu", "cpu.rt_period_us", "500000"),
        None,
    ),
    ("cpu.cpus", "cpu", {"cpus": "0"}, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    ("cpu.mems", "cpu", {"mems": "0"}, ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
    ("pids.limit", "pids", {"limit": 33}, ("pids", "pids.max", "33"), ("pids.max", "33")),
    ("pids.limit", "pids", {"limit": -1}, ("pids", "pids.max", "max"), ("pids.max", "max")),
    (
        "blockIO.weight",
        "blockIO",
        {"weight": 300},
        ("blkio", "blkio.bfq.weight", "300"),
        ("io.bfq.weight", "default 300"),
    ),
    ("blockIO.leafWeight", "blockIO", {"leafWeight": 300}, ("blkio", "blkio.leaf_weight", "300"), None),
]


def needs_file(case: tuple[str, str, str] | None, v2: tuple[str, str] | None) -> None:
    """Skip unless the kernel has the control file of the row, on whichever version this host runs its controller."""
    if case is not None and (mount := cgroup_mount(case[0])):
        # The root lacks some files that all others have: look into one that exists.
        below = [mount, *(entry.path for entry in os.scandir(mount) if entry.is_dir())]
        probe = os.path.join(mount, f"probe-{os.getpid()}")
        os.mkdir(probe)
        try:
            if not any(os.path.exists(os.path.join(one, case[1])) for one in [*below, probe]):
                lacks(f"the kernel's {case[1]}")
        finally:
            os.rmdir(probe)
        return
    mount = cgroup_mount("")
    controller = v2[0].split(".")[0] if v2 else case[0] if case else ""
    listed = ""
    if mount:
        with open(f"{mount}/cgroup.controllers", encoding="ascii") as stream:
            listed = stream.read()
    if v2 is None or controller not in listed.split():
        lacks(f"the controller {controller}")


@row("linux.resources.network.{name}")
@pytest.mark.parametrize(
    ("name", "value", "file", "text"),
    [
        ("classID", 1048577, "net_cls.classid", "1048577"),
        ("priorities[]", [{"name": "lo", "priority": 5}], "net_prio.ifpriomap", "lo 5"),
    ],
)
def test_network(box: Box, name: str, value: Json, file: str, text: str) -> None:
    view = support.VIEWS["v1-net"]
    if support.run(*view, "true").status != 0:
        lacks(f"the controller {file.partition('.')[0]}")
    box.view = "v1-net"
    one = box.set(f"{R}.network", {name.removesuffix("[]"): value}).up()
    path = f"/sys/fs/cgroup/{file.partition('.')[0]}/{one.id}/{file}"
    assert text in support.run(*view, "cat", path).ok().out.splitlines()


@row("linux.resources.{name}")
@pytest.mark.parametrize(("name", "part", "value", "v1", "v2"), CASES)
def test_control_file(
    box: Box, name: str, part: str, value: Json, v1: tuple[str, str, str] | None, v2: tuple[str, str] | None
) -> None:
    if v1 is None and v2 is None:
        # NOT RECOMMENDED by the specification, and gone from the kernel: taken with a warning.
        box.set(f"{R}.{part}", value).facts("ids")
        return
    needs_file(v1, v2)
    one = box.set(f"{R}.{part}", value).up()
    found = box.cgroup_value(one, v1[:2] if v1 else None, v2[0] if v2 else None)
    on_v1 = v1 is not None and cgroup_mount(v1[0]) is not None
    expected = v1[2] if on_v1 and v1 else v2[1] if v2 else ""
    assert expected in found.splitlines(), found


@row("linux.resources.memory.limit: -1 is none")
def test_no_memory_limit(box: Box) -> None:
    needs_file(("memory", "memory.limit_in_bytes", ""), ("memory.max", ""))
    one = box.set(f"{R}.memory", {"limit": -1}).up()
    found = box.cgroup_value(one, ("memory", "memory.limit_in_bytes"), "memory.max")
    assert found == "max" or int(found) > 1 << 60


@row("linux.resources.cpu.quota: -1 is none")
def test_no_quota(box: Box) -> None:
    needs_file(("cpu", "cpu.cfs_quota_us", ""), ("cpu.max", ""))
    one = box.set(f"{R}.cpu", {"quota": -1}).up()
    assert box.cgroup_value(one, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] in ("-1", "max")


@row("linux.resources.memory.limit: enforced")
def test_out_of_memory(box: Box) -> None:
    needs_file(("memory", "memory.limit_in_bytes", ""), ("memory.max", ""))
    box.set(f"{R}.memory", {"limit": 16 * MIB, "swap": 16 * MIB})
    assert box.run("oom", "64").status == 137


@row("linux.resources.memory.swap: without limit, or below it, is an error")
@pytest.mark.parametrize("memory", [{"swap": MIB}, {"limit": 2 * MIB, "swap": MIB}])
def test_swap_needs_limit(box: Box, memory: dict[str, Json]) -> None:
    box.set(f"{R}.memory", memory).refused()


@row("linux.resources.memory.swappiness: 0 to 100")
def test_swappiness_range(box: Box) -> None:
    box.set(f"{R}.memory", {"swappiness": 101}).refused()


@row("linux.resources.memory.disableOOMKiller")
def test_disable_oom_killer(box: Box) -> None:
    needs_file(("memory", "memory.oom_control", ""), None)
    one = box.set(f"{R}.memory", {"limit": 64 * MIB, "disableOOMKiller": True}).up()
    assert "oom_kill_disable 1" in box.cgroup_value(one, ("memory", "memory.oom_control"), None)


@row("linux.resources.memory.checkBeforeUpdate")
def test_check_before_update(box: Box) -> None:
    needs_file(("memory", "memory.limit_in_bytes", ""), ("memory.max", ""))
    one = box.set(f"{R}.memory", {"limit": 64 * MIB}).up()
    wanted = '{"memory": {"limit": 4096, "checkBeforeUpdate": true}}'
    assert one.pyrunc("update", "--resources", "-", one.id, stdin=wanted).status != 0
    assert box.cgroup_value(one, ("memory", "memory.limit_in_bytes"), "memory.max") == str(64 * MIB)


@row("linux.resources.cpu.quota: burst above it is an error")
def test_burst_above_quota(box: Box) -> None:
    box.set(f"{R}.cpu", {"quota": 10000, "period": 100000, "burst": 20000}).refused()


@row("linux.resources.cpu.cpus", "linux.resources.cpu.mems")
@pytest.mark.parametrize(("name", "value"), [("cpus", "4000"), ("mems", "900"), ("cpus", "nonsense")])
def test_cpuset_errors(box: Box, name: str, value: str) -> None:
    box.set(f"{R}.cpu", {name: value}).refused()


@row("linux.resources.pids.limit: enforced, 0 too")
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_pids_limit(box: Box, limit: int) -> None:
    result = box.set(f"{R}.pids", {"limit": limit}).run("forks", str(max(limit, 1)))
    assert result.status != 0 or "error" in result.out, result


THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def disk() -> tuple[int, int]:
    """A whole disk of this host."""
    for name in sorted(os.listdir("/sys/block")):
        with open(f"/sys/block/{name}/dev", encoding="ascii") as stream:
            major, minor = stream.read().strip().split(":")
        return int(major), int(minor)
    lacks("a disk")
    raise AssertionError


@row("linux.resources.blockIO.{name}[]")
@pytest.mark.parametrize("name", sorted(THROTTLES))
def test_throttle(box: Box, name: str) -> None:
    major, minor = disk()
    file, key = THROTTLES[name]
    needs_file(("blkio", file, ""), ("io.max", ""))
    entry: Json = {"major": major, "minor": minor, "rate": 1048576}
    one = box.set(f"{R}.blockIO", {name: [entry]}).up()
    found = box.cgroup_value(one, ("blkio", file), "io.max")
    assert f"{major}:{minor} " in found
    assert "1048576" in found
    assert cgroup_mount("blkio") or f"{key}=1048576" in found


@row("linux.resources.blockIO.weightDevice[]")
def test_weight_device(box: Box) -> None:
    major, minor = disk()
    with open(f"/sys/dev/block/{major}:{minor}/queue/scheduler", encoding="ascii") as stream:
        if "[bfq]" not in stream.read():
            lacks("a disk with the scheduler bfq")
    needs_file(("blkio", "blkio.bfq.weight_device", ""), ("io.bfq.weight", ""))
    box.set(f"{R}.blockIO", {"weightDevice": [{"major": major, "minor": minor, "weight": 200}]})
    one = box.up()
    found = box.cgroup_value(one, ("blkio", "blkio.bfq.weight_device"), "io.bfq.weight")
    assert f"{major}:{minor} 200" in found


@row("linux.resources.blockIO.weightDevice[]: one of weight and leafWeight must be there")
def test_weight_device_without_weight(box: Box) -> None:
    box.set(f"{R}.blockIO", {"weightDevice": [{"major": 1, "minor": 1}]}).refused()


def huge_page() -> tuple[str, int]:
    """A size of huge pages that the kernel knows: as the specification writes it, and in bytes."""
    try:
        name = min(os.listdir("/sys/kernel/mm/hugepages"))
    except (OSError, ValueError):
        lacks("huge pages")
        raise
    size = int(name.removeprefix("hugepages-").removesuffix("kB"))
    for unit in ("KB", "MB", "GB"):
        if size < 1024:
            return f"{size}{unit}", size * 1024 ** (("KB", "MB", "GB").index(unit) + 1)
        size //= 1024
    raise AssertionError(name)


@row("linux.resources.hugepageLimits[]")
def test_huge_pages(box: Box) -> None:
    name, size = huge_page()
    mount = cgroup_mount("")
    if cgroup_mount("hugetlb") is None and mount and cgroup_mount("memory"):
        box.view = "v2"
    one = box.set(f"{R}.hugepageLimits", [{"pageSize": name, "limit": 4 * size}]).up()
    v1 = ("hugetlb", f"hugetlb.{name}.rsvd.limit_in_bytes")
    assert box.cgroup_value(one, v1, f"hugetlb.{name}.rsvd.max") == str(4 * size)


@row("linux.resources.hugepageLimits[]: an unknown size is an error")
@pytest.mark.parametrize("name", ["3MB", "2mb", "2048"])
def test_unknown_huge_page(box: Box, name: str) -> None:
    box.set(f"{R}.hugepageLimits", [{"pageSize": name, "limit": 0}]).refused()


@row("linux.resources.rdma{}")
def test_rdma(box: Box) -> None:
    devices = os.listdir("/sys/class/infiniband") if os.path.isdir("/sys/class/infiniband") else []
    if not devices:
        lacks("an RDMA device")
    one = box.set(f"{R}.rdma", {devices[0]: {"hcaHandles": 3, "hcaObjects": 30}}).up()
    found = box.cgroup_value(one, ("rdma", "rdma.max"), "rdma.max")
    assert f"{devices[0]} hca_handle=3 hca_object=30" in found


@row("linux.resources.rdma{}: one of hcaHandles and hcaObjects must be there")
def test_rdma_empty(box: Box) -> None:
    box.set(f"{R}.rdma", {"mlx5_1": {}}).refused()


@row("linux.resources.unified{}")
def test_unified(box: Box) -> None:
    name, size = huge_page()
    if cgroup_mount("memory"):
        box.view = "v2"
    one = box.set(f"{R}.unified", {f"hugetlb.{name}.max": str(2 * size)}).up()
    assert box.cgroup_value(one, None, f"hugetlb.{name}.max") == str(2 * size)


@row("linux.resources.unified{}: without cgroup v2 it is an error")
def test_unified_on_v1(box: Box) -> None:
    if cgroup_mount("memory") is None:
        lacks("controllers of cgroup v1")
    box.view = "v1"
    box.set(f"{R}.unified", {"pids.max": "5"}).refused()


@row("linux.resources.unified{}: a missing controller is an error")
def test_unified_without_controller(box: Box) -> None:
    if cgroup_mount("memory"):
        box.view = "v2"
    box.set(f"{R}.unified", {"nonsense.max": "1"}).refused()


@row("linux.resources: a v1-only value on v2 is an error")
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("memory", {"swappiness": 10}),
        ("cpu", {"realtimeRuntime": 1000}),
        ("network", {"classID": 1}),
        ("blockIO", {"leafWeight": 10}),
        ("memory", {"disableOOMKiller": True}),
    ],
)
def test_v1_only(box: Box, part: str, value: Json) -> None:
    box.view = "v2"
    box.set(f"{R}.{part}", value).refused()


PATH = "/dev/loop-control"

# --- Devices ----------------------------------------------------------------------------------------------------------


@row(
    "linux.resources.devices[].allow",
    "linux.resources.devices[].type",
    "linux.resources.devices[].major",
    "linux.resources.devices[].minor",
    "linux.resources.devices[].access",
)
@pytest.mark.parametrize("view", ["", "v2"])
@pytest.mark.parametrize("allow", [True, False])
def test_device_rules(box: Box, view: str, allow: bool) -> None:
    """A device of no default rule opens only where a rule says so, or says that it has no driver."""
    box.view = view or box.view
    box.add("linux.devices", {"path": PATH, "type": "c", "major": 10, "minor": 237})
    rule: Spec = {"allow": allow, "type": "c", "major": 10, "minor": 237, "access": "rwm"}
    box.set(f"{R}.devices", [{"allow": False, "access": "rwm"}, rule])
    result = box.run("open", PATH, "rw").ok()
    assert (f"open {PATH} -{errno.EPERM}\n" not in result.out) is allow, result


@row("linux.resources.devices: null zero full random urandom tty are always allowed")
def test_default_rules(box: Box) -> None:
    box.set(f"{R}.devices", [{"allow": False, "access": "rwm"}])
    names = ("null", "zero", "full", "random", "urandom", "ptmx")
    words = [word for name in names for word in ("open", f"/dev/{name}", "--")]
    assert " -" not in box.run(*words[:-1]).ok().out


@row("linux.resources.devices: update leaves them alone")
@pytest.mark.parametrize("view", ["", "v2"])
def test_update_keeps_devices(box: Box, view: str) -> None:
    """A GPU that was granted at create is not taken away, and what an update's document lists is not granted."""
    box.view = view or box.view
    box.add("linux.devices", {"path": PATH, "type": "c", "major": 10, "minor": 237})
    granted: Spec = {"allow": True, "type": "c", "major": 10, "minor": 237, "access": "rwm"}
    box.set(f"{R}.devices", [{"allow": False, "access": "rwm"}, granted])
    one = box.up()
    wanted = (
        '{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "access": "rwm"}]}'
    )
    one.pyrunc("update", "--resources", "-", one.id, stdin=wanted).ok()
    assert f"open {PATH} -{errno.EPERM}\n" not in one.exec("/bin/probe", "open", PATH, "rw").out
    one.exec("/bin/probe", "mknod", "/dev/other", "10", "200").ok()


@row("linux.cgroupsPath: with a user namespace the cgroup is the container's to manage")
@pytest.mark.parametrize("writable", [True, False])
def test_cgroup_ownership(box: Box, writable: bool) -> None:
    """config-linux.md, Cgroup ownership: only with a cgroup namespace and a writable mount of cgroup2."""
    box.view = "v2"
    ids: list[Json] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    box.bundle.namespace("user").namespace("cgroup")
    box.set("linux.uidMappings", ids).set("linux.gidMappings", ids)
    for directory, _, names in os.walk(box.bundle.path):
        for name in [directory, *(os.path.join(directory, name) for name in names)]:
            os.lchown(name, 100000, 100000)
    mounts = box.bundle.list_of("mounts")
    mounts[:] = [item for item in mounts if "cgroup" not in str(item)]
    box.bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", *(() if writable else ("ro",)))
    found = box.facts("stat", "/sys/fs/cgroup/cgroup.procs", "--", "mkdir", "/sys/fs/cgroup/below")
    assert ("uid 0 " in found["stat"]) is writable
    assert ("mkdir 0" in found.text.splitlines()) is writable


# --- cgroupsPath ------------------------------------------------------------------------------------------------------


@row("linux.cgroupsPath")
def test_absolute_path(box: Box) -> None:
    one = box.container()
    path = f"/{one.id}-top/below"
    box.set("linux.cgroupsPath", path).bundle.probe("pause")
    one.bundle.write()
    one.up().expect("ready")
    with open(f"/proc/{one.pid}/cgroup", encoding="ascii") as stream:
        assert f":{path}\n" in stream.read()


@row("linux.cgroupsPath: unset or relative, the runtime chooses")
@pytest.mark.parametrize("relative", [True, False])
def test_chosen_path(box: Box, relative: bool) -> None:
    one = box.container()
    name = f"{one.id}-x" if relative else one.id
    if relative:
        box.set("linux.cgroupsPath", name)
    box.bundle.probe("pause").write()
    one.up().expect("ready")
    with open(f"/proc/{one.pid}/cgroup", encoding="ascii") as stream:
        assert f"/{name}\n" in stream.read()


@row("linux.cgroupsPath: one that is in use is refused")
def test_path_in_use(box: Box) -> None:
    first = box.container()
    box.set("linux.cgroupsPath", f"/{first.id}-same").bundle.probe("pause").write()
    first.up().expect("ready")
    second = box.container()
    assert second.create().status != 0
