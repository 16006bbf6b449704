"""What the runtimes are given to do: two configurations, and how to tell that it was done.

`minimal` is the bundle `probe` of bundles/make. `engine` is what a container engine writes around it: an allow-list of
300 system calls for three architectures, limits, devices, bind mounts of its own files, sysctls, an oom score.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

HERE = os.path.dirname(os.path.realpath(__file__))
NAMES = ("minimal", "engine")
# Of the program that ends by itself, and of the one that exec starts: no runtime reports its own failure so.
RUN_STATUS, EXEC_STATUS = 9, 7

_ALLOWED = """
accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod chown clock_getres clock_gettime
clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchown fchownat fcntl fdatasync fgetxattr
flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_waitv futimesat
get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set
kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen
listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create memfd_secret mincore
mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid
setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid
setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statx
symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname
unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
"""
_CLONE_NAMESPACES = 0x7E020000
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))


def _load_make() -> ModuleType:
    """bundles/make as a module."""
    loader = importlib.machinery.SourceFileLoader("bundles_make", os.path.join(HERE, "../bundles/make"))
    spec = importlib.util.spec_from_loader("bundles_make", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _seccomp() -> dict[str, object]:
    def equal(value: int) -> dict[str, object]:
        return {"index": 0, "value": value, "op": "SCMP_CMP_EQ"}

    clone = {"index": 0, "value": _CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    allow: list[dict[str, object]] = [{"names": _ALLOWED.split()}]
    allow += [
        {"names": ["personality"], "args": [equal(value)]} for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
    ]
    allow.append({"names": ["socket"], "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]})
    allow.append({"names": ["clone"], "args": [clone]})
    x86 = os.uname().machine == "x86_64"
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"] if x86 else [],
        "syscalls": [
            *({**rule, "action": "SCMP_ACT_ALLOW"} for rule in allow),
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    }


def _resources(controllers: set[str]) -> dict[str, object]:
    """Limits for the controllers that there are."""
    devices: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
    for major, minor in _DEVICES:
        number = {"major": major} if minor is None else {"major": major, "minor": minor}
        devices.append({"allow": True, "type": "c", "access": "rwm", **number})
    found: dict[str, object] = {"devices": devices}
    if "memory" in controllers:
        found["memory"] = {"limit": 512 << 20, "reservation": 256 << 20}
    if "cpu" in controllers:
        found["cpu"] = {"shares": 512, "quota": 150000, "period": 100000}
    if "pids" in controllers:
        found["pids"] = {"limit": 2048}
    return found


def _engine(bundle: str, spec: dict[str, object], controllers: set[str]) -> None:
    files = {
        "hosts": "127.0.0.1 localhost\n",
        "hostname": "bench\n",
        "resolv.conf": "nameserver 127.0.0.1\n",
    }
    mounts, process, linux = spec["mounts"], spec["process"], spec["linux"]
    assert isinstance(mounts, list)
    assert isinstance(process, dict)
    assert isinstance(linux, dict)
    for name, text in files.items():
        with open(os.path.join(bundle, name), "w", encoding="ascii") as stream:
            stream.write(text)
        source = os.path.join(bundle, name)
        options = ["rbind", "rprivate"]
        mounts.append({"destination": f"/etc/{name}", "type": "bind", "source": source, "options": options})
    process["oomScoreAdj"] = 100
    # As by default: the filter is then loaded before the capabilities are dropped.
    process["noNewPrivileges"] = False
    linux["seccomp"] = _seccomp()
    linux["resources"] = _resources(controllers)
    linux["sysctl"] = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    spec["annotations"] = {"org.example.image": "bench", "org.example.name": "bench"}


def controllers() -> set[str]:
    """The controllers that a container can be limited with here."""
    try:
        with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as stream:
            return set(stream.read().split())
    except FileNotFoundError:
        return set(os.listdir("/sys/fs/cgroup"))


class Bundles:
    """The bundles of one kind: `pause` waits for a signal, `exit` ends with RUN_STATUS."""

    def __init__(self, name: str, scratch: str) -> None:
        self.name = name
        self.pause = self._make(scratch, "pause", "pause")
        self.exit = self._make(scratch, "exit", "exit", str(RUN_STATUS))
        self.probe = os.path.join(self.pause, "rootfs/bin/probe")

    def _make(self, scratch: str, kind: str, *words: str) -> str:
        make = _load_make()
        path = os.path.join(scratch, f"{self.name}-{kind}")
        spec = make.make("probe", path, ["/bin/probe", *words])
        if self.name == "engine":
            _engine(path, spec, controllers())
            make.write_spec(path, spec)
        return path
