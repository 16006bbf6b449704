"""config.md, "Linux mount options": every option has its effect, seen in the container's mountinfo."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import mountinfo
import support
from pyrunc.spec import mount_options

if TYPE_CHECKING:
    from containers import BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

# What a source has that options take away again, and the propagation of one whose mounts come and go.
HARD = "ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow"
SHARED = "shared"
# option -> [(scene, all options, expected)]. Scenes: "new" is a new tmpfs at /m, "soft", "hard" and "shared" are binds
# of a source with another mount at sub. Expected: "m+x" says that x is among the options of /m, "s-x" that it is not
# among those of /m/sub; "fs" is about the superblock, "tags" about propagation; "nested" says whether /m/sub is there.
CASES: dict[str, list[tuple[str, str, str]]] = {
    "async": [("new", "sync,async", "fs-sync"), ("new", "async", "fs-sync")],
    "atime": [("new", "noatime,atime", "m-noatime"), ("hard", "bind,atime", "m-noatime")],
    "bind": [("soft", "bind", "nested- m+rw"), ("hard", "bind", "m+ro m+nosuid m+noexec m+nosymfollow")],
    "defaults": [("new", "defaults", "m+rw m+relatime m-nosuid"), ("soft", "rbind,defaults", "m+rw")],
    "dev": [("new", "nodev,dev", "m-nodev"), ("hard", "rbind,dev", "m-nodev s+nodev m+nosuid")],
    "diratime": [("new", "nodiratime,diratime", "m-nodiratime"), ("hard", "bind,diratime", "m-nodiratime")],
    "dirsync": [("new", "dirsync", "fs+dirsync")],
    "exec": [("new", "noexec,exec", "m-noexec"), ("hard", "rbind,exec", "m-noexec s+noexec")],
    "iversion": [("new", "iversion", "m+rw"), ("soft", "rbind,iversion", "m+rw")],
    "lazytime": [("new", "lazytime", "fs+lazytime")],
    "loud": [("new", "loud", "m+rw")],
    "mand": [("new", "mand", "fs+mand")],
    "noatime": [("new", "noatime", "m+noatime"), ("soft", "rbind,noatime", "m+noatime s-noatime")],
    "nodev": [("new", "nodev", "m+nodev"), ("soft", "rbind,nodev", "m+nodev s-nodev")],
    "nodiratime": [("new", "nodiratime", "m+nodiratime"), ("soft", "rbind,nodiratime", "m+nodiratime s-nodiratime")],
    "noexec": [("new", "noexec", "m+noexec"), ("soft", "rbind,noexec", "m+noexec s-noexec")],
    "noiversion": [("new", "noiversion", "m+rw")],
    "nolazytime": [("new", "lazytime,nolazytime", "fs-lazytime")],
    "nomand": [("new", "mand,nomand", "fs-mand")],
    "norelatime": [("new", "norelatime", "m-noatime"), ("soft", "bind,noatime,norelatime", "m-noatime")],
    "nostrictatime": [("new", "strictatime,nostrictatime", "m+relatime")],
    "nosuid": [("new", "nosuid", "m+nosuid"), ("soft", "rbind,nosuid", "m+nosuid s-nosuid")],
    "nosymfollow": [("new", "nosymfollow", "m+nosymfollow"),
        ("soft", "rbind,nosymfollow", "m+nosymfollow s-nosymfollow")],
    "private": [("shared", "rbind,private", "tags s+master"), ("new", "shared,private", "tags")],
    "rasync": [("new", "sync,rasync", "fs-sync")],
    "ratime": [("hard", "rbind,ratime", "m-noatime s-noatime")],
    "rbind": [("soft", "rbind", "nested+"), ("hard", "rbind", "nested+ m+ro s+ro s+nosuid s+noexec")],
    "rdev": [("hard", "rbind,rdev", "m-nodev s-nodev s+nosuid")],
    "rdirsync": [("new", "rdirsync", "fs+dirsync"), ("soft", "rbind,rdirsync", "m+rw fs-dirsync")],
    "rdiratime": [("hard", "rbind,rdiratime", "m-nodiratime s-nodiratime")],
    "relatime": [("new", "noatime,relatime", "m+relatime"), ("hard", "rbind,relatime", "m+relatime s+noatime")],
    "remount": [("new", "remount,ro,nosuid", "m+ro m+nosuid fs+ro"), ("new", "remount,bind,ro", "m+ro fs-ro")],
    "rexec": [("hard", "rbind,rexec", "m-noexec s-noexec")],
    "rmand": [("new", "rmand", "fs+mand")],
    "rnoatime": [("soft", "rbind,rnoatime", "m+noatime s+noatime")],
    "rnodev": [("soft", "rbind,rnodev", "m+nodev s+nodev"), ("new", "rnodev", "m+nodev")],
    "rnodiratime": [("soft", "rbind,rnodiratime", "m+nodiratime s+nodiratime")],
    "rnoexec": [("soft", "rbind,rnoexec", "m+noexec s+noexec")],
    "rnomand": [("new", "mand,rnomand", "fs-mand")],
    "rnorelatime": [("hard", "rbind,rnorelatime", "m-noatime s-noatime")],
    "rnostrictatime": [("hard", "rbind,rnostrictatime", "m+relatime s+relatime")],
    "rnosuid": [("soft", "rbind,rnosuid", "m+nosuid s+nosuid")],
    "rnosymfollow": [("soft", "rbind,rnosymfollow", "m+nosymfollow s+nosymfollow")],
    "ro": [("new", "ro", "m+ro"), ("soft", "rbind,ro", "m+ro s+rw fs+rw")],
    "rprivate": [("shared", "rbind,rprivate", "tags s-master s-shared")],
    "rrelatime": [("hard", "rbind,rrelatime", "m+relatime s+relatime")],
    "rro": [("soft", "rbind,rro", "m+ro s+ro"), ("soft", "rbind,rw,rro", "m+ro s+ro")],
    "rrw": [("hard", "rbind,rrw", "m+rw")],
    "rshared": [("soft", "rbind,rshared", "tags+shared s+shared"),
        ("shared", "rbind,rshared", "tags+shared s+shared")],
    "rslave": [("shared", "rbind,rslave", "tags+master s+master tags-shared")],
    "rstrictatime": [("hard", "rbind,rstrictatime", "m-noatime m-relatime s-noatime s-relatime")],
    "rsync": [("new", "rsync", "fs+sync"), ("soft", "rbind,rsync", "m+rw fs-sync")],
    "rsuid": [("hard", "rbind,rsuid", "m-nosuid s-nosuid")],
    "rsymfollow": [("hard", "rbind,rsymfollow", "m-nosymfollow s-nosymfollow")],
    "runbindable": [("soft", "rbind,runbindable", "tags+unbindable s+unbindable")],
    "rw": [("new", "ro,rw", "m+rw fs+rw"), ("hard", "rbind,rw", "m+rw s+ro")],
    "shared": [("new", "shared", "tags+shared"), ("soft", "rbind,shared", "tags+shared s-shared")],
    "silent": [("new", "silent", "m+rw")],
    "slave": [("shared", "rbind,slave", "tags+master"), ("new", "slave", "tags")],
    "strictatime": [("new", "strictatime", "m-relatime m-noatime"),
        ("hard", "bind,strictatime", "m-relatime m-noatime")],
    "suid": [("new", "nosuid,suid", "m-nosuid"), ("hard", "rbind,suid", "m-nosuid s+nosuid")],
    "symfollow": [("new", "nosymfollow,symfollow", "m-nosymfollow"),
        ("hard", "rbind,symfollow", "m-nosymfollow s+nosymfollow")],
    "sync": [("new", "sync", "fs+sync")],
    "tmpcopyup": [("new", "tmpcopyup", "m+rw")],
    "unbindable": [("soft", "rbind,unbindable", "tags+unbindable s-unbindable"),
        ("new", "unbindable", "tags+unbindable")],
}  # fmt: skip
EACH = [(name, *case) for name, cases in CASES.items() for case in cases]


def _check(seen: dict[str, mountinfo.Mount], expected: str) -> None:
    top, sub = seen["/m"], seen.get("/m/sub")
    for word in expected.split():
        sign = "+" if "+" in word else "-"
        part, _, name = word.partition(sign)
        if word == "tags":
            assert top.tags == []
        elif part == "nested":
            assert (sub is not None) == (sign == "+")
        else:
            below = set() if sub is None else sub.options | set(sub.tags)
            values = {"m": top.options, "fs": top.superblock, "tags": set(top.tags), "s": below}[part]
            assert sub is not None or part != "s"
            assert (name in values) == (sign == "+"), f"{word}: {sorted(values)}"


@pytest.mark.parametrize(("option", "scene", "options", "expected"), EACH)
def test_option(
    container: ContainerFactory,
    bundle: BundleFactory,
    scratch: str,
    option: str,
    scene: str,
    options: str,
    expected: str,
) -> None:
    """It does to the mount what config.md says, and to no other."""
    assert option in options.split(",")
    source = os.path.join(scratch, "source")
    os.mkdir(source)
    what = bundle("probe").probe("mounts")
    what.mapping("linux").pop("maskedPaths")
    command = None
    if scene != "new":
        what.mount("/m", "none", source, *options.split(","))
        command = mountinfo.with_source(
            source, HARD if scene == "hard" else "rw", SHARED if scene == SHARED else ""
        )
    elif option == "remount":
        what.mount("/m", "tmpfs", "tmpfs").mount("/m", "tmpfs", "tmpfs", *options.split(","))
    else:
        what.mount("/m", "tmpfs", "tmpfs", *options.split(","))
    _check(mountinfo.parse(container(what, command=command).run().ok().out), expected)


def test_the_table_is_complete() -> None:
    """Every option that `features` promises; test_idmap.py has the two for id-mapped mounts."""
    assert set(CASES) == set(mount_options.OPTIONS) - {"idmap", "ridmap"} - set(mount_options.BIND_ONLY)


@pytest.mark.parametrize(("option", "arrives"), [("rslave", True), ("rprivate", False), ("rshared", True)])
def test_what_the_host_mounts_later(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, option: str, arrives: bool
) -> None:
    """It shows up inside or not; what the container mounts there reaches nobody but with rshared."""
    source = os.path.join(scratch, "source")
    os.makedirs(source)
    support.run("mount", "-t", "tmpfs", "source", source).ok()
    try:
        support.run("mount", "--make-shared", source).ok()
        for name in ("late", "inside"):
            os.mkdir(os.path.join(source, name))
        what = bundle("probe").probe("pause").mount("/m", "none", source, "rbind", option)
        what.list_of("process", "capabilities", "bounding").append("CAP_SYS_ADMIN")
        what.mapping("linux")["rootfsPropagation"] = "rshared" if option == "rshared" else "rslave"
        one = container(what).up()
        support.run("mount", "-t", "tmpfs", "late", os.path.join(source, "late")).ok()
        seen = one.exec(
            "/bin/probe", "mount", "tmpfs", "/m/inside", "--", "mounts", options=("--cap", "CAP_SYS_ADMIN")
        )
        assert seen.ok().facts()["mount"] == "0"
        assert ("/m/late" in mountinfo.parse(seen.out)) == arrives
        assert os.path.ismount(os.path.join(source, "inside")) == (option == "rshared")
        one.delete("--force").ok()
    finally:
        support.run("umount", "-R", source)


def test_unknown_options_go_to_the_file_system(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config.md: "SHOULD be passed"; what the file system does not know either is its error, in its words."""
    what = (
        bundle("probe")
        .probe("mounts")
        .mount("/m", "tmpfs", "tmpfs", "size=64k", "mode=1700", "nr_inodes=9", "uid=7")
    )
    seen = mountinfo.parse(container(what).run().ok().out)["/m"]
    assert {"size=64k", "mode=1700", "uid=7"} <= seen.superblock
    at = f"$.mounts[{len(what.list_of('mounts')) - 1}]"
    what.list_of("mounts").pop()
    what.mount("/m", "tmpfs", "tmpfs", "flavour=sweet")
    container(what).run().fails(at, "flavour")


