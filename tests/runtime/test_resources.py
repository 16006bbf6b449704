"""linux.resources and cgroupsPath of whole containers: where they live, what limits them, what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import limits
import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from support import Json, Spec

pytestmark = pytest.mark.root

MB = 1 << 20
EPERM, EAGAIN, EROFS = 1, 11, 30


def limited(bundle: BundleFactory, resources: Spec, *probe: str) -> Bundle:
    """A bundle of the probe with these resources beside its device rules."""
    made = bundle("probe").probe(*(probe or ("pause",)))
    made.mapping("linux", "resources").update(resources)
    return made


def nothing_left(one: Container) -> None:
    """The failed create has made no state directory, cgroup or process."""
    assert not os.path.lexists(os.path.join(one.root, one.id))
    assert not support.find_cgroups(one.id)


def needs_controller(view: str, name: str) -> int:
    """The version of cgroups here; skips where that has no such controller."""
    version = limits.version(view)
    if version == 2:
        limits.needs_v2_controller(name)
    return version


def own(controller: str) -> str:
    """The cgroup of this process in a hierarchy."""
    return limits.directory(os.getpid(), controller)


# --- Where ------------------------------------------------------------------------------------------------------------


def test_an_absolute_path(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """config-linux.md: an absolute cgroupsPath is relative to the mount point; parents are made, and go with it."""
    made = limited(bundle, {})
    name = f"{support.ID_PREFIX}absolute"
    made.mapping("linux")["cgroupsPath"] = f"/{name}/deep/c1"
    one = container(made, view=view).up()
    if limits.version(view) == 1:
        assert limits.directory(one.pid, "memory") == f"/sys/fs/cgroup/memory/{name}/deep/c1"
    assert limits.directory(one.pid, "") == f"{limits.unified_mount()}/{name}/deep/c1"
    one.delete("--force").ok()
    assert not support.find_cgroups(name)


@pytest.mark.parametrize("path", ["NAME/c1", "../NAME/./c1", None])
def test_a_relative_path_or_none(
    container: ContainerFactory, bundle: BundleFactory, view: str, path: str | None
) -> None:
    """A relative path, or the id, counts from the runtime's own cgroup on v1 and from its parent on v2, as in runc."""
    made = limited(bundle, {})
    name = f"{support.ID_PREFIX}relative"
    if path:
        made.mapping("linux")["cgroupsPath"] = path.replace("NAME", name)
    one = container(made, view=view).up()
    inner = f"{name}/c1" if path else one.id
    if limits.version(view) == 1:
        assert limits.directory(one.pid, "pids") == f"{own('pids').rstrip('/')}/{inner}"
    else:
        mine, mount = own("").rstrip("/"), limits.unified_mount()
        beside = mine if mine == mount else os.path.dirname(mine)
        assert limits.directory(one.pid, "") == f"{beside}/{inner}"
    one.delete("--force").ok()
    assert not support.find_cgroups(inner)


