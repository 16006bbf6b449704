"""`linux.resources` as writes to cgroup files, both versions, and where a container's directories are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc.cgroups import choose, manager
from pyrunc.cgroups.resources import Write, io_weight, plan_writes, weight_from_shares
from pyrunc.errors import ConfigError, StateError
from pyrunc.spec.host_facts import HostFacts

if TYPE_CHECKING:
    from pathlib import Path

Resources = dict[str, object]
Pairs = list[tuple[str, str]]


def pairs(resources: Resources, version: int) -> Pairs:
    """(file, value) in order; alternatives joined by "|"."""
    return [
        (
            "|".join(file for file, _ in item.choices),
            "|".join(dict.fromkeys(value for _, value in item.choices)),
        )
        for item in plan_writes(resources, version)
    ]


def refusal(resources: Resources, version: int) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        plan_writes(resources, version)
    return caught.value


GOOD: list[tuple[str, Resources, Pairs, Pairs]] = [
    ("nothing", {}, [], []),
    (
        "memory",
        {"memory": {"limit": 2048, "reservation": 1024, "swap": 4096}},
        [
            ("memory.limit_in_bytes", "2048"),
            ("memory.memsw.limit_in_bytes", "4096"),
            ("memory.soft_limit_in_bytes", "1024"),
        ],
        [("memory.swap.max", "2048"), ("memory.max", "2048"), ("memory.low", "1024")],
    ),
    (
        "swap equal to the limit means none",
        {"memory": {"limit": 2048, "swap": 2048}},
        [("memory.limit_in_bytes", "2048"), ("memory.memsw.limit_in_bytes", "2048")],
        [("memory.swap.max", "0"), ("memory.max", "2048")],
    ),
    (
        "unlimited memory takes swap along",
        {"memory": {"limit": -1}},
        [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
        [("memory.swap.max", "max"), ("memory.max", "max")],
    ),
    (
        "unlimited swap",
        {"memory": {"limit": 2048, "swap": -1}},
        [("memory.limit_in_bytes", "2048"), ("memory.memsw.limit_in_bytes", "-1")],
        [("memory.swap.max", "max"), ("memory.max", "2048")],
    ),
    (
        "zeros leave alone, as docker sends them",
        {
            "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "kernelTCP": 0},
            "cpu": {
                "shares": 0,
                "quota": 0,
                "period": 0,
                "realtimePeriod": 0,
                "realtimeRuntime": 0,
                "cpus": "",
                "mems": "",
            },
            "blockIO": {"weight": 0, "leafWeight": 0},
            "network": {"classID": 0, "priorities": []},
        },
        [],
        [],
    ),
    ("nulls are not there", {"memory": None, "cpu": {"shares": None}, "pids": {"limit": None}}, [], []),
    ("an OOM killer left on", {"memory": {"disableOOMKiller": False}}, [], []),
    (
        "shares, quota and period",
        {"cpu": {"shares": 1024, "quota": 50000, "period": 200000}},
        [("cpu.shares", "1024"), ("cpu.cfs_period_us", "200000"), ("cpu.cfs_quota_us", "50000")],
        [("cpu.weight", "100"), ("cpu.max", "50000 200000")],
    ),
    (
        "a quota keeps the period that is set",
        {"cpu": {"quota": 50000}},
        [("cpu.cfs_quota_us", "50000")],
        [("cpu.max", "50000")],
    ),
    ("no quota", {"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max")]),
    (
        "a period alone",
        {"cpu": {"period": 5000}},
        [("cpu.cfs_period_us", "5000")],
        [("cpu.max", "max 5000")],
    ),
    (
        "burst",
        {"cpu": {"quota": 50000, "burst": 20000}},
        [("cpu.cfs_burst_us", "20000"), ("cpu.cfs_quota_us", "50000")],
        [("cpu.max.burst", "20000"), ("cpu.max", "50000")],
    ),
    ("idle", {"cpu": {"idle": 1}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
    ("not idle", {"cpu": {"idle": 0}}, [("cpu.idle", "0")], [("cpu.idle", "0")]),
    (
        "idle with shares: the kernel takes shares of a group that is not idle only",
        {"cpu": {"idle": 1, "shares": 2}},
        [("cpu.idle", "0"), ("cpu.shares", "2"), ("cpu.idle", "1")],
        [("cpu.idle", "0"), ("cpu.weight", "1"), ("cpu.idle", "1")],
    ),
    (
        "cpuset",
        {"cpu": {"cpus": "0-1,3", "mems": "0"}},
        [("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")],
        [("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")],
    ),
    ("no limit of processes", {"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
    ("0 is a limit of processes", {"pids": {"limit": 0}}, [("pids.max", "0")], [("pids.max", "0")]),
    (
        "block I/O weights",
        {"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}},
        [
            ("blkio.weight|blkio.bfq.weight", "500"),
            ("blkio.weight_device|blkio.bfq.weight_device", "8:0 1000"),
        ],
        [("io.bfq.weight|io.weight", "500|4950"), ("io.bfq.weight|io.weight", "8:0 1000|8:0 10000")],
    ),
    (
        "block I/O throttles; a rate of 0 lifts one",
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 10}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 20}],
            }
        },
        [
            ("blkio.throttle.read_bps_device", "8:0 1000"),
            ("blkio.throttle.write_bps_device", "8:0 0"),
            ("blkio.throttle.read_iops_device", "8:1 10"),
            ("blkio.throttle.write_iops_device", "8:1 20"),
        ],
        [
            ("io.max", "8:0 rbps=1000"),
            ("io.max", "8:0 wbps=max"),
            ("io.max", "8:1 riops=10"),
            ("io.max", "8:1 wiops=20"),
        ],
    ),
    (
        "huge pages, with reservations where the kernel counts them",
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]},
        [("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")],
        [("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
    ),
    (
        "rdma",
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}, "mlx4_0": {"hcaObjects": 1000}}},
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10"), ("rdma.max", "mlx4_0 hca_object=1000")],
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10"), ("rdma.max", "mlx4_0 hca_object=1000")],
    ),
]


@pytest.mark.parametrize(("resources", "v1", "v2"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_both_versions(resources: Resources, v1: Pairs, v2: Pairs) -> None:
    """What both versions can express becomes each one's files, in an order the kernel takes."""
    assert pairs(resources, 1) == v1
    assert pairs(resources, 2) == v2


