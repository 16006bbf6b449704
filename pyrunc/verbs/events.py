"""events: a container's resource usage at intervals, and out-of-memory events. runc-events(8).

The document is made by cgroups/stats.py. All functions raise PyruncError.
"""

from __future__ import annotations

import errno
import os
import select
import time

from pyrunc.cgroups import files, stats
from pyrunc.errors import KernelError, StateError, UsageError, check_shortage
from pyrunc.host import proc
from pyrunc.kernel import container as kernel_container
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrunc.kernel.container import Container
    from pyrunc.requests import Context

DEFAULT_INTERVAL = "5s"
# time.ParseDuration, in nanoseconds
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_MOST = (1 << 63) - 1
_PREFIXES = ("blkio.", "cpu.", "cpuacct.", "cpuset.", "hugetlb.", "io.", "memory.", "pids.")
_MEMORY_NOISE = ("memory.force_empty", "memory.numa_stat", "memory.reclaim")


def duration(text: str) -> float:
    """The seconds of one of Go's durations, `1m30s`. Raise UsageError unless it is one, and greater than 0."""
    rest, total = text.removeprefix("+"), 0.0
    bad = UsageError(
        f'invalid value "{text}" for flag -interval: parse error', hint="such as 500ms or 1m30s"
    )
    while rest and rest != "0":
        digits = len(rest) - len(rest.lstrip("0123456789."))
        unit = rest[digits:]
        unit = unit[: len(unit) - len(unit.lstrip("abcdefghijklmnopqrstuvwxyz\u00b5\u03bc"))]
        try:
            total += float(rest[:digits]) * _UNITS[unit]
        except (KeyError, ValueError):
            if text.startswith("-"):
                break
            raise bad from None
        rest = rest[digits + len(unit) :]
    if not text or total > _MOST:
        raise bad
    if total <= 0:
        raise UsageError("duration interval must be greater than 0", hint="such as 500ms or 1m30s")
    return total / 10**9


def _running(ctx: Context, container_id: str) -> Container:
    found = lookup.load(ctx, container_id)
    if found.status == "stopped":
        raise StateError(f"container with id {container_id} is not running")
    return found


def _version(found: Container) -> int:
    return 1 if any(controller for controller, _ in found.cgroups) else 2


def _texts(found: Container) -> dict[str, str]:
    """Every cgroup file that counts something. On a host with both versions v1's: that is where the limits are."""
    version = _version(found)
    texts: dict[str, str] = {}
    for path in {path for controller, path in found.cgroups if version == 2 or controller}:
        try:
            names = os.listdir(path)
        except OSError as error:
            check_shortage("open", error, path)
            continue
        for name in names:
            if name.startswith(_PREFIXES) and name not in _MEMORY_NOISE:
                try:
                    texts[name] = files.read(f"{path}/{name}")
                except OSError as error:
                    check_shortage("open", error, f"{path}/{name}")
                    continue  # for writing only, or without an answer at this moment
        if version == 2 and "pids.current" not in texts:
            # Without the controller; processes in cgroups below are not its own.
            texts["pids.current"] = str(len(files.read_pids(path)))
    return texts


def _net_dev(pid: int) -> str:
    """The counters of the container's network devices; those of a shared namespace are not the container's."""
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return ""
    except OSError:
        return ""
    return proc.read_file(f"/proc/{pid}/net/dev")


def _look(found: Container) -> dict[str, object]:
    document = stats.document(_texts(found), _version(found), _net_dev(found.pid))
    if found.rdt:
        from pyrunc.host import resctrl

        document["intel_rdt"] = resctrl.stats(found.rdt)
    return document


def once(ctx: Context, container_id: str) -> dict[str, object]:
    """What the container uses now. Raise StateError if it is not running."""
    return _look(_running(ctx, container_id))


class _Memory:
    """The kernel's notification that a process was killed because there was no memory left.

    v1: an eventfd behind cgroup.event_control (memcg documentation, "OOM Control"); v2: memory.events can be polled.
    """

    __slots__ = ("_count", "_directory", "_version", "fd")

    def __init__(self, found: Container) -> None:
        self._version = _version(found)
        self.fd = -1
        self._count = 0
        self._directory = ""
        for controller, path in found.cgroups:
            if "memory" in controller.split(",") or self._version == 2:
                self._directory = path
        if not self._directory:
            return
        try:
            self.fd = self._watch_v2() if self._version == 2 else self._watch_v1()
        except OSError as error:
            if error.errno != errno.ENOENT:  # a host without the memory controller
                raise KernelError("open", error.errno or 0, self._directory) from error

    def _watch_v1(self) -> int:
        watched = os.open(f"{self._directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            files.write(f"{self._directory}/cgroup.event_control", f"{fd} {watched}")
        except OSError:
            os.close(fd)
            raise
        finally:
            os.close(watched)
        return fd

    def _watch_v2(self) -> int:
        fd = os.open(f"{self._directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._count = _oom_kills(fd)
        return fd

    def register(self, poller: select.poll) -> None:
        """Register with the poller."""
        if self.fd >= 0:
            poller.register(self.fd, select.POLLPRI if self._version == 2 else select.POLLIN)

    def happened(self) -> bool:
        """Return whether memory ran out since the last call."""
        if self.fd < 0:
            return False
        try:
            if self._version == 2:
                before, self._count = self._count, _oom_kills(self.fd)
                return self._count > before
            os.eventfd_read(self.fd)
        except OSError:
            return False
        # The removal of the cgroup is an event, too.
        return os.path.exists(f"{self._directory}/cgroup.event_control")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def _oom_kills(fd: int) -> int:
    for line in os.pread(fd, 4096, 0).split(b"\n"):
        if line.startswith(b"oom_kill "):
            return int(line[9:])
    return 0


def follow(
    ctx: Context, container_id: str, interval: float, reader: int = -1
) -> Iterator[dict[str, object]]:
    """Every `interval` seconds a stats event and, when it happens, an oom event, until the container ends.

    An event is {"type", "id", "data"}, oom without data. `reader`: a descriptor whose other end may be closed, which
    ends it, too. Raise StateError if the container is not running, KernelError.
    """
    found = _running(ctx, container_id)
    pidfd = kernel_container.process_open(found.pid, found.start_time)
    if pidfd < 0:
        raise StateError(f"container with id {container_id} is not running")
    memory = None
    try:
        memory = _Memory(found)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        memory.register(poller)
        if reader >= 0:
            poller.register(reader, 0)
        due = time.monotonic() + interval
        while True:
            # The kernel takes no more at once than 31 bits of milliseconds.
            left = min(max(0.0, due - time.monotonic()), 86400.0)
            ready = {fd for fd, _ in poller.poll(int(left * 1000) + 1)}
            if memory.happened():
                yield {"type": "oom", "id": container_id}
            if pidfd in ready or reader in ready:
                return
            if time.monotonic() >= due:
                due += interval * max(1, (time.monotonic() - due) // interval + 1)
                yield {"type": "stats", "id": container_id, "data": _look(found)}
    finally:
        os.close(pidfd)
        if memory is not None:
            memory.close()
