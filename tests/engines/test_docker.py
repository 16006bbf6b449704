"""docker: the life of a container, more processes in it, signals, restarts, what is measured."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.docker import NAMED
from engines.image import IMAGE
from engines.scenario import EXEC_WORDS
from terminals import Screen

if TYPE_CHECKING:
    from engines.docker import Docker
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "docker"
AROUND = (
    "grep -E 'Cap|NoNew|Seccomp:|SigIgn|SigBlk' /proc/self/status; ls /proc/self/fd; cat /proc/self/cgroup"
)


def test_run(docker: Docker, seen: Seen) -> None:
    """`docker run` shows what the program writes and ends with its exit status."""
    result = docker.run("sh", "-c", "echo out; echo err >&2; exit 7")
    seen.command("run", result).fails("err", status=7)
    assert result.out == "out\n" and not docker.left()


@facts.COVERS
def test_around(docker: Docker, seen: Seen) -> None:
    """What a program sees of its container: ids, capabilities, mounts, devices, limits, environment, cgroup."""
    facts.note(seen, docker.run(*facts.COMMAND))


def test_named_runtime(docker: Docker, seen: Seen) -> None:
    """`docker run --runtime` takes another runtime than the default one, with arguments of its own."""
    before = len(docker.area.calls())
    seen.command("run", docker.run("echo", "here", options=("--rm", "--runtime", NAMED))).ok()
    calls = docker.area.calls()[before:]
    assert calls and all(call.startswith("--debug ") for call in calls)
    seen.command("unknown", docker.run("true", options=("--rm", "--runtime", "nosuch"))).fails(
        "nosuch", status=125
    )


def test_info(docker: Docker, seen: Seen) -> None:
    """`docker info` names the default runtime and asks it for its version."""
    seen.command("info", docker.docker("info", "--format", "{{.DefaultRuntime}} {{.Warnings}}")).ok()
    version = docker.docker("info", "--format", "{{.RuncCommit.ID}}").ok().out.strip()
    assert version not in {"", "N/A"} and docker.area.calls()[-1] == "--version"


def test_logs(docker: Docker, seen: Seen) -> None:
    """`docker logs` of a container in the background, while it runs and when it has ended."""
    one = docker.start(
        "sh", "-c", "echo out; echo err >&2; until [ -e /tmp/on ]; do sleep 0.05; done; echo last"
    )
    support.wait_until(lambda: docker.docker("logs", one).ok().err == "err\n", "the first lines")
    seen.command("running", docker.docker("logs", one)).ok()
    docker.docker("exec", one, "touch", "/tmp/on").ok()
    seen.command("wait", docker.docker("wait", one)).ok()
    assert seen.command("ended", docker.docker("logs", one)).ok().out == "out\nlast\n"
    seen.value("outcome", docker.outcome(one))


def test_exec(docker: Docker, seen: Seen) -> None:
    """`docker exec`: output, exit status, user, directory, environment; the container goes on."""
    one = docker.start("sleep", "1000")
    argv = ("exec", one, "sh", "-c", "echo out; echo err >&2; pwd; id; exit 3")
    seen.command("exec", docker.docker(*argv)).fails(status=3)
    options = ("--user", "1000:2000", "--workdir", "/tmp", "--env", "A=b")
    seen.command("options", docker.docker("exec", *options, one, "sh", "-c", "pwd; id; env | sort")).ok()
    seen.command("around", docker.docker("exec", one, "sh", "-c", AROUND)).ok()
    seen.command("input", docker.docker("exec", "--interactive", one, "cat", stdin="in\n")).ok()
    seen.value("status", docker.status(one))
    assert seen.values["input.out"] == "in\n" and seen.values["status"] == "running"


def test_exec_detached(docker: Docker, seen: Seen) -> None:
    """`docker exec --detach` leaves its process in the container."""
    one = docker.start("sleep", "1000")
    seen.command("exec", docker.docker("exec", "--detach", one, "sleep", "2000")).ok()
    support.wait_until(
        lambda: "sleep 2000" in docker.docker("top", one, "-o", "pid,args").ok().out, "the second process"
    )
    seen.value("status", docker.status(one))


REFUSED = {
    "missing": ((), "/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-in-path": ((), "no-such", 'exec: "no-such": executable file not found in $PATH'),
    "not-executable": ((), "/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    "directory": ((), "/etc", "permission denied"),
    "cwd": (("--workdir", "/no/directory"), "true", "no such file or directory"),
}


@EXEC_WORDS
@pytest.mark.parametrize("name", REFUSED)
def test_exec_refused(docker: Docker, seen: Seen, name: str) -> None:
    """`docker exec` of what cannot be executed says why"""
    one = docker.start("sleep", "1000")
    options, program, reason = REFUSED[name]
    result = docker.docker("exec", *options, one, program)
    # Whether the message is the command's output or its error depends on the version of the client.
    shown = support.Result(result.argv, result.status, "", result.out + result.err)
    seen.refusal("exec", shown, "OCI runtime exec failed", reason)
    seen.value("status", docker.status(one))


def test_terminal(docker: Docker, seen: Seen) -> None:
    """`docker run -it`: the program has a terminal of the caller's size and its exit status comes back."""
    argv = docker.typed("run", "-it", "--name", docker.name(), IMAGE, "sh")
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


