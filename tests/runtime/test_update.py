"""update on real containers: every option and property against the cgroup's files, and what must not happen."""

from __future__ import annotations

import json
import os
import select
import subprocess
from typing import TYPE_CHECKING

import pytest

import limits
import support

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containers import BundleFactory, Container, ContainerFactory, User
    from support import Json, Spec

pytestmark = pytest.mark.root

Place = tuple[str, str, str]  # controller, file, value
MB = 1 << 20

# options, the same as JSON, where it stands on v1 and on v2
ROWS: list[tuple[str, Spec, Place, Place]] = [
    (
        "--memory 64m",
        {"memory": {"limit": 64 * MB}},
        ("memory", "memory.limit_in_bytes", str(64 * MB)),
        ("memory", "memory.max", str(64 * MB)),
    ),
    (
        "--memory-reservation=32MiB",
        {"memory": {"reservation": 32 * MB}},
        ("memory", "memory.soft_limit_in_bytes", str(32 * MB)),
        ("memory", "memory.low", str(32 * MB)),
    ),
    (
        "--memory 64m --memory-swap 128m",
        {"memory": {"limit": 64 * MB, "swap": 128 * MB}},
        ("memory", "memory.memsw.limit_in_bytes", str(128 * MB)),
        ("memory", "memory.swap.max", str(64 * MB)),
    ),
    ("--cpu-share 512", {"cpu": {"shares": 512}}, ("cpu", "cpu.shares", "512"), ("cpu", "cpu.weight", "59")),
    (
        "--cpu-quota 20000 --cpu-period 50000",
        {"cpu": {"quota": 20000, "period": 50000}},
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.max", "20000 50000"),
    ),
    (
        "--cpu-quota 20000 --cpu-burst 5000",
        {"cpu": {"quota": 20000, "burst": 5000}},
        ("cpu", "cpu.cfs_burst_us", "5000"),
        ("cpu", "cpu.max.burst", "5000"),
    ),
    ("--cpu-idle 1", {"cpu": {"idle": 1}}, ("cpu", "cpu.idle", "1"), ("cpu", "cpu.idle", "1")),
    (
        "--cpuset-cpus 0",
        {"cpu": {"cpus": "0"}},
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.cpus", "0"),
    ),
    (
        "--cpuset-mems 0",
        {"cpu": {"mems": "0"}},
        ("cpuset", "cpuset.mems", "0"),
        ("cpuset", "cpuset.mems", "0"),
    ),
    ("--pids-limit 20", {"pids": {"limit": 20}}, ("pids", "pids.max", "20"), ("pids", "pids.max", "20")),
    ("--pids-limit -1", {"pids": {"limit": -1}}, ("pids", "pids.max", "max"), ("pids", "pids.max", "max")),
    ("--pids-limit 0", {"pids": {"limit": 0}}, ("pids", "pids.max", "0"), ("pids", "pids.max", "0")),
    (
        "--blkio-weight 100",
        {"blockIO": {"weight": 100}},
        ("blkio", "blkio.bfq.weight", "100"),
        ("io", "io.bfq.weight", "default 100"),
    ),
]
IDS = [row[0].replace(" ", "_") for row in ROWS]


def place(one: Container, spot: Place, version: int) -> str:
    """What stands there."""
    return limits.read(one, spot[0] if version == 1 else "", spot[1])


def choose(view: str, v1: Place, v2: Place) -> tuple[int, Place]:
    """The version of cgroups here and its place; skips where cgroup2 has no such controller."""
    if limits.version(view) == 1:
        return 1, v1
    limits.needs_v2_controller(v2[0])
    return 2, v2


def pausing(
    container: ContainerFactory, bundle: BundleFactory, view: str = "host", resources: Spec | None = None
) -> Container:
    """A container that runs and waits."""
    made = bundle("probe").probe("pause")
    made.mapping("linux", "resources").update(resources or {})
    one = container(made, view=view).up()
    one.expect("ready")
    return one


def update(one: Container, document: Mapping[str, Json] | str, *options: str) -> support.Result:
    """update with a document on standard input."""
    text = document if isinstance(document, str) else json.dumps(document)
    return one.pyrunc("update", "--resources", "-", *options, one.id, stdin=text)


