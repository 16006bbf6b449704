"""The process that exec makes in the container is the last step, and inherits what all others have made of init.

What a fork does not hand on, or a filter of the container forbids behind it, must not be seen in the program.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.launch import init as launch

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from support import Json, Spec

pytestmark = pytest.mark.root

PTRACE_SEIZE = 0x4206
SETHOSTNAME = {"x86_64": 170, "aarch64": 161}.get(os.uname().machine, 161)
# What runc 1.1 calls with its filter on, and what the probe does: not clone, setsid or prlimit64.
EVERYDAY = (  # noqa: SIM905
    "prctl setgroups setgid setuid capget capset getcwd chdir newfstatat fstat read write close openat execve"
    " exit_group futex getppid arch_prctl set_tid_address writev brk mmap munmap ioctl rt_sigprocmask getsid getpid"
    " getpgid sched_getscheduler getrlimit prlimit64 faccessat2 getuid geteuid getgid getegid pause ppoll"
    " rt_sigaction rt_sigtimedwait rt_sigsuspend rt_sigreturn clock_nanosleep fcntl wait4 sched_getparam ioprio_get"
).split()


def filtered(target: Bundle, default: str, action: str, *names: str, privileged: bool) -> Bundle:
    """A profile with one rule; without `privileged` it is loaded with no_new_privs."""
    listed: list[Json] = list(names)
    target.mapping("linux")["seccomp"] = {
        "defaultAction": default,
        "syscalls": [{"names": listed, "action": action}],
    }
    target.mapping("process")["noNewPrivileges"] = not privileged
    return target


def process_file(one: Container, words: list[str], members: Spec) -> str:
    path = f"{one.pid_file}.json"
    document: Json = {"args": list(words), "cwd": "/", "user": {"uid": 0, "gid": 0}, **members}
    with open(path, "w", encoding="ascii") as stream:
        json.dump(document, stream)
    return path


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("privileged", [True, False])
def test_a_profile_made_for_runc_is_enough(
    container: ContainerFactory, bundle: BundleFactory, user: int, privileged: bool
) -> None:
    """It has no clone(2) and no setsid(2), and the program leads a session all the same."""
    target = bundle("probe").probe("pause")
    filtered(target, "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", *EVERYDAY, privileged=privileged)
    one = container(target).up()
    facts = one.exec("/bin/probe", "process", options=["--user", str(user)]).ok().facts()
    assert facts["sid"] == facts["pid"]


@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
@pytest.mark.parametrize("privileged", [True, False])
def test_what_the_filter_forbids_stays_forbidden(
    container: ContainerFactory, bundle: BundleFactory, action: str, privileged: bool
) -> None:
    """Init's own clone(2) passes, the program's does not."""
    target = bundle("probe").probe("pause")
    filtered(
        target, "SCMP_ACT_ALLOW", action, "clone", "clone3", "fork", "vfork", "setsid", privileged=privileged
    )
    one = container(target).up()
    assert one.exec("/bin/echo", "alive").ok().out == "alive\n"
    result = one.exec("/bin/sh", "-c", "/bin/echo a; /bin/echo b")
    assert result.status != 0 and "b" not in result.out


@pytest.mark.parametrize("privileged", [True, False])
def test_an_agent_is_told_who_goes_on(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, privileged: bool
) -> None:
    """Its message names the process that becomes the program, though the filter was there before it."""
    path = os.path.join(scratch, "agent.sock")
    target = bundle("probe").probe("pause")
    filtered(target, "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", "sethostname", privileged=privileged)
    target.mapping("linux", "seccomp")["listenerPath"] = path
    one = container(target)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(10)
        one.up()
        messages = []
        for act in (None, one):
            if act:
                act.detached(
                    "exec", "-d", "--pid-file", f"{one.pid_file}.x", one.id, "/bin/probe", "pause"
                ).ok()
            connection, _ = server.accept()
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 4)
                messages.append(json.loads(data))
                for fd in fds:
                    os.close(fd)
    with open(f"{one.pid_file}.x", encoding="ascii") as stream:
        pid = int(stream.read())
    assert messages[1]["pid"] == pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(("flags", "policy"), [("RESET_ON_FORK", "40000000"), ("", "3")])
def test_a_policy_that_no_child_inherits(
    container: ContainerFactory, bundle: BundleFactory, flags: str, policy: str
) -> None:
    """The runtime sets it from outside."""
    one = container(bundle("probe").probe("pause")).up()
    scheduler: Spec = {"policy": "SCHED_OTHER" if flags else "SCHED_BATCH"}
    if flags:
        scheduler["flags"] = [f"SCHED_FLAG_{flags}"]
    path = process_file(one, ["/bin/probe", "sched"], {"scheduler": scheduler})
    facts = one.pyrunc("exec", "--process", path, one.id).ok().facts()
    assert int(facts["policy"]) == int(policy, 16)


def test_a_deadline(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A process with one may not even fork; and an error has its place."""
    one = container(bundle("probe").probe("pause")).up()
    scheduler: Spec = {
        "policy": "SCHED_DEADLINE", "runtime": 1000000, "deadline": 10000000, "period": 20000000,
    }  # fmt: skip
    path = process_file(one, ["/bin/probe", "sched"], {"scheduler": scheduler})
    assert one.pyrunc("exec", "--process", path, one.id).ok().facts()["policy"] == "6"
    support.needs(len(os.sched_getaffinity(0)) > 1, "a second processor")
    target = bundle("probe").probe("pause")
    target.mapping("linux", "resources")["cpu"] = {"cpus": "0"}
    bound = container(target).up()
    words = "process scheduler can't be used together with AllowedCPUs"
    bound.pyrunc("exec", "--process", path, bound.id).fails("$.scheduler: sched_setattr", words, status=255)


