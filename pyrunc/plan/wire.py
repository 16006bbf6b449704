"""PURE: a plan and its bytes. Mirrors csrc/plan.h, the single source; tests/unit/test_wire.py compares the two.

May be imported by plan and its helpers, launch and explain. Imports nothing but errors.
"""

from __future__ import annotations

import sys

from pyrunc import __version__
from pyrunc.errors import ConfigError, InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TypeAlias

    from pyrunc.spec.id_mappings import IdMap

    Field: TypeAlias = "int | str | bytes | list[str] | list[int] | Fd"

ORDER = sys.byteorder

MAGIC = 0x43525950
FORMAT = 1
MAX_SIZE = 16 << 20
NO_PATH = 0xFFFFFFFF
HEADER_SIZE = 48
SYNC_GO = 0x6F67
INIT_NAME = b"pyrunc:[init]"
SYNC_SIZE = 512
TEXT_OFFSET = 32
LAST_WORDS_SIZE = 8 + SYNC_SIZE

OPS: dict[str, tuple[int, str]] = {
    "RLIMIT": (1, "uqq"),
    "PROC_SELF": (2, "ss"),
    "SETNS": (3, "fu"),
    "UNSHARE": (4, "u"),
    "FORK": (5, "ff"),
    "SYNC": (6, "u"),
    "USERNS_ROOT": (7, "uuu"),
    "DUMPABLE": (8, "u"),
    "KEYRING": (9, "s"),
    "LOOPBACK_UP": (10, ""),
    "ROOTFS": (11, "suu"),
    "MOUNT_NEW": (12, "ssslqvu"),
    "MOUNT_BIND": (13, "ssfqqqqvu"),
    "REMOUNT": (14, "sqqulv"),
    "MKDIR": (15, "su"),
    "SYMLINK": (16, "ssu"),
    "DEVICE": (17, "suuuuuu"),
    "HOOK": (18, "sllbquu"),
    "PIVOT": (19, "u"),
    "ROOT_PROPAGATION": (20, "u"),
    "CONSOLE": (21, "uuuuu"),
    "HOSTNAME": (22, "s"),
    "DOMAINNAME": (23, "s"),
    "SYSCTL": (24, "ss"),
    "READONLY_PATH": (25, "s"),
    "MASKED_PATH": (26, "ss"),
    "PERSONALITY": (27, "u"),
    "SCHEDULER": (28, "b"),
    "IOPRIO": (29, "u"),
    "MEMPOLICY": (30, "ub"),
    "AFFINITY": (31, "b"),
    "UMASK": (32, "u"),
    "SETSID": (33, ""),
    "NO_NEW_PRIVS": (34, ""),
    "SECCOMP": (35, "buuq"),
    "CAPS_BOUNDING": (36, "q"),
    "USER": (37, "uuvu"),
    "CHDIR": (38, "su"),
    "CAPSET": (39, "qqqq"),
    "LOOKUP": (40, "ss"),
    "CLOSE_FROM": (41, "u"),
    "START_WAIT": (42, "f"),
    "EXEC": (43, "llu"),
    "STDIO_OWNER": (44, "u"),
    "DONE": (45, ""),
    "ADD_BEGIN": (46, ""),
    "ADD_END": (47, ""),
    "TREE": (48, "su"),
    "UMOUNT": (49, "slu"),
    "PIDNS": (50, "f"),
    "CTTY": (51, ""),
    "LAST_WORDS": (52, "f"),
}

SYNC: dict[str, int] = {
    "ERROR": 1,
    "FORKED": 2,
    "MAPS": 3,
    "CGROUP": 4,
    "ENV": 5,
    "CONSOLE": 6,
    "SECCOMP": 7,
    "READY": 8,
    "WARNING": 9,
}

