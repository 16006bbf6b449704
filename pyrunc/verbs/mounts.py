"""mounts add, mounts remove: change the mounts of an existing container.

A failure leaves the mounts and the stored configuration as they were. Raise PyruncError.
"""

from __future__ import annotations

from pyrunc import log
from pyrunc.config import load as config
from pyrunc.config.rules import linux as rules_linux
from pyrunc.config.rules import mounts as rules_mounts
from pyrunc.container import directory as state_directory
from pyrunc.container import process as container_process
from pyrunc.errors import ConfigError, ContainerError, StateError
from pyrunc.host import gather
from pyrunc.json_text import document as json_text
from pyrunc.launch import init as launch
from pyrunc.plan import changes as plan_changes
from pyrunc.plan.job import Plan, PlanOptions
from pyrunc.spec import mount_options
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.requests import Context
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Mount, Spec

_MOST = 200


class _Change:
    """A container whose mounts are changed: locked, alive, with its configuration."""

    __slots__ = ("directory", "facts", "found", "spec")

    def __init__(self, ctx: Context, container_id: str) -> None:
        self.found, self.directory = lookup.hold(ctx, container_id)
        try:
            self.spec: Spec = lookup.configuration(ctx, container_id).spec
        except BaseException:
            self.directory.close()
            raise
        self.facts: HostFacts = gather.gather(rootless=ctx.rootless)

    def options(self, container_id: str) -> PlanOptions:
        """What the planner must know."""
        found = self.found
        return PlanOptions(
            bundle=found.bundle,
            container_id=container_id,
            rootfs="/",
            init_pid=found.pid,
            cgroup_paths=found.cgroups,
        )

    def carry_out(self, the_plan: Plan, left: Sequence[Mount], *, asks: bool) -> None:
        """Let init do it; then the stored configuration has the mounts that are `left`.

        `asks`: it tells when all is done, and undoes it unless it may go on.
        """
        init = launch.start(the_plan.ops, known={})
        try:
            # By now its namespaces are open: were its pid another process's, they would be that one's.
            if container_process.has_ended(self.found.pid, self.found.start_time):
                raise StateError("container not running: stopped")
            code, _ = init.receive()
            if bool(code) != asks:
                raise init.died("all was mounted")
            if not asks and init.dismiss():
                raise ContainerError("init was ended from outside: some of the mounts may be left")
            self.spec["mounts"] = list(left)
            text = json_text.dumps(self.spec).encode("utf-8", "surrogateescape")
            self.directory.write(state_directory.CONFIG, text)
            if asks:
                init.go()
                init.receive()
        finally:
            init.dismiss()
        log.warn_all(the_plan.warnings, init.warnings)


def _check(wanted: Sequence[Mount], change: _Change) -> None:
    """Raise ConfigError for the first mount that cannot be added to a running container."""
    linux = change.spec.get("linux") or {}
    spaces = rules_linux.namespaces(linux, None)
    if len(wanted) > _MOST:
        raise ConfigError(
            f"{len(wanted)} mounts are more than {_MOST}, the most that can be added at once", path="$"
        )
    for index, mount in enumerate(wanted):
        at = f"$[{index}]"
        rules_mounts.check(mount, at, linux, spaces, change.facts)
        options = mount_options.parse(mount.get("options") or ())
        if mount_options.inside(mount["destination"]) == "/":
            raise ConfigError("a running container keeps its root", path=f"{at}.destination")
        if options.remount:
            raise ConfigError("remount adds no mount", path=f"{at}.options")
        if options.copy_symlink:
            raise ConfigError("copy-symlink adds no mount", path=f"{at}.options")


def add(ctx: Context, container_id: str, wanted: Sequence[Mount]) -> None:
    """Mount `wanted`, entries of config.json's mounts, all or none; JSON paths in errors begin with "$".

    Sources are absolute or relative to the bundle, as in config.json.
    """
    config.check_mounts(list(wanted))
    change = _Change(ctx, container_id)
    try:
        _check(wanted, change)
        the_plan = plan_changes.add(wanted, change.spec, change.facts, change.options(container_id))
        change.carry_out(the_plan, [*(change.spec.get("mounts") or ()), *wanted], asks=True)
    finally:
        change.directory.close()


def _without(listed: Sequence[Mount], targets: Sequence[str]) -> list[Mount]:
    """The mounts that are left: of several at one destination the last has gone."""
    left = list(listed)
    for target in targets:
        for index in range(len(left) - 1, -1, -1):
            if mount_options.inside(left[index]["destination"]) == target:
                del left[index]
                break
    return left


def remove(ctx: Context, container_id: str, destinations: Sequence[str]) -> None:
    """Unmount what is at each of `destinations`, even if the container mounted it, all or none.

    Not the root, /proc, /dev, nor what covers linux.maskedPaths and readonlyPaths. Processes that use a mount keep it.
    """
    change = _Change(ctx, container_id)
    try:
        targets = [mount_options.inside(item) for item in destinations]
        for index, target in enumerate(targets):
            if "\0" in target:
                raise ConfigError("mount field contains null byte", path=f"$[{index}].destination")
            if target in targets[:index]:
                raise ConfigError(f"'{target}' is listed twice", path=f"$[{index}].destination")
        the_plan = plan_changes.remove(targets, change.spec, change.facts, change.options(container_id))
        change.carry_out(the_plan, _without(change.spec.get("mounts") or (), targets), asks=False)
    finally:
        change.directory.close()