def stored(one: Container) -> Spec:
    """The resources of the container's own copy of the configuration."""
    with open(os.path.join(one.root, one.id, "config.json"), encoding="utf-8") as stream:
        found: Spec = json.load(stream)["linux"]["resources"]
    return found


@pytest.mark.parametrize(("options", "document", "v1", "v2"), ROWS, ids=IDS)
def test_options_and_document(
    container: ContainerFactory,
    bundle: BundleFactory,
    view: str,
    options: str,
    document: Spec,
    v1: Place,
    v2: Place,
) -> None:
    """An option and the same in a document set the same file to the same value, and both are kept."""
    version, spot = choose(view, v1, v2)
    one = pausing(container, bundle, view)
    if spot[1] == "io.bfq.weight":
        where = limits.directory(one.pid, "")
        if not os.path.exists(f"{where}/{spot[1]}"):
            support.needs(os.path.exists(f"{where}/io.weight"), "a scheduler with block I/O weights")
            spot = ("io", "io.weight", "default 910")
    before = place(one, spot, version)
    one.pyrunc("update", *options.split(), one.id).ok()
    assert place(one, spot, version) == spot[2]
    wanted = {name: value for name, value in stored(one).items() if name != "devices"}
    assert wanted == document
    other = pausing(container, bundle, view)
    assert place(other, spot, version) == before
    result = update(other, document).ok()
    assert (result.out, result.err) == ("", "")
    assert place(other, spot, version) == spot[2]
    assert stored(other) == stored(one)


def test_realtime(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Realtime bandwidth is v1's alone; on v2 it is refused under the option's name."""
    one = pausing(container, bundle)
    result = one.pyrunc("update", "--cpu-rt-period", "900000", "--cpu-rt-runtime", "0", one.id)
    if limits.version("host") == 1:
        result.ok()
        assert limits.read(one, "cpu", "cpu.rt_period_us") == "900000"
    else:
        result.fails("--cpu-rt-period: cgroup v2 has no realtime bandwidth")


def test_what_v2_lacks(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A value that cgroup v2 cannot express is an error, whatever else the document says, and nothing is set."""
    one = pausing(container, bundle, "v2")
    before = stored(one)
    update(one, {"network": {"classID": 5}}).fails("$.network.classID: network limits not supported")
    update(one, {"memory": {"swappiness": 5}}).fails("$.memory.swappiness: cgroup v2 has no swappiness")
    assert stored(one) == before


def test_huge_pages_and_unified_on_v2(container: ContainerFactory, bundle: BundleFactory) -> None:
    """What the cgroup2 of a mixed host can limit is limited, and unified files are written as they are."""
    with open(f"{limits.unified_mount()}/cgroup.controllers", encoding="ascii") as stream:
        support.needs("hugetlb" in stream.read().split(), "the hugetlb controller on cgroup2")
    one = pausing(container, bundle, "v2")
    update(one, {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MB}]}).ok()
    assert limits.read(one, "", "hugetlb.2MB.max") == str(4 * MB)
    assert limits.read(one, "", "hugetlb.2MB.rsvd.max") == str(4 * MB)
    document: Spec = {"unified": {"hugetlb.2MB.max": str(6 * MB), "cgroup.max.depth": "5"}}
    update(one, document).ok()
    assert limits.read(one, "", "hugetlb.2MB.max") == str(6 * MB)
    bad: Spec = {"unified": {"hugetlb.2MB.max": "max", "cgroup.max.depth": "x"}}
    update(one, bad).fails("$.unified['cgroup.max.depth']: write", "invalid argument", "the value was 'x'")
    assert limits.read(one, "", "hugetlb.2MB.max") == str(6 * MB), "the first was set back"
    assert limits.read(one, "", "cgroup.max.depth") == "5"
    assert stored(one)["unified"] == document["unified"]
    update(one, {"unified": {"nothing.here": "1"}}).fails(
        "$.unified['nothing.here']: no file 'nothing.here'"
    )


