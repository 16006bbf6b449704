"""Mounts: attributes, parameters, targets that are made, fallbacks, and what the kernel says when it refuses."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from init.machine import (
    ATTR_NOATIME,
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    box,
    describe,
    host_mounts,
    in_rootfs,
    libc,
    mount_bind,
    mount_new,
    mounts,
    op,
    open_tree,
    shell,
)
from pyrunc.errors import KernelError
from pyrunc.kernel import mounts as kernel_mounts
from pyrunc.plan import numbers

if TYPE_CHECKING:
    from pathlib import Path

    from init.machine import Machine

LIST = shell("cat /proc/self/mountinfo")


def test_new_file_system_has_its_attributes_and_parameters(machine: Machine, rootfs: Path) -> None:
    """Attributes are of the mount, parameters of the file system; missing directories are made with mode 0755."""
    attrs = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOATIME | ATTR_RDONLY
    plan = [*box(rootfs, mount_new("/a/b/c", "tmpfs", params=["size=128k", "mode=700"], attrs=attrs)), *LIST]
    made = mounts(machine.run(plan).ok())["/a/b/c"]
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= made.options
    assert {"size=128k", "mode=700"} <= made.super_options
    assert stat.S_IMODE((rootfs / "a/b").stat().st_mode) == 0o755


def test_flag_parameters(machine: Machine, rootfs: Path) -> None:
    """A parameter without "=" is a flag of the superblock."""
    made = mounts(machine.run([*box(rootfs, mount_new("/tmp", "tmpfs", params=["sync"])), *LIST]).ok())[
        "/tmp"
    ]
    assert "sync" in made.super_options


def test_bad_parameter_in_the_kernels_words(machine: Machine, rootfs: Path) -> None:
    """What the file system logs is what the user reads."""
    error = machine.run([*box(rootfs, mount_new("/tmp", "tmpfs", params=["nonsense=1"])), *LIST]).failed()
    assert (error.step, error.errno) == ("fsconfig", errno.EINVAL)
    assert error.flags == numbers.SYNC_FLAG_KERNEL_TEXT
    assert "nonsense" in error.text
    assert error.op == 2


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [
        ("tmpfs", "nonsense=1"),
        ("tmpfs", "size=x"),
        ("tmpfs", "nonsense"),
        ("overlay", "lowerdir=/nonexistent"),
        ("nosuchfs", "x"),
    ],
)
def test_runtime_and_init_hear_the_same(machine: Machine, rootfs: Path, kind: str, parameter: str) -> None:
    """Whichever of the two makes a file system, the call, the error number and the kernel's own words are the same."""
    plan = [*box(rootfs, mount_new("/tmp", kind, params=[parameter])), *LIST]
    error = machine.run(plan).failed()
    with pytest.raises(KernelError) as caught:
        kernel_mounts.filesystem(kind, "", [parameter])
    assert (caught.value.syscall, caught.value.errno, caught.value.arg) == (
        error.step,
        error.errno,
        error.text,
    )


def test_unknown_file_system(machine: Machine, rootfs: Path) -> None:
    """ENODEV names the type."""
    error = machine.run([*box(rootfs, mount_new("/tmp", "nosuchfs")), *LIST]).failed()
    assert (error.step, error.errno, error.text) == ("fsopen", errno.ENODEV, "nosuchfs")


def test_tmpfs_takes_the_mode_of_its_directory(machine: Machine, rootfs: Path) -> None:
    """With TARGET_MODE, sticky bit included; a directory that is made for it does not count."""
    (rootfs / "tmp").chmod(0o1750)
    flag = numbers.MOUNT_FLAG_TARGET_MODE
    plan = [
        *in_rootfs(rootfs, mount_new("/tmp", "tmpfs", flags=flag), mount_new("/new", "tmpfs", flags=flag)),
        *shell("stat -c %a /tmp /new"),
    ]
    assert machine.run(plan).ok().split() == ["1750", "1777"]


