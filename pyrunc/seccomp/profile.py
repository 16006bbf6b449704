"""PURE: `linux.seccomp` -> libseccomp's input, and libseccomp's programs -> one filter.

libseccomp makes one program per architecture. They are joined here behind a table of architectures, and each gets a
check in front: a system call newer than every name in the profile answers ENOSYS instead of the default action. The
C library falls back to an older call on ENOSYS but reports EPERM, so a profile older than the C library would break
programs otherwise.

Works without the library: compile.py passes in the one call to libseccomp.
"""

from __future__ import annotations

import errno
import sys

from pyrunc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.spec.shapes import Seccomp, SeccompArg, SeccompRule

    # What libseccomp made of one architecture: SCMP_ARCH_* token, largest system call number named, program.
    Part = tuple[int, int, bytes]

ROOT_PATH = "$.linux.seccomp"

# include/uapi/linux/seccomp.h
ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_TRAP": 0x00030000,
}
# These carry 16 bits of data.
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
# These defaults allow a new system call (or a tracer decides), so the ENOSYS check is not needed.
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")

OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

# fmt: off
ARCHITECTURES = (
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
)
# fmt: on

FLAG_NEW_LISTENER = 1 << 3
FLAGS = {
    # init has one thread, so there is nothing to synchronise: accepted without effect.
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}

ARCH_X86_64 = 0xC000003E
_REFUSALS = {
    ACTIONS[f"SCMP_ACT_{name}"]: f"SCMP_ACT_{name}"
    for name in ("KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO")
}
# libseccomp's own number; the kernel reports x86_64 and a bit in the system call number.
ARCH_X32 = 0x4000003E
ARCH_S390 = 0x16
ARCH_S390X = 0x80000016
X32_BIT = 0x40000000

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_ORDER = sys.byteorder
_LOAD, _JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4  # struct seccomp_data


class Filter:
    """What init loads: `bpf` is a struct sock_filter[], `flags` go to seccomp(2), `notify`: it makes a listener."""

    __slots__ = ("bpf", "flags", "notify")

    def __init__(self, bpf: bytes, flags: int, notify: bool) -> None:
        self.bpf = bpf
        self.flags = flags
        self.notify = notify


class Profile:
    """A `linux.seccomp`: `description` is of csrc/shim/seccomp_filter.h, `soften` asks for ENOSYS."""

    __slots__ = ("arch_names", "description", "flags", "notify", "soften", "source")

    def __init__(
        self,
        source: Seccomp,
        description: bytes,
        arch_names: Sequence[str],
        flags: int,
        notify: bool,
        soften: bool,
    ) -> None:
        self.source = source
        self.description = description
        self.arch_names = arch_names
        self.flags = flags
        self.notify = notify
        self.soften = soften


def make(seccomp: Seccomp, build: Callable[[Profile], bytes]) -> Filter:
    """Make the filter of a `linux.seccomp` object; `build` turns the checked profile into a program.

    The rules of config/rules/seccomp.py hold for it. Raise ConfigError with the JSON path of what is not supported.
    """
    profile = describe(seccomp)
    bpf = build(profile)
    count = len(bpf) // 8
    if count > MAX_INSTRUCTIONS:
        raise ConfigError(
            f"the filter has {count} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            path=ROOT_PATH,
            hint="list fewer architectures or fewer argument conditions",
        )
    return Filter(bpf, profile.flags, profile.notify)


# --- linux.seccomp -> description -------------------------------------------------------------------------------------


def describe(seccomp: Seccomp) -> Profile:
    """Return libseccomp's input for a profile that config and rules have checked."""
    name = seccomp["defaultAction"]
    default = _action(name, seccomp.get("defaultErrnoRet"))
    # Without repetition. csrc/shim/seccomp_filter.c adds the native one, which the library knows.
    arch_names = list(dict.fromkeys([library_arch(arch) for arch in seccomp.get("architectures") or ()]))
    listed = seccomp.get("syscalls") or ()
    rules = [_rule(entry) for entry in listed]
    notify = any(entry["action"] == "SCMP_ACT_NOTIFY" for entry in listed)
    head = b"".join(_u32(number) for number in (default, len(arch_names), len(rules)))
    archs = "".join(arch + "\0" for arch in arch_names).encode()
    soften = name not in _PERMISSIVE and default != ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
    flags = _flags(seccomp.get("flags"), notify)
    return Profile(seccomp, head + archs + b"".join(rules), arch_names, flags, notify, soften)


