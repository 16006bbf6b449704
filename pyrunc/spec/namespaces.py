"""PURE: the types of linux.namespaces, with the kernel's flag and file for each. config-linux.md; namespaces(7)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.shapes import Spec

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# Type -> (CLONE_NEW* flag, name of the file in /proc/PID/ns).
NAMESPACES: dict[str, tuple[int, str]] = {
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "mount": (CLONE_NEWNS, "mnt"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "time": (CLONE_NEWTIME, "time"),
    "user": (CLONE_NEWUSER, "user"),
    "uts": (CLONE_NEWUTS, "uts"),
}


def joins(spec: Spec, kind: str) -> bool:
    """Whether a namespace of this type is one that the configuration names by its path."""
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    return any(item["type"] == kind and item.get("path") for item in namespaces)
