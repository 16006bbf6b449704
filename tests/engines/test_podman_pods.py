"""podman: pods, `kube play`, and what podman asks of a runtime that docker does not."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.image import IMAGE
from engines.podman import Podman

if TYPE_CHECKING:
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "podman-pods"
CLIENT = Podman
# Pods are in podman's own place, for which kube play has no option.
PARENTS = ("libpod_parent",)

SPACES = ("net", "ipc", "uts", "pid", "mnt")
MANIFEST = """
apiVersion: v1
kind: Pod
metadata:
  name: played
spec:
  restartPolicy: Never
  containers:
  - name: server
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: ["sh", "-c", "echo $GREETING; id -u; ulimit -c; touch /new; sleep 1000"]
    env: [{name: GREETING, value: hello}]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    securityContext: {runAsUser: 1000, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: other
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: ["sleep", "2000"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  volumes:
  - name: shared
    hostPath: {path: DIRECTORY, type: Directory}
"""


def _spaces(client: Podman, one: str, other: str) -> str:
    """The namespaces that two containers share."""
    first, second = (f"/proc/{client.pid(name)}/ns" for name in (one, other))
    return " ".join(
        kind for kind in SPACES if os.readlink(f"{first}/{kind}") == os.readlink(f"{second}/{kind}")
    )


def _identity(client: Podman, pod: str) -> str:
    """The id of a pod, by which its cgroup is called."""
    return client.do("pod", "inspect", pod, "--format", "{{.ID}}").ok().out.strip()


def _left(pod: str) -> list[str]:
    """Cgroups that containers of a pod have left; podman leaves the pod's own in hierarchies that it does not use."""
    return [path for path in support.find_cgroups(pod) if not path.endswith(pod)]


def test_pod(client: Podman, seen: Seen) -> None:
    """Containers of a pod share its namespaces; it is paused, stopped, started again and removed as one."""
    created = ("pod", "create", "--name", "pod", "--network", "none")
    client.do(*created, "--share", "net,ipc,uts,pid").ok()
    names = [client.name() for _ in range(2)]
    for name in names:
        client.do("run", "--detach", "--pod", "pod", "--name", name, IMAGE, "sleep", "1000").ok()
    seen.value("shared", _spaces(client, *names))
    seen.command("ps", client.do("exec", names[0], "ps", "-o", "args")).ok()
    for verb, status in (
        ("pause", "paused"),
        ("unpause", "running"),
        ("kill", "exited"),
        ("start", "running"),
    ):
        client.do("pod", verb, "pod").ok()
        client.wait_status(names[0], status)
        seen.value(verb, client.do("pod", "ps", "--format", "{{.Status}}").ok().out)
    pod = _identity(client, "pod")
    client.do("pod", "rm", "--force", "--time", "0", "pod").ok()
    assert seen.values["shared"] == "net ipc uts pid" and not _left(pod)


def test_pod_limits(client: Podman, seen: Seen) -> None:
    """A pod's limit on processors holds for its containers; one that ends leaves the others."""
    created = ("pod", "create", "--name", "pod", "--network", "none")
    client.do(*created, "--cpus", "0.5").ok()
    one, other = client.name(), client.name()
    client.do("run", "--detach", "--pod", "pod", "--name", one, IMAGE, "sleep", "1000").ok()
    ended = client.do("run", "--pod", "pod", "--name", other, IMAGE, "sh", "-c", f"{facts.CGROUP}; exit 3")
    pod = _identity(client, "pod")
    assert pod in seen.command("run", ended).fails(status=3).out
    seen.value("states", [client.status(name) for name in (one, other)])
    client.do("pod", "rm", "--force", "--time", "0", "pod").ok()


def test_kube_play(client: Podman, seen: Seen) -> None:
    """`podman kube play` makes the pod of a manifest, with its limits, user, volume; `kube down` takes it away."""
    manifest, shared = client.area.path("pod.yaml"), client.area.path("shared")
    os.makedirs(shared, exist_ok=True)
    with open(manifest, "w", encoding="utf-8") as stream:
        stream.write(MANIFEST.replace("DIRECTORY", shared))
    client.do("kube", "play", "--network", "none", manifest).ok()
    server, other = "played-server", "played-other"

    def shown() -> bool:
        logs = client.do("logs", server).ok()
        return "touch" in logs.err and logs.out.count("\n") == 3

    support.wait_until(shown, "the server's lines")
    seen.command("logs", client.do("logs", server)).ok()
    client.do("exec", other, "touch", "/shared/made").ok()
    seen.value("volume", " ".join(os.listdir(shared)))
    seen.value("shared", _spaces(client, server, other))
    script = "grep -E 'Cap(Prm|Bnd)' /proc/self/status; cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max"
    seen.command("limits", client.do("exec", server, "sh", "-c", script))
    pod = _identity(client, "played")
    client.do("kube", "down", manifest).ok()
    assert seen.values["logs.out"] == "hello\n1000\n0\n" and seen.values["volume"] == "made"
    assert not _left(pod)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_descriptors(client: Podman, seen: Seen, verb: str) -> None:
    """`--preserve-fds` hands the caller's descriptors on, and no others"""
    given = client.area.path("given")
    with open(given, "w", encoding="ascii") as stream:
        stream.write("given\n")
    one = client.start("sleep", "1000")
    new = ("run", "--rm", "--name", client.name(), *client.always, "--preserve-fds", "1", IMAGE)
    old = ("exec", "--preserve-fds", "1", one)
    argv = client.typed(*(new if verb == "run" else old), "sh", "-c", "cat <&3; ls /proc/self/fd")
    result = support.run("sh", "-c", 'exec 3<"$0" 4<"$0"; exec "$@"', given, *argv)
    assert seen.command(verb, result).ok().out.startswith("given\n")


def test_init_then_start(client: Podman, seen: Seen) -> None:
    """`podman init` makes a container that waits; it starts later, or is removed and has never run."""
    one, other = client.name(), client.name()
    for name in (one, other):
        client.do("create", "--name", name, *client.always, IMAGE, "sh", "-c", "echo ran; exit 3").ok()
        client.do("init", name).ok()
    seen.value("waiting", client.status(one))
    seen.command("start", client.do("start", "--attach", one)).fails(status=3)
    seen.command("remove", client.do(*client.remove, other)).ok()
    assert not client.left()


def test_runtime_flags(client: Podman, seen: Seen) -> None:
    """`--runtime-flag` reaches the runtime."""
    before = len(client.area.calls())
    log = client.area.path("runtime.log")
    flags = ("--runtime-flag", "debug", "--runtime-flag", f"log={log}")
    argv = ("run", "--rm", "--name", client.name(), *client.always, IMAGE, "echo", "here")
    seen.command("run", client.do(*flags, *argv)).ok()
    assert any(f"--debug --log={log} " in f"{call} " for call in client.area.calls()[before:])
    assert os.path.exists(log)


@facts.COVERS
def test_user_namespace(client: Podman, seen: Seen) -> None:
    """`podman run --uidmap`: all that a program sees of its container."""
    maps = ("--uidmap", "0:100000:5000", "--gidmap", "0:200000:5000")
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *maps)))


