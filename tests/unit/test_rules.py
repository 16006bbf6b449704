"""Rules that compare with the host, or that depend on who asks; the others are in the corpus (test_config.py)."""

from __future__ import annotations

import json

import pytest

from pyrunc.cgroups.systemd import unit
from pyrunc.config import load, resource_update
from pyrunc.config.rules import document as rules
from pyrunc.config.rules import fail
from pyrunc.config.rules import resources as rules_resources
from pyrunc.errors import ConfigError
from pyrunc.plan import process as plan_process
from pyrunc.plan import wire
from pyrunc.spec import mount_options, sysctl
from pyrunc.spec.host_facts import HostFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pathlib

    from pyrunc.spec.shapes import IDMapping, Linux, Memory, Mount, Spec

Json = dict[str, object]
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
    rules_resources.check({"memory": memory}, "$", partial=partial)


@pytest.mark.parametrize("memory", [{"swap": 5}, {"swap": 5, "limit": -1}, {"swap": 5, "limit": 0}])
def test_swap_is_a_sum(memory: Memory) -> None:
    with pytest.raises(ConfigError, match="unable to set swap limit without memory limit") as caught:
        rules_resources.check({"memory": memory}, "$")
    assert caught.value.path == "$.memory.swap"


@pytest.mark.parametrize(
    ("kind", "options", "bind"),
    [
        ("none", ["bind"], True),
        ("tmpfs", ["ro", "rbind"], True),
        ("bind", [], True),
        ("bind", ["remount", "ro"], False),
        ("none", ["remount", "bind"], True),
        ("tmpfs", [], False),
        ("", ["ro"], False),
    ],
)
def test_what_a_bind_mount_is(kind: str, options: list[str], bind: bool) -> None:
    """Rules and planner ask the same function, and what the planner makes shows it."""
    mount: Mount = {"destination": "/a", "source": "/b", "type": kind, "options": options}
    assert mount_options.is_bind(mount) is bind
    assert mount_options.parse(options).bind is ("bind" in options or "rbind" in options)


@pytest.mark.parametrize("kind", ["bind", "none", "proc"])
def test_a_remount_of_proc_mounts_nothing_there(kind: str) -> None:
    """runc and crun take it, whatever its type; the same without remount is refused for another type."""
    mount: Mount = {"destination": "/proc", "type": kind, "options": ["remount", "ro"]}
    rules.check(spec({}, [mount]), HostFacts())
    mount = {"destination": "/proc", "type": "tmpfs", "options": ["ro"]}
    assert "is not of type proc" in refused(spec({}, [mount]), HostFacts()).message


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("", 0),
        (" ", 0),
        ("0", 1),
        ("0-3,7", 0x8F),
        (" 0 - 3 , 7,", 0x8F),
        ("3,3,2-3", 0xC),
        ("64", 1 << 64),
        ("3-1", None),
        ("x", None),
        ("1-", None),
        ("-1", None),
        ("\u0661", None),
        ("0-3:1/2", None),
        ("65536", None),
        ("1" * 41, None),
    ],
)
def test_lists_of_numbers(text: str, mask: int | None) -> None:
    """Rules, planner and systemd's unit read them alike: what one refuses, all refuse."""
    if mask is None:
        with pytest.raises(ConfigError):
            fail.numbers(text, "$")
        with pytest.raises(ValueError, match="number|beyond|before it begins"):
            plan_process.bit_list(text)
        assert unit.set_bits(text) is None
        return
    assert fail.numbers(text, "$") == mask.bit_count()
    assert int.from_bytes(plan_process.bit_list(text), wire.ORDER) == mask
    assert int.from_bytes(bytes(unit.set_bits(text) or []), "little") == mask


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
        rules_resources.check(load.load_resources(json.dumps(resources)), "$")
    assert caught.value.path == f"$.{path}"
    assert words in caught.value.message


def test_an_update_is_checked_with_what_it_is_completed_by() -> None:
    """The swap of an update is a sum with the limit from before, whatever that is."""
    rules_resources.check({"memory": {"swap": 5}}, "$", partial=True)
    for limit, words in ((-1, "unable to set swap limit without memory limit"), (6, "5 is less than 6")):
        full, stands_for = resource_update.complete({"memory": {"swap": 5}}, {"memory": {"limit": limit}})
        with pytest.raises(ConfigError, match=words) as caught:
            rules_resources.check(full, "$")  # type: ignore[arg-type]  # of checked parts
        assert (caught.value.path, stands_for) == ("$.memory.swap", {"$.memory.limit": "$.memory.swap"})


