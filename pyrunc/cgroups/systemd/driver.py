"""The systemd cgroup driver: the container's cgroup is a scope that systemd makes, manages and removes.

    UnitManager.settle()       connect, refuse what is in use
    attach(init)               StartTransientUnit with PIDs=init: systemd makes the cgroup and moves init into it
    apply(resources)           SetUnitProperties, so that systemd writes the same, then the cgroup files
    destroy(), remove()        StopUnit, ResetFailedUnit

Everything else (freezing, signals, statistics) uses the cgroup files as in any Manager: the scope is delegated.
"""

from __future__ import annotations

import os

from pyrunc.cgroups import device_rules, files, v1, v2
from pyrunc.cgroups.manager import Manager
from pyrunc.cgroups.systemd import unit, variants
from pyrunc.errors import BusError, ConfigError, KernelError, PyruncError, StateError
from pyrunc.kernel.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyrunc.cgroups.resources import Write
    from pyrunc.cgroups.systemd.unit import Property
    from pyrunc.spec.host_facts import HostFacts

_RUNNING = "/run/systemd/system"
_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
_SYSTEM_DIRECT = "unix:path=/run/systemd/private"
_OBJECT = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_MATCH = f"type='signal',path='{_OBJECT}',interface='{_MANAGER}',member='JobRemoved'"
_PROPERTIES = "a(sv)"
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_GONE = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitNotLoaded")
# Hierarchies of cgroup v1 whose directories below its slices are systemd's own.
_SYSTEMD_KEEPS = (v1.SYSTEMD, v1.UNIFIED, "cpu", "cpuacct", "memory", "blkio", "pids", "devices")
# D-Bus's own limit for a call is 25 s; runc waits 30 s for a job of systemd, which may take longer.
_OPEN_SECONDS, _CALL_SECONDS, _JOB_SECONDS = 10.0, 25.0, 30.0


def _seconds(default: float) -> float:
    """Return a time limit: $SYSTEMD_BUS_TIMEOUT if it is set, as for systemd's own programs."""
    given = os.environ.get("SYSTEMD_BUS_TIMEOUT", "").removesuffix("s")
    return (
        float(given)
        if given.isascii() and given.isdigit() and 0 < len(given) < 6 and int(given)
        else default
    )


def _bus_path(path: str) -> str:
    """Return the address of a socket. D-Bus Specification, Server Addresses: other characters are escaped."""
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/.\\*"
    escaped = [chr(byte) if chr(byte) in plain else f"%{byte:02x}" for byte in os.fsencode(path)]
    return "unix:path=" + "".join(escaped)


def _addresses(*, user: bool) -> list[tuple[str, bool]]:
    """Return (address, whether it is a bus) pairs to try in order. Raise BusError if there are none."""
    variable = "DBUS_SESSION_BUS_ADDRESS" if user else "DBUS_SYSTEM_BUS_ADDRESS"
    if given := os.environ.get(variable):
        return [(given, True)]
    if not user:
        return [(_SYSTEM_BUS, True), (_SYSTEM_DIRECT, False)]
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    found = [
        (_bus_path(f"{directory}/{name}"), name == "bus")
        for name in ("bus", "systemd/private")
        if directory and os.access(f"{directory}/{name}", os.F_OK)
    ]
    if not found:
        raise BusError(
            f"no user manager: neither {variable} nor XDG_RUNTIME_DIR leads to one",
            hint="log in through systemd, or: loginctl enable-linger; Debian's package is dbus-user-session",
        )
    return found


