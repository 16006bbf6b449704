"""Hooks of real containers: when they run, what they are told, and what a failure undoes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import BundleFactory, ContainerFactory
    from support import Json, Spec

pytestmark = pytest.mark.root

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def note(log: str, word: str, *, then: str = "") -> Spec:
    """A hook that adds a line "word state" to `log`."""
    script = f"{{ printf '%s ' {word}; cat; echo; }} >>{log}; {then}"
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}


def lines(path: str) -> list[tuple[str, dict[str, Json]]]:
    """The log's words and states."""
    with open(path, encoding="utf-8") as stream:
        return [(line.split(" ", 1)[0], json.loads(line.split(" ", 1)[1])) for line in stream]


def test_all_kinds_in_order_with_their_states(container: ContainerFactory, bundle: BundleFactory) -> None:
    """config.md, Hooks. The kinds that run inside see the root of the container, so their logs are two files."""
    what = bundle("busybox", "sh", "-c", "echo 'program {}' >>/log; echo ready; sleep 600")
    outside, inside = os.path.join(what.path, "log"), os.path.join(what.rootfs, "log")
    hooks: dict[str, Json] = {}
    for kind in KINDS:
        where = "/log" if kind == "startContainer" else outside
        hooks[kind] = [note(where, kind), note(where, f"{kind}-2")]
    what.spec["hooks"] = hooks
    what.spec["annotations"] = {"org.example.key": "value"}
    one = container(what)
    one.create().ok()
    pid = one.pid
    assert [word for word, _ in lines(outside)] == [
        "prestart", "prestart-2", "createRuntime", "createRuntime-2", "createContainer", "createContainer-2",
    ]  # fmt: skip
    for word, state in lines(outside):
        assert state["id"] == one.id
        assert state["bundle"] == what.path
        assert state["annotations"] == {"org.example.key": "value"}
        assert state["status"] == "created"
        assert state["pid"] == (1 if word.startswith("createContainer") else pid)
    one.start().ok()
    one.expect("ready")
    assert [word for word, _ in lines(inside)] == ["startContainer", "startContainer-2", "program"]
    assert (lines(inside)[0][1]["status"], lines(inside)[0][1]["pid"]) == ("created", 1)
    last = lines(outside)[-2:]
    assert [word for word, _ in last] == ["poststart", "poststart-2"]
    assert (last[0][1]["status"], last[0][1]["pid"]) == ("running", pid)
    one.kill("KILL").ok()
    one.wait()
    one.delete().ok()
    last = lines(outside)[-2:]
    assert [word for word, _ in last] == ["poststop", "poststop-2"]
    assert last[0][1]["status"] == "stopped"


