"""containerd's own client: the life of a container, more processes in it, signals, what is measured."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.image import IMAGE
from engines.scenario import EXEC_WORDS
from terminals import Screen

if TYPE_CHECKING:
    from engines.containerd import Containerd
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "containerd"
AROUND = f"grep -E 'Cap|NoNew|Seccomp:|SigIgn|SigBlk' /proc/self/status; ls /proc/self/fd; {facts.CGROUP}"


def test_run(ctd: Containerd, seen: Seen) -> None:
    """`ctr run` shows what the program writes and ends with its exit status."""
    seen.command("run", ctd.run("sh", "-c", "echo out; echo err >&2; exit 7")).fails("err", status=7)
    assert not ctd.left()


@facts.COVERS
def test_around(ctd: Containerd, seen: Seen) -> None:
    """What a program sees of its container: ids, capabilities, mounts, devices, limits, environment, cgroup."""
    facts.note(seen, ctd.run(*facts.COMMAND))


def test_detached(ctd: Containerd, seen: Seen) -> None:
    """`ctr run --detach` comes back at once; the task is listed as running, then as stopped with its status."""
    one = ctd.id()
    seen.command("run", ctd.start(one, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")).ok()
    seen.value("running", ctd.status(one))
    seen.command("kill", ctd.ctr("task", "kill", one)).ok()
    ctd.wait_status(one, "STOPPED")
    assert "exit code 9" in seen.command("delete", ctd.ctr("task", "delete", one)).ok().err
    seen.command("again", ctd.ctr("task", "delete", one)).fails("not found")
    seen.command("container", ctd.ctr("container", "delete", one)).ok()


def test_exec(ctd: Containerd, seen: Seen) -> None:
    """`ctr task exec`: output, exit status, working directory, user; the container goes on."""
    one = ctd.id()
    ctd.start(one, "sleep", "1000").ok()
    seen.command("exec", ctd.exec(one, "sh", "-c", "echo out; echo err >&2; pwd; id; exit 3")).fails(
        status=3
    )
    options = ("--cwd", "/tmp", "--user", "1000:1000")
    seen.command("options", ctd.exec(one, "sh", "-c", "pwd; id; env | sort", options=options)).ok()
    seen.command(
        "around",
        ctd.exec(one, "sh", "-c", AROUND),
    )
    seen.value("status", ctd.status(one))
    assert seen.values["status"] == "RUNNING"


def test_exec_detached(ctd: Containerd, seen: Seen) -> None:
    """An `exec --detach` leaves its process in the container; killing it by name leaves the container alone."""
    one = ctd.id()
    ctd.start(one, "sleep", "1000").ok()
    seen.command(
        "exec", ctd.ctr("task", "exec", "--detach", "--exec-id", "second", one, "sleep", "2000")
    ).ok()
    seen.value("processes", len(ctd.ctr("task", "ps", one).ok().out.splitlines()) - 1)
    seen.command("kill", ctd.ctr("task", "kill", "--exec-id", "second", "--signal", "KILL", one)).ok()
    support.wait_until(
        lambda: "sleep 2000" not in ctd.exec(one, "ps").ok().out, "the end of the second process"
    )
    seen.value("status", ctd.status(one))


REFUSED = {
    "missing": ((), "/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-in-path": ((), "no-such", 'exec: "no-such": executable file not found in $PATH'),
    "not-executable": ((), "/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    "directory": ((), "/etc", "permission denied"),
    "cwd": (("--cwd", "/no/directory"), "true", "no such file or directory"),
}


@EXEC_WORDS
@pytest.mark.parametrize("name", REFUSED)
def test_exec_refused(ctd: Containerd, seen: Seen, name: str) -> None:
    """`ctr task exec` of what cannot be executed says why"""
    one = ctd.id()
    ctd.start(one, "sleep", "1000").ok()
    options, program, reason = REFUSED[name]
    seen.refusal("exec", ctd.exec(one, program, options=options), "OCI runtime exec failed", reason)
    seen.value("status", ctd.status(one))


def test_pause(ctd: Containerd, seen: Seen) -> None:
    """A paused container stands still and goes on when it is resumed."""
    one = ctd.id()
    ctd.start(one, "sh", "-c", "while :; do echo x >>/tmp/ticks; sleep 0.05; done").ok()

    def ticks() -> int:
        return os.path.getsize(f"/proc/{pid}/root/tmp/ticks")

    pid = ctd.pid(one)
    support.wait_until(lambda: os.path.exists(f"/proc/{pid}/root/tmp/ticks"), "the first tick")
    seen.command("pause", ctd.ctr("task", "pause", one)).ok()
    seen.value("paused", ctd.status(one))
    before = ticks()
    time.sleep(0.3)
    assert ticks() == before
    seen.command("exec", ctd.exec(one, "true"))
    seen.command("resume", ctd.ctr("task", "resume", one)).ok()
    seen.value("resumed", ctd.status(one))
    support.wait_until(lambda: ticks() > before, "ticks after the pause")


@pytest.mark.parametrize("signal", ["TERM", "KILL", "USR1", "9", "SIGHUP"])
def test_kill(ctd: Containerd, seen: Seen, signal: str) -> None:
    """`ctr task kill` by name and number reaches the first process, which tells by its exit status."""
    one = ctd.id()
    traps = 'for s in TERM USR1 HUP; do trap "exit $(kill -l $s)" $s; done'
    script = f"{traps}; echo up >/tmp/up; while :; do sleep 0.05; done"
    ctd.start(one, "sh", "-c", script).ok()
    pid = ctd.pid(one)
    support.wait_until(lambda: os.path.exists(f"/proc/{pid}/root/tmp/up"), "the traps")
    seen.command("kill", ctd.ctr("task", "kill", "--signal", signal, one)).ok()
    ctd.wait_status(one, "STOPPED")
    seen.command("dead", ctd.ctr("task", "kill", "--signal", signal, one))
    seen.command("delete", ctd.ctr("task", "delete", one))


def test_kill_all(ctd: Containerd, seen: Seen) -> None:
    """`ctr task kill --all` reaches every process of the container."""
    one = ctd.id()
    ctd.start(one, "sh", "-c", "sleep 1000 & sleep 2000; true").ok()
    support.wait_until(lambda: len(ctd.ctr("task", "ps", one).ok().out.splitlines()) == 4, "three processes")
    seen.command("kill", ctd.ctr("task", "kill", "--all", "--signal", "KILL", one)).ok()
    ctd.wait_status(one, "STOPPED")
    seen.command("delete", ctd.ctr("task", "delete", one)).ok()


def test_ps(ctd: Containerd, seen: Seen) -> None:
    """`ctr task ps` lists the pids of the container as the host has them, the first process among them."""
    one = ctd.id()
    ctd.start(one, "sh", "-c", "sleep 1000 & sleep 2000; true").ok()
    support.wait_until(lambda: len(ctd.ctr("task", "ps", one).ok().out.splitlines()) == 4, "three processes")
    lines = ctd.ctr("task", "ps", one).ok().out.splitlines()
    pids = [int(line.split()[0]) for line in lines[1:]]
    seen.value("head", " ".join(lines[0].split()))
    seen.value("first", pids[0] == ctd.pid(one))
    assert ctd.pid(one) in pids and not any(support.process_gone(pid) for pid in pids)


def test_metrics(ctd: Containerd, seen: Seen) -> None:
    """`ctr task metrics` finds the container's cgroups: the same figures are there, and they are its own."""
    one = ctd.id()
    limit = 64 << 20
    ctd.start(one, "sleep", "1000", options=("--detach", "--memory-limit", str(limit))).ok()
    ctd.area.needs_mounted_cgroups()
    # The shim has none before it has read the cgroups for the first time.
    support.wait_until(lambda: ctd.ctr("task", "metrics", one).status == 0, "metrics")
    table = ctd.ctr("task", "metrics", one).ok().out
    names = [line.split()[0] for line in table.splitlines() if line.strip() and not line.startswith(one)]
    seen.value("names", " ".join(name for name in names if name not in {"ID", "TIMESTAMP"}))
    figures = json.loads(ctd.ctr("task", "metrics", "--format", "json", one).ok().out)
    seen.value("figures", " ".join(sorted(figures)))
    seen.value("pids", figures["pids"]["current"])
    seen.value("limit", figures["memory"]["usage"]["limit"])
    assert figures["memory"]["usage"]["limit"] == limit and figures["memory"]["usage"]["usage"] > 0