class Systemd:
    """A connection to a service manager, the system's or the user's. All methods raise BusError, also on timeout."""

    __slots__ = ("_bus", "_silent", "_version", "accepted")

    def __init__(self, *, user: bool) -> None:
        seconds = _seconds(_OPEN_SECONDS)
        self._silent = False
        self._version = 0
        self.accepted = False  # whether systemd has begun a job for us, whatever became of it
        first: BusError | None = None
        for address, is_bus in _addresses(user=user):
            try:
                self._bus = Bus(address, is_bus=is_bus, seconds=seconds)
            except BusError as error:
                # The first error is the informative one.
                first = first or error
                continue
            if is_bus:
                body = variants.body(("s", _MATCH))
                self._ask("/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", body, bus_itself=True)
                # Without subscribers systemd sends no signals to a bus; a direct connection gets all.
                self._ask(_OBJECT, _MANAGER, "Subscribe")
            return
        assert first is not None
        raise first

    def _ask(
        self, path: str, interface: str, member: str, body: bytes = b"", *, bus_itself: bool = False
    ) -> str:
        # After a timeout do not wait again: it would double the time.
        seconds = 0 if self._silent else _seconds(_CALL_SECONDS)
        try:
            return self._bus.call(path, interface, member, body, seconds=seconds, bus_itself=bus_itself)
        except BusError as error:
            self._silent = self._silent or not error.name
            raise

    def call(self, member: str, *arguments: tuple[str, object]) -> str:
        """Call a method of the manager."""
        return self._ask(_OBJECT, _MANAGER, member, variants.body(*arguments))

    def manager_property(self, name: str) -> str:
        """Return a property of the manager that is a string."""
        body = variants.body(("s", _MANAGER), ("s", name))
        return self._ask(_OBJECT, "org.freedesktop.DBus.Properties", "Get", body)

    @property
    def version(self) -> int:
        """Return systemd's version, the leading number: 252."""
        if not self._version:
            text = self.manager_property("Version").lstrip("v")
            digits = len(text) - len(text.lstrip("0123456789"))
            self._version = int(text[:digits] or "0")
        return self._version

    def run_job(self, member: str, *arguments: tuple[str, object]) -> str:
        """Call a method that makes a job. Return the job's result once it is done, "" after the time limit."""
        job = self.call(member, *arguments)
        self.accepted = True
        if self._silent:
            return ""
        try:
            return self._bus.job(job, seconds=_seconds(_JOB_SECONDS))
        except BusError:
            self._silent = True
            raise

    def reset_failed(self, name: str) -> None:
        """Reset a failed unit, if there is one."""
        try:
            self.call("ResetFailedUnit", ("s", name))
        except BusError as error:
            if error.name not in _GONE:
                raise

    def start(self, name: str, properties: Sequence[Property]) -> None:
        """Make a transient unit and wait until it runs. A failed one of that name is reset first."""
        arguments: tuple[tuple[str, object], ...] = (
            ("s", name),
            ("s", "fail"),
            (_PROPERTIES, _pairs(properties)),
            ("a(sa(sv))", []),
        )
        try:
            result = self.run_job("StartTransientUnit", *arguments)
        except BusError as error:
            if error.name != _EXISTS:
                raise
            self.reset_failed(name)
            result = self.run_job("StartTransientUnit", *arguments)
        if result != "done":
            self.reset_failed(name)
            raise BusError(f"systemd could not start unit '{name}': {result}", name=result)

    def stop(self, name: str) -> None:
        """Stop a unit, if there is one, wait for the end, and reset it if it failed."""
        try:
            self.run_job("StopUnit", ("s", name), ("s", "replace"))
        except BusError as error:
            if error.name not in _GONE:
                raise
        self.reset_failed(name)


def _pairs(properties: Sequence[Property]) -> list[object]:
    return [[name, (signature, value)] for name, signature, value in properties]


def remove(recorded: str) -> None:
    """Stop the unit of a container whose processes have ended. `recorded` is Manager.unit. Raise BusError."""
    kind, _, name = recorded.partition(" ")
    Systemd(user=kind == "user").stop(name)


