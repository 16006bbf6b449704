"""The cgroup driver on real cgroups: the host's (v1, with cgroup2 beside), v1 alone, and cgroup2 alone."""

from __future__ import annotations

import os

import pytest

import support

pytestmark = pytest.mark.root

SCENES = os.path.join(os.path.dirname(os.path.realpath(__file__)), "cgroup_scenes.py")
BOTH = (
    "lifecycle",
    "parents_stay",
    "unset_path",
    "in_use",
    "frozen_parent",
    "freezer",
    "devices",
    "race",
    "rootless",
)
V1 = ("limits_v1", "refused_v1", "devices_match_kernel", "cpuset_inherits", "undone")
V2 = ("limits_v2", "into_cgroup", "ownership", "threaded")


def has_v1() -> bool:
    """Whether this host's own view has v1 controllers."""
    return os.path.isdir("/sys/fs/cgroup/memory")


def play(scene: str, view: str) -> None:
    support.needs(view == "v2" or has_v1(), "cgroup v1")
    name = f"{support.ID_PREFIX}{scene}-{view}"
    result = support.run(*support.VIEWS[view], support.PYTHON, SCENES, scene, name)
    assert result.status == 0, f"{result.err}\n{result.out}"
    assert not result.err, "a scene has nothing to say"
    assert not support.find_cgroups(name)


@pytest.mark.parametrize("view", ["host", "v2"])
@pytest.mark.parametrize("scene", BOTH)
def test_on_every_host(scene: str, view: str) -> None:
    """What must be the same whatever the host's cgroups are."""
    play(scene, view)


@pytest.mark.parametrize("scene", V1)
def test_on_v1(scene: str) -> None:
    """Facts of cgroup v1."""
    play(scene, "host")


@pytest.mark.parametrize("scene", ["lifecycle", "freezer"])
def test_on_v1_without_cgroup2(scene: str) -> None:
    """No cgroup2 mount beside the controllers: v1's own freezer, no cgroup.kill."""
    play(scene, "v1")


@pytest.mark.parametrize("scene", V2)
def test_on_v2(scene: str) -> None:
    """Facts of cgroup v2."""
    play(scene, "v2")
