"""System calls that fail: each is reported as the step that failed, with errno and argument, and init ends with 1.

Where another way exists, it is taken.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

import faults
from init.machine import (
    MS_PRIVATE,
    MS_REC,
    NEWIPC,
    NEWNS,
    NEWPID,
    NEWUTS,
    box,
    in_rootfs,
    map_root,
    mount_bind,
    mount_new,
    op,
    shell,
)
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from pathlib import Path

    from init.machine import Machine

SIGPENDING = 11


@pytest.fixture(scope="module")
def fail_syscall(tmp_path_factory: pytest.TempPathFactory) -> faults.FailSyscall:
    return faults.build(tmp_path_factory.mktemp("faults"))


def busy_plan(rootfs: Path) -> list[wire.Op]:
    """Something of everything, in the order of a container."""
    return [
        op("RLIMIT", SIGPENDING, 10, 10),
        op("DUMPABLE", 0),
        op("KEYRING", "_ses.test"),
        op("ROOTFS", str(rootfs), MS_PRIVATE | MS_REC, 0),
        mount_new("/proc", "proc", flags=numbers.MOUNT_FLAG_ORDINARY_DIR),
        mount_new("/tmp/made", "tmpfs", params=["size=64k"], flags=numbers.MOUNT_FLAG_COPY_UP),
        mount_bind("/tmp/file", "/etc/passwd", attrs=(1, 0, 0, 0), steps=[MS_PRIVATE]),
        op("REMOUNT", "/tmp/made", 1, 0, 0, ["size=128k"], []),
        op("DEVICE", "/dev/null", stat.S_IFCHR | 0o666, 1, 3, 0, 0, 0),
        op("SYMLINK", "a", "/dev/link", 0),
        op("SYNC", numbers.SYNC["ENV"]),
        op("PIVOT", numbers.PIVOT_ROOT),
        op("HOSTNAME", "h"),
        op("DOMAINNAME", "d"),
        op("SYSCTL", "kernel/msgmax", "1234"),
        op("READONLY_PATH", "/etc"),
        op("MASKED_PATH", "/bin", ""),
        op("MASKED_PATH", "/etc/group", ""),
        op("PERSONALITY", 0),
        op("SETSID"),
        op("CAPS_BOUNDING", 1),
        op("USER", 1000, 1000, [5], 1),
        op("CAPSET", 0, 0, 0, 0),
        op("CHDIR", "/", 0),
        op("DONE"),
    ]


CALLS = {
    "close_range": {"close_range"},
    "prctl": {"prctl"},
    # of this resource only: a sanitizer asks for others before main
    f"prlimit64 EIO when 1=={SIGPENDING}": {"setrlimit"},
    "openat2": {"openat2"},
    "open_tree": {"open_tree"},
    "move_mount": {"move_mount"},
    "mount": {"mount"},
    "fsopen": {"fsopen"},
    "fsconfig": {"fsconfig"},
    "fsmount": {"fsmount"},
    "mount_setattr": {"mount_setattr"},
    "fspick": {"fspick"},
    "mkdirat": {"mkdirat"},
    "mknodat": {"openat", "mknodat"},
    "symlinkat": {"symlinkat"},
    "fchownat": {"fchownat", "copy_up"},
    "fchdir": {"chdir"},
    "pidfd_open": {"setns"},
    "setns": {"setns"},
    "pivot_root": {"pivot_root"},
    "umount2": {"umount2"},
    "sethostname": {"sethostname"},
    "setdomainname": {"setdomainname"},
    "setgroups": {"setgroups"},
    "setgid": {"setgid"},
    "setuid": {"setuid"},
    "capset": {"capset"},
    "personality": {"personality"},
    "setsid": {"setsid"},
    "getcwd": {"getcwd"},
    "fstatfs": {"wrong_fs"},
    "statx": {"fstat"},
    # the four bytes of the sysctl only: a report is written as well
    "write EIO when 2==4": {"write"},
    "getdents64": {"copy_up"},
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_every_call_is_reported(
    machine: Machine, rootfs: Path, fail_syscall: faults.FailSyscall, call: str
) -> None:
    """EIO from a call becomes an error of that step, whichever op was at it."""
    for name in ("passwd", "group"):
        (rootfs / "etc" / name).touch()
    (rootfs / "tmp/made").mkdir()
    plan = busy_plan(rootfs)
    namespaces = NEWNS | NEWUTS | NEWIPC | NEWPID
    machine.run(plan, unshare=namespaces).ok()
    (rootfs / "dev/null").unlink()
    (rootfs / "dev/link").unlink()
    (rootfs / "tmp/file").unlink()
    (rootfs / "tmp/made").rmdir()
    if call == "getdents64":
        (rootfs / "tmp/made").mkdir()
    wrapper = fail_syscall.prefix(call if " " in call else f"{call} EIO")
    error = machine.run(plan, unshare=namespaces, wrapper=wrapper).failed()
    assert error.step in CALLS[call], f"{error.step} '{error.text}'"
    assert error.errno in (errno.EIO, 0 if call == "fstatfs" else errno.EIO)


def test_no_procfs_of_our_own(machine: Machine, rootfs: Path, fail_syscall: faults.FailSyscall) -> None:
    """A nested container that may not mount proc: values are written through the runtime's."""
    plan = [op("SYSCTL", "kernel/msgmax", "4321"), *box(rootfs), *shell("cat /proc/sys/kernel/msgmax")]
    result = machine.run(plan, unshare=NEWNS | NEWIPC, wrapper=fail_syscall.prefix("fsopen EPERM"))
    assert result.ok() == "4321\n"


