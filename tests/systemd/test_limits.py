"""Every resource of cgroup v2, by each runtime, below either driver: the files that the kernel counts by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import machines
import support
import systemd_host as others

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import BundleFactory, ContainerFactory
    from support import Json, Spec

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("v2_alone")]

MB = 1 << 20


@pytest.fixture(scope="module")
def disk() -> str:
    """A disk as MAJOR:MINOR."""
    for name in sorted(os.listdir("/sys/block")):
        if os.path.isdir(f"/sys/block/{name}/device"):
            with open(f"/sys/block/{name}/dev", encoding="ascii") as stream:
                return stream.read().strip()
    pytest.skip("a disk")


# What other runtimes do otherwise: {file: {runtime: value}}. A difference that is not there fails too.
Differences = dict[str, dict[str, str]]
# Whatever systemd or the kernel has where the runtime does not know the property.
IGNORED = "ignored"


def compare(
    container: ContainerFactory,
    bundle: BundleFactory,
    driver: str,
    resources: Spec,
    expected: dict[str, str],
    differences: Differences,
) -> None:
    """Read the files with each runtime; pyrunc's are as expected, and the others' but for the differences."""
    for runtime in others.RUNTIMES:
        made = others.limited(bundle("probe").probe("pause"), resources)
        one = others.running(container, made, runtime, driver)
        found = others.files(one, expected)
        wanted = {file: differences.get(file, {}).get(runtime, value) for file, value in expected.items()}
        for file, value in wanted.items():
            if value == IGNORED and found[file] != expected[file]:
                found[file] = IGNORED
        assert found == wanted, runtime


@pytest.mark.parametrize("driver", others.DRIVERS)
def test_limits(container: ContainerFactory, bundle: BundleFactory, driver: str, disk: str) -> None:
    """Memory with swap and reservation, processors, processes, huge pages, block I/O, and files by their own names."""
    major, minor = (int(word) for word in disk.split(":"))
    device: Spec = {"major": major, "minor": minor}
    resources: Spec = {
        "memory": {"limit": 64 * MB, "swap": 96 * MB, "reservation": 32 * MB},
        "cpu": {"shares": 512, "quota": 25_500, "period": 50_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MB}],
        "blockIO": {
            "weight": 500,
            "throttleReadBpsDevice": [{**device, "rate": 1 * MB}],
            "throttleWriteBpsDevice": [{**device, "rate": 2 * MB}],
            "throttleReadIOPSDevice": [{**device, "rate": 300}],
            "throttleWriteIOPSDevice": [{**device, "rate": 400}],
        },
        "unified": {"memory.high": str(48 * MB), "cgroup.max.depth": "5"},
    }
    expected = {
        "memory.max": str(64 * MB),
        "memory.swap.max": str(32 * MB),
        "memory.low": str(32 * MB),
        "memory.high": str(48 * MB),
        "cpu.weight": "59",
        "cpu.max": "25500 50000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "77",
        "hugetlb.2MB.max": str(4 * MB),
        "io.weight": "default 4950",
        "io.max": f"{disk} rbps={MB} wbps={2 * MB} riops=300 wiops=400",
        "cgroup.max.depth": "5",
    }
    compare(container, bundle, driver, resources, expected, {"cpu.weight": {"runc": "20", "crun": "20"}})


@pytest.mark.parametrize("driver", others.DRIVERS)
def test_none(container: ContainerFactory, bundle: BundleFactory, driver: str) -> None:
    """-1 is no limit."""
    resources: Spec = {
        "memory": {"limit": -1, "swap": -1},
        "cpu": {"quota": -1, "period": 50_000},
        "pids": {"limit": -1},
    }
    expected = {
        "memory.max": "max",
        "memory.swap.max": "max",
        "cpu.max": "max 50000",
        "pids.max": "max",
    }
    compare(container, bundle, driver, resources, expected, {})


@pytest.mark.parametrize("driver", others.DRIVERS)
def test_corners(container: ContainerFactory, bundle: BundleFactory, driver: str) -> None:
    """A burst, idle processors, swap without limit, no process beside the first."""
    resources: Spec = {
        "memory": {"limit": 64 * MB, "swap": -1},
        "cpu": {"quota": 20_000, "burst": 5_000, "idle": 1},
        "pids": {"limit": 0},
    }
    expected = {
        "memory.max": str(64 * MB),
        "memory.swap.max": "max",
        "cpu.max": "20000 100000",
        "cpu.max.burst": "5000",
        "cpu.idle": "1",
        "pids.max": "0",
    }
    # crun 1.8 and runc 1.1.5 do not know the burst and take 0 for unset, runc does not know idle processors.
    differences: Differences = {
        "cpu.max.burst": {"runc": IGNORED, "crun": IGNORED},
        "cpu.idle": {"runc": IGNORED},
        "pids.max": {"runc": IGNORED, "crun": IGNORED},
    }
    compare(container, bundle, driver, resources, expected, differences)


@pytest.fixture
def weighing(disk: str) -> Iterator[str]:
    """The disk with the scheduler whose weights are a container's own."""
    path = f"/sys/dev/block/{disk}/queue/scheduler"
    support.run("modprobe", "bfq").ok()
    with open(path, encoding="ascii") as stream:
        before = stream.read().split("[")[1].split("]")[0]
    with open(path, "w", encoding="ascii") as stream:
        stream.write("bfq")
    yield disk
    with open(path, "w", encoding="ascii") as stream:
        stream.write(before)


