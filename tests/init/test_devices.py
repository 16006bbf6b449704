"""Device nodes, links and the terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
import termios
from typing import TYPE_CHECKING

import pytest

from init.machine import (
    ATTR_NOSUID,
    NEWNS,
    NEWUSER,
    PATIENCE,
    box,
    in_rootfs,
    map_root,
    mount_bind,
    mount_new,
    mounts,
    op,
    shell,
)
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from pathlib import Path

    from init.machine import Machine, Running

CHARACTER, BLOCK, FIFO = stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO
KEEP = 0xFFFFFFFF


def device(path: str, mode: int, major: int = 1, minor: int = 3, *owner: int, flags: int = 0) -> wire.Op:
    """DEVICE with defaults: the null device of root."""
    uid, gid = owner or (0, 0)
    return op("DEVICE", path, mode, major, minor, uid, gid, flags)


def test_nodes_of_all_kinds(machine: Machine, rootfs: Path) -> None:
    """Type, number, exact mode (set-id bits as well, whatever the umask) and owner; also outside of /dev."""
    plan = [
        *in_rootfs(
            rootfs,
            device("/dev/null", CHARACTER | 0o666),
            device("/opt/new/disk", BLOCK | 0o4640, 8, 300, 12, 34),
            device("/dev/pipe", FIFO | 0o622, 0, 0, 5, 6),
        ),
        op("DONE"),
    ]
    machine.run(plan, prepare=lambda: os.umask(0o077)).ok()
    null, disk, pipe = [os.lstat(rootfs / path) for path in ("dev/null", "opt/new/disk", "dev/pipe")]
    assert (null.st_mode, null.st_rdev) == (CHARACTER | 0o666, os.makedev(1, 3))
    assert (disk.st_mode, disk.st_rdev) == (BLOCK | 0o4640, os.makedev(8, 300))
    assert (disk.st_uid, disk.st_gid) == (12, 34)
    assert (pipe.st_mode, pipe.st_uid, pipe.st_gid) == (FIFO | 0o622, 5, 6)


def test_existing_node_that_matches_is_left_alone(machine: Machine, rootfs: Path) -> None:
    """It may be the host's."""
    os.mknod(rootfs / "dev/null", CHARACTER | 0o600, os.makedev(1, 3))
    machine.run([*in_rootfs(rootfs, device("/dev/null", CHARACTER | 0o666, 1, 3, 7, 7)), op("DONE")]).ok()
    assert os.lstat(rootfs / "dev/null").st_mode == CHARACTER | 0o600
    assert os.lstat(rootfs / "dev/null").st_uid == 0


@pytest.mark.parametrize("existing", ["number", "type", "file", "link"])
@pytest.mark.parametrize("flags", [0, numbers.DEVICE_FLAG_BIND])
def test_existing_file_that_does_not_match(
    machine: Machine, rootfs: Path, existing: str, flags: int
) -> None:
    """config-linux.md: "the runtime MUST generate an error"; a regular file is where a bind goes."""
    path = rootfs / "dev/null"
    if existing == "number":
        os.mknod(path, CHARACTER | 0o666, os.makedev(1, 5))
    elif existing == "type":
        os.mknod(path, BLOCK | 0o666, os.makedev(1, 3))
    elif existing == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.touch()
    result = machine.run(
        [*in_rootfs(rootfs, device("/dev/null", CHARACTER | 0o666, flags=flags)), op("DONE")]
    )
    if existing == "file" and flags:
        result.ok()
    else:
        error = result.failed()
        assert (error.step, error.text) == ("device_mismatch", "/dev/null")