def test_a_document_makes_options_void(container: ContainerFactory, bundle: BundleFactory) -> None:
    """With --resources the other options are ignored, those with a bad value too; both spellings, file or stdin."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = pausing(container, bundle)
    path = os.path.join(one.root, "update.json")
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({"pids": {"limit": 33}}, stream)
    one.pyrunc("update", f"--resources={path}", "--pids-limit", "44", "--memory", "x", one.id).ok()
    assert limits.read(one, "pids", "pids.max") == "33"
    one.pyrunc("update", "--resources=-", one.id, stdin='{"pids": {"limit": 34}}').ok()
    assert limits.read(one, "pids", "pids.max") == "34"
    one.pyrunc("update", "-r", "-", one.id, stdin='{"pids": null, "unknown": [1]}').ok()
    assert limits.read(one, "pids", "pids.max") == "34"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "standard input"),
        ("{", "standard input"),
        ("null", "resources cannot be null"),
        ("[]", "$: "),
        ('{"memory": {"limit": "1g"}}', "$.memory.limit: "),
        ('{"memory": {"limit": 1.5}}', "$.memory.limit: "),
        ('{"cpu": {"shares": -1}}', "$.cpu.shares: "),
        ('{"pids": {"limit": 1}, "pids": {"limit": 2}}', "pids"),
        (
            '{"memory": {"limit": 100, "swap": 50}}',
            "$.memory.swap: memory+swap limit should be >= memory limit",
        ),
        ('{"memory": {"swap": 5000000}}', "$.memory.swap: unable to set swap limit without memory limit"),
        ('{"cpu": {"quota": 1000, "burst": 2000}}', "$.cpu.burst: "),
        (
            '{"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}',
            "$.blockIO.weightDevice[0]: at least one",
        ),
        ('{"rdma": {"mlx": {}}}', "$.rdma.mlx: "),
        ('{"unified": {"a/b.c": "1"}}', "$.unified['a/b.c']: "),
    ],
)
def test_bad_documents(container: ContainerFactory, bundle: BundleFactory, text: str, words: str) -> None:
    """What is no document, or breaks a rule, is refused with its path before anything is written."""
    one = pausing(container, bundle)
    before = stored(one)
    update(one, text).fails(words)
    assert stored(one) == before


def test_bad_calls(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A file that is not there, a container that is not there, options that say nothing sensible."""
    one = pausing(container, bundle)
    one.pyrunc("update", "-r", "/no/such", one.id).fails("open '/no/such': no such file or directory")
    one.pyrunc("update", "--memory", "1x", one.id).fails("invalid value for memory: invalid size: '1x'")
    one.pyrunc("update", "--cpu-share", "-3", one.id).fails("invalid value for cpu-share: parsing '-3'")
    one.pyrunc("update", "--blkio-weight", "5", one.id).fails("--blkio-weight: 5 is no weight")
    one.pyrunc("update", "--l3-cache-schema", "L3:0=f", one.id).fails(
        "--l3-cache-schema: Intel RDT is not enabled for the container"
    )
    one.pyrunc("update", "--mem-bw-schema", "MB:0=20", one.id).fails("--mem-bw-schema: Intel RDT")
    one.pyrunc("update", "--memory", "1g", "no-such").fails("container does not exist")
    one.pyrunc("update", one.id).ok()


