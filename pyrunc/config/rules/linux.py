"""PURE: the rules about `linux`: namespaces, ids, devices, paths, sysctl, labels. config-linux.md.

Those about `linux.resources` and `linux.seccomp` are in files of their own.
"""

from __future__ import annotations

from pyrunc.config.rules import process as rules_process
from pyrunc.config.rules import resources as rules_resources
from pyrunc.config.rules import seccomp as rules_seccomp
from pyrunc.config.rules.fail import absolute, fail, no_nul, numbers
from pyrunc.json_text.path import member, quote
from pyrunc.spec import id_mappings, sysctl
from pyrunc.spec.mount_options import CONTEXT_ANNOTATION, CONTEXTS
from pyrunc.spec.resctrl import CAT, RESCTRL_OWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import (
        Device,
        IntelRdt,
        Linux,
        MemoryPolicy,
        Spec,
    )

    Spaces = dict[str, str]

_IPC_SYSCTLS = {
    *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"),
    *("kernel.shmmni", "kernel.shm_rmid_forced"),
}
_NAME_MAX = 15  # IFNAMSIZ without the final NUL, netdevice(7)


def namespaces(linux: Linux, host: HostFacts | None) -> Spaces:
    """The namespaces of the container: type to path, "" for a new one. Raise ConfigError."""
    spaces: Spaces = {}
    for index, item in enumerate(linux.get("namespaces") or ()):
        kind, target, path = item["type"], item.get("path", ""), f"$.linux.namespaces[{index}]"
        if kind in spaces:
            fail(f'malformed spec file: duplicated ns "{kind}"', f"{path}.type")
        if target:
            absolute(target, f"{path}.path", "the path of a namespace")
        if host and kind not in host.namespaces:
            fail(f"{kind} namespaces aren't enabled in the kernel", f"{path}.type")
        spaces[kind] = target
    return spaces


def check(spec: Spec, spaces: Spaces, host: HostFacts | None) -> None:
    """Raise ConfigError at the first broken rule below `linux` or about security modules."""
    linux = spec.get("linux") or {}
    _ids(linux, spaces, host)
    if host and host.euid != 0:
        _rootless_mounts(spec, linux)
    _time(linux, spaces)
    for index, device in enumerate(linux.get("devices") or ()):
        _device(device, f"$.linux.devices[{index}]")
    _paths(linux, spaces)
    _net_devices(linux, spaces, host)
    sysctls(linux, spaces)
    personality = linux.get("personality")
    if personality and personality.get("flags"):
        # config-linux.md defines no flags, so any value is unsupported.
        fail("there are no personality flags", "$.linux.personality.flags", "leave them out")
    if policy := linux.get("memoryPolicy"):
        _memory_policy(policy)
    _rdt(linux, host)
    _security_modules(spec, host)
    if seccomp := linux.get("seccomp"):
        rules_seccomp.check(seccomp)
    no_nul(linux.get("cgroupsPath", ""), "$.linux.cgroupsPath")
    if resources := linux.get("resources"):
        rules_resources.check(resources)


def _ids(linux: Linux, spaces: Spaces, host: HostFacts | None) -> None:
    key = "uidMappings" if linux.get("uidMappings") else "gidMappings"
    mapped = linux.get("uidMappings") or linux.get("gidMappings")
    if "user" in spaces:
        if not spaces["user"] and not mapped:
            fail(
                "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
                "$.linux.namespaces",
                "add linux.uidMappings and linux.gidMappings, or the path of a user namespace",
            )
    elif mapped:
        fail(
            "user namespace mappings specified, but user namespace isn't enabled in the config",
            f"$.linux.{key}",
            'add {"type": "user"} to linux.namespaces',
        )
    elif host and host.euid != 0:
        fail(
            "rootless containers need a user namespace",
            "$.linux.namespaces",
            'add {"type": "user"} and id mappings, as `pyrunc spec --rootless` does',
        )


