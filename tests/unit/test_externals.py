"""What CRIU is told about mounts that come from outside, in both directions."""

from __future__ import annotations

from pyrunc.criu import externals
from pyrunc.plan.numbers import DEVICE_FLAG_BIND, MOUNT_FLAG_DONE_SKIP, MOUNT_FLAG_RECURSIVE
from pyrunc.plan.wire import Op


def new(target: str, flags: int = 0) -> Op:
    """A file system of its own."""
    return Op("MOUNT_NEW", target, "tmpfs", "tmpfs", [], 0, [], flags)


def bind(target: str, source: str, flags: int = 0) -> Op:
    """A bind mount."""
    return Op("MOUNT_BIND", target, source, -1, 0, 0, 0, 0, [], flags)


def device(path: str, flags: int) -> Op:
    """A device node, made or bound."""
    return Op("DEVICE", path, 0o20666, 1, 3, 0, 0, flags)


def same(path: str) -> str:
    """Without links a path is what it is."""
    return path


def test_a_dump_names_bind_mounts_by_their_destination() -> None:
    """And nothing else: file systems of the container's own are CRIU's business."""
    ops = [new("/dev"), bind("/data", "/srv/data"), device("/dev/null", 0), new("/proc")]
    points = ["/", "/dev", "/proc", "/data", "/data/below"]
    assert externals.dumped(ops, points, [], same) == ["mnt[/data]:/data"]
    assert externals.restored(ops, [], same) == ["mnt[/dev/null]:/dev/null", "mnt[/data]:/srv/data"]


def test_links_of_the_container() -> None:
    """The kernel knows the mount point by its real path; the image keeps the name that the configuration has."""
    ops = [bind("/var/run/x", "/srv/x")]
    points = ["/", "/run/x"]
    assert externals.dumped(ops, points, [], lambda path: path.replace("/var/run", "/run")) == [
        "mnt[/run/x]:/var/run/x"
    ]


def test_what_is_not_mounted_any_more_is_left_out() -> None:
    """CRIU would look for it."""
    assert externals.dumped([bind("/gone", "/srv")], ["/"], ["/proc/kcore"], same) == []


def test_mounts_below_a_recursive_one() -> None:
    """They came with it, and come from the same place again; what the configuration mounts there does not."""
    ops = [bind("/host", "/", MOUNT_FLAG_RECURSIVE), new("/host/tmp"), bind("/one", "/srv")]
    points = ["/", "/host", "/host/proc", "/host/tmp", "/host/tmp/deeper", "/one", "/one/below"]
    assert externals.dumped(ops, points, [], same) == [
        "mnt[/host]:/host",
        "mnt[/host/proc]:/host/proc",
        "mnt[/one]:/one",
    ]
    assert externals.restored(ops, ["/", "/proc", "/srv/x"], same) == [
        "mnt[/dev/null]:/dev/null",
        "mnt[/host]:/",
        "mnt[/host/proc]:/proc",
        "mnt[/host/srv/x]:/srv/x",
        "mnt[/one]:/srv",
    ]


def test_masked_files_are_the_null_device() -> None:
    """One name for all of them, as in runc's images."""
    points = ["/", "/proc", "/proc/kcore"]
    assert externals.dumped([new("/proc")], points, ["/proc/kcore"], same) == ["mnt[/proc/kcore]:/dev/null"]


def test_bound_devices() -> None:
    """In a user namespace device nodes are the host's."""
    ops = [device("/dev/zero", DEVICE_FLAG_BIND)]
    assert externals.dumped(ops, ["/", "/dev/zero"], [], same) == ["mnt[/dev/zero]:/dev/zero"]


def test_stand_ins_are_no_bind_mounts() -> None:
    """The bind that follows a mount which may be refused is only made then."""
    ops = [
        new("/sys/fs/cgroup", MOUNT_FLAG_DONE_SKIP),
        bind("/sys/fs/cgroup", "/sys/fs/cgroup"),
        bind("/d", "/s"),
    ]
    assert [item.target for item in externals.binds(ops)] == ["/d"]
