"""Writes docs/ATTACKS.md from attacks.toml, the tests' own words and figures.json: `./dev fuzz --page`.

figures.json holds what runs without a finding have tried; `./dev fuzz --figures` adds the record of the last ones.
"""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib

HERE = os.path.dirname(os.path.realpath(__file__))
TESTS = os.path.dirname(HERE)
PAGE = os.path.join(os.path.dirname(TESTS), "docs/ATTACKS.md")
FIGURES = os.path.join(HERE, "figures.json")
HEAD = """# Attacks

Written by `./dev fuzz --page`; a test compares. Each class of attack that container runtimes have fallen to, and those
that were found while pyrunc was attacked, with the tests that try it. Every test runs in `./dev test`, for a short
while; `./dev fuzz attacks --seconds N` and `./dev fuzz NAME --seconds N` go on for as long as one likes, each time with
another seed. Rounds are what runs of that kind have tried without a finding, with the code as it was then; a test
without a number is no loop, and tries all it has each time.

[SECURITY.md](../SECURITY.md) says what the boundary is.
"""


class Test:
    """One test that an attack names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path, _, self.function = name.partition("::")

    def docstring(self) -> str | None:
        """Its first line; None when there is no such test."""
        try:
            with open(os.path.join(TESTS, self.path), encoding="utf-8") as stream:
                tree = ast.parse(stream.read())
        except FileNotFoundError:
            return None
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == self.function:
                return (ast.get_docstring(node) or "").split("\n", maxsplit=1)[0]
        return None


class Attack:
    """One entry of attacks.toml."""

    def __init__(self, entry: dict[str, list[str] | str]) -> None:
        names, what, tests = entry.get("names", []), entry["what"], entry["tests"]
        assert isinstance(names, list)
        assert isinstance(what, str)
        assert isinstance(tests, list)
        self.names = names
        self.what = what
        self.tests = [Test(name) for name in tests]


def attacks() -> list[Attack]:
    """All of them, in the order of the file."""
    with open(os.path.join(HERE, "attacks.toml"), "rb") as stream:
        return [Attack(entry) for entry in tomllib.load(stream)["attack"]]


Figures = dict[str, dict[str, float]]


def figures() -> Figures:
    """Test -> rounds and seconds."""
    with open(FIGURES, encoding="utf-8") as stream:
        found: Figures = json.load(stream)
    return found


def add_record(path: str) -> int:
    """Add a record of rounds.py and take it away; how many lines it had. With a finding in it, it is no figure."""
    with open(path, encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    if findings := [f"{line['test']}: {line['finding']}" for line in lines if line["finding"]]:
        raise ValueError(f"{path} has findings:\n" + "\n".join(findings))
    known = figures()
    for line in lines:
        name = re.sub(r"\[.*", "", line["test"]).removeprefix("tests/")
        # of fuzzers each counts for itself
        if match := re.fullmatch(r".*test_fuzz\.py::test_fuzzers\[(\w+)\]", line["test"]):
            name = f"fuzz {match[1]}"
        entry = known.setdefault(name, {"rounds": 0, "seconds": 0})
        entry["rounds"] += line["rounds"]
        entry["seconds"] = round(entry["seconds"] + line["seconds"], 1)
    with open(FIGURES, "w", encoding="utf-8") as stream:
        json.dump(known, stream, indent=1, sort_keys=True)
        stream.write("\n")
    os.unlink(path)
    return len(lines)


def _rounds(test: Test, known: Figures) -> str:
    if test.name == "security/test_fuzz.py::test_fuzzers":
        return f"{sum(int(entry['rounds']) for name, entry in known.items() if name.startswith('fuzz ')):,}"
    entry = known.get(test.name)
    return f"{int(entry['rounds']):,}" if entry else ""


def _table(chosen: list[Attack], known: Figures) -> list[str]:
    lines = ["| attack | tests | rounds |", "|---|---|---|"]
    for attack in chosen:
        names = f"**{', '.join(attack.names)}**<br>" if attack.names else ""
        tests = "<br>".join(f"`{test.name}`" for test in attack.tests)
        counts = "<br>".join(_rounds(test, known) for test in attack.tests)
        lines.append(f"| {names}{attack.what} | {tests} | {counts} |")
    return lines


def _fuzzers(known: Figures, descriptions: dict[str, str]) -> list[str]:
    lines = ["| fuzzer | what | inputs | hours |", "|---|---|---|---|"]
    for name, what in descriptions.items():
        entry = known.get(f"fuzz {name}", {"rounds": 0, "seconds": 0})
        lines.append(f"| `{name}` | {what} | {int(entry['rounds']):,} | {entry['seconds'] / 3600:.1f} |")
    return lines


def text(descriptions: dict[str, str]) -> str:
    """The page; the fuzzers' names and what they are come from fuzz.py."""
    known = figures()
    numbered = [attack for attack in attacks() if attack.names]
    others = [attack for attack in attacks() if not attack.names]
    hours = sum(entry["seconds"] for entry in known.values()) / 3600
    parts = [
        HEAD,
        "## Known ones",
        "",
        *_table(numbered, known),
        "",
        "## Others",
        "",
        *_table(others, known),
    ]
    parts += [
        "",
        "## Fuzzers",
        "",
        "libFuzzer with ASan and UBSan; `csrc/fuzz/kernel.h` says what else is a finding.",
        "",
    ]
    parts += [*_fuzzers(known, descriptions), "", f"In all, {hours:.1f} hours are recorded.", ""]
    return "\n".join(parts)
