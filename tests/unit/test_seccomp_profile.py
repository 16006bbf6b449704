"""The pure half of seccomp: what is refused and where, and how programs of several architectures are joined."""

from __future__ import annotations

import errno
import itertools
import json
import struct

import pytest

import bpf_sim
from pyrunc.errors import ConfigError
from pyrunc.seccomp import profile as seccomp_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.shapes import Seccomp, SeccompArg, SeccompRule

READ: SeccompRule = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}


def ret(value: int) -> bytes:
    """A program that answers `value` to everything."""
    return struct.pack("=HBBI", 0x06, 0, 0, value)


def profile(**changes: object) -> Seccomp:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [READ], **changes}  # type: ignore[typeddict-item]  # given by name


S = "$.linux.seccomp"


@pytest.mark.parametrize(
    ("flags", "notify", "expected"),
    [
        (None, False, 4),
        ([], False, 0),
        (["SECCOMP_FILTER_FLAG_TSYNC"], False, 0),
        (["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], False, 6),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], False, 0),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], True, 0x28),
        (None, True, 0xC),
    ],
)
def test_flags(flags: list[str] | None, notify: bool, expected: int) -> None:
    """Absent flags mean SPEC_ALLOW, an empty list none; a notify rule adds the listener."""
    calls = [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}] if notify else [READ]
    given = {} if flags is None else {"flags": flags}
    made = seccomp_profile.describe(profile(syscalls=calls, listenerPath="/x", **given))
    assert (made.flags, made.notify) == (expected, notify)


def test_description() -> None:
    """The bytes are what csrc/shim/seccomp_filter.h specifies."""
    arg: SeccompArg = {"index": 2, "value": 2**63, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}
    made = seccomp_profile.describe(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86_64", "SCMP_ARCH_MIPS64N32"],
            "syscalls": [
                {"names": ["read", "writev"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
                {"names": ["mmap"], "action": "SCMP_ACT_KILL_PROCESS", "args": [arg, {**arg, "index": 3}]},
                {"names": ["mmap"], "action": "SCMP_ACT_LOG", "args": [arg, arg]},
            ],
        }
    )
    packed = struct.pack("=IIQQ", 2, 7, 2**63, 7)
    third = struct.pack("=IIQQ", 3, 7, 2**63, 7)
    assert made.description == b"".join(
        (
            struct.pack("=III", 0x50026, 2, 3),
            b"x86_64\0mips64n32\0",
            struct.pack("=III", 0x7FF0FFFF, 0, 2) + b"read\0writev\0",
            struct.pack("=IIII", 0x80000000, 1, 1, 2) + packed + third + b"mmap\0",
            struct.pack("=III", 0x7FFC0000, 2, 1) + (struct.pack("=I", 1) + packed) * 2 + b"mmap\0",
        )
    )


@pytest.mark.parametrize(
    ("action", "errno_ret", "soften"),
    [
        ("SCMP_ACT_ERRNO", None, True),
        ("SCMP_ACT_ERRNO", errno.EACCES, True),
        ("SCMP_ACT_ERRNO", errno.ENOSYS, False),
        ("SCMP_ACT_KILL", None, True),
        ("SCMP_ACT_KILL_PROCESS", None, True),
        ("SCMP_ACT_TRAP", None, True),
        ("SCMP_ACT_ALLOW", None, False),
        ("SCMP_ACT_LOG", None, False),
        ("SCMP_ACT_TRACE", None, False),
    ],
)
def test_soften(action: str, errno_ret: int | None, soften: bool) -> None:
    """ENOSYS for new calls is wanted where the default action denies, unless it is ENOSYS itself."""
    given = {} if errno_ret is None else {"defaultErrnoRet": errno_ret}
    assert seccomp_profile.describe(profile(defaultAction=action, **given)).soften is soften


def test_too_long() -> None:
    """A filter that the kernel would refuse is refused before."""
    with pytest.raises(ConfigError, match="the filter has 4097 instructions, the kernel takes 4096"):
        seccomp_profile.make(profile(), lambda _: ret(0) * 4097)
    assert seccomp_profile.make(profile(), lambda _: ret(0) * 4096).bpf == ret(0) * 4096


ARCHES = [0x40000003, 0x40000028, 0xC00000B7, 0x40000008, 0xC0000008, 0xE0000008, 0xC00000F3]


def test_join_many() -> None:
    """Each architecture reaches its own program, however far away, and an unlisted one dies."""
    # 300 instructions each: no conditional jump reaches that far.
    parts = [(arch, 0, ret(index + 1) + ret(99) * 299) for index, arch in enumerate(ARCHES)]
    bpf = seccomp_profile.join(parts, soften=False)
    bpf_sim.check(bpf)
    for index, arch in enumerate(ARCHES):
        assert bpf_sim.run(bpf, arch, 5) == index + 1
    assert bpf_sim.run(bpf, bpf_sim.X86_64, 5) == bpf_sim.KILL_THREAD


def test_join_one() -> None:
    """One architecture without ENOSYS check is libseccomp's program as it is."""
    assert seccomp_profile.join([(bpf_sim.X86_64, 334, ret(7))], soften=False) == ret(7)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_join_soften(order: tuple[int, ...]) -> None:
    """Calls above the newest one named answer ENOSYS, per architecture, x32 apart from x86_64."""
    x32 = seccomp_profile.ARCH_X32
    last_x32 = bpf_sim.X32_BIT + 547
    parts = [(bpf_sim.X86_64, 334, ret(1)), (x32, last_x32, ret(2)), (bpf_sim.X86, 400, ret(3))]
    bpf = seccomp_profile.join([parts[index] for index in order], soften=True)
    bpf_sim.check(bpf)
    nosys = bpf_sim.errno(errno.ENOSYS)
    for number, answer in ((0, 1), (334, 1), (335, nosys), (0x3FFFFFFF, nosys)):
        assert bpf_sim.run(bpf, bpf_sim.X86_64, number) == answer
        x32_answer = 2 if number <= 547 else nosys
        assert bpf_sim.run(bpf, bpf_sim.X86_64, bpf_sim.X32_BIT | number) == x32_answer
    assert [bpf_sim.run(bpf, bpf_sim.X86, number) for number in (400, 401)] == [3, nosys]
    assert bpf_sim.run(bpf, bpf_sim.ARM, 1000) == bpf_sim.KILL_THREAD


def test_join_without_x32() -> None:
    """Calls of an x32 that is not listed go to the program, which kills: they are not "new"."""
    bpf = seccomp_profile.join([(bpf_sim.X86_64, 334, ret(1))], soften=True)
    bpf_sim.check(bpf)
    assert bpf_sim.run(bpf, bpf_sim.X86_64, bpf_sim.X32_BIT | 1) == 1
    assert bpf_sim.run(bpf, bpf_sim.X86_64, 335) == bpf_sim.errno(errno.ENOSYS)
    alone = seccomp_profile.join([(seccomp_profile.ARCH_X32, bpf_sim.X32_BIT + 500, ret(1))], soften=True)
    assert bpf_sim.run(alone, bpf_sim.X86_64, 600) == 1
    assert bpf_sim.run(alone, bpf_sim.X86_64, bpf_sim.X32_BIT + 501) == bpf_sim.errno(errno.ENOSYS)


@pytest.mark.parametrize("arch", [seccomp_profile.ARCH_S390, seccomp_profile.ARCH_S390X])
def test_join_s390(arch: int) -> None:
    """On s390 a number that does not exist arrives as 0."""
    bpf = seccomp_profile.join([(arch, 400, ret(1))], soften=True)
    bpf_sim.check(bpf)
    nosys = bpf_sim.errno(errno.ENOSYS)
    assert [bpf_sim.run(bpf, arch, number) for number in (0, 1, 400, 401)] == [nosys, 1, 1, nosys]


def test_join_unnamed() -> None:
    """An architecture of which the profile names no call has no newest call, so nothing is softened."""
    bpf = seccomp_profile.join([(bpf_sim.X86_64, 0, ret(1)), (bpf_sim.X86, 9, ret(2))], soften=True)
    assert bpf_sim.run(bpf, bpf_sim.X86_64, 5000) == 1


@pytest.mark.parametrize(
    ("error", "where", "path", "message"),
    [
        (
            errno.ELIBACC,
            (2, 0, 0, 0),
            S,
            "config provided but seccomp not supported: libseccomp.so.2 cannot be loaded",
        ),
        (errno.EINVAL, (3, 0, 0, 0), f"{S}.defaultAction", "the default action is not supported here"),
        (
            errno.ENOENT,
            (4, 1, 0, 0),
            f"{S}.architectures[2]",
            "architecture 'SCMP_ARCH_M68K' is not known to the installed libseccomp",
        ),
        (
            errno.EDOM,
            (4, 0, 0, 0),
            f"{S}.architectures[0]",
            "architecture 'SCMP_ARCH_S390X' has another byte order than this machine",
        ),
        (
            errno.EEXIST,
            (5, 0, 1, 1),
            f"{S}.syscalls[1].names[1]",
            "the rule for 'open' contradicts an earlier one",
        ),
        (errno.ENOMEM, (6, 0, 0, 0), S, "libseccomp could not make the filter: ENOMEM"),
    ],
)
def test_refusal(error: int, where: tuple[int, int, int, int], path: str, message: str) -> None:
    """What libseccomp refuses is told in the profile's words and place, repeated architectures or not."""
    source = profile(
        architectures=["SCMP_ARCH_S390X", "SCMP_ARCH_S390X", "SCMP_ARCH_M68K"],
        syscalls=[READ, {"names": ["close", "open"], "action": "SCMP_ACT_LOG"}],
    )
    failure = seccomp_profile.refusal(seccomp_profile.describe(source), error, where)
    assert (failure.path, failure.message) == (path, message)


def test_process_state() -> None:
    """The agent's document has the members of the specification, and metadata only when given."""
    state = b'{"ociVersion":"1.3.0","id":"x","status":"creating","pid":42,"bundle":"/b"}\n'
    document = json.loads(seccomp_profile.process_state("1.3.0", 42, 'a "b"\n', state))
    assert document == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": 42,
        "metadata": 'a "b"\n',
        "state": json.loads(state),
    }
    assert "metadata" not in json.loads(seccomp_profile.process_state("1.3.0", 42, "", state))
