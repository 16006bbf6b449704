"""PURE: a description of a plan: as text for people, as a document for programs."""

from __future__ import annotations

from pyrunc import printable
from pyrunc.plan import numbers, wire
from pyrunc.spec import capabilities, mount_options
from pyrunc.spec.namespaces import NAMESPACES
from pyrunc.spec.process import PERSONALITIES, RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyrunc.plan.job import Plan
    from pyrunc.plan.wire import Field, Op

    Json = str | int | bool | None | list["Json"] | dict[str, "Json"]

# op -> (what it does, names of its fields). _FORMATS has how fields of some names are shown.
OPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "RLIMIT": ("set a resource limit", ("resource", "soft", "hard")),
    "PROC_SELF": ("write to a file of /proc/self", ("file", "value")),
    "SETNS": ("join a namespace", ("namespace", "namespaces")),
    "UNSHARE": ("make new namespaces", ("namespaces",)),
    "FORK": ("go on in a child", ("messages", "answers")),
    "SYNC": ("wait for the runtime", ("for",)),
    "USERNS_ROOT": ("become root of the user namespace", ("uid", "gid", "clear groups")),
    "DUMPABLE": ("forbid to trace init", ("dumpable",)),
    "KEYRING": ("start a session keyring", ("name",)),
    "LOOPBACK_UP": ("bring up lo", ()),
    "ROOTFS": ("prepare the root file system", ("path", "propagation", "stay in the mount namespace")),
    "MOUNT_NEW": (
        "mount a file system",
        ("target", "type", "source", "parameters", "attributes", "propagations", "mount flags"),
    ),
    "MOUNT_BIND": (
        "bind a file or directory",
        (
            "target", "source", "tree", "attributes", "cleared attributes", "recursive attributes",
            "cleared recursive attributes", "propagations", "mount flags",
        ),
    ),
    "REMOUNT": (
        "change a mount",
        ("target", "attributes", "cleared attributes", "recursive", "parameters", "propagations"),
    ),
    "MKDIR": ("make a directory", ("path", "mode")),
    "SYMLINK": ("make a symbolic link", ("text", "path", "only if it resolves")),
    "DEVICE": ("make a device node", ("path", "mode", "major", "minor", "uid", "gid", "device flags")),
    "HOOK": ("run a hook", ("path", "args", "env", "stdin", "timeout ms", "index", "kind")),
    "PIVOT": ("make the root file system the root", ("pivot",)),
    "ROOT_PROPAGATION": ("set the propagation of the root mount", ("propagation",)),
    "CONSOLE": ("open a terminal", ("rows", "columns", "bind on /dev/console", "uid", "gid")),
    "HOSTNAME": ("set the hostname", ("name",)),
    "DOMAINNAME": ("set the domainname", ("name",)),
    "SYSCTL": ("set a kernel parameter", ("file", "value")),
    "READONLY_PATH": ("make a path read-only", ("path",)),
    "MASKED_PATH": ("hide a path", ("path", "label")),
    "PERSONALITY": ("set the execution domain", ("domain",)),
    "SCHEDULER": ("set the scheduling policy", ("attributes of the policy",)),
    "IOPRIO": ("set the I/O priority", ("priority",)),
    "MEMPOLICY": ("set the memory policy", ("policy", "nodes")),
    "AFFINITY": ("set the CPU affinity", ("cpus",)),
    "UMASK": ("set the umask", ("mode",)),
    "SETSID": ("start a session", ()),
    "NO_NEW_PRIVS": ("forbid to gain privileges", ()),
    "SECCOMP": ("load the system call filter", ("filter", "filter flags", "send the listener", "own calls")),
    "CAPS_BOUNDING": ("cut the capability bounding set", ("bounding",)),
    "USER": ("become the user", ("uid", "gid", "groups", "set groups")),
    "CHDIR": ("go to the working directory", ("path", "chdir flags")),
    "CAPSET": ("set the capabilities", ("effective", "permitted", "inheritable", "ambient")),
    "LOOKUP": ("find the program", ("program", "PATH")),
    "CLOSE_FROM": ("close inherited descriptors on exec", ("first",)),
    "START_WAIT": ("wait for start", ("fifo",)),
    "EXEC": ("execute the program", ("args", "env", "uid for HOME")),
    "STDIO_OWNER": ("give stdin, stdout and stderr to the user", ("uid",)),
    "DONE": ("end", ()),
    "ADD_BEGIN": ("undo what follows should anything fail", ()),
    "ADD_END": ("make read-only what is to be", ()),
    "TREE": ("take hold of the source of a bind mount", ("source", "mount flags")),
    "UMOUNT": ("unmount", ("target", "mounts to stay", "only look")),
    "PIDNS": ("choose the processes that a new proc shows", ("namespace",)),
    "CTTY": ("start a session with the terminal", ()),
    "LAST_WORDS": ("keep what fails behind a filter", ("memory",)),
}  # fmt: skip

