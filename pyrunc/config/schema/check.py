"""GENERATED from config.schema.json: change that, then run `python3 -m pyrunc.config.schema.generate`.

Each function says whether a document, its null members removed, has the form the schema asks for; explain.py says
why not. Integers are of type int: true and 1.0 are none.
"""
# ruff: noqa: D103, E501, RUF021, UP034
# fmt: off

from __future__ import annotations

_STR = {str}


def digits(text: str) -> bool:
    """One or more of 0-9; str.isdigit() alone also takes other scripts' digits."""
    return text.isascii() and text.isdigit()


def words(text: str, numbers_are_plain: bool) -> bool:
    """SemVer's dot-separated words behind - or +: letters, digits, hyphens, in a pre-release no number like 01."""
    for word in text.split("."):
        if not word or not word.isascii() or not word.replace("-", "a").isalnum():
            return False
        if numbers_are_plain and word[0] == "0" and len(word) > 1 and digits(word):
            return False
    return True


def cpu_list(text: str) -> bool:
    """Numbers and ranges separated by commas, blanks around them; or nothing."""
    if not text.strip(" "):
        return True
    for part in text.split(","):
        first, dash, last = part.strip(" ").partition("-")
        if not digits(first) or (dash and not digits(last)):
            return False
    return True


def semver(text: str) -> bool:
    """A version as SemVer 2.0.0 has it."""
    text, plus, build = text.partition("+")
    core, dash, prerelease = text.partition("-")
    numbers = core.split(".")
    if len(numbers) != 3 or (dash and not words(prerelease, True)) or (plus and not words(build, False)):
        return False
    return all(digits(number) and (number[0] != "0" or number == "0") for number in numbers)


def page_size(text: str) -> bool:
    """A positive number and KB, MB or GB."""
    return text[-2:] in ("KB", "MB", "GB") and digits(text[:-2]) and text[0] != "0"


def mem_bw_schema(text: str) -> bool:
    """One line that starts with MB:."""
    return text.startswith("MB:") and "\n" not in text


def access(text: str) -> bool:
    """Nothing but the letters r, w and m."""
    return not text.strip("rwm")


def config(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("ociVersion")) is not None and type(x) is str and semver(x)
        and (x := get("root")) is not None and root(x)
        and ((x := get("process")) is None or process(x))
        and ((x := get("hostname")) is None or type(x) is str)
        and ((x := get("domainname")) is None or type(x) is str)
        and ((x := get("mounts")) is None or type(x) is list and all(map(mount, x)))
        and ((x := get("hooks")) is None or hooks(x))
        and ((x := get("annotations")) is None or type(x) is dict and {*map(type, x.values())} <= _STR)
        and ((x := get("linux")) is None or linux(x))
    )


def root(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("path")) is not None and type(x) is str and len(x) >= 1
        and ((x := get("readonly")) is None or type(x) is bool)
    )


def process(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("args")) is not None and type(x) is list and len(x) >= 1 and {*map(type, x)} <= _STR
        and (x := get("cwd")) is not None and type(x) is str
        and ((x := get("env")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("terminal")) is None or type(x) is bool)
        and ((x := get("consoleSize")) is None or process_console_size(x))
        and ((x := get("user")) is None or user(x))
        and ((x := get("capabilities")) is None or capabilities(x))
        and ((x := get("rlimits")) is None or type(x) is list and all(map(rlimit, x)))
        and ((x := get("noNewPrivileges")) is None or type(x) is bool)
        and ((x := get("apparmorProfile")) is None or type(x) is str)
        and ((x := get("selinuxLabel")) is None or type(x) is str)
        and ((x := get("oomScoreAdj")) is None or type(x) is int and -1000 <= x <= 1000)
        and ((x := get("scheduler")) is None or scheduler(x))
        and ((x := get("ioPriority")) is None or io_priority(x))
        and ((x := get("execCPUAffinity")) is None or process_exec_cpuaffinity(x))
    )


def process_console_size(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("height")) is not None and type(x) is int and 0 <= x <= 18446744073709551615
        and (x := get("width")) is not None and type(x) is int and 0 <= x <= 18446744073709551615
    )


def user(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("uid")) is not None and type(x) is int and 0 <= x <= 4294967295
        and (x := get("gid")) is not None and type(x) is int and 0 <= x <= 4294967295
        and ((x := get("umask")) is None or type(x) is int and 0 <= x <= 511)
        and ((x := get("additionalGids")) is None or type(x) is list and all(map(uint32, x)))
    )


