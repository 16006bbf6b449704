"""Mount options and mounts: the table of config.md, and what becomes of each kind of mount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import plan_specs as specs
from pyrunc.errors import ConfigError
from pyrunc.plan import numbers, wire
from pyrunc.plan.job import Plan
from pyrunc.spec import mount_options
from pyrunc.spec.host_facts import HostFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.spec.shapes import IDMapping, Mount

RO, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
NOATIME, STRICTATIME, ATIME, NODIRATIME, NOSYMFOLLOW = 0x10, 0x20, 0x70, 0x80, 0x200000
REC, UNBINDABLE, PRIVATE, SLAVE, SHARED = 0x4000, 1 << 17, 1 << 18, 1 << 19, 1 << 20

# Written from the table of config.md, "Linux mount options": (attributes to set, to clear) of the top mount.
ATTRIBUTES = {
    "atime": (0, ATIME),
    "dev": (0, NODEV),
    "diratime": (0, NODIRATIME),
    "exec": (0, NOEXEC),
    "noatime": (NOATIME, ATIME),
    "nodev": (NODEV, 0),
    "nodiratime": (NODIRATIME, 0),
    "noexec": (NOEXEC, 0),
    "norelatime": (0, ATIME),
    "nostrictatime": (0, ATIME),
    "nosuid": (NOSUID, 0),
    "nosymfollow": (NOSYMFOLLOW, 0),
    "relatime": (0, ATIME),
    "ro": (RO, 0),
    "rw": (0, RO),
    "strictatime": (STRICTATIME, ATIME),
    "suid": (0, NOSUID),
    "symfollow": (0, NOSYMFOLLOW),
}
RECURSIVE = {
    "ratime": (0, ATIME),
    "rdev": (0, NODEV),
    "rdiratime": (0, NODIRATIME),
    "rexec": (0, NOEXEC),
    "rnoatime": (NOATIME, ATIME),
    "rnodev": (NODEV, 0),
    "rnodiratime": (NODIRATIME, 0),
    "rnoexec": (NOEXEC, 0),
    "rnorelatime": (0, ATIME),
    "rnostrictatime": (0, ATIME),
    "rnosuid": (NOSUID, 0),
    "rnosymfollow": (NOSYMFOLLOW, 0),
    "rrelatime": (0, ATIME),
    "rro": (RO, 0),
    "rrw": (0, RO),
    "rstrictatime": (STRICTATIME, ATIME),
    "rsuid": (0, NOSUID),
    "rsymfollow": (0, NOSYMFOLLOW),
}
PROPAGATION = {
    "private": PRIVATE,
    "rprivate": PRIVATE | REC,
    "rshared": SHARED | REC,
    "rslave": SLAVE | REC,
    "runbindable": UNBINDABLE | REC,
    "shared": SHARED,
    "slave": SLAVE,
    "unbindable": UNBINDABLE,
}
# For a new superblock, for an existing one.
SUPERBLOCK: dict[str, tuple[list[str], list[str]]] = {
    "async": ([], ["async"]),
    "dirsync": (["dirsync"], ["dirsync"]),
    "lazytime": (["lazytime"], ["lazytime"]),
    "mand": (["mand"], ["mand"]),
    "nolazytime": ([], ["nolazytime"]),
    "nomand": ([], ["nomand"]),
    "rasync": ([], ["async"]),
    "rdirsync": (["dirsync"], ["dirsync"]),
    "rmand": (["mand"], ["mand"]),
    "rnomand": ([], ["nomand"]),
    "rsync": (["sync"], ["sync"]),
    "sync": (["sync"], ["sync"]),
}
NOTHING = ["defaults", "iversion", "loud", "noiversion", "silent"]
OTHERS = ["bind", "idmap", "rbind", "remount", "ridmap", "tmpcopyup"]
# What only crun knows.
EXTENSIONS = {
    *("copy-symlink", "dest-nofollow", "src-nofollow"),
    *("rasync", "rdirsync", "rmand", "rnomand", "rsync"),
}


def state(options: mount_options.MountOptions) -> tuple[object, ...]:
    """Everything parse() has found out."""
    return tuple(getattr(options, name) for name in mount_options.MountOptions.__slots__)


def test_all_62_options() -> None:
    """`features` lists OPTIONS: those of the specification and of crun, sorted, each with its effect below."""
    tested = [*ATTRIBUTES, *RECURSIVE, *PROPAGATION, *SUPERBLOCK, *NOTHING, *OTHERS]
    tested += ["copy-symlink", "dest-nofollow", "src-nofollow"]
    assert sorted(tested) == list(mount_options.OPTIONS)
    assert len(set(mount_options.OPTIONS) - EXTENSIONS) == 62


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute(name: str) -> None:
    """Of the top mount only."""
    found = mount_options.parse([name])
    assert (found.attr_set, found.attr_clear) == ATTRIBUTES[name]
    assert (found.rec_set, found.rec_clear, found.data) == (0, 0, [])


@pytest.mark.parametrize("name", RECURSIVE)
def test_recursive_attribute(name: str) -> None:
    """mount_setattr(2) with AT_RECURSIVE."""
    found = mount_options.parse([name])
    assert (found.rec_set, found.rec_clear) == RECURSIVE[name]
    assert (found.attr_set, found.attr_clear, found.data, found.recursive) == (0, 0, [], False)


def test_propagation() -> None:
    """Separate steps after the mount, in their order."""
    assert mount_options.parse(PROPAGATION).propagation == list(PROPAGATION.values())
    assert mount_options.PROPAGATION == PROPAGATION


@pytest.mark.parametrize("name", SUPERBLOCK)
def test_superblock_flag(name: str) -> None:
    """A new superblock has none of them, so that only those to set are said."""
    found = mount_options.parse([name])
    assert (found.parameters(), found.parameters(reconfigure=True)) == SUPERBLOCK[name]
    assert (found.attr_set, found.attr_clear) == (0, 0)


def test_options_without_effect() -> None:
    """They are understood, so they must not reach the file system."""
    assert state(mount_options.parse(NOTHING)) == state(mount_options.parse([]))


def test_other_options() -> None:
    """What is not a flag."""
    assert mount_options.parse(["bind"]).bind and not mount_options.parse(["bind"]).recursive
    assert mount_options.parse(["rbind"]).bind and mount_options.parse(["rbind"]).recursive
    assert mount_options.parse(["remount"]).remount
    assert mount_options.parse(["tmpcopyup"]).copy_up
    assert [mount_options.parse([name]).idmap for name in ("idmap", "ridmap", "ro")] == [
        "idmap",
        "ridmap",
        "",
    ]
    found = mount_options.parse(["src-nofollow", "dest-nofollow", "copy-symlink"])
    assert found.source_nofollow and found.target_nofollow and found.copy_symlink
    found = mount_options.parse(["idmap", "ridmap=uids=0-1-2;gids=0-3-4"])
    assert (found.idmap, found.mapping, found.data) == ("ridmap", "uids=0-1-2;gids=0-3-4", [])
    assert state(mount_options.parse(["ridmap=uids=0-1-2", "idmap"])) == state(
        mount_options.parse(["ridmap=uids=0-1-2"])
    )


def test_last_option_wins() -> None:
    """As in mount(8)."""
    assert mount_options.parse(["ro", "rw"]).attr_set == 0
    assert mount_options.parse(["rw", "ro"]).attr_clear == 0
    found = mount_options.parse(["noatime", "strictatime"])
    assert (found.attr_set, found.attr_clear) == (STRICTATIME, ATIME)
    assert mount_options.parse(["strictatime", "relatime"]).attr_set == 0
    assert mount_options.parse(["sync", "async"]).parameters() == []
    assert mount_options.parse(["rro", "rrw"]).rec_set == 0


def test_unknown_options_are_the_file_systems() -> None:
    """config.md: they SHOULD be passed on, in their order."""
    assert mount_options.parse(["mode=755", "nosuid", "size=64k", "", "ro"]).data == ["mode=755", "size=64k"]


def one(mount: Mount, host: HostFacts = specs.V2_HOST, **options: object) -> Plan:
    """A plan with one mount."""
    spec = specs.docker_like()
    spec["mounts"] = [mount]
    return specs.create(spec, host, **options)


def one_in_userns(mount: Mount, host: HostFacts = specs.V2_HOST, **options: object) -> Plan:
    """The same in a new user namespace."""
    spec = specs.userns()
    spec["mounts"] = [mount]
    return specs.create(spec, host, **options)


def new(made: Plan) -> tuple[wire.Field, ...]:
    """Fields of the MOUNT_NEW."""
    return specs.only(made, "MOUNT_NEW").fields


def test_new_mount() -> None:
    """Attributes at once, parameters in order, superblock read-only as well where it is not shared with others."""
    fields = new(
        one(
            {
                "destination": "data//x/",
                "type": "ext4",
                "source": "/dev/vdb",
                "options": ["ro", "nodev", "sync", "data=journal", "rslave", "rnosuid"],
            }
        )
    )
    expected: tuple[wire.Field, ...] = (
        "/data/x",
        "ext4",
        "/dev/vdb",
        ["ro", "sync", "data=journal"],
        RO | NODEV | NOSUID,
        [SLAVE | REC],
        0,
    )
    assert fields == expected


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
def test_proc_and_sysfs(kind: str) -> None:
    """CVE-2019-19921; and their superblocks belong to all of the namespace: never read-only themselves."""
    fields = new(one({"destination": f"/{kind}", "type": kind, "source": kind, "options": ["ro"]}))
    flags = numbers.MOUNT_FLAG_ORDINARY_DIR | (numbers.MOUNT_FLAG_IN_PROC if kind == "proc" else 0)
    assert fields[3:] == ([], RO, [], flags)


def test_what_may_lie_in_proc() -> None:
    """By its name, which config/rules/document.py has looked at; what stands for /proc itself has to be one."""
    mount: Mount = {"destination": "/proc/meminfo", "source": "/f", "options": ["bind"]}
    assert specs.only(one(mount), "MOUNT_BIND").fields[-1] == numbers.MOUNT_FLAG_IN_PROC
    mount["destination"] = "/proc"
    flags = numbers.MOUNT_FLAG_IN_PROC | numbers.MOUNT_FLAG_PROCFS | numbers.MOUNT_FLAG_ORDINARY_DIR
    assert specs.only(one(mount), "MOUNT_BIND").fields[-1] == flags
    mount["destination"] = "/process"
    assert specs.only(one(mount), "MOUNT_BIND").fields[-1] == 0


def test_sysfs_fallback() -> None:
    """Only where the kernel may refuse it and the mount is read-only anyway: crun's rule."""
    mount: Mount = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]}
    made = one_in_userns(mount)
    flags = numbers.MOUNT_FLAG_ORDINARY_DIR | numbers.MOUNT_FLAG_OPTIONAL | numbers.MOUNT_FLAG_DONE_SKIP
    assert new(made)[6] == flags
    fallback = specs.only(made, "MOUNT_BIND").fields
    assert fallback[:7] == ("/sys", "/sys", -1, 0, 0, RO | NOSUID, 0)
    assert specs.names(made).index("MOUNT_BIND") == specs.names(made).index("MOUNT_NEW") + 1
    mount["options"] = ["nosuid"]
    assert new(one_in_userns(mount))[6] == numbers.MOUNT_FLAG_ORDINARY_DIR
    mount["options"] = ["ro"]
    assert new(one(mount))[6] == numbers.MOUNT_FLAG_ORDINARY_DIR
    assert new(one(mount, specs.NESTED_HOST))[6] == flags


