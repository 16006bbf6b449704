"""A CRIU that dies, hangs or lies: neither verb hangs, or harms anybody.

A checkpoint that fails leaves the container as it was, a restore that fails leaves nothing. fake_criu.py is the CRIU.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import fake_criu
import rounds
import support
import terminals
from criu_scene import LIMIT, Scene
from machines import patience

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_criu import Act

pytestmark = pytest.mark.root


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process of the host that nobody has any business with."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        assert process.poll() is None, "somebody ended it"
        process.kill()


# --- checkpoint -------------------------------------------------------------------------------------------------------

LOCKED: Act = ("notify", "network-lock")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("acts", "texts"),
    [
        ([("die", 9)], ["criu failed: unexpected EOF: it was killed by SIGKILL"]),
        ([LOCKED, ("die", 11)], ["criu failed: unexpected EOF: it was killed by SIGSEGV"]),
        ([("exit", 3)], ["criu failed: unexpected EOF: it exited with 3"]),
        ([("fork",), ("die", 9)], ["killed by SIGKILL"]),
        ([("fork", 1), ("die", 9)], ["killed by SIGKILL"]),
        ([("fork",), ("fork", 1), ("hang",)], ["criu failed: it has done nothing for 1.5 s"]),
        ([("freeze",), ("die", 9)], ["SIGKILL\n", "note: criu left the container frozen, it goes on now"]),
        ([("freeze",), LOCKED, ("fork",), ("die", 9)], ["note: criu left the container frozen"]),
        ([("freeze",), ("hang",)], ["done nothing for 1.5 s", "note: criu left the container frozen"]),
        (
            [("freeze",), ("answer", "DUMP", 0)],
            ["type DUMP errno 0", "note: criu left the container frozen"],
        ),
        ([("die", 19)], ["done nothing for 1.5 s", "hint: criu was stopped by a signal"]),
        (
            [("freeze",), ("spin",)],
            ["criu failed: for 3 s it has read nothing, and written no image", "note: criu left"],
        ),
        ([("close",), ("hang",)], ["criu failed: unexpected EOF: it closed its socket"]),
        ([("answer", "DUMP", 0), ("hang",)], ["criu failed: type DUMP errno 0"]),
        ([("raw", "ff")], ["criu failed: its answer is no message of its protocol"]),
        ([("raw", "00", 70000)], ["criu failed: a message is longer than those of its protocol"]),
        ([("raw", "08" + "ff" * 1000, 60)], ["criu failed: its answer is no message of its protocol"]),
        ([("raw", "0801100142ffffffff0f")], ["criu failed: its answer is no message of its protocol"]),
        ([("answer", "VERSION", 1)], ["criu failed: the answer to DUMP is one to VERSION"]),
        ([("answer", "", 1)], ["criu failed: the answer to DUMP is one to EMPTY"]),
        ([("answer", "DUMP", 0, None, "x" * 5000)], ["criu failed: type DUMP errno 0: xxx"]),
        ([("answer", "DUMP", 1)], ["criu failed: it reports success and has written no images"]),
        ([("images",), ("answer", "DUMP", 1)], ["reports success and has not ended the container"]),
        ([("flood", "post-dump")], ["criu failed: it does not read our answers"]),
        (
            [("with_fds", "file", 2), ("tell", "x"), ("hang",)],
            ["a message is longer than those of its protocol"],
        ),
    ],
    ids=lambda value: "-".join(str(act[0]) for act in value) if isinstance(value[0], tuple) else "",
)
def test_a_dump_that_fails(running: Scene, acts: list[Act], texts: list[str]) -> None:
    """However it fails, it is said in time, and the container goes on."""
    running.saves(acts).fails(*texts)
    running.goes_on()
    assert not support.mounts_below(running.scratch)


def test_a_paused_container_stays_paused(running: Scene) -> None:
    """CRIU thaws it to look at it, and freezes it again unless it is killed."""
    running.one.pyrunc("pause", running.one.id).ok()
    result = running.saves([("freeze", "THAWED"), ("die", 9)])
    result.fails("note: criu left the container running, it is paused again")
    running.goes_on("paused")


@pytest.mark.parametrize("options", [["--leave-running"], ["--pre-dump"]], ids=lambda value: value[0])
def test_left_running_it_is_not_frozen(running: Scene, options: list[str]) -> None:
    """An honest answer, and a container that stands still: it does not stay so."""
    kind = "PRE_DUMP" if options == ["--pre-dump"] else "DUMP"
    acts = [("images",), ("freeze",), ("answer", kind, 1)]
    running.saves(acts, *options).ok()
    running.goes_on()


def test_a_dump_that_succeeds(running: Scene) -> None:
    """By the same program: the failures above are not its own."""
    running.saves(fake_criu.SAVED).ok()
    running.one.wait()
    os.unlink(running.one.pid_file)
    running.left_nothing()
    assert sorted(os.listdir(running.image)) == ["descriptors.json", "inventory.img"]


def test_an_older_image_is_no_success(running: Scene) -> None:
    """What lies there from the last dump was not written by this one."""
    running.saves([("images",), ("answer", "DUMP", 1)], "--leave-running").ok()
    result = running.saves([("end_container",), ("answer", "DUMP", 1)])
    result.fails(
        "it reports success and has written no images", "note: the container's init has ended meanwhile"
    )
    assert running.one.status() == "stopped"


@pytest.mark.parametrize("tool", ["iptables-restore", "ip6tables-restore", "nft"])
def test_the_network_is_unlocked(running: Scene, tool: str) -> None:
    """The rules of a CRIU that was killed go, all others stay."""
    support.needs_program(tool)
    inside = ["nsenter", f"--net=/proc/{running.one.pid}/ns/net"]
    look = ["nft", "list", "ruleset"] if tool == "nft" else [tool.replace("-restore", ""), "-S"]
    if tool == "nft":
        rules = "table inet CRIU-1-a { chain c { type filter hook output priority 0; policy drop; }; }"
        mine = "table inet mine { chain CRIU { }; }"
        load = ["nft", "-f", "-"]
    else:
        rules = "*filter\n:CRIU - [0:0]\n-I INPUT -j CRIU\n-I OUTPUT -j CRIU\n-A CRIU -j DROP\nCOMMIT\n"
        mine = "*filter\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n"
        load = [tool, "--noflush"]
    loads = support.run(*inside, *load, stdin=mine)
    support.needs(loads.status == 0, f"a kernel with what {tool} wants")
    before = support.run(*inside, *look).ok().out
    # Twice: a CRIU before this one was killed, too.
    for _ in range(1 if tool == "nft" else 2):
        support.run(*inside, *load, stdin=rules).ok()
    assert support.run(*inside, *look).ok().out != before
    result = running.saves([LOCKED, ("die", 9)])
    result.fails("note: criu left the network of the container locked, it is unlocked now")
    assert support.run(*inside, *look).ok().out == before
    running.goes_on()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["VERSION", "FEATURE_CHECK"])
@pytest.mark.parametrize(
    ("acts", "text"),
    [
        ([("die", 9)], "unexpected EOF: it was killed by SIGKILL"),
        ([("fork",), ("die", 9)], "unexpected EOF: it was killed by SIGKILL"),
        ([("hang",)], "criu failed: no answer within 1.5 s"),
        ([("spin",)], "criu failed: no answer within 1.5 s"),
        ([("raw", "ff")], "no message of its protocol"),
        ([("answer", "DUMP", 1)], "is one to DUMP"),
    ],
    ids=lambda value: value[0][0] if isinstance(value, list) else "",
)
def test_questions(running: Scene, kind: str, acts: list[Act], text: str) -> None:
    """What comes before a dump is no easier to be stuck in."""
    words = ["checkpoint", "--pre-dump", "--image-path", running.image, running.one.id]
    support.run(*running.argv({kind: acts}, *words), timeout=LIMIT).fails(text)
    running.goes_on()
    assert not os.path.exists(running.image)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("what", ["hang", "spin", "freeze"])
def test_interrupted_dumps(running: Scene, scratch: str, number: signal.Signals, what: str) -> None:
    """Whoever ends checkpoint, once or again, gets the container as it was."""
    mark = os.path.join(scratch, "mark")
    acts: list[Act] = [("fork", 1), ("touch", mark), ("hang",)]
    if what == "spin":
        acts[-1] = ("spin",)
    elif what == "freeze":
        acts.insert(1, ("freeze",))
    words = ["checkpoint", "--image-path", running.image, running.one.id]
    with running.begins({"DUMP": acts}, *words) as process:
        support.wait_until(lambda: os.path.exists(mark) or process.poll() is not None, "CRIU works")
        process.send_signal(number)
        # One that works at undoing it is not waited for when we are asked again.
        while what == "spin" and process.poll() is None:
            select_for(0.2)
            process.send_signal(number)
        _, errors = process.communicate(timeout=patience(LIMIT))
    assert process.returncode == 1, errors
    assert f"interrupted by {number.name}".encode() in errors
    running.goes_on()


def select_for(seconds: float) -> None:
    """Let somebody else work."""
    support.comes_true(lambda: False, seconds)


@pytest.mark.slow
def test_killed_at_any_moment(running: Scene) -> None:
    """CRIU and its child, at random moments of a dump that freezes and thaws."""
    chance = rounds.chance()
    for _ in rounds.loop(10):
        steps: list[Act] = [
            *(("freeze",), LOCKED, ("fork",), ("images",), ("notify", "post-dump"), ("freeze", "THAWED")),
            *(("notify", "network-unlock"), ("answer", "DUMP", 1)),
        ]
        steps.insert(chance.randrange(len(steps)), chance.choice([("die", 9), ("exit", 0), ("die", 6)]))
        running.saves(steps, "--leave-running").fails("criu failed: unexpected EOF: it ")
        running.goes_on()
        shutil.rmtree(running.criu)


def test_status_fd_hears_once(running: Scene) -> None:
    """A CRIU that says it twice does not reach the next descriptor that has the number."""
    reader, writer = os.pipe()
    acts = [("notify", "status-ready"), ("notify", "status-ready"), ("answer", "DUMP", 0)]
    words = ["checkpoint", "--lazy-pages", "--status-fd", str(writer), "--image-path", running.image]
    argv = running.argv({"DUMP": acts}, *words, running.one.id)
    result = support.run(*argv, pass_fds=[writer], timeout=LIMIT)
    os.close(writer)
    result.fails("type DUMP errno 0")
    assert os.read(reader, 10) == b"\0"
    os.close(reader)
    running.goes_on()


@pytest.mark.slow
def test_status_fd_that_nobody_reads(running: Scene) -> None:
    """A full pipe does not hold the container still for ever."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    acts = [("notify", "status-ready"), ("answer", "DUMP", 1)]
    words = ["checkpoint", "--lazy-pages", "--status-fd", str(writer), "--image-path", running.image]
    argv = running.argv({"DUMP": acts}, *words, running.one.id)
    support.run(*argv, pass_fds=[writer], timeout=LIMIT).fails(f"nobody reads from --status-fd {writer}")
    os.close(reader)
    os.close(writer)
    running.goes_on()


