"""Cgroups too deep, or of too long a name: refused before one is made, and no trouble when a container makes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

PATH = "$.linux.cgroupsPath: "
# More than Python's stack holds, and than a path with these names may be long.
DEPTH, NAME = 1200, "deep" * 3


@pytest.mark.parametrize(
    ("below", "words"),
    [
        ("/".join(["a"] * 1000), f"{PATH}leads to "),
        ("/".join(["a"] * 1990), f"{PATH}leads to "),
        ("/".join(["a"] * 3000), f"{PATH}leads to a path of "),
        ("/".join(["b" * 100] * 40), f"{PATH}leads to a path of "),
        ("/".join(["é" * 100] * 20), f"{PATH}leads to a path of "),
        ("c" * 256, f"{PATH}has a name of 256 bytes in it; 255 are allowed"),
        ("é" * 128, f"{PATH}has a name of 256 bytes in it; 255 are allowed"),
        ("d" * 5000, f"{PATH}has a name of 5000 bytes in it; 255 are allowed"),
        ("e\nf", f"{PATH}must not contain control characters"),
        ("e\0f", PATH),
    ],
)
def test_refused(
    below: str, words: str, view: str, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """With the place in the configuration and within a moment; nothing is made, not even in one hierarchy."""
    box = bundle("probe")
    one = container(box, view=view)
    box.mapping("linux")["cgroupsPath"] = f"/{one.id}/{below}"
    box.write()
    one.create().fails(words)
    assert support.find_cgroups(one.id) == []
    assert not os.path.lexists(os.path.join(one.root, one.id))


@pytest.mark.parametrize("below", ["/".join(["a"] * 100), "/".join(["b" * 255] * 7), "../../" * 1000])
def test_accepted(below: str, view: str, container: ContainerFactory, bundle: BundleFactory) -> None:
    """What is deep and possible lives and goes without a trace; ".." climbs nowhere."""
    box = bundle("probe").probe("pause")
    one = container(box, view=view)
    box.mapping("linux")["cgroupsPath"] = f"/{below}/{one.id}" if ".." in below else f"/{one.id}/{below}"
    box.write()
    one.up()
    assert one.id in support.cgroup_of(one.pid)[""]
    one.delete("--force").ok()
    assert support.find_cgroups(one.id) == []


def dig(top: str) -> None:
    """Make cgroups in each other, deeper than a path reaches, as a container does that may."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir(NAME, dir_fd=here)
        below = os.open(NAME, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.slow
def test_a_container_digs(view: str, container: ContainerFactory, bundle: BundleFactory) -> None:
    """ps, pause, kill --all and delete reach the end of what no path names."""
    one = container(bundle("probe").probe("pause"), view=view).up()
    for path in support.find_cgroups(one.id):
        if view == "v2" or path.split("/")[4] in ("devices", "freezer", "unified"):
            dig(path)
    assert one.pyrunc("ps", "--format", "json", one.id).ok().json() == [one.pid]
    one.pyrunc("pause", one.id).ok()
    one.pyrunc("resume", one.id).ok()
    one.kill("KILL", "--all").ok()
    one.wait()
    one.delete("--force").ok()
