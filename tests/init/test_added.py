"""Ops that change the mounts of a running container: what is undone, and when; trees taken hold of; unmounting."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from init.machine import (
    ATTR_NODEV,
    MS_REC,
    MS_SLAVE,
    NEWNS,
    box,
    libc,
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

LIST = "cat /proc/self/mountinfo"
READY = op("SYNC", numbers.SYNC["READY"])


def test_read_only_in_the_end(machine: Machine, rootfs: Path) -> None:
    """Until ADD_END mount points are made in it; the others stay writable."""
    later = numbers.MOUNT_FLAG_RDONLY_LATER
    plan = [
        *box(rootfs),
        op("ADD_BEGIN"),
        mount_new("/a", "tmpfs", flags=later, attrs=ATTR_NODEV),
        mount_new("/a/b", "tmpfs"),
        mount_bind("/a/c", "/bin/busybox"),
        op("ADD_END"),
        *shell(LIST),
    ]
    made = mounts(machine.run(plan).ok())
    assert {"ro", "nodev"} <= made["/a"].options
    assert "rw" in made["/a/b"].options
    assert "/a/c" in made


def stopped(machine: Machine, rootfs: Path, *ops: wire.Op, grant: bool) -> tuple[Running, str]:
    """A plan that adds, at its READY; the mounts that are left once it has ended, by a second look at the namespace."""
    namespace: list[int] = []

    def hold(running: Running) -> None:
        namespace.append(os.open(f"/proc/{running.pid}/ns/mnt", os.O_RDONLY))
        if not grant:
            running.sync.close()

    plan = [*box(rootfs), op("ADD_BEGIN"), *ops, op("ADD_END"), READY, op("DONE")]
    with machine.start(plan) as running:
        message = running.receive()
        assert message is not None and message.code == numbers.SYNC["READY"]
        hold(running)
        if grant:
            running.go()
            assert running.receive() is None
        assert running.wait().exit_code == (0 if grant else 1)
    look_in = [op("SETNS", namespace[0], NEWNS), *shell(LIST)]
    try:
        return running, machine.run(look_in, keep=namespace).ok()
    finally:
        os.close(namespace[0])


def test_what_is_granted_stays(machine: Machine, rootfs: Path) -> None:
    _, out = stopped(
        machine, rootfs, mount_new("/a/b", "tmpfs"), mount_bind("/f", "/bin/busybox"), grant=True
    )
    assert {"/a/b", "/f"} <= set(mounts(out))


def test_without_a_parent_nothing_stays(machine: Machine, rootfs: Path) -> None:
    """Directories, files, mounts in mounts: all gone, with what was made for them; what was there is as it was."""
    (rootfs / "etc/kept").write_text("kept")
    _, out = stopped(
        machine,
        rootfs,
        mount_new("/a/b", "tmpfs"),
        mount_new("/a/b/c", "tmpfs"),
        mount_bind("/made/file", "/bin/busybox"),
        mount_bind("/etc/kept", "/bin/busybox"),
        grant=False,
    )
    assert set(mounts(out)) <= {"/", "/proc", *(point for point in mounts(out) if point.startswith("/proc"))}
    assert not (rootfs / "a").exists()
    assert not (rootfs / "made").exists()
    assert (rootfs / "etc/kept").read_text() == "kept"


def test_a_failure_undoes_before_it_is_reported(machine: Machine, rootfs: Path) -> None:
    """So that whoever hears of it may end init at once."""
    plan = [
        *box(rootfs),
        op("ADD_BEGIN"),
        mount_new("/a/b", "tmpfs"),
        mount_bind("/c", "/no/such"),
        op("ADD_END"),
        op("DONE"),
    ]
    error = machine.run(plan).failed()
    assert (error.op, error.step, error.errno) == (5, "open_tree", errno.ENOENT)
    assert not (rootfs / "a").exists()


def test_too_many(machine: Machine, rootfs: Path) -> None:
    """The list of what is undone has an end, and what does not fit on it is not made."""
    plan = [*box(rootfs), op("ADD_BEGIN"), *(mount_new(f"/m{n}", "tmpfs") for n in range(300)), op("DONE")]
    error = machine.run(plan).failed()
    assert error.errno == errno.E2BIG
    assert not list(rootfs.glob("m*"))


def test_trees_in_any_order(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """Taken hold of before another mount namespace is entered; each serves once."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    kept = numbers.MOUNT_FLAG_KEPT_TREE
    trees = [op("TREE", str(tmp_path / name), 0) for name in ("one", "two")]
    plan = [
        *trees,
        *box(
            rootfs,
            mount_bind("/a", "two", flags=kept | 1 << numbers.MOUNT_FLAG_KEPT_SHIFT),
            mount_bind("/b", "one", flags=kept),
        ),
        *shell("cat /a/x /b/x"),
    ]
    assert machine.run(plan).ok() == "twoone"
    for number in (1, 2, 0xFFFF):
        again = mount_bind("/c", "", flags=kept | number << numbers.MOUNT_FLAG_KEPT_SHIFT)
        error = machine.run([*plan[:-2], again, *plan[-2:]]).failed()
        assert (error.step, error.text) == ("plan", "a MOUNT_BIND without its TREE")
    error = machine.run([op("TREE", "/no/such", 0), *plan]).failed()
    assert (error.step, error.errno, error.text) == ("open_tree", errno.ENOENT, "/no/such")