def library_arch(name: str) -> str:
    """libseccomp's name of an architecture: `SCMP_ARCH_X86_64` -> `x86_64`."""
    return name[len("SCMP_ARCH_") :].lower()


def _rule(entry: SeccompRule) -> bytes:
    names = entry["names"]
    sets = _condition_sets(entry.get("args") or ())
    numbers = (_u32(_action(entry["action"], entry.get("errnoRet"))), _u32(len(sets)), _u32(len(names)))
    return b"".join((*numbers, *sets, "\0".join(names).encode("utf-8", "surrogatepass"), b"\0"))


def _condition_sets(args: Sequence[SeccompArg]) -> list[bytes]:
    """All conditions in one set (AND), or one set each (OR) when an argument is named twice.

    libseccomp takes one condition per argument and set; the second meaning is what profiles written for older
    libraries rely on, and what all runtimes do.
    """
    conditions = [
        _u32(arg["index"])
        + _u32(OPERATORS[arg["op"]])
        + arg["value"].to_bytes(8, _ORDER)
        + arg.get("valueTwo", 0).to_bytes(8, _ORDER)
        for arg in args
    ]
    if not conditions:
        return []
    if len({arg["index"] for arg in args}) < len(args):
        return [_u32(1) + condition for condition in conditions]
    return [_u32(len(conditions)) + b"".join(conditions)]


def _action(name: str, data: int | None) -> int:
    if name not in _WITH_DATA:
        return ACTIONS[name]
    return ACTIONS[name] | (errno.EPERM if data is None else data)


def _flags(listed: Sequence[str] | None, notify: bool) -> int:
    flags = 0
    for name in ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",) if listed is None else listed:
        flags |= FLAGS[name]
    if notify:
        return flags | FLAG_NEW_LISTENER
    # It speaks of notifications only, and the kernel refuses it without a listener.
    return flags & ~FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]


def _u32(number: int) -> bytes:
    return number.to_bytes(4, _ORDER)


# --- programs -> filter -----------------------------------------------------------------------------------------------


def join(parts: Sequence[Part], soften: bool) -> bytes:
    """One filter from libseccomp's programs, one per architecture; `soften` puts the ENOSYS check before each.

    Every program begins with its own architecture check, so a wrong jump here could only kill, never allow.
    """
    if len(parts) == 1 and not soften:
        return parts[0][2]
    by_arch: dict[int, list[Part]] = {}
    for part in parts:
        by_arch.setdefault(ARCH_X86_64 if part[0] == ARCH_X32 else part[0], []).append(part)
    table: list[bytes] = [_instruction(_LOAD, _OFFSET_ARCH)]
    sections: list[bytes] = []
    distance = 0  # from the end of the table to the next section, in instructions
    left = len(by_arch)
    for arch, members in by_arch.items():
        section = _section(members, soften)
        left -= 1
        # Two instructions for each architecture still to come, one for the return that ends the table.
        table.append(_instruction(_JUMP_EQUAL, arch, 0, 1) + _instruction(_JUMP, 2 * left + 1 + distance))
        sections.append(section)
        distance += len(section) // 8
    # libseccomp's answer to an architecture that the filter does not list.
    table.append(_instruction(_RETURN, ACTIONS["SCMP_ACT_KILL_THREAD"]))
    return b"".join((*table, *sections))


def check_execve(answer: int) -> None:
    """Raise ConfigError if no program can be started under a filter with this answer to execve."""
    name = _REFUSALS.get(answer & 0xFFFF0000)
    if name is not None:
        raise ConfigError(
            f"the filter answers execve with {name}: no program could be started",
            path=ROOT_PATH,
            hint="allow execve, or remove linux.seccomp",
        )