def test_tmpfs() -> None:
    """Its mode is the covered directory's unless given; read-only is deferred, whatever is below gets made first."""
    made = one({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup"]})
    flags = numbers.MOUNT_FLAG_TARGET_MODE | numbers.MOUNT_FLAG_COPY_UP
    assert new(made) == ("/run", "tmpfs", "tmpfs", [], 0, [], flags)
    assert specs.only(made, "REMOUNT").fields == ("/run", RO, 0, 0, [], [])
    assert specs.names(made).index("REMOUNT") > specs.names(made).index("PIVOT")
    made = one({"destination": "/run", "type": "tmpfs", "options": ["mode=700", "rro"]})
    assert new(made) == ("/run", "tmpfs", "", ["mode=700"], 0, [], 0)
    assert specs.only(made, "REMOUNT").path == "$.mounts[0].options"


def test_bind() -> None:
    """Only what is named changes; a relative source is the bundle's."""
    made = one(
        {
            "destination": "/a",
            "type": "bind",
            "source": "data",
            "options": ["rbind", "ro", "rnoexec", "rw", "slave"],
        }
    )
    op = specs.only(made, "MOUNT_BIND")
    expected: tuple[wire.Field, ...] = (
        "/a",
        "/srv/bundle/data",
        -1,
        0,
        RO,
        NOEXEC,
        0,
        [SLAVE],
        numbers.MOUNT_FLAG_RECURSIVE,
    )
    assert op.fields == expected
    assert op.path == "$.mounts[0].source"


@pytest.mark.parametrize(
    "mount", [{"type": "bind"}, {"options": ["bind"]}, {"type": "ext4", "options": ["bind"]}]
)
def test_what_is_a_bind(mount: Mount) -> None:
    """config.md: the options decide, type is then a dummy; type bind alone is what runc takes too."""
    mount["destination"], mount["source"] = "/a", "/b"
    assert specs.only(one(mount), "MOUNT_BIND").fields[1] == "/b"


def test_bind_in_a_user_namespace() -> None:
    """Root's runtime opens the source, where init may not get to; an ordinary user has no more rights than init."""
    mount: Mount = {"destination": "/a", "type": "bind", "source": "/b", "options": ["rbind"]}
    tree = specs.only(one_in_userns(mount), "MOUNT_BIND").fields[2]
    assert isinstance(tree, wire.Fd)
    assert (tree.kind, tree.arg, tree.recursive) == ("tree", "/b", True)
    # What the host mounts gets in; what is mounted inside must not get out.
    assert (tree.propagation, tree.idmap) == (SLAVE | REC, None)
    assert specs.only(one_in_userns(mount, specs.ROOTLESS_HOST), "MOUNT_BIND").fields[2] == -1


MAPS: list[IDMapping] = [{"containerID": 0, "hostID": 7, "size": 9}]


def mapped(made: Plan) -> tuple[wire.Fd, wire.Op]:
    """The descriptor of the one bind, which is mapped, and its op."""
    op = specs.only(made, "MOUNT_BIND")
    fd = op.fields[2]
    assert isinstance(fd, wire.Fd) and fd.idmap is not None
    return fd, op


def test_mapped_by_the_mount_itself() -> None:
    """Its own mappings win over all others; who makes the mount is the runtime, as init may be in a user namespace."""
    mount: Mount = {"destination": "/a", "source": "/b", "options": ["rbind", "ro"]}
    mount["uidMappings"], mount["gidMappings"] = MAPS, [*MAPS, {"containerID": 9, "hostID": 70, "size": 0}]
    for make in (one, one_in_userns):
        fd, op = mapped(make(mount))
        assert (fd.kind, fd.arg, fd.recursive, fd.propagation) == ("tree", "/b", True, SLAVE | REC)
        assert fd.idmap is not None
        assert (fd.idmap.uids, fd.idmap.gids, fd.idmap.recursive) == (((0, 7, 9),), ((0, 7, 9),), False)
        assert (fd.idmap.path, fd.idmap.namespace) == ("$.mounts[0].uidMappings", "")
        assert (op.fields[3], op.path) == (RO, "$.mounts[0].source")
    mount["options"] = ["bind", "ridmap=uids=0-1-2;gids=0-1-2"]
    fd, _ = mapped(one(mount))
    assert fd.idmap is not None
    assert (fd.idmap.uids, fd.idmap.recursive, fd.recursive) == (((0, 7, 9),), True, False)


def test_mapped_by_the_container() -> None:
    """A new user namespace has no descriptor yet: an equal one does; one that is joined is taken itself."""
    mount: Mount = {"destination": "/a", "source": "/b", "options": ["rbind", "ridmap"]}
    fd, _ = mapped(one_in_userns(mount))
    assert fd.idmap is not None
    assert (fd.idmap.uids, fd.idmap.recursive) == (((0, 100000, 65536),), True)
    assert (fd.idmap.path, str(fd.idmap)) == (
        "$.mounts[0].options",
        "uids 0-100000-65536 gids 0-100000-65536",
    )
    spec = specs.docker_like()
    spec["linux"]["namespaces"] = [*specs.new_namespaces("mount"), {"type": "user", "path": "/run/userns"}]
    spec["mounts"] = [mount]
    fd, _ = mapped(specs.create(spec))
    assert fd.idmap is not None
    assert (fd.idmap.namespace, fd.idmap.uids, str(fd.idmap)) == ("/run/userns", (), "of /run/userns")


def test_mapped_in_place() -> None:
    """crun's form; with "@" the host ids are the container's."""
    options = ["bind", "idmap=uids=0-1-2#5-6-7;gids=@0-10-20"]
    fd, _ = mapped(one_in_userns({"destination": "/a", "source": "/b", "options": options}))
    assert fd.idmap is not None
    assert (fd.idmap.uids, fd.idmap.gids) == (((0, 1, 2), (5, 6, 7)), ((0, 100010, 20),))


def test_mapped_file_system() -> None:
    """A new one is made by the runtime, which then owns its superblock, and attached by init."""
    options = ["idmap", "size=64k", "nosuid", "tmpcopyup", "ro", "rprivate"]
    made = one_in_userns({"destination": "/a", "type": "tmpfs", "source": "none", "options": options})
    fd, op = mapped(made)
    assert (fd.kind, fd.arg, fd.source, fd.parameters) == ("filesystem", "tmpfs", "none", ["size=64k"])
    assert fd.propagation == 0
    flags = numbers.MOUNT_FLAG_COPY_UP | numbers.MOUNT_FLAG_TARGET_MODE
    assert op.fields == ("/a", "", fd, NOSUID, 0, 0, 0, [PRIVATE | REC], flags)
    assert "MOUNT_NEW" not in specs.names(made)
    assert specs.only(made, "REMOUNT").fields[:2] == ("/a", RO)
    assert str(fd) == "filesystem tmpfs none size=64k mapped uids 0-100000-65536 gids 0-100000-65536"


def test_links() -> None:
    """crun's options about symbolic links are flags of the bind, and of the clone that the runtime makes."""
    for options, flags, nofollow in (
        (["bind", "src-nofollow"], numbers.MOUNT_FLAG_SOURCE_NOFOLLOW, True),
        (["bind", "dest-nofollow"], numbers.MOUNT_FLAG_TARGET_NOFOLLOW, False),
        (["bind", "copy-symlink"], numbers.MOUNT_FLAG_COPY_SYMLINK, True),
    ):
        mount: Mount = {"destination": "/a", "source": "/b", "options": options}
        assert specs.only(one(mount), "MOUNT_BIND").fields[8] == flags
        op = specs.only(one_in_userns(mount), "MOUNT_BIND")
        assert isinstance(op.fields[2], wire.Fd)
        assert (op.fields[8], op.fields[2].nofollow) == (flags, nofollow)


@pytest.mark.parametrize("options", [["bind", "size=5"], ["rbind", "copy"], ["remount", "bind", "size=5"]])
def test_bind_with_data(options: list[str]) -> None:
    """A warning; with PYRUNC_STRICT the same as an error."""
    spec = specs.docker_like()
    spec["mounts"] = [{"destination": "/a", "source": "/b", "options": options}]
    text = "bind mounts cannot have any filesystem-specific options applied"
    made = specs.create(spec)
    assert made.warnings == [f"$.mounts[0].options: {text}: '{options[-1]}'"]
    with pytest.raises(ConfigError, match=text) as caught:
        specs.create(spec, HostFacts(strict=True))
    assert caught.value.path == "$.mounts[0].options"


def test_mount_without_type() -> None:
    """It is neither a bind nor anything else."""
    with pytest.raises(ConfigError, match="a mount without type must be a bind mount") as caught:
        one({"destination": "/a", "source": "/b", "options": ["ro"]})
    assert caught.value.path == "$.mounts[0]"


def test_bound_dev() -> None:
    """config-linux.md: nothing is made in a /dev that is the host's; its read-only waits for /dev/console."""
    made = one({"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind", "ro"]})
    assert not {"DEVICE", "SYMLINK"} & set(specs.names(made))
    assert specs.only(made, "MOUNT_BIND").fields[3] == 0
    assert specs.only(made, "REMOUNT").fields[:2] == ("/dev", RO)


def test_remount() -> None:
    """With bind it concerns the mount alone, without it the superblock too; r-options the whole tree."""
    plain = specs.only(
        one({"destination": "/a", "options": ["remount", "ro", "async", "size=1"]}), "REMOUNT"
    )
    assert plain.fields == ("/a", RO, 0, 0, ["ro", "async", "size=1"], [])
    bound = specs.only(one({"destination": "/a", "options": ["remount", "bind", "nosuid", "rw"]}), "REMOUNT")
    assert bound.fields == ("/a", NOSUID, RO, 0, [], [])
    writable = specs.only(one({"destination": "/a", "options": ["remount", "rw"]}), "REMOUNT")
    assert writable.fields[4] == ["rw"]
    tree = specs.every(one({"destination": "/a", "options": ["remount", "rro"]}), "REMOUNT")
    assert [fields[1:4] for fields in tree] == [(0, 0, 0), (RO, 0, 1)]


CGROUP: Mount = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["ro", "nodev"],
}


