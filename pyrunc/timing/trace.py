"""--trace and --timings: when each phase of a command began and ended, and each op of init.

The functions named in SEAMS are wrapped when their modules are loaded; the wrappers read the clock before and after.
Imports are timed by a finder of our own. init writes the time at which each op began into shared memory (stamp() of
csrc/init/main.c). Times are CLOCK_MONOTONIC in ns. timing/timeline.py turns them into JSON or a chart.

Loaded only when it is asked for: what is measured knows nothing of it.
"""

from __future__ import annotations

import os
import sys
import time

from pyrunc import log
from pyrunc.errors import KernelError
from pyrunc.timing.spans import Span, Stamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Protocol

    from pyrunc.plan.wire import Op

    class Timed(Protocol):
        """Any function."""

        def __call__(self, *args: object, **kwargs: object) -> object:
            """Call it."""


_LOADED = time.monotonic_ns()

# module: {function or method: what it is called on the time line}. "{2}" is the argument at that place.
SEAMS: dict[str, dict[str, str]] = {
    "pyrunc.verbs.new_container": {"check_rootfs": "root file system"},
    "pyrunc.verbs.process_io": {"write_pid_file": "pid file"},
    "pyrunc.cgroups.manager": {
        "Manager.apply": "cgroup: limits",
        "Manager.attach": "cgroup: attach",
        "Manager.check_free": "cgroup: look",
        "Manager.create": "cgroup: make",
        "Manager.destroy": "cgroup: remove",
        "Manager.kill": "cgroup: kill",
        "Manager.open": "cgroup: open",
    },
    "pyrunc.cgroups.choose": {"manager": "cgroup: paths"},
    "pyrunc.cgroups.systemd.driver": {
        "UnitManager.attach": "systemd: unit",
        "UnitManager.create": "systemd: look",
        "UnitManager.destroy": "systemd: remove unit",
    },
    "pyrunc.config.load": {
        "_checked": "schema",
        "_read": "read file",
        "load": "configuration",
        "load_process": "process file",
        "parse": "parse JSON",
    },
    "pyrunc.host.console": {
        "Attendance.__init__": "attend",
        "Attendance.wait": "program",
        "adopt_orphans": "subreaper",
        "send_fd": "send descriptor",
    },
    "pyrunc.criu.server": {"Server.ask": "CRIU", "version": "CRIU's version"},
    "pyrunc.config.exec_process": {"build": "process"},
    "pyrunc.launch.hooks": {"run_one": "hook {0}[{1}]"},
    "pyrunc.host.gather": {"gather": "host facts"},
    "pyrunc.kernel.container": {
        "delete": "delete",
        "kill": "kill",
        "start": "let init go",
        "state": "state",
    },
    "pyrunc.kernel.mounts": {"open_tree": "open_tree {0}"},
    "pyrunc.kernel.process": {"sealed_memfd": "memfd {0}", "spawn": "clone and exec"},
    "pyrunc.launch.init": {
        "Init.abort": "end init",
        "Init.receive": "wait for init",
        "init_program": "read init",
        "start": "start init",
    },
    "pyrunc.host.network": {"Devices.move": "network devices"},
    "pyrunc.host.notify": {"Proxy.wait": "readiness"},
    "pyrunc.cli.context": {"from_options": "context"},
    "pyrunc.cli.parse": {"command_options": "command line"},
    "pyrunc.plan.planner": {"create": "plan", "exec_process": "plan"},
    "pyrunc.host.resctrl": {"Group.attach": "resctrl: attach", "Group.create": "resctrl: make"},
    "pyrunc.container.exit_status": {"start": "recorder"},
    "pyrunc.config.rules.document": {"check": "rules"},
    "pyrunc.config.rules.process": {"check": "rules"},
    "pyrunc.runtime": {
        "checkpoint": "checkpoint",
        "create": "create",
        "delete": "delete",
        "exec_": "exec",
        "kill": "kill",
        "restore": "restore",
        "run": "run",
        "start": "start",
        "state": "state",
    },
    "pyrunc.verbs.create": {
        "_answer": "answer init",
        "_bring_up": "bring up",
        "_publish": "publish",
    },
    "pyrunc.verbs.exec": {"_serve": "answer init", "_start": "start in cgroup"},
    "pyrunc.seccomp.compile": {"compile": "seccomp filter"},
    "pyrunc.container.directory": {
        "StateDir.make_fifo": "exec.fifo",
        "StateDir.remove": "remove state directory",
        "StateDir.rename": "rename to {2}",
        "StateDir.write": "write {1}",
        "create": "state directory",
    },
    "pyrunc.launch.id_maps": {"write": "id maps"},
    "pyrunc.plan.wire": {"encode": "encode plan"},
}


