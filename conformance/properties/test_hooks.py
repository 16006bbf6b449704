"""Rows of `hooks`: config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle"."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import support
from box import row

if TYPE_CHECKING:
    from box import Box
    from containers import Container
    from support import Json

KINDS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
EARLY = ["prestart", "createRuntime", "createContainer"]


def hook(box: Box, kind: str, script: str, *words: str, **more: Json) -> str:
    """Add a hook that runs a shell script; the directory /log of both sides, which all hooks can write to."""
    log = os.path.join(box.bundle.path, "log")
    if not os.path.isdir(log):
        os.mkdir(log)
        # One name for it inside and outside: hooks run on either side.
        box.bundle.mount(log, "none", log, "bind")
    inside = kind == "startContainer"
    shell = "/bin/busybox"
    if not inside:
        shell = os.path.join(box.bundle.rootfs, "bin/busybox")
    args: list[Json] = ["sh", "-c", script.replace("LOG", log), *words]
    box.add(f"hooks.{kind}", {"path": shell, "args": args, **more})
    return log


def read(log: str, name: str) -> str:
    with open(os.path.join(log, name), encoding="utf-8") as stream:
        return stream.read()


def ends(one: Container) -> None:
    """The container's program ends, and init is reaped."""
    one.output()
    one.wait()


@row("hooks.{kind}[].path", "hooks.{kind}[].args")
@pytest.mark.parametrize("kind", KINDS)
def test_hook_runs(box: Box, kind: str) -> None:
    log = hook(box, kind, "echo $0 $1 >LOG/out", "zero", "one two")
    box.facts("ids")
    assert read(log, "out") == "zero one two\n"


@row("hooks: unset args are the path")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "startContainer"])
def test_args_unset(box: Box, kind: str) -> None:
    script = os.path.join(box.bundle.path, "hook")
    with open(script, "w", encoding="ascii") as stream:
        stream.write(f'#!/bin/sh\necho "$#" "$0" >{script}.out\n')
    os.chmod(script, 0o755)
    box.add(f"hooks.{kind}", {"path": script})
    box.facts("ids")
    assert read(box.bundle.path, "hook.out") == f"0 {script}\n"


@row("hooks.{kind}[].env")
@pytest.mark.parametrize("kind", KINDS)
def test_hook_environment(box: Box, kind: str) -> None:
    log = hook(box, kind, "/bin/busybox env >LOG/out", env=["A=1", "B=2"])
    box.facts("ids")
    lines = {
        line for line in read(log, "out").splitlines() if line.split("=")[0] not in ("PWD", "SHLVL", "_")
    }
    assert {"A=1", "B=2"} <= lines


@row("hooks: an unset env is an empty one")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "startContainer"])
def test_hook_environment_unset(box: Box, kind: str) -> None:
    # What the kernel gave the shell: it sets some variables by itself.
    log = hook(box, kind, "/bin/busybox cat /proc/$$/environ >LOG/out; true")
    box.facts("ids")
    assert read(log, "out") == ""


@row("hooks.{kind}[].timeout")
@pytest.mark.parametrize("kind", EARLY)
def test_hook_timeout(box: Box, kind: str) -> None:
    hook(box, kind, "/bin/busybox sleep 60", timeout=1)
    box.refused()


@row("hooks.{kind}[].timeout")
@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_start_hook_timeout(box: Box, kind: str) -> None:
    box.set("ociVersion", "1.3.0")  # up to 1.2 a failing poststart is a warning
    hook(box, kind, "/bin/busybox sleep 60", timeout=1)
    box.bundle.probe("pause")
    one = box.container()
    one.create().ok()
    assert one.start().status != 0


@row("hooks.poststop[].timeout")
def test_poststop_timeout_is_a_warning(box: Box) -> None:
    log = hook(box, "poststop", "/bin/busybox sleep 60", timeout=1)
    hook(box, "poststop", "echo more >LOG/out")
    box.bundle.probe("exit", "0")
    one = box.container()
    one.create().ok()
    one.start().ok()
    ends(one)
    one.delete().ok()
    assert read(log, "out") == "more\n"


@row("hooks: timeout must be above 0")
@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_value(box: Box, timeout: int) -> None:
    hook(box, "prestart", "true", timeout=timeout)
    box.refused()


@row("hooks: path must be absolute")
@pytest.mark.parametrize("path", ["true", "bin/true"])
def test_relative_path(box: Box, path: str) -> None:
    box.add("hooks.createRuntime", {"path": path})
    box.refused()


@row("hooks: in the order of the specification, each kind as listed")
def test_order(box: Box) -> None:
    log = ""
    for kind in reversed(KINDS):
        for number in (1, 2):
            log = hook(box, kind, f"echo {kind} {number} >>LOG/out")
    box.facts("ids")
    assert read(log, "out").splitlines() == [f"{kind} {number}" for kind in KINDS for number in (1, 2)]


