"""What stands in front of a filter that is loaded before init's last fork: init's own calls, and those alone."""

from __future__ import annotations

import ctypes
import os

import pytest

import bpf_sim
from pyrunc.kernel import seccomp as kernel_seccomp
from pyrunc.seccomp import compile as seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.shapes import Seccomp, SeccompRule

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64")

LIBRARY = ctypes.CDLL("libseccomp.so.2")


def number_of(name: str) -> int:
    return int(LIBRARY.seccomp_syscall_resolve_name(name.encode()))


def name_of(number: int) -> str:
    LIBRARY.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    found = LIBRARY.seccomp_syscall_resolve_num_arch(bpf_sim.X86_64, number)
    return ctypes.string_at(found).decode() if found else ""


def answer(bpf: bytes, number: int, *args: int) -> int:
    return bpf_sim.run(bpf, bpf_sim.X86_64, number, args)


def call(*names: str, action: str = "SCMP_ACT_ALLOW") -> SeccompRule:
    return {"names": list(names), "action": action}


def test_own_calls() -> None:
    """Whoever learns init's number has the calls that init makes, and no other use of them; the rest stays as it is."""
    own = 0x1234_5678_9ABC_DEF0
    names = "clone", "setsid", "ioctl", "prlimit64"
    refused: Seccomp = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [call(*names, action="SCMP_ACT_ERRNO")],
    }
    bpf = seccomp.compile(refused).bpf
    front = kernel_seccomp.own_calls(bpf, own)
    bpf_sim.check(front + bpf)
    clone, setsid, ioctl, prlimit = (number_of(name) for name in names)

    def allowed(number: int, *args: int, sixth: int = own) -> bool:
        six = [*args, 0, 0, 0, 0, 0][:5] + [sixth]
        return answer(front + bpf, number, *six) == bpf_sim.ALLOW

    parent, new_user, ctty, sti, processes = 0x8000 | 17, 0x10000000, 0x540E, 0x5412, 6
    known: list[tuple[int, ...]] = [
        (clone, parent),
        (setsid,),
        (ioctl, 0, ctty, 0),
        (prlimit, 0, processes, 7),
    ]
    for one in known:
        assert allowed(*one)
        for wrong in (0, own ^ 1, own ^ 1 << 63):
            assert not allowed(*one, sixth=wrong)
    for other in (
        (clone, parent | new_user),
        (clone, parent | 1 << 32),
        (clone, parent, 1),
        (clone, 17),
        (ioctl, 0, sti, 0),
        (ioctl, 1, ctty, 0),
        (ioctl, 0, ctty, 1),
        (prlimit, 1, processes),
        (prlimit, 0, 7),
    ):
        assert not allowed(*other), other
    assert allowed(number_of("getpid"), sixth=0)


@pytest.mark.parametrize("refused", ["clone", "setsid", "ioctl", "prlimit64"])
def test_one_own_call(refused: str) -> None:
    """What the profile lets pass needs no door, and the others get none by it."""
    own = 0xFEDC_BA98_7654_3210
    bpf = seccomp.compile(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [call("getpid"), call(*({"clone", "setsid", "ioctl", "prlimit64"} - {refused}))],
        }
    ).bpf
    front = kernel_seccomp.own_calls(bpf, own)
    bpf_sim.check(front + bpf)
    args = {"clone": (0x8011,), "ioctl": (0, 0x540E), "prlimit64": (0, 6)}.get(refused, ())
    six = [*args, 0, 0, 0, 0, 0][:5]
    assert answer(front + bpf, number_of(refused), *six, own) == bpf_sim.ALLOW
    assert answer(front + bpf, number_of(refused), *six, 0) != bpf_sim.ALLOW
    assert answer(front + bpf, number_of("read"), *six, own) != bpf_sim.ALLOW


@pytest.mark.parametrize(
    "default", ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]
)
@pytest.mark.parametrize(
    "action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRACE"]
)
@pytest.mark.parametrize("others", [0, 300])
def test_answer_to_execve(default: str, action: str, others: int) -> None:
    """The shim reads a filter as the kernel does, among few rules and in the tree that many make."""
    names = [name for number in range(others) if (name := name_of(number)) and name != "execve"]
    rules: list[SeccompRule] = [call(*names)] if names and default != "SCMP_ACT_ALLOW" else []
    rules += [call("execve", action=action)] if action != default else []
    bpf = seccomp.compile({"defaultAction": default, "syscalls": rules}).bpf
    assert kernel_seccomp.answer_to_execve(bpf) == answer(bpf, number_of("execve"))
