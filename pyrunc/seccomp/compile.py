"""Seccomp on this host: filters by libseccomp with a cache, and what libseccomp and the kernel support.

The profile itself is profile.py's, which is pure.

The cache: a profile of Docker's size takes libseccomp 5 ms, more than everything else `create` does in Python. Finished
filters are kept in `<root>/@seccomp` ("@" cannot begin a container's name), one file each, named by a digest of
everything that went in: the checked profile, the version of pyrunc, the kernel. The entry records the file libseccomp
was loaded from, because finding that out means loading it. An entry counts only if the directory and the file are
owned by us and not writable by others; if anything is wrong with the cache, it is not used.
"""

from __future__ import annotations

import errno
import os

from pyrunc import __version__
from pyrunc.errors import ConfigError, KernelError
from pyrunc.kernel import seccomp as kernel_seccomp
from pyrunc.seccomp import profile as seccomp_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.seccomp.profile import Filter, Profile
    from pyrunc.spec.shapes import Seccomp

CACHE_NAME = "@seccomp"
_CACHE_LIMIT = 64  # entries; one is about 10 kB
_MAGIC = b"pyrunc-seccomp-1"
_LARGEST_ENTRY = 1 << 17


def compile(  # noqa: A001 (it is what libseccomp's verb is)
    seccomp: Seccomp, cache_root: str = "", *, starts: bool = False
) -> Filter:
    """Return the finished filter of a `linux.seccomp` object; `cache_root` is the runtime's root, "" for no cache.

    `starts`: a program is executed under it, so a filter that does not allow execve is refused.
    Raise ConfigError with the JSON path of what is not supported here.
    """
    result = seccomp_profile.make(seccomp, _Builder(cache_root, starts).build)
    _check_flags(seccomp)
    return result


def _check_flags(seccomp: Seccomp) -> None:
    """Flags that the user asked for and the kernel lacks are an error; the default one has been there since 4.17."""
    for index, name in enumerate(seccomp.get("flags") or ()):
        if name not in supported_flags():
            raise ConfigError(
                f"seccomp flag '{name}' is not supported by this kernel",
                path=f"$.linux.seccomp.flags[{index}]",
            )


class _Builder:
    __slots__ = ("cache_root", "starts")

    def __init__(self, cache_root: str, starts: bool) -> None:
        self.cache_root = cache_root
        self.starts = starts

    def build(self, profile: Profile) -> bytes:
        if not self.cache_root:
            return _build(profile, self.starts)
        key = _key(profile, self.starts)
        directory = _open_cache(self.cache_root)
        try:
            program = _load(directory, key) if directory >= 0 else None
            if program is None:
                program = _build(profile, self.starts)
                _store(self.cache_root, directory, key, program)
            return program
        finally:
            if directory >= 0:
                os.close(directory)


def _build(profile: Profile, starts: bool) -> bytes:
    answer, where, parts = kernel_seccomp.compile_profile(profile.description)
    if answer < 0:
        raise seccomp_profile.refusal(profile, -answer, where)
    program = seccomp_profile.join(parts, profile.soften)
    if starts:
        # Filters from the cache have passed this check before.
        seccomp_profile.check_execve(kernel_seccomp.answer_to_execve(program))
    return program


# --- cache ------------------------------------------------------------------------------------------------------------


def _digest(content: bytes) -> str:
    # hashlib would load OpenSSL: 5 ms.
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]
    except ImportError:
        from _sha2 import sha256  # type: ignore[import-not-found]  # since Python 3.12
    result: str = sha256(content).hexdigest()
    return result


def _key(profile: Profile, starts: bool) -> str:
    system = os.uname()
    versions = f"{__version__}\0{system.release}\0{system.version}\0{system.machine}\0{profile.soften:d}{starts:d}\0"
    return _digest(versions.encode() + profile.description)


