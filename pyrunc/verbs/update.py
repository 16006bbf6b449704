"""update: other limits for a container that exists, from top to bottom.

A failure leaves the limits and the stored configuration as they were. Raise PyruncError.
"""

from __future__ import annotations

from pyrunc import log
from pyrunc.cgroups import choose
from pyrunc.cgroups import manager as cgroup_manager
from pyrunc.config import load as config
from pyrunc.config import resource_update
from pyrunc.config.rules import resources as rules
from pyrunc.container import directory as state_directory
from pyrunc.errors import ConfigError, PyruncError
from pyrunc.json_text import document as json_text
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrunc.kernel.container import Container
    from pyrunc.requests import Context
    from pyrunc.spec.shapes import Resources, Spec


_SCHEMA_OPTIONS = {"l3CacheSchema": "--l3-cache-schema", "memBwSchema": "--mem-bw-schema"}


def _set_schemas(found: Container, spec: Spec, schemas: Mapping[str, str]) -> cgroup_manager.Undo:
    """Set resctrl's schemas; what undoes it. `schemas`: l3CacheSchema and memBwSchema, "" to leave it."""
    rdt_spec = (spec.get("linux") or {}).get("intelRdt")
    for key, text in schemas.items():
        if text and (rdt_spec is None or not found.rdt):
            raise ConfigError(
                "Intel RDT is not enabled for the container",
                path=_SCHEMA_OPTIONS[key],
                hint="only a container created with linux.intelRdt has a schema",
            )
    if rdt_spec is None or not any(schemas.values()):
        return lambda _reason: None
    from pyrunc.host import resctrl

    undo = resctrl.update(found.rdt, schemas["l3CacheSchema"], schemas["memBwSchema"])
    rdt_spec.update({key: text for key, text in schemas.items() if text})  # type: ignore[typeddict-item]  # its keys
    return undo


def _apply(found: Container, stored: Mapping[str, object], resources: Resources) -> cgroup_manager.Undo:
    """Set the limits; what undoes it."""
    full, stands_for = resource_update.complete(resources, stored)
    try:
        rules.check(full, "$")  # type: ignore[arg-type]  # of checked parts
        manager = choose.from_paths(found.cgroups, found.made, found.unit)
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
    rules.check(resources, "$", partial=True)
    found, directory = lookup.hold(ctx, container_id)
    try:
        spec = lookup.configuration(ctx, container_id).spec
        schemas = {"l3CacheSchema": l3_cache_schema, "memBwSchema": mem_bw_schema}
        undo_schemas = _set_schemas(found, spec, schemas)
        linux = spec.setdefault("linux", {})
        stored: Mapping[str, object] = linux.get("resources") or {}
        undos = [undo_schemas]
        try:
            undos.append(_apply(found, stored, resources))
            linux["resources"] = resource_update.merge(stored, resources)  # type: ignore[typeddict-item]  # of checked parts
            text = json_text.dumps(spec).encode("utf-8", "surrogateescape")
            directory.write(state_directory.CONFIG, text)
        except BaseException as error:
            for undo in reversed(undos):
                undo(error)
            raise
    finally:
        directory.close()