def test_terminal(ctd: Containerd, seen: Seen) -> None:
    """`ctr run --tty`: the program has a terminal of the caller's size and its exit status comes back."""
    argv = ["ctr", "--namespace", ctd.area.name, "run", "--rm", "--tty", "--runc-binary", ctd.area.runtime]
    with Screen(
        [*ctd.area.prefix, *argv, "localhost/busybox:1", ctd.id(), "sh"], rows=31, columns=101
    ) as screen:
        screen.expect("# ", timeout=30)
        # The answer is put together, or the echo of the question would be taken for it.
        screen.send("echo t=$(tty) s=$(stty size) e''nd\n")
        answer = screen.expect(" end\r")
        seen.value("terminal", answer.splitlines()[-1])
        screen.send("exit 5\n")
        seen.value("status", screen.wait(timeout=30))
    assert seen.values["status"] == 5 and "t=/dev/" in answer


def test_exec_terminal(ctd: Containerd, seen: Seen) -> None:
    """`ctr task exec --tty` gives one more process a terminal of its own."""
    one = ctd.id()
    ctd.start(one, "sleep", "1000").ok()
    argv = ["ctr", "--namespace", ctd.area.name, "task", "exec", "--tty", "--exec-id", "shell", one, "sh"]
    with Screen([*ctd.area.prefix, *argv]) as screen:
        screen.expect("# ", timeout=30)
        screen.send("echo t=$(tty) e''nd\n")
        answer = screen.expect(" end\r")
        seen.value("terminal", answer.splitlines()[-1])
        screen.send("exit 6\n")
        seen.value("status", screen.wait(timeout=30))
    assert seen.values["status"] == 6 and "t=/dev/" in answer


