"""The typed face of the cffi shim and of python-prctl: the one seam between Python and the kernel.

Only launch, cgroups, console, state, hooks, seccomp and network import this; it imports errors alone. The shim is
loaded on import, python-prctl inside the one function that needs it. Every function raises KernelError, a Bus BusError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from pyrunc import __version__
from pyrunc._shim import ffi, lib
from pyrunc.errors import BusError, InternalError, KernelError, StateError, strerror
from pyrunc.kernel.view import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

if (_built := ffi.string(lib.shim_version()).decode()) != __version__:
    raise InternalError(f"the shim is of version {_built}, pyrunc of {__version__}")

CGROUP2_SUPER_MAGIC = 0x63677270
CGROUP_SUPER_MAGIC = 0x27E0EB
RDTGROUP_SUPER_MAGIC = 0x7655821

# struct pidfd_info in its first size: mask in the first 8 bytes, exit_code in the last 4. linux/pidfd.h
_PIDFD_INFO_SIZE = 64
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_SIZE << 16 | 0xFF << 8 | 11
_CLONE_NEWNS = 0x20000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_AT_RECURSIVE = 0x8000
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_FDCWD = -100
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 1, 2, 0x10
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL SHRINK GROW WRITE
_SIZE_SEALS = 0x1 | 0x2 | 0x4  # SEAL SHRINK GROW
_SPAWN_STEPS = ("clone3", "chdir", "dup2", "execve", "mount")


def _check(answer: int, syscall: str, arg: str | None = None) -> int:
    if answer < 0:
        raise KernelError(syscall, -answer, arg)
    return answer


def snapshot(fd: int, watched: Sequence[str]) -> tuple[list[str], dict[bytes, bytes], list[str]] | None:
    """Write the memory of this process to `fd`: csrc/command/snapshot.h. `watched` are the paths it also depends on.

    None in this process; in each that comes out of the snapshot (its argv, its environment, what boot.py is told).
    """
    arrival = ffi.new("struct snapshot_arrival *")
    paths = b"".join([os.fsencode(path) + b"\0" for path in watched])
    if not _check(lib.snapshot_write(fd, paths, len(paths), arrival), "snapshot"):
        return None
    argv = [os.fsdecode(ffi.string(arrival.argv[i])) for i in range(arrival.argc)]
    told = [os.fsdecode(ffi.string(arrival.told[i])) for i in range(arrival.told_count)]
    environment: dict[bytes, bytes] = {}
    at = 0
    while arrival.envp[at] != ffi.NULL:
        name, equals, value = ffi.string(arrival.envp[at]).partition(b"=")
        if equals:
            environment.setdefault(name, value)
        at += 1
    return argv, environment, told


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
    bound: tuple[str, str] | None = None,
) -> tuple[int, int]:
    """Start a program and return (pid, pidfd) once it has exec'd; the child never runs Python.

    The program is `exe_fd` (a memfd) or `path`; `stdio` entries of -1 are inherited; `keep` are the descriptors that
    survive exec; `clone_flags` are CLONE_NEW* bits; `cgroup_fd` a cgroup v2 directory to start in. `bound`: in a mount
    namespace of its own, the first path with all that is mounted below it shows on the second. clone3(2).
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
    request.clone_flags = clone_flags | (_CLONE_NEWNS if bound else 0)
    if bound:
        bound_bytes = [ffi.new("char[]", os.fsencode(item)) for item in bound]
        request.bound, request.bound_on = bound_bytes
    request.cgroup_fd = cgroup_fd
    request.new_session = 1 if new_session else 0
    pid = lib.shim_spawn(request)
    if pid < 0:
        step = _SPAWN_STEPS[request.failed_step]
        names = {"chdir": cwd, "execve": path or None, "mount": bound[0] if bound else None}
        raise KernelError(step, -pid, names.get(step))
    return pid, request.pidfd


