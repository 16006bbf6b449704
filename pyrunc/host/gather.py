"""What the host offers: HostFacts (pure data for the planner) and gather(), the one reader of it.

May be imported by runtime; the planner and the cgroup code only see the object. Imports errors and kernel.
"""

from __future__ import annotations

import os

from pyrunc.errors import check_shortage
from pyrunc.kernel import process as kernel
from pyrunc.spec.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LAST_CAP_FILE = "/proc/sys/kernel/cap_last_cap"
_CGROUP_ROOT = "/sys/fs/cgroup"
_RESCTRL = "/sys/fs/resctrl"
_S_IFMT, _S_IFLNK = 0o170000, 0o120000
# Of the root of every hierarchy: kernfs gives out the others from there on.
_ROOT_INODE = 1


# What _of_this_boot() has found; a snapshot keeps it.
_kept: list[tuple[int, frozenset[str]]] = []


class HostFacts:
    """Facts about the runtime's own process and its kernel; no field is ever looked up again.

    `cgroup_mounts` maps a v1 controller ("memory", "name=systemd") to (mount point, root of that mount);
    `unified_mount` is where cgroup2 is mounted, or None; `own_cgroups` maps a controller ("" for v2) to the path in
    /proc/self/cgroup; `rlimits` maps a resource number to (soft, hard); `bounding_caps` is a bit set; a
    rootless process may not go below `oom_score_adj`. `resctrl` is where that is mounted ("": nowhere, or not asked
    for), `resctrl_info` what its directory `info` lists; `strict` is the switch PYRUNC_STRICT
    (csrc/container/container.h).
    """

    __slots__ = (
        "apparmor",
        "bounding_caps",
        "cgroup_mode",
        "cgroup_mounts",
        "egid",
        "euid",
        "in_userns",
        "last_cap",
        "namespaces",
        "oom_score_adj",
        "own_cgroups",
        "resctrl",
        "resctrl_info",
        "rlimits",
        "rootless",
        "selinux",
        "setgroups_denied",
        "strict",
        "unified_mount",
    )

    def __init__(
        self,
        *,
        euid: int = 0,
        egid: int = 0,
        in_userns: bool = False,
        rootless: bool = False,
        cgroup_mode: str = "v1",
        cgroup_mounts: dict[str, tuple[str, str]] | None = None,
        unified_mount: str | None = None,
        own_cgroups: dict[str, str] | None = None,
        bounding_caps: int = (1 << 41) - 1,
        last_cap: int = 40,
        namespaces: frozenset[str] = frozenset(NAMESPACES),
        apparmor: bool = False,
        selinux: bool = False,
        resctrl: str = "",
        resctrl_info: frozenset[str] = frozenset(),
        rlimits: dict[int, tuple[int, int]] | None = None,
        setgroups_denied: bool = False,
        oom_score_adj: int = -1000,
        strict: bool = False,
    ) -> None:
        self.euid = euid
        self.egid = egid
        self.in_userns = in_userns
        self.rootless = rootless
        self.cgroup_mode = cgroup_mode
        self.cgroup_mounts = cgroup_mounts or {}
        self.unified_mount = unified_mount
        self.own_cgroups = own_cgroups or {}
        self.bounding_caps = bounding_caps
        self.last_cap = last_cap
        self.namespaces = namespaces
        self.apparmor = apparmor
        self.selinux = selinux
        self.resctrl = resctrl
        self.resctrl_info = resctrl_info
        self.rlimits = rlimits or {}
        self.setgroups_denied = setgroups_denied
        self.oom_score_adj = oom_score_adj
        self.strict = strict

    def as_root(self) -> None:
        """Become what root would find here, for telling what it would do."""
        self.euid = self.egid = 0
        self.rootless = False
        self.oom_score_adj = -1000


