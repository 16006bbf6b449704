"""The operation delete: remove what create made."""

from __future__ import annotations

from pyrunc.errors import SHORTAGES, BusError, KernelError, PyruncError
from pyrunc.kernel import container as kernel_container
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.requests import Context


def _remove_unit(unit: str, force: bool) -> None:
    from pyrunc import log
    from pyrunc.cgroups.systemd import driver

    try:
        driver.remove(unit)
    except BusError as error:
        # Its processes and cgroup are gone, and systemd removes an empty scope by itself.
        if not force:
            raise
        log.warning(f"the unit may be left: {error}")


def _delete_in_parts(ctx: Context, container_id: str, force: bool, only: tuple[int, int]) -> None:
    """Delete a container in a systemd unit or a group of resctrl; the state goes last: a failure can be tried again."""
    from pyrunc.container import directory as state_directory

    # Held open from here on: it shows whether this very container is still the one of that name.
    directory = state_directory.look(ctx.root, container_id)
    try:
        found = lookup.load(ctx, container_id)
        if only[0] and (found.init_pid, found.start_time) != only:
            return
        kernel_container.delete(ctx.root, container_id, force=force, keep=True, only=only)
        if not directory.lock():
            return  # another process was faster
        if found.unit:
            _remove_unit(found.unit, force)
        if found.rdt:
            from pyrunc.host import resctrl

            resctrl.remove(found.rdt)
        directory.remove()
    finally:
        directory.close()


def delete(ctx: Context, container_id: str, force: bool = False) -> None:
    """Remove what create made, then run the poststop hooks; their failures are warnings. runtime.md, Delete."""
    _delete(ctx, container_id, force, (0, 0))


def delete_own(ctx: Context, container_id: str, only: tuple[int, int]) -> None:
    """Delete by force the container whose process has that pid and start time.

    For a caller that made or found it a while ago: another container may have its name by now.
    """
    _delete(ctx, container_id, True, only)


def _delete(ctx: Context, container_id: str, force: bool, only: tuple[int, int]) -> None:
    found, ours = None, None
    try:
        found = lookup.load(ctx, container_id)
        ours = lookup.configuration(ctx, container_id) if "poststop" in found.needs else None
    except PyruncError as error:
        if isinstance(error, KernelError) and error.errno in SHORTAGES:
            raise
        # container_delete words what is wrong, or, with force, removes what is left. Where there is a record but no
        # configuration, create was killed between the two: no hook has run, but a unit may be there.
    if found is not None and only[0] and (found.init_pid, found.start_time) != only:
        return
    if found is not None and (found.unit or found.rdt):
        _delete_in_parts(ctx, container_id, force, only)
    else:
        kernel_container.delete(ctx.root, container_id, force=force, only=only)
    if found is None or ours is None:
        return
    from pyrunc import log
    from pyrunc.container.record import hook_state
    from pyrunc.launch import hooks

    document = hook_state(lookup.document(found), "stopped", 0)
    wanted = hooks.of(ours.spec, "poststop")
    for problem in hooks.run_all("poststop", wanted, document, found.bundle):
        log.warning(str(problem))
