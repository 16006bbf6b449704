"""Compiles config.schema.json into check.py, a validator in plain Python: `python3 -m pyrunc.config.schema.generate`.

A development tool, never imported by the runtime. It supports the keywords that the schema uses and refuses any other,
so no demand of the schema is silently left out of the validator.
"""

from __future__ import annotations

import inspect
import json
import os
import sys

from pyrunc.config.schema import patterns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Schema: TypeAlias = "dict[str, Schema | list[str] | str | int | bool]"

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = os.path.join(HERE, "config.schema.json")
OUTPUT = os.path.join(HERE, "check.py")
ROOTS = ("config", "process", "resources", "mounts")

HEADER = '''"""GENERATED from config.schema.json: change that, then run `python3 -m pyrunc.config.schema.generate`.

Each function says whether a document, its null members removed, has the form the schema asks for; explain.py says
why not. Integers are of type int: true and 1.0 are none.
"""
# ruff: noqa: D103, E501, RUF021, UP034
# fmt: off

from __future__ import annotations

_STR = {str}


'''

_ANNOTATIONS = {"title", "description", "$schema", "x-message", "x-missing", "x-format", "x-octal"}
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems"},
    "string": {"enum", "pattern", "minLength"},
    "integer": {"minimum", "maximum"},
    "boolean": set(),
}


def snake(name: str) -> str:
    """The Python spelling of a name of the specification: `blockIO` is `block_io`."""
    out = ""
    for index, char in enumerate(name):
        if char.isupper() and index and not name[index - 1].isupper():
            out += "_"
        out += char.lower()
    return out


class Compiler:
    """One run: the functions still to write, and those written."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self.definitions = definitions
        self.functions: dict[str, str] = {}

    def resolve(self, schema: Schema, name: str) -> tuple[Schema, str]:
        """Follows `$ref`; the name is that of the definition when there is one."""
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema, name
        assert len(schema) == 1, f"{name}: members beside $ref"
        target = reference.removeprefix("#/$defs/")
        return self.definitions[target], snake(target)

    def expression(self, schema: Schema, var: str, name: str) -> str:
        """Python that is true when `var` fits `schema`."""
        schema, name = self.resolve(schema, name)
        kind = schema.get("type")
        assert isinstance(kind, str), f"{name}: no type"
        unknown = set(schema) - _KEYWORDS[kind] - _ANNOTATIONS - {"type"}
        assert not unknown, f"{name}: the generator does not know {sorted(unknown)}"
        if kind == "object" and "properties" in schema:
            self.add_function(name, schema)
            return f"{name}({var})"
        if kind == "object":
            return self.mapping(schema, var, name)
        if kind == "array":
            return self.array(schema, var, name)
        return self.scalar(schema, var, kind)

    def scalar(self, schema: Schema, var: str, kind: str) -> str:
        """A boolean, an integer with its range, or a string with its enum, pattern or length."""
        if kind == "boolean":
            return f"type({var}) is bool"
        if kind == "integer":
            low, high = schema["minimum"], schema["maximum"]
            return f"type({var}) is int and {low} <= {var} <= {high}"
        out = f"type({var}) is str"
        if isinstance(values := schema.get("enum"), list):
            out += f" and {var} in {{{', '.join(map(quoted, values))}}}"
        if isinstance(pattern := schema.get("pattern"), str):
            out += f" and {patterns.PATTERNS[pattern].__name__}({var})"
        if "minLength" in schema:
            out += f" and len({var}) >= {schema['minLength']}"
        return out

    def all_of(self, items: Schema, values: str, name: str) -> str:
        """Python that is true when each of `values` fits `items`."""
        items, name = self.resolve(items, name)
        if items.get("type") == "string" and not set(items) - _ANNOTATIONS - {"type"}:
            return f"{{*map(type, {values})}} <= _STR"
        if items.get("type") == "object":
            self.add_function(name, items)
        else:
            self.functions.setdefault(name, function(name, f"return {self.expression(items, 'v', name)}"))
        return f"all(map({name}, {values}))"

    def mapping(self, schema: Schema, var: str, name: str) -> str:
        """An object whose names are free and whose values are alike."""
        values = schema["additionalProperties"]
        assert isinstance(values, dict), f"{name}: neither properties nor additionalProperties"
        return f"type({var}) is dict and {self.all_of(values, var + '.values()', name + '_value')}"

    def array(self, schema: Schema, var: str, name: str) -> str:
        """A list whose items are alike."""
        items = schema["items"]
        assert isinstance(items, dict), f"{name}: items must be one schema"
        out = f"type({var}) is list and "
        if "minItems" in schema:
            out += f"len({var}) >= {schema['minItems']} and "
        return out + self.all_of(items, var, name + "_item")

    def add_function(self, name: str, schema: Schema) -> None:
        """Writes the function for an object with known names, once."""
        if name in self.functions:
            return
        self.functions[name] = ""
        properties, required = schema["properties"], schema.get("required", [])
        assert isinstance(properties, dict), name
        assert isinstance(required, list), name
        tests = []
        for key, below in properties.items():
            assert isinstance(below, dict), f"{name}.{key}"
            test = self.expression(below, "x", f"{name}_{snake(key)}")
            if key in required:
                tests.append(f'(x := get("{key}")) is not None and {test}')
            else:
                tests.append(f'((x := get("{key}")) is None or {test})')
        body = "if type(v) is not dict:\n        return False\n    get = v.get\n    return (\n        "
        self.functions[name] = function(name, body + "\n        and ".join(tests) + "\n    )")


def quoted(text: str) -> str:
    """`text` as a Python string in double quotes."""
    return json.dumps(text)


def function(name: str, body: str) -> str:
    """The text of a validator function."""
    return f"def {name}(v: object) -> bool:\n    {body}\n"


def generate(path: str = SCHEMA) -> str:
    """The text of check.py."""
    with open(path, encoding="utf-8") as file:
        definitions = json.load(file)["$defs"]
    compiler = Compiler(definitions)
    for name in ROOTS:
        if definitions[name]["type"] == "object":
            compiler.add_function(name, definitions[name])
        else:
            test = compiler.expression(definitions[name], "v", name)
            compiler.functions.setdefault(name, function(name, f"return {test}"))
    helpers = [inspect.getsource(patterns.digits), inspect.getsource(patterns.words)]
    helpers += [inspect.getsource(helper) for helper in patterns.PATTERNS.values()]
    return HEADER + "\n\n".join([*helpers, *compiler.functions.values()])


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        with open(OUTPUT, encoding="utf-8") as current:
            sys.exit(current.read() != generate())
    text = generate()
    with open(OUTPUT, "w", encoding="utf-8") as output:
        output.write(text)