@pytest.mark.parametrize("driver", others.DRIVERS)
def test_weights(container: ContainerFactory, bundle: BundleFactory, driver: str, weighing: str) -> None:
    """Of block I/O, for all disks and for one."""
    major, minor = (int(word) for word in weighing.split(":"))
    weights: list[Json] = [{"major": major, "minor": minor, "weight": 200}]
    resources: Spec = {"blockIO": {"weight": 300, "weightDevice": weights}}
    compare(container, bundle, driver, resources, {"io.bfq.weight": f"default 300\n{weighing} 200"}, {})


@pytest.fixture(scope="module")
def rdma() -> str:
    """A device of remote DMA; a guest makes one of an ordinary network interface, and ends with it."""
    if machines.GUEST:
        support.run("modprobe", "rdma_rxe").ok()
        support.run("ip", "link", "add", "lane-rdma", "type", "dummy").ok()
        support.run("rdma", "link", "add", "rxe-lane", "type", "rxe", "netdev", "lane-rdma").ok()
    devices = "/sys/class/infiniband"
    support.needs(os.path.isdir(devices) and bool(os.listdir(devices)), "RDMA")
    return min(os.listdir(devices))


@pytest.mark.parametrize("driver", others.DRIVERS)
def test_rdma(container: ContainerFactory, bundle: BundleFactory, driver: str, rdma: str) -> None:
    """Handles and objects of a device, and of one only the handles."""
    resources: Spec = {"rdma": {rdma: {"hcaHandles": 3, "hcaObjects": 30}}}
    compare(
        container,
        bundle,
        driver,
        resources,
        {"rdma.max": f"{rdma} hca_handle=3 hca_object=30"},
        {"rdma.max": {"crun": IGNORED}},
    )
    made = others.limited(bundle("probe").probe("pause"), {"rdma": {rdma: {"hcaHandles": 4}}})
    one = others.running(container, made, "pyrunc", driver)
    assert others.files(one, ["rdma.max"])["rdma.max"] == f"{rdma} hca_handle=4 hca_object=max"
    one.pyrunc(
        "update", "--resources", "-", one.id, stdin=f'{{"rdma": {{"{rdma}": {{"hcaObjects": 9}}}}}}'
    ).ok()
    assert others.files(one, ["rdma.max"])["rdma.max"] == f"{rdma} hca_handle=4 hca_object=9"


# --- What the limits do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", others.DRIVERS)
@pytest.mark.parametrize("runtime", others.RUNTIMES)
def test_out_of_memory(
    container: ContainerFactory, bundle: BundleFactory, driver: str, runtime: str
) -> None:
    """Killed by the kernel, alone, and counted; the container's other processes go on."""
    memory: Spec = {"memory": {"limit": 16 * MB, "swap": 16 * MB}}
    made = others.limited(bundle("busybox", "sleep", "1000"), memory)
    one = others.running(container, made, runtime, driver)
    eats = one.exec("sh", "-c", "x=a; while :; do x=$x$x; done")
    assert eats.status == 137, eats
    assert "oom_kill 1" in others.files(one, ["memory.events"])["memory.events"].splitlines()
    assert one.status() == "running"


