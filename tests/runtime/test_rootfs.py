"""root, linux.devices, masked and read-only paths, rootfsPropagation, sysctl and host names, seen from inside."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

import mountinfo

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory
    from support import Facts, Json

pytestmark = pytest.mark.root

DEFAULT_DEVICES = {
    "/dev/null": "1:3",
    "/dev/zero": "1:5",
    "/dev/full": "1:7",
    "/dev/random": "1:8",
    "/dev/urandom": "1:9",
    "/dev/tty": "5:0",
}
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
}


def facts(container: ContainerFactory, what: Bundle, *words: str) -> Facts:
    """What the probe says in a container of this bundle."""
    return container(what.probe(*words)).run().ok().facts()


def device(what: Bundle, path: str, kind: str, *numbers: int, **members: Json) -> Bundle:
    """The bundle with one entry of linux.devices more."""
    entry: dict[str, Json] = {"path": path, "type": kind, **members}
    entry.update(zip(("major", "minor"), numbers, strict=False))
    what.list_of("linux", "devices").append(entry)
    return what


# --- root -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["relative", "absolute", "link"])
def test_root_path(container: ContainerFactory, bundle: BundleFactory, form: str) -> None:
    """Relative to the bundle or absolute; a link is followed, as crun does."""
    what = bundle("hello")
    path = {"relative": "rootfs", "absolute": what.rootfs, "link": "link"}[form]
    os.symlink("rootfs", os.path.join(what.path, "link"))
    what.mapping("root")["path"] = path
    assert container(what).run().ok().out == "hello from a container\n"


@pytest.mark.parametrize("path", ["nowhere", "config.json"])
def test_a_root_that_is_no_directory(container: ContainerFactory, bundle: BundleFactory, path: str) -> None:
    what = bundle("hello")
    what.mapping("root")["path"] = path
    container(what).run().fails("$.root.path", path)


def test_a_missing_root_is_an_error(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("hello")
    del what.spec["root"]
    container(what).run().fails("$", "root")


def test_a_read_only_root(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Nothing in it can be written, mounts in it can; the host's directory is not affected."""
    what = bundle("probe").mount("/tmp", "tmpfs", "tmpfs")
    what.mapping("root")["readonly"] = True
    found = facts(
        container, what, "mkdir", "/new", "--", "write", "/tmp/x", "y", "--", "write", "/dev/null", "z"
    )
    assert (found["mkdir"], found.all("wrote")) == ("-30", ["1", "1"])
    os.mkdir(os.path.join(what.rootfs, "new"))


def test_the_hosts_tree_is_gone(container: ContainerFactory, bundle: BundleFactory) -> None:
    """After pivot_root no mount of the host is left, and ".." of the root is the root."""
    what = bundle("probe").probe("mounts", "--", "ls", "/..")
    result = container(what).run().ok()
    roots = [mount for mount in map(mountinfo.Mount, _lines(result.out)) if mount.point == "/"]
    assert len(roots) == 1
    assert sorted(result.facts().all("entry")) == sorted(os.listdir(what.rootfs))


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if " - " in line]


def test_no_pivot(container: ContainerFactory, bundle: BundleFactory) -> None:
    """For roots on an initramfs: the root is moved over "/"; no whole proc or sysfs of the host stays below."""
    what = bundle("probe").probe("mounts", "--", "ls", "/..")
    result = container(what).run("--no-pivot").ok()
    assert sorted(result.facts().all("entry")) == sorted(os.listdir(what.rootfs))
    whole = [
        mount
        for mount in map(mountinfo.Mount, _lines(result.out))
        if mount.kind == "proc" and mount.root == "/"
    ]
    assert [mount.point for mount in whole] == ["/proc"]


@pytest.mark.parametrize(
    ("value", "tags"),
    [(None, []), ("private", []), ("slave", None), ("shared", ["shared"]), ("unbindable", ["unbindable"])],
)
def test_rootfs_propagation(
    container: ContainerFactory, bundle: BundleFactory, value: str | None, tags: list[str] | None
) -> None:
    """config-linux.md: of the container's root mount. A slave shows its master when the host's mount is shared."""
    what = bundle("probe").probe("mounts")
    if value is not None:
        what.mapping("linux")["rootfsPropagation"] = value
    found = mountinfo.parse(container(what).run().ok().out)["/"].tags
    assert found == tags if tags is not None and value is not None else "shared" not in found