def read_file(path: str, default: str = "") -> str:
    """A small file of /proc or /sys whole, `default` when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        check_shortage("open", error, path)
        return default
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
    except OSError as error:
        check_shortage("read", error, path)
        return default
    finally:
        os.close(fd)
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def unescape(text: str) -> str:
    """A path of /proc/PID/mountinfo as it is. proc(5)."""
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _cgroups(hierarchies: Sequence[str]) -> tuple[str, dict[str, tuple[str, str]], str | None]:
    """The mode, the v1 mounts and the cgroup2 mount point; `hierarchies` are those of /proc/self/cgroup."""
    if kernel.fs_type(_CGROUP_ROOT) == kernel.CGROUP2_SUPER_MAGIC:
        return "v2", {}, _CGROUP_ROOT
    mounts, unified = _cgroup_directories(hierarchies) or _cgroup_mounts()
    if not mounts:
        return "v2", {}, unified
    return ("hybrid" if unified else "v1"), mounts, unified


def _cgroup_directories(
    hierarchies: Sequence[str],
) -> tuple[dict[str, tuple[str, str]], str | None] | None:
    """What is mounted below /sys/fs/cgroup, if all of it has the usual name; None otherwise.

    /proc/self/mountinfo grows with every container of the host, this does not.
    """
    mounts: dict[str, tuple[str, str]] = {}
    unified = None
    try:
        for name in os.listdir(_CGROUP_ROOT):
            path = f"{_CGROUP_ROOT}/{name}"
            status = os.lstat(path)
            if status.st_mode & _S_IFMT == _S_IFLNK:
                continue
            kind = kernel.fs_type(path)
            if kind == kernel.CGROUP2_SUPER_MAGIC:
                unified = path
                continue
            hierarchy = name if name in hierarchies else f"name={name}"
            # Of a cgroup below the root, mounted here, only mountinfo knows the name.
            if (
                kind != kernel.CGROUP_SUPER_MAGIC
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
    for line in read_file("/proc/self/mountinfo").split("\n"):
        if " - cgroup" not in line:
            continue
        left, right = line.split(" - ", 1)
        fields = left.split(" ")
        mount_point = unescape(fields[4])
        if not mount_point.startswith(_CGROUP_ROOT):
            continue
        if right.startswith("cgroup2 "):
            unified = mount_point
            continue
        for name in right.split(" ", 2)[2].split(","):
            if name not in ("rw", "ro", "xattr", "clone_children", "noprefix") and not name.startswith(
                "release_agent"
            ):
                mounts.setdefault(name, (mount_point, unescape(fields[3])))
    return mounts, unified


def _own_cgroups() -> dict[str, str]:
    """The lines of /proc/self/cgroup: the controllers of a hierarchy, comma-separated, and the path in it."""
    own: dict[str, str] = {}
    for line in read_file("/proc/self/cgroup").split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            own[parts[1]] = parts[2]
    return own


def _status_field(status: str, name: str) -> str:
    at = status.find(f"\n{name}:")
    return status[at + len(name) + 2 : status.find("\n", at + 1)].strip() if at >= 0 else ""


def _rlimits() -> dict[int, tuple[int, int]]:
    import resource  # a shared object of its own: only configurations with rlimits pay for it

    unlimited = (1 << 64) - 1
    found: dict[int, tuple[int, int]] = {}
    for number in range(16):
        soft, hard = resource.getrlimit(number)
        found[number] = (unlimited if soft == -1 else soft, unlimited if hard == -1 else hard)
    return found


def in_user_namespace() -> bool:
    """Whether our user namespace is not the initial one, judged as everyone does: by its map. user_namespaces(7)."""
    return read_file("/proc/self/uid_map", "0 0 4294967295").split() != ["0", "0", "4294967295"]


def _selinux() -> bool:
    """Whether SELinux has a policy: without one every label is "kernel" and none can be set."""
    if not os.access("/sys/fs/selinux/enforce", os.F_OK):
        return False
    return read_file("/proc/self/attr/current", "kernel").rstrip("\0\n") != "kernel"


def _resctrl() -> str:
    """Where resctrl is mounted: at the place the kernel makes for it, or the first other one; "" for nowhere."""
    if kernel.fs_type(_RESCTRL) == kernel.RDTGROUP_SUPER_MAGIC:
        return _RESCTRL
    for line in read_file("/proc/self/mountinfo").split("\n"):
        left, _, right = line.partition(" - ")
        if right.startswith("resctrl "):
            return unescape(left.split(" ")[4])
    return ""


def _listed(directory: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))
    except OSError as error:
        check_shortage("open", error, directory)
        return frozenset()


def _of_this_boot() -> tuple[int, frozenset[str]]:
    """What no running kernel changes: the last capability and the kinds of namespaces. Both only show in /proc."""
    if not _kept:
        last_cap = int(read_file(LAST_CAP_FILE, "40"))
        kinds = [
            kind for kind, (_, name) in NAMESPACES.items() if os.access(f"/proc/self/ns/{name}", os.F_OK)
        ]
        _kept.append((last_cap, frozenset(kinds)))
    return _kept[0]


def gather(*, rlimits: bool = False, rootless: bool | None = None, resctrl: str | None = None) -> HostFacts:
    """Read the facts. `rlimits` adds the limits (slower); `rootless` overrides what euid and user namespace say.

    `resctrl` asks for what is said of that: "" looks for its mount point, anything else is the mount point.
    """
    mount_point = resctrl or _resctrl() if resctrl is not None else ""
    own = _own_cgroups()
    mode, mounts, unified = _cgroups(list(own))
    status = read_file("/proc/self/status")
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
        apparmor=read_file("/sys/module/apparmor/parameters/enabled").startswith("Y"),
        resctrl=mount_point,
        resctrl_info=_listed(f"{mount_point}/info") if mount_point else frozenset(),
        selinux=_selinux(),
        rlimits=_rlimits() if rlimits else None,
        oom_score_adj=int(read_file("/proc/self/oom_score_adj", "0")) if is_rootless else -1000,
        setgroups_denied=userns and read_file("/proc/self/setgroups").startswith("deny"),
        strict=kernel.strict(),
    )
