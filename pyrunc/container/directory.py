"""The state directory `<root>/<id>/`: made, locked, written atomically, removed. Reading it is csrc/container/'s job.

The format of the `state` file is described in csrc/container/container.h; the lock is flock(2) on the directory itself,
so that it cannot be taken in a directory that is gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from pyrunc.errors import KernelError, StateError
from pyrunc.kernel import container as kernel_container

TYPE_CHECKING = False

CONFIG = "config.json"
STATE = "state"
CREATING = "state.creating"
FIFO = "exec.fifo"
WORDS = "exec.words"
EXIT = "exit"
_MAKE_TRIES = 100
_REMOVE_TRIES = 5
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")


def is_id(name: str) -> bool:
    """Return whether a name can be a container's: other entries of the root directory (caches) have invalid names."""
    return bool(name) and _ID_CHARACTERS.issuperset(name) and name not in (".", "..")


def check_id(container_id: str) -> str:
    """Return the id if it is valid: `[A-Za-z0-9_+.-]+` without `.` and `..`, as it names a directory.

    Raise StateError if it is invalid.
    """
    if not is_id(container_id):
        raise StateError(
            f"invalid container ID format: '{container_id}'", hint="use letters, digits and any of _ + . -"
        )
    if len(container_id) > 255:
        raise StateError(
            f"invalid container ID format: {len(container_id)} characters, at most 255 are allowed"
        )
    return container_id


class StateDir:
    """A container's state directory, held open and locked."""

    __slots__ = ("fd", "name", "root")

    def __init__(self, root: str, name: str, fd: int) -> None:
        self.root = root
        self.name = name
        self.fd = fd

    @property
    def path(self) -> str:
        """Return its path, for messages; all work uses the descriptor."""
        return f"{self.root}/{self.name}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the directory atomically. Raise KernelError if that fails."""
        temporary = f".{name}.new"
        call = "open"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(temporary, flags, 0o600, dir_fd=self.fd)
            call = "write"
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            call = "rename"
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise KernelError(call, error.errno or 0, f"{self.path}/{name}") from error

    def rename(self, name: str, new: str) -> None:
        """Rename a file of the directory. Raise KernelError if that fails."""
        try:
            os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise KernelError("rename", error.errno or 0, f"{self.path}/{new}") from error

    def drop(self, name: str) -> None:
        """Remove a file of the directory. Raise KernelError."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except OSError as error:
            raise KernelError("unlink", error.errno or 0, f"{self.path}/{name}") from error

    def make_fifo(self) -> int:
        """Make exec.fifo and return an O_PATH descriptor of it for init."""
        call = "mkfifo"
        try:
            os.mkfifo(FIFO, 0o600, dir_fd=self.fd)
            # init opens it as the container's user; the mode of the directory keeps all others out.
            call = "chmod"
            os.chmod(FIFO, 0o622, dir_fd=self.fd)  # noqa: S103
            call = "open"
            return os.open(FIFO, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except OSError as error:
            raise KernelError(call, error.errno or 0, f"{self.path}/{FIFO}") from error

    def make_words(self, size: int) -> int:
        """Make exec.words, memory that init and start share, and return its descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        call = "open"
        try:
            fd = os.open(WORDS, flags, 0o600, dir_fd=self.fd)
            try:
                # Not a hole: without room for it init would be killed when it writes.
                call = "write"
                os.write(fd, bytes(size))
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise KernelError(call, error.errno or 0, f"{self.path}/{WORDS}") from error
        return fd

    def remove(self) -> None:
        """Remove the directory with its plain files and the empty directory of notify; there is nothing else."""
        for attempt in range(_REMOVE_TRIES):
            for name in os.listdir(self.fd):
                try:
                    os.unlink(name, dir_fd=self.fd)
                except IsADirectoryError:
                    os.rmdir(name, dir_fd=self.fd)
                except FileNotFoundError:
                    continue  # the recorder has renamed it
            try:
                os.rmdir(self.path)
            except OSError as error:
                # A recorder may just have written its file.
                if error.errno != errno.ENOTEMPTY or attempt == _REMOVE_TRIES - 1:
                    raise
            else:
                return

    def lock(self) -> bool:
        """Take the lock of a directory that look() opened; False if it is not the one of its name any more.

        Raise StateError if it cannot be had within kernel_container.LOCK_SECONDS, KernelError.
        """
        try:
            return _lock(self.fd, self.path)
        except OSError as error:
            raise KernelError("flock", error.errno or 0, self.path) from error

    def close(self) -> None:
        """Release the lock."""
        os.close(self.fd)


