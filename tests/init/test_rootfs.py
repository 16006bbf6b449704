"""The root file system: entering it, masking and protecting paths, and images that try to get out of it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from init.machine import (
    ATTR_NODEV,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    NEWNS,
    NEWPID,
    box,
    in_rootfs,
    mount_bind,
    mount_new,
    mounts,
    op,
    shell,
)
from pyrunc.plan import numbers

if TYPE_CHECKING:
    from pathlib import Path

    from init.machine import Machine


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no container may touch."""
    directory = tmp_path / "outside"
    directory.mkdir()
    return directory


def untouched(outside: Path) -> bool:
    """Nothing was made in it."""
    return list(outside.iterdir()) == []


def test_pivot_leaves_nothing_of_the_host(machine: Machine, rootfs: Path) -> None:
    """After pivot_root only the container's mounts are there."""
    made = mounts(machine.run([*box(rootfs), *shell("cat /proc/self/mountinfo")]).ok())
    assert "/" in made
    assert all(point == "/" or point.startswith("/proc") for point in made)


def test_move_hides_proc_and_sys_of_the_host(machine: Machine, rootfs: Path) -> None:
    """Without pivot_root the old mounts stay in the namespace, but no whole proc or sysfs among them."""
    plan = [
        op("ROOTFS", str(rootfs), MS_PRIVATE | MS_REC, 0),
        mount_new("/proc", "proc"),
        op("PIVOT", numbers.PIVOT_MOVE),
        *shell("cat /proc/1/mountinfo; ls -d /bin"),
    ]
    out = machine.run(plan, unshare=NEWNS | NEWPID).ok()
    assert out.endswith("/bin\n")
    whole = [line for line in out.splitlines() if " - proc " in line or " - sysfs " in line]
    assert [line.split()[4] for line in whole if line.split()[3] == "/"] == ["/proc"]


def test_chroot_without_a_mount_namespace(machine: Machine, rootfs: Path) -> None:
    """Third field of ROOTFS: nothing is mounted, the root is changed."""
    plan = [
        op("ROOTFS", str(rootfs), 0, 1),
        op("MKDIR", "/fresh", 0o711),
        op("PIVOT", numbers.PIVOT_CHROOT),
        op("CHDIR", "/fresh", 0),
        *shell("pwd; ls /bin/busybox"),
    ]
    assert machine.run(plan, unshare=0).ok() == "/fresh\n/bin/busybox\n"
    assert stat.S_IMODE((rootfs / "fresh").stat().st_mode) == 0o711


def test_pivot_needs_a_rootfs(machine: Machine) -> None:
    """A plan in the wrong order is refused, not followed."""
    assert machine.run([op("PIVOT", numbers.PIVOT_ROOT), op("DONE")]).failed().step == "plan"


def test_missing_rootfs(machine: Machine, tmp_path: Path) -> None:
    """Its path is in the error."""
    error = machine.run([*in_rootfs(tmp_path / "no"), op("DONE")]).failed()
    assert (error.step, error.errno, error.text) == ("openat", errno.ENOENT, str(tmp_path / "no"))


@pytest.mark.parametrize(("flags", "tag"), [(MS_SHARED, "shared"), (MS_PRIVATE, ""), (MS_SLAVE, "")])
def test_root_propagation(machine: Machine, rootfs: Path, flags: int, tag: str) -> None:
    """rootfsPropagation is that of the container's "/"."""
    plan = [
        *box(rootfs),
        op("ROOT_PROPAGATION", flags | MS_REC),
        *shell("cat /proc/self/mountinfo"),
    ]
    root = mounts(machine.run(plan).ok())["/"]
    assert [item.split(":")[0] for item in root.tags] == ([tag] if tag else [])


def test_masked_paths(machine: Machine, rootfs: Path) -> None:
    """Files read as empty, directories are empty and read-only, what is missing is no error."""
    (rootfs / "etc/secret").write_text("hidden")
    (rootfs / "etc/more").write_text("hidden")
    for name in ("keys", "other"):
        (rootfs / name).mkdir()
        (rootfs / name / "key").write_text("hidden")
    masks = ("/etc/secret", "/etc/more", "/keys", "/other", "/no/such/thing", "/etc/secret/below")
    script = (
        "cat /etc/secret /etc/more; ls -A /keys /other; touch /keys/x 2>&1; echo data > /etc/secret; cat /etc/secret;"
        "stat -c %d /keys /other; cat /proc/self/mountinfo"
    )
    out = machine.run([*box(rootfs), *[op("MASKED_PATH", path, "") for path in masks], *shell(script)]).ok()
    assert "hidden" not in out
    assert "data" not in out
    assert "Read-only file system" in out
    lines = out.split("Read-only file system\n")[1].splitlines()
    assert lines[0] == lines[1], "one superblock for all directories"
    made = mounts(out)
    assert {"ro", "nosuid", "nodev", "noexec"} <= made["/keys"].options
    assert made["/etc/more"].root.endswith("/null")
    assert (rootfs / "etc/secret").read_text() == "hidden"


