"""A container that is being created: the decisions about it, what is made for it, and how that is undone.

    NewContainer(...)  .choose_cgroups()  .plan(...)       decided; nothing is made: this far explain goes
    .make_directory()  .settle()                           a runtime that is killed leaves what delete --force needs
    .start_init(...)   .join(...)  .in_environment(...)    init is there, has its cgroups, is in its environment
    .publish()  .close()     or     .undo(...)

create and restore bring up their containers with it. All methods raise PyruncError.
"""

from __future__ import annotations

import os

from pyrunc import log
from pyrunc.cgroups import choose
from pyrunc.cgroups.manager import Manager
from pyrunc.config.rules import document as rules
from pyrunc.container import directory as state_directory
from pyrunc.container.record import OWN_PID, Record
from pyrunc.errors import ConfigError, ContainerError, PyruncError, StateError
from pyrunc.kernel import container as kernel_container
from pyrunc.launch import hooks
from pyrunc.launch import init as launch
from pyrunc.plan import numbers, planner
from pyrunc.plan.job import PlanOptions
from pyrunc.seccomp import filters
from pyrunc.spec.namespaces import joins
from pyrunc.verbs import joined_namespaces, process_io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.config.load import Config
    from pyrunc.host.network import Devices
    from pyrunc.host.resctrl import Group
    from pyrunc.plan.job import Plan
    from pyrunc.requests import Context, CreateOptions
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Spec


def check(spec: Spec, facts: HostFacts) -> None:
    """Raise ConfigError if no container can be made of this configuration on this host."""
    rules.check(spec, facts)
    joined_namespaces.check(spec)


def check_rootfs(rootfs: str) -> None:
    """Raise StateError unless the root file system is a directory (config.md, Root)."""
    if not os.path.isdir(rootfs):
        raise StateError(
            f"the rootfs path '{rootfs}' does not exist or is no directory",
            path="$.root.path",
            hint="a relative path is taken from the bundle",
        )


