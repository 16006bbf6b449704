"""Files of /proc and /sys."""

from __future__ import annotations

import os

from pyrunc.errors import check_shortage

TYPE_CHECKING = False


def read_file(path: str, default: str = "") -> str:
    """A small file of /proc or /sys whole, `default` when it cannot be read."""
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


def unescape(text: str) -> str:
    """A path of /proc/PID/mountinfo as it is. proc(5)."""
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
