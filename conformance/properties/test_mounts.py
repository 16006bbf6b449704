"""Rows of the top level, `root` and `mounts`: config.md, "Root" and "Mounts"; config-linux.md."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from box import row

if TYPE_CHECKING:
    from collections.abc import Callable

    from box import Box
    from support import Json, Spec

# statfs(2) f_flags.
RDONLY, NOSUID, NODEV, NOEXEC, SYNC, MANDLOCK = 1, 2, 4, 8, 16, 64
NOATIME, NODIRATIME, RELATIME, NOSYMFOLLOW = 1024, 2048, 4096, 8192


# --- Top level and root -----------------------------------------------------------------------------------------------


@row("ociVersion")
def test_version_must_be_there(box: Box) -> None:
    box.drop("ociVersion").refused()


@row("ociVersion: must be SemVer")
@pytest.mark.parametrize("version", ["invalid", "1", "2.0.0"])
def test_version_must_be_valid(box: Box, version: str) -> None:
    box.set("ociVersion", version).refused()


@row("root.path")
def test_root_must_be_there(box: Box) -> None:
    box.drop("root").refused()


@row("root.path")
def test_root_path_must_exist(box: Box) -> None:
    box.set("root.path", "nowhere").refused()


@row("root.path")
def test_root_path_absolute(box: Box) -> None:
    box.set("root.path", box.bundle.rootfs).facts("ids")


@row("root.readonly")
@pytest.mark.parametrize("value", [True, False])
def test_root_readonly(box: Box, value: bool) -> None:
    box.set("root.readonly", value)
    result = box.run("write", "/new", "text")
    assert (result.status == 0) is not value, result
    assert os.path.exists(os.path.join(box.bundle.rootfs, "new")) is not value


@row("hostname")
def test_hostname(box: Box) -> None:
    assert box.set("hostname", "other").facts("uname")["hostname"] == "other"


@row("domainname")
def test_domainname(box: Box) -> None:
    assert box.set("domainname", "example.org").facts("uname")["domainname"] == "example.org"


@row("hostname")
def test_hostname_needs_a_namespace(box: Box) -> None:
    box.bundle.without_namespace("uts")
    box.set("hostname", "other").refused()


@row("domainname")
def test_domainname_needs_a_namespace(box: Box) -> None:
    box.bundle.without_namespace("uts")
    box.drop("hostname").set("domainname", "example.org").refused()


@row("annotations")
def test_annotations_are_in_the_state(box: Box) -> None:
    one = box.set("annotations", {"org.example.key": "value"}).up()
    assert one.state()["annotations"] == {"org.example.key": "value"}


@row("annotations: an empty key is an error")
def test_annotations_have_names(box: Box) -> None:
    box.set("annotations", {"": "value"}).refused()


@row("unknown properties are ignored")
def test_unknown_properties(box: Box) -> None:
    box.set("nonsense", {"a": 1}).set("linux.nonsense", True).set("windows", {}).set("vm", {}).facts("ids")


@row("linux, mounts, hooks are optional")
@pytest.mark.parametrize("names", [["mounts"], ["hooks"], ["linux", "mounts", "hooks", "hostname"]])
def test_optional_parts(box: Box, names: list[str]) -> None:
    box.drop("linux.maskedPaths").drop("linux.readonlyPaths")
    for name in names:
        box.drop(name)
    box.facts("ids")


# --- Mounts -----------------------------------------------------------------------------------------------------------


@row("mounts[].destination", "mounts[].source", "mounts[].type")
def test_mounts_come_in_order(box: Box) -> None:
    box.bundle.mount("/m", "tmpfs", "one", "mode=700").mount("/m/n", "tmpfs", "two", "mode=711")
    box.bundle.mount("/m", "tmpfs", "three", "mode=722")
    points = [line.split()[4] for line in box.facts("mounts").text.splitlines() if " /m" in line]
    assert points == ["/m", "/m/n", "/m"]


@row("mounts[].destination: a relative one starts at /")
def test_relative_destination(box: Box) -> None:
    box.bundle.mount("rel/dir", "tmpfs", "tmpfs")
    assert "mode 04" in box.facts("stat", "/rel/dir").text


@row("mounts[].source")
@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("relative", [True, False])
def test_bind_source(box: Box, kind: str, relative: bool) -> None:
    source = os.path.join(box.bundle.path, "source")
    if kind == "file":
        with open(source, "w", encoding="ascii") as stream:
            stream.write("content\n")
    else:
        os.mkdir(source)
        with open(os.path.join(source, "f"), "w", encoding="ascii") as stream:
            stream.write("content\n")
    box.bundle.mount("/new/target", "none", "source" if relative else source, "bind")
    path = "/new/target" if kind == "file" else "/new/target/f"
    assert "content" in box.run("cat", path).ok().out


@row("mounts[].source")
def test_bind_source_must_exist(box: Box) -> None:
    box.bundle.mount("/m", "none", "/nowhere/at/all", "bind")
    box.refused()


@row("mounts[].destination: a symbolic link does not lead out")
def test_destination_through_a_link(box: Box, scratch: str) -> None:
    outside = os.path.join(scratch, "outside")
    os.mkdir(outside)
    os.symlink(outside, os.path.join(box.bundle.rootfs, "link"))
    box.bundle.mount("/link/made", "tmpfs", "tmpfs")
    box.run("ids")
    assert os.listdir(outside) == []


@row("mounts[].destination: proc and sysfs on real directories only")
@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_on_a_link(box: Box, name: str) -> None:
    path = os.path.join(box.bundle.rootfs, name)
    if os.path.isdir(path):
        os.rmdir(path)
    os.symlink("/tmp", path)
    box.refused()


@row("mounts[].destination: not below /proc")
def test_mount_below_proc(box: Box) -> None:
    box.bundle.mount("/proc/sys", "tmpfs", "tmpfs")
    box.refused()


@row("mounts[].destination: on /")
def test_mount_on_the_root(box: Box) -> None:
    os.mkdir(os.path.join(box.bundle.path, "other"))
    box.bundle.mount("/", "none", box.bundle.rootfs, "bind", "ro")
    assert box.run("write", "/new", "text").status != 0


@row("mounts[].options: unknown ones are the file system's")
def test_data_options(box: Box) -> None:
    box.bundle.mount("/m", "tmpfs", "tmpfs", "size=123k", "mode=751")
    found = box.facts("mounts", "--", "stat", "/m").text
    assert "size=124k" in found
    assert "mode 040751" in found


@row("mounts[].options: data with bind is not silently dropped")
def test_bind_with_data(box: Box) -> None:
    # An error for runc. The OCI suite has it in a bundle that must work, and then a warning is all that is left.
    box.bundle.mount("/m", "none", "/tmp", "bind", "size=10")
    one = box.container()
    result = one.pyrunc("--debug", "run", "--bundle", one.bundle.path, one.id)
    assert "bind mounts cannot have any filesystem-specific options applied" in result.err, result


@row("mounts[].type: cgroup")
def test_cgroup_mount(box: Box) -> None:
    found = box.facts("mounts").text
    assert " /sys/fs/cgroup" in found


@row("default file systems: /dev/fd, stdin, stdout, stderr, ptmx")
@pytest.mark.parametrize("name", ["fd", "stdin", "stdout", "stderr", "ptmx"])
def test_default_links(box: Box, name: str) -> None:
    assert "error" not in box.run("readlink", f"/dev/{name}").ok().out


def flags(box: Box, path: str) -> int:
    words = box.facts("statfs", path)["statfs"].split()
    return int(words[words.index("flags") + 1], 16)


# Option -> bits of statfs that must be there, and those that must not.
SET = {
    "ro": (RDONLY, 0),
    "nosuid": (NOSUID, 0),
    "nodev": (NODEV, 0),
    "noexec": (NOEXEC, 0),
    "noatime": (NOATIME, 0),
    "nodiratime": (NODIRATIME, 0),
    "relatime": (RELATIME, 0),
    "nosymfollow": (NOSYMFOLLOW, 0),
    "sync": (SYNC, 0),
    "strictatime": (0, RELATIME | NOATIME),
    "defaults": (0, RDONLY | NOSUID | NODEV | NOEXEC),
}
# Option -> the one that it undoes, and the bit.
CLEARED = {
    "rw": ("ro", RDONLY),
    "suid": ("nosuid", NOSUID),
    "dev": ("nodev", NODEV),
    "exec": ("noexec", NOEXEC),
    "atime": ("noatime", NOATIME),
    "diratime": ("nodiratime", NODIRATIME),
    "async": ("sync", SYNC),
    "symfollow": ("nosymfollow", NOSYMFOLLOW),
}
# Options that leave no trace in statfs: they must be taken, and not end in the data of a file system that knows none.
SILENT = [
    *("dirsync", "lazytime", "nolazytime", "iversion", "noiversion", "silent", "loud", "mand", "nomand"),
    *("norelatime", "nostrictatime"),
]


@row("mount option {option}")
@pytest.mark.parametrize("option", sorted(SET))
def test_option_sets(box: Box, option: str) -> None:
    box.bundle.mount("/m", "tmpfs", "tmpfs", option)
    there, absent = SET[option]
    found = flags(box, "/m")
    assert found & there == there, hex(found)
    assert not found & absent, hex(found)


@row("mount option {option}")
@pytest.mark.parametrize("option", sorted(CLEARED))
def test_option_clears(box: Box, option: str) -> None:
    other, bit = CLEARED[option]
    box.bundle.mount("/m", "tmpfs", "tmpfs", other, option)
    assert not flags(box, "/m") & bit


@row("mount option {option}")
@pytest.mark.parametrize("option", SILENT)
def test_option_is_known(box: Box, option: str) -> None:
    """mqueue takes no data at all, so an option that is not recognised is refused there."""
    box.bundle.mount("/m", "mqueue", "mqueue", option)
    box.facts("ids")


@row("mount option {option}: an extension of crun")
@pytest.mark.parametrize("option", ["rasync", "rdirsync", "rmand", "rnomand", "rsync"])
def test_extension_is_known(box: Box, option: str) -> None:
    """As above: a superblock has nothing below it, so that only being taken shows."""
    box.bundle.mount("/m", "mqueue", "mqueue", option)
    box.facts("ids")


def linked(box: Box) -> str:
    """A file with a link to it; the image has a file `place`, and a link `link` to it."""
    source = os.path.join(box.bundle.path, "source")
    os.mkdir(source)
    for path in (os.path.join(source, "file"), os.path.join(box.bundle.rootfs, "place")):
        with open(path, "w", encoding="ascii") as stream:
            stream.write("content\n")
    os.symlink("file", os.path.join(source, "link"))
    os.symlink("place", os.path.join(box.bundle.rootfs, "link"))
    return source


@row("mount option copy-symlink: an extension of crun")
def test_copy_symlink(box: Box) -> None:
    box.bundle.mount("/made", "bind", f"{linked(box)}/link", "bind", "copy-symlink")
    assert box.facts("readlink", "/made")["readlink"] == "file"


@row("mount option src-nofollow: an extension of crun")
def test_source_nofollow(box: Box) -> None:
    box.bundle.mount("/place", "bind", f"{linked(box)}/link", "bind", "src-nofollow")
    assert box.facts("readlink", "/place")["readlink"] == "file"


@row("mount option dest-nofollow: an extension of crun")
def test_destination_nofollow(box: Box) -> None:
    box.bundle.mount("/link", "bind", f"{linked(box)}/file", "bind", "dest-nofollow")
    points = [line.split()[4] for line in box.facts("mounts").text.splitlines() if " - " in line]
    assert "/link" in points and "/place" not in points


RECURSIVE_SET = {
    "rro": RDONLY,
    "rnosuid": NOSUID,
    "rnodev": NODEV,
    "rnoexec": NOEXEC,
    "rnoatime": NOATIME,
    "rnodiratime": NODIRATIME,
    "rrelatime": RELATIME,
    "rnosymfollow": NOSYMFOLLOW,
}
RECURSIVE_CLEAR = {
    "rrw": ("ro", RDONLY),
    "rsuid": ("nosuid", NOSUID),
    "rdev": ("nodev", NODEV),
    "rexec": ("noexec", NOEXEC),
    "ratime": ("noatime", NOATIME),
    "rdiratime": ("nodiratime", NODIRATIME),
    "rsymfollow": ("nosymfollow", NOSYMFOLLOW),
    "rstrictatime": ("noatime", NOATIME | RELATIME),
    "rnorelatime": ("noatime", 0),
    "rnostrictatime": ("noatime", 0),
}


def nested(box: Box, *options: str) -> None:
    """A bind of a tree with a mount below it: the container's own /dev with its /dev/shm."""
    source = os.path.join(box.bundle.path, "source")
    os.makedirs(os.path.join(source, "below"))
    box.bundle.mount("/tree", "none", source, "rbind", *options)


