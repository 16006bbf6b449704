"""PURE: the process part of a plan, shared by create and exec: from a privileged init to the user's program.

The order in `become` is what matters most here.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.plan import namespaces as plan_namespaces
from pyrunc.plan.numbers import CHDIR_FILTERED, CHDIR_TRY, HOOK_KINDS, PLAN_NO_PATH
from pyrunc.plan.wire import ORDER, Fd, Op, milliseconds
from pyrunc.spec import capabilities, id_mappings, number_list
from pyrunc.spec.process import (
    IOPRIO_CLASS_SHIFT,
    IOPRIO_CLASSES,
    MEMORY_FLAGS,
    MEMORY_MODES,
    PERSONALITIES,
    RLIMITS,
    SCHEDULER_FLAGS,
    SCHEDULER_POLICIES,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from pyrunc.plan.job import Job
    from pyrunc.spec.shapes import Process, Scheduler

_UMASK = 0o022  # where process.user has none
_SCHED_ATTR_SIZE = (
    56  # SCHED_ATTR_SIZE_VER1: flags of util clamp want it; the values, not in the spec, are 0
)
_ALL_CAPS = (1 << len(capabilities.NAMES)) - 1
_FIRST_FD = 3
STRICT_HINT = "without PYRUNC_STRICT it would be ignored, with a warning"


def _mapped(job: Job, what: str, number: int, path: str) -> None:
    maps = job.plan.uid_maps if what == "uid" else job.plan.gid_maps
    if maps and not id_mappings.contains(maps, number):
        raise ConfigError(
            f"{what} {number} is not mapped in the container's user namespace",
            path=path,
            hint=f"add a range with it to linux.{what}Mappings",
        )


def _no_groups(job: Job) -> NoReturn:
    raise ConfigError(
        "cannot set any additional groups in a rootless container: its user namespace denies setgroups",
        path=f"{job.at}.user.additionalGids",
        hint="leave them out, or map a range of groups, which newgidmap does",
    )


def check_ids(job: Job, process: Process) -> None:
    """Every id of the process must exist in the new user namespace. Raise ConfigError.

    config.md "POSIX-platform User": ids are those of the container namespace.
    """
    user = process.get("user") or {}
    _mapped(job, "uid", user.get("uid") or 0, f"{job.at}.user.uid")
    _mapped(job, "gid", user.get("gid") or 0, f"{job.at}.user.gid")
    groups = () if plan_namespaces.keeps_groups(job) else user.get("additionalGids") or ()
    for index, gid in enumerate(groups):
        _mapped(job, "gid", gid, f"{job.at}.user.additionalGids[{index}]")
    if groups and job.plan.setgroups == "deny":
        _no_groups(job)


def before_namespaces(job: Job, process: Process) -> None:
    """Add what needs the runtime's own user namespace or its /proc."""
    for index, limit in enumerate(process.get("rlimits") or ()):
        number = RLIMITS[limit["type"]]
        soft, hard = job.host.rlimits.get(number, (0, (1 << 64) - 1))
        # Here limits are only raised: a low limit could break what comes before the program.
        if limit["hard"] > hard and "user" in job.spaces:
            why = "raising a hard limit needs CAP_SYS_RESOURCE in the host's user namespace"
            job.plan.add("RLIMIT", number, soft, limit["hard"], path=f"{job.at}.rlimits[{index}]", why=why)
    score = process.get("oomScoreAdj")
    if score is not None and score < job.host.oom_score_adj:
        # Engines set it for rootless containers, too; runc ignores the failure as well.
        job.plan.warnings.append(
            f"{job.at}.oomScoreAdj: a rootless container cannot go below {job.host.oom_score_adj}"
        )
    elif score is not None:
        why = "proc(5): lowering it needs CAP_SYS_RESOURCE of the host; and not dumpable, the file would be root's"
        job.plan.add("PROC_SELF", "oom_score_adj", str(score), path=f"{job.at}.oomScoreAdj", why=why)


def hooks(job: Job, kind: str, why: str) -> None:
    """Add the hooks of one kind that run inside. config.md "POSIX-platform Hooks": in the listed order."""
    listed = job.spec.get("hooks") or {}
    inside = listed.get("createContainer") if kind == "createContainer" else listed.get("startContainer")
    for index, hook in enumerate(inside or ()):
        path = hook["path"]
        job.plan.add(
            "HOOK",
            path,
            list(hook.get("args") or [path]),
            list(hook.get("env") or []),
            job.options.hook_states.get(kind, b""),
            milliseconds(hook.get("timeout")),
            index,
            HOOK_KINDS.index(kind),
            path=f"$.hooks.{kind}[{index}]",
            why=why,
        )


