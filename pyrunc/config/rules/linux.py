"""PURE: the rules about `linux`: namespaces, ids, devices, paths, sysctl, seccomp, resources. config-linux.md.

Imported by rules only. Imports errors, jsonfast and the names of mounts.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.json_text.document import member, quote
from pyrunc.spec.mount_options import CONTEXT_ANNOTATION, CONTEXTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pyrunc.host.gather import HostFacts
    from pyrunc.spec.shapes import (
        CPU,
        BlockIO,
        Device,
        IDMapping,
        IntelRdt,
        Linux,
        Memory,
        MemoryPolicy,
        Process,
        Resources,
        Seccomp,
        SeccompRule,
        Spec,
    )

    Spaces = dict[str, str]

_IPC_SYSCTLS = {
    *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"),
    *("kernel.shmmni", "kernel.shm_rmid_forced"),
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_MAX_ERRNO = 4095
# More CPUs or nodes than any kernel is built for; a mask of what a hostile list names would take all memory.
_LIST_MAX = 65535
_LIST_DIGITS = 40
# What info/ lists where resctrl can divide the L3 cache: with code and data apart there are two resources.
CAT = frozenset(("L3", "L3CODE", "L3DATA"))
# Directories of resctrl that are no groups.
RESCTRL_OWN = ("info", "mon_data", "mon_groups")
_NO_SELINUX = "selinux label is specified in config, but selinux is disabled or not supported"
_NAME_MAX = 15  # IFNAMSIZ without the final NUL, netdevice(7)
# Docker casts its -1 for "not set" to an unsigned number.
_UNSET_SWAPPINESS = (1 << 64) - 1


def fail(message: str, path: str, hint: str | None = None) -> NoReturn:
    """Raises ConfigError."""
    raise ConfigError(message, path=path, hint=hint)


def no_nul(text: str, path: str) -> None:
    """The kernel's strings end at a NUL byte: a text with one would silently mean something else."""
    if "\0" in text:
        fail("contains a null byte", path)


def no_nuls(texts: list[str], path: str) -> None:
    """no_nul for each of a list."""
    if "\0" in "".join(texts):
        for index, text in enumerate(texts):
            no_nul(text, f"{path}[{index}]")


def absolute(value: str, path: str, what: str) -> None:
    """Raises ConfigError unless `value` is an absolute path."""
    if value[:1] != "/":
        fail(f"{what} must be absolute, not {quote(value)}", path)
    no_nul(value, path)


def namespaces(linux: Linux, host: HostFacts | None) -> Spaces:
    """The namespaces of the container: type to path, "" for a new one. Raises ConfigError."""
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
    """Raises ConfigError for the first broken rule below `linux`, or about security modules."""
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
        # config-linux.md defines no flag, so that any is an unsupported value.
        fail("there are no personality flags", "$.linux.personality.flags", "leave them out")
    if policy := linux.get("memoryPolicy"):
        _memory_policy(policy)
    _rdt(linux, host)
    _security_modules(spec, host)
    if seccomp := linux.get("seccomp"):
        _seccomp(seccomp)
    no_nul(linux.get("cgroupsPath", ""), "$.linux.cgroupsPath")
    if resources := linux.get("resources"):
        check_resources(resources)


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
                if not _maps(maps or [], int(value)):
                    fail(
                        f"cannot specify {option} mount option for rootless container: {key} {value} is not mapped",
                        f"$.mounts[{index}].options[{number}]",
                    )


def _maps(mappings: list[IDMapping], number: int) -> bool:
    return any(0 <= number - row["containerID"] < row["size"] for row in mappings)


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
    """What the kernel's dev_valid_name takes."""
    if name in ("", ".", "..") or len(name.encode("utf-8", "surrogateescape")) > _NAME_MAX:
        return False
    return not any(char in "/:\0" or char.isspace() for char in name)