NOTIFY: Json = {"names": ["mount", "sendmsg", "write"], "action": "SCMP_ACT_NOTIFY"}
REFUSED_FILTERS: list[tuple[Json, str, str]] = [
    ({}, "defaultAction", "required"),
    (
        {"defaultAction": "SCMP_ACT_X"},
        "defaultAction",
        "string SCMP_ACT_X is not a valid action for seccomp",
    ),
    (
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        "defaultAction",
        "SCMP_ACT_NOTIFY cannot be used as default action",
    ),
    ({"defaultErrnoRet": 4095}, "defaultErrnoRet", "4095 is greater than 4094, the largest errno"),
    ({"defaultErrnoRet": True}, "defaultErrnoRet", "true is not a whole number"),
    (
        {"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1},
        "defaultErrnoRet",
        "SCMP_ACT_KILL has no errno",
    ),
    (
        {"architectures": ["SCMP_ARCH_VAX"]},
        "architectures[0]",
        "SCMP_ARCH_VAX is not a valid arch for seccomp",
    ),
    ({"flags": ["SECCOMP_FILTER_FLAG_X"]}, "flags[0]", "is not a known name"),
    ({"listenerMetadata": "x"}, "listenerMetadata", "seccomp listenerMetadata is set without listenerPath"),
    ({"listenerPath": "a\0"}, "listenerPath", "contains a null byte"),
    ({"syscalls": [{**NOTIFY, "names": ["mount"]}]}, "listenerPath", "seccomp listenerPath is not set"),
    (
        {"syscalls": [NOTIFY], "listenerPath": "/x"},
        "syscalls[0].names[2]",
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
    ),
    (
        {"syscalls": [{**NOTIFY, "names": ["mount", "sendmsg"]}], "listenerPath": "/x"},
        "syscalls[0].names[1]",
        "SCMP_ACT_NOTIFY cannot be used for the sendmsg syscall",
    ),
]
REFUSED_RULES: list[tuple[Json, str, str]] = [
    ({"errnoRet": 1}, "errnoRet", "SCMP_ACT_ALLOW has no errno to return"),
    (
        {"action": "SCMP_ACT_ERRNO", "errnoRet": 4095},
        "errnoRet",
        "4095 is greater than 4094, the largest errno",
    ),
    ({"action": "SCMP_ACT_TRACE", "errnoRet": 65536}, "errnoRet", "65536 is greater than 65535"),
    ({"action": "ALLOW"}, "action", "string ALLOW is not a valid action for seccomp"),
    ({"names": []}, "names", "must not be empty"),
    ({"names": ["read", ""]}, "names[1]", "empty string is not a valid syscall"),
    ({"names": ["re\0ad"]}, "names[0]", "contains a null byte"),
    ({"names": ["read", 3]}, "names[1]", "3 is not a string"),
    ({"args": [{"index": 0, "value": 1, "op": "EQ"}]}, "args[0].op", "string EQ is not a valid operator"),
    ({"args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}, "args[0].index", "6 is greater than 5"),
    ({"args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]}, "args[0].value", "-1 is less than 0"),
    (
        {"args": [{"index": 0, "value": 1, "valueTwo": 1 << 64, "op": "SCMP_CMP_EQ"}]},
        "args[0].valueTwo",
        "is greater than",
    ),
]
REFUSED_FILTERS += [
    ({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", **change}]}, f"syscalls[0].{path}", words)
    for change, path, words in REFUSED_RULES
]


@pytest.mark.parametrize(
    ("seccomp", "path", "words"), REFUSED_FILTERS, ids=[f"{row[1]} {row[2]}" for row in REFUSED_FILTERS]
)
def test_filters_that_cannot_be_described(
    seccomp: Json, path: str, words: str, tmp_path: pathlib.Path
) -> None:
    """Form and rules together: what describes a filter to libseccomp relies on them."""
    default = {"defaultAction": "SCMP_ACT_ERRNO"} if seccomp else {}
    document = spec({"seccomp": {**default, **seccomp}})  # type: ignore[arg-type]  # wrong on purpose
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError) as caught:
        rules.check(load.load(str(tmp_path)).spec)
    assert caught.value.path == f"$.linux.seccomp.{path}"
    assert words in caught.value.message


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
    assert sysctl.dotted(key) == name
    assert sysctl.dotted(sysctl.path(key)) == name


def test_empty_values_ask_for_nothing() -> None:
    document = spec({"netDevices": {}, "mountLabel": ""}, [{"destination": "/a", "uidMappings": []}])
    document["process"].update({"apparmorProfile": "", "selinuxLabel": ""})
    rules.check(document, HostFacts())
