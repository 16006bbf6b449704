"""mounts add and mounts remove: other mounts for a container that is there, whatever its processes do meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import mountinfo
import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containers import Bundle, BundleFactory, Container, ContainerFactory, User
    from support import Json, Result

pytestmark = pytest.mark.root


def change(one: Container, what: str, *mounts: Json) -> Result:
    """`mounts add` or `mounts remove`, with these entries on stdin."""
    return one.pyrunc("mounts", what, one.id, "-", stdin=json.dumps(mounts))


def bind(destination: str, source: str, *options: str) -> Json:
    """An entry of mounts."""
    return {"destination": destination, "source": source, "options": ["rbind", *options]}


def tmpfs(destination: str, *options: str) -> Json:
    """An entry of mounts."""
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def make_source(scratch: str) -> str:
    """A directory with a file `file`."""
    path = os.path.join(scratch, "source")
    os.mkdir(path)
    os.chmod(path, 0o755)
    with open(os.path.join(path, "file"), "w", encoding="ascii") as stream:
        stream.write("content\n")
    return path


def inside(one: Container) -> dict[str, mountinfo.Mount]:
    """The container's mounts, as its init sees them."""
    with open(f"/proc/{one.pid}/mountinfo", encoding="utf-8") as stream:
        return mountinfo.parse(stream.read())


def hosts() -> set[str]:
    """Where something is mounted on the host, below the tests' own directories."""
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        return {line.split()[4] for line in stream if "pyrunc-test" in line}


def running(container: ContainerFactory, what: Bundle, user: User | None = None) -> Container:
    """A container whose shell waits, with CAP_SYS_ADMIN when it is asked for by exec."""
    return container(what.args("/bin/sleep", "1000"), user=user).up()


def stored(one: Container) -> list[str]:
    """The destinations in the stored configuration."""
    with open(os.path.join(one.root, one.id, "config.json"), encoding="utf-8") as stream:
        return [mount["destination"] for mount in json.load(stream)["mounts"]]


# --- Coming and going -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["busybox", "userns"])
@pytest.mark.parametrize("state", ["created", "running", "paused"])
def test_add_and_remove(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, name: str, state: str
) -> None:
    """In every state that has processes; one file says what comes and what goes."""
    source = make_source(scratch)
    one = container(bundle(name, "sleep", "1000"))
    one.create().ok()
    if state != "created":
        one.start().ok()
    if state == "paused":
        one.pyrunc("pause", one.id).ok()
    entries: list[Json] = [
        bind("/new/dir", source, "ro", "nosuid"),
        bind("/new/file", f"{source}/file", "rprivate"),
        tmpfs("/new/tmp", "size=64k", "ro", "mode=700"),
        tmpfs("/new/tmp/below"),
        {"destination": "/new/procfs", "type": "proc", "source": "proc", "options": ["nodev"]},
    ]
    if name == "userns":
        # The kernel shows a fresh proc only where the old one is not covered.
        del entries[-1]
    before = inside(one)
    change(one, "add", *entries).ok()
    seen = inside(one)
    assert {"ro", "nosuid"} <= seen["/new/dir"].options
    assert "rw" in seen["/new/file"].options
    assert ("ro" in seen["/new/tmp"].options, seen["/new/tmp"].kind) == (True, "tmpfs")
    assert {"size=64k", "mode=700"} <= seen["/new/tmp"].superblock
    assert "rw" in seen["/new/tmp/below"].options
    assert stored(one)[-1] == entries[-1]["destination"]  # type: ignore[index, call-overload]
    if state == "running":
        assert one.exec("/bin/cat", "/new/dir/file", "/new/file").ok().out == "content\ncontent\n"
        if name == "busybox":
            # It shows the container's processes: that of the exec and init.
            assert "1\n" in one.exec("/bin/ls", "/new/procfs").ok().out
    change(one, "remove", *entries).ok()
    assert set(inside(one)) == set(before)
    assert not [point for point in stored(one) if point.startswith("/new")]
    assert os.path.exists(f"{source}/file")


