"""/proc/self/mountinfo as tests look at it, and a command prefix that mounts sources for containers to bind."""

from __future__ import annotations

import support


class Mount:
    """One line: `options` are the mount's, `superblock` the file system's, `tags` the propagation's ("shared:3")."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split()
        self.device, self.root, self.point = fields[2:5]
        self.options = set(fields[5].split(","))
        self.tags = [tag.partition(":")[0] for tag in fields[6:]]
        self.kind, self.source, options = (right.split(" ", 2) + [""])[:3]
        self.superblock = set(options.split(","))


def parse(text: str) -> dict[str, Mount]:
    """Mount point -> what is mounted there and visible: the last one."""
    lines = [line for line in text.splitlines() if " - " in line]
    return {mount.point: mount for mount in map(Mount, lines)}


_MOUNT = (
    'mount -t tmpfs -o "$2" source "$1" && mkdir -p "$1/sub" 2>/dev/null;'
    ' mount -o remount,rw "$1" && mkdir -p "$1/sub" && mount -o "remount,$2" "$1"'
    ' && mount -t tmpfs -o "$2" nested "$1/sub" && { [ -z "$3" ] || mount "--make-r$3" "$1"; }'
    ' && shift 3 && exec "$@"'
)


def with_source(directory: str, options: str = "rw", propagation: str = "") -> list[str]:
    """The command in a mount namespace where `directory` is a tmpfs with another one at sub, both with `options`."""
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", _MOUNT, "source", directory, options]
    return [*argv, propagation, support.PYRUNC]
