"""The fault injector itself: a test that relies on a call failing must know that it does, and that no other does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

import faults

# Numbers and errnos of real calls, made directly: a C library would hide which call it makes.
CALLS = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
def errno_of(number, *args):
    ctypes.set_errno(0)
    libc.syscall(number, *[ctypes.c_uint64(arg) for arg in args])
    return ctypes.get_errno()
print(*eval(sys.argv[1]))
"""

NUMBERS = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64")


@pytest.fixture(scope="module")
def fail_syscall(tmp_path_factory: pytest.TempPathFactory) -> faults.FailSyscall:
    return faults.build(tmp_path_factory.mktemp("faults"))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def errnos(prefix: list[str], calls: str) -> list[int]:
    """The errno of each call of a Python expression that runs behind `prefix`."""
    done = run([*prefix, sys.executable, "-I", "-c", CALLS, calls])
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@NUMBERS
def test_by_name(fail_syscall: faults.FailSyscall) -> None:
    """A named call fails with the named errno, others are untouched."""
    prefix = fail_syscall.prefix("chroot ENOSYS", "umount2 EIO")
    # chroot, umount2, mount, pivot_root of the null pointer.
    answers = errnos(prefix, "[errno_of(number, 0, 0, 0, 0, 0) for number in (161, 166, 165, 155)]")
    assert answers == [errno.ENOSYS, errno.EIO, errno.EFAULT, errno.EFAULT]


@NUMBERS
def test_by_number_and_condition(fail_syscall: faults.FailSyscall) -> None:
    """All 64 bits of the argument are compared, and only that argument."""
    # set_robust_list(2) answers EINVAL to a length that is not that of its list.
    prefix = fail_syscall.prefix("273 42 when 1==0x500000007")
    lengths = "(0x500000007, 7, 0x500000000, 0x500000008)"
    answers = errnos(prefix, f"[errno_of(273, 7, length) for length in {lengths}]")
    assert answers == [42, errno.EINVAL, errno.EINVAL, errno.EINVAL]
    assert errnos(prefix, "[errno_of(273, 0x500000007, 7)]") == [errno.EINVAL]


@NUMBERS
def test_two_conditions(fail_syscall: faults.FailSyscall) -> None:
    """Two rules for one call are tried one after the other."""
    prefix = fail_syscall.prefix("umount2 EBUSY when 1==64", "166 EIO when 0==0")
    assert errnos(prefix, "[errno_of(166, 0, 64), errno_of(166, 0, 0), errno_of(166, 1, 0)]") == [
        errno.EBUSY, errno.EIO, errno.EFAULT,
    ]  # fmt: skip


def test_command_status(fail_syscall: faults.FailSyscall) -> None:
    """The command's own status is passed on."""
    assert run([*fail_syscall.prefix("mount EPERM"), "sh", "-c", "exit 41"]).returncode == 41


def test_no_command(fail_syscall: faults.FailSyscall) -> None:
    """A command that does not exist is told apart."""
    done = run([*fail_syscall.prefix("mount EPERM"), "/no/such/program"])
    assert (done.returncode, done.stderr) == (
        faults.NO_COMMAND,
        "fail_syscall: execve '/no/such/program': No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "incomplete ''"),
        (["mount"], "incomplete 'mount'"),
        (["munt", "EPERM", "--", "true"], "unknown system call 'munt'"),
        (["-1", "EPERM", "--", "true"], "unknown system call '-1'"),
        (["mount", "EPRM", "--", "true"], "unknown errno 'EPRM'"),
        (["mount", "4096", "--", "true"], "unknown errno '4096'"),
        (["mount", "EPERM", "when"], "incomplete 'when'"),
        (["mount", "EPERM", "when", "1=2", "--", "true"], "INDEX==VALUE is wanted, not '1=2'"),
        (["mount", "EPERM", "when", "6==2", "--", "true"], "not an argument's index '6'"),
        (["mount", "EPERM", "when", "5==x", "--", "true"], "not a value 'x'"),
        (["mount", "EPERM", "true"], "incomplete 'true'"),
        (["mount", "EPERM", "--"], "no command after '--'"),
    ],
)
def test_usage(fail_syscall: faults.FailSyscall, words: list[str], problem: str) -> None:
    """A rule that is not understood stops everything: the command must not run without its fault."""
    done = run([fail_syscall.program, *words])
    assert done.returncode == faults.USAGE_ERROR
    assert done.stderr.splitlines()[0] == f"fail_syscall: {problem}"


@pytest.mark.root
def test_unprivileged(fail_syscall: faults.FailSyscall) -> None:
    """It works for ordinary users; root gets no no_new_privs from it, which would change what is tested."""
    command = [*fail_syscall.prefix("mount ENODEV"), "grep", "NoNewPrivs", "/proc/self/status"]
    assert run(command).stdout.split() == ["NoNewPrivs:", "0"]
    done = run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command])
    assert done.stdout.split() == ["NoNewPrivs:", "1"], done.stderr
