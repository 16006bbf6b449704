"""Scenarios for any Client: a container's life, more processes in it, signals, restarts, what is measured."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.image import IMAGE
from engines.scenario import EXEC_WORDS
from terminals import Screen

if TYPE_CHECKING:
    from engines.client import Client
    from engines.scenario import Seen

AROUND = f"grep -E 'Cap|NoNew|Seccomp:|SigIgn|SigBlk' /proc/self/status; ls /proc/self/fd; {facts.CGROUP}"


def test_run(client: Client, seen: Seen) -> None:
    """`run` shows what the program writes and ends with its exit status."""
    result = client.run("sh", "-c", "echo out; echo err >&2; exit 7")
    seen.command("run", result).fails("err", status=7)
    assert result.out == "out\n" and not client.left()


@facts.COVERS
def test_around(client: Client, seen: Seen) -> None:
    """What a program sees of its container: ids, capabilities, mounts, devices, limits, environment, cgroup."""
    facts.note(seen, client.run(*facts.COMMAND))


def test_logs(client: Client, seen: Seen) -> None:
    """`logs` of a container in the background, while it runs and when it has ended."""
    one = client.start(
        "sh", "-c", "echo out; echo err >&2; until [ -e /tmp/on ]; do sleep 0.05; done; echo last"
    )

    def shown() -> str:
        logs = client.do("logs", one).ok()
        return logs.out + logs.err

    support.wait_until(lambda: shown() == "out\nerr\n", "the first lines")
    seen.command("running", client.do("logs", one)).ok()
    client.do("exec", one, "touch", "/tmp/on").ok()
    seen.command("wait", client.do("wait", one)).ok()
    assert seen.command("ended", client.do("logs", one)).ok().out == "out\nlast\n"
    seen.value("outcome", client.outcome(one))


def test_exec(client: Client, seen: Seen) -> None:
    """`exec`: output, exit status, user, directory, environment; the container goes on."""
    one = client.start("sleep", "1000")
    argv = ("exec", one, "sh", "-c", "echo out; echo err >&2; pwd; id; exit 3")
    seen.command("exec", client.do(*argv)).fails(status=3)
    options = ("--user", "1000:2000", "--workdir", "/tmp", "--env", "A=b")
    seen.command("options", client.do("exec", *options, one, "sh", "-c", "pwd; id; env | sort")).ok()
    seen.command("around", client.do("exec", one, "sh", "-c", AROUND)).ok()
    seen.command("input", client.do("exec", "--interactive", one, "cat", stdin="in\n")).ok()
    seen.value("status", client.status(one))
    assert seen.values["input.out"] == "in\n" and seen.values["status"] == "running"


def test_exec_detached(client: Client, seen: Seen) -> None:
    """`exec --detach` leaves its process in the container."""
    one = client.start("sleep", "1000")
    seen.command("exec", client.do("exec", "--detach", one, "sleep", "2000")).ok()
    support.wait_until(
        lambda: "sleep 2000" in client.do("top", one, "-o", "pid,args").ok().out, "the second process"
    )
    seen.value("status", client.status(one))


REFUSED = {
    "missing": ((), "/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-in-path": ((), "no-such", 'exec: "no-such": executable file not found in $PATH'),
    "not-executable": ((), "/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    "directory": ((), "/etc", "permission denied"),
    "cwd": (("--workdir", "/no/directory"), "true", "no such file or directory"),
}


@EXEC_WORDS
@pytest.mark.parametrize("name", REFUSED)
def test_exec_refused(client: Client, seen: Seen, name: str) -> None:
    """`exec` of what cannot be executed says why"""
    one = client.start("sleep", "1000")
    options, program, reason = REFUSED[name]
    result = client.do("exec", *options, one, program)
    # Whether the message is the command's output or its error depends on the version of the client.
    shown = support.Result(result.argv, result.status, "", result.out + result.err)
    seen.refusal("exec", shown, reason)
    seen.value("status", client.status(one))


def test_terminal(client: Client, seen: Seen) -> None:
    """`run -it`: the program has a terminal of the caller's size and its exit status comes back."""
    argv = client.typed("run", "-it", "--name", client.name(), *client.always, IMAGE, "sh")
    with Screen(argv, rows=31, columns=101) as screen:
        screen.expect("# ", timeout=30)
        # docker tells the size when the program runs already.
        screen.send("until [ \"$(stty size)\" = '31 101' ]; do sleep 0.05; done\n")
        # The answer is put together, or the echo of the question would be taken for it.
        screen.send("echo t=$(tty) s=$(stty size) e''nd\n")
        answer = screen.expect(" end\r")
        seen.value("terminal", answer.splitlines()[-1])
        screen.send("exit 5\n")
        seen.value("status", screen.wait(timeout=30))
    assert seen.values["status"] == 5 and "t=/dev/" in answer


