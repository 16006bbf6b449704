"""Rows of `process`: config.md, "Process"; config-linux.md for what only Linux has."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

import support
from box import lacks, row
from terminals import FdSocket, Screen, read_until

if TYPE_CHECKING:
    from box import Box
    from support import Json, Spec

# getrlimit(2), in the kernel's order.
RLIMITS = {
    name: number
    for number, name in enumerate(
        (
            *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS"),
            *("SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
        )
    )
}
CAP_CHOWN, CAP_KILL, CAP_NET_ADMIN = 0, 5, 12


@row("process.args")
def test_args(box: Box) -> None:
    assert box.facts("args", "a b", "", "ä").all("arg") == ["a b", "", "ä"]


@row("process.args")
@pytest.mark.parametrize("args", [[], None])
def test_args_are_required(box: Box, args: list[Json] | None) -> None:
    box.bundle.mapping("process")["args"] = args
    box.refused()


@row("process.args")
def test_program_is_looked_up_at_create(box: Box) -> None:
    box.bundle.args("nonexistent")
    box.refused("executable file")


@row("process.cwd")
def test_cwd(box: Box) -> None:
    box.set("process.cwd", "/dev")
    assert box.facts("cwd")["cwd"] == "/dev"


@row("process.cwd")
def test_cwd_is_absolute(box: Box) -> None:
    box.set("process.cwd", "dev").refused()


@row("process.env")
def test_env(box: Box) -> None:
    box.add("process.env", "A=1", "A=2", "B=x=y")
    found = box.facts("env").all("env")
    assert [line for line in found if line.startswith("A=")] == ["A=2"]
    assert "B=x=y" in found


@row("process.env")
@pytest.mark.parametrize("entry", ["=1", "A\0=1", "A=1\0"])
def test_env_is_well_formed(box: Box, entry: str) -> None:
    box.add("process.env", entry).refused()


@row("process.env")
def test_env_needs_an_equals_sign(box: Box) -> None:
    box.add("process.env", "NOTHING").refused()


@row("process.terminal")
def test_terminal(box: Box) -> None:
    box.set("process.terminal", True).bundle.probe("tty")
    one = box.container()
    with Screen([*one.command, "run", "--bundle", one.bundle.path, one.id]) as screen:
        shown = screen.expect("controlling yes")
        assert shown.count(" yes ") == 3
        assert screen.wait() == 0


@row("process.terminal: bound to /dev/console")
def test_console(box: Box) -> None:
    box.set("process.terminal", True).bundle.probe("stat", "/dev/console", "--", "stat", "/dev/pts/0")
    one = box.container()
    with Screen([*one.command, "run", "--bundle", one.bundle.path, one.id]) as screen:
        shown = screen.expect("/dev/pts/0")
        assert screen.wait() == 0
    console = next(line for line in shown.splitlines() if "/dev/console" in line)
    assert "rdev 136:0" in console


@row("process.consoleSize.height", "process.consoleSize.width")
def test_console_size(box: Box, scratch: str) -> None:
    box.set("process.terminal", True).set("process.consoleSize", {"height": 33, "width": 77})
    box.bundle.probe("winsize")
    receiver = FdSocket(os.path.join(scratch, "console"))
    one = box.container()
    one.create("--console-socket", receiver.path).ok()
    _, master = receiver.receive()
    receiver.close()
    try:
        one.start().ok()
        assert "winsize 33 77" in read_until(master, "\n")[1]
    finally:
        os.close(master)


@row("process.consoleSize.height", "process.consoleSize.width")
def test_console_size_without_a_terminal(box: Box) -> None:
    """config.md: the runtime MUST ignore it if terminal is false or unset."""
    box.set("process.consoleSize", {"height": 33, "width": 77}).facts("tty")


@row("process.user.uid", "process.user.gid")
def test_user(box: Box) -> None:
    box.set("process.user.uid", 11).set("process.user.gid", 12)
    found = box.facts("ids")
    assert found["uid"] == "11 11 11"
    assert found["gid"] == "12 12 12"


@row("process.user.uid", "process.user.gid")
def test_user_must_be_mapped(box: Box) -> None:
    box.bundle.namespace("user")
    for name in ("uidMappings", "gidMappings"):
        box.set(f"linux.{name}", [{"containerID": 0, "hostID": 100000, "size": 10}])
    box.set("process.user.uid", 11).refused()


@row("process.user.umask")
def test_umask(box: Box) -> None:
    box.set("process.user.umask", 0o27)
    assert box.facts("umask")["umask"] == "0027"


@row("process.user.umask")
def test_umask_unset(box: Box) -> None:
    assert box.facts("umask")["umask"] == "0022"


@row("process.user.additionalGids")
def test_additional_gids(box: Box) -> None:
    box.set("process.user.additionalGids", [5, 7])
    assert box.facts("ids")["groups"].split() == ["5", "7"]


@row("process.capabilities.{kind}")
@pytest.mark.parametrize("kind", ["bounding", "effective", "permitted", "inheritable", "ambient"])
def test_capabilities(box: Box, kind: str) -> None:
    more: list[Json] = ["CAP_CHOWN", "CAP_KILL"]
    wanted: Spec = {
        name: ["CAP_CHOWN"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    # A set must stand within those that the kernel derives it from.
    within = {
        "effective": ("permitted",),
        "ambient": ("permitted", "inheritable"),
        "permitted": ("bounding",),
    }
    wanted[kind] = more
    for name in (*within.get(kind, ()), "bounding"):
        wanted[name] = more
    wanted["permitted"] = more
    box.set("process.capabilities", wanted)
    assert box.facts("caps").capabilities(kind) == 1 << CAP_CHOWN | 1 << CAP_KILL


@row("process.capabilities: one that cannot be granted is a warning")
def test_capability_that_does_not_exist(box: Box) -> None:
    box.capability("CAP_NO_SUCH_THING")
    assert box.facts("caps").capabilities("effective") & 1 << CAP_CHOWN


@row("process.rlimits[].type", "process.rlimits[].soft", "process.rlimits[].hard")
@pytest.mark.parametrize("name", RLIMITS)
def test_rlimits(box: Box, name: str) -> None:
    soft, hard = 1 << 12, 1 << 13
    if name in ("AS", "DATA", "FSIZE", "RSS", "STACK"):
        soft, hard = 1 << 28, 1 << 29
    # Not every machine's root may raise a limit, and that of some is 0.
    most = resource.prlimit(0, RLIMITS[name])[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    box.set("process.rlimits", [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard}])
    assert box.facts("rlimits")[f"RLIMIT_{name}"] == f"{soft} {hard}"


@row("process.rlimits[].type")
def test_rlimit_type_is_known(box: Box) -> None:
    box.set("process.rlimits", [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]).refused()


@row("process.rlimits: duplicate types are an error")
def test_rlimit_duplicates(box: Box) -> None:
    box.set("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}] * 2).refused()


@row("process.rlimits[].soft", "process.rlimits[].hard")
def test_rlimit_soft_above_hard(box: Box) -> None:
    box.set("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 64}]).refused()


@row("process.noNewPrivileges")
@pytest.mark.parametrize("value", [True, False])
def test_no_new_privileges(box: Box, value: bool) -> None:
    box.set("process.noNewPrivileges", value)
    assert box.facts("process")["no_new_privs"] == str(int(value))


@row("process.apparmorProfile")
def test_apparmor_profile(box: Box) -> None:
    if not os.path.isdir("/sys/kernel/security/apparmor"):
        box.set("process.apparmorProfile", "nonexistent").refused()
        lacks("AppArmor; that it is refused then was seen")
    box.set("process.apparmorProfile", "unconfined").facts("ids")
    box.set("process.apparmorProfile", "nonexistent").refused()


@row("process.selinuxLabel")
def test_selinux_label(box: Box) -> None:
    if not os.path.exists("/sys/fs/selinux/enforce"):
        box.set("process.selinuxLabel", "system_u:system_r:container_t:s0").refused()
        lacks("SELinux; that it is refused then was seen")
    box.set("process.selinuxLabel", "not a label").refused()


@row("process.oomScoreAdj")
def test_oom_score_adj(box: Box) -> None:
    box.set("process.oomScoreAdj", 321)
    assert box.facts("cat", "/proc/self/oom_score_adj").text.split()[-1] == "321"


@row("process.oomScoreAdj: unset, it stays")
def test_oom_score_adj_unset(box: Box) -> None:
    one = box.drop("process.oomScoreAdj").container()
    one.bundle.probe("cat", "/proc/self/oom_score_adj").write()
    words = ["sh", "-c", 'echo 123 >/proc/self/oom_score_adj; exec "$@"', "sh", *one.command]
    assert support.run(*words, "run", "--bundle", one.bundle.path, one.id).ok().out == "123\n"


@row("process.oomScoreAdj")
def test_oom_score_adj_range(box: Box) -> None:
    box.set("process.oomScoreAdj", 1001).refused()


SCHEDULERS = [
    ("SCHED_OTHER", {"nice": 5}, {"policy": "0", "nice": "5"}),
    ("SCHED_BATCH", {"nice": 3}, {"policy": "3", "nice": "3"}),
    ("SCHED_IDLE", {}, {"policy": "5"}),
    ("SCHED_FIFO", {"priority": 7}, {"policy": "1", "priority": "7"}),
    ("SCHED_RR", {"priority": 7}, {"policy": "2", "priority": "7"}),
]


@row("process.scheduler.policy", "process.scheduler.nice", "process.scheduler.priority")
@pytest.mark.parametrize(("policy", "more", "expected"), SCHEDULERS)
def test_scheduler(box: Box, policy: str, more: dict[str, int], expected: dict[str, str]) -> None:
    box.set("process.scheduler", {"policy": policy, **more})
    if os.path.exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"):
        # Realtime group scheduling: a new cgroup has no realtime of its own.
        box.set("linux.resources.cpu", {"realtimePeriod": 1_000_000, "realtimeRuntime": 1000})
    found = box.facts("sched")
    assert {name: found[name].split()[0] for name in expected} == expected


@row("process.scheduler.runtime", "process.scheduler.deadline", "process.scheduler.period")
def test_scheduler_deadline(box: Box) -> None:
    box.set(
        "process.scheduler",
        {"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000},
    )
    assert box.facts("sched")["policy"].split()[0] == "6"


@row("process.scheduler.flags")
def test_scheduler_flags(box: Box) -> None:
    box.set("process.scheduler", {"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]})
    # sched_getscheduler(2) shows the flag as a bit of the policy.
    assert os.sched_getscheduler(box.up().pid) == os.SCHED_IDLE | os.SCHED_RESET_ON_FORK


@row("process.scheduler.flags")
def test_scheduler_flags_are_known(box: Box) -> None:
    box.set("process.scheduler", {"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_NONSENSE"]}).refused()


@row("process.scheduler.policy")
def test_scheduler_policy_is_known(box: Box) -> None:
    box.set("process.scheduler", {"policy": "SCHED_NONSENSE"}).refused()


@row("process.scheduler.priority")
def test_scheduler_priority_only_for_realtime(box: Box) -> None:
    box.set("process.scheduler", {"policy": "SCHED_OTHER", "priority": 7}).refused()


@row("process.ioPriority.class", "process.ioPriority.priority")
@pytest.mark.parametrize(("name", "number"), [("BE", 2), ("RT", 1)])
def test_io_priority(box: Box, name: str, number: int) -> None:
    box.set("process.ioPriority", {"class": f"IOPRIO_CLASS_{name}", "priority": 3})
    assert int(box.facts("sched")["ioprio"]) == number << 13 | 3


@row("process.ioPriority.class", "process.ioPriority.priority")
@pytest.mark.parametrize(("name", "priority"), [("NONSENSE", 3), ("BE", 8)])
def test_io_priority_values(box: Box, name: str, priority: int) -> None:
    box.set("process.ioPriority", {"class": f"IOPRIO_CLASS_{name}", "priority": priority}).refused()


@row("process.execCPUAffinity.initial", "process.execCPUAffinity.final")
@pytest.mark.parametrize(("initial", "final"), [("0", "1"), ("", "1"), ("", "0")])
def test_exec_cpu_affinity(box: Box, initial: str, final: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        lacks("a second processor")
    box.set("process.execCPUAffinity", {key: v for key, v in (("initial", initial), ("final", final)) if v})
    one = box.up()
    assert one.exec("/bin/probe", "sched").ok().facts()["cpus"] == final


@row("process: a container without one can be created, not started")
def test_no_process(box: Box) -> None:
    box.bundle.spec.pop("process")
    one = box.container()
    one.create().ok()
    assert one.start().status != 0
    assert one.status() == "created"


@row("process.user.username", "process.commandLine")
@pytest.mark.parametrize(("path", "value"), [("process.user.username", "x"), ("process.commandLine", "x")])
def test_windows_only(box: Box, path: str, value: str) -> None:
    box.set(path, value).facts("ids")


@row("process.selinuxLabel", "process.apparmorProfile")
def test_empty_labels_are_none(box: Box) -> None:
    box.set("process.selinuxLabel", "").set("process.apparmorProfile", "").facts("ids")


@row("annotation run.oci.keep_original_groups")
def test_keep_original_groups(box: Box) -> None:
    """crun's, which podman sets."""
    one = box.set("annotations", {"run.oci.keep_original_groups": "1"}).container()
    one.bundle.probe("ids").write()
    words = ["setpriv", "--groups", "7,8", "--", *one.command, "run", "--bundle", one.bundle.path, one.id]
    assert support.run(*words).ok().facts()["groups"].split() == ["7", "8"]


def test_probe_is_honest(box: Box) -> None:
    """The rows stand on what the probe says: it must agree with the kernel's word from outside."""
    one = box.up()
    assert support.status_field(one.pid, "Name") == "probe"
