"""Namespaces: new, inherited, joined by path, alone and in the combinations that pods and engines use."""

from __future__ import annotations

import os
import select
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from namespaces import FILES, ROOT, inode, mapped, recorded_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, ContainerFactory

pytestmark = pytest.mark.root


def bare(what: Bundle) -> Bundle:
    """Without what needs namespaces of its own, so that each can be left out."""
    what.spec.pop("hostname", None)
    what.mapping("linux").pop("readonlyPaths", None)
    what.mapping("linux").pop("maskedPaths", None)
    what.spec["mounts"] = [what.at("mounts", 0), what.at("mounts", 1)]
    return what


@pytest.fixture
def holder(probe_binary: str) -> Iterator[int]:
    """A process in namespaces of its own, of every kind but user."""
    process = subprocess.Popen(
        ["unshare", "-muinpCT", "--fork", "--kill-child", probe_binary, "pause"], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 10)
        assert ready
        assert process.stdout.readline() == b"ready\n"
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as stream:
            yield int(stream.read())
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def user_holder(probe_binary: str) -> Iterator[int]:
    """A process in a user namespace and in a network and a uts namespace that belong to it."""
    script = 'unshare -Unu "$@" & p=$!; while [ /proc/$p/ns/uts -ef /proc/$$/ns/uts ]; do :; done; '
    script += (
        f"echo 0 {ROOT} 65536 > /proc/$p/uid_map; echo 0 {ROOT} 65536 > /proc/$p/gid_map; echo $p; wait"
    )
    process = subprocess.Popen(["sh", "-c", script, "sh", probe_binary, "pause"], stdout=subprocess.PIPE)
    pid = 0
    try:
        assert process.stdout is not None
        lines = {process.stdout.readline(), process.stdout.readline()} - {b"ready\n"}
        pid = int(lines.pop())
        yield pid
    finally:
        if pid:
            os.kill(pid, 9)
        process.communicate(timeout=10)