def _section(members: Sequence[Part], soften: bool) -> bytes:
    """What the kernel reports as one architecture: two members only for x86_64 with x32."""
    blocks = {part[0]: _block(part, soften, len(members) == 1) for part in members}
    load = _instruction(_LOAD, _OFFSET_NUMBER)
    if len(members) == 1:
        return load + blocks[members[0][0]]
    plain = blocks[ARCH_X86_64]
    split = _instruction(_JUMP_SET, X32_BIT, 0, 1) + _instruction(_JUMP, len(plain) // 8)
    return load + split + plain + blocks[ARCH_X32]


def _block(part: Part, soften: bool, alone: bool) -> bytes:
    """One program behind its ENOSYS check. The system call number is loaded already."""
    arch, last, program = part
    # Without any number there is no newest system call to compare with.
    if not soften or last <= 0:
        return program
    refuse = _instruction(_RETURN, ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS)
    code = b""
    if arch in (ARCH_S390, ARCH_S390X):
        # Numbers that do not fit the instruction arrive as 0, setup(2), which programs do not call otherwise.
        code += _instruction(_JUMP_EQUAL, 0, 0, 1) + refuse
    if alone and arch == ARCH_X86_64:
        # x32 calls have large numbers but are not new: they are of an architecture that is not listed.
        code += _instruction(_JUMP_SET, X32_BIT, 2, 0)
    if alone and arch == ARCH_X32:
        code += _instruction(_JUMP_SET, X32_BIT, 0, 2)
    return code + _instruction(_JUMP_GREATER, last, 0, 1) + refuse + program


def _instruction(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: a 16 bit code, two 8 bit jump distances, a 32 bit operand."""
    return code.to_bytes(2, _ORDER) + bytes((if_true, if_false)) + k.to_bytes(4, _ORDER)


# --- errors of libseccomp ---------------------------------------------------------------------------------------------

STEP_DESCRIPTION, STEP_LIBRARY, STEP_DEFAULT, STEP_ARCH, STEP_RULE, STEP_EXPORT = 1, 2, 3, 4, 5, 6


def refusal(profile: Profile, error: int, where: tuple[int, int, int, int]) -> ConfigError:
    """The error for a failed shim_seccomp_compile: `error` a positive errno, `where` its step, arch, rule, name."""
    step, arch, rule, name = where
    if step == STEP_LIBRARY:
        return ConfigError(
            "config provided but seccomp not supported: libseccomp.so.2 cannot be loaded",
            path=ROOT_PATH,
            hint="install libseccomp (Debian: libseccomp2), or remove linux.seccomp",
        )
    if step == STEP_DEFAULT:
        return ConfigError("the default action is not supported here", path=f"{ROOT_PATH}.defaultAction")
    if step == STEP_ARCH:
        return _arch_refusal(profile, error, arch)
    if step == STEP_RULE:
        return _rule_refusal(profile, error, rule, name)
    text = errno.errorcode.get(error, str(error))
    return ConfigError(f"libseccomp could not make the filter: {text}", path=ROOT_PATH)


def _arch_refusal(profile: Profile, error: int, arch: int) -> ConfigError:
    listed = profile.source.get("architectures") or []
    spelled = "SCMP_ARCH_" + profile.arch_names[arch].upper()
    path = f"{ROOT_PATH}.architectures" + (f"[{listed.index(spelled)}]" if spelled in listed else "")
    if error == errno.EDOM:
        return ConfigError(
            f"architecture '{spelled}' has another byte order than this machine", path=path, hint="remove it"
        )
    return ConfigError(
        f"architecture '{spelled}' is not known to the installed libseccomp",
        path=path,
        hint="update libseccomp, or remove the architecture: its programs cannot run here",
    )


def _rule_refusal(profile: Profile, error: int, rule: int, name: int) -> ConfigError:
    path = f"{ROOT_PATH}.syscalls[{rule}]"
    entry = profile.source["syscalls"][rule]
    call = entry["names"][name]
    if error == errno.EEXIST:
        return ConfigError(f"the rule for '{call}' contradicts an earlier one", path=f"{path}.names[{name}]")
    if error == errno.EINVAL:
        return ConfigError(
            f"action '{entry['action']}' for '{call}' is not supported by this kernel or libseccomp",
            path=f"{path}.action",
        )
    text = errno.errorcode.get(error, str(error))
    return ConfigError(
        f"error adding seccomp filter rule for syscall '{call}': {text}", path=f"{path}.names[{name}]"
    )


# --- the listener -----------------------------------------------------------------------------------------------------


def process_state(oci_version: str, pid: int, metadata: str, state: bytes) -> bytes:
    """The ContainerProcessState for the agent at listenerPath, as JSON bytes.

    `pid` is the container process as the runtime sees it, `metadata` is listenerMetadata ("" for none), `state` the
    container's state, already JSON. config-linux.md "The Container Process State".
    """
    from _json import encode_basestring_ascii as quote

    fields = [f'"ociVersion":{quote(oci_version)}', '"fds":["seccompFd"]', f'"pid":{pid}']
    if metadata:
        fields.append(f'"metadata":{quote(metadata)}')
    return b"{" + ",".join(fields).encode() + b',"state":' + state.strip() + b"}"