def test_a_limit_of_processes(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Init and its child are two for a moment: the limit is the program's. setrlimit(2), RLIMIT_NPROC."""
    one = container(bundle("probe").probe("pause")).up()
    limit: Json = [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]
    user: Json = {"uid": 54321, "gid": 54321}
    path = process_file(one, ["/bin/probe", "rlimits"], {"rlimits": limit, "user": user})
    assert one.pyrunc("exec", "--process", path, one.id).ok().facts()["RLIMIT_NPROC"] == "1 1"


def test_a_program_by_its_descriptor(container: ContainerFactory, bundle: BundleFactory) -> None:
    """/proc/self is nobody's while the program is looked for, and the program's when it is executed."""
    target = bundle("probe").probe("pause")
    one = container(target).up()
    program = os.path.join(target.rootfs, "bin/probe")
    # In a child: our own descriptor 3 may be pytest's.
    caller = ["sh", "-c", 'exec "$@" 3<"$0"', program, *one.command]
    words = ["exec", "--preserve-fds", "1", one.id, "/proc/self/fd/3", "echo", "alive"]
    assert support.run(*caller, *words).ok().out == "alive\n"
    one.exec("/proc/self/fd/77").fails('exec: "/proc/self/fd/77"', status=255)


def test_the_end_of_one_that_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer that never looks keeps a dead process from its parent: nobody waits for it for ever."""
    monkeypatch.setattr(launch, "END_SECONDS", 0.3)
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        signal.pause()
    ready, told = os.pipe()
    tracer = os.fork()
    if tracer == 0:
        libc.ptrace(PTRACE_SEIZE, child, None, None)
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    pidfd = os.pidfd_open(child)
    began = time.monotonic()
    launch.end(child, pidfd)
    assert time.monotonic() - began < 5
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(tracer, signal.SIGKILL)
    os.waitpid(tracer, 0)
    assert support.wait_for_exit(child) == -signal.SIGKILL
    for fd in (pidfd, ready, told):
        os.close(fd)