class UnitManager(Manager):
    """The cgroups of one container in a systemd unit; see Manager for the interface.

    A new unit is made by attach(); before that there is nothing to kill or destroy. To attach to a recorded one works
    as with any cgroup.
    """

    __slots__ = ("_annotated", "_new", "_place", "_systemd")

    def __init__(self, paths: list[tuple[str, str]], recorded: str) -> None:
        super().__init__(paths)
        self.unit = recorded
        self._annotated: list[Property] = []
        self._new = False
        self._place = ""
        self._systemd: Systemd | None = None

    @property
    def name(self) -> str:
        """Return the name of the unit."""
        return self.unit.partition(" ")[2]

    def _connect(self) -> Systemd:
        """Return the service manager of the unit, connected at first use. Raise BusError."""
        if self._systemd is None:
            self._systemd = Systemd(user=self.unit.startswith("user "))
        return self._systemd

    # --- A new container ---

    @property
    def to_make(self) -> list[str]:
        """Return the container's own directories, and in hierarchies that systemd does not use their parents."""
        if self._missing is None:
            self._missing = {}
            for path, controllers in self._hierarchies().items():
                absent = files.absent(path)
                keeps = any(controller in _SYSTEMD_KEEPS for controller in controllers)
                self._missing[path] = absent[-1:] if keeps else absent
        return [path for missing in self._missing.values() for path in missing]

    def settle(self) -> None:
        """Check that the cgroup is not in use, and connect before anything starts. Raise StateError, BusError."""
        for path in self._hierarchies():
            if os.access(path, os.F_OK):
                files.refuse_used(path)
        if self.frozen:
            raise StateError("container's cgroup unexpectedly frozen", path=files.CGROUPS_PATH)
        self._connect()

    def create(self) -> None:
        """Do nothing: systemd makes the cgroup when it gets a process."""

    @property
    def joined_at_birth(self) -> bool:
        """Return whether clone3 can start a process with what open() gives: the kernel may not allow it to users."""
        return not self._new and super().joined_at_birth and _may_enter(self.paths[0][1])

    def open(self) -> int:
        """Open as Manager.open() does; return -1 also if the unit does not exist yet or only systemd can move us."""
        return super().open() if self.joined_at_birth else -1

    def attach(self, pid: int) -> None:
        """Start the unit with this process, or move it into the unit that runs. Raise BusError, KernelError."""
        if self._new:
            self._start(pid)
        elif self.version == 2 and not _may_enter(self.paths[0][1]):
            self._move(pid)
        else:
            super().attach(pid)

    def _start(self, pid: int) -> None:
        properties = self._identity(pid) + unit.at_start(
            self._wanted(), self._version_for("memory.oom.group")
        )
        try:
            self._connect().start(self.name, properties + self._annotated)
        except BusError as error:
            # A unit that existed before is not ours, and neither are its processes.
            if self._connect().accepted:
                self._become_ours()
            hint = error.hint
            if error.name == _EXISTS:
                hint = "every container needs a cgroupsPath of its own"
            raise BusError(error.message, name=error.name, path=files.CGROUPS_PATH, hint=hint) from error
        self._become_ours()
        try:
            self._settle(pid)
        except OSError as error:
            raise KernelError(
                "mkdir", error.errno or 0, error.filename or self.paths[0][1], path=files.CGROUPS_PATH
            ) from error

    def _become_ours(self) -> None:
        self._new = False
        self.made = self.to_make

    def _version_for(self, file: str) -> int:
        """Return systemd's version, which is asked for only if a value may depend on it."""
        return self._connect().version if any(item.file == file for item in self._wanted()) else 0

    def _identity(self, pid: int) -> list[Property]:
        io = "IOAccounting" if self.version == 2 else "BlockIOAccounting"
        return [
            ("Description", "s", f"pyrunc container {self.name.removesuffix('.scope')}"),
            ("Slice", "s", self._place),
            ("Delegate", "b", True),
            ("PIDs", "au", [pid]),
            *[(name, "b", True) for name in ("MemoryAccounting", "CPUAccounting", io, "TasksAccounting")],
            ("DefaultDependencies", "b", False),
        ]

    def _settle(self, pid: int) -> None:
        """Do what systemd does not: controllers it does not support, hierarchies it does not use, a new owner."""
        main = self.directory(v1.SYSTEMD if self.version == 1 else v1.UNIFIED) or self.paths[0][1]
        if pid not in files.read_pids(main):
            raise BusError(
                f"unit '{self.name}' is not at '{main}'",
                path=files.CGROUPS_PATH,
                hint="is this the systemd of another host?",
            )
        for path, controllers in self._hierarchies().items():
            try:
                self._settle_one(path, controllers)
            except OSError:
                if not self._is_tracking(controllers):
                    raise
        if self.version == 1:
            super().attach(pid)

    def _settle_one(self, path: str, controllers: list[str]) -> None:
        if self.version == 1:
            self._make_v1(controllers, path, files.absent(path))
            return
        v2.make(path, [], self._top(path), [])
        if self._owner is None:
            return
        try:
            v2.delegate(path, self._owner)
        except PermissionError as error:
            if not self._rootless:
                raise
            self.warnings.append(f"'{path}' keeps its owner: {error.strerror}")

    # --- Any container ---

    def _move(self, pid: int) -> None:
        at = self.paths[0][1]
        whole = at.rpartition(f"/{os.path.basename(self.name)}")
        self._connect().call(
            "AttachProcessesToUnit", ("s", self.name), ("s", whole[2] if whole[1] else ""), ("au", [pid])
        )

    def _announce(self, writes: Sequence[Write], policy: device_rules.Policy | None) -> None:
        """Tell systemd first: at the next daemon-reload it reverts what it does not know."""
        properties = unit.from_writes(writes, self._connect().version if writes else 0, self._bandwidth())
        if policy is not None:
            groups = unit.device_groups(files.read("/proc/devices"))
            devices, lost = unit.from_devices(policy, groups, self.version)
            properties += devices
            self.warnings += lost
        if properties:
            self._connect().call(
                "SetUnitProperties", ("s", self.name), ("b", True), (_PROPERTIES, _pairs(properties))
            )

    def _bandwidth(self) -> tuple[int, int]:
        """Return the present CPU quota (-1: none) and period."""
        where = self.directory("cpu")
        try:
            if where is not None and self.version == 2:
                quota, period = files.read(f"{where}/cpu.max").split()
                return (-1 if quota == "max" else int(quota)), int(period)
            if where is not None:
                return int(files.read(f"{where}/cpu.cfs_quota_us")), int(
                    files.read(f"{where}/cpu.cfs_period_us")
                )
        except (OSError, ValueError):
            pass  # no such controller: setting a limit reports that
        return -1, unit.DEFAULT_PERIOD

    def kill(self) -> None:
        """Kill as Manager.kill() does, but never before the unit is ours."""
        if not self._new:
            super().kill()

    def destroy(self) -> None:
        """Remove the cgroups and the unit; do nothing if it never became ours."""
        if self._new:
            return
        problem: PyruncError | None = None
        try:
            super().destroy()
        except PyruncError as error:
            problem = error
        self._connect().stop(self.name)
        if problem is not None:
            raise problem


