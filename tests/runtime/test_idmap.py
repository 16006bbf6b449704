"""config.md, "Mounts": mounts whose owners are mapped, seen inside and outside; and crun's form of them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import mountinfo
import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory, User
    from support import Json, Spec

pytestmark = pytest.mark.root


def ids(inside: int, outside: int, size: int = 10) -> Json:
    """One row of a mapping."""
    return {"containerID": inside, "hostID": outside, "size": size}


def make_source(scratch: str) -> str:
    """A directory of 1:2 with a file of 3:4."""
    path = os.path.join(scratch, "source")
    os.mkdir(path)
    with open(os.path.join(path, "file"), "w", encoding="ascii") as stream:
        stream.write("content\n")
    os.chown(path, 1, 2)
    os.chown(os.path.join(path, "file"), 3, 4)
    os.chmod(path, 0o777)
    return path


def mapped(
    what: Bundle, destination: str, source: str, *options: str, uids: Json = None, gids: Json = None
) -> Bundle:
    """The bundle with a bind mount that has mappings of its own where given."""
    entry: Spec = {"destination": destination, "source": source, "options": ["rbind", *options]}
    if uids is not None:
        entry |= {"uidMappings": uids, "gidMappings": gids}
    what.list_of("mounts").append(entry)
    return what


def owners(what: Bundle, container: ContainerFactory, *paths: str) -> list[tuple[str, str]]:
    """(uid, gid) of paths, as the container sees them."""
    found = container(what.probe("stat", *paths)).run().ok().facts().all("stat")
    return [
        (words[words.index("uid") + 1], words[words.index("gid") + 1]) for words in map(str.split, found)
    ]


def last(what: Bundle) -> str:
    """The JSON path of the mount added last."""
    return f"$.mounts[{len(what.list_of('mounts')) - 1}]"


# --- Whose mapping ----------------------------------------------------------------------------------------------------


def test_mappings_of_the_mount(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Without a user namespace: what is 1:2 on the disk is 101:202 here, and what 101:202 makes is 1:2 on the disk."""
    source = make_source(scratch)
    what = mapped(bundle("probe"), "/m", source, uids=[ids(0, 100)], gids=[ids(0, 200)])
    assert owners(what, container, "/m", "/m/file") == [("101", "202"), ("103", "204")]
    what.mapping("process")["user"] = {"uid": 105, "gid": 206}
    container(what.probe("write", "/m/new", "x")).run().ok()
    made = os.stat(os.path.join(source, "new"))
    assert (made.st_uid, made.st_gid) == (5, 6)
    # Who is in no row has no owner on this mount, and can make nothing.
    what.mapping("process")["user"] = {"uid": 7, "gid": 8}
    result = container(what.probe("write", "/m/other", "x")).run()
    assert (result.status, result.out) == (1, "error write: Value too large for data type\n")


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_mapping_of_the_container(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, option: str
) -> None:
    """Files of the host's 1:2 are the container's 1:2, and what its root makes is root's outside."""
    source = make_source(scratch)
    what = mapped(bundle("userns"), "/m", source, option)
    mapped(what, "/plain", source)
    what.args("/bin/sh", "-c", "stat -c '%u %g' /m /m/file /plain && touch /m/new")
    out = container(what).run().ok().out.split("\n")
    assert out[:3] == ["1 2", "3 4", "65534 65534"]
    made = os.stat(os.path.join(source, "new"))
    assert (made.st_uid, made.st_gid) == (0, 0)


