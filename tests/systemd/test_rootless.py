"""Containers of an ordinary user whose systemd has delegated controllers: either driver, each runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import limits
import systemd_host as others

if TYPE_CHECKING:
    from containers import BundleFactory, Container, ContainerFactory, User
    from support import Spec

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("v2_alone")]

MB = 1 << 20
RESOURCES: Spec = {
    "memory": {"limit": 64 * MB, "swap": 96 * MB},
    "cpu": {"quota": 25_500, "period": 50_000, "cpus": "0"},
    "pids": {"limit": 77},
}
FILES = {
    "memory.max": str(64 * MB),
    "memory.swap.max": str(32 * MB),
    "cpu.max": "25500 50000",
    "cpuset.cpus": "0",
    "pids.max": "77",
}


@pytest.fixture(params=others.DRIVERS)
def where(request: pytest.FixtureRequest, delegated: str) -> str | None:
    """The delegated cgroup for the driver cgroupfs, None for systemd's."""
    return delegated if request.param == "cgroupfs" else None


def test_limits(
    container: ContainerFactory, bundle: BundleFactory, lingering: User, where: str | None
) -> None:
    """They apply, below the user's own service; update changes them; nothing stays behind."""
    made = others.limited(bundle("probe", user=lingering).probe("pause"), RESOURCES)
    one = others.rootless(container, made, lingering, "pyrunc", where).up()
    path = limits.directory(one.pid, "")
    assert path.startswith(f"{where}/") if where else f"/user@{lingering.uid}.service/lab.slice/" in path
    assert others.files(one, FILES) == FILES
    one.pyrunc("update", "--pids-limit", "80", "--memory", "80M", "--memory-swap", "80M", one.id).ok()
    changed = {"memory.max": str(80 * MB), "memory.swap.max": "0", "pids.max": "80"}
    assert others.files(one, FILES) == FILES | changed
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "paused"
    one.pyrunc("resume", one.id).ok()
    assert one.exec("/bin/probe", "ids").ok().facts()["uid"] == "0 0 0"
    one.kill("KILL").ok()
    one.wait()
    one.delete().ok()
    assert not os.path.exists(path)


def values(one: Container, user: User) -> dict[str, str]:
    """What the user's manager has of the limits."""
    found = others.show(others.unit(one), "--user", prefix=user.prefix)
    names = (
        "MemoryMax",
        "MemorySwapMax",
        "TasksMax",
        "CPUQuotaPerSecUSec",
        "AllowedCPUs",
        "Delegate",
        "Slice",
    )
    return {name: found[name] for name in names}


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_what_others_set(
    container: ContainerFactory, bundle: BundleFactory, lingering: User, runtime: str
) -> None:
    """The same files get the same values from other runtimes, by the user's manager, which with runc has them too."""
    made = others.limited(bundle("probe", user=lingering).probe("pause"), RESOURCES)
    one = others.rootless(container, made, lingering, runtime, None).up()
    assert others.files(one, FILES) == FILES
    # crun 1.8 keeps the limits from systemd.
    if runtime == "runc":
        again = others.limited(bundle("probe", user=lingering).probe("pause"), RESOURCES)
        ours = others.rootless(container, again, lingering, "pyrunc", None).up()
        assert values(ours, lingering) == values(one, lingering)


def test_out_of_memory(
    container: ContainerFactory, bundle: BundleFactory, lingering: User, where: str | None
) -> None:
    """The limit of a user's container kills too."""
    made = bundle("probe", user=lingering).probe("oom", "8", "--", "oom", "64")
    others.limited(made, {"memory": {"limit": 16 * MB, "swap": 16 * MB}})
    result = others.rootless(container, made, lingering, "pyrunc", where).run()
    assert (result.status, result.out) == (137, "allocated 8\n"), result


def test_a_limit_without_delegation(
    container: ContainerFactory, bundle: BundleFactory, lingering: User
) -> None:
    """Where the user may not make cgroups, a limit is refused, not forgotten."""
    made = others.limited(bundle("probe", user=lingering).probe("pause"), {"pids": {"limit": 5}})
    one = container(made, user=lingering)
    one.create().fails("$.linux.resources.pids.limit", "cgroup")
    assert not os.path.lexists(os.path.join(one.root, one.id))
