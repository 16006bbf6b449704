"""Rows of `linux.seccomp`: config-linux.md, "Seccomp"."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

import support
from box import lacks, row

if TYPE_CHECKING:
    from box import Box
    from support import Json, Spec

# A system call that nothing else in the probe makes.
GETPGID = 121 if os.uname().machine == "x86_64" else 155


ARCHITECTURES = [
    *("X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64"),
    *("MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64", "RISCV64"),
    *("LOONGARCH64", "M68K", "SH", "SHEB"),
]


def rules(box: Box, action: str, **more: Json) -> Box:
    """Everything allowed but getpgid, for which `action`."""
    syscall: dict[str, Json] = {"names": ["getpgid"], "action": action}
    for name in ("errnoRet", "args"):
        if name in more:
            syscall[name] = more.pop(name)
    return box.set("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [syscall], **more})


def answer(box: Box, *args: str) -> str:
    """What getpgid answers, as the probe says it."""
    return box.run("seccomp", str(GETPGID), *args).out


@row("linux.seccomp.syscalls[].action", "linux.seccomp.syscalls[].names")
def test_errno(box: Box) -> None:
    assert f"-{errno.EPERM}" in answer(rules(box, "SCMP_ACT_ERRNO"))


@row("linux.seccomp.syscalls[].errnoRet")
def test_errno_ret(box: Box) -> None:
    assert f"-{errno.ENOTBLK}" in answer(rules(box, "SCMP_ACT_ERRNO", errnoRet=errno.ENOTBLK))


@row("linux.seccomp.defaultAction", "linux.seccomp.defaultErrnoRet")
def test_default_errno_ret(box: Box) -> None:
    names: list[Json] = [
        *("read", "write", "writev", "exit", "exit_group", "execve", "brk", "mmap", "munmap", "arch_prctl"),
        *(
            "set_tid_address",
            "ioctl",
            "fstat",
            "newfstatat",
            "rt_sigprocmask",
            "rt_sigaction",
            "close",
            "fcntl",
        ),
        *("openat", "futex", "prctl", "capset", "capget", "setgroups", "setgid", "setuid", "setresuid"),
        *(
            "setresgid",
            "getpid",
            "chdir",
            "getcwd",
            "close_range",
            "getdents64",
            "lseek",
            "openat2",
            "epoll_pwait",
        ),
        *(
            "nanosleep",
            "clock_nanosleep",
            "sigaltstack",
            "madvise",
            "gettid",
            "tgkill",
            "rt_sigreturn",
            "poll",
        ),
        *(
            "ppoll",
            "stat",
            "statx",
            "lstat",
            "access",
            "faccessat",
            "faccessat2",
            "readlinkat",
            "umask",
            "dup",
        ),
        *(
            "statfs",
            "fstatfs",
            "getuid",
            "getgid",
            "geteuid",
            "getegid",
            "open",
            "sendmsg",
            "recvmsg",
            "unlinkat",
        ),
        *("fchdir", "execveat", "dup2", "dup3", "sched_yield", "epoll_create1", "epoll_ctl", "epoll_wait"),
    ]
    box.set(
        "linux.seccomp",
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": errno.ENOTBLK,
            "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
        },
    )
    assert f"-{errno.ENOTBLK}" in answer(box)


@row("linux.seccomp: errnoRet for an action without one is an error")
@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_errno_ret_without_errno(box: Box, action: str) -> None:
    rules(box, action, errnoRet=5).refused()


@row("linux.seccomp.syscalls[].action: {action}")
@pytest.mark.parametrize(
    "action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"]
)
def test_kill(box: Box, action: str) -> None:
    assert rules(box, action).run("seccomp", str(GETPGID)).status == 128 + signal.SIGSYS


@row("linux.seccomp.syscalls[].action: {action}")
@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_allowed(box: Box, action: str) -> None:
    if action == "SCMP_ACT_ALLOW":
        # A rule that says the same as the default is not one.
        rules(box, action).set("linux.seccomp.defaultAction", "SCMP_ACT_LOG")
    else:
        rules(box, action)
    assert rules(box, "SCMP_ACT_LOG").run("seccomp", str(GETPGID)).status == 0


@row("linux.seccomp.syscalls[].action: SCMP_ACT_TRACE")
def test_trace(box: Box) -> None:
    """seccomp(2): without a tracer the call answers ENOSYS."""
    assert f"-{errno.ENOSYS}" in answer(rules(box, "SCMP_ACT_TRACE", errnoRet=7))


@row("linux.seccomp: unknown words are errors")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("defaultAction", "SCMP_ACT_NONSENSE"),
        ("architectures", ["SCMP_ARCH_NONSENSE"]),
        ("flags", ["SECCOMP_FILTER_FLAG_NONSENSE"]),
    ],
)
def test_unknown_words(box: Box, name: str, value: Json) -> None:
    rules(box, "SCMP_ACT_ERRNO").set(f"linux.seccomp.{name}", value).refused()


@row("linux.seccomp.syscalls[].names: unknown calls are left out")
def test_unknown_call(box: Box) -> None:
    rules(box, "SCMP_ACT_ERRNO")
    box.add("linux.seccomp.syscalls", {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"})
    assert f"-{errno.EPERM}" in answer(box)


@row("linux.seccomp.architectures: {name}")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture(box: Box, name: str) -> None:
    """Known by its name. The native one is always in the filter."""
    result = rules(box, "SCMP_ACT_ERRNO", architectures=[f"SCMP_ARCH_{name}"]).run("seccomp", str(GETPGID))
    if "libseccomp" in result.err:
        lacks("a newer libseccomp")
    if "another byte order" in result.err:
        lacks("the other byte order")
    assert f"-{errno.EPERM}" in result.ok().out


@row("linux.seccomp.architectures")
def test_architectures(box: Box) -> None:
    rules(box, "SCMP_ACT_ERRNO", architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    assert f"-{errno.EPERM}" in answer(box)


@row("linux.seccomp.flags")
@pytest.mark.parametrize("flag", ["LOG", "SPEC_ALLOW", "TSYNC"])
def test_flags(box: Box, flag: str) -> None:
    rules(box, "SCMP_ACT_ERRNO", flags=[f"SECCOMP_FILTER_FLAG_{flag}"])
    assert f"-{errno.EPERM}" in answer(box)


@row("linux.seccomp.syscalls[].args[]: two conditions on one argument are alternatives")
def test_alternatives(box: Box) -> None:
    conditions: list[Json] = [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"} for value in (5, 6)]
    rules(box, "SCMP_ACT_ERRNO", errnoRet=errno.ENOTBLK, args=conditions)
    assert [f"-{errno.ENOTBLK}" in answer(box, "0", text) for text in ("5", "6", "7")] == [True, True, False]


@row("linux.seccomp.syscalls[].args[]: conditions on several arguments hold together")
def test_conjunction(box: Box) -> None:
    conditions: list[Json] = [{"index": index, "value": 5, "op": "SCMP_CMP_EQ"} for index in (1, 2)]
    rules(box, "SCMP_ACT_ERRNO", errnoRet=errno.ENOTBLK, args=conditions)
    assert f"-{errno.ENOTBLK}" in answer(box, "0", "5", "5")
    assert f"-{errno.ENOTBLK}" not in answer(box, "0", "5", "6")


OPERATORS = [
    ("EQ", 5, 0, "5", "6"),
    ("NE", 5, 0, "6", "5"),
    ("LT", 5, 0, "4", "5"),
    ("LE", 5, 0, "5", "6"),
    ("GT", 5, 0, "6", "5"),
    ("GE", 5, 0, "5", "4"),
    ("MASKED_EQ", 6, 4, "5", "2"),
]


@row(
    "linux.seccomp.syscalls[].args[].index",
    "linux.seccomp.syscalls[].args[].value",
    "linux.seccomp.syscalls[].args[].valueTwo",
    "linux.seccomp.syscalls[].args[].op",
)
@pytest.mark.parametrize(("name", "value", "second", "hit", "miss"), OPERATORS)
def test_arguments(box: Box, name: str, value: int, second: int, hit: str, miss: str) -> None:
    argument: Spec = {"index": 1, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{name}"}
    rules(box, "SCMP_ACT_ERRNO", errnoRet=errno.ENOTBLK, args=[argument])
    assert f"-{errno.ENOTBLK}" in answer(box, "0", hit)
    assert f"-{errno.ENOTBLK}" not in answer(box, "0", miss)


@row(
    "linux.seccomp.listenerPath",
    "linux.seccomp.listenerMetadata",
    "linux.seccomp.syscalls[].action: SCMP_ACT_NOTIFY",
)
def test_listener(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "listener")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()
        listening.settimeout(10)
        rules(box, "SCMP_ACT_NOTIFY", listenerPath=path, listenerMetadata="words")
        box.bundle.probe("seccomp", str(GETPGID))
        one = box.container()
        one.create().ok()
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(10)
            payload, fds, _, _ = socket.recv_fds(connection, 65536, 4)
            # One state for each connection, then it is closed.
            while more := connection.recv(65536):
                payload += more
        document = json.loads(payload)
        assert document["metadata"] == "words"
        assert document["fds"] == ["seccompFd"]
        assert len(fds) == 1
        assert document["ociVersion"]
        assert document["state"]["id"] == one.id
        assert document["state"]["status"] == "creating"
        assert document["pid"] == one.pid
        try:
            one.start().ok()
            support.answer_seccomp(fds[0], number=GETPGID, error=errno.ENOTBLK)
            assert f"-{errno.ENOTBLK}" in one.output()
        finally:
            for fd in fds:
                os.close(fd)


@row("linux.seccomp.listenerPath")
def test_notify_needs_a_listener(box: Box) -> None:
    rules(box, "SCMP_ACT_NOTIFY").refused()


@row("linux.seccomp: listenerMetadata without listenerPath is an error")
def test_metadata_alone(box: Box) -> None:
    rules(box, "SCMP_ACT_ERRNO", listenerMetadata="words").refused()


@row("linux.seccomp: NOTIFY as default or for write is an error")
@pytest.mark.parametrize("where", ["default", "write"])
def test_notify_limits(box: Box, where: str) -> None:
    rules(box, "SCMP_ACT_NOTIFY", listenerPath="/nowhere")
    if where == "default":
        box.set("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY")
    else:
        box.add("linux.seccomp.syscalls", {"names": ["write"], "action": "SCMP_ACT_NOTIFY"})
    box.refused()


@row("linux.seccomp: calls newer than the profile answer ENOSYS")
def test_newer_calls(box: Box) -> None:
    if os.uname().machine != "x86_64":
        lacks("x86_64")
    test_default_errno_ret(box)
    box.drop("linux.seccomp.defaultErrnoRet")
    assert f"-{errno.ENOSYS}" in box.run("seccomp", "9000").out


@row("linux.seccomp: loaded with and without noNewPrivileges")
@pytest.mark.parametrize("value", [True, False])
def test_privileges(box: Box, value: bool) -> None:
    rules(box, "SCMP_ACT_ERRNO").set("process.noNewPrivileges", value)
    assert f"-{errno.EPERM}" in answer(box)
