"""The command line as the `pyrunc` command (csrc/command/) calls it: boot.py's [WORD VALUE]... -- ARGV.

The words before `--` are between the launcher and this file: `--primed PID`, a child to collect; `--start-record FD`,
memory with the struct sync_message (csrc/plan.h) of a container that the launcher could not start, for the verb to word
it; `--clock BEGIN:EXEC`, for timing/trace.py; `--snapshot FD`, to be made there for later processes.

Behaves as `python3 -m pyrunc`, only sooner: no site, no teardown.
"""

from __future__ import annotations

import gc
import marshal
import posix  # os without its 1 ms, which every verb but none of these lines needs
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType


_WALL = 0x40000000
# Before the name of each variable of the caller's: csrc/command/environment.h.
_MARK = b"-"


class _HotModules:
    """The modules of create and exec out of one file, which tools/hot_modules.py wrote when the package was built."""

    __slots__ = ("always", "directory", "sometimes")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.always: dict[str, tuple[bool, CodeType]] = {}
        self.sometimes: dict[str, tuple[bool, bytes]] = {}

    def read(self) -> bool:
        """Load the file; False if there is none for this very Python."""
        try:
            fd = posix.open(f"{self.directory}/hot.bin", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return False
        try:
            size = posix.fstat(fd).st_size
            data = posix.read(fd, size)
        finally:
            posix.close(fd)
        if data[:4] != MAGIC_NUMBER or len(data) != size:
            return False
        _called, self.always, self.sometimes = marshal.loads(memoryview(data)[4:])  # noqa: S302 - part of the package, as .pyc files are
        self._make_faces()
        return True

    def _make_faces(self) -> None:
        """A finder for the packages: each __init__ is empty, and importing twenty of them takes a third of a ms."""
        for modules in (self.always, self.sometimes):
            for name, entry in modules.items():
                if entry[0] and name not in sys.modules:
                    face = type(sys)(name)
                    face.__spec__ = self.find_spec(name)
                    face.__path__ = face.__spec__.submodule_search_locations  # type: ignore[union-attr, assignment]  # it is a package
                    sys.modules[name] = face
                    parent, _, last = name.rpartition(".")
                    setattr(sys.modules[parent], last, face)

    def find_spec(self, name: str, *_place: object) -> ModuleSpec | None:
        found = self.always.get(name) or self.sometimes.get(name)
        if found is None:
            return None
        base = self.directory + name.removeprefix("pyrunc").replace(".", "/")
        spec: ModuleSpec = type(sys.__spec__)(name, self, is_package=found[0])  # type: ignore[arg-type]  # it is one in all but name
        spec.origin = base + ("/__init__.py" if found[0] else ".py")
        spec.has_location = True
        # Else it is computed from the origin for each module.
        spec.cached = ""
        if found[0]:
            spec.submodule_search_locations = [base]
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """Let the import system make it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        name = module.__name__
        code = self.always[name][1] if name in self.always else marshal.loads(self.sometimes[name][1])[1]  # noqa: S302
        exec(code, module.__dict__)  # noqa: S102 - what importing is


class _LateFinder:
    """What `site` would have put on sys.path, looked for when a module is found nowhere else.

    A virtual environment with the system's packages and Debian's cffi need it; other installations never call it.
    """

    __slots__ = ("site_packages",)

    def __init__(self, site_packages: str) -> None:
        self.site_packages = site_packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:
            return None  # a missing submodule is not ours
        sys.meta_path.remove(self)
        for directory in self._directories():
            if directory not in sys.path:
                sys.path.append(directory)
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, None, target)

    def _directories(self) -> list[str]:
        # <environment>/lib/python3.11/site-packages
        environment = self.site_packages.rsplit("/", 3)[0]
        try:
            with open(f"{environment}/pyvenv.cfg", encoding="utf-8") as file:
                settings = file.read().lower().replace(" ", "").split("\n")
        except OSError:
            settings = ["include-system-site-packages=true"]
        if "include-system-site-packages=true" not in settings:
            return []
        import site

        return site.getsitepackages([sys.base_prefix, "/usr/local", "/usr"])


def take_environment(given: dict[bytes, bytes]) -> None:
    """Make `given` Python's environment; libc keeps the clean one (csrc/command/environment.h)."""
    known = [posix.environ]
    if "os" in sys.modules:
        known.append(sys.modules["os"].environ._data)
    for environment in known:
        environment.clear()
        environment.update(given)


def _run() -> int:
    take_environment({name[1:]: value for name, value in posix.environ.items() if name[:1] == _MARK})
    package = __file__.rsplit("/", 2)[0]
    hot = _HotModules(package)
    # Its code has no line numbers, which --debug wants to show.
    if "--debug" not in sys.argv and hot.read():
        sys.meta_path.insert(0, hot)
    sys.meta_path.append(_LateFinder(package.rsplit("/", 1)[0]))
    split = sys.argv.index("--")
    told, argv = sys.argv[1:split], sys.argv[split + 1 :]
    if told[:1] == ["--snapshot"]:
        from pyrunc.startup import snapshot

        argv, told = snapshot.keep(int(told[1]), hot, f"{package}/hot.bin", take_environment)
    return _answer(argv, told)


def _take(fd: int) -> bytes:
    """Return what is in the memory that the launcher passes on."""
    record = posix.pread(fd, posix.fstat(fd).st_size, 0)
    posix.close(fd)
    return record


def _answer(argv: list[str], words: list[str]) -> int:
    sys.argv = ["pyrunc", *argv]
    primed, record = 0, b""
    while words:
        word, value = words[:2]
        del words[:2]
        if word == "--primed":
            primed = int(value)
        elif word == "--start-record":
            record = _take(int(value))
        elif word == "--clock":
            import time

            arrived = time.monotonic_ns()
            from pyrunc.timing import trace

            trace.launched(value, arrived)
    from pyrunc.cli import main as cli

    status = cli.main(argv, record)
    if primed:
        try:
            # It has finished, as we had to wait for the same lock; as a zombie it would confuse our subreaper.
            posix.waitpid(primed, _WALL)
        except OSError:
            pass  # SIGCHLD is ignored: the kernel reaped it
    return status


def main() -> None:
    """Run the command line of sys.argv and exit with its status."""
    # Imports make many objects that stay and no garbage; a long `run` may still collect.
    gc.set_threshold(100_000)
    status = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    # A regular interpreter shutdown costs a millisecond and has no effect here.
    posix._exit(status)
