"""PURE: how a rule says no, and the rules that hold for texts wherever they stand."""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.json_text.path import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# More CPUs or nodes than any kernel is built for; a mask of what a hostile list names would take all memory.
_LIST_MAX = 65535
_LIST_DIGITS = 40


def fail(message: str, path: str, hint: str | None = None) -> NoReturn:
    """Raises ConfigError."""
    raise ConfigError(message, path=path, hint=hint)


def no_nul(text: str, path: str) -> None:
    """The kernel's strings end at a NUL byte: a text with one would silently mean something else."""
    if "\0" in text:
        fail("contains a null byte", path)


def no_nuls(texts: list[str], path: str) -> None:
    """no_nul for each of a list."""
    if "\0" in "".join(texts):
        for index, text in enumerate(texts):
            no_nul(text, f"{path}[{index}]")


def absolute(value: str, path: str, what: str) -> None:
    """Raises ConfigError unless `value` is an absolute path."""
    if value[:1] != "/":
        fail(f"{what} must be absolute, not {quote(value)}", path)
    no_nul(value, path)


def numbers(text: str, path: str) -> int:
    """How many numbers a list such as "0-3,7" has. Raises ConfigError for a range that ends before it begins."""
    seen: set[int] = set()
    for part in text.replace(" ", "").split(","):
        if part:
            first, _, last = part.partition("-")
            if len(part) > _LIST_DIGITS or int(last or first) > _LIST_MAX:
                fail(f"{quote(part[:_LIST_DIGITS])} is beyond {_LIST_MAX}", path)
            if last and int(last) < int(first):
                fail(f"{quote(part)} ends before it begins", path)
            seen.update(range(int(first), int(last or first) + 1))
    return len(seen)