def test_kernel_memory_is_a_warning(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Limits of kernel memory, which kernels ignore, are accepted; a warning says so where warnings are shown."""
    one = pausing(container, bundle)
    result = one.pyrunc("update", "--kernel-memory", "5m", "--kernel-memory-tcp", "x", one.id).ok()
    assert result.err == ""
    result = one.pyrunc("--log-level", "warning", "update", "--kernel-memory", "5m", one.id).ok()
    assert "--kernel-memory is ignored" in result.err


def test_of_quota_and_period_one_is_kept(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """Either alone leaves the other as the configuration, and each update since, has it."""
    version, spot = choose(view, ("cpu", "cpu.cfs_quota_us", ""), ("cpu", "cpu.max", ""))
    one = pausing(container, bundle, view, {"cpu": {"quota": 30000, "period": 60000}})

    def both() -> str:
        quota = place(one, spot, version)
        return f"{quota} {limits.read(one, 'cpu', 'cpu.cfs_period_us')}" if version == 1 else quota

    assert both() == "30000 60000"
    one.pyrunc("update", "--cpu-period", "90000", one.id).ok()
    assert both() == "30000 90000"
    one.pyrunc("update", "--cpu-quota", "45000", one.id).ok()
    assert both() == "45000 90000"
    update(one, {"cpu": {"period": 50000}}).ok()
    assert both() == "45000 50000"
    update(one, {"cpu": {"period": 1}}).fails("$.cpu.period: write", "invalid argument")
    assert both() == "45000 50000"
    one.pyrunc("update", "--cpu-quota", "-1", one.id).ok()
    assert both() == ("-1 50000" if version == 1 else "max 50000")
    assert stored(one)["cpu"] == {"quota": -1, "period": 50000}


def test_memory_and_swap_in_any_direction(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """Both raised, both lowered, swap alone, no limit at all: in an order that the kernel takes."""
    version, spot = choose(
        view, ("memory", "memory.memsw.limit_in_bytes", ""), ("memory", "memory.swap.max", "")
    )
    limit_file = "memory.limit_in_bytes" if version == 1 else "memory.max"
    one = pausing(container, bundle, view, {"memory": {"limit": 50 * MB, "swap": 100 * MB}})

    def both() -> tuple[int, int]:
        """The limit, and what memory and swap have together; -1 is none."""
        limit, swap = place(one, ("memory", limit_file, ""), version), place(one, spot, version)
        if version == 1:
            unlimited = (1 << 63) - 4096
            return (
                -1 if int(limit) == unlimited else int(limit),
                -1 if int(swap) == unlimited else int(swap),
            )
        return (-1 if limit == "max" else int(limit), -1 if swap == "max" else int(swap) + int(limit))

    assert both() == (50 * MB, 100 * MB)
    for limit, swap in ((200, 300), (20, 30), (31, 31), (200, 201)):
        one.pyrunc("update", "--memory", f"{limit}m", "--memory-swap", f"{swap}m", one.id).ok()
        assert both() == (limit * MB, swap * MB)
    one.pyrunc("update", "--memory-swap", "250m", one.id).ok()
    assert both() == (200 * MB, 250 * MB)
    one.pyrunc("update", "--memory-swap", "100m", one.id).fails(
        "--memory-swap: memory+swap limit should be >="
    )
    one.pyrunc("update", "--memory", "-1", one.id).ok()
    assert both() == (-1, -1)
    assert stored(one)["memory"] == {"limit": -1, "swap": -1}


def test_swap_that_is_in_the_way(container: ContainerFactory, bundle: BundleFactory) -> None:
    """On v1 a limit above the one of memory and swap is refused; the hint names that limit."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = pausing(container, bundle, "host", {"memory": {"limit": 50 * MB, "swap": 100 * MB}})
    result = one.pyrunc("update", "--memory", "200m", one.id).fails("--memory: write", "invalid argument")
    assert f"memory and swap together are limited to {100 * MB}: set memory.swap as well" in result.err
    assert limits.read(one, "memory", "memory.limit_in_bytes") == str(50 * MB)


def test_a_failure_changes_nothing(container: ContainerFactory, bundle: BundleFactory) -> None:
    """When the last value is refused those before it are set back, to what they were and not to what is stored."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = pausing(container, bundle, "host", {"memory": {"limit": 50 * MB, "swap": 100 * MB}})
    limits.write(one, "pids", "pids.max", "77")
    before = stored(one)
    document: Spec = {
        "pids": {"limit": 5},
        "memory": {"limit": 200 * MB, "swap": 300 * MB, "disableOOMKiller": True},
        "cpu": {"shares": 300, "quota": 20000, "period": 40000, "idle": 1, "cpus": "1000"},
    }
    update(one, document).fails("$.cpu.cpus: write", "the value was '1000'; the parent cgroup has")
    document["cpu"] = {"shares": 300, "idle": 1}
    document["blockIO"] = {"weight": 200, "throttleReadBpsDevice": [{"major": 999, "minor": 0, "rate": 9}]}
    update(one, document).fails("$.blockIO.throttleReadBpsDevice[0]: write", "no such device")
    values = {
        ("pids", "pids.max"): "77",
        ("memory", "memory.limit_in_bytes"): str(50 * MB),
        ("memory", "memory.memsw.limit_in_bytes"): str(100 * MB),
        ("cpu", "cpu.shares"): "1024",
        ("cpu", "cpu.cfs_quota_us"): "-1",
        ("cpu", "cpu.cfs_period_us"): "100000",
        ("cpu", "cpu.idle"): "0",
        ("blkio", "blkio.bfq.weight"): "100",
    }
    assert {key: limits.read(one, *key) for key in values} == values
    assert limits.read(one, "memory", "memory.oom_control").startswith("oom_kill_disable 0")
    assert stored(one) == before


def test_a_limit_below_what_is_used(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The kernel of v1 does not go below what cannot be reclaimed; the error says how much is used."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = pausing(container, bundle, "host", {"memory": {"limit": 50 * MB}})
    update(one, {"memory": {"limit": 4096}}).fails(
        "$.memory.limit: unable to set memory limit to 4096 (current usage: "
    )
    assert one.status() == "running"
    assert limits.read(one, "memory", "memory.limit_in_bytes") == str(50 * MB)


def test_check_before_update(container: ContainerFactory, bundle: BundleFactory) -> None:
    """With checkBeforeUpdate in the configuration v2 refuses a limit below what is used, in later updates too."""
    limits.needs_v2_controller("memory")
    one = pausing(container, bundle, "v2", {"memory": {"limit": 50 * MB, "checkBeforeUpdate": True}})
    one.pyrunc("update", "--memory", "4k", one.id).fails("--memory: rejecting memory limit 4096 <= usage")
    assert one.status() == "running"
    assert limits.read(one, "", "memory.max") == str(50 * MB)


def test_created_running_paused_stopped(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """update works as long as there is a container to limit."""
    _, spot = choose(view, ("pids", "pids.max", ""), ("pids", "pids.max", ""))
    controller = spot[0] if limits.version(view) == 1 else ""
    one = container(bundle("probe").probe("pause"), view=view)
    one.create().ok()
    for status, limit in (("created", "11"), ("running", "12"), ("paused", "13")):
        if status == "running":
            one.start().ok()
        elif status == "paused":
            one.pyrunc("pause", one.id).ok()
        assert one.status() == status
        one.pyrunc("update", "--pids-limit", limit, one.id).ok()
        assert limits.read(one, controller, "pids.max") == limit
    one.pyrunc("resume", one.id).ok()
    one.kill().ok()
    one.wait()
    one.pyrunc("update", "--pids-limit", "14", one.id).fails("container not running: stopped")
    assert stored(one)["pids"] == {"limit": 13}


def test_no_device_is_taken_away(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """The blanket denial that engines send with every update changes no device rule, nor what is stored."""
    made = bundle("busybox", "sh", "-c", "read x; echo hi > /dev/kmsg2 && echo opened")
    device: Spec = {"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}
    made.list_of("linux", "devices").append(device)
    rule: Spec = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    made.list_of("linux", "resources", "devices").append(rule)
    one = container(made, view=view)
    reader, writer = os.pipe()
    one.create(stdin=reader).ok()
    os.close(reader)
    one.start().ok()
    before = stored(one)
    update(one, {"devices": [{"allow": False, "access": "rwm"}]}).ok()
    os.write(writer, b"\n")
    os.close(writer)
    assert one.output() == "opened\n"
    assert one.wait() == 0
    assert stored(one) == before


ENGINES: list[tuple[str, Spec, dict[tuple[str, str], str]]] = [
    (
        "kubernetes by containerd",
        {
            "devices": [{"allow": True, "access": "rwm"}],
            "memory": {"limit": 134217728, "swap": 134217728},
            "cpu": {"shares": 1024, "quota": 80000, "period": 100000, "cpus": "0"},
        },
        {
            ("memory", "memory.limit_in_bytes"): "134217728",
            ("memory", "memory.memsw.limit_in_bytes"): "134217728",
            ("cpu", "cpu.cfs_quota_us"): "80000",
            ("cpuset", "cpuset.cpus"): "0",
        },
    ),
    (
        "docker",
        {
            "memory": {"limit": 67108864, "reservation": 0, "swap": 134217728, "kernel": 0},
            "cpu": {"shares": 0, "quota": 50000, "period": 100000},
            "pids": {"limit": 50},
            "blockIO": {"weight": 0},
        },
        {
            ("memory", "memory.limit_in_bytes"): "67108864",
            ("memory", "memory.memsw.limit_in_bytes"): "134217728",
            ("cpu", "cpu.shares"): "1024",
            ("cpu", "cpu.cfs_quota_us"): "50000",
            ("pids", "pids.max"): "50",
        },
    ),
    (
        "podman",
        {"memory": {"limit": 67108864, "swap": 134217728}, "cpu": {"quota": 50000, "period": 100000}},
        {
            ("memory", "memory.memsw.limit_in_bytes"): "134217728",
            ("cpu", "cpu.cfs_quota_us"): "50000",
        },
    ),
]


@pytest.mark.parametrize(
    ("document", "values"), [row[1:] for row in ENGINES], ids=[row[0] for row in ENGINES]
)
def test_what_engines_send(
    container: ContainerFactory, bundle: BundleFactory, document: Spec, values: dict[tuple[str, str], str]
) -> None:
    """The documents of real engines: 0 leaves a value, devices are ignored, all the rest is set, silently."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = pausing(container, bundle)
    result = update(one, document).ok()
    assert (result.out, result.err) == ("", "")
    assert {key: limits.read(one, *key) for key in values} == values


def test_twenty_at_once(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Parallel updates wait for each other: every one succeeds, and what is stored is what is set."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = pausing(container, bundle)
    running = [
        subprocess.Popen(
            [*one.command, "update", "--pids-limit", str(number), "--cpu-share", str(number), one.id],
            stderr=subprocess.PIPE,
            cwd="/",
        )
        for number in range(100, 120)
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    final = limits.read(one, "pids", "pids.max")
    assert 100 <= int(final) < 120
    assert limits.read(one, "cpu", "cpu.shares") == final
    assert stored(one)["pids"] == {"limit": int(final)}
    assert stored(one)["cpu"] == {"shares": int(final)}
    assert not [name for name in os.listdir(os.path.join(one.root, one.id)) if name.endswith(".new")]


def test_while_create_runs(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A container that is still being created is refused at once, without waiting for the create."""
    made = bundle("probe").probe("pause")
    fifo = os.path.join(made.path, "fifo")
    os.mkfifo(fifo)
    script = f"echo x > {fifo}; cat {fifo} > /dev/null"
    made.spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    one = container(made)
    process = subprocess.Popen([*one.command, "create", "--bundle", made.write().path, one.id], cwd="/")
    try:
        with open(fifo, "rb") as stream:
            assert select.select([stream], [], [], 10)[0]
            one.pyrunc("update", "--pids-limit", "5", one.id, timeout=5).fails(
                "container not running: creating"
            )
    finally:
        with open(fifo, "wb"):
            pass
        assert process.wait(10) == 0


PROGRAM = """
import sys
from pyrunc import runtime
from pyrunc.errors import PyruncError
from pyrunc.requests import Context
ctx = Context(sys.argv[1])
runtime.update(ctx, sys.argv[2], {"cpu": {"idle": 0}})
for wrong in ({"pids": {"limit": "x"}}, {"cpu": {"cpus": "1000"}}):
    try:
        runtime.update(ctx, sys.argv[2], wrong)
    except PyruncError as error:
        print(type(error).__name__, error.path)
"""


def test_from_python(container: ContainerFactory, bundle: BundleFactory) -> None:
    """runtime.update takes the resources as they are in config.json; paths in errors begin there."""
    support.needs(limits.version("host") == 1, "cgroup v1")
    one = pausing(container, bundle)
    result = support.run(support.PYTHON, "-c", PROGRAM, one.root, one.id).ok()
    assert result.out.splitlines() == ["ConfigError $.pids.limit", "KernelError $.cpu.cpus"]
    assert stored(one)["cpu"] == {"idle": 0}


def test_rootless(container: ContainerFactory, bundle: BundleFactory, rootless: User) -> None:
    """Without a cgroup there is nothing to limit: the error says so, and an empty update is content."""
    one = container(bundle("probe", user=rootless).probe("pause"), user=rootless).up()
    one.expect("ready")
    one.pyrunc("update", "--pids-limit", "5", one.id).fails(
        "--pids-limit: cannot set pids limit: container could not join or create cgroup", "delegated"
    )
    update(one, {}).ok()
    update(one, {"devices": [{"allow": False, "access": "rwm"}]}).ok()
    one.delete("--force").ok()
    one.wait()
