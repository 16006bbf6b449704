"""Tests that cannot run beside others, marked `alone(reason)`: in a parallel run they get the machine for themselves.

Every test of a run holds one lock, shared with the tests of the other workers, or exclusively if it is marked. The
marked ones come last (selection.py), so that no worker waits for long.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


class _Worker(Protocol):
    """What pytest-xdist's controller knows of a worker."""

    workerinput: dict[str, str]


class _Controller:
    """The process that starts the workers."""

    def __init__(self) -> None:
        descriptor, self._path = tempfile.mkstemp(prefix="pyrunc-test-lock-")
        os.close(descriptor)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: _Worker) -> None:
        """Tell a worker where the lock is."""
        node.workerinput["lock"] = self._path

    def pytest_unconfigure(self) -> None:
        """Remove the lock."""
        os.unlink(self._path)


class _Locking:
    """One worker."""

    def __init__(self, path: str) -> None:
        self._lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Hold the lock from before the set-up until after the clean-up; the wait is no part of the test's time."""
        fcntl.flock(self._lock, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            # Explicitly: a child that the test has forked may still hold the descriptor.
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def worker_input(config: pytest.Config) -> dict[str, str] | None:
    """What the controller tells this process, or None if this process is no worker of pytest-xdist."""
    found: dict[str, str] | None = getattr(config, "workerinput", None)
    return found


def pytest_configure(config: pytest.Config) -> None:
    """A worker takes part in the locking; a run without workers needs none."""
    given = worker_input(config)
    if given is not None:
        config.pluginmanager.register(_Locking(given["lock"]), "alone-worker")
    elif getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(_Controller(), "alone-controller")
