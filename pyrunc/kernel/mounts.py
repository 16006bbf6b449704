"""Detached mounts: open_tree(2), fsopen(2), mount_setattr(2). Every function raises KernelError."""

from __future__ import annotations

import os

from pyrunc._shim import ffi, lib
from pyrunc.kernel.shim import c_strings, check, check_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CGROUP2_SUPER_MAGIC = 0x63677270
CGROUP_SUPER_MAGIC = 0x27E0EB
RDTGROUP_SUPER_MAGIC = 0x7655821
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_AT_RECURSIVE = 0x8000
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_FDCWD = -100


def open_tree(path: str, *, recursive: bool, nofollow: bool = False) -> int:
    """Return a detached clone of the mount at `path` (with all below it if recursive). open_tree(2).

    With `nofollow` a symbolic link at the end of the path is cloned itself.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    flags |= _AT_SYMLINK_NOFOLLOW if nofollow else 0
    return check(lib.shim_open_tree(_AT_FDCWD, os.fsencode(path), flags), "open_tree", path)


def filesystem(kind: str, source: str, parameters: Sequence[str]) -> int:
    """A detached mount of a new file system of type `kind`. fsopen(2), fsconfig(2), fsmount(2)."""
    words = ffi.new("struct shim_words *")
    array, _held = c_strings(parameters)
    array = ffi.cast("char const * const *", array)
    return check_words(lib.shim_filesystem(os.fsencode(kind), os.fsencode(source), array, words), words)


def tree_propagation(tree: int, flags: int, *, recursive: bool) -> None:
    """Set MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE of a detached mount. mount_setattr(2)."""
    check(lib.shim_tree_setattr(tree, flags, -1, 1 if recursive else 0), "mount_setattr", "propagation")


def idmap_tree(tree: int, userns: int, *, recursive: bool) -> None:
    """Map the owners of a detached mount through a user namespace. mount_setattr(2) MOUNT_ATTR_IDMAP."""
    check(lib.shim_tree_setattr(tree, 0, userns, int(recursive)), "mount_setattr", "MOUNT_ATTR_IDMAP")


def user_namespace(uid_map: str, gid_map: str) -> int:
    """Return a descriptor of a new, empty user namespace; the texts are for /proc/PID/uid_map and gid_map.

    If a map is refused, the error's call is that file's name.
    """
    words = ffi.new("struct shim_words *")
    return check_words(lib.shim_user_namespace(uid_map.encode(), gid_map.encode(), words), words)


def fs_type(path: str) -> int:
    """Return the magic number of the file system at `path`, 0 if there is no such path. statfs(2)."""
    answer: int = lib.shim_fs_type(os.fsencode(path))
    return max(answer, 0)
