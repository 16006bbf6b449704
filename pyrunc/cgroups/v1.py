"""cgroup v1: a container's directory in each hierarchy, and what a new one needs before processes can be attached."""

from __future__ import annotations

import errno
import os

from pyrunc.cgroups import files
from pyrunc.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrunc.spec.host_facts import HostFacts

SYSTEMD = "name=systemd"
UNIFIED = ""
# Hierarchies that limit nothing: they only group processes for others (systemd, tools). They may be missing.
TRACKING = (SYSTEMD, "misc", UNIFIED)
CONTROLLERS = (
    "cpuset", "devices", "memory", "cpu", "cpuacct", "pids", "blkio", "hugetlb", "net_cls", "net_prio",
    "perf_event", "freezer", "rdma", SYSTEMD, "misc",
)  # fmt: skip
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def below(mount: tuple[str, str], own: str) -> str:
    """Return the directory of the cgroup `own` of /proc/self/cgroup in a mount (mount point, root of that mount).

    In a container without a cgroup namespace both are the host's paths; the mount has only what is below its root.
    """
    point, root = mount
    root = root.rstrip("/")
    if own == root:
        return point
    if own.startswith(root + "/"):
        return (point + own[len(root) :]).rstrip("/")
    return point


def directories(host: HostFacts, inner: str, *, absolute: bool) -> list[tuple[str, str]]:
    """Return (controller, directory) pairs; controllers that are mounted together are adjacent and share a directory.

    An absolute path counts from the mount point, others from the runtime's own cgroup in that hierarchy, as in runc.
    A cgroup2 mount beside the controllers (a "hybrid" host) gets the same path, listed last as "".
    """
    joint: dict[str, list[str]] = {}
    for controller in CONTROLLERS:
        mount = host.cgroup_mounts.get(controller)
        if mount is not None and (absolute or controller in host.own_cgroups):
            start = mount[0] if absolute else below(mount, host.own_cgroups[controller])
            joint.setdefault(f"{start}/{inner}", []).append(controller)
    if host.unified_mount is not None:
        start = host.unified_mount
        if not absolute:
            start = below((start, "/"), host.own_cgroups.get(UNIFIED, "/"))
        joint.setdefault(f"{start}/{inner}", []).append(UNIFIED)
    return [(name, directory) for directory, controllers in joint.items() for name in controllers]


def fill_cpuset(directory: str, configured: Mapping[str, str], top: str) -> None:
    """Give a new cpuset CPUs and memory nodes: v1 makes it with none, and then no process can be attached.

    `configured` are the container's own (file -> value); the rest is copied from the parent, which is filled first if
    another process has just made it. Raise KernelError, OSError.
    """
    for file in _CPUSET_FILES:
        value = configured.get(file, "")
        path = f"{directory}/{file}"
        if not value and files.read(path).strip():
            continue
        # Also for configured values: they must be a subset of the parent's, which may have none yet.
        inherited = _inherited(os.path.dirname(directory), file, top)
        value = value or inherited
        try:
            files.write(path, value)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise
            where = f"$.linux.resources.cpu.{file[7:]}" if file in configured else files.CGROUPS_PATH
            raise KernelError(
                "write",
                error.errno or 0,
                path,
                path=where,
                hint=f"the value was '{value}'; the parent cgroup has '{inherited}'",
            ) from error


def _inherited(directory: str, file: str, top: str) -> str:
    """Return the directory's value; if it is empty, fill it and its parents from the first one that has a value."""
    empty: list[str] = []
    while not (value := files.read(f"{directory}/{file}").strip()) and len(directory) > len(top):
        empty.append(directory)
        directory = os.path.dirname(directory)
    for one in reversed(empty):
        files.write(f"{one}/{file}", value)
    return value


def write_devices(directory: str, lines: list[tuple[str, str, str]]) -> None:
    """Write (file, line, JSON path) triples. Raise KernelError."""
    fds: dict[str, int] = {}
    try:
        for file, line, where in lines:
            path = f"{directory}/{file}"
            try:
                if file not in fds:
                    fds[file] = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                os.write(fds[file], line.encode())
            except OSError as error:
                hint = f"the rule was '{line}'"
                if error.errno == errno.EINVAL and line == "a":
                    hint += "; a devices cgroup with children cannot be changed as a whole"
                raise KernelError("write", error.errno or 0, path, path=where, hint=hint) from error
    finally:
        for fd in fds.values():
            os.close(fd)
