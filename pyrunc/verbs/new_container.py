"""A container that is coming up: what create and restore make alike, and how it is undone.

Raises PyruncError.
"""

from __future__ import annotations

import os

from pyrunc import log
from pyrunc.cgroups import choose
from pyrunc.container import directory as state_directory
from pyrunc.container.record import Record
from pyrunc.errors import ConfigError, ContainerError, PyruncError, StateError
from pyrunc.kernel import container as kernel_container
from pyrunc.launch import hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.cgroups.manager import Manager
    from pyrunc.config.load import Config
    from pyrunc.host.network import Devices
    from pyrunc.host.resctrl import Group
    from pyrunc.requests import Context
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Spec


def rootfs_path(configuration: Config) -> str:
    """root.path made absolute. Raises ConfigError or StateError when it is no directory (config.md, Root)."""
    rootfs = configuration.rootfs()
    if not os.path.isdir(rootfs):
        raise StateError(
            f"the rootfs path '{rootfs}' does not exist or is no directory",
            path="$.root.path",
            hint="a relative path is taken from the bundle",
        )
    return rootfs


def _record(configuration: Config, container_id: str, rootfs: str, *, strict: bool) -> Record:
    spec = configuration.spec
    record = Record(
        bundle=configuration.bundle,
        rootfs=rootfs,
        container_id=container_id,
        annotations=spec.get("annotations"),
    )
    namespaces = (spec.get("linux") or {}).get("namespaces") or []
    # A joined one outlives our init, so that the end of init does not end the others in it.
    record.pidns_private = any(item["type"] == "pid" and not item.get("path") for item in namespaces)
    late = ("prestart",) if strict else ()
    record.needs = [
        kind for kind in (*late, "startContainer", "poststart", "poststop") if hooks.of(spec, kind)
    ]
    return record


class PlanChangedError(Exception):
    """Something that the plan counts on could not be had, and is done without."""


