"""Containers of ordinary users, and of root inside a user namespace as podman runs the runtime."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import BundleFactory, ContainerFactory, User
    from support import Json

pytestmark = pytest.mark.root


def own_ids(user: User) -> tuple[list[Json], list[Json]]:
    """Root inside is the user, nobody else exists: a map the kernel takes without a helper."""
    return (
        [{"containerID": 0, "hostID": user.uid, "size": 1}],
        [{"containerID": 0, "hostID": user.gid, "size": 1}],
    )


def subordinate_ids(user: User) -> tuple[list[Json], list[Json]]:
    """Root inside is the user, 1 and up are its subordinate ids: newuidmap and newgidmap write that."""
    uids, gids = own_ids(user)
    uids.append({"containerID": 1, "hostID": user.subuid[0], "size": 1000})
    gids.append({"containerID": 1, "hostID": user.subgid[0], "size": 1000})
    return uids, gids


@pytest.mark.parametrize("view", ["host", "v2"])
def test_a_whole_life(rootless: User, container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """create, start, state, exec, kill, delete by an ordinary user; no cgroup, no complaint."""
    what = bundle("probe", user=rootless).probe("ids", "--", "pause")
    linux = what.mapping("linux")
    linux["uidMappings"], linux["gidMappings"] = subordinate_ids(rootless)
    one = container(what, user=rootless, view=view)
    assert one.create().ok().err == ""
    one.start().ok()
    assert "uid 0 0 0" in one.expect("ready")
    assert one.status() == "running"
    with open(f"/proc/{one.pid}/uid_map", encoding="ascii") as stream:
        assert [line.split() for line in stream] == [
            ["0", str(rootless.uid), "1"],
            ["1", str(rootless.subuid[0]), "1000"],
        ]
    facts = one.exec("/bin/probe", "ids", options=["--user", "5:6"]).ok().facts()
    assert facts["uid"] == "5 5 5"
    assert facts["gid"] == "6 6 6"
    assert support.find_cgroups(f"/{one.id}") == []
    one.kill("TERM").ok()
    assert one.wait() == 0
    one.delete().ok()


def test_a_single_id_needs_no_helper(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """setgroups is then denied by the kernel's rule; a process without additional groups does not notice."""
    what = bundle("probe", user=rootless).probe("ids", "--", "cat", "/proc/self/setgroups")
    linux = what.mapping("linux")
    linux["uidMappings"], linux["gidMappings"] = own_ids(rootless)
    output = container(what, user=rootless).run().ok().out
    assert "uid 0 0 0" in output
    assert "deny" in output


def test_additional_groups_without_a_helper_are_refused_with_a_reason(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = bundle("probe", user=rootless)
    linux = what.mapping("linux")
    linux["uidMappings"], linux["gidMappings"] = own_ids(rootless)
    what.mapping("process", "user")["additionalGids"] = [0]
    container(what, user=rootless).run().fails("setgroups")


def test_ids_that_are_not_ours_are_refused(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """newuidmap says no; nothing is left."""
    what = bundle("probe", user=rootless)
    linux = what.mapping("linux")
    linux["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 2}]
    linux["gidMappings"] = own_ids(rootless)[1]
    one = container(what, user=rootless)
    one.create().fails("$.linux.uidMappings", "newuidmap")
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_the_default_root_is_the_runtime_directory(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    one = container(bundle("probe", user=rootless).probe("exit", "3"), user=rootless)
    words = [*rootless.prefix, rootless.pyrunc]
    support.run(*words, "run", "--keep", "--bundle", one.bundle.path, one.id).fails(status=3)
    assert os.path.isdir(os.path.join(rootless.runtime_dir, "pyrunc", one.id))
    support.run(*words, "delete", one.id).ok()


def test_spec_rootless_makes_a_configuration_that_runs(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = bundle("busybox", user=rootless)
    os.unlink(os.path.join(what.path, "config.json"))
    words = [*rootless.prefix, rootless.pyrunc]
    os.chown(what.path, rootless.uid, rootless.gid)
    support.run(*words, "spec", "--rootless", "--bundle", what.path).ok()
    with open(os.path.join(what.path, "config.json"), encoding="utf-8") as stream:
        what.spec = json.load(stream)
    what.args("id", "-u").mapping("process")["terminal"] = False
    assert container(what, user=rootless).run().ok().out == "0\n"


@pytest.mark.parametrize("mapping", [["--map-root-user"], ["--map-root-user", "--map-auto"]])
def test_root_of_a_user_namespace(
    rootless: User, container: ContainerFactory, bundle: BundleFactory, mapping: list[str]
) -> None:
    """podman's shape: the runtime is root in a user namespace of the engine's, the configuration makes none."""
    what = bundle("probe", user=rootless).probe("ids", "--", "exit", "4").without_namespace("user")
    for name in ("uidMappings", "gidMappings", "cgroupsPath"):
        what.mapping("linux").pop(name, None)
    command = ["unshare", "--user", *mapping, "--mount", rootless.pyrunc]
    one = container(what, user=rootless, command=command)
    assert "uid 0 0 0" in one.run().fails(status=4).out


def test_a_user_namespace_in_a_user_namespace(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """pyrunc as root of one makes another with a part of its ids."""
    what = bundle("probe", user=rootless).probe("ids", "--", "cat", "/proc/self/uid_map", "--", "exit", "5")
    linux = what.mapping("linux")
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 1, "size": 500}]
    command = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", rootless.pyrunc]
    one = container(what, user=rootless, command=command)
    output = one.run().fails(status=5).out
    assert "uid 0 0 0" in output
    assert ["0", "1", "500"] in [line.split() for line in output.splitlines()]
