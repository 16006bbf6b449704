"""The operations pause and resume."""

from __future__ import annotations

from pyrunc.errors import StateError
from pyrunc.kernel import container as kernel_container
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.kernel.container import Container
    from pyrunc.requests import Context


def _freezer(found: Container) -> Sequence[tuple[str, str]]:
    if not found.cgroups:
        raise StateError(
            "cannot pause: the container has no cgroup", hint="a rootless container needs a delegated one"
        )
    return found.cgroups


def pause(ctx: Context, container_id: str) -> None:
    """Freeze all processes. Raise StateError if the container is not running."""
    found = lookup.load(ctx, container_id)
    if found.status not in ("running", "created"):
        raise StateError(f"container not running: {found.status}")
    kernel_container.cgroup_freeze(_freezer(found))


def resume(ctx: Context, container_id: str) -> None:
    """Thaw all processes. Raise StateError if the container is not paused."""
    found = lookup.load(ctx, container_id)
    # Not by the status alone: a created container can be frozen, too, and is still created.
    if found.status == "stopped" or not kernel_container.cgroup_frozen(found.cgroups):
        raise StateError(f"container not paused: {found.status}")
    kernel_container.cgroup_thaw(_freezer(found))
