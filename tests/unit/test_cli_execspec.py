"""exec's options become an OCI process object."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from pyrunc.config import exec_process
from pyrunc.errors import UsageError
from pyrunc.requests import ExecOptions

if TYPE_CHECKING:
    from pyrunc.spec.shapes import Process

CAPS = ["CAP_CHOWN"]
PROCESS: Process = {
    "terminal": True,
    "consoleSize": {"height": 24, "width": 80},
    "user": {"uid": 10, "gid": 20, "umask": 0o77, "additionalGids": [5]},
    "args": ["sh"],
    "env": ["PATH=/bin", "A=1"],
    "cwd": "/home",
    "capabilities": {"bounding": CAPS, "effective": CAPS, "permitted": CAPS},
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 10, "soft": 10}],
    "noNewPrivileges": True,
    "apparmorProfile": "old",
    "selinuxLabel": "old",
    "oomScoreAdj": 7,
}
LS = ["ls", "-l"]


def test_without_options() -> None:
    """Only the command and the terminal are new; the given object is not touched."""
    before = copy.deepcopy(PROCESS)
    built = exec_process.build(PROCESS, ExecOptions(args=LS))
    assert built == {**PROCESS, "args": LS, "terminal": False}
    assert before == PROCESS


def test_every_option() -> None:
    """Each option replaces its property; environment, groups and capabilities grow."""
    before = copy.deepcopy(PROCESS)
    built = exec_process.build(
        PROCESS,
        ExecOptions(
            args=LS,
            tty=True,
            cwd="/w",
            env=["A=2", "B="],
            user="1:2",
            additional_gids=[0, 6],
            process_label="label",
            apparmor="profile",
            no_new_privs=False,
            cap=["CAP_KILL", "net_admin"],
        ),
    )
    caps = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"]
    assert built == {
        **PROCESS,
        "args": LS,
        "terminal": True,
        "cwd": "/w",
        "env": ["PATH=/bin", "A=1", "A=2", "B="],
        "user": {"uid": 1, "gid": 2, "umask": 0o77, "additionalGids": [5, 0, 6]},
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "noNewPrivileges": False,
        "apparmorProfile": "profile",
        "selinuxLabel": "label",
    }
    assert before == PROCESS


def test_user_without_group_keeps_the_group() -> None:
    """As runc does it."""
    built = exec_process.build(PROCESS, ExecOptions(args=LS, user="0"))
    assert built["user"] == {"uid": 0, "gid": 20, "umask": 0o77, "additionalGids": [5]}


def test_minimal_process() -> None:
    """What is optional in a process object may be missing."""
    process: Process = {"user": {"uid": 0, "gid": 0}, "cwd": "/"}
    built = exec_process.build(process, ExecOptions(args=LS, env=["A=1"], cap=["KILL"], additional_gids=[3]))
    caps = ["CAP_KILL"]
    assert built == {
        "user": {"uid": 0, "gid": 0, "additionalGids": [3]},
        "cwd": "/",
        "args": LS,
        "terminal": False,
        "env": ["A=1"],
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
    }
    assert exec_process.build({"cwd": "/"}, ExecOptions(args=LS, user="4"))["user"] == {"uid": 4, "gid": 0}


@pytest.mark.parametrize(("inheritable", "ambient"), [(None, None), ([], None), (CAPS, ["CAP_KILL"])])
def test_added_capabilities_are_never_inheritable(
    inheritable: list[str] | None, ambient: list[str] | None
) -> None:
    """Ambient ones are added only where inheritable ones are set (CVE-2022-29162)."""
    process = copy.deepcopy(PROCESS)
    if inheritable is not None:
        process["capabilities"]["inheritable"] = inheritable
    sets = exec_process.build(process, ExecOptions(args=LS, cap=["CAP_KILL"]))["capabilities"]
    assert sets.get("inheritable") == inheritable
    assert sets.get("ambient") == ambient


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", (0, None)), ("1000:0", (1000, 0)), ("007", (7, None)), ("4294967294:1", (4294967294, 1))],
)
def test_user(text: str, expected: tuple[int, int | None]) -> None:
    """UID and UID:GID in digits."""
    assert exec_process.user(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "root", "0:root", "1:", ":1", "-1", "+1", " 1", "1 ", "1:2:3", "1_0", "0x1", "\u0661", "4294967295"]
    + ["1:4294967295", "99999999999999999999", "1\n", "1.0", "1e3"],
)
def test_bad_user(text: str) -> None:
    """Nothing but digits is a user: not even what int() would take (CVE-2026-30892)."""
    with pytest.raises(UsageError, match=r"bad [ug]id in --user"):
        exec_process.user(text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (ExecOptions(), "args must not be empty"),
        (ExecOptions(args=LS, cwd="x"), "Cwd must be an absolute path"),
        (ExecOptions(args=LS, env=["A"]), "invalid environment variable: missing '='"),
        (ExecOptions(args=LS, env=["=1"]), "name cannot be empty"),
        (ExecOptions(args=LS, user="root"), "bad uid"),
        (ExecOptions(args=LS, additional_gids=[-1]), "additional-gids must be a positive number"),
        (ExecOptions(args=LS, additional_gids=[1 << 32]), "additional-gids must be a positive number"),
    ],
)
def test_refused(options: ExecOptions, text: str) -> None:
    """What cannot become a process object is refused before the container is looked at, and by build itself."""
    with pytest.raises(UsageError, match=text):
        exec_process.check(options)
    with pytest.raises(UsageError, match=text):
        exec_process.build(PROCESS, options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["sub"], [("", "sub")]),
        (["/"], [("", "/")]),
        (["cpu:a"], [("cpu", "a")]),
        (["cpu,memory:a", "pids:b:c"], [("cpu", "a"), ("memory", "a"), ("pids", "b:c")]),
    ],
)
def test_sub_cgroups(given: list[str], expected: list[tuple[str, str]]) -> None:
    """--cgroup for v2 and for v1."""
    assert exec_process.sub_cgroups(given) == expected


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["a", "b"], "missing <controller>: prefix"),
        (["cpu:a", "b"], "missing <controller>: prefix"),
        ([":a"], "empty <controller> prefix"),
        (["cpu,:a"], "empty <controller> prefix"),
        (["cpu:a", "cpu:b"], "controller cpu specified multiple times"),
    ],
)
def test_bad_sub_cgroups(given: list[str], text: str) -> None:
    """The same mistakes as in runc, in its words."""
    with pytest.raises(UsageError, match=text):
        exec_process.sub_cgroups(given)