STEPS: tuple[str, ...] = (
    "none", "plan", "openat2", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount",
    "mount_setattr", "mount", "umount2", "pivot_root", "chroot", "chdir", "mkdirat",
    "mknodat", "symlinkat", "fchownat", "fchmodat", "openat", "read", "write",
    "setns", "unshare", "clone", "sethostname", "setdomainname", "setrlimit",
    "prctl", "capset", "setgroups", "setgid", "setuid", "seccomp",
    "execve", "getcwd", "fstatfs", "fstat", "ioctl", "setsid", "dup3", "sendmsg",
    "recvmsg", "personality", "sched_setattr", "ioprio_set", "set_mempolicy",
    "sched_setaffinity", "keyctl", "socket", "close_range", "hook", "hook_timeout",
    "lookup", "cwd_outside", "not_ordinary_dir", "wrong_fs", "device_mismatch", "fspick",
    "fchown", "readlink", "copy_up", "setgroups_denied", "wait", "oversize", "memory", "fsetxattr",
    "readlinkat", "link_exists", "not_a_mount", "protected", "inside_proc", "root_outside",
)  # fmt: skip

FLAG_KERNEL_TEXT = 1
FLAG_HOOK_OUTPUT = 2
FLAG_HOOK_SHIFT = 16

MOUNT_FLAG_ORDINARY_DIR = 1
MOUNT_FLAG_COPY_UP = 2
MOUNT_FLAG_RECURSIVE = 4
MOUNT_FLAG_NO_CREATE = 8
MOUNT_FLAG_OPTIONAL = 16
MOUNT_FLAG_DONE_SKIP = 32
MOUNT_FLAG_SOURCE_NOFOLLOW = 64
MOUNT_FLAG_TARGET_NOFOLLOW = 128
MOUNT_FLAG_MQUEUE_LABEL = 256
MOUNT_FLAG_TARGET_MODE = 512
MOUNT_FLAG_COPY_SYMLINK = 1024
MOUNT_FLAG_KEPT_TREE = 2048
MOUNT_FLAG_KEPT_SHIFT = 16
MOUNT_FLAG_RDONLY_LATER = 4096
MOUNT_FLAG_IN_PROC = 8192
MOUNT_FLAG_PROCFS = 16384
DEVICE_FLAG_BIND = 1
DEVICE_FLAG_DEFAULT = 2
CHDIR_MAKE = 1
CHDIR_TRY = 2
CHDIR_FILTERED = 4
PIVOT_ROOT, PIVOT_MOVE, PIVOT_CHROOT = 0, 1, 2
HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Fd:
    """A file descriptor that launch opens before the plan is encoded.

    `kind` is "ns" (arg: path of a namespace file), "fifo", "messages" or "answers" (pipes of FORK), "words" (shared
    memory), or makes a detached mount: "tree" (arg: source path, cloned with open_tree, `recursive` or not, a final
    symbolic link followed unless `nofollow`) or "filesystem" (arg: type; a new one, from `source` with `parameters`).
    A mount gets `propagation` (MS_*, 0 leaves it) and `idmap`.
    """

    __slots__ = ("arg", "idmap", "kind", "nofollow", "parameters", "propagation", "recursive", "source")

    def __init__(
        self,
        kind: str,
        arg: str = "",
        *,
        recursive: bool = False,
        nofollow: bool = False,
        source: str = "",
        parameters: Sequence[str] = (),
        propagation: int = 0,
        idmap: IdMap | None = None,
    ) -> None:
        self.kind = kind
        self.arg = arg
        self.recursive = recursive
        self.nofollow = nofollow
        self.source = source
        self.parameters = parameters
        self.propagation = propagation
        self.idmap = idmap

    def __str__(self) -> str:
        words = [self.kind, self.arg, *([self.source] if self.source else []), *self.parameters]
        if self.idmap is not None:
            words += (
                ["mapped", "recursively", str(self.idmap)]
                if self.idmap.recursive
                else ["mapped", str(self.idmap)]
            )
        return " ".join([word for word in words if word])

    def __repr__(self) -> str:
        return f"<{self}>"


class Op:
    """One step for init: a name from OPS, its fields in the order of plan.h, the JSON path it comes from, and why."""

    __slots__ = ("fields", "name", "path", "why")

    def __init__(self, name: str, *fields: Field, path: str = "$", why: str = "") -> None:
        self.name = name
        self.fields = fields
        self.path = path
        self.why = why

    def __repr__(self) -> str:
        return f"{self.name}{self.fields!r} from {self.path}"


