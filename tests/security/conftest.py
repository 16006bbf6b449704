"""A failed attack test is a finding, and is recorded as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import criu_scene
import rounds

if TYPE_CHECKING:
    from collections.abc import Generator

    from containers import BundleFactory, ContainerFactory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every failure goes into PYRUNC_ATTACK_RECORD, with its last line."""
    report = yield
    if report.failed:
        lines = report.longreprtext.splitlines()
        rounds.record(0, 0.0, finding=lines[-1] if lines else "?", test=item.nodeid)
    return report


@pytest.fixture
def running(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> criu_scene.Scene:
    """A container that runs, and says the signals that it hears."""
    one = container(bundle("probe").probe("sigwait")).up()
    one.expect("ready")
    return criu_scene.Scene(one, scratch)


@pytest.fixture
def saved(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> criu_scene.Scene:
    """A container that can be restored by a CRIU that does not look at images."""
    one = container(bundle("probe").probe("pause"))
    scene = criu_scene.Scene(one, scratch)
    criu_scene.images(scene.image)
    return scene
