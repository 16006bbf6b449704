"""Write the id maps of init's user namespace: directly, or through newuidmap and newgidmap. user_namespaces(7)."""

from __future__ import annotations

import os
import select
import time

from pyrunc.errors import KernelError, PyruncError
from pyrunc.kernel import process as kernel_process
from pyrunc.launch import ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Map = Sequence[tuple[int, int, int]]

_HELPER_SECONDS = 10
_KEPT_OUTPUT = 4096
_HELPER_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")


def _write(pid: int, name: str, text: str) -> None:
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        json_path = {"uid_map": "$.linux.uidMappings", "gid_map": "$.linux.gidMappings"}.get(name)
        hint = (
            "the host ids of a row must lie in one row of the runtime's own map, and rows must not overlap"
            if json_path
            else None
        )
        raise KernelError(
            "write", error.errno or 0, f"/proc/{pid}/{name}", path=json_path, hint=hint
        ) from error


def _lines(rows: Map) -> str:
    return "".join([f"{inside} {outside} {size}\n" for inside, outside, size in rows])


def _only_own(rows: Map, own: int) -> bool:
    return len(rows) == 1 and rows[0][1] == own and rows[0][2] == 1


def _listen(pidfd: int, stdout: int) -> tuple[bytes, bool]:
    """Read a helper's output until it ends, but not that of its children. Return (output, whether it was in time)."""
    said = b""
    os.set_blocking(stdout, False)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(stdout, select.POLLIN)
    deadline = time.monotonic() + _HELPER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        events = dict(poller.poll(left * 1000))
        if stdout in events:
            try:
                piece = os.read(stdout, 4096)
            except BlockingIOError:
                continue
            said = (said + piece)[-_KEPT_OUTPUT:]
            if not piece:
                poller.unregister(stdout)
        elif pidfd in events:
            return said, True
    return said, False


def _helper(name: str, pid: int, rows: Map, json_path: str) -> None:
    places = [*_HELPER_DIRECTORIES, *os.environ.get("PATH", "").split(":")]
    program = next(
        (f"{place}/{name}" for place in places if place and os.access(f"{place}/{name}", os.X_OK)), ""
    )
    if not program:
        raise PyruncError(
            f"{name} not found: mapping ids other than your own needs it",
            path=json_path,
            hint="install the package uidmap (shadow-utils)",
        )
    argv = [name, str(pid), *[str(number) for row in rows for number in row]]
    read, write = os.pipe()
    try:
        child, pidfd = kernel_process.spawn(
            [item.encode() for item in argv], [], path=program, stdio=(-1, write, write)
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    try:
        said, in_time = _listen(pidfd, read)
        # Timeout: it runs as root, but we are its real user, so we may kill it. kill(2)
        status = os.waitpid(child, 0)[1] if in_time else ending.end(child, pidfd)
    finally:
        os.close(read)
        os.close(pidfd)
    if not in_time:
        raise PyruncError(f"{name} did not end within {_HELPER_SECONDS} s", path=json_path)
    if status:
        raise PyruncError(
            f"{name} failed: {said.decode('utf-8', 'replace').strip()}",
            path=json_path,
            hint="the ranges must be yours in /etc/subuid and /etc/subgid",
        )


def write(pid: int, uids: Map, gids: Map) -> None:
    """Map the user namespace of `pid`; rows are (containerID, hostID, size). Raise KernelError or PyruncError."""
    if os.geteuid() == 0:
        _write(pid, "uid_map", _lines(uids))
        _write(pid, "gid_map", _lines(gids))
        return
    if _only_own(uids, os.geteuid()):
        _write(pid, "uid_map", _lines(uids))
    else:
        _helper("newuidmap", pid, uids, "$.linux.uidMappings")
    if _only_own(gids, os.getegid()):
        # Without privileges the kernel accepts a gid_map only if setgroups is denied (CVE-2014-8989).
        _write(pid, "setgroups", "deny")
        _write(pid, "gid_map", _lines(gids))
    else:
        _helper("newgidmap", pid, gids, "$.linux.gidMappings")
