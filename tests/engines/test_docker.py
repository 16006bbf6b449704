"""docker: the scenarios of life.py, and what only a daemon does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines.builds import *  # noqa: F403 - tests
from engines.docker import NAMED, Docker
from engines.life import *  # noqa: F403 - tests

if TYPE_CHECKING:
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "docker"
CLIENT = Docker


def test_named_runtime(client: Docker, seen: Seen) -> None:
    """`docker run --runtime` takes another runtime than the default one, with arguments of its own."""
    before = len(client.area.calls())
    seen.command("run", client.run("echo", "here", options=("--rm", "--runtime", NAMED))).ok()
    calls = client.area.calls()[before:]
    assert calls and all(call.startswith("--debug ") for call in calls)
    seen.command("unknown", client.run("true", options=("--rm", "--runtime", "nosuch"))).fails(
        "nosuch", status=125
    )


def test_info(client: Docker, seen: Seen) -> None:
    """`docker info` names the default runtime and asks it for its version."""
    seen.replace(client.runtime, "NAME")
    seen.command("info", client.do("info", "--format", "{{.DefaultRuntime}} {{.Warnings}}")).ok()
    version = client.do("info", "--format", "{{.RuncCommit.ID}}").ok().out.strip()
    assert version not in {"", "N/A"} and client.area.calls()[-1] == "--version"


def test_restart_always(client: Docker, seen: Seen) -> None:
    """`--restart always` brings a killed first process back, and the container after dockerd's restart."""
    # dockerd waits long for who does not listen to TERM.
    options = ("--stop-signal", "KILL")
    one = client.start("sleep", "1000", options=(*options, "--restart", "always"))
    other = client.start("sleep", "1000", options=options)
    before = client.pid(one)
    os.kill(before, 9)
    support.wait_until(lambda: client.pid(one) not in {0, before}, "the second run", timeout=30)
    client.restart()
    support.wait_until(lambda: client.pid(one) != 0, "the third run", timeout=30)
    seen.command("exec", client.do("exec", one, "echo", "here")).ok()
    seen.value("other", client.status(other))


def test_top(client: Docker, seen: Seen) -> None:
    """`docker top` lists the container's processes and no others."""
    one = client.start("sh", "-c", "sleep 1000 & sleep 2000; true")

    def shown() -> list[list[str]]:
        out = client.do("top", one, "-o", "pid,user,args").ok().out
        return [line.split(None, 2) for line in out.splitlines()]

    both = {"sleep 1000", "sleep 2000"}
    support.wait_until(lambda: both <= {line[2] for line in shown()}, "both processes")
    lines = shown()
    seen.value("top", "\n".join(sorted(f"{user} {command}" for _, user, command in lines)))
    assert str(client.pid(one)) in [line[0] for line in lines] and len(lines) == 4


def test_healthcheck(client: Docker, seen: Seen) -> None:
    """A health check runs in the container: healthy at first, unhealthy when its file is gone."""
    check = ("--health-cmd", "cat /tmp/well", "--health-interval", "300ms", "--health-retries", "1")
    one = client.start("sh", "-c", "echo well >/tmp/well; sleep 1000", options=check)

    def health() -> str:
        return client.inspect(one, ".State.Health.Status")

    support.wait_until(lambda: health() == "healthy", "health", timeout=20)
    seen.value("log", client.inspect(one, "(index .State.Health.Log 0).Output"))
    client.do("exec", one, "rm", "/tmp/well").ok()
    support.wait_until(lambda: health() == "unhealthy", "the loss of health", timeout=20)
    assert seen.values["log"] == "well"


def test_update_processes(client: Docker, seen: Seen) -> None:
    """`docker update --pids-limit`, which other engines do not have."""
    one = client.start("sleep", "1000")
    seen.command("update", client.do("update", "--pids-limit", "3", one)).ok()
    script = "sleep 1000 & sleep 1000 & sleep 1000 & echo all"
    seen.command("exec", client.do("exec", one, "sh", "-c", script)).fails("can't fork", status=2)