def test_parameters_too_long_for_fsconfig(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """A long overlay lowerdir goes through mount(2), attributes and propagation as asked."""
    names = [tmp_path / (letter * 120) for letter in "abc"]
    for name in (*names, tmp_path / "upper", tmp_path / "work"):
        name.mkdir()
    (names[2] / "deep").write_text("found")
    # overlay on overlay may be refused by the kernel; on a tmpfs it is not
    params = ["lowerdir=" + ":".join(map(str, names))]
    assert len(params[0]) > 256
    over = mount_new("/tmp", "overlay", params=params, attrs=ATTR_NODEV | ATTR_RDONLY, steps=[MS_SHARED])
    out = machine.run([*box(rootfs, over), *shell("cat /tmp/deep; echo; cat /proc/self/mountinfo")]).ok()
    assert out.startswith("found\n")
    assert {"ro", "nodev"} <= mounts(out)["/tmp"].options
    assert any(tag.startswith("shared:") for tag in mounts(out)["/tmp"].tags)


def test_propagation_steps(machine: Machine, rootfs: Path) -> None:
    """Each step in order: shared, then slave of nobody is private."""
    plan = [
        *box(
            rootfs,
            mount_new("/tmp", "tmpfs", steps=[MS_SHARED]),
            mount_new("/root", "tmpfs", steps=[MS_SHARED, MS_SLAVE, MS_PRIVATE]),
        ),
        *LIST,
    ]
    made = mounts(machine.run(plan).ok())
    assert [tag.split(":")[0] for tag in made["/tmp"].tags] == ["shared"]
    assert made["/root"].tags == []


def test_copy_up(machine: Machine, rootfs: Path) -> None:
    """tmpcopyup: files, modes, owners, links, times and depth; the image stays as it is, and "ro" comes last."""
    tree = rootfs / "etc"
    deep = tree / "/".join(["d"] * 30)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x" * 3_000_000)
    (tree / "secret").write_text("s")
    (tree / "secret").chmod(0o4640)
    os.chown(tree / "secret", 123, 456)
    os.chmod(tree / "secret", 0o4640)
    os.utime(tree / "secret", (1_000_000_000, 1_000_000_000))
    (tree / "link").symlink_to("/no/where")
    for index in range(300):
        (tree / f"many-{index:03}").touch()
    os.mkfifo(tree / "fifo")
    tree.chmod(0o710)
    flags = numbers.MOUNT_FLAG_COPY_UP | numbers.MOUNT_FLAG_TARGET_MODE
    over = mount_new("/etc", "tmpfs", params=["ro"], attrs=ATTR_RDONLY, flags=flags)
    script = (
        "cd /etc; stat -c '%a %u %g %Y' secret; stat -c %a .; readlink link; ls many-* | grep -c many;"
        f"stat -c %s {'d/' * 30}file; stat -c %F fifo; touch new 2>&1"
    )
    result = machine.run([*in_rootfs(rootfs, over), *shell(script)])
    lines = result.out.splitlines()
    assert lines[:6] == ["4640 123 456 1000000000", "710", "/no/where", "300", "3000000", "fifo"]
    assert "Read-only" in lines[6]
    assert not (tree / "new").exists()


def test_bind_directory_and_file(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """The target becomes what the source is."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/x").write_text("in dir")
    (tmp_path / "file").write_text("in file")
    plan = [
        *in_rootfs(
            rootfs,
            mount_bind("/made/dir", str(tmp_path / "dir")),
            mount_bind("/made/too/file", str(tmp_path / "file")),
        ),
        *shell("cat /made/dir/x /made/too/file"),
    ]
    assert machine.run(plan).ok() == "in dirin file"
    assert (rootfs / "made/too/file").read_text() == ""


def test_bind_attributes(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """Top: set and clear; recursive ones reach submounts, others do not; access time modes replace each other."""
    (tmp_path / "src/sub").mkdir(parents=True)
    recursive = numbers.MOUNT_FLAG_RECURSIVE
    plan = [
        *box(
            rootfs,
            mount_new("/tmp", "tmpfs", attrs=ATTR_NODEV | ATTR_NOATIME),
            mount_bind("/one", str(tmp_path / "src"), attrs=(ATTR_RDONLY | ATTR_NOSUID, 0, 0, 0)),
            mount_new("/one/sub", "tmpfs"),
            mount_bind("/two", str(rootfs / "one"), flags=recursive, attrs=(ATTR_RDONLY, 0, ATTR_NOEXEC, 0)),
            mount_bind("/three", str(rootfs / "tmp"), attrs=(0, ATTR_NODEV | ATTR_NOATIME, 0, 0)),
        ),
        *LIST,
    ]
    made = mounts(machine.run(plan).ok())
    assert {"ro", "nosuid"} <= made["/one"].options
    assert {"ro", "nosuid", "noexec"} <= made["/two"].options
    assert "noexec" in made["/two/sub"].options
    assert "ro" not in made["/two/sub"].options
    assert {"relatime"} <= made["/three"].options
    assert not {"nodev", "noatime"} & made["/three"].options


def test_bind_source_missing(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """open_tree with the source, and no target is left behind."""
    error = machine.run([*in_rootfs(rootfs, mount_bind("/made", str(tmp_path / "no"))), *LIST]).failed()
    assert (error.step, error.errno, error.text) == ("open_tree", errno.ENOENT, str(tmp_path / "no"))
    assert not (rootfs / "made").exists()


def test_bind_of_a_symlink_itself(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """SOURCE_NOFOLLOW mounts the link, TARGET_NOFOLLOW mounts over one."""
    (tmp_path / "link").symlink_to("outside")
    (rootfs / "there").symlink_to("elsewhere")
    both = numbers.MOUNT_FLAG_SOURCE_NOFOLLOW | numbers.MOUNT_FLAG_TARGET_NOFOLLOW
    plan = [
        *in_rootfs(rootfs, mount_bind("/there", str(tmp_path / "link"), flags=both)),
        *shell("readlink /there"),
    ]
    assert machine.run(plan).ok() == "outside\n"
    assert not (rootfs / "elsewhere").exists()


def test_bind_by_tree(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """A tree that the runtime opened, for instance with an id mapping, is attached as it is."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x").write_text("by tree")
    tree = open_tree(tmp_path / "src")
    try:
        plan = [*in_rootfs(rootfs, mount_bind("/tmp", "", tree=tree)), *shell("cat /tmp/x")]
        assert machine.run(plan, keep=[tree]).ok() == "by tree"
    finally:
        os.close(tree)


def test_mount_on_the_root(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """What is mounted on "/" is the root from then on, for later mounts and for the program."""
    over = tmp_path / "over"
    over.mkdir()
    (rootfs / "bin").rename(tmp_path / "programs")
    plan = [
        *in_rootfs(
            rootfs,
            mount_bind("/", str(over)),
            mount_bind("/bin", str(tmp_path / "programs")),
            op("MKDIR", "/here", 0o700),
        ),
        *shell("ls /; stat -c %a /here"),
    ]
    result = machine.run(plan)
    assert result.error is None, describe(result.error)
    assert result.out.split() == ["bin", "here", "700"]
    assert (over / "here").is_dir()
    assert not (rootfs / "here").exists()


def test_optional_and_its_fallback(machine: Machine, rootfs: Path) -> None:
    """OPTIONAL lets the next op be the fallback, DONE_SKIP leaves it out after success, other errors still count."""
    optional = numbers.MOUNT_FLAG_OPTIONAL | numbers.MOUNT_FLAG_DONE_SKIP
    refused = mount_new("/tmp", "tmpfs", params=["nonsense"], flags=optional)
    fallback = mount_new("/tmp", "tmpfs", params=["size=64k"])
    made = mounts(machine.run([*box(rootfs, refused, fallback), *LIST]).ok())
    assert "size=64k" in made["/tmp"].super_options
    granted = mount_new("/tmp", "tmpfs", params=["size=128k"], flags=optional)
    made = mounts(machine.run([*box(rootfs, granted, fallback), *LIST]).ok())
    assert "size=128k" in made["/tmp"].super_options
    missing = mount_bind("/tmp", "/no/such/source", flags=optional)
    assert machine.run([*box(rootfs, missing, fallback), *LIST]).failed().errno == errno.ENOENT


def test_remount(machine: Machine, rootfs: Path) -> None:
    """Mount attributes, superblock parameters and propagation of something mounted before."""
    plan = [
        *box(
            rootfs,
            mount_new("/tmp", "tmpfs", params=["size=64k"], attrs=ATTR_NODEV),
            op("REMOUNT", "/tmp", ATTR_RDONLY | ATTR_NOEXEC, ATTR_NODEV, 0, ["size=128k"], [MS_SHARED]),
        ),
        op("REMOUNT", "/", ATTR_RDONLY, 0, 0, [], []),
        *LIST,
    ]
    made = mounts(machine.run(plan).ok())
    assert {"ro", "noexec"} <= made["/tmp"].options
    assert "nodev" not in made["/tmp"].options
    assert "size=128k" in made["/tmp"].super_options
    assert made["/tmp"].tags
    assert "ro" in made["/"].options


def test_remount_of_no_mount(machine: Machine, rootfs: Path) -> None:
    """A directory that is no mount point is an error with its path."""
    error = machine.run([*box(rootfs, op("REMOUNT", "/tmp", ATTR_RDONLY, 0, 0, [], [])), *LIST]).failed()
    assert (error.step, error.errno, error.text) == ("mount_setattr", errno.EINVAL, "/tmp")


def share_all() -> None:
    """mount --make-rshared /, as on a host that systemd has started."""
    libc.mount(None, b"/", None, MS_SHARED | MS_REC, None)


def test_nothing_reaches_the_host(machine: Machine, rootfs: Path) -> None:
    """Not even when the host's "/" is shared and the container wants its mounts shared."""
    before = set(host_mounts())
    for propagation in (MS_SLAVE | MS_REC, MS_SHARED | MS_REC, MS_PRIVATE, 0):
        plan = [
            *in_rootfs(
                rootfs,
                mount_bind("/proc", "/proc"),
                mount_new("/tmp", "tmpfs"),
                propagation=propagation,
            ),
            *LIST,
        ]
        assert "/tmp" in mounts(machine.run(plan, prepare=share_all).ok())
    assert set(host_mounts()) == before
