"""PURE: how a rule reports a problem, and the rules for texts in any field."""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.json_text.path import quote
from pyrunc.spec import number_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def fail(message: str, path: str, hint: str | None = None) -> NoReturn:
    """Raise ConfigError."""
    raise ConfigError(message, path=path, hint=hint)


def no_nul(text: str, path: str) -> None:
    """Raise ConfigError if the text has a NUL byte: the kernel's strings end there, and the rest would be lost."""
    if "\0" in text:
        fail("contains a null byte", path)


def no_nuls(texts: list[str], path: str) -> None:
    """Call no_nul for each text of a list."""
    if "\0" in "".join(texts):
        for index, text in enumerate(texts):
            no_nul(text, f"{path}[{index}]")


def absolute(value: str, path: str, what: str) -> None:
    """Raise ConfigError unless `value` is an absolute path."""
    if value[:1] != "/":
        fail(f"{what} must be absolute, not {quote(value)}", path)
    no_nul(value, path)


def numbers(text: str, path: str) -> int:
    """How many numbers a list such as "0-3,7" has. Raise ConfigError for a range that ends before it begins."""
    try:
        return number_list.mask(text).bit_count()
    except ValueError as error:
        fail(str(error), path)