def test_cgroup_v2() -> None:
    """cgroup2; where that is refused the host's, read-only (CVE-2023-25809), or with a namespace the own one."""
    made = one(CGROUP, cgroup_paths=specs.V2_PATHS)
    flags = numbers.MOUNT_FLAG_OPTIONAL | numbers.MOUNT_FLAG_DONE_SKIP
    assert new(made) == ("/sys/fs/cgroup", "cgroup2", "cgroup", [], RO | NODEV, [], flags)
    assert specs.only(made, "MOUNT_BIND").fields[1:4] == ("/sys/fs/cgroup", -1, RO | NODEV)
    writable: Mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["rw"]}
    assert specs.only(one(writable), "MOUNT_BIND").fields[3] == RO
    own = one_in_userns(writable, cgroup_paths=specs.V2_PATHS)
    assert specs.only(own, "MOUNT_BIND").fields[1:4] == ("/sys/fs/cgroup/c1", -1, 0)


def test_cgroup_v1() -> None:
    """A tmpfs, each hierarchy's own directory, links for single controllers, read-only in the end."""
    made = one(CGROUP, specs.V1_HOST, cgroup_paths=specs.V1_PATHS)
    assert new(made) == ("/sys/fs/cgroup", "tmpfs", "tmpfs", ["mode=755"], NOSUID | NODEV | NOEXEC, [], 0)
    binds = [(fields[0], fields[1]) for fields in specs.every(made, "MOUNT_BIND")]
    assert binds == [
        ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c1"),
        ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/c1"),
        ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/shell"),
        ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd/shell"),
    ]
    links = [fields[:2] for fields in specs.every(made, "SYMLINK") if str(fields[1]).startswith("/sys")]
    assert links == [("cpu,cpuacct", "/sys/fs/cgroup/cpu"), ("cpu,cpuacct", "/sys/fs/cgroup/cpuacct")]
    remount = specs.only(made, "REMOUNT")
    assert remount.fields[:2] == ("/sys/fs/cgroup", RO)
    assert made.ops.index(remount) < specs.names(made).index("PIVOT")
    writable: Mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["rw"]}
    assert "REMOUNT" not in specs.names(one(writable, specs.V1_HOST))