ONLY_V1: list[tuple[Resources, Pairs, str, str]] = [
    ({"memory": {"kernel": 5}}, [("memory.kmem.limit_in_bytes", "5")], "memory.kernel", "kernel memory"),
    (
        {"memory": {"kernelTCP": 5}},
        [("memory.kmem.tcp.limit_in_bytes", "5")],
        "memory.kernelTCP",
        "kernel memory",
    ),
    ({"memory": {"swappiness": 0}}, [("memory.swappiness", "0")], "memory.swappiness", "swappiness"),
    (
        {"memory": {"disableOOMKiller": True}},
        [("memory.oom_control", "1")],
        "memory.disableOOMKiller",
        "OOM killer",
    ),
    (
        {"memory": {"useHierarchy": False}},
        [("memory.use_hierarchy", "0")],
        "memory.useHierarchy",
        "hierarchy",
    ),
    ({"cpu": {"realtimeRuntime": 9500}}, [("cpu.rt_runtime_us", "9500")], "cpu.realtimeRuntime", "realtime"),
    ({"cpu": {"realtimePeriod": 10000}}, [("cpu.rt_period_us", "10000")], "cpu.realtimePeriod", "realtime"),
    ({"blockIO": {"leafWeight": 10}}, [("blkio.leaf_weight", "10")], "blockIO.leafWeight", "leaf"),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 1, "leafWeight": 10}]}},
        [("blkio.leaf_weight_device", "8:1 10")],
        "blockIO.weightDevice[0].leafWeight",
        "leaf",
    ),
    (
        {"network": {"classID": 1048577}},
        [("net_cls.classid", "1048577")],
        "network.classID",
        "network limits",
    ),
    (
        {"network": {"priorities": [{"name": "eth0", "priority": 5}]}},
        [("net_prio.ifpriomap", "eth0 5")],
        "network.priorities[0]",
        "network limits",
    ),
]


@pytest.mark.parametrize(("resources", "v1", "path", "word"), ONLY_V1, ids=[row[2] for row in ONLY_V1])
def test_what_only_v1_has_is_an_error_on_v2(resources: Resources, v1: Pairs, path: str, word: str) -> None:
    """config-linux.md: a v1 value that v2 cannot express MUST be an error; it names the property."""
    assert pairs(resources, 1) == v1
    error = refusal(resources, 2)
    assert error.path == f"$.linux.resources.{path}"
    assert word in error.message


