"""Collect the verdict of every row and write it where PROPERTIES_OUT says, as JSON: {row: [verdict, reason]}.

PROPERTIES_ROWS, a JSON list, leaves only the tests of these rows.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import box as boxes
from fixtures import bundle, container, nothing_left, rootless, scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from containers import BundleFactory, ContainerFactory

__all__ = ["box", "bundle", "container", "make_box", "nothing_left", "rootless", "scratch"]

_ORDER = ("pass", "skip", "fail")
_verdicts: dict[str, tuple[str, str]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """The mark that names the rows a test decides."""
    config.addinivalue_line("markers", "row(*names): the rows of the table that the test decides")


def _rows(item: pytest.Item) -> list[str]:
    names = [name for mark in item.iter_markers("row") for name in mark.args]
    case = getattr(item, "callspec", None)
    for key, value in case.params.items() if case else ():
        names = [name.replace(f"{{{key}}}", str(value)) for name in names]
    return names


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of the rows that are wanted."""
    if text := os.environ.get("PROPERTIES_ROWS"):
        wanted = set(json.loads(text))
        config.hook.pytest_deselected(items=[item for item in items if not wanted & set(_rows(item))])
        items[:] = [item for item in items if wanted & set(_rows(item))]


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).splitlines()[0][:300]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A row is as good as the worst of its tests, set-up and clean-up included."""
    report = yield
    verdict = {"passed": "pass", "skipped": "skip", "failed": "fail"}[report.outcome]
    names = _rows(item)
    if not names and verdict == "fail":
        # What watches over the table belongs to no row, but must not fail unseen.
        names = [f"the table itself: {item.name}"]
    for name in names:
        before, reason = _verdicts.get(name, ("pass", ""))
        if _ORDER.index(verdict) > _ORDER.index(before):
            before, reason = verdict, _reason(report)
        _verdicts[name] = (before, reason)
    return report


def pytest_sessionfinish() -> None:
    """Write the verdicts."""
    if path := os.environ.get("PROPERTIES_OUT"):
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(_verdicts, stream, indent=1)


@pytest.fixture
def make_box(bundle: BundleFactory, container: ContainerFactory) -> Callable[[], boxes.Box]:
    """A factory, for rows that need more than one bundle."""
    return lambda: boxes.Box(bundle("probe"), container)


@pytest.fixture
def box(make_box: Callable[[], boxes.Box]) -> boxes.Box:
    """A bundle with the probe as its program, and the runtime under test."""
    return make_box()
