"""What tests share: paths, running commands, processes, views of the host, what it lacks, and what was left behind.

Importable as `support` from every test (pyproject.toml: pythonpath); containers.py stands on it.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from typing import TYPE_CHECKING, TypeAlias

import pytest

import views
from machines import patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Spec: TypeAlias = "dict[str, Json]"

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BUILD = os.environ.get("PYRUNC_BUILD", os.path.join(PROJECT, "build/dev"))
# The commands under test are the installed ones, never the source tree's.
PYRUNC = os.path.join(sysconfig.get_path("scripts"), "pyrunc")
PACKAGE = os.path.join(sysconfig.get_path("platlib"), "pyrunc")
PYTHON = sys.executable
MUST_WORK = os.environ.get("PYRUNC_MUST_WORK") == "1"
TEST_USER = "pyrunc-test"
# Every container of this run starts with it, so that leaks can be told from other people's containers.
ID_PREFIX = f"t{os.getpid()}-"

# --- What the host lacks ----------------------------------------------------------------------------------------------


def needs(condition: bool, lack: str) -> None:
    """Skip the test unless `condition`; `lack` names what the host does not have.

    With PYRUNC_MUST_WORK=1 conftest.py turns a skip into a failure unless machines.py has its reason.
    """
    if not condition:
        pytest.skip(lack)


def needs_root() -> None:
    """Skip the test for ordinary users."""
    needs(os.geteuid() == 0, "root")


def needs_program(name: str) -> str:
    """Skip the test where `name` is not in PATH; return its path."""
    path = shutil.which(name)
    needs(path is not None, f"the program '{name}'")
    assert path is not None
    return path


def has_capability(number: int) -> bool:
    """Whether this process has the capability in its effective set."""
    with open("/proc/self/status", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False


# --- Views of the host ------------------------------------------------------------------------------------------------

# views.py has them, for those who run runtimes without pytest.
VIEWS = views.VIEWS
become_subreaper = views.become_subreaper
cgroup_mounts = views.cgroup_mounts
children = views.children
process_gone = views.process_gone


def cgroup_of(pid: int) -> dict[str, str]:
    """The path of a process in each hierarchy that is mounted here, by its controllers ("" is cgroup2).

    The kernel keeps a hierarchy of v1 for as long as a dying cgroup of it is remembered, mounted or not: net_cls
    is still in /proc/PID/cgroup after the view "v1-net" has gone.
    """
    mounted = {os.path.basename(mount) for mount in cgroup_mounts()}
    found: dict[str, str] = {}
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
        for line in stream:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if not controllers or controllers.removeprefix("name=") in mounted:
                found[controllers] = path
    return found


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """Each directory and the names below it, which may be changed. os.walk calls itself: others' trees may be deep."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        yield path, names
        waiting += [os.path.join(path, name) for name in names]


def find_cgroups(needle: str) -> list[str]:
    """All cgroup directories with `needle` in their path, deepest first."""
    found: list[str] = []
    for mount in cgroup_mounts():
        for directory, names in _walk(mount):
            found += [
                os.path.join(directory, name) for name in names if needle in os.path.join(directory, name)
            ]
    return sorted(found, key=len, reverse=True)


def cgroup_directories() -> set[str]:
    """All cgroup directories of the host, but those beside our own: who gave us ours goes on making some for others."""
    own = cgroup_of(os.getpid())
    found: set[str] = set()
    for mount in cgroup_mounts():
        name = os.path.basename(mount)
        mine = next((path for controllers, path in own.items() if name in controllers.split(",")), "/")
        beside = os.path.dirname(mount + mine) if mine != "/" else None
        for path, names in _walk(mount):
            found.add(path)
            if path == beside:
                names[:] = [one for one in names if one == os.path.basename(mine)]
    return found


# --- Running commands -------------------------------------------------------------------------------------------------


class Result:
    """What a command did: `status` (negative: the signal), `out` and `err` as text."""

    def __init__(self, argv: Sequence[str], status: int, out: str, err: str) -> None:
        self.argv = list(argv)
        self.status = status
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"<{self.argv} -> {self.status}, out {self.out!r}, err {self.err!r}>"

    def ok(self) -> Result:
        """Itself, having asserted that the command succeeded."""
        assert self.status == 0, self
        return self

    def fails(self, *texts: str, status: int = 1) -> Result:
        """Itself, having asserted the exit status and that stderr holds every one of `texts`."""
        assert self.status == status, self
        for text in texts:
            assert text in self.err, self
        return self

    def json(self) -> Json:
        """Standard output as one JSON document."""
        document: Json = json.loads(self.out)
        return document

    def facts(self) -> Facts:
        """Standard output as the probe's report."""
        return Facts(self.out)