def test_masks_are_of_the_hosts_null_device(machine: Machine, rootfs: Path) -> None:
    """CVE-2025-31133: a /dev/null that the image has made is never used."""
    (rootfs / "etc/secret").write_text("hidden")
    (rootfs / "dev/null").symlink_to("/etc/passwd")
    plan = [*box(rootfs), op("MASKED_PATH", "/etc/secret", ""), *shell("stat -c %t:%T /etc/secret")]
    assert machine.run(plan).ok() == "1:3\n"


def test_masks_need_a_real_null_device(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """Where the runtime's /dev/null is something else, that is an error and not a mask."""
    (tmp_path / "null").write_text("not a device")
    (rootfs / "etc/secret").write_text("hidden")
    # "/" is the test's own from here on: bind the file over the runtime's /dev/null before ROOTFS looks at it
    plan = [
        mount_bind("/dev/null", str(tmp_path / "null")),
        *box(rootfs),
        op("MASKED_PATH", "/etc/secret", ""),
        op("DONE"),
    ]
    error = machine.run([op("UNSHARE", NEWNS), op("ROOT_PROPAGATION", MS_PRIVATE | MS_REC), *plan]).failed()
    assert (error.step, error.text) == ("open_tree", "/dev/null")


def test_readonly_paths(machine: Machine, rootfs: Path) -> None:
    """Read-only with everything below, other attributes kept, what is missing is no error."""
    (rootfs / "data").mkdir()
    plan = [
        *box(rootfs, mount_new("/data", "tmpfs", attrs=ATTR_NODEV), mount_new("/data/sub", "tmpfs")),
        op("READONLY_PATH", "/data"),
        op("READONLY_PATH", "/etc"),
        op("READONLY_PATH", "/no/such"),
        *shell(
            "touch /data/x /data/sub/x /etc/x 2>/dev/null; ls -A /etc /data/sub; cat /proc/self/mountinfo"
        ),
    ]
    out = machine.run(plan).ok()
    assert {"ro", "nodev"} <= mounts(out)["/data"].options
    assert "ro" in mounts(out)["/data/sub"].options
    assert "x\n" not in out
    assert list((rootfs / "etc").iterdir()) == []


# --- Images that try to get out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["{outside}", "../outside", "../../../../../../../../{outside}"])
def test_target_below_a_symlink_stays_inside(
    machine: Machine, rootfs: Path, outside: Path, link: str
) -> None:
    """Absolute and relative links in the image resolve in the image; what is missing there is made there."""
    (rootfs / "data").symlink_to(link.format(outside=outside))
    plan = [
        *box(
            rootfs,
            mount_new("/data/deep/tmpfs", "tmpfs"),
            mount_bind(
                "/data/deep/file", "/etc/hostname" if os.path.exists("/etc/hostname") else "/etc/passwd"
            ),
            op("MKDIR", "/data/made", 0o755),
            op("DEVICE", "/data/null", 0o020666, 1, 3, 0, 0, 0),
            op("SYMLINK", "target", "/data/link", 0),
        ),
        *shell("readlink /data/link; stat -c %F /data/null; cat /proc/self/mountinfo"),
    ]
    out = machine.run(plan).ok()
    assert out.startswith("target\ncharacter special file\n")
    assert untouched(outside)
    inside = [point for point in mounts(out) if point.endswith("/deep/tmpfs")]
    assert len(inside) == 1


def test_dangling_links_are_made_inside(machine: Machine, rootfs: Path) -> None:
    """/var/run -> /run without /run, and ".." in a link: what it points to is made in the image."""
    (rootfs / "var").mkdir()
    (rootfs / "var/run").symlink_to("/run")
    (rootfs / "var/lock").symlink_to("../run/lock")
    (rootfs / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub.conf")
    plan = [
        *in_rootfs(
            rootfs,
            mount_new("/var/run/a", "tmpfs"),
            mount_new("/var/lock", "tmpfs"),
            mount_bind("/etc/resolv.conf", "/etc/passwd"),
        ),
        op("DONE"),
    ]
    machine.run(plan).ok()
    assert (rootfs / "run/a").is_dir()
    assert (rootfs / "run/lock").is_dir()
    assert (rootfs / "run/systemd/resolve/stub.conf").is_file()


def test_link_loops_end(machine: Machine, rootfs: Path) -> None:
    """Links that lead to each other, and a link that names itself below itself."""
    (rootfs / "a").symlink_to("b")
    (rootfs / "b").symlink_to("a")
    (rootfs / "grow").symlink_to("grow/x")
    for target in ("/a", "/a/below", "/grow"):
        error = machine.run([*in_rootfs(rootfs, mount_new(target, "tmpfs")), op("DONE")]).failed()
        assert (error.errno, error.text) == (errno.ELOOP, target)


def test_dotdot_below_what_is_missing(machine: Machine, rootfs: Path, outside: Path) -> None:
    """Nobody but the kernel resolves "..": where it cannot, nothing is made."""
    error = machine.run([*in_rootfs(rootfs, op("MKDIR", "/no/../../outside/x", 0o755)), op("DONE")]).failed()
    assert error.errno == errno.EINVAL
    assert untouched(outside)


@pytest.mark.parametrize("replacement", ["link to another", "link below", "file"])
def test_proc_must_be_an_ordinary_directory(machine: Machine, rootfs: Path, replacement: str) -> None:
    """CVE-2019-19921, CVE-2023-27561: a /proc that is a symlink would leave a fake one in place."""
    (rootfs / "proc").rmdir()
    target = "/proc"
    if replacement == "file":
        (rootfs / "proc").touch()
    elif replacement == "link below":
        (rootfs / "real/proc").mkdir(parents=True)
        (rootfs / "here").symlink_to("real")
        target = "/here/proc"
    else:
        (rootfs / "fake").mkdir()
        (rootfs / "proc").symlink_to("/fake")
    plan = [*in_rootfs(rootfs, mount_new(target, "proc", flags=numbers.MOUNT_FLAG_ORDINARY_DIR)), op("DONE")]
    error = machine.run(plan).failed()
    assert (error.step, error.text) == ("not_ordinary_dir", target)


def test_missing_proc_is_made(machine: Machine, rootfs: Path) -> None:
    """Ordinary means no symlink, not that it must exist."""
    (rootfs / "proc").rmdir()
    plan = [
        *in_rootfs(rootfs, mount_new("/proc", "proc", flags=numbers.MOUNT_FLAG_ORDINARY_DIR)),
        *shell("ls -d /proc/1"),
    ]
    assert machine.run(plan, unshare=NEWNS | NEWPID).ok() == "/proc/1\n"


def test_magic_links_are_no_way_out(machine: Machine, rootfs: Path) -> None:
    """/proc/self/root, /proc/self/fd/N and the like below a mount target, a mask or a device."""
    for name in ("/proc/self/root/tmp/x", "/proc/self/cwd/x", "/proc/self/fd/0/x"):
        error = machine.run([*box(rootfs, op("MKDIR", name, 0o755)), op("DONE")]).failed()
        assert error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR), name


def test_swapped_component_while_mounting(machine: Machine, rootfs: Path, outside: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: a component that turns into a symlink again and again misleads nobody."""
    (rootfs / "data/real").mkdir(parents=True)
    (rootfs / "data/link").symlink_to(outside)
    swapper = os.fork()
    if swapper == 0:
        try:
            while True:
                os.rename(rootfs / "data/real", rootfs / "data/spare")
                os.rename(rootfs / "data/link", rootfs / "data/real")
                os.rename(rootfs / "data/real", rootfs / "data/link")
                os.rename(rootfs / "data/spare", rootfs / "data/real")
        finally:
            os._exit(1)
    try:
        for index in range(60):
            plan = [
                *in_rootfs(
                    rootfs,
                    mount_new(f"/data/real/{index}/dir", "tmpfs"),
                    mount_bind(f"/data/real/{index}/file", "/etc/passwd"),
                    op("DEVICE", f"/data/real/{index}/null", 0o020666, 1, 3, 0, 0, 0),
                ),
                op("DONE"),
            ]
            result = machine.run(plan)
            assert result.exit_code in (0, 1)
            assert untouched(outside)
    finally:
        os.kill(swapper, 9)
        os.waitpid(swapper, 0)
