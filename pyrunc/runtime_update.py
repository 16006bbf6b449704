"""update: other limits for a container that exists, from top to bottom.

A failure leaves the limits and the stored configuration as they were. Imported by runtime for this verb only. Raises
PyruncError.
"""

from __future__ import annotations

from pyrunc import cgroups, config, jsonfast, kernel, log, rules, state, updates
from pyrunc.errors import ConfigError, PyruncError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrunc.kernel import Container
    from pyrunc.requests import Context
    from pyrunc.spec_types import Resources, Spec


def _alive(ctx: Context, container_id: str) -> Container:
    found = kernel.container_state(ctx.root, container_id)
    if found.status not in ("created", "running", "paused"):
        raise StateError(f"container not running: {found.status}")
    return found


def _check_schemas(spec: Spec, schemas: Mapping[str, str]) -> None:
    for option, text in schemas.items():
        if text and "intelRdt" not in (spec.get("linux") or {}):
            raise ConfigError(
                "Intel RDT is not enabled for the container",
                path=option,
                hint="only a container created with linux.intelRdt has a schema",
            )


def _apply(found: Container, stored: Mapping[str, object], resources: Resources) -> cgroups.Undo:
    """Set the limits; what undoes it."""
    full, stands_for = updates.complete(resources, stored)
    try:
        manager = cgroups.from_paths(found.cgroups, found.made, found.unit)
        undo = manager.update(full, "$")
    except PyruncError as error:
        error.path = stands_for.get(error.path or "", error.path)
        raise
    for warning in manager.warnings:
        log.warning(warning)
    return undo


def update(
    ctx: Context,
    container_id: str,
    resources: Resources,
    *,
    l3_cache_schema: str = "",
    mem_bw_schema: str = "",
) -> None:
    """Change the limits named in `resources`, a linux.resources object whose paths in errors begin with "$".

    What is not named, and 0 where that is no limit, stays as it is; -1 lifts a limit. Device rules are never touched.
    The stored configuration has the new values afterwards.
    """
    config.check_resources(resources)
    rules.check_resources(resources, "$", partial=True)
    _alive(ctx, container_id)
    directory = state.open_(ctx.root, container_id)
    try:
        # Again, as it may have ended while another update had the lock.
        found = _alive(ctx, container_id)
        spec = config.load(directory.path).spec
        _check_schemas(spec, {"--l3-cache-schema": l3_cache_schema, "--mem-bw-schema": mem_bw_schema})
        linux = spec.setdefault("linux", {})
        stored: Mapping[str, object] = linux.get("resources") or {}
        undo = _apply(found, stored, resources)
        linux["resources"] = updates.merge(stored, resources)  # type: ignore[typeddict-item]  # of checked parts
        try:
            text = jsonfast.dumps(spec).encode("utf-8", "surrogateescape")
            directory.write(state.CONFIG, text)
        except BaseException as error:
            undo(error)
            raise
    finally:
        directory.close()
