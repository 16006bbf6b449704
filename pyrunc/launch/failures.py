"""PURE: error messages for init's reports: (plan, message) -> error with JSON path and hint."""

from __future__ import annotations

import errno

from pyrunc.errors import ContainerError, PyruncError, strerror
from pyrunc.kernel import wait_status
from pyrunc.plan import numbers, wire
from pyrunc.spec import mount_options
from pyrunc.spec.namespaces import CLONE_NEWUSER
from pyrunc.spec.process import SCHEDULER_POLICIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FILTER_HINT = (
    "the seccomp filter has to allow what init does behind it: with noNewPrivileges execve alone, without it also"
    " write, openat, setuid, capset and others"
)
_ACCESS_TIMES = mount_options.ATTR_ATIME_FIELD | mount_options.ATTR_NODIRATIME
_ARGUMENT = {
    "ROOTFS": 0,
    "MOUNT_NEW": 0,
    "MOUNT_BIND": 1,
    "REMOUNT": 0,
    "MKDIR": 0,
    "SYMLINK": 1,
    "DEVICE": 0,
    "HOSTNAME": 0,
    "DOMAINNAME": 0,
    "SYSCTL": 0,
    "READONLY_PATH": 0,
    "MASKED_PATH": 0,
    "CHDIR": 0,
    "PROC_SELF": 0,
    "TREE": 0,
    "UMOUNT": 0,
}


_PATH_WORDS = {
    "device_mismatch": "'{path}' exists and is not the device that is asked for",
    "link_exists": "'{path}' exists and is not the symbolic link that copy-symlink would make",
    "inside_proc": "'{path}' cannot be mounted because it is inside /proc",
    "not_a_mount": "'{path}' is not a mount point",
    "protected": "'{path}' cannot be unmounted: the mount at '{text}' must stay",
}


def _argument(op: wire.Op, text: str) -> str:
    if text:
        return text
    place = _ARGUMENT.get(op.name)
    return "" if place is None else _text(op, place)


def _text(op: wire.Op, place: int) -> str:
    value = op.fields[place]
    return value if isinstance(value, str) else ""


def lookup(program: str, error: int) -> str:
    """Return the message for a program that cannot be run; engines match on it (for exit codes 126 and 127)."""
    if error == errno.ENOENT:
        return (
            f'exec: "{program}": stat {program}: no such file or directory'
            if "/" in program
            else f'exec: "{program}": executable file not found in $PATH'
        )
    # Engines match on execve's own text; not all of them know the better one.
    reason = "permission denied (is a directory)" if error == errno.EISDIR else strerror(error)
    return f'exec: "{program}": {reason}'


def hook(kind: str, index: int, path: str, status: int, output: str) -> str:
    """Return the message for a hook that did not exit with 0. `status` is its wait status."""
    signal = wait_status.signal(status)
    how = f"killed by signal {signal}" if signal else f"exit status {wait_status.exit_code(status)}"
    said = output.strip()
    return f"{kind} hook #{index} '{path}': {how}" + (f", output: {said}" if said else "")


def hook_timeout(kind: str, index: int, path: str, seconds: float, output: str) -> str:
    """Return the message for a hook that took too long."""
    said = output.strip()
    words = f"{kind} hook #{index} '{path}': hook ran past specified timeout of {seconds:.1f}s"
    return words + (f", output: {said}" if said else "")


def _hook_failure(op: wire.Op, message: wire.Message) -> str:
    path = _text(op, 0)
    timeout, index, kind = op.fields[4:]
    name = numbers.HOOK_KINDS[int(kind)]  # type: ignore[arg-type]
    place = int(index)  # type: ignore[arg-type]
    if message.step == "hook_timeout":
        return hook_timeout(name, place, path, int(timeout) / 1000, message.text)  # type: ignore[arg-type]
    if message.errno:
        # A step of init for the hook is named; a failure of the hook's process is shown with the hook's path.
        other = message.text if message.text != path else "execve"
        what = message.step if message.step != "hook" else other
        return f"{name} hook #{place} '{path}': {what}: {strerror(message.errno)}"
    return hook(name, place, path, message.value, message.text)


def _security_label(op: wire.Op, message: wire.Message) -> str:
    """Return the message for a label that was refused. podman matches on the file between the backticks."""
    file, value = _text(op, 0), _text(op, 1)
    kind, value = (
        ("AppArmor profile", value.removeprefix("exec ")) if "apparmor" in file else ("SELinux label", value)
    )
    # Not strerror's "no such file or directory": engines would take it for a missing program.
    missing = kind == "AppArmor profile" and message.step == "write" and message.errno == errno.ENOENT
    why = "it is not loaded" if missing else strerror(message.errno)
    return f"unable to apply {kind} '{value}': {message.step} `/proc/self/{file}`: {why}"