@row("hooks: the state comes on standard input")
@pytest.mark.parametrize("kind", KINDS)
def test_state_on_stdin(box: Box, kind: str) -> None:
    log = hook(box, kind, "/bin/busybox cat >LOG/out")
    box.facts("ids")
    state = json.loads(read(log, "out"))
    assert state["bundle"] == box.bundle.path
    assert state["id"].startswith(support.ID_PREFIX)
    assert state["ociVersion"]
    if kind == "poststop":
        assert state["status"] == "stopped"
        return
    assert state["pid"] > 0
    # runc still says creating where the suite of the specification wants created.
    wanted = {"poststart": ("running",), "startContainer": ("created", "starting")}
    assert state["status"] in wanted.get(kind, ("creating", "created"))


@row("hooks: the pid is init's, as the hook sees it")
@pytest.mark.parametrize(
    "kind", ["prestart", "createRuntime", "poststart", "createContainer", "startContainer"]
)
def test_state_pid(box: Box, kind: str) -> None:
    log = hook(box, kind, "/bin/busybox cat >LOG/out; /bin/busybox true")
    box.bundle.probe("pause")
    one = box.container().up()
    outside = kind in ("prestart", "createRuntime", "poststart")
    assert json.loads(read(log, "out"))["pid"] == (one.pid if outside else 1)


@row("hooks: {kind} runs in the namespaces of the {side}")
@pytest.mark.parametrize(
    ("kind", "side"),
    [
        *((kind, "runtime") for kind in ("prestart", "createRuntime", "poststart", "poststop")),
        *((kind, "container") for kind in ("createContainer", "startContainer")),
    ],
)
def test_namespaces(box: Box, kind: str, side: str) -> None:
    script = "for n in mnt uts ipc net pid; do /bin/busybox readlink /proc/self/ns/$n; done >LOG/out"
    log = hook(box, kind, script)
    box.facts("ids")
    inside = read(log, "out").split()
    mine = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "uts", "ipc", "net", "pid")]
    assert len(inside) == 5
    assert [one == other for one, other in zip(inside, mine, strict=True)] == [side == "runtime"] * 5


@row("hooks: createContainer comes before pivot_root, with the mounts made")
def test_before_pivot_root(box: Box) -> None:
    box.bundle.mount("/mounted", "tmpfs", "tmpfs")
    script = f"/bin/busybox grep -c ' {box.bundle.rootfs}/mounted ' /proc/self/mountinfo >LOG/out"
    log = hook(box, "createContainer", script)
    box.facts("ids")
    assert read(log, "out") == "1\n"


@row("hooks: poststop comes when the container is gone")
def test_after_deletion(box: Box) -> None:
    one = box.container()
    log = hook(box, "poststop", f"ls {one.root} >LOG/out")
    one.bundle.probe("exit", "0").write()
    one.run().ok()
    assert one.id not in read(log, "out").split()


@row("hooks: a failing {kind} undoes create")
@pytest.mark.parametrize("kind", EARLY)
def test_failing_create_hook(box: Box, kind: str) -> None:
    hook(box, kind, "exit 3")
    box.refused()


@row("hooks: after a failing {kind} poststop runs")
@pytest.mark.parametrize("kind", EARLY)
def test_failing_create_hook_and_poststop(box: Box, kind: str) -> None:
    hook(box, kind, "exit 3")
    log = hook(box, "poststop", "echo done >LOG/out")
    box.refused()
    assert read(log, "out") == "done\n"


@row("hooks: a failing {kind} fails start and destroys the container")
@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_failing_start_hook(box: Box, kind: str) -> None:
    box.set("ociVersion", "1.3.0")  # up to 1.2 a failing poststart is a warning
    hook(box, kind, "exit 3")
    box.bundle.probe("pause")
    one = box.container()
    one.create().ok()
    assert one.start().status != 0
    assert one.pyrunc("state", one.id).status != 0


@row("hooks: a failing poststop is a warning, the others run")
def test_failing_poststop(box: Box) -> None:
    hook(box, "poststop", "exit 3")
    log = hook(box, "poststop", "echo more >LOG/out")
    box.bundle.probe("exit", "0")
    one = box.container()
    one.create().ok()
    one.start().ok()
    ends(one)
    one.delete().ok()
    assert read(log, "out") == "more\n"


@row("start fails when the program cannot be executed")
def test_failing_execve(box: Box) -> None:
    path = os.path.join(box.bundle.rootfs, "bin/broken")
    with open(path, "wb") as stream:
        stream.write(b"\\x7fELF nonsense")
    os.chmod(path, 0o755)
    box.bundle.args("/bin/broken")
    one = box.container()
    one.create().ok()
    assert one.start().status != 0