class Attempt:
    """A container under way: what there is to undo, in the order of making. `abort` ends its init."""

    __slots__ = (
        "abort",
        "devices",
        "directory",
        "drop_pid_file",
        "hooks_failed",
        "made",
        "manager",
        "rdt",
        "record",
        "spec",
        "stop",
        "written",
    )

    def __init__(self, ctx: Context, container_id: str, configuration: Config, facts: HostFacts) -> None:
        """Make and lock the state directory; from here on undo() has something to do."""
        rootfs = rootfs_path(configuration)
        self.directory = state_directory.create(ctx.root, container_id)
        self.spec: Spec = configuration.spec
        self.record = _record(configuration, container_id, rootfs, strict=facts.strict)
        self.manager: Manager | None = None
        self.made = False
        self.abort: Callable[[], None] | None = None
        self.devices: Devices | None = None
        self.rdt: Group | None = None
        self.hooks_failed = False
        self.drop_pid_file: Callable[[], None] | None = None
        # What ends hooks that run: see launch/hooks.py.
        self.stop: hooks.Stop | None = None
        self.written = b""

    def _render(self) -> bytes:
        """The state file. Raises ConfigError when nobody could read it again: first of all before anything is made."""
        content = self.record.render()
        if len(content) > kernel_container.STATE_MAX:
            size = f"{len(content) / (1 << 20):.1f} MiB"
            raise ConfigError(
                f"they make a state of {size}, {kernel_container.STATE_MAX >> 20} MiB are the most that can be "
                "read again",
                path="$.annotations",
                hint="engines read the whole state again and again: keep large data in files",
            )
        return content

    def _remember(self) -> None:
        """Write what delete --force needs, should this be as far as we come."""
        content = self._render()
        if content != self.written:
            self.directory.write(state_directory.CREATING, content)
            self.written = content

    def settle(self, ctx: Context, facts: HostFacts) -> Manager:
        """Decide on the cgroups and the group of resctrl, and record them; make what the plan depends on."""
        record = self.record
        manager = choose.manager(
            self.spec,
            str(record.document["id"]),
            facts,
            systemd=ctx.systemd_cgroup,
            disabled=ctx.cgroup_manager == "disabled",
        )
        manager.check_free()
        # Written before anything is made, so that a runtime killed at any point leaves what delete --force needs.
        record.cgroups = manager.paths
        record.made = manager.to_make
        record.unit = manager.unit
        if manager.unit:
            record.needs.append("systemd")
        self._resctrl_group(facts)
        self._remember()
        manager.settle()
        self.manager = manager
        # Init is in there from its birth, and has to be gone before the directory can be removed.
        self.made = manager.joined_at_birth
        return manager

    def make(self) -> bool:
        """Make what else settle() has decided on. False: a cgroup is done without; the next try finds all settled."""
        if self.manager is not None:
            count = len(self.manager.paths)
            self.manager.create()
            # Only now: what create refuses to take may hold somebody else's processes, and cleaning up kills.
            self.made = True
            if len(self.manager.paths) != count:
                return False
        if self.rdt is not None:
            self.rdt.create()
        return True

    def _resctrl_group(self, facts: HostFacts) -> None:
        """Decide on the group that linux.intelRdt asks for; the record is told, nothing is made yet."""
        wanted = (self.spec.get("linux") or {}).get("intelRdt")
        if wanted is None:
            return
        from pyrunc.host import resctrl

        record = self.record
        self.rdt = resctrl.Group(wanted, str(record.document["id"]), facts.resctrl)
        record.rdt = self.rdt.places
        if self.rdt.made:
            record.needs.append("intelRdt")

    def born(self, pid: int) -> None:
        """The container's process is `pid` from now on."""
        if self.record.pid != pid:
            self.record.take_process(pid)

    def beside(self, pid: int, manager: Manager, configuration: Config) -> None:
        """What init does not wait for while it makes namespaces, and what it then waits for.

        Raises PlanChangedError when its plan is not true any more.
        """
        self.born(pid)
        self._remember()
        if not self.make():
            raise PlanChangedError
        if not manager.joined_at_birth:
            manager.attach(pid)
        self.directory.write(state_directory.CONFIG, configuration.text)

    def start_again(self) -> None:
        """End the init, for another one with another plan."""
        if self.abort is not None:
            self.abort()
            self.abort = None
        self.record.pid = 0
        self.directory.drop(state_directory.FIFO)

    def in_environment(self, pid: int) -> None:
        """The container's namespaces are there, `pid` is in them, its program is not: runtime.md, steps 3 and 4."""
        record = self.record
        self.born(pid)
        if self.rdt is not None:
            # Before the first hook in the container: what it starts is to be in the group as well.
            self.rdt.attach(pid)
            record.rdt = self.rdt.places
        self._remember()
        linux = self.spec.get("linux") or {}
        if wanted := linux.get("netDevices"):
            from pyrunc.host import network  # 150 ms, by pyroute2

            self.devices = network.Devices(pid)
            self.devices.move(wanted)
        if self.manager is not None:
            self.manager.apply(linux.get("resources") or {})
        kinds = ("prestart", "createRuntime")
        self._in_runtime_hooks([kind for kind in kinds if kind not in record.needs])

    def _in_runtime_hooks(self, kinds: Sequence[str]) -> None:
        for kind in kinds:
            wanted = hooks.of(self.spec, kind)
            if wanted:
                log.debug(f"{len(wanted)} {kind} hooks")
                try:
                    document = self.record.hook_state("created")
                    hooks.run(kind, wanted, document, self.record.bundle, self.stop)
                except ContainerError:
                    self.hooks_failed = True
                    raise

    def publish(self) -> None:
        """From now on the container is there for others."""
        content = self._render()
        if content == self.written:
            # A new file costs more than all else here.
            self.directory.rename(state_directory.CREATING, state_directory.STATE)
        else:
            self.directory.write(state_directory.STATE, content)
            self.directory.drop(state_directory.CREATING)
        log.debug(f"state written below '{self.directory.path}'")

    def out_of_memory(self) -> ContainerError | None:
        """Why init died without a word, if memory ran out: its cgroup knows as long as it exists."""
        from pyrunc.cgroups import files

        if self.manager is None or not files.oom_kills(self.manager.paths):
            return None
        resources = (self.spec.get("linux") or {}).get("resources") or {}
        limit = (resources.get("memory") or {}).get("limit")
        if limit is None:
            return ContainerError(
                "init was OOM-killed", hint="the memory limit of a cgroup above is too low"
            )
        return ContainerError(
            f"init was OOM-killed, the memory limit of {limit} is too low",
            path="$.linux.resources.memory.limit",
        )

    def undo(self, reason: BaseException) -> None:
        """Leave nothing behind; what fails in here is noted on `reason` and hides nothing."""
        steps: list[Callable[[], None]] = []
        if self.devices is not None:
            # First, and the namespace is held until then: virtual devices end with it.
            steps += [self.devices.move_back, self.devices.close]
        if self.abort is not None:
            steps.append(self.abort)
        if self.manager is not None:
            steps += [self.manager.kill, self.manager.destroy] if self.made else [self.manager.unmake]
        if self.rdt is not None:
            steps.append(self.rdt.undo)
        if self.drop_pid_file is not None:
            steps.append(self.drop_pid_file)
        steps += [self.directory.remove, self.directory.close]
        for step in steps:
            try:
                step()
            except (PyruncError, OSError) as error:
                reason.add_note(f"while cleaning up: {error}")
        if self.hooks_failed:
            self.record.pid = 0
            failed = hooks.run_all(
                "poststop",
                hooks.of(self.spec, "poststop"),
                self.record.hook_state("stopped"),
                self.record.bundle,
            )
            for problem in failed:
                reason.add_note(str(problem))

    def close(self) -> None:
        """All is well: let go of what was held."""
        if self.devices is not None:
            self.devices.close()
        self.directory.close()