@pytest.mark.parametrize("driver", others.DRIVERS)
@pytest.mark.parametrize("runtime", others.RUNTIMES)
def test_freezing(container: ContainerFactory, bundle: BundleFactory, driver: str, runtime: str) -> None:
    """pause stops every process and resume lets them go on; a frozen container can be killed and deleted."""
    ticks = "while :; do echo x >>/ticks; sleep 0.05; done"
    made = bundle("busybox", "sh", "-c", f"({ticks}) & {ticks}")
    one = others.running(container, made, runtime, driver)
    path = os.path.join(made.rootfs, "ticks")
    support.wait_until(lambda: os.path.exists(path), "the first tick")
    one.pyrunc("pause", one.id).ok()
    frozen = {"cgroup.freeze": "1", "cgroup.events": "populated 1\nfrozen 1"}
    if runtime == "crun":
        # It does not wait for the last process to stop.
        support.wait_until(lambda: others.files(one, frozen) == frozen, "the end of freezing")
    assert others.files(one, frozen) == frozen
    assert one.status() == "paused"
    before = os.path.getsize(path)
    one.pyrunc("resume", one.id).ok()
    support.wait_until(lambda: os.path.getsize(path) > before, "ticks after the pause")
    one.pyrunc("pause", one.id).ok()
    where = others.directory(one)
    one.kill("KILL").ok()
    one.wait()
    one.delete().ok()
    assert not os.path.exists(where)


@pytest.mark.parametrize("driver", others.DRIVERS)
@pytest.mark.parametrize("runtime", others.RUNTIMES)
def test_killing_what_is_below(
    container: ContainerFactory, bundle: BundleFactory, driver: str, runtime: str
) -> None:
    """Without a PID namespace KILL reaches every process, also those in cgroups that the container made."""
    script = (
        "mkdir /sys/fs/cgroup/below; sleep 1000 & echo $! >/sys/fs/cgroup/below/cgroup.procs; echo up; wait"
    )
    made = bundle("busybox", "sh", "-c", script).without_namespace("pid").namespace("cgroup")
    made.mount("/sys/fs/cgroup", "cgroup", "cgroup", "rw")
    one = others.running(container, made, runtime, driver)
    one.expect("up")
    where = others.directory(one)
    with open(f"{where}/below/cgroup.procs", encoding="ascii") as stream:
        (other,) = (int(word) for word in stream.read().split())
    # Only on demand is it every process with the others.
    one.kill("KILL", *(() if runtime == "pyrunc" else ("--all",))).ok()
    one.wait()
    support.wait_until(lambda: support.process_gone(other), "the end of the process below")
    one.delete().ok()
    assert not os.path.exists(where)


# --- Whose it is ------------------------------------------------------------------------------------------------------


# runc 1.1.5 gives only scopes away, crun 1.8 only on demand.
@pytest.mark.parametrize(
    ("runtime", "driver"), [("pyrunc", "cgroupfs"), ("pyrunc", "systemd"), ("runc", "systemd")]
)
def test_ownership(container: ContainerFactory, bundle: BundleFactory, driver: str, runtime: str) -> None:
    """With a user namespace the files to delegate are its root's, which can make cgroups below; nothing else is."""
    made = bundle("userns").args("/bin/probe", "pause").namespace("cgroup")
    made.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "rw")
    mapping = made.at("linux", "uidMappings", 0)
    assert isinstance(mapping, dict)
    one = others.running(container, made, runtime, driver)
    where = others.directory(one)
    with open("/sys/kernel/cgroup/delegate", encoding="ascii") as stream:
        names = {name for name in stream.read().split() if os.path.exists(f"{where}/{name}")}
    owners = {name: os.stat(f"{where}/{name}").st_uid for name in os.listdir(where)}
    assert {name for name, owner in owners.items() if owner == mapping["hostID"]} == names
    assert os.stat(where).st_uid == mapping["hostID"]
    assert os.stat(os.path.dirname(where)).st_uid == 0
    assert one.exec("/bin/probe", "mkdir", "/sys/fs/cgroup/below").ok().out == "mkdir 0\n"
    assert os.path.isdir(f"{where}/below")
