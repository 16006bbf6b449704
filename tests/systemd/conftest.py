"""A host with systemd, and an ordinary user whose manager runs on it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import containers
import support
import systemd_host as others

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import User


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    """Systemd, and in the end no slice of ours: one stays when the last scope in it has gone.

    In v1's hierarchies that systemd leaves alone it stays whatever systemd is told, with runc as well.
    """
    others.needs_systemd()
    support.needs_root()
    yield
    support.run("systemctl", "stop", others.SLICE).ok()
    support.remove_cgroups(support.find_cgroups(f"/{others.SLICE}"))


@pytest.fixture
def v2_alone() -> None:
    """Cgroup v2, with all of its controllers."""
    others.needs_v2_alone()


# For the whole run: logind takes its time to end a manager, and would end the next one.
@pytest.fixture(scope="session")
def lingering() -> Iterator[User]:
    """An ordinary user whose manager runs, with delegated controllers."""
    others.needs_systemd()
    support.needs_root()
    directory = support.make_scratch()
    user = containers.make_test_user(directory)
    service = f"user@{user.uid}.service"
    support.run("loginctl", "enable-linger", user.name).ok()
    support.run("systemctl", "start", service, timeout=120).ok()
    own = f"/run/user/{user.uid}"
    support.wait_until(lambda: os.path.exists(f"{own}/bus"), "the user's bus", 60)
    user.prefix.append(f"DBUS_SESSION_BUS_ADDRESS=unix:path={own}/bus")
    yield user
    support.run("loginctl", "disable-linger", user.name).ok()
    # logind itself would do so later.
    support.run("systemctl", "stop", f"user-{user.uid}.slice", timeout=120).ok()
    support.wait_until(
        lambda: not (os.path.exists(own) or support.find_cgroups(f"/user-{user.uid}.slice")),
        "the end of the user's slice",
    )
    left = support.remove_scratch(directory)
    assert not left, f"mounts left behind: {left}"


# The manager may not take controllers away from what it has delegated; that this has no process of its own makes it a
# place for containers. Of `$$` systemd makes `$`.
_MAKE_PLACE = """
cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && mkdir self && echo 0 >self/cgroup.procs && pwd && exec sleep 10000
"""


@pytest.fixture(scope="session")
def delegated(lingering: User) -> Iterator[str]:
    """A cgroup that the user's manager has delegated; its child `self` is where the user's commands run."""
    options = ("--user", "--quiet", "--pipe", "--collect", "--unit=lane.service", "--property=Delegate=yes")
    argv = [*lingering.prefix, "systemd-run", *options, "sh", "-c", _MAKE_PLACE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place = process.stdout.readline().strip()
        assert place, (
            f"no delegated cgroup: {others.show('lane.service', '--user', prefix=lingering.prefix)}"
        )
        yield place
        support.run(*lingering.prefix, "systemctl", "--user", "stop", "lane.service").ok()