def test_unmount(machine: Machine, rootfs: Path) -> None:
    """Exactly the topmost mount at the path: a directory, a file, a mounted link; looking alone changes nothing."""
    (rootfs / "link").symlink_to("a")
    plan = [
        *box(
            rootfs,
            mount_new("/a", "tmpfs", params=["size=64k"]),
            mount_new("/a", "tmpfs", params=["size=128k"]),
            mount_new("/a/sub", "tmpfs"),
            mount_bind("/file", "/bin/busybox"),
            mount_bind("/etc", str(rootfs / "bin")),
        ),
        op("UMOUNT", "/etc", [], 1),
        op("UMOUNT", "/link", ["/proc"], 0),
        op("UMOUNT", "/file", ["/nowhere", "/bin"], 0),
        *shell(LIST),
    ]
    made = mounts(machine.run(plan).ok())
    assert "size=64k" in made["/a"].super_options
    assert "/etc" in made
    assert not {"/file", "/a/sub"} & set(made)


def test_unmount_refuses(machine: Machine, rootfs: Path) -> None:
    """What is no mount point, and what must stay, also by another name."""
    (rootfs / "link").symlink_to("/a")
    before = box(rootfs, mount_new("/a", "tmpfs"))
    for path, stay, step in (
        ("/etc", [], "not_a_mount"),
        ("/no/such", [], "not_a_mount"),
        ("/bin/busybox/x", [], "not_a_mount"),
        ("/a", ["/", "/a"], "protected"),
        ("/link", ["/a"], "protected"),
        ("/", ["/"], "protected"),
        ("/..", ["/"], "protected"),
        ("", ["/"], "protected"),
    ):
        error = machine.run([*before, op("UMOUNT", path, stay, 0), op("DONE")]).failed()
        assert (error.step, error.errno) == (step, 0), path


def test_copy_symlink(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """A link is made with the same text; the very same may be there; another thing is an error; no link is bound."""
    (tmp_path / "link").symlink_to("text of it")
    (tmp_path / "dir").mkdir()
    flag = numbers.MOUNT_FLAG_COPY_SYMLINK
    plan = [
        *box(
            rootfs,
            mount_bind("/new/link", str(tmp_path / "link"), flags=flag),
            mount_bind("/new/link", str(tmp_path / "link"), flags=flag),
            mount_bind("/dir", str(tmp_path / "dir"), flags=flag),
        ),
        *shell(f"readlink /new/link; {LIST}"),
    ]
    out = machine.run(plan).ok()
    assert out.splitlines()[0] == "text of it"
    assert "/dir" in mounts(out)
    (rootfs / "other").symlink_to("text of i")
    (rootfs / "file").touch()
    for name in ("/other", "/file", "/bin"):
        error = machine.run(
            [*box(rootfs, mount_bind(name, str(tmp_path / "link"), flags=flag)), op("DONE")]
        ).failed()
        assert (error.step, error.text) == ("link_exists", name)


def test_a_mode_and_a_copy_for_a_given_tree(machine: Machine, rootfs: Path) -> None:
    """A tmpfs that the runtime has made is filled and gets the mode of what it covers, as one that init makes."""
    (rootfs / "etc").chmod(0o2751)
    (rootfs / "etc/file").write_text("copied")
    fs = libc.syscall(430, b"tmpfs", 1)
    assert fs >= 0 and libc.syscall(431, fs, 6, None, None, 0) == 0
    tree = libc.syscall(432, fs, 1, 0)
    os.close(fs)
    flags = numbers.MOUNT_FLAG_COPY_UP | numbers.MOUNT_FLAG_TARGET_MODE
    try:
        plan = [
            *box(rootfs, mount_bind("/etc", "", tree=tree, flags=flags)),
            *shell("stat -c %a /etc; cat /etc/file"),
        ]
        assert machine.run(plan, keep=[tree]).ok() == "2751\ncopied"
    finally:
        os.close(tree)


def test_slave_of_a_copy(machine: Machine, rootfs: Path) -> None:
    """As a runtime without privileges does it: a copy of its namespace, made slave, is where trees come from."""
    plan = [
        op("UNSHARE", NEWNS),
        op("ROOT_PROPAGATION", MS_SLAVE | MS_REC),
        op("TREE", "/usr", 0),
        *box(rootfs, mount_bind("/u", "", flags=numbers.MOUNT_FLAG_KEPT_TREE)),
        *shell(LIST),
    ]
    assert "/u" in mounts(machine.run(plan).ok())
