"""Control groups: a Manager for one container's directories, with the same interface for v1 and v2.

    manager(...)  decides where   ->  .to_make (record it)  ->  .settle()  ->  the plan  ->  .open()
                  .create()  ->  .attach(pid) where open() was of no use  ->  .apply(...)

Facts about the two versions are in v1 and v2, values in resources and device_rules (both PURE), file access in files.
"""

from __future__ import annotations

import errno
import os

from pyrunc.cgroups import device_rules, files, resources, v1, v2
from pyrunc.errors import BusError, ConfigError, KernelError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    # Takes the exception that is the reason, and adds notes to it.
    Undo = Callable[[BaseException], None]

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_EMPTY: Mapping[str, object] = {}
# Another container's delete may remove a parent while it is empty.
_MAKE_TRIES = 100
_ATTACH_TRIES = 5


class Manager:
    """The cgroups of one container.

    `paths` are (controller, absolute directory): "" is the cgroup v2 hierarchy; two controllers that are mounted
    together have one directory. It is empty if there is no cgroup at all (rootless without permission, or disabled);
    all methods but apply() then do nothing. `made` lists the directories that were made, parents first; `warnings`
    what is missing; `unit` is "system NAME" or "user NAME" if systemd manages the cgroup, else "".
    """

    __slots__ = (
        "_explicit",
        "_in_userns",
        "_missing",
        "_owner",
        "_rootless",
        "_settled",
        "_spec",
        "_tops",
        "made",
        "paths",
        "unit",
        "version",
        "warnings",
    )

    def __init__(self, paths: list[tuple[str, str]]) -> None:
        self.paths = paths
        # 2 if there is only the one hierarchy, 1 if any controller has its own.
        self.version = 1 if any(controller for controller, _ in paths) else 2
        self.made: list[str] = []
        self.warnings: list[str] = []
        self.unit = ""
        self._explicit = False
        self._in_userns = False
        self._missing: dict[str, list[str]] | None = None
        self._owner: int | None = None
        self._rootless = False
        self._settled: set[str] = set()
        self._spec = _EMPTY
        self._tops: dict[str, str] = {}

    def directory(self, controller: str) -> str | None:
        """Return the directory of `controller`, or None if it has no hierarchy. On v2 it is the same for all."""
        for name, path in self.paths:
            if name == controller:
                return path
        return self.paths[0][1] if self.paths and self.version == 2 else None

    @property
    def to_make(self) -> list[str]:
        """Return the directories that create() will make, parents first: they are recorded before any is made."""
        if self._missing is None:
            self._missing = {path: files.absent(path) for _, path in self.paths}
        return [path for missing in self._missing.values() for path in missing]

    def check_free(self) -> None:
        """Raise StateError if there are processes in the container's cgroups.

        To be called before they are recorded: a clean-up kills the processes in recorded cgroups.
        """
        for path, controllers in self._hierarchies().items():
            if not self._absent_now(path) and not self._is_tracking(controllers):
                files.refuse_used(path)

    def settle(self) -> None:
        """Make the cgroup that init is started in, and decide which hierarchies to leave out. Raise as create() does.

        Rootless without cgroupsPath, hierarchies without permission are left out unless a limit needs them.
        """
        if self._missing is None:
            self._missing = {path: files.absent(path) for _, path in self.paths}
        if self.version == 2 or self._tolerant:
            self._create([*self._hierarchies().items()])

    def create(self) -> None:
        """Make all directories that settle() has not made, and set what processes in them need.

        Hierarchies that limit nothing are removed from `paths` if they refuse a directory. Raise StateError if one is
        in use or frozen, KernelError, ConfigError; what was made is then removed.
        """
        self._create([item for item in self._hierarchies().items() if item[0] not in self._settled])

    def _create(self, hierarchies: list[tuple[str, list[str]]]) -> None:
        if not hierarchies:
            return
        try:
            for path, controllers in hierarchies:
                self._create_one(controllers, path)
                self._settled.add(path)
            if self._settled.issuperset(self._hierarchies()) and self._stops():
                raise StateError("container's cgroup unexpectedly frozen", path=files.CGROUPS_PATH)
        except BaseException:
            self.unmake()
            raise

    def _stops(self) -> bool:
        """Return whether an attached process would be frozen, also because of a parent, by v1's freezer or cgroup2."""
        from pyrunc.kernel import container as kernel_container

        return any(
            kernel_container.cgroup_frozen([one]) for one in self.paths if one[0] in ("freezer", v1.UNIFIED)
        )

    def _hierarchies(self) -> dict[str, list[str]]:
        """Return directory -> its controllers: each directory is made and joined once."""
        found: dict[str, list[str]] = {}
        for controller, path in self.paths:
            found.setdefault(path, []).append(controller)
        return found

    def _is_tracking(self, controllers: list[str]) -> bool:
        return self.version == 1 and controllers[0] in v1.TRACKING

    def _create_one(self, controllers: list[str], path: str) -> None:
        tracking = self._is_tracking(controllers)
        if not self._absent_now(path) and not tracking:
            files.refuse_used(path)
        try:
            self._make(controllers, path)
        except OSError as error:
            number = error.errno or 0
            if tracking or (self._tolerant and number in _REFUSED):
                self._do_without(path, error)
                return
            raise KernelError("mkdir", number, error.filename or path, path=files.CGROUPS_PATH) from error

    @property
    def _tolerant(self) -> bool:
        return self._rootless and not self._explicit

    def _absent_now(self, path: str) -> list[str]:
        return self._missing[path] if self._missing is not None else files.absent(path)

    def _do_without(self, path: str, error: OSError) -> None:
        # In place: the caller has recorded this list object before create().
        self.paths[:] = [entry for entry in self.paths if entry[1] != path]
        self.warnings.append(f"no cgroup '{path}': {os.strerror(error.errno or 0)}")
        wanted = self._wanted() if self.version == 2 else []
        if wanted:
            raise KernelError(
                "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: mkdir",
                error.errno or 0,
                path,
                path=wanted[0].path,
                hint="have a cgroup delegated to the user, or remove the limits",
            )

    def _wanted(self) -> list[resources.Write]:
        return resources.plan_writes(self._spec, self.version)

    def _make(self, controllers: list[str], path: str) -> None:
        """Make one hierarchy's directories, again if a parent vanishes meanwhile. Raise OSError, ConfigError."""
        missing = self._absent_now(path)
        for left in range(_MAKE_TRIES, -1, -1):
            try:
                if self.version == 2:
                    self._make_v2(path, missing)
                else:
                    self._make_v1(controllers, path, missing)
            except OSError as error:
                # ENODEV: a parent that is just being removed.
                gone = error.errno in (errno.ENOENT, errno.ENODEV)
                if not gone or not left or not os.access(self._top(path), os.F_OK):
                    raise
                missing = files.absent(path)
            else:
                return

    def _top(self, path: str) -> str:
        return self._tops.get(path, "/")

    def _make_v1(self, controllers: list[str], path: str, missing: list[str]) -> None:
        for one in missing:
            files.make(one, path, self.made)
        if "cpuset" in controllers:
            for one in missing or [path]:
                v1.fill_cpuset(one, self._configured_cpuset() if one == path else {}, self._top(path))

    def _configured_cpuset(self) -> dict[str, str]:
        cpu = self._spec.get("cpu")
        found = {}
        if isinstance(cpu, dict):
            for name in ("cpus", "mems"):
                if isinstance(cpu.get(name), str) and cpu[name]:
                    found[f"cpuset.{name}"] = cpu[name]
        return found

    def _make_v2(self, path: str, missing: list[str]) -> None:
        v2.make(path, missing, self._top(path), self.made)
        v2.settle_type(path, missing, self._wanted)
        if self._owner is not None and path in missing:
            v2.delegate(path, self._owner)

    def unmake(self) -> None:
        """Remove the directories that were made, before any process is in them."""
        for path in reversed(self.made):
            try:
                os.rmdir(path)
            except OSError:
                pass  # used by another process now, or gone: not ours to remove
        self.made.clear()
        self._settled.clear()

    @property
    def joined_at_birth(self) -> bool:
        """Return whether open() gives a descriptor, with which a process starts inside the cgroup."""
        return self.version == 2 and bool(self.paths)

    def open(self) -> int:
        """Return a descriptor of the v2 directory for CLONE_INTO_CGROUP, or -1 to use attach(). Raise KernelError."""
        if not self.joined_at_birth:
            return -1
        path = self.paths[0][1]
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError("open", error.errno or 0, path, path=files.CGROUPS_PATH) from error

    def attach(self, pid: int) -> None:
        """Move a process into the cgroups, one write per hierarchy. Raise KernelError."""
        text = str(pid)
        for path, controllers in self._hierarchies().items():
            try:
                _attach_one(f"{path}/cgroup.procs", text)
            except OSError as error:
                number = error.errno or 0
                if self._is_tracking(controllers):
                    continue
                if self._tolerant and number in _REFUSED:
                    self._do_without(path, error)
                    continue
                hint = _attach_hint(number)
                raise KernelError(
                    "write", number, f"{path}/cgroup.procs", path=files.CGROUPS_PATH, hint=hint
                ) from error

    def apply(self, wanted: Mapping[str, object], path: str = resources.RESOURCES) -> None:
        """Set the limits of `linux.resources`; `path` is their JSON path.

        Raise ConfigError, KernelError, and BusError if systemd manages the cgroup.
        """
        items = self._items(wanted, path)
        policy = None
        if self.paths and not self._in_userns:
            listed = wanted.get("devices") or []
            assert isinstance(listed, list)
            policy = device_rules.policy(listed, f"{path}.devices")
            self.warnings += [
                f"{where}: type 'a' is all devices and all access: its numbers and its access are ignored"
                for where in policy.widened
            ]
        self._set(items, policy)
        if policy is not None:
            self._apply_devices(policy, f"{path}.devices")

    def update(self, wanted: Mapping[str, object], path: str) -> Undo:
        """Change limits, all or none. Return a function that restores the previous ones. Raise as apply() does.

        That function takes the exception that is the reason, and adds its own failures as notes. Device rules are set
        by create only: engines send a blanket denial with every update, which would revoke what was granted since.
        """
        items = self._items(wanted, path)
        saved = files.saved(items)

        def undo(reason: BaseException) -> None:
            try:
                self._announce([item for _, item in saved], None)
            except BusError as error:
                reason.add_note(f"while going back: {error}")
            files.restore(saved, reason)

        try:
            self._set(items, None)
        except BaseException as error:
            undo(error)
            raise
        return undo

    def _set(self, items: list[tuple[str, resources.Write]], policy: device_rules.Policy | None) -> None:
        self._announce([item for _, item in items], policy)
        files.put_all(items)

    def _items(self, wanted: Mapping[str, object], path: str) -> list[tuple[str, resources.Write]]:
        """Return (directory, write) pairs, checked against the present usage."""
        items = []
        for item in resources.plan_writes(wanted, self.version, path):
            where = self.directory(item.controller)
            if where is None:
                raise self._nowhere(item)
            if item.warning:
                self.warnings.append(f"{item.path}: {item.warning}")
            items.append((where, item))
        files.check_all(items)
        return items

    def _nowhere(self, item: resources.Write) -> ConfigError:
        hint = f"the host has no {item.controller} hierarchy"
        if self._rootless or not self.paths:
            hint = "have a cgroup delegated to the user"
        what = f"cannot set {item.controller} limit: container could not join or create cgroup"
        return ConfigError(what, path=item.path, hint=hint)

    def _announce(self, writes: Sequence[resources.Write], policy: device_rules.Policy | None) -> None:
        """Tell another manager of the cgroup (systemd) what will be set."""

    def _apply_devices(self, policy: device_rules.Policy, path: str) -> None:
        v1_directory = self.directory("devices") if self.version == 1 else None
        v2_directory = self.directory(v1.UNIFIED)
        try:
            if v1_directory is not None:
                v1.write_devices(v1_directory, device_rules.v1_lines(policy))
            elif v2_directory is not None:
                v2.attach_devices(v2_directory, device_rules.program(policy), path)
            elif not self._rootless:
                raise ConfigError(
                    "the host has no devices hierarchy", path=path, hint="mount the devices controller"
                )
        except KernelError as error:
            if not self._rootless:
                raise
            # Without privileges device nodes cannot be made either; runc and crun continue as well.
            self.warnings.append(f"device rules not applied: {error}")

    @property
    def frozen(self) -> bool:
        """Return whether the container is paused; without a cgroup it never is."""
        if not self.paths:
            return False
        from pyrunc.kernel import container as kernel_container

        return kernel_container.cgroup_frozen(self.paths)

    def pids(self) -> list[int]:
        """Return every process of the container, also those in cgroups below. Raise KernelError."""
        for controller in ("devices", "pids", "freezer", "memory"):
            where = self.directory(controller)
            if where is not None:
                return files.tree_pids(where)
        return files.tree_pids(self.paths[0][1]) if self.paths else []

    def kill(self) -> None:
        """Send SIGKILL to every process, also in all cgroups below. Raise KernelError."""
        if self.paths:
            from pyrunc.kernel import container as kernel_container

            kernel_container.cgroup_kill(self.paths)

    def destroy(self) -> None:
        """Remove the container's directories, then the parents that create() made unless they are in use."""
        if self.paths:
            from pyrunc.kernel import container as kernel_container

            kernel_container.cgroup_remove(self.paths, self.made)


def _attach_one(path: str, text: str) -> None:
    for left in range(_ATTACH_TRIES, -1, -1):
        try:
            files.write(path, text)
        except OSError as error:
            # EINVAL may mean that the kernel is still creating the process.
            if error.errno != errno.EINVAL or not left:
                raise
            import time

            time.sleep(0.03)
        else:
            return


def _attach_hint(number: int) -> str | None:
    if number == errno.ENOSPC:
        return "the cpuset has no CPUs or no memory nodes"
    if number in (errno.EBUSY, errno.EOPNOTSUPP):
        return "on cgroup v2 only a cgroup without controllers for its children can hold processes"
    return None