def _record(configuration: Config, container_id: str, *, strict: bool) -> Record:
    spec = configuration.spec
    record = Record(
        bundle=configuration.bundle,
        rootfs=configuration.rootfs(),
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


class NewContainer:
    """A container that is being created. `abort` ends its init, `stop` ends running hooks (see launch/hooks.py)."""

    __slots__ = (
        "abort",
        "configuration",
        "ctx",
        "devices",
        "directory",
        "drop_pid_file",
        "facts",
        "hook_failed",
        "made",
        "manager",
        "rdt",
        "record",
        "spec",
        "stop",
        "written",
    )

    directory: state_directory.StateDir

    def __init__(self, ctx: Context, container_id: str, configuration: Config, facts: HostFacts) -> None:
        self.ctx = ctx
        self.configuration = configuration
        self.spec: Spec = configuration.spec
        self.facts = facts
        self.record = _record(configuration, container_id, strict=facts.strict)
        self.manager = Manager([])
        self.made = False
        self.abort: Callable[[], None] | None = None
        self.devices: Devices | None = None
        self.rdt: Group | None = None
        self.hook_failed = False
        self.drop_pid_file: Callable[[], None] | None = None
        self.stop: hooks.Stop | None = None
        self.written = b""

    @property
    def id(self) -> str:
        """The container's id."""
        return str(self.record.document["id"])

    def choose_cgroups(self) -> None:
        """Decide which cgroups the container is going to have."""
        self.manager = choose.manager(
            self.spec,
            self.id,
            self.facts,
            systemd=self.ctx.systemd_cgroup,
            disabled=self.ctx.cgroup_manager == "disabled",
        )

    def plan(self, options: CreateOptions, *, filters_in: str = "") -> Plan:
        """Return init's plan. `filters_in` is the directory of compiled filters, "" for none."""
        inputs = self.plan_inputs(no_pivot=options.no_pivot)
        inputs.no_new_keyring = options.no_new_keyring
        inputs.preserve_fds, inputs.extra_env = process_io.extra_fds(options)
        if "notify" in self.record.needs:
            from pyrunc.host import notify

            inputs.extra_env = [*inputs.extra_env, notify.ENVIRONMENT]
        if self.spec.get("hooks"):
            hook_state = self.record.hook_state("created", OWN_PID)
            inputs.hook_states = {"createContainer": hook_state, "startContainer": hook_state}
        inputs.seccomp = compiled = filters.of_spec(self.spec, filters_in)
        if joins(self.spec, "pid"):
            inputs.own_calls = filters.own_calls(compiled, self.spec.get("process") or {})
        return planner.create(self.spec, self.facts, inputs)

    def plan_inputs(self, *, no_pivot: bool) -> PlanOptions:
        """What every plan of this container is made from, whatever becomes of it."""
        manager = self.manager
        return PlanOptions(
            bundle=self.configuration.bundle,
            container_id=self.id,
            rootfs=str(self.record.document["rootfs"]),
            no_pivot=no_pivot,
            cgroup_paths=list(manager.paths),
            attached_late=bool(manager.paths) and not manager.joined_at_birth,
            pid_inside=joined_namespaces.pid_inside_user(self.spec),
        )

    def check_size(self) -> None:
        """Raise ConfigError if the state could not be read again."""
        self._render()

    def make_directory(self) -> None:
        """Make and lock the state directory; from here on undo() has something to do."""
        check_rootfs(str(self.record.document["rootfs"]))
        self.directory = state_directory.create(self.ctx.root, self.id)

    def _render(self) -> bytes:
        """Return the state file. Raise ConfigError if it would be unreadable, before anything is made."""
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
        """Write what delete --force needs if we are killed from here on."""
        content = self._render()
        if content != self.written:
            self.directory.write(state_directory.CREATING, content)
            self.written = content

    def settle(self) -> None:
        """Record the cgroups and the group of resctrl, then make what the plan depends on."""
        record, manager = self.record, self.manager
        manager.check_free()
        # Written before anything is made, so that a runtime killed at any point leaves what delete --force needs.
        record.cgroups = manager.paths
        record.made = manager.to_make
        record.unit = manager.unit
        if manager.unit:
            record.needs.append("systemd")
        self._choose_resctrl_group()
        self._remember()
        manager.settle()
        # Init is in it from its start, and must end before the directory can be removed.
        self.made = manager.joined_at_birth

    def _choose_resctrl_group(self) -> None:
        """Decide on the group that linux.intelRdt asks for; the record is told, nothing is made yet."""
        wanted = (self.spec.get("linux") or {}).get("intelRdt")
        if wanted is None:
            return
        from pyrunc.host import resctrl

        record = self.record
        self.rdt = resctrl.Group(wanted, self.id, self.facts.resctrl)
        record.rdt = self.rdt.places
        if self.rdt.made:
            record.needs.append("intelRdt")

    def make_cgroups(self) -> bool:
        """Make what else settle() has recorded. False if a cgroup is done without; the next try finds all settled."""
        count = len(self.manager.paths)
        self.manager.create()
        # Only now: cgroups that create refuses may have other processes, which cleaning up would kill.
        self.made = True
        if len(self.manager.paths) != count:
            return False
        if self.rdt is not None:
            self.rdt.create()
        return True

    def start_init(self, plan: Plan) -> launch.Init:
        """Start init with its plan: on v2 inside its cgroup."""
        known = {"fifo": self.directory.make_fifo()}
        fds = list(known.values())
        try:
            if any(op.name == "LAST_WORDS" for op in plan.ops):
                known["words"] = self.directory.make_words(numbers.LAST_WORDS_SIZE)
                fds.append(known["words"])
            cgroup_fd = self.manager.open()
            if cgroup_fd >= 0:
                fds.append(cgroup_fd)
            init = launch.start(
                plan.ops,
                known=known,
                clone_flags=plan.clone_flags,
                cgroup_fd=cgroup_fd,
                deadline=not hooks.of(self.spec, "createContainer"),
            )
        finally:
            for fd in fds:
                os.close(fd)
        self.abort = init.abort
        return init

    def end_init(self) -> None:
        """End the init, for another one with another plan."""
        if self.abort is not None:
            self.abort()
            self.abort = None
        self.record.pid = 0
        self.directory.drop(state_directory.FIFO)

    def record_process(self, pid: int) -> None:
        """The container's process is `pid` from now on."""
        if self.record.pid != pid:
            self.record.take_process(pid)

    def join(self, pid: int) -> bool:
        """Make the cgroups and move init there, while it makes namespaces. False if its plan does not hold any more."""
        self.record_process(pid)
        self._remember()
        if not self.make_cgroups():
            return False
        if not self.manager.joined_at_birth:
            self.manager.attach(pid)
        self.directory.write(state_directory.CONFIG, self.configuration.text)
        return True

    def in_environment(self, pid: int) -> None:
        """The container's namespaces are there, `pid` is in them, its program is not: runtime.md, steps 3 and 4."""
        record = self.record
        self.record_process(pid)
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
                    self.hook_failed = True
                    raise

    def publish(self) -> None:
        """Make the container visible to other commands."""
        content = self._render()
        if content == self.written:
            # A new file costs more than all else here.
            self.directory.rename(state_directory.CREATING, state_directory.STATE)
        else:
            self.directory.write(state_directory.STATE, content)
            self.directory.drop(state_directory.CREATING)
        log.debug(f"state written below '{self.directory.path}'")

    def out_of_memory(self) -> ContainerError | None:
        """Return why init died without a message, if memory ran out, which its cgroup shows."""
        from pyrunc.cgroups import files

        if not files.oom_kills(self.manager.paths):
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
        """Remove everything that was made; failures become notes on `reason`."""
        steps: list[Callable[[], None]] = []
        if self.devices is not None:
            # First, and the namespace is held until then: virtual devices end with it.
            steps += [self.devices.move_back, self.devices.close]
        if self.abort is not None:
            steps.append(self.abort)
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
        if self.hook_failed or _is_of_hook(reason):
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
        """Close the descriptors after success."""
        if self.devices is not None:
            self.devices.close()
        self.directory.close()


def _is_of_hook(reason: BaseException) -> bool:
    """Return whether a hook that init runs has failed."""
    return isinstance(reason, ContainerError) and (reason.path or "").startswith("$.hooks.")
