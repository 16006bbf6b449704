"""Plans that change the mounts of a running container: who opens what, in which order, and what must stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import plan_specs as specs
from pyrunc.errors import ConfigError
from pyrunc.plan import changes as plan_changes
from pyrunc.plan import numbers, wire
from pyrunc.plan.job import Plan, PlanOptions
from pyrunc.reports import explain

if TYPE_CHECKING:
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Mount, Spec

OPTIONS = PlanOptions(bundle="/srv/bundle", container_id="c1", rootfs="/", init_pid=4242)
BIND: Mount = {"destination": "a/../b", "source": "data", "options": ["rbind", "ro"]}
RO_TMPFS: Mount = {"destination": "/t", "type": "tmpfs", "options": ["ro"]}


def added(*mounts: Mount, spec: Spec | None = None, host: HostFacts = specs.V2_HOST) -> Plan:
    """The plan that adds them."""
    return plan_changes.add(mounts, spec or specs.docker_like(), host, OPTIONS)


def joined(made: Plan) -> list[str]:
    """The namespaces that are joined, in order."""
    return [str(fields[0]).removeprefix("ns /proc/4242/ns/") for fields in specs.every(made, "SETNS")]


def test_root_opens_the_sources() -> None:
    """Outside; init needs the mount namespace alone, and tells before what it has done can stay."""
    made = added(BIND, RO_TMPFS)
    assert specs.names(made) == [
        *("DUMPABLE", "SETNS", "ADD_BEGIN", "MOUNT_BIND", "MOUNT_NEW", "ADD_END", "SYNC", "DONE")
    ]
    assert joined(made) == ["mnt"]
    op = specs.only(made, "MOUNT_BIND")
    tree = op.fields[2]
    assert isinstance(tree, wire.Fd)
    assert (op.fields[:2], op.path) == (("/b", "/srv/bundle/data"), "$[0].source")
    assert (tree.arg, tree.recursive, tree.propagation) == ("/srv/bundle/data", True, 0x80000 | 0x4000)
    flags = specs.only(made, "MOUNT_NEW").fields[-1]
    assert flags == numbers.MOUNT_FLAG_TARGET_MODE | numbers.MOUNT_FLAG_RDONLY_LATER
    assert specs.only(made, "SYNC").fields == (numbers.SYNC["READY"],)
    assert "opened by the runtime" in explain.text(made)


@pytest.mark.parametrize(
    ("kind", "namespaces"),
    [("tmpfs", ["mnt"]), ("sysfs", ["mnt", "net"]), ("mqueue", ["ipc", "mnt"]), ("proc", ["mnt"])],
)
def test_namespaces_by_need(kind: str, namespaces: list[str]) -> None:
    """What a file system shows is its maker's; but init never goes where the container could trace or end it."""
    made = added({"destination": "/x", "type": kind})
    assert sorted(joined(made)) == namespaces
    assert ("PIDNS" in specs.names(made)) == (kind == "proc")
    assert "FORK" not in specs.names(made) and not made.needs_fork


def test_an_ordinary_users_runtime() -> None:
    """Sources are taken hold of in a copy of its mount namespace, with what the container's user namespace gives."""
    made = added(
        BIND, {**BIND, "options": ["bind", "src-nofollow"]}, spec=specs.rootless(), host=specs.ROOTLESS_HOST
    )
    names = specs.names(made)
    assert joined(made) == ["user", "mnt"]
    assert names[names.index("USERNS_ROOT") :] == [
        *("USERNS_ROOT", "DUMPABLE", "UNSHARE", "ROOT_PROPAGATION", "TREE", "TREE", "SETNS"),
        *("ADD_BEGIN", "MOUNT_BIND", "MOUNT_BIND", "ADD_END", "SYNC", "DONE"),
    ]
    assert specs.every(made, "TREE") == [
        ("/srv/bundle/data", numbers.MOUNT_FLAG_RECURSIVE),
        ("/srv/bundle/data", numbers.MOUNT_FLAG_SOURCE_NOFOLLOW),
    ]
    kept = [fields[-1] for fields in specs.every(made, "MOUNT_BIND")]
    assert kept == [
        numbers.MOUNT_FLAG_RECURSIVE | numbers.MOUNT_FLAG_KEPT_TREE,
        numbers.MOUNT_FLAG_SOURCE_NOFOLLOW
        | numbers.MOUNT_FLAG_KEPT_TREE
        | 1 << numbers.MOUNT_FLAG_KEPT_SHIFT,
    ]
    made = added(RO_TMPFS, spec=specs.rootless(), host=specs.ROOTLESS_HOST)
    assert "UNSHARE" not in specs.names(made)


def test_mapping_of_the_container() -> None:
    """Its user namespace is there now, and is taken as it is."""
    made = added({**BIND, "options": ["bind", "idmap"]}, spec=specs.userns())
    tree = specs.only(made, "MOUNT_BIND").fields[2]
    assert isinstance(tree, wire.Fd) and tree.idmap is not None
    assert tree.idmap.namespace == "/proc/4242/ns/user"
    assert joined(made) == ["mnt", "user"]


def test_cgroups() -> None:
    """Without a namespace the container's own directories; read-only in the end, not by a path."""
    mount: Mount = {"destination": "/cg", "type": "cgroup", "options": ["ro"]}
    made = added(mount, host=specs.V1_HOST)
    assert "REMOUNT" not in specs.names(made)
    assert specs.only(made, "MOUNT_NEW").fields[-1] == numbers.MOUNT_FLAG_RDONLY_LATER
    assert all(isinstance(fields[2], wire.Fd) for fields in specs.every(made, "MOUNT_BIND"))


def test_removal() -> None:
    """All are looked at before the first goes; the last first; masks and the like stay."""
    spec = specs.docker_like()
    made = plan_changes.remove(["/a", "b"], spec, specs.V2_HOST, OPTIONS)
    assert [(fields[0], fields[2]) for fields in specs.every(made, "UMOUNT")] == [
        *(("/a", 1), ("/b", 1), ("/b", 0), ("/a", 0))
    ]
    stay = specs.every(made, "UMOUNT")[0][1]
    assert isinstance(stay, list)
    assert {"/", "/proc", "/dev", *spec["linux"]["maskedPaths"], *spec["linux"]["readonlyPaths"]} == set(
        stay
    )
    assert specs.names(made)[-1] == "DONE"


def test_a_mount_namespace_is_needed() -> None:
    spec = specs.docker_like()
    spec["linux"]["namespaces"] = specs.new_namespaces("pid")
    with pytest.raises(ConfigError, match="no mount namespace"):
        added(BIND, spec=spec)
    with pytest.raises(ConfigError, match="no mount namespace"):
        plan_changes.remove(["/a"], spec, specs.V2_HOST, OPTIONS)
