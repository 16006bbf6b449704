"""The ready bundles run and show what they promise; the fixtures that other tests stand on keep their word."""

from __future__ import annotations

import os

import pytest

import containers
import support
from containers import BundleFactory, ContainerFactory

OUTPUT = {
    "hello": ("hello from a container\n",),
    "readonly": ("the root is read-only\n", "/tmp is not\n"),
    "userns": ("uid=0(root)", "         0     100000      65536\n"),
    "seccomp": ("the filter works\n",),
    "hooks": ("startContainer created\n",),
    "probe": ("uid 0 0 0\n", "pid 1\n", "no_new_privs 1\n"),
}


@pytest.fixture(autouse=True)
def _root() -> None:
    support.needs_root()


@pytest.mark.parametrize("name", OUTPUT)
def test_bundle_shows_what_it_promises(
    container: ContainerFactory, bundle: BundleFactory, name: str
) -> None:
    """`pyrunc run` of each bundle that ends by itself prints its point."""
    result = container(bundle(name)).run().ok()
    for text in OUTPUT[name]:
        assert text in result.out, result


def test_hooks_bundle_writes_its_log(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The hooks outside add to the log in the order of the specification, each with the status it was told."""
    made = bundle("hooks")
    container(made).run().ok()
    with open(os.path.join(made.path, "hooks.log"), encoding="ascii") as stream:
        lines = stream.read().splitlines()
    assert [line.split()[0] for line in lines] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ]
    assert lines[-1] == "poststop stopped"


@pytest.mark.slow
def test_every_bundle_is_known(scratch: str) -> None:
    """The command line makes what docs/usage.md lists, and says so when it is asked for something else."""
    make = os.path.join(support.PROJECT, "bundles/make")
    for name in (*OUTPUT, "busybox", "tty"):
        support.run(make, name, os.path.join(scratch, name)).ok()
        assert os.path.isfile(os.path.join(scratch, name, "config.json"))
    assert set(containers.bundles.BUNDLES) == {*OUTPUT, "busybox", "tty"}
    support.run(make, "nothing", os.path.join(scratch, "x")).fails("usage: bundles/make", status=2)


def test_life_in_single_steps(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """create, start, kill, wait, delete, on both views of the host; the fixture finds nothing left."""
    one = container(bundle("probe").probe("pause"), view=view)
    one.create().ok()
    assert one.status() == "created"
    assert support.children().count(one.pid) == 1
    one.start().ok()
    one.expect("ready")
    assert one.status() == "running"
    assert one.exec("/bin/probe", "ids").ok().facts()["uid"] == "0 0 0"
    one.kill("TERM").ok()
    assert one.wait() == 0
    assert one.status() == "stopped"
    one.delete().ok()
    one.pyrunc("state", one.id).fails("does not exist")


def test_ordinary_user(
    container: ContainerFactory, bundle: BundleFactory, rootless: containers.User
) -> None:
    """A user without privileges runs a container as root of a user namespace."""
    one = container(
        bundle("probe", user=rootless).probe("ids", "--", "cat", "/proc/self/uid_map"), user=rootless
    )
    facts = one.run().ok().facts()
    assert facts["uid"] == "0 0 0"
    assert facts.text.splitlines()[-1].split() == ["0", str(rootless.uid), "1"]