_ATTRIBUTES = {
    "ro": mount_options.ATTR_RDONLY,
    "nosuid": mount_options.ATTR_NOSUID,
    "nodev": mount_options.ATTR_NODEV,
    "noexec": mount_options.ATTR_NOEXEC,
    "noatime": mount_options.ATTR_NOATIME,
    "strictatime": mount_options.ATTR_STRICTATIME,
    "nodiratime": mount_options.ATTR_NODIRATIME,
    "nosymfollow": mount_options.ATTR_NOSYMFOLLOW,
}
_MOUNT_FLAGS = {
    "ordinary directory": numbers.MOUNT_FLAG_ORDINARY_DIR,
    "copy up": numbers.MOUNT_FLAG_COPY_UP,
    "recursive": numbers.MOUNT_FLAG_RECURSIVE,
    "may be refused": numbers.MOUNT_FLAG_OPTIONAL,
    "skip the next step when it works": numbers.MOUNT_FLAG_DONE_SKIP,
    "source nofollow": numbers.MOUNT_FLAG_SOURCE_NOFOLLOW,
    "target nofollow": numbers.MOUNT_FLAG_TARGET_NOFOLLOW,
    "label the root": numbers.MOUNT_FLAG_MQUEUE_LABEL,
    "mode of the directory it covers": numbers.MOUNT_FLAG_TARGET_MODE,
    "copy a symbolic link": numbers.MOUNT_FLAG_COPY_SYMLINK,
    "source taken hold of": numbers.MOUNT_FLAG_KEPT_TREE,
    "read-only in the end": numbers.MOUNT_FLAG_RDONLY_LATER,
    "may lie in /proc": numbers.MOUNT_FLAG_IN_PROC,
    "must be a procfs": numbers.MOUNT_FLAG_PROCFS,
}
_DEVICE_FLAGS = {"bound from the host": numbers.DEVICE_FLAG_BIND, "may exist": numbers.DEVICE_FLAG_DEFAULT}
_CHDIR_FLAGS = {
    "retried as the user": numbers.CHDIR_TRY,
    "the filter may forbid getcwd": numbers.CHDIR_FILTERED,
}
_PIVOTS = {
    numbers.PIVOT_ROOT: "pivot_root",
    numbers.PIVOT_MOVE: "move and chroot",
    numbers.PIVOT_CHROOT: "chroot",
}
_TRUTHS = frozenset(
    {
        "bind on /dev/console", "clear groups", "only if it resolves", "only look", "own calls", "recursive",
        "send the listener", "set groups", "stay in the mount namespace",
    }
)  # fmt: skip
_UNLIMITED = (1 << 64) - 1


def _flag_words(value: int, table: Mapping[str, int]) -> list[str]:
    words = [name for name, bit in table.items() if value & bit]
    rest = value & ~sum(table.values())
    return words + ([hex(rest)] if rest else [])


def _name_of(table: Mapping[str, int], value: int) -> str:
    return next((name for name, number in table.items() if number == value), str(value))


def _access_modes(value: int) -> list[str]:
    """Return the attributes to clear; the access time field can only be cleared as a whole."""
    words = (
        ["atime mode"] if value & mount_options.ATTR_ATIME_FIELD == mount_options.ATTR_ATIME_FIELD else []
    )
    return words + _flag_words(value & ~mount_options.ATTR_ATIME_FIELD if words else value, _ATTRIBUTES)


