"""cgroups/systemd/variants.py: GVariant text, and D-Bus values as the shim reads them."""

from __future__ import annotations

import struct

import pytest

from pyrunc.cgroups.systemd import variants
from pyrunc.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "signature", "value"),
    [
        ("true", "b", True),
        (" false ", "b", False),
        ("5", "i", 5),
        ("-0x10", "i", -16),
        ("5.5", "d", 5.5),
        ("1e3", "d", 1000.0),
        ("uint64 18446744073709551615", "t", (1 << 64) - 1),
        ("byte 0xff", "y", 255),
        ("int16 -5", "n", -5),
        ("@t 5", "t", 5),
        ("@d 5", "d", 5.0),
        ("'it\\'s'", "s", "it's"),
        ('"a\\tb\\u00e9\\U0001f600"', "s", "a\tb\u00e9\U0001f600"),
        ("objectpath '/a'", "o", "/a"),
        ("@g 'as'", "g", "as"),
        ("['a', 'b']", "as", ["a", "b"]),
        ("[uint32 1, 2,]", "au", [1, 2]),
        ("@as []", "as", []),
        ("@at [1, 2]", "at", [1, 2]),
        ("('a', true)", "(sb)", ["a", True]),
        ("@(st) ('a', 1)", "(st)", ["a", 1]),
        ("[('a', 'r')]", "a(ss)", [["a", "r"]]),
        ("{'a': <5>, 'b': <'x'>}", "a{sv}", [["a", ("i", 5)], ["b", ("s", "x")]]),
        ("@a{sv} {}", "a{sv}", []),
        ("<uint16 7>", "v", ("q", 7)),
        ("[<1>, <'a'>]", "av", [("i", 1), ("s", "a")]),
        ("[[1], [2, 3]]", "aai", [[1], [2, 3]]),
    ],
)
def test_text_is_parsed(text: str, signature: str, value: object) -> None:
    """GVariant Text Format, as far as D-Bus has such types."""
    assert variants.parse(text, "$.x") == (signature, value)


@pytest.mark.parametrize(
    "text",
    [
        "", "maybe", "just 5", "nothing", "'open", "'a\\", "[1, 'a']", "[]", "[1 2]", "()", "{}", "{[1]: 2}", "{1}",
        "@", "@x", "@as 5", "@a{vs} {}", "@b 5", "byte 256", "uint16 -1", "int32 99999999999", "5x", "1,", "'a' 'b'",
        "<5", "@s true", "uint32 'a'", "'\\ud800'", "'\\u0000'", "'\\U00110000'", "'a\0b'", "[" * 100,
        "@" + "a" * 300 + "s []" + "x",
    ],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    """With the path of the text and the place in it, whatever it holds."""
    with pytest.raises(ConfigError, match="value parse error") as caught:
        variants.parse(text, "$.annotations['x']")
    assert caught.value.path == "$.annotations['x']"


def test_values_are_described() -> None:
    """csrc/shim/sdbus.h has the form: containers in parentheses, basic values in the size of their type."""
    assert variants.body(("s", "a"), ("b", True), ("u", 5)) == b"sa\0" + b"b" + struct.pack(
        "=i", 1
    ) + b"u" + struct.pack("=I", 5)
    assert (
        variants.body(("a(sv)", [["N", ("t", 7)]]))
        == b"(a(sv)\0(rsv\0sN\0(vt\0t" + struct.pack("=Q", 7) + b")))"
    )
    assert variants.body(("a{sd}", [["x", 0.5]])) == b"(a{sd}\0(esd\0sx\0d" + struct.pack("=d", 0.5) + b"))"
    assert (
        variants.body(("n", -2), ("y", 200), ("x", -1))
        == b"n" + struct.pack("=h", -2) + b"y\xc8" + b"x" + b"\xff" * 8
    )