# --- restore ----------------------------------------------------------------------------------------------------------

MADE: list[Act] = [("make_init",), ("notify", "setup-namespaces", "init")]
READY: Act = ("notify", "post-restore", "init")
DONE: Act = ("answer", "RESTORE", 1, "init")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("acts", "text"),
    [
        ([("die", 9)], "unexpected EOF: it was killed by SIGKILL"),
        ([("fork",), ("die", 9)], "unexpected EOF: it was killed by SIGKILL"),
        ([("fork", 1), ("die", 19)], "done nothing for 1.5 s"),
        ([("make_init",), ("die", 9)], "unexpected EOF: it was killed by SIGKILL"),
        ([*MADE, ("fork",), ("die", 9)], "unexpected EOF: it was killed by SIGKILL"),
        ([*MADE, ("hang",)], "done nothing for 1.5 s"),
        ([*MADE, ("spin",)], "criu failed: for 3 s it has read nothing, and written no image"),
        ([*MADE, ("die", 19)], "done nothing for 1.5 s"),
        ([*MADE, READY, ("die", 9)], "unexpected EOF: it was killed by SIGKILL"),
        # Whichever comes first: its end, or that it stands still.
        ([*MADE, READY, ("freeze_own",), ("fork",), ("die", 9)], "criu failed: "),
        ([*MADE, READY, ("freeze_own",), ("hang",)], "done nothing for 1.5 s"),
        ([*MADE, READY, ("answer", "RESTORE", 0, "init")], "criu failed: type RESTORE errno 0"),
        ([*MADE, DONE], "criu failed: it reports success without post-restore"),
        ([*MADE, READY, ("answer", "DUMP", 1, "init")], "the answer to RESTORE is one to DUMP"),
        ([*MADE, READY, READY, DONE], "criu failed: post-restore comes too late, or once more"),
        ([*MADE, MADE[1], READY, DONE], "criu failed: setup-namespaces comes too late, or once more"),
        (
            [("make_init",), READY, MADE[1], DONE],
            "criu failed: setup-namespaces comes too late, or once more",
        ),
        ([*MADE, ("make_init",), READY, DONE], "criu failed: the container's init is process "),
        ([*MADE, READY, ("make_init",), DONE], "criu failed: the container's init is process "),
        ([("notify", "setup-namespaces", "self")], "it was there before"),
        ([("notify", "post-restore", "self")], "it was there before"),
        ([("notify", "setup-namespaces")], "process 0: there is none"),
        ([("notify", "setup-namespaces", 1)], "process 1: it is no child of ours"),
        ([("notify", "setup-namespaces", -1)], "process -1: there is none"),
        ([("notify", "setup-namespaces", 1 << 30)], f"process {1 << 30}: there is none"),
        ([("notify", "setup-namespaces", 1 << 62)], f"process {1 << 62}: there is none"),
        ([("notify", "setup-namespaces", "parent")], ": it is no child of ours"),
        ([("fork",), ("notify", "setup-namespaces", "child")], ": it is no child of ours"),
        ([("make_init",), ("leave_cgroup",), MADE[1]], ": it is not in the container's cgroup"),
        ([("answer", "RESTORE", 1)], "is to be process 0: there is none"),
        ([("flood", "post-resume")], "criu failed: it does not read our answers"),
        ([*MADE, ("with_fds", "pty"), ("notify", "orphan-pts-master")], "the configuration has none"),
    ],
    ids=lambda value: "-".join(str(act[0]) for act in value) if isinstance(value, list) else "",
)
def test_a_restore_that_fails(saved: Scene, acts: list[Act], text: str) -> None:
    """However it fails, it is said in time, and nothing is left."""
    saved.comes_back(acts).fails(text)
    saved.left_nothing()


