"""Rules that compare with the host, or that depend on who asks; the others are in the corpus (test_config.py)."""

from __future__ import annotations

import json

import pytest

from pyrunc.config import load, resource_update
from pyrunc.config.rules import document as rules
from pyrunc.config.rules import linux as rules_linux
from pyrunc.errors import ConfigError
from pyrunc.host.gather import HostFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.shapes import IDMapping, Linux, Memory, Mount, Spec

IDS: list[IDMapping] = [
    {"containerID": 0, "hostID": 1000, "size": 1},
    {"containerID": 1, "hostID": 100000, "size": 9},
]


def spec(linux: Linux | None = None, mounts: list[Mount] | None = None) -> Spec:
    return {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/"},
        "mounts": mounts or [],
        "linux": linux or {},
    }


def refused(document: Spec, host: HostFacts | None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        rules.check(document, host)
    return caught.value


ROOTLESS = HostFacts(euid=1000, egid=1000, rootless=True)
MAPPED: Linux = {"namespaces": [{"type": "user"}, {"type": "mount"}], "uidMappings": IDS, "gidMappings": IDS}


@pytest.mark.parametrize("kind", ["user", "cgroup", "time"])
def test_a_namespace_the_kernel_lacks(kind: str) -> None:
    linux: Linux = {"namespaces": [{"type": "pid"}, {"type": kind}]}
    if kind == "user":
        linux["uidMappings"] = linux["gidMappings"] = IDS
    rules.check(spec(linux), HostFacts())
    error = refused(spec(linux), HostFacts(namespaces=frozenset({"pid", "mount"})))
    assert error.message == f"{kind} namespaces aren't enabled in the kernel"
    assert error.path == "$.linux.namespaces[1].type"


def test_without_root_a_user_namespace_is_needed() -> None:
    rules.check(spec(), HostFacts())
    error = refused(spec(), ROOTLESS)
    assert (error.path, error.message) == ("$.linux.namespaces", "rootless containers need a user namespace")
    rules.check(spec(MAPPED), ROOTLESS)
    rules.check(spec({"namespaces": [{"type": "user", "path": "/run/userns"}]}), ROOTLESS)


@pytest.mark.parametrize(
    ("option", "good"), [("gid=5", True), ("gid=10", False), ("uid=0", True), ("uid=70", False)]
)
def test_without_root_a_mount_belongs_to_mapped_ids(option: str, good: bool) -> None:
    """The kernel would say EINVAL, which tells nobody that gid=5 of the usual /dev/pts is the culprit."""
    document = spec(MAPPED, [{"destination": "/dev/pts", "type": "devpts", "options": ["nosuid", option]}])
    rules.check(document, HostFacts())
    if good:
        rules.check(document, ROOTLESS)
        return
    error = refused(document, ROOTLESS)
    assert error.path == "$.mounts[0].options[1]"
    assert f"cannot specify {option} mount option for rootless container" in error.message


def test_without_root_mounts_have_no_ids_of_their_own() -> None:
    mount: Mount = {
        "destination": "/a",
        "source": "/b",
        "options": ["bind"],
        "uidMappings": IDS,
        "gidMappings": IDS,
    }
    error = refused(spec(MAPPED, [mount]), ROOTLESS)
    assert (error.path, error.message) == (
        "$.mounts[0]",
        "id-mapped mounts are not supported for rootless containers",
    )


def test_without_root_network_devices_stay() -> None:
    linux: Linux = {**MAPPED, "netDevices": {"eth0": {}}}
    linux["namespaces"] = [{"type": "user"}, {"type": "network"}]
    error = refused(spec(linux), ROOTLESS)
    assert error.message == "network devices are not supported for rootless containers"


def test_labels_need_their_security_module() -> None:
    """Known texts where the kernel lacks it; "unconfined" is what everything is without AppArmor."""
    document = spec()
    document["process"]["selinuxLabel"] = "a:b:c"
    text = "selinux label is specified in config, but selinux is disabled or not supported"
    error = refused(document, HostFacts())
    assert (error.path, error.message) == ("$.process.selinuxLabel", text)
    rules.check(document, HostFacts(selinux=True))
    rules.check(spec({"mountLabel": "a:b:c"}), HostFacts())
    error = refused(spec({"mountLabel": "a:b:c"}), HostFacts(strict=True))
    assert (error.path, error.message) == ("$.linux.mountLabel", text)

    document = spec()
    document["process"]["apparmorProfile"] = "docker-default"
    assert "apparmor is disabled or not supported" in refused(document, HostFacts()).message
    rules.check(document, HostFacts(apparmor=True))
    document["process"]["apparmorProfile"] = "unconfined"
    rules.check(document, HostFacts())


def test_resctrl_must_be_mounted() -> None:
    """config-linux.md: without a mounted resctrl the runtime MUST generate an error."""
    error = refused(spec({"intelRdt": {}}), HostFacts())
    text = "intelRdt is specified in config, but Intel RDT is not enabled"
    assert (error.path, error.message) == ("$.linux.intelRdt", text)


@pytest.mark.parametrize(
    ("memory", "partial"), [({"swap": 5}, True), ({"swap": -1}, False), ({"swap": 0}, False)]
)
def test_an_update_may_name_swap_alone(memory: Memory, partial: bool) -> None:
    rules.check_resources({"memory": memory}, "$", partial=partial)


@pytest.mark.parametrize("memory", [{"swap": 5}, {"swap": 5, "limit": -1}, {"swap": 5, "limit": 0}])
def test_swap_is_a_sum(memory: Memory) -> None:
    with pytest.raises(ConfigError, match="unable to set swap limit without memory limit") as caught:
        rules.check_resources({"memory": memory}, "$")
    assert caught.value.path == "$.memory.swap"


REFUSED_RESOURCES: list[tuple[dict[str, object], str, str]] = [
    ({"memory": {"limit": -2}}, "memory.limit", "-2 is less than -1"),
    ({"memory": {"limit": "1g"}}, "memory.limit", "is not a whole number"),
    ({"memory": {"limit": True}}, "memory.limit", "is not a whole number"),
    ({"memory": []}, "memory", "is not an object"),
    ({"memory": {"checkBeforeUpdate": 1}}, "memory.checkBeforeUpdate", "is not true or false"),
    ({"memory": {"swappiness": -1}}, "memory.swappiness", "-1 is less than 0"),
    ({"memory": {"swappiness": 101}}, "memory.swappiness", "101 is greater than 100"),
    ({"cpu": {"quota": 1000, "burst": 2000}}, "cpu.burst", "burst 2000 is greater than quota 1000"),
    ({"cpu": {"idle": 2}}, "cpu.idle", "2 is greater than 1"),
    ({"cpu": {"cpus": 3}}, "cpu.cpus", "is not a string"),
    ({"blockIO": {"weight": 9}}, "blockIO.weight", "9 is no weight: 10 to 1000"),
    ({"blockIO": {"weight": 1001}}, "blockIO.weight", "1001 is no weight: 10 to 1000"),
    ({"blockIO": {"leafWeight": 9}}, "blockIO.leafWeight", "9 is no weight: 10 to 1000"),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}},
        "blockIO.weightDevice[0]",
        "at least one of",
    ),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 9}]}},
        "blockIO.weightDevice[0].leafWeight",
        "9 is no weight: 10 to 1000",
    ),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "weight": 10}]}},
        "blockIO.weightDevice[0].minor",
        "required",
    ),
    ({"blockIO": {"throttleReadBpsDevice": {}}}, "blockIO.throttleReadBpsDevice", "is not a list"),
    (
        {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0}]}},
        "blockIO.throttleReadBpsDevice[0].rate",
        "required",
    ),
    ({"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}, "hugepageLimits[0].pageSize", "such as 2MB"),
    ({"hugepageLimits": [{"pageSize": "../MB", "limit": 1}]}, "hugepageLimits[0].pageSize", "such as 2MB"),
    ({"hugepageLimits": [{"pageSize": "0MB", "limit": 1}]}, "hugepageLimits[0].pageSize", "such as 2MB"),
    ({"network": {"priorities": [{"name": "eth0"}]}}, "network.priorities[0].priority", "required"),
    ({"rdma": {"mlx5_1": {}}}, "rdma.mlx5_1", '"mlx5_1" needs hcaHandles or hcaObjects'),
    ({"devices": [{"access": "r"}]}, "devices[0].allow", "required"),
    ({"devices": [{"allow": True, "type": "d"}]}, "devices[0].type", "is not a known name"),
    (
        {"devices": [{"allow": True, "major": 1 << 32}]},
        "devices[0].major",
        "4294967296 is greater than 4294967295",
    ),
    (
        {"devices": [{"allow": True, "access": "x"}]},
        "devices[0].access",
        "is not a combination of r, w and m",
    ),
    ({"devices": [{"allow": True, "access": ""}]}, "devices[0].access", "device access cannot be empty"),
    (
        {"unified": {"a/b.c": "1"}},
        "unified['a/b.c']",
        'unified resource "a/b.c" must be a file name (no slashes)',
    ),
    (
        {"unified": {"memory": "1"}},
        "unified.memory",
        'unified resource "memory" must be in the form CONTROLLER.P',
    ),
    (
        {"unified": {".max": "1"}},
        "unified['.max']",
        'unified resource ".max" must be in the form CONTROLLER.P',
    ),
    ({"unified": {"": "1"}}, "unified['']", 'unified resource "" must be in the form CONTROLLER.PARAMETER'),
    ({"unified": {"a.b\0": "1"}}, "unified['a.b\\u0000']", "contains a null byte"),
    ({"unified": {"memory.max": 1}}, "unified['memory.max']", "is not a string"),
]


@pytest.mark.parametrize(
    ("resources", "path", "words"),
    REFUSED_RESOURCES,
    ids=[f"{row[1]} {row[2]}" for row in REFUSED_RESOURCES],
)
def test_resources_that_no_version_of_cgroups_takes(
    resources: dict[str, object], path: str, words: str
) -> None:
    """Form and rules together: what turns resources into writes of files relies on them."""
    with pytest.raises(ConfigError) as caught:
        rules.check_resources(load.load_resources(json.dumps(resources)), "$")
    assert caught.value.path == f"$.{path}"
    assert words in caught.value.message


def test_an_update_is_checked_with_what_it_is_completed_by() -> None:
    """The swap of an update is a sum with the limit from before, whatever that is."""
    rules.check_resources({"memory": {"swap": 5}}, "$", partial=True)
    for limit, words in ((-1, "unable to set swap limit without memory limit"), (6, "5 is less than 6")):
        full, stands_for = resource_update.complete({"memory": {"swap": 5}}, {"memory": {"limit": limit}})
        with pytest.raises(ConfigError, match=words) as caught:
            rules.check_resources(full, "$")  # type: ignore[arg-type]  # of checked parts
        assert (caught.value.path, stands_for) == ("$.memory.swap", {"$.memory.limit": "$.memory.swap"})


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"),
        ("plain", "plain"),
    ],
)
def test_both_spellings_of_a_sysctl(key: str, name: str) -> None:
    assert rules_linux.dotted(key) == name


def test_empty_values_ask_for_nothing() -> None:
    document = spec({"netDevices": {}, "mountLabel": ""}, [{"destination": "/a", "uidMappings": []}])
    document["process"].update({"apparmorProfile": "", "selinuxLabel": ""})
    rules.check(document, HostFacts())
