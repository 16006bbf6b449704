"""PURE: the rules of the configuration that no schema can say: between fields, about paths, names and numbers.

check() is asked by create, run and explain, check_process() by exec, check_resources() by update; each raises a
ConfigError at the first problem. Texts that other programs or their users know (runc's) are kept word for word.
What needs the kernel's answer is left to it. The parts about `linux` are in rules_linux. Imports jsonfast and that.
"""

from __future__ import annotations

import os

from pyrunc import rules_linux
from pyrunc.jsonfast import quote
from pyrunc.rules_linux import absolute, check_resources, fail, no_nul, no_nuls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.host import HostFacts
    from pyrunc.spec_types import Hook, IOPriority, Mount, Process, Scheduler, Spec

__all__ = ["NOT_YET", "check", "check_process", "check_resources"]

EACH = "[]"

# What is known but not built yet: the way to it, and what to call it. A last step "=text" asks for that value.
NOT_YET: dict[tuple[str, ...], str] = {
    ("mounts", EACH, "uidMappings"): "id-mapped mounts",
    ("mounts", EACH, "gidMappings"): "id-mapped mounts",
    ("mounts", EACH, "options", EACH, "=idmap"): "id-mapped mounts",
    ("mounts", EACH, "options", EACH, "=ridmap"): "id-mapped mounts",
}

# Linux allows 64 bytes in either name, uts_namespaces(7).
_UTS_NAME_MAX = 64
_WINSIZE_MAX = 0xFFFF
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
# What lxcfs puts over the kernel's own files; everything else below /proc is the kernel's word to the container.
_BELOW_PROC = {
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
}


def check(spec: Spec, host: HostFacts | None = None) -> None:
    """Raises ConfigError for the first broken rule of a configuration whose form config.load has checked.

    Without `host` the rules that compare with it are left out.
    """
    _version(spec["ociVersion"])
    no_nul(spec["root"]["path"], "$.root.path")
    linux = spec.get("linux") or {}
    spaces = rules_linux.namespaces(linux, host)
    _names(spec, spaces)
    if "" in (spec.get("annotations") or {}):
        fail("an annotation must have a name", "$.annotations")
    if process := spec.get("process"):
        check_process(process)
    for index, mount in enumerate(spec.get("mounts") or ()):
        _mount(mount, f"$.mounts[{index}]", spaces, host)
    rules_linux.check(spec, spaces, host)
    _hooks(spec)
    _not_yet(spec)


def check_process(process: Process, path: str = "$.process") -> None:
    """Raises ConfigError for the first broken rule of a process; `path` is where it stands."""
    if not process.get("args"):
        fail("args must not be empty", f"{path}.args")
    no_nuls(process["args"], f"{path}.args")
    cwd = process.get("cwd", "")
    if not cwd:
        fail("Cwd property must not be empty", f"{path}.cwd")
    if cwd[0] != "/":
        fail(f"Cwd must be an absolute path, not {quote(cwd)}", f"{path}.cwd", f"write {quote('/' + cwd)}")
    no_nul(cwd, f"{path}.cwd")
    _environment(process.get("env") or [], f"{path}.env")
    size = process.get("consoleSize")
    if process.get("terminal") and size:
        _console_size(size["height"], f"{path}.consoleSize.height")
        _console_size(size["width"], f"{path}.consoleSize.width")
    no_nul(process.get("apparmorProfile", ""), f"{path}.apparmorProfile")
    no_nul(process.get("selinuxLabel", ""), f"{path}.selinuxLabel")
    _rlimits(process, f"{path}.rlimits")
    if scheduler := process.get("scheduler"):
        _scheduler(scheduler, f"{path}.scheduler")
    for key, cpus in (process.get("execCPUAffinity") or {}).items():
        rules_linux.numbers(str(cpus), f"{path}.execCPUAffinity.{key}")
    if priority := process.get("ioPriority"):
        _io_priority(priority, f"{path}.ioPriority")


def _version(version: str) -> None:
    # SemVer: what another major number promises is unknown.
    if version[:2] != "1.":
        fail(
            f'version "{version}" is not supported',
            "$.ociVersion",
            "pyrunc implements version 1.3 of the runtime specification",
        )


def _names(spec: Spec, spaces: dict[str, str]) -> None:
    for key, value in (("hostname", spec.get("hostname")), ("domainname", spec.get("domainname"))):
        if not value:
            continue
        if "uts" not in spaces:
            fail(
                f"unable to set {key} without a private UTS namespace",
                f"$.{key}",
                'add {"type": "uts"} to linux.namespaces',
            )
        if len(value.encode()) > _UTS_NAME_MAX:
            fail(f"longer than {_UTS_NAME_MAX} bytes", f"$.{key}")
        no_nul(value, f"$.{key}")


def _environment(env: list[str], path: str) -> None:
    for index, entry in enumerate(env):
        if entry.find("=") > 0 and "\0" not in entry:
            continue
        where = f"{path}[{index}]"
        if "=" not in entry:
            fail(
                "invalid environment variable: missing '='",
                where,
                f"write {quote(entry + '=VALUE')}" if entry else None,
            )
        if entry[0] == "=":
            fail("invalid environment variable: name cannot be empty", where)
        name = quote(entry.partition("=")[0])
        fail(f"invalid environment variable {name}: contains nul byte", where)


def _console_size(value: int, path: str) -> None:
    if value > _WINSIZE_MAX:
        fail(f"{value} is greater than {_WINSIZE_MAX}, the most a terminal can have", path)