@pytest.mark.slow
def test_a_cgroup_of_somebody_else(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """A cgroup with processes is not taken, and whoever is in it is not disturbed."""
    first = limited(bundle, {})
    first.mapping("linux")["cgroupsPath"] = f"/{support.ID_PREFIX}shared"
    one = container(first, view=view).up()
    second = limited(bundle, {})
    second.mapping("linux")["cgroupsPath"] = f"/{support.ID_PREFIX}shared"
    other = container(second, view=view)
    other.create().fails("$.linux.cgroupsPath: container's cgroup is not empty: 1 process(es) found")
    nothing_left(other)
    assert one.status() == "running"


@pytest.mark.slow
def test_two_in_one_parent(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """The parent that two containers share stays for the other one, and goes with the one that made it."""
    both = []
    for name in ("a", "b"):
        made = limited(bundle, {})
        made.mapping("linux")["cgroupsPath"] = f"/{support.ID_PREFIX}parent/{name}"
        both.append(container(made, view=view).up())
    both[1].delete("--force").ok()
    left = [os.path.basename(path) for path in support.find_cgroups(f"{support.ID_PREFIX}parent")]
    assert set(left) == {"a", f"{support.ID_PREFIX}parent"}
    assert both[0].status() == "running"
    both[0].delete("--force").ok()
    assert not support.find_cgroups(f"{support.ID_PREFIX}parent")


# --- What limits ------------------------------------------------------------------------------------------------------


def test_memory(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """A program that takes more memory than its limit is killed: status 137."""
    needs_controller(view, "memory")
    memory: Spec = {"memory": {"limit": 16 * MB, "swap": 16 * MB}}
    result = container(limited(bundle, memory, "oom", "8", "--", "oom", "64"), view=view).run()
    assert result.status == 137, result
    assert result.out == "allocated 8\n"


def test_pids(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """As many processes as the limit says can be made, the first one counted."""
    needs_controller(view, "pids")
    result = container(limited(bundle, {"pids": {"limit": 5}}, "forks", "9"), view=view).run().ok()
    assert result.out == f"forks 4 error {EAGAIN}\n"


def test_a_pids_limit_of_zero(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """config-linux.md: 0 is a limit; the program runs, being there already, and makes no other process."""
    needs_controller(view, "pids")
    result = container(limited(bundle, {"pids": {"limit": 0}}, "forks", "9"), view=view).run().ok()
    assert result.out == f"forks 0 error {EAGAIN}\n"


def test_processors(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Shares, quota, period, burst and the set of processors are in the files that the kernel counts by."""
    version = needs_controller(view, "cpu")
    cpu: Spec = {"shares": 256, "quota": 40000, "period": 80000, "burst": 1000, "cpus": "0", "mems": "0"}
    one = container(limited(bundle, {"cpu": cpu}), view=view).up()
    if version == 1:
        expected = {
            ("cpu", "cpu.shares"): "256",
            ("cpu", "cpu.cfs_quota_us"): "40000",
            ("cpu", "cpu.cfs_period_us"): "80000",
            ("cpu", "cpu.cfs_burst_us"): "1000",
            ("cpuset", "cpuset.cpus"): "0",
            ("cpuset", "cpuset.mems"): "0",
        }
    else:
        expected = {
            ("", "cpu.weight"): "35",
            ("", "cpu.max"): "40000 80000",
            ("", "cpu.max.burst"): "1000",
            ("", "cpuset.cpus"): "0",
            ("", "cpuset.mems"): "0",
        }
    assert {key: limits.read(one, *key) for key in expected} == expected
    assert support.status_field(one.pid, "Cpus_allowed_list") == "0"


@pytest.mark.slow
def test_idle(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """cpu.idle makes the whole container run only when nobody else wants to."""
    version = needs_controller(view, "cpu")
    one = container(limited(bundle, {"cpu": {"idle": 1}}), view=view).up()
    assert limits.read(one, "cpu" if version == 1 else "", "cpu.idle") == "1"


def test_huge_pages(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Huge pages are limited when they are reserved, and when they are used."""
    with open(f"{limits.unified_mount()}/cgroup.controllers", encoding="ascii") as stream:
        support.needs("hugetlb" in stream.read().split(), "the hugetlb controller on cgroup2")
    pages: list[Json] = [{"pageSize": "2MB", "limit": 4 * MB}]
    one = container(limited(bundle, {"hugepageLimits": pages}), view="v2").up()
    assert limits.read(one, "", "hugetlb.2MB.max") == str(4 * MB)
    assert limits.read(one, "", "hugetlb.2MB.rsvd.max") == str(4 * MB)


def test_unified(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Files of cgroup v2 by their own names, also those that no other property knows."""
    wanted: Spec = {"cgroup.max.depth": "3", "cgroup.max.descendants": "7"}
    one = container(limited(bundle, {"unified": wanted}), view="v2").up()
    assert {name: limits.read(one, "", name) for name in wanted} == wanted


@pytest.mark.parametrize("option", ["rw", "ro"])
def test_ownership(container: ContainerFactory, bundle: BundleFactory, option: str) -> None:
    """config-linux.md "Cgroup ownership": a cgroup2 mount that can be written to belongs to the container's user."""
    made = bundle("userns").probe("pause").namespace("cgroup")
    made.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", option)
    mapping = made.at("linux", "uidMappings", 0)
    assert isinstance(mapping, dict)
    owner = mapping["hostID"] if option == "rw" else 0
    one = container(made, view="v2").up()
    where = limits.directory(one.pid, "")
    with open("/sys/kernel/cgroup/delegate", encoding="ascii") as stream:
        names = [name for name in stream.read().split() if os.path.exists(f"{where}/{name}")]
    assert "cgroup.procs" in names
    assert {os.stat(f"{where}/{name}").st_uid for name in ("", *names)} == {owner}
    assert os.stat(f"{where}/cgroup.freeze").st_uid == 0
    assert os.stat(os.path.dirname(where)).st_uid == 0
    made_inside = one.exec("/bin/probe", "mkdir", "/sys/fs/cgroup/below")
    assert made_inside.out == ("mkdir 0\n" if option == "rw" else f"mkdir -{EROFS}\n"), made_inside
    assert os.path.isdir(f"{where}/below") == (option == "rw")


# --- Devices ----------------------------------------------------------------------------------------------------------


def give(made: Bundle, *capabilities: str) -> None:
    """Let the program do what would be refused for another reason."""
    for kind in ("bounding", "effective", "permitted"):
        made.list_of("process", "capabilities", kind).extend(capabilities)


def test_device_rules(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """What no rule allows cannot be opened even by its own node; what one allows can, for what it allows."""
    rules: list[Json] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
    ]
    made = limited(bundle, {"devices": rules})
    made.probe(
        *("open", "/dev/one", "--", "open", "/dev/one", "rw", "--", "open", "/dev/two"),
        *("--", "open", "/dev/null", "rw", "--", "open", "/dev/urandom"),
    )
    give(made, "CAP_SYSLOG", "CAP_SYS_RAWIO")
    for name, minor in (("one", 11), ("two", 1)):
        made.list_of("linux", "devices").append(
            {"path": f"/dev/{name}", "type": "c", "major": 1, "minor": minor, "fileMode": 0o666}
        )
    result = container(made, view=view).run().ok()
    assert result.out.splitlines() == [
        "open /dev/one 0",
        f"open /dev/one -{EPERM}",
        f"open /dev/two -{EPERM}",
        "open /dev/null 0",
        "open /dev/urandom 0",
    ]


def test_default_device_rules(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Nodes of any device can be made, as in runc; making one is no way around the rule for opening it."""
    made = limited(bundle, {}, "mknod", "/dev/kmsg2", "1", "11", "--", "open", "/dev/kmsg2")
    give(made, "CAP_MKNOD", "CAP_SYSLOG")
    result = container(made, view=view).run().ok()
    assert result.out.splitlines() == ["mknod 0", f"open /dev/kmsg2 -{EPERM}"]


# --- What is refused --------------------------------------------------------------------------------------------------

REFUSED: list[tuple[Spec, tuple[str, ...]]] = [
    (
        {"memory": {"swap": 64 * MB}},
        ("$.linux.resources.memory.swap: unable to set swap limit without memory limit",),
    ),
    (
        {"memory": {"limit": 64 * MB, "swap": 32 * MB}},
        ("$.linux.resources.memory.swap: memory+swap limit should be >= memory limit",),
    ),
    ({"memory": {"limit": 64 * MB, "swappiness": 101}}, ("$.linux.resources.memory.swappiness: ",)),
    ({"cpu": {"quota": 1000, "burst": 2000}}, ("$.linux.resources.cpu.burst: ",)),
    ({"cpu": {"idle": 2}}, ("$.linux.resources.cpu.idle: ",)),
    ({"cpu": {"cpus": "1000"}}, ("$.linux.resources.cpu.cpus: ",)),
    ({"cpu": {"mems": "x"}}, ("$.linux.resources.cpu.mems: ",)),
    ({"cpu": {"period": 1}}, ("$.linux.resources.cpu.period: ",)),
    ({"blockIO": {"weight": 9}}, ("$.linux.resources.blockIO.weight: 9 is no weight",)),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}},
        ("$.linux.resources.blockIO.weightDevice[0]: at least one of weight and leafWeight",),
    ),
    (
        {"blockIO": {"throttleReadBpsDevice": [{"major": 999, "minor": 0, "rate": 1}]}},
        ("$.linux.resources.blockIO.throttleReadBpsDevice[0]: ",),
    ),
    (
        {"hugepageLimits": [{"pageSize": "3MB", "limit": 3 * MB}]},
        ("$.linux.resources.hugepageLimits[0]: ",),
    ),
    (
        {"hugepageLimits": [{"pageSize": "02MB", "limit": 0}]},
        ("$.linux.resources.hugepageLimits[0].pageSize",),
    ),
    ({"rdma": {"mlx5_1": {}}}, ("$.linux.resources.rdma", "hcaHandles")),
    ({"rdma": {"mlx5_1": {"hcaHandles": 3}}}, ("$.linux.resources.rdma",)),
    ({"unified": {"a/b.c": "1"}}, ("$.linux.resources.unified['a/b.c']: ",)),
    ({"devices": [{"allow": True, "type": "c"}]}, ("$.linux.resources.devices[0].access: ",)),
    ({"devices": [{"allow": True, "type": "x", "access": "r"}]}, ("$.linux.resources.devices[0].type: ",)),
]


@pytest.mark.parametrize(
    ("resources", "words"), REFUSED, ids=[row[1][0].removeprefix("$.linux.resources.") for row in REFUSED]
)
def test_refused(
    container: ContainerFactory, bundle: BundleFactory, view: str, resources: Spec, words: tuple[str, ...]
) -> None:
    """A limit that is wrong, or that the host cannot set, fails create under its path and leaves no trace."""
    one = container(limited(bundle, resources), view=view)
    one.create().fails(*words)
    nothing_left(one)


def test_a_processor_that_is_not_there(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The hint says which ones there are."""
    version = needs_controller("host", "cpuset")
    one = container(limited(bundle, {"cpu": {"cpus": "1000"}}))
    result = one.create().fails("cpuset.cpus'", "the value was '1000'")
    assert "the parent cgroup has '0" in result.err or version == 2
    nothing_left(one)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": {"swappiness": 10}}, "memory.swappiness: cgroup v2 has no swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller: cannot disable OOM killer"),
        ({"memory": {"kernel": MB}}, "memory.kernel: cannot set kernel memory with cgroup v2"),
        ({"cpu": {"realtimeRuntime": 1000}}, "cpu.realtimeRuntime: cgroup v2 has no realtime bandwidth"),
        ({"blockIO": {"leafWeight": 100}}, "blockIO.leafWeight: cgroup v2 has no leaf weights"),
        ({"network": {"classID": 5}}, "network.classID: network limits not supported on cgroup v2"),
        (
            {"network": {"priorities": [{"name": "lo", "priority": 1}]}},
            "network.priorities[0]: network limits not supported on cgroup v2",
        ),
        ({"unified": {"nothing.max": "1"}}, "unified['nothing.max']: no file 'nothing.max'"),
        ({"unified": {"cgroup.max.depth": "x"}}, "unified['cgroup.max.depth']: write"),
    ],
)
def test_refused_on_v2(
    container: ContainerFactory, bundle: BundleFactory, resources: Spec, words: str
) -> None:
    """config-linux.md: a value of v1 that cannot be converted MUST be an error; so is a controller that is missing."""
    one = container(limited(bundle, resources), view="v2")
    one.create().fails(f"$.linux.resources.{words}")
    nothing_left(one)


def test_refused_on_v1(container: ContainerFactory, bundle: BundleFactory) -> None:
    """What only v2 has, and a controller that this host has not mounted."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    rows: list[tuple[Spec, str]] = [
        ({"unified": {"memory.max": "1"}}, "unified['memory.max']: cannot use unified on cgroup v1"),
        ({"network": {"classID": 5}}, "network.classID: cannot set net_cls limit: container could not join"),
    ]
    for resources, words in rows:
        if "network" in resources and os.path.isdir("/sys/fs/cgroup/net_cls"):
            continue
        one = container(limited(bundle, resources))
        one.create().fails(f"$.linux.resources.{words}")
        nothing_left(one)


def test_kernel_memory_is_a_warning(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Limits of kernel memory alone, which kernels of today ignore, are no error on v1."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = container(limited(bundle, {"memory": {"kernel": 64 * MB}}, "exit", "0"))
    result = one.pyrunc("--log-level", "warning", "run", "--bundle", one.bundle.path, one.id).ok()
    assert "$.linux.resources.memory.kernel: limits of kernel memory alone have no effect" in result.err


# --- Memory that is not enough ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_init_out_of_memory(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """An init that the kernel ends for want of memory, before it can say a word: the limit is named."""
    version = needs_controller(view, "memory")
    made = limited(bundle, {"memory": {"limit": 16 * MB, "swap": 16 * MB}})
    name = f"{support.ID_PREFIX}hungry"
    made.mapping("linux")["cgroupsPath"] = f"/{name}"
    procs = f"{'/sys/fs/cgroup/memory' if version == 1 else limits.unified_mount()}/{name}/cgroup.procs"
    # Four eat the memory, none of them most of it: it is init that has to go. Outside of the cgroup they eat little.
    made.mapping("process")["oomScoreAdj"] = 1000
    eat = " ".join(["head -c 8m /dev/zero | tail -c 8m >/dev/null &"] * 4)
    hungry = f"sh -c 'echo $$ >{procs} || exit; {eat} wait'; true"
    made.mapping("hooks")["createRuntime"] = [{"path": "/bin/sh", "args": ["sh", "-c", hungry]}]
    one = container(made, view=view)
    one.create().fails(
        "$.linux.resources.memory.limit: init was OOM-killed, the memory limit of 16777216 is too low"
    )
    nothing_left(one)
