"""PURE: the file system part of a plan: mounts, devices, links, the new root, and masked paths.

build   what is made below the rootfs while the host's tree is still there
enter   the rootfs becomes "/", then what must come after all mounts: read-only, sysctl, masks
"""

from __future__ import annotations

from pyrunc.plan import mounts as plan_mounts
from pyrunc.plan import process as plan_process
from pyrunc.plan.numbers import (
    DEVICE_FLAG_BIND,
    DEVICE_FLAG_DEFAULT,
    PIVOT_CHROOT,
    PIVOT_MOVE,
    PIVOT_ROOT,
    PLAN_NO_PATH,
)
from pyrunc.spec import devices, mount_options, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyrunc.plan.job import Job
    from pyrunc.plan.mounts import Deferred
    from pyrunc.spec.shapes import Mount, Process


def _brings_dev(spec_mounts: list[Mount]) -> bool:
    """Whether /dev is one that exists already, in which nothing must be made: a bind, as of the host's."""
    return any(
        mount_options.inside(mount["destination"]) == "/dev" and mount_options.is_bind(mount)
        for mount in spec_mounts
    )


def _devices(job: Job) -> None:
    """config-linux.md "Devices" and "Default Devices"; runtime-linux.md "Dev symbolic links"."""
    add = job.plan.add
    bind = DEVICE_FLAG_BIND if job.in_userns else 0
    link, ptmx = devices.PTMX
    listed = set()
    for index, device in enumerate(job.linux.get("devices") or ()):
        listed.add(mount_options.inside(device["path"]))
        if mount_options.inside(device["path"]) == ptmx:
            # Privileged containers list all of the host's devices; here the host's one must not be used.
            continue
        mode = devices.mode(device["type"], device.get("fileMode"))
        major, minor = device.get("major") or 0, device.get("minor") or 0
        owner = device.get("uid") or 0, device.get("gid") or 0
        at = f"$.linux.devices[{index}]"
        why = 'config-linux.md, Devices: "MUST be available in the container"'
        why += "; mknod needs the initial user namespace: bound from the host" if bind else ""
        flags = 0 if device["type"] == "p" else bind
        add(
            "DEVICE",
            mount_options.inside(device["path"]),
            mode,
            major,
            minor,
            *owner,
            flags,
            path=at,
            why=why,
        )
    for path, major, minor in devices.DEFAULTS:
        if path not in listed:
            why = 'config-linux.md, Default Devices: "the runtime MUST also supply" it'
            mode = devices.mode("c", None)
            add(
                "DEVICE",
                path,
                mode,
                major,
                minor,
                0,
                0,
                bind | DEVICE_FLAG_DEFAULT,
                path="$.linux.devices",
                why=why,
            )
    why = 'config-linux.md, Default Devices: "a bind-mount or symlink of the container\'s /dev/pts/ptmx"'
    add("SYMLINK", link, ptmx, 0, path="$.linux.devices", why=why)
    for text, path in devices.LINKS:
        why = 'runtime-linux.md: "MUST ... if the source file exists after processing mounts"'
        add("SYMLINK", text, path, 1, path="$.mounts", why=why)


def _propagation(job: Job) -> int:
    """Return the first propagation of all mounts of the new namespace."""
    flags = plan_mounts.propagation_of_host(job)
    if not job.options.no_pivot:
        return flags
    # The root is mounted over the host's, and proc and sysfs are unmounted: no shared mount may pass that on.
    return mount_options.MS_REC | (flags & mount_options.MS_PRIVATE or mount_options.MS_SLAVE)


def build(job: Job) -> list[Deferred]:
    """Mounts, devices and links below the rootfs. Returns what `enter` makes read-only."""
    add = job.plan.add
    stay = "mount" not in job.spaces
    why = "runtime.md, step 2; by default nothing that is mounted inside gets out, and what the host mounts gets in"
    propagation = 0 if stay else _propagation(job)
    add("ROOTFS", job.options.rootfs, propagation, int(stay), path="$.root.path", why=why)
    spec_mounts = list(job.spec.get("mounts") or [])
    deferred = []
    for index, mount in enumerate(spec_mounts):
        later = plan_mounts.add(job, mount, f"$.mounts[{index}]")
        if later is not None:
            deferred.append(later)
    if not _brings_dev(spec_mounts):
        _devices(job)
    return deferred


