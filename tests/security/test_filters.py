"""Seccomp filters: who runs under them, and what becomes of init when one forbids what init itself has to do."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from signal import SIGKILL
from typing import TYPE_CHECKING

import pytest

import rounds
import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

NO_NEW_PRIVILEGES = pytest.mark.parametrize("no_new_privileges", [True, False], ids=["nnp", "no-nnp"])


def forbid(what: Bundle, action: str, *names: str, no_new_privileges: bool = True) -> Bundle:
    """The bundle with a filter that answers these calls with `action`."""
    rule: dict[str, support.Json] = {"names": [*names], "action": f"SCMP_ACT_{action}"}
    if action == "ERRNO":
        rule["errnoRet"] = 1
    what.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    what.mapping("process")["noNewPrivileges"] = no_new_privileges
    return what


# --- Hooks in the container -------------------------------------------------------------------------------------------


def hooked(what: Bundle, script: str) -> Bundle:
    hook: support.Json = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    what.mapping("hooks")["startContainer"] = [hook, hook]
    return what


@NO_NEW_PRIVILEGES
def test_hooks_run_under_the_filter(
    container: ContainerFactory, bundle: BundleFactory, no_new_privileges: bool
) -> None:
    """startContainer hooks are programs of the image, as with runc and crun; the program has one filter, no more."""
    target = forbid(bundle("probe"), "ERRNO", "mkdir", "mkdirat", no_new_privileges=no_new_privileges)
    hooked(target, "! mkdir /made && grep Seccomp_filters: /proc/self/status >>/filters")
    target.args("/bin/grep", "Seccomp_filters:", "/proc/self/status")
    one = container(target)
    assert one.run().ok().out == "Seccomp_filters:\t1\n"
    assert not os.path.lexists(os.path.join(target.rootfs, "made"))
    with open(os.path.join(target.rootfs, "filters"), encoding="ascii") as stream:
        assert stream.read() == "Seccomp_filters:\t1\n" * 2


@NO_NEW_PRIVILEGES
def test_a_filter_kills_a_hook(
    container: ContainerFactory, bundle: BundleFactory, no_new_privileges: bool
) -> None:
    """start says which one, and by what."""
    target = forbid(
        bundle("probe").probe("ids"), "KILL_PROCESS", "mkdir", "mkdirat", no_new_privileges=no_new_privileges
    )
    hooked(target, "exec mkdir /made")
    one = container(target)
    one.create().ok()
    one.start().fails("$.hooks.startContainer[0]: startContainer hook #0 '/bin/sh': killed by signal 31")
    assert not os.path.lexists(os.path.join(one.root, one.id))


# --- What init has to do behind a filter ------------------------------------------------------------------------------

CALLS = pytest.mark.parametrize(
    "calls",
    [("write",), ("exit_group",), ("exit", "exit_group"), ("exit", "exit_group", "write")],
    ids=" ".join,
)
ACTIONS = pytest.mark.parametrize("action", ["ERRNO", "KILL_PROCESS"])
FORMAT = '$.process.args: exec: "/bin/garbage": exec format error'
# In time: none of these waits for anything, and what goes round and round never ends.
SECONDS = 20


def garbage(what: Bundle) -> Bundle:
    """The bundle with a program that is found and that execve refuses."""
    path = os.path.join(what.rootfs, "bin/garbage")
    with open(path, "wb") as stream:
        stream.write(b"\0no program")
    os.chmod(path, 0o755)
    return what.args("/bin/garbage")


def mute(calls: tuple[str, ...], no_new_privileges: bool) -> bool:
    """Whether init cannot even say that it is ready."""
    return "write" in calls and not no_new_privileges


def check_mute(result: support.Result, action: str) -> None:
    """The filter is what the error is about."""
    words = "write 'the runtime's socket': operation not permitted"
    if action != "ERRNO":
        words = "$.linux.seccomp: init was killed by signal 31, SIGSYS, at its step SYNC"
    result.fails(words, "hint: the seccomp filter has to allow what init does behind it")


@CALLS
@ACTIONS
@NO_NEW_PRIVILEGES
def test_run_says_why(
    container: ContainerFactory,
    bundle: BundleFactory,
    calls: tuple[str, ...],
    action: str,
    no_new_privileges: bool,
) -> None:
    """The words come without a call that the filter could forbid; it ends, and nothing is left."""
    one = container(forbid(garbage(bundle("probe")), action, *calls, no_new_privileges=no_new_privileges))
    result = one.run(timeout=SECONDS)
    if mute(calls, no_new_privileges):
        check_mute(result, action)
    else:
        result.fails(FORMAT)
    assert not os.path.lexists(os.path.join(one.root, one.id))


@CALLS
@ACTIONS
@NO_NEW_PRIVILEGES
def test_start_fails(
    container: ContainerFactory,
    bundle: BundleFactory,
    calls: tuple[str, ...],
    action: str,
    no_new_privileges: bool,
) -> None:
    """Another process, which has no pipe to init and may have to do with the memory they share."""
    one = container(forbid(garbage(bundle("probe")), action, *calls, no_new_privileges=no_new_privileges))
    created = one.create()
    if mute(calls, no_new_privileges):
        check_mute(created, action)
        return
    created.ok()
    one.pyrunc("start", one.id, timeout=SECONDS).fails(FORMAT)
    assert one.status() == "stopped"
    one.delete().ok()


# --- Who comes too late to see init dead ------------------------------------------------------------------------------

DOORS = pytest.mark.parametrize(
    "door", [[support.PYRUNC], [support.PYTHON, "-I", "-m", "pyrunc"]], ids=["command", "python"]
)


def start_behind_a_reaper(one: Container, door: list[str]) -> support.Result:
    """`start` that looks when init, if it has ended, has been collected, as by an engine's shim."""
    support.needs_program("strace")
    # It goes on so much later after it was told that the fifo is closed.
    late = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=poll", "-e", "inject=poll:delay_exit=500000"]
    with ThreadPoolExecutor(1) as pool:
        reaper = pool.submit(os.waitpid, one.pid, 0)
        result = support.run(*late, *door, "--root", one.root, "start", one.id, timeout=SECONDS)
        assert reaper.result(timeout=SECONDS)
    return result


