"""linux.intelRdt on real containers, against a resctrl of our own (fake_resctrl.py)."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Protocol

import pytest

import fake_resctrl
import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import BundleFactory, Container, ContainerFactory
    from fake_resctrl import Tree
    from support import Json, Spec

pytestmark = pytest.mark.root

L3 = "L3:0=7f0;1=1f"
MB = "MB:0=20;1=70"
# The command line with another answer to the one question of where resctrl is mounted.
ELSEWHERE = """
import sys
from pyrunc.cli import main as cli
from pyrunc import requests
requests.Context.__init__.__kwdefaults__["resctrl"] = sys.argv.pop(1)
raise SystemExit(cli.main())
"""


class Rdt(Protocol):
    """The fixture `rdt`."""

    def __call__(self, wanted: Spec, *words: str, name: str | None = None) -> Container:
        """A container with this linux.intelRdt, not created yet; its program waits unless `words` say otherwise."""


@pytest.fixture
def where(scratch: str) -> str:
    """Where resctrl is mounted."""
    path = os.path.join(scratch, "resctrl")
    os.mkdir(path)
    return path


@pytest.fixture
def tree(where: str) -> Iterator[Tree]:
    with fake_resctrl.mounted(where) as found:
        yield found


@pytest.fixture
def rdt(tree: Tree, where: str, container: ContainerFactory, bundle: BundleFactory) -> Rdt:
    def make(wanted: Spec, *words: str, name: str | None = None) -> Container:
        what = bundle("probe").probe(*(words or ("pause",)))
        what.mapping("linux")["intelRdt"] = wanted
        return container(what, name=name, command=[support.PYTHON, "-I", "-c", ELSEWHERE, where])

    return make


def installed(one: Container, *args: str) -> support.Result:
    """Run the installed command, which does not know where resctrl is but by the container's state."""
    return support.run(support.PYRUNC, "--root", one.root, *args)


def read(*parts: str) -> str:
    with open(os.path.join(*parts), encoding="ascii") as stream:
        return stream.read()


def schemas(*parts: str) -> list[str]:
    return [line.strip() for line in read(*parts, "schemata").splitlines()]


def tasks(*parts: str) -> list[int]:
    return [int(line) for line in read(*parts, "tasks").splitlines()]


def gone(one: Container, tree: Tree, *left: str) -> None:
    """Nothing is left of the container, and of groups the root and those named."""
    assert set(tree.groups) == {"", *left}
    assert not support.find_cgroups(f"/{one.id}")
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_a_group_of_its_own(rdt: Rdt, tree: Tree, where: str) -> None:
    """Without closID it is named as the container, has the schemas and its init, and goes with the container."""
    one = rdt({"l3CacheSchema": L3, "memBwSchema": MB, "enableMonitoring": True}).up()
    one.expect("ready")
    assert schemas(where, one.id) == [L3, MB]
    assert tasks(where, one.id) == [one.pid]
    assert tasks(where, one.id, "mon_groups", one.id) == [one.pid]
    assert schemas(where) == ["L3:0=7ff;1=7ff", "MB:0=100;1=100"]
    installed(one, "kill", one.id, "KILL").ok()
    one.wait()
    installed(one, "delete", one.id).ok()
    gone(one, tree)


def test_exec_joins(rdt: Rdt, where: str, tree: Tree) -> None:
    """What is executed later is in both groups too; once resctrl has lost them it is nobody's."""
    one = rdt({"enableMonitoring": True}).up()
    pid_file = os.path.join(where, "../exec.pid")
    one.detached("exec", "--detach", "--pid-file", pid_file, one.id, "/bin/probe", "pause").ok()
    executed = int(read(pid_file))
    both = sorted([one.pid, executed])
    assert tasks(where, one.id) == both
    assert tasks(where, one.id, "mon_groups", one.id) == both
    os.rmdir(os.path.join(where, one.id))
    assert installed(one, "exec", one.id, "/bin/probe", "ids").ok().facts()["uid"]
    os.kill(executed, signal.SIGKILL)
    support.wait_for_exit(executed)
    installed(one, "delete", "--force", one.id).ok()
    gone(one, tree)


def test_schemata_come_last(rdt: Rdt, where: str) -> None:
    """config-linux.md: written last, so that of two values its own stays."""
    one = rdt({"l3CacheSchema": "L3:0=f", "schemata": ["L3:0=ff", "MB:1=50"]}).up()
    assert schemas(where, one.id) == ["L3:0=ff;1=7ff", "MB:0=100;1=50"]


def test_nothing_is_written_when_nothing_is_wanted(rdt: Rdt, where: str) -> None:
    """An empty intelRdt asks for a group, and for no schema."""
    one = rdt({}).up()
    assert schemas(where, one.id) == schemas(where)
    assert tasks(where, one.id) == [one.pid]