class _Finder:
    """A finder that asks the other finders, and measures the loading."""

    __slots__ = ("trace",)

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks for it."""
        begin = time.monotonic_ns()
        for finder in list(sys.meta_path):
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(self.trace, spec.loader, begin)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A loader that calls the module's own loader and removes itself afterwards."""

    __slots__ = ("begin", "loader", "trace")

    def __init__(self, trace: Trace, loader: object, begin: int) -> None:
        self.trace = trace
        self.loader = loader
        self.begin = begin

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the import system asks for it."""
        module: ModuleType | None = self.loader.create_module(spec)  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """As the import system asks for it."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader  # type: ignore[assignment]
        module.__loader__ = self.loader  # type: ignore[assignment]
        try:
            self.loader.exec_module(module)  # type: ignore[attr-defined]
        finally:
            self.trace.add(f"import {module.__name__}", self.begin)
        self.trace.wrap(module)


class Trace:
    """What has been measured so far: `spans`, in the order in which they ended, and the `stamps` of each init."""

    __slots__ = ("begin", "end", "fd", "ops", "path", "spans", "stamps", "timings", "verb")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.end = begin
        self.verb = ""
        self.path = ""
        self.fd = -1
        self.timings = False
        self.ops: Sequence[Op] = ()
        self.spans: list[Span] = []
        self.stamps: list[Stamps] = []
        for name in SEAMS:
            if name in sys.modules:
                self.wrap(sys.modules[name])
        sys.meta_path.insert(0, _Finder(self))

    def open(self, path: str) -> None:
        """Open the output file, before anything that is measured. Raise KernelError if that fails."""
        begin = time.monotonic_ns()
        self.fd = log.open_file(path, os.O_TRUNC, hint="--trace names a file that can be written")
        self.path = path
        self.add("tracing", begin)

    def add(self, text: str, begin: int) -> None:
        """Add a span that began then and ends now."""
        self.spans.append(Span(text, begin, time.monotonic_ns()))

    def wrap(self, module: ModuleType) -> None:
        """Wrap the functions of the module that SEAMS names."""
        for name, text in SEAMS.get(module.__name__, {}).items():
            where: object = module
            *owners, last = name.split(".")
            for owner in owners:
                where = getattr(where, owner)
            function = getattr(where, last)
            if (module.__name__, name) == ("pyrunc.kernel.process", "spawn"):
                function = self._stamped(function)
            elif (module.__name__, name) == ("pyrunc.launch.init", "start"):
                function = self._knowing_ops(function)
            setattr(where, last, self._timed(function, text))

    def _timed(self, function: Timed, text: str) -> Timed:
        def timed(*args: object, **kwargs: object) -> object:
            begin = time.monotonic_ns()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(text.format(*args) if "{" in text else text, begin)

        return timed

    def _knowing_ops(self, start: Timed) -> Timed:
        def knowing(*args: object, **kwargs: object) -> object:
            self.ops = args[0]  # type: ignore[assignment]
            return start(*args, **kwargs)

        return knowing

    def _stamped(self, spawn: Timed) -> Timed:
        def stamped(*args: object, **kwargs: object) -> object:
            # Hooks are started by this call, too; init's program is a descriptor.
            if kwargs.get("exe_fd", -1) == -1 or not self.ops:
                return spawn(*args, **kwargs)
            stamps = Stamps(self.ops)
            argv, *rest = args
            kwargs["keep"] = [*kwargs.get("keep", ()), stamps.fd]  # type: ignore[misc]
            result = spawn([*argv, b"%d" % stamps.fd], *rest, **kwargs)  # type: ignore[misc]
            stamps.pid = result[0]  # type: ignore[index]
            self.stamps.append(stamps)
            return result

        return stamped

    def finish(self) -> str:
        """Write the file and the chart, as far as they were asked for. Raise KernelError if that fails."""
        self.end = time.monotonic_ns()
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        from pyrunc.timing import timeline

        whole = Span(f"pyrunc {self.verb}".rstrip(), self.begin, self.end)
        spans = timeline.complete(whole, self.spans, self.stamps)
        if self.fd >= 0:
            try:
                log.put(self.fd, timeline.chrome(self.verb, spans).encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise KernelError("write", error.errno or 0, self.path) from error
        return timeline.chart(spans) if self.timings else ""


_current: list[Trace] = []


def launched(words: str, arrived: int) -> None:
    """Add what the `pyrunc` command did before: "BEGIN:EXEC", when it started and when it executed Python.

    `arrived`: when Python was ready. Out of a snapshot it has our modules loaded already.
    """
    begin, executed = map(int, words.split(":"))
    trace = current(begin)
    trace.spans += [Span("launcher", begin, executed), Span("interpreter start", executed, arrived)]
    trace.add("tracing", arrived)


def current(begin: int = _LOADED) -> Trace:
    """The trace of this process."""
    if not _current:
        _current.append(Trace(begin))
    return _current[0]
