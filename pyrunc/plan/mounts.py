"""PURE: one entry of `mounts` -> its steps. config.md "Mounts"."""

from __future__ import annotations

import os

from pyrunc.errors import ConfigError
from pyrunc.plan.numbers import (
    MOUNT_FLAG_COPY_SYMLINK,
    MOUNT_FLAG_COPY_UP,
    MOUNT_FLAG_DONE_SKIP,
    MOUNT_FLAG_IN_PROC,
    MOUNT_FLAG_KEPT_SHIFT,
    MOUNT_FLAG_KEPT_TREE,
    MOUNT_FLAG_MQUEUE_LABEL,
    MOUNT_FLAG_OPTIONAL,
    MOUNT_FLAG_ORDINARY_DIR,
    MOUNT_FLAG_OWN_GID,
    MOUNT_FLAG_OWN_UID,
    MOUNT_FLAG_PROCFS,
    MOUNT_FLAG_RDONLY_LATER,
    MOUNT_FLAG_RECURSIVE,
    MOUNT_FLAG_SOURCE_NOFOLLOW,
    MOUNT_FLAG_TARGET_MODE,
    MOUNT_FLAG_TARGET_NOFOLLOW,
)
from pyrunc.plan.wire import Fd, Op
from pyrunc.spec import id_mappings, mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.job import Job
    from pyrunc.spec.id_mappings import IdMap
    from pyrunc.spec.mount_options import MountOptions
    from pyrunc.spec.shapes import Mount

# One superblock for all mounts of the same namespace: making it read-only would affect the others as well.
_SHARED_SUPERBLOCK = frozenset({"cgroup", "cgroup2", "mqueue", "proc", "sysfs"})
_UNLABELLED = frozenset({"cgroup", "cgroup2", "proc", "sysfs"})
_IN_ORDER = 'config.md, mounts: "the runtime MUST mount entries in the listed order"'
_CGROUP_ATTRIBUTES = mount_options.ATTR_NOSUID | mount_options.ATTR_NODEV | mount_options.ATTR_NOEXEC
_UNIFIED = "/sys/fs/cgroup"
_OF_THE_SOURCE = MOUNT_FLAG_RECURSIVE | MOUNT_FLAG_SOURCE_NOFOLLOW
_TAKE_HOLD = "in a copy of the runtime's mount namespace, which the container's has no way to"


class Deferred:
    """A mount that is made read-only at the end, after devices and mount points were made in it."""

    __slots__ = ("path", "target")

    def __init__(self, target: str, path: str) -> None:
        self.target = target
        self.path = path


def _proc_flags(target: str) -> int:
    """Return the flag for a target in /proc. The rules have checked these; no other mount may end up there."""
    return MOUNT_FLAG_IN_PROC if target == "/proc" or target.startswith("/proc/") else 0


def _add_bind(
    job: Job,
    target: str,
    source: str,
    options: MountOptions,
    at: str,
    why: str,
    *,
    fd: Fd | int = -1,
    keep: int = 0,
) -> None:
    """One MOUNT_BIND; `keep` are attributes that are not set now."""
    flags = MOUNT_FLAG_RECURSIVE if options.recursive else 0
    flags |= MOUNT_FLAG_SOURCE_NOFOLLOW if options.source_nofollow else 0
    flags |= MOUNT_FLAG_TARGET_NOFOLLOW if options.target_nofollow else 0
    flags |= MOUNT_FLAG_COPY_SYMLINK if options.copy_symlink else 0
    flags |= _proc_flags(target)
    if target == "/proc":
        flags |= MOUNT_FLAG_PROCFS | MOUNT_FLAG_ORDINARY_DIR
    if job.running and fd == -1:
        if opened_by_runtime(job):
            fd = _tree(job, source, options, None)
        else:
            flags |= MOUNT_FLAG_KEPT_TREE | len(job.kept) << MOUNT_FLAG_KEPT_SHIFT
            job.kept.append(Op("TREE", source, flags & _OF_THE_SOURCE, path=at, why=_TAKE_HOLD))
    job.plan.add(
        "MOUNT_BIND",
        target,
        source,
        fd,
        options.attr_set & ~keep,
        options.attr_clear,
        options.rec_set & ~keep,
        options.rec_clear,
        options.propagation,
        flags,
        path=at,
        why=why,
    )


