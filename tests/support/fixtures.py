"""Fixtures of every test directory: bundles, containers, users, and the search for what was left behind.

A conftest.py takes them by name; they stand on support.py and containers.py.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

import containers
import limits
import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


V1_IN_USE = limits.version("host") == 1


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """At the end this process has left no process and no cgroup behind."""
    support.become_subreaper()
    # `python -c` imports from the working directory first; the installation is what is tested.
    before_that = os.getcwd()
    os.chdir("/")
    known = support.children()
    yield
    os.chdir(before_that)
    left = support.kill_children(known)
    mine = support.find_cgroups(support.ID_PREFIX) if os.geteuid() == 0 else []
    support.remove_cgroups(mine)
    left += mine
    assert not left, f"left behind: {left}"


@pytest.fixture
def pyrunc() -> str:
    """The path of the installed command."""
    return support.PYRUNC


@pytest.fixture
def init_binary() -> str:
    """The path of the in-container program: the installed one, or the one with sanitizers."""
    sanitized = os.environ.get("PYRUNC_SANITIZED")
    return os.path.join(sanitized, "init") if sanitized else os.path.join(support.PACKAGE, "init")


@pytest.fixture
def probe_binary() -> str:
    """The path of the static test payload."""
    path: str = containers.bundles.find_probe()
    return path


@pytest.fixture
def scratch() -> Iterator[str]:
    """A directory of this test that mapped users can pass through."""
    path = support.make_scratch()
    yield path
    left = support.remove_scratch(path)
    assert not left, f"mounts left behind: {left}"


@pytest.fixture
def bundle(scratch: str) -> containers.BundleFactory:
    """A factory of bundles: bundle("probe"), or bundle("busybox", "sleep", "600") with another program."""
    numbers = itertools.count(1)

    def make(name: str = "probe", *argv: str, user: containers.User | None = None) -> containers.Bundle:
        made = containers.make_bundle(name, os.path.join(scratch, f"bundle{next(numbers)}"), rootless=user)
        return made.args(*argv).write() if argv else made

    return make


_numbers = itertools.count(1)


@pytest.fixture
def container(scratch: str, bundle: containers.BundleFactory) -> Iterator[containers.ContainerFactory]:
    """A factory of containers: container(bundle("probe").probe("pause")); all are gone after the test.

    `view` is a key of support.VIEWS, `user` an ordinary user, `command` what to call instead of the installed pyrunc.
    """
    made: list[containers.Container] = []
    known = support.children()

    def make(
        what: containers.Bundle | None = None,
        *,
        name: str | None = None,
        view: str = "host",
        user: containers.User | None = None,
        command: Sequence[str] | None = None,
    ) -> containers.Container:
        support.needs(not view.startswith("v1") or V1_IN_USE, "cgroup v1")
        prefix = support.VIEWS[view] + (user.prefix if user else [])
        program = list(command) if command else [user.pyrunc if user else support.PYRUNC]
        where = user.runtime_dir if user else scratch
        target = (what if what is not None else bundle("probe", user=user)).write()
        one = containers.Container(
            name or f"{support.ID_PREFIX}{next(_numbers)}", target, where, [*prefix, *program], user
        )
        made.append(one)
        return one

    yield make
    for one in made:
        one.clean_up()
    left = support.kill_children(known)
    if os.geteuid() == 0:
        cgroups = support.find_cgroups(support.ID_PREFIX)
        support.remove_cgroups(cgroups)
        left += cgroups
    left += [path for one in made if os.path.lexists(path := os.path.join(one.root, one.id))]
    assert not left, f"left behind by delete --force: {left}"


# Where cgroup2 is all there is, the host is the view.
@pytest.fixture(params=["host", "v2"] if V1_IN_USE else ["host"])
def view(request: pytest.FixtureRequest) -> str:
    """Run the test on the host as it is, and once more with nothing but cgroup2 at /sys/fs/cgroup."""
    support.needs_root()
    return str(request.param)


@pytest.fixture
def rootless() -> Iterator[containers.User]:
    """An ordinary user with subordinate ids and a runtime directory of its own."""
    support.needs_root()
    support.needs_program("newuidmap")
    directory = support.make_scratch()
    yield containers.make_test_user(directory)
    left = support.remove_scratch(directory)
    assert not left, f"mounts left behind: {left}"