def test_a_named_class_stays(rdt: Rdt, tree: Tree, where: str) -> None:
    """With closID the first container makes the class, the others join it, and nobody removes it."""
    wanted: Spec = {"closID": "gold", "l3CacheSchema": "L3:0=0f", "memBwSchema": "MB:0=15"}
    one, two = rdt(wanted).up(), rdt(wanted).up()
    assert schemas(where, "gold") == ["L3:0=f;1=7ff", "MB:0=20;1=100"]
    assert tasks(where, "gold") == sorted([one.pid, two.pid])
    for each in (one, two):
        installed(each, "delete", "--force", each.id).ok()
        gone(each, tree, "gold")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"l3CacheSchema": "L3:0=1f"}, ["l3CacheSchema: the class of service", "another schema for L3"]),
        ({"memBwSchema": "MB:0=40"}, ["memBwSchema: the class of service", "another schema for MB"]),
        ({"schemata": ["MB:0=20", "L3:1=1"]}, ["schemata: the class of service", "another schema for L3"]),
        ({"schemata": ["L2:0=1"]}, ["schemata: the class of service", "another schema for L2"]),
    ],
)
def test_another_schema_is_refused(rdt: Rdt, tree: Tree, where: str, more: Spec, words: list[str]) -> None:
    """config-linux.md: an existing closID directory whose schemata do not match MUST be an error."""
    os.mkdir(os.path.join(where, "gold"))
    with open(os.path.join(where, "gold", "schemata"), "w", encoding="ascii") as stream:
        stream.write("L3:0=f\nMB:0=20\n")
    one = rdt({"closID": "gold", **more})
    one.create().fails("$.linux.intelRdt.", *words, f"{where}/gold")
    gone(one, tree, "gold")
    assert schemas(where, "gold") == ["L3:0=f;1=7ff", "MB:0=20;1=100"]


def test_a_class_without_schemas_must_be_there(rdt: Rdt, tree: Tree, where: str) -> None:
    """config-linux.md: closID alone names what somebody has configured before."""
    one = rdt({"closID": "gold"})
    one.create().fails(f"$.linux.intelRdt.closID: the class of service '{where}/gold' does not exist")
    gone(one, tree)
    os.mkdir(os.path.join(where, "gold"))
    one.up()
    assert tasks(where, "gold") == [one.pid]
    one.delete("--force").ok()
    gone(one, tree, "gold")


def test_the_default_class(rdt: Rdt, tree: Tree, where: str) -> None:
    """closID "/" is the root of resctrl; a monitoring group in it is still the container's."""
    one = rdt({"closID": "/", "enableMonitoring": True}).up()
    assert tasks(where) == [one.pid]
    assert tasks(where, "mon_groups", one.id) == [one.pid]
    assert set(tree.groups) == {"", f"mon_groups/{one.id}"}
    one.delete("--force").ok()
    gone(one, tree)


def test_what_was_there_before_stays(rdt: Rdt, tree: Tree, where: str) -> None:
    """config-linux.md: what the runtime has not created it MUST NOT remove, whatever its name."""
    one = rdt({"l3CacheSchema": "L3:0=f"}, name=f"{support.ID_PREFIX}there")
    os.mkdir(os.path.join(where, one.id))
    one.up()
    assert schemas(where, one.id)[0] == "L3:0=f;1=7ff"
    one.delete("--force").ok()
    gone(one, tree, one.id)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {"l3CacheSchema": "L3:0=fff"},
            [
                "$.linux.intelRdt.l3CacheSchema: write '",
                "/schemata': invalid argument",
                "resctrl says: Mask out of range",
            ],
        ),
        (
            {"memBwSchema": "MB:0=many"},
            ["$.linux.intelRdt.memBwSchema: write '", "resctrl says: Non-number many"],
        ),
        (
            {"closID": "gold", "l3CacheSchema": L3, "schemata": ["L2:0=1"]},
            [
                "$.linux.intelRdt.schemata: write '",
                "resctrl says: Unknown or unsupported resource name 'L2'",
            ],
        ),
    ],
)
def test_what_the_kernel_refuses(rdt: Rdt, tree: Tree, wanted: Spec, words: list[str]) -> None:
    """Its own words are passed on, and nothing is left of the container, not even a class that has a name."""
    one = rdt(wanted)
    one.create().fails(*words)
    gone(one, tree)


def test_no_group_is_free(rdt: Rdt, tree: Tree) -> None:
    """Groups are few, of either kind: config-linux.md wants an error."""
    tree.classes = 1
    one = rdt({"enableMonitoring": True})
    one.create().fails(
        "$.linux.intelRdt: mkdir '", "no space left on device", "resctrl says: Out of CLOSIDs"
    )
    gone(one, tree)
    tree.classes, tree.monitors = 4, 0
    one.create().fails("$.linux.intelRdt.enableMonitoring: mkdir '", "resctrl says: Out of RMIDs")
    gone(one, tree)


