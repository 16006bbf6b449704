"""PURE: names as JSON paths and messages show them."""

from __future__ import annotations

from _json import encode_basestring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


def member(path: str, name: str) -> str:
    """The JSON path of a member: `$.a.b`, or `$.a['b.c']` where the name is no plain word."""
    if name.isidentifier():
        return f"{path}.{name}"
    inner = quote(name)[1:-1].replace("'", "\\'")
    return f"{path}['{inner}']"


def escape(char: str) -> str:
    """A character as JSON writes it."""
    if char.isprintable() or char < " ":
        return char  # control characters are escaped already
    if "\ud800" <= char <= "\udfff":
        # File names can hold any bytes; Go's encoder writes the replacement character for them too.
        return "\ufffd"
    return "".join([f"\\u{half:04x}" for half in memoryview(char.encode("utf-16-le")).cast("H")])


def quote(value: str) -> str:
    """Return `value` as a JSON string with quotes; messages also show untrusted text this way.

    What is not printable is escaped, also where JSON does not need it: documents are shown on terminals.
    """
    text = encode_basestring(value)
    return text if value.isprintable() else "".join([escape(char) for char in text])