def uint32(v: object) -> bool:
    return type(v) is int and 0 <= v <= 4294967295


def capabilities(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("effective")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("bounding")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("inheritable")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("permitted")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("ambient")) is None or type(x) is list and {*map(type, x)} <= _STR)
    )


def rlimit(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("type")) is not None and type(x) is str and x in {"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK"}
        and (x := get("soft")) is not None and type(x) is int and 0 <= x <= 18446744073709551615
        and (x := get("hard")) is not None and type(x) is int and 0 <= x <= 18446744073709551615
    )


def scheduler(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("policy")) is not None and type(x) is str and x in {"SCHED_BATCH", "SCHED_DEADLINE", "SCHED_FIFO", "SCHED_IDLE", "SCHED_ISO", "SCHED_OTHER", "SCHED_RR"}
        and ((x := get("nice")) is None or type(x) is int and -2147483648 <= x <= 2147483647)
        and ((x := get("priority")) is None or type(x) is int and -2147483648 <= x <= 2147483647)
        and ((x := get("flags")) is None or type(x) is list and all(map(scheduler_flags_item, x)))
        and ((x := get("runtime")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and ((x := get("deadline")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and ((x := get("period")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
    )


def scheduler_flags_item(v: object) -> bool:
    return type(v) is str and v in {"SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_UTIL_CLAMP_MAX", "SCHED_FLAG_UTIL_CLAMP_MIN"}


def io_priority(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("class")) is not None and type(x) is str and x in {"IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", "IOPRIO_CLASS_RT"}
        and ((x := get("priority")) is None or type(x) is int and 0 <= x <= 7)
    )


def process_exec_cpuaffinity(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("initial")) is None or type(x) is str and cpu_list(x))
        and ((x := get("final")) is None or type(x) is str and cpu_list(x))
    )


def mount(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("destination")) is not None and type(x) is str and len(x) >= 1
        and ((x := get("source")) is None or type(x) is str)
        and ((x := get("type")) is None or type(x) is str)
        and ((x := get("options")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("uidMappings")) is None or type(x) is list and all(map(id_mapping, x)))
        and ((x := get("gidMappings")) is None or type(x) is list and all(map(id_mapping, x)))
    )


def id_mapping(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("containerID")) is not None and type(x) is int and 0 <= x <= 4294967295
        and (x := get("hostID")) is not None and type(x) is int and 0 <= x <= 4294967295
        and (x := get("size")) is not None and type(x) is int and 0 <= x <= 4294967295
    )


def hooks(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("prestart")) is None or type(x) is list and all(map(hook, x)))
        and ((x := get("createRuntime")) is None or type(x) is list and all(map(hook, x)))
        and ((x := get("createContainer")) is None or type(x) is list and all(map(hook, x)))
        and ((x := get("startContainer")) is None or type(x) is list and all(map(hook, x)))
        and ((x := get("poststart")) is None or type(x) is list and all(map(hook, x)))
        and ((x := get("poststop")) is None or type(x) is list and all(map(hook, x)))
    )


def hook(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("path")) is not None and type(x) is str
        and ((x := get("args")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("env")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("timeout")) is None or type(x) is int and 1 <= x <= 9223372036854775807)
    )


def linux(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("namespaces")) is None or type(x) is list and all(map(namespace, x)))
        and ((x := get("uidMappings")) is None or type(x) is list and all(map(id_mapping, x)))
        and ((x := get("gidMappings")) is None or type(x) is list and all(map(id_mapping, x)))
        and ((x := get("timeOffsets")) is None or linux_time_offsets(x))
        and ((x := get("devices")) is None or type(x) is list and all(map(device, x)))
        and ((x := get("netDevices")) is None or type(x) is dict and all(map(linux_net_devices_value, x.values())))
        and ((x := get("cgroupsPath")) is None or type(x) is str)
        and ((x := get("resources")) is None or resources(x))
        and ((x := get("rootfsPropagation")) is None or type(x) is str and x in {"private", "rprivate", "rshared", "rslave", "runbindable", "shared", "slave", "unbindable"})
        and ((x := get("seccomp")) is None or seccomp(x))
        and ((x := get("sysctl")) is None or type(x) is dict and {*map(type, x.values())} <= _STR)
        and ((x := get("maskedPaths")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("readonlyPaths")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("mountLabel")) is None or type(x) is str)
        and ((x := get("personality")) is None or linux_personality(x))
        and ((x := get("memoryPolicy")) is None or memory_policy(x))
        and ((x := get("intelRdt")) is None or intel_rdt(x))
    )