def test_all_new(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    what = mapped(bundle("probe")).probe("ns", "--", "process", "--", "uname", "--", "net", "--", "ids")
    for kind in FILES:
        what.namespace(kind)
    facts = container(what, view=view).run().ok().facts()
    for kind, name in FILES.items():
        assert facts.all(name)[0] != inode("self", kind), kind
    assert facts.all("pid")[-1] == "1"
    assert facts["hostname"] == "pyrunc"
    assert facts.all("net")[1:] == ["lo up"]
    assert facts["uid"] == "0 0 0"


def test_absent_ones_are_inherited(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config-linux.md: if a namespace type is not specified, the container MUST inherit the runtime namespace."""
    what = bare(bundle("probe")).probe("ns", "--", "uname")
    what.mapping("linux")["namespaces"] = [{"type": "mount"}]
    facts = container(what).run().ok().facts()
    assert facts["mnt"] != inode("self", "mount")
    for kind in FILES.keys() - {"mount"}:
        assert facts[FILES[kind]] == inode("self", kind), kind
    assert facts["hostname"] == os.uname().nodename


def test_no_namespace_at_all(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Not even a mount namespace: a chroot, in which the host's mounts stay as they were."""
    what = bare(bundle("probe")).probe("ls", "/")
    what.mapping("linux")["namespaces"] = []
    what.spec["mounts"] = []
    before = support.mounts_below("")
    facts = container(what).run().ok().facts()
    assert "bin" in facts.all("entry")
    assert "boot" not in facts.all("entry")
    assert support.mounts_below("") == before


@pytest.mark.parametrize("kind", sorted(FILES.keys() - {"user"}))
def test_joined_by_path(container: ContainerFactory, bundle: BundleFactory, holder: int, kind: str) -> None:
    what = bare(bundle("probe")).probe("ns")
    what.namespace(kind, f"/proc/{holder}/ns/{FILES[kind]}")
    facts = container(what).run().ok().facts()
    assert facts.all(FILES[kind])[0] == inode(holder, kind)
    for other in FILES.keys() - {kind, "user", "time"}:
        assert facts[FILES[other]] not in (inode(holder, other), inode("self", other)), other


def test_joined_network_is_left_alone(
    container: ContainerFactory, bundle: BundleFactory, holder: int
) -> None:
    """Whoever made it decides whether its lo is up."""
    what = bundle("probe").probe("net").namespace("network", f"/proc/{holder}/ns/net")
    assert container(what).run().ok().facts().all("net") == ["lo down"]


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_path_of_another_type(container: ContainerFactory, bundle: BundleFactory, kind: str) -> None:
    """config-linux.md: the runtime MUST generate an error if path is not associated with a namespace of type."""
    other = "uts" if kind == "network" else "net"
    what = bare(bundle("probe")).namespace(kind, f"/proc/self/ns/{other}")
    index = len(what.list_of("linux", "namespaces")) - 1
    one = container(what)
    one.create().fails(f"$.linux.namespaces[{index}].path")
    assert not os.path.exists(os.path.join(one.root, one.id))


@pytest.mark.parametrize("path", ["/proc/4194304/ns/net", "/no/such/file", "/etc/passwd", "/"])
def test_a_path_that_is_no_namespace(container: ContainerFactory, bundle: BundleFactory, path: str) -> None:
    what = bundle("probe").namespace("network", path)
    index = len(what.list_of("linux", "namespaces")) - 1
    container(what).create().fails(f"$.linux.namespaces[{index}].path")


def test_a_relative_path(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config-linux.md: this value MUST be an absolute path in the runtime mount namespace."""
    what = bundle("probe").namespace("network", "ns/net")
    container(what).create().fails("$.linux.namespaces", ".path", "absolute")


def test_a_joined_pid_namespace_outlives_the_container(
    container: ContainerFactory, bundle: BundleFactory, holder: int, view: str
) -> None:
    """Its init is somebody else's: KILL and delete must find what the container left in it."""
    what = bundle("busybox", "sh", "-c", "sleep 600 & echo child; exec sleep 600")
    one = container(what.namespace("pid", f"/proc/{holder}/ns/pid"), view=view).up()
    one.expect("child")
    listed = one.pyrunc("ps", "--format", "json", one.id).ok().json()
    assert isinstance(listed, list)
    assert len(listed) == 2
    one.kill("KILL").ok()
    assert one.wait() == -9
    for pid in listed:
        assert isinstance(pid, int)
        support.wait_until(lambda pid=pid: support.process_gone(pid), "the end of all processes")  # type: ignore[misc]
    assert not support.process_gone(holder)


def test_user_namespace_with_mappings(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    what = mapped(bundle("probe")).probe(
        "ids", "--", "caps", "--", "cat", "/proc/self/uid_map", "--", "mounts"
    )
    one = container(what, view=view)
    facts = one.run().ok().facts()
    assert facts["uid"] == "0 0 0"
    assert f"0 {ROOT} 65536" in " ".join(facts.text.split())
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 7]}
    facts = container(what.probe("ids"), view=view).run().ok().facts()
    assert (facts["uid"], facts["gid"], facts["groups"]) == ("1000 1000 1000", "1001 1001 1001", "5 7")


def test_ids_outside_are_the_mapped_ones(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = mapped(bundle("probe")).probe("pause")
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1001}
    one = container(what).up()
    one.expect("ready")
    assert support.status_field(one.pid, "Uid").split() == [str(ROOT + 1000)] * 4
    assert support.status_field(one.pid, "Gid").split() == [str(ROOT + 1001)] * 4


def test_several_ranges_without_root(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Where id 0 is not mapped, init is the lowest id that is until it becomes the user."""
    what = bare(mapped(bundle("probe"))).probe("ids")
    for key in ("uidMappings", "gidMappings"):
        what.mapping("linux")[key] = [
            {"containerID": 2000, "hostID": ROOT + 50, "size": 10},
            {"containerID": 1000, "hostID": ROOT, "size": 10},
        ]
    what.mapping("process")["user"] = {"uid": 2001, "gid": 1001}
    facts = container(what).run().ok().facts()
    assert (facts["uid"], facts["gid"]) == ("2001 2001 2001", "1001 1001 1001")


def test_an_unmapped_user(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = mapped(bundle("probe"))
    what.mapping("process")["user"] = {"uid": 70000, "gid": 0}
    container(what).create().fails("$.process.user.uid", "not mapped", "hint: ")


def test_overlapping_mappings(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = mapped(bundle("probe"))
    row: support.Json = {"containerID": 0, "hostID": ROOT, "size": 10}
    what.mapping("linux")["uidMappings"] = [row, row]
    container(what).create().fails("$.linux.uidMappings")


def test_user_namespace_joined_others_new(
    container: ContainerFactory, bundle: BundleFactory, user_holder: int, view: str
) -> None:
    what = (
        bundle("probe")
        .namespace("user", f"/proc/{user_holder}/ns/user")
        .probe("ns", "--", "ids", "--", "caps")
    )
    facts = container(what, view=view).run().ok().facts()
    assert facts["user"] == inode(user_holder, "user")
    for kind in FILES.keys() - {"user", "time"}:
        assert facts[FILES[kind]] not in (inode("self", kind), inode(user_holder, kind)), kind
    assert facts["uid"] == "0 0 0"


def test_user_namespace_and_what_belongs_to_it_joined(
    container: ContainerFactory, bundle: BundleFactory, user_holder: int
) -> None:
    what = bundle("probe").probe("ns", "--", "uname")
    for kind in ("user", "network", "uts"):
        what.namespace(kind, f"/proc/{user_holder}/ns/{FILES[kind]}")
    del what.spec["hostname"]
    facts = container(what).run().ok().facts()
    for kind in ("user", "network", "uts"):
        assert facts[FILES[kind]] == inode(user_holder, kind), kind


def test_user_namespace_new_network_joined(
    container: ContainerFactory, bundle: BundleFactory, holder: int
) -> None:
    """The network is the host's root's, so only a privileged process may enter it: before the user namespace."""
    what = (
        bare(mapped(bundle("probe"))).namespace("network", f"/proc/{holder}/ns/net").probe("ns", "--", "net")
    )
    facts = container(what).run().ok().facts()
    assert inode(holder, "network") in facts.all("net")
    assert "lo down" in facts.all("net")
    assert facts["user"] != inode("self", "user")


def test_user_namespace_new_pid_joined(
    container: ContainerFactory, bundle: BundleFactory, holder: int
) -> None:
    """A proc of a pid namespace that belongs to the host's root cannot be mounted from inside: the error says why."""
    what = bare(mapped(bundle("probe"))).namespace("pid", f"/proc/{holder}/ns/pid").probe("process")
    container(what).create().fails("$.mounts[0]", "'proc'", "hint: ")
    del what.list_of("mounts")[0]
    assert container(what).run().ok().facts()["pid"] != "1"


def test_a_mapping_that_differs_from_the_joined_namespace(
    container: ContainerFactory, bundle: BundleFactory, user_holder: int
) -> None:
    what = mapped(bundle("probe"), ROOT + 1).namespace("user", f"/proc/{user_holder}/ns/user")
    container(what).create().fails(
        "user namespaces enabled, but both namespace path and non-matching mapping specified"
    )
    same = mapped(bundle("probe")).namespace("user", f"/proc/{user_holder}/ns/user").probe("ids")
    assert container(same).run().ok().facts()["uid"] == "0 0 0"


@pytest.mark.parametrize("user", [False, True])
def test_time_offsets(container: ContainerFactory, bundle: BundleFactory, user: bool) -> None:
    """They are set before the namespace has its first process, and exec sees them as well."""
    what = bundle("probe").namespace("time").probe("time", "--", "pause")
    if user:
        mapped(what)
    what.mapping("linux")["timeOffsets"] = {
        "monotonic": {"secs": 100000, "nanosecs": 5},
        "boottime": {"secs": -1, "nanosecs": 0},
    }
    now = support.run(what.rootfs + "/bin/probe", "time").facts()
    one = container(what).up()
    facts = support.Facts(one.expect("ready"))
    later = one.exec("/bin/probe", "time").ok().facts()
    for seen in (facts, later):
        assert 100000 <= int(seen["monotonic"]) - int(now["monotonic"]) < 100030
        assert -1 <= int(seen["boottime"]) - int(now["boottime"]) < 29


def test_time_offsets_need_a_new_time_namespace(
    container: ContainerFactory, bundle: BundleFactory, holder: int
) -> None:
    what = bundle("probe")
    what.mapping("linux")["timeOffsets"] = {"monotonic": {"secs": 1}}
    container(what).create().fails("$.linux.timeOffsets", "time namespace")
    what.namespace("time", f"/proc/{holder}/ns/time")
    container(what).create().fails("$.linux.timeOffsets", "time namespace")


def test_impossible_time_offset(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The kernel lets no clock start below zero."""
    what = bundle("probe").namespace("time")
    what.mapping("linux")["timeOffsets"] = {"boottime": {"secs": -(1 << 40)}}
    container(what).create().fails("$.linux.timeOffsets")


def test_cgroup_namespace_shows_the_containers_own_root(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    what = bundle("probe").probe("cgroup", "--", "pause")
    one = container(what, view=view).up()
    lines = [line.split(":", 2) for line in one.expect("ready").splitlines() if line.count(":") >= 2]
    recorded = dict(recorded_cgroups(one))
    for number, controllers, path in lines:
        if number == "0" and view != "v2" and "" not in recorded:
            continue
        name = controllers.split(",")[0].removeprefix("name=")
        if name in recorded or controllers in recorded or not controllers:
            assert path == "/", (controllers, path)
    directory = "/sys/fs/cgroup" if view == "v2" else "/sys/fs/cgroup/pids"
    assert one.exec("/bin/probe", "cat", f"{directory}/cgroup.procs").ok().out.split()[0] == "1"


def test_without_cgroup_namespace_paths_are_the_hosts(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    one = container(bundle("probe").without_namespace("cgroup").probe("cgroup"), view=view)
    out = one.run().ok().out
    assert one.id in out


def test_a_pod(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Containers of one pod share ipc, uts, network and pid with the first, by the paths engines use."""
    first = container(bundle("probe").probe("sigwait"), view=view).up()
    first.expect("ready")
    what = bundle("probe").probe(
        "ns", "--", "uname", "--", "process", "--", "cat", "/proc/1/cmdline", "--", "pause"
    )
    shared = ("ipc", "uts", "network", "pid")
    for kind in shared:
        what.namespace(kind, f"/proc/{first.pid}/ns/{FILES[kind]}")
    del what.spec["hostname"]
    second = container(what, view=view).up()
    facts = support.Facts(second.expect("ready"))
    for kind in shared:
        assert facts.all(FILES[kind])[0] == inode(first.pid, kind), kind
    assert facts["mnt"] != inode(first.pid, "mount")
    assert facts["hostname"] == "pyrunc"
    assert facts.all("pid")[1] != "1"
    assert "sigwait" in facts.text
    assert second.exec("/bin/probe", "ns").ok().facts()["pid_for_children"] == inode(first.pid, "pid")
    # The first is the namespace's init: the kernel ends everything in it.
    first.kill("KILL").ok()
    assert second.wait() == -9
    assert first.wait() == -9
    assert second.status() == "stopped"