def _rlimits(process: Process, path: str) -> None:
    seen: set[str] = set()
    for index, limit in enumerate(process.get("rlimits") or ()):
        kind = limit["type"]
        if kind in seen:
            # config.md: "If `rlimits` contains duplicated entries with same `type`, the runtime MUST generate an error"
            fail(f'duplicate rlimit "{kind}"', f"{path}[{index}].type")
        seen.add(kind)
        if limit["soft"] > limit["hard"]:
            fail(
                f"the soft limit {limit['soft']} of {kind} is greater than the hard limit {limit['hard']}",
                f"{path}[{index}].soft",
            )


def _scheduler(scheduler: Scheduler, path: str) -> None:
    policy = scheduler["policy"]
    nice, priority = scheduler.get("nice", 0), scheduler.get("priority", 0)
    if nice and (policy not in ("SCHED_OTHER", "SCHED_BATCH") or not -20 <= nice <= 19):
        fail(f"invalid scheduler.nice: {nice} when scheduler.policy is {policy}", f"{path}.nice")
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        if not 1 <= priority <= 99:
            fail(
                f"invalid scheduler.priority: {priority} when scheduler.policy is {policy}",
                f"{path}.priority",
                "1 to 99, the larger the more urgent",
            )
    elif priority:
        fail(
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
            f"{path}.priority",
        )
    runtime, deadline = scheduler.get("runtime", 0), scheduler.get("deadline", 0)
    period = scheduler.get("period", 0)
    if policy != "SCHED_DEADLINE":
        if runtime or deadline or period:
            key = "runtime" if runtime else "deadline" if deadline else "period"
            fail(
                "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
                f"{path}.{key}",
            )
    elif not 0 < runtime <= deadline or 0 < period < deadline:
        fail(
            f"SCHED_DEADLINE needs 0 < runtime <= deadline <= period, not {runtime}, {deadline}, {period or deadline}",
            path,
            "times are in nanoseconds, a period that is not set is the deadline (sched_setattr(2))",
        )


def _io_priority(priority: IOPriority, path: str) -> None:
    # An idle class has no levels; ioprio_set(2) answers EINVAL for any but 0.
    level = priority.get("priority", 0)
    if priority["class"] == "IOPRIO_CLASS_IDLE" and level:
        fail(
            f"invalid ioPriority.Priority: {level}",
            f"{path}.priority",
            "IOPRIO_CLASS_IDLE has no levels: leave it out",
        )


def _mount(mount: Mount, path: str, spaces: dict[str, str], host: HostFacts | None) -> None:
    options = mount.get("options") or []
    for key, value in (
        ("destination", mount["destination"]),
        ("source", mount.get("source", "")),
        ("type", mount.get("type", "")),
    ):
        if "\0" in value:
            fail("mount field contains null byte", f"{path}.{key}")
    for index, option in enumerate(options):
        if "\0" in option:
            fail("mount field contains null byte", f"{path}.options[{index}]")
    bind = "bind" in options or "rbind" in options or mount.get("type") == "bind"
    _below_proc(mount, path, bind)
    _idmap(mount, path, bind, spaces, host)


def _below_proc(mount: Mount, path: str, bind: bool) -> None:
    destination = os.path.normpath("/" + mount["destination"].lstrip("/"))
    if destination == "/proc":
        # Whether a bind mount's source is a procfs is seen when it is opened.
        if not bind and mount.get("type") != "proc":
            fail(
                f"{quote(destination)} cannot be mounted because it is not of type proc",
                f"{path}.destination",
                "programs trust /proc to be the kernel's",
            )
    elif destination.startswith("/proc/") and destination[6:] not in _BELOW_PROC:
        fail(f"{quote(destination)} cannot be mounted because it is inside /proc", f"{path}.destination")


def _idmap(mount: Mount, path: str, bind: bool, spaces: dict[str, str], host: HostFacts | None) -> None:
    options = mount.get("options") or ()
    mapped = bool(mount.get("uidMappings")), bool(mount.get("gidMappings"))
    if mapped == (False, False) and "idmap" not in options and "ridmap" not in options:
        return
    if mapped[0] != mapped[1]:
        fail("id-mapped mounts must have both uid and gid mappings specified", path)
    if not bind:
        fail("id-mapped mounts are only supported for bind-mounts", path)
    if host and host.rootless:
        fail("id-mapped mounts are not supported for rootless containers", path)
    if not mapped[0] and "user" not in spaces:
        fail(
            "an id-mapped mount needs uidMappings and gidMappings, as there is no user namespace to take them from",
            path,
        )


def _hooks(spec: Spec) -> None:
    hooks = spec.get("hooks")
    if not hooks:
        return
    for kind in _HOOKS:
        listed: list[Hook] = hooks.get(kind) or []  # type: ignore[assignment]  # the six hold the same
        for index, hook in enumerate(listed):
            path = f"$.hooks.{kind}[{index}]"
            absolute(hook["path"], f"{path}.path", "the path of a hook")
            no_nuls(hook.get("args") or [], f"{path}.args")
            no_nuls(hook.get("env") or [], f"{path}.env")


def _not_yet(spec: Spec) -> None:
    for steps, what in NOT_YET.items():
        if path := _present(spec, steps, "$"):
            fail(f"not supported yet: {what}", path)


def _present(value: object, steps: tuple[str, ...], path: str) -> str | None:
    """The JSON path at which `steps` lead to something, None when they do not: "" and [] say nothing."""
    if not steps:
        return path if value else None
    step = steps[0]
    if step == EACH:
        assert isinstance(value, list)
        for index, item in enumerate(value):
            if found := _present(item, steps[1:], f"{path}[{index}]"):
                return found
    elif step[0] == "=":
        return path if value == step[1:] else None
    else:
        assert isinstance(value, dict)
        if step in value:
            return _present(value[step], steps[1:], f"{path}.{step}")
    return None
