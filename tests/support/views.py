"""Views of the host and the orphans in them, for whoever runs runtimes: tests, conformance. Standard library only.

crun refuses a host that shows v1 controllers and cgroup2 side by side; the OCI suite knows v1 alone.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_V2 = (
    "umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
    ' && mount --make-rshared / && exec "$@"'
)


def _v1(more: str = "", optional: str = "") -> str:
    """`more`: controllers that systemd mounts and others do not; `optional`: those that may be missing."""
    return (
        "d=$(mktemp -d /run/pyrunc-v1.XXXXXX) && mount -t tmpfs -o mode=755 tmpfs $d || exit 99; "
        f"for c in cpu cpuacct cpuset memory devices freezer blkio pids {more}; do "
        "mkdir $d/$c && mount -t cgroup -o $c cgroup $d/$c || exit 99; done; "
        f"for c in {optional}; do mkdir $d/$c; mount -t cgroup -o $c cgroup $d/$c 2>/dev/null || rmdir $d/$c; done; "
        "mkdir $d/systemd && mount -t cgroup -o none,name=systemd cgroup $d/systemd || exit 99; "
        "umount -R /sys/fs/cgroup && mount --move $d /sys/fs/cgroup && rmdir $d && mount --make-rshared / && exec "
        '"$@"'
    )


def _view(script: str) -> list[str]:
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "view"]


# Controllers of v1 that a host may have in cgroup2, or not at all.
SPARE = ("net_cls", "net_prio", "hugetlb", "perf_event")
# Put before a command: nothing; a mount namespace with cgroup2 alone at /sys/fs/cgroup; one with v1 controllers alone;
# the same with those for the network; the same with all that the host has to spare.
# The process stays the same one, so whatever the command starts is still our child.
VIEWS: dict[str, list[str]] = {
    "host": [],
    "v2": _view(_V2),
    "v1": _view(_v1()),
    "v1-net": _view(_v1("net_cls net_prio")),
    "v1-all": _view(_v1(optional=" ".join(SPARE))),
}


def v1_with(controllers: Iterable[str]) -> list[str]:
    """The view "v1-all" on a host that has these controllers to spare."""
    return _view(_v1(" ".join(controllers)))


def cgroup_mounts() -> list[str]:
    """Where cgroup file systems of either kind are mounted here."""
    found: list[str] = []
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for line in stream:
            left, _, right = line.partition(" - ")
            if right.startswith(("cgroup ", "cgroup2 ")):
                found.append(left.split()[4])
    return found


_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopt orphans, as an engine's shim does: the init of a detached container becomes our child. prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def children() -> list[int]:
    """The processes whose parent we are."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]


def process_gone(pid: int) -> bool:
    """Whether the process does not exist any more or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
