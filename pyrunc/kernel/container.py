"""Containers in the state directory and their cgroups, as csrc/container/ finds and changes them."""

from __future__ import annotations

import os

from pyrunc._shim import ffi, lib
from pyrunc.errors import KernelError, StateError
from pyrunc.kernel.shim import c_strings, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CONTAINER_OK, _CONTAINER_NOT_FOUND = lib.CONTAINER_OK, lib.CONTAINER_NOT_FOUND
_CONTAINER_KERNEL, _CONTAINER_START_FAILED = lib.CONTAINER_KERNEL, lib.CONTAINER_START_FAILED
_FORCE, _ALL = lib.CONTAINER_FORCE, lib.CONTAINER_ALL
_NEEDS_HANDLED, _KEEP = lib.CONTAINER_NEEDS_HANDLED, lib.CONTAINER_KEEP
# The largest state file that its readers take.
STATE_MAX: int = lib.CONTAINER_STATE_MAX
# How long everybody waits for the lock of a container.
LOCK_SECONDS: float = lib.CONTAINER_LOCK_MS / 1000
_FREEZE_MS = 10_000
_REMOVE_MS = 10_000


def _check_container(answer: int, error: object) -> None:
    """Raise the error of a function of csrc/container/container.h, with its message."""
    if answer == _CONTAINER_OK:
        return
    text = os.fsdecode(ffi.string(error.text))  # type: ignore[attr-defined]
    hint = os.fsdecode(ffi.string(error.hint)) or None  # type: ignore[attr-defined]
    if answer == _CONTAINER_KERNEL:
        call, arg = ffi.string(error.call).decode(), os.fsdecode(ffi.string(error.arg))  # type: ignore[attr-defined]
        raise KernelError(call, error.error, arg or None, hint=hint)  # type: ignore[attr-defined]
    raise StateError(text, hint=hint)


def _on_cgroups(function: object, paths: Sequence[tuple[str, str]], *more: object) -> None:
    array, _held = c_strings([f"{controller}:{path}" for controller, path in paths])
    error = ffi.new("struct container_error *")
    _check_container(function(array, len(paths), *more, error), error)  # type: ignore[operator]


def cgroup_frozen(paths: Sequence[tuple[str, str]]) -> bool:
    """Return whether (controller, directory) are frozen, by themselves or through a parent. Raise KernelError."""
    frozen = ffi.new("int *")
    _on_cgroups(lib.cgroup_frozen, paths, frozen)
    return bool(frozen[0])


def cgroup_freeze(paths: Sequence[tuple[str, str]]) -> None:
    """Freeze and wait until all have stopped. After 10 s thaw again and raise StateError."""
    _on_cgroups(lib.cgroup_freeze, paths, _FREEZE_MS)


def cgroup_thaw(paths: Sequence[tuple[str, str]]) -> None:
    """Undo cgroup_freeze."""
    _on_cgroups(lib.cgroup_thaw, paths)


def cgroup_kill(paths: Sequence[tuple[str, str]], signal: int = 9) -> int:
    """Signal every process in and below (controller, directory). Return their number."""
    found = ffi.new("size_t *")
    _on_cgroups(lib.cgroup_signal, paths, signal, found)
    return int(found[0])


def cgroup_remove(paths: Sequence[tuple[str, str]], made: Sequence[str]) -> None:
    """Remove the directories: those in `made` with all below them, and its empty parents."""
    own, _kept = c_strings(made)
    _on_cgroups(lib.cgroup_remove, paths, own, len(made), _REMOVE_MS)


def check_root(root: str) -> bool:
    """Return whether the root directory exists. Raise StateError if others could change it, KernelError."""
    error = ffi.new("struct container_error *")
    answer = lib.container_check_root(os.fsencode(root), error)
    if answer == _CONTAINER_NOT_FOUND:
        return False
    _check_container(answer, error)
    return True


def is_our_file(fd: int) -> bool:
    """Return whether it is a regular file with one link, owned and writable only by us or root. Raise KernelError."""
    return bool(check(lib.container_is_our_file(fd), "fstat"))


def others_write(mode: int, group: int) -> bool:
    """Whether others may write to what has this mode and belongs to this group. An ACL shows in the group's bits."""
    return bool(lib.container_others_write(mode, group))


def state(root: str, container_id: str) -> Container:
    """Return what is known about a container. Raise StateError if it does not exist, KernelError."""
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