def bit_list(text: str) -> bytes:
    """A list like "0-3,7" as a bit mask of whole longs, as sched_setaffinity(2) and set_mempolicy(2) take it.

    Raise ValueError.
    """
    mask = number_list.mask(text)
    return mask.to_bytes(max(1, (mask.bit_length() + 63) // 64) * 8, ORDER)


def _flags(names: Iterable[str], table: dict[str, int]) -> int:
    value = 0
    for name in names:
        value |= table[name]
    return value


def scheduler_attributes(scheduler: Scheduler) -> bytes:
    """struct sched_attr, sched_setattr(2). config.md: what is not set is 0."""

    def number(value: int, size: int) -> bytes:
        return (value & ((1 << size * 8) - 1)).to_bytes(size, ORDER)

    return (
        number(_SCHED_ATTR_SIZE, 4)
        + number(SCHEDULER_POLICIES[scheduler["policy"]], 4)
        + number(_flags(scheduler.get("flags") or (), SCHEDULER_FLAGS), 8)
        + number(scheduler.get("nice") or 0, 4)
        + number(scheduler.get("priority") or 0, 4)
        + number(scheduler.get("runtime") or 0, 8)
        + number(scheduler.get("deadline") or 0, 8)
        + number(scheduler.get("period") or 0, 8)
        + bytes(8)
    )


def _affinity(job: Job, process: Process) -> None:
    """Set the CPU affinity before the scheduling policy: SCHED_DEADLINE needs permission to run on every CPU."""
    add, at = job.plan.add, job.at
    affinity = (process.get("execCPUAffinity") or {}) if job.options.init_pid else {}
    if final := (affinity.get("final") or "").strip():
        why = "config.md: after the process was moved to the container's cgroup"
        add("AFFINITY", bit_list(final), path=f"{at}.execCPUAffinity.final", why=why)
    elif not (affinity.get("initial") or "").strip():
        why = "every CPU of its cgroup: what an engine's service is bound to is not meant for its containers"
        add("AFFINITY", b"", path=at, why=why)


def _kernel_attributes(job: Job, process: Process) -> None:
    """Add scheduling, memory and personality, which need capabilities that the program may not have."""
    add, linux, at = job.plan.add, job.linux, job.at
    if personality := linux.get("personality"):
        domain = PERSONALITIES[personality["domain"]]
        add(
            "PERSONALITY", domain, path="$.linux.personality.domain", why="inherited by the program's execve"
        )
    _affinity(job, process)
    if scheduler := process.get("scheduler"):
        why = "sched_setattr(2): real-time policies need CAP_SYS_NICE"
        op = Op("SCHEDULER", scheduler_attributes(scheduler), path=f"{at}.scheduler", why=why)
        lost = scheduler["policy"] == "SCHED_DEADLINE" or "SCHED_FLAG_RESET_ON_FORK" in (
            scheduler.get("flags") or ()
        )
        if job.leaves and lost:
            job.plan.scheduler = op
        else:
            job.plan.ops.append(op)
    if priority := process.get("ioPriority"):
        value = IOPRIO_CLASSES[priority["class"]] << IOPRIO_CLASS_SHIFT | (priority.get("priority") or 0)
        add(
            "IOPRIO",
            value,
            path=f"{at}.ioPriority",
            why="ioprio_set(2): the real-time class needs CAP_SYS_NICE",
        )
    if policy := linux.get("memoryPolicy"):
        mode = MEMORY_MODES[policy["mode"]] | _flags(policy.get("flags") or (), MEMORY_FLAGS)
        nodes = bit_list(policy["nodes"]) if policy.get("nodes") else b""
        add("MEMPOLICY", mode, nodes, path="$.linux.memoryPolicy", why="inherited by the program's execve")


def _labels(job: Job, process: Process) -> None:
    add, at = job.plan.add, job.at
    why = "taken at execve; a filter or missing privileges may forbid the write later"
    if (profile := process.get("apparmorProfile")) and job.host.apparmor:
        add("PROC_SELF", "attr/apparmor/exec", f"exec {profile}", path=f"{at}.apparmorProfile", why=why)
    if (label := process.get("selinuxLabel")) and job.host.selinux:
        add("PROC_SELF", "attr/exec", label, path=f"{at}.selinuxLabel", why=why)


def _new_session(job: Job, process: Process | None) -> None:
    if process and process.get("terminal"):
        why = "setsid(2), tty_ioctl(4): its leader is who gets the terminal's signals"
        job.plan.add("CTTY", path=f"{job.at}.terminal", why=why)
    else:
        why = "no signal of the caller's terminal may reach it"
        job.plan.add("SETSID", path=f"{job.at}.terminal" if process else "$", why=why)


def _leave_session(job: Job, process: Process | None) -> None:
    """FORK's child makes a session of its own, for the terminal; until then it must not be in that of the caller."""
    why = "setsid(2): who stops the child of FORK would have the caller's terminal by /dev/tty, and its process group"
    job.plan.add("SETSID", path=f"{job.at}.terminal" if process else "$", why=why)


def _session(job: Job, process: Process) -> None:
    add, at = job.plan.add, job.at
    if job.leaves:
        _leave_session(job, process)
    else:
        _new_session(job, process)
    uid = (process.get("user") or {}).get("uid") or 0
    add(
        "STDIO_OWNER",
        uid,
        path=f"{at}.user.uid",
        why="or the user could not open /dev/stdin; only root may give it",
    )
    for index, limit in enumerate(process.get("rlimits") or ()):
        why = "setrlimit(2): late, so that they do not bind init; before seccomp, which may forbid it"
        number = RLIMITS[limit["type"]]
        hard = limit["hard"]
        if job.leaves and number == RLIMITS["RLIMIT_NPROC"]:
            # For FORK, see _leave. Raised if need be: here are the privileges for it.
            hard = _most_processes(job, hard)
        add("RLIMIT", number, limit["soft"], hard, path=f"{at}.rlimits[{index}]", why=why)


def _most_processes(job: Job, hard: int) -> int:
    return max(hard, job.host.rlimits.get(RLIMITS["RLIMIT_NPROC"], (0, 0))[1])


def _directory(job: Job, process: Process) -> None:
    add, at = job.plan.add, job.at
    why = "CVE-2024-21626: before anything is looked up by a name that the container controls"
    add("CLOSE_FROM", _FIRST_FD + job.options.preserve_fds, path=at, why=why)
    why = "first as root: a directory of another user may only be reachable so; what the user alone may enter, later"
    add("CHDIR", process["cwd"], CHDIR_TRY, path=f"{at}.cwd", why=why)
    umask = (process.get("user") or {}).get("umask")
    why = "engines expect 0022 where none is given; not earlier, init makes files with exact modes"
    add("UMASK", _UMASK if umask is None else umask, path=f"{at}.user.umask", why=why)


def _seccomp(job: Job, why: str, *, before_fork: bool) -> None:
    compiled = job.options.seccomp
    if compiled is not None:
        front, own = job.options.own_calls if before_fork else (b"", 0)
        fields = front + compiled.bpf, compiled.flags, int(compiled.notify), own
        job.plan.add("SECCOMP", *fields, path="$.linux.seccomp", why=why)


def _user(job: Job, process: Process) -> None:
    """Bounding set, ids, capabilities: capabilities(7) allows them in this order only."""
    add, at = job.plan.add, job.at
    # A user namespace gives its members all capabilities that the kernel has.
    known = _ALL_CAPS & ((2 << job.host.last_cap) - 1)
    grantable = known if "user" in job.spaces else job.host.bounding_caps
    sets = capabilities.resolve(process.get("capabilities") or {}, grantable)
    path = f"{at}.capabilities"
    if job.host.strict and sets.unknown:
        raise ConfigError(f"unknown capability '{sets.unknown[0]}'", path=path, hint=STRICT_HINT)
    job.plan.warnings += [f"{path}: {warning}" for warning in sets.warnings]
    add("CAPS_BOUNDING", sets.bounding, path=f"{path}.bounding", why="needs CAP_SETPCAP, so before CAPSET")
    user = process.get("user") or {}
    kept = plan_namespaces.keeps_groups(job)
    groups = [] if kept else list(user.get("additionalGids") or [])
    denied = job.plan.setgroups == "deny" or (not job.spaces.makes("user") and job.host.setgroups_denied)
    # podman lists the own group for images whose root is in the group root: that adds no right, so it is not an error.
    if denied and any(gid != (user.get("gid") or 0) for gid in groups):
        _no_groups(job)
    # Only root can find out whether a namespace to join allows setgroups, so it is checked only if it matters.
    call = not (denied or kept) and (bool(groups) or job.spaces.makes("user") or job.host.euid == 0)
    why = "needs CAP_SETUID and CAP_SETGID, so before CAPSET; groups of the caller are dropped"
    add("USER", user.get("uid") or 0, user.get("gid") or 0, groups, int(call), path=f"{at}.user", why=why)
    plan_namespaces.dumpable(
        job,
        "the change of ids has reset it to fs.suid_dumpable; before CAPSET, as a user may trace his equals",
    )
    why = "setuid has cleared the effective and ambient sets: the exact ones last (CVE-2022-29162: inheritable too)"
    add("CAPSET", sets.effective, sets.permitted, sets.inheritable, sets.ambient, path=path, why=why)


def environment(job: Job, process: Process) -> tuple[list[str], bool]:
    """process.env and what the caller adds, without duplicates (the last wins), and whether HOME is in it."""
    values: dict[str, str] = {}
    for item in (*(process.get("env") or ()), *job.options.extra_env):
        name, _, value = item.partition("=")
        values[name] = value
    if not values.get("HOME"):
        values.pop("HOME", None)
    return [f"{name}={value}" for name, value in values.items()], "HOME" in values


def _path_of(env: list[str]) -> str:
    return next((item[5:] for item in env if item.startswith("PATH=")), "")


def become(job: Job, process: Process) -> None:
    """Add everything that init itself must set before the program, in the only order that works."""
    add, at = job.plan.add, job.at
    if job.options.seccomp is not None:
        why = "the filter may forbid the calls by which init tells what failed"
        add("LAST_WORDS", Fd("words"), path="$.linux.seccomp", why=why)
    elif not job.options.init_pid and (job.spec.get("hooks") or {}).get("startContainer"):
        why = (
            "while hooks run init may be killed; start must know, also where somebody else has collected it"
        )
        add("LAST_WORDS", Fd("words"), path="$.hooks.startContainer", why=why)
    _kernel_attributes(job, process)
    _labels(job, process)
    _session(job, process)
    _directory(job, process)
    no_new_privileges = bool(process.get("noNewPrivileges"))
    if not no_new_privileges:
        _seccomp(
            job,
            "seccomp(2): without no_new_privs it needs CAP_SYS_ADMIN, which is dropped next",
            before_fork=job.leaves,
        )
    _user(job, process)
    if no_new_privileges:
        add(
            "NO_NEW_PRIVS", path=f"{at}.noNewPrivileges", why="prctl(2): for the filter, and for the program"
        )
    why = "now as the user: what root was refused; and getcwd must be inside the root (CVE-2024-21626)"
    filtered = CHDIR_FILTERED if job.options.seccomp is not None and not no_new_privileges else 0
    add("CHDIR", process["cwd"], filtered, path=f"{at}.cwd", why=why)
    env, _ = environment(job, process)
    why = "as the user and in its directory, as execve will look; a missing program is an error of create"
    add("LOOKUP", process["args"][0], _path_of(env), path=f"{at}.args[0]", why=why)
    compiled = job.options.seccomp
    if no_new_privileges and compiled is not None and compiled.notify:
        _seccomp(
            job, "the listener must be sent while the runtime listens: before READY", before_fork=job.leaves
        )
    if job.leaves:
        _leave(job, process)


def _leave(job: Job, process: Process | None) -> None:
    """Enter the pid namespace of others. One of them with CAP_SYS_PTRACE can control the child from its start.

    So it comes last: the child has only the program's rights and descriptors, and does only what must be done there.
    """
    add, at = job.plan.add, job.at
    limits = [
        (index, limit)
        for index, limit in enumerate((process or {}).get("rlimits") or ())
        if limit["type"] == "RLIMIT_NPROC"
    ]
    number = RLIMITS["RLIMIT_NPROC"]
    for index, limit in limits:
        most = _most_processes(job, limit["hard"])
        why = "clone(2) counts init and its child, the program is one; the hard limit is lowered behind FORK"
        add("RLIMIT", number, most, most, path=f"{at}.rlimits[{index}]", why=why)
    why = "pid_namespaces(7): only a child is in the joined namespace; others there may trace it: now it has nothing"
    add("FORK", Fd("messages"), Fd("answers"), path=job.spaces.paths["pid"], why=why)
    _new_session(job, process)
    for index, limit in limits:
        why = "as it is asked for"
        add("RLIMIT", number, limit["soft"], limit["hard"], path=f"{at}.rlimits[{index}]", why=why)


def without_program(job: Job) -> None:
    """config.md: process is OPTIONAL; such a container is created, and start must fail."""
    if job.leaves:
        _leave_session(job, None)
    else:
        _new_session(job, None)
    job.plan.add("CLOSE_FROM", _FIRST_FD, path="$", why="no descriptor of the caller may stay open")
    if job.leaves:
        job.plan.add("CAPSET", 0, 0, 0, 0, path="$", why="it will never do anything")
        _leave(job, None)


def run(job: Job, process: Process) -> None:
    """The last steps. config.md "args": execvp semantics inside the container."""
    compiled = job.options.seccomp
    if process.get("noNewPrivileges") and compiled is not None and not compiled.notify:
        _seccomp(
            job,
            "with no_new_privs as late as possible: the filter need not allow what init does",
            before_fork=False,
        )
    env, has_home = environment(job, process)
    uid = PLAN_NO_PATH if has_home else (process.get("user") or {}).get("uid") or 0
    job.plan.add("EXEC", list(process["args"]), env, uid, path=f"{job.at}.args", why="runtime.md, step 8")


def terminal_size(process: Process) -> tuple[int, int]:
    """(rows, columns), 0 for unset."""
    size = process.get("consoleSize") or {}
    return size.get("height") or 0, size.get("width") or 0
