"""Rows of `linux` but its resources and seccomp: config-linux.md."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from box import lacks, row
from namespaces import FILES, inode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from box import Box
    from support import Json, Spec

IDS: list[Json] = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def mapped(box: Box) -> Box:
    """With a user namespace, and a root file system that belongs to its root."""
    box.bundle.namespace("user")
    for directory, _, names in os.walk(box.bundle.path):
        for name in [directory, *(os.path.join(directory, name) for name in names)]:
            os.lchown(name, 100000, 100000)
    return box.set("linux.uidMappings", IDS).set("linux.gidMappings", IDS)


# --- Namespaces -------------------------------------------------------------------------------------------------------


@row("linux.namespaces[].type: {kind}")
@pytest.mark.parametrize("kind", sorted(FILES))
def test_new_namespace(box: Box, kind: str) -> None:
    if kind == "user":
        mapped(box)
    box.bundle.namespace(kind)
    assert box.facts("ns").all(FILES[kind])[0] != inode("self", kind)


@row("linux.namespaces[].type: absent ones are inherited")
@pytest.mark.parametrize("kind", ["uts", "ipc", "network", "pid", "cgroup"])
def test_inherited_namespace(box: Box, kind: str) -> None:
    box.bundle.without_namespace(kind)
    box.drop("hostname")
    assert box.facts("ns").all(FILES[kind])[0] == inode("self", kind)


@pytest.fixture
def holder() -> Iterator[int]:
    """A process in namespaces of its own."""
    argv = [
        "unshare",
        "-u",
        "-i",
        "-n",
        "-p",
        "-C",
        "-m",
        "-T",
        "--fork",
        "sh",
        "-c",
        "echo $$; echo ready; read x",
    ]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    assert process.stdout.readline() == "ready\n"
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as stream:
        pid = int(stream.read().split()[0])
    yield pid
    process.communicate("end\n", timeout=10)


@row("linux.namespaces[].path")
@pytest.mark.parametrize("kind", ["uts", "ipc", "network", "pid", "cgroup", "time"])
def test_joined_namespace(box: Box, holder: int, kind: str) -> None:
    box.bundle.namespace(kind, f"/proc/{holder}/ns/{FILES[kind]}")
    assert box.facts("ns").all(FILES[kind])[0] == inode(holder, kind)


@row("linux.namespaces[].path: a user namespace and what belongs to it")
def test_joined_user_namespace(box: Box) -> None:
    """As engines join the namespaces of a pod: without mappings, or with the very ones that it has."""
    first = mapped(box)
    one = first.up()
    for key in ("uidMappings", "gidMappings"):
        box.drop(f"linux.{key}")
    for kind in ("user", "network", "ipc", "uts"):
        box.bundle.namespace(kind, f"/proc/{one.pid}/ns/{FILES[kind]}")
    box.drop("hostname")
    assert box.facts("ns").all("user")[0] == inode(one.pid, "user")
    box.set("linux.uidMappings", IDS).set("linux.gidMappings", IDS)
    assert box.facts("ns").all("net")[0] == inode(one.pid, "network")


@row("linux.namespaces[].path: another type is an error")
@pytest.mark.parametrize("kind", ["uts", "ipc", "network", "pid"])
def test_namespace_of_another_type(box: Box, kind: str) -> None:
    box.bundle.namespace(kind, "/proc/self/ns/mnt")
    box.refused()


@row("linux.namespaces[].path: must be absolute")
def test_relative_namespace_path(box: Box) -> None:
    box.bundle.namespace("uts", "proc/self/ns/uts")
    box.refused()


@row("linux.namespaces: a type twice is an error")
@pytest.mark.parametrize("kind", sorted(FILES.keys() - {"user", "time"}))
def test_duplicate_namespace(box: Box, kind: str) -> None:
    box.add("linux.namespaces", {"type": kind}).refused()


@row("linux.namespaces[].type: an unknown one is an error")
def test_unknown_namespace(box: Box) -> None:
    box.add("linux.namespaces", {"type": "nonsense"}).refused()


@row("linux.uidMappings", "linux.gidMappings")
def test_mappings(box: Box) -> None:
    found = mapped(box).facts("cat", "/proc/self/uid_map", "--", "cat", "/proc/self/gid_map").text
    assert found.split() == ["0", "100000", "65536"] * 2


@row("linux.uidMappings", "linux.gidMappings")
def test_mappings_need_a_user_namespace(box: Box) -> None:
    box.set("linux.uidMappings", IDS).set("linux.gidMappings", IDS).refused()


@row("linux.uidMappings", "linux.gidMappings")
def test_user_namespace_needs_mappings(box: Box) -> None:
    box.bundle.namespace("user")
    box.refused()


@row("files keep their owners")
def test_owners(box: Box) -> None:
    """config-linux.md: "The runtime SHOULD NOT modify the ownership of referenced filesystems"."""
    mapped(box)
    path = os.path.join(box.bundle.rootfs, "etc/foreign")
    with open(path, "w", encoding="ascii"):
        os.chown(path, 5, 6)
    before = {
        name: os.lstat(os.path.join(box.bundle.rootfs, name)).st_uid
        for name in os.listdir(box.bundle.rootfs)
    }
    box.facts("ids")
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (5, 6)
    assert {name: os.lstat(os.path.join(box.bundle.rootfs, name)).st_uid for name in before} == before


@row("linux.timeOffsets")
@pytest.mark.parametrize("clock", ["monotonic", "boottime"])
def test_time_offsets(box: Box, clock: str) -> None:
    box.bundle.namespace("time")
    now = int(box.facts("time")[clock].split()[0])
    box.set("linux.timeOffsets", {clock: {"secs": 1_000_000, "nanosecs": 5}})
    assert int(box.facts("time")[clock].split()[0]) >= now + 1_000_000


@row("linux.timeOffsets: need a time namespace")
def test_time_offsets_without_namespace(box: Box) -> None:
    box.set("linux.timeOffsets", {"monotonic": {"secs": 1}}).refused()


# --- Devices ----------------------------------------------------------------------------------------------------------

DEVICE: Spec = {
    "path": "/dev/more",
    "type": "c",
    "major": 1,
    "minor": 5,
    "fileMode": 0o640,
    "uid": 3,
    "gid": 4,
}


@row(
    "linux.devices[].type",
    "linux.devices[].path",
    "linux.devices[].major",
    "linux.devices[].minor",
    "linux.devices[].fileMode",
    "linux.devices[].uid",
    "linux.devices[].gid",
)
@pytest.mark.parametrize(("kind", "bits"), [("c", stat.S_IFCHR), ("u", stat.S_IFCHR), ("b", stat.S_IFBLK)])
def test_device(box: Box, kind: str, bits: int) -> None:
    box.add("linux.devices", {**DEVICE, "type": kind})
    found = box.facts("stat", "/dev/more")["stat"]
    assert f"mode {bits | 0o640:06o} uid 3 gid 4" in found
    assert found.endswith("rdev 1:5")


@row("linux.devices[].type")
def test_fifo(box: Box) -> None:
    box.add("linux.devices", {"path": "/dev/fifo", "type": "p", "fileMode": 0o600})
    assert f"mode {stat.S_IFIFO | 0o600:06o}" in box.facts("stat", "/dev/fifo")["stat"]


@row("linux.devices[].path: outside /dev")
def test_device_elsewhere(box: Box) -> None:
    box.add("linux.devices", {**DEVICE, "path": "/more/deep"})
    assert box.facts("stat", "/more/deep")["stat"].endswith("rdev 1:5")


@row("linux.devices[].path: an existing file that does not match is an error")
def test_device_over_a_file(box: Box) -> None:
    with open(os.path.join(box.bundle.rootfs, "more"), "w", encoding="ascii"):
        pass
    box.add("linux.devices", {**DEVICE, "path": "/more"}).refused()


@row("linux.devices[].type")
def test_unknown_device_type(box: Box) -> None:
    box.add("linux.devices", {**DEVICE, "type": "x"}).refused()


@row("linux.devices[].major", "linux.devices[].minor")
def test_device_needs_numbers(box: Box) -> None:
    box.add("linux.devices", {"path": "/dev/more", "type": "c"})
    result = box.run("stat", "/dev/more")
    assert result.status != 0 or "rdev 0:0" in result.out


@row("linux.devices: the same numbers twice are no error")
def test_devices_twice(box: Box) -> None:
    box.add("linux.devices", DEVICE, {**DEVICE, "path": "/dev/again"})
    assert box.facts("stat", "/dev/again")["stat"].endswith("rdev 1:5")


@row("linux.devices[].fileMode: unset, it is 0666")
def test_device_without_mode(box: Box) -> None:
    box.add("linux.devices", {"path": "/dev/more", "type": "c", "major": 1, "minor": 5})
    assert f"mode {stat.S_IFCHR | 0o666:06o} uid 0 gid 0" in box.facts("stat", "/dev/more")["stat"]


@row("linux.devices: none is made in a /dev that is the host's")
def test_dev_of_the_host(box: Box) -> None:
    source = os.path.join(box.bundle.path, "dev")
    os.mkdir(source)
    mounts = box.bundle.list_of("mounts")
    mounts[:] = [
        item for item in mounts if isinstance(item, dict) and not str(item["destination"]).startswith("/dev")
    ]
    box.bundle.mount("/dev", "none", source, "rbind")
    box.facts("ids")
    assert os.listdir(source) == []


@row("linux.devices: in a user namespace they come from the host")
def test_devices_in_a_user_namespace(box: Box) -> None:
    assert mapped(box).facts("stat", "/dev/null")["stat"].endswith("rdev 1:3")


@row("default devices")
@pytest.mark.parametrize("name", ["null", "zero", "full", "random", "urandom", "tty"])
def test_default_devices(box: Box, name: str) -> None:
    numbers = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
    assert box.facts("stat", f"/dev/{name}")["stat"].endswith(f"rdev {numbers[name]}")


# --- Network devices --------------------------------------------------------------------------------------------------


@pytest.fixture
def device() -> Iterator[str]:
    """One end of a veth pair, with an address; it goes with the other end, wherever it is by then."""
    name, other = f"pd{os.getpid()}", f"po{os.getpid()}"
    if support.run("ip", "link", "add", name, "type", "veth", "peer", "name", other).status != 0:
        lacks("veth network interfaces")
    support.run("ip", "addr", "add", "192.0.2.7/24", "dev", name).ok()
    yield name
    support.run("ip", "link", "del", other)


@row("linux.netDevices{}.name")
@pytest.mark.parametrize("name", [None, "moved0"])
def test_net_device(box: Box, device: str, name: str | None) -> None:
    box.set("linux.netDevices", {device: {} if name is None else {"name": name}})
    assert f"net {name or device} up" in box.facts("net").text.splitlines()


@row("linux.netDevices{}: addresses are kept")
def test_net_device_addresses(box: Box, device: str) -> None:
    one = box.set("linux.netDevices", {device: {"name": "eth7"}}).up()
    words = ["nsenter", "-t", str(one.pid), "-n", "ip", "-o", "addr", "show", "dev", "eth7"]
    assert " 192.0.2.7/24 " in support.run(*words).ok().out


@row("linux.netDevices{}.name: %d is the first free number")
def test_net_device_template(box: Box, device: str) -> None:
    box.set("linux.netDevices", {device: {"name": "eth%d"}})
    assert "net eth0 up" in box.facts("net").text.splitlines()


@row("linux.netDevices{}.name: one that the container has is an error")
def test_net_device_name_taken(box: Box, device: str) -> None:
    box.set("linux.netDevices", {device: {"name": "lo"}}).refused()
    support.run("ip", "link", "show", device).ok()


@row("linux.netDevices{}: a missing one is an error")
def test_missing_net_device(box: Box) -> None:
    box.set("linux.netDevices", {"nosuchdevice0": {}}).refused()


@row("linux.netDevices{}: need a network namespace")
def test_net_device_without_namespace(box: Box, device: str) -> None:
    box.bundle.without_namespace("network")
    box.set("linux.netDevices", {device: {}}).refused()


# --- Paths, sysctls and the rest --------------------------------------------------------------------------------------


@row("linux.maskedPaths")
def test_masked_paths(box: Box) -> None:
    box.set("linux.maskedPaths", ["/etc", "/proc/version", "/nowhere"])
    found = box.facts("ls", "/etc", "--", "devread", "/proc/version")
    assert found.all("entry") == []
    assert "Linux" not in found.text


@row("linux.readonlyPaths")
def test_readonly_paths(box: Box) -> None:
    box.set("linux.readonlyPaths", ["/etc", "/nowhere"])
    assert box.run("write", "/etc/new", "x").status != 0


@row("linux.readonlyPaths: other flags of the mount are kept")
def test_readonly_keeps_flags(box: Box) -> None:
    box.bundle.mount("/m", "tmpfs", "tmpfs", "nosuid", "nodev", "noexec")
    box.set("linux.readonlyPaths", ["/m"])
    lines = [line.split() for line in box.facts("mounts").text.splitlines()]
    options = [words[5] for words in lines if words[4] == "/m"][-1]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))


@row("linux.maskedPaths: a directory is empty and stays so")
def test_masked_directory(box: Box) -> None:
    box.set("linux.maskedPaths", ["/etc"])
    assert box.run("write", "/etc/new", "x").status != 0


@row("linux.maskedPaths", "linux.readonlyPaths")
@pytest.mark.parametrize("name", ["maskedPaths", "readonlyPaths"])
def test_paths_are_absolute(box: Box, name: str) -> None:
    box.set(f"linux.{name}", ["proc/version"]).refused()


@row("linux.rootfsPropagation", "linux.rootfsPropagation: r-forms")
@pytest.mark.parametrize("prefix", ["", "r"])
@pytest.mark.parametrize("value", ["private", "slave", "shared", "unbindable"])
def test_rootfs_propagation(box: Box, value: str, prefix: str) -> None:
    box.set("linux.rootfsPropagation", prefix + value)
    line = next(line for line in box.facts("mounts").text.splitlines() if line.split()[4] == "/")
    tags = line.split(" - ")[0].split()[6:]
    assert (["shared:"] if value == "shared" else ["unbindable"] if value == "unbindable" else []) == [
        tag.partition(":")[0] + ":" * (":" in tag) for tag in tags if not tag.startswith("master")
    ]


@row("linux.rootfsPropagation")
def test_unknown_propagation(box: Box) -> None:
    box.set("linux.rootfsPropagation", "nonsense").refused()


@row("linux.mountLabel")
def test_mount_label(box: Box) -> None:
    box.set("linux.mountLabel", "system_u:object_r:container_file_t:s0")
    if not os.path.exists("/sys/fs/selinux/enforce"):
        lacks("SELinux")
    box.run("ids").ok()


@row("linux.sysctl")
@pytest.mark.parametrize("name", ["kernel.msgmax", "kernel/msgmax"])
def test_sysctl(box: Box, name: str) -> None:
    box.set("linux.sysctl", {name: "4321"})
    assert "4321" in box.run("sysctl", "kernel.msgmax").ok().out


@row("linux.sysctl: kernel.domainname, fs.mqueue and net belong to namespaces")
@pytest.mark.parametrize(
    ("name", "value"),
    [("kernel.domainname", "example.org"), ("fs.mqueue.msg_max", "11"), ("net.ipv4.ip_forward", "1")],
)
def test_namespaced_sysctl(box: Box, name: str, value: str) -> None:
    box.set("linux.sysctl", {name: value})
    assert value in box.run("sysctl", name).ok().out


@row("linux.sysctl: one that cannot be set is an error")
@pytest.mark.parametrize(("name", "value"), [("net.nonsense", "1"), ("kernel.msgmax", "nonsense")])
def test_impossible_sysctl(box: Box, name: str, value: str) -> None:
    box.set("linux.sysctl", {name: value}).refused()


@row("linux.sysctl: of the host is an error")
@pytest.mark.parametrize(
    ("name", "without"),
    [("kernel.msgmax", "ipc"), ("net.ipv4.ip_forward", "network"), ("vm.swappiness", None)],
)
def test_host_sysctl(box: Box, name: str, without: str | None) -> None:
    if without:
        box.bundle.without_namespace(without)
    box.set("linux.sysctl", {name: "1"}).refused()


@row("linux.sysctl: kernel.hostname conflicts with hostname")
def test_hostname_sysctl(box: Box) -> None:
    box.set("linux.sysctl", {"kernel.hostname": "x"}).refused()


@row("linux.personality.domain")
@pytest.mark.parametrize(("domain", "number"), [("LINUX", 0), ("LINUX32", 8)])
def test_personality(box: Box, domain: str, number: int) -> None:
    box.set("linux.personality", {"domain": domain})
    assert int(box.facts("personality")["personality"], 16) == number


@row("linux.personality.domain")
def test_unknown_personality(box: Box) -> None:
    box.set("linux.personality", {"domain": "NONSENSE"}).refused()


@row("linux.personality.flags: none are defined, so any is an error")
def test_personality_flags(box: Box) -> None:
    box.set("linux.personality", {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}).refused()


@row("linux.memoryPolicy.mode", "linux.memoryPolicy.nodes", "linux.memoryPolicy.flags")
@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"}, "weighted interleave:0"),
        (
            {"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]},
            "interleave=relative:0",
        ),
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_LOCAL"}, "local"),
    ],
)
def test_memory_policy(box: Box, policy: dict[str, Json], shown: str) -> None:
    if not os.path.exists("/proc/self/numa_maps"):
        lacks("NUMA policies in the kernel")
    box.set("linux.memoryPolicy", policy)
    assert f" {shown} " in box.run("cat", "/proc/self/numa_maps").ok().out


@row("linux.memoryPolicy.mode", "linux.memoryPolicy.nodes", "linux.memoryPolicy.flags")
@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "MPOL_NONSENSE", "nodes": "0"},
        {"mode": "MPOL_BIND"},
        {"mode": "MPOL_LOCAL", "nodes": "0"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONSENSE"]},
    ],
)
def test_memory_policy_errors(box: Box, policy: dict[str, Json]) -> None:
    box.set("linux.memoryPolicy", policy).refused()


RDT: Spec = {
    "closID": "group",
    "l3CacheSchema": "L3:0=f",
    "memBwSchema": "MB:0=50",
    "schemata": ["L3:0=f"],
    "enableMonitoring": True,
}


@row("linux.intelRdt.{name}")
@pytest.mark.parametrize("name", sorted(RDT))
def test_intel_rdt(box: Box, name: str) -> None:
    if not os.path.exists("/sys/fs/resctrl/schemata"):
        box.set("linux.intelRdt", {name: RDT[name]}).refused()
        lacks("resctrl; that it is refused then was seen")
    box.set("linux.intelRdt", {name: RDT[name]}).facts("ids")
