"""PURE: plans that change the mounts of a container that is there already: mounts add, mounts remove.

    add       sources are opened outside, init joins the container's namespaces, mounts, reports; what it has mounted
              stays only if the runtime says so: until then anything that fails, or its death, undoes all of it
    remove    init joins, sees whether every mount can go, and unmounts them, the last first

The container's processes may change any path meanwhile: targets are resolved below its root, once, to a descriptor.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.plan import mounts as plan_mounts
from pyrunc.plan import namespaces as plan_namespaces
from pyrunc.plan.job import Job, Plan, namespaces_of
from pyrunc.plan.numbers import MOUNT_FLAG_RDONLY_LATER, SYNC
from pyrunc.plan.wire import Op
from pyrunc.spec import mount_options
from pyrunc.spec.namespaces import CLONE_NEWNS, NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.plan.job import PlanOptions
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Mount, Spec

# What a new file system shows depends on the namespaces of its maker. Of the pid namespace it only needs the file.
_SHOWS = {
    "cgroup": "cgroup",
    "cgroup2": "cgroup",
    "mqueue": "ipc",
    "proc": "pid",
    "sysfs": "network",
}
# Beside what linux.maskedPaths and linux.readonlyPaths cover.
_MUST_STAY = ("/", "/proc", "/dev")


def _job(spec: Spec, host: HostFacts, options: PlanOptions, kinds: set[str]) -> Job:
    """A job whose namespaces are those of the container's init, of these kinds. Raise ConfigError without mounts."""
    spaces = namespaces_of(spec.get("linux") or {})
    if "mount" not in spaces:
        raise ConfigError("the container has no mount namespace: its mounts are the host's")
    spaces.new = 0
    spaces.joined = [
        (kind, f"/proc/{options.init_pid}/ns/{NAMESPACES[kind][1]}", at)
        for kind, at in spaces.paths.items()
        if kind in kinds
    ]
    job = Job(spec, host, options, spaces)
    job.running = True
    return job


def _enter(job: Job) -> None:
    """Add the ops that join the namespaces, and open the sources that can only be opened on the way."""
    plan_namespaces.dumpable(
        job, "a process of a joined namespace must not be able to trace init or open its files"
    )
    joined = job.spaces.joined
    if plan_mounts.opened_by_runtime(job):
        plan_namespaces.join(job)
        plan_namespaces.user_namespace(job)
    else:
        # Without privileges of its own the runtime has those of the container's user namespace.
        job.spaces.joined = [item for item in joined if item[0] == "user"]
        plan_namespaces.join(job)
        plan_namespaces.user_namespace(job)
        _take_hold(job)
        job.spaces.joined = [item for item in joined if item[0] != "user"]
        plan_namespaces.join(job)
        job.spaces.joined = joined


def _take_hold(job: Job) -> None:
    if not job.kept:
        return
    why = "open_tree(2) wants privileges in the mount namespace: a copy of the runtime's belongs to us"
    job.plan.add("UNSHARE", CLONE_NEWNS, path="$", why=why)
    why = "what is mounted inside must not get out"
    job.plan.add("ROOT_PROPAGATION", plan_mounts.propagation_of_host(job), path="$", why=why)
    job.plan.ops += job.kept


def _seal_later(op: Op) -> Op:
    """Return the mount with the flag that makes it read-only at the end."""
    flags = op.fields[-1]
    assert isinstance(flags, int)
    return Op(op.name, *op.fields[:-1], flags | MOUNT_FLAG_RDONLY_LATER, path=op.path, why=op.why)


def add(mounts: Sequence[Mount], spec: Spec, host: HostFacts, options: PlanOptions) -> Plan:
    """Return the plan that adds `mounts`, whose JSON paths begin at "$", to the container with init `options.init_pid`.

    Raise ConfigError for what only shows once everything is put together.
    """
    wanted = {_SHOWS.get(mount.get("type") or "", "mount") for mount in mounts} | {"mount", "user"}
    job = _job(spec, host, options, wanted)
    for index, mount in enumerate(mounts):
        if plan_mounts.add(job, mount, f"$[{index}]") is not None:
            job.plan.ops[-1] = _seal_later(job.plan.ops[-1])
    steps, job.plan.ops = job.plan.ops, []
    _enter(job)
    job.plan.add("ADD_BEGIN", path="$", why="all or none")
    job.plan.ops += steps
    job.plan.add("ADD_END", path="$", why="not earlier: mount points were made in it")
    job.plan.add("SYNC", SYNC["READY"], path="$", why="the runtime writes down what was added")
    job.plan.add("DONE", path="$")
    return job.plan


def remove(destinations: Sequence[str], spec: Spec, host: HostFacts, options: PlanOptions) -> Plan:
    """Return the plan that unmounts what is at `destinations`, the last first."""
    job = _job(spec, host, options, {"mount", "user"})
    _enter(job)
    linux = spec.get("linux") or {}
    stay = [*_MUST_STAY, *(linux.get("maskedPaths") or ()), *(linux.get("readonlyPaths") or ())]
    targets = [
        (mount_options.inside(item), f"$[{index}].destination") for index, item in enumerate(destinations)
    ]
    for target, at in targets:
        job.plan.add("UMOUNT", target, stay, 1, path=at, why="all or none: is there a mount that may go?")
    for target, at in reversed(targets):
        job.plan.add("UMOUNT", target, stay, 0, path=at, why="the last first, as it may be inside another")
    job.plan.add("DONE", path="$")
    return job.plan
