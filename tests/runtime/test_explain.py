"""explain and restore plan as create does: what create refuses for its plan's sake they refuse in the same words."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from namespaces import ROOT, mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from support import Json, Spec

    Spoil = Callable[[Bundle, str], str]

pytestmark = pytest.mark.root


@pytest.fixture
def user_namespace() -> Iterator[str]:
    """The file of a user namespace in which root alone is mapped."""
    command = ["unshare", "-U", "-r", "sh", "-c", "echo ready; exec sleep 600"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield f"/proc/{process.pid}/ns/user"
    finally:
        process.kill()
        process.communicate(timeout=10)


def other_mappings(what: Bundle, user_namespace: str) -> str:
    """Mappings beside a user namespace to join that it does not have."""
    mapped(what, ROOT).namespace("user", user_namespace)
    return "user namespaces enabled, but both namespace path and non-matching mapping specified"


def sysctl_of_the_host(what: Bundle, _user_namespace: str) -> str:
    """A sysctl of a network namespace that is named by a path, which leads to the runtime's own."""
    what.namespace("network", f"/proc/{os.getpid()}/ns/net")
    what.mapping("linux")["sysctl"] = {"net.ipv4.ip_forward": "1"}
    return "not allowed in host network namespace"


def large_state(what: Bundle, _user_namespace: str) -> str:
    """A state that nobody could read again: there the document is indented."""
    what.spec["annotations"] = {f"k{number}": "\u00e9" * 20 for number in range(290000)}
    return "$.annotations: they make a state of"


def large_plan(what: Bundle, _user_namespace: str) -> str:
    """A plan larger than init takes: each createContainer hook gets the annotations on its standard input."""
    what.spec["annotations"] = {"a": "x" * (1 << 20)}
    what.mapping("hooks")["createContainer"] = [{"path": "/bin/true"}] * 20
    return "it makes a plan of"


@pytest.mark.parametrize("spoil", [other_mappings, sysctl_of_the_host, large_state, large_plan])
def test_explain_refuses_what_create_refuses(
    container: ContainerFactory, bundle: BundleFactory, user_namespace: str, spoil: Spoil
) -> None:
    what = bundle("busybox", "true")
    words = spoil(what, user_namespace)
    one = container(what)
    # As engines write it: no longer than it must be.
    with open(os.path.join(what.path, "config.json"), "w", encoding="utf-8") as stream:
        json.dump(what.spec, stream, ensure_ascii=False)
    refused = one.create().fails(words)
    assert one.pyrunc("explain", "--bundle", what.path).fails(words).err == refused.err.replace(
        "pyrunc: create:", "pyrunc: explain:"
    )


@pytest.mark.parametrize("spoil", [other_mappings, sysctl_of_the_host])
def test_restore_refuses_what_create_refuses(
    container: ContainerFactory, bundle: BundleFactory, user_namespace: str, spoil: Spoil, scratch: str
) -> None:
    """Before it looks at the images."""
    what = bundle("busybox", "true")
    words = spoil(what, user_namespace)
    one = container(what.write())
    one.pyrunc("restore", "--bundle", what.path, "--image-path", scratch, one.id).fails(words)
    assert not os.path.exists(os.path.join(one.root, one.id))


def steps(one: Container, op: str) -> list[Spec]:
    """The arguments of every step of this op that explain shows."""
    document = one.pyrunc("explain", "--json", "--bundle", one.bundle.path).ok().json()
    assert isinstance(document, dict)
    listed = document["steps"]
    assert isinstance(listed, list)
    found: list[Spec] = []
    for item in listed:
        assert isinstance(item, dict)
        if item["op"] == op:
            assert isinstance(item["arguments"], dict)
            found.append(item["arguments"])
    return found


def test_explain_shows_what_hooks_are_told(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The state on the standard input of hooks in the container is part of the plan."""
    what = bundle("busybox", "true").write()
    for kind in ("createContainer", "startContainer"):
        what.mapping("hooks")[kind] = [{"path": "/bin/true"}]
    said = [str(arguments["stdin"]) for arguments in steps(container(what.write()), "HOOK")]
    assert len(said) == 2
    assert all(int(text.removesuffix(" bytes")) > 100 for text in said)


def test_explain_shows_the_filter_that_create_loads(
    container: ContainerFactory, bundle: BundleFactory, user_namespace: str
) -> None:
    """In front of one that is loaded before init's last fork stands what lets init's own calls pass."""
    what = bundle("busybox", "true")
    what.mapping("process")["noNewPrivileges"] = False
    rule: Json = {"names": ["execve", "write"], "action": "SCMP_ACT_ALLOW"}
    what.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}
    one = container(what)
    own = []
    for path in (None, user_namespace.replace("/user", "/pid")):
        what.namespace("pid", path).write()
        (arguments,) = steps(one, "SECCOMP")
        own.append((arguments["own calls"], int(str(arguments["filter"]).removesuffix(" bytes"))))
    assert [known for known, _size in own] == [False, True]
    assert own[0][1] < own[1][1]
