"""What tests of namespaces and of exec share: names of namespaces, user namespaces, recorded cgroups."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from containers import Bundle, Container

# type in the configuration -> name below /proc/PID/ns
FILES = {
    "cgroup": "cgroup",
    "ipc": "ipc",
    "mount": "mnt",
    "network": "net",
    "pid": "pid",
    "time": "time",
    "user": "user",
    "uts": "uts",
}
# Where the ids of user namespaces start on the host.
ROOT = 100000


def inode(pid: int | str, kind: str) -> str:
    """What names the namespace of a process, as the probe prints it."""
    return str(os.stat(f"/proc/{pid}/ns/{FILES[kind]}").st_ino)


def mapped(what: Bundle, base: int = ROOT) -> Bundle:
    """The bundle with a user namespace of its own."""
    what.namespace("user")
    for key in ("uidMappings", "gidMappings"):
        what.mapping("linux")[key] = [{"containerID": 0, "hostID": base, "size": 65536}]
    return what


def recorded_cgroups(one: Container) -> list[tuple[str, str]]:
    """(controller, directory) as create wrote them down."""
    found = []
    with open(os.path.join(one.root, one.id, "state"), encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("cgroup "):
                controller, _, path = line[7:].rstrip("\n").partition(":")
                found.append((controller, path))
    return found
