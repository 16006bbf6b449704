"""PURE: what is known to fail and why (expected.toml), and how a run differs from that.

A difference is a failure that is not listed, a listed one that passes, and one that fails for another reason.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tap import Verdict

# The columns that are compared. What other runtimes do is theirs.
OURS = ("pyrunc", "pyrunc strict")
_KEYS = {"program", "runtimes", "says", "reason", "see", "tries", "must_pass"}


class ExpectedError(Exception):
    """expected.toml is wrong."""


@dataclass
class Known:
    """What a program is known to say in some columns: `says` are parts of it, `see` points to where it is written.

    `tries` is 0, or how often to run it until it passes: then the suite leaves it to chance, and to pass is right, too.
    With `must_pass` one of the tries has to.
    """

    program: str
    runtimes: list[str]
    says: list[str]
    reason: str
    see: str
    tries: int = 0
    must_pass: bool = False


@dataclass
class Expected:
    """expected.toml."""

    known: list[Known] = field(default_factory=list)

    def find(self, program: str, column: str) -> Known | None:
        """What is known about one program in one column."""
        for entry in self.known:
            if entry.program == program and column in entry.runtimes:
                return entry
        return None

    def tries(self, program: str) -> int:
        """How often to run a program until it passes, with whatever runtime: chance is the same for all."""
        return max((entry.tries for entry in self.known if entry.program == program), default=0) or 1


def _texts(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise ExpectedError(f"{where} must be a list of texts, and not empty")
    return list(value)


def _entry(table: Mapping[str, object], programs: Sequence[str]) -> Known:
    program = str(table.get("program", ""))
    if program not in programs:
        raise ExpectedError(f"'{program}' is no program of the suite")
    if extra := set(table) - _KEYS:
        raise ExpectedError(f"{program}: unknown key '{min(extra)}'")
    for key in ("reason", "see"):
        if not str(table.get(key, "")).strip():
            raise ExpectedError(f"{program}: '{key}' is missing: nothing fails without one")
    tries = table.get("tries", 0)
    if not isinstance(tries, int):
        raise ExpectedError(f"{program}: tries must be a number")
    must_pass = table.get("must_pass", False)
    if not isinstance(must_pass, bool) or (must_pass and tries < 2):
        raise ExpectedError(f"{program}: must_pass is true or false, and needs more than one of tries")
    return Known(
        program,
        _texts(table.get("runtimes"), f"{program}: runtimes"),
        _texts(table.get("says"), f"{program}: says"),
        str(table["reason"]),
        str(table["see"]),
        tries,
        must_pass,
    )


def load(text: str, programs: Sequence[str]) -> Expected:
    """Read expected.toml. Raise ExpectedError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExpectedError(str(error)) from error
    found = Expected()
    for table in document.get("known", []):
        entry = _entry(table, programs)
        for column in entry.runtimes:
            if column not in OURS:
                raise ExpectedError(f"{entry.program}: '{column}' is not compared")
            if found.find(entry.program, column) is not None:
                raise ExpectedError(f"{entry.program} is listed twice for {column}")
        found.known.append(entry)
    return found


def difference(verdict: Verdict, known: Known | None) -> str | None:
    """How one verdict differs from what is known, in words; None if it does not."""
    said = verdict.says
    if not said:
        if known is None or known.tries:
            return None
        return "passes, but is expected to fail: take it out of expected.toml"
    if known is None or known.must_pass:
        return f"{'passes, but' if verdict.passed else 'fails'}: {'; '.join(said)}"
    if new := [text for text in said if not any(part in text for part in known.says)]:
        return f"fails in another way, too: {'; '.join(new)}"
    if gone := [part for part in known.says if not any(part in text for text in said)]:
        return f"does not say any more: {'; '.join(gone)}"
    return None


def differences(
    verdicts: Mapping[str, Mapping[str, Verdict]], expected: Expected
) -> list[tuple[str, str, str]]:
    """(column, program, words) for every difference; `verdicts` by column, then program."""
    found: list[tuple[str, str, str]] = []
    for column in OURS:
        for program, verdict in verdicts.get(column, {}).items():
            if (words := difference(verdict, expected.find(program, column))) is not None:
                found.append((column, program, words))
    return found