def test_unset_swappiness() -> None:
    """What Docker writes for "not set" is no swappiness, and nothing that v2 lacks."""
    assert pairs({"memory": {"swappiness": (1 << 64) - 1}}, 1) == []
    assert pairs({"memory": {"swappiness": (1 << 64) - 1}}, 2) == []


def test_path_is_the_callers() -> None:
    """update reads another document than config.json; its paths are that document's."""
    with pytest.raises(ConfigError) as caught:
        plan_writes({"cpu": {"realtimePeriod": 5}}, 2, "$")
    assert caught.value.path == "$.cpu.realtimePeriod"


def test_unified_is_for_v2() -> None:
    """`unified` is written as it stands, unknown names included, and refused on v1."""
    resources: Resources = {
        "unified": {"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 rbps=2", "new.thing": "x"}
    }
    assert pairs(resources, 2) == [
        ("memory.high", "1000"),
        ("io.max", "8:0 rbps=1\n8:16 rbps=2"),
        ("new.thing", "x"),
    ]
    assert [item.controller for item in plan_writes(resources, 2)] == ["memory", "io", "new"]
    error = refusal(resources, 1)
    assert error.path == "$.linux.resources.unified['memory.high']"
    assert error.message == "cannot use unified on cgroup v1"


@pytest.mark.parametrize(
    ("shares", "word"), [(1, "minimum allowed cpu-shares is 2"), (262145, "maximum allowed")]
)
def test_shares_that_v1_would_clamp(shares: int, word: str) -> None:
    """The v1 kernel clamps without a word; v2's conversion has its own ends."""
    assert word in refusal({"cpu": {"shares": shares}}, 1).message
    assert len(plan_writes({"cpu": {"shares": shares}}, 2)) == 1


def test_check_before_update_guards_the_limit() -> None:
    """On v2 the limit is compared with the usage first; on v1 the kernel does that."""
    resources: Resources = {"memory": {"limit": 4096, "checkBeforeUpdate": True}}
    assert [item.below for item in plan_writes(resources, 2)] == ["memory.current"]
    assert [item.below for item in plan_writes(resources, 1)] == [""]
    assert [item.below for item in plan_writes({"memory": {"limit": 4096}}, 2)] == [""]


def test_what_may_be_missing_or_refused_at_first() -> None:
    """Swap files are optional only for values that mean what a kernel without them does anyway."""
    one = plan_writes({"memory": {"limit": 10, "swap": 10}}, 2)[0]
    other = plan_writes({"memory": {"limit": 10, "swap": 20}}, 2)[0]
    assert (one.value, one.optional, other.value, other.optional) == ("0", True, "10", False)
    assert [item.again for item in plan_writes({"memory": {"limit": 10, "swap": 20}}, 1)] == [True, True]
    assert [item.again for item in plan_writes({"cpu": {"quota": 9, "period": 9, "burst": 9}}, 1)] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("shares", "weight"),
    [
        (0, 1),
        (2, 1),
        (3, 2),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262143, 10000),
        (262144, 10000),
        (1 << 30, 10000),
    ],
)
def test_weight_from_shares(shares: int, weight: int) -> None:
    """The formula of 2025: both ends and the defaults meet."""
    assert weight_from_shares(shares) == weight


def test_io_weight_ends() -> None:
    """10..1000 becomes 1..10000."""
    assert (io_weight(10), io_weight(1000)) == (1, 10000)


def test_a_write_says_what_it_is() -> None:
    """explain prints these."""
    item = Write("io", "$.x", ("a", "1"), ("b", "2"))
    assert repr(item) == "$.x: a = '1' or b = '2'"
    assert (item.file, item.value) == ("a", "1")


# --- Where the directories are ----------------------------------------------------------------------------------------

V1 = HostFacts(
    cgroup_mode="v1",
    cgroup_mounts={
        "memory": ("/sys/fs/cgroup/memory", "/"),
        "cpu": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "cpuacct": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "freezer": ("/sys/fs/cgroup/freezer", "/"),
        "name=systemd": ("/sys/fs/cgroup/systemd", "/"),
        "name=elogind": ("/sys/fs/cgroup/elogind", "/"),
    },
    own_cgroups={"memory": "/jobs/7", "cpu": "/", "cpuacct": "/", "freezer": "/", "name=systemd": "/user"},
)
V2 = HostFacts(
    cgroup_mode="v2",
    unified_mount="/sys/fs/cgroup",
    own_cgroups={"": "/user.slice/session-1.scope", "memory": "/x"},
)