@DOORS
@pytest.mark.parametrize("action", ["ERRNO", "KILL_PROCESS"])
def test_words_of_who_was_collected(
    container: ContainerFactory, bundle: BundleFactory, action: str, door: list[str]
) -> None:
    """They are where a filter that denies write does not reach."""
    one = container(forbid(garbage(bundle("probe")), action, "write"))
    one.create().ok()
    start_behind_a_reaper(one, door).fails(FORMAT)
    assert one.status() == "stopped"


@DOORS
@pytest.mark.parametrize("program", ["true", "false"])
def test_a_program_that_was_collected(
    container: ContainerFactory, bundle: BundleFactory, program: str, door: list[str]
) -> None:
    """It ran, with a filter that forbids init to speak and with none, whatever its exit status is."""
    for what in (forbid(bundle("probe"), "ERRNO", "write"), bundle("probe")):
        one = container(what.args(f"/bin/{program}"))
        one.create().ok()
        start_behind_a_reaper(one, door).ok()
        one.delete().ok()


@DOORS
def test_killed_by_its_filter_and_collected(
    container: ContainerFactory, bundle: BundleFactory, door: list[str]
) -> None:
    """It could say nothing at all, and was seen by nobody."""
    target = forbid(bundle("probe").probe("ids"), "KILL_PROCESS", "wait4", no_new_privileges=False)
    one = container(hooked(target, "exit 0"))
    one.create().ok()
    result = start_behind_a_reaper(one, door)
    result.fails("the program could not be started: init ")
    told = "was killed by signal 31\nhint: the container's seccomp filter"
    # ioctl_pidfd(2), PIDFD_INFO_EXIT
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 15):
        told = "ended and could not say why"
    assert told in result.err


