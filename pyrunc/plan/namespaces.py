"""PURE: the namespaces of a plan: made or joined, in an order that permissions allow."""

from __future__ import annotations

from pyrunc.plan.numbers import SYNC
from pyrunc.plan.wire import Fd
from pyrunc.spec import id_mappings
from pyrunc.spec.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    NAMESPACES,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.job import Job
    from pyrunc.spec.shapes import Process


def maps(job: Job) -> None:
    """Id maps of a new user namespace, and whether setgroups(2) will work in it."""
    plan, linux = job.plan, job.linux
    if not job.spaces.makes("user"):
        return
    plan.uid_maps = id_mappings.rows(linux.get("uidMappings") or ())
    plan.gid_maps = id_mappings.rows(linux.get("gidMappings") or ())
    alone = job.host.euid != 0 and not id_mappings.needs_helper(plan.gid_maps, job.host.egid, job.host.euid)
    plan.setgroups = "deny" if alone or job.host.setgroups_denied else "allow"


def _join_order(job: Job) -> list[tuple[str, str, str]]:
    """pid last, because joining one only takes effect for the next child.

    Root may join anything, so its user namespace comes after the others: they may belong to the host's or to that
    one. Anybody else first needs the privileges that the user namespace gives.
    """
    user_rank = 2 if job.host.euid == 0 else -1
    ranks = {"user": user_rank, "pid": 1}
    return sorted(job.spaces.joined, key=lambda item: ranks.get(item[0], 0))


def join(job: Job) -> None:
    """Join the namespaces that exist already."""
    for kind, file, path in _join_order(job):
        if kind == "pid":
            _join_pid(job, file, path)
            continue
        why = (
            'config-linux.md: "MUST place the container process in the namespace associated with that path"'
        )
        if kind == "user":
            why = "gives all capabilities inside; root joins it last, others need it first"
        job.plan.add("SETNS", Fd("ns", file), NAMESPACES[kind][0], path=path, why=why)


def _join_pid(job: Job, file: str, path: str) -> None:
    """Enter a pid namespace of others only if needed, and only without rights that its processes lack."""
    job.pid_space = Fd("ns", file)
    if not job.options.init_pid or job.running:
        why = "only a process in there could see it by itself, and be traced by others in there"
        job.plan.add("PIDNS", job.pid_space, path=path, why=why)
    # In a user namespace of the container only hooks can trace init; but it may be too late there.
    too_late = "user" in job.spaces and not job.options.pid_inside
    if not job.running and (job.options.init_pid or too_late):
        enter_pid_namespace(job)


def enter_pid_namespace(job: Job) -> None:
    """The children of init are in the joined pid namespace from here on."""
    if job.pid_space is not None:
        path, why = job.spaces.paths["pid"], "setns(2): takes effect for the child that FORK makes"
        job.plan.add("SETNS", job.pid_space, CLONE_NEWPID, path=path, why=why)
        job.pid_space = None


def _time_namespace(job: Job) -> None:
    spaces, plan = job.spaces, job.plan
    if not spaces.makes("time"):
        return
    plan.add(
        "UNSHARE", CLONE_NEWTIME, path=spaces.paths["time"], why="clone3 cannot: offsets are set in between"
    )
    lines = []
    offsets = job.linux.get("timeOffsets") or {}
    for clock in ("monotonic", "boottime"):
        if clock in offsets:
            offset = offsets[clock]
            lines.append(f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}\n")
    if lines:
        why = "time_namespaces(7): only before the namespace has its first process"
        # Before USERNS_ROOT: /proc/self belongs to our first ids.
        plan.add("PROC_SELF", "timens_offsets", "".join(lines), path="$.linux.timeOffsets", why=why)