@row("mount option {option}")
@pytest.mark.parametrize("option", sorted(RECURSIVE_SET))
def test_recursive_option_sets(box: Box, option: str) -> None:
    nested(box, option)
    assert flags(box, "/tree") & RECURSIVE_SET[option]


@row("mount option {option}")
@pytest.mark.parametrize("option", sorted(RECURSIVE_CLEAR))
def test_recursive_option_clears(box: Box, option: str) -> None:
    other, bit = RECURSIVE_CLEAR[option]
    nested(box, other, option)
    assert not flags(box, "/tree") & bit


@row("mount option {option}")
@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_bind_options(box: Box, option: str) -> None:
    box.bundle.mount("/m", "dummy", box.bundle.rootfs, option)
    assert "entry bin" in box.facts("ls", "/m").text


@row("mount option remount")
def test_remount(box: Box) -> None:
    box.bundle.mount("/m", "tmpfs", "tmpfs").mount("/m", "tmpfs", "tmpfs", "remount", "ro")
    assert flags(box, "/m") & RDONLY


PROPAGATION = {"shared": "shared:", "private": "", "slave": "", "unbindable": "unbindable"}


@row("mount option {prefix}{option}")
@pytest.mark.parametrize("prefix", ["", "r"])
@pytest.mark.parametrize("option", sorted(PROPAGATION))
def test_propagation(box: Box, prefix: str, option: str) -> None:
    box.bundle.mount("/m", "tmpfs", "tmpfs", prefix + option)
    line = next(line for line in box.facts("mounts").text.splitlines() if line.split()[4] == "/m")
    fields = line.split(" - ")[0].split()[6:]
    expected = PROPAGATION[option]
    assert (
        any(field.startswith(expected) for field in fields)
        if expected
        else not any(field.startswith(("shared", "unbindable")) for field in fields)
    )


