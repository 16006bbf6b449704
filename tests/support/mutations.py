"""Documents that are almost right: one or a few mutations away from a good one, structure first, bytes afterwards.

source = Source(chance, [good, documents])
data = source.next()                  # bytes, mostly JSON
source.value(near="text")             # one hostile value
"""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_NUMBERS = [
    *(0, -1, 1, 2, 7, 255, 256, 65535, 65536, -32768),
    *(
        sign * ((1 << bits) + more)
        for bits in (31, 32, 53, 63, 64)
        for sign in (1, -1)
        for more in (-1, 0, 1)
    ),
    *(10**30, -(10**400), 0.5, -0.0, 1e308, 1e-400, 1.0, 1e9),
]
_TEXTS = [
    *(
        "",
        " ",
        "/",
        ".",
        "..",
        "-",
        "0",
        "-1",
        "a" * 300,
        "/" + "a/" * 3000,
        "\0",
        "a\0b",
        "\n",
        "a\nb",
        "é" * 200,
    ),
    *(
        "\ud800",
        "\udcff",
        "\x1b[31m",
        "\u202e",
        "/proc/self/fd/3",
        "../" * 50 + "etc",
        "rw,ro",
        "=",
        "a=b",
        "a:b:c",
    ),
    *(
        "0-3",
        "3-0",
        "0-99999999",
        ",,,",
        "99999999999999999999",
        "0x10",
        "1e3",
        "\u0661",
        "max",
        "-1-",
        "null",
    ),
    *(
        "NaN",
        "system.slice:a:b",
        "%s%n",
        "{}",
        "$.a",
        "tmpfs",
        "bind",
        "CAP_SYS_ADMIN",
        "SCMP_ACT_ALLOW",
        "A" * 70000,
    ),
]
_RAW = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0",
    "01",
    "+1",
    "1.",
    ".5",
    "tr",
    "'a'",
    "/**/1",
    "0x1",
    "1_000",
)


Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | Raw | Pairs | None"
# An object with a name in it, or an array with an index.
Place: TypeAlias = "tuple[dict[str, Json], str] | tuple[list[Json], int]"


class Raw:
    """A value that is written as it is."""

    def __init__(self, text: str) -> None:
        self.text = text


class Pairs:
    """An object whose names may repeat."""

    def __init__(self, pairs: list[tuple[str, Json]]) -> None:
        self.pairs = pairs


def _deep(levels: int) -> Raw:
    return Raw("[" * levels + "]" * levels)