def _rootless_mounts(spec: Spec, linux: Linux) -> None:
    if not linux.get("uidMappings"):
        return
    for index, mount in enumerate(spec.get("mounts") or ()):
        for number, option in enumerate(mount.get("options") or ()):
            key, _, value = option.partition("=")
            if key in ("uid", "gid") and value.isascii() and value.isdigit():
                maps = linux.get("uidMappings") if key == "uid" else linux.get("gidMappings")
                if not id_mappings.contains(id_mappings.rows(maps or ()), int(value)):
                    fail(
                        f"cannot specify {option} mount option for rootless container: {key} {value} is not mapped",
                        f"$.mounts[{index}].options[{number}]",
                    )


def _time(linux: Linux, spaces: Spaces) -> None:
    if not linux.get("timeOffsets"):
        return
    if "time" not in spaces:
        fail(
            "time namespace offsets specified, but time namespace isn't enabled in the config",
            "$.linux.timeOffsets",
            'add {"type": "time"} to linux.namespaces',
        )
    if spaces["time"]:
        fail(
            "time namespace offsets specified, but the time namespace to join has its own",
            "$.linux.timeOffsets",
        )


def _device(device: Device, path: str) -> None:
    absolute(device["path"], f"{path}.path", "the path of a device")
    if device["type"] != "p":
        for key in ("major", "minor"):
            if key not in device:
                fail(f'"{key}" is required for a device of type "{device["type"]}"', f"{path}.{key}")


def _paths(linux: Linux, spaces: Spaces) -> None:
    for key, listed in (
        ("maskedPaths", linux.get("maskedPaths")),
        ("readonlyPaths", linux.get("readonlyPaths")),
    ):
        if listed and "mount" not in spaces:
            fail(
                "unable to restrict sys entries without a private MNT namespace",
                f"$.linux.{key}",
                'add {"type": "mount"} to linux.namespaces',
            )
        for index, item in enumerate(listed or ()):
            absolute(item, f"$.linux.{key}[{index}]", "the path")


def _net_devices(linux: Linux, spaces: Spaces, host: HostFacts | None) -> None:
    devices = linux.get("netDevices")
    if not devices:
        return
    if "network" not in spaces:
        fail("unable to move network devices without a NET namespace", "$.linux.netDevices")
    if host and host.rootless:
        fail("network devices are not supported for rootless containers", "$.linux.netDevices")
    inside: dict[str, str] = {}
    for name, device in devices.items():
        path = member("$.linux.netDevices", name)
        wanted = device.get("name") or name
        if not _is_interface(name):
            fail(f"invalid network device name {quote(name)}", path)
        if not _is_interface(wanted) or (wanted != name and wanted.replace("%d", "", 1).find("%") >= 0):
            fail(f"invalid network device name {quote(wanted)}", f"{path}.name")
        if "%d" not in wanted and (other := inside.setdefault(wanted, name)) != name:
            fail(f"network device {quote(other)} already gets the name {quote(wanted)}", f"{path}.name")


def _is_interface(name: str) -> bool:
    """Return whether the kernel's dev_valid_name accepts the name."""
    if name in ("", ".", "..") or len(name.encode("utf-8", "surrogateescape")) > _NAME_MAX:
        return False
    return not any(char in "/:\0" or char.isspace() for char in name)


def sysctls(linux: Linux, spaces: Spaces) -> None:
    """Raise ConfigError if a sysctl belongs to none of these namespaces."""
    for key, value in (linux.get("sysctl") or {}).items():
        _sysctl(key, value, spaces)


