"""Options of `ctr run`: limits, capabilities, seccomp, mounts, namespaces, user namespaces; and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.scenario import WORDS

if TYPE_CHECKING:
    from engines.containerd import Containerd
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "containerd-options"

OPTIONS = {
    "memory": ["--memory-limit", "33554432"],
    "cpus": ["--cpus", "0.5"],
    "cpu-shares": ["--cpu-shares", "512"],
    "cpu-quota": ["--cpu-quota", "20000", "--cpu-period", "100000"],
    "seccomp": ["--seccomp"],
    "cap-add": ["--cap-add", "CAP_SYS_ADMIN"],
    "cap-drop": ["--cap-drop", "CAP_CHOWN", "--cap-drop", "CAP_KILL"],
    "read-only": ["--read-only"],
    "privileged": ["--privileged"],
    "allow-new-privs": ["--allow-new-privs"],
    "environment": ["--env", "A=b", "--env", "EMPTY="],
    "cwd-exists": ["--cwd", "/tmp"],
    "cwd-made": ["--cwd", "/no/directory"],
    "device": ["--device", "/dev/fuse"],
    "net-host": ["--net-host"],
    "no-pivot": ["--no-pivot"],
    "bind": ["--mount", "type=bind,src=/usr/share,dst=/data/share,options=rbind:ro"],
    "tmpfs": ["--mount", "type=tmpfs,src=tmpfs,dst=/data/tmp,options=size=64k:mode=1770"],
    "propagation": ["--rootfs-propagation", "rslave"],
    "annotation": ["--annotation", "org.example.key=value"],
    "uidmap": ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"],
}


def _option(name: str) -> object:
    """Its parameter: a privileged container has nothing that is masked."""
    return pytest.param(name, marks=[] if name == "privileged" else [facts.COVERS])


@pytest.mark.parametrize("name", [_option(name) for name in OPTIONS])
def test_option(ctd: Containerd, seen: Seen, name: str) -> None:
    """`ctr run` with an option: all that a program sees of its container"""
    facts.note(seen, ctd.run(*facts.COMMAND, options=("--rm", *OPTIONS[name])))


def test_cgroup_of_its_own(ctd: Containerd, seen: Seen) -> None:
    """`ctr run --cgroup` puts the container where it is told, and nothing is left there."""
    path = f"/{ctd.area.name}/where"
    result = ctd.run("sh", "-c", facts.CGROUP, options=("--rm", "--cgroup", path))
    seen.command("run", result).ok()
    assert f"{path}\n" in result.out
    assert not [path for path in ctd.area.cgroups() if path.endswith("where")]


def test_out_of_memory(ctd: Containerd, seen: Seen) -> None:
    """A program that needs more memory than its limit is killed, and the client is told the status of KILL."""
    result = ctd.run("tail", "/dev/zero", options=("--rm", "--memory-limit", str(16 << 20)))
    seen.command("run", result).fails(status=137)


def test_seccomp_profile(ctd: Containerd, seen: Seen) -> None:
    """A profile of the user's own forbids what it says."""
    profile = ctd.area.path("profile.json")
    with open(profile, "w", encoding="utf-8") as stream:
        stream.write(
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"],'
            ' "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
        )
    result = ctd.run("mkdir", "/tmp/d", options=("--rm", "--seccomp", "--seccomp-profile", profile))
    seen.command("run", result).fails("can't create directory '/tmp/d'")


def test_network_namespace(ctd: Containerd, seen: Seen) -> None:
    """A container joins a network namespace that exists already."""
    ctd.area.run("ip", "netns", "add", "other").ok()
    ctd.area.run("ip", "-n", "other", "link", "add", "there", "type", "veth", "peer", "name", "too").ok()
    result = ctd.run("ls", "/sys/class/net", options=("--rm", "--with-ns", "network:/run/netns/other"))
    seen.command("run", result).ok()
    ctd.area.run("ip", "netns", "delete", "other").ok()
    assert "there" in result.out


def test_prepared_root(ctd: Containerd, seen: Seen) -> None:
    """`ctr run --rootfs` runs in a directory that containerd does not manage."""
    root = ctd.area.path("prepared")
    os.makedirs(f"{root}/bin")
    ctd.area.run("cp", support.needs_program("busybox"), f"{root}/bin/busybox").ok()
    argv = ("run", "--rm", "--runc-binary", ctd.area.runtime, "--rootfs", root, ctd.id())
    seen.command("run", ctd.ctr(*argv, "/bin/busybox", "ls", "/")).ok()


BAD = {
    "missing": ("/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-in-path": ("no-such", 'exec: "no-such": executable file not found in $PATH'),
    "not-executable": ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    "directory": ("/etc", "permission denied"),
    "interpreter": ("/tmp/script", "no such file or directory"),
}


@WORDS
@pytest.mark.parametrize("name", BAD)
def test_bad_image(ctd: Containerd, seen: Seen, name: str) -> None:
    """A program that cannot be executed: the reason and the exit status reach the client"""
    script = ctd.area.path("script")
    with open(script, "w", encoding="ascii") as stream:
        stream.write("#!/no/interpreter\n")
    os.chmod(script, 0o755)
    program, reason = BAD[name]
    mount = f"type=bind,src={script},dst=/tmp/script,options=rbind:ro"
    seen.refusal("run", ctd.run(program, options=("--rm", "--mount", mount)), reason)
    assert not ctd.left()


REFUSED = {
    "cwd-is-a-file": (["--cwd", "/etc/passwd"], "not a directory"),
    "namespace": (["--with-ns", "network:/no/such"], "no such file or directory"),
    "mount-source": (
        ["--mount", "type=bind,src=/no/such,dst=/data,options=rbind:ro"],
        "no such file or directory",
    ),
    "mount-type": (["--mount", "type=nosuchfs,src=x,dst=/data"], "no such device"),
    "cpu-quota": (["--cpu-quota", "10", "--cpu-period", "100000"], "invalid argument"),
    # What init needs may be counted at once or a moment later.
    "memory": (["--memory-limit", "4096"], "memory limit"),
}


@WORDS
@pytest.mark.parametrize("name", REFUSED)
def test_refused(ctd: Containerd, seen: Seen, name: str) -> None:
    """What cannot be set up: the reason and the exit status reach the client"""
    options, reason = REFUSED[name]
    seen.refusal("run", ctd.run("true", options=("--rm", *options)), reason)
    assert not ctd.left()


@WORDS
def test_systemd(ctd: Containerd, seen: Seen) -> None:
    """`ctr run --runc-systemd-cgroup` on a host without systemd is refused."""
    support.needs(not os.path.isdir("/run/systemd/system"), "a host without systemd")
    options = ("--rm", "--runc-systemd-cgroup", "--cgroup", "machine.slice:pyrunc:x")
    seen.refusal("run", ctd.run("true", options=options), "systemd not running on this host")
    assert not ctd.left()