class Message:
    """A struct sync_message: numbers as sent, `step` as its name, `text` decoded with surrogateescape."""

    __slots__ = ("code", "errno", "flags", "op", "path", "step", "text", "value")

    def __init__(
        self, code: int, op: int, path: int, step: str, errno: int, flags: int, value: int, text: str
    ) -> None:
        self.code = code
        self.op = op
        self.path = path
        self.step = step
        self.errno = errno
        self.flags = flags
        self.value = value
        self.text = text

    @property
    def hook_place(self) -> int:
        """Of a hook op: its index among the hooks of its kind."""
        return self.flags >> FLAG_HOOK_SHIFT


def milliseconds(seconds: int | None) -> int:
    """A timeout of the configuration as plans have it: 0 is none, and what outlasts the universe is cut to fit."""
    return min((seconds or 0) * 1000, (1 << 63) - 1)


def _u32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, ORDER)


def _string(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise InternalError(f"a plan string contains a null byte: {value!r}")
    return _u32(len(raw)) + raw + b"\0"


def _field(letter: str, value: Field, fds: Mapping[Fd, int]) -> bytes:
    if letter == "u" and isinstance(value, int):
        return _u32(value)
    if letter == "q" and isinstance(value, int):
        return (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, ORDER)
    if letter == "s" and isinstance(value, (str, bytes)):
        return _string(value)
    if letter == "b" and isinstance(value, bytes):
        return _u32(len(value)) + value
    if letter == "l" and isinstance(value, list):
        return _u32(len(value)) + b"".join([_string(str(item)) for item in value])
    if letter == "v" and isinstance(value, list):
        return _u32(len(value)) + b"".join([_u32(int(item)) for item in value])
    if letter == "f":
        return _u32(fds[value] if isinstance(value, Fd) else int(value))  # type: ignore[arg-type]
    raise InternalError(f"a plan field of kind '{letter}' cannot hold {value!r}")


def encode(ops: Sequence[Op], fds: Mapping[Fd, int] = {}) -> bytes:
    """Turn ops into the bytes init reads; path indices are the ops' own indices.

    Raises InternalError for a field that does not fit its letter, ConfigError for a plan over 16 MiB.
    """
    records = [b""]
    total = HEADER_SIZE
    for index, op in enumerate(ops):
        number, letters = OPS[op.name]
        if len(letters) != len(op.fields):
            raise InternalError(f"op {op.name} takes {len(letters)} fields, got {len(op.fields)}")
        # Of most fields by far; _field knows the others, and has the words for what is wrong.
        parts = [b""]
        for letter, value in zip(letters, op.fields, strict=True):
            if letter == "s" and type(value) is str and "\0" not in value:
                raw = value.encode("utf-8", "surrogateescape")
                parts += (len(raw).to_bytes(4, ORDER), raw, b"\0")
            elif letter == "u" and type(value) is int and 0 <= value <= 0xFFFFFFFF:
                parts.append(value.to_bytes(4, ORDER))
            else:
                parts.append(_field(letter, value, fds))
        used = 12 + sum(map(len, parts))
        size = (used + 7) & ~7
        parts[0] = number.to_bytes(2, ORDER) + b"\0\0" + size.to_bytes(4, ORDER) + index.to_bytes(4, ORDER)
        parts.append(bytes(size - used))
        records += parts
        total += size
    if total > MAX_SIZE:
        raise ConfigError(
            f"it makes a plan of {total / (1 << 20):.1f} MiB for init, {MAX_SIZE >> 20} MiB are the most",
            path="$",
            hint="annotations count once for each createContainer and startContainer hook",
        )
    version = __version__.encode()[:31]
    records[0] = (
        _u32(MAGIC)
        + FORMAT.to_bytes(2, ORDER)
        + HEADER_SIZE.to_bytes(2, ORDER)
        + _u32(total)
        + _u32(len(ops))
        + version
        + bytes(32 - len(version))
    )
    return b"".join(records)


def _read(letter: str, data: bytes, at: int) -> tuple[Field, int]:
    def number(offset: int, size: int) -> int:
        if offset + size > len(data):
            raise InternalError("a plan field runs past its record")
        return int.from_bytes(data[offset : offset + size], ORDER)

    if letter in "uf":
        value = number(at, 4)
        return (value - (1 << 32) if letter == "f" and value >> 31 else value), at + 4
    if letter == "q":
        return number(at, 8), at + 8
    count = number(at, 4)
    at += 4
    if letter == "b":
        number(at, count)
        return data[at : at + count], at + count
    if letter == "s":
        if number(at + count, 1) != 0 or b"\0" in data[at : at + count]:
            raise InternalError("a plan string is not NUL-terminated")
        return data[at : at + count].decode("utf-8", "surrogateescape"), at + count + 1
    items: list[Field] = []
    for _ in range(count):
        item, at = _read("s" if letter == "l" else "u", data, at)
        items.append(item)
    return items, at  # type: ignore[return-value]


def decode(data: bytes, paths: Iterable[str] = ()) -> list[Op]:
    """The inverse of `encode`, strict about every length. Raises InternalError on anything odd."""
    texts = list(paths)
    if len(data) < HEADER_SIZE or int.from_bytes(data[:4], ORDER) != MAGIC:
        raise InternalError("not a plan")
    if int.from_bytes(data[4:6], ORDER) != FORMAT or int.from_bytes(data[6:8], ORDER) != HEADER_SIZE:
        raise InternalError("a plan of another format")
    if int.from_bytes(data[8:12], ORDER) != len(data):
        raise InternalError("the plan's size is not the size it states")
    names = {number: (name, letters) for name, (number, letters) in OPS.items()}
    ops: list[Op] = []
    at = HEADER_SIZE
    for _ in range(int.from_bytes(data[12:16], ORDER)):
        if at + 12 > len(data):
            raise InternalError("the plan ends inside a record")
        number = int.from_bytes(data[at : at + 2], ORDER)
        size = int.from_bytes(data[at + 4 : at + 8], ORDER)
        path = int.from_bytes(data[at + 8 : at + 12], ORDER)
        if number not in names or size < 12 or size % 8 or at + size > len(data):
            raise InternalError(f"op number {number} of {size} bytes does not fit the plan")
        name, letters = names[number]
        body = data[at + 12 : at + size]
        fields: list[Field] = []
        offset = 0
        for letter in letters:
            value, offset = _read(letter, body, offset)
            fields.append(value)
        if len(body) - offset > 7 or any(body[offset:]):
            raise InternalError(f"op {name} has bytes behind its fields")
        ops.append(Op(name, *fields, path=texts[path] if path < len(texts) else "$"))
        at += size
    if at != len(data):
        raise InternalError("the plan has bytes behind its last record")
    return ops


def message(data: bytes) -> Message:
    """Parse one struct sync_message. Raises InternalError when its size or code is wrong."""
    if len(data) != SYNC_SIZE:
        raise InternalError(f"a sync message of {len(data)} bytes, expected {SYNC_SIZE}")
    words = [int.from_bytes(data[i : i + 4], ORDER) for i in range(0, 24, 4)]
    errno = words[4] - (1 << 32) if words[4] >> 31 else words[4]
    step = STEPS[words[3]] if words[3] < len(STEPS) else f"step {words[3]}"
    value = int.from_bytes(data[24:32], ORDER, signed=True)
    text = data[TEXT_OFFSET:].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    return Message(words[0], words[1], words[2], step, errno, words[5], value, text)


def last_words(data: bytes) -> tuple[int, Message | None]:
    """Parse one struct last_words, which anybody in the container may have written: (index of the op, its words)."""
    data = data.ljust(LAST_WORDS_SIZE, b"\0")
    said = int.from_bytes(data[4:8], ORDER) == 1
    return int.from_bytes(data[:4], ORDER), message(data[8:LAST_WORDS_SIZE]) if said else None
