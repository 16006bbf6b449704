"""The skip policy and the time limit; the fixtures are those of fixtures.py, the rest stands in the plugins."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

import machines
import support
from fixtures import (
    bundle,
    container,
    init_binary,
    nothing_left,
    probe_binary,
    pyrunc,
    rootless,
    scratch,
    view,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

__all__ = [
    "bundle",
    "container",
    "init_binary",
    "nothing_left",
    "probe_binary",
    "pyrunc",
    "rootless",
    "scratch",
    "view",
]

TEST_SECONDS = 300
pytest_plugins = ["alone", "durations", "leaks", "selection", "unsteady"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything must work, a skip is a failure unless the reason is on the list."""
    report = yield
    if support.MUST_WORK and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if reason.removeprefix("Skipped: ") not in machines.ALLOWED_LACKS:
            report.outcome = "failed"
            report.longrepr = f"{reason}: not allowed with PYRUNC_MUST_WORK=1 (tests/support/machines.py)"
    return report


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"the test takes longer than {TEST_SECONDS} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """A test that waits for what never comes fails instead of taking everything with it."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(TEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
