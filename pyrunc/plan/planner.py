"""PURE: configuration + host facts -> Plan, the ordered ops that init executes. No system call, no file, no env.

    create          limits that need the runtime's privileges, namespaces (here), root file system (plan_rootfs),
                    what the program will be (plan_process), waiting for start, exec
    exec_process    join the container's namespaces (here), what the program will be (plan_process), exec

Read `create` top to bottom: it is the order, and each op carries its reason in `why`, which `pyrunc explain` prints.
May be imported by runtime and explain. Imports its helpers, wire and errors.
"""

from __future__ import annotations

from pyrunc.plan import process as plan_process
from pyrunc.plan import rootfs as plan_rootfs
from pyrunc.plan.numbers import PIVOT_CHROOT, SYNC
from pyrunc.plan.wire import Fd, Op
from pyrunc.spec import id_mappings as idmap
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
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from pyrunc.host.gather import HostFacts
    from pyrunc.plan.wire import Field
    from pyrunc.spec.shapes import Linux, Process, Spec

    class CompiledFilter(Protocol):
        """What seccomp.compile returns: struct sock_filter[], flags of seccomp(2), is there a listener."""

        bpf: bytes
        flags: int
        notify: bool


class PlanOptions:
    """What the planner must know besides configuration and host.

    `bundle` and `rootfs` are absolute. `hook_states`: hook kind -> bytes for the hooks' stdin. `seccomp`: the compiled
    filter or None. `cgroup_paths`: (controller, absolute directory) of this container. `extra_env`: added to
    process.env (LISTEN_FDS). `preserve_fds`: how many descriptors from 3 on the program gets. `init_pid`: for exec, the
    container's init as the runtime sees it. `attached_late`: init is moved into
    its cgroup after it was started; None: as the cgroupfs driver does it. `own_calls`: instructions that let init's own
    calls pass a filter that is loaded before FORK, and the number by which they know them. `pid_inside`: the pid
    namespace that is joined belongs to the user namespace that is joined, or to one in it.
    """

    __slots__ = (
        "attached_late",
        "bundle",
        "cgroup_paths",
        "container_id",
        "extra_env",
        "hook_states",
        "init_pid",
        "no_new_keyring",
        "no_pivot",
        "own_calls",
        "pid_inside",
        "preserve_fds",
        "rootfs",
        "seccomp",
    )

    def __init__(
        self,
        *,
        bundle: str,
        container_id: str,
        rootfs: str,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        preserve_fds: int = 0,
        extra_env: Sequence[str] = (),
        hook_states: Mapping[str, bytes] | None = None,
        seccomp: CompiledFilter | None = None,
        cgroup_paths: Sequence[tuple[str, str]] = (),
        init_pid: int = 0,
        attached_late: bool | None = None,
        own_calls: tuple[bytes, int] = (b"", 0),
        pid_inside: bool = False,
    ) -> None:
        self.attached_late = attached_late
        self.own_calls = own_calls
        self.pid_inside = pid_inside
        self.bundle = bundle
        self.container_id = container_id
        self.rootfs = rootfs
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.preserve_fds = preserve_fds
        self.extra_env = extra_env
        self.hook_states = hook_states or {}
        self.seccomp = seccomp
        self.cgroup_paths = cgroup_paths
        self.init_pid = init_pid


class Plan:
    """What init is to do, and what its parent needs to know about it.

    `clone_flags`: namespaces that clone3 makes already. `uid_maps`/`gid_maps`: (containerID, hostID, size) to write
    at SYNC_MAPS, None without a new user namespace; `setgroups` is then "allow" or "deny". `needs_fork`: the pid
    changes (SYNC_FORKED). `scheduler`: a SCHEDULER that the parent has to carry out, since no child inherits it.
    """

    __slots__ = (
        "clone_flags",
        "gid_maps",
        "needs_fork",
        "ops",
        "scheduler",
        "setgroups",
        "uid_maps",
        "warnings",
    )

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.clone_flags = 0
        self.warnings: list[str] = []
        self.uid_maps: list[tuple[int, int, int]] | None = None
        self.gid_maps: list[tuple[int, int, int]] | None = None
        self.setgroups: str | None = None
        self.needs_fork = False
        self.scheduler: Op | None = None

    def add(self, name: str, *fields: Field, path: str = "$", why: str = "") -> None:
        """Append one op; see wire.Op."""
        self.ops.append(Op(name, *fields, path=path, why=why))


