"""podman called by an ordinary user: what scenarios of life.py and options.py it allows, and what it does otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines import accounts, facts, options
from engines.image import IMAGE
from engines.life import (
    test_around,
    test_copy,
    test_exec,
    test_exec_refused,
    test_exec_terminal,
    test_force_remove,
    test_kill,
    test_logs,
    test_restart_on_failure,
    test_run,
    test_standard_input,
    test_start_again,
    test_stop,
    test_terminal,
)
from engines.options import (
    test_bad_image,
    test_init,
    test_joined_namespaces,
    test_missing_interpreter,
    test_nothing_hidden,
    test_seccomp_profile,
    test_volumes,
)
from engines.podman import RootlessPodman

if TYPE_CHECKING:
    from engines.scenario import Seen

__all__ = [
    "test_around",
    "test_bad_image",
    "test_copy",
    "test_exec",
    "test_exec_refused",
    "test_exec_terminal",
    "test_force_remove",
    "test_init",
    "test_joined_namespaces",
    "test_kill",
    "test_logs",
    "test_missing_interpreter",
    "test_nothing_hidden",
    "test_restart_on_failure",
    "test_run",
    "test_seccomp_profile",
    "test_standard_input",
    "test_start_again",
    "test_stop",
    "test_terminal",
    "test_volumes",
]
pytestmark = pytest.mark.root
ENGINE = "podman-rootless"
CLIENT = RootlessPodman

OPTIONS = {
    "cap-drop": ["--cap-drop", "ALL", "--cap-add", "CHOWN"],
    "user": ["--user", "1000:2000", "--group-add", "7"],
    "keep-id": ["--userns", "keep-id"],
    "uidmap": ["--uidmap", "0:1:5000", "--gidmap", "0:1:5000"],
    "no-new-privileges": ["--security-opt", "no-new-privileges"],
    "ulimits": ["--ulimit", "nofile=1000:2000", "--ulimit", "core=0"],
    "device": ["--device", "/dev/fuse:/dev/other:r"],
    "net-host": ["--network", "host"],
    "network": ["--network", "slirp4netns"],
    "pid-host": ["--pid", "host"],
    # Without rights over cgroups, podman says that it forgets these.
    "limits": ["--memory", "64m", "--pids-limit", "20"],
}


@pytest.mark.parametrize("name", options.parameters(OPTIONS))
def test_option(client: RootlessPodman, seen: Seen, name: str) -> None:
    """`run` with an option, for an ordinary user: all that a program sees of its container"""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *OPTIONS[name])))


@facts.COVERS
@facts.RUN_MODE
def test_read_only(client: RootlessPodman, seen: Seen) -> None:
    """`run --read-only` by an ordinary user: all that a program sees of its container."""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *options.READ_ONLY)))


@pytest.mark.improvement(
    "run.mounts",
    "the cgroups are those of the caller, and read-only; a device that is bound is not bound once more",
)
@facts.COVERS
def test_privileged(client: RootlessPodman, seen: Seen) -> None:
    """`run --privileged` by an ordinary user: all that a program sees of its container."""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", "--privileged")))


def test_identity(client: RootlessPodman, seen: Seen) -> None:
    """Root inside is the user who called podman; others are subordinate ids; the runtime's state is the user's."""
    one = client.start("sh", "-c", "umask 0; touch /tmp/up; sleep 1000")
    pid = client.pid(one)
    seen.value("uid", support.status_field(pid, "Uid"))
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as stream:
        seen.value("map", [" ".join(line.split()) for line in stream])
    state = f"{client.area.root}/run/user/{accounts.UID}/{client.area.runtime_name}"
    identity = client.inspect(one, ".Id")
    seen.value("state", [os.stat(state).st_uid, identity in os.listdir(state)])
    client.do(*client.remove, one).ok()
    assert set(str(seen.values["uid"]).split()) == {str(accounts.UID)}
    assert seen.values["state"] == [accounts.UID, True]
    assert identity not in os.listdir(state)


def test_refused_by_podman(client: RootlessPodman, seen: Seen) -> None:
    """What podman itself refuses to ordinary users with version 1 of cgroups; the container goes on."""
    one = client.start("sleep", "1000")
    for verb in (("pause",), ("stats", "--no-stream")):
        seen.command(verb[0], client.do(*verb, one))
    seen.value("status", client.status(one))


def test_network(client: RootlessPodman, seen: Seen) -> None:
    """A published port leads from the user's network into the container's."""
    published = ("--network", "slirp4netns", "--publish", "8080:80")
    client.start("nc", "-ll", "-p", "80", "-e", "echo", "hello", options=published)
    argv = (support.needs_program("busybox"), "nc", "127.0.0.1", "8080")
    support.wait_until(lambda: client.area.run(*argv).out != "", "the server")
    assert seen.command("get", client.area.run(*argv)).ok().out == "hello\n"


def test_pod(client: RootlessPodman, seen: Seen) -> None:
    """Containers in a pod of an ordinary user share its namespaces and end with it."""
    client.do("pod", "create", "--name", "pod", "--network", "none", "--share", "net,ipc,uts").ok()
    names = [client.name() for _ in range(2)]
    for name in names:
        client.do("run", "--detach", "--pod", "pod", "--name", name, IMAGE, "sleep", "1000").ok()
    spaces = [
        {kind: os.readlink(f"/proc/{client.pid(name)}/ns/{kind}") for kind in ("net", "ipc", "uts", "pid")}
        for name in names
    ]
    seen.value("shared", [kind for kind, value in spaces[0].items() if spaces[1][kind] == value])
    seen.command("exec", client.do("exec", names[0], "hostname")).ok()
    client.do("pod", "rm", "--force", "--time", "0", "pod").ok()
    assert seen.values["shared"] == ["net", "ipc", "uts"]
