"""PURE: the two spellings of a sysctl's name. sysctl.d(5): whichever of "." and "/" comes first separates its parts."""

from __future__ import annotations

_SWAPPED = {ord("/"): ".", ord("."): "/"}


def dotted(name: str) -> str:
    """Return the name with dots between its parts, and / for a dot within a part: net.ipv4.conf.eth0/1.forwarding."""
    slash, dot = name.find("/"), name.find(".")
    if slash < 0 or 0 <= dot < slash:
        return name
    return name.translate(_SWAPPED)


def path(name: str) -> str:
    """Return the file below /proc/sys: net/ipv4/conf/eth0.1/forwarding."""
    return dotted(name).translate(_SWAPPED)
