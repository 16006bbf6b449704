"""What the host offers: gather() reads it once, into HostFacts. Planner and cgroup code see that object only."""

from __future__ import annotations

import os

from pyrunc.errors import check_shortage
from pyrunc.host import proc
from pyrunc.kernel import container as kernel_container
from pyrunc.kernel import mounts as kernel_mounts
from pyrunc.spec.host_facts import HostFacts
from pyrunc.spec.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.requests import Context
    from pyrunc.spec.shapes import Spec

LAST_CAP_FILE = "/proc/sys/kernel/cap_last_cap"
_CGROUP_ROOT = "/sys/fs/cgroup"
_RESCTRL = "/sys/fs/resctrl"
_S_IFMT, _S_IFLNK = 0o170000, 0o120000
# The inode number of every hierarchy's root: kernfs counts from there.
_ROOT_INODE = 1


# What _of_this_boot() has found; a snapshot keeps it.
_kept: list[tuple[int, frozenset[str]]] = []


def _cgroups(hierarchies: Sequence[str]) -> tuple[str, dict[str, tuple[str, str]], str | None]:
    """The mode, the v1 mounts and the cgroup2 mount point; `hierarchies` are those of /proc/self/cgroup."""
    if kernel_mounts.fs_type(_CGROUP_ROOT) == kernel_mounts.CGROUP2_SUPER_MAGIC:
        return "v2", {}, _CGROUP_ROOT
    mounts, unified = _cgroup_directories(hierarchies) or _cgroup_mounts()
    if not mounts:
        return "v2", {}, unified
    return ("hybrid" if unified else "v1"), mounts, unified


def _cgroup_directories(
    hierarchies: Sequence[str],
) -> tuple[dict[str, tuple[str, str]], str | None] | None:
    """Return what is mounted below /sys/fs/cgroup if all of it has the usual name, otherwise None.

    /proc/self/mountinfo grows with every container of the host; this lookup does not.
    """
    mounts: dict[str, tuple[str, str]] = {}
    unified = None
    try:
        for name in os.listdir(_CGROUP_ROOT):
            path = f"{_CGROUP_ROOT}/{name}"
            status = os.lstat(path)
            if status.st_mode & _S_IFMT == _S_IFLNK:
                continue
            kind = kernel_mounts.fs_type(path)
            if kind == kernel_mounts.CGROUP2_SUPER_MAGIC:
                unified = path
                continue
            hierarchy = name if name in hierarchies else f"name={name}"
            # If a cgroup below the root is mounted here, only mountinfo has its name.
            if (
                kind != kernel_mounts.CGROUP_SUPER_MAGIC
                or status.st_ino != _ROOT_INODE
                or hierarchy not in hierarchies
            ):
                return None
            for controller in hierarchy.split(","):
                mounts[controller] = (path, "/")
    except OSError:
        return None
    return mounts, unified


def _cgroup_mounts() -> tuple[dict[str, tuple[str, str]], str | None]:
    mounts: dict[str, tuple[str, str]] = {}
    unified = None
    for fields, (kind, _source, options) in proc.mountinfo():
        if kind not in ("cgroup", "cgroup2"):
            continue
        mount_point = proc.unescape(fields[4])
        if not mount_point.startswith(_CGROUP_ROOT):
            continue
        if kind == "cgroup2":
            unified = mount_point
            continue
        for name in options.split(","):
            if name not in ("rw", "ro", "xattr", "clone_children", "noprefix") and not name.startswith(
                "release_agent"
            ):
                mounts.setdefault(name, (mount_point, proc.unescape(fields[3])))
    return mounts, unified


def _own_cgroups() -> dict[str, str]:
    """Return the lines of /proc/self/cgroup: the controllers of a hierarchy, comma-separated, and the path in it."""
    own: dict[str, str] = {}
    for line in proc.read_file("/proc/self/cgroup").split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            own[parts[1]] = parts[2]
    return own


def _status_field(status: str, name: str) -> str:
    at = status.find(f"\n{name}:")
    return status[at + len(name) + 2 : status.find("\n", at + 1)].strip() if at >= 0 else ""


