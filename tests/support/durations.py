"""`--check-slow`: on a quiet machine the mark `slow` says what the clock says. CONTRIBUTING: run it with `-n 0`."""

from __future__ import annotations

import pytest
from _pytest.terminal import TerminalReporter

from alone import worker_input

# A test that takes longer is marked; one that takes less than half of it is not. Between the two, either is right.
SLOW_SECONDS = 2.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of the check."""
    parser.addoption(
        "--check-slow",
        action="store_true",
        help=f"fail when a test takes longer than {SLOW_SECONDS} s and is not marked slow, or is and does not",
    )


def misjudged(seconds: float, *, marked: bool) -> str | None:
    """What is wrong with the mark of a test that takes so long, or None."""
    if not marked and seconds > SLOW_SECONDS:
        return "is not marked slow"
    if marked and seconds < SLOW_SECONDS / 2:
        return "is marked slow"
    return None


class _Check:
    """Measure the calls of all tests: fixtures of a module or a session are the first test's by accident."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Compare one test's time with its mark."""
        if report.when == "call" and report.passed:
            wrong = misjudged(report.duration, marked="slow" in report.keywords)
            if wrong:
                self._found.append(f"{report.nodeid} takes {report.duration:.1f} s and {wrong}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A wrong mark fails the run."""
        if self._found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """List the wrong marks."""
        if self._found:
            terminalreporter.section("slow by measurement")
            for line in sorted(self._found):
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Measure if it is asked for, where the reports come together."""
    if config.getoption("--check-slow") and worker_input(config) is None:
        config.pluginmanager.register(_Check(), "check-slow")
