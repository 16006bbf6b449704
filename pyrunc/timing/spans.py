"""What is measured: spans of time, and the stamps that init writes."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from pyrunc.plan.wire import Op

    class Timed(Protocol):
        """Any function."""

        def __call__(self, *args: object, **kwargs: object) -> object:
            """Call it."""


_MFD_CLOEXEC = 1
_STAMP_SIZE = 8


class Span:
    """A span of time from `begin` to `end`, on the time line of process `pid` (0: the runtime)."""

    __slots__ = ("begin", "end", "note", "pid", "text")

    def __init__(self, text: str, begin: int, end: int, *, pid: int = 0, note: str = "") -> None:
        self.text = text
        self.begin = begin
        self.end = end
        self.pid = pid
        self.note = note


class Stamps:
    """The memory that one init writes into: when each of `ops` began, by CLOCK_REALTIME."""

    __slots__ = ("fd", "monotonic", "ops", "pid", "realtime")

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.pid = 0
        self.fd = os.memfd_create("trace", _MFD_CLOEXEC)
        os.ftruncate(self.fd, _STAMP_SIZE * len(ops))
        # Read together: the clock that no time namespace shifts, and ours.
        self.realtime, self.monotonic = time.time_ns(), time.monotonic_ns()

    def read(self) -> list[int]:
        """Return when each op began; 0 if it did not, or if init could not note the time any more."""
        data = os.pread(self.fd, _STAMP_SIZE * len(self.ops), 0)
        os.close(self.fd)
        values = [
            int.from_bytes(data[at : at + _STAMP_SIZE], sys.byteorder)
            for at in range(0, len(data), _STAMP_SIZE)
        ]
        return [value - self.realtime + self.monotonic if value else 0 for value in values]
