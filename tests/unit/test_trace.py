"""What --trace puts its clocks around is there."""

from __future__ import annotations

import importlib
import inspect
import os
import sys

import pytest

from pyrunc.plan.wire import Op
from pyrunc.timing import timeline, trace
from pyrunc.timing.spans import Span, Stamps


@pytest.mark.parametrize("module", trace.SEAMS)
def test_every_seam_exists(module: str) -> None:
    """A function that was renamed is renamed in the table, too; and its label names arguments that it has."""
    loaded = importlib.import_module(module)
    for name, text in trace.SEAMS[module].items():
        function: object = loaded
        for part in name.split("."):
            function = getattr(function, part)
        assert inspect.isfunction(function), name
        assert function.__module__ == module
        text.format(*inspect.signature(function).parameters)


def test_a_bar_begins_and_ends_where_its_time_does() -> None:
    """The whole fills the width; the others stand below the part that is theirs."""
    spans = [
        Span("pyrunc run", 0, 1_000_000),
        Span("first", 0, 500_000),
        Span("inside", 250_000, 500_000),
        Span("last", 500_000, 1_000_000),
    ]
    rows = timeline.chart(spans).splitlines()
    assert [row.split()[0] for row in rows] == ["pyrunc", "first", "inside", "last"]
    whole, first, inside, last = (row.partition(" ms  ")[2] for row in rows)
    width = len(whole)
    assert set(whole) == {"█"}
    assert len(last) == width
    assert last.startswith(" " * (width // 2) + "█")
    assert first.startswith("█" * (width // 2))
    assert len(first) <= width // 2 + 1
    assert inside.startswith(" " * (width // 4) + "█")
    assert len(inside) == len(first)


@pytest.mark.parametrize(
    ("start_wait", "shown"),
    [(1500, ["PIVOT 1000-1500", "START_WAIT 1500-2000"]), (2300, ["PIVOT 1000-2000"])],
)
def test_an_op_after_the_end_of_the_command(start_wait: int, shown: list[str]) -> None:
    """It may begin before the stamps are read, but it is no part of what was measured."""
    stamps = Stamps([Op("PIVOT"), Op("START_WAIT")])
    for at, stamp in enumerate((1000, start_wait)):
        real = stamp - stamps.monotonic + stamps.realtime
        os.pwrite(stamps.fd, real.to_bytes(8, sys.byteorder), at * 8)
    stamps.pid = 7
    spans = timeline.complete(Span("pyrunc create", 0, 2000), [], [stamps])
    assert [f"{span.text} {span.begin}-{span.end}" for span in spans[1:]] == shown


def test_imports_become_one_row() -> None:
    """What an import loads in turn, and neighbours, are not told apart."""
    spans = [
        Span("pyrunc run", 0, 1_000_000),
        Span("import a", 0, 300_000),
        Span("import b", 100_000, 200_000),
        Span("import c", 300_000, 500_000),
        Span("plan", 500_000, 900_000),
        Span("import d", 900_000, 1_000_000),
    ]
    rows = [" ".join(row.split()[:2]) for row in timeline.chart(spans).splitlines()]
    assert rows == ["pyrunc run", "imports 0.50", "plan 0.40", "imports 0.10"]