def terminal(job: Job, process: Process, *, bind: bool) -> None:
    """Add a pty of the container's own devpts as stdio. config.md "terminal"."""
    rows, columns = plan_process.terminal_size(process)
    uid = (process.get("user") or {}).get("uid") or 0
    why = (
        "config-linux.md, Default Devices: console is the pty" if bind else "a pty of the container's devpts"
    )
    # The group comes from the gid= of devpts.
    job.plan.add("CONSOLE", rows, columns, int(bind), uid, PLAN_NO_PATH, path=f"{job.at}.terminal", why=why)


def enter(job: Job, process: Process | None, deferred: list[Deferred]) -> None:
    """Make the rootfs "/", then add what needs all mounts in place."""
    add, linux = job.plan.add, job.linux
    mode = PIVOT_ROOT
    why = "pivot_root(2): afterwards the host's tree is gone from this namespace"
    if "mount" not in job.spaces:
        mode, why = PIVOT_CHROOT, "without a mount namespace there is nothing to pivot"
    elif job.options.no_pivot:
        mode, why = PIVOT_MOVE, "--no-pivot: the host's tree stays mounted, out of reach"
    add("PIVOT", mode, path="$.root.path", why=why)
    if process and process["cwd"] != "/":
        why = "engines expect a missing one to be made; before the root is read-only"
        add("MKDIR", mount_options.inside(process["cwd"]), 0o755, path=f"{job.at}.cwd", why=why)
    if process and process.get("terminal"):
        terminal(job, process, bind="mount" in job.spaces)
    for item in deferred:
        why = "not earlier: devices and mount points were made in it"
        add("REMOUNT", item.target, mount_options.ATTR_RDONLY, 0, 0, [], [], path=item.path, why=why)
    if (job.spec.get("root") or {}).get("readonly"):
        why = "config.md, root: last, everything above writes to it"
        add("REMOUNT", "/", mount_options.ATTR_RDONLY, 0, 0, [], [], path="$.root.readonly", why=why)
    if hostname := job.spec.get("hostname"):
        add("HOSTNAME", hostname, path="$.hostname", why="before sysctl, which shows it as kernel.hostname")
    if domainname := job.spec.get("domainname"):
        add("DOMAINNAME", domainname, path="$.domainname", why="setdomainname(2)")
    _restrict(job)
    if propagation := linux.get("rootfsPropagation"):
        why = "last: of what is unbindable no part can be made read-only or masked"
        flags = mount_options.PROPAGATION[propagation]
        if flags & (mount_options.MS_SLAVE | mount_options.MS_PRIVATE):
            # ROOTFS has made all mounts so; what mounts have asked for themselves since then stays.
            flags &= ~mount_options.MS_REC
        add(
            "ROOT_PROPAGATION",
            flags,
            path="$.linux.rootfsPropagation",
            why=why,
        )


def _once(paths: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each path with its index, and none twice: a second mount would only lie on the first."""
    seen = set()
    for index, path in enumerate(paths):
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if parts not in seen:
            seen.add(parts)
            yield index, path


def _restrict(job: Job) -> None:
    add, linux = job.plan.add, job.linux
    for name, value in (linux.get("sysctl") or {}).items():
        why = "before readonlyPaths, which usually has /proc/sys"
        add("SYSCTL", sysctl.path(name), value, path=f"$.linux.sysctl['{name}']", why=why)
    for index, path in _once(linux.get("readonlyPaths") or ()):
        why = "config-linux.md, Readonly Paths; after all mounts, or one could cover it"
        add("READONLY_PATH", path, path=f"$.linux.readonlyPaths[{index}]", why=why)
    label = linux.get("mountLabel") or ""
    if label and not job.host.selinux:
        job.plan.warnings.append("$.linux.mountLabel: ignored, selinux is disabled or not supported")
        label = ""
    for index, path in _once(linux.get("maskedPaths") or ()):
        why = 'config-linux.md, Masked Paths: "cannot be read"; after readonlyPaths, which may hold it'
        add("MASKED_PATH", path, label, path=f"$.linux.maskedPaths[{index}]", why=why)