def test_a_hook_without_a_pid_namespace_learns_the_real_pid(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = bundle("busybox", "true").without_namespace("pid")
    what.spec["hooks"] = {"createContainer": [note(os.path.join(what.path, "log"), "x")]}
    one = container(what)
    one.create().ok()
    assert lines(os.path.join(what.path, "log"))[0][1]["pid"] == one.pid


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failed_create_hook_undoes_create_and_runs_poststop(
    container: ContainerFactory, bundle: BundleFactory, kind: str
) -> None:
    """runtime.md, steps 3 to 5: error, stop the container, go on at step 12."""
    what = bundle("busybox", "true")
    log = os.path.join(what.path, "log")
    what.spec["hooks"] = {
        kind: [note(log, "good"), note(log, "bad", then="echo because >&2; exit 4"), note(log, "never")],
        "poststop": [note(log, "poststop")],
    }
    one = container(what)
    one.create().fails(f"$.hooks.{kind}[1]", "exit status 4", "because")
    assert [word for word, _ in lines(log)] == ["good", "bad", "poststop"]
    one.pyrunc("state", one.id).fails("container does not exist")
    assert support.find_cgroups(f"/{one.id}") == []


def test_a_failed_start_hook_fails_start_and_destroys(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """runtime.md, step 7: `start` MUST generate an error; no other runtime does."""
    what = bundle("busybox", "sh", "-c", "echo ran >/ran")
    log = os.path.join(what.path, "log")
    what.spec["hooks"] = {
        "startContainer": [note("/log", "good"), note("/log", "bad", then="echo why >&2; exit 5")],
        "poststop": [note(log, "poststop")],
    }
    one = container(what)
    one.create().ok()
    one.start().fails("$.hooks.startContainer[1]", "exit status 5", "why")
    one.wait()
    assert not os.path.exists(os.path.join(what.rootfs, "ran"))
    assert [word for word, _ in lines(log)] == ["poststop"]
    one.pyrunc("state", one.id).fails("container does not exist")


def test_a_start_hook_that_cannot_be_started_is_named(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """The cgroup has no room for one more process: that is the hook's failure and not the program's."""
    what = bundle("busybox", "sleep", "600")
    what.spec["hooks"] = {"startContainer": [{"path": "/bin/true"}]}
    what.mapping("linux")["resources"] = {"pids": {"limit": 1}}
    one = container(what)
    one.create().ok()
    one.start().fails("$.hooks.startContainer[0]: clone '/bin/true': resource temporarily unavailable")
    one.wait()
    one.pyrunc("state", one.id).fails("container does not exist")


@pytest.mark.parametrize("version", ["1.0.0", "1.2.1"])
def test_a_failed_poststart_hook_was_a_warning(
    container: ContainerFactory, bundle: BundleFactory, version: str
) -> None:
    """runtime.md up to 1.2, step 9: a configuration of that time gets the lifecycle of that time."""
    what = bundle("busybox", "sleep", "600")
    log = os.path.join(what.path, "log")
    what.spec["ociVersion"] = version
    what.spec["hooks"] = {"poststart": [note(log, "bad", then="exit 6"), note(log, "good")]}
    one = container(what)
    one.create().ok()
    told = os.path.join(what.path, "told")
    one.pyrunc("--log-level", "warning", "--log", told, "start", one.id).ok()
    with open(told, encoding="utf-8") as stream:
        assert "$.hooks.poststart[0]" in stream.read()
    assert [word for word, _ in lines(log)] == ["bad", "good"]
    assert '"status": "running"' in one.pyrunc("state", one.id).ok().out
    one.delete("--force").ok()
    one.wait()


@pytest.mark.parametrize("version", ["1.3.0-rc.1", "1.3.0"])
def test_a_failed_poststart_hook_ends_the_container(
    container: ContainerFactory, bundle: BundleFactory, version: str
) -> None:
    """runtime.md 1.3, step 9: error, stop, go on at step 12."""
    what = bundle("busybox", "sleep", "600")
    what.spec["ociVersion"] = version
    log = os.path.join(what.path, "log")
    what.spec["hooks"] = {
        "poststart": [note(log, "bad", then="exit 6")],
        "poststop": [note(log, "poststop")],
    }
    one = container(what)
    one.create().ok()
    one.start().fails("$.hooks.poststart[0]", "exit status 6")
    assert one.wait() == -9
    assert [word for word, _ in lines(log)] == ["bad", "poststop"]
    one.pyrunc("state", one.id).fails("container does not exist")


def test_a_failed_poststop_hook_is_a_warning(container: ContainerFactory, bundle: BundleFactory) -> None:
    """runtime.md, step 13: the remaining hooks and the lifecycle continue."""
    what = bundle("busybox", "true")
    log = os.path.join(what.path, "log")
    what.spec["hooks"] = {"poststop": [note(log, "one", then="exit 1"), note(log, "two")]}
    one = container(what)
    one.create().ok()
    assert one.delete().ok().err == ""
    assert [word for word, _ in lines(log)] == ["one", "two"]
    quiet = os.path.join(what.path, "log.json")
    one.create().ok()
    one.pyrunc("--debug", "--log", quiet, "--log-format", "json", "delete", one.id).ok()
    with open(quiet, encoding="utf-8") as stream:
        assert any(
            json.loads(line)["level"] == "warning" and "$.hooks.poststop[0]" in line for line in stream
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prestart", "createContainer", "startContainer"])
def test_a_hook_that_hangs_is_killed(container: ContainerFactory, bundle: BundleFactory, kind: str) -> None:
    what = bundle("busybox", "true")
    what.spec["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "sleep 600"], "timeout": 1}]}
    one = container(what)
    result = one.create()
    if kind == "startContainer":
        result.ok()
        result = one.start()
    result.fails(f"$.hooks.{kind}[0]", "hook ran past specified timeout of 1.0s")
    assert support.find_cgroups(f"/{one.id}") == []


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_a_missing_hook_is_named(container: ContainerFactory, bundle: BundleFactory, kind: str) -> None:
    what = bundle("busybox", "true")
    what.spec["hooks"] = {kind: [{"path": "/no/such/hook"}]}
    one = container(what)
    result = one.create()
    if kind == "startContainer":
        result.ok()
        result = one.start()
    result.fails(f"$.hooks.{kind}[0]", "/no/such/hook", "no such file or directory")


def test_hooks_may_ask_for_the_state(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A hook that calls the runtime must not wait for the lock that create holds."""
    what = bundle("busybox", "true")
    one = container(what)
    log = os.path.join(what.path, "log")
    command = " ".join([*one.command, "state", one.id])
    what.spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"{command} >{log}"]}]}
    what.write()
    one.create().ok()
    with open(log, encoding="utf-8") as stream:
        assert json.load(stream)["status"] == "creating"


def test_a_failed_hook_ends_no_other_container(container: ContainerFactory, bundle: BundleFactory) -> None:
    """While its hook ran, the container was replaced by another one of its name."""
    what = bundle("probe").probe("pause")
    entered, left = os.path.join(what.path, "entered"), os.path.join(what.path, "left")
    for fifo in (entered, left):
        os.mkfifo(fifo)
    what.spec["ociVersion"] = "1.3.0"
    script = f"echo >{entered}; read x <{left}; exit 6"
    what.spec["hooks"] = {"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    one = container(what)
    one.create().ok()
    with subprocess.Popen([*one.command, "start", one.id], stderr=subprocess.PIPE) as verb:
        with open(entered, encoding="ascii") as stream:
            stream.read()
        one.delete("--force").ok()
        del what.spec["hooks"]
        what.write()
        one.up().expect("ready")
        with open(left, "w", encoding="ascii") as stream:
            stream.write("\n")
        assert verb.stderr is not None
        assert b"$.hooks.poststart[0]" in verb.stderr.read()
        assert verb.wait(timeout=10) == 1
    assert one.status() == "running"