def test_exec_terminal(docker: Docker, seen: Seen) -> None:
    """`docker exec -it` gives one more process a terminal of its own."""
    one = docker.start("sleep", "1000")
    with Screen(docker.typed("exec", "-it", one, "sh")) as screen:
        screen.expect("# ", timeout=30)
        screen.send("echo t=$(tty) e''nd\n")
        answer = screen.expect(" end\r")
        seen.value("terminal", answer.splitlines()[-1])
        screen.send("exit 6\n")
        seen.value("status", screen.wait(timeout=30))
    assert seen.values["status"] == 6 and "t=/dev/" in answer


def test_standard_input(docker: Docker, seen: Seen) -> None:
    """`docker run -i`: what the client reads reaches the program, and so does its end."""
    argv = ("run", "--rm", "-i", "--name", docker.name(), IMAGE, "cat")
    assert seen.command("cat", docker.docker(*argv, stdin="hello\n")).ok().out == "hello\n"


TRAPS = 'for s in TERM USR1 HUP; do trap "exit $(kill -l $s)" $s; done; touch /tmp/up; while :; do sleep 0.05; done'


def _trapping(docker: Docker, *options: str) -> str:
    """A container whose program ends with the number of the signal; it is ready."""
    one = docker.start("sh", "-c", TRAPS, options=options)
    up = f"/proc/{docker.pid(one)}/root/tmp/up"
    support.wait_until(lambda: os.path.exists(up), "the traps")
    return one


@pytest.mark.parametrize("signal", ["TERM", "KILL", "SIGUSR1", "1"])
def test_kill(docker: Docker, seen: Seen, signal: str) -> None:
    """`docker kill` by name and number; a second one is refused; `docker inspect` tells the end"""
    one = _trapping(docker)
    seen.command("kill", docker.docker("kill", "--signal", signal, one)).ok()
    docker.wait_status(one, "exited")
    seen.value("outcome", docker.outcome(one))
    seen.command("again", docker.docker("kill", one)).fails("is not running")
    seen.command("remove", docker.docker("rm", one)).ok()


def test_stop(docker: Docker, seen: Seen) -> None:
    """`docker stop` sends TERM, or the container's own stop signal, and KILL to who does not listen."""
    for name, options in (("term", ()), ("own", ("--stop-signal", "USR1"))):
        one = _trapping(docker, *options)
        seen.command(f"{name}.stop", docker.docker("stop", one)).ok()
        seen.value(f"{name}.outcome", docker.outcome(one))
    deaf = docker.start("sleep", "1000")
    seen.command("deaf.stop", docker.docker("stop", "--time", "1", deaf)).ok()
    seen.value("deaf.outcome", docker.outcome(deaf))
    seen.command("again", docker.docker("stop", deaf)).ok()
    assert not docker.left()


def test_start_again(docker: Docker, seen: Seen) -> None:
    """`docker create`, `start --attach` and `restart`: the same container runs more than once."""
    one = docker.name()
    argv = ("create", "--name", one, IMAGE, "sh", "-c", "echo x >>/runs; wc -l </runs; exit 4")
    docker.docker(*argv).ok()
    seen.value("created", docker.status(one))
    seen.command("start", docker.docker("start", "--attach", one)).fails(status=4)
    seen.command("restart", docker.docker("restart", one)).ok()
    docker.wait_status(one, "exited")
    assert seen.command("logs", docker.docker("logs", one)).ok().out == "1\n2\n"


def test_pause(docker: Docker, seen: Seen) -> None:
    """A paused container stands still, refuses exec, and goes on when it is unpaused."""
    one = docker.start("sh", "-c", "while :; do echo x >>/tmp/ticks; sleep 0.05; done")
    path = f"/proc/{docker.pid(one)}/root/tmp/ticks"
    support.wait_until(lambda: os.path.exists(path), "the first tick")
    seen.command("pause", docker.docker("pause", one)).ok()
    seen.value("paused", docker.status(one))
    before = os.path.getsize(path)
    time.sleep(0.3)
    assert os.path.getsize(path) == before
    seen.command("again", docker.docker("pause", one)).fails("already paused")
    seen.command("exec", docker.docker("exec", one, "true")).fails("is paused")
    seen.command("unpause", docker.docker("unpause", one)).ok()
    seen.value("unpaused", docker.status(one))
    support.wait_until(lambda: os.path.getsize(path) > before, "ticks after the pause")
    docker.docker("pause", one).ok()
    seen.command("remove", docker.docker("rm", "--force", one)).ok()


