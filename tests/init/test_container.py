"""A whole simple container, as the runtime plans it."""

from __future__ import annotations

from pathlib import Path

from init.machine import NEWIPC, NEWNET, NEWNS, NEWPID, NEWUTS, Machine, in_rootfs, mount_new, op, shell


def test_simple_container(machine: Machine, rootfs: Path) -> None:
    """proc, tmpfs, devices, host name, loopback: all visible to the program."""
    plan = [
        op("LOOPBACK_UP"),
        *in_rootfs(
            rootfs,
            mount_new("/proc", "proc", attrs=14, flags=1),
            mount_new("/dev", "tmpfs", params=["mode=755", "size=64k"], attrs=2),
            mount_new("/dev/pts", "devpts", params=["newinstance", "ptmxmode=0666", "mode=0620"]),
            op("DEVICE", "/dev/null", 0o020666, 1, 3, 0, 0, 2),
            op("SYMLINK", "/proc/self/fd", "/dev/fd", 1),
            op("SYNC", 5),
        ),
        op("HOSTNAME", "box"),
        op("MASKED_PATH", "/proc/kcore", ""),
        op("MASKED_PATH", "/sys", ""),
        op("READONLY_PATH", "/proc/sys"),
        op("SYNC", 8),
        *shell(
            "cat /proc/sys/kernel/hostname; stat -c %t:%T /dev/null; echo $$; readlink /dev/fd; ls /proc/self/fd"
        ),
    ]
    result = machine.run(plan, unshare=NEWNS | NEWPID | NEWUTS | NEWIPC | NEWNET)
    assert result.ok().split() == ["box", "1:3", "1", "/proc/self/fd", "0", "1", "2", "3"]
    assert result.codes == ["ENV", "READY"]
