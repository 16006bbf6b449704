"""Every test here runs once with runc and once with pyrunc, in an area of its own, and is compared: see scenario.py.

A module says `ENGINE = "containerd"` and builds the fixture of its engine on `area`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines.area import Area
from engines.client import Client
from engines.containerd import Containerd
from engines.cri import Kubelet
from engines.scenario import BASE, OURS, RUNTIMES, Row, Seen, store

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Scenarios that several modules share; their assertions explain themselves like those of a test module.
pytest.register_assert_rewrite(
    *(f"engines.{name}" for name in ("builds", "life", "networks", "options", "podman_life"))
)
# By the test without its parameter: what the user saw with runc, and the finished rows by engine.
_BASE_VALUES = pytest.StashKey[dict[str, dict[str, support.Json]]]()
_ROWS = pytest.StashKey[dict[str, dict[str, support.Spec]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Rows are gathered over the whole run."""
    config.stash[_BASE_VALUES] = {}
    config.stash[_ROWS] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Rows that were made in this run replace those of earlier ones."""
    for engine, rows in session.config.stash[_ROWS].items():
        store(engine, rows)


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """The name of the runtime that the engine gets; every test is run with each."""
    support.needs_root()
    if request.param == BASE:
        support.needs_program(BASE)
    return str(request.param)


@pytest.fixture(scope="module")
def area(request: pytest.FixtureRequest, runtime: str) -> Iterator[Area]:
    """The private place of the module's engine; nothing may be left in it."""
    path = support.PYRUNC if runtime == OURS else support.needs_program(runtime)
    driver = getattr(request.module, "DRIVER", "cgroupfs")
    support.needs(driver == "cgroupfs" or os.path.isdir("/run/systemd/system"), "systemd")
    made = Area(str(request.module.ENGINE), runtime, path, driver)
    try:
        yield made
    finally:
        left = made.close(getattr(request.module, "PARENTS", ()))
    assert not left, f"left behind by {runtime}: {left}"


@pytest.fixture
def seen(area: Area, request: pytest.FixtureRequest) -> Iterator[Seen]:
    """What the user sees in this run of the test; compared when the test is over.

    The runtime must have been called: engines have ways to fall back on another one.
    """
    before = len(area.calls())
    replacements = {area.runtime: "RUNTIME", area.directory: "AREA", area.name: "ENGINE"}
    yield Seen(area.runtime_name, replacements)
    assert len(area.calls()) > before, f"{area.runtime_name} was never called"


@pytest.fixture(scope="module")
def containerd_daemon(area: Area) -> Containerd:
    """One containerd for the tests of a module; it ends with the area."""
    return Containerd(area)


@pytest.fixture
def ctd(containerd_daemon: Containerd) -> Iterator[Containerd]:
    """That containerd, without containers of earlier tests."""
    yield containerd_daemon
    left = list(containerd_daemon.forget())
    assert not left, f"containerd cannot remove {left}"


@pytest.fixture(scope="module")
def connection(containerd_daemon: Containerd) -> Iterator[Kubelet]:
    """One client of the CRI for the tests of a module."""
    made = Kubelet(containerd_daemon)
    yield made
    made.close()


@pytest.fixture
def kubelet(connection: Kubelet) -> Iterator[Kubelet]:
    """It, without pods of earlier tests; nothing of the test's is left."""
    yield connection
    left = connection.forget()
    assert not left, f"cgroups left behind: {left}"


@pytest.fixture(scope="module")
def engine(area: Area, request: pytest.FixtureRequest) -> Client:
    """The CLIENT of the module, one for all of its tests; a daemon ends with the area."""
    made = request.module.CLIENT(area)
    assert isinstance(made, Client)
    return made


@pytest.fixture
def client(engine: Client) -> Iterator[Client]:
    """That one, without containers of earlier tests."""
    yield engine
    left = list(engine.forget())
    assert not left, f"{engine.area.name} cannot remove {left}"


def _title(item: pytest.Function) -> str:
    text = (item.function.__doc__ or item.name).strip().splitlines()[0]
    variant = {name: value for name, value in item.callspec.params.items() if name != "runtime"}
    return f"{text} ({', '.join(str(value) for value in variant.values())})" if variant else text


def _settle(item: pytest.Function, seen: Seen) -> None:
    """Keep what runc showed; compare what pyrunc shows with it and make the row."""
    key = item.nodeid.replace(seen.runtime, "*")
    stash = item.config.stash
    if seen.runtime == BASE:
        stash[_BASE_VALUES][key] = seen.values
        return
    # Where runc is not there, or did not get through the scenario, nothing can be compared.
    if key not in stash[_BASE_VALUES]:
        return
    row = Row(_title(item), stash[_BASE_VALUES][key], seen.values)
    improvements = {str(mark.args[0]): str(mark.args[1]) for mark in item.iter_markers("improvement")}
    engine = str(item.getparent(pytest.Module).obj.ENGINE)  # type: ignore[union-attr]
    name = os.path.basename(key)
    stash[_ROWS].setdefault(engine, {})[name] = row.document(improvements)
    wrong = row.unexplained(improvements)
    assert not wrong, "not what the user sees with runc:\n" + "\n".join(wrong)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None]:
    """Compare as a part of the test, so that a difference is its failure."""
    yield
    seen = item.funcargs.get("seen")
    if isinstance(seen, Seen):
        _settle(item, seen)
