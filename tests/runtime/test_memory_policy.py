"""config-linux.md, "Memory policy": which NUMA nodes the program's memory comes from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import BundleFactory, ContainerFactory
    from support import Json

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "interleave=static:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
    ],
)
def test_memory_policy(
    container: ContainerFactory, bundle: BundleFactory, policy: Json, expected: str
) -> None:
    """The kernel has it for the program and for what exec adds; without one it is the default. set_mempolicy(2)."""
    support.needs(os.path.exists("/proc/self/numa_maps"), "NUMA")
    what = bundle("probe").probe("cat", "/proc/self/numa_maps", "--", "pause")
    one = container(what).up()
    assert {line.split()[1] for line in one.expect("stack").splitlines()} == {"default"}
    one.kill("KILL").ok()
    one.wait()
    one.delete().ok()
    what.mapping("linux")["memoryPolicy"] = policy
    what.write()
    one = container(what).up()
    assert {line.split()[1] for line in one.expect("stack").splitlines()} == {expected}
    added = one.exec("/bin/probe", "cat", "/proc/self/numa_maps").ok().out
    assert {line.split()[1] for line in added.splitlines()} == {expected}


def test_a_memory_node_that_is_not_there(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe")
    what.mapping("linux")["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "63"}
    container(what).run().fails("$.linux.memoryPolicy", "set_mempolicy: invalid argument")
