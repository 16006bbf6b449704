"""What runtimes without root's privileges cannot do, and say so: helpers, groups, cgroups; podman's way; nesting."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, Container, ContainerFactory, User

pytestmark = pytest.mark.root


def ranges(what: Bundle, user: User) -> Bundle:
    """Root is the user, 1 and on are the subordinate ids: newuidmap and newgidmap are needed."""
    for key, own, first in (
        ("uidMappings", user.uid, user.subuid[0]),
        ("gidMappings", user.gid, user.subgid[0]),
    ):
        what.mapping("linux")[key] = [
            {"containerID": 0, "hostID": own, "size": 1},
            {"containerID": 1, "hostID": first, "size": 65535},
        ]
    return what


# --- An ordinary user -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["host", "v1", "v2"])
def test_one_id(rootless: User, container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Without a helper: one's own ids; the kernel then wants setgroups to be given up."""
    what = bundle("probe", user=rootless).probe(
        "ids", "--", "cat", "/proc/self/setgroups", "--", "cat", "/proc/self/gid_map", "--", "cgroup"
    )
    one = container(what, user=rootless, view=view)
    result = one.run().ok()
    assert result.err == ""
    assert result.facts()["uid"] == "0 0 0"
    assert "deny" in result.out.splitlines()
    assert ["0", str(rootless.gid), "1"] in [line.split() for line in result.out.splitlines()]
    # No permission for cgroups: silently without one.
    assert one.id not in result.out


def test_ranges(rootless: User, container: ContainerFactory, bundle: BundleFactory) -> None:
    """With newuidmap and newgidmap setgroups works, and any user can be."""
    what = ranges(bundle("probe", user=rootless), rootless)
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 10]}
    one = container(
        what.probe("ids", "--", "cat", "/proc/self/setgroups", "--", "pause"), user=rootless
    ).up()
    text = one.expect("ready")
    facts = support.Facts(text)
    assert (facts["uid"], facts["gid"], facts["groups"]) == ("1000 1000 1000", "1001 1001 1001", "5 10")
    assert "allow" in text.splitlines()
    assert support.status_field(one.pid, "Uid").split()[0] == str(rootless.subuid[0] + 999)
    assert support.status_field(one.pid, "Gid").split()[0] == str(rootless.subgid[0] + 1000)
    facts = one.exec("/bin/probe", "ids", options=["-u", "7:8", "-g", "9"]).ok().facts()
    assert (facts["uid"], facts["gid"], facts["groups"]) == ("7 7 7", "8 8 8", "5 9 10")
    one.kill("TERM").ok()
    assert one.wait() == 0
    one.delete().ok()


def test_no_helper(rootless: User, container: ContainerFactory, bundle: BundleFactory) -> None:
    """Where /usr/bin holds none, the error names the package."""
    what = ranges(bundle("probe", user=rootless), rootless)
    one = container(what, user=rootless)
    script = "mount -t tmpfs none /mnt && for p in newuidmap newgidmap; do touch /mnt/$p; "
    script += 'mount --bind /mnt/$p $(command -v $p); done; exec "$@"'
    one.command[:0] = ["unshare", "-m", "sh", "-c", script, "sh"]
    one.create().fails("newuidmap not found", "uidmap", "$.linux.uidMappings")


