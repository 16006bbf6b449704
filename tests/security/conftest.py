"""A failed attack test is a finding, and is recorded as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import rounds

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every failure goes into PYRUNC_ATTACK_RECORD, with its last line."""
    report = yield
    if report.failed:
        lines = report.longreprtext.splitlines()
        rounds.record(0, 0.0, finding=lines[-1] if lines else "?", test=item.nodeid)
    return report
