"""./dev vm: a command in the guest, its status and output, and each way in which a guest can fail its caller."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import image
import job
import support

if TYPE_CHECKING:
    import pathlib

pytestmark = pytest.mark.root
VM = [support.PYTHON, os.path.join(job.PROJECT, "vm/job.py")]


def vm(*words: str, timeout: float = 300) -> support.Result:
    """Run a command in the guest."""
    return support.run(*VM, *words, timeout=timeout)


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    """Built before the deadlines of single tests count."""
    subprocess.run(VM, check=True, timeout=2000)


def test_status_and_output() -> None:
    """Those of the command, which one word gives to bash and several as they are."""
    result = vm('echo "$PYRUNC_VM in $PWD"; echo problem >&2; exit 7')
    assert (result.status, result.out, result.err) == (
        7,
        f"apparmor in {job.PROJECT}\n",
        "problem\n",
    )
    assert vm("printf", "%s|", "a b", "$HOME").ok().out == "a b|$HOME|"
    assert vm("kill -9 $$").status == 137


def test_the_machine() -> None:
    """What it is there for, and the checkout's installation."""
    out = vm("systemctl is-system-running; stat -f -c %T /sys/fs/cgroup; command -v pyrunc").ok().out
    assert out.splitlines() == ["running", "cgroup2fs", support.PYRUNC]
    assert vm("--snapshot", "selinux", "getenforce").ok().out == "Permissive\n"


def test_an_ordinary_user() -> None:
    """In a cgroup that its own manager delegates."""
    script = "id -un; stat -c %U /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)"
    assert vm("--user", "tester", script).ok().out == "tester\ntester\n"


def test_what_is_kept(tmp_path: pathlib.Path) -> None:
    """Results in /out; what the guest does to the checkout does not reach the host's."""
    script = "touch README.md.changed /out/kept; ls -d README.md*"
    assert vm("--out", str(tmp_path), script).ok().out == "README.md\nREADME.md.changed\n"
    assert os.listdir(tmp_path) == ["kept"]
    assert not os.path.exists(os.path.join(job.PROJECT, "README.md.changed"))
    assert not os.listdir(job.RUNS)


def test_no_end() -> None:
    """A command, or a guest, that goes on and on: status 124 in time, and the words for it."""
    began = time.monotonic()
    vm("--timeout", "15", "echo started; sleep 1000").fails("vm: no end within 15 s", status=124)
    assert time.monotonic() - began < 60


def test_a_guest_that_dies() -> None:
    """By a panic: status 125 at once, and what the kernel had to say."""
    result = vm("echo c >/proc/sysrq-trigger").fails("vm: ", "console: ", "Kernel panic", status=125)
    assert result.out == ""


def test_a_caller_that_dies() -> None:
    """QEMU goes with it, by whatever it was killed; the next run clears away its files."""
    with subprocess.Popen([*VM, "echo started; sleep 1000"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        (place,) = (entry.path for entry in os.scandir(job.RUNS))
        process.send_signal(signal.SIGKILL)
    support.wait_until(
        lambda: support.run("pgrep", "-f", f"{place}/agent").status == 1, "the end of QEMU", timeout=30
    )
    assert os.path.exists(place)
    vm("true").ok()
    assert not os.path.exists(place)


def test_a_snapshot_that_is_not_there() -> None:
    """An image of which something is missing is told apart from a guest that does not answer."""
    directory, user = image.get()
    os.close(user)
    path = os.path.join(directory, "selinux.state")
    os.rename(path, f"{path}.away")
    try:
        vm("--snapshot", "selinux", "true").fails("vm: the image has no snapshot 'selinux'", status=125)
    finally:
        os.rename(f"{path}.away", path)
