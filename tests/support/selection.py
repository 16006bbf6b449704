"""Which tests a run has, and their order.

Without a path, `./dev test` runs what is quick of unit, init, runtime and security, on all processors; with --all also
what is marked slow. --engines and --vm add their directories. A path runs all that is in it, one test after another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from alone import worker_input

if TYPE_CHECKING:
    import pathlib

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# Quick and close to the cause first: a broken unit explains a broken container.
_ORDER = ("unit", "init", "runtime", "security")
# Directories that an option of the same name adds.
_ON_REQUEST = {
    "engines": "also run the tests that start containerd, podman and docker",
    "vm": "also run the tests of ./dev vm, which start virtual machines",
}
# Only where a path names it: a job of its own (./dev lint).
_BY_PATH = ("test_lint.py",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What takes long is started on request only."""
    parser.addoption("--all", action="store_true", help="also run the tests that are marked slow")
    for directory, what in _ON_REQUEST.items():
        parser.addoption(f"--{directory}", action="store_true", help=what)


def _names_paths(config: pytest.Config) -> bool:
    return config.args_source is pytest.Config.ArgsSource.ARGS


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Use all processors for a run of everything; a few tests are done before the workers are up."""
    option = config.option
    if worker_input(config) is not None or _names_paths(config) or option.usepdb:
        return
    if getattr(option, "numprocesses", 0) is None and option.dist == "no":
        option.numprocesses = "auto"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two processors: for half of its time a test waits for a process or for the kernel."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2)


def _left_out(config: pytest.Config) -> set[str]:
    names = {name for name in _ON_REQUEST if not config.getoption(f"--{name}")}
    return names if _names_paths(config) else names | set(_BY_PATH)


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Without the option, what the tests of the directory import need not be there."""
    return (
        True if str(collection_path) in {os.path.join(TESTS, name) for name in _left_out(config)} else None
    )


def _directory(item: pytest.Item) -> str:
    return os.path.relpath(item.path, TESTS).split(os.sep)[0]


def _rank(item: pytest.Item) -> tuple[bool, int]:
    name = _directory(item)
    return item.get_closest_marker("alone") is not None, _ORDER.index(name) if name in _ORDER else -1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is chosen, in order."""
    left_out = _left_out(config)
    quick = not (config.getoption("--all") or _names_paths(config))

    def chosen(item: pytest.Item) -> bool:
        return _directory(item) not in left_out and not (quick and item.get_closest_marker("slow"))

    config.hook.pytest_deselected(items=[item for item in items if not chosen(item)])
    items[:] = sorted(filter(chosen, items), key=_rank)
    for item in items:
        if item.get_closest_marker("root") is not None and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="root"))
