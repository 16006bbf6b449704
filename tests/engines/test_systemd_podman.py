"""podman with the systemd cgroup manager, where systemd runs: scopes in a slice, limits, figures, the end of memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import limits
import support
from engines import facts
from engines.life import (
    test_exec,
    test_force_remove,
    test_run,
    test_stats,
    test_update,
)
from engines.podman import Podman

if TYPE_CHECKING:
    from engines.scenario import Seen

__all__ = ["test_exec", "test_force_remove", "test_run", "test_stats", "test_update"]

pytestmark = pytest.mark.root
ENGINE = "podmansystemd"
DRIVER = "systemd"
CLIENT = Podman
LIMITS = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max"


def test_scope(client: Podman, seen: Seen) -> None:
    """A container is a scope in the slice it was given; systemd has its limits and forgets it when it ends."""
    options = ("--memory", "64m", "--memory-swap", "96m", "--cpus", "0.5", "--pids-limit", "50")
    one = client.start("sleep", "1000", options=options)
    identity = client.inspect(one, ".Id")
    seen.replace(identity, "ID")
    with open(f"/proc/{client.pid(one)}/cgroup", encoding="ascii") as stream:
        seen.value("cgroup", stream.read())
    seen.command("limits", client.do("exec", one, "sh", "-c", LIMITS)).ok()
    names = ("MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax", "Slice", "Delegate")
    unit = f"libpod-{identity}.scope"
    shown = support.run("systemctl", "show", *(f"--property={name}" for name in names), unit).ok()
    seen.value("unit", "\n".join(sorted(shown.out.splitlines())))
    assert f"MemoryMax={64 << 20}" in shown.out and f"Slice={client.area.parent}" in shown.out
    client.do(*client.remove, one).ok()
    state = support.run("systemctl", "show", "--property=LoadState", "--value", unit).ok()
    assert seen.command("gone", state).out == "not-found\n" and not client.left()


def test_pause(client: Podman, seen: Seen) -> None:
    """Frozen, and not any more. runc 1.1.5 cannot take a paused one away here, so that is not asked of it."""
    one = client.start("sleep", "1000")
    path = f"/proc/{client.pid(one)}/cgroup"
    with open(path, encoding="ascii") as stream:
        events = f"/sys/fs/cgroup{stream.read().strip().removeprefix('0::')}/cgroup.events"
    for name, frozen in (("pause", "frozen 1"), ("unpause", "frozen 0")):
        seen.command(name, client.do(name, one)).ok()
        with open(events, encoding="ascii") as stream:
            assert frozen in stream.read()
        seen.value(f"{name}.state", client.status(one))


def test_out_of_memory(client: Podman, seen: Seen) -> None:
    """A program beyond its limit is killed, and counted in the scope.

    Whether podman hears of it is conmon's luck up to 2.1.6: it stops watching at the first `max` event.
    """
    options = ("--memory", "16m", "--memory-swap", "16m")
    one = client.start("sh", "-c", facts.OUTLIVED_HOG, options=options)
    pid = client.pid(one)
    status = f"/proc/{pid}/root/status"
    support.wait_until(lambda: os.path.exists(status) and os.path.getsize(status) > 0, "the program's end")
    with open(status, encoding="ascii") as stream:
        seen.value("status", stream.read())
    events = os.path.join(limits.directory(pid, ""), "memory.events")
    with open(events, encoding="ascii") as stream:
        seen.value("killed", [line for line in stream if line.startswith("oom_kill ")])
    client.do("kill", one).ok()
    client.wait_status(one, "exited")
    assert seen.values["status"] == "137\n" and seen.values["killed"] == ["oom_kill 1\n"]