def _lock(fd: int, path: str) -> bool:
    """Take the lock within kernel_container.LOCK_SECONDS; False if the directory was removed in the meantime."""
    deadline = time.monotonic() + kernel_container.LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                seconds = kernel_container.LOCK_SECONDS
                raise StateError(f"'{path}' is locked by another pyrunc for {seconds:.0f} s") from None
            time.sleep(0.002)
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return there.st_ino == os.fstat(fd).st_ino


def check_root(root: str) -> bool:
    """Return whether the root directory exists. Raise StateError if others could change it, KernelError."""
    return kernel_container.check_root(root)


def make_root(root: str, mode: int = 0o711) -> None:
    """Make the root directory unless it exists. Raise StateError if others could change it, KernelError."""
    if check_root(root):
        return
    try:
        os.makedirs(root, mode, exist_ok=True)
    except OSError as error:
        raise KernelError("mkdir", error.errno or errno.EIO, error.filename or root) from error
    # Another user may have made it first in a directory where all may.
    check_root(root)


def open_ours(path: str) -> int:
    """Open a file of a container's directory for reading. Raise OSError, StateError if it is not ours alone."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not kernel_container.is_our_file(fd):
            raise StateError(f"'{path}' cannot be trusted: others own it, name it or may write to it")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make(root: str, path: str) -> None:
    for _ in range(_MAKE_TRIES):
        make_root(root)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            raise _exists(path) from None
        except FileNotFoundError:
            continue  # the root was removed in between
        except OSError as error:
            raise KernelError("mkdir", error.errno or errno.EIO, error.filename or path) from error
        return
    raise StateError(f"'{root}' is removed by others faster than it can be made")


def _exists(path: str) -> StateError:
    name = path.rpartition("/")[2]
    hint = f"remove it with: pyrunc delete --force {name}"
    return StateError("container with given ID already exists", hint=hint)


def _open_locked(path: str) -> int:
    """Open and lock the directory that was just made; return -1 if a delete --force came first.

    It may not be the one we made: that may have been deleted, and made again by another process that uses it now.
    """
    call = "open"
    fd = -1
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        call = "flock"
        if _lock(fd, path):
            call = "getdents64"
            if os.listdir(fd):
                raise _exists(path)
            return fd
    except FileNotFoundError:
        pass
    except BaseException as error:
        if fd >= 0:
            os.close(fd)
        if not isinstance(error, OSError):
            raise
        # It is empty unless another process has made it anew; then this does nothing.
        try:
            os.rmdir(path)
        except OSError as later:
            error.add_note(f"while cleaning up: {later}")
        raise KernelError(call, error.errno or errno.EIO, path) from error
    if fd >= 0:
        os.close(fd)
    return -1


def look(root: str, container_id: str) -> StateDir:
    """Open the directory of an existing container without a lock. Raise StateError if it is gone, KernelError."""
    path = f"{root}/{container_id}"
    if not check_root(root):
        raise StateError("container does not exist")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise StateError("container does not exist") from None
    except OSError as error:
        raise KernelError("open", error.errno or errno.EIO, path) from error
    return StateDir(root, container_id, fd)


def open_(root: str, container_id: str) -> StateDir:
    """Open and lock the directory of an existing container. Raise StateError if it is gone, or locked for too long."""
    directory = look(root, container_id)
    try:
        if not directory.lock():
            raise StateError("container does not exist")
    except BaseException:
        directory.close()
        raise
    return directory


def create(root: str, container_id: str) -> StateDir:
    """Make and lock `<root>/<container_id>`; of several processes the one whose mkdir succeeds gets it.

    Raise StateError if there is one already, KernelError if the root cannot be used.
    """
    path = f"{root}/{container_id}"
    for _ in range(_MAKE_TRIES):
        _make(root, path)
        fd = _open_locked(path)
        if fd >= 0:
            return StateDir(root, container_id, fd)
    raise StateError(f"'{path}' is removed by others faster than it can be made")