def user_namespace(job: Job) -> None:
    """Make or join the user namespace and become its root; everything made from here on belongs to it."""
    spaces, plan = job.spaces, job.plan
    if spaces.makes("user"):
        plan.add(
            "UNSHARE",
            CLONE_NEWUSER,
            path=spaces.paths["user"],
            why="before the others, so that it owns them",
        )
        why = "an unmapped process may not even become root in its own user namespace"
        plan.add("SYNC", SYNC["MAPS"], path="$.linux.uidMappings", why=why)
    _time_namespace(job)
    if "user" not in spaces:
        return
    clear = plan.setgroups == "allow" if spaces.makes("user") else job.host.euid == 0
    clear = clear and not keeps_groups(job)
    uid, gid = id_mappings.first(plan.uid_maps or ()), id_mappings.first(plan.gid_maps or ())
    why = "files and keyrings made from here on must belong to ids of the container"
    plan.add("USERNS_ROOT", uid, gid, int(clear), path=spaces.paths["user"], why=why)
    dumpable(job, "the change of ids has reset it; from here on processes of the namespace could trace init")


def _cgroup_and_fork(job: Job) -> None:
    spaces, plan = job.spaces, job.plan
    plan.needs_fork = ("pid" in spaces and not plan.clone_flags & CLONE_NEWPID) or spaces.makes("time")
    # On v2 clone3 started init inside its cgroup, unless systemd makes it for a process that is there.
    attached_late = job.options.attached_late
    if attached_late is None:
        attached_late = bool(job.options.cgroup_paths) and job.host.cgroup_mode != "v2"
    if attached_late:
        why = "its child, the root of its cgroup namespace and cgroup mounts must come after it is in its cgroup"
        plan.add("SYNC", SYNC["CGROUP"], path="$.linux.cgroupsPath", why=why)
    if spaces.makes("cgroup"):
        why = "cgroup_namespaces(7): the cgroup we are in becomes the root; cgroup mounts must come after"
        plan.add("UNSHARE", CLONE_NEWCGROUP, path=spaces.paths["cgroup"], why=why)
    if plan.needs_fork and not job.leaves:
        kind = "pid" if "pid" in spaces else "time"
        why = f"{kind}_namespaces(7): only a child is in the new namespace"
        plan.add("FORK", -1, -1, path=spaces.paths[kind], why=why)


def _keyring(job: Job, process: Process | None) -> None:
    if job.options.no_new_keyring:
        return
    label = (process or {}).get("selinuxLabel")
    if label and job.host.selinux:
        why = "the keyring is the program's: with the runtime's label it could not use it; execve(2) resets this"
        job.plan.add("PROC_SELF", "attr/keycreate", label, path=f"{job.at}.selinuxLabel", why=why)
    why = "keys of the caller's session are none of the container's business"
    job.plan.add("KEYRING", f"_ses.{job.options.container_id}", path="$", why=why)


def enter(job: Job, process: Process | None) -> None:
    """Enter all namespaces. Without user or time namespace clone3 has made the new ones already: no fork.

    All but the network: making one takes a millisecond, for which clone3 would make the runtime wait.
    """
    spaces, plan = job.spaces, job.plan
    if "user" not in spaces and not spaces.makes("time"):
        plan.clone_flags = spaces.new & ~(CLONE_NEWCGROUP | CLONE_NEWNET)
    if not spaces.makes("user"):
        dumpable(job, "a process of a joined namespace must not be able to trace init or open its files")
    join(job)
    user_namespace(job)
    rest = spaces.new & ~(CLONE_NEWUSER | CLONE_NEWTIME | CLONE_NEWCGROUP | plan.clone_flags)
    if rest:
        why = "here and not in clone3, for which the runtime would have to wait"
        if spaces.makes("user"):
            why = "after the user namespace, so that it owns them"
        plan.add("UNSHARE", rest, path="$.linux.namespaces", why=why)
    _cgroup_and_fork(job)
    _keyring(job, process)


KEEP_GROUPS = "run.oci.keep_original_groups"


def keeps_groups(job: Job) -> bool:
    """Return whether crun's annotation is set: the caller's supplementary groups stay, additionalGids are ignored."""
    return (job.spec.get("annotations") or {}).get(KEEP_GROUPS) == "1"


def dumpable(job: Job, why: str) -> None:
    """No process of the container may trace init or open its files."""
    job.plan.add("DUMPABLE", 0, path="$", why=f"CVE-2016-9962: {why}")
