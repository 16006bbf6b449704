"""A resctrl of our own, where the processor has none: the kernel's rules in a small file system, by FUSE.

It answers mkdir, rmdir and writes as Documentation/filesystems/resctrl.rst has it: a new directory is a group with all
its files, a schema that is none is EINVAL and `info/last_cmd_status` says why, groups and monitoring groups are few.
The protocol is that of include/uapi/linux/fuse.h, version 7.31.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import threading
from typing import TYPE_CHECKING, NoReturn

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOKUP, _FORGET, _GETATTR, _SETATTR, _MKDIR, _RMDIR, _OPEN, _READ, _WRITE = 1, 2, 3, 4, 9, 11, 14, 15, 16
_RELEASE, _FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _BATCH_FORGET = 18, 25, 26, 27, 28, 29, 42
_DIRECT_IO = 1
_ROOT = 1
_MS_NOSUID_NODEV = 2 | 4
_MNT_DETACH = 2
# The mask of a cache of 11 ways, in two domains.
_MASK = 0x7FF
_DOMAINS = ("0", "1")
_STEP = 10


class RefusedError(Exception):
    """A call that fails: its errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Group:
    """A class of service or, without schemas, a monitoring group."""

    def __init__(self, schemas: dict[str, dict[str, int]] | None) -> None:
        self.schemas = schemas
        self.tasks: set[int] = set()


