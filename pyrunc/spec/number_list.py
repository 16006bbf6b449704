"""PURE: lists such as "0-3,7", of CPUs and memory nodes. cpuset(7), "List format"."""

from __future__ import annotations

# More CPUs or nodes than any kernel supports; the mask of a hostile list would take all memory.
MOST = 65535
_DIGITS = 40


def _number(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f'"{digits}" is not a number')
    return int(digits)


def spans(text: str) -> list[tuple[int, int]]:
    """The first and the last number of each range. Raise ValueError, which says what is wrong with which."""
    found = []
    for part in text.replace(" ", "").split(","):
        if not part:
            continue
        low, dash, high = part.partition("-")
        if len(part) > _DIGITS:
            raise ValueError(f'"{part[:_DIGITS]}" is beyond {MOST}')
        first, last = _number(low), _number(high if dash else low)
        if last > MOST:
            raise ValueError(f'"{part}" is beyond {MOST}')
        if last < first:
            raise ValueError(f'"{part}" ends before it begins')
        found.append((first, last))
    return found


def mask(text: str) -> int:
    """A bit for each number. Raise ValueError."""
    bits = 0
    for first, last in spans(text):
        bits |= ((1 << (last - first + 1)) - 1) << first
    return bits
