"""PURE: the rules of one entry of `mounts` that no schema can say. config.md, "Mounts".

check() is asked by rules for every mount of a configuration, and for those that are added to a running container.
Raise ConfigError at the first problem.
"""

from __future__ import annotations

from pyrunc.config.rules.fail import fail
from pyrunc.json_text.path import quote
from pyrunc.spec import id_mappings, mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Linux, Mount

# What lxcfs puts over the kernel's own files; everything else below /proc is the kernel's word to the container.
_BELOW_PROC = {
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
}
# The kernel's own file systems show what is, and what that belongs to cannot be mapped.
_NEVER_MAPPED = frozenset({"cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs"})


def check(
    mount: Mount, path: str, linux: Linux, spaces: dict[str, str], host: HostFacts | None = None
) -> None:
    """Raise ConfigError for the first broken rule of a mount; `path` is where it stands, `spaces` the namespaces."""
    for key, value in (
        ("destination", mount["destination"]),
        ("source", mount.get("source", "")),
        ("type", mount.get("type", "")),
    ):
        if "\0" in value:
            fail("mount field contains null byte", f"{path}.{key}")
    for index, option in enumerate(mount.get("options") or ()):
        if "\0" in option:
            fail("mount field contains null byte", f"{path}.options[{index}]")
    bind = mount_options.is_bind(mount)
    below_proc(mount, path, bind=bind)
    _idmap(mount, path, bind, linux, spaces, host)
    _special(mount, path, bind)


def below_proc(mount: Mount, path: str, *, bind: bool) -> None:
    """Raise ConfigError for a destination at or below /proc that is not allowed."""
    destination = mount_options.inside(mount["destination"])
    if destination == "/proc":
        # Whether a bind mount's source is a procfs is seen when it is opened; a remount leaves what is there.
        if not bind and mount.get("type") != "proc" and "remount" not in (mount.get("options") or ()):
            fail(
                f"{quote(destination)} cannot be mounted because it is not of type proc",
                f"{path}.destination",
                "programs trust /proc to be the kernel's",
            )
    elif destination.startswith("/proc/") and destination[6:] not in _BELOW_PROC:
        fail(f"{quote(destination)} cannot be mounted because it is inside /proc", f"{path}.destination")


def _idmap(
    mount: Mount, path: str, bind: bool, linux: Linux, spaces: dict[str, str], host: HostFacts | None
) -> None:
    names = mount.get("options") or ()
    mapped = bool(mount.get("uidMappings")), bool(mount.get("gidMappings"))
    if mapped == (False, False) and not any(name.startswith(("idmap", "ridmap")) for name in names):
        return
    options = mount_options.parse(names)
    if mapped[0] != mapped[1]:
        fail("id-mapped mounts must have both uid and gid mappings specified", path)
    if options.remount or (not bind and mount.get("type") in _NEVER_MAPPED):
        fail(
            "id-mapped mounts are only supported for bind-mounts",
            path,
            "and for new file systems of a kind that the kernel can map: tmpfs, ext4, xfs, btrfs",
        )
    if host and host.euid != 0:
        fail("id-mapped mounts are not supported for rootless containers", path)
    if mapped[0]:
        return
    if options.mapping:
        _in_place(mount, path, options.mapping, linux)
    elif "user" not in spaces:
        fail(
            "an id-mapped mount needs uidMappings and gidMappings, as there is no user namespace to take them from",
            path,
        )


def _in_place(mount: Mount, path: str, mapping: str, linux: Linux) -> None:
    index = next(
        index for index, item in enumerate(mount.get("options") or ()) if item.partition("=")[2] == mapping
    )
    at = f"{path}.options[{index}]"
    try:
        uids, gids = id_mappings.in_place(
            mapping,
            id_mappings.rows(linux.get("uidMappings") or ()),
            id_mappings.rows(linux.get("gidMappings") or ()),
        )
    except ValueError as error:
        fail(str(error), at, 'as in "idmap=uids=0-100000-65536;gids=0-100000-65536", rows separated by "#"')
    if not uids or not gids:
        fail("id-mapped mounts must have both uid and gid mappings specified", at)


def _special(mount: Mount, path: str, bind: bool) -> None:
    options = mount.get("options") or []
    if "tmpcopyup" in options and (bind or mount.get("type") != "tmpfs"):
        fail("tmpcopyup can be used only with tmpfs", f"{path}.options[{options.index('tmpcopyup')}]")
    found = [name for name in mount_options.BIND_ONLY if name in options]
    if found and not bind:
        fail(f"{found[0]} can be used only with bind mounts", f"{path}.options[{options.index(found[0])}]")
    if len(found) > 1 and found[0] == "copy-symlink":
        fail(
            "copy-symlink is mutually exclusive with src-nofollow and dest-nofollow",
            f"{path}.options[{options.index(found[0])}]",
        )
