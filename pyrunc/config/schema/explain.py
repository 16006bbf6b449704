"""Explains why the generated validator refused a document. Only here jsonschema is imported, which takes 70-140 ms."""

from __future__ import annotations

import difflib
import json
import os
import re

from jsonschema import Draft202012Validator, ValidationError, validators

from pyrunc.errors import ConfigError
from pyrunc.json_text.path import member, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "config.schema.json")
_TYPES = {"object": "an object", "array": "a list", "string": "a string", "integer": "a whole number"}
_SHOWN = 60
_LISTED = 10
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _is_integer(_checker: object, value: object) -> bool:
    # jsonschema accepts 1.0 as an integer; no other reader of config.json does.
    return type(value) is int


def _pattern(_validator: object, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    # Python's $ also matches before a last newline, JSON Schema's does not.
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield ValidationError("pattern")


def validator(definition: str) -> Draft202012Validator:
    """A jsonschema validator for one of the schema's definitions: config, process, resources, mounts."""
    with open(SCHEMA, encoding="utf-8") as file:
        definitions = json.load(file)["$defs"]
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    strict = validators.extend(  # type: ignore[no-untyped-call]  # the stubs leave it bare
        Draft202012Validator, {"pattern": _pattern}, type_checker=types
    )
    checker: Draft202012Validator = strict({"$ref": f"#/$defs/{definition}", "$defs": definitions})
    return checker


def shown(value: object) -> str:
    """`value` as JSON, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _path(error: ValidationError, start: str) -> str:
    path = start
    for step in error.absolute_path:
        path = f"{path}[{step}]" if isinstance(step, int) else member(path, step)
    return path


def _type_error(value: object, kind: str, schema: Mapping[str, object]) -> tuple[str, str | None]:
    message = f"{shown(value)} is not {_TYPES.get(kind, 'true or false')}"
    if kind == "integer" and schema.get("x-octal") and isinstance(value, str):
        try:
            return message, f"write the mode as a decimal number: {value} is {int(value, 8)}"
        except ValueError:
            return message, None
    if kind == "integer" and isinstance(value, str) and re.fullmatch("-?[0-9]+", value):
        return message, "write the number without quotes"
    if kind == "integer" and isinstance(value, str) and re.fullmatch("[0-9]+[kKmMgGtT]", value):
        return (
            message,
            f"write the number of bytes: {value} is {int(value[:-1]) * _UNITS[value[-1].lower()]}",
        )
    if kind == "boolean" and value in ("true", "false"):
        return message, "write it without quotes"
    if kind == "array" and isinstance(value, str):
        return message, f"write [{shown(value)}]"
    return message, None


def _enum_error(value: object, allowed: list[str]) -> tuple[str, str | None]:
    # Compared without the prefix that all names share, which would make any two similar.
    prefix = os.path.commonprefix(allowed)  # noqa: RUF071  # of names, not of paths
    wanted = str(value).upper().removeprefix(prefix)
    rest = {name.removeprefix(prefix).upper(): name for name in allowed}
    near = wanted if wanted in rest else next(iter(difflib.get_close_matches(wanted, rest, n=1)), None)
    if near:
        return f"{shown(value)} is not a known name", f"did you mean {shown(rest[near])}?"
    few = ", ".join(allowed[:_LISTED])
    return (
        f"{shown(value)} is not a known name",
        f"known are {few}{', ...' if len(allowed) > _LISTED else ''}",
    )


def _range_error(
    value: int, keyword: str, limit: int, schema: Mapping[str, object]
) -> tuple[str, str | None]:
    hint = None
    if schema.get("x-octal") and keyword == "maximum" and re.fullmatch("[0-7]+", str(value)):
        hint = f"modes are decimal numbers in JSON: 0{value} is {int(str(value), 8)}"
    if keyword == "minimum":
        return f"{value} is less than {limit}, the smallest allowed", hint
    return f"{value} is greater than {limit}, the largest allowed", hint


def _words(error: ValidationError) -> tuple[str, str | None]:
    """Message and hint for one error of jsonschema."""
    keyword, schema = str(error.validator), error.schema
    assert isinstance(schema, dict)
    value: object = error.instance
    if keyword == "type":
        return _type_error(value, schema["type"], schema)
    if keyword == "enum":
        message, hint = _enum_error(value, schema["enum"])
    elif keyword in ("minimum", "maximum") and isinstance(value, int):
        message, hint = _range_error(value, keyword, schema[keyword], schema)
    elif keyword == "pattern":
        message, hint = f"{shown(value)} is not {schema['x-format']}", None
    else:
        message, hint = "must not be empty", None
    if "x-message" in schema:
        message = (
            schema["x-message"].replace("{json}", shown(value)).replace("{value}", quote(str(value))[1:-1])
        )
    return message, hint


def _missing(error: ValidationError, path: str) -> ConfigError:
    schema, document = error.schema, error.instance
    assert isinstance(schema, dict)
    assert isinstance(document, dict)
    absent = [name for name in schema["required"] if name not in document]
    # jsonschema reports each absent member on its own, and names it only inside the message.
    name = next((name for name in absent if error.message.startswith(repr(name))), absent[0])
    message = schema.get("x-missing", {}).get(name, f'"{name}" is required')
    alike = difflib.get_close_matches(name, set(document) - set(schema["properties"]), n=1)
    hint = f'did you mean "{name}" by "{alike[0]}"?' if alike else None
    return ConfigError(message, path=member(path, name), hint=hint)


def explain(document: object, definition: str = "config", path: str = "$") -> ConfigError | None:
    """Return an error for the first problem of `document` in the schema's order, or None if it is valid.

    `document` has no null members; `path` is its place in a larger document.
    """
    for error in validator(definition).iter_errors(document):
        where = _path(error, path)
        if error.validator == "required":
            return _missing(error, where)
        message, hint = _words(error)
        return ConfigError(message, path=where, hint=hint)
    return None
