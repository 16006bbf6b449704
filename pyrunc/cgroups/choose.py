"""Which cgroups a container has and who manages them: files or systemd."""

from __future__ import annotations

import os

from pyrunc.cgroups import files, v1, v2
from pyrunc.cgroups.manager import Manager
from pyrunc.errors import ConfigError
from pyrunc.spec import id_mappings, mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Spec

    # Takes the reason, and adds notes to it.
    Undo = Callable[[BaseException], None]

# limits.h, and the length of the longest name of a cgroup file.
_NAME_MAX, _PATH_MAX, _FILE_NAME = 255, 4096, 64
# The record of what create makes has every directory on the way, in each of a dozen hierarchies.
_DEPTH_MAX = 256


def clean(path: str) -> tuple[str, bool]:
    """Return a cgroupsPath without "..", "." and doubled slashes, relative, and whether it was absolute.

    It never leads above its start. Raise ConfigError if a cgroup file system or the state file cannot hold it.
    """
    if "\n" in path or "\0" in path:
        raise ConfigError(f"must not contain control characters, got {path!r}", path=files.CGROUPS_PATH)
    kept: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del kept[-1:]
        elif name not in ("", "."):
            kept.append(name)
    return "/".join(kept), path.startswith("/")


def _check_lengths(paths: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError if a directory could not be made, used or recorded, before the first one is made."""
    for path in dict.fromkeys(path for _, path in paths):
        size, names = len(os.fsencode(path)), path.strip("/").split("/")
        longest = max([len(os.fsencode(name)) for name in names])
        if longest > _NAME_MAX:
            wrong = f"has a name of {longest} bytes in it; {_NAME_MAX} are allowed"
        elif size > _PATH_MAX - _FILE_NAME:
            wrong = f"leads to a path of {size} bytes; {_PATH_MAX - _FILE_NAME} are allowed"
        elif len(names) > _DEPTH_MAX:
            wrong = f"leads to {len(names)} directories, each in the other; {_DEPTH_MAX} are allowed"
        else:
            continue
        raise ConfigError(wrong, path=files.CGROUPS_PATH, hint=f"it begins with '{path[:60]}'")


def delegated_to(spec: Spec) -> int | None:
    """Return the host uid that will own the v2 cgroup, None for no change. config-linux.md "Cgroup ownership"."""
    linux = spec.get("linux") or {}
    if not any(
        entry["type"] == "cgroup" and not entry.get("path") for entry in linux.get("namespaces") or ()
    ):
        return None
    for mount in reversed(spec.get("mounts") or ()):  # the last one is on top
        options = mount_options.parse(mount.get("options") or ())
        if mount_options.inside(mount["destination"]) == "/sys/fs/cgroup" and not options.remount:
            break
    else:
        return None
    read_only = options.new_attributes() & mount_options.ATTR_RDONLY
    if mount.get("type") != "cgroup" or mount_options.is_bind(mount) or read_only:
        return None
    uid = ((spec.get("process") or {}).get("user") or {}).get("uid") or 0
    maps = linux.get("uidMappings")
    return id_mappings.host_id(id_mappings.rows(maps), uid) if maps else uid


def manager(
    spec: Mapping[str, object],
    container_id: str,
    host: HostFacts,
    systemd: bool = False,
    disabled: bool = False,
) -> Manager:
    """Return the manager for the container of `spec`. Nothing is made yet. Raise ConfigError."""
    if disabled:
        return Manager([])
    linux = spec.get("linux")
    linux = linux if isinstance(linux, dict) else {}
    given = linux.get("cgroupsPath") or ""
    if not isinstance(given, str):
        raise ConfigError(f"must be a string, got {given!r}", path=files.CGROUPS_PATH)
    if systemd:
        from pyrunc.cgroups.systemd import driver

        made: Manager = driver.manager(spec, given, container_id, host)
    else:
        made = Manager(_directories(given, container_id, host))
    _check_lengths(made.paths)
    made._explicit = bool(given)
    made._rootless = host.rootless
    made._in_userns = host.in_userns
    made._spec = linux.get("resources") or {}
    if made.version == 2:
        made._owner = delegated_to(spec)  # type: ignore[arg-type]  # checked by config
    made._tops = _mount_points(host, made.paths)
    return made


def _directories(given: str, container_id: str, host: HostFacts) -> list[tuple[str, str]]:
    """Return (controller, directory) pairs of the cgroupfs driver. Raise ConfigError."""
    inner, absolute = clean(given or container_id)
    if host.cgroup_mode != "v2":
        paths = v1.directories(host, inner, absolute=absolute)
    elif host.unified_mount:
        paths = [(v1.UNIFIED, v2.directory(host, inner, absolute=absolute))]
    else:
        paths = []
    if not paths and not host.rootless:
        raise ConfigError("no cgroup file system is mounted", hint="mount cgroup2 on /sys/fs/cgroup")
    return paths


def _mount_points(host: HostFacts, paths: list[tuple[str, str]]) -> dict[str, str]:
    tops = {}
    for controller, path in paths:
        mount = host.cgroup_mounts.get(controller)
        tops[path] = mount[0] if mount else host.unified_mount or "/"
    return tops


def from_paths(paths: Sequence[tuple[str, str]], made: Sequence[str] = (), unit: str = "") -> Manager:
    """Return the manager of an existing container, from the recorded paths, directories made by create, and unit.

    Without `unit` systemd is never asked, which is enough for all but apply() and moving processes.
    """
    if unit:
        from pyrunc.cgroups.systemd import driver

        found: Manager = driver.UnitManager(list(paths), unit)
    else:
        found = Manager(list(paths))
    found.made = list(made)
    return found