def propagation_of_host(job: Job) -> int:
    """Return the propagation of "/" before anything is mounted. config-linux.md rootfsPropagation."""
    flags = mount_options.PROPAGATION.get(
        job.linux.get("rootfsPropagation") or "", mount_options.MS_SLAVE | mount_options.MS_REC
    )
    if flags & mount_options.MS_UNBINDABLE:
        # The rootfs could not be bound to itself, which pivot_root needs: unbindable comes after it.
        flags = flags ^ mount_options.MS_UNBINDABLE | mount_options.MS_PRIVATE
    return flags


def _mapping(job: Job, mount: Mount, options: MountOptions, at: str) -> IdMap | None:
    """Return the mapping of an id-mapped mount, None for others. config.md: the mount's own mappings count first."""
    recursive = options.idmap == "ridmap"
    if mount.get("uidMappings"):
        uids, gids = id_mappings.rows(mount["uidMappings"]), id_mappings.rows(mount["gidMappings"])
        return id_mappings.IdMap(uids, gids, recursive=recursive, path=f"{at}.uidMappings")
    at += ".options"
    if not options.idmap:
        return None
    uids = id_mappings.rows(job.linux.get("uidMappings") or ())
    gids = id_mappings.rows(job.linux.get("gidMappings") or ())
    if options.mapping:
        # Its text is checked by the rules.
        uids, gids = id_mappings.in_place(options.mapping, uids, gids)
        return id_mappings.IdMap(uids, gids, recursive=recursive, path=at)
    for kind, file, _path in job.spaces.joined:
        if kind == "user":
            return id_mappings.IdMap(namespace=file, recursive=recursive, path=at)
    # An equal namespace is as good as the container's own, which does not exist yet.
    return id_mappings.IdMap(uids, gids, recursive=recursive, path=at)


def opened_by_runtime(job: Job) -> bool:
    """Return whether the runtime opens the sources of bind mounts: from a user namespace init may not reach them.

    Nor can a process that has left the runtime's mount namespace; without privileges there, init opens them before.
    """
    if job.running:
        return job.host.euid == 0 and not job.host.in_userns
    return "user" in job.spaces and job.host.euid == 0


def source_of(job: Job, mount: Mount) -> str:
    """Return the source of a bind mount. config.md: "either absolute or relative to the bundle"."""
    return os.path.join(job.options.bundle, mount.get("source") or "")


def _tree(job: Job, source: str, options: MountOptions, mapping: IdMap | None) -> Fd | int:
    """Return the source of a bind mount as a descriptor if init cannot open it itself; else -1."""
    if mapping is None and not opened_by_runtime(job):
        return -1
    # init's own clones are of a mount namespace in which this has been done to all.
    propagation = propagation_of_host(job)
    return Fd(
        "tree",
        source,
        recursive=options.recursive,
        nofollow=options.source_nofollow or options.copy_symlink,
        propagation=propagation,
        idmap=mapping,
    )


def _no_data(job: Job, options: MountOptions, at: str) -> None:
    """mount(2) ignores what else a bind mount is given, and so did runtimes. Raise ConfigError if strict."""
    if not options.data:
        return
    text = "bind mounts cannot have any filesystem-specific options applied"
    if job.host.strict:
        hint = f"'{options.data[0]}' is no option of a bind mount"
        raise ConfigError(text, path=f"{at}.options", hint=hint)
    job.plan.warnings.append(f"{at}.options: {text}: '{','.join(options.data)}'")


def _bind(job: Job, mount: Mount, target: str, options: MountOptions, at: str, keep: int) -> None:
    _no_data(job, options, at)
    source = source_of(job, mount)
    why = "open_tree(2): attributes are there before anybody sees the mount, and only those that are named change"
    mapping = _mapping(job, mount, options, at)
    if mapping is not None:
        why = "mount_setattr(2) MOUNT_ATTR_IDMAP: only the runtime has the privileges, and only before it is seen"
    fd = _tree(job, source, options, mapping)
    _add_bind(job, target, source, options, f"{at}.source", why, fd=fd, keep=keep)


def _remount(job: Job, target: str, options: MountOptions, at: str) -> None:
    """config.md: remount changes an existing mount; with bind only the mount, not its superblock."""
    data = [] if options.bind else options.parameters(reconfigure=True)
    if options.bind:
        _no_data(job, options, at)
    if not options.bind and options.attr_set & mount_options.ATTR_RDONLY:
        data.insert(0, "ro")
    elif not options.bind and options.attr_clear & mount_options.ATTR_RDONLY:
        data.insert(0, "rw")
    job.plan.add(
        "REMOUNT",
        target,
        options.attr_set,
        options.attr_clear,
        0,
        data,
        options.propagation,
        path=at,
        why=_IN_ORDER,
    )
    if options.rec_set or options.rec_clear:
        why = "mount_setattr(2) with AT_RECURSIVE"
        job.plan.add(
            "REMOUNT", target, options.rec_set, options.rec_clear, 1, [], [], path=f"{at}.options", why=why
        )