def _number(name: str, value: int, op: str) -> Json:  # noqa: C901 - one line per kind of field
    if name in _TRUTHS:
        return bool(value)
    if name == "namespaces":
        return list(_flag_words(value, {kind: flag for kind, (flag, _) in NAMESPACES.items()}))
    if name == "mode":
        return f"0{value:o}"
    if name in ("bounding", "effective", "permitted", "inheritable", "ambient"):
        return list(capabilities.names(value))
    if name in ("attributes", "recursive attributes"):
        return list(_flag_words(value, _ATTRIBUTES))
    if name in ("cleared attributes", "cleared recursive attributes"):
        return list(_access_modes(value))
    if name == "propagation":
        return _name_of(mount_options.PROPAGATION, value) if value else "unchanged"
    if name == "mount flags":
        return list(_flag_words(value, _MOUNT_FLAGS))
    if name == "device flags":
        return list(_flag_words(value, _DEVICE_FLAGS))
    if name == "chdir flags":
        return list(_flag_words(value, _CHDIR_FLAGS))
    if name == "resource":
        return _name_of(RLIMITS, value)
    if name == "for":
        return _name_of(numbers.SYNC, value)
    if name == "pivot":
        return _PIVOTS.get(value, str(value))
    if name == "kind":
        return numbers.HOOK_KINDS[value]
    if name == "domain":
        return _name_of(PERSONALITIES, value)
    if name in ("gid", "uid for HOME") and value == numbers.PLAN_NO_PATH:
        return "unchanged" if op == "CONSOLE" else "none"
    return "unlimited" if value == _UNLIMITED else value


def _value(name: str, value: Field, op: str) -> Json:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, wire.Fd):
        return str(value)
    if isinstance(value, list):
        if name == "propagations":
            return [_name_of(mount_options.PROPAGATION, item) for item in value if isinstance(item, int)]
        return list(value)
    if isinstance(value, str):
        return value
    return _number(name, value, op)


def arguments(op: Op) -> dict[str, Json]:
    """Return the fields of an op by name; flags as names, bytes as their number, descriptors as what is opened."""
    _, names = OPS[op.name]
    return {name: _value(name, value, op.name) for name, value in zip(names, op.fields, strict=True)}


def document(plan: Plan) -> dict[str, Json]:
    """Return the plan for programs: what clone3 makes, id maps, warnings, and one object per step."""
    steps: list[Json] = []
    for number, op in enumerate(plan.ops):
        steps.append(
            {
                "step": number,
                "op": op.name,
                "does": OPS[op.name][0],
                "arguments": dict(arguments(op).items()),
                "path": op.path,
                "why": op.why,
            }
        )
    return {
        "clone3": _number("namespaces", plan.clone_flags, ""),
        "uidMappings": _map_rows(plan.uid_maps),
        "gidMappings": _map_rows(plan.gid_maps),
        "setgroups": plan.setgroups,
        "warnings": list(plan.warnings),
        "steps": steps,
    }


def _map_rows(rows: Sequence[tuple[int, int, int]] | None) -> Json:
    if rows is None:
        return None
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in rows]


def _shown(value: Json) -> str:
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, list):
        return "[" + ", ".join([_shown(item) for item in value]) + "]"
    text = str(value)
    if isinstance(value, str) and (
        not text or any(char in ' ,"[]' or not char.isprintable() for char in text)
    ):
        return '"' + printable.line(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    return text


def _argument_text(op: Op) -> str:
    """Return name=value texts, without values that are empty, off or not opened."""
    shown = []
    for name, value in arguments(op).items():
        if value is False or value in ([], "") or (name == "tree" and value == -1):
            continue
        shown.append(f"{name}={_shown(_tree_text(value) if name == 'tree' else value)}")
    return " ".join(shown)


def _tree_text(value: Json) -> Json:
    """Return the description of a detached mount, without the source, which is shown before it."""
    if not isinstance(value, str) or not value.startswith("tree "):
        return value
    _, mapped, how = value.rpartition(" mapped ")
    return f"opened by the runtime, mapped {how}" if mapped else "opened by the runtime"


def text(plan: Plan) -> str:
    """Return the plan for people: three lines per step (what, with which arguments, why)."""
    lines = []
    made = _flag_words(plan.clone_flags, {kind: flag for kind, (flag, _) in NAMESPACES.items()})
    lines.append(
        f"init is started with {'new namespaces: ' + ', '.join(made) if made else 'no new namespaces'}"
    )
    for name, rows in (("uid", plan.uid_maps), ("gid", plan.gid_maps)):
        for inside, outside, size in rows or ():
            lines.append(f"{name} map: {inside} inside is {outside} outside, {size} ids")
    if plan.setgroups is not None:
        lines.append(f"setgroups: {plan.setgroups}")
    lines += [f"warning: {warning}" for warning in plan.warnings]
    for number, op in enumerate(plan.ops):
        lines.append("")
        lines.append(f"{number:3}  {OPS[op.name][0]}  [{op.path}]")
        lines.append(f"     {op.name} {_argument_text(op)}".rstrip())
        if op.why:
            lines.append(f"     why: {op.why}")
    return "".join([printable.line(line) + "\n" for line in lines])
