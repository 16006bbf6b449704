"""Many containers at once through containerd, and a shim that is killed: nothing lost, nothing left."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from engines.containerd import Containerd
    from engines.scenario import Seen

pytestmark = [pytest.mark.root, pytest.mark.slow]
ENGINE = "containerd-load"
CONTAINERS = 100
AT_ONCE = 20


def gone(ctd: Containerd) -> bool:
    """No task, no container, no state and no shim of this containerd is left."""
    state = f"{ctd.area.root}/run/containerd/runc/{ctd.area.name}"
    return not (
        ctd.ctr("task", "ls", "--quiet").ok().out
        or ctd.ctr("container", "ls", "--quiet").ok().out
        or (os.path.isdir(state) and os.listdir(state))
        or shims(ctd)
    )


def shims(ctd: Containerd) -> list[int]:
    """The pids of the area's shims."""
    return ctd.area.running("containerd-shim")


def test_many(ctd: Containerd, seen: Seen) -> None:
    """100 containers, 20 at a time: each says its own word and ends with its own status; nothing is left."""

    def one(number: int) -> tuple[int, str, str]:
        result = ctd.start(
            f"many{number}", "sh", "-c", f"echo {number}; exit {number}", options=("--rm",), timeout=120
        )
        return result.status, result.out, result.err

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(one, range(CONTAINERS)))
    assert results == [(number, f"{number}\n", "") for number in range(CONTAINERS)]
    support.wait_until(lambda: gone(ctd), "an empty containerd", timeout=30)
    assert not ctd.left()
    seen.value("containers", len(results))
    seen.value("left", [])


def test_shim_killed(ctd: Containerd, seen: Seen) -> None:
    """A shim is killed in the middle of 20 running containers: its own ends and can be deleted, 19 run on."""
    names = [ctd.id() for _ in range(AT_ONCE)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(lambda name: ctd.start(name, "sleep", "1000", timeout=120), names):
            result.ok()
    pids = {name: ctd.pid(name) for name in names}
    victim = names[AT_ONCE // 2]
    os.kill(_parent(pids[victim]), signal.SIGKILL)
    support.wait_until(lambda: support.process_gone(pids[victim]), "the end of the container", timeout=30)
    support.wait_until(
        lambda: not [path for path in ctd.left() if path.endswith(f"/{victim}")], "the end of its cgroups"
    )
    # containerd cleans up first, and forgets the task then.
    support.wait_until(lambda: not ctd.status(victim), "the end of the task")
    seen.value("victim", ctd.status(victim))
    others = [name for name in names if name != victim]
    seen.value("others", sum(ctd.status(name) == "RUNNING" for name in others))
    assert seen.values["others"] == AT_ONCE - 1
    assert not any(support.process_gone(pids[name]) for name in others)
    seen.command("exec", ctd.exec(others[0], "echo", "still here")).ok()
    assert not list(ctd.forget())
    support.wait_until(lambda: gone(ctd), "an empty containerd", timeout=30)
    assert not ctd.left()


def _parent(pid: int) -> int:
    return int(support.status_field(pid, "PPid"))