def _open_cache(root: str) -> int:
    """Open the cache directory; return -1 unless it is ours and writable by nobody else."""
    try:
        fd = os.open(f"{root}/{CACHE_NAME}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return -1
    if _is_ours(fd):
        return fd
    os.close(fd)
    return -1


def _is_ours(fd: int) -> bool:
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and status.st_mode & 0o077 == 0


def _load(directory: int, key: str) -> bytes | None:
    try:
        fd = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
        try:
            content = os.read(fd, _LARGEST_ENTRY) if _is_ours(fd) else b""
        finally:
            os.close(fd)
        head, _, program = content.partition(b"\n")
        fields = head.split(b" ", 3)
        if len(fields) != 4 or fields[0] != _MAGIC or fields[1] != _digest(program).encode():
            return None
        return program if fields[2] == _identity(os.fsdecode(fields[3])) else None
    except OSError:
        return None


def _identity(path: str) -> bytes:
    """Return what changes if a library is replaced by another build."""
    status = os.stat(path)
    return b"%d:%d:%d:%d" % (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _store(root: str, directory: int, key: str, program: bytes) -> None:
    made = -1
    try:
        if directory < 0:
            os.mkdir(f"{root}/{CACHE_NAME}", 0o700)
            directory = made = _open_cache(root)
            if made < 0:
                return
        path = kernel_seccomp.library()
        head = b" ".join((_MAGIC, _digest(program).encode(), _identity(path), os.fsencode(path)))
        _make_room(directory)
        _write(directory, key, head + b"\n" + program)
    except (OSError, KernelError):
        pass  # the filter itself is complete; the next create compiles it again
    finally:
        if made >= 0:
            os.close(made)


def _write(directory: int, name: str, content: bytes) -> None:
    temporary = f".{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        try:
            written = os.write(fd, content)
        finally:
            os.close(fd)
        if written != len(content):
            raise OSError(errno.ENOSPC, "short write")
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(temporary, dir_fd=directory)
        raise


def _make_room(directory: int) -> None:
    """Remove the older half if there are too many entries, with the left-overs of killed processes."""
    names = os.listdir(directory)
    if len(names) < _CACHE_LIMIT:
        return
    ages = sorted(
        (os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name) for name in names
    )
    for _, name in ages[: len(ages) // 2]:
        os.unlink(name, dir_fd=directory)


# --- what exists here -------------------------------------------------------------------------------------------------


class Supported:
    """What `features` shows. Lists are in the specification's order; `version` is "2.5.4", "" without the library."""

    __slots__ = ("actions", "archs", "enabled", "known_flags", "operators", "supported_flags", "version")

    def __init__(self) -> None:
        self.version = kernel_seccomp.version()
        self.actions = [
            name for name, value in seccomp_profile.ACTIONS.items() if kernel_seccomp.has_action(value)
        ]
        self.operators = list(seccomp_profile.OPERATORS)
        self.archs = [arch for arch in seccomp_profile.ARCHITECTURES if self.version and _knows_arch(arch)]
        self.known_flags = list(seccomp_profile.FLAGS)
        self.supported_flags = supported_flags()
        self.enabled = bool(self.version and self.actions)


def supported() -> Supported:
    """Ask libseccomp and the kernel: actions, operators, architectures, flags. seccomp(2) SECCOMP_GET_ACTION_AVAIL."""
    return Supported()


def supported_flags() -> list[str]:
    """The names of the filter flags that the kernel takes."""
    listener = seccomp_profile.FLAG_NEW_LISTENER
    return [
        name
        for name, value in seccomp_profile.FLAGS.items()
        # WAIT_KILLABLE_RECV is valid only together with a listener; TSYNC (0) has no effect here and always works.
        if kernel_seccomp.has_flags(value | listener if name.endswith("_RECV") else value)
    ]


def _knows_arch(name: str) -> bool:
    return kernel_seccomp.knows_arch(seccomp_profile.library_arch(name))