def _label_hint(op: wire.Op, message: wire.Message) -> str | None:
    apparmor = "apparmor" in _text(op, 0)
    if apparmor and message.errno == errno.ENOENT:
        return "load it with apparmor_parser; /sys/kernel/security/apparmor/profiles lists those that are"
    if not apparmor and message.errno == errno.EINVAL:
        return "the loaded policy does not know its user, role, type or range"
    if message.errno in (errno.EACCES, errno.EPERM):
        return "what confines pyrunc itself does not let it change to this one"
    return None


def _scheduler_hint(op: wire.Op, message: wire.Message) -> str | None:
    attributes = op.fields[0]
    assert isinstance(attributes, bytes)
    policy = int.from_bytes(attributes[4:8], wire.ORDER)
    if policy == SCHEDULER_POLICIES["SCHED_ISO"]:
        return "Linux has reserved SCHED_ISO and never built it"
    if message.errno != errno.EPERM:
        return None
    if policy == SCHEDULER_POLICIES["SCHED_DEADLINE"]:
        return (
            "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus):"
            " SCHED_DEADLINE wants every CPU; and CAP_SYS_NICE, not that of a user namespace"
        )
    return (
        "it needs CAP_SYS_NICE, not that of a user namespace; and on cgroup v1 real-time policies need a budget"
        " (linux.resources.cpu.realtimeRuntime)"
    )


def _root_hint(message: wire.Message) -> str | None:
    if message.step == "setns" and message.errno == errno.EPERM:
        return "joining its own mount namespace, as a caller in a chroot must, needs CAP_SYS_ADMIN and CAP_SYS_CHROOT"
    if message.step == "pivot_root" and message.errno == errno.EINVAL:
        return "pivot_root(2) replaces no initramfs, and no root that is not a mount point; --no-pivot can do without"
    return None


def _no_namespace_hint(op: wire.Op) -> str | None:
    flags = op.fields[0]
    if isinstance(flags, int) and flags & CLONE_NEWUSER:
        return "the kernel makes no user namespace for a caller in a chroot, and none that an LSM or a sysctl forbids"
    return None


def _unmount_hint(message: wire.Message) -> str | None:
    if message.step == "not_a_mount":
        return "the destination is where the mount is now, as /proc/self/mountinfo of the container has it"
    if message.step == "umount2" and message.errno == errno.EINVAL:
        return "a mount that came from a more privileged mount namespace stays"
    return None


# Locked attributes of a mount from a more privileged namespace -> the options that would clear them.
_LOCKED = {1: "rw", 2: "suid", 4: "dev", 8: "exec"}


def _locked_options(op: wire.Op) -> list[str]:
    """Return the options of a mount that change attributes which may be locked. mount_namespaces(7)."""
    places = (3, 4, 5, 6) if op.name == "MOUNT_BIND" else (1, 2)
    values = [value if isinstance(value := op.fields[place], int) else 0 for place in places]
    cleared = values[1] | values[-1]
    names = [name for bit, name in _LOCKED.items() if cleared & bit]
    every = values[0] | values[-2] | cleared
    return names + (["those about access times"] if every & _ACCESS_TIMES else [])


def _mount_hint(op: wire.Op, message: wire.Message) -> str | None:
    step, error = message.step, message.errno
    if op.name == "MOUNT_NEW" and "context=" in message.text and error == errno.EINVAL:
        return "linux.mountLabel is no label of the loaded SELinux policy, or the file system has another one already"
    if op.name == "MOUNT_NEW" and step == "fsopen" and op.fields[1] == "proc":
        return "a proc of a joined pid namespace needs Linux 6.17, or user namespaces (user.max_user_namespaces)"
    if op.name == "MOUNT_NEW" and error == errno.EPERM and op.fields[1] in ("proc", "sysfs"):
        return (
            "in a user namespace the kernel mounts this only where the outer one is fully visible"
            " (and sysfs only with a network namespace of the container's own)"
        )
    if step == "open_tree" and error == errno.ENOENT:
        return f"the source '{_argument(op, message.text)}' does not exist on the host"
    if step == "mount_setattr" and error == errno.EPERM and (options := _locked_options(op)):
        return (
            "what the host's mount forbids stays forbidden in a user namespace, and its access times as they are:"
            f" leave out {', '.join(options)}"
        )
    if error == errno.EROFS and step in ("mkdirat", "openat"):
        return "the mount point does not exist and cannot be made there"
    if error == errno.EOVERFLOW and step in ("mkdirat", "openat", "copy_up", "mknodat", "symlinkat"):
        return "it would be made on an id-mapped mount that has no row for the container's root"
    return None


