"""PURE: D-Bus values: parsed from GVariant's text form, encoded for csrc/shim/sdbus.c.

Source: GLib "GVariant Text Format", D-Bus Specification "Type System".
"""

from __future__ import annotations

import sys

from pyrunc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Type keywords that may precede a value.
_KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t",
    "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
_BASIC = "ybnqiuxtdsog"
_RANGES = {
    "y": (0, 0xFF),
    "n": (-(1 << 15), (1 << 15) - 1),
    "q": (0, 0xFFFF),
    "i": (-(1 << 31), (1 << 31) - 1),
    "u": (0, (1 << 32) - 1),
    "x": (-(1 << 63), (1 << 63) - 1),
    "t": (0, (1 << 64) - 1),
}
_SIZES = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8}
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
# The specification's limit, which also bounds our own recursion.
_DEPTH = 32
_LONGEST = 255  # of a signature
_WORD_END = " \t\r\n,:()[]{}<>"
NUMBERS = frozenset("ynqiuxtd")


def single(signature: str, at: int = 0) -> int:
    """Return the end of the complete type that begins at `at`, or -1 if there is none."""
    if at >= len(signature):
        return -1
    kind = signature[at]
    if kind in _BASIC or kind == "v":
        return at + 1
    if kind == "a":
        return single(signature, at + 1)
    if kind == "(":
        at += 1
        while at < len(signature) and signature[at] != ")":
            at = single(signature, at)
            if at < 0:
                return -1
        return at + 1 if at < len(signature) else -1
    if kind == "{" and at + 1 < len(signature) and signature[at + 1] in _BASIC:
        end = single(signature, at + 2)
        return end + 1 if 0 < end < len(signature) and signature[end] == "}" else -1
    return -1


def _parts(signature: str) -> list[str]:
    """Return the complete types in a sequence."""
    found, at = [], 0
    while at < len(signature):
        end = single(signature, at)
        found.append(signature[at:end])
        at = end
    return found