def _sysctl(key: str, value: str, spaces: Spaces) -> None:
    path = member("$.linux.sysctl", key)
    shown = quote(key)
    no_nul(key + value, path)
    name = sysctl.dotted(key)
    if any(not part.strip("/") for part in name.split(".")):
        # Such a part would be "", "." or ".." below /proc/sys.
        fail(f"sysctl {shown} is not a name", path)
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        if "ipc" not in spaces:
            fail(f"sysctl {shown} is not allowed in the hosts ipc namespace", path)
    elif name.startswith("net."):
        if "network" not in spaces:
            fail(f"sysctl {shown} not allowed in host network namespace", path)
    elif name.startswith("user."):
        if "user" not in spaces:
            fail(f"setting ucounts without a user namespace not allowed: {shown[1:-1]}", path)
    elif name == "kernel.hostname":
        fail(
            f'sysctl {shown} is not allowed as it conflicts with the OCI "hostname" field',
            path,
            'use "hostname"',
        )
    elif name != "kernel.domainname" or "uts" not in spaces:
        fail(f"sysctl {shown} is not in a separate kernel namespace", path)


def _memory_policy(policy: MemoryPolicy) -> None:
    mode = policy["mode"]
    count = numbers(policy.get("nodes", ""), "$.linux.memoryPolicy.nodes")
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") and count:
        fail(
            f"memory policy mode requires 0 nodes but got {count}",
            "$.linux.memoryPolicy.nodes",
            f"mode is {mode}",
        )
    if mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED") and not count:
        fail(
            "memory policy mode requires at least one node but got 0",
            "$.linux.memoryPolicy.nodes",
            f"mode is {mode}",
        )


def _rdt(linux: Linux, host: HostFacts | None) -> None:
    rdt = linux.get("intelRdt") or {}
    name = rdt.get("closID", "")
    # "/" is resctrl's root group; anything else names a directory in it.
    if name in (".", "..", *RESCTRL_OWN) or ("/" in name and name != "/") or "\0" in name or "\n" in name:
        fail(f"invalid intelRdt.ClosID {quote(name)}", "$.linux.intelRdt.closID")
    if "\n" in rdt.get("l3CacheSchema", ""):
        fail("must be one line", "$.linux.intelRdt.l3CacheSchema")
    for index, line in enumerate(rdt.get("schemata") or ()):
        if "\n" in line or not line:
            fail("must be one line", f"$.linux.intelRdt.schemata[{index}]")
    if linux.get("intelRdt") is not None and host:
        _rdt_offered(rdt, host)


def _rdt_offered(rdt: IntelRdt, host: HostFacts) -> None:
    if not host.resctrl:
        fail(
            "intelRdt is specified in config, but Intel RDT is not enabled",
            "$.linux.intelRdt",
            "no resctrl file system is mounted on /sys/fs/resctrl",
        )
    for key, offered, what in (
        ("l3CacheSchema", not CAT.isdisjoint(host.resctrl_info), "RDT/CAT"),
        ("memBwSchema", "MB" in host.resctrl_info, "RDT/MBA"),
        ("enableMonitoring", "L3_MON" in host.resctrl_info, "RDT monitoring"),
    ):
        if rdt.get(key) and not offered:
            text = f"intelRdt.{key} is specified in config, but Intel {what} is not enabled"
            fail(text, f"$.linux.intelRdt.{key}", f"there is no such entry in '{host.resctrl}/info'")


def _security_modules(spec: Spec, host: HostFacts | None) -> None:
    no_nul((spec.get("linux") or {}).get("mountLabel", ""), "$.linux.mountLabel")
    kind = (spec.get("annotations") or {}).get(CONTEXT_ANNOTATION) or "context"
    if kind not in CONTEXTS:
        fail(
            f"{quote(kind)} is no kind of mount label",
            member("$.annotations", CONTEXT_ANNOTATION),
            f"one of {', '.join(CONTEXTS)}",
        )
    if not host:
        return
    rules_process.labels(spec.get("process") or {}, host, "$.process")
    # The label of a mount confines nothing by itself, unlike that of a process: plan/rootfs.py only warns.
    if (spec.get("linux") or {}).get("mountLabel") and not host.selinux and host.strict:
        fail(rules_process.NO_SELINUX, "$.linux.mountLabel")