class Namespaces:
    """linux.namespaces sorted out: flags of the new ones, those to join as (type, file, JSON path), and where."""

    __slots__ = ("joined", "new", "paths")

    def __init__(self) -> None:
        self.new = 0
        self.joined: list[tuple[str, str, str]] = []
        self.paths: dict[str, str] = {}

    def __contains__(self, kind: str) -> bool:
        return kind in self.paths

    def makes(self, kind: str) -> bool:
        """Whether a namespace of this type is made for the container."""
        return bool(self.new & NAMESPACES[kind][0])

    def joins(self, kind: str) -> bool:
        """Whether an existing one is joined."""
        return kind in self.paths and not self.makes(kind)


class Job:
    """What every part of the planner gets: the inputs, and the plan that grows. `at` is the process's JSON path.

    `running`: the plan changes the mounts of a container that is there already (plan_changes), `kept` are then the
    sources that init takes hold of while it still can. `pid_space`: the pid namespace that is entered later.
    """

    __slots__ = ("at", "host", "kept", "linux", "options", "pid_space", "plan", "running", "spaces", "spec")

    def __init__(self, spec: Spec, host: HostFacts, options: PlanOptions, spaces: Namespaces) -> None:
        self.spec = spec
        self.linux: Linux = spec.get("linux") or {}
        self.host = host
        self.options = options
        self.spaces = spaces
        self.plan = Plan()
        self.at = "$.process"
        self.running = False
        self.kept: list[Op] = []
        self.pid_space: Fd | None = None

    @property
    def in_userns(self) -> bool:
        """Whether init will be in a user namespace that is not the initial one."""
        return "user" in self.spaces or self.host.in_userns

    @property
    def leaves(self) -> bool:
        """Whether FORK is where other processes are already: then it is the last but what only the child can do."""
        return self.spaces.joins("pid") and not self.running


def namespaces(linux: Linux) -> Namespaces:
    """Sort linux.namespaces. config-linux.md "Namespaces": with a path it is joined, without it is new."""
    spaces = Namespaces()
    for index, item in enumerate(linux.get("namespaces") or ()):
        kind, path = item["type"], item.get("path") or ""
        at = f"$.linux.namespaces[{index}]"
        spaces.paths[kind] = at
        if path:
            spaces.joined.append((kind, path, at + ".path"))
        else:
            spaces.new |= NAMESPACES[kind][0]
    return spaces


def _maps(job: Job) -> None:
    """Id maps of a new user namespace, and whether setgroups(2) will work in it."""
    plan, linux = job.plan, job.linux
    if not job.spaces.makes("user"):
        return
    plan.uid_maps = idmap.rows(linux.get("uidMappings") or ())
    plan.gid_maps = idmap.rows(linux.get("gidMappings") or ())
    alone = job.host.euid != 0 and not idmap.needs_helper(plan.gid_maps, job.host.egid, job.host.euid)
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
    """Nobody goes into a pid namespace of others without need, and nobody with rights that they do not have."""
    job.pid_space = Fd("ns", file)
    if not job.options.init_pid or job.running:
        why = "only a process in there could see it by itself, and be traced by others in there"
        job.plan.add("PIDNS", job.pid_space, path=path, why=why)
    # In a user namespace of the container nobody can trace init, but its hooks; yet there it may be too late.
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
        # Before USERNS_ROOT: /proc/self belongs to the ids that we had at the start.
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
    clear = clear and not plan_process.keeps_groups(job)
    uid, gid = idmap.first(plan.uid_maps or ()), idmap.first(plan.gid_maps or ())
    why = "files and keyrings made from here on must belong to ids of the container"
    plan.add("USERNS_ROOT", uid, gid, int(clear), path=spaces.paths["user"], why=why)
    plan_process.dumpable(
        job, "the change of ids has reset it; from here on processes of the namespace could trace init"
    )


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


