"""PYRUNC_STRICT=1: the letter of the specification before the habits of engines. container/container.h says where."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

DOORS = {"command": [support.PYRUNC], "python": [support.PYTHON, "-I", "-m", "pyrunc"]}


def strict(door: str = "command", value: str = "1") -> list[str]:
    """What to call instead of the installed pyrunc."""
    return ["env", f"PYRUNC_STRICT={value}", *DOORS[door]]


def note(what: Bundle, kind: str, then: str = "") -> None:
    """Add a hook that writes its kind to the bundle's log."""
    hook: support.Json = {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"echo {kind} >>{what.path}/log{'; ' if then else ''}{then}"],
    }
    what.list_of("hooks", kind).append(hook)


def log(what: Bundle) -> str:
    """What hooks and program have written, in one line."""
    path = os.path.join(what.path, "log")
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as stream:
        return " ".join(stream.read().split())


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_delete_of_a_created_container(
    container: ContainerFactory, bundle: BundleFactory, door: str
) -> None:
    """runtime.md, Delete: what has not stopped MUST NOT be touched, and it is an error."""
    what = bundle("busybox", "sleep", "600")
    note(what, "poststop")
    for hooked in (True, False):
        if not hooked:
            del what.spec["hooks"]
        one = container(what, command=strict(door))
        one.create().ok()
        one.delete().fails(
            f"cannot delete container {one.id} that is not stopped: created", "delete --force"
        )
        assert '"status": "created"' in one.pyrunc("state", one.id).ok().out
        one.start().ok()
        one.delete().fails("not stopped: running")
        one.kill("KILL").ok()
        assert one.wait() == -9
        one.delete().ok()
        one.create().ok()
        one.delete("--force").ok()
        one.wait()
    assert log(what) == "poststop poststop", "once for each container that was deleted"


@pytest.mark.parametrize("value", ["0", "", "yes"])
def test_only_1_switches_it_on(container: ContainerFactory, bundle: BundleFactory, value: str) -> None:
    one = container(bundle("busybox", "sleep", "600"), command=strict(value=value))
    one.create().ok()
    one.delete().ok()
    one.wait()


@pytest.mark.parametrize("door", DOORS)
def test_prestart_hooks_run_in_start(container: ContainerFactory, bundle: BundleFactory, door: str) -> None:
    """config.md of version 1.0, Prestart: after start is called, before the program is executed."""
    what = bundle("busybox", "sh", "-c", "echo program >>/log").mount("/log", "none", "log", "bind")
    with open(os.path.join(what.path, "log"), "w", encoding="ascii"):
        pass
    for kind in ("prestart", "createRuntime", "poststart"):
        note(what, kind)
    one = container(what, command=strict(door))
    one.create().ok()
    assert log(what) == "createRuntime"
    one.start().ok()
    assert one.wait() == 0
    words = log(what).split()
    assert words[:2] == ["createRuntime", "prestart"]
    assert sorted(words[2:]) == ["poststart", "program"]
    one.start().fails("cannot start a container that has stopped")
    assert log(what).count("prestart") == 1
    one.delete().ok()


def test_what_create_left_to_start_is_done_without_the_switch_too(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = bundle("busybox", "true")
    note(what, "prestart")
    one = container(what, command=strict())
    one.create().ok()
    support.run(support.PYRUNC, "--root", one.root, "start", one.id).ok()
    assert one.wait() == 0
    assert log(what) == "prestart"


def test_a_failed_prestart_hook_ends_the_container(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """runtime.md of version 1.0, step 4: an error, the program never runs, poststop hooks do."""
    what = bundle("busybox", "sleep", "600")
    note(what, "prestart", "exit 3")
    note(what, "poststop")
    one = container(what, command=strict())
    one.create().ok()
    one.start().fails("$.hooks.prestart[0]", "exit status 3")
    assert one.wait() == -9
    assert log(what) == "prestart poststop"
    one.pyrunc("state", one.id).fails("container does not exist")


def test_unknown_capabilities(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A warning since version 1.1 of the specification; MUST cause an error until then."""
    what = bundle("probe").probe("caps")
    what.list_of("process", "capabilities", "bounding").append("CAP_TEST")
    strictly = container(what, command=strict())
    strictly.create().fails("$.process.capabilities", "unknown capability 'CAP_TEST'")
    strictly.pyrunc("state", strictly.id).fails("container does not exist")
    container(what).run("--bundle", what.path).ok()
    path = os.path.join(what.path, "warnings")
    one = container(what)
    one.pyrunc("--log-level", "warning", "--log", path, "run", "--bundle", what.path, one.id).ok()
    with open(path, encoding="utf-8") as stream:
        assert "ignoring unknown capabilities: CAP_TEST" in stream.read()


def test_what_has_no_effect(container: ContainerFactory, bundle: BundleFactory) -> None:
    """runtime.md, Create: a property that cannot be applied MUST be an error; runc 1.1 and crun never say a word."""
    what = bundle("probe").probe("mounts").mount("/m", "none", "/tmp", "bind", "ro", "size=1")
    text = "bind mounts cannot have any filesystem-specific options applied"
    container(what, command=strict()).run().fails("$.mounts", text, "'size=1'")
    path = os.path.join(what.path, "warnings")
    one = container(what)
    seen = one.pyrunc("--log-level", "warning", "--log", path, "run", "--bundle", what.path, one.id).ok()
    assert " /m ro," in seen.out
    with open(path, encoding="utf-8") as stream:
        assert text in stream.read()


def test_mount_label_without_selinux(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A warning, when strict an error."""
    support.needs(not os.path.exists("/sys/fs/selinux/enforce"), "a kernel without SELinux")
    what = bundle("probe").probe("echo", "alive")
    what.mapping("linux")["mountLabel"] = "system_u:object_r:some_file_t:s0"
    text = "selinux label is specified in config, but selinux is disabled or not supported"
    container(what, command=strict()).run().fails("$.linux.mountLabel", text)
    path = os.path.join(what.path, "warnings")
    one = container(what)
    seen = one.pyrunc("--log-level", "warning", "--log", path, "run", "--bundle", what.path, one.id).ok()
    assert seen.out == "alive\n"
    with open(path, encoding="utf-8") as stream:
        assert "$.linux.mountLabel: ignored, selinux is disabled" in stream.read()