def test_standard_input(ctd: Containerd, seen: Seen) -> None:
    """What the client reads reaches the program, and so does its end."""
    # An end before the task runs is lost with any runtime: the pause belongs to containerd.
    script = '(echo hello; sleep 1) | ctr --namespace "$1" run --rm --runc-binary "$2" localhost/busybox:1 "$3" cat'
    result = ctd.area.run("sh", "-c", script, "sh", ctd.area.name, ctd.area.runtime, ctd.id())
    assert seen.command("cat", result).ok().out == "hello\n"


def test_force_delete(ctd: Containerd, seen: Seen) -> None:
    """`ctr task delete` refuses a running container and takes it away with --force."""
    one = ctd.id()
    ctd.start(one, "sleep", "1000").ok()
    pid = ctd.pid(one)
    seen.command("delete", ctd.ctr("task", "delete", one)).fails()
    seen.command("force", ctd.ctr("task", "delete", "--force", one))
    seen.value("gone", support.process_gone(pid))
    assert support.process_gone(pid)


def test_checkpoint(ctd: Containerd, seen: Seen) -> None:
    """`ctr task checkpoint` where CRIU cannot work: refused, and the container goes on as if nothing had been."""
    one = ctd.id()
    ctd.start(one, "sleep", "1000").ok()
    result = ctd.ctr("task", "checkpoint", "--image-path", ctd.area.path(f"image-{one}"), one)
    seen.value("status", result.status)
    seen.value("task", ctd.status(one))
    seen.command("exec", ctd.exec(one, "echo", "alive")).ok()


def test_created_then_started(ctd: Containerd, seen: Seen) -> None:
    """`ctr container create` and `task start` in two steps; once it has ended, it can be started anew."""
    one = ctd.id()
    ctd.ctr("container", "create", IMAGE, one, "ls", "/etc/passwd", "/no/such").ok()
    for number in ("first", "second"):
        result = ctd.ctr("task", "start", one)
        assert seen.command(number, result).fails("/no/such").out == "/etc/passwd\n"
    seen.value("status", ctd.status(one))


def test_root_of_the_runtime(ctd: Containerd, seen: Seen) -> None:
    """`ctr run --runc-root` keeps the runtime's state where it is told, and nothing is left there."""
    one, root = ctd.id(), ctd.area.path("elsewhere")
    ctd.start(one, "sleep", "1000", options=("--detach", "--runc-root", root)).ok()
    state = os.path.join(root, ctd.area.name)
    seen.value("there", os.path.isdir(os.path.join(state, one)))
    seen.command("exec", ctd.exec(one, "echo", "here")).ok()
    seen.command("delete", ctd.ctr("task", "delete", "--force", one))
    seen.value("left", one in os.listdir(state))
    assert seen.values["there"] is True and seen.values["left"] is False


def test_same_name(ctd: Containerd, seen: Seen) -> None:
    """A second container with the same name is refused; the first one stays."""
    one = ctd.id()
    ctd.start(one, "sleep", "1000").ok()
    seen.command("second", ctd.start(one, "true")).fails("already exists")
    seen.value("status", ctd.status(one))
