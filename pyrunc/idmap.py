"""PURE: uidMappings and gidMappings. config-linux.md "User namespace mappings", user_namespaces(7).

May be imported by the planner and by rules. Imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrunc.spec_types import IDMapping

    Rows = Sequence[tuple[int, int, int]]


def rows(mappings: Iterable[IDMapping]) -> list[tuple[int, int, int]]:
    """(containerID, hostID, size) as the kernel wants them; entries of size 0 say nothing and are left out."""
    return [(item["containerID"], item["hostID"], item["size"]) for item in mappings if item["size"]]


def contains(maps: Rows, container_id: int) -> bool:
    """Whether an id inside the container is mapped."""
    return any(first <= container_id < first + size for first, _host, size in maps)


def first(maps: Rows) -> int:
    """The id to become inside: root where root is mapped, else the lowest that is."""
    return 0 if contains(maps, 0) or not maps else min(row[0] for row in maps)


def needs_helper(maps: Rows, own: int, euid: int) -> bool:
    """Whether only newuidmap or newgidmap may write this map: an ordinary user may map but its own id, by itself."""
    return euid != 0 and not (len(maps) == 1 and maps[0][1] == own and maps[0][2] == 1)


def parse(text: str) -> list[tuple[int, int, int]]:
    """The rows of /proc/PID/uid_map or gid_map."""
    found = []
    for line in text.split("\n"):
        numbers = line.split()
        if len(numbers) == 3:
            found.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return found


def matching(maps: Rows, text: str) -> bool:
    """Whether a configured mapping says the same as the map of an existing namespace, in whatever order."""
    return sorted(maps) == sorted(parse(text))