def _rlimits() -> dict[int, tuple[int, int]]:
    import resource  # a separate shared object: loaded only for configurations with rlimits

    unlimited = (1 << 64) - 1
    found: dict[int, tuple[int, int]] = {}
    for number in range(16):
        soft, hard = resource.getrlimit(number)
        found[number] = (unlimited if soft == -1 else soft, unlimited if hard == -1 else hard)
    return found


def in_user_namespace() -> bool:
    """Return whether our user namespace is not the initial one, by its map as usual. user_namespaces(7)."""
    return proc.read_file("/proc/self/uid_map", "0 0 4294967295").split() != ["0", "0", "4294967295"]


def _selinux() -> bool:
    """Return whether SELinux has a policy: without one every label is "kernel" and none can be set."""
    if not os.access("/sys/fs/selinux/enforce", os.F_OK):
        return False
    return proc.read_file("/proc/self/attr/current", "kernel").rstrip("\0\n") != "kernel"


def _resctrl() -> str:
    """Return the mount point of resctrl: the usual one if mounted there, else the first other one, else ""."""
    if kernel_mounts.fs_type(_RESCTRL) == kernel_mounts.RDTGROUP_SUPER_MAGIC:
        return _RESCTRL
    for fields, (kind, *_) in proc.mountinfo():
        if kind == "resctrl":
            return proc.unescape(fields[4])
    return ""


def _listed(directory: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))
    except OSError as error:
        check_shortage("open", error, directory)
        return frozenset()


def _of_this_boot() -> tuple[int, frozenset[str]]:
    """Return what a running kernel never changes: the last capability and the types of namespaces, from /proc."""
    if not _kept:
        last_cap = int(proc.read_file(LAST_CAP_FILE, "40"))
        kinds = [
            kind for kind, (_, name) in NAMESPACES.items() if os.access(f"/proc/self/ns/{name}", os.F_OK)
        ]
        _kept.append((last_cap, frozenset(kinds)))
    return _kept[0]


def gather(*, rlimits: bool = False, rootless: bool | None = None, resctrl: str | None = None) -> HostFacts:
    """Read the facts. `rlimits` adds the limits (slower); `rootless` overrides the result from euid and user namespace.

    `resctrl` adds the facts about it: "" looks for its mount point, anything else is the mount point.
    """
    mount_point = resctrl or _resctrl() if resctrl is not None else ""
    own = _own_cgroups()
    mode, mounts, unified = _cgroups(list(own))
    status = proc.read_file("/proc/self/status")
    userns = in_user_namespace()
    last_cap, namespaces = _of_this_boot()
    euid = os.geteuid()
    is_rootless = (euid != 0 or userns) if rootless is None else rootless
    return HostFacts(
        euid=euid,
        egid=os.getegid(),
        in_userns=userns,
        rootless=is_rootless,
        cgroup_mode=mode,
        cgroup_mounts=mounts,
        unified_mount=unified,
        own_cgroups={name: path for names, path in own.items() for name in names.split(",")},
        bounding_caps=int(_status_field(status, "CapBnd") or "0", 16),
        last_cap=last_cap,
        namespaces=namespaces,
        apparmor=proc.read_file("/sys/module/apparmor/parameters/enabled").startswith("Y"),
        resctrl=mount_point,
        resctrl_info=_listed(f"{mount_point}/info") if mount_point else frozenset(),
        selinux=_selinux(),
        rlimits=_rlimits() if rlimits else None,
        oom_score_adj=int(proc.read_file("/proc/self/oom_score_adj", "0")) if is_rootless else -1000,
        setgroups_denied=userns and proc.read_file("/proc/self/setgroups").startswith("deny"),
        strict=kernel_container.strict(),
    )


def facts(ctx: Context, spec: Spec) -> HostFacts:
    """Return the facts that this configuration needs."""
    wants_rdt = (spec.get("linux") or {}).get("intelRdt") is not None
    return gather(
        rlimits=bool((spec.get("process") or {}).get("rlimits")),
        rootless=ctx.rootless,
        resctrl=ctx.resctrl if wants_rdt else None,
    )