@DOORS
def test_killed_during_a_hook_and_collected(
    container: ContainerFactory, bundle: BundleFactory, door: list[str]
) -> None:
    """Without a filter as well; the program has not run."""
    target = bundle("probe").args("/bin/touch", "/ran")
    one = container(hooked(target, "touch /here && exec sleep 600"))
    one.create().ok()
    here, pid = os.path.join(target.rootfs, "here"), one.pid
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(start_behind_a_reaper, one, door)
        support.wait_until(lambda: os.path.exists(here), "the hook to run")
        os.kill(pid, SIGKILL)
        start.result().fails("the program could not be started: init ")
    assert not os.path.exists(os.path.join(target.rootfs, "ran"))


@CALLS
@ACTIONS
def test_exec_says_why(
    container: ContainerFactory, bundle: BundleFactory, calls: tuple[str, ...], action: str
) -> None:
    """The same for a process that joins."""
    one = container(forbid(garbage(bundle("probe")), action, *calls).args("/bin/sleep", "600")).up()
    result = one.pyrunc("exec", one.id, "/bin/garbage", timeout=SECONDS)
    if "write" not in calls:
        result.fails('exec: "/bin/garbage": exec format error', status=255)
    elif action == "ERRNO":
        how = "exited with 1" if len(calls) == 1 else "was killed by signal 4"
        result.fails(f"init {how} before its program ran", "hint: the seccomp filter", status=255)
    else:
        result.fails("$.linux.seccomp: init was killed by signal 31, SIGSYS\n", "hint: ", status=255)
    assert one.status() == "running"


@pytest.mark.slow
def test_a_quick_program_has_started(container: ContainerFactory, bundle: BundleFactory) -> None:
    """One that has ended before start looks is none that never ran."""
    for _ in rounds.loop(20):
        one = container(forbid(bundle("probe"), "ERRNO", "write").args("/bin/true"))
        one.create().ok()
        one.start().ok()
        assert one.wait() == 0
        one.delete().ok()