@pytest.mark.slow
def test_a_helper_that_hangs(
    rootless: User, container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """It is ended after 10 s, and create fails with its name."""
    what = ranges(bundle("probe", user=rootless), rootless)
    one = container(what, user=rootless)
    helper = os.path.join(scratch, "newuidmap")
    with open(helper, "w", encoding="ascii") as stream:
        stream.write("#!/bin/sh\necho thinking\nexec sleep 1000\n")
    os.chmod(helper, 0o755)
    script = 'mount --bind "$1" $(command -v newuidmap); shift; exec "$@"'
    one.command[:0] = ["unshare", "-m", "--", "sh", "-c", script, "sh", helper]
    one.create().fails("$.linux.uidMappings: newuidmap did not end within 10 s")
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_groups_that_cannot_be_set(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = bundle("probe", user=rootless)
    what.mapping("process")["user"] = {"uid": 0, "gid": 0, "additionalGids": [5]}
    container(what, user=rootless).create().fails("$.process.user.additionalGids")


def test_exec_and_its_groups(rootless: User, container: ContainerFactory, bundle: BundleFactory) -> None:
    one = container(bundle("probe", user=rootless).probe("pause"), user=rootless).up()
    one.expect("ready")
    facts = one.exec("/bin/probe", "ids", "--", "process", "--", "caps").ok().facts()
    assert facts["uid"] == "0 0 0"
    assert facts["ppid"] == "0"
    one.exec("/bin/probe", "ids", options=["-g", "0"]).fails("setgroups", "hint: ", status=255)
    one.exec("/bin/probe", "ids", options=["-u", "1"]).fails("not mapped", status=255)
    one.pyrunc("pause", one.id).fails("cgroup")
    listed = one.pyrunc("ps", "--format", "json", one.id).ok().json()
    assert listed == [one.pid]
    document = one.pyrunc("list", "--format", "json").ok().json()
    assert isinstance(document, list)
    assert isinstance(document[0], dict)
    assert document[0]["owner"] == rootless.name


def test_no_user_namespace(rootless: User, container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe", user=rootless).without_namespace("user")
    what.mapping("linux").pop("uidMappings")
    what.mapping("linux").pop("gidMappings")
    container(what, user=rootless).create().fails(
        "rootless containers need a user namespace", "spec --rootless"
    )


def test_limits_without_a_cgroup(
    rootless: User, container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """A limit that nobody would enforce is an error, and no cgroup is left."""
    what = bundle("probe", user=rootless)
    what.mapping("linux")["resources"] = {"pids": {"limit": 10}}
    one = container(what, user=rootless, view=view)
    one.create().fails("$.linux.resources.pids")
    assert support.find_cgroups(one.id) == []


def test_an_explicit_cgroup_without_permission(
    rootless: User, container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    what = bundle("probe", user=rootless)
    what.mapping("linux")["cgroupsPath"] = "/somewhere"
    container(what, user=rootless, view=view).create().fails("$.linux.cgroupsPath", "permission denied")


def test_the_default_root(bundle: BundleFactory, rootless: User) -> None:
    """$XDG_RUNTIME_DIR/pyrunc, for both doors."""
    what = bundle("probe", user=rootless).probe("pause").write()
    command = [*rootless.prefix, rootless.pyrunc]
    name = f"{support.ID_PREFIX}default"
    script = 'exec "$@" 0<>/dev/null >&0 2>&0'
    support.run(
        "sh", "-c", script, "sh", *command, "run", "--detach", "--bundle", what.path, name
    ).ok()  # fmt: skip
    try:
        root = os.path.join(rootless.runtime_dir, "pyrunc")
        # The sticky bit keeps cleaners of temporary directories away.
        assert os.stat(root).st_mode & 0o7777 == 0o1700
        assert os.stat(os.path.join(root, name)).st_uid == rootless.uid
        assert '"running"' in support.run(*command, "state", name).ok().out
        support.run(*command, "kill", name, "TERM").ok()
        support.wait_until(
            lambda: '"stopped"' in support.run(*command, "state", name).ok().out, "the container's end"
        )
    finally:
        support.run(*command, "delete", "--force", name).ok()
    assert name not in os.listdir(root)


def test_spec_rootless(rootless: User, container: ContainerFactory, bundle: BundleFactory) -> None:
    """What `spec --rootless` writes runs as it is, but for the shell and its terminal."""
    what = bundle("probe", user=rootless)
    os.unlink(os.path.join(what.path, "config.json"))
    support.run(*rootless.prefix, rootless.pyrunc, "spec", "--rootless", "--bundle", what.path).ok()
    with open(os.path.join(what.path, "config.json"), encoding="utf-8") as stream:
        what.spec = json.load(stream)
    what.mapping("process")["terminal"] = False
    facts = container(what.probe("ids", "--", "uname"), user=rootless).run().ok().facts()
    assert (facts["uid"], facts["hostname"]) == ("0 0 0", "pyrunc")


# --- Root in a user namespace -----------------------------------------------------------------------------------------


def podman_like(what: Bundle) -> Bundle:
    """As podman writes it for its rootless containers: it made the user namespace, the configuration has none."""
    mounts = what.list_of("mounts")
    for index, item in enumerate(mounts):
        assert isinstance(item, dict)
        if item["destination"] == "/dev/pts":
            item["options"] = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
        elif item["destination"] == "/sys":
            mounts[index] = {
                "destination": "/sys",
                "type": "bind",
                "source": "/sys",
                "options": ["rbind", "ro"],
            }
    mounts[:] = [
        item for item in mounts if isinstance(item, dict) and item["destination"] != "/sys/fs/cgroup"
    ]
    what.mapping("linux").pop("resources", None)
    what.without_namespace("cgroup")
    return what


def in_userns(one: Container, user: User, *, full: bool) -> Container:
    """Every command as root of a user namespace of its user's, with one id or with all of the user's."""
    maps = ["--map-root-user"]
    if full:
        maps.append("--map-auto")
    at = one.command.index(user.pyrunc)
    one.command[at:at] = ["unshare", "-U", "-m", *maps]
    return one


@pytest.mark.parametrize("view", ["host", "v1", "v2"])
@pytest.mark.parametrize("full", [False, True])
def test_the_podman_shape(
    rootless: User, container: ContainerFactory, bundle: BundleFactory, view: str, full: bool
) -> None:
    what = podman_like(bundle("probe", user=rootless))
    what.without_namespace("user")
    what.mapping("linux").pop("uidMappings")
    what.mapping("linux").pop("gidMappings")
    what.probe("ids", "--", "ns", "--", "stat", "/dev/null", "--", "net")
    if full:
        what.mapping("process")["user"] = {"uid": 3, "gid": 4, "additionalGids": [5]}
    one = in_userns(container(what, user=rootless, view=view), rootless, full=full)
    result = one.run().ok()
    assert result.err == ""
    facts = result.facts()
    assert facts["uid"] == ("3 3 3" if full else "0 0 0")
    assert facts["groups"] == ("5" if full else "65534" if "65534" in facts["groups"] else "")
    assert "rdev 1:3" in facts["stat"]
    assert facts.all("net")[1:] == ["lo up"]


def test_podmans_exec(rootless: User, container: ContainerFactory, bundle: BundleFactory) -> None:
    """Every command runs in the same user namespace, which it joins through the first process."""
    what = podman_like(bundle("probe", user=rootless).without_namespace("user"))
    what.mapping("linux").pop("uidMappings")
    what.mapping("linux").pop("gidMappings")
    words = [rootless.pyrunc, "--root", os.path.join(rootless.runtime_dir, "root")]
    name = f"{support.ID_PREFIX}podman"
    what.probe("pause").write()
    pyrunc = " ".join(words)
    script = f"{pyrunc} create --bundle {what.path} {name} </dev/null >/dev/null 2>{what.path}/err && "
    script += (
        f"{pyrunc} start {name} && {pyrunc} exec {name} /bin/probe ids -- ns && {pyrunc} state {name}; "
    )
    script += f"{pyrunc} delete --force {name}; cat {what.path}/err"
    result = support.run(*rootless.prefix, "unshare", "-U", "-m", "--map-root-user", "sh", "-c", script).ok()
    assert result.err == ""
    assert "uid 0 0 0" in result.out
    assert '"running"' in result.out


def test_groups_where_the_outer_namespace_denies_them(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = podman_like(bundle("probe", user=rootless).without_namespace("user"))
    what.mapping("linux").pop("uidMappings")
    what.mapping("linux").pop("gidMappings")
    what.mapping("process")["user"] = {"uid": 0, "gid": 0, "additionalGids": [0]}
    one = in_userns(container(what.probe("ids"), user=rootless), rootless, full=False)
    # Its own group is no additional right: podman names it for images whose root is in the group root.
    assert one.run().ok().facts()["gid"] == "0 0 0"
    what.mapping("process")["user"] = {"uid": 0, "gid": 0, "additionalGids": [0, 5]}
    what.write()
    one.create().fails("$.process.user.additionalGids", "setgroups", "hint: ")


def test_a_container_in_a_container(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The whole host's file system as root, own namespaces of every kind: pyrunc works in there as well."""
    inner = bundle("probe").probe("ids", "--", "process").write()
    inner.spec["mounts"] = [inner.at("mounts", 0), inner.at("mounts", 1)]
    inner.write()
    words = [
        support.PYRUNC,
        "--root",
        "/run/inner",
        "run",
        "--bundle",
        inner.path,
        f"{support.ID_PREFIX}inner",
    ]
    outer = bundle("busybox", *words)
    outer.spec["root"] = {"path": "/", "readonly": False}
    linux = outer.mapping("linux")
    linux.pop("maskedPaths", None)
    linux.pop("readonlyPaths", None)
    every: list[support.Json] = [
        f"CAP_{name}" for name in ("SYS_ADMIN", "MKNOD", "SYS_CHROOT", "SETUID", "SETGID")
    ]
    every += [
        f"CAP_{name}"
        for name in ("SETPCAP", "CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_ADMIN", "KILL", "FSETID")
    ]
    outer.mapping("process")["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    outer.mapping("process")["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    for item in outer.list_of("mounts"):
        assert isinstance(item, dict)
        if item["destination"] in ("/sys/fs/cgroup", "/sys"):
            options = item["options"]
            assert isinstance(options, list)
            item["options"] = [option for option in options if option != "ro"]
    outer.mount("/run", "tmpfs", "tmpfs", "mode=755")
    facts = container(outer).run().ok().facts()
    assert facts["uid"] == "0 0 0"
    assert facts["pid"] == "1"