def _names(options: MountOptions, parameter: str) -> bool:
    return any(item.startswith(parameter + "=") for item in options.data)


def _parameters(job: Job, kind: str, options: MountOptions, read_only: bool) -> tuple[list[str], int]:
    parameters = [_unquoted(item) for item in options.parameters()]
    flags = 0
    if read_only and kind not in _SHARED_SUPERBLOCK:
        parameters.insert(0, "ro")
    if kind == "tmpfs" and not _names(options, "mode"):
        flags |= MOUNT_FLAG_TARGET_MODE
    if kind not in _UNLABELLED and not any(_is_context(item) for item in parameters):
        label = _context(job)
        # mqueue takes no context=; init labels its root by the last parameter
        flags |= MOUNT_FLAG_MQUEUE_LABEL if label and kind == "mqueue" else 0
        parameters += label
    return parameters, flags


def _is_context(parameter: str) -> bool:
    return parameter.partition("=")[0] in mount_options.CONTEXTS


def _unquoted(parameter: str) -> str:
    """Return the label for mount(2), which needs quotes around one with a comma; fsconfig(2) does not."""
    key, _, value = parameter.partition("=")
    return f"{key}={value.strip(chr(34))}" if key in mount_options.CONTEXTS else parameter


def _context(job: Job) -> list[str]:
    """The parameter that gives a new file system linux.mountLabel; none without label or SELinux."""
    label = job.linux.get("mountLabel")
    if not label or not job.host.selinux:
        return []
    kind = (job.spec.get("annotations") or {}).get(mount_options.CONTEXT_ANNOTATION) or "context"
    return [f"{kind}={label}"]


def _new(job: Job, mount: Mount, target: str, options: MountOptions, at: str, keep: int) -> None:
    """Add the mount of a new file system."""
    kind = mount.get("type") or ""
    if not kind:
        raise ConfigError(
            "a mount without type must be a bind mount",
            path=at,
            hint="add a type, or the option 'bind' or 'rbind'",
        )
    attributes = options.new_attributes() & ~keep
    parameters, flags = _parameters(job, kind, options, bool(attributes & mount_options.ATTR_RDONLY))
    flags |= _proc_flags(target)
    why = _IN_ORDER
    fallback = False
    if kind in ("proc", "sysfs"):
        flags |= MOUNT_FLAG_ORDINARY_DIR
        why = "CVE-2019-19921: a symlink at the target would leave a fake one in place"
        # For a running container a bind of its own /sys would gain nothing.
        fallback = kind == "sysfs" and job.in_userns and not job.running
        fallback = fallback and bool(attributes & mount_options.ATTR_RDONLY)
    if options.copy_up:
        flags |= MOUNT_FLAG_COPY_UP
        flags |= MOUNT_FLAG_OWN_UID if _names(options, "uid") else 0
        flags |= MOUNT_FLAG_OWN_GID if _names(options, "gid") else 0
    source = mount.get("source") or ""
    if (mapping := _mapping(job, mount, options, at)) is not None:
        why = "mount_setattr(2) MOUNT_ATTR_IDMAP: only the runtime has the privileges, and only before it is seen"
        fd = Fd("filesystem", kind, source=source, parameters=parameters, idmap=mapping)
        add = job.plan.add
        add("MOUNT_BIND", target, "", fd, attributes, 0, 0, 0, options.propagation, flags, path=at, why=why)
        return
    if fallback:
        flags |= MOUNT_FLAG_OPTIONAL | MOUNT_FLAG_DONE_SKIP
    job.plan.add(
        "MOUNT_NEW",
        target,
        kind,
        source,
        parameters,
        attributes,
        options.propagation,
        flags,
        path=at,
        why=why,
    )
    if fallback:
        job.plan.add(
            "MOUNT_BIND",
            target,
            "/sys",
            -1,
            0,
            0,
            attributes,
            0,
            options.propagation,
            MOUNT_FLAG_RECURSIVE | MOUNT_FLAG_ORDINARY_DIR,
            path=at,
            why="refused without a network namespace that the user namespace owns: the host's, read-only",
        )