def test_dev_as_a_symlink_to_the_outside(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """CVE-2026-41579: /dev of the image leads to the host: the node is made inside."""
    (tmp_path / "outside").mkdir()
    (rootfs / "dev").rmdir()
    (rootfs / "dev").symlink_to(tmp_path / "outside")
    plan = [
        *in_rootfs(
            rootfs, device("/dev/null", CHARACTER | 0o666), op("SYMLINK", "/proc/self/fd", "/dev/fd", 1)
        ),
        op("DONE"),
    ]
    machine.run(plan).ok()
    assert os.listdir(tmp_path / "outside") == []
    inside = rootfs / str(tmp_path / "outside").lstrip("/")
    assert sorted(os.listdir(inside)) == ["fd", "null"]


def test_bind_from_the_host(machine: Machine, rootfs: Path) -> None:
    """DEVICE_FLAG_BIND, and mknod refused in a user namespace."""
    plan = [
        *in_rootfs(
            rootfs,
            device("/dev/null", CHARACTER | 0o666, flags=numbers.DEVICE_FLAG_BIND),
            device("/dev/zero", CHARACTER | 0o666, 1, 5),
        ),
        *shell("stat -c %t:%T /dev/null /dev/zero; echo x > /dev/null"),
    ]
    for namespaces in (NEWNS, NEWNS | NEWUSER):
        if namespaces & NEWUSER:
            (rootfs / "dev/zero").unlink()
            (rootfs / "dev/null").unlink()
        result = machine.run(plan, unshare=namespaces, outside=map_root)
        assert result.ok() == "1:3\n1:5\n"
    assert stat.S_ISREG(os.lstat(rootfs / "dev/zero").st_mode)


def test_bind_of_the_wrong_device(machine: Machine, rootfs: Path) -> None:
    """The host has something else at that path: checked by descriptor."""
    plan = [
        *in_rootfs(rootfs, device("/dev/null", CHARACTER | 0o666, 1, 7, flags=numbers.DEVICE_FLAG_BIND)),
        op("DONE"),
    ]
    assert machine.run(plan).failed().step == "device_mismatch"
    missing = device("/dev/no-such-device", CHARACTER | 0o666, 1, 7, flags=numbers.DEVICE_FLAG_BIND)
    error = machine.run([*in_rootfs(rootfs, missing), op("DONE")]).failed()
    assert (error.step, error.errno) == ("open_tree", errno.ENOENT)


def test_links(machine: Machine, rootfs: Path) -> None:
    """Existing ones stay; with 1 only what the kernel's /proc has."""
    (rootfs / "dev/core").symlink_to("mine")
    plan = [
        *in_rootfs(
            rootfs,
            op("SYMLINK", "/proc/kcore", "/dev/core", 0),
            op("SYMLINK", "/proc/self/fd/0", "/dev/stdin", 1),
            op("SYMLINK", "/proc/no-such-file", "/dev/none", 1),
            op("SYMLINK", "pts/ptmx", "/dev/ptmx", 0),
        ),
        op("DONE"),
    ]
    machine.run(plan).ok()
    assert os.readlink(rootfs / "dev/core") == "mine"
    assert sorted(os.listdir(rootfs / "dev")) == ["core", "ptmx", "stdin"]


# --- Terminal ---------------------------------------------------------------------------------------------------------


def with_devpts(rootfs: Path, *before: wire.Op) -> list[wire.Op]:
    """A rootfs with its own devpts."""
    devpts = mount_new(
        "/dev/pts", "devpts", params=["newinstance", "ptmxmode=0666", "mode=0620"], attrs=ATTR_NOSUID
    )
    return box(rootfs, mount_new("/dev", "tmpfs", params=["mode=755"]), devpts, *before)


def read_master(running: Running) -> str:
    """What the program writes to its terminal, until it closes it."""
    out = b""
    master = running.fds[0]
    while select.select([master], [], [], PATIENCE)[0]:
        try:
            out += os.read(master, 65536)
        except OSError as error:  # the last slave is closed
            assert error.errno == errno.EIO
            return out.decode()
    raise AssertionError("the terminal stays open")


def test_console(machine: Machine, rootfs: Path) -> None:
    """The master goes to the parent; the slave is stdio, /dev/console and controlling terminal, with size, owner."""
    script = (
        "tty; stat -c '%u %a' /dev/pts/0; stat -c %t:%T /dev/console; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all;"
        "echo ctty > /dev/tty; cat /proc/self/mountinfo"
    )
    plan = [
        *with_devpts(rootfs, device("/dev/tty", CHARACTER | 0o666, 5, 0)),
        op("CONSOLE", 33, 77, 1, 1234, KEEP),
        op("CTTY"),
        *shell(script),
    ]
    with machine.start(plan) as running:
        result = running.serve({"CONSOLE": lambda _: None})
        assert result.error is None
        rows, columns, _, _ = struct.unpack(
            "HHHH", fcntl.ioctl(running.fds[0], termios.TIOCGWINSZ, b"\0" * 8)
        )
        assert (rows, columns) == (33, 77)
        out = read_master(running).replace("\r\n", "\n")
        running.wait().ok()
    lines = out.splitlines()
    assert lines[:5] == ["/dev/pts/0", "1234 620", "88:0", "all", "ctty"]
    assert mounts(out)["/dev/console"].fstype == "devpts"
    assert result.out == "", "nothing may reach the old stdio"


def test_console_of_exec(machine: Machine, rootfs: Path) -> None:
    """Without the bind nothing is mounted; the size is left alone."""
    plan = [*with_devpts(rootfs), op("CONSOLE", 0, 0, 0, KEEP, KEEP), *shell("tty; ls /dev")]
    with machine.start(plan) as running:
        assert running.serve().error is None
        assert read_master(running).split() == ["/dev/pts/0", "pts"]
        running.wait().ok()


def test_console_needs_a_real_devpts(machine: Machine, rootfs: Path) -> None:
    """CVE-2025-52565: what an image has at /dev/pts is not opened."""
    (rootfs / "dev/pts").mkdir()
    os.mknod(rootfs / "dev/pts/ptmx", CHARACTER | 0o666, os.makedev(5, 2))
    error = machine.run([*box(rootfs), op("CONSOLE", 0, 0, 1, 0, KEEP), op("DONE")]).failed()
    assert (error.step, error.text) == ("wrong_fs", "/dev/pts")


def test_console_target_is_no_symlink(machine: Machine, rootfs: Path) -> None:
    """The same for where it is bound."""
    plan = [
        *with_devpts(rootfs, op("SYMLINK", "/etc/passwd", "/dev/console", 0)),
        op("CONSOLE", 0, 0, 1, 0, KEEP),
        op("DONE"),
    ]
    error = machine.run(plan).failed()
    assert (error.step, error.errno, error.text) == ("openat2", errno.ELOOP, "/dev/console")


def test_stdio_owner(machine: Machine, tmp_path: Path) -> None:
    """A pipe becomes the user's; a file that is only read and /dev/null do not."""
    source = tmp_path / "input"
    source.touch()
    before = os.stat("/dev/null").st_uid
    fd = os.open(source, os.O_RDONLY)
    read_end, write_end = os.pipe()
    try:
        with machine.start([op("STDIO_OWNER", 4321), op("DONE")], stdin=fd, unshare=0) as running:
            running.serve()
            assert os.fstat(running.out).st_uid == 4321
            running.wait().ok()
        assert source.stat().st_uid == 0
        machine.run([op("STDIO_OWNER", 4321), op("DONE")], stdin=read_end, unshare=0).ok()
        assert os.fstat(read_end).st_uid == 4321
        machine.run([op("STDIO_OWNER", 4321), op("DONE")], unshare=0).ok()
        assert os.stat("/dev/null").st_uid == before
    finally:
        for one in (fd, read_end, write_end):
            os.close(one)


def test_file_that_is_written_becomes_the_users(machine: Machine, tmp_path: Path) -> None:
    """Output redirected to a file."""
    target = tmp_path / "output"
    fd = os.open(target, os.O_RDWR | os.O_CREAT)
    try:
        machine.run([op("STDIO_OWNER", 4321), op("DONE")], stdin=fd, unshare=0).ok()
        assert target.stat().st_uid == 4321
    finally:
        os.close(fd)


def test_bound_dev_of_the_host(machine: Machine, rootfs: Path) -> None:
    """Devices in a /dev that is the host's are all there already."""
    before = os.stat("/dev/null")
    plan = [
        *in_rootfs(rootfs, mount_bind("/dev", "/dev"), device("/dev/null", CHARACTER | 0o600, 1, 3, 9, 9)),
        op("DONE"),
    ]
    machine.run(plan).ok()
    after = os.stat("/dev/null")
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)