@row("mount option tmpcopyup")
def test_tmpcopyup(box: Box) -> None:
    box.bundle.mount("/bin", "tmpfs", "tmpfs", "tmpcopyup")
    assert "entry probe" in box.facts("ls", "/bin").text


def idmapped(make_box: Callable[[], Box], *options: str, explicit: bool) -> str:
    """The owner that a bind of a file of root's shows; the container maps 0 to 100000, the mount 0 to 100000."""
    box = make_box()
    source = os.path.join(box.bundle.path, "source")
    os.mkdir(source)
    box.bundle.namespace("user")
    ids: list[Json] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for name in ("uidMappings", "gidMappings"):
        box.set(f"linux.{name}", ids)
    for directory, _, names in os.walk(box.bundle.rootfs):
        for name in [directory, *(os.path.join(directory, name) for name in names)]:
            os.lchown(name, 100000, 100000)
    os.chmod(os.path.dirname(box.bundle.path), 0o755)
    os.chmod(box.bundle.path, 0o755)
    mount: Spec = {"destination": "/m", "type": "none", "source": source, "options": ["rbind", *options]}
    if explicit:
        mount |= {"uidMappings": ids, "gidMappings": ids}
    box.add("mounts", mount)
    return box.facts("stat", "/m").text


@row("mounts[].uidMappings", "mounts[].gidMappings")
def test_mount_mappings(make_box: Callable[[], Box]) -> None:
    assert "uid 0 gid 0" in idmapped(make_box, explicit=True)


@row("mount option {option}")
@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_idmap_option(make_box: Callable[[], Box], option: str) -> None:
    assert "uid 0 gid 0" in idmapped(make_box, option, explicit=False)


@row("mount option {option}")
@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_idmap_needs_a_mapping(box: Box, option: str) -> None:
    box.bundle.mount("/m", "none", "/tmp", "rbind", option)
    box.refused()


@row("mounts[].uidMappings", "mounts[].gidMappings")
@pytest.mark.parametrize("name", ["uidMappings", "gidMappings"])
def test_mount_mappings_come_together(box: Box, name: str) -> None:
    ids: list[Json] = [{"containerID": 0, "hostID": 100000, "size": 1}]
    box.add(
        "mounts", {"destination": "/m", "type": "none", "source": "/tmp", "options": ["bind"], name: ids}
    )
    box.refused()