def test_exec_terminal(client: Client, seen: Seen) -> None:
    """`exec -it` gives one more process a terminal of its own."""
    one = client.start("sleep", "1000")
    with Screen(client.typed("exec", "-it", one, "sh")) as screen:
        screen.expect("# ", timeout=30)
        screen.send("echo t=$(tty) e''nd\n")
        answer = screen.expect(" end\r")
        seen.value("terminal", answer.splitlines()[-1])
        screen.send("exit 6\n")
        seen.value("status", screen.wait(timeout=30))
    assert seen.values["status"] == 6 and "t=/dev/" in answer


def test_standard_input(client: Client, seen: Seen) -> None:
    """`run -i`: what the client reads reaches the program, and so does its end."""
    argv = ("run", "--rm", "-i", "--name", client.name(), *client.always, IMAGE, "cat")
    assert seen.command("cat", client.do(*argv, stdin="hello\n")).ok().out == "hello\n"


TRAPS = 'for s in TERM USR1 HUP; do trap "exit $(kill -l $s)" $s; done; touch /tmp/up; while :; do sleep 0.05; done'


def _trapping(client: Client, *options: str) -> str:
    """A container whose program ends with the number of the signal; it is ready."""
    one = client.start("sh", "-c", TRAPS, options=options)
    up = f"/proc/{client.pid(one)}/root/tmp/up"
    support.wait_until(lambda: os.path.exists(up), "the traps")
    return one


@pytest.mark.parametrize("signal", ["TERM", "KILL", "SIGUSR1", "1"])
def test_kill(client: Client, seen: Seen, signal: str) -> None:
    """`kill` by name and number; a second one is refused; `inspect` tells the end"""
    one = _trapping(client)
    seen.command("kill", client.do("kill", "--signal", signal, one)).ok()
    client.wait_status(one, "exited")
    seen.value("outcome", client.outcome(one))
    assert seen.command("again", client.do("kill", one)).status != 0
    seen.command("remove", client.do("rm", one)).ok()


def test_stop(client: Client, seen: Seen) -> None:
    """`stop` sends TERM, or the container's own stop signal, and KILL to who does not listen."""
    for name, options in (("term", ()), ("own", ("--stop-signal", "USR1"))):
        one = _trapping(client, *options)
        seen.command(f"{name}.stop", client.do("stop", one)).ok()
        seen.value(f"{name}.outcome", client.outcome(one))
    deaf = client.start("sleep", "1000")
    seen.command("deaf.stop", client.do("stop", "--time", "1", deaf)).ok()
    seen.value("deaf.outcome", client.outcome(deaf))
    seen.command("again", client.do("stop", deaf)).ok()
    assert not client.left()


def test_start_again(client: Client, seen: Seen) -> None:
    """`create`, `start --attach` and `restart`: the same container runs more than once."""
    one = client.name()
    argv = (
        "create",
        "--name",
        one,
        *client.always,
        IMAGE,
        "sh",
        "-c",
        "echo x >>/runs; wc -l </runs; exit 4",
    )
    client.do(*argv).ok()
    seen.value("created", client.status(one))
    seen.command("start", client.do("start", "--attach", one)).fails(status=4)
    seen.command("restart", client.do("restart", one)).ok()
    client.wait_status(one, "exited")
    assert seen.command("logs", client.do("logs", one)).ok().out == "1\n2\n"


def test_pause(client: Client, seen: Seen) -> None:
    """A paused container stands still, refuses exec, and goes on when it is unpaused."""
    one = client.start("sh", "-c", "while :; do echo x >>/tmp/ticks; sleep 0.05; done")
    path = f"/proc/{client.pid(one)}/root/tmp/ticks"
    support.wait_until(lambda: os.path.exists(path), "the first tick")
    seen.command("pause", client.do("pause", one)).ok()
    seen.value("paused", client.status(one))
    before = os.path.getsize(path)
    time.sleep(0.3)
    assert os.path.getsize(path) == before
    assert "already paused" in seen.command("again", client.do("pause", one)).err
    assert seen.command("exec", client.do("exec", one, "true")).status != 0
    seen.command("unpause", client.do("unpause", one)).ok()
    seen.value("unpaused", client.status(one))
    support.wait_until(lambda: os.path.getsize(path) > before, "ticks after the pause")
    client.do("pause", one).ok()
    seen.command("remove", client.do(*client.remove, one)).ok()


def test_kill_paused(client: Client, seen: Seen) -> None:
    """A paused container that is killed ends at once."""
    one = client.start("sleep", "1000")
    client.do("pause", one).ok()
    seen.command("kill", client.do("kill", one)).ok()
    client.wait_status(one, "exited")
    seen.value("outcome", client.outcome(one))


