"""What tests share: paths, running commands, containers under test, and what the host lacks.

Fixtures made of these stand in conftest.py. Importable as `support` from every test (pyproject.toml: pythonpath).
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from typing import TYPE_CHECKING, Protocol, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Spec: TypeAlias = "dict[str, Json]"

PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
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

# The only reasons for which a test may be skipped where everything must work: CI's machine does not have them either.
ALLOWED_LACKS = {
    "AppArmor",
    "CAP_SYS_RESOURCE",
    "SELinux",
    "a cgroup2 controller for cpu, memory or pids",
    "systemd",
    "a second processor",
    "not x86_64",
}


def needs(condition: bool, lack: str) -> None:
    """Skip the test unless `condition`; `lack` names what the host does not have.

    With PYRUNC_MUST_WORK=1 conftest.py turns a skip into a failure unless its reason is in ALLOWED_LACKS.
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

_V2 = (
    "umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
    ' && mount --make-rshared / && exec "$@"'
)
_V1 = (
    "d=$(mktemp -d /run/pyrunc-v1.XXXXXX) && mount -t tmpfs -o mode=755 tmpfs $d || exit 99; "
    "for c in cpu cpuacct cpuset memory devices freezer blkio pids; do "
    "mkdir $d/$c && mount -t cgroup -o $c cgroup $d/$c || exit 99; done; "
    "mkdir $d/systemd && mount -t cgroup -o none,name=systemd cgroup $d/systemd || exit 99; "
    "umount -R /sys/fs/cgroup && mount --move $d /sys/fs/cgroup && rmdir $d && mount --make-rshared / && exec "
    '"$@"'
)


def _view(script: str) -> list[str]:
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "view"]


# Put before a command: nothing; a mount namespace with cgroup2 alone at /sys/fs/cgroup; one with v1 controllers alone.
# The process stays the same one, so whatever the command starts is still our child.
VIEWS: dict[str, list[str]] = {"host": [], "v2": _view(_V2), "v1": _view(_V1)}


def cgroup_mounts() -> list[str]:
    """Where cgroup file systems of either kind are mounted here."""
    found: list[str] = []
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for line in stream:
            left, _, right = line.partition(" - ")
            if right.startswith(("cgroup ", "cgroup2 ")):
                found.append(left.split()[4])
    return found


def find_cgroups(needle: str) -> list[str]:
    """All cgroup directories with `needle` in their path, deepest first."""
    found: list[str] = []
    for mount in cgroup_mounts():
        for directory, names, _ in os.walk(mount, topdown=False):
            found += [
                os.path.join(directory, name) for name in names if needle in os.path.join(directory, name)
            ]
    return found


def cgroup_directories() -> set[str]:
    """All cgroup directories of the host."""
    return {path for mount in cgroup_mounts() for path, _, _ in os.walk(mount)}


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
        timeout=timeout,
        env=None if env is None else dict(env),
        cwd=cwd,
        pass_fds=pass_fds,
        check=False,
    )
    return Result(argv, done.returncode, done.stdout, done.stderr)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10) -> None:
    """Come back once `condition` holds; fail with `what` when it does not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"in vain waited {timeout} s for: {what}"
        select.select([], [], [], 0.002)


# --- Processes --------------------------------------------------------------------------------------------------------

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopt orphans, as an engine's shim does: the init of a detached container becomes our child. prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def children() -> list[int]:
    """The processes whose parent we are."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]


def wait_for_exit(pid: int, timeout: float = 10) -> int:
    """Wait for a child and reap it; its exit code, or minus the signal."""
    pidfd = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([pidfd], [], [], timeout)
        assert ready, f"process {pid} did not end within {timeout} s"
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def process_gone(pid: int) -> bool:
    """Whether the process does not exist any more or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def status_field(pid: int, name: str) -> str:
    """One field of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
        for line in stream:
            key, _, value = line.partition(":")
            if key == name:
                return value.strip()
    raise KeyError(name)


# --- Bundles ----------------------------------------------------------------------------------------------------------


