"""PURE: a plan's bytes, and init's messages. csrc/plan.h describes both; numbers.py has its numbers."""

from __future__ import annotations

import sys

from pyrunc import __version__
from pyrunc.errors import ConfigError, InternalError
from pyrunc.plan import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TypeAlias

    from pyrunc.spec.id_mappings import IdMap

    Field: TypeAlias = "int | str | bytes | list[str] | list[int] | Fd"

ORDER = sys.byteorder


class Fd:
    """A file descriptor that launch opens before the plan is encoded.

    `kind` is "ns" (arg: path of a namespace file), "fifo", "messages" or "answers" (pipes of FORK), "words" (shared
    memory), or makes a detached mount: "tree" (arg: source path, cloned with open_tree, `recursive` or not, a final
    symbolic link followed unless `nofollow`) or "filesystem" (arg: type; a new one, from `source` with `parameters`).
    A mount gets `propagation` (MS_*, 0 leaves it) and `idmap`.
    """

    __slots__ = ("arg", "idmap", "kind", "nofollow", "parameters", "propagation", "recursive", "source")

    def __init__(
        self,
        kind: str,
        arg: str = "",
        *,
        recursive: bool = False,
        nofollow: bool = False,
        source: str = "",
        parameters: Sequence[str] = (),
        propagation: int = 0,
        idmap: IdMap | None = None,
    ) -> None:
        self.kind = kind
        self.arg = arg
        self.recursive = recursive
        self.nofollow = nofollow
        self.source = source
        self.parameters = parameters
        self.propagation = propagation
        self.idmap = idmap

    def __str__(self) -> str:
        words = [self.kind, self.arg, *([self.source] if self.source else []), *self.parameters]
        if self.idmap is not None:
            words += (
                ["mapped", "recursively", str(self.idmap)]
                if self.idmap.recursive
                else ["mapped", str(self.idmap)]
            )
        return " ".join([word for word in words if word])

    def __repr__(self) -> str:
        return f"<{self}>"


class Op:
    """One step for init: its name and fields as in plan.h, the JSON path it comes from, and why."""

    __slots__ = ("fields", "name", "path", "why")

    def __init__(self, name: str, *fields: Field, path: str = "$", why: str = "") -> None:
        self.name = name
        self.fields = fields
        self.path = path
        self.why = why

    def __repr__(self) -> str:
        return f"{self.name}{self.fields!r} from {self.path}"


class Message:
    """A struct sync_message: numbers as sent, `step` as its name, `text` decoded with surrogateescape."""

    __slots__ = ("code", "errno", "flags", "op", "path", "step", "text", "value")

    def __init__(
        self, code: int, op: int, path: int, step: str, errno: int, flags: int, value: int, text: str
    ) -> None:
        self.code = code
        self.op = op
        self.path = path
        self.step = step
        self.errno = errno
        self.flags = flags
        self.value = value
        self.text = text

    @property
    def hook_place(self) -> int:
        """Return the index of a hook op among the hooks of its kind."""
        return self.flags >> numbers.SYNC_FLAG_HOOK_SHIFT


def milliseconds(seconds: int | None) -> int:
    """Return a configured timeout for a plan: 0 is none, and huge values are cut to fit."""
    return min((seconds or 0) * 1000, (1 << 63) - 1)


def _u32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, ORDER)


