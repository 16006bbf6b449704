"""What the user of an engine sees with runc and with pyrunc, and whether that is the same.

A test takes the fixture `seen` and an engine's fixture, both of which run it once per runtime, and tells `seen` what it
saw. When the run with pyrunc is over, the two are compared: a difference fails, unless a mark explains why it is an
improvement: `@pytest.mark.improvement("run.err", "names the line of the configuration")`. Rows go to build/engines.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE = "runc"
OURS = "pyrunc"
RUNTIMES = (BASE, OURS)
ROWS = os.path.join(support.PROJECT, "build/engines")
SAME = "same"
IMPROVED = "improved"
DIFFERENT = "not explained"


# For scenarios that end in a refusal noted as "run" or "exec".
WORDS = pytest.mark.improvement(
    "run.message", "the message names the property of the configuration, not the runtime's own steps"
)
EXEC_WORDS = pytest.mark.improvement("exec.message", WORDS.args[1])


class Seen:
    """Names and values that one run of a scenario showed, free of what differs from run to run."""

    def __init__(self, runtime: str, replacements: Mapping[str, str] | None = None) -> None:
        self.runtime = runtime
        self.values: dict[str, support.Json] = {}
        # Longest first: a path before the name that is in it.
        self._replacements = dict(sorted((replacements or {}).items(), key=lambda pair: -len(pair[0])))

    def replace(self, text: str, word: str) -> None:
        """Show `text`, an id or a path of this run, as `word` from now on."""
        self._replacements = {text: word, **self._replacements}

    def plain(self, text: str) -> str:
        """`text` without ids, paths, times and the runtime's own name."""
        for old, new in self._replacements.items():
            text = text.replace(old, new)
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME", text)
        text = re.sub(r"/snapshots/\d+/", "/snapshots/N/", text)
        text = re.sub(r"/overlay/\d+/", "/overlay/N/", text)
        text = re.sub(r"/l/[0-9A-Z]{26}\b", "/l/LINK", text)
        text = re.sub(r"\b[0-9a-f]{32}\b", "HEX", text)
        return re.sub(r"\b[0-9a-f]{64}\b", "HEX", text)

    def value(self, name: str, value: support.Json) -> None:
        """Note one thing."""
        assert name not in self.values, f"'{name}' twice in one scenario"
        self.values[name] = self._plain(value)

    def _plain(self, value: support.Json) -> support.Json:
        if isinstance(value, str):
            return self.plain(value)
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, dict):
            return {key: self._plain(item) for key, item in value.items()}
        return value

    def command(
        self, name: str, result: support.Result, *, out: bool = True, err: bool = True
    ) -> support.Result:
        """Note what a command showed: `name.status`, and `name.out` and `name.err` unless told otherwise."""
        self.value(f"{name}.status", result.status)
        if out:
            self.value(f"{name}.out", result.out)
        if err:
            self.value(f"{name}.err", result.err)
        return result

    def refusal(self, name: str, result: support.Result, *reasons: str) -> support.Result:
        """Note a command that must fail: the reasons must be in its message, whose other words may be explained.

        `name.message` may be an improvement (see WORDS), `name.reasons` cannot.
        """
        assert result.status != 0, result
        for reason in reasons:
            assert reason in result.err, result
        self.command(name, result, err=False)
        self.value(f"{name}.reasons", list(reasons))
        self.value(f"{name}.message", result.err)
        return result


class Row:
    """One scenario in the table: a title, what either runtime showed, and the verdict."""

    def __init__(self, title: str, base: dict[str, support.Json], ours: dict[str, support.Json]) -> None:
        self.title = title
        self.base = base
        self.ours = ours
        self.different = sorted(
            name
            for name in base.keys() | ours.keys()
            if name not in base or name not in ours or base[name] != ours[name]
        )

    def unexplained(self, improvements: Mapping[str, str]) -> list[str]:
        """What is wrong: differences without an explanation, explanations without a difference."""
        found = [self._difference(name) for name in self.different if name not in improvements]
        found += [
            f"{name}: said to be an improvement, but the same"
            for name in set(improvements) - set(self.different)
        ]
        return found

    def _difference(self, name: str) -> str:
        base, ours = self.base.get(name), self.ours.get(name)
        if isinstance(base, str) and isinstance(ours, str) and base.count("\n") > 1:
            lines = difflib.unified_diff(base.splitlines(), ours.splitlines(), BASE, OURS, n=0, lineterm="")
            return "\n".join([f"{name}:", *lines])
        return f"{name}: {BASE} {base!r}, {OURS} {ours!r}"

    def document(self, improvements: Mapping[str, str]) -> support.Spec:
        """The row as it is stored."""
        reasons = [improvements[name] for name in self.different if name in improvements]
        verdict = IMPROVED if self.different else SAME
        if self.unexplained(improvements):
            verdict = DIFFERENT
        shown = self.different or sorted(self.ours)
        return {
            "title": self.title,
            "runc": {name: self.base.get(name) for name in shown},
            "pyrunc": {name: self.ours.get(name) for name in shown},
            "verdict": verdict,
            "improvements": [*dict.fromkeys(reasons)],
        }


def store(engine: str, rows: Mapping[str, support.Spec]) -> None:
    """Write rows of one engine, by the test's name, over those that are there already."""
    os.makedirs(ROWS, exist_ok=True)
    path = os.path.join(ROWS, f"{engine}.json")
    before: dict[str, support.Json] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            before = json.load(stream)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({**before, **rows}, stream, indent=1)
        stream.write("\n")
