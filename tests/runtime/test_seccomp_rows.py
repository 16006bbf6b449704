"""config-linux.md "Seccomp", by real containers: actions, operators, flags. More in test_process.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory
    from support import Json

pytestmark = pytest.mark.root

SIGSYS = 31
# Numbers of x86_64. None of them does anything with the arguments that are tried here.
SETHOSTNAME, GETPRIORITY = 170, 140


@pytest.fixture
def profile(bundle: BundleFactory) -> Bundle:
    """A bundle whose filter allows everything so far."""
    support.needs(os.uname().machine == "x86_64", "x86_64")
    what = bundle("probe")
    what.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    return what


def _rule(what: Bundle, name: str, **members: Json) -> None:
    what.list_of("linux", "seccomp", "syscalls").append({"names": [name], **members})


@pytest.mark.parametrize("action", ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP"])
def test_actions_that_end_the_program(container: ContainerFactory, profile: Bundle, action: str) -> None:
    _rule(profile, "sethostname", action=f"SCMP_ACT_{action}")
    container(profile.probe("seccomp", str(SETHOSTNAME))).run().fails(status=128 + SIGSYS)


@pytest.mark.parametrize(("action", "result"), [("LOG", 20), ("ALLOW", 20), ("ERRNO", -1), ("TRACE", -38)])
def test_actions_that_do_not(container: ContainerFactory, profile: Bundle, action: str, result: int) -> None:
    """Let through, the kernel answers with 20 for nice 0; without a tracer TRACE is ENOSYS, seccomp(2)."""
    _rule(profile, "getpriority", action=f"SCMP_ACT_{action}")
    found = container(profile.probe("seccomp", str(GETPRIORITY))).run().ok().facts()
    assert found["syscall"] == f"{GETPRIORITY} {result}"


@pytest.mark.parametrize(
    ("op", "value", "two", "denied"),
    [
        ("EQ", 2, 0, {2}),
        ("NE", 2, 0, {0, 1, 3}),
        ("LT", 2, 0, {0, 1}),
        ("LE", 2, 0, {0, 1, 2}),
        ("GE", 2, 0, {2, 3}),
        ("GT", 2, 0, {3}),
        ("MASKED_EQ", 1, 1, {1, 3}),
    ],
)
def test_operators(
    container: ContainerFactory, profile: Bundle, op: str, value: int, two: int, denied: set[int]
) -> None:
    condition: Json = {"index": 0, "value": value, "valueTwo": two, "op": f"SCMP_CMP_{op}"}
    _rule(profile, "getpriority", action="SCMP_ACT_ERRNO", errnoRet=77, args=[condition])
    words = " -- ".join(f"seccomp {GETPRIORITY} {number}" for number in range(4))
    found = container(profile.probe(*words.split())).run().ok().facts().all("syscall")
    assert {number for number, line in enumerate(found) if line.endswith(" -77")} == denied


def test_two_conditions_on_one_argument_are_alternatives(
    container: ContainerFactory, profile: Bundle
) -> None:
    """And on two arguments both must hold, as in libseccomp and runc."""
    same: Json = [{"index": 0, "value": number, "op": "SCMP_CMP_EQ"} for number in (0, 2)]
    _rule(profile, "getpriority", action="SCMP_ACT_ERRNO", errnoRet=77, args=same)
    both: Json = [{"index": number, "value": 9, "op": "SCMP_CMP_EQ"} for number in (0, 1)]
    _rule(profile, "sethostname", action="SCMP_ACT_ERRNO", errnoRet=78, args=both)
    words = " -- ".join(f"seccomp {GETPRIORITY} {number}" for number in range(3))
    words += f" -- seccomp {SETHOSTNAME} 9 9 -- seccomp {SETHOSTNAME} 9 8"
    found = container(profile.probe(*words.split())).run().ok().facts().all("syscall")
    assert [line.split()[1] in ("-77", "-78") for line in found] == [True, False, True, True, False]


@pytest.mark.parametrize("flag", ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_flags(container: ContainerFactory, profile: Bundle, flag: str, no_new_privileges: bool) -> None:
    """Whatever the flag, the filter is on."""
    profile.mapping("linux", "seccomp")["flags"] = [f"SECCOMP_FILTER_FLAG_{flag}"]
    profile.mapping("process")["noNewPrivileges"] = no_new_privileges
    _rule(profile, "sethostname", action="SCMP_ACT_ERRNO", errnoRet=5)
    found = container(profile.probe("seccomp", str(SETHOSTNAME))).run().ok().facts()
    assert found["syscall"] == f"{SETHOSTNAME} -5"


def test_unknown_architectures_are_refused_and_foreign_ones_are_not(
    container: ContainerFactory, profile: Bundle
) -> None:
    names: Json = [f"SCMP_ARCH_{name}" for name in ("X86", "X32", "AARCH64", "RISCV64", "PPC64LE")]
    profile.mapping("linux", "seccomp")["architectures"] = names
    _rule(profile, "sethostname", action="SCMP_ACT_ERRNO", errnoRet=5)
    found = container(profile.probe("seccomp", str(SETHOSTNAME))).run().ok().facts()
    assert found["syscall"] == f"{SETHOSTNAME} -5"
    profile.mapping("linux", "seccomp")["architectures"] = ["SCMP_ARCH_PDP11"]
    container(profile).run().fails(
        "architectures[0]", "string SCMP_ARCH_PDP11 is not a valid arch for seccomp"
    )
