"""What is known of the host before a container is planned."""

from __future__ import annotations

from pyrunc.spec.namespaces import NAMESPACES

TYPE_CHECKING = False


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
