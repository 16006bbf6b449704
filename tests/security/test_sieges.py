"""A container that cannot be handled: it dies at the wrong moment, forks without end, answers for the kernel.

Every verb ends in time with one of its words, and `delete --force` leaves nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

import rounds
import support
from security.scene import hostile

if TYPE_CHECKING:
    import pathlib

    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from support import Json

pytestmark = pytest.mark.root

# No verb may take longer, whatever the container does.
VERB_SECONDS = 25
BOMB_PIDS = 60


def gone(one: Container) -> None:
    """delete --force leaves no state, no cgroup and no process."""
    one.pyrunc("delete", "--force", one.id, timeout=VERB_SECONDS).ok()
    assert not os.path.lexists(os.path.join(one.root, one.id))
    assert support.find_cgroups(f"/{one.id}") == []


def reap(pid: int) -> None:
    """Until that child is gone; meanwhile others that ended are collected, or their pid namespace would stay."""

    def collected() -> bool:
        for child in support.children():
            os.waitpid(child, os.WNOHANG)
        return pid not in support.children()

    support.wait_until(collected, f"the end of process {pid}")


# --- Death ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--detach"], ["--tty"]], ids=["plain", "detach", "tty"])
def test_the_first_process_dies_during_exec(
    container: ContainerFactory, bundle: BundleFactory, options: list[str]
) -> None:
    """At any moment of exec, which has not begun, is under way or has ended: it comes back, and in words."""
    chance = rounds.chance()
    one = container(bundle("probe").probe("pause"))
    for _ in rounds.loop(6):
        one.up()
        pid = one.pid
        command = [*one.command, "exec", *options, one.id, "/bin/probe", "echo", "well"]
        begun = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            text=True,
        )
        time.sleep(chance.random() * 0.06)
        os.kill(pid, signal.SIGKILL)
        try:
            out, err = begun.communicate(timeout=VERB_SECONDS)
        finally:
            begun.kill()
        reap(pid)
        assert begun.returncode in (0, 137, 255), (begun.returncode, out, err)
        assert "unexpected" not in err, err
        assert "Traceback" not in err, err
        if begun.returncode == 255:
            assert "cannot exec in a stopped container" in err, err
        gone(one)


# --- Fork bombs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bomb(container: ContainerFactory, bundle: BundleFactory, tmp_path: pathlib.Path) -> Container:
    """A container that forks as long as it may, which is not long."""
    support.needs(os.path.isdir("/sys/fs/cgroup/pids") or _v2_has_pids(), "the pids controller")
    target = hostile(bundle("probe"), tmp_path, "bomb")
    target.mapping("linux", "resources")["pids"] = {"limit": BOMB_PIDS}
    return container(target)


def _v2_has_pids() -> bool:
    try:
        with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as stream:
            return "pids" in stream.read().split()
    except OSError:
        return False


def _explode(one: Container) -> None:
    one.up()
    one.expect("ready")
    directory = next(
        path for path in support.find_cgroups(f"/{one.id}") if "/pids/" in path or "/unified" not in path
    )

    def full() -> bool:
        with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as stream:
            return len(stream.read().split()) > BOMB_PIDS // 2

    support.wait_until(full, "a full cgroup", 20)


@pytest.mark.slow
def test_a_fork_bomb_is_paused_killed_and_deleted(bomb: Container) -> None:
    """pause stops all of it, resume lets go, kill ends it, and nothing is left."""
    for _ in rounds.loop(2):
        _explode(bomb)
        bomb.pyrunc("pause", bomb.id, timeout=VERB_SECONDS).ok()
        assert bomb.status() == "paused"
        bomb.pyrunc("resume", bomb.id, timeout=VERB_SECONDS).ok()
        assert bomb.pyrunc("ps", bomb.id, timeout=VERB_SECONDS).status in (0, 1)
        result = bomb.pyrunc("exec", bomb.id, "/bin/probe", "echo", "well", timeout=VERB_SECONDS)
        assert result.status in (0, 255), result
        assert "unexpected" not in result.err, result
        bomb.pyrunc("kill", bomb.id, "KILL", timeout=VERB_SECONDS).ok()
        bomb.wait()
        assert bomb.status() == "stopped"
        gone(bomb)


@pytest.mark.parametrize("first", ["kill", "pause", "nothing"])
def test_a_fork_bomb_in_the_pid_namespace_of_others(bomb: Container, first: str) -> None:
    """There its first process's end ends no other: every one has to be found while it forks."""
    bomb.bundle.without_namespace("pid").write()
    for _ in rounds.loop(2):
        _explode(bomb)
        if first == "kill":
            bomb.pyrunc("kill", bomb.id, "KILL", timeout=VERB_SECONDS).ok()
        elif first == "pause":
            bomb.pyrunc("pause", bomb.id, timeout=VERB_SECONDS).ok()
        gone(bomb)


# --- Agents -----------------------------------------------------------------------------------------------------------


class Agent:
    """Who is handed the seccomp listener, and does with it what `how` says."""

    def __init__(self, path: str, how: str) -> None:
        self._how = how
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        self._server.settimeout(20)
        self._kept: list[socket.socket] = []
        self.fds: list[int] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if how != "deaf":
            self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        if self._how == "rude":
            connection.close()
            return
        self._kept.append(connection)
        if self._how == "silent":
            return
        _, fds, _, _ = socket.recv_fds(connection, 1 << 16, 8)
        if self._how == "careless":
            for fd in fds:
                os.close(fd)
        else:
            self.fds += fds
        connection.close()

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        for one in (*self._kept, self._server):
            one.close()
        if self._how != "deaf":
            self._thread.join(25)


def _notify(what: Bundle, path: str, *names: str) -> Bundle:
    calls: list[Json] = list(names)
    what.mapping("linux")["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "syscalls": [{"names": calls, "action": "SCMP_ACT_NOTIFY"}],
    }
    return what


CALLS = [
    "execve",
    "exit_group",
    "getcwd",
    "setuid",
    "capset",
    "close_range",
    "mkdirat",
    "openat",
    "read",
    "sethostname",
]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deaf", "rude", "silent", "careless", "holding"])
def test_agents_that_do_not_answer(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, how: str
) -> None:
    """Calls that nobody decides wait for ever; create, kill and delete do not."""
    chance = rounds.chance()
    for turn in rounds.loop(2):
        call = chance.choice(CALLS)
        path = os.path.join(scratch, f"agent-{turn}")
        target = _notify(bundle("probe").probe("seccomp", "83"), path, call)
        target.mapping("process")["noNewPrivileges"] = chance.random() < 0.5
        one = container(target)
        agent = Agent(path, how)
        begun = subprocess.Popen(
            [*one.command, "create", "--bundle", target.path, one.id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            text=True,
        )
        try:
            _, err = begun.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            # Only what asks the agent before it is ready waits; it ends with its container.
            err = ""
            one.pyrunc("delete", "--force", one.id, timeout=VERB_SECONDS)
            begun.communicate(timeout=VERB_SECONDS)
        assert "unexpected" not in err, (call, err)
        assert "Traceback" not in err, (call, err)
        if begun.returncode == 0:
            starting = subprocess.Popen([*one.command, "start", one.id], stderr=subprocess.PIPE, cwd="/")
            one.pyrunc("kill", one.id, "KILL", timeout=VERB_SECONDS)
            gone(one)
            starting.communicate(timeout=VERB_SECONDS)
        gone(one)
        agent.close()