def test_mount_label() -> None:
    """With SELinux: context= where the file system takes it; the root of an mqueue is labelled instead."""
    host = HostFacts(selinux=True, cgroup_mode="v2", unified_mount="/sys/fs/cgroup")
    for kind, parameters, flags in (
        ("tmpfs", ["context=a:b:c:s0"], numbers.MOUNT_FLAG_TARGET_MODE),
        ("mqueue", ["context=a:b:c:s0"], numbers.MOUNT_FLAG_MQUEUE_LABEL),
        ("proc", [], numbers.MOUNT_FLAG_ORDINARY_DIR),
    ):
        spec = specs.docker_like()
        spec["linux"]["mountLabel"] = "a:b:c:s0"
        spec["mounts"] = [{"destination": "/x", "type": kind}]
        made = specs.create(spec, host)
        assert (new(made)[3], new(made)[6]) == (parameters, flags)
        assert specs.every(made, "MASKED_PATH")[0] == ("/proc/kcore", "a:b:c:s0")


def test_mount_label_of_its_own() -> None:
    """A mount that names one keeps it, without the quotes of mount(2); crun's annotation chooses the kind."""
    host = HostFacts(selinux=True, cgroup_mode="v2", unified_mount="/sys/fs/cgroup")
    spec = specs.docker_like()
    spec["linux"]["mountLabel"] = "a:b:c:s0:c1,c2"
    spec["annotations"] = {"run.oci.mount_context_type": "fscontext"}
    spec["mounts"] = [{"destination": "/x", "type": "tmpfs"}]
    assert new(specs.create(spec, host))[3] == ["fscontext=a:b:c:s0:c1,c2"]
    spec["mounts"][0]["options"] = ['context="a:b:d:s0:c3,c4"']
    assert new(specs.create(spec, host))[3] == ["context=a:b:d:s0:c3,c4"]