def _load_bundles() -> ModuleType:
    path = os.path.join(PROJECT, "bundles/make")
    loader = importlib.machinery.SourceFileLoader("bundles_make", path)
    spec = importlib.util.spec_from_loader("bundles_make", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


bundles = _load_bundles()


class Bundle:
    """A bundle on disk. `spec` can be changed in place; `write` puts it into config.json."""

    def __init__(self, path: str, spec: Spec) -> None:
        self.path = path
        self.spec = spec

    @property
    def rootfs(self) -> str:
        """The directory that becomes the container's root."""
        return os.path.join(self.path, "rootfs")

    def at(self, *keys: str | int) -> Json:
        """The value that the keys lead to: at("process", "args")."""
        value: Json = self.spec
        for key in keys:
            if isinstance(value, dict) and isinstance(key, str):
                value = value[key]
            elif isinstance(value, list) and isinstance(key, int):
                value = value[key]
            else:
                raise KeyError(key)
        return value

    def mapping(self, *keys: str | int) -> Spec:
        """The object that the keys lead to; missing ones are made."""
        value: Json = self.spec
        for key in keys:
            if isinstance(value, dict) and isinstance(key, str):
                value = value.setdefault(key, {})
            elif isinstance(value, list) and isinstance(key, int):
                value = value[key]
        assert isinstance(value, dict), keys
        return value

    def list_of(self, *keys: str) -> list[Json]:
        """The array that the keys lead to; a missing one is made."""
        value = self.mapping(*keys[:-1]).setdefault(keys[-1], [])
        assert isinstance(value, list), keys
        return value

    def args(self, *argv: str) -> Bundle:
        """Itself, with another program."""
        self.mapping("process")["args"] = list(argv)
        return self

    def probe(self, *words: str) -> Bundle:
        """Itself, with the probe as its program: probe("ids", "--", "caps")."""
        return self.args("/bin/probe", *words)

    def mount(self, destination: str, kind: str, source: str, *options: str) -> Bundle:
        """Itself, with one mount more."""
        entry: Json = {"destination": destination, "type": kind, "source": source, "options": list(options)}
        self.list_of("mounts").append(entry)
        return self

    def namespace(self, kind: str, path: str | None = None) -> Bundle:
        """Itself, with a namespace of `kind` made new or joined by `path` in place of the one it had."""
        names = self.list_of("linux", "namespaces")
        names[:] = [item for item in names if isinstance(item, dict) and item["type"] != kind]
        names.append({"type": kind} if path is None else {"type": kind, "path": path})
        return self

    def without_namespace(self, kind: str) -> Bundle:
        """Itself, sharing the runtime's namespace of `kind`."""
        names = self.list_of("linux", "namespaces")
        names[:] = [item for item in names if isinstance(item, dict) and item["type"] != kind]
        return self

    def write(self) -> Bundle:
        """Itself, with config.json as `spec` is now."""
        with open(os.path.join(self.path, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(self.spec, stream, indent=2)
        return self


def make_bundle(name: str, directory: str, *, rootless: User | None = None) -> Bundle:
    """Make one of bundles/make; `rootless`: for that user to run."""
    spec: Spec = bundles.make(name, directory)
    bundle = Bundle(directory, spec)
    if rootless is not None:
        bundles.make_rootless(spec, rootless.uid, rootless.gid)
        bundles.shift_owner(directory, rootless.uid, rootless.gid)
        bundle.write()
    return bundle


# --- Users ------------------------------------------------------------------------------------------------------------


class User:
    """An ordinary user with subordinate ids; `prefix` before a command runs it as that user."""

    def __init__(self, name: str, pyrunc: str, runtime_dir: str) -> None:
        entry = pwd.getpwnam(name)
        self.name = name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.pyrunc = pyrunc
        self.runtime_dir = runtime_dir
        self.subuid = _subordinate("/etc/subuid", name)
        self.subgid = _subordinate("/etc/subgid", name)
        self.prefix = [
            *(
                "setpriv",
                "--reuid",
                str(self.uid),
                "--regid",
                str(self.gid),
                "--clear-groups",
                "--inh-caps=-all",
            ),
            *("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={runtime_dir}", f"USER={name}"),
            f"XDG_RUNTIME_DIR={runtime_dir}",
        ]


def _subordinate(path: str, name: str) -> tuple[int, int]:
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[0] == name:
                return int(fields[1]), int(fields[2])
    raise AssertionError(f"no line for '{name}' in {path}")


def make_test_user(directory: str) -> User:
    """The user TEST_USER, added when missing, with an installation it can read; `directory` becomes its home."""
    try:
        pwd.getpwnam(TEST_USER)
    except KeyError:
        run("useradd", "--create-home", "--shell", "/bin/sh", TEST_USER).ok()
    for option, path in (("--add-subuids", "/etc/subuid"), ("--add-subgids", "/etc/subgid")):
        try:
            _subordinate(path, TEST_USER)
        except (AssertionError, FileNotFoundError):
            run("usermod", option, "500000-565535", TEST_USER).ok()
    entry = pwd.getpwnam(TEST_USER)
    os.chown(directory, entry.pw_uid, entry.pw_gid)
    os.chmod(directory, 0o711)
    user = User(TEST_USER, PYRUNC, directory)
    if run(*user.prefix, "test", "-r", os.path.join(PACKAGE, "__init__.py"), "-a", "-x", PYRUNC).status != 0:
        user.pyrunc = _copy_installation(directory)
    return user


def _copy_installation(directory: str) -> str:
    """Copy the virtual environment's part that pyrunc needs to where an ordinary user can read it."""
    venv = os.path.dirname(os.path.dirname(PYRUNC))
    target = os.path.join(directory, "venv")
    site = os.path.relpath(os.path.dirname(PACKAGE), venv)
    os.makedirs(os.path.join(target, "bin"))
    for name in ("pyvenv.cfg", "bin/pyrunc"):
        shutil.copy(os.path.join(venv, name), os.path.join(target, name))
    os.symlink(os.path.realpath(PYTHON), os.path.join(target, "bin/python3"))
    shutil.copytree(os.path.join(venv, site), os.path.join(target, site))
    return os.path.join(target, "bin/pyrunc")


# --- Containers -------------------------------------------------------------------------------------------------------


class Container:
    """One container under test, with the command that drives it.

    Its standard output is a pipe that we read: `expect` a line, or all the `output` once it has ended. Its standard
    error is kept in a file: `errors`. As we are a subreaper, its init becomes our child once create is done.
    """

    def __init__(
        self, name: str, bundle: Bundle, scratch: str, command: Sequence[str], user: User | None
    ) -> None:
        self.id = name
        self.bundle = bundle
        self.root = os.path.join(scratch, "root")
        self.user = user
        self.command = [*command, "--root", self.root]
        self.pid_file = os.path.join(scratch, f"{name}.pid")
        self.error_file = os.path.join(scratch, f"{name}.err")
        self._reader = -1
        self._pending = b""

    def pyrunc(
        self, *args: str, stdin: str = "", timeout: float = 60, pass_fds: Sequence[int] = ()
    ) -> Result:
        """Run the command with any arguments."""
        return run(*self.command, *args, stdin=stdin, timeout=timeout, pass_fds=pass_fds)

    def create(self, *options: str, pass_fds: Sequence[int] = (), stdin: int = subprocess.DEVNULL) -> Result:
        """`create`; what it prints to stderr is in the result, what the program prints comes by `expect`."""
        self.close()
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        argv = [
            *self.command,
            "create",
            "--bundle",
            self.bundle.path,
            "--pid-file",
            self.pid_file,
            *options,
            self.id,
        ]
        try:
            with open(self.error_file, "wb") as errors:
                done = subprocess.run(
                    argv,
                    stdin=stdin,
                    stdout=writer,
                    stderr=errors,
                    cwd="/",
                    pass_fds=pass_fds,
                    timeout=60,
                    check=False,
                )
        finally:
            os.close(writer)
        return Result(argv, done.returncode, "", self.errors())

    def start(self) -> Result:
        """`start`."""
        return self.pyrunc("start", self.id)

    def up(self, *options: str) -> Container:
        """Itself, created and started."""
        self.create(*options).ok()
        self.start().ok()
        return self

    def run(self, *options: str, stdin: str = "", timeout: float = 60) -> Result:
        """`run` in the foreground, to the program's end."""
        return self.pyrunc(
            "run", "--bundle", self.bundle.path, *options, self.id, stdin=stdin, timeout=timeout
        )

    def exec(self, *argv: str, options: Sequence[str] = (), stdin: str = "") -> Result:
        """`exec` in the foreground."""
        return self.pyrunc("exec", *options, self.id, *argv, stdin=stdin)

    def state(self) -> Spec:
        """The document that `state` prints."""
        document = self.pyrunc("state", self.id).ok().json()
        assert isinstance(document, dict)
        return document

    def status(self) -> str:
        """The `status` of the state."""
        return str(self.state()["status"])

    def kill(self, name: str = "KILL", *options: str) -> Result:
        """`kill`."""
        return self.pyrunc("kill", *options, self.id, name)

    def delete(self, *options: str) -> Result:
        """`delete`."""
        return self.pyrunc("delete", *options, self.id)

    @property
    def pid(self) -> int:
        """The pid of init, from the pid file."""
        with open(self.pid_file, encoding="ascii") as stream:
            return int(stream.read())

    def wait(self, timeout: float = 10) -> int:
        """Reap init, as the engine's shim does; its exit code, or minus the signal."""
        return wait_for_exit(self.pid, timeout)

    def _fill(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._reader], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no output in time; so far {self._pending!r}, errors {self.errors()!r}"
        chunk = os.read(self._reader, 65536)
        self._pending += chunk
        return bool(chunk)

    def expect(self, text: str, timeout: float = 10) -> str:
        """Read the program's output up to the line that contains `text`; all lines read, that one included."""
        deadline = time.monotonic() + timeout
        seen = 0
        while True:
            for line in self._pending[seen:].splitlines(keepends=True):
                if line.endswith(b"\n"):
                    seen += len(line)
                    if text.encode() in line:
                        taken, self._pending = self._pending[:seen], self._pending[seen:]
                        return taken.decode("utf-8", "surrogateescape")
            assert self._fill(deadline), (
                f"the output ended without '{text}': {self._pending!r}, {self.errors()!r}"
            )

    def output(self, timeout: float = 10) -> str:
        """Everything the program prints until no process holds its standard output any more."""
        deadline = time.monotonic() + timeout
        while self._fill(deadline):
            pass
        taken, self._pending = self._pending, b""
        return taken.decode("utf-8", "surrogateescape")

    def errors(self) -> str:
        """What create and the program wrote to standard error."""
        with open(self.error_file, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()

    def close(self) -> None:
        """Close our end of the program's standard output."""
        if self._reader >= 0:
            os.close(self._reader)
        self._reader = -1

    def clean_up(self) -> None:
        """Remove the container by any means."""
        self.close()
        if os.path.lexists(os.path.join(self.root, self.id)):
            self.pyrunc("delete", "--force", self.id)


class BundleFactory(Protocol):
    """The fixture `bundle`."""

    def __call__(self, name: str = "probe", *argv: str, user: User | None = None) -> Bundle:
        """Make a bundle of that name, with another program when `argv` is given."""


class ContainerFactory(Protocol):
    """The fixture `container`."""

    def __call__(
        self,
        what: Bundle | None = None,
        *,
        name: str | None = None,
        view: str = "host",
        user: User | None = None,
        command: Sequence[str] | None = None,
    ) -> Container:
        """Make a container of the bundle, not created yet."""


# --- Leaks ------------------------------------------------------------------------------------------------------------


def kill_children(known: Sequence[int]) -> list[str]:
    """End and reap every child of ours that is not in `known`; describe those that were still running."""
    found: list[str] = []
    for pid in children():
        if pid in known:
            continue
        if not process_gone(pid):
            found.append(f"process {pid} {_command_line(pid)}")
            os.kill(pid, signal.SIGKILL)
        wait_for_exit(pid)
    return found


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
