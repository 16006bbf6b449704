"""What the specification says MUST be an error, by real creates: the message, its place, and that nothing is left."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

import limits
import support
from pyrunc.kernel import container as kernel_container

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory
    from support import Json

pytestmark = pytest.mark.root

NULL: Json = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3}
LIMIT: Json = {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}


def _rule(**members: Json) -> Json:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["sethostname"], **members}]}


@pytest.mark.parametrize(
    ("keys", "value", "path", "words"),
    [
        ("process.rlimits", [LIMIT, LIMIT], "rlimits[1].type", 'duplicate rlimit "RLIMIT_CORE"'),
        ("process.rlimits", [{**LIMIT, "type": "RLIMIT_X"}], "rlimits[0].type", "RLIMIT_X"),  # type: ignore[dict-item]
        ("process.rlimits", [{**LIMIT, "soft": 1}], "rlimits[0].soft", "greater than the hard limit"),  # type: ignore[dict-item]
        ("process.oomScoreAdj", -1001, "oomScoreAdj", "-1001"),
        ("process.user.umask", 0o1777, "umask", "1023"),
        ("process.scheduler", {"policy": "SCHED_BATCH", "nice": -21}, "nice", "invalid scheduler.nice: -21"),
        (
            "process.scheduler",
            {"policy": "SCHED_IDLE", "nice": 1},
            "nice",
            "when scheduler.policy is SCHED_IDLE",
        ),
        ("process.scheduler", {"policy": "SCHED_OTHER", "flags": ["X"]}, "flags[0]", "X"),
        ("process.scheduler", {"nice": 1}, "scheduler.policy", "scheduler policy is required"),
        (
            "process.scheduler",
            {"policy": "SCHED_OTHER", "priority": 1},
            "scheduler.priority",
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        ),
        (
            "process.scheduler",
            {"policy": "SCHED_FIFO", "priority": 1, "deadline": 1},
            "scheduler.deadline",
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
        ),
        (
            "process.ioPriority",
            {"class": "IOPRIO_CLASS_BE", "priority": 8},
            "priority",
            "invalid ioPriority.Priority: 8",
        ),
        ("process.ioPriority", {"class": "X"}, "class", 'invalid ioPriority.Class: "X"'),
        (
            "process.execCPUAffinity",
            {"final": "3-1"},
            "execCPUAffinity.final",
            '"3-1" ends before it begins',
        ),
        ("annotations", {"": "x"}, "$.annotations", "an annotation must have a name"),
        ("hooks.createRuntime", [{"path": "bin/true"}], "createRuntime[0].path", "must be absolute"),
        ("hooks.poststop", [{"path": "/bin/true", "timeout": 0}], "poststop[0].timeout", "greater than 0"),
        (
            "hooks.startContainer",
            [{"path": "/x", "timeout": -1}],
            "startContainer[0].timeout",
            "greater than 0",
        ),
        (
            "linux.personality",
            {"domain": "LINUX", "flags": ["X"]},
            "personality.flags",
            "no personality flags",
        ),
        ("linux.personality", {"domain": "BSD"}, "personality.domain", "BSD"),
        ("linux.memoryPolicy", {"mode": "MPOL_X"}, "memoryPolicy.mode", "MPOL_X"),
        (
            "linux.memoryPolicy",
            {"mode": "MPOL_BIND"},
            "memoryPolicy.nodes",
            "requires at least one node but got 0",
        ),
        (
            "linux.memoryPolicy",
            {"mode": "MPOL_LOCAL", "nodes": "0-1"},
            "nodes",
            "requires 0 nodes but got 2",
        ),
        ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}, "flags[0]", "X"),
        ("linux.devices", [{**NULL, "type": "z"}], "devices[0].type", "z"),  # type: ignore[dict-item]
        ("linux.devices", [NULL, {**NULL, "minor": 5}], "devices[1]", "is not the device"),  # type: ignore[dict-item]
        ("linux.devices", [{**NULL, "path": "/bin/probe"}], "devices[0]", "exists and is not"),  # type: ignore[dict-item]
        ("linux.seccomp", _rule(action="SCMP_ACT_KILL", errnoRet=1), "errnoRet", "has no errno to return"),
        ("linux.seccomp", _rule(action="SCMP_ACT_TRAP", errnoRet=1), "errnoRet", "has no errno to return"),
        ("linux.seccomp", _rule(action="SCMP_ACT_LOG", errnoRet=1), "errnoRet", "has no errno to return"),
        (
            "linux.seccomp",
            _rule(action="SCMP_ACT_NOTIFY"),
            "listenerPath",
            "seccomp listenerPath is not set",
        ),
        (
            "linux.seccomp",
            {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1},
            "defaultErrnoRet",
            "SCMP_ACT_ALLOW has no errno to return",
        ),
        (
            "linux.seccomp",
            {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"},
            "listenerMetadata",
            "without listenerPath",
        ),
        (
            "linux.seccomp",
            {"defaultAction": "SCMP_ACT_NOTIFY"},
            "defaultAction",
            "cannot be used as default action",
        ),
        ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}, "flags[0]", "X"),
        (
            "linux.seccomp",
            {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z"]},
            "architectures[0]",
            "string SCMP_ARCH_Z is not a valid arch for seccomp",
        ),
    ],
)
def test_refused(
    container: ContainerFactory, bundle: BundleFactory, keys: str, value: Json, path: str, words: str
) -> None:
    what = bundle("probe")
    *way, last = keys.split(".")
    (what.mapping(*way) if way else what.spec)[last] = value
    one = container(what)
    one.create().fails(path, words)
    assert not os.path.lexists(os.path.join(one.root, one.id))


@pytest.mark.parametrize(
    ("kind", "file", "name", "value", "words"),
    [
        ("network", "net", "net.ipv4.ip_forward", "1", "not allowed in host network namespace"),
        ("ipc", "ipc", "kernel.msgmax", "8191", "is not allowed in the hosts ipc namespace"),
        ("uts", "uts", "kernel.domainname", "caught", "is not in a separate kernel namespace"),
    ],
)
def test_a_sysctl_of_the_host_by_path(
    container: ContainerFactory,
    bundle: BundleFactory,
    kind: str,
    file: str,
    name: str,
    value: str,
    words: str,
) -> None:
    """The path of a namespace may lead to the host's own: told by its inode, whatever the path is called."""
    what = bundle("probe").namespace(kind, f"/proc/{os.getpid()}/ns/{file}")
    what.spec.pop("hostname", None)
    what.mapping("linux")["sysctl"] = {name: value}
    before = _sysctl(name)
    container(what).create().fails(f"$.linux.sysctl['{name}']", words)
    assert _sysctl(name) == before