class Tree:
    """What is in the file system: groups by their path, "" being the root; the rest follows from them."""

    def __init__(self, classes: int, monitors: int) -> None:
        self.classes = classes
        self.monitors = monitors
        self.status = "ok"
        self.groups = {"": Group(_defaults())}
        self.info = {
            "": ["L3", "MB", "L3_MON", "last_cmd_status"],
            "L3": ["cbm_mask", "min_cbm_bits", "num_closids"],
            "MB": ["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"],
            "L3_MON": ["mon_features", "num_rmids"],
        }

    def directory(self, path: str) -> list[str] | None:
        """The names in a directory, None when it is none."""
        if path in self.groups:
            control = self.groups[path].schemas is not None
            names = ["tasks", "cpus", "mon_data"] + (["schemata", "mon_groups"] if control else [])
            below = ["info", *(name for name in self.groups if name and "/" not in name)]
            return names if path else names + below
        above, _, name = path.rpartition("/")
        if name == "mon_groups" and above in self.groups:
            return [key.rpartition("/")[2] for key in self.groups if key.startswith(f"{path}/")]
        if name == "mon_data" and above in self.groups:
            return [f"mon_L3_0{domain}" for domain in _DOMAINS]
        if name.startswith("mon_L3_"):
            return ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"]
        if path.partition("/")[0] != "info":
            return None
        return self.info.get(path.removeprefix("info").lstrip("/"))

    def read(self, path: str) -> str:
        """The text of a file."""
        above, _, name = path.rpartition("/")
        group = self.groups.get(above)
        if name == "schemata" and group is not None and group.schemas is not None:
            return "".join(_line(key, table) for key, table in group.schemas.items())
        if name == "tasks" and group is not None:
            return "".join(f"{pid}\n" for pid in sorted(group.tasks) if os.path.exists(f"/proc/{pid}"))
        fixed = {
            "cbm_mask": f"{_MASK:x}", "min_cbm_bits": "1", "num_closids": str(self.classes),
            "bandwidth_gran": str(_STEP), "delay_linear": "1", "min_bandwidth": str(_STEP), "num_rmids": "8",
            "mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes", "last_cmd_status": self.status,
            "llc_occupancy": "4096", "mbm_total_bytes": "300", "mbm_local_bytes": "200", "cpus": "0",
        }  # fmt: skip
        return fixed[name] + "\n"

    def write(self, path: str, text: str) -> None:
        """A write to a file."""
        above, _, name = path.rpartition("/")
        if name == "tasks":
            self._move(int(text), above)
        elif name == "schemata":
            self._schemata(self.groups[above], text)
        else:
            raise RefusedError(errno.EACCES)

    def _move(self, pid: int, to: str) -> None:
        if not os.path.exists(f"/proc/{pid}"):
            self._refuse(errno.ESRCH, f"No task {pid}")
        control = _class_of(to)
        if control != to and pid not in self.groups[control].tasks:
            self._refuse(errno.EINVAL, "Can't move task to different control group")
        for path, group in self.groups.items():
            # A task is in one class, and in one monitoring group of it.
            if _class_of(path) != control or path != control:
                group.tasks.discard(pid)
        self.groups[to].tasks.add(pid)

    def _schemata(self, group: Group, text: str) -> None:
        assert group.schemas is not None
        new = {key: dict(table) for key, table in group.schemas.items()}
        seen = set()
        for line in text.splitlines():
            key, _, rest = line.strip().partition(":")
            if key not in new:
                self._refuse(errno.EINVAL, f"Unknown or unsupported resource name '{key}'")
            for pair in rest.split(";"):
                domain, _, value = pair.partition("=")
                if domain not in _DOMAINS or (key, domain) in seen:
                    self._refuse(errno.EINVAL, f"Duplicate or unknown domain {domain}")
                seen.add((key, domain))
                new[key][domain] = self._value(key, value)
        group.schemas = new
        self.status = "ok"

    def _value(self, key: str, text: str) -> int:
        try:
            value = int(text, 10 if key == "MB" else 16)
        except ValueError:
            self._refuse(errno.EINVAL, f"Non-number {text}")
        if key == "MB":
            return -(-value // _STEP) * _STEP
        if not 0 < value <= _MASK:
            self._refuse(errno.EINVAL, "Mask out of range")
        return value

    def _refuse(self, number: int, text: str) -> NoReturn:
        self.status = text
        raise RefusedError(number)

    def mkdir(self, path: str) -> None:
        """A new group."""
        above, _, name = path.rpartition("/")
        control = above.removesuffix("mon_groups").rstrip("/")
        if self.directory(path) is not None or name in (self.directory(above) or ()):
            raise RefusedError(errno.EEXIST)
        if not above:
            if sum("/" not in key for key in self.groups) >= self.classes:
                self._refuse(errno.ENOSPC, "Out of CLOSIDs")
            self.groups[path] = Group(_defaults())
        elif above != control and control in self.groups:
            if sum("mon_groups/" in key for key in self.groups) >= self.monitors:
                self._refuse(errno.ENOSPC, "Out of RMIDs")
            self.groups[path] = Group(None)
        else:
            raise RefusedError(errno.EPERM)

    def rmdir(self, path: str) -> None:
        """A group goes, and what is below it; its tasks stay with what is above."""
        if not path or path not in self.groups:
            raise RefusedError(errno.EPERM)
        for key in [key for key in self.groups if key == path or key.startswith(f"{path}/")]:
            del self.groups[key]


def _class_of(path: str) -> str:
    return path.partition("mon_groups/")[0].rstrip("/")


def _line(key: str, table: dict[str, int]) -> str:
    values = [f"{at}={value if key == 'MB' else format(value, 'x')}" for at, value in table.items()]
    return f"{key:>6}:{';'.join(values)}\n"


def _defaults() -> dict[str, dict[str, int]]:
    return {"L3": dict.fromkeys(_DOMAINS, _MASK), "MB": dict.fromkeys(_DOMAINS, 100)}


class Server:
    """Answers the kernel's requests about one mount, in a thread of its own, until it is unmounted."""

    def __init__(self, fd: int, tree: Tree) -> None:
        self._fd = fd
        self._tree = tree
        self._paths = {_ROOT: ""}
        self._numbers = {"": _ROOT}
        self.thread = threading.Thread(target=self._serve, name="resctrl")

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._fd, 1 << 17)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return
            _, code, unique, node = struct.unpack_from("<IIQQ", request)
            if code in (_FORGET, _BATCH_FORGET):
                continue
            try:
                answer, number = self._answer(code, self._paths.get(node, ""), request[40:]), 0
            except RefusedError as refusal:
                answer, number = b"", refusal.number
            with contextlib.suppress(FileNotFoundError):  # the caller was interrupted
                os.write(self._fd, struct.pack("<IiQ", 16 + len(answer), -number, unique) + answer)

    def _answer(self, code: int, path: str, body: bytes) -> bytes:
        if code == _INIT:
            return struct.pack("<IIIIHHII", 7, 31, 1 << 16, 0, 12, 9, 1 << 16, 1) + bytes(36)
        if code == _LOOKUP:
            return self._entry(_join(path, body))
        if code in (_GETATTR, _SETATTR):
            return struct.pack("<QII", 0, 0, 0) + self._attributes(path)
        if code == _MKDIR:
            self._tree.mkdir(_join(path, body[8:]))
            return self._entry(_join(path, body[8:]))
        if code == _RMDIR:
            self._tree.rmdir(_join(path, body))
            return b""
        if code in (_OPEN, _OPENDIR):
            return struct.pack("<QII", 0, _DIRECT_IO, 0)
        if code in (_READ, _READDIR):
            _, offset, size = struct.unpack_from("<QQI", body)
            whole = self._list(path) if code == _READDIR else self._tree.read(path).encode()
            return whole[offset : offset + size]
        if code == _WRITE:
            size = struct.unpack_from("<QQI", body)[2]
            self._tree.write(path, body[40 : 40 + size].decode())
            return struct.pack("<II", size, 0)
        if code in (_RELEASE, _RELEASEDIR, _FLUSH):
            return b""
        raise RefusedError(errno.ENOSYS)

    def _entry(self, path: str) -> bytes:
        above, _, name = path.rpartition("/")
        if name not in (self._tree.directory(above) or ()):
            raise RefusedError(errno.ENOENT)
        number = self._numbers.setdefault(path, len(self._numbers) + 1)
        self._paths[number] = path
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + self._attributes(path)

    def _attributes(self, path: str) -> bytes:
        mode = 0o644 | stat.S_IFREG if self._tree.directory(path) is None else 0o755 | stat.S_IFDIR
        return struct.pack(
            "<QQQQQQIIIIIIIIII", self._numbers[path], *[0] * 5, *[0] * 3, mode, 1, *[0] * 3, 4096, 0
        )

    def _list(self, path: str) -> bytes:
        # The offset of an entry is where the next one begins.
        whole = b""
        for name in [".", "..", *(self._tree.directory(path) or ())]:
            size = -(-(24 + len(name)) // 8) * 8
            entry = struct.pack("<QQII", 1, len(whole) + size, len(name), 0) + name.encode()
            whole += entry.ljust(size, b"\0")
        return whole


def _join(path: str, body: bytes) -> str:
    return f"{path}/{body.partition(bytes(1))[0].decode()}".lstrip("/")


@contextlib.contextmanager
def mounted(directory: str, *, classes: int = 4, monitors: int = 2) -> Iterator[Tree]:
    """A resctrl at `directory`, with room for so many groups (the root is one) and monitoring groups."""
    support.needs(os.path.exists("/dev/fuse"), "FUSE")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    tree = Tree(classes, monitors)
    try:
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        where = directory.encode()
        if libc.mount(b"resctrl", where, b"fuse", _MS_NOSUID_NODEV, options) != 0:
            raise OSError(ctypes.get_errno(), "mount", directory)
        server = Server(fd, tree)
        server.thread.start()
        try:
            yield tree
        finally:
            libc.umount2(where, _MNT_DETACH)
            server.thread.join(10)
            assert not server.thread.is_alive(), "resctrl is still in use"
    finally:
        os.close(fd)
