"""config.md, "Mounts": entries in order, their targets and sources, and the file systems every container has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import mountinfo
import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory, User
    from support import Facts, Json

pytestmark = pytest.mark.root


def facts(container: ContainerFactory, what: Bundle, *words: str) -> Facts:
    """What the probe says in a container of this bundle."""
    return container(what.probe(*words)).run().ok().facts()


def last(what: Bundle) -> str:
    """The JSON path of the mount added last."""
    return f"$.mounts[{len(what.list_of('mounts')) - 1}]"


def remove(what: Bundle, destination: str) -> Bundle:
    """The bundle without its mount at `destination`."""
    mounts = what.list_of("mounts")
    mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != destination]
    return what


def make_source(scratch: str, name: str = "source", text: str = "content\n") -> str:
    """A directory with a file `file`."""
    path = os.path.join(scratch, name)
    os.makedirs(path)
    with open(os.path.join(path, "file"), "w", encoding="ascii") as stream:
        stream.write(text)
    return path


# --- Entries ----------------------------------------------------------------------------------------------------------


def test_mounts_come_in_the_listed_order(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """A later one covers an earlier one and can be made inside it, read-only ones included."""
    first, second = make_source(scratch, "one", "1\n"), make_source(scratch, "two", "2\n")
    what = bundle("busybox", "cat", "/m/file", "/t/deep/file")
    what.mount("/m", "none", first, "bind").mount("/m", "none", second, "bind", "ro")
    what.mount("/t", "tmpfs", "tmpfs", "ro").mount("/t/deep", "none", first, "bind")
    assert container(what).run().ok().out == "2\n1\n"
    mounts = what.list_of("mounts")
    mounts[-1], mounts[-2] = mounts[-2], mounts[-1]
    container(what).run().fails("/t/deep/file", status=1)


def test_bind_of_a_file_and_of_a_directory(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """Targets are made as what the source is, with the parents they lack."""
    source = make_source(scratch)
    what = bundle("probe").mount("/new/dir", "none", source, "bind")
    what.mount("/new/place/name", "none", f"{source}/file", "bind", "ro")
    found = facts(
        container,
        what,
        "cat",
        "/new/dir/file",
        "--",
        "open",
        "/new/place/name",
        "rw",
        "--",
        "write",
        "/new/dir/x",
        "y",
    )
    assert ("content" in found, found["open"], found["wrote"]) == (True, "/new/place/name -30", "1")
    assert os.path.isdir(os.path.join(what.rootfs, "new/dir"))
    assert os.path.isfile(os.path.join(what.rootfs, "new/place/name"))
    assert os.path.exists(os.path.join(source, "x"))


def test_a_relative_source_counts_from_the_bundle(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = bundle("busybox", "cat", "/m/file").mount("/m", "none", "data", "bind")
    make_source(what.path, "data")
    assert container(what).run().ok().out == "content\n"


def test_a_relative_destination_counts_from_the_root(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """config.md: deprecated, and taken from "/"."""
    found = container(bundle("probe").probe("mounts").mount("rel/path", "tmpfs", "tmpfs")).run().ok()
    assert "/rel/path" in mountinfo.parse(found.out)


def test_a_missing_source_is_named(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe").mount("/m", "none", "/no/such", "bind")
    container(what).run().fails(last(what), "/no/such", "no such file or directory")


@pytest.mark.parametrize(("kind", "target"), [("none", "/bin/probe"), ("tmpfs", "/etc/passwd")])
def test_a_directory_does_not_go_onto_a_file(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, kind: str, target: str
) -> None:
    what = bundle("probe").mount(target, kind, scratch, *(("bind",) if kind == "none" else ()))
    container(what).run().fails(last(what), "not a directory")


def test_an_unknown_file_system_is_named(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe").mount("/m", "nofs", "nofs")
    container(what).run().fails(last(what), "nofs", "no such device")


@pytest.mark.parametrize("link", ["/outside", "../../../../../../../outside", "/proc/1/root/outside"])
def test_links_of_the_image_stay_inside(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, link: str
) -> None:
    """Whatever a component points to, the mount and the directories made for it are in the image."""
    what = bundle("probe").probe("mounts")
    os.symlink(link, os.path.join(what.rootfs, "link"))
    os.mkdir(os.path.join(what.rootfs, "outside"))
    what.mount("/link/sub", "tmpfs", "tmpfs")
    result = container(what).run()
    assert not os.path.lexists("/outside")
    if result.status == 0:
        assert [point for point in mountinfo.parse(result.out) if point.endswith("/sub")] == ["/outside/sub"]
    else:
        result.fails(last(what))


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_go_to_ordinary_directories(
    container: ContainerFactory, bundle: BundleFactory, name: str
) -> None:
    """CVE-2019-19921, CVE-2023-27561: a link would leave a fake one in place."""
    what = bundle("probe")
    os.rmdir(os.path.join(what.rootfs, name))
    os.symlink("/tmp", os.path.join(what.rootfs, name))
    container(what).run().fails("$.mounts[", "must be mounted on ordinary directory")


@pytest.mark.parametrize(
    ("target", "allowed"), [("/proc/uptime", True), ("/proc/self/attr", False), ("/proc/sys/kernel", False)]
)
def test_mounts_below_proc(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, target: str, allowed: bool
) -> None:
    """The files lxcfs brings may be covered; what security depends on may not."""
    source = make_source(scratch)
    what = bundle("probe").mount(target, "none", source + ("/file" if allowed else ""), "bind")
    if allowed:
        assert "content" in facts(container, what, "cat", target)
    else:
        container(what).run().fails(last(what), "/proc")


def test_a_mount_on_the_root(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """It becomes the root: later mounts, devices and the program are found in it."""
    other = bundle("probe")
    what = bundle("probe").probe("mounts", "--", "cat", "/mark", "--", "stat", "/dev/null", "--", "cwd")
    with open(os.path.join(other.rootfs, "mark"), "w", encoding="ascii") as stream:
        stream.write("the other\n")
    entry: Json = {"destination": "/", "type": "none", "source": other.rootfs, "options": ["rbind", "nodev"]}
    what.list_of("mounts").insert(0, entry)
    result = container(what).run().ok()
    assert "the other\n" in result.out
    assert "nodev" in mountinfo.parse(result.out)["/"].options
    assert "rdev 1:3" in result.facts()["stat"]


# --- File systems -----------------------------------------------------------------------------------------------------


def test_the_usual_file_systems(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Types, attributes and data of what every engine lists."""
    seen = mountinfo.parse(container(bundle("probe").probe("mounts")).run().ok().out)
    assert (seen["/proc"].kind, seen["/dev/mqueue"].kind, seen["/sys"].kind) == ("proc", "mqueue", "sysfs")
    assert (seen["/dev"].kind, seen["/dev"].superblock >= {"size=65536k", "mode=755"}) == ("tmpfs", True)
    assert seen["/dev/pts"].kind == "devpts"
    assert {"gid=5", "mode=620", "ptmxmode=666"} <= seen["/dev/pts"].superblock
    assert {"size=65536k"} <= seen["/dev/shm"].superblock
    assert {"ro", "nosuid", "nodev", "noexec"} <= seen["/sys"].options
    assert {"rw"} <= seen["/proc"].options


