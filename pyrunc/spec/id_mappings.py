"""PURE: uidMappings and gidMappings. config-linux.md "User namespace mappings", user_namespaces(7)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrunc.spec.shapes import IDMapping

    Rows = Sequence[tuple[int, int, int]]

ID_MAX = 0xFFFFFFFE  # 0xFFFFFFFF is -1, which is not an id


class IdMap:
    """The id mapping of a mount: rows of (id in the file system, id on the host, size).

    With `namespace`, the path of a user namespace, the rows are empty and its maps count. `recursive` includes the
    mounts below, `path` is its JSON path.
    """

    __slots__ = ("gids", "namespace", "path", "recursive", "uids")

    def __init__(
        self, uids: Rows = (), gids: Rows = (), *, namespace: str = "", recursive: bool, path: str
    ) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)
        self.namespace = namespace
        self.recursive = recursive
        self.path = path

    def __str__(self) -> str:
        if self.namespace:
            return f"of {self.namespace}"
        return f"uids {text(self.uids, '-', '#')} gids {text(self.gids, '-', '#')}"

    @property
    def key(self) -> tuple[object, ...]:
        """Return a key that is equal for mappings that can share a user namespace."""
        return self.uids, self.gids, self.namespace


def rows(mappings: Iterable[IDMapping]) -> list[tuple[int, int, int]]:
    """Return (containerID, hostID, size) rows as the kernel takes them; entries of size 0 are left out."""
    return [(item["containerID"], item["hostID"], item["size"]) for item in mappings if item["size"]]


def text(maps: Rows, between: str = " ", behind: str = "\n") -> str:
    """Return the rows as one text, by default as /proc/PID/uid_map takes them."""
    return behind.join([between.join([str(number) for number in row]) for row in maps])


def in_place(option: str, uids: Rows, gids: Rows) -> tuple[list[tuple[int, int, int]], ...]:
    """(uids, gids) of crun's option `idmap=uids=0-1000-10#10-2000-5;gids=@0-0-10`, each triple one row.

    With "@" the host id of a triple is one of the container's: `uids` and `gids` are the maps of its user namespace.
    Raise ValueError with a message for the user.
    """
    found: dict[str, list[tuple[int, int, int]]] = {"uids": [], "gids": []}
    for part in option.split(";"):
        name, _, triples = part.partition("=")
        if name not in found:
            raise ValueError(f"'{part}' is neither uids= nor gids=")
        for triple in triples.split("#"):
            found[name] += _triple(triple, uids if name == "uids" else gids)
    return found["uids"], found["gids"]


def _triple(text: str, maps: Rows) -> list[tuple[int, int, int]]:
    words = text.removeprefix("@").split("-")
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) <= 10 for word in words):
        raise ValueError(f"'{text}' is no mapping: FILE_SYSTEM_ID-HOST_ID-SIZE is wanted")
    inside, outside, size = (int(word) for word in words)
    if not size or max(inside, outside) + size - 1 > ID_MAX:
        raise ValueError(f"'{text}' is no mapping: ids go from 0 to {ID_MAX}")
    return _resolved(text, inside, outside, size, maps) if text[0] == "@" else [(inside, outside, size)]


def _resolved(text: str, inside: int, first: int, size: int, maps: Rows) -> list[tuple[int, int, int]]:
    """Return rows for ids of the container, one for each row of its own map that they are in."""
    if not maps:
        raise ValueError(f"'{text}' is relative, and the container has no mappings of its own")
    found = []
    while size:
        row = _row(maps, first)
        if row is None:
            raise ValueError(f"'{text}' is relative, and {first} is not mapped in the container")
        count = min(size, row[0] + row[2] - first)
        found.append((inside, row[1] + first - row[0], count))
        inside, first, size = inside + count, first + count, size - count
    return found


def _row(maps: Rows, container_id: int) -> tuple[int, int, int] | None:
    return next((row for row in maps if row[0] <= container_id < row[0] + row[2]), None)


def contains(maps: Rows, container_id: int) -> bool:
    """Return whether an id inside the container is mapped."""
    return _row(maps, container_id) is not None


def host_id(maps: Rows, container_id: int) -> int | None:
    """Return the host's id for an id inside the container; None if it is not mapped."""
    row = _row(maps, container_id)
    return None if row is None else row[1] + container_id - row[0]


def first(maps: Rows) -> int:
    """Return the id to become inside: root if root is mapped, else the lowest mapped id."""
    return 0 if contains(maps, 0) or not maps else min(row[0] for row in maps)


def needs_helper(maps: Rows, own: int, euid: int) -> bool:
    """Return whether only newuidmap or newgidmap may write this map: a user may map only the own id without them."""
    return euid != 0 and not (len(maps) == 1 and maps[0][1] == own and maps[0][2] == 1)


def parse(text: str) -> list[tuple[int, int, int]]:
    """Return the rows of /proc/PID/uid_map or gid_map."""
    found = []
    for line in text.split("\n"):
        numbers = line.split()
        if len(numbers) == 3:
            found.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return found


def matching(maps: Rows, text: str) -> bool:
    """Return whether a configured mapping equals the map of an existing namespace, in any order."""
    return sorted(maps) == sorted(parse(text))
