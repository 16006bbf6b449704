"""Fixtures of more than one file of unit tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.kernel import container as kernel_container
from state_dirs import Cgroup, Root, mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """An empty root; what was started is ended."""
    made = Root(str(tmp_path / "root"))
    os.mkdir(made.path)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


@pytest.fixture(params=["v1", "v2"])
def cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """A cgroup of the v1 freezer, and one of v2."""
    support.needs_root()
    kind, option, controller = {"v1": ("cgroup", "freezer", "freezer"), "v2": ("cgroup2", "rw", "")}[
        request.param
    ]
    mount = mount_of(kind, option)
    support.needs(mount is not None, f"a {request.param} freezer")
    assert mount is not None
    made = Cgroup(mount, controller, f"unit-{request.param}")
    yield made
    if os.path.exists(made.path):
        kernel_container.cgroup_kill([made.entry])
        kernel_container.cgroup_remove([made.entry], [made.path])
    if os.path.exists(made.parent):
        os.rmdir(made.parent)