class _Reader:
    """A cursor in one text; every method raises ConfigError with the position."""

    __slots__ = ("at", "depth", "path", "text")

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.at = 0
        self.depth = 0

    def wrong(self, what: str) -> ConfigError:
        return ConfigError(
            f"value parse error: {what} at character {self.at + 1} of {self.text!r}",
            path=self.path,
            hint="the value must be GVariant text: true, 'text', uint64 5, ['a', 'b'], @as []",
        )

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise self.wrong(f"no {character!r}")
        self.at += 1

    def word(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in _WORD_END:
            self.at += 1
        return self.text[start : self.at]

    def value(self, want: str = "") -> tuple[str, object]:
        """Return (signature, value) of the next value; `want` is the signature it must have."""
        if self.depth > _DEPTH:
            raise self.wrong("too deep")
        self.depth += 1
        kind, found = self._value(want)
        self.depth -= 1
        if want and kind != want:
            raise self.wrong(f"a value of type {want!r} is wanted, not {kind!r},")
        return kind, found

    def _value(self, want: str) -> tuple[str, object]:
        character = self.peek()
        if character == "@":
            self.at += 1
            start = self.at
            end = single(self.text[: start + _LONGEST], start)
            if end < 0:
                raise self.wrong("no type behind '@'")
            self.at = end
            return self.value(self.text[start:end])
        if character in ("'", '"'):
            return self._text(want)
        if character == "[":
            return self._array(want)
        if character == "{":
            return self._dictionary(want)
        if character == "(":
            return self._tuple(want)
        if character == "<":
            self.at += 1
            inner = self.value()
            self.expect(">")
            return "v", inner
        return self._word(want)

    def _word(self, want: str) -> tuple[str, object]:
        start = self.at
        word = self.word()
        if word in ("true", "false"):
            return "b", word == "true"
        if word in _KEYWORDS:
            return self.value(_KEYWORDS[word])
        fraction = "." in word or (word[-1:].isdigit() and "e" in word.lower() and "x" not in word)
        kind = want if want in NUMBERS else "d" if fraction else "i"
        try:
            number = float(word) if kind == "d" else int(word, 0)
        except ValueError:
            self.at = start
            raise self.wrong("no value") from None
        low, high = _RANGES.get(kind, (number, number))
        if not low <= number <= high and kind != "d":
            self.at = start
            raise self.wrong(f"{word} does not fit into type {kind!r}")
        return kind, number

    def _text(self, want: str) -> tuple[str, object]:
        quote = self.text[self.at]
        self.at += 1
        found: list[str] = []
        while (character := self.text[self.at : self.at + 1]) != quote:
            if not character or character == "\0":
                raise self.wrong(f"no closing {quote}")
            self.at += 1
            found.append(self._escaped() if character == "\\" else character)
        self.at += 1
        return (want if want in ("o", "g") else "s"), "".join(found)

    def _escaped(self) -> str:
        character = self.text[self.at : self.at + 1]
        self.at += 1
        if character in ("u", "U"):
            digits = self.text[self.at : self.at + (4 if character == "u" else 8)]
            try:
                code = int(digits, 16)
                if not code or 0xD800 <= code <= 0xDFFF:
                    raise ValueError
                character = chr(code)
            except (ValueError, OverflowError):
                raise self.wrong("no character code") from None
            self.at += len(digits)
            return character
        return _ESCAPES.get(character, character)

    def _items(self, close: str) -> Iterable[None]:
        """Yield once for each item up to `close`, and read the commas between them."""
        self.at += 1
        first = True
        while self.peek() != close:
            if not first:
                self.expect(",")
                if self.peek() == close:
                    break
            first = False
            yield
        self.at += 1

    def _array(self, want: str) -> tuple[str, object]:
        kind = want[1:] if want[:1] == "a" else ""
        items: list[object] = []
        for _ in self._items("]"):
            kind, item = self.value(kind)
            items.append(item)
        if not kind:
            raise self.wrong("an empty array without a type (@as [])")
        return "a" + kind, items

    def _tuple(self, want: str) -> tuple[str, object]:
        wanted = _parts(want[1:-1]) if want[:1] == "(" else []
        kinds: list[str] = []
        items: list[object] = []
        for _ in self._items(")"):
            kind, item = self.value(wanted[len(items)] if len(items) < len(wanted) else "")
            kinds.append(kind)
            items.append(item)
        if not items:
            raise self.wrong("an empty structure, which D-Bus does not have,")
        return f"({''.join(kinds)})", items

    def _dictionary(self, want: str) -> tuple[str, object]:
        key_kind, value_kind = (want[2], want[3:-1]) if want[:2] == "a{" else ("", "")
        items: list[object] = []
        for _ in self._items("}"):
            key_kind, key = self.value(key_kind)
            self.expect(":")
            value_kind, value = self.value(value_kind)
            items.append([key, value])
        if not key_kind or key_kind not in _BASIC:
            raise self.wrong("a dictionary without a type, or with a key that is none,")
        return f"a{{{key_kind}{value_kind}}}", items


def parse(text: str, path: str) -> tuple[str, object]:
    """Return (signature, value) of a GVariant text. `path` is the JSON path of the text. Raise ConfigError.

    Structures and arrays are lists, a dictionary a list of [key, value], a variant a (signature, value) pair.
    """
    reader = _Reader(text, path)
    found = reader.value()
    if reader.peek():
        raise reader.wrong("more than one value")
    return found


def _basic(kind: str, value: object) -> bytes:
    if kind == "d":
        from struct import pack

        assert isinstance(value, (int, float))
        return b"d" + pack("=d", value)
    if kind in "sog":
        assert isinstance(value, str)
        return kind.encode() + value.encode("utf-8", "replace") + b"\0"
    assert isinstance(value, int)
    return kind.encode() + value.to_bytes(_SIZES[kind], sys.byteorder, signed=kind in "nix")


def describe(signature: str, value: object) -> bytes:
    """Return one value as csrc/shim/sdbus.c reads it. parse() and the tables ensure that it fits the signature."""
    kind = signature[0]
    if kind in _BASIC:
        return _basic(kind, value)
    assert isinstance(value, (list, tuple, bytes))
    if kind == "v":
        inner, content = value
        assert isinstance(inner, str)
        return b"(v" + inner.encode() + b"\0" + describe(inner, content) + b")"
    if kind == "a":
        inner = signature[1:]
        return b"(a" + inner.encode() + b"\0" + b"".join([describe(inner, item) for item in value]) + b")"
    inside = signature[1:-1]
    fields = b"".join([describe(one, item) for one, item in zip(_parts(inside), value, strict=True)])
    return (b"(r" if kind == "(" else b"(e") + inside.encode() + b"\0" + fields + b")"


def body(*pairs: tuple[str, object]) -> bytes:
    """Return the arguments of a call, each a signature with its value."""
    return b"".join([describe(signature, value) for signature, value in pairs])
