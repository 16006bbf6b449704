"""Where the limits of a container under test stand: its cgroup files, on whatever version of cgroups it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import support

if TYPE_CHECKING:
    from containers import Container

NO_V2_CONTROLLER = "a cgroup2 controller for cpu, memory or pids"
V1_ROOT = "/sys/fs/cgroup/memory"


def version(view: str) -> int:
    """Which version of cgroups limits a container of this view."""
    return 1 if view != "v2" and os.path.isdir(V1_ROOT) else 2


def unified_mount() -> str:
    """Where cgroup2 is mounted here; the views mount the same tree."""
    return "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"


def needs_v2_controller(name: str) -> None:
    """Skip the test where cgroup2 does not have the controller."""
    path = f"{unified_mount()}/cgroup.controllers"
    support.needs(os.path.exists(path), NO_V2_CONTROLLER)
    with open(path, encoding="ascii") as stream:
        support.needs(name in stream.read().split(), NO_V2_CONTROLLER)


def directory(pid: int, controller: str) -> str:
    """Where the process is in the hierarchy of a v1 controller; "" is cgroup2."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
        for line in stream:
            _, names, path = line.strip().split(":", 2)
            if controller in names.split(","):
                return f"{f'/sys/fs/cgroup/{controller}' if controller else unified_mount()}{path}"
    raise AssertionError(f"process {pid} is in no cgroup of '{controller}'")


def read(one: Container, controller: str, file: str) -> str:
    """A file of the container's cgroup; `controller` "" is cgroup2."""
    with open(f"{directory(one.pid, controller)}/{file}", encoding="utf-8") as stream:
        return stream.read().strip()


def write(one: Container, controller: str, file: str, value: str) -> None:
    """Set a limit behind pyrunc's back."""
    with open(f"{directory(one.pid, controller)}/{file}", "w", encoding="utf-8") as stream:
        stream.write(value)
