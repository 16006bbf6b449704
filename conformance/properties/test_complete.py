"""Every property of the schema, every command and option has a row, so that nothing is forgotten in the table."""

from __future__ import annotations

import ast
import json
import os
from typing import TYPE_CHECKING

from pyrunc.cli import options
from pyrunc.spec import mount_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import Json, Spec

HERE = os.path.dirname(os.path.realpath(__file__))
SCHEMA = os.path.join(HERE, "../../pyrunc/config/schema/config.schema.json")
# Both mean the same to every runtime: to leave it out and to give its default.
_ELSEWHERE = ("--help", "--bundle")
# What their options do is CRIU's business.
_AS_A_WHOLE = ("checkpoint", "restore")


def _entry(value: Json) -> Spec:
    assert isinstance(value, dict)
    return value


def properties(node: Spec, path: str, definitions: Spec) -> Iterator[str]:
    """The ways to all leaves of the schema."""
    while "$ref" in node:
        node = _entry(definitions[str(node["$ref"]).rpartition("/")[2]])
    if "properties" in node:
        for name, inner in _entry(node["properties"]).items():
            yield from properties(_entry(inner), f"{path}.{name}".lstrip("."), definitions)
    elif isinstance(node.get("items"), dict):
        yield from properties(_entry(node["items"]), f"{path}[]", definitions)
    elif isinstance(node.get("additionalProperties"), dict):
        yield from properties(_entry(node["additionalProperties"]), f"{path}{{}}", definitions)
    else:
        yield path


def rows() -> set[str]:
    """The names in every row(...) of this directory, as they stand there."""
    found: set[str] = set()
    for name in sorted(os.listdir(HERE)):
        if name.startswith("test_"):
            with open(os.path.join(HERE, name), encoding="utf-8") as stream:
                tree = ast.parse(stream.read())
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "row":
                    found |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def _covered(path: str, known: list[str]) -> bool:
    bare = path.removesuffix("[]").removesuffix("{}")
    return any(name in (bare, path) or path.startswith((name + ".", name + "[]")) for name in known)


def test_every_property_has_a_row() -> None:
    with open(SCHEMA, encoding="utf-8") as stream:
        schema: Spec = json.load(stream)
    definitions = _entry(schema.get("$defs") or schema.get("definitions") or {})
    known: list[str] = []
    for name in rows():
        text = name.partition(": ")[0]
        for kind in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ):
            known.append(text.replace("{kind}", kind))
        for kind in ("bounding", "effective", "permitted", "inheritable", "ambient"):
            known.append(text.replace("{kind}", kind))
    known += [f"linux.resources.{name}" for name in _constants("test_resources.py")]
    known += [f"linux.resources.blockIO.{name}[]" for name in _constants("test_resources.py")]
    known += [f"linux.intelRdt.{name}" for name in _constants("test_linux.py")]
    left = [path for path in properties(schema, "", definitions) if not _covered(path, known)]
    assert left == []


def _constants(name: str) -> set[str]:
    with open(os.path.join(HERE, name), encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_mount_option_has_a_row() -> None:
    words = _constants("test_mounts.py")
    words |= {name.removeprefix("mount option ") for name in words}
    words |= {"r" + name for name in words}
    assert sorted(set(mount_options.OPTIONS) - words) == []


def test_every_command_and_option_has_a_row() -> None:
    named = (
        rows() | _constants("test_verbs.py") | _constants("test_changes.py") | _constants("test_globals.py")
    )
    words = {name.partition(":")[0] for name in named}
    missing = [name for name in options.COMMANDS if not any(word.split(" ")[0] == name for word in words)]
    tables = {name: row.options for name, row in options.COMMANDS.items() if name not in _AS_A_WHOLE}
    for command, table in {**tables, "": options.GLOBALS}.items():
        for option in table:
            long = f"--{option[0]}"
            if long not in _ELSEWHERE and not any(long in word.split() for word in words):
                missing.append(f"{command} {long}".strip())
    assert missing == []
