"""Scenarios that podman has for root and for ordinary users, and other engines have not, or not like this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import support

if TYPE_CHECKING:
    from engines.podman import Podman
    from engines.scenario import Seen


def test_top(client: Podman, seen: Seen) -> None:
    """`podman top` lists the container's processes and no others, with their pids inside and outside."""
    one = client.start("sh", "-c", "sleep 1000 & sleep 2000; true")
    argv = ("top", one, "hpid", "pid", "user", "args")

    def shown() -> list[list[str]]:
        return [line.split(None, 3) for line in client.do(*argv).ok().out.splitlines()]

    both = {"sleep 1000", "sleep 2000"}
    support.wait_until(lambda: both <= {line[3].strip() for line in shown()}, "both processes")
    lines = shown()
    seen.value("top", "\n".join(sorted(f"{user} {command}" for _, _, user, command in lines)))
    assert lines[1][:2] == [str(client.pid(one)), "1"] and len(lines) == 4


def test_healthcheck(client: Podman, seen: Seen) -> None:
    """`podman healthcheck run`, the timer being systemd's: healthy at first, unhealthy when its file is gone."""
    check = ("--health-cmd", "cat /tmp/well", "--health-interval", "disable", "--health-retries", "1")
    one = client.start("sh", "-c", "echo well >/tmp/well; sleep 1000", options=check)
    support.wait_until(lambda: client.do("healthcheck", "run", one).status == 0, "health")
    seen.value("healthy", client.inspect(one, ".State.Health.Status"))
    client.do("exec", one, "rm", "/tmp/well").ok()
    seen.command("run", client.do("healthcheck", "run", one)).fails()
    seen.value("unhealthy", client.inspect(one, ".State.Health.Status"))
