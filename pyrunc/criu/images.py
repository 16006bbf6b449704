"""The image and work directories of checkpoint and restore: opened once, checked, and our own files in them.

CRIU makes and opens files by name there, follows links, and waits for the other end of a fifo. Images define a
process with its user and capabilities, so write access to them is as good as root. Therefore a directory must be ours
and not writable by others, and must contain nothing that leads elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import stat

from pyrunc import log
from pyrunc.container import directory as state_directory
from pyrunc.criu import externals
from pyrunc.criu import request as criu_request
from pyrunc.errors import KernelError, StateError, strerror
from pyrunc.host import gather, proc
from pyrunc.kernel import container as kernel_container
from pyrunc.plan import planner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.criu.rpc import Message
    from pyrunc.plan.job import Plan, PlanOptions
    from pyrunc.requests import CriuOptions
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Spec

# What standard input, output and error were. runc has the same file, so its images and ours are compatible.
DESCRIPTORS = "descriptors.json"
# The last image that a dump writes.
INVENTORY = "inventory.img"
# The images that these build on: a link that CRIU makes.
_PARENT = "parent"
# The socket of a daemon, in the work directory of restore. criu(8), lazy-pages
_LAZY_SOCKET = "lazy-pages.socket"
# What CRIU opens there besides images, without "parent", which it does not check.
_IMAGE_FILES = frozenset((DESCRIPTORS, f".{DESCRIPTORS}.new"))
_WORK_FILES = frozenset(
    ("dump.log", "restore.log", "stats-dump", "stats-restore", "irmap-cache", _LAZY_SOCKET)
)
_LOG_TAIL = 1 << 20
_LONGEST_LIST = 1 << 16
_MOST_PARENTS = 1000
_OUTSIDE = re.compile(r"pipe:\[\d{1,20}\]|file\[[0-9a-f]{1,16}:[0-9a-f]{1,16}\]")
_LONGEST_NAME = 4096
_KINDS = {
    stat.S_IFIFO: "a fifo",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
}
_NOT_OPENED = "opening it could wait, or reach another file: remove it, or give another directory"


class Directories:
    """The images' directory and CRIU's work directory, kept open: CRIU gets our descriptors."""

    __slots__ = ("image", "image_path", "work", "work_path")

    def __init__(self, options: CriuOptions, *, dump: bool) -> None:
        self.image_path = options.image_path
        self.work_path = options.work_path or options.image_path
        self.image = _open(options.image_path, make=dump)
        self.work = -1
        try:
            self.work = _open(self.work_path, make=True)
            _look_over(self.image, self.image_path, written=dump)
            # An engine's directory may have fifos of its own: only what CRIU opens is checked.
            _look_over(self.work, self.work_path, written=True, only=_WORK_FILES)
            if not dump:
                _look_over_parents(self.image, self.image_path)
        except BaseException:
            self.close()
            raise

    def put_into(self, opts: Message) -> None:
        """The fields of criu_opts."""
        opts["images_dir_fd"] = self.image
        opts["work_dir_fd"] = self.work

    def move_to(self, root: str) -> None:
        """Open them below /proc/PID/root: CRIU mounts in its work directory, so that must be in its mount namespace."""
        for path, fd in ((self.image_path, self.image), (self.work_path, self.work)):
            there = _open_directory(root + os.path.realpath(path))
            try:
                if not os.path.samestat(os.fstat(there), os.fstat(fd)):
                    raise StateError(f"'{path}' has become another directory meanwhile")
                os.dup2(there, fd, inheritable=False)
            finally:
                os.close(there)

    def log(self, name: str) -> list[str]:
        """Return the last lines of a log file of CRIU's, none if it does not exist."""
        try:
            fd = _open_file(self.work, name, f"{self.work_path}/{name}")
        except (KernelError, StateError):
            return []
        try:
            size = os.fstat(fd).st_size
            data = os.pread(fd, _LOG_TAIL, max(0, size - _LOG_TAIL))
        except OSError:
            return []
        finally:
            os.close(fd)
        return data.decode("utf-8", "replace").splitlines()

    def size(self) -> int:
        """Return the size of the images, which grows while CRIU saves."""
        found = 0
        for name in os.listdir(self.image):
            try:
                if name.endswith(".img"):
                    found += os.stat(name, dir_fd=self.image, follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
        return found

    def inventory(self) -> tuple[int, int]:
        """Return what identifies the inventory, which every dump writes; zeros if there is none."""
        try:
            found = os.stat(INVENTORY, dir_fd=self.image, follow_symlinks=False)
        except OSError:
            return 0, 0
        return found.st_ino, found.st_mtime_ns

    def close(self) -> None:
        """Close them."""
        for fd in (self.image, self.work):
            if fd >= 0:
                os.close(fd)
        self.image = self.work = -1


def _open_directory(path: str, dir_fd: int | None = None) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        raise KernelError("open", error.errno or 0, path) from error


def _open(path: str, *, make: bool) -> int:
    if make:
        try:
            os.makedirs(path, 0o700, exist_ok=True)
        except OSError as error:
            raise KernelError("mkdir", error.errno or 0, path) from error
    _check_link(path)
    fd = _open_directory(path)
    try:
        _check_owner(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_ours(user: int) -> bool:
    return user in (0, os.geteuid())


def _is_writable_by_others(found: os.stat_result) -> bool:
    return kernel_container.others_write(found.st_mode, found.st_gid)


def _check_link(path: str) -> None:
    try:
        found = os.lstat(path.rstrip("/") or "/")
    except OSError as error:
        raise KernelError("open", error.errno or 0, path) from error
    if stat.S_ISLNK(found.st_mode) and not _is_ours(found.st_uid):
        raise StateError(
            f"'{path}' is a symbolic link of user {found.st_uid}", hint="give the directory itself"
        )


def _check_owner(fd: int, path: str) -> None:
    found = os.fstat(fd)
    if not _is_ours(found.st_uid):
        raise StateError(
            f"the directory '{path}' belongs to user {found.st_uid}",
            hint="write access to images decides what runs as root: chown it, or give another directory",
        )
    if _is_writable_by_others(found):
        raise StateError(
            f"others may write to the directory '{path}'",
            hint="write access to images decides what runs as root: chmod go-w it, or give another directory",
        )


def _look_over(directory: int, path: str, *, written: bool, only: frozenset[str] | None = None) -> None:
    """Raise StateError if there is a file that CRIU must not open; `written`: CRIU may write to any of them."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise KernelError("getdents", error.errno or 0, path) from error
    for name in names:
        if name not in only if only is not None else not (name.endswith(".img") or name in _IMAGE_FILES):
            continue
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KernelError("stat", error.errno or 0, f"{path}/{name}") from error
        _check_file(found, name, f"{path}/{name}", written=written)


def _check_file(found: os.stat_result, name: str, path: str, *, written: bool) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFREG:
        if written and found.st_nlink > 1:
            raise StateError(
                f"'{path}' has {found.st_nlink} names", hint="writing to it would change a file elsewhere"
            )
        if not _is_ours(found.st_uid):
            raise StateError(
                f"'{path}' belongs to user {found.st_uid}", hint="images are ours alone: chown it"
            )
        if _is_writable_by_others(found):
            raise StateError(f"others may write to '{path}'", hint="images are ours alone: chmod go-w it")
    elif (kind, name) != (stat.S_IFSOCK, _LAZY_SOCKET):
        raise StateError(f"'{path}' is {_KINDS.get(kind, 'a device')} and no file", hint=_NOT_OPENED)


def _look_over_parents(directory: int, path: str) -> None:
    """Check the images that these build on, one after the other as CRIU does."""
    seen = [os.fstat(directory)]
    current = os.dup(directory)
    try:
        while True:
            path = f"{path}/{_PARENT}"
            try:
                following = os.open(_PARENT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
            except FileNotFoundError:
                return
            except OSError as error:
                raise KernelError("open", error.errno or 0, path) from error
            os.close(current)
            current = following
            found = os.fstat(current)
            if any(os.path.samestat(found, one) for one in seen) or len(seen) > _MOST_PARENTS:
                raise StateError(f"'{path}' leads back to images that build on it")
            seen.append(found)
            _check_owner(current, path)
            _look_over(current, path, written=False)
    finally:
        os.close(current)


def check_parent(image_path: str, parent_path: str) -> None:
    """Raise StateError unless the images of --parent-path exist and are ours."""
    path = os.path.normpath(os.path.join(image_path, parent_path))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(f"invalid --parent-path: stat '{path}': {strerror(error.errno or 0)}") from error
    try:
        _check_owner(fd, path)
        _look_over(fd, path, written=False)
        _look_over_parents(fd, path)
    finally:
        os.close(fd)


def _open_file(directory: int, name: str, where: str, *, hint: str | None = None) -> int:
    """Open a regular file for reading. Raise KernelError, StateError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        raise KernelError("open", error.errno or 0, where, hint=hint) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StateError(f"'{where}' is no file", hint=_NOT_OPENED)
    return fd


def write_descriptors(image: int, descriptors: Sequence[str]) -> None:
    """Save what standard input, output and error are. Raise KernelError."""
    temporary = f".{DESCRIPTORS}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    call = "open"
    try:
        try:
            os.unlink(temporary, dir_fd=image)
        except FileNotFoundError:
            pass
        fd = os.open(temporary, flags, 0o600, dir_fd=image)
        try:
            call = "write"
            view = memoryview(json.dumps(descriptors).encode("utf-8", "surrogateescape"))
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        call = "rename"
        os.rename(temporary, DESCRIPTORS, src_dir_fd=image, dst_dir_fd=image)
    except OSError as error:
        raise KernelError(call, error.errno or 0, DESCRIPTORS) from error


def read_descriptors(image: int, path: str) -> list[str]:
    """Return what standard input, output and error were. Raise StateError if the directory has no image of ours."""
    where = f"{path}/{DESCRIPTORS}"
    hint = "--image-path is the directory that checkpoint was given; a pre-dump alone cannot be restored"
    fd = _open_file(image, DESCRIPTORS, where, hint=hint)
    try:
        text = os.read(fd, _LONGEST_LIST + 1)
    except OSError as error:
        raise KernelError("read", error.errno or 0, where) from error
    finally:
        os.close(fd)
    if len(text) > _LONGEST_LIST:
        raise StateError(f"'{where}' is no list of descriptors: it has more than {_LONGEST_LIST} bytes")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise StateError(f"'{where}' is no JSON: {error}") from error
    except RecursionError:
        raise StateError(f"'{where}' is no list of descriptors: it has lists in lists in lists") from None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise StateError(f"'{where}' is no list of descriptors")
    for item in found:
        if len(item) > _LONGEST_NAME or "\0" in item:
            raise StateError(f"'{where}' is no list of descriptors: no file has the name of one of them")
    return found


def is_outside(descriptor: str) -> bool:
    """Return whether CRIU's key is that of a pipe or a file from outside the container."""
    return _OUTSIDE.fullmatch(descriptor) is not None


def warn_of_rootless() -> None:
    """Warn that CRIU needs root of the host; it is not an error, as newer versions may do without."""
    if os.geteuid() != 0 or gather.in_user_namespace():
        log.warning("checkpoint and restore of rootless containers need a CRIU and a kernel that can do it")


def config_file(opts: Message, spec: Spec) -> None:
    """The annotation org.criu.config, or the usual file when there is one. Raise ConfigError, KernelError."""
    for path in criu_request.config_files(spec.get("annotations")):
        if os.path.lexists(path):
            opts["config_file"] = _trusted(path)
            return


def _trusted(path: str) -> str:
    """Return the path without links of a file that only root can change or replace. Raise ConfigError, KernelError."""
    real = os.path.realpath(path)
    if not real.startswith(criu_request.CONFIG_TOP):
        raise criu_request.refused_config(f"'{path}' leads to '{real}'")
    try:
        state_directory.check_root(os.path.dirname(real))
        os.close(state_directory.open_ours(real))
    except StateError as error:
        raise criu_request.refused_config(error.message) from error
    except OSError as error:
        raise KernelError("open", error.errno or 0, real) from error
    return real


def mount_points(process: str) -> dict[int, str]:
    """Mount id -> mount point, of those that a process sees. proc(5), mountinfo."""
    return {int(fields[0]): proc.unescape(fields[4]) for fields, _ in proc.mountinfo(process)}


def file_systems(spec: Spec, facts: HostFacts, options: PlanOptions) -> Plan:
    """The plan of the container's mounts, which tells what in it comes from outside.

    Raise StateError for what CRIU would restore as something else.
    """
    options.no_new_keyring = True
    options.attached_late = False
    the_plan = planner.file_systems(spec, facts, options)
    if (path := externals.id_mapped(the_plan.ops)) is not None:
        raise StateError(
            "CRIU cannot save an id-mapped mount",
            path=path,
            hint="restored, it would be one without mapping",
        )
    return the_plan
