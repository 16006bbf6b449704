"""podman: options of `run` that other engines do not have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts, options
from engines.image import IMAGE
from engines.podman import Podman
from engines.scenario import OURS, WORDS

if TYPE_CHECKING:
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "podman-own"
CLIENT = Podman

OPTIONS = {
    "umask": ["--umask", "0077"],
    "timezone": ["--tz", "UTC"],
    "image-mount": ["--mount", f"type=image,source={IMAGE},destination=/image"],
    "overlay-volume": ["--volume", "/usr/share:/data:O"],
    "devpts": ["--mount", "type=devpts,destination=/dev/pts"],
    "notmpcopyup": ["--mount", "type=tmpfs,destination=/q,tmpfs-mode=1777,notmpcopyup"],
    "mask": ["--security-opt", "mask=/proc/version"],
    "no-conmon-cgroup": ["--cgroups", "no-conmon"],
    "keep-groups": ["--group-add", "keep-groups", "--annotation", "run.oci.keep_original_groups=1"],
}


@pytest.mark.parametrize("name", options.parameters(OPTIONS))
def test_option(client: Podman, seen: Seen, name: str) -> None:
    """`podman run` with an option of its own: all that a program sees of its container"""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *OPTIONS[name])))


@facts.COVERS
@facts.RUN_MODE
def test_systemd(client: Podman, seen: Seen) -> None:
    """`podman run --systemd always`: all that a program sees of its container."""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", "--systemd", "always")))


@pytest.mark.improvement("run.out", "the personality is set; this version of runc passes over it")
def test_personality(client: Podman, seen: Seen) -> None:
    """`--personality` lets a program believe that it runs on a machine of 32 bits."""
    result = client.run("uname", "-m", options=("--rm", "--personality", "LINUX32"))
    seen.command("run", result).ok()
    assert seen.runtime != OURS or result.out == "i686\n"


def test_unmask(client: Podman, seen: Seen) -> None:
    """`--security-opt unmask=ALL` hides nothing."""
    script = "head -c 1 /proc/keys | wc -c; grep -c ' /proc/' /proc/self/mounts"
    result = client.run("sh", "-c", script, options=("--rm", "--security-opt", "unmask=ALL"))
    assert seen.command("run", result).fails().out == "1\n0\n"


@pytest.mark.improvement("run.out", "the volume's ids are mapped; this version of runc passes over it")
def test_idmapped_volume(client: Podman, seen: Seen) -> None:
    """`--volume ...:idmap`: in a user namespace, root's files on the host are root's in the container."""
    source = client.path("idmapped")
    os.mkdir(source)
    maps = ("--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000", "--volume", f"{source}:/data:idmap")
    result = client.run("stat", "-c", "%u %g", "/data", options=("--rm", *maps))
    seen.command("run", result).ok()
    assert seen.runtime != OURS or result.out == "0 0\n"


def test_secret(client: Podman, seen: Seen) -> None:
    """`--secret` puts a secret into the container, as a file of its user, and as a variable."""
    client.do("secret", "create", "word", "-", stdin="hidden").ok()
    given = ("--secret", "word,uid=1000,mode=0400", "--secret", "word,type=env,target=WORD")
    script = "stat -c '%a %u' /run/secrets/word; cat /run/secrets/word; echo \" $WORD\""
    result = client.run("sh", "-c", script, options=("--rm", "--user", "1000", *given))
    client.do("secret", "rm", "word").ok()
    assert seen.command("run", result).ok().out == "400 1000\nhidden hidden\n"


@pytest.mark.improvement(
    "run", "as with crun, a container may stay in the cgroup of its caller, which runc cannot do"
)
def test_no_cgroups(client: Podman, seen: Seen) -> None:
    """`--cgroups disabled` makes no cgroup for the container."""
    argv = ("run", "--rm", "--name", client.name(), "--cgroups", "disabled", IMAGE)
    result = client.do(*argv, "sh", "-c", facts.CGROUP)
    own = client.area.run("sh", "-c", facts.CGROUP).ok().out
    seen.value("run", [result.status, "the caller's" if result.out == own else result.err])
    assert seen.runtime != OURS or seen.values["run"] == [0, "the caller's"]


@WORDS
def test_systemd_cgroups(client: Podman, seen: Seen) -> None:
    """`--cgroup-manager systemd` on a host without systemd is refused."""
    support.needs(not os.path.isdir("/run/systemd/system"), "a host without systemd")
    argv = ("--cgroup-manager", "systemd", "run", "--rm", "--name", client.name(), IMAGE, "true")
    seen.refusal("run", client.do(*argv), "systemd not running on this host")


def test_socket_activation(client: Podman, seen: Seen) -> None:
    """LISTEN_FDS: a listening socket of the caller is the program's descriptor 3, and LISTEN_PID its own pid."""
    argv = client.typed("run", "--rm", "--name", client.name(), *client.always, IMAGE)
    script = 'exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
    inside = "env | grep LISTEN | sort; echo $$; ls /proc/self/fd"
    result = support.run("sh", "-c", script, "sh", *argv, "sh", "-c", inside)
    assert seen.command("run", result).ok().out.startswith("LISTEN_FDS=1\nLISTEN_PID=1\n1\n")


def test_checkpoint(client: Podman, seen: Seen) -> None:
    """`podman container checkpoint` and `restore`; where CRIU cannot do it, it says so and the container goes on."""
    one = client.start("sleep", "1000")
    saved = client.do("container", "checkpoint", one)
    seen.value("status", saved.status)
    if saved.status:
        assert "criu failed: type DUMP" in saved.err
    else:
        client.wait_status(one, "exited")
        seen.value("restore", client.do("container", "restore", one).status)
    seen.value("after", client.status(one))
    seen.command("exec", client.do("exec", one, "echo", "alive")).ok()


def test_timeout(client: Podman, seen: Seen) -> None:
    """`--timeout` ends a container that takes too long."""
    one = client.name()
    argv = ("run", "--name", one, *client.always, "--timeout", "1", IMAGE, "sleep", "1000")
    seen.command("run", client.do(*argv))
    seen.value("outcome", client.outcome(one))