@pytest.mark.parametrize(
    ("value", "root", "mount"),
    [
        (None, "master", ["master", "shared"]),
        ("slave", "master", ["shared"]),
        ("rslave", "master", ["master", "shared"]),
        ("private", "", ["shared"]),
        ("rprivate", "", ["shared"]),
    ],
)
def test_propagation_where_the_host_shares(
    container: ContainerFactory, bundle: BundleFactory, value: str | None, root: str, mount: list[str]
) -> None:
    """The rootfs lies on the host's "/", which is shared; a mount that asks for rshared has it in the end."""
    what = bundle("probe").probe("mounts").mount("/m", "none", "/dev", "rbind", "rshared")
    if value is not None:
        what.mapping("linux")["rootfsPropagation"] = value
    one = container(what)
    share = 'mount --make-rshared /; "$@"'
    one.command = ["unshare", "-m", "--propagation", "private", "sh", "-c", share, "sh", *one.command]
    found = mountinfo.parse(one.run().ok().out)
    assert [tag.split(":")[0] for tag in found["/"].tags] == ([root] if root else [])
    assert sorted(tag.split(":")[0] for tag in found["/m"].tags) == mount


def test_an_unknown_propagation_is_refused(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe")
    what.mapping("linux")["rootfsPropagation"] = "public"
    container(what).run().fails("$.linux.rootfsPropagation", "public")


# --- Devices ----------------------------------------------------------------------------------------------------------


def test_default_devices_and_links(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config-linux.md "Default Devices" and runtime-linux.md: there without being listed, and they work."""
    words = ["stat", *DEFAULT_DEVICES]
    for path in LINKS:
        words += ["--", "readlink", path]
    found = facts(
        container,
        bundle("probe"),
        *words,
        "--",
        "devread",
        "/dev/zero",
        "8",
        "--",
        "write",
        "/dev/null",
        "x",
    )
    listed = [item.split() for item in found.all("stat")]
    assert {item[0]: item[item.index("rdev") + 1] for item in listed} == DEFAULT_DEVICES
    assert {item[2] for item in listed} == {"020666"}
    assert found.all("readlink") == list(LINKS.values())
    assert (found["read"], found["wrote"]) == ("8", "1")


def test_without_proc_there_are_no_links_to_it(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A link whose target does not exist is no use; the program runs all the same."""
    what = bundle("busybox", "ls", "/dev")
    mounts = what.list_of("mounts")
    mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != "/proc"]
    for name in ("maskedPaths", "readonlyPaths"):
        what.mapping("linux").pop(name)
    names = container(what).run().ok().out.split()
    assert {"null", "tty", "urandom"} <= set(names)


def test_devices_of_the_configuration(container: ContainerFactory, bundle: BundleFactory) -> None:
    """All four types, outside /dev too, with mode, owner and group as told whatever the umask; 0666 by default."""
    what = device(bundle("probe"), "/dev/fuse0", "c", 10, 229)
    device(what, "/deep/in/block", "b", 7, 300, fileMode=0o100640, uid=12, gid=34)
    device(what, "/dev/raw", "u", 1, 5, fileMode=0o600)
    device(what, "/dev/pipe", "p", fileMode=0o622, uid=1)
    device(what, "/dev/null", "c", 1, 3, fileMode=0o620)
    what.mapping("process", "user")["umask"] = 0o077
    found = facts(
        container, what, "stat", "/dev/fuse0", "/deep/in/block", "/dev/raw", "/dev/pipe", "/dev/null"
    )
    told = [
        (item.split()[2], item.split()[4], item.split()[6], item.split()[-1]) for item in found.all("stat")
    ]
    assert told == [
        ("020666", "0", "0", "10:229"),
        ("060640", "12", "34", "7:300"),
        ("020600", "0", "0", "1:5"),
        ("010622", "1", "0", "0:0"),
        ("020620", "0", "0", "1:3"),
    ]


def test_an_existing_device_must_match(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config-linux.md: for an existing file that does not match "the runtime MUST generate an error"."""
    what = bundle("probe").probe("stat", "/etc/node")
    node = os.path.join(what.rootfs, "etc/node")
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    device(what, "/etc/node", "c", 1, 3)
    container(what).run().ok()
    os.unlink(node)
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    container(what).run().fails("$.linux.devices[0]", "/etc/node")
    os.unlink(node)
    with open(node, "w", encoding="ascii"):
        pass
    container(what).run().fails("$.linux.devices[0]", "/etc/node")


def test_a_device_in_a_linked_dev_stays_inside(container: ContainerFactory, bundle: BundleFactory) -> None:
    """CVE-2026-41579: an image whose /dev is a link to somewhere on the host."""
    what = bundle("probe").probe("echo", "alive")
    mounts = what.list_of("mounts")
    mounts[:] = [
        item
        for item in mounts
        if not (isinstance(item, dict) and str(item["destination"]).startswith("/dev"))
    ]
    os.rmdir(os.path.join(what.rootfs, "dev"))
    os.symlink("../../../../../../../../outside-dev", os.path.join(what.rootfs, "dev"))
    container(what).run()
    assert not os.path.lexists("/outside-dev")


def test_a_dev_of_the_host_is_left_alone(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """Bound, not made: no device or link is added to it."""
    source = os.path.join(scratch, "dev")
    os.mkdir(source)
    os.mknod(os.path.join(source, "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    what = bundle("probe")
    mounts = what.list_of("mounts")
    mounts[:] = [
        item
        for item in mounts
        if not (isinstance(item, dict) and str(item["destination"]).startswith("/dev"))
    ]
    what.mount("/dev", "none", source, "bind")
    assert facts(container, what, "ls", "/dev").all("entry") == ["null"]
    assert os.listdir(source) == ["null"]


def test_devices_in_a_user_namespace_are_bound(container: ContainerFactory, bundle: BundleFactory) -> None:
    """mknod is not allowed there: the host's nodes are bound, and work."""
    what = device(bundle("userns"), "/dev/full2", "c", 1, 7)
    result = container(what.probe("stat", "/dev/null", "--", "write", "/dev/null", "x")).run()
    result.fails("$.linux.devices[0]", "/dev/full2")
    what.list_of("linux", "devices").clear()
    device(what, "/dev/full", "c", 1, 7)
    found = container(what).run().ok().facts()
    assert ("rdev 1:3" in found["stat"], found["wrote"]) == (True, "1")


# --- Hidden and read-only paths ---------------------------------------------------------------------------------------


def test_masked_paths(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Files read as empty, directories are empty and read-only, missing ones and links are no matter."""
    what = bundle("probe")
    secret = os.path.join(what.rootfs, "secret")
    os.mkdir(secret)
    for name in ("secret/file", "key"):
        with open(os.path.join(what.rootfs, name), "w", encoding="ascii") as stream:
            stream.write("secret\n")
    os.symlink("/key", os.path.join(what.rootfs, "link"))
    what.list_of("linux", "maskedPaths")[:] = [
        "/secret",
        "/key",
        "/nowhere",
        "/link",
        "/proc/uptime",
        "/proc/nowhere/x",
    ]
    words = "ls /secret -- devread /key -- devread /link -- mkdir /secret/new -- devread /proc/uptime -- write /key x"
    found = facts(container, what, *words.split())
    assert (found.all("entry"), found.all("read"), found["mkdir"]) == ([], ["0", "0", "0"], "-30")
    with open(os.path.join(what.rootfs, "key"), encoding="ascii") as stream:
        assert stream.read() == "secret\n"


def test_read_only_paths(container: ContainerFactory, bundle: BundleFactory) -> None:
    """With everything below, keeping what the mount forbids already; /proc stays writable beside them."""
    what = (
        bundle("probe").mount("/m", "tmpfs", "tmpfs", "nosuid", "noexec").mount("/m/sub", "tmpfs", "tmpfs")
    )
    what.list_of("linux", "readonlyPaths")[:] = ["/m", "/etc/passwd", "/nowhere", "/proc/sys"]
    words = (
        "mounts -- mkdir /m/x -- mkdir /m/sub/x -- open /etc/passwd rw -- open /proc/self/oom_score_adj rw"
    )
    result = (
        container(what.probe(*words.split(), "--", "open", "/proc/sys/kernel/hostname", "rw")).run().ok()
    )
    found = result.facts()
    assert found.all("mkdir") == ["-30", "-30"]
    answers = ["/etc/passwd -30", "/proc/self/oom_score_adj 0", "/proc/sys/kernel/hostname -30"]
    assert found.all("open") == answers
    assert {"ro", "nosuid", "noexec"} <= mountinfo.parse(result.out)["/m"].options


@pytest.mark.parametrize("path", ["/", "//.", "/to-root"])
def test_a_read_only_path_that_is_the_root(
    container: ContainerFactory, bundle: BundleFactory, path: str
) -> None:
    """As root.readonly: what is mounted on it stays as it is."""
    what = bundle("probe").mount("/m", "tmpfs", "tmpfs").probe(*["mkdir", "/x", "--", "mkdir", "/m/x"])
    os.symlink("/", os.path.join(what.rootfs, "to-root"))
    what.list_of("linux", "readonlyPaths")[:] = [path]
    assert container(what).run().ok().facts().all("mkdir") == ["-30", "0"]


def test_a_path_that_is_listed_twice(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Nothing is mounted over what has the effect already."""
    what = bundle("probe").probe("mounts")
    for name in ("hidden", "kept"):
        os.mkdir(os.path.join(what.rootfs, name))
    what.list_of("linux", "maskedPaths")[:] = ["/hidden", "/hidden/", "/.//hidden"]
    what.list_of("linux", "readonlyPaths")[:] = ["/kept", "/./kept", "/kept"]
    points = [line.split()[4] for line in _lines(container(what).run().ok().out)]
    assert [points.count(path) for path in ("/hidden", "/kept")] == [1, 1]


def test_paths_must_be_absolute(container: ContainerFactory, bundle: BundleFactory) -> None:
    for name in ("maskedPaths", "readonlyPaths"):
        what = bundle("probe")
        what.list_of("linux", name)[:] = ["proc/kcore"]
        container(what).run().fails(f"$.linux.{name}[0]", "proc/kcore")


# --- Names and sysctl -------------------------------------------------------------------------------------------------


def test_host_and_domain_name(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe")
    what.spec["hostname"] = "inside"
    what.spec["domainname"] = "example.org"
    what.spec["ociVersion"] = "1.1.0"
    found = facts(container, what, "uname")
    assert (found["hostname"], found["domainname"]) == ("inside", "example.org")
    assert os.uname().nodename != "inside"


@pytest.mark.parametrize("name", ["hostname", "domainname"])
def test_a_name_needs_a_namespace(container: ContainerFactory, bundle: BundleFactory, name: str) -> None:
    """Or it would be the host's."""
    what = bundle("probe").without_namespace("uts")
    del what.spec["hostname"]
    what.spec[name] = "inside"
    container(what).run().fails(f"$.{name}", "UTS namespace")
    assert os.uname().nodename != "inside"


def test_sysctl(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Of the container's namespaces, with both separators; before /proc/sys becomes read-only."""
    what = bundle("probe")
    what.mapping("linux")["sysctl"] = {
        "net.ipv4.ip_forward": "1",
        "net/ipv4/ip_unprivileged_port_start": "80",
        "kernel.shmmax": "12345",
        "fs.mqueue.msg_max": "11",
    }
    paths = [
        "net/ipv4/ip_forward",
        "net/ipv4/ip_unprivileged_port_start",
        "kernel/shmmax",
        "fs/mqueue/msg_max",
    ]
    result = container(what.args("/bin/busybox", "cat", *[f"/proc/sys/{path}" for path in paths])).run().ok()
    assert result.out.split() == ["1", "80", "12345", "11"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("vm.swappiness", "not in a separate kernel namespace"),
        ("kernel.hostname", ""),
        ("net.ipv4.nothing", ""),
    ],
)
def test_a_sysctl_of_the_host_is_refused(
    container: ContainerFactory, bundle: BundleFactory, key: str, text: str
) -> None:
    what = bundle("probe").probe("uname")
    what.mapping("linux")["sysctl"] = {key: "7"}
    container(what).run().fails("$.linux.sysctl", key, text)


def test_a_sysctl_needs_its_namespace(container: ContainerFactory, bundle: BundleFactory) -> None:
    """In the host's network namespace it would be the host's."""
    what = bundle("probe").without_namespace("network")
    what.mapping("linux")["sysctl"] = {"net.ipv4.ip_forward": "1"}
    container(what).run().fails("$.linux.sysctl", "net.ipv4.ip_forward")


def test_what_other_systems_have_is_ignored(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config.md, "Platform-specific configuration"."""
    what = bundle("hello")
    what.spec.update(windows={"layerFolders": ["x"]}, solaris={"milestone": "x"})
    result = container(what).run().ok()
    assert (result.out, result.err) == ("hello from a container\n", "")


@pytest.mark.parametrize(
    ("version", "good"), [("1.0.0", True), ("1.2.1", True), ("2.0.0", False), ("1.0", False)]
)
def test_oci_version(container: ContainerFactory, bundle: BundleFactory, version: str, good: bool) -> None:
    """config.md: SemVer 2.0.0; a later major version may mean anything."""
    what = bundle("hello")
    what.spec["ociVersion"] = version
    result = container(what).run()
    assert (result.status == 0) == good, result
    assert good or "$.ociVersion" in result.err