def test_attach(client: Client, seen: Seen) -> None:
    """`attach` is at the terminal of a running program, and ends with it."""
    name = client.name()
    client.do("run", "--detach", "-it", "--name", name, *client.always, IMAGE, "sh").ok()
    with Screen(client.typed("attach", name)) as screen:
        screen.send("echo t=$(tty) e''nd\n")
        answer = screen.expect(" end\r", timeout=30)
        seen.value("terminal", [line for line in answer.splitlines() if line.startswith("t=")])
        screen.send("exit 4\n")
        # With its exit status or without, as the engine likes.
        seen.value("status", screen.wait(timeout=30))
    client.wait_status(name, "exited")
    seen.value("outcome", client.outcome(name))
    assert seen.values["terminal"] and "exited 4" in client.outcome(name)


def test_signal_of_the_client(client: Client, seen: Seen) -> None:
    """TERM for the client in the foreground reaches the program, whose exit status becomes the client's."""
    name = client.name()
    argv = client.typed("run", "--name", name, *client.always, IMAGE, "sh", "-c", TRAPS)
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd="/")
    try:
        there = ("exec", name, "test", "-e", "/tmp/up")
        support.wait_until(lambda: client.do(*there).status == 0, "the traps", timeout=30)
        process.terminate()
        seen.value("status", process.wait(timeout=30))
    finally:
        process.kill()
        process.wait(timeout=10)
    seen.value("outcome", client.outcome(name))
    assert seen.values["status"] == 15


def test_stats(client: Client, seen: Seen) -> None:
    """`stats` finds the container's cgroups: its limit, its processes, memory in use."""
    one = client.start("sleep", "1000", options=("--memory", "64m", "--pids-limit", "20"))
    client.area.needs_mounted_cgroups()
    template = "{{.Name}} {{.PIDs}} {{.MemUsage}}"
    result = client.do("stats", "--no-stream", "--format", template, one).ok()
    name, pids, used, _, limit = result.out.split()
    seen.value("stats", [name, pids, limit])
    # In their own units.
    assert limit in {"64MiB", "67.11MB"} and used[0] != "0"


def test_copy(client: Client, seen: Seen) -> None:
    """`cp` into and out of a running container, and out of a stopped one."""
    one = client.start("sleep", "1000")
    source, target = client.path("in"), client.path("out")
    with open(source, "w", encoding="ascii") as stream:
        stream.write("copied\n")
    client.do("cp", source, f"{one}:/tmp/file").ok()
    seen.command("cat", client.do("exec", one, "cat", "/tmp/file")).ok()
    client.do("exec", one, "sh", "-c", "echo more >>/tmp/file").ok()
    client.do("kill", one).ok()
    client.wait_ended(one)
    client.do("cp", f"{one}:/tmp/file", target).ok()
    with open(target, encoding="ascii") as stream:
        seen.value("file", stream.read())
    assert seen.values["file"] == "copied\nmore\n"
    assert "/no/such" in seen.command("missing", client.do("cp", f"{one}:/no/such", target)).err


def test_force_remove(client: Client, seen: Seen) -> None:
    """`rm` refuses a running container and takes it away with --force."""
    one = client.start("sleep", "1000")
    pid = client.pid(one)
    assert "cannot remove" in seen.command("remove", client.do("rm", one)).err
    seen.command("force", client.do(*client.remove, one)).ok()
    assert support.process_gone(pid) and not client.left()


def test_restart_on_failure(client: Client, seen: Seen) -> None:
    """`--restart on-failure:2` starts a failing container twice more and then gives up."""
    one = client.start("sh", "-c", "echo run; exit 3", options=("--restart", "on-failure:2"))
    # Between two runs it has exited, too.
    runs = "run\n" * 3
    support.wait_until(lambda: client.do("logs", one).ok().out == runs, "the third run")
    client.wait_status(one, "exited", timeout=30)
    seen.value("count", client.inspect(one, ".RestartCount"))
    seen.value("outcome", client.outcome(one))
    assert seen.command("logs", client.do("logs", one)).ok().out == runs


def test_update(client: Client, seen: Seen) -> None:
    """`update` changes the limits of a running container."""
    one = client.start("sleep", "1000", options=("--memory", "64m", "--memory-swap", "64m"))
    options = ("--memory", "96m", "--memory-swap", "128m", "--cpus", "0.5")
    seen.command("update", client.do("update", *options, one)).ok()
    result = client.do("exec", one, "sh", "-c", f"({facts.RESOURCES}) 2>&1")
    seen.command("limits", result)
    assert str(96 << 20) in result.out
