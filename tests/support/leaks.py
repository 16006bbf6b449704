"""The host after a run: no cgroup, mount or state directory that it did not have before.

Checked once, by the process that all tests have in common: pytest itself, or the controller of pytest-xdist.
"""

from __future__ import annotations

import os

import pytest
from _pytest.terminal import TerminalReporter

import support
from alone import worker_input


def _host_facts() -> set[str]:
    facts = support.cgroup_directories() | set(support.mounts_below(""))
    for directory in ("/run/pyrunc", "/run/user/0/pyrunc"):
        if os.path.isdir(directory):
            # A snapshot of Python is meant to stay.
            names = [name for name in os.listdir(directory) if not name.startswith("@")]
            facts |= {os.path.join(directory, name) for name in names}
    return facts


class _Check:
    def __init__(self) -> None:
        self._before = _host_facts()
        self._left: list[str] = []

    # Last of all: the workers have ended by then.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A run that leaves something behind has failed."""
        self._left = sorted(_host_facts() - self._before)
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Name it."""
        if self._left:
            terminalreporter.section("left behind on the host")
            for line in self._left:
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Others may be at work on a developer's machine; on CI's nobody is."""
    if support.MUST_WORK and worker_input(config) is None and not config.option.collectonly:
        config.pluginmanager.register(_Check(), "host-leaks")
