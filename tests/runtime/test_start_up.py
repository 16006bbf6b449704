"""What each verb loads: one careless import costs more than the whole verb."""

from __future__ import annotations

import fnmatch
import os
import re

import pytest

import support
from containers import BundleFactory, ContainerFactory

BOOT = os.path.join(support.PACKAGE, "boot.py")
PYTHON = [os.path.realpath(support.PYTHON), "-I", "-S", "-X", "importtime"]

# Of the standard library, beyond what the bare interpreter loads: small C modules, and os with what it is made of.
STANDARD = {
    *("__future__", "os", "posixpath", "genericpath", "stat", "_stat", "_collections_abc", "errno"),
    *("_cffi_backend", "_json", "_socket", "fcntl", "gc", "resource", "select"),
}
# Ours, without "pyrunc."; a folder that is allowed as a whole ends in "*". The faces of folders come with hot.bin.
LIGHT = [
    "_shim",
    "cli.context",
    "cli.main",
    "cli.options",
    "cli.parse",
    "cli.signals",
    "cli.verbs",
    "errors",
    "json_text.document",
    "json_text.path",
    "kernel.container",
    "kernel.shim",
    "log",
    "printable",
    "requests",
    "runtime",
    "startup",
    "startup.entry",
    "verbs.lookup",
]
DELETE = [*LIGHT, "verbs.delete"]
START = [
    *DELETE,
    "kernel.wait_status",
    "verbs.start",
]
UPDATE = [
    *LIGHT,
    *("cgroups.*", "config.load", "config.resource_update", "config.rules.*", "config.schema.check"),
    *("container.directory", "spec.id_mappings", "spec.mount_options", "spec.number_list", "verbs.update"),
]
_PROCESS = [
    *START,
    *("cgroups.*", "config.load", "config.rules.*", "config.schema.check", "container.*"),
    *("host.console", "host.gather", "host.proc", "kernel.*", "plan.*", "seccomp.*", "spec.*"),
    *(
        "launch.conversation",
        "launch.dialogue",
        "launch.ending",
        "launch.failures",
        "launch.id_maps",
        "launch.init",
        "verbs.process_io",
    ),
]
CREATE = [*_PROCESS, "launch.hooks", "verbs.create", "verbs.joined_namespaces", "verbs.new_container"]
EXEC = [*_PROCESS, "config.exec_process", "verbs.exec"]


def loaded(text: str) -> set[str]:
    """The modules in the report of -X importtime."""
    names = re.findall(r"^import time:[^|]*\|[^|]*\| *(\S+)$", text, flags=re.MULTILINE)
    return set(names) - {"package"}


def bare() -> set[str]:
    """What the interpreter loads without us."""
    return loaded(support.run(*PYTHON, "-c", "pass").ok().err)


# An attached command adopts the container's orphans.
ATTACHED = {"prctl", "_prctl"}


def check(result: support.Result, allowed: list[str], *, attached: bool = False) -> None:
    """Assert that the verb worked and loaded nothing but `allowed` of ours and STANDARD of Python's."""
    names = loaded(result.ok().err) - bare()
    assert "pyrunc.cli.main" in names, result
    ours = {name.removeprefix("pyrunc.") for name in names if name.startswith("pyrunc.")}
    assert not {name for name in ours if not any(fnmatch.fnmatchcase(name, word) for word in allowed)}
    assert not {name for name in names if name.split(".")[0] != "pyrunc"} - (
        STANDARD | ATTACHED if attached else STANDARD
    )


@pytest.fixture(autouse=True)
def _root() -> None:
    support.needs_root()


def test_each_verb_of_a_life(container: ContainerFactory, bundle: BundleFactory) -> None:
    """create, start, state, exec, update, kill and delete load their own chain and nothing that only explains."""
    one = container(bundle("probe").probe("pause"), command=[*PYTHON, BOOT, "--"])
    check(one.create(), CREATE)
    check(one.pyrunc("state", one.id), LIGHT)
    check(one.start(), START)
    one.expect("ready")
    check(one.exec("/bin/probe", "exit", "0"), EXEC)
    check(one.pyrunc("update", "--pids-limit", "-1", one.id), UPDATE)
    check(one.kill("KILL"), LIGHT)
    one.wait()
    check(one.delete(), DELETE)


def test_run(container: ContainerFactory, bundle: BundleFactory) -> None:
    """run loads what create does, and what adopts orphans."""
    one = container(bundle("probe", "/bin/probe", "exit", "0"), command=[*PYTHON, BOOT, "--"])
    check(one.run(), CREATE, attached=True)


def test_seccomp_profile_costs_little(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A filter adds our two modules, and at most the hash that names it in the cache."""
    result = container(bundle("seccomp"), command=[*PYTHON, BOOT, "--"]).run().ok()
    names = loaded(result.err) - bare() - STANDARD - ATTACHED
    assert {name for name in names if not name.startswith("pyrunc")} <= {"_sha256", "_sha2"}


@pytest.mark.parametrize("verb", ["state", "kill", "start", "delete"])
def test_light_verbs_do_without_python(
    container: ContainerFactory, bundle: BundleFactory, verb: str
) -> None:
    """The command answers them itself: it works with no Python beside it."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    lonely = os.path.join(os.path.dirname(one.root), "pyrunc")
    with open(support.PYRUNC, "rb") as source, open(lonely, "wb") as target:
        target.write(source.read())
    os.chmod(lonely, 0o755)
    if verb != "start":
        one.start().ok()
        one.expect("ready")
    if verb == "delete":
        one.kill("KILL").ok()
        one.wait()
    support.run(lonely, "--root", one.root, verb, one.id).ok()
    support.run(lonely, "--root", one.root, "list").fails("cannot find", status=127)