def test_proc_is_of_the_containers_pid_namespace(container: ContainerFactory, bundle: BundleFactory) -> None:
    entries = facts(container, bundle("probe"), "ls", "/proc").all("entry")
    assert [name for name in entries if name.isdigit()] == ["1"]


def test_a_new_tmpfs_takes_the_mode_of_what_it_covers(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """/tmp stays 1777 without anybody saying so; mode= says otherwise."""
    what = bundle("probe").mount("/tmp", "tmpfs", "tmpfs").mount("/home", "tmpfs", "tmpfs", "mode=0700")
    found = facts(container, what, "stat", "/tmp", "/home").all("stat")
    assert [item.split()[2] for item in found] == ["041777", "040700"]


def test_terminals_of_the_container_are_its_own(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A fresh devpts: no terminal of the host shows."""
    found = facts(container, bundle("probe"), "ls", "/dev/pts", "--", "readlink", "/dev/ptmx")
    assert (found.all("entry"), found["readlink"]) == (["ptmx"], "pts/ptmx")


def test_ptmx_is_never_a_node_of_its_own(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Engines list all of the host's devices for a privileged container; /dev/ptmx stays a link to the container's."""
    what = bundle("probe")
    what.list_of("linux", "devices").append({"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2})
    assert facts(container, what, "readlink", "/dev/ptmx")["readlink"] == "pts/ptmx"


@pytest.mark.parametrize("target", ["/m", "/dev"])
def test_a_read_only_tmpfs(container: ContainerFactory, bundle: BundleFactory, target: str) -> None:
    """Read-only in the end: devices and mount points of later entries were made in it all the same."""
    what = bundle("probe")
    for entry in what.list_of("mounts"):
        assert isinstance(entry, dict)
        if entry["destination"] == "/dev":
            entry["options"] = ["nosuid", "mode=755", *(["ro"] if target == "/dev" else [])]
    if target == "/m":
        what.mount("/m", "tmpfs", "tmpfs", "ro").mount("/m/sub", "tmpfs", "tmpfs")
    found = facts(container, what, "mkdir", f"{target}/new", "--", "open", "/dev/null", "rw")
    assert (found["mkdir"], found["open"]) == ("-30", "/dev/null 0")


def test_a_read_only_mqueue_concerns_this_mount_only(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """One superblock per IPC namespace: it must not become read-only for others."""
    what = remove(bundle("probe"), "/dev/mqueue").mount("/dev/mqueue", "mqueue", "mqueue", "ro")
    seen = mountinfo.parse(container(what.probe("mounts")).run().ok().out)["/dev/mqueue"]
    assert ("ro" in seen.options, "rw" in seen.superblock) == (True, True)


def test_what_the_host_forbids_stays_forbidden(
    container: ContainerFactory, bundle: BundleFactory, rootless: User, scratch: str
) -> None:
    """In a user namespace: kept where no option contradicts, else an error that names the option."""
    source = os.path.join(scratch, "source")
    os.mkdir(source)
    support.run("mount", "-t", "tmpfs", "-o", "ro,nosuid,nodev,noexec,mode=755", "locked", source).ok()
    try:
        for words in ("rbind", "rbind,ro,nodev,relatime"):
            what = bundle("probe", user=rootless).probe("mounts")
            what.mount("/m", "none", source, *words.split(","))
            seen = mountinfo.parse(container(what, user=rootless).run().ok().out)["/m"]
            assert {"ro", "nosuid", "nodev", "noexec"} <= seen.options
        for words, named in (("rw", "rw"), ("rexec,suid", "suid"), ("noatime", "access times")):
            what = bundle("probe", user=rootless).mount("/m", "none", source, "rbind", *words.split(","))
            container(what, user=rootless).run().fails(
                last(what), "mount_setattr '/m': operation not permitted", "leave out", named
            )
    finally:
        support.run("umount", source).ok()


# --- cgroup -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", [True, False])
def test_cgroup_mount_on_v1(container: ContainerFactory, bundle: BundleFactory, namespace: bool) -> None:
    """A tmpfs with one directory per hierarchy that shows the container's own cgroup and nothing beside it."""
    what = bundle("probe").probe("mounts", "--", "ls", "/sys/fs/cgroup", "--", "cgroup")
    if not namespace:
        what.without_namespace("cgroup")
    one = container(what, view="v1")
    what.mapping("linux")["cgroupsPath"] = f"/{one.id}"
    result = container(what.write(), view="v1").run().ok()
    seen = mountinfo.parse(result.out)
    assert (seen["/sys/fs/cgroup"].kind, "ro" in seen["/sys/fs/cgroup"].options) == ("tmpfs", True)
    hierarchies = [item for item in seen.values() if item.point.startswith("/sys/fs/cgroup/")]
    names = {os.path.basename(item.point) for item in hierarchies}
    assert {"memory", "cpu", "pids", "devices", "freezer", "systemd"} <= names
    assert {item.kind for item in hierarchies} == {"cgroup"}
    assert {item.root for item in hierarchies} == {"/" if namespace else f"/{one.id}"}
    assert all({"ro", "nosuid", "nodev", "noexec"} <= item.options for item in hierarchies)
    assert names <= set(result.facts().all("entry"))
    assert "0::/\n" in result.out or f":memory:/{'' if namespace else one.id}\n" in result.out


@pytest.mark.parametrize("namespace", [True, False])
@pytest.mark.parametrize("writable", [True, False])
def test_cgroup_mount_on_v2(
    container: ContainerFactory, bundle: BundleFactory, namespace: bool, writable: bool
) -> None:
    """With a cgroup namespace its root is the container's own cgroup."""
    what = remove(bundle("probe"), "/sys/fs/cgroup").probe("mounts", "--", "mkdir", "/sys/fs/cgroup/below")
    what.mount(
        "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", *([] if writable else ["ro"])
    )
    if not namespace:
        what.without_namespace("cgroup")
    one = container(what, view="v2")
    result = one.run().ok()
    seen = mountinfo.parse(result.out)["/sys/fs/cgroup"]
    assert (seen.kind, seen.root) == ("cgroup2", "/")
    assert ("ro" in seen.options) == (not writable)
    expected = "0" if writable else "-30"
    assert result.facts()["mkdir"] == expected
    if writable and not namespace:
        support.run(*support.VIEWS["v2"], "rmdir", "/sys/fs/cgroup/below").ok()


def test_an_ordinary_user_sees_the_hosts_cgroups_read_only(
    container: ContainerFactory, bundle: BundleFactory, rootless: User
) -> None:
    """Without a cgroup of its own: the runtime's, and CVE-2023-25809 says read-only."""
    what = remove(bundle("probe", user=rootless).probe("mounts"), "/sys")
    what.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev")
    seen = mountinfo.parse(container(what, user=rootless).run().ok().out)
    below = [item for item in seen.values() if item.point.startswith("/sys/fs/cgroup")]
    assert below
    assert all("ro" in item.options for item in below if item.kind != "tmpfs"), [
        vars(item) for item in below
    ]


def test_root_of_a_user_namespace_alone(
    container: ContainerFactory, bundle: BundleFactory, rootless: User
) -> None:
    """It owns no mount namespace: the sources of bind mounts are opened by init, in a namespace of its own."""
    what = bundle("probe", user=rootless).probe("mounts")
    for kind in ("uidMappings", "gidMappings"):
        what.mapping("linux")[kind] = [{"containerID": 0, "hostID": 0, "size": 1}]
    what.mount("/bound", "none", "/usr", "bind", "ro")
    command = ["unshare", "--user", "--map-root-user", rootless.pyrunc]
    one = container(what, user=rootless, command=command)
    assert "/bound" in mountinfo.parse(one.run().ok().out)