@pytest.mark.parametrize(
    ("wanted", "first", "later"),
    [
        (None, SLAVE | REC, None),
        ("slave", SLAVE, SLAVE),
        ("rslave", SLAVE | REC, SLAVE),
        ("private", PRIVATE, PRIVATE),
        ("rprivate", PRIVATE | REC, PRIVATE),
        ("rshared", SHARED | REC, SHARED | REC),
        ("unbindable", PRIVATE, UNBINDABLE),
        ("runbindable", PRIVATE | REC, UNBINDABLE | REC),
    ],
)
def test_rootfs_propagation(wanted: str | None, first: int, later: int | None) -> None:
    """Of the whole namespace before, of the container's root after; unbindable would stop pivot_root."""
    spec = specs.docker_like()
    if wanted is not None:
        spec["linux"]["rootfsPropagation"] = wanted
    made = specs.create(spec)
    assert specs.only(made, "ROOTFS").fields == ("/srv/merged", first, 0)
    assert [fields[0] for fields in specs.every(made, "ROOT_PROPAGATION")] == (
        [] if later is None else [later]
    )


@pytest.mark.parametrize(
    ("kinds", "no_pivot", "mode", "stay"),
    [
        (["mount"], False, numbers.PIVOT_ROOT, 0),
        (["mount"], True, numbers.PIVOT_MOVE, 0),
        (["uts"], False, numbers.PIVOT_CHROOT, 1),
        (["uts"], True, numbers.PIVOT_CHROOT, 1),
    ],
)
def test_pivot(kinds: Sequence[str], no_pivot: bool, mode: int, stay: int) -> None:
    """Without a mount namespace the host's mounts stay as they are."""
    spec = specs.docker_like()
    spec["linux"]["namespaces"] = specs.new_namespaces(*kinds)
    made = specs.create(spec, no_pivot=no_pivot)
    assert specs.only(made, "PIVOT").fields == (mode,)
    assert specs.only(made, "ROOTFS").fields[2] == stay
