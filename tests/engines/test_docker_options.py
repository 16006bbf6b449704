"""Options of `docker run`: limits, capabilities, seccomp, mounts, namespaces, init; and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.image import IMAGE
from engines.scenario import WORDS

if TYPE_CHECKING:
    from engines.docker import Docker
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "docker-options"

OPTIONS = {
    "memory": ["--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"],
    "cpus": ["--cpus", "0.5", "--cpu-shares", "512"],
    "cpuset": ["--cpuset-cpus", "0", "--cpuset-mems", "0"],
    "pids": ["--pids-limit", "50"],
    "ulimits": ["--ulimit", "nofile=1000:2000", "--ulimit", "core=0"],
    "oom-score": ["--oom-score-adj", "500"],
    "cap-add": ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"],
    "cap-drop": ["--cap-drop", "ALL", "--cap-add", "CHOWN"],
    "user": ["--user", "1000:2000", "--group-add", "7"],
    "user-name": ["--user", "user"],
    "no-new-privileges": ["--security-opt", "no-new-privileges"],
    "seccomp-off": ["--security-opt", "seccomp=unconfined"],
    "read-only": ["--read-only", "--tmpfs", "/tmp:size=1m,mode=1777"],
    "environment": ["--env", "A=b", "--env", "EMPTY="],
    "workdir-made": ["--workdir", "/no/directory"],
    "device": ["--device", "/dev/fuse:/dev/other:r", "--device-cgroup-rule", "c 1:7 rwm"],
    "shm": ["--shm-size", "1m"],
    "sysctl": ["--sysctl", "kernel.msgmax=1234", "--sysctl", "net.ipv4.ip_forward=0"],
    "net-host": ["--network", "host"],
    "net-none": ["--network", "none"],
    "namespaces-host": ["--pid", "host", "--ipc", "host"],
    "cgroup-namespace": ["--cgroupns", "private"],
    "privileged": ["--privileged"],
    "cap-all": ["--cap-add", "ALL"],
}
# docker asks for every capability that it knows by name.
_ALL = pytest.mark.skipif(not support.has_capability(24), reason="CAP_SYS_RESOURCE")


def _option(name: str) -> object:
    """Its parameter: a privileged container has nothing that is masked."""
    marks = [] if name == "privileged" else [facts.COVERS]
    return pytest.param(name, marks=[*marks, _ALL] if name in {"privileged", "cap-all"} else marks)


@pytest.mark.parametrize("name", [_option(name) for name in OPTIONS])
def test_option(docker: Docker, seen: Seen, name: str) -> None:
    """`docker run` with an option: all that a program sees of its container"""
    facts.note(seen, docker.run(*facts.COMMAND, options=("--rm", *OPTIONS[name])))
    assert not docker.left()


def test_nothing_hidden(docker: Docker, seen: Seen) -> None:
    """With `--security-opt systempaths=unconfined`, nothing in /proc is masked or read-only."""
    script = "head -c 1 /proc/keys | wc -c; grep -E ' /(proc/|sys/f)' /proc/self/mounts | grep -v cgroup"
    result = docker.run("sh", "-c", script, options=("--rm", "--security-opt", "systempaths=unconfined"))
    assert seen.command("run", result).fails().out == "1\n"


def test_init(docker: Docker, seen: Seen) -> None:
    """`docker run --init`: docker-init is the first process, reaps, and hands on signals and the exit status."""
    script = "tr '\\0' ' ' </proc/1/cmdline; trap 'exit 9' TERM; touch /tmp/up; while :; do sleep 0.05; done"
    one = docker.start("sh", "-c", script, options=("--init",))
    up = f"/proc/{docker.pid(one)}/root/tmp/up"
    support.wait_until(lambda: os.path.exists(up), "the trap")
    seen.command("stop", docker.docker("stop", one)).ok()
    seen.value("outcome", docker.outcome(one))
    assert "docker-init" in seen.command("logs", docker.docker("logs", one)).ok().out


def test_volumes(docker: Docker, seen: Seen) -> None:
    """Volumes: a named one keeps its files, a bound directory can be read-only, a missing one is made."""
    source = docker.area.path("source")
    os.makedirs(f"{source}/inner", exist_ok=True)
    write = ("--rm", "--volume", "kept:/data")
    seen.command("write", docker.run("sh", "-c", "echo kept >/data/file", options=write)).ok()
    options = ("--rm", "-v", "kept:/data", "-v", f"{source}:/ro:ro", "-v", f"{source}/new:/new:rshared")
    script = (
        "cat /data/file; touch /ro/x; touch /new/made; grep -E ' /(data|ro|new) ' /proc/self/mounts | sort"
    )
    result = docker.run("sh", "-c", script, options=options)
    seen.command("read", result).ok()
    assert "kept\n" in result.out and "/ro/x: Read-only file system" in result.err
    seen.value("made", " ".join(os.listdir(f"{source}/new")))
    seen.command("remove", docker.docker("volume", "rm", "kept")).ok()


def test_shared_mounts(docker: Docker, seen: Seen) -> None:
    """A file system mounted on the host below a volume with rslave appears in the container."""
    source = docker.area.path("slave")
    os.makedirs(f"{source}/later")
    one = docker.start("sleep", "1000", options=("-v", f"{source}:/data:rslave"))
    docker.area.run("mount", "-t", "tmpfs", "later", f"{source}/later").ok()
    seen.command("mounts", docker.docker("exec", one, "grep", "later", "/proc/self/mounts")).ok()
    docker.area.run("umount", f"{source}/later").ok()
    seen.command("gone", docker.docker("exec", one, "grep", "later", "/proc/self/mounts")).fails()


def test_joined_namespaces(docker: Docker, seen: Seen) -> None:
    """A container in another one's network, pid and ipc namespaces; it ends with that one's pid namespace."""
    one = docker.start("sleep", "1000", options=("--ipc", "shareable"))
    join = [f"--{kind}=container:{one}" for kind in ("network", "pid", "ipc")]
    name = docker.name()
    docker.docker("run", "--detach", "--name", name, *join, IMAGE, "sleep", "2000").ok()
    same = [
        os.readlink(f"/proc/{docker.pid(one)}/ns/{kind}")
        == os.readlink(f"/proc/{docker.pid(name)}/ns/{kind}")
        for kind in ("net", "pid", "ipc", "mnt", "uts")
    ]
    seen.value("same", "".join("ny"[value] for value in same))
    seen.command("ps", docker.docker("exec", name, "ps", "-o", "args")).ok()
    docker.docker("kill", one).ok()
    docker.wait_status(name, "exited")
    seen.value("outcome", docker.outcome(name))
    assert seen.values["same"] == "yyynn"


def test_out_of_memory(docker: Docker, seen: Seen) -> None:
    """A program that needs more memory than its limit is killed, and docker says that it was for memory."""
    docker.area.needs_mounted_cgroups()
    one = docker.name()
    options = ("--memory", "16m", "--memory-swap", "16m")
    result = docker.docker("run", "--name", one, *options, IMAGE, "tail", "/dev/zero")
    seen.command("run", result).fails(status=137)
    seen.value("outcome", docker.outcome(one))
    assert "true" in docker.outcome(one)


def test_processes_are_limited(docker: Docker, seen: Seen) -> None:
    """With --pids-limit, a program cannot start more processes than that."""
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all"
    result = docker.run("sh", "-c", script, options=("--rm", "--pids-limit", "5"))
    seen.command("run", result).fails("can't fork", status=2)


def test_seccomp_profile(docker: Docker, seen: Seen) -> None:
    """A profile of the user's own forbids what it says."""
    profile = docker.area.path("profile.json")
    with open(profile, "w", encoding="utf-8") as stream:
        stream.write(
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"],'
            ' "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
        )
    result = docker.run("mkdir", "/tmp/d", options=("--rm", "--security-opt", f"seccomp={profile}"))
    seen.command("run", result).fails("can't create directory '/tmp/d'")


