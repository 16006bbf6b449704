"""Seccomp filters: who runs under them, and what becomes of init when one forbids what init itself has to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

NO_NEW_PRIVILEGES = pytest.mark.parametrize("no_new_privileges", [True, False], ids=["nnp", "no-nnp"])


def forbid(what: Bundle, action: str, *names: str, no_new_privileges: bool = True) -> Bundle:
    """The bundle with a filter that answers these calls with `action`."""
    rule: dict[str, support.Json] = {"names": [*names], "action": f"SCMP_ACT_{action}"}
    if action == "ERRNO":
        rule["errnoRet"] = 1
    what.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    what.mapping("process")["noNewPrivileges"] = no_new_privileges
    return what


# --- Hooks in the container -------------------------------------------------------------------------------------------


def hooked(what: Bundle, script: str) -> Bundle:
    hook: support.Json = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    what.mapping("hooks")["startContainer"] = [hook, hook]
    return what


@NO_NEW_PRIVILEGES
def test_hooks_run_under_the_filter(
    container: ContainerFactory, bundle: BundleFactory, no_new_privileges: bool
) -> None:
    """startContainer hooks are programs of the image, as with runc and crun; the program has one filter, no more."""
    target = forbid(bundle("probe"), "ERRNO", "mkdir", "mkdirat", no_new_privileges=no_new_privileges)
    hooked(target, "! mkdir /made && grep Seccomp_filters: /proc/self/status >>/filters")
    target.args("/bin/grep", "Seccomp_filters:", "/proc/self/status")
    one = container(target)
    assert one.run().ok().out == "Seccomp_filters:\t1\n"
    assert not os.path.lexists(os.path.join(target.rootfs, "made"))
    with open(os.path.join(target.rootfs, "filters"), encoding="ascii") as stream:
        assert stream.read() == "Seccomp_filters:\t1\n" * 2


@NO_NEW_PRIVILEGES
def test_a_filter_kills_a_hook(
    container: ContainerFactory, bundle: BundleFactory, no_new_privileges: bool
) -> None:
    """start says which one, and by what."""
    target = forbid(
        bundle("probe").probe("ids"), "KILL_PROCESS", "mkdir", "mkdirat", no_new_privileges=no_new_privileges
    )
    hooked(target, "exec mkdir /made")
    one = container(target)
    one.create().ok()
    one.start().fails("$.hooks.startContainer[0]: startContainer hook #0 '/bin/sh': killed by signal 31")
    assert not os.path.lexists(os.path.join(one.root, one.id))
