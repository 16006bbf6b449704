"""PURE: names of the process object and the kernel's numbers for them."""

from __future__ import annotations

TYPE_CHECKING = False

PID_MAX = 1 << 22  # PID_MAX_LIMIT of linux/threads.h
# Resource numbers of asm-generic/resource.h; only alpha, mips and sparc have others.
RLIMITS: dict[str, int] = {
    "RLIMIT_AS": 9,
    "RLIMIT_CORE": 4,
    "RLIMIT_CPU": 0,
    "RLIMIT_DATA": 2,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_NPROC": 6,
    "RLIMIT_RSS": 5,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_STACK": 3,
}
PERSONALITIES: dict[str, int] = {"LINUX": 0, "LINUX32": 8}
SCHEDULER_POLICIES: dict[str, int] = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS: dict[str, int] = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IOPRIO_CLASSES: dict[str, int] = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IOPRIO_CLASS_SHIFT = 13
MEMORY_MODES: dict[str, int] = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS: dict[str, int] = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