def test_a_late_failure_takes_it_all_back(rdt: Rdt, tree: Tree, where: str) -> None:
    """When init is in the group already; a class that others have come into by then stays."""
    wanted: Spec = {"closID": "gold", "l3CacheSchema": L3, "enableMonitoring": True}
    one = rdt(wanted)
    one.bundle.args("/no/such").write()
    one.create().fails("/no/such")
    gone(one, tree)
    join = f"echo {os.getpid()} >{where}/gold/tasks; exit 7"
    one.bundle.spec["hooks"] = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", join]}]}
    one.bundle.write()
    one.create().fails("$.hooks.prestart[0]", "exit status 7")
    gone(one, tree, "gold")


def test_a_killed_create_leaves_what_delete_removes(rdt: Rdt, tree: Tree) -> None:
    """The record is there before the group is."""
    one = rdt({"enableMonitoring": True, "memBwSchema": MB})
    kill: Json = {"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}
    one.bundle.spec["hooks"] = {"prestart": [kill]}
    one.bundle.write()
    assert one.create().status == -9
    assert set(tree.groups) == {"", one.id, f"{one.id}/mon_groups/{one.id}"}
    installed(one, "delete", "--force", one.id).ok()
    gone(one, tree)


def test_names_that_are_taken(rdt: Rdt, tree: Tree) -> None:
    """resctrl has directories that are no groups."""
    rdt({"closID": "info"}).create().fails('$.linux.intelRdt.closID: invalid intelRdt.ClosID "info"')
    one = rdt({}, name="mon_groups")
    one.create().fails("$.linux.intelRdt: no class of service can be called 'mon_groups'")
    gone(one, tree)


def test_what_resctrl_does_not_offer(rdt: Rdt, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each property needs its entry in info/."""
    monkeypatch.setattr(tree, "info", {"": ["last_cmd_status"]})
    for key, value, text in (
        (
            "l3CacheSchema",
            L3,
            "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled",
        ),
        ("memBwSchema", MB, "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled"),
        ("enableMonitoring", True, "Intel RDT monitoring is not enabled"),
    ):
        rdt({key: value}).create().fails(f"$.linux.intelRdt.{key}: ", text)


def test_update(rdt: Rdt, where: str) -> None:
    """New schemas, one at a time; the other one, and later updates, know of it."""
    one = rdt({"l3CacheSchema": L3, "memBwSchema": MB}).up()
    installed(one, "update", "--l3-cache-schema", "L3:0=f", one.id).ok()
    assert schemas(where, one.id) == ["L3:0=f;1=1f", MB]
    installed(one, "update", "--mem-bw-schema", "MB:1=40", "--memory", "100m", one.id).ok()
    assert schemas(where, one.id) == ["L3:0=f;1=1f", "MB:0=20;1=40"]
    kept = json.loads(read(one.root, one.id, "config.json"))["linux"]
    assert kept["intelRdt"] == {"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:1=40"}
    assert kept["resources"]["memory"]["limit"] == 100 << 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--l3-cache-schema", "L3:0=fff"],
            ["--l3-cache-schema: write '", "resctrl says: Mask out of range"],
        ),
        (["--mem-bw-schema", "MB:0=x"], ["--mem-bw-schema: write '", "resctrl says: Non-number x"]),
        (["--mem-bw-schema", "L3:0=1"], ["--mem-bw-schema: must begin with 'MB:'"]),
        (["--l3-cache-schema", "L3:0=1\nMB:0=10"], ["--l3-cache-schema: must be one line"]),
        (["--l3-cache-schema", "L3:0=1", "--cpuset-cpus", "4000"], ["--cpuset-cpus"]),
    ],
)
def test_a_refused_update_changes_nothing(
    rdt: Rdt, where: str, options: list[str], words: list[str]
) -> None:
    """All or nothing: what was written is taken back when a limit is refused."""
    one = rdt({"l3CacheSchema": L3, "memBwSchema": MB}).up()
    before = read(one.root, one.id, "config.json")
    installed(one, "update", *options, one.id).fails(*words)
    assert schemas(where, one.id) == [L3, MB]
    assert read(one.root, one.id, "config.json") == before


def test_events(rdt: Rdt, where: str) -> None:
    """runc's names; what the monitoring group of the container counts."""
    one = rdt({"l3CacheSchema": L3, "memBwSchema": MB, "enableMonitoring": True}).up()
    event = installed(one, "events", "--stats", one.id).ok().json()
    assert isinstance(event, dict)
    assert isinstance(event["data"], dict)
    assert event["data"]["intel_rdt"] == {
        "l3_cache_info": {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 4},
        "l3_cache_schema_root": "L3:0=7ff;1=7ff",
        "l3_cache_schema": L3,
        "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 4},
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mem_bw_schema": MB,
        "schemata": [L3, f"    {MB}"],
        "mbm_stats": [{"mbm_total_bytes": 300, "mbm_local_bytes": 200}] * 2,
        "cmt_stats": [{"llc_occupancy": 4096}] * 2,
    }
    os.rmdir(os.path.join(where, one.id))
    event = installed(one, "events", "--stats", one.id).ok().json()
    assert isinstance(event, dict)
    assert isinstance(event["data"], dict)
    assert event["data"]["intel_rdt"] == {}