class Facts:
    """The probe's report: lines of "key value"; a key may repeat."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pairs = [(key, value) for key, _, value in (line.partition(" ") for line in text.splitlines())]

    def __getitem__(self, key: str) -> str:
        values = self.all(key)
        assert len(values) == 1, f"{len(values)} times '{key}' in {self.text!r}"
        return values[0]

    def __contains__(self, key: str) -> bool:
        return any(name == key for name, _ in self.pairs)

    def all(self, key: str) -> list[str]:
        """Every value of `key`, in order."""
        return [value for name, value in self.pairs if name == key]

    def capabilities(self, kind: str) -> int:
        """One of the sets of `probe caps`, as a bit set."""
        return int(self[kind], 16)


def run(
    *argv: str,
    stdin: str = "",
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run a command to its end. cwd is "/" so that the source tree is never what Python imports."""
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=patience(timeout),
        env=None if env is None else dict(env),
        cwd=cwd,
        pass_fds=pass_fds,
        check=False,
    )
    return Result(argv, done.returncode, done.stdout, done.stderr)


def comes_true(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether `condition` holds within `timeout` seconds; comes back as soon as it does."""
    deadline = time.monotonic() + patience(timeout)
    while not (true := condition()) and time.monotonic() < deadline:
        select.select([], [], [], 0.002)
    return true


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
    """Come back once `condition` holds; fail with `what` when it does not within `timeout` seconds."""
    assert comes_true(condition, timeout), f"in vain waited {timeout} s for: {what}"


# --- Processes --------------------------------------------------------------------------------------------------------


def wait_for_exit(pid: int, timeout: float = 10) -> int:
    """Wait for a child and reap it; its exit code, or minus the signal."""
    pidfd = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([pidfd], [], [], patience(timeout))
        assert ready, f"process {pid} did not end within {timeout} s"
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def status_field(pid: int, name: str) -> str:
    """One field of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
        for line in stream:
            key, _, value = line.partition(":")
            if key == name:
                return value.strip()
    raise KeyError(name)


# --- Leaks ------------------------------------------------------------------------------------------------------------


def kill_children(known: Sequence[int]) -> list[str]:
    """End and reap every child of ours that is not in `known`; describe those that were still running."""
    found: list[str] = []
    left = {pid for pid in children() if pid not in known}
    for pid in sorted(left):
        # Whoever has given up its memory is on its way out: that may take long where processors are few.
        if not _command_line(pid):
            wait_until(functools.partial(_ends, pid, left), f"the end of process {pid}")
        if pid in left and not process_gone(pid):
            found.append(f"process {pid} {_command_line(pid)}")
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _reap(left), f"the end of the processes {left}")
    return found


def _ends(pid: int, pids: set[int]) -> bool:
    return pid not in _reap(pids)


def _reap(pids: set[int]) -> set[int]:
    """`pids` without those that have ended: all of them, as init ends only after the others in its namespace."""
    for pid in sorted(pids):
        if process_gone(pid):
            wait_for_exit(pid)
            pids.discard(pid)
    return pids


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def remove_cgroups(paths: Iterator[str] | Sequence[str]) -> None:
    """Kill what runs in these cgroups, made by us, and remove them; deepest first."""
    for path in paths:
        try:
            with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as stream:
                for word in stream.read().split():
                    os.kill(int(word), signal.SIGKILL)
            os.rmdir(path)
        except OSError as error:
            print(f"cannot remove {path}: {error}", file=sys.stderr)


def mounts_below(directory: str) -> list[str]:
    """Mount points at or below `directory`, last mounted first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        points = [line.split()[4] for line in stream]
    return [point for point in reversed(points) if point == directory or point.startswith(directory + "/")]


def make_scratch() -> str:
    """A directory that mapped root users can pass through, unlike pytest's own tmp_path."""
    path = tempfile.mkdtemp(prefix="pyrunc-test-")
    os.chmod(path, 0o711)
    return path


def remove_scratch(path: str) -> list[str]:
    """Remove it; the mounts that were left below it."""
    left = mounts_below(path)
    for point in left:
        run("umount", "-l", point)
    shutil.rmtree(path, ignore_errors=True)
    return left


# --- Seccomp ----------------------------------------------------------------------------------------------------------

_NOTIF_RECV = 0xC0502100
_NOTIF_SEND = 0xC0182101
_NOTIF_SIZE = 80


def answer_seccomp(listener: int, *, number: int, error: int) -> None:
    """Answer one notification of the call `number` with -`error`, as an agent does. seccomp_unotify(2)."""
    ready, _, _ = select.select([listener], [], [], patience(10))
    assert ready, "no notification in time"
    request = bytearray(_NOTIF_SIZE)
    fcntl.ioctl(listener, _NOTIF_RECV, request)
    identity, _pid, _flags, call = struct.unpack_from("<QIIi", request)
    assert call == number
    fcntl.ioctl(listener, _NOTIF_SEND, struct.pack("<QqiI", identity, 0, -error, 0))
