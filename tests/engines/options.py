"""Scenarios for any Client: what the options of `run` do, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.image import IMAGE
from engines.scenario import WORDS

if TYPE_CHECKING:
    from engines.client import Client
    from engines.scenario import Seen


OPTIONS = {
    "memory": ["--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"],
    "cpus": ["--cpus", "0.5", "--cpu-shares", "512"],
    "cpuset": ["--cpuset-cpus", "0", "--cpuset-mems", "0"],
    "pids": ["--pids-limit", "50"],
    "ulimits": ["--ulimit", "nofile=1000:2000", "--ulimit", "nproc=4096:4096", "--ulimit", "core=0"],
    "oom-score": ["--oom-score-adj", "500"],
    "cap-add": ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"],
    "cap-drop": ["--cap-drop", "ALL", "--cap-add", "CHOWN"],
    "user": ["--user", "1000:2000", "--group-add", "7"],
    "user-name": ["--user", "user"],
    "no-new-privileges": ["--security-opt", "no-new-privileges"],
    "seccomp-off": ["--security-opt", "seccomp=unconfined"],
    "environment": ["--env", "A=b", "--env", "EMPTY="],
    "device": ["--device", "/dev/fuse:/dev/other:r", "--device-cgroup-rule", "c 1:7 rwm"],
    "shm": ["--shm-size", "1m"],
    "sysctl": ["--sysctl", "kernel.msgmax=1234", "--sysctl", "net.ipv4.ip_forward=0"],
    "net-host": ["--network", "host"],
    "net-none": ["--network", "none"],
    "namespaces-host": ["--pid", "host", "--ipc", "host"],
    "cgroup-namespace": ["--cgroupns", "private"],
}
READ_ONLY = ("--read-only", "--tmpfs", "/tmp:size=1m,mode=1777")
EVERYTHING = {"privileged": ["--privileged"], "cap-all": ["--cap-add", "ALL"]}


def _option(name: str) -> object:
    """Its parameter: a privileged container has nothing that is masked."""
    return pytest.param(name, marks=[] if name == "privileged" else [facts.COVERS])


def parameters(options: dict[str, list[str]]) -> list[object]:
    """For test_option and its like."""
    return [_option(name) for name in options]


@pytest.mark.parametrize("name", parameters(OPTIONS))
def test_option(client: Client, seen: Seen, name: str) -> None:
    """`run` with an option: all that a program sees of its container"""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *OPTIONS[name])))
    assert not client.left()


def test_nothing_hidden(client: Client, seen: Seen) -> None:
    """With `--security-opt systempaths=unconfined`, nothing in /proc is masked or read-only."""
    script = "head -c 1 /proc/keys | wc -c; grep -E ' /(proc/|sys/f)' /proc/self/mounts | grep -v cgroup"
    result = client.run("sh", "-c", script, options=("--rm", "--security-opt", "systempaths=unconfined"))
    assert seen.command("run", result).fails().out == "1\n"


def test_init(client: Client, seen: Seen) -> None:
    """`run --init`: an init is the first process, reaps, and hands on signals and the exit status."""
    script = "tr '\\0' ' ' </proc/1/cmdline; trap 'exit 9' TERM; touch /tmp/up; while :; do sleep 0.05; done"
    one = client.start("sh", "-c", script, options=("--init",))
    up = f"/proc/{client.pid(one)}/root/tmp/up"
    support.wait_until(lambda: os.path.exists(up), "the trap")
    seen.command("stop", client.do("stop", one)).ok()
    seen.value("outcome", client.outcome(one))
    assert "init" in seen.command("logs", client.do("logs", one)).ok().out


def test_volumes(client: Client, seen: Seen) -> None:
    """Volumes: a named one keeps its files, a bound directory can be read-only or shared."""
    source = client.path("source")
    os.makedirs(f"{source}/new", exist_ok=True)
    os.chmod(f"{source}/new", 0o777)
    write = ("--rm", "--volume", "kept:/data")
    seen.command("write", client.run("sh", "-c", "echo kept >/data/file", options=write)).ok()
    options = ("--rm", "-v", "kept:/data", "-v", f"{source}:/ro:ro", "-v", f"{source}/new:/new:rshared")
    script = (
        "cat /data/file; touch /ro/x; touch /new/made; grep -E ' /(data|ro|new) ' /proc/self/mounts | sort"
    )
    result = client.run("sh", "-c", script, options=options)
    seen.command("read", result).ok()
    assert "kept\n" in result.out and "/ro/x: Read-only file system" in result.err
    seen.value("made", " ".join(os.listdir(f"{source}/new")))
    seen.command("remove", client.do("volume", "rm", "kept")).ok()


def test_shared_mounts(client: Client, seen: Seen) -> None:
    """A file system mounted on the host below a volume with rslave appears in the container."""
    source = client.path("slave")
    os.makedirs(f"{source}/later")
    one = client.start("sleep", "1000", options=("-v", f"{source}:/data:rslave"))
    client.area.run("mount", "-t", "tmpfs", "later", f"{source}/later").ok()
    seen.command("mounts", client.do("exec", one, "grep", "later", "/proc/self/mounts")).ok()
    client.area.run("umount", f"{source}/later").ok()
    seen.command("gone", client.do("exec", one, "grep", "later", "/proc/self/mounts")).fails()


def test_joined_namespaces(client: Client, seen: Seen) -> None:
    """A container in another one's network, pid and ipc namespaces; it ends with that one's pid namespace."""
    one = client.start("sleep", "1000", options=("--ipc", "shareable"))
    join = [f"--{kind}=container:{one}" for kind in ("network", "pid", "ipc")]
    name = client.name()
    client.do("run", "--detach", "--name", name, *client.always, *join, IMAGE, "sleep", "2000").ok()
    same = [
        os.readlink(f"/proc/{client.pid(one)}/ns/{kind}")
        == os.readlink(f"/proc/{client.pid(name)}/ns/{kind}")
        for kind in ("net", "pid", "ipc", "mnt", "uts")
    ]
    seen.value("same", "".join("ny"[value] for value in same))
    seen.command("ps", client.do("exec", name, "ps", "-o", "args")).ok()
    client.do("kill", one).ok()
    client.wait_status(name, "exited")
    seen.value("outcome", client.outcome(name))
    assert seen.values["same"] == "yyynn"


def test_host_processes(client: Client, seen: Seen) -> None:
    """A container in the host's pid namespace: when its first process has ended, so have all others."""
    script = "sleep 1000 & : >/tmp/up; exec sleep 2000"
    one = client.start("sh", "-c", script, options=("--pid", "host"))
    pid = client.pid(one)
    support.wait_until(lambda: os.path.exists(f"/proc/{pid}/root/tmp/up"), "the second process")
    hierarchies = support.cgroup_of(pid)
    kind = "pids" if "pids" in hierarchies else ""
    procs = f"/sys/fs/cgroup/{kind}{hierarchies[kind]}/cgroup.procs"
    with open(procs, encoding="ascii") as stream:
        pids = [int(line) for line in stream]
    seen.value("processes", len(pids))
    seen.command("stop", client.do("stop", "--time", "0", one)).ok()
    seen.value("gone", all(support.process_gone(pid) for pid in pids))
    seen.value("outcome", client.outcome(one))
    assert seen.values["processes"] == 2 and seen.values["gone"] is True