def _hint(op: wire.Op, message: wire.Message) -> str | None:
    if op.name == "PROC_SELF" and _text(op, 0).startswith("attr/"):
        return _label_hint(op, message)
    if op.name in ("ROOTFS", "PIVOT"):
        return _root_hint(message)
    if op.name == "STDIO_OWNER" and message.step == "mknodat":
        return "a standard stream is the host's null device, and the container has none that could take its place"
    if op.name == "UNSHARE" and message.errno == errno.EPERM:
        return _no_namespace_hint(op)
    if op.name == "UMOUNT":
        return _unmount_hint(message)
    if op.name in ("MOUNT_BIND", "MOUNT_NEW", "REMOUNT", "TREE", "MKDIR") and (
        words := _mount_hint(op, message)
    ):
        return words
    if op.name == "SCHEDULER":
        return _scheduler_hint(op, message)
    if op.name == "RLIMIT" and message.errno == errno.EPERM:
        return "raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace"
    if message.step == "setgroups_denied":
        return "the user namespace denies setgroups; leave out additionalGids or map groups with newgidmap"
    if message.step in ("setuid", "setgid", "setgroups") and message.errno == errno.EINVAL:
        return "the id is not mapped in the container's user namespace"
    if op.name == "EXEC" and message.errno == errno.ENOEXEC:
        return "the file is no program this kernel can run: another architecture, or a script without #!"
    if op.name == "EXEC" and message.errno == errno.ENOENT:
        return "the program was found, so its interpreter (the #! line or the ELF loader) is missing"
    if op.name == "SYSCTL" and message.errno == errno.EROFS:
        return "the host's /proc/sys is read-only here"
    return None


def _words(op: wire.Op, message: wire.Message) -> str:
    step = message.step
    if step in ("hook", "hook_timeout"):
        return _hook_failure(op, message)
    if step == "lookup":
        return lookup(message.text or str(op.fields[0]), message.errno)
    if op.name == "EXEC" and step == "execve":
        argv = op.fields[0]
        program = message.text or (str(argv[0]) if isinstance(argv, list) and argv else "")
        return f'exec: "{program}": {strerror(message.errno)}'
    if op.name == "PROC_SELF" and _text(op, 0).startswith("attr/"):
        return _security_label(op, message)
    if step == "cwd_outside":
        return f"the working directory '{_text(op, 0)}' is outside of the container's root (CVE-2024-21626)"
    if step == "root_outside":
        return "the container's root would not be the root of its mount namespace, from which the host can be reached"
    if step == "not_ordinary_dir":
        return f'filesystem "{_text(op, 1)}" must be mounted on ordinary directory: {_text(op, 0)}'
    if step == "wrong_fs" and op.name == "MOUNT_BIND":
        return f"'{_text(op, 0)}' cannot be mounted because it is not of type proc"
    if step == "wrong_fs":
        return f"'{_argument(op, message.text)}' is not on the file system it must be on"
    if step in _PATH_WORDS:
        return _PATH_WORDS[step].format(path=_text(op, 0), text=message.text)
    if step == "setgroups_denied":
        return "unable to set supplementary groups: the user namespace denies setgroups"
    if step == "plan" and message.op == numbers.PLAN_NO_PATH:
        return f"init refuses its plan: {message.text or strerror(message.errno)}"
    argument = _argument(op, "" if message.flags & numbers.SYNC_FLAG_KERNEL_TEXT else message.text)
    words = step + (f" '{argument}'" if argument else "")
    if message.errno:
        words += f": {strerror(message.errno)}"
    if message.flags & numbers.SYNC_FLAG_KERNEL_TEXT and message.text:
        words += f" ({message.text.strip()})"
    return words


def explain(ops: Sequence[wire.Op], message: wire.Message) -> PyruncError:
    """Return the error for a SYNC_ERROR message, with the path and message of the op that failed."""
    if message.op >= len(ops):
        return ContainerError(
            f"init failed before its plan: {message.step} {message.text}: {strerror(message.errno)}"
        )
    return explain_op(ops[message.op], message)


def explain_op(op: wire.Op, message: wire.Message) -> PyruncError:
    """Return the error for a message whose op is known, even if that op cannot fail like that."""
    path = op.path if op.path != "$" else None
    try:
        return ContainerError(_words(op, message), path=path, hint=_hint(op, message))
    except (AssertionError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        # A process that has taken init's place may send anything.
        return ContainerError(
            f"init reports a failure of '{message.step}', which {op.name} cannot have", path=path
        )
