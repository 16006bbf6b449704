"""config.md, "Process": scheduler, execCPUAffinity, memory policy, and groups that may be kept, on real containers."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from support import Facts, Json, Spec

pytestmark = pytest.mark.root

MILLISECOND = 1_000_000


def facts(container: ContainerFactory, what: Bundle) -> Facts:
    return container(what).run().ok().facts()


# --- Scheduler --------------------------------------------------------------------------------------------------------

DEADLINE: Spec = {
    "policy": "SCHED_DEADLINE",
    "runtime": MILLISECOND,
    "deadline": 10 * MILLISECOND,
    "period": 20 * MILLISECOND,
}


def test_a_deadline(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Given to who may run everywhere, whatever CPU the caller is bound to."""
    what = bundle("probe").probe("sched")
    what.mapping("process")["scheduler"] = DEADLINE
    one = container(what, command=["taskset", "-c", "0", support.PYRUNC])
    assert one.run().ok().facts()["policy"] == "6"


def test_a_deadline_on_some_cpus_only(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The kernel's EPERM says little: the hint has the reason, in runc's words."""
    support.needs(len(os.sched_getaffinity(0)) > 1, "a second processor")
    what = bundle("probe").probe("sched")
    what.mapping("process")["scheduler"] = DEADLINE
    what.mapping("linux", "resources")["cpu"] = {"cpus": "0"}
    words = "process scheduler can't be used together with AllowedCPUs"
    container(what).run().fails("$.process.scheduler: sched_setattr: operation not permitted", words)


@pytest.mark.parametrize("flag", ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS"])
def test_flags(container: ContainerFactory, bundle: BundleFactory, flag: str) -> None:
    what = bundle("probe").probe("sched")
    what.mapping("process")["scheduler"] = {"policy": "SCHED_OTHER", "flags": [f"SCHED_FLAG_{flag}"]}
    # SCHED_RESET_ON_FORK is what sched_getscheduler(2) shows of them.
    assert facts(container, what)["policy"] == str(0x40000000 if flag == "RESET_ON_FORK" else 0)


def test_a_policy_that_linux_never_had(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe").probe("sched")
    what.mapping("process")["scheduler"] = {"policy": "SCHED_ISO"}
    container(what).run().fails("$.process.scheduler", "SCHED_ISO")


def test_a_scheduler_at_exec(container: ContainerFactory, bundle: BundleFactory) -> None:
    """process.json has its own."""
    one = container(bundle("probe").probe("pause")).up()
    one.expect("ready")
    document: Spec = {"scheduler": {"policy": "SCHED_BATCH", "nice": 4}}
    found = _exec(one, document).ok().facts()
    assert (found["policy"], found["nice"]) == ("3", "4")


# --- CPU affinity -----------------------------------------------------------------------------------------------------


def _process(one: Container, members: Spec, *words: str) -> str:
    path = f"{one.pid_file}.json"
    document: Json = {"args": ["/bin/probe", *words], "cwd": "/", "user": {"uid": 0, "gid": 0}, **members}
    with open(path, "w", encoding="ascii") as stream:
        json.dump(document, stream)
    return path


def _exec(one: Container, members: Spec) -> support.Result:
    return one.pyrunc("exec", "--process", _process(one, members, "sched"), one.id)


def test_what_the_caller_is_bound_to_stays_outside(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """An engine's service may be bound to one CPU; its containers have all that their cgroup has."""
    support.needs(len(os.sched_getaffinity(0)) > 1, "a second processor")
    bound = ["taskset", "-c", "0", support.PYRUNC]
    what = bundle("probe").probe("sched")
    everything = facts(container, what)["cpus"]
    assert len(everything.split()) > 1
    assert container(what, command=bound).run().ok().facts()["cpus"] == everything
    one = container(bundle("probe").probe("pause"), command=bound).up()
    one.expect("ready")
    assert one.exec("/bin/probe", "sched").ok().facts()["cpus"] == everything


def test_final_affinity(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The program's; ids far beyond those of this machine are fine, as long as one is there."""
    support.needs(len(os.sched_getaffinity(0)) > 1, "a second processor")
    one = container(bundle("probe").probe("pause")).up()
    one.expect("ready")
    final: Spec = {"execCPUAffinity": {"initial": "0", "final": "1,1500-1501"}}
    assert _exec(one, final).ok().facts()["cpus"] == "1"
    nowhere: Spec = {"execCPUAffinity": {"final": "1500"}}
    _exec(one, nowhere).fails("$.execCPUAffinity.final: sched_setaffinity", status=255)


def test_initial_affinity(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The parent's, before its child is in the cgroup; the init of the container has no use for it."""
    support.needs(len(os.sched_getaffinity(0)) > 1, "a second processor")
    what = bundle("probe").probe("sched", "--", "pause")
    what.mapping("process")["execCPUAffinity"] = {"initial": "1", "final": "1"}
    one = container(what).up()
    assert len(one.expect("ready").split("cpus ")[1].splitlines()[0].split()) > 1
    path = _process(one, {"execCPUAffinity": {"initial": "1"}}, "pause")
    argv = [*one.command, "exec", "--process", path, one.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/") as parent:
        assert parent.stdout is not None
        assert b"ready" in parent.stdout.readline()
        assert support.status_field(parent.pid, "Cpus_allowed_list") == "1"
        one.kill("KILL").ok()
        parent.wait(10)
    other = container(bundle("probe").probe("pause")).up()
    other.expect("ready")
    bad: Spec = {"execCPUAffinity": {"initial": "1500"}}
    _exec(other, bad).fails("$.execCPUAffinity.initial: sched_setaffinity '1500'", status=255)


# --- Memory policy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0-0"}, "interleave:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "bind=relative:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, "bind"),
    ],
)
def test_memory_policy(container: ContainerFactory, bundle: BundleFactory, policy: Json, shown: str) -> None:
    """As numa_maps(5) shows it, for init and for exec."""
    script = "head -n 1 /proc/self/numa_maps"
    what = bundle("busybox", "sh", "-c", f"{script}; echo ready; exec sleep 600")
    what.mapping("linux")["memoryPolicy"] = policy
    one = container(what).up()
    for line in (one.expect("ready").splitlines()[0], one.exec("/bin/sh", "-c", script).ok().out):
        assert line.split(" ", 1)[1].startswith(shown), line


def test_a_memory_node_that_is_not_there(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe")
    what.mapping("linux")["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "63"}
    container(what).run().fails("$.linux.memoryPolicy: set_mempolicy: invalid argument")


# --- Groups of the caller ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "groups"), [("1", "4 20"), ("0", "5")])
def test_groups_of_the_caller(
    container: ContainerFactory, bundle: BundleFactory, value: str, groups: str
) -> None:
    """podman run --group-add keep-groups: no setgroups(2) at all, for init and for exec."""
    what = bundle("probe").probe("ids", "--", "pause")
    what.mapping("annotations")["run.oci.keep_original_groups"] = value
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    one = container(what, command=["setpriv", "--groups", "4,20", support.PYRUNC]).up()
    assert f"groups {groups}\n" in one.expect("ready")
    assert one.exec("/bin/probe", "ids").ok().facts()["groups"] == groups
