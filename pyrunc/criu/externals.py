"""PURE: the external resources of a container, in CRIU's terms: bind mounts and namespaces from outside.

    dump       external "mnt[MOUNT POINT]:NAME"      the image refers to NAME and does not look behind it
    restore    external "mnt[NAME]:SOURCE"           SOURCE of the restoring host is bound there

The mounts are taken from create's plan, so that dump, restore and create agree; NAME is the destination, as in runc.
"""

from __future__ import annotations

from pyrunc.plan.numbers import DEVICE_FLAG_BIND, MOUNT_FLAG_DONE_SKIP, MOUNT_FLAG_RECURSIVE
from pyrunc.plan.wire import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyrunc.plan.wire import Op

NULL = "/dev/null"
# Namespaces that CRIU can treat as external: type -> (its name for them, the key in runc's images, the first version of
# CRIU that can).
NAMESPACES = {"network": ("extRootNetNS", 31100), "pid": ("extRootPidNS", 31500)}
# The prefix of the key of an open file that is on none of the container's mounts.
FILE = "file["
_FLAGS = -1  # the last field of MOUNT_NEW, MOUNT_BIND and DEVICE


class Bind:
    """A bind mount of a plan: its target in the container, its source on the host, whether it is recursive."""

    __slots__ = ("recursive", "source", "target")

    def __init__(self, target: str, source: str, *, recursive: bool = False) -> None:
        self.target = target
        self.source = source
        self.recursive = recursive


def _flag(op: Op, bit: int) -> bool:
    flags = op.fields[_FLAGS]
    return isinstance(flags, int) and bool(flags & bit)


def _text(op: Op, index: int) -> str:
    value = op.fields[index]
    return value if isinstance(value, str) else ""


def binds(ops: Iterable[Op]) -> list[Bind]:
    """Return the bind mounts of a plan, without those that only replace a file system that could not be mounted."""
    found: list[Bind] = []
    stands_in = False
    for op in ops:
        if op.name == "MOUNT_BIND" and not stands_in:
            recursive = _flag(op, MOUNT_FLAG_RECURSIVE)
            found.append(Bind(_text(op, 0), _text(op, 1), recursive=recursive))
        elif op.name == "DEVICE" and _flag(op, DEVICE_FLAG_BIND):
            found.append(Bind(_text(op, 0), _text(op, 0)))
        stands_in = op.name == "MOUNT_NEW" and _flag(op, MOUNT_FLAG_DONE_SKIP)
    return found


def id_mapped(ops: Iterable[Op]) -> str | None:
    """Return the JSON path of the first id-mapped mount of a plan, or None if there is none."""
    for op in ops:
        if any(isinstance(field, Fd) and field.idmap is not None for field in op.fields):
            return op.path
    return None


def _mounted(ops: Iterable[Op]) -> set[str]:
    """Return every mount point of a plan."""
    return {_text(op, 0) for op in ops if op.name in ("MOUNT_NEW", "MOUNT_BIND", "DEVICE")}


def _below(points: Iterable[str], top: str) -> list[str]:
    start = top.rstrip("/") + "/"
    return [point for point in points if point.startswith(start) and point != start]


def dumped(
    ops: Sequence[Op], points: Sequence[str], masked: Iterable[str], real: Callable[[str], str]
) -> list[str]:
    """Return the external mounts of a dump.

    `points` are the container's mount points as the kernel lists them, `masked` the masked paths that are not
    directories, `real` resolves links of the container. What is no longer mounted is left out.
    """
    there = set(points)
    own = {real(target) for target in _mounted(ops)}
    names: dict[str, str] = {}
    for bind in binds(ops):
        point = real(bind.target)
        if point not in there:
            continue
        names[point] = bind.target
        if not bind.recursive:
            continue
        for below in _below(points, point):
            # Other mounts of the plan there, or below there, are not part of this bind mount.
            if not any(below == other or below.startswith(other + "/") for other in own - {point}):
                names[below] = bind.target + below[len(point) :]
    for path in masked:
        point = real(path)
        if point in there:
            names[point] = NULL
    return [f"mnt[{point}]:{name}" for point, name in names.items()]


def restored(ops: Iterable[Op], points: Sequence[str], real: Callable[[str], str]) -> list[str]:
    """Return the external mounts of a restore; `points` are the host's mount points, `real` resolves its links."""
    sources = {NULL: NULL}
    for bind in binds(ops):
        sources[bind.target] = bind.source
        if bind.recursive:
            top = real(bind.source)
            for below in _below(points, top):
                rest = below[len(top.rstrip("/")) :]
                sources.setdefault(bind.target + rest, bind.source.rstrip("/") + rest)
    return [f"mnt[{name}]:{source}" for name, source in sources.items()]
