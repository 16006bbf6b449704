"""The configuration's shapes for the type checker: what config.load has checked. Names are the specification's.

A test holds it equal to the schema.

For type checkers only: nothing that runs imports it.
"""

from __future__ import annotations

from typing import TypedDict


class Root(TypedDict, total=False):
    """The root file system."""

    path: str
    readonly: bool


class ConsoleSize(TypedDict, total=False):
    """In characters; the kernel keeps 16 bits of each."""

    height: int
    width: int


class User(TypedDict, total=False):
    """Ids inside the container."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]


class Capabilities(TypedDict, total=False):
    """Names such as CAP_KILL, as written: also unknown ones."""

    effective: list[str]
    bounding: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict, total=False):
    """setrlimit(2)."""

    type: str
    soft: int
    hard: int


class Scheduler(TypedDict, total=False):
    """sched_setattr(2); times in nanoseconds."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


IOPriority = TypedDict(
    "IOPriority",
    {"class": str, "priority": int},
    total=False,
)


class ExecCPUAffinity(TypedDict, total=False):
    """CPU lists such as 0-3,7."""

    initial: str
    final: str


class Process(TypedDict, total=False):
    """The container's process; also the document of `exec --process`."""

    args: list[str]
    cwd: str
    env: list[str]
    terminal: bool
    consoleSize: ConsoleSize
    user: User
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int
    scheduler: Scheduler
    ioPriority: IOPriority
    execCPUAffinity: ExecCPUAffinity


class IDMapping(TypedDict, total=False):
    """One range of user_namespaces(7)."""

    containerID: int
    hostID: int
    size: int


class Mount(TypedDict, total=False):
    """One entry of mounts."""

    destination: str
    source: str
    type: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Hook(TypedDict, total=False):
    """A program of a hook point; timeout in seconds."""

    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """The six points of the lifecycle."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class Namespace(TypedDict, total=False):
    """To make, or with a path to join."""

    type: str
    path: str


class TimeOffset(TypedDict, total=False):
    """Added to a clock."""

    secs: int
    nanosecs: int


class TimeOffsets(TypedDict, total=False):
    """time_namespaces(7)."""

    monotonic: TimeOffset
    boottime: TimeOffset


class Device(TypedDict, total=False):
    """A device node; fileMode may carry the file type bits."""

    type: str
    path: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class NetDevice(TypedDict, total=False):
    """What a moved interface is called."""

    name: str


class DeviceRule(TypedDict, total=False):
    """One line of the device list, -1 for any number."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str


class Memory(TypedDict, total=False):
    """In bytes, -1 for no limit."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class CPU(TypedDict, total=False):
    """Times in microseconds."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class WeightDevice(TypedDict, total=False):
    """A weight for one block device."""

    major: int
    minor: int
    weight: int
    leafWeight: int


class ThrottleDevice(TypedDict, total=False):
    """A rate per second for one block device."""

    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    """Weights 10-1000."""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict, total=False):
    """In bytes."""

    pageSize: str
    limit: int


class InterfacePriority(TypedDict, total=False):
    """One line of net_prio."""

    name: str
    priority: int


class Network(TypedDict, total=False):
    """net_cls and net_prio, v1 only."""

    classID: int
    priorities: list[InterfacePriority]


class Pids(TypedDict, total=False):
    """-1 for no limit."""

    limit: int


class RDMA(TypedDict, total=False):
    """Limits of one device."""

    hcaHandles: int
    hcaObjects: int


class Resources(TypedDict, total=False):
    """Control groups; also the document of `update --resources`."""

    devices: list[DeviceRule]
    memory: Memory
    cpu: CPU
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: Network
    pids: Pids
    rdma: dict[str, RDMA]
    unified: dict[str, str]


class SeccompArg(TypedDict, total=False):
    """A condition on one argument."""

    index: int
    value: int
    valueTwo: int
    op: str


class SeccompRule(TypedDict, total=False):
    """System calls that answer alike."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[SeccompArg]


class Seccomp(TypedDict, total=False):
    """A system call filter."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[SeccompRule]


class Personality(TypedDict, total=False):
    """personality(2)."""

    domain: str
    flags: list[str]


class MemoryPolicy(TypedDict, total=False):
    """set_mempolicy(2)."""

    mode: str
    nodes: str
    flags: list[str]


class IntelRdt(TypedDict, total=False):
    """resctrl."""

    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableMonitoring: bool


class Linux(TypedDict, total=False):
    """What config-linux.md describes."""

    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    timeOffsets: TimeOffsets
    devices: list[Device]
    netDevices: dict[str, NetDevice]
    cgroupsPath: str
    resources: Resources
    rootfsPropagation: str
    seccomp: Seccomp
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    personality: Personality
    memoryPolicy: MemoryPolicy
    intelRdt: IntelRdt


class Spec(TypedDict, total=False):
    """config.json."""

    ociVersion: str
    root: Root
    process: Process
    hostname: str
    domainname: str
    mounts: list[Mount]
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux
