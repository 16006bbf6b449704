"""One program of the suite against one runtime, in a place of its own that leaves nothing behind.

Run by run.py as a program inside a view (tests/support/views.py): `python cell.py REQUEST.json`, and once for all of
them `python cell.py hold DIRECTORY`. In v1 the program sees its
own cgroups as the whole hierarchy, so that runs at the same time do not share the fixed names that the suite uses, and
what is left in them is known to be ours.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tests", "support"))

from views import become_subreaper, children, process_gone

_PATIENCE = 10.0
_POLL = 0.02
# The directory that the suite makes for a bundle.
_BUNDLE = r"^.*/ocitest\d+"

# Into cgroups of its own, and those become the root of what it sees. $1: their name.
_ENCLOSE = 'for d in /sys/fs/cgroup/*/; do echo $$ >"$d$1/cgroup.procs" || exit 99; done; shift; exec unshare -C "$@"'
_SHARE = 'mount --make-rshared / && exec "$@"'
# What is mounted afterwards and was not before is the runtime's. $1: where to write both.
_WATCH = 'cat /proc/self/mountinfo >"$1.before"; o=$1; shift; "$@"; s=$?; cat /proc/self/mountinfo >"$o.after"; exit $s'


@dataclass
class Request:
    """What to run: `runtime` is the path of its program, `home` an empty directory of the cell's own.

    `view`: what makes the view that the cell is in (tests/support/views.py); empty for the host's own.
    """

    program: str
    suite: str
    runtime: str
    home: str
    view: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What happened. `status` as of subprocess; `left` names what the runtime did not clear away."""

    status: int
    seconds: float
    out_of_time: bool = False
    left: list[str] = field(default_factory=list)


def wrapper(request: Request) -> str:
    """The one word that RUNTIME may be: the runtime with a state directory of its own; it notes how it is called.

    Go gives /dev/null to what it starts, and some runtimes give their standard input to the container's user: the
    host's own device would change its owner.
    """
    path = os.path.join(request.home, "runtime")
    with open(f"{request.home}/stdin", "wb"):
        pass
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(
            "#!/bin/sh\n"
            f'echo "$@" >>"{request.home}/commands"\n'
            f'exec "{request.runtime}" --root "{request.home}/root" "$@" <"{request.home}/stdin"\n'
        )
    os.chmod(path, 0o755)
    return path


_CGROUPS = "/sys/fs/cgroup"
_PREFIX = "pyrunc-conformance-"


class Cgroups:
    """The cgroups of one cell, one in every v1 hierarchy of the view: its name says who made them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paths = glob.glob(f"{_CGROUPS}/*/{name}")

    @classmethod
    def make(cls) -> Cgroups:
        """Those of this process, which is a cell, and its parent's child."""
        name = f"{_PREFIX}{os.getppid()}-{os.getpid()}"
        for top in glob.glob(f"{_CGROUPS}/*"):
            path = f"{top}/{name}"
            os.mkdir(path)
            for item in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{path}/{item}"):
                    with open(f"{top}/{item}", encoding="ascii") as source:
                        text = source.read()
                    with open(f"{path}/{item}", "w", encoding="ascii") as target:
                        target.write(text)
        return cls(name)

    @property
    def makers(self) -> tuple[int, int]:
        """The pids of the run and of the cell."""
        run, cell = self.name.removeprefix(_PREFIX).split("-")
        return int(run), int(cell)

    def pids(self) -> set[int]:
        """Every process in one of them or below; 0 stands for those that this PID namespace does not have."""
        found: set[int] = set()
        for path in self.paths:
            for directory, _, _ in os.walk(path):
                try:
                    with open(f"{directory}/cgroup.procs", encoding="ascii") as stream:
                        found |= {int(word) for word in stream.read().split()} - {0}
                except OSError:
                    pass  # removed while we look
        return found

    def below(self) -> list[str]:
        """The cgroups that somebody made in them, deepest first."""
        found: list[str] = []
        for path in self.paths:
            found += [directory for directory, _, _ in os.walk(path, topdown=False) if directory != path]
        return found

    def thaw(self) -> None:
        """Frozen processes do not die."""
        for path in glob.glob(f"{_CGROUPS}/freezer/{self.name}/**/freezer.state", recursive=True):
            try:
                with open(path, "w", encoding="ascii") as stream:
                    stream.write("THAWED")
            except OSError:
                pass

    def remove(self) -> None:
        """Remove them and all below; raises OSError when something stays in use."""
        deadline = time.monotonic() + _PATIENCE
        for path in [*self.below(), *self.paths]:
            while not _removed(path, last=time.monotonic() > deadline):
                time.sleep(_POLL)


def _removed(path: str, *, last: bool) -> bool:
    """A cgroup is busy for a moment after its last process was reaped."""
    try:
        os.rmdir(path)
    except OSError as error:
        if last or error.errno != errno.EBUSY:
            raise
        return False
    return True


def _reap() -> dict[int, int]:
    """Everything that has ended: pid to exit code."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _wait(pid: int, seconds: float) -> int | None:
    """Reap orphans until the child `pid` ends; its exit code, None if time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = _reap()
        if pid in ended:
            return ended[pid]
        # Not by SIGCHLD: whatever is set for that, a runtime would inherit.
        time.sleep(_POLL)
    return None


