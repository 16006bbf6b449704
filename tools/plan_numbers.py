"""Write pyrunc/plan/numbers.py from csrc/plan.h: `plan_numbers.py HEADER OUTPUT`.

What a plan looks like is said once, in the header. Python gets from it the op numbers with their payloads, the codes of
the sync protocol, the names of the steps, the flags, and the sizes of the structs. meson runs this whenever the header
changes; a header that does not follow its own rules ends the build.
"""

from __future__ import annotations

import re
import sys

PAYLOAD_LETTERS = frozenset("uqfsblv")
TYPE_SIZES = {"char": 1, "uint16_t": 2, "uint32_t": 4, "int32_t": 4, "uint64_t": 8, "int64_t": 8}


class HeaderError(Exception):
    """The header says something that cannot be right."""


def plain(text: str) -> str:
    """The header without comments, continued lines joined."""
    text = re.sub(r"/\*.*?\*/", " ", text.replace("\\\n", " "), flags=re.DOTALL)
    return re.sub(r"[ \t]+", " ", text)


def table(text: str, name: str) -> list[list[str]]:
    """The entries of an X-macro, each as its arguments. Raise HeaderError if there are none."""
    found = re.search(rf"#define {name}\(X\)(.*)", text)
    entries = re.findall(r"X\(([^()]*)\)", found.group(1)) if found else []
    if found is None or not entries:
        raise HeaderError(f"there is no table {name}")
    return [[part.strip() for part in entry.split(",")] for entry in entries]


def numbered(entries: list[list[str]], what: str) -> dict[str, int]:
    """Name -> number of a table's entries. Raise HeaderError if a name or a number occurs twice."""
    names = {entry[1]: int(entry[0]) for entry in entries}
    if len(names) != len(entries) or len(set(names.values())) != len(entries):
        raise HeaderError(f"a number or a name of {what} is used twice")
    return names


def ops(text: str) -> dict[str, tuple[int, str]]:
    """Name -> (number, payload letters). Raise HeaderError for a letter that is none, or another function's name."""
    entries = table(text, "PLAN_OPS")
    found = {}
    for name, number in numbered(entries, "PLAN_OPS").items():
        _, _, function, payload = next(entry for entry in entries if entry[1] == name)
        letters = payload.strip('"')
        if set(letters) - PAYLOAD_LETTERS:
            raise HeaderError(f"the payload of {name} has letters that mean nothing: {letters}")
        if function != name.lower():
            raise HeaderError(f"the function of {name} is called op_{name.lower()}, not op_{function}")
        found[name] = number, letters
    return found


def steps(text: str) -> tuple[str, ...]:
    """The names of the steps, by number. Raise HeaderError if a number is missing."""
    names = numbered(table(text, "PLAN_STEPS"), "PLAN_STEPS")
    if list(names.values()) != list(range(len(names))):
        raise HeaderError("PLAN_STEPS does not count from 0 without a gap")
    return tuple(name.lower() for name in names)


def enumerators(text: str, name: str) -> dict[str, int]:
    """The enumerators of an enum that gives each its value. Raise HeaderError if there is no such enum."""
    found = re.search(rf"enum {name} {{(.*?)}}", text, flags=re.DOTALL)
    if found is None:
        raise HeaderError(f"there is no enum {name}")
    return {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", found.group(1))}


def hook_kinds(text: str) -> tuple[str, ...]:
    """The kinds of hooks as the specification writes them, by number."""
    kinds = enumerators(text, "hook_kind")
    if list(kinds.values()) != list(range(len(kinds))):
        raise HeaderError("enum hook_kind does not count from 0 without a gap")
    words = [name.removeprefix("HOOK_").lower() for name in kinds]
    return tuple(re.sub(r"_(\w)", lambda match: match[1].upper(), word) for word in words)


def constants(text: str) -> dict[str, int | bytes]:
    """Every #define with a number or a string. Raise HeaderError for a value that is neither."""
    found: dict[str, int | bytes] = {}
    for name, value in re.findall(r"#define (\w+) (\S.*)", text):
        if value.startswith('"'):
            found[name] = value.strip().strip('"').encode()
            continue
        number = re.fullmatch(r"\(?(0[xX][0-9a-fA-F]+|\d+)u?(?: << (\d+))?\)?", value.strip())
        if number is None:
            raise HeaderError(f"{name} is neither a number nor a string: {value}")
        found[name] = int(number[1], 0) << int(number[2] or 0)
    return found


def layout(text: str) -> dict[str, int]:
    """<STRUCT>_SIZE for each struct, <STRUCT>_<FIELD> for where a char array begins.

    Raise HeaderError for a struct with a gap, which Python would not expect and C would fill.
    """
    sizes = dict(TYPE_SIZES)
    found: dict[str, int] = {}
    for struct, body in re.findall(r"struct (\w+) {(.*?)};", text, flags=re.DOTALL):
        at, widest = 0, 1
        for kind, name, count in re.findall(r"(\w+) (\w+)(?:\[(\d+)\])?;", body):
            if kind not in sizes:
                raise HeaderError(f"struct {struct} has a field of unknown type '{kind}'")
            align = min(sizes[kind], 8)
            if at % align:
                raise HeaderError(f"struct {struct} has a gap before {name}")
            if kind == "char":
                found[f"{struct}_{name}".upper()] = at
            at, widest = at + sizes[kind] * int(count or 1), max(widest, align)
        if at % widest:
            raise HeaderError(f"struct {struct} has a gap at its end")
        sizes[struct] = at
        found[f"{struct}_size".upper()] = at
    return found


def module(header: str) -> str:
    """The source of the module. Raise HeaderError."""
    text = plain(header)
    lines = [
        '"""The numbers of csrc/plan.h, from which tools/plan_numbers.py writes this file: change them there."""',
        "",
        "OPS: dict[str, tuple[int, str]] = {",
        *[f'    "{name}": ({number}, "{letters}"),' for name, (number, letters) in ops(text).items()],
        "}",
        "SYNC: dict[str, int] = {",
        *[
            f'    "{name}": {number},'
            for name, number in numbered(table(text, "SYNC_CODES"), "SYNC_CODES").items()
        ],
        "}",
        "STEPS: tuple[str, ...] = (",
        *[f'    "{name}",' for name in steps(text)],
        ")",
        f"HOOK_KINDS: tuple[str, ...] = {hook_kinds(text)!r}",
    ]
    values = {**constants(text), **enumerators(text, "pivot_mode"), **layout(text)}
    lines += [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def main(header: str, output: str) -> None:
    """Write the module."""
    with open(header, encoding="utf-8") as stream:
        text = module(stream.read())
    with open(output, "w", encoding="utf-8") as stream:
        stream.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
