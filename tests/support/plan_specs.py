"""Configurations and hosts for the tests of the planner: what engines write, in our own words, small and complete."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from pyrunc.plan import planner
from pyrunc.plan.job import Plan, PlanOptions
from pyrunc.spec.host_facts import HostFacts

if TYPE_CHECKING:
    from pyrunc.plan.wire import Field, Op
    from pyrunc.spec.shapes import Mount, Namespace, Process, Spec

V1_HOST = HostFacts(
    cgroup_mode="v1",
    cgroup_mounts={
        "cpu": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "cpuacct": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "memory": ("/sys/fs/cgroup/memory", "/"),
        "pids": ("/sys/fs/cgroup/pids", "/outer"),
        "name=systemd": ("/sys/fs/cgroup/systemd", "/"),
    },
    own_cgroups={
        "cpu": "/",
        "cpuacct": "/",
        "memory": "/",
        "pids": "/outer/shell",
        "name=systemd": "/shell",
    },
    rlimits={7: (1024, 4096), 6: (100, 100)},
)
V1_PATHS = (("cpu", "/sys/fs/cgroup/cpu,cpuacct/c1"), ("memory", "/sys/fs/cgroup/memory/c1"))
V2_HOST = HostFacts(cgroup_mode="v2", unified_mount="/sys/fs/cgroup", own_cgroups={"": "/shell"})
V2_PATHS = (("", "/sys/fs/cgroup/c1"),)
ROOTLESS_HOST = HostFacts(
    euid=1000,
    egid=1000,
    rootless=True,
    cgroup_mode="v2",
    unified_mount="/sys/fs/cgroup",
    bounding_caps=0,
)
# A rootless engine: root in the user namespace that it has made for itself.
NESTED_HOST = HostFacts(in_userns=True, rootless=True, cgroup_mode="v2", unified_mount="/sys/fs/cgroup")

_MAPS = ({"containerID": 0, "hostID": 100000, "size": 65536},)
_DEFAULT_CAPS = ["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE"]


class Filter:
    """A compiled filter as seccomp.compile returns it; the bytes mean nothing."""

    def __init__(self, *, notify: bool = False) -> None:
        self.bpf = bytes(64)
        self.flags = 8 if notify else 0
        self.notify = notify


STANDARD_MOUNTS: list[Mount] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["ro", "nosuid", "noexec", "nodev"],
    },
]


def new_namespaces(*kinds: str) -> list[Namespace]:
    """Entries without a path."""
    return [{"type": kind} for kind in kinds]


def process(**changes: object) -> Process:
    """A process as an engine writes it for a shell."""
    made: Process = {
        "args": ["/bin/sh", "-c", "echo hi"],
        "cwd": "/",
        "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": {
            "bounding": list(_DEFAULT_CAPS),
            "effective": list(_DEFAULT_CAPS),
            "permitted": list(_DEFAULT_CAPS),
        },
    }
    made.update(changes)  # type: ignore[typeddict-item]
    return made


def docker_like() -> Spec:
    """What dockerd writes: hook, oom score, sysctl, bind mounts of its own files."""
    spec: Spec = {
        "ociVersion": "1.0.2-dev",
        "process": process(
            cwd="/work",
            oomScoreAdj=0,
            user={"uid": 1000, "gid": 1000, "additionalGids": [10, 1000]},
            rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048}],
        ),
        "root": {"path": "/srv/merged"},
        "hostname": "box",
        "mounts": [
            *copy.deepcopy(STANDARD_MOUNTS),
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["mode=1777", "size=64m"],
            },
            {
                "destination": "/etc/hosts",
                "type": "bind",
                "source": "/srv/hosts",
                "options": ["rbind", "rprivate"],
            },
            {"destination": "/data", "type": "bind", "source": "data", "options": ["bind", "ro", "nodev"]},
        ],
        "hooks": {"prestart": [{"path": "/usr/bin/engine", "args": ["engine", "setkey"]}]},
        "linux": {
            "namespaces": new_namespaces("mount", "network", "uts", "pid", "ipc"),
            "cgroupsPath": "/docker/box",
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "devices": [
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20600, "gid": 44}
            ],
            "maskedPaths": ["/proc/kcore", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys"],
        },
    }
    return spec


def podman_like() -> Spec:
    """What podman writes: joined namespaces of a pod, a read-only root, tmpcopyup, no new privileges, seccomp."""
    spec = docker_like()
    spec["process"] = process(
        user={"uid": 0, "gid": 0, "umask": 0o027},
        noNewPrivileges=True,
    )
    spec["root"] = {"path": "/srv/merged", "readonly": True}
    spec["hooks"] = {
        "createContainer": [{"path": "/usr/bin/ldconfig-hook", "env": ["A=1"], "timeout": 5}],
        "startContainer": [{"path": "/bin/warm-up"}],
    }
    spec["mounts"] = [
        *copy.deepcopy(STANDARD_MOUNTS),
        {
            "destination": "/run",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["rw", "rprivate", "tmpcopyup", "ro"],
        },
    ]
    linux = spec["linux"]
    linux["namespaces"] = [
        {"type": "pid"},
        {"type": "network", "path": "/run/netns/pod"},
        {"type": "ipc", "path": "/proc/4242/ns/ipc"},
        {"type": "uts", "path": "/proc/4242/ns/uts"},
        {"type": "mount"},
        {"type": "cgroup"},
    ]
    linux["rootfsPropagation"] = "rslave"
    linux["personality"] = {"domain": "LINUX32"}
    return spec


def userns() -> Spec:
    """A new user namespace made by root."""
    spec = docker_like()
    spec["linux"]["namespaces"] = new_namespaces(
        "mount", "network", "uts", "pid", "ipc", "user", "cgroup", "time"
    )
    spec["linux"]["uidMappings"] = [*copy.deepcopy(_MAPS)]  # type: ignore[list-item]
    spec["linux"]["gidMappings"] = [*copy.deepcopy(_MAPS)]  # type: ignore[list-item]
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 60}, "monotonic": {"secs": -1, "nanosecs": 5}}
    spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 8192}]
    return spec


def rootless() -> Spec:
    """`spec --rootless`: one id, no network namespace, the host's /sys."""
    spec = userns()
    spec["process"] = process()
    spec["mounts"] = [
        mount for mount in spec["mounts"] if mount["destination"] not in ("/sys", "/dev/pts", "/data")
    ]
    spec["mounts"].insert(
        1,
        {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "ro"]},
    )
    linux = spec["linux"]
    linux["namespaces"] = new_namespaces("pid", "ipc", "uts", "mount", "cgroup", "user")
    linux["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    for name in ("timeOffsets", "sysctl", "devices"):
        linux.pop(name, None)  # type: ignore[misc]
    return spec


def joined() -> Spec:
    """Every kind of namespace joined by path."""
    spec = docker_like()
    spec.pop("hostname")
    kinds = ("cgroup", "pid", "user", "mount", "network", "time", "ipc", "uts")
    spec["linux"]["namespaces"] = [{"type": kind, "path": f"/ns/{kind}"} for kind in kinds]
    return spec


def without_process() -> Spec:
    """Allowed at create (config.md), refused at start."""
    spec = docker_like()
    del spec["process"]
    return spec


def terminal() -> Spec:
    """An interactive container."""
    spec = docker_like()
    spec["process"]["terminal"] = True
    spec["process"]["consoleSize"] = {"height": 24, "width": 80}
    spec["root"]["readonly"] = True
    spec["mounts"][1]["options"] = ["nosuid", "ro", "mode=755"]
    return spec


def create(spec: Spec, host: HostFacts = V1_HOST, **options: object) -> Plan:
    """plan.create with the names that the goldens have."""
    made = PlanOptions(
        bundle="/srv/bundle",
        container_id="c1",
        rootfs="/srv/merged",
        hook_states={"createContainer": b'{"id":"c1"}', "startContainer": b'{"id":"c1"}'},
    )
    for name, value in options.items():
        setattr(made, name, value)
    return planner.create(spec, host, made)


def enter(
    wanted: Process, spec: Spec, host: HostFacts = V1_HOST, path: str = "$.process", **options: object
) -> Plan:
    """plan.exec_process into a container whose init is 4242."""
    made = PlanOptions(bundle="/srv/bundle", container_id="c1", rootfs="/", init_pid=4242)
    for name, value in options.items():
        setattr(made, name, value)
    return planner.exec_process(wanted, spec, host, made, path)


def names(made: Plan) -> list[str]:
    """The op names in order."""
    return [op.name for op in made.ops]


def only(made: Plan, name: str) -> Op:
    """The one op of this name."""
    found = [op for op in made.ops if op.name == name]
    assert len(found) == 1, f"{len(found)} ops {name}"
    return found[0]


def every(made: Plan, name: str) -> list[tuple[Field, ...]]:
    """The fields of all ops of this name."""
    return [op.fields for op in made.ops if op.name == name]
