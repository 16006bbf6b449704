"""The order of tests, the skip policy and the time limit; the fixtures are those of fixtures.py."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

import machines
import support
from fixtures import (
    bundle,
    container,
    host_unchanged,
    init_binary,
    probe_binary,
    pyrunc,
    rootless,
    scratch,
    view,
)

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Generator
    from types import FrameType

__all__ = [
    "bundle",
    "container",
    "host_unchanged",
    "init_binary",
    "probe_binary",
    "pyrunc",
    "rootless",
    "scratch",
    "view",
]

TEST_SECONDS = 300
_ORDER = ("test_lint", "test_imports", "unit", "init", "runtime", "security")
# Rooms that an option of the same name opens.
_ON_REQUEST = {
    "engines": "also run the tests that start containerd, podman and docker",
    "vm": "also run the tests of ./dev vm, which start virtual machines",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """What takes much is started on request only."""
    for room, what in _ON_REQUEST.items():
        parser.addoption(f"--{room}", action="store_true", help=what)


def _closed(config: pytest.Config) -> list[str]:
    return [room for room in _ON_REQUEST if not config.getoption(f"--{room}")]


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Without the option, what the tests of the room import need not be there."""
    here = os.path.dirname(__file__)
    return True if str(collection_path) in {os.path.join(here, room) for room in _closed(config)} else None


def _room(item: pytest.Item) -> str:
    return os.path.relpath(item.path, os.path.dirname(__file__)).split(os.sep)[0].removesuffix(".py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick and close to the cause first: a broken unit explains a broken container."""

    def rank(item: pytest.Item) -> int:
        return _ORDER.index(_room(item)) if _room(item) in _ORDER else len(_ORDER)

    closed = _closed(config)
    config.hook.pytest_deselected(items=[item for item in items if _room(item) in closed])
    items[:] = [item for item in items if _room(item) not in closed]
    items.sort(key=rank)
    for item in items:
        if item.get_closest_marker("root") is not None and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything must work, a skip is a failure unless the reason is on the list."""
    report = yield
    if support.MUST_WORK and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if reason.removeprefix("Skipped: ") not in machines.ALLOWED_LACKS:
            report.outcome = "failed"
            report.longrepr = f"{reason}: not allowed with PYRUNC_MUST_WORK=1 (tests/machines.py)"
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