def _cgroup2(job: Job, target: str, options: MountOptions, at: str) -> None:
    attributes = options.new_attributes()
    flags = MOUNT_FLAG_OPTIONAL | MOUNT_FLAG_DONE_SKIP
    why = "cgroups(7): shows the tree from the root of the cgroup namespace"
    job.plan.add(
        "MOUNT_NEW",
        target,
        "cgroup2",
        "cgroup",
        options.data,
        attributes,
        options.propagation,
        flags,
        path=at,
        why=why,
    )
    everywhere = mount_options.parse(("rbind",))
    everywhere.attr_set = attributes
    own = dict(job.options.cgroup_paths).get("")
    if own and "cgroup" in job.spaces:
        source = own
    else:
        # CVE-2023-25809: these are the cgroups of the whole host, and a rootless runtime's user may own some of them.
        source = job.host.unified_mount or _UNIFIED
        everywhere.attr_set |= mount_options.ATTR_RDONLY
    everywhere.propagation = options.propagation
    why = "refused in a user namespace without a cgroup namespace of its own: what the host has, bound"
    _add_bind(job, target, source, everywhere, at, why)


def _own_cgroup(job: Job, controller: str, mount_point: str, root: str) -> str:
    """The directory of this container (without one: of the runtime) in a v1 hierarchy."""
    made = dict(job.options.cgroup_paths).get(controller)
    if made:
        return made
    path = job.host.own_cgroups.get(controller, "/")
    if root != "/" and (path + "/").startswith(root.rstrip("/") + "/"):
        path = path[len(root) :]
    return os.path.normpath(mount_point + "/" + path)


def _cgroup1(job: Job, target: str, options: MountOptions, at: str) -> None:
    """A tmpfs with a directory per hierarchy and a link per further controller, as a host has it.

    Also with a cgroup namespace these are binds: the kernel shows their root as "/" in it all the same.
    """
    add = job.plan.add
    why = "cgroup v1: one directory per hierarchy is mounted in it"
    parameters = ["mode=755", *_context(job)]
    read_only = bool(options.new_attributes() & mount_options.ATTR_RDONLY)
    flags = MOUNT_FLAG_RDONLY_LATER if job.running and read_only else 0
    add("MOUNT_NEW", target, "tmpfs", "tmpfs", parameters, _CGROUP_ATTRIBUTES, [], flags, path=at, why=why)
    hierarchies: dict[str, list[str]] = {}
    for controller, (mount_point, _root) in job.host.cgroup_mounts.items():
        hierarchies.setdefault(mount_point, []).append(controller)
    below = mount_options.parse(("rbind",))
    below.propagation = options.propagation
    for mount_point, controllers in hierarchies.items():
        name = os.path.basename(mount_point)
        made = [item for item in controllers if item in dict(job.options.cgroup_paths)]
        controller = (made or controllers)[0]
        source = _own_cgroup(job, controller, mount_point, job.host.cgroup_mounts[controller][1])
        below.attr_set = options.new_attributes() | _CGROUP_ATTRIBUTES
        if not made:
            # CVE-2023-25809: it is the runtime's, and a rootless runtime's user may own it.
            below.attr_set |= mount_options.ATTR_RDONLY
        _add_bind(job, f"{target}/{name}", source, below, at, "only the container's own cgroup may be seen")
        for other in controllers:
            if other != name and "=" not in other:
                add(
                    "SYMLINK",
                    name,
                    f"{target}/{other}",
                    0,
                    path=at,
                    why="programs look for the single controller",
                )
    if read_only and not job.running:
        why = "as the mount asks; not before its directories and links are made"
        add("REMOUNT", target, mount_options.ATTR_RDONLY, 0, 0, [], [], path=f"{at}.options", why=why)


def add(job: Job, mount: Mount, at: str) -> Deferred | None:
    """The steps of one entry, whose JSON path is `at`; what is left to be made read-only behind all of them."""
    target = mount_options.inside(mount["destination"])
    options = mount_options.parse(mount.get("options") or ())
    kind = mount.get("type") or ""
    bind = mount_options.is_bind(mount)
    if options.remount:
        _remount(job, target, options, at)
        return None
    if kind == "cgroup" and not bind:
        if job.host.cgroup_mode == "v2":
            _cgroup2(job, target, options, at)
        else:
            _cgroup1(job, target, options, at)
        return None
    later = (target == "/dev" and not job.running) or (kind == "tmpfs" and not bind)
    keep = mount_options.ATTR_RDONLY if later else 0
    if bind:
        _bind(job, mount, target, options, at, keep)
    else:
        _new(job, mount, target, options, at, keep)
    return (
        Deferred(target, f"{at}.options")
        if later and options.new_attributes() & mount_options.ATTR_RDONLY
        else None
    )