@pytest.mark.parametrize("script", ["setup-namespaces", "post-restore"])
def test_other_processes_are_left_alone(saved: Scene, bystander: int, script: str) -> None:
    """CRIU names one of the host as the container's init: it is neither followed nor killed."""
    result = saved.comes_back([("notify", script, bystander), ("die", 9)])
    result.fails(f"the container's init is to be process {bystander}: it is no child of ours")
    saved.left_nothing()


@pytest.mark.slow
@pytest.mark.parametrize("acts", [[], [("hang",)], [("fork",), ("die", 9)]], ids=["ends", "hangs", "dies"])
def test_a_restore_that_succeeds(saved: Scene, acts: list[Act]) -> None:
    """What CRIU does after its answer does not matter any more."""
    saved.comes_back([*MADE, READY, DONE, *acts]).ok()
    assert saved.one.status() == "running"
    saved.one.kill("KILL").ok()
    saved.one.wait()
    saved.one.delete().ok()
    for pid in saved.left():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["criu", "hook"])
@pytest.mark.parametrize("attached", [False, True], ids=["detached", "attached"])
def test_interrupted_restores(saved: Scene, scratch: str, where: str, attached: bool) -> None:
    """Whoever ends restore while CRIU works, or a hook, finds nothing of it."""
    mark = os.path.join(scratch, "mark")
    acts: list[Act] = [*MADE, ("touch", mark), ("hang",)]
    if where == "hook":
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo >{mark}; exec sleep 600"]}
        saved.one.bundle.mapping("hooks")["createRuntime"] = [hook]  # type: ignore[list-item]
        saved.one.bundle.write()
    words = ["restore", "--image-path", saved.image, "--bundle", saved.one.bundle.path]
    words += ["--pid-file", saved.one.pid_file, *([] if attached else ["--detach"]), saved.one.id]
    with saved.begins({"RESTORE": acts}, *words) as process:
        support.wait_until(lambda: os.path.exists(mark) or process.poll() is not None, "it has begun")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=patience(LIMIT))
    assert process.returncode == 1, errors
    assert b"interrupted by SIGTERM" in errors
    saved.left_nothing()


@pytest.mark.parametrize(
    ("fds", "text"),
    [
        ([], "what comes with orphan-pts-master is no terminal"),
        ([("with_fds", "file")], "what comes with orphan-pts-master is no terminal"),
        ([("with_fds", "pty", 2)], "a message is longer than those of its protocol"),
        ([("with_fds", "pty", 9)], "a message is longer than those of its protocol"),
    ],
    ids=["nothing", "file", "two", "many"],
)
def test_what_is_no_terminal(saved: Scene, scratch: str, fds: list[Act], text: str) -> None:
    """The console socket's owner gets the master of a terminal, or nothing."""
    saved.one.bundle.mapping("process")["terminal"] = True
    saved.one.bundle.write()
    path = os.path.join(scratch, "fd.sock")
    made = terminals.FdSocket(path)
    try:
        acts = [*MADE, *fds, ("notify", "orphan-pts-master"), READY, DONE]
        saved.comes_back(acts, "--console-socket", path).fails(text)
    finally:
        made.close()
    saved.left_nothing()