def _may_enter(path: str) -> bool:
    """Return whether we may move our process there: that takes access to the closest common ancestor. cgroups(7)."""
    mount = "/sys/fs/cgroup"
    own = next(
        (line[3:] for line in files.read("/proc/self/cgroup").split("\n") if line.startswith("0::")), "/"
    )
    return os.access(f"{os.path.commonpath([mount + own, path])}/cgroup.procs", os.W_OK)


def manager(spec: Mapping[str, object], given: str, container_id: str, host: HostFacts) -> UnitManager:
    """Return the manager for a new container; for users, their service manager is asked for its cgroup.

    Raise ConfigError, BusError.
    """
    wanted = unit.of(given, container_id, rootless=host.rootless)
    annotations = spec.get("annotations")
    annotated = unit.from_annotations(annotations if isinstance(annotations, dict) else {})
    if not os.path.isdir(_RUNNING):
        raise ConfigError(
            "systemd not running on this host, cannot use systemd cgroups manager",
            hint="leave out --systemd-cgroup",
        )
    if host.rootless and host.cgroup_mode != "v2":
        raise ConfigError(
            "cannot use rootless systemd cgroups manager on cgroup v1", hint="leave out --systemd-cgroup"
        )
    inner, systemd = wanted.directory, None
    if host.rootless:
        systemd = Systemd(user=True)
        inner = f"{systemd.manager_property('ControlGroup').strip('/')}/{inner}"
    if host.cgroup_mode == "v2":
        paths = [(v1.UNIFIED, v2.directory(host, inner, absolute=True))]
    else:
        paths = v1.directories(host, inner, absolute=True)
    made = UnitManager(paths, f"{'user' if host.rootless else 'system'} {wanted.name}")
    made._annotated = annotated
    made._place = wanted.slice
    made._systemd = systemd
    made._new = True
    return made