def test_root_directory(client: Podman, seen: Seen) -> None:
    """`podman run --rootfs` runs in a directory that podman does not manage."""
    root = client.area.path("prepared")
    os.makedirs(f"{root}/bin")
    client.area.run("cp", support.needs_program("busybox"), f"{root}/bin/busybox").ok()
    argv = ("run", "--rm", "--name", client.name(), *client.always, "--rootfs", root)
    seen.command("run", client.do(*argv, "/bin/busybox", "ls", "/")).ok()


STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@pytest.mark.improvement(
    "hooks",
    "the words that the validation of runtimes and crun use: created; poststart finds the program running",
)
def test_hooks(client: Podman, seen: Seen) -> None:
    """`podman --hooks-dir`: the hooks of every stage run, in order, with the state of the container."""
    directory, log = client.area.path("hooks"), client.area.path("hooks.log")
    os.makedirs(directory)
    for stage in STAGES:
        script = f"grep -o '\"status\": *\"[a-z]*\"' | sed 's/.*: */{stage} /' >>{log}"
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script]}
        if stage == "startContainer":
            hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >/by-hook"]}
        document = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": [stage]}
        with open(f"{directory}/{stage}.json", "w", encoding="utf-8") as stream:
            json.dump(document, stream)
    argv = ("--hooks-dir", directory, "run", "--rm", "--name", client.name(), *client.always)
    seen.command("run", client.do(*argv, IMAGE, "cat", "/by-hook")).ok()
    with open(log, encoding="utf-8") as stream:
        seen.value("hooks", stream.read())
