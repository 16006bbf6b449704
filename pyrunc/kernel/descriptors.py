"""Descriptors beside a message of a Unix socket, as sendmsg() and recvmsg() take and give them. unix(7)."""

from __future__ import annotations

import _socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Ancillary = tuple[int, int, bytes]

SIZE = 4  # an int, on every Linux


def beside(fd: int) -> list[Ancillary]:
    """Return the ancillary data that sends `fd` with a message."""
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(SIZE, sys.byteorder))]


def received(ancillary: Sequence[Ancillary]) -> list[int]:
    """Return all descriptors that came with a message. They are open; the caller closes them."""
    return [
        int.from_bytes(content[at : at + SIZE], sys.byteorder)
        for level, kind, content in ancillary
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
        for at in range(0, len(content) - SIZE + 1, SIZE)
    ]