def _kill_all(cgroups: Cgroups) -> list[str]:
    """End every process that is left; what they were."""
    found: list[str] = []
    deadline = time.monotonic() + _PATIENCE
    seen: set[int] = set()
    while alive := {pid for pid in {*children(), *cgroups.pids()} if not process_gone(pid)}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(alive)} do not end")
        cgroups.thaw()
        for pid in alive:
            if pid not in seen:
                found.append(_command_line(pid))
                seen.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        _reap()
        time.sleep(_POLL)
    _reap()
    return found


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def _inside(request: Request, cgroups: Cgroups, command: list[str]) -> list[str]:
    """The command as seen from the cell: mounts that only it sees, and with v1 its own cgroups as the hierarchy."""
    if not request.view:
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", _SHARE, "share", *command]
    return ["sh", "-c", _ENCLOSE, "enclose", cgroups.name, *request.view, *command]


def _spawn(request: Request, cgroups: Cgroups) -> subprocess.Popen[bytes]:
    command = ["sh", "-c", _WATCH, "watch", f"{request.home}/mounts", f"./{request.program}"]
    directory = f"{request.home}/tmp"
    os.mkdir(directory)
    environment = {**os.environ, **request.environment, "RUNTIME": wrapper(request), "TMPDIR": directory}
    # The containers of the suite are not our caller's.
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "XDG_RUNTIME_DIR"):
        environment.pop(name, None)
    with open(f"{request.home}/out", "wb") as out, open(f"{request.home}/err", "wb") as err:
        return subprocess.Popen(
            _inside(request, cgroups, command),
            cwd=request.suite,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def _delete_containers(request: Request, cgroups: Cgroups) -> list[str]:
    """What the suite leaves: it is not the runtime's fault, unless it cannot be deleted."""
    left: list[str] = []
    root = f"{request.home}/root"
    # A name with "@" is no container id.
    names = [name for name in sorted(os.listdir(root)) if "@" not in name] if os.path.isdir(root) else []
    for name in names:
        done = subprocess.run(
            _inside(request, cgroups, [f"{request.home}/runtime", "delete", "--force", name]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0 or os.path.exists(f"{root}/{name}"):
            left.append(f"container {name}: {done.stderr.strip()}")
    return left


def _new_mounts(home: str) -> list[str]:
    points: dict[str, set[str]] = {}
    for when in ("before", "after"):
        try:
            with open(f"{home}/mounts.{when}", encoding="utf-8") as stream:
                points[when] = {line.split()[4] for line in stream}
        except FileNotFoundError:
            return []
    new = sorted(points["after"] - points["before"])
    return [f"mount {re.sub(_BUNDLE, 'BUNDLE', point)}" for point in new]


def _null_device() -> tuple[int, int, int]:
    about = os.stat(os.devnull)
    return about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)


def _restore_null_device(before: tuple[int, int, int]) -> list[str]:
    if _null_device() == before:
        return []
    os.chown(os.devnull, before[0], before[1])
    os.chmod(os.devnull, before[2])
    return ["another owner or mode of the host's /dev/null"]


def run(request: Request) -> Outcome:
    """Run it to its end or deadline, and leave the host as it was."""
    become_subreaper()
    null_device = _null_device()
    cgroups = Cgroups.make() if request.view else Cgroups("none")
    try:
        outcome = _run(request, cgroups)
    finally:
        # Also when we are interrupted.
        _kill_all(cgroups)
        cgroups.remove()
        changed = _restore_null_device(null_device)
    outcome.left += changed
    return outcome


def _run(request: Request, cgroups: Cgroups) -> Outcome:
    begin = time.monotonic()
    process = _spawn(request, cgroups)
    status = _wait(process.pid, request.seconds)
    outcome = Outcome(
        -signal.SIGKILL if status is None else status, time.monotonic() - begin, status is None
    )
    # Reaped it is, but not by the object.
    process.returncode = outcome.status
    if status is None:
        _kill_all(cgroups)
    outcome.left += _delete_containers(request, cgroups)
    outcome.left += [f"process {words}" for words in _kill_all(cgroups)]
    # In each hierarchy the same ones.
    outcome.left += dict.fromkeys(f"cgroup {path.partition(cgroups.name)[2]}" for path in cgroups.below())
    outcome.left += _new_mounts(request.home)
    shutil.rmtree(f"{request.home}/tmp")
    return outcome


def find_cgroups() -> list[Cgroups]:
    """Those of all cells, of whatever run."""
    names = {os.path.basename(path) for path in glob.glob(f"{_CGROUPS}/*/{_PREFIX}*-*")}
    return [Cgroups(name) for name in sorted(names)]


def sweep() -> None:
    """Clear away after cells that were killed: nobody else does."""
    for cgroups in find_cgroups():
        if process_gone(cgroups.makers[1]):
            try:
                _kill_all(cgroups)
                cgroups.remove()
            except FileNotFoundError:
                pass  # another run was quicker
            except (OSError, TimeoutError) as error:
                print(f"conformance: cannot clear away {cgroups.name}: {error}", file=sys.stderr)


def hold(directory: str) -> int:
    """Keep the view alive as long as standard input, and clear away behind its run, which may have been killed.

    Prints the names at /sys/fs/cgroup. In the end `directory` is removed.
    """
    run = os.getppid()
    sweep()
    print(*sorted(os.listdir(_CGROUPS)), flush=True)
    sys.stdin.read()
    cells = [cgroups.makers[1] for cgroups in find_cgroups() if cgroups.makers[0] == run]
    for pid in cells:
        if not process_gone(pid):
            os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and not all(process_gone(pid) for pid in cells):
        time.sleep(_POLL)
    sweep()
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def main() -> int:
    """Read the request, write the outcome beside it; or `hold`."""
    if sys.argv[1] == "hold":
        return hold(sys.argv[2])
    with open(sys.argv[1], encoding="utf-8") as stream:
        request = Request(**json.load(stream))
    outcome = run(request)
    with open(os.path.join(request.home, "outcome.json"), "w", encoding="utf-8") as stream:
        json.dump(asdict(outcome), stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