def test_options_as_at_create(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Attributes, recursive ones, propagation, mapped owners, a copy of what is there, a source of the bundle's."""
    source = make_source(scratch)
    os.makedirs(f"{source}/sub")
    what = bundle("busybox")
    os.mkdir(os.path.join(what.path, "data"))
    one = running(container, what)
    support.run("mount", "-t", "tmpfs", "nested", f"{source}/sub").ok()
    try:
        change(
            one,
            "add",
            bind("/a", source, "rro", "noexec", "shared"),
            bind("/b", source, "idmap=uids=0-5-10;gids=0-6-10"),
            tmpfs("/bin", "tmpcopyup"),
            bind("rel/path", "data"),
            tmpfs("/c", "idmap=uids=0-0-1;gids=0-8-1"),
        ).ok()
    finally:
        support.run("umount", f"{source}/sub").ok()
    seen = inside(one)
    assert {"ro", "noexec"} <= seen["/a"].options
    assert "ro" in seen["/a/sub"].options
    assert seen["/a"].tags == ["shared"]
    assert "idmapped" in seen["/b"].options
    assert "/rel/path" in seen
    out = one.exec("/bin/sh", "-c", "stat -c '%u %g' /b/file /c; ls /bin/busybox").ok().out
    assert out == "5 6\n0 8\n/bin/busybox\n"


def test_a_mapping_of_the_container(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """idmap alone takes the container's user namespace; its /sys, cgroups and message queues are its own."""
    one = running(container, bundle("userns"))
    change(
        one,
        "add",
        bind("/m", make_source(scratch), "idmap"),
        {"destination": "/q", "type": "mqueue", "source": "mqueue"},
        {"destination": "/cg", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ).ok()
    assert one.exec("/bin/stat", "-c", "%u %g", "/m/file").ok().out == "0 0\n"
    seen = inside(one)
    assert seen["/q"].kind == "mqueue"
    assert "ro" in seen["/cg"].options
    change(one, "remove", bind("/cg", ""), bind("/m", ""), bind("/q", "")).ok()
    assert not {"/m", "/q", "/cg"} & set(inside(one))


def test_an_ordinary_users_container(
    container: ContainerFactory, bundle: BundleFactory, rootless: User, scratch: str
) -> None:
    """Its runtime has no privileges for the host's mounts but those of the container's user namespace."""
    source = make_source(scratch)
    what = bundle("busybox", user=rootless)
    one = running(container, what, user=rootless)
    entries = [bind("/new/dir", source, "ro"), bind("/new/file", f"{source}/file"), tmpfs("/t", "size=64k")]
    change(one, "add", *entries).ok()
    assert one.exec("/bin/cat", "/new/dir/file", "/new/file").ok().out == "content\ncontent\n"
    assert "ro" in inside(one)["/new/dir"].options
    change(one, "add", bind("/never", "/no/such"), bind("/x", source)).fails(
        "$[0].source: open_tree '/no/such'", "does not exist on the host"
    )
    change(one, "add", bind("/m", source, "idmap")).fails(
        "id-mapped mounts are not supported for rootless containers"
    )
    change(one, "remove", *entries).ok()
    assert not [point for point in inside(one) if point.startswith(("/new", "/t", "/x"))]
    one.delete("--force").ok()


def test_what_is_added_stays_inside(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """Nothing of it reaches the host, and what the container mounts in it does not either."""
    source = make_source(scratch)
    support.run("mount", "-t", "tmpfs", "source", source).ok()
    try:
        support.run("mount", "--make-shared", source).ok()
        os.mkdir(f"{source}/sub")
        host = hosts()
        for name in ("busybox", "userns"):
            what = bundle(name)
            what.list_of("process", "capabilities", "bounding").append("CAP_SYS_ADMIN")
            one = running(container, what)
            change(one, "add", bind("/m", source)).ok()
            one.exec("/bin/mount", "-t", "tmpfs", "t", "/m/sub", options=("--cap", "CAP_SYS_ADMIN")).ok()
            assert "/m/sub" in inside(one)
            one.delete("--force").ok()
        assert hosts() == host
    finally:
        support.run("umount", source).ok()


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_all_or_none(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """The last of several fails: no mount, no mount point and no word in the configuration is left of the others."""
    source = make_source(scratch)
    what = bundle("busybox")
    one = running(container, what)
    before, image = set(inside(one)), sorted(os.listdir(what.rootfs))
    result = change(
        one,
        "add",
        bind("/new/dir", source),
        bind("/new/file", f"{source}/file"),
        tmpfs("/other/tmp"),
        tmpfs("/other/tmp/below"),
        tmpfs("/third", "nonsense=1"),
    )
    result.fails("$[4]", "nonsense")
    assert set(inside(one)) == before
    assert sorted(os.listdir(what.rootfs)) == image
    assert "/new/dir" not in stored(one)
    change(one, "add", tmpfs("/a")).ok()
    change(one, "remove", tmpfs("/a"), tmpfs("/b")).fails("$[1].destination: '/b' is not a mount point")
    assert "/a" in inside(one)


@pytest.mark.parametrize(
    ("entry", "texts"),
    [
        (tmpfs("/"), ("$[0].destination", "a running container keeps its root")),
        (tmpfs("/proc/sys"), ("$[0].destination", "is inside /proc")),
        (tmpfs("/x", "remount"), ("$[0].options", "remount adds no mount")),
        (bind("/x", "/tmp", "copy-symlink"), ("$[0].options", "copy-symlink adds no mount")),
        (bind("/x", "/tmp", "idmap"), ("$[0]", "no user namespace to take them from")),
        (bind("/x", "/no/such"), ("$[0].source", "does not exist on the host")),
        ({"destination": "/x", "source": "/tmp"}, ("$[0]", "a mount without type must be a bind mount")),
        ({"source": "/tmp"}, ("$[0]", "destination")),
        ({"destination": "/x", "type": 5}, ("$[0].type",)),
    ],
)
def test_what_cannot_be_added(
    container: ContainerFactory, bundle: BundleFactory, entry: Json, texts: Sequence[str]
) -> None:
    one = running(container, bundle("busybox"))
    before = set(inside(one))
    change(one, "add", entry).fails(*texts)
    assert set(inside(one)) == before


@pytest.mark.parametrize(
    "target", ["/", "/proc", "/dev/", "/proc/sys", "/sys/firmware", "/link", "//proc/../proc"]
)
def test_what_must_stay(container: ContainerFactory, bundle: BundleFactory, target: str) -> None:
    """The root, /proc, /dev, and what hides parts of the system, by whatever name they are reached."""
    what = bundle("busybox")
    os.symlink("/proc/sys", os.path.join(what.rootfs, "link"))
    one = running(container, what)
    before = len(inside(one))
    change(one, "remove", tmpfs(target)).fails("$[0].destination", "cannot be unmounted", "must stay")
    assert len(inside(one)) == before


def test_words_for_a_bad_call(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    one = running(container, bundle("busybox"))
    change(one, "swap").fails("unknown subcommand 'mounts swap'", "give add or remove")
    one.pyrunc("mounts", "add", one.id, "-", stdin="{}").fails("$: mounts must be an array")
    one.pyrunc("mounts", "add", one.id, "/no/such").fails("open '/no/such': no such file or directory")
    one.pyrunc("mounts", "add", "nobody", "-", stdin="[]").fails("container does not exist")
    change(one, "remove", tmpfs("/dev/shm"), tmpfs("/dev/shm/")).fails("'/dev/shm' is listed twice")
    one.kill("KILL").ok()
    one.wait()
    change(one, "add", tmpfs("/x")).fails("container not running: stopped")
    change(one, "remove", tmpfs("/x")).fails("container not running: stopped")


def test_a_container_on_the_hosts_mounts(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Without a mount namespace of its own there is nothing that is only the container's."""
    what = bundle("busybox").without_namespace("mount")
    for key in ("maskedPaths", "readonlyPaths", "rootfsPropagation"):
        what.mapping("linux").pop(key, None)
    what.mapping()["mounts"] = []
    one = container(what.args("/bin/sleep", "1000"))
    one.create().ok()
    change(one, "add", tmpfs("/x")).fails("the container has no mount namespace")
    one.delete("--force").ok()


def test_a_read_only_root(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """What is there can be covered; a mount point that is not cannot be made."""
    what = bundle("busybox")
    what.mapping("root")["readonly"] = True
    one = running(container, what)
    change(one, "add", bind("/root", make_source(scratch))).ok()
    change(one, "add", tmpfs("/new")).fails("read-only file system", "cannot be made there")


# --- Hostile processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["/outside", "../../../../../../../outside", "/proc/1/root/outside"])
def test_links_of_the_container_stay_inside(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, link: str
) -> None:
    """Made by its processes while it runs."""
    what = bundle("busybox")
    one = running(container, what)
    one.exec("/bin/ln", "-s", link, "/link").ok()
    result = change(one, "add", tmpfs("/link/sub"))
    assert not os.path.lexists("/outside")
    if result.status == 0:
        assert [point for point in inside(one) if point.endswith("/sub")] == ["/outside/sub"]
    else:
        result.fails("$[0]")
    one.exec("/bin/ln", "-s", "/tmp", "/procs").ok()
    change(one, "add", {"destination": "/procs", "type": "proc", "source": "proc"}).fails(
        'filesystem "proc" must be mounted on ordinary directory'
    )


def test_a_race_for_the_target(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """A process swaps a directory and a link to the outside for ever: the mount is inside, or an error, each time."""
    source = make_source(scratch)
    outside = os.path.join(scratch, "outside")
    os.mkdir(outside)
    what = bundle("busybox")
    # A way out for whoever would follow it on the host: absolute, and as the container's root sees the host's.
    script = (
        f"mkdir -p /real /x && ln -s {outside} /fake;"
        "while :; do mv -T /real /hold && mv -T /fake /real; mv -T /real /fake && mv -T /hold /real; done 2>/dev/null"
    )
    one = container(what.args("/bin/sh", "-c", script)).up()
    host = hosts()
    done = 0
    for number in range(40):
        result = change(one, "add", bind(f"/real/sub{number}", source))
        assert result.status in (0, 1), result
        done += result.status == 0
    assert done
    assert os.listdir(outside) == []
    assert hosts() == host
    assert all(mount.root == source for point, mount in inside(one).items() if "/sub" in point)


def test_init_is_invisible_to_the_container(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """Nobody inside can end who mounts: without a proc to mount it stays outside of the pid namespace."""
    one = container(
        bundle("busybox", "sh", "-c", "while :; do for p in /proc/[0-9]*; do echo ${p#/proc/}; done; done")
    ).up()
    for number in range(10):
        change(one, "add", tmpfs(f"/t{number}")).ok()
    one.kill("KILL").ok()
    pids = set(one.output().split())
    assert pids == {"1"}


def test_a_runtime_that_dies(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Killed before it has written down what was added: init undoes it by itself."""
    one = running(container, bundle("busybox"))
    before = set(inside(one))
    # So many files to copy, again and again, that there is time to be killed meanwhile.
    many = os.path.join(one.bundle.rootfs, "many")
    os.mkdir(many)
    for number in range(3000):
        with open(os.path.join(many, str(number)), "w", encoding="ascii") as stream:
            stream.write("x" * 4000)
    argv = [*one.command, "mounts", "add", one.id, "-"]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    entries = [tmpfs("/first"), *(tmpfs("/many", "tmpcopyup", "size=64m") for _ in range(8))]
    process.stdin.write(json.dumps(entries).encode())
    process.stdin.close()
    support.wait_until(lambda: "/first" in inside(one), "the first mount")
    process.kill()
    process.wait()
    support.wait_until(lambda: set(inside(one)) == before, "the end of what was mounted")
    assert "/first" not in stored(one)
    change(one, "add", tmpfs("/first")).ok()