@pytest.mark.parametrize("action", ["ERRNO", "KILL_PROCESS", "KILL_THREAD", "TRAP"])
@NO_NEW_PRIVILEGES
def test_no_execve(
    container: ContainerFactory, bundle: BundleFactory, action: str, no_new_privileges: bool
) -> None:
    """Known before anything is made: the call and what the filter answers are named."""
    one = container(
        forbid(bundle("probe").probe("ids"), action, "execve", no_new_privileges=no_new_privileges)
    )
    words = f"$.linux.seccomp: the filter answers execve with SCMP_ACT_{action}: no program could be started"
    for _ in range(2):
        one.create().fails(words, "hint: allow execve")
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_a_default_without_execve(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A list of what is allowed that lacks the one call; whatever libseccomp makes of the architectures."""
    target = bundle("probe").probe("ids")
    rule: support.Json = {"names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"}
    target.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule]}
    container(target).run().fails("the filter answers execve with SCMP_ACT_KILL_PROCESS")


@pytest.mark.parametrize("action", ["ERRNO", "KILL_PROCESS"])
def test_a_hook_that_cannot_exit(container: ContainerFactory, bundle: BundleFactory, action: str) -> None:
    """Its process has the filter before its execve, and ends all the same when that fails."""
    target = forbid(garbage(bundle("probe")), action, "exit", "exit_group", "write").probe("ids")
    target.mapping("hooks")["startContainer"] = [{"path": "/bin/garbage"}]
    one = container(target)
    one.create().ok()
    signal = 4 if action == "ERRNO" else 31
    words = f"startContainer hook #0 '/bin/garbage': killed by signal {signal}"
    one.pyrunc("start", one.id, timeout=SECONDS).fails(words)


# --- Answers that are none --------------------------------------------------------------------------------------------
# errnoRet is any number: EINTR asks to try again, 0 says that it has been done.

INTERRUPTED, DONE = 4, 0
ANSWERS = pytest.mark.parametrize("answer", [INTERRUPTED, DONE], ids=["EINTR", "done"])


def answered(what: Bundle, answer: int, *calls: str) -> Bundle:
    """The bundle with a filter that init has to live with."""
    forbid(what, "ERRNO", *calls, no_new_privileges=False)
    rule = what.mapping("linux", "seccomp")["syscalls"][0]  # type: ignore[index]
    rule["errnoRet"] = answer  # type: ignore[index,call-overload]
    return what


@pytest.mark.parametrize("call", ["read", "write"])
@ANSWERS
def test_init_tries_again_for_a_while(
    container: ContainerFactory, bundle: BundleFactory, call: str, answer: int
) -> None:
    """And then it ends and has said why."""
    one = container(answered(bundle("probe").probe("ids"), answer, call))
    result = one.run(timeout=SECONDS)
    assert result.status == 1, result
    assert result.err != "", result
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_words_of_a_failed_execve(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The same when all that is left to do is to tell."""
    target = forbid(garbage(bundle("probe")), "ERRNO", "write")
    target.mapping("linux", "seccomp")["syscalls"][0]["errnoRet"] = INTERRUPTED  # type: ignore[index,call-overload]
    container(target).run(timeout=SECONDS).fails(FORMAT)


@pytest.mark.parametrize("answer", [1, INTERRUPTED, DONE], ids=["EPERM", "EINTR", "done"])
def test_a_hook_whose_status_is_unknown(
    container: ContainerFactory, bundle: BundleFactory, answer: int
) -> None:
    """One that fails is none that succeeded."""
    one = container(hooked(answered(bundle("probe").probe("ids"), answer, "wait4"), "exit 3"))
    one.create().ok()
    one.pyrunc("start", one.id, timeout=SECONDS).fails("startContainer hook #0 '/bin/sh': wait4: ")
    assert not os.path.lexists(os.path.join(one.root, one.id))


@pytest.mark.slow
@pytest.mark.parametrize("answer", [1, DONE], ids=["EPERM", "done"])
def test_a_hook_that_cannot_be_killed(
    container: ContainerFactory, bundle: BundleFactory, answer: int
) -> None:
    """Its time is over all the same; the end of init takes it along."""
    target = answered(bundle("probe").probe("ids"), answer, "kill")
    hook: support.Json = {"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}
    target.mapping("hooks")["startContainer"] = [hook]
    one = container(target)
    one.create().ok()
    one.pyrunc("start", one.id, timeout=SECONDS).fails("hook ran past specified timeout of 1.0s")


@pytest.mark.parametrize("answer", [1, INTERRUPTED], ids=["EPERM", "EINTR"])
def test_a_hook_that_cannot_be_waited_for(
    container: ContainerFactory, bundle: BundleFactory, answer: int
) -> None:
    """No timeout: it is said what was tried."""
    one = container(hooked(answered(bundle("probe").probe("ids"), answer, "poll"), "exec sleep 600"))
    one.create().ok()
    one.pyrunc("start", one.id, timeout=SECONDS).fails("startContainer hook #0 '/bin/sh': poll: ")


@pytest.mark.parametrize("answer", [1, DONE], ids=["EPERM", "done"])
def test_no_close(container: ContainerFactory, bundle: BundleFactory, answer: int) -> None:
    """Hooks end when they have ended; exec takes nobody into the container who still has the runtime's socket."""
    target = hooked(answered(bundle("probe"), answer, "close"), "exit 0").args("/bin/sleep", "600")
    one = container(target)
    one.create().ok()
    one.pyrunc("start", one.id, timeout=SECONDS).ok()
    result = one.pyrunc("exec", one.id, "/bin/true", timeout=SECONDS)
    result.fails("close_range 'the runtime's socket': operation not permitted", status=255)