def _sysctl(name: str) -> str:
    with open(os.path.join("/proc/sys", name.replace(".", "/")), encoding="ascii") as stream:
        return stream.read()


def test_duplicates_that_are_allowed(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config-linux.md, Devices: the same numbers twice SHOULD NOT be, which is no error; outside /dev is fine."""
    what = bundle("probe").probe("stat", "/dev/x", "--", "stat", "/opt/new/y", "--", "stat", "/dev/f")
    other: Json = {**NULL, "path": "/opt/new/y", "type": "u", "fileMode": 0o600}  # type: ignore[dict-item]
    what.mapping("linux")["devices"] = [NULL, NULL, other, {"path": "/dev/f", "type": "p"}]
    lines = container(what).run().ok().facts().all("stat")
    assert ["rdev 1:3" in line for line in lines] == [True, True, False]
    assert ["mode 020666" in lines[0], "mode 020600" in lines[1], "mode 010666" in lines[2]] == [True] * 3
    shutil.rmtree(os.path.join(what.rootfs, "opt"))


def test_a_console_size_that_means_nothing(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config.md: "MUST ignore consoleSize if terminal is false": even a size that no terminal has."""
    what: Bundle = bundle("probe").probe("echo", "alive")
    what.mapping("process")["consoleSize"] = {"height": 1 << 20, "width": 1}
    assert container(what).run().ok().out == "alive\n"


def test_below_a_frozen_cgroup(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Nobody would ever run there: create says so at once, and takes away what it has made and started."""
    owner = container(bundle("probe").probe("pause"), view=view).up()
    made = bundle("probe").probe("pause")
    one = container(made, view=view)
    made.mapping("linux")["cgroupsPath"] = f"/{owner.id}/between/{one.id}"
    made.write()
    known = support.children()
    freezers = {"", "freezer"} if limits.version(view) == 1 else {""}
    for controller in freezers & set(support.cgroup_of(owner.pid)):
        frozen = [(controller, limits.directory(owner.pid, controller))]
        kernel_container.cgroup_freeze(frozen)
        try:
            one.create().fails("$.linux.cgroupsPath: container's cgroup unexpectedly frozen")
            assert support.children() == known
            assert not support.find_cgroups(f"{owner.id}/between")
            assert not os.path.lexists(os.path.join(one.root, one.id))
        finally:
            kernel_container.cgroup_thaw(frozen)
    one.create().ok()