def sysctls(linux: Linux, spaces: Spaces) -> None:
    """Raises ConfigError for a sysctl that is of none of these namespaces."""
    for key, value in (linux.get("sysctl") or {}).items():
        _sysctl(key, value, spaces)


def _sysctl(key: str, value: str, spaces: Spaces) -> None:
    path = member("$.linux.sysctl", key)
    shown = quote(key)
    no_nul(key + value, path)
    name = dotted(key)
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


def dotted(key: str) -> str:
    """A sysctl's name with dots between its parts, and / for a dot within one.

    sysctl.d(5): a name whose first separator is / is a path.
    """
    slash, dot = key.find("/"), key.find(".")
    if slash < 0 or 0 <= dot < slash:
        return key
    return key.translate({ord("/"): ".", ord("."): "/"})


def numbers(text: str, path: str) -> int:
    """How many numbers a list such as "0-3,7" has. Raises ConfigError for a range that ends before it begins."""
    seen: set[int] = set()
    for part in text.replace(" ", "").split(","):
        if part:
            first, _, last = part.partition("-")
            if len(part) > _LIST_DIGITS or int(last or first) > _LIST_MAX:
                fail(f"{quote(part[:_LIST_DIGITS])} is beyond {_LIST_MAX}", path)
            if last and int(last) < int(first):
                fail(f"{quote(part)} ends before it begins", path)
            seen.update(range(int(first), int(last or first) + 1))
    return len(seen)


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
    labels(spec.get("process") or {}, host, "$.process")
    # Of a mount, unlike of a process, nobody expects to be confined by it alone: plan_rootfs warns.
    if (spec.get("linux") or {}).get("mountLabel") and not host.selinux and host.strict:
        fail(_NO_SELINUX, "$.linux.mountLabel")


def labels(process: Process, host: HostFacts, path: str) -> None:
    """A label that nothing would enforce must not look as if it were. Raises ConfigError; `path`: of the process."""
    profile, label = process.get("apparmorProfile", ""), process.get("selinuxLabel", "")
    # "unconfined" is what every process is where there is no AppArmor.
    if profile not in ("", "unconfined") and not host.apparmor:
        fail(
            "apparmor profile is specified in config, but apparmor is disabled or not supported",
            f"{path}.apparmorProfile",
        )
    if label and not host.selinux:
        fail(_NO_SELINUX, f"{path}.selinuxLabel")


def _seccomp(seccomp: Seccomp) -> None:
    path = "$.linux.seccomp"
    default = seccomp["defaultAction"]
    if default == "SCMP_ACT_NOTIFY":
        fail("SCMP_ACT_NOTIFY cannot be used as default action", f"{path}.defaultAction")
    _errno_ret(default, seccomp.get("defaultErrnoRet"), f"{path}.defaultErrnoRet")
    notifies = False
    for index, rule in enumerate(seccomp.get("syscalls") or ()):
        _seccomp_rule(rule, f"{path}.syscalls[{index}]")
        notifies = notifies or rule["action"] == "SCMP_ACT_NOTIFY"
    listener = seccomp.get("listenerPath")
    if notifies and not listener:
        fail("seccomp listenerPath is not set", f"{path}.listenerPath", "SCMP_ACT_NOTIFY needs a listener")
    if seccomp.get("listenerMetadata") and not listener:
        # config-linux.md, listenerMetadata: "This field MUST NOT be set if `listenerPath` is not set."
        fail("seccomp listenerMetadata is set without listenerPath", f"{path}.listenerMetadata")
    no_nul(listener or "", f"{path}.listenerPath")


def _seccomp_rule(rule: SeccompRule, path: str) -> None:
    if rule["action"] == "SCMP_ACT_NOTIFY" and "write" in rule["names"]:
        # The listener's descriptor is handed over by a program that must write.
        index = rule["names"].index("write")
        fail("SCMP_ACT_NOTIFY cannot be used for the write syscall", f"{path}.names[{index}]")
    _errno_ret(rule["action"], rule.get("errnoRet"), f"{path}.errnoRet")


