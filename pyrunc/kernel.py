"""The typed face of the cffi shim and of python-prctl: the one seam between Python and the kernel.

Only launch, cgroups, console, state, hooks, seccomp and network import this; it imports errors alone. The shim is
loaded on import, python-prctl inside the one function that needs it. Every function raises KernelError.
"""

from __future__ import annotations

import fcntl
import os

from pyrunc import __version__
from pyrunc._shim import ffi, lib
from pyrunc.errors import InternalError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

if ffi.string(lib.shim_version()).decode() != __version__:
    raise InternalError(f"the shim is of version {ffi.string(lib.shim_version()).decode()}, pyrunc of {__version__}")

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_AT_RECURSIVE = 0x8000
_AT_FDCWD = -100
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 1, 2, 0x10
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL SHRINK GROW WRITE
_SPAWN_STEPS = ("clone3", "chdir", "dup2", "execve")


def _check(answer: int, syscall: str, arg: str | None = None) -> int:
    if answer < 0:
        raise KernelError(syscall, -answer, arg)
    return answer


def spawn(
    argv: Sequence[bytes],
    env: Sequence[bytes],
    *,
    exe_fd: int = -1,
    path: str = "",
    cwd: str = "",
    stdio: tuple[int, int, int] = (-1, -1, -1),
    keep: Sequence[int] = (),
    clone_flags: int = 0,
    cgroup_fd: int = -1,
    new_session: bool = False,
) -> tuple[int, int]:
    """Start a program and return (pid, pidfd) once it has exec'd; the child never runs Python.

    The program is `exe_fd` (a memfd) or `path`; `stdio` entries of -1 are inherited; `keep` are the descriptors that
    survive exec; `clone_flags` are CLONE_NEW* bits; `cgroup_fd` a cgroup v2 directory to start in. clone3(2).
    """
    held = [ffi.new("char[]", item) for item in (*argv, *env)]
    request = ffi.new("struct shim_spawn *")
    request.exe_fd = exe_fd
    path_bytes = ffi.new("char[]", os.fsencode(path))
    request.path = path_bytes
    argv_array = ffi.new("char *[]", [*held[: len(argv)], ffi.NULL])
    env_array = ffi.new("char *[]", [*held[len(argv) :], ffi.NULL])
    request.argv = argv_array
    request.envp = env_array
    cwd_bytes = ffi.new("char[]", os.fsencode(cwd)) if cwd else ffi.NULL
    request.cwd = cwd_bytes
    request.stdio = stdio
    keep_array = ffi.new("int[]", list(keep))
    request.keep = keep_array
    request.keep_count = len(keep)
    request.clone_flags = clone_flags
    request.cgroup_fd = cgroup_fd
    request.new_session = 1 if new_session else 0
    pid = lib.shim_spawn(request)
    if pid < 0:
        step = _SPAWN_STEPS[request.failed_step]
        raise KernelError(step, -pid, {"chdir": cwd, "execve": path or None}.get(step))
    return pid, request.pidfd


def sealed_memfd(name: str, content: bytes) -> int:
    """A close-on-exec memfd with `content` that nobody can change any more. memfd_create(2), fcntl(2) F_ADD_SEALS."""
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create(name, flags)  # before Linux 6.3
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        raise KernelError("memfd_create", error.errno or 0, name) from error
    return fd


def open_tree(path: str, *, recursive: bool) -> int:
    """A detached clone of the mount at `path` (with all below it when recursive). open_tree(2)."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _check(lib.shim_open_tree(_AT_FDCWD, os.fsencode(path), flags), "open_tree", path)


def idmap_tree(tree: int, userns: int, *, recursive: bool) -> None:
    """Map the owners of a detached mount through a user namespace. mount_setattr(2) MOUNT_ATTR_IDMAP."""
    _check(lib.shim_idmap_tree(tree, userns, 1 if recursive else 0), "mount_setattr", "MOUNT_ATTR_IDMAP")


def fs_type(path: str) -> int:
    """The magic number of the file system at `path`, 0 when there is no such path. statfs(2)."""
    answer: int = lib.shim_fs_type(os.fsencode(path))
    return max(answer, 0)


def namespace_type(fd: int) -> int:
    """The CLONE_NEW* bit of a namespace file. ioctl_ns(2)."""
    return _check(lib.shim_namespace_type(fd), "ioctl", "NS_GET_NSTYPE")


def set_subreaper(on: bool) -> None:
    """Let orphans of our children become ours, so that attached run and exec can wait for init. prctl(2)."""
    _check(lib.shim_set_subreaper(1 if on else 0), "prctl", "PR_SET_CHILD_SUBREAPER")