def namespace(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("type")) is not None and type(x) is str and x in {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
        and ((x := get("path")) is None or type(x) is str)
    )


def linux_time_offsets(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("monotonic")) is None or time_offset(x))
        and ((x := get("boottime")) is None or time_offset(x))
    )


def time_offset(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("secs")) is None or type(x) is int and -9223372036854775808 <= x <= 9223372036854775807)
        and ((x := get("nanosecs")) is None or type(x) is int and 0 <= x <= 999999999)
    )


def device(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("type")) is not None and type(x) is str and x in {"b", "c", "p", "u"}
        and (x := get("path")) is not None and type(x) is str
        and ((x := get("major")) is None or type(x) is int and 0 <= x <= 4294967295)
        and ((x := get("minor")) is None or type(x) is int and 0 <= x <= 4294967295)
        and ((x := get("fileMode")) is None or type(x) is int and 0 <= x <= 65535)
        and ((x := get("uid")) is None or type(x) is int and 0 <= x <= 4294967295)
        and ((x := get("gid")) is None or type(x) is int and 0 <= x <= 4294967295)
    )


def linux_net_devices_value(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("name")) is None or type(x) is str)
    )


def resources(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("devices")) is None or type(x) is list and all(map(device_rule, x)))
        and ((x := get("memory")) is None or memory(x))
        and ((x := get("cpu")) is None or cpu(x))
        and ((x := get("blockIO")) is None or block_io(x))
        and ((x := get("hugepageLimits")) is None or type(x) is list and all(map(hugepage_limit, x)))
        and ((x := get("network")) is None or resources_network(x))
        and ((x := get("pids")) is None or resources_pids(x))
        and ((x := get("rdma")) is None or type(x) is dict and all(map(rdma, x.values())))
        and ((x := get("unified")) is None or type(x) is dict and {*map(type, x.values())} <= _STR)
    )


def device_rule(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("allow")) is not None and type(x) is bool
        and ((x := get("type")) is None or type(x) is str and x in {"a", "b", "c"})
        and ((x := get("major")) is None or type(x) is int and -1 <= x <= 4294967295)
        and ((x := get("minor")) is None or type(x) is int and -1 <= x <= 4294967295)
        and ((x := get("access")) is None or type(x) is str and access(x))
    )


def memory(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("limit")) is None or type(x) is int and -1 <= x <= 9223372036854775807)
        and ((x := get("reservation")) is None or type(x) is int and -1 <= x <= 9223372036854775807)
        and ((x := get("swap")) is None or type(x) is int and -1 <= x <= 9223372036854775807)
        and ((x := get("kernel")) is None or type(x) is int and -1 <= x <= 9223372036854775807)
        and ((x := get("kernelTCP")) is None or type(x) is int and -1 <= x <= 9223372036854775807)
        and ((x := get("swappiness")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and ((x := get("disableOOMKiller")) is None or type(x) is bool)
        and ((x := get("useHierarchy")) is None or type(x) is bool)
        and ((x := get("checkBeforeUpdate")) is None or type(x) is bool)
    )


def cpu(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("shares")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and ((x := get("quota")) is None or type(x) is int and -9223372036854775808 <= x <= 9223372036854775807)
        and ((x := get("burst")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and ((x := get("period")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and ((x := get("realtimeRuntime")) is None or type(x) is int and -9223372036854775808 <= x <= 9223372036854775807)
        and ((x := get("realtimePeriod")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and ((x := get("cpus")) is None or type(x) is str and cpu_list(x))
        and ((x := get("mems")) is None or type(x) is str and cpu_list(x))
        and ((x := get("idle")) is None or type(x) is int and 0 <= x <= 1)
    )


def block_io(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("weight")) is None or type(x) is int and 0 <= x <= 65535)
        and ((x := get("leafWeight")) is None or type(x) is int and 0 <= x <= 65535)
        and ((x := get("weightDevice")) is None or type(x) is list and all(map(weight_device, x)))
        and ((x := get("throttleReadBpsDevice")) is None or type(x) is list and all(map(throttle_device, x)))
        and ((x := get("throttleWriteBpsDevice")) is None or type(x) is list and all(map(throttle_device, x)))
        and ((x := get("throttleReadIOPSDevice")) is None or type(x) is list and all(map(throttle_device, x)))
        and ((x := get("throttleWriteIOPSDevice")) is None or type(x) is list and all(map(throttle_device, x)))
    )


def weight_device(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("major")) is not None and type(x) is int and 0 <= x <= 4294967295
        and (x := get("minor")) is not None and type(x) is int and 0 <= x <= 4294967295
        and ((x := get("weight")) is None or type(x) is int and 0 <= x <= 65535)
        and ((x := get("leafWeight")) is None or type(x) is int and 0 <= x <= 65535)
    )


def throttle_device(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("major")) is not None and type(x) is int and 0 <= x <= 4294967295
        and (x := get("minor")) is not None and type(x) is int and 0 <= x <= 4294967295
        and (x := get("rate")) is not None and type(x) is int and 0 <= x <= 18446744073709551615
    )


def hugepage_limit(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("pageSize")) is not None and type(x) is str and page_size(x)
        and (x := get("limit")) is not None and type(x) is int and 0 <= x <= 18446744073709551615
    )


def resources_network(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("classID")) is None or type(x) is int and 0 <= x <= 4294967295)
        and ((x := get("priorities")) is None or type(x) is list and all(map(interface_priority, x)))
    )


