"""Whole plans as `explain` prints them, compared with tests/goldens: a change of a plan must be seen and meant.

PYRUNC_UPDATE_GOLDENS=1 writes them anew.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import plan_specs as specs
import support
from pyrunc.reports import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.plan.job import Plan

GOLDENS = os.path.join(support.PROJECT, "tests/goldens")

PLANS: dict[str, Callable[[], Plan]] = {
    "docker-v1": lambda: specs.create(specs.docker_like(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS),
    "docker-v2": lambda: specs.create(specs.docker_like(), specs.V2_HOST, cgroup_paths=specs.V2_PATHS),
    "podman-v1": lambda: specs.create(
        specs.podman_like(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS, seccomp=specs.Filter()
    ),
    "podman-v2": lambda: specs.create(
        specs.podman_like(), specs.V2_HOST, cgroup_paths=specs.V2_PATHS, seccomp=specs.Filter(notify=True)
    ),
    "userns": lambda: specs.create(
        specs.userns(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS, seccomp=specs.Filter()
    ),
    "rootless": lambda: specs.create(specs.rootless(), specs.ROOTLESS_HOST),
    "rootless-engine": lambda: specs.create(specs.docker_like(), specs.NESTED_HOST),
    "joined": lambda: specs.create(specs.joined(), specs.V2_HOST, cgroup_paths=specs.V2_PATHS),
    "no-process": lambda: specs.create(specs.without_process(), specs.V2_HOST),
    "terminal": lambda: specs.create(specs.terminal(), specs.V2_HOST, no_pivot=True, preserve_fds=2),
    "exec": lambda: specs.enter(
        specs.process(terminal=True), specs.userns(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_golden(name: str) -> None:
    """The plan reads as it did."""
    text = explain.text(PLANS[name]())
    file = os.path.join(GOLDENS, f"{name}.txt")
    if os.environ.get("PYRUNC_UPDATE_GOLDENS") == "1":
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(text)
    with open(file, encoding="utf-8") as stream:
        assert text == stream.read(), "PYRUNC_UPDATE_GOLDENS=1 accepts the new plan"


def test_every_golden_is_made() -> None:
    """No file lies there that nothing compares with."""
    assert sorted(os.listdir(GOLDENS)) == sorted(f"{name}.txt" for name in PLANS)