def paths(host: HostFacts, cgroups_path: str | None) -> list[tuple[str, str]]:
    linux: Resources = {} if cgroups_path is None else {"cgroupsPath": cgroups_path}
    return choose.manager({"linux": linux}, "c1", host).paths


def test_v1_absolute() -> None:
    """From each mount point; controllers mounted together share one; foreign named ones are not joined."""
    assert paths(V1, "/a/b") == [
        ("memory", "/sys/fs/cgroup/memory/a/b"),
        ("cpu", "/sys/fs/cgroup/cpu,cpuacct/a/b"),
        ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a/b"),
        ("freezer", "/sys/fs/cgroup/freezer/a/b"),
        ("name=systemd", "/sys/fs/cgroup/systemd/a/b"),
    ]


@pytest.mark.parametrize("cgroups_path", [None, "", "c1", "./c1", "../../c1"])
def test_v1_relative_and_unset(cgroups_path: str | None) -> None:
    """Below the runtime's own cgroup of each hierarchy; the id when the configuration names none."""
    assert paths(V1, cgroups_path) == [
        ("memory", "/sys/fs/cgroup/memory/jobs/7/c1"),
        ("cpu", "/sys/fs/cgroup/cpu,cpuacct/c1"),
        ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c1"),
        ("freezer", "/sys/fs/cgroup/freezer/c1"),
        ("name=systemd", "/sys/fs/cgroup/systemd/user/c1"),
    ]


def test_joint_controllers_are_made_once(tmp_path: Path) -> None:
    """Two names, one directory: it is listed, made and removed once."""
    directory = str(tmp_path / "joint" / "c1")
    made = manager.Manager([("cpu", directory), ("cpuacct", directory)])
    assert made.to_make == [os.path.dirname(directory), directory]
    made.settle()
    made.create()
    assert made.made == made.to_make
    assert (made.directory("cpu"), made.directory("cpuacct")) == (directory, directory)


def test_two_creates_of_one_cgroup(tmp_path: Path) -> None:
    """Both have found nothing there; who comes second is refused, and leaves the other's alone."""
    directory = str(tmp_path / "parent" / "c1")
    first, second = (manager.Manager([("pids", directory)]) for _ in range(2))
    assert first.to_make == second.to_make == [os.path.dirname(directory), directory]
    first.create()
    with pytest.raises(StateError, match="container's cgroup is used by others") as caught:
        second.create()
    assert caught.value.path == "$.linux.cgroupsPath"
    assert "a cgroupsPath of its own" in (caught.value.hint or "")
    assert second.made == [] and os.listdir(tmp_path / "parent") == ["c1"]


def test_hybrid_has_the_v2_hierarchy_last() -> None:
    """As runc 1.1 does, so that tools which read v2 find the container."""
    host = HostFacts(
        cgroup_mode="hybrid",
        cgroup_mounts={"pids": ("/sys/fs/cgroup/pids", "/")},
        unified_mount="/sys/fs/cgroup/unified",
        own_cgroups={"pids": "/", "": "/s"},
    )
    assert paths(host, "/x") == [("pids", "/sys/fs/cgroup/pids/x"), ("", "/sys/fs/cgroup/unified/x")]
    assert paths(host, "x") == [("pids", "/sys/fs/cgroup/pids/x"), ("", "/sys/fs/cgroup/unified/s/x")]
    made = choose.manager({"linux": {"cgroupsPath": "/x"}}, "c1", host)
    assert (made.version, made.open(), made.directory("pids")) == (1, -1, "/sys/fs/cgroup/pids/x")
    assert (made.directory(""), made.directory("memory")) == ("/sys/fs/cgroup/unified/x", None)


def test_a_mount_that_shows_a_part_of_the_tree() -> None:
    """In a container without a cgroup namespace /proc/self/cgroup has the host's paths."""
    host = HostFacts(
        cgroup_mounts={
            "pids": ("/sys/fs/cgroup/pids", "/docker/abc"),
            "memory": ("/sys/fs/cgroup/memory", "/docker/abc"),
        },
        own_cgroups={"pids": "/docker/abc", "memory": "/docker/abc/inner"},
    )
    assert paths(host, "x") == [
        ("memory", "/sys/fs/cgroup/memory/inner/x"),
        ("pids", "/sys/fs/cgroup/pids/x"),
    ]


