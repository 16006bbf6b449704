"""Every cell of the table in docs/configuration.md: a container with limit and label, by each driver and kind of user.

The machine decides the row's cgroup mode and the LSM: vm/session.py runs these tests in guests of every kind.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import labels
import limits
import support
import systemd_host as others

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory, User

pytestmark = pytest.mark.root

V1 = limits.version("host") == 1


@pytest.fixture
def label(request: pytest.FixtureRequest, scratch: str) -> Iterator[str]:
    """What the program's label is to be: none, or that of the module which this machine has."""
    if not request.param:
        yield ""
    elif labels.has_apparmor():
        with labels.loaded_profiles(scratch):
            yield f"{labels.PROFILE} (enforce)"
    else:
        support.needs(labels.has_selinux(), "AppArmor or SELinux")
        yield labels.LABEL


def labelled(made: Bundle, label: str) -> Bundle:
    """Itself, with a program that gets the label."""
    if label == labels.LABEL:
        return labels.label_files(made)
    if label:
        made.mapping("process")["apparmorProfile"] = labels.PROFILE
    return made


def lives(one: Container, label: str) -> None:
    """It runs, has the label, and exec gives the same to another program."""
    one.up()
    if label:
        with open(f"/proc/{one.pid}/attr/current", encoding="ascii") as stream:
            assert stream.read().rstrip("\0\n") == label
        assert one.exec("cat", "/proc/self/attr/current").ok().out.rstrip("\0\n") == label
    assert one.status() == "running"


def ends(one: Container) -> None:
    """kill and delete leave nothing."""
    one.kill("KILL").ok()
    one.wait()
    one.delete().ok()
    assert not os.path.lexists(os.path.join(one.root, one.id))
    assert not support.find_cgroups(one.id)


# Before the container: what starts later is taken for something that it left behind.
@pytest.fixture
def place(request: pytest.FixtureRequest, driver: str) -> str | None:
    """The delegated cgroup for the driver cgroupfs, where cgroups can be delegated."""
    return None if V1 or driver == "systemd" else str(request.getfixturevalue("delegated"))


LABELS = pytest.mark.parametrize("label", [False, True], indirect=True, ids=["plain", "labelled"])


@LABELS
@pytest.mark.parametrize("driver", others.DRIVERS)
def test_root(container: ContainerFactory, bundle: BundleFactory, driver: str, label: str) -> None:
    """With a limit, whatever the mode."""
    what = labelled(bundle("busybox", "sleep", "1000"), label)
    others.limited(what, {"pids": {"limit": 77}, "memory": {"limit": 64 << 20}})
    one = others.made(container, what, "pyrunc", driver)
    lives(one, label)
    assert limits.read(one, "pids" if V1 else "", "pids.max") == "77"
    name = "memory.limit_in_bytes" if V1 else "memory.max"
    assert limits.read(one, "memory" if V1 else "", name) == str(64 << 20)
    ends(one)


@LABELS
@pytest.mark.parametrize("driver", others.DRIVERS)
def test_rootless(
    place: str | None,
    container: ContainerFactory,
    bundle: BundleFactory,
    lingering: User,
    driver: str,
    label: str,
) -> None:
    """With a limit on v2; on v1, which is not delegated, without cgroup, and without the systemd driver."""
    what = labelled(bundle("busybox", "sleep", "1000", user=lingering), label)
    if V1 and driver == "systemd":
        one = others.rootless(container, what, lingering, "pyrunc", None)
        one.create().fails("cannot use rootless systemd cgroups manager on cgroup v1", "hint: leave out")
    elif V1:
        one = container(what, user=lingering)
        lives(one, label)
        assert not support.find_cgroups(one.id)
        ends(one)
        others.limited(what, {"pids": {"limit": 77}}).write()
        one.create().fails("$.linux.resources.pids.limit")
    else:
        others.limited(what, {"pids": {"limit": 77}})
        one = others.rootless(container, what, lingering, "pyrunc", place)
        lives(one, label)
        assert limits.read(one, "", "pids.max") == "77"
        assert limits.directory(one.pid, "").startswith(
            f"{place}/" if place else "/sys/fs/cgroup/user.slice/"
        )
        ends(one)
