"""PURE: the rules about `process`, that of config.json and those that exec adds. config.md, "Process"."""

from __future__ import annotations

from pyrunc.config.rules.fail import fail, no_nul, no_nuls, numbers
from pyrunc.json_text.path import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import IOPriority, Process, Scheduler

NO_SELINUX = "selinux label is specified in config, but selinux is disabled or not supported"
_WINSIZE_MAX = 0xFFFF


def check(process: Process, path: str = "$.process") -> None:
    """Raise ConfigError for the first broken rule of a process; `path` is where it stands."""
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
    affinity = process.get("execCPUAffinity") or {}
    # Not what else is there: config.md, "Extensibility".
    numbers(affinity.get("initial") or "", f"{path}.execCPUAffinity.initial")
    numbers(affinity.get("final") or "", f"{path}.execCPUAffinity.final")
    if priority := process.get("ioPriority"):
        _io_priority(priority, f"{path}.ioPriority")


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


def labels(process: Process, host: HostFacts, path: str) -> None:
    """Raise ConfigError if a label would not be enforced on this host; `path` is that of the process."""
    profile, label = process.get("apparmorProfile", ""), process.get("selinuxLabel", "")
    # Without AppArmor every process is unconfined.
    if profile not in ("", "unconfined") and not host.apparmor:
        fail(
            "apparmor profile is specified in config, but apparmor is disabled or not supported",
            f"{path}.apparmorProfile",
        )
    if label and not host.selinux:
        fail(NO_SELINUX, f"{path}.selinuxLabel")