def test_mapping_of_a_joined_user_namespace(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """It is taken from the namespace itself; linux.uidMappings need not repeat it."""
    source = make_source(scratch)
    first = container(bundle("userns", "sleep", "1000")).up()
    what = mapped(bundle("userns"), "/m", source, "idmap")
    for name in ("uidMappings", "gidMappings"):
        what.mapping("linux").pop(name)
    what.namespace("user", f"/proc/{first.pid}/ns/user")
    out = container(what.args("/bin/stat", "-c", "%u %g", "/m")).run().ok().out
    assert out == "1 2\n"


def test_mappings_of_the_mount_win(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Over the container's, over crun's form; the host's ids in them are the host's, not the container's."""
    what = bundle("userns")
    outside = what.list_of("linux", "uidMappings")[0]
    assert isinstance(outside, dict) and isinstance(outside["hostID"], int)
    rows: Json = [ids(0, outside["hostID"] + 50)]
    mapped(what, "/m", make_source(scratch), "idmap=uids=0-1-1;gids=0-1-1", uids=rows, gids=rows)
    out = container(what.args("/bin/stat", "-c", "%u %g", "/m", "/m/file")).run().ok().out
    assert out == "51 52\n53 54\n"


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_mapping_in_place(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, option: str
) -> None:
    """crun's form, rows separated by "#"; relative ones by the container's own mapping."""
    source = make_source(scratch)
    what = mapped(bundle("probe"), "/m", source, f"{option}=uids=1-70-1#3-90-1;gids=0-300-10")
    assert owners(what, container, "/m", "/m/file") == [("70", "302"), ("90", "304")]
    what = mapped(bundle("userns"), "/m", source, f"{option}=uids=@1-0-10;gids=@2-5-10")
    out = container(what.args("/bin/stat", "-c", "%u %g", "/m", "/m/file")).run().ok().out
    assert out == "0 5\n2 7\n"


def test_no_mapping_to_take(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config.md: without mappings and user namespace an error MUST be returned; uid and gid mappings come together."""
    what = mapped(bundle("probe"), "/m", "/tmp", "idmap")
    container(what).run().fails(last(what), "no user namespace to take them from")
    what = mapped(bundle("probe"), "/m", "/tmp", "idmap", uids=[ids(0, 1)], gids=[])
    container(what).run().fails(last(what), "id-mapped mounts must have both uid and gid mappings specified")


def test_ordinary_users_have_none(
    container: ContainerFactory, bundle: BundleFactory, rootless: User
) -> None:
    what = mapped(bundle("probe", user=rootless), "/m", "/usr", "idmap")
    container(what, user=rootless).run().fails(
        last(what), "id-mapped mounts are not supported for rootless containers"
    )


def test_root_of_a_user_namespace_is_told_why(
    container: ContainerFactory, bundle: BundleFactory, rootless: User
) -> None:
    """It may map what belongs to its own namespace, which the host's files do not."""
    what = bundle("probe", user=rootless)
    for kind in ("uidMappings", "gidMappings"):
        what.mapping("linux")[kind] = [{"containerID": 0, "hostID": 0, "size": 1}]
    mapped(what, "/m", "/usr", "idmap")
    command = ["unshare", "--user", "--map-root-user", "--mount", rootless.pyrunc]
    result = container(what, user=rootless, command=command).run()
    result.fails(last(what), "operation not permitted", "not supported for rootless containers")


# --- What is mapped ---------------------------------------------------------------------------------------------------


def test_a_file(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    rows: Json = [ids(0, 40)]
    what = mapped(bundle("probe"), "/made/file", f"{make_source(scratch)}/file", uids=rows, gids=rows)
    assert owners(what, container, "/made/file") == [("43", "44")]


@pytest.mark.parametrize(("option", "below"), [("idmap", ("9", "9")), ("ridmap", ("109", "209"))])
def test_mounts_below(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, option: str, below: tuple[str, str]
) -> None:
    """idmap concerns the top of a tree, ridmap all of it."""
    source = make_source(scratch)
    os.mkdir(f"{source}/sub")
    support.run("mount", "-t", "tmpfs", "-o", "uid=9,gid=9", "nested", f"{source}/sub").ok()
    try:
        what = mapped(bundle("probe"), "/m", source, option, uids=[ids(0, 100)], gids=[ids(0, 200)])
        assert owners(what, container, "/m", "/m/sub") == [("101", "202"), below]
    finally:
        support.run("umount", f"{source}/sub").ok()


def test_with_other_options(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Attributes, recursive ones, propagation: none gets in the way of another, and the source stays as it is."""
    rows: Json = [ids(0, 100)]
    options = ("ridmap", "ro", "nosuid", "rnoexec", "rro", "shared")
    what = mapped(bundle("probe"), "/m", make_source(scratch), *options, uids=rows, gids=rows)
    mapped(what, "/w", os.path.join(scratch, "source"), "idmap", uids=rows, gids=rows)
    seen = mountinfo.parse(container(what.probe("mounts")).run().ok().out)
    assert {"ro", "nosuid", "noexec", "idmapped"} <= seen["/m"].options
    assert seen["/m"].tags == ["shared"]
    assert {"rw", "idmapped"} <= seen["/w"].options
    assert seen["/w"].tags == []


@pytest.mark.parametrize("userns", [True, False])
def test_a_new_file_system(container: ContainerFactory, bundle: BundleFactory, userns: bool) -> None:
    """Where the kernel can: a tmpfs with the mode of what it covers, its size, a copy of what is there, read-only."""
    what = bundle("userns" if userns else "busybox")
    # Whoever makes something on it must have an id there: the mount point for the other is made by root.
    option = "idmap" if userns else "idmap=uids=0-77-1#1-0-1;gids=0-78-1#1-0-1"
    os.mkdir(f"{what.rootfs}/data", 0o751)
    owner = os.stat(what.rootfs)
    os.chown(f"{what.rootfs}/data", owner.st_uid, owner.st_gid)
    what.mount("/data", "tmpfs", "tmpfs", option, "size=64k", "nosuid", "ro")
    what.mount("/data/sub", "tmpfs", "tmpfs", option, "mode=700")
    script = "stat -c '%u %g %a' /data /data/sub; touch /data/new 2>&1; grep ' /data' /proc/self/mountinfo"
    out = container(what.args("/bin/sh", "-c", script)).run().ok().out
    who = "0 0" if userns else "77 78"
    assert out.splitlines()[:2] == [f"{who} 751", f"{who} 700"]
    assert "Read-only" in out.splitlines()[2]
    seen = mountinfo.parse(out)
    assert {"idmapped", "nosuid", "ro"} <= seen["/data"].options
    assert "size=64k" in seen["/data"].superblock


def test_copy_up_into_a_mapped_tmpfs(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("userns")
    what.mount("/bin", "tmpfs", "tmpfs", "idmap", "tmpcopyup")
    out = container(
        what.args("/bin/sh", "-c", "stat -c '%u %g' /bin/busybox; grep ' /bin ' /proc/self/mountinfo")
    )
    lines = out.run().ok().out.splitlines()
    assert lines[0] == "0 0"
    assert "idmapped" in lines[1]


def test_an_overlay_is_told_about(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """What the kernel cannot map is its error, with our words for what that means; and nothing is left behind."""
    rows: Json = [ids(0, 100)]
    what = mapped(bundle("probe"), "/m", "/proc", "idmap", uids=rows, gids=rows)
    container(what).run().fails(
        f"{last(what)}.uidMappings: mount_setattr MOUNT_ATTR_IDMAP '/proc': invalid argument",
        "does not allow id-mapped mounts on this kernel",
    )
    lower, merged = make_source(scratch), os.path.join(scratch, "merged")
    os.mkdir(merged)
    other = os.path.join(scratch, "other")
    os.mkdir(other)
    support.run("mount", "-t", "overlay", "-o", f"lowerdir={lower}:{other}", "overlay", merged).ok()
    try:
        what = mapped(bundle("probe"), "/m", merged, "idmap", uids=rows, gids=rows)
        container(what).run().fails(last(what), "does not allow id-mapped mounts on this kernel")
        # Its layers can be mapped, each by itself: that is how engines do it.
        what = mapped(bundle("probe"), "/m", lower, "idmap", uids=rows, gids=rows)
        assert owners(what, container, "/m") == [("101", "102")]
    finally:
        support.run("umount", merged).ok()


def test_bad_rows_are_named(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The kernel refuses a map; which one, and where it stands."""
    twice: Json = [ids(0, 100), ids(0, 200)]
    what = mapped(bundle("probe"), "/m", "/tmp", "idmap", uids=[ids(0, 1)], gids=twice)
    container(what).run().fails(f"{last(what)}.gidMappings: write 'gid_map': invalid argument", "overlap")


def test_many_mounts_and_mappings(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Equal mappings share a namespace, different ones do not; nothing of them is left in the container."""
    source = make_source(scratch)
    what = bundle("probe")
    for number in range(12):
        rows: Json = [ids(0, 100 * (number // 4 + 1))]
        mapped(what, f"/m{number}", source, uids=rows, gids=rows)
    seen = owners(what, container, *(f"/m{number}" for number in range(12)))
    assert seen == [(str(100 * (n // 4 + 1) + 1), str(100 * (n // 4 + 1) + 2)) for n in range(12)]
    one = container(what.probe("pause")).up()
    one.expect("ready")
    links = {os.readlink(f"/proc/{one.pid}/fd/{name}") for name in os.listdir(f"/proc/{one.pid}/fd")}
    assert not [link for link in links if "user:" in link]


def test_podman_volume(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """`podman run --uidmap 0:100000:1000 -v DIR:/m:idmap`, in the form that podman writes."""
    source = make_source(scratch)
    what = bundle("userns")
    what.list_of("mounts").insert(
        0,
        {
            "destination": "/m",
            "type": "bind",
            "source": source,
            "options": ["idmap", "rw", "rprivate", "rbind"],
        },
    )
    out = container(what.args("/bin/stat", "-c", "%u %g", "/m/file")).run().ok().out
    assert out == "3 4\n"


def test_explain_shows_the_mapping(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """As text and as JSON."""
    what = mapped(bundle("userns"), "/m", make_source(scratch), "ridmap").write()
    one = container(what)
    words = 'tree="opened by the runtime, mapped recursively uids 0-100000-65536 gids 0-100000-65536"'
    assert words in one.pyrunc("explain", "--bundle", what.path).ok().out
    document = json.loads(one.pyrunc("explain", "--json", "--bundle", what.path).ok().out)
    found = [step["arguments"] for step in document["steps"] if step["op"] == "MOUNT_BIND"]
    words = f"tree {scratch}/source mapped recursively uids 0-100000-65536 gids 0-100000-65536"
    assert [item["tree"] for item in found if item["target"] == "/m"] == [words]


# --- What gets out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["idmap", "noexec"])
def test_mounts_of_a_user_namespace_stay_inside(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, option: str
) -> None:
    """The runtime clones a source that is shared, as all are under systemd: the container gets a slave of it."""
    source = os.path.join(scratch, "source")
    os.mkdir(source)
    support.run("mount", "-t", "tmpfs", "source", source).ok()
    try:
        support.run("mount", "--make-shared", source).ok()
        for name in ("late", "inside"):
            os.mkdir(os.path.join(source, name))
        what = mapped(bundle("userns"), "/m", source, option)
        what.list_of("process", "capabilities", "bounding").append("CAP_SYS_ADMIN")
        one = container(what.args("/bin/sleep", "1000")).up()
        support.run("mount", "-t", "tmpfs", "late", os.path.join(source, "late")).ok()
        seen = one.exec(
            "/bin/sh",
            "-c",
            "mount -t tmpfs inside /m/inside && cat /proc/self/mountinfo",
            options=("--cap", "CAP_SYS_ADMIN"),
        ).ok()
        points = mountinfo.parse(seen.out)
        assert {"/m/late", "/m/inside"} <= set(points)
        assert points["/m"].tags == ["master"]
        assert not os.path.ismount(os.path.join(source, "inside"))
        one.delete("--force").ok()
    finally:
        support.run("umount", "-R", source)