def start(root: str, container_id: str) -> bytes:
    """Let the waiting program run. Return b"" if it does, else init's struct sync_message (csrc/plan.h).

    Raise StateError if the container is not in the state created, KernelError.
    """
    error = ffi.new("struct container_error *")
    answer = lib.container_start(os.fsencode(root), os.fsencode(container_id), _NEEDS_HANDLED, error)
    if answer == _CONTAINER_START_FAILED:
        return bytes(ffi.buffer(error.record))
    _check_container(answer, error)
    return b""


def kill(root: str, container_id: str, signal: int, *, all_processes: bool = False) -> None:
    """Signal init, or every process of the cgroup. Raise StateError if the container does not run, KernelError."""
    flags = _NEEDS_HANDLED | (_ALL if all_processes else 0)
    error = ffi.new("struct container_error *")
    answer = lib.container_kill(os.fsencode(root), os.fsencode(container_id), signal, flags, error)
    _check_container(answer, error)


def delete(
    root: str,
    container_id: str,
    *,
    force: bool = False,
    keep: bool = False,
    only: tuple[int, int] = (0, 0),
) -> None:
    """Remove a container that is stopped or created; `force`: in any state, and it need not exist.

    `keep` leaves its state directory to the caller. `only`: the container of that pid and start time, not another one
    that has its name by now. Raise StateError, KernelError.
    """
    flags = _NEEDS_HANDLED | (_FORCE if force else 0) | (_KEEP if keep else 0)
    error = ffi.new("struct container_error *")
    answer = lib.container_delete_own(os.fsencode(root), os.fsencode(container_id), *only, flags, error)
    _check_container(answer, error)


def process_open(pid: int, start_time: int) -> int:
    """Return a pidfd of the process of that pid and start time, or -1 if it is gone or dead.

    Raise KernelError, StateError if that cannot be found out.
    """
    error = ffi.new("struct container_error *")
    pidfd = ffi.new("int *")
    _check_container(lib.process_open(pid, start_time, pidfd, error), error)
    return int(pidfd[0])


def process_start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat, which together with the pid names a process for good; 0 if it is gone.

    Raise KernelError.
    """
    error = ffi.new("struct container_error *")
    started = ffi.new("uint64_t *")
    _check_container(lib.process_start_time(pid, started, error), error)
    return int(started[0])


def checksum(text: bytes) -> str:
    """Return the checksum in the `sum` line of a state file, of the lines after it."""
    return f"{lib.container_sum(text, len(text)):016x}"


def strict() -> bool:
    """Return whether the specification is followed to the letter, and not engines. csrc/container/container.h."""
    return bool(lib.container_strict())


class Container:
    """The state of a container at one moment; csrc/container/container.h describes each field.

    `status` is creating, created, running, paused or stopped, `pid` 0 if stopped, `init_pid` what it was before,
    `cgroups` (controllers, directory) pairs, `unit` the container's systemd unit ("" if none), `rdt` host/resctrl.py's
    places, `document` the state as JSON text with pid and status filled in.
    """

    __slots__ = (
        "cgroups",
        "document",
        "init_pid",
        "made",
        "needs",
        "new_keyring",
        "pid",
        "pidns_private",
        "rdt",
        "start_time",
        "status",
        "unit",
    )

    def __init__(self, status: str, pid: int, start_time: int, header: str, document: bytes) -> None:
        self.status = status
        self.pid = pid
        self.init_pid = pid
        self.start_time = start_time
        self.document = document
        self.needs: list[str] = []
        self.pidns_private = True
        self.new_keyring = True
        self.cgroups: list[tuple[str, str]] = []
        self.made: list[str] = []
        self.unit = ""
        self.rdt: list[tuple[str, str]] = []
        for line in header.split("\n"):
            key, _, value = line.partition(" ")
            if key == "pid":
                self.init_pid = int(value)
            elif key == "needs":
                self.needs = value.split(",") if value else []
            elif key == "pidns":
                self.pidns_private = value == "private"
            elif key == "keyring":
                self.new_keyring = value == "new"
            elif key == "cgroup":
                controllers, _, path = value.partition(":")
                self.cgroups.append((controllers, path))
            elif key == "cgmade":
                self.made.append(value)
            elif key == "unit":
                self.unit = value
            elif key == "rdt":
                role, _, path = value.partition(":")
                self.rdt.append((role, path))

    @property
    def bundle(self) -> str:
        """Return the absolute path of the bundle."""
        from _json import scanstring

        text = self.document.decode("utf-8", "surrogateescape")
        mark = '\n  "bundle": "'
        at = text.find(mark)
        value: str = scanstring(text, at + len(mark))[0] if at >= 0 else ""
        return value