def test_top(docker: Docker, seen: Seen) -> None:
    """`docker top` lists the container's processes and no others."""
    one = docker.start("sh", "-c", "sleep 1000 & sleep 2000; true")
    support.wait_until(lambda: docker.docker("top", one).ok().out.count("sleep") >= 3, "three processes")
    lines = [
        line.split(None, 2)
        for line in docker.docker("top", one, "-o", "pid,user,args").ok().out.splitlines()
    ]
    seen.value("top", "\n".join(sorted(f"{user} {command}" for _, user, command in lines)))
    assert str(docker.pid(one)) in [line[0] for line in lines] and len(lines) == 4


def test_stats(docker: Docker, seen: Seen) -> None:
    """`docker stats` finds the container's cgroups: its limit, its processes, memory in use."""
    one = docker.start("sleep", "1000", options=("--memory", "64m", "--pids-limit", "20"))
    docker.area.needs_mounted_cgroups()
    template = "{{.Name}} {{.PIDs}} {{.MemUsage}}"
    result = docker.docker("stats", "--no-stream", "--format", template, one).ok()
    name, pids, used, _, limit = result.out.split()
    seen.value("stats", [name, pids, limit])
    assert limit == "64MiB" and used[0] != "0"


def test_copy(docker: Docker, seen: Seen) -> None:
    """`docker cp` into and out of a running container, and out of a stopped one."""
    one = docker.start("sleep", "1000")
    source, target = docker.area.path("in"), docker.area.path("out")
    with open(source, "w", encoding="ascii") as stream:
        stream.write("copied\n")
    docker.docker("cp", source, f"{one}:/tmp/file").ok()
    seen.command("cat", docker.docker("exec", one, "cat", "/tmp/file")).ok()
    docker.docker("exec", one, "sh", "-c", "echo more >>/tmp/file").ok()
    docker.docker("kill", one).ok()
    docker.docker("cp", f"{one}:/tmp/file", target).ok()
    with open(target, encoding="ascii") as stream:
        seen.value("file", stream.read())
    assert seen.values["file"] == "copied\nmore\n"
    seen.command("missing", docker.docker("cp", f"{one}:/no/such", target)).fails()


def test_force_remove(docker: Docker, seen: Seen) -> None:
    """`docker rm` refuses a running container and takes it away with --force."""
    one = docker.start("sleep", "1000")
    pid = docker.pid(one)
    seen.command("remove", docker.docker("rm", one)).fails("cannot remove a running container")
    seen.command("force", docker.docker("rm", "--force", one)).ok()
    assert support.process_gone(pid) and not docker.left()


def test_restart_on_failure(docker: Docker, seen: Seen) -> None:
    """`--restart on-failure:2` starts a failing container twice more and then gives up."""
    one = docker.start("sh", "-c", "echo run; exit 3", options=("--restart", "on-failure:2"))
    docker.wait_status(one, "exited", timeout=30)
    seen.value("count", docker.inspect(one, ".RestartCount"))
    seen.value("outcome", docker.outcome(one))
    assert seen.command("logs", docker.docker("logs", one)).ok().out == "run\n" * 3


def test_restart_always(docker: Docker, seen: Seen) -> None:
    """`--restart always` brings a killed first process back, and the container after dockerd's restart."""
    # dockerd waits long for who does not listen to TERM.
    options = ("--stop-signal", "KILL")
    one = docker.start("sleep", "1000", options=(*options, "--restart", "always"))
    other = docker.start("sleep", "1000", options=options)
    before = docker.pid(one)
    os.kill(before, 9)
    support.wait_until(lambda: docker.pid(one) not in {0, before}, "the second run", timeout=30)
    docker.restart()
    support.wait_until(lambda: docker.pid(one) != 0, "the third run", timeout=30)
    seen.command("exec", docker.docker("exec", one, "echo", "here")).ok()
    seen.value("other", docker.status(other))


def test_healthcheck(docker: Docker, seen: Seen) -> None:
    """A health check runs in the container: healthy at first, unhealthy when its file is gone."""
    check = ("--health-cmd", "cat /tmp/well", "--health-interval", "300ms", "--health-retries", "1")
    one = docker.start("sh", "-c", "echo well >/tmp/well; sleep 1000", options=check)

    def health() -> str:
        return docker.inspect(one, ".State.Health.Status")

    support.wait_until(lambda: health() == "healthy", "health", timeout=20)
    seen.value("log", docker.inspect(one, "(index .State.Health.Log 0).Output"))
    docker.docker("exec", one, "rm", "/tmp/well").ok()
    support.wait_until(lambda: health() == "unhealthy", "the loss of health", timeout=20)
    assert seen.values["log"] == "well"


def test_update(docker: Docker, seen: Seen) -> None:
    """`docker update` changes the limits of a running container."""
    one = docker.start("sleep", "1000", options=("--memory", "64m", "--memory-swap", "64m"))
    options = ("--memory", "96m", "--memory-swap", "128m", "--cpus", "0.5", "--pids-limit", "50")
    seen.command("update", docker.docker("update", *options, one)).ok()
    result = docker.docker("exec", one, "sh", "-c", f"({facts.RESOURCES}) 2>&1")
    seen.command("limits", result)
    assert str(96 << 20) in result.out