def test_keyrings_may_be_forbidden(machine: Machine, fail_syscall: faults.FailSyscall) -> None:
    """By an outer runtime's filter, a quota, or a kernel without them."""
    for name in ("ENOSYS", "EPERM", "EACCES", "EDQUOT"):
        machine.run([op("KEYRING", "x"), op("DONE")], wrapper=fail_syscall.prefix(f"keyctl {name}")).ok()
    error = machine.run([op("KEYRING", "x"), op("DONE")], wrapper=fail_syscall.prefix("keyctl EIO")).failed()
    assert (error.step, error.errno) == ("keyctl", errno.EIO)


def test_mknod_forbidden(machine: Machine, rootfs: Path, fail_syscall: faults.FailSyscall) -> None:
    """Bound from the host; when that is not possible either, the reason is mknod's."""
    # only for character devices: the bind needs an empty file
    mode = stat.S_IFCHR | 0o666
    wrapper = fail_syscall.prefix(f"mknodat EPERM when 2=={mode}")
    null = op("DEVICE", "/dev/null", mode, 1, 3, 0, 0, 0)
    result = machine.run([*in_rootfs(rootfs, null), *shell("stat -c %t:%T /dev/null")], wrapper=wrapper)
    assert result.ok() == "1:3\n"
    other = op("DEVICE", "/dev/nothing-here", mode, 1, 3, 0, 0, 0)
    error = machine.run([*in_rootfs(rootfs, other), op("DONE")], wrapper=wrapper).failed()
    assert (error.step, error.errno) == ("mknodat", errno.EPERM)


def test_kernel_without_fchmodat2(machine: Machine, rootfs: Path, fail_syscall: faults.FailSyscall) -> None:
    """Before 6.6 the mode of a node is set through /proc/self/fd."""
    node = op("DEVICE", "/dev/disk", stat.S_IFBLK | 0o4640, 8, 0, 1, 2, 0)
    machine.run([*in_rootfs(rootfs, node), op("DONE")], wrapper=fail_syscall.prefix("452 ENOSYS")).ok()
    assert os.lstat(rootfs / "dev/disk").st_mode == stat.S_IFBLK | 0o4640


def test_optional_mounts(machine: Machine, rootfs: Path, fail_syscall: faults.FailSyscall) -> None:
    """What a fallback can make good, and what it cannot."""
    first = mount_new("/tmp", "tmpfs", flags=numbers.MOUNT_FLAG_OPTIONAL | numbers.MOUNT_FLAG_DONE_SKIP)
    plan = [*box(rootfs, first, op("MKDIR", "/fallback", 0o755)), op("DONE")]
    for name in ("EPERM", "EINVAL", "EBUSY", "ENODEV"):
        machine.run(plan, wrapper=fail_syscall.prefix(f"fsmount {name}")).ok()
        (rootfs / "fallback").rmdir()
    assert machine.run(plan, wrapper=fail_syscall.prefix("fsmount EIO")).failed().step == "fsmount"
    assert not (rootfs / "fallback").exists()


def test_namespace_calls(machine: Machine, fail_syscall: faults.FailSyscall) -> None:
    """unshare, clone and a socket that the kernel does not give."""
    cases = [
        ("unshare ENOSPC", op("UNSHARE", NEWUTS), "unshare", errno.ENOSPC),
        ("clone EAGAIN", op("FORK", -1, -1), "clone", errno.EAGAIN),
        ("socket EPERM", op("LOOPBACK_UP"), "socket", errno.EPERM),
        ("ioctl EPERM", op("LOOPBACK_UP"), "ioctl", errno.EPERM),
        ("sched_setaffinity EINVAL", op("AFFINITY", b"\1"), "sched_setaffinity", errno.EINVAL),
        ("seccomp EACCES", op("SECCOMP", b"", 0, 0, 0), "seccomp", errno.EACCES),
    ]
    for rule, one, step, number in cases:
        error = machine.run([one, op("DONE")], unshare=0, wrapper=fail_syscall.prefix(rule)).failed()
        assert (error.step, error.errno) == (step, number), rule


def test_unmapped_owner_is_kept(machine: Machine, rootfs: Path) -> None:
    """tmpcopyup in a user namespace: ids that it does not map are left out, the content is there."""
    (rootfs / "etc/theirs").write_text("content")
    os.chown(rootfs / "etc/theirs", 55555, 55555)
    plan = [
        *in_rootfs(rootfs, mount_new("/etc", "tmpfs", flags=numbers.MOUNT_FLAG_COPY_UP)),
        *shell("cat /etc/theirs; stat -c ' %u' /etc/theirs"),
    ]
    assert machine.run(plan, unshare=NEWNS | 0x10000000, outside=map_root).ok() == "content 0\n"


def test_parent_that_dies(machine: Machine, rootfs: Path) -> None:
    """init does not outlive a runtime that was killed."""
    with machine.start([*in_rootfs(rootfs), op("SYNC", numbers.SYNC["ENV"]), op("DONE")]) as running:
        assert running.receive() is not None
        running.sync.close()
        assert running.wait().exit_code == 1