def test_out_of_memory(client: Client, seen: Seen) -> None:
    """A program that needs more memory than its limit is killed, and the client is told the status of KILL."""
    one = client.name()
    options = ("--memory", "16m", "--memory-swap", "16m")
    result = client.do("run", "--name", one, *client.always, *options, IMAGE, "tail", "/dev/zero")
    seen.command("run", result).fails(status=137)
    seen.value("exited", client.inspect(one, ".State.ExitCode"))


def test_processes_are_limited(client: Client, seen: Seen) -> None:
    """With --pids-limit, a program cannot start more processes than that."""
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all"
    result = client.run("sh", "-c", script, options=("--rm", "--pids-limit", "5"))
    seen.command("run", result).fails("can't fork", status=2)


def test_seccomp_profile(client: Client, seen: Seen) -> None:
    """A profile of the user's own forbids what it says."""
    profile = client.path("profile.json")
    with open(profile, "w", encoding="utf-8") as stream:
        stream.write(
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"],'
            ' "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
        )
    result = client.run("mkdir", "/tmp/d", options=("--rm", "--security-opt", f"seccomp={profile}"))
    seen.command("run", result).fails("can't create directory '/tmp/d'")


BAD = {
    "missing": ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-in-path": ("no-such", 127, 'exec: "no-such": executable file not found in $PATH'),
    "not-executable": ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    "directory": ("/etc", 126, "permission denied"),
}


@WORDS
@pytest.mark.parametrize("name", BAD)
def test_bad_image(client: Client, seen: Seen, name: str) -> None:
    """A program that cannot be executed: the reason and the exit status reach the client"""
    program, status, reason = BAD[name]
    seen.refusal("run", client.run(program), reason)
    assert seen.values["run.status"] == status and not client.left()


@WORDS
@pytest.mark.improvement(
    "run.status", "a program that never ran is a failure of the start: 127, not the program's 1"
)
def test_missing_interpreter(client: Client, seen: Seen) -> None:
    """A script whose interpreter is not there: the reason and the exit status reach the client."""
    script = client.path("script")
    with open(script, "w", encoding="ascii") as stream:
        stream.write("#!/no/interpreter\n")
    os.chmod(script, 0o755)
    result = client.run("/tmp/script", options=("--rm", "-v", f"{script}:/tmp/script:ro"))
    seen.refusal("run", result, "/tmp/script", "no such file or directory")
    assert not client.left()


REFUSED = {
    "volume-over-file": (["-v", "/usr:/bin/busybox"], "not a directory"),
    "sysctl": (["--sysctl", "net.nosuch=1"], "net/nosuch"),
    "sysctl-value": (["--sysctl", "kernel.msgmax=x"], "invalid argument"),
    "rlimit": (["--ulimit", "nofile=2000000000"], "operation not permitted"),
}


@WORDS
@pytest.mark.parametrize("name", REFUSED)
def test_refused(client: Client, seen: Seen, name: str) -> None:
    """What cannot be set up: the reason and the exit status reach the client"""
    options, reason = REFUSED[name]
    seen.refusal("run", client.run("true", options=("--rm", *options)), reason)
    assert not client.left()