def test_copy_up(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Files, links, modes, owners and times of the image's directory are in the new tmpfs, also in a read-only one."""
    what = bundle(
        "busybox",
        "sh",
        "-c",
        "cd /data && cat file deep/file && readlink link && stat -c '%a %u %g %Y %n' *",
    )
    data = os.path.join(what.rootfs, "data")
    os.makedirs(os.path.join(data, "deep"))
    for name in ("file", "deep/file"):
        with open(os.path.join(data, name), "w", encoding="ascii") as stream:
            stream.write(f"{name}\n")
    os.symlink("deep/file", os.path.join(data, "link"))
    os.chmod(os.path.join(data, "file"), 0o4751)
    os.chown(os.path.join(data, "deep"), 12, 34)
    os.utime(os.path.join(data, "file"), (5, 1000000007))
    for options in (("tmpcopyup",), ("tmpcopyup", "ro")):
        what.mount("/data", "tmpfs", "tmpfs", *options)
        lines = container(what).run().ok().out.splitlines()
        assert lines[:3] == ["file", "deep/file", "deep/file"]
        assert lines[3].startswith("755 12 34 ")
        assert lines[4] == "4751 0 0 1000000007 file"
        what.list_of("mounts").pop()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "750 5 6"),
        (["mode=1701"], "1701 5 6"),
        (["uid=0"], "750 0 6"),
        (["mode=1701", "uid=7", "gid=0", "ro"], "1701 7 0"),
    ],
)
def test_copy_up_leaves_what_the_mount_says(
    container: ContainerFactory, bundle: BundleFactory, options: list[str], expected: str, *, mapped: bool
) -> None:
    """mode=, uid= and gid= are those of its root; what is not given is the covered directory's."""
    what = bundle("busybox", "stat", "-c", "%a %u %g", "/data")
    data = os.path.join(what.rootfs, "data")
    os.mkdir(data)
    os.chown(data, 5, 6)
    os.chmod(data, 0o750)
    identity = ["idmap=uids=0-0-65536;gids=0-0-65536"] if mapped else []
    what.mount("/data", "tmpfs", "tmpfs", "tmpcopyup", *identity, *options)
    assert container(what).run().ok().out == f"{expected}\n"


