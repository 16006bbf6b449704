"""The fast JSON reader against the json module, and the writer against Go's layout."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys

import pytest

import support
from pyrunc.errors import ConfigError
from pyrunc.json_text import document as json_text
from pyrunc.json_text import explain
from pyrunc.json_text.path import member


def refused(data: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        json_text.loads(data, "x.json")
    return caught.value


def test_it_reads_what_json_reads() -> None:
    text = ' {"a": [1, -2, 1.5, 1e3, true, null, "", "\\u00e9\\n\\ud83d\\ude00 é"], "": {}, "b": {"a": []}}\r\n\t'
    assert json_text.loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", ["1", '"x"', "null", "[]", "-0", "1E-2", '"\\\\ud800"'])
def test_a_document_may_be_any_value(text: str) -> None:
    assert json_text.loads(text.encode()) == json.loads(text)


def test_broken_documents_are_refused_like_json_refuses_them() -> None:
    """A fixed random walk: what json accepts we accept, unless a rule of ours is broken, and nothing else."""
    rng = random.Random(7)
    seed = '{"a": [1, 2.5, "x\\u00e9", true, null, {"b": "c", "d": -3}], "e": "f"}'
    for _ in range(3000):
        text = list(seed)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at] = rng.choice(["", rng.choice(string.printable), text[at] * 2, "NaN", "\\", '"'])
        data = "".join(text).encode()
        try:
            expected: object = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
            json.dumps(expected, ensure_ascii=False).encode()
        except ValueError:
            expected = None
        try:
            got: object = json_text.loads(data)
        except ConfigError as error:
            assert error.message.startswith("invalid JSON in document: "), data
            got = None
        assert got == expected, data


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


def _refuse(name: str) -> None:
    raise ValueError(name)


@pytest.mark.parametrize("levels", [json_text.MAX_DEPTH, json_text.MAX_DEPTH + 1])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_the_depth_is_limited(levels: int, left: str, right: str) -> None:
    data = (left * levels + "1" + right * levels).encode()
    if levels > json_text.MAX_DEPTH:
        assert (
            refused(data).message
            == f"invalid JSON in x.json: nested more than {json_text.MAX_DEPTH} levels deep"
        )
    else:
        assert json_text.loads(data) == json.loads(data)


def test_absurd_depth_does_not_overflow_the_stack() -> None:
    assert "nested more than" in refused(b"[" * 500_000).message


def test_many_shallow_containers_are_not_deep() -> None:
    assert json_text.loads(b"[" + b"[]," * 5000 + b"[]]") == [[]] * 5001


def test_a_repeated_name_has_its_path() -> None:
    error = refused(b'{"a b": [{"x": 1}, {"x": 1, "y": 2, "x": 3}]}')
    assert (error.path, error.message) == ("$['a b'][1].x", 'invalid JSON in x.json: duplicate name "x"')


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_json_adds_to_json_has_its_path(word: str) -> None:
    error = refused(f'{{"a": [1, {word}]}}'.encode())
    assert (error.path, error.message) == ("$.a[1]", f"invalid JSON in x.json: {word} is not a JSON number")


def test_text_must_be_utf8() -> None:
    assert refused(b'{\n "a": "\xed\xa0\x80"}').message == (
        "invalid JSON in x.json: line 2 byte 8: 0xed is not valid UTF-8 here"
    )
    assert refused("[]".encode("utf-16")).message.startswith("invalid JSON in x.json: line 1 byte 1")


def test_a_message_is_one_line_whatever_the_document_holds() -> None:
    error = refused(b'{"a\\nb": 1, "a\\nb": 2}')
    assert "\n" not in str(error)


def test_it_writes_like_go() -> None:
    """Names in the given order, UTF-8 and <>& as they are, what is not printable escaped, odd bytes replaced."""
    document = {
        "z": [],
        "a": {},
        "t": 'é<&>\u2028\u2029\t"\\\x01\x7f\U0001f600',
        "n": [1, -2, True, False, None, 1.5],
        "f": "\udcff",
    }
    text = '"é<&>\\u2028\\u2029\\t\\"\\\\\\u0001\\u007f\U0001f600"'
    assert json_text.dumps(document) == (
        '{"z":[],"a":{},"t":' + text + ',"n":[1,-2,true,false,null,1.5],"f":"\ufffd"}'
    )
    assert json_text.dumps({"a": {"b": [1, {"c": 2}], "d": {}}}, indent=2) == (
        '{\n  "a": {\n    "b": [\n      1,\n      {\n        "c": 2\n      }\n    ],\n    "d": {}\n  }\n}'
    )


@pytest.mark.parametrize("indent", [None, 2, 4])
def test_it_reads_what_it_wrote(indent: int | None) -> None:
    document = {"a": [[], [{}], {"b": "\x00\x1f\u2028"}], "c": {"d": None}, "e": 2**70}
    assert json.loads(json_text.dumps(document, indent=indent)) == document


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1, 2}])
def test_what_json_lacks_is_not_written(value: object) -> None:
    with pytest.raises(TypeError):
        json_text.dumps([value])


def test_paths_name_any_member() -> None:
    assert member("$", "a_b") == "$.a_b"
    assert member("$.x", "net.ipv4") == "$.x['net.ipv4']"
    assert member("$", "it's\n") == "$['it\\'s\\n']"


def test_a_good_document_loads_neither_json_nor_the_explanations() -> None:
    """They cost more than the rest of a verb."""
    code = (
        f"import sys; sys.path.insert(0, {support.PROJECT!r}); before = set(sys.modules)\n"
        "from pyrunc.json_text import document as jsonfast; jsonfast.loads(b'{}'); jsonfast.dumps({}, indent=2)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "__future__",
        "_json",
        "pyrunc",
        "pyrunc.json_text",
        "pyrunc.json_text.document",
        "pyrunc.json_text.path",
    ]


def test_the_explanation_always_finds_a_reason() -> None:
    for data in (b"", b"[1", b"\xff", b"[NaN]", b'{"a":1,"a":2}', b"[" * 400, b'["\\udc00"]'):
        assert explain.explain(data, "x", json_text.MAX_DEPTH).message != "invalid JSON in x"


@pytest.mark.parametrize(
    "text", ['{"a": }', '{"a" 1}', '["x', "[1,]", '"\\x"', '"\n"', "nul", "", '{"a":1,"a":2}', "[NaN]"]
)
def test_a_bad_document_is_refused_where_json_is_not_loaded(text: str) -> None:
    """The C scanner then has no exception class to raise: an accident that must not show."""
    code = (
        f"import sys; sys.path.insert(0, {support.PROJECT!r})\n"
        "from pyrunc.json_text import document as jsonfast; from pyrunc import errors\n"
        "assert 'json' not in sys.modules\n"
        f"try: jsonfast.loads({text.encode()!r})\n"
        "except errors.ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert "invalid JSON in document: " in done.stdout