def _string(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise InternalError(f"a plan string contains a null byte: {value!r}")
    return _u32(len(raw)) + raw + b"\0"


def _field(letter: str, value: Field, fds: Mapping[Fd, int]) -> bytes:
    if letter == "u" and isinstance(value, int):
        return _u32(value)
    if letter == "q" and isinstance(value, int):
        return (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, ORDER)
    if letter == "s" and isinstance(value, (str, bytes)):
        return _string(value)
    if letter == "b" and isinstance(value, bytes):
        return _u32(len(value)) + value
    if letter == "l" and isinstance(value, list):
        return _u32(len(value)) + b"".join([_string(str(item)) for item in value])
    if letter == "v" and isinstance(value, list):
        return _u32(len(value)) + b"".join([_u32(int(item)) for item in value])
    if letter == "f":
        return _u32(fds[value] if isinstance(value, Fd) else int(value))  # type: ignore[arg-type]
    raise InternalError(f"a plan field of kind '{letter}' cannot hold {value!r}")


def encode(ops: Sequence[Op], fds: Mapping[Fd, int] = {}) -> bytes:
    """Turn ops into the bytes init reads; path indices are the ops' own indices.

    Raise InternalError for a field that does not fit its letter, ConfigError for a plan over 16 MiB.
    """
    records = [b""]
    total = numbers.PLAN_HEADER_SIZE
    for index, op in enumerate(ops):
        number, letters = numbers.OPS[op.name]
        if len(letters) != len(op.fields):
            raise InternalError(f"op {op.name} takes {len(letters)} fields, got {len(op.fields)}")
        # By far the most frequent letters; _field has the others, and the error messages.
        parts = [b""]
        for letter, value in zip(letters, op.fields, strict=True):
            if letter == "s" and type(value) is str and "\0" not in value:
                raw = value.encode("utf-8", "surrogateescape")
                parts += (len(raw).to_bytes(4, ORDER), raw, b"\0")
            elif letter == "u" and type(value) is int and 0 <= value <= 0xFFFFFFFF:
                parts.append(value.to_bytes(4, ORDER))
            else:
                parts.append(_field(letter, value, fds))
        used = 12 + sum(map(len, parts))
        size = (used + 7) & ~7
        parts[0] = number.to_bytes(2, ORDER) + b"\0\0" + size.to_bytes(4, ORDER) + index.to_bytes(4, ORDER)
        parts.append(bytes(size - used))
        records += parts
        total += size
    if total > numbers.PLAN_MAX_SIZE:
        raise ConfigError(
            f"it makes a plan of {total / (1 << 20):.1f} MiB for init, {numbers.PLAN_MAX_SIZE >> 20} MiB are the most",
            path="$",
            hint="annotations count once for each createContainer and startContainer hook",
        )
    version = __version__.encode()[:31]
    records[0] = (
        _u32(numbers.PLAN_MAGIC)
        + numbers.PLAN_FORMAT.to_bytes(2, ORDER)
        + numbers.PLAN_HEADER_SIZE.to_bytes(2, ORDER)
        + _u32(total)
        + _u32(len(ops))
        + version
        + bytes(32 - len(version))
    )
    return b"".join(records)


def _read(letter: str, data: bytes, at: int) -> tuple[Field, int]:
    def number(offset: int, size: int) -> int:
        if offset + size > len(data):
            raise InternalError("a plan field runs past its record")
        return int.from_bytes(data[offset : offset + size], ORDER)

    if letter in "uf":
        value = number(at, 4)
        return (value - (1 << 32) if letter == "f" and value >> 31 else value), at + 4
    if letter == "q":
        return number(at, 8), at + 8
    count = number(at, 4)
    at += 4
    if letter == "b":
        number(at, count)
        return data[at : at + count], at + count
    if letter == "s":
        if number(at + count, 1) != 0 or b"\0" in data[at : at + count]:
            raise InternalError("a plan string is not NUL-terminated")
        return data[at : at + count].decode("utf-8", "surrogateescape"), at + count + 1
    items: list[Field] = []
    for _ in range(count):
        item, at = _read("s" if letter == "l" else "u", data, at)
        items.append(item)
    return items, at  # type: ignore[return-value]


def decode(data: bytes, paths: Iterable[str] = ()) -> list[Op]:
    """The inverse of `encode`, strict about every length. Raise InternalError on anything odd."""
    texts = list(paths)
    if len(data) < numbers.PLAN_HEADER_SIZE or int.from_bytes(data[:4], ORDER) != numbers.PLAN_MAGIC:
        raise InternalError("not a plan")
    if (
        int.from_bytes(data[4:6], ORDER) != numbers.PLAN_FORMAT
        or int.from_bytes(data[6:8], ORDER) != numbers.PLAN_HEADER_SIZE
    ):
        raise InternalError("a plan of another format")
    if int.from_bytes(data[8:12], ORDER) != len(data):
        raise InternalError("the plan's size is not the size it states")
    names = {number: (name, letters) for name, (number, letters) in numbers.OPS.items()}
    ops: list[Op] = []
    at = numbers.PLAN_HEADER_SIZE
    for _ in range(int.from_bytes(data[12:16], ORDER)):
        if at + 12 > len(data):
            raise InternalError("the plan ends inside a record")
        number = int.from_bytes(data[at : at + 2], ORDER)
        size = int.from_bytes(data[at + 4 : at + 8], ORDER)
        path = int.from_bytes(data[at + 8 : at + 12], ORDER)
        if number not in names or size < 12 or size % 8 or at + size > len(data):
            raise InternalError(f"op number {number} of {size} bytes does not fit the plan")
        name, letters = names[number]
        body = data[at + 12 : at + size]
        fields: list[Field] = []
        offset = 0
        for letter in letters:
            value, offset = _read(letter, body, offset)
            fields.append(value)
        if len(body) - offset > 7 or any(body[offset:]):
            raise InternalError(f"op {name} has bytes behind its fields")
        ops.append(Op(name, *fields, path=texts[path] if path < len(texts) else "$"))
        at += size
    if at != len(data):
        raise InternalError("the plan has bytes behind its last record")
    return ops


def message(data: bytes) -> Message:
    """Parse one struct sync_message. Raise InternalError if its size or code is wrong."""
    if len(data) != numbers.SYNC_MESSAGE_SIZE:
        raise InternalError(f"a sync message of {len(data)} bytes, expected {numbers.SYNC_MESSAGE_SIZE}")
    words = [int.from_bytes(data[i : i + 4], ORDER) for i in range(0, 24, 4)]
    errno = words[4] - (1 << 32) if words[4] >> 31 else words[4]
    step = numbers.STEPS[words[3]] if words[3] < len(numbers.STEPS) else f"step {words[3]}"
    value = int.from_bytes(data[24:32], ORDER, signed=True)
    text = data[numbers.SYNC_MESSAGE_TEXT :].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    return Message(words[0], words[1], words[2], step, errno, words[5], value, text)


def last_words(data: bytes) -> tuple[int, Message | None]:
    """Parse a struct last_words, which may be forged by the container: (index of the op, its message)."""
    data = data.ljust(numbers.LAST_WORDS_SIZE, b"\0")
    said = int.from_bytes(data[4:8], ORDER) == 1
    return int.from_bytes(data[:4], ORDER), message(data[8 : numbers.LAST_WORDS_SIZE]) if said else None
