"""Bundles, users and containers as objects that tests drive; the fixtures made of them stand in conftest.py."""

from __future__ import annotations

import fcntl
import functools
import importlib.machinery
import importlib.util
import json
import os
import pwd
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from machines import patience
from support import PACKAGE, PROJECT, PYRUNC, PYTHON, TEST_USER, Result, Spec, run, wait_for_exit, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from support import Json

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
        user.pyrunc = copy_installation(directory)
    return user


def copy_installation(directory: str) -> str:
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


def _can_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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

    def detached(self, *args: str) -> Result:
        """Run a command that leaves a process behind, which must not hold a pipe of ours."""
        return run("sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *self.command, *args)

    def create(self, *options: str, pass_fds: Sequence[int] = (), stdin: int = subprocess.DEVNULL) -> Result:
        """`create`; what it prints to stderr is in the result, what the program prints comes by `expect`."""
        return self.comes("create", *options, pass_fds=pass_fds, stdin=stdin)

    def comes(
        self, verb: str, *options: str, pass_fds: Sequence[int] = (), stdin: int = subprocess.DEVNULL
    ) -> Result:
        """create, or another verb with its options after which the program is there with its own standard streams."""
        self.close()
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        ours = ["--bundle", self.bundle.path, "--pid-file", self.pid_file]
        argv = [*self.command, verb, *ours, *options, self.id]
        try:
            with open(self.error_file, "wb") as errors:
                done = subprocess.run(
                    argv,
                    stdin=stdin,
                    stdout=writer,
                    stderr=errors,
                    cwd="/",
                    pass_fds=pass_fds,
                    timeout=patience(60),
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
        deadline = time.monotonic() + patience(timeout)
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
        deadline = time.monotonic() + patience(timeout)
        while self._fill(deadline):
            pass
        taken, self._pending = self._pending, b""
        return taken.decode("utf-8", "surrogateescape")

    def errors(self) -> str:
        """What create and the program wrote to standard error."""
        with open(self.error_file, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()

    def wait_unlocked(self) -> None:
        """Wait until no command holds the container's lock: flock(2) on its state directory."""
        fd = os.open(os.path.join(self.root, self.id), os.O_RDONLY | os.O_DIRECTORY)
        try:
            wait_until(functools.partial(_can_lock, fd), "the end of the command that holds the lock")
        finally:
            os.close(fd)

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
