"""JSON without the json module: bytes -> checked document, document -> text.

The standard `json` package imports `re` and `enum` (6-10 ms); its C scanner alone costs nothing. Refused documents are
explained by explain.py.
"""

from __future__ import annotations

from _json import make_scanner

from pyrunc.json_text.path import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

MAX_DEPTH = 256
_WHITESPACE = " \t\n\r"


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    # config.md: names must not be repeated. A reader of the first one and a reader of the last would disagree.
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("duplicate name")
    return document


def _no_constant(name: str) -> JSON:
    raise ValueError(name)


class _Context:
    """The settings of the C scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_no_constant)
    memo: dict[str, str] = {}  # noqa: RUF012  # read by older scanners only, never written


_scan = make_scanner(_Context())  # type: ignore[arg-type]  # it takes any object with these attributes


def loads(data: bytes, name: str = "document") -> JSON:
    """The document in `data`, RFC 8259 to the letter: UTF-8 without BOM, unique names, no NaN, nothing behind it.

    At most MAX_DEPTH levels deep. Raise ConfigError, with line and column or the JSON path; `name` says of what.
    """
    try:
        text = data.decode("utf-8")
        start = len(text) - len(text.lstrip(_WHITESPACE))
        document: JSON
        document, end = _scan(text, start)
        good = not text[end:].strip(_WHITESPACE)
    except (ValueError, StopIteration, RecursionError, SystemError):
        # SystemError: in 3.11 the scanner takes its exception class from json.decoder, which is not loaded. The
        # document is invalid in any case.
        good = False
        document = None
    if good and data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        good = not too_deep(document)
    if good and (b"\\ud" in data or b"\\uD" in data):
        good = encodable(document)
    if not good:
        from pyrunc.json_text import explain

        raise explain.explain(data, name, MAX_DEPTH)
    return document


def too_deep(document: JSON) -> bool:
    """Return whether `document` is nested more than MAX_DEPTH levels deep."""
    level: list[JSON] = [document]
    for _ in range(MAX_DEPTH + 1):
        below: list[JSON] = []
        for value in level:
            if type(value) is dict:
                below.extend(value.values())
            elif type(value) is list:
                below.extend(value)
        if not below:
            return False
        level = below
    return True


def encodable(document: JSON) -> bool:
    """Return whether every string has a UTF-8 form: an escaped lone surrogate such as backslash-ud800 has none."""
    level: list[JSON] = [document]
    try:
        while level:
            value = level.pop()
            if type(value) is str:
                value.encode()
            elif type(value) is dict:
                level.extend(value)
                level.extend(value.values())
            elif type(value) is list:
                level.extend(value)
    except UnicodeEncodeError:
        return False
    return True


def _scalar(value: object) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float) and value - value == 0:
        return float.__repr__(value)
    raise TypeError(f"no JSON for {value!r}")


def _write(value: object, newline: str, step: str, out: list[str]) -> None:
    if isinstance(value, str):
        out.append(quote(value))
        return
    if isinstance(value, dict):
        pairs: Iterable[tuple[str, object]] = [
            (quote(key) + (": " if step else ":"), value[key]) for key in value
        ]
        left, right = "{", "}"
    elif isinstance(value, list | tuple):
        pairs = [("", item) for item in value]
        left, right = "[", "]"
    else:
        out.append(_scalar(value))
        return
    inner = newline + step if step else ""
    lead = left + inner
    for prefix, item in pairs:
        out.append(lead + prefix)
        _write(item, inner, step, out)
        lead = "," + inner
    if not value:
        out.append(left + right)
    else:
        out.append((newline if step else "") + right)


def dumps(document: object, indent: int | None = None) -> str:
    """Return `document` as text like Go's encoder: names in the given order, UTF-8 as it is, no HTML escapes.

    Unlike in Go's, everything that is not printable is escaped. With `indent` there is one name per line, with that
    many spaces per level, and empty containers are `{}` and `[]`; without it there are no blanks.
    """
    out: list[str] = []
    _write(document, "\n", " " * (indent or 0), out)
    return "".join(out)
