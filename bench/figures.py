"""The figures of a measurement: one Row for everything that was measured, and what statistics says of it."""

from __future__ import annotations

import json
import os
import statistics
import tomllib
from typing import TYPE_CHECKING

from command import LIFECYCLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE = os.path.dirname(os.path.realpath(__file__))
Key = tuple[str, str, str, str]
KINDS = ("ms", "kb", "cpu_ms", "instructions")


class Row:
    """The values of one command of one runtime, in the order in which they were taken.

    `regime` is hot or cold (whole lives), one-by-one or at-once (short lives, per container), alive-N (whole lives
    with N others alive), python (in process). All lists that are not empty have the same length.
    """

    def __init__(self, view: str, bundle: str, regime: str, command: str, runtime: str) -> None:
        self.view = view
        self.bundle = bundle
        self.regime = regime
        self.command = command
        self.runtime = runtime
        self.values: dict[str, list[float]] = {kind: [] for kind in KINDS}

    @property
    def key(self) -> Key:
        """Everything but the runtime."""
        return self.view, self.bundle, self.regime, self.command

    def add(self, **values: float) -> None:
        """One more sample."""
        for kind, value in values.items():
            self.values[kind].append(value)

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        named = {name: getattr(self, name) for name in ("view", "bundle", "regime", "command", "runtime")}
        return {
            **named,
            **{kind: [round(v, 4) for v in values] for kind, values in self.values.items() if values},
        }


class Figures:
    """All rows, by key and runtime, and what else is known: the machine, the runtimes' versions, remarks."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Key, str], Row] = {}
        self.machine: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.remarks: list[str] = []
        self.others: list[float] = []
        self.retaken = 0

    def row(self, view: str, bundle: str, regime: str, command: str, runtime: str) -> Row:
        """The row, made when it is new."""
        key = (view, bundle, regime, command)
        return self.rows.setdefault((key, runtime), Row(*key, runtime))

    def measured(self) -> list[Key]:
        """What was measured, in order."""
        return list(dict.fromkeys(key for key, _ in self.rows))

    def runtimes(self) -> list[str]:
        """Who was measured, in order."""
        return list(self.versions)

    def values(self, key: Key, runtime: str, kind: str = "ms") -> list[float]:
        """Nothing when it was not measured."""
        row = self.rows.get((key, runtime))
        return row.values[kind] if row else []

    def add_lives(self) -> None:
        """The whole life of a container, round by round, as a command of its own."""
        for view, bundle, regime, command in self.measured():
            if command != "create":
                continue
            for runtime in self.runtimes():
                parts = [self.values((view, bundle, regime, step), runtime) for step in LIFECYCLE]
                if not all(parts) or self.values((view, bundle, regime, "life"), runtime):
                    continue
                row = self.row(view, bundle, regime, "life", runtime)
                for values in zip(*parts, strict=True):
                    row.add(ms=sum(values))

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "remarks": self.remarks,
            "busy with something else": [round(share, 3) for share in self.others],
            "rounds taken again": self.retaken,
            "rows": [row.document() for row in self.rows.values()],
        }

    def join(self, document: dict[str, object]) -> None:
        """Take in what another process measured. Raise ValueError if that was of other runtimes."""
        versions, rows = document["versions"], document["rows"]
        assert isinstance(versions, dict)
        assert isinstance(rows, list)
        if self.versions and versions != self.versions:
            raise ValueError(f"these figures are of other runtimes: {versions}, not {self.versions}")
        self.versions = versions
        self.retaken += int(str(document["rounds taken again"]))
        for name in ("machine", "remarks", "busy with something else"):
            given = document[name]
            if isinstance(given, dict):
                self.machine = self.machine or given
            elif isinstance(given, list):
                kept: list[object] = self.remarks if name == "remarks" else self.others  # type: ignore[assignment]
                kept += [item for item in given if name != "remarks" or item not in kept]
        for item in rows:
            row = self.row(*(item[name] for name in ("view", "bundle", "regime", "command", "runtime")))
            for kind in KINDS:
                row.values[kind] += item.get(kind, [])

    def read(self, path: str) -> None:
        """Take in a file that --json wrote."""
        with open(path, encoding="utf-8") as stream:
            self.join(json.load(stream))


def median(values: Sequence[float]) -> float:
    """The median, not a number for nothing."""
    return statistics.median(values) if values else float("nan")


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The 10th and the 90th percentile."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (float("nan"), float("nan"))
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    return cuts[0], cuts[-1]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Pair by pair: values of the same round, which a drift of the machine hit alike. None of nothing, or by 0."""
    if not ours or not min(theirs, default=0):
        return []
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


class Target:
    """One promise: the median of the paired ratios (or, without `against`, the median itself) is at most `limit`."""

    def __init__(self, table: dict[str, object]) -> None:
        self.key: Key = tuple(str(table[name]) for name in ("view", "bundle", "regime", "command"))  # type: ignore[assignment]
        self.against = str(table.get("against", ""))
        self.kind = str(table.get("kind", "ms"))
        self.limit = float(str(table["limit"]))
        self.text = str(table["text"])
        self.remark = str(table.get("remark", ""))

    def value(self, figures: Figures) -> float:
        """What was measured; not a number when it was not."""
        ours = figures.values(self.key, "pyrunc", self.kind)
        if self.against.startswith("alive-"):
            view, bundle, _, command = self.key
            few = figures.values((view, bundle, self.against, command), "pyrunc", self.kind)
            return median(ours) / median(few)
        if not self.against:
            return median(ours)
        return median(ratios(ours, figures.values(self.key, self.against, self.kind)))


def targets() -> list[Target]:
    """bench/targets.toml, one Target for each command it names."""
    with open(os.path.join(HERE, "targets.toml"), "rb") as stream:
        tables: Iterable[dict[str, object]] = tomllib.load(stream)["target"]
    found: list[Target] = []
    for table in tables:
        commands = table["command"]
        for command in commands if isinstance(commands, list) else [commands]:
            remarks = table.get("remarks")
            remark = remarks.get(command, "") if isinstance(remarks, dict) else ""
            found.append(Target({**table, "command": command, "remark": remark}))
    return found