def sealed_memfd(name: str, content: bytes) -> int:
    """A close-on-exec memfd with `content` that nobody can change any more. memfd_create(2), fcntl(2) F_ADD_SEALS."""
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    call = "memfd_create"
    fd = -1
    try:
        try:
            fd = os.memfd_create(name, flags | _MFD_EXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 6.3
                raise
            fd = os.memfd_create(name, flags)
        call = "write"
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        call = "fcntl"
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise KernelError(call, error.errno or 0, name) from error
    return fd


def shared_memfd(name: str, size: int) -> int:
    """A close-on-exec memfd of `size` zeros that can be written but keeps its size. memfd_create(2)."""
    try:
        fd = os.memfd_create(name, _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
    except OSError as error:
        raise KernelError("memfd_create", error.errno or 0, name) from error
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SIZE_SEALS)
    except OSError as error:
        os.close(fd)
        raise KernelError("ftruncate", error.errno or 0, name) from error
    return fd


def open_tree(path: str, *, recursive: bool, nofollow: bool = False) -> int:
    """A detached clone of the mount at `path` (with all below it when recursive). open_tree(2).

    With `nofollow` a symbolic link at the end of the path is cloned itself.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    flags |= _AT_SYMLINK_NOFOLLOW if nofollow else 0
    return _check(lib.shim_open_tree(_AT_FDCWD, os.fsencode(path), flags), "open_tree", path)


def _check_words(answer: int, words: object) -> int:
    if answer >= 0:
        return answer
    call = ffi.string(words.call).decode()  # type: ignore[attr-defined]
    text = os.fsdecode(ffi.string(words.text)).strip()  # type: ignore[attr-defined]
    raise KernelError(call, -answer, text or None)


def filesystem(kind: str, source: str, parameters: Sequence[str]) -> int:
    """A detached mount of a new file system of type `kind`. fsopen(2), fsconfig(2), fsmount(2)."""
    words = ffi.new("struct shim_words *")
    array, _held = _c_strings(parameters)
    array = ffi.cast("char const * const *", array)
    return _check_words(lib.shim_filesystem(os.fsencode(kind), os.fsencode(source), array, words), words)


def tree_propagation(tree: int, flags: int, *, recursive: bool) -> None:
    """Set MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE of a detached mount. mount_setattr(2)."""
    _check(lib.shim_tree_setattr(tree, flags, -1, 1 if recursive else 0), "mount_setattr", "propagation")


def idmap_tree(tree: int, userns: int, *, recursive: bool) -> None:
    """Map the owners of a detached mount through a user namespace. mount_setattr(2) MOUNT_ATTR_IDMAP."""
    _check(lib.shim_tree_setattr(tree, 0, userns, int(recursive)), "mount_setattr", "MOUNT_ATTR_IDMAP")


def user_namespace(uid_map: str, gid_map: str) -> int:
    """A descriptor of a new user namespace that nobody is in; the texts are /proc/PID/uid_map's and gid_map's.

    When a map is refused, the error's call is that file's name.
    """
    words = ffi.new("struct shim_words *")
    return _check_words(lib.shim_user_namespace(uid_map.encode(), gid_map.encode(), words), words)


def fs_type(path: str) -> int:
    """The magic number of the file system at `path`, 0 when there is no such path. statfs(2)."""
    answer: int = lib.shim_fs_type(os.fsencode(path))
    return max(answer, 0)


def pidfd_exit_code(pidfd: int) -> int | None:
    """The wait status of a process that has ended and was collected, by anybody; None before. ioctl_pidfd(2).

    Raises KernelError: ENOTTY or EINVAL before Linux 6.13; up to 6.14 the answer is EINVAL, too.
    """
    info = bytearray(_PIDFD_INFO_SIZE)
    info[:8] = _PIDFD_INFO_EXIT.to_bytes(8, sys.byteorder)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except ProcessLookupError:
        # Collected: a kernel that keeps the status would have told it.
        raise KernelError("ioctl", errno.EINVAL, "PIDFD_GET_INFO") from None
    except OSError as error:
        raise KernelError("ioctl", error.errno or 0, "PIDFD_GET_INFO") from error
    if not int.from_bytes(info[:8], sys.byteorder) & _PIDFD_INFO_EXIT:
        return None
    return int.from_bytes(info[-4:], sys.byteorder)


def netlink_in(netns: int) -> int:
    """A route netlink socket of the network namespace of the descriptor; we stay in ours. rtnetlink(7)."""
    return _check(lib.shim_netlink_in(netns), "setns", "the container's network namespace")


def signal_fd(numbers: Iterable[int]) -> int:
    """A descriptor from which the signals of these numbers are read, which the caller has blocked. signalfd(2)."""
    return _check(lib.shim_signal_fd(sum(1 << number - 1 for number in numbers)), "signalfd4")


def set_subreaper(on: bool) -> None:
    """Let orphans of our children become ours, so that attached run and exec can wait for them. prctl(2)."""
    import prctl  # 1 ms that only the attached commands pay

    try:
        prctl.set_child_subreaper(1 if on else 0)
    except OSError as error:
        raise KernelError("prctl", error.errno or 0, "PR_SET_CHILD_SUBREAPER") from error


# --- seccomp: libseccomp behind csrc/shim/seccomp_filter.c ------------------------------------------------------------

_SECCOMP_SPACE = 1 << 18  # bytes for the programs of all architectures; the kernel takes 32 kB in the end


def seccomp_compile(
    description: bytes,
) -> tuple[int, tuple[int, int, int, int], list[tuple[int, int, bytes]]]:
    """libseccomp's programs for a description (csrc/shim/seccomp_filter.h): (answer, where, parts).

    `answer` is negative (-errno) on failure, then `where` is (step, arch, rule, name); a part is (SCMP_ARCH_* token,
    largest system call number named, struct sock_filter[]). The caller knows the names, so it words the error.
    """
    space = ffi.new("uint8_t[]", _SECCOMP_SPACE)
    result = ffi.new("struct shim_seccomp_result *")
    answer = lib.shim_seccomp_compile(
        ffi.from_buffer(description), len(description), space, _SECCOMP_SPACE, result
    )
    parts = []
    offset = 0
    for index in range(result.part_count):
        part = result.parts[index]
        parts.append((part.arch, part.last, bytes(ffi.buffer(space + offset, part.length))))
        offset += part.length
    return answer, (result.step, result.arch, result.rule, result.name), parts


def seccomp_own_calls(bpf: bytes, own: int) -> bytes:
    """The instructions to put before a filter that refuses init's own calls behind it; b"" when it does not."""
    space = ffi.new("uint8_t[]", 1024)
    size = _check(lib.shim_seccomp_own_calls(ffi.from_buffer(bpf), len(bpf), own, space, 1024), "seccomp")
    return bytes(ffi.buffer(space, size))


def sched_setattr(pid: int, attributes: bytes) -> None:
    """Give a process a struct sched_attr. sched_setattr(2)."""
    _check(lib.shim_sched_setattr(pid, ffi.from_buffer(attributes)), "sched_setattr")


def seccomp_version() -> str:
    """libseccomp's version, "" when it cannot be loaded."""
    version = lib.shim_seccomp_version()
    return "" if version < 0 else f"{version >> 16}.{version >> 8 & 0xFF}.{version & 0xFF}"


def seccomp_library() -> str:
    """The file libseccomp was loaded from. dladdr(3)."""
    name = ffi.new("char[]", 4096)
    _check(lib.shim_seccomp_library(name, 4096), "dlopen", "libseccomp.so.2")
    return os.fsdecode(ffi.string(name))


def seccomp_knows_arch(name: str) -> bool:
    """Whether libseccomp knows an architecture by this name of its own ("x86_64")."""
    answer: int = lib.shim_seccomp_knows_arch(name.encode())
    return answer > 0


def seccomp_has_action(action: int) -> bool:
    """Whether the kernel has a SECCOMP_RET_* action. seccomp(2) SECCOMP_GET_ACTION_AVAIL."""
    answer: int = lib.shim_seccomp_has_action(action)
    return answer > 0


def seccomp_has_flags(flags: int) -> bool:
    """Whether the kernel takes these SECCOMP_FILTER_FLAG_* together. seccomp(2)."""
    answer: int = lib.shim_seccomp_has_flags(flags)
    return answer > 0


def bpf_device_attach(cgroup: int, program: bytes, path: str) -> None:
    """Attach struct bpf_insn[] to a cgroup v2 directory in place of what was there; `path` is the rules' JSON path."""
    log = ffi.new("char[]", 4096)
    answer = lib.bpf_device_attach(cgroup, ffi.from_buffer(program), len(program), log, 4096)
    if answer < 0:
        words = ffi.string(log).decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise KernelError("bpf", -answer, "BPF_CGROUP_DEVICE", path=path, hint=words or None)


def bpf_device_count(cgroup: int) -> int:
    """How many device programs a cgroup v2 directory has of its own. bpf(2) BPF_PROG_QUERY."""
    return _check(lib.bpf_device_count(cgroup), "bpf", "BPF_PROG_QUERY")


# --- Service managers: libsystemd's sd-bus behind csrc/shim/sdbus.c ---------------------------------------------------


def _check_bus(answer: int, what: str, seconds: float) -> None:
    if answer >= 0:
        return
    if answer in (-errno.ELIBACC, -errno.ELIBBAD):
        problem = "cannot be loaded" if answer == -errno.ELIBACC else "is too old"
        raise BusError(f"libsystemd.so.0 {problem}", hint="install libsystemd (Debian: libsystemd0)")
    if answer == -errno.ETIMEDOUT:
        raise BusError(
            f"{what}: no answer within {seconds:g} s", hint="the bus or the service manager hangs"
        )
    raise BusError(f"{what}: {strerror(-answer)}")


class Bus:
    """A connection to a bus, or to a service manager itself when `is_bus` is False. All raise BusError.

    Every wait ends: `seconds` is the time for connecting, for one call, for one job.
    """

    __slots__ = ("_bus", "_to_systemd")

    def __init__(self, address: str, *, is_bus: bool, seconds: float) -> None:
        made = ffi.new("struct shim_bus **")
        answer = lib.shim_bus_open(os.fsencode(address), 1 if is_bus else 0, int(seconds * 1e6), made)
        _check_bus(answer, f"connect to '{address}'", seconds)
        self._bus = ffi.gc(made[0], lib.shim_bus_close)
        self._to_systemd = ffi.new("char[]", b"org.freedesktop.systemd1") if is_bus else ffi.NULL

    def call(
        self,
        path: str,
        interface: str,
        member: str,
        body: bytes,
        *,
        seconds: float,
        bus_itself: bool = False,
    ) -> str:
        """Ask systemd, or the bus itself; the first value of the answer when it is a text, else "".

        `body` is described in csrc/shim/sdbus.h. With 0 seconds nobody waits for an answer.
        """
        request = ffi.new("struct shim_bus_call *")
        texts = [ffi.new("char[]", text.encode()) for text in (path, interface, member)]
        owner = ffi.new("char[]", b"org.freedesktop.DBus")
        request.destination = owner if bus_itself else self._to_systemd
        request.path, request.interface, request.member = texts
        content = ffi.from_buffer(body)
        request.body, request.size = ffi.cast("uint8_t *", content), len(body)
        request.timeout_us = int(seconds * 1e6)
        answer = ffi.new("struct shim_bus_answer *")
        result = lib.shim_bus_call(self._bus, request, answer)
        if name := ffi.string(answer.error).decode("utf-8", "replace"):
            words = ffi.string(answer.text).decode("utf-8", "replace").rstrip(".")
            raise BusError(f"systemd refuses {member}: {words}", name=name)
        _check_bus(result, f"systemd's {member}", seconds)
        return ffi.string(answer.value).decode("utf-8", "surrogateescape")  # type: ignore[no-any-return]

    def job(self, job: str, *, seconds: float) -> str:
        """Wait for a systemd job's end: "done", "failed", "canceled", "timeout", "dependency", "skipped"."""
        result = ffi.new("char[]", 64)
        _check_bus(
            lib.shim_bus_job(self._bus, job.encode(), int(seconds * 1e6), result, 64),
            "systemd's job",
            seconds,
        )
        return ffi.string(result).decode("utf-8", "replace")  # type: ignore[no-any-return]


# enum container_result, enum container_flag of csrc/container/container.h
_CONTAINER_OK, _CONTAINER_NOT_FOUND, _CONTAINER_KERNEL, _CONTAINER_START_FAILED = 0, 1, 4, 6
_FORCE, _ALL, _NEEDS_HANDLED, _KEEP = 1, 2, 4, 8
# The largest state file that its readers take.
STATE_MAX: int = lib.CONTAINER_STATE_MAX
_FREEZE_MS = 10_000
_REMOVE_MS = 10_000


def _c_strings(texts: Sequence[str]) -> tuple[object, object]:
    """A char *[] and what must live as long as it does."""
    held = [ffi.new("char[]", os.fsencode(text)) for text in texts]
    return ffi.new("char *[]", [*held, ffi.NULL]), held


def _check_container(answer: int, error: object) -> None:
    """Raise what a function of csrc/container/container.h answered with, in its words."""
    if answer == _CONTAINER_OK:
        return
    text = ffi.string(error.text).decode("utf-8", "replace")  # type: ignore[attr-defined]
    hint = ffi.string(error.hint).decode("utf-8", "replace") or None  # type: ignore[attr-defined]
    if answer == _CONTAINER_KERNEL:
        call, arg = ffi.string(error.call).decode(), os.fsdecode(ffi.string(error.arg))  # type: ignore[attr-defined]
        raise KernelError(call, error.error, arg or None, hint=hint)  # type: ignore[attr-defined]
    raise StateError(text, hint=hint)


def _on_cgroups(function: object, paths: Sequence[tuple[str, str]], *more: object) -> None:
    array, _held = _c_strings([f"{controller}:{path}" for controller, path in paths])
    error = ffi.new("struct container_error *")
    _check_container(function(array, len(paths), *more, error), error)  # type: ignore[operator]


def cgroup_frozen(paths: Sequence[tuple[str, str]]) -> bool:
    """Whether (controller, directory) are frozen, by themselves or through a parent. Raises KernelError."""
    frozen = ffi.new("int *")
    _on_cgroups(lib.cgroup_frozen, paths, frozen)
    return bool(frozen[0])


def cgroup_freeze(paths: Sequence[tuple[str, str]]) -> None:
    """Freeze and wait until all have stopped. Raises StateError, thawed again, when that takes 10 s."""
    _on_cgroups(lib.cgroup_freeze, paths, _FREEZE_MS)


def cgroup_thaw(paths: Sequence[tuple[str, str]]) -> None:
    """The opposite of cgroup_freeze."""
    _on_cgroups(lib.cgroup_thaw, paths)


def cgroup_kill(paths: Sequence[tuple[str, str]], signal: int = 9) -> int:
    """Signal every process in and below (controller, directory); how many there were."""
    found = ffi.new("size_t *")
    _on_cgroups(lib.cgroup_signal, paths, signal, found)
    return int(found[0])


def cgroup_remove(paths: Sequence[tuple[str, str]], made: Sequence[str]) -> None:
    """Remove the directories; those in `made` with all below them, and the parents in it that are empty."""
    own, _kept = _c_strings(made)
    _on_cgroups(lib.cgroup_remove, paths, own, len(made), _REMOVE_MS)


def check_root(root: str) -> bool:
    """Whether the directory of states is there. Raises StateError when others could change what is, KernelError."""
    error = ffi.new("struct container_error *")
    answer = lib.container_check_root(os.fsencode(root), error)
    if answer == _CONTAINER_NOT_FOUND:
        return False
    _check_container(answer, error)
    return True


def is_our_file(fd: int) -> bool:
    """Whether it is a regular file of our user or root, of one name, that nobody else may write. Raises KernelError."""
    return bool(_check(lib.container_is_our_file(fd), "fstat"))


def container_state(root: str, container_id: str) -> Container:
    """What is known of a container. Raises StateError when there is none, KernelError."""
    view = ffi.new("struct container_view *")
    error = ffi.new("struct container_error *")
    _check_container(lib.container_state(os.fsencode(root), os.fsencode(container_id), view, error), error)
    try:
        return Container(
            ffi.string(lib.container_status_name(view.status)).decode(),
            view.pid,
            view.start_time,
            os.fsdecode(ffi.string(view.header)),
            bytes(ffi.buffer(view.document, view.document_size)),
        )
    finally:
        lib.container_view_free(view)


def container_start(root: str, container_id: str) -> bytes:
    """Let the waiting program run. Returns b"" when it does, else init's struct sync_message (csrc/plan.h).

    Raises StateError when the container is not in the state created, KernelError.
    """
    error = ffi.new("struct container_error *")
    answer = lib.container_start(os.fsencode(root), os.fsencode(container_id), _NEEDS_HANDLED, error)
    if answer == _CONTAINER_START_FAILED:
        return bytes(ffi.buffer(error.record))
    _check_container(answer, error)
    return b""


def container_kill(root: str, container_id: str, signal: int, *, all_processes: bool = False) -> None:
    """Signal init, or every process of the cgroup. Raises StateError when the container does not run, KernelError."""
    flags = _NEEDS_HANDLED | (_ALL if all_processes else 0)
    error = ffi.new("struct container_error *")
    answer = lib.container_kill(os.fsencode(root), os.fsencode(container_id), signal, flags, error)
    _check_container(answer, error)


def container_delete(
    root: str,
    container_id: str,
    *,
    force: bool = False,
    keep: bool = False,
    only: tuple[int, int] = (0, 0),
) -> None:
    """Remove a container that has stopped or waits for start; `force`: any, and none at all is no error.

    `keep` leaves its state directory to the caller. `only`: the container of that pid and start time, no other one that
    has its name by now. Raises StateError, KernelError.
    """
    flags = _NEEDS_HANDLED | (_FORCE if force else 0) | (_KEEP if keep else 0)
    error = ffi.new("struct container_error *")
    answer = lib.container_delete_own(os.fsencode(root), os.fsencode(container_id), *only, flags, error)
    _check_container(answer, error)


def process_open(pid: int, start_time: int) -> int:
    """A pidfd of the process of that pid and start time, -1 when it is gone or dead.

    Raises KernelError, StateError when that cannot be known.
    """
    error = ffi.new("struct container_error *")
    pidfd = ffi.new("int *")
    _check_container(lib.process_open(pid, start_time, pidfd, error), error)
    return int(pidfd[0])


def process_start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat, which together with the pid names a process for good; 0 when it is gone.

    Raises KernelError.
    """
    error = ffi.new("struct container_error *")
    started = ffi.new("uint64_t *")
    _check_container(lib.process_start_time(pid, started, error), error)
    return int(started[0])


def container_sum(text: bytes) -> str:
    """What the `sum` line of a state file says of the lines below it."""
    return f"{lib.container_sum(text, len(text)):016x}"


def strict() -> bool:
    """Whether the letter of the specification goes before the habits of engines. csrc/container/container.h."""
    return bool(lib.container_strict())