def _errno_ret(action: str, value: int | None, path: str) -> None:
    if value is None:
        return
    if action not in _WITH_ERRNO:
        # config-linux.md, errnoRet: an action without one MUST make the runtime fail; runc and youki ignore it.
        fail(
            f"{action} has no errno to return",
            path,
            f"leave it out: only {' and '.join(_WITH_ERRNO)} have one",
        )
    if action == "SCMP_ACT_ERRNO" and value > _MAX_ERRNO:
        fail(f"{value} is greater than {_MAX_ERRNO}, the largest errno", path)


def check_resources(resources: Resources, path: str = "$.linux.resources", *, partial: bool = False) -> None:
    """Raises ConfigError for the first broken rule of resources.

    `partial`: what is not set keeps its value (update), so that no rule may conclude from a field's absence.
    """
    for index, rule in enumerate(resources.get("devices") or ()):
        if not rule.get("access"):
            fail("device access cannot be empty", f"{path}.devices[{index}].access", "use rwm for all")
    if memory := resources.get("memory"):
        _memory(memory, f"{path}.memory", partial)
    if cpu := resources.get("cpu"):
        _cpu(cpu, f"{path}.cpu")
    if block := resources.get("blockIO"):
        _block_io(block, f"{path}.blockIO")
    for name, limits in (resources.get("rdma") or {}).items():
        if "hcaHandles" not in limits and "hcaObjects" not in limits:
            fail(f"{quote(name)} needs hcaHandles or hcaObjects", member(f"{path}.rdma", name))
    for key in resources.get("unified") or {}:
        _unified(key, member(f"{path}.unified", key))


def _unified(key: str, path: str) -> None:
    no_nul(key, path)
    if "/" in key:
        fail(f"unified resource {quote(key)} must be a file name (no slashes)", path)
    controller, dot, _ = key.partition(".")
    if not controller or not dot:
        fail(f"unified resource {quote(key)} must be in the form CONTROLLER.PARAMETER", path)


def _memory(memory: Memory, path: str, partial: bool) -> None:
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if swap > 0 and not (partial and "limit" not in memory):
        if limit <= 0:
            fail("unable to set swap limit without memory limit", f"{path}.swap", "set memory.limit as well")
        if swap < limit:
            fail(
                f"memory+swap limit should be >= memory limit, but {swap} is less than {limit}",
                f"{path}.swap",
                "swap is the sum of memory and swap; -1 is unlimited",
            )
    swappiness = memory.get("swappiness", 0)
    if swappiness > 100 and swappiness != _UNSET_SWAPPINESS:
        fail(f"{swappiness} is greater than 100, the largest allowed", f"{path}.swappiness")


def _cpu(cpu: CPU, path: str) -> None:
    quota, burst = cpu.get("quota", 0), cpu.get("burst", 0)
    if 0 < quota < burst:
        fail(f"burst {burst} is greater than quota {quota}", f"{path}.burst")


def _block_io(block: BlockIO, path: str) -> None:
    for key in ("weight", "leafWeight"):
        _weight(block.get(key, 0), f"{path}.{key}")  # type: ignore[arg-type]  # both are integers
    for index, device in enumerate(block.get("weightDevice") or ()):
        where = f"{path}.weightDevice[{index}]"
        if "weight" not in device and "leafWeight" not in device:
            # config-linux.md: "You MUST specify at least one of `weight` or `leafWeight` in a given entry".
            fail("at least one of weight and leafWeight is required", where)
        _weight(device.get("weight", 0), f"{where}.weight")
        _weight(device.get("leafWeight", 0), f"{where}.leafWeight")


def _weight(value: int, path: str) -> None:
    # 0 is how engines write "not set".
    if value and not 10 <= value <= 1000:
        fail(f"{value} is no weight: 10 to 1000, or 0 for unset", path)