def _enter_namespaces(job: Job, process: Process | None) -> None:
    """Into all namespaces. Without user or time namespace clone3 has made the new ones already: no fork.

    All but the network: making one takes a millisecond, in which the runtime has better things to do than to wait.
    """
    spaces, plan = job.spaces, job.plan
    if "user" not in spaces and not spaces.makes("time"):
        plan.clone_flags = spaces.new & ~(CLONE_NEWCGROUP | CLONE_NEWNET)
    if not spaces.makes("user"):
        plan_process.dumpable(
            job, "a process of a joined namespace must not be able to trace init or open its files"
        )
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


def create(spec: Spec, host: HostFacts, options: PlanOptions) -> Plan:
    """The plan of a new container up to its program.

    Without `process` it ends at START_WAIT: such a container cannot be started (runtime.md, Start).
    Raises ConfigError for what only shows once everything is put together.
    """
    job = Job(spec, host, options, namespaces(spec.get("linux") or {}))
    process = spec.get("process")
    _maps(job)
    if process:
        plan_process.check_ids(job, process)
        plan_process.before_namespaces(job, process)
    _enter_namespaces(job, process)
    if job.spaces.makes("network"):
        job.plan.add(
            "LOOPBACK_UP", path=job.spaces.paths["network"], why="programs expect lo, as every engine does"
        )
    deferred = plan_rootfs.build(job)
    why = "runtime.md, steps 3 and 4: network devices, limits, prestart and createRuntime hooks"
    job.plan.add("SYNC", SYNC["ENV"], path="$", why=why)
    plan_process.hooks(
        job, "createContainer", "runtime.md, step 5: in the container's namespaces, before pivot_root"
    )
    plan_rootfs.enter(job, process, deferred)
    enter_pid_namespace(job)
    if process:
        plan_process.become(job, process)
    else:
        plan_process.without_program(job)
    why = "the container is created: all that can fail before the program has been done"
    job.plan.add("SYNC", SYNC["READY"], path="$", why=why)
    job.plan.add(
        "START_WAIT", Fd("fifo"), path="$", why="runtime.md, step 6: the program runs when start is invoked"
    )
    if process:
        why = "runtime.md, step 7: part of start, inside the container, before the program"
        plan_process.hooks(job, "startContainer", why)
        plan_process.run(job, process)
    return job.plan


def file_systems(spec: Spec, host: HostFacts, options: PlanOptions) -> Plan:
    """The plan of create up to SYNC_ENV, when all is mounted below the rootfs, and nothing of its process.

    Its ops say what a container that is to be saved has mounted; run, it makes the mount points for one to restore.
    """
    job = Job(spec, host, options, namespaces(spec.get("linux") or {}))
    _maps(job)
    _enter_namespaces(job, None)
    plan_rootfs.build(job)
    job.plan.add("SYNC", SYNC["ENV"], path="$", why="all is mounted")
    job.plan.add("DONE", path="$", why="there is no process to become")
    return job.plan


def exec_process(
    process: Process, spec: Spec, host: HostFacts, options: PlanOptions, path: str = "$.process"
) -> Plan:
    """The plan of one more process in the container whose init is `options.init_pid`.

    `path` is where the process object stands in its document ("$" in a file of its own).
    """
    spaces = namespaces(spec.get("linux") or {})
    # Whether they were made for it or joined: the container's namespaces are those of its init.
    spaces.new = 0
    spaces.joined = [
        (kind, f"/proc/{options.init_pid}/ns/{NAMESPACES[kind][1]}", at) for kind, at in spaces.paths.items()
    ]
    job = Job(spec, host, options, spaces)
    job.at = path
    plan_process.before_namespaces(job, process)
    _enter_namespaces(job, process)
    if "mount" not in spaces:
        # The magic link leads to what its init has as root, whatever is at the rootfs's path by now.
        root = f"/proc/{options.init_pid}/root"
        job.plan.add("ROOTFS", root, 0, 1, path="$.root.path", why="there is no mount namespace to join")
        job.plan.add("PIVOT", PIVOT_CHROOT, path="$.root.path", why="the container's root is a chroot")
    if process.get("terminal"):
        plan_rootfs.terminal(job, process, bind=False)
    plan_process.become(job, process)
    why = "all that can fail before the program has been done"
    job.plan.add("SYNC", SYNC["READY"], path=path, why=why)
    plan_process.run(job, process)
    return job.plan
