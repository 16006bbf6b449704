"""The second chance: a test that unsteady.toml names with the cause may fail once; the summary names it then."""

from __future__ import annotations

import os
import tomllib

import pytest
from _pytest.runner import runtestprotocol
from _pytest.terminal import TerminalReporter

TABLE = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "unsteady.toml")
_PROPERTY = "unsteady"


def read_table(path: str = TABLE) -> dict[str, str]:
    """Each test's cause by the start of its node id."""
    with open(path, "rb") as stream:
        entries = tomllib.load(stream).get("test", [])
    return {str(entry["id"]): str(entry["cause"]) for entry in entries}


def cause_of(nodeid: str, table: dict[str, str]) -> str | None:
    """Why this test may fail once, or None if it may not: an id stands for its parameters too."""
    for name, cause in table.items():
        if nodeid == name or nodeid.startswith((f"{name}[", f"{name}::")):
            return cause
    return None


_CAUSES = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Another table, for the tests of this file."""
    parser.addoption("--unsteady", metavar="FILE", default=TABLE, help="the tests that may fail once")


def pytest_configure(config: pytest.Config) -> None:
    """Read the table."""
    config.stash[_CAUSES] = read_table(config.getoption("--unsteady"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test of the table once more if it fails."""
    cause = cause_of(item.nodeid, item.config.stash[_CAUSES])
    if cause is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    failed = [report for report in reports if report.failed]
    if failed:
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            report.user_properties.append((_PROPERTY, f"{cause}\n{failed[0].longreprtext}"))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Name what passed only when it was run once more, with what went wrong the first time."""
    for report in terminalreporter.getreports("passed"):
        texts = [str(text) for name, text in report.user_properties if name == _PROPERTY]
        if texts and report.when == "call":
            terminalreporter.section(f"unsteady: {report.nodeid} passed when it was run once more")
            terminalreporter.write_line(texts[0])