@pytest.mark.parametrize(
    ("cgroups_path", "directory"),
    [
        ("/a/b", "/sys/fs/cgroup/a/b"),
        ("//a/../../b/./c/", "/sys/fs/cgroup/b/c"),
        ("a", "/sys/fs/cgroup/user.slice/a"),
        ("../../../a", "/sys/fs/cgroup/user.slice/a"),
        (None, "/sys/fs/cgroup/user.slice/c1"),
    ],
)
def test_v2(cgroups_path: str | None, directory: str) -> None:
    """From the mount point, or beside the runtime's own cgroup: one with processes hands no controllers down."""
    assert paths(V2, cgroups_path) == [("", directory)]


def test_v2_of_a_runtime_in_the_root_cgroup() -> None:
    """Beside the root is below it."""
    host = HostFacts(cgroup_mode="v2", unified_mount="/sys/fs/cgroup", own_cgroups={"": "/"})
    assert paths(host, None) == [("", "/sys/fs/cgroup/c1")]


def test_cgroups_path_that_breaks_lines() -> None:
    """The state file has one line per path."""
    with pytest.raises(ConfigError) as caught:
        paths(V2, "/a\ncgmade /etc")
    assert caught.value.path == "$.linux.cgroupsPath"


def test_other_drivers() -> None:
    """No cgroups at all is a choice; the systemd driver is refused by name."""
    assert choose.manager({}, "c1", V2, disabled=True).paths == []
    with pytest.raises(ConfigError, match="systemd"):
        choose.manager({}, "c1", V2, systemd=True)
    with pytest.raises(ConfigError, match="no cgroup file system is mounted"):
        choose.manager({}, "c1", HostFacts(cgroup_mode="v2"))
    assert choose.manager({}, "c1", HostFacts(cgroup_mode="v2", rootless=True)).paths == []


def test_without_a_cgroup_limits_are_errors() -> None:
    """Rootless without permission: everything is content but a limit, which is named."""
    made = choose.from_paths([])
    made.apply({"devices": [{"allow": False}]})
    made.attach(1)
    made.kill()
    made.destroy()
    assert (made.open(), made.pids(), made.frozen, made.to_make) == (-1, [], False, [])
    with pytest.raises(ConfigError) as caught:
        made.apply({"pids": {"limit": 5}})
    assert caught.value.path == "$.linux.resources.pids.limit"
    assert caught.value.message == "cannot set pids limit: container could not join or create cgroup"


@pytest.mark.parametrize(
    ("change", "owner"),
    [
        ({}, 101000),
        ({"mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}]}, None),
        ({"mounts": []}, None),
        ({"mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "rw"]}]}, 101000),
        ({"mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["rro"]}]}, None),
        ({"mounts": [{"destination": "sys/fs/../fs/cgroup", "type": "cgroup"}]}, 101000),
        ({"mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["bind"]}]}, None),
        (
            {
                "mounts": [
                    {"destination": "/sys/fs/cgroup", "type": "cgroup"},
                    {"destination": "/sys/fs/cgroup", "type": "tmpfs"},
                ]
            },
            None,
        ),
        ({"namespaces": [{"type": "cgroup", "path": "/proc/1/ns/cgroup"}]}, None),
        ({"uidMappings": []}, 1000),
        ({"uidMappings": [{"containerID": 0, "hostID": 5, "size": 10}]}, None),
    ],
)
def test_cgroup_ownership(change: Resources, owner: int | None) -> None:
    """config-linux.md "Cgroup ownership": only with a cgroup namespace of its own and a writable cgroup mount."""
    linux: Resources = {
        "namespaces": [{"type": "cgroup"}],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
    }
    spec: Resources = {
        "mounts": [{"destination": "/sys/fs/cgroup/", "type": "cgroup", "options": ["nosuid"]}],
        "process": {"user": {"uid": 1000}},
        "linux": linux,
    }
    for key, value in change.items():
        (spec if key in spec else linux)[key] = value
    assert choose.delegated_to(spec) == owner  # type: ignore[arg-type]  # put together above