def interface_priority(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("name")) is not None and type(x) is str
        and (x := get("priority")) is not None and type(x) is int and 0 <= x <= 4294967295
    )


def resources_pids(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("limit")) is None or type(x) is int and -9223372036854775808 <= x <= 9223372036854775807)
    )


def rdma(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("hcaHandles")) is None or type(x) is int and 0 <= x <= 4294967295)
        and ((x := get("hcaObjects")) is None or type(x) is int and 0 <= x <= 4294967295)
    )


def seccomp(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("defaultAction")) is not None and type(x) is str and x in {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"}
        and ((x := get("defaultErrnoRet")) is None or type(x) is int and 0 <= x <= 65535)
        and ((x := get("architectures")) is None or type(x) is list and all(map(seccomp_architectures_item, x)))
        and ((x := get("flags")) is None or type(x) is list and all(map(seccomp_flags_item, x)))
        and ((x := get("listenerPath")) is None or type(x) is str)
        and ((x := get("listenerMetadata")) is None or type(x) is str)
        and ((x := get("syscalls")) is None or type(x) is list and all(map(seccomp_rule, x)))
    )


def seccomp_architectures_item(v: object) -> bool:
    return type(v) is str and v in {"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"}


def seccomp_flags_item(v: object) -> bool:
    return type(v) is str and v in {"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}


def seccomp_rule(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("names")) is not None and type(x) is list and len(x) >= 1 and {*map(type, x)} <= _STR
        and (x := get("action")) is not None and type(x) is str and x in {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"}
        and ((x := get("errnoRet")) is None or type(x) is int and 0 <= x <= 65535)
        and ((x := get("args")) is None or type(x) is list and all(map(seccomp_arg, x)))
    )


def seccomp_arg(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("index")) is not None and type(x) is int and 0 <= x <= 5
        and (x := get("value")) is not None and type(x) is int and 0 <= x <= 18446744073709551615
        and ((x := get("valueTwo")) is None or type(x) is int and 0 <= x <= 18446744073709551615)
        and (x := get("op")) is not None and type(x) is str and x in {"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"}
    )


def linux_personality(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("domain")) is not None and type(x) is str and x in {"LINUX", "LINUX32"}
        and ((x := get("flags")) is None or type(x) is list and {*map(type, x)} <= _STR)
    )


def memory_policy(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        (x := get("mode")) is not None and type(x) is str and x in {"MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"}
        and ((x := get("nodes")) is None or type(x) is str and cpu_list(x))
        and ((x := get("flags")) is None or type(x) is list and all(map(memory_policy_flags_item, x)))
    )


def memory_policy_flags_item(v: object) -> bool:
    return type(v) is str and v in {"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"}


def intel_rdt(v: object) -> bool:
    if type(v) is not dict:
        return False
    get = v.get
    return (
        ((x := get("closID")) is None or type(x) is str)
        and ((x := get("schemata")) is None or type(x) is list and {*map(type, x)} <= _STR)
        and ((x := get("l3CacheSchema")) is None or type(x) is str)
        and ((x := get("memBwSchema")) is None or type(x) is str and mem_bw_schema(x))
        and ((x := get("enableMonitoring")) is None or type(x) is bool)
    )


def mounts(v: object) -> bool:
    return type(v) is list and all(map(mount, v))
