"""PURE: a plan, and what is known while it is made."""

from __future__ import annotations

from pyrunc.plan.wire import Fd, Op
from pyrunc.spec.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from pyrunc.plan.wire import Field
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Linux, Spec

    class CompiledFilter(Protocol):
        """What seccomp.compile returns: struct sock_filter[], flags of seccomp(2), is there a listener."""

        bpf: bytes
        flags: int
        notify: bool


class PlanOptions:
    """The planner's inputs besides configuration and host.

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
    """The ops of init, and what its parent needs to know.

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
        """Return whether a namespace of this type is made for the container."""
        return bool(self.new & NAMESPACES[kind][0])

    def joins(self, kind: str) -> bool:
        """Return whether an existing one is joined."""
        return kind in self.paths and not self.makes(kind)


class Job:
    """The common argument of the planner's functions: the inputs, and the plan. `at` is the process's JSON path.

    `running`: the plan changes the mounts of an existing container (changes.py), `kept` are then the sources that init
    opens while it still can. `pid_space`: the pid namespace that is entered later.
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
        """Return whether init will be in a user namespace other than the initial one."""
        return "user" in self.spaces or self.host.in_userns

    @property
    def leaves(self) -> bool:
        """Whether FORK is where other processes are already: then it is the last but what only the child can do."""
        return self.spaces.joins("pid") and not self.running


def namespaces_of(linux: Linux) -> Namespaces:
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
