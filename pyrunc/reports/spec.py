"""The verb `spec`: a config.json to start from, the same as runc's, in its order and indentation."""

from __future__ import annotations

import json
import os

from pyrunc import SPEC_VERSION
from pyrunc.errors import KernelError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Json = dict[str, object]

_NAME = "config.json"
_CGROUP2_CONTROLLERS = "/sys/fs/cgroup/cgroup.controllers"
_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
# destination, type, source, options
_MOUNTS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)
# Without privileges sysfs can be mounted only with a network namespace that the own user namespace owns.
_ROOTLESS_SYS = ("/sys", "none", "/sys", ("rbind", "nosuid", "noexec", "nodev", "ro"))
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_ROOTLESS_NAMESPACES = ("pid", "ipc", "uts", "mount")
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def _mount(row: tuple[str, str, str, tuple[str, ...]], rootless: bool) -> Json:
    destination, kind, source, options = _ROOTLESS_SYS if rootless and row[0] == "/sys" else row
    # Only the user's own group id of the host is mapped.
    listed = [item for item in options if not (rootless and item.startswith(("gid=", "uid=")))]
    mount: Json = {"destination": destination, "type": kind, "source": source}
    if listed:
        mount["options"] = listed
    return mount


def _linux(rootless: bool, unified: bool, uid: int, gid: int) -> Json:
    linux: Json = {}
    names = _ROOTLESS_NAMESPACES if rootless else _NAMESPACES
    if unified:
        names = (*names, "cgroup")
    if rootless:
        names = (*names, "user")
        linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    linux["namespaces"] = [{"type": name} for name in names]
    linux["maskedPaths"] = list(_MASKED)
    linux["readonlyPaths"] = list(_READONLY)
    return linux


def document(*, rootless: bool, unified: bool, uid: int = 0, gid: int = 0) -> Json:
    """Return the configuration; `unified`: for a pure cgroup v2 host, `uid` and `gid`: the owner of a rootless one."""
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pyrunc",
        "mounts": [_mount(row, rootless) for row in _MOUNTS],
        "linux": _linux(rootless, unified, uid, gid),
    }


def write(bundle: str, name: str = "", *, rootless: bool) -> None:
    """Write config.json, or a file called `name`, into the directory `bundle`.

    Raise StateError if there is one already, KernelError if the directory cannot be written.
    """
    unified = os.access(_CGROUP2_CONTROLLERS, os.F_OK)
    text = json.dumps(
        document(rootless=rootless, unified=unified, uid=os.geteuid(), gid=os.getegid()), indent="\t"
    )
    path = os.path.join(bundle, name or _NAME)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o666)
    except FileExistsError:
        raise StateError(f"file {path} exists, remove it first") from None
    except OSError as error:
        raise KernelError("open", error.errno or 0, path) from error
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
