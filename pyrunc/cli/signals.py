"""PURE: signal names and numbers for `kill`.

The numbers are the interpreter's own table. The `signal` module turns it into enums at import, which costs 4 ms.
"""

from __future__ import annotations

import _signal

from pyrunc.errors import UsageError

# SIGRTMIN as kill(1) and programs use it: the C library keeps the kernel's first two, 32 and 33.
RTMIN = 34
RTMAX = 64


def number(text: str) -> int:
    """Return the number of a signal given as `15`, `TERM`, `SIGTERM`, `sigterm`, `RTMIN+3` or `RTMAX-1`.

    0 is valid: it only checks that the process exists, kill(2). Raise UsageError if the text is not a signal.
    """
    if text.isascii() and text.isdigit():
        value = int(text[-9:]) if len(text) < 10 else -1
        if 0 <= value <= RTMAX:
            return value
    name = text.upper().removeprefix("SIG")
    if name.isalnum() and name.isascii():
        known: object = getattr(_signal, f"SIG{name}", None)
        if isinstance(known, int) and not name.startswith("RT"):
            return int(known)
    value = _realtime(name)
    if value:
        return value
    raise UsageError(
        f'unknown signal "{text}"', hint="give a number from 0 to 64 or a name as KILL or SIGKILL"
    )


def _realtime(name: str) -> int:
    """Return the number of RTMIN, RTMIN+n, RTMAX or RTMAX-n; 0 if the name is none of them."""
    base, sign, steps = name, "", "0"
    for character in "+-":
        if character in name:
            base, sign, steps = name.partition(character)
    if (base, sign) not in (("RTMIN", ""), ("RTMIN", "+"), ("RTMAX", ""), ("RTMAX", "-")):
        return 0
    if not (steps.isascii() and steps.isdigit() and len(steps) <= 2):
        return 0
    value = RTMIN + int(steps) if base == "RTMIN" else RTMAX - int(steps)
    return value if RTMIN <= value <= RTMAX else 0