BAD = {
    "missing": ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-in-path": ("no-such", 127, 'exec: "no-such": executable file not found in $PATH'),
    "not-executable": ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    "directory": ("/etc", 126, "permission denied"),
}


@WORDS
@pytest.mark.parametrize("name", BAD)
def test_bad_image(docker: Docker, seen: Seen, name: str) -> None:
    """A program that cannot be executed: the reason and the exit status reach the client"""
    program, status, reason = BAD[name]
    seen.refusal("run", docker.run(program), reason)
    assert seen.values["run.status"] == status and not docker.left()


@WORDS
@pytest.mark.improvement(
    "run.status", "a program that never ran is a failure of the start: 127, not the program's 1"
)
def test_missing_interpreter(docker: Docker, seen: Seen) -> None:
    """A script whose interpreter is not there: the reason and the exit status reach the client."""
    script = docker.area.path("script")
    with open(script, "w", encoding="ascii") as stream:
        stream.write("#!/no/interpreter\n")
    os.chmod(script, 0o755)
    result = docker.run("/tmp/script", options=("--rm", "-v", f"{script}:/tmp/script:ro"))
    seen.refusal("run", result, "/tmp/script", "no such file or directory")
    assert not docker.left()


REFUSED = {
    "volume-over-file": (["-v", "/usr:/etc/passwd"], "not a directory"),
    "sysctl": (["--sysctl", "net.nosuch=1"], "net/nosuch"),
    "sysctl-value": (["--sysctl", "kernel.msgmax=x"], "invalid argument"),
    "rlimit": (["--ulimit", "nofile=2000000000"], "operation not permitted"),
}


@WORDS
@pytest.mark.parametrize("name", REFUSED)
def test_refused(docker: Docker, seen: Seen, name: str) -> None:
    """What cannot be set up: the reason and the exit status reach the client"""
    options, reason = REFUSED[name]
    seen.refusal("run", docker.run("true", options=("--rm", *options)), reason)
    assert not docker.left()
