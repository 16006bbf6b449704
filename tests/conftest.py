"""The order of tests, the skip policy and the time limit; the fixtures are those of fixtures.py."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

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
_ORDER = ("test_lint", "test_imports", "unit", "init", "runtime")
_ENGINES = "engines"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Engines are started on request only."""
    parser.addoption(
        "--engines", action="store_true", help="also run the tests that start containerd, podman and docker"
    )


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Without the option, what the tests under engines import need not be there."""
    return True if collection_path.name == _ENGINES and not config.getoption("--engines") else None


def _room(item: pytest.Item) -> str:
    return os.path.relpath(item.path, os.path.dirname(__file__)).split(os.sep)[0].removesuffix(".py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick and close to the cause first: a broken unit explains a broken container."""

    def rank(item: pytest.Item) -> int:
        return _ORDER.index(_room(item)) if _room(item) in _ORDER else len(_ORDER)

    if not config.getoption("--engines"):
        config.hook.pytest_deselected(items=[item for item in items if _room(item) == _ENGINES])
        items[:] = [item for item in items if _room(item) != _ENGINES]
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
        if reason.removeprefix("Skipped: ") not in support.ALLOWED_LACKS:
            report.outcome = "failed"
            report.longrepr = (
                f"{reason}: not allowed with PYRUNC_MUST_WORK=1 (tests/support.py: ALLOWED_LACKS)"
            )
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