def dumps(value: Json) -> str:
    """JSON, as far as the document is; lone surrogates are escaped."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{dumps(item)}" for name, item in value.pairs) + "}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{dumps(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dumps(item) for item in value) + "]"
    return json.dumps(value)


_EMPTY: list[Json] = [[], {}, [[]], [{}], {"": 1}, [None], {"a": None}]


class Source:
    """Mutated documents of one chance."""

    def __init__(self, chance: random.Random, documents: Sequence[Json]) -> None:
        self.chance = chance
        self.documents = list(documents)
        self._pool: list[Json] = []
        for document in self.documents:
            self._collect(document)

    def _collect(self, value: Json) -> None:
        """Every part of a good document may come where another one is."""
        self._pool.append(value)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            self._collect(item)

    def value(self, near: Json = None) -> Json:
        """Another value than `near`: of its type, which leads deeper, or of any."""
        if isinstance(near, bool) or self.chance.random() < 0.4:
            return self._any(near)
        if isinstance(near, str):
            return self.text(near) if self.chance.random() < 0.6 else self.chance.choice(_TEXTS)
        if isinstance(near, int):
            some: list[Json] = [
                near + 1,
                near - 1,
                near * 2,
                -near,
                near + (1 << 31),
                near + (1 << 63),
                *_NUMBERS,
            ]
            return self.chance.choice(some)
        like = [item for item in self._pool if type(item) is type(near)]
        return copy.deepcopy(self.chance.choice(like)) if like else self._any(near)

    def _any(self, near: Json) -> Json:
        chance = self.chance
        ways: list[Callable[[], Json]] = [
            lambda: None,
            lambda: chance.choice([True, False]),
            lambda: chance.choice(_NUMBERS),
            lambda: chance.choice(_NUMBERS),
            lambda: chance.choice(_TEXTS),
            lambda: chance.choice(_TEXTS),
            lambda: copy.deepcopy(chance.choice(_EMPTY)),
            lambda: copy.deepcopy(chance.choice(self._pool)),
            lambda: copy.deepcopy(chance.choice(self._pool)),
            lambda: [copy.deepcopy(near)],
            lambda: {"a": copy.deepcopy(near)},
            lambda: Raw(chance.choice(_RAW)),
            lambda: _deep(chance.choice([10, 255, 256, 257, 3000, 100_000])),
        ]
        return chance.choice(ways)()

    def text(self, near: str) -> str:
        """A text much like another one."""
        chance = self.chance
        at = chance.randrange(len(near) + 1)
        piece = chance.choice([*_TEXTS[:30], chr(chance.choice([*range(128), 0x2028, 0xFFFF, 0x10FFFF]))])
        return chance.choice(
            [
                near[:at] + piece + near[at:],
                near[:at] + near[at + 1 :],
                near[:at],
                near[at:],
                near * chance.choice([2, 50]),
                near.upper(),
                near.lower(),
                near + near[::-1],
            ]
        )

    def _places(self, value: Json) -> Iterator[Place]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield value, key
                yield from self._places(item)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield value, index
                yield from self._places(item)

    def mutate(self, document: Json) -> Json:
        """The document with one place changed; it is changed in place but where the whole of it is replaced."""
        places = list(self._places(document))
        if not places or self.chance.random() < 0.01:
            return self.value(document)
        owner, key = self.chance.choice(places)
        if isinstance(owner, dict):
            assert isinstance(key, str)
            self._change_object(owner, key)
        else:
            assert isinstance(key, int)
            self._change_array(owner, key)
        return document

    def _change_object(self, owner: dict[str, Json], key: str) -> None:
        way, item = self.chance.randrange(10), owner[key]
        if way == 0:
            del owner[key]
        elif way == 1:
            owner[self.chance.choice(["x", "", "\0", "$ref", *_TEXTS[:30]])] = self.value(item)
        elif way == 2:
            owner[self.text(key)] = owner.pop(key)
        elif way == 3 and isinstance(item, dict) and item:
            name, value = self.chance.choice([*item.items()])
            owner[key] = Pairs([*item.items(), (name, self.chance.choice([value, self.value(value)]))])
        else:
            owner[key] = self.value(item)

    def _change_array(self, owner: list[Json], index: int) -> None:
        way = self.chance.randrange(8)
        if way == 0:
            del owner[index]
        elif way == 1:
            owner.extend(copy.deepcopy([owner[index]]) * self.chance.choice([1, 2, 50]))
        elif way == 2:
            self.chance.shuffle(owner)
        else:
            owner[index] = self.value(owner[index])

    def document(self) -> Json:
        """A good document with one to four places changed."""
        document = copy.deepcopy(self.chance.choice(self.documents))
        for _ in range(self.chance.choice([1, 1, 1, 2, 2, 4])):
            document = self.mutate(document)
        return document

    def next(self) -> bytes:
        """The bytes of a document, which may have been damaged as well."""
        chance = self.chance
        data = dumps(self.document()).encode()
        if chance.random() < 0.1:
            data = self.damage(data)
        return data

    def damage(self, data: bytes) -> bytes:
        """Bytes flipped, cut, repeated, in another encoding."""
        chance = self.chance
        at = chance.randrange(len(data) + 1)
        more = chance.choice(
            [b"\xff", b"\0", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5", b"\n", b'"', b"}", b"\\u", b"\x1b"]
        )
        way = chance.randrange(8)
        if way == 0:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        if way == 1:
            return data[:at] + more + data[at:]
        if way == 2:
            return data[:at]
        if way == 3:
            return data + data[at:]
        if way == 4:
            return data.decode().encode(chance.choice(["utf-16", "utf-32-be", "utf-7", "utf-8-sig"]))
        if way == 5:
            return data[at:] + data[:at]
        if way == 6:
            return b" " * chance.choice([1, 100_000]) + data
        return bytes(byte ^ (1 << chance.randrange(8) if chance.random() < 0.001 else 0) for byte in data)
