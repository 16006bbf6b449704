"""Says why a document was refused. Loaded only then, as it may load the json module."""

from __future__ import annotations

import json

from pyrunc.errors import ConfigError
from pyrunc.json_text.path import member, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"


class _Constant:
    """NaN, Infinity or -Infinity where a value should be."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Pairs:
    """An object with its names as written, repeated ones included."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self.pairs = pairs


def explain(data: bytes, name: str, max_depth: int) -> ConfigError:
    """The reason, as an error to raise: line and column for syntax, the JSON path for a bad name or value."""
    if data.startswith(_BOM):
        return ConfigError(
            f"invalid JSON in {name}: it starts with a byte order mark", hint="save it as UTF-8 without BOM"
        )
    if not data.strip(b" \t\n\r"):
        return ConfigError(f"invalid JSON in {name}: it is empty")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        byte = data[error.start]
        return ConfigError(
            f"invalid JSON in {name}: line {line} byte {column}: 0x{byte:02x} is not valid UTF-8 here"
        )
    try:
        document: object = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_Constant)
    except json.JSONDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
        return ConfigError(f"invalid JSON in {name}: line {error.lineno} column {error.colno}: {message}")
    except RecursionError:
        return _deep(name, max_depth)
    except ValueError:
        return ConfigError(f"invalid JSON in {name}: a number has too many digits")
    for path, message in _problems(document, "$", max_depth):
        if path is None:
            return _deep(name, max_depth)
        return ConfigError(f"invalid JSON in {name}: {message}", path=path)
    return ConfigError(f"invalid JSON in {name}")


def _deep(name: str, limit: int) -> ConfigError:
    return ConfigError(f"invalid JSON in {name}: nested more than {limit} levels deep")


def _problems(value: object, path: str, levels: int) -> Iterator[tuple[str | None, str]]:
    """Yield path and message for what the scanner accepts and pyrunc refuses; path None: more than `levels` deep."""
    if levels < 0:
        yield None, "too deep"
    elif isinstance(value, _Constant):
        yield path, f"{value.name} is not a JSON number"
    elif isinstance(value, str) and not _encodable(value):
        yield path, f"{value!a} contains half of a surrogate pair"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, f"{path}[{index}]", levels - 1)
    elif isinstance(value, _Pairs):
        seen = set()
        for key, item in value.pairs:
            if not _encodable(key):
                yield path, f"{key!a} contains half of a surrogate pair"
            below = member(path, key)
            if key in seen:
                yield below, f"duplicate name {quote(key)}"
            seen.add(key)
            yield from _problems(item, below, levels - 1)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