@pytest.mark.parametrize("options", [("rbind", "bind"), ("bind", "rbind"), ("rbind",)])
def test_bind_beside_rbind(
    container: ContainerFactory, bundle: BundleFactory, options: tuple[str, ...]
) -> None:
    """mount(8) knows no order of them: what lies below the source comes along."""
    what = bundle("probe").mount("/m", "none", "/dev", *options).probe("mounts")
    assert "/m/pts" in mountinfo.parse(container(what).run().ok().out)


# --- crun's options about symbolic links ------------------------------------------------------------------------------


def _links(scratch: str) -> str:
    """A directory with a link to what is only there."""
    source = os.path.join(scratch, "source")
    os.makedirs(os.path.join(source, "there"))
    os.symlink("there", os.path.join(source, "link"))
    return source


@pytest.mark.parametrize("name", ["probe", "userns"])
def test_copy_symlink(container: ContainerFactory, bundle: BundleFactory, scratch: str, name: str) -> None:
    """The link is made anew; the same one may be there already; what is no link is bound; anything else is an error."""
    source = _links(scratch)
    what = bundle(name).args("/bin/sh" if name == "userns" else "/bin/probe")
    if name == "userns":
        what.args("/bin/sh", "-c", "readlink /new/name; ls -d /dir/link")
    else:
        what.probe("readlink", "/new/name", "--", "readlink", "/dir/link")
    what.mount("/new/name", "bind", f"{source}/link", "bind", "copy-symlink")
    what.mount("/dir", "bind", source, "rbind", "copy-symlink")
    for _ in range(2):
        out = container(what).run().ok().out
        assert "there" in out.splitlines()[0]
    path = os.path.join(what.rootfs, "new/name")
    assert os.readlink(path) == "there"
    os.unlink(path)
    os.symlink("elsewhere", path)
    at = f"$.mounts[{len(what.list_of('mounts')) - 2}]"
    container(what).run().fails(
        at, "'/new/name' exists and is not the symbolic link that copy-symlink would make"
    )


@pytest.mark.parametrize("name", ["probe", "userns"])
def test_links_themselves(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, name: str
) -> None:
    """src-nofollow takes the link instead of what it leads to, dest-nofollow covers one."""
    source = _links(scratch)
    what = bundle(name)
    os.symlink("/nowhere", os.path.join(what.rootfs, "place"))
    what.mount("/place", "bind", f"{source}/link", "bind", "src-nofollow", "dest-nofollow")
    what.mount("/followed", "bind", f"{source}/link", "bind")
    if name == "userns":
        what.args("/bin/sh", "-c", "readlink /place; cat /proc/self/mountinfo; stat -c %F /followed")
    else:
        what.probe("readlink", "/place", "--", "mounts", "--", "ls", "/followed")
    out = container(what).run().ok().out
    assert "there" in out.splitlines()[0]
    assert {"/place", "/followed"} <= set(mountinfo.parse(out))
    assert os.readlink(os.path.join(what.rootfs, "place")) == "/nowhere"
