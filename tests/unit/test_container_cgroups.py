"""csrc/container/ through the shim: what it does to the cgroups of a container, on v1 and v2.

The state directories are written here, the processes and cgroups are real.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.errors import StateError
from pyrunc.kernel import container as kernel_container
from state_dirs import DEAD, mount_of

if TYPE_CHECKING:
    from pathlib import Path

    from state_dirs import Cgroup, Root


def test_paused(root: Root, cgroup: Cgroup) -> None:
    """The freezer decides, but not about a container that waits for start."""
    pid = root.process()
    cgroup.join(pid)
    directory = root.write(root.record(pid, cgroups=[cgroup.entry]))
    assert root.status() == "running"
    cgroup.freeze()
    assert root.status() == "paused"
    os.mkfifo(f"{directory}/exec.fifo")
    assert root.status() == "created"
    with pytest.raises(StateError, match="cannot start a container in the paused state"):
        kernel_container.start(root.path, "c1")
    os.unlink(f"{directory}/exec.fifo")
    kernel_container.cgroup_thaw([cgroup.entry])
    assert root.status() == "running"


def test_a_damaged_file_still_tells_what_to_end(root: Root, cgroup: Cgroup) -> None:
    """delete --force ends the process and removes the cgroup in front of the damage, and says what may be left."""
    pid, other = root.process(), root.process()
    cgroup.join(pid)
    cgroup.join(other, "below")
    record = root.record(pid, cgroups=[cgroup.entry], made=[cgroup.parent, cgroup.path])
    root.write(record.render().split(b"\n\n", maxsplit=1)[0] + b"\ndamage")
    with pytest.raises(StateError, match="is damaged: line 2: the lines below are not") as caught:
        kernel_container.delete(root.path, "c1", force=True)
    assert "its process is gone" in str(caught.value.hint)
    assert not root.alive(pid)
    assert not root.alive(other)
    assert not os.path.exists(cgroup.parent)
    assert not os.path.exists(root.at("c1"))


def test_kill_reaches_all(root: Root, cgroup: Cgroup) -> None:
    """--all with any signal; cgroups below are part of it, processes elsewhere are not."""
    inside = [root.process() for _ in range(4)]
    outside = root.process()
    for number, pid in enumerate(inside):
        cgroup.join(pid, "deep/er" if number == 3 and cgroup.v1 else "")
    root.write(root.record(inside[0], cgroups=[cgroup.entry]))
    kernel_container.kill(root.path, "c1", signal.SIGUSR2, all_processes=True)
    for process in root.started[:4]:
        assert process.wait(10) == -signal.SIGUSR2
    assert root.alive(outside)


@pytest.mark.parametrize("private", [True, False])
def test_sigkill_without_a_pid_namespace_takes_all(root: Root, cgroup: Cgroup, private: bool) -> None:
    """With one of its own the kernel does that."""
    first, second = root.process(), root.process()
    cgroup.join(first)
    cgroup.join(second)
    root.write(root.record(first, cgroups=[cgroup.entry], pidns_private=private))
    kernel_container.kill(root.path, "c1", signal.SIGKILL)
    root.started[0].wait(10)
    if private:
        assert root.alive(second)
        return
    root.started[1].wait(10)
    with pytest.raises(StateError, match="^container not running$"):
        kernel_container.kill(root.path, "c1", signal.SIGKILL)


@pytest.mark.parametrize("flags", [(True, False), (False, False), (True, True)])
def test_sigkill_thaws(root: Root, cgroup: Cgroup, flags: tuple[bool, bool]) -> None:
    """A frozen process cannot die."""
    private, all_processes = flags
    pid = root.process()
    cgroup.join(pid)
    root.write(root.record(pid, cgroups=[cgroup.entry], pidns_private=private))
    cgroup.freeze()
    assert root.status() == "paused"
    kernel_container.kill(root.path, "c1", signal.SIGKILL, all_processes=all_processes)
    assert root.started[0].wait(10) == -signal.SIGKILL


def test_other_signals_leave_it_frozen(root: Root, cgroup: Cgroup) -> None:
    """They arrive with resume. v2 lets those through that end a process, so this one does not."""
    pid = root.process("sh", "-c", "trap 'exit 7' USR1; while :; do sleep 0.01; done")
    cgroup.join(pid)
    support.wait_until(lambda: _traps(pid, signal.SIGUSR1), "the trap")
    root.write(root.record(pid, cgroups=[cgroup.entry]))
    cgroup.freeze()
    kernel_container.kill(root.path, "c1", signal.SIGUSR1)
    kernel_container.kill(root.path, "c1", signal.SIGUSR1, all_processes=True)
    assert root.status() == "paused"
    kernel_container.cgroup_thaw([cgroup.entry])
    assert root.started[0].wait(10) == 7


def _traps(pid: int, number: int) -> bool:
    return bool(int(support.status_field(pid, "SigCgt"), 16) >> (number - 1) & 1)


def test_a_fork_bomb_dies(root: Root, cgroup: Cgroup) -> None:
    """Freezing, or cgroup.kill, leaves no gap for a child to slip through."""
    process = subprocess.Popen(
        ["sh", "-c", "read x; i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; wait"],
        stdin=subprocess.PIPE,
    )
    root.started.append(process)
    cgroup.join(process.pid)
    root.write(root.record(process.pid, cgroups=[cgroup.entry], pidns_private=False, made=[cgroup.path]))
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()

    def members() -> list[str]:
        with open(f"{cgroup.path}/cgroup.procs", encoding="ascii") as file:
            return file.read().split()

    support.wait_until(lambda: len(members()) > 20, "some children")
    kernel_container.kill(root.path, "c1", signal.SIGKILL)
    process.wait(10)
    support.wait_until(lambda: not members(), "all of them dead")


def test_the_root_of_a_hierarchy_is_nobodys_own() -> None:
    """A container may sit there (cgroupsPath /), but so does everybody else. Signal 0 harms none if this fails."""
    support.needs_root()
    for kind, option, controller in (("cgroup", "freezer", "freezer"), ("cgroup2", "rw", "")):
        mount = mount_of(kind, option)
        if mount:
            assert kernel_container.cgroup_kill([(controller, mount)], 0) == 0
            kernel_container.cgroup_remove([(controller, mount)], [mount])
    assert kernel_container.cgroup_kill([("freezer", "/tmp"), ("", "/nonexistent")], 0) == 0


def test_delete_removes_what_create_made(root: Root, cgroup: Cgroup) -> None:
    """The cgroup with all below it, even while frozen; its parent when it is empty."""
    pid, other = root.process(), root.process()
    cgroup.join(pid)
    if cgroup.v1:
        cgroup.join(other, "one/two")
    os.makedirs(f"{cgroup.path}/three/four")
    root.write(root.record(pid, cgroups=[cgroup.entry], made=[cgroup.parent, cgroup.path]))
    cgroup.freeze()
    with pytest.raises(StateError, match="that is not stopped: paused"):
        kernel_container.delete(root.path, "c1")
    kernel_container.delete(root.path, "c1", force=True)
    assert not os.path.exists(cgroup.parent)
    assert root.alive(other) == (not cgroup.v1)


def test_delete_leaves_what_others_use(root: Root, cgroup: Cgroup) -> None:
    """A directory that was there before, with somebody in it, and a parent with another child."""
    pid = root.process()
    cgroup.join(pid)
    root.write(root.record(DEAD, cgroups=[cgroup.entry], made=[]))
    kernel_container.delete(root.path, "c1")
    assert root.alive(pid)
    assert os.path.isdir(cgroup.path)
    os.mkdir(f"{cgroup.parent}/other")
    root.write(root.record(DEAD, cgroups=[cgroup.entry], made=[cgroup.parent, cgroup.path]))
    kernel_container.delete(root.path, "c1")
    assert os.listdir(root.path) == []
    assert not os.path.exists(cgroup.path)
    os.rmdir(f"{cgroup.parent}/other")


def test_delete_never_touches_what_is_no_cgroup(root: Root, tmp_path: Path) -> None:
    """A damaged state file may name anything."""
    victim = tmp_path / "victim" / "below"
    victim.mkdir(parents=True)
    root.write(root.record(DEAD, cgroups=[("memory", str(victim))], made=[str(victim.parent), str(victim)]))
    kernel_container.delete(root.path, "c1", force=True)
    assert victim.is_dir()


def test_a_cgroup_deeper_than_any_path(root: Root, cgroup: Cgroup) -> None:
    """A container may nest cgroups until no path reaches them."""
    name = "x" * 40
    fd = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(120):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    root.write(root.record(DEAD, cgroups=[cgroup.entry], made=[cgroup.path]))
    kernel_container.delete(root.path, "c1")
    assert not os.path.exists(cgroup.path)


def test_delete_after_a_killed_create(root: Root, cgroup: Cgroup) -> None:
    """No pid is written down yet, but the cgroup has the process."""
    pid = root.process()
    cgroup.join(pid)
    record = root.record(0, cgroups=[cgroup.entry], made=[cgroup.parent, cgroup.path])
    root.write(record, name="state.creating", fifo=True)
    kernel_container.delete(root.path, "c1", force=True)
    assert not root.alive(pid)
    assert not os.path.exists(cgroup.parent)
    assert os.listdir(root.path) == []
