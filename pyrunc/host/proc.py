"""Files of /proc and /sys."""

from __future__ import annotations

import os

from pyrunc.errors import check_shortage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def read_file(path: str, default: str = "") -> str:
    """Return a small file of /proc or /sys, or `default` if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        check_shortage("open", error, path)
        return default
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
    except OSError as error:
        check_shortage("read", error, path)
        return default
    finally:
        os.close(fd)
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def mountinfo(process: str = "self") -> Iterator[tuple[list[str], tuple[str, str, str]]]:
    """Yield for each mount of a process the fields before the hyphen, and type, source and options after it.

    Paths are still escaped. proc(5)
    """
    # Not splitlines(): a path may contain what that takes for the end of a line.
    for line in read_file(f"/proc/{process}/mountinfo").split("\n"):
        left, hyphen, right = line.partition(" - ")
        if hyphen:
            kind, _, rest = right.partition(" ")
            source, _, options = rest.partition(" ")
            yield left.split(" "), (kind, source, options)


def cgroups(pid: int) -> Iterator[tuple[str, str]]:
    """Yield for each hierarchy its controllers, joined by commas ("" on v2), and the process's cgroup. cgroups(7)"""
    for line in read_file(f"/proc/{pid}/cgroup").split("\n"):
        _, _, place = line.partition(":")
        controllers, colon, path = place.partition(":")
        if colon:
            yield controllers, path


def unescape(text: str) -> str:
    """Return an unescaped path of /proc/PID/mountinfo. proc(5)."""
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
