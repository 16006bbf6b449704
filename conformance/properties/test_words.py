"""Rows of error texts: engines and people look for these words, so a drop-in says them, among others."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

import support
from box import lacks, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from box import Box
    from support import Json, Spec

    Change = Callable[[Box], object]

IDS: list[Json] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
ONE_ID: list[Json] = [{"containerID": 0, "hostID": 7, "size": 1}]


def setting(path: str, value: Json) -> Change:
    """A configuration with one value."""
    return lambda box: box.set(path, value)


def without(kind: str, *paths: str) -> Change:
    """A configuration without a namespace, and without what needs it."""

    def change(box: Box) -> None:
        box.bundle.without_namespace(kind)
        for path in paths:
            box.drop(path)

    return change


def both(*changes: Change) -> Change:
    """Several changes, in order."""
    return lambda box: [change(box) for change in changes]


def namespace(kind: str, path: str = "") -> Change:
    """One namespace more."""
    return lambda box: box.add("linux.namespaces", {"type": kind, "path": path} if path else {"type": kind})


def mounting(destination: str, kind: str, source: str, *options: str) -> Change:
    """One mount more."""
    return lambda box: box.bundle.mount(destination, kind, source, *options)


def seccomp(**members: Json) -> Change:
    """A filter with one rule, for getpgid; `members` of the filter."""
    rule: Spec = {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}
    wanted: Spec = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    return setting("linux.seccomp", wanted | members)


def rule(**members: Json) -> list[Json]:
    """The rules of a filter: one, for getpgid."""
    whole: Spec = {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}
    return [whole | members]


ARGUMENT: Spec = {"index": 0, "value": 1, "op": "SCMP_CMP_NONSENSE"}
SCHEDULER = "process.scheduler"
# The words, and what makes create say them.
REFUSED: list[tuple[str, Change]] = [
    ("Cwd must be an absolute path", setting("process.cwd", "dev")),
    ("args must not be empty", setting("process.args", [])),
    ("executable file not found in", setting("process.args", ["nonexistent"])),
    ("no such file or directory", setting("process.args", ["/bin/nonexistent"])),
    ("permission denied", setting("process.args", ["/etc/passwd"])),
    ("is a directory", setting("process.args", ["/etc"])),
    ("not a directory", mounting("/etc/passwd/below", "none", "/tmp", "bind")),
    ("invalid environment variable", setting("process.env", ["NOTHING"])),
    (
        "cannot allocate tty if runc will detach without setting console socket",
        setting("process.terminal", True),
    ),
    ("unable to set hostname without a private UTS namespace", without("uts")),
    (
        "unable to set domainname without a private UTS namespace",
        both(without("uts", "hostname"), setting("domainname", "example.org")),
    ),
    (
        "unable to restrict sys entries without a private MNT namespace",
        both(without("mount", "mounts"), setting("linux.maskedPaths", ["/proc/kcore"])),
    ),
    ("malformed spec file: duplicated ns", namespace("pid")),
    ('namespace "nonsense" does not exist', namespace("nonsense")),
    (
        "user namespace mappings specified, but user namespace isn't enabled in the config",
        setting("linux.uidMappings", IDS),
    ),
    (
        "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
        namespace("user"),
    ),
    (
        "user namespaces enabled, but both namespace path and non-matching mapping specified",
        both(
            namespace("user", "/proc/self/ns/user"),
            setting("linux.uidMappings", ONE_ID),
            setting("linux.gidMappings", ONE_ID),
        ),
    ),
    (
        "time namespace offsets specified, but time namespace isn't enabled in the config",
        setting("linux.timeOffsets", {"monotonic": {"secs": 1}}),
    ),
    ("mount field contains null byte", mounting("/a\0b", "tmpfs", "tmpfs")),
    ("cannot be mounted because it is inside /proc", mounting("/proc/sys", "tmpfs", "tmpfs")),
    ("must be mounted on ordinary directory", mounting("/link", "proc", "proc")),
    (
        "unable to move network devices without a NET namespace",
        both(without("network"), setting("linux.netDevices", {"any0": {}})),
    ),
    ("invalid network device name", setting("linux.netDevices", {"any0": {"name": "a/b"}})),
    (
        'sysctl "kernel.msgmax" is not allowed in the hosts ipc namespace',
        both(without("ipc"), setting("linux.sysctl", {"kernel.msgmax": "1"})),
    ),
    (
        'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
        both(without("network"), setting("linux.sysctl", {"net.ipv4.ip_forward": "1"})),
    ),
    (
        'sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field',
        setting("linux.sysctl", {"kernel.hostname": "x"}),
    ),
    (
        "setting ucounts without a user namespace not allowed: user.max_pid_namespaces",
        setting("linux.sysctl", {"user.max_pid_namespaces": "9"}),
    ),
    (
        'sysctl "vm.swappiness" is not in a separate kernel namespace',
        setting("linux.sysctl", {"vm.swappiness": "1"}),
    ),
    ("scheduler policy is required", setting(SCHEDULER, {"nice": 1})),
    (
        "invalid scheduler.nice: 30 when scheduler.policy is SCHED_OTHER",
        setting(SCHEDULER, {"policy": "SCHED_OTHER", "nice": 30}),
    ),
    (
        "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        setting(SCHEDULER, {"policy": "SCHED_OTHER", "priority": 1}),
    ),
    (
        "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
        setting(SCHEDULER, {"policy": "SCHED_OTHER", "runtime": 1}),
    ),
    (
        "invalid ioPriority.Priority: 8",
        setting("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}),
    ),
    ('invalid ioPriority.Class: "NONSENSE"', setting("process.ioPriority", {"class": "NONSENSE"})),
    (
        "memory policy mode requires 0 nodes but got 1",
        setting("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}),
    ),
    (
        "memory policy mode requires at least one node but got 0",
        setting("linux.memoryPolicy", {"mode": "MPOL_BIND"}),
    ),
    ('invalid intelRdt.ClosID ".."', setting("linux.intelRdt", {"closID": ".."})),
    (
        "unable to set swap limit without memory limit",
        setting("linux.resources.memory", {"swap": 1 << 20}),
    ),
    (
        "memory+swap limit should be >= memory limit",
        setting("linux.resources.memory", {"limit": 2 << 20, "swap": 1 << 20}),
    ),
    ("is not a valid action for seccomp", seccomp(defaultAction="SCMP_ACT_NONSENSE")),
    ("is not a valid operator for seccomp", seccomp(syscalls=rule(args=[ARGUMENT]))),
    ("is not a valid arch for seccomp", seccomp(architectures=["SCMP_ARCH_NONSENSE"])),
    ("SCMP_ACT_NOTIFY cannot be used as default action", seccomp(defaultAction="SCMP_ACT_NOTIFY")),
    (
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        seccomp(listenerPath="/x", syscalls=rule(names=["write"], action="SCMP_ACT_NOTIFY")),
    ),
    ("seccomp listenerPath is not set", seccomp(syscalls=rule(action="SCMP_ACT_NOTIFY"))),
]


@row("error: {words}")
@pytest.mark.parametrize(("words", "change"), REFUSED, ids=[words for words, _ in REFUSED])
def test_refused(box: Box, words: str, change: Change) -> None:
    os.symlink("/tmp", os.path.join(box.bundle.rootfs, "link"))
    change(box)
    # A line of a log has quotes of its own, and the C library's errnos begin with a capital letter.
    assert words.lower() in box.refused().err.replace('\\"', '"').lower()


@row("error: selinux label is specified in config, but selinux is disabled or not supported")
def test_selinux(box: Box) -> None:
    if os.path.exists("/sys/fs/selinux/enforce"):
        lacks("a kernel without SELinux")
    box.set("process.selinuxLabel", "system_u:system_r:container_t:s0")
    box.refused("selinux label is specified in config, but selinux is disabled or not supported")


@row("error: intelRdt is specified in config, but Intel RDT is not enabled")
def test_rdt(box: Box) -> None:
    if os.path.exists("/sys/fs/resctrl/schemata"):
        lacks("a host without resctrl")
    box.set("linux.intelRdt", {"closID": "group"})
    box.refused("intelRdt is specified in config, but Intel RDT is not enabled")


@row("error: process scheduler can't be used together with AllowedCPUs")
def test_deadline_with_a_cpuset(box: Box) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        lacks("a second processor")
    box.set(SCHEDULER, {"policy": "SCHED_DEADLINE", "runtime": 10**6, "deadline": 10**7, "period": 10**7})
    box.set("linux.resources.cpu", {"cpus": "0"})
    box.refused("process scheduler can't be used together with AllowedCPUs")


@row("error: JSON specification file config.json not found", "error: config cannot be null")
@pytest.mark.parametrize(
    ("text", "words"),
    [("", "JSON specification file config.json not found"), ("null", "config cannot be null")],
)
def test_no_configuration(box: Box, text: str, words: str) -> None:
    one = box.container()
    one.bundle.write()
    path = os.path.join(one.bundle.path, "config.json")
    os.unlink(path)
    if text:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(text)
    assert words in one.pyrunc("create", "--bundle", one.bundle.path, one.id).err


@row("error: invalid container ID format", "error: container with given ID already exists")
def test_ids(box: Box) -> None:
    one = box.up()
    words = ["create", "--bundle", one.bundle.path]
    assert "invalid container ID format" in one.pyrunc(*words, "a/b").err
    assert "container with given ID already exists" in one.pyrunc(*words, one.id).err


@row("error: does not exist")
@pytest.mark.parametrize(
    "words",
    [["state"], ["start"], ["kill"], ["delete"], ["pause"], ["resume"], ["exec"], ["ps"], ["update"]],
)
def test_unknown_container(box: Box, words: list[str]) -> None:
    """containerd takes it for gone."""
    more = ["true"] if words == ["exec"] else []
    result = box.container().pyrunc(*words, "no-such-container", *more)
    assert result.status == (255 if more else 1)
    assert "does not exist" in result.err


@row(
    "error: container not running",
    "error: cannot start a container that has stopped",
    "error: cannot exec in a stopped container",
)
def test_stopped(box: Box) -> None:
    one = box.up()
    one.kill().ok()
    one.wait()
    assert "container not running" in one.kill("TERM").err
    assert "cannot start a container that has stopped" in one.start().err
    assert "cannot exec in a stopped container" in one.exec("/bin/probe").err


@row(
    "error: cannot start an already running container",
    "error: cannot delete container X that is not stopped: running",
    "error: container not paused",
    "error: cannot exec in a paused container (use --ignore-paused to override)",
)
def test_running(box: Box) -> None:
    one = box.up()
    assert "cannot start an already running container" in one.start().err
    assert f"cannot delete container {one.id} that is not stopped: running" in one.delete().err
    assert "container not paused" in one.pyrunc("resume", one.id).err
    one.pyrunc("pause", one.id).ok()
    words = "cannot exec in a paused container (use --ignore-paused to override)"
    assert words in one.exec("/bin/probe").err
    one.pyrunc("resume", one.id).ok()


@row("error: process property must not be empty", "error: args must not be empty")
def test_exec_of_nothing(box: Box, scratch: str) -> None:
    one = box.up()
    path = os.path.join(scratch, "process.json")
    for document, words in (
        (None, "process property must not be empty"),
        ({"cwd": "/", "args": []}, "args must not be empty"),
    ):
        with open(path, "w", encoding="ascii") as stream:
            json.dump(document, stream)
        result = one.pyrunc("exec", "--process", path, one.id)
        assert result.status == 255
        assert words in result.err


@row("error: cannot use console socket if runc will not detach or allocate tty")
def test_console_socket_for_nothing(box: Box) -> None:
    one = box.up()
    result = one.exec("/bin/probe", options=["--console-socket", "/nowhere"])
    assert "cannot use console socket if runc will not detach or allocate tty" in result.err


@row("error: hook ran past specified timeout of 1.0s")
def test_hook_timeout(box: Box) -> None:
    hook: Spec = {"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}
    box.add("hooks.createRuntime", hook).refused("hook ran past specified timeout of 1.0s")


@row("error: a failed hook is named, with its number, status and output")
def test_hook_failure(box: Box) -> None:
    hook: Spec = {"path": "/bin/sh", "args": ["sh", "-c", "echo said; exit 3"]}
    box.add("hooks.createRuntime", {"path": "/bin/true"}, hook)
    box.refused("createRuntime", "#1", "exit status 3", "said")


@row('error: expected cgroupsPath to be of format "slice:prefix:name"')
def test_systemd_path(box: Box) -> None:
    one = box.set("linux.cgroupsPath", "/not/of/systemd").container()
    one.bundle.write()
    words = ["--systemd-cgroup", "create", "--bundle", one.bundle.path, one.id]
    said = one.pyrunc(*words).err.replace('\\"', '"')
    assert 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups' in said


@row("error: the JSON path of what is wrong")
@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("process.user.uid", "root", "$.process.user.uid"),
        ("hooks.poststop", [{"path": "/x"}, {"path": "y"}], "$.hooks.poststop[1].path"),
        ("linux.resources.memory", {"limit": 1.5}, "$.linux.resources.memory.limit"),
        ("linux.sysctl", {"vm.swappiness": "1"}, "$.linux.sysctl['vm.swappiness']"),
    ],
)
def test_path(box: Box, path: str, value: Json, shown: str) -> None:
    """pyrunc's own: nobody has to search."""
    box.set(path, value).refused(shown)


@row("error: exit status 1, of exec 255")
def test_status(box: Box) -> None:
    one = box.up()
    assert one.start().status == 1
    assert one.delete().status == 1
    assert one.exec("/bin/nonexistent").status == 255
    assert one.exec("/bin/probe", options=["--nonsense"]).status in (1, 255)
    one.kill().ok()
    assert one.wait() == -signal.SIGKILL
    assert one.exec("/bin/probe").status == 255
    assert one.pyrunc("nonsense").status in (1, 3)
    assert support.run(*one.command, "create").status == 1


@row("annotation org.systemd.property.NAME: what is no value is an error")
@pytest.mark.parametrize("value", ["(", "'open", "uint32 x", "[1, 'a']"])
def test_systemd_property(box: Box, value: str) -> None:
    """Said before systemd is asked for anything."""
    name = "org.systemd.property.TimeoutStopUSec"
    one = box.set("annotations", {name: value}).container()
    one.bundle.write()
    result = one.pyrunc("--systemd-cgroup", "create", "--bundle", one.bundle.path, one.id)
    assert result.status != 0
    assert name in result.err
