"""The operations of the runtime, for the verbs of the command line and for Python programs.

Each loads its module of verbs/ when it is called. All functions raise PyruncError.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyrunc.plan.job import Plan
    from pyrunc.requests import (
        CheckpointOptions,
        Context,
        CreateOptions,
        ExecOptions,
        RestoreOptions,
        RunOptions,
    )
    from pyrunc.spec.shapes import Mount, Resources


def create(ctx: Context, container_id: str, bundle: str, options: CreateOptions) -> None:
    """Create the container; its program waits for `start`. runtime.md, Create."""
    from pyrunc.verbs import create as verb

    verb.create(ctx, container_id, bundle, options)


def run(ctx: Context, container_id: str, bundle: str, options: RunOptions) -> int:
    """Create and start; unless detached wait for the program, delete, and return its exit status (128 + signal)."""
    from pyrunc.verbs import create as verb

    return verb.run(ctx, container_id, bundle, options)


def explain(ctx: Context, bundle: str, options: CreateOptions) -> Plan:
    """Return the plan of create for this bundle on this host. Change nothing; needs no root."""
    from pyrunc.verbs import create as verb

    return verb.explain(ctx, bundle, options)


def exec_(ctx: Context, container_id: str, options: ExecOptions) -> int:
    """Run one more process in a running container. Return its exit status (128 + signal), or 0 at once if detached."""
    from pyrunc.verbs import exec as verb

    return verb.exec_(ctx, container_id, options)


def checkpoint(ctx: Context, container_id: str, options: CheckpointOptions) -> None:
    """Save a running container to CRIU's image files and, unless it is left running, destroy it."""
    from pyrunc.verbs import checkpoint as verb

    verb.checkpoint(ctx, container_id, options)


def restore(ctx: Context, container_id: str, bundle: str, options: RestoreOptions) -> int:
    """Restore a saved container. Return its exit status (128 + signal), or 0 at once if detached."""
    from pyrunc.verbs import restore as verb

    return verb.restore(ctx, container_id, bundle, options)


def state(ctx: Context, container_id: str) -> dict[str, object]:
    """Return the state document (runtime.md, State) with runc's additions rootfs, created and owner."""
    from pyrunc.verbs import lookup

    return lookup.state(ctx, container_id)


def start(ctx: Context, container_id: str, record: bytes = b"") -> None:
    """Start the program and return when it runs. runtime.md, Start.

    `record` is for the `pyrunc` command, which has done that already: what init said instead of running the program.
    With NOTIFY_SOCKET in the environment, at create as well: when it has said that it is ready, or has ended. Raise
    ContainerError if a startContainer hook, the execve or a poststart hook fails; after a failed hook the container
    is destroyed.
    """
    from pyrunc.verbs import start as verb

    verb.start(ctx, container_id, record)


def kill(ctx: Context, container_id: str, signal: int, all: bool = False) -> None:
    """Send a signal to init, or to every process of the container. runtime.md, Kill."""
    from pyrunc.kernel import container

    container.kill(ctx.root, container_id, signal, all_processes=all)


def delete(ctx: Context, container_id: str, force: bool = False) -> None:
    """Remove what create made, then run the poststop hooks; their failures are warnings. runtime.md, Delete."""
    from pyrunc.verbs import delete as verb

    verb.delete(ctx, container_id, force)


def wait(ctx: Context, container_id: str) -> int:
    """Wait until the container's init ends; return its exit status (128 + signal). It need not be the caller's child.

    Raise StateError if the container does not exist, or if the kernel no longer has its status.
    """
    from pyrunc.verbs import wait as verb

    return verb.wait(ctx, container_id)


def list_(ctx: Context) -> tuple[list[dict[str, object]], list[str]]:
    """Return the state documents of all containers below the root, by id, with `owner`; and errors of the others."""
    from pyrunc.verbs import lookup

    return lookup.list_(ctx)


def matching(ctx: Context, pattern: str) -> list[str]:
    """Return the ids below the root that contain a match of the regular expression. Raise UsageError."""
    from pyrunc.verbs import lookup

    return lookup.matching(ctx, pattern)


def ps(ctx: Context, container_id: str) -> list[int]:
    """Return the pids of all processes of the container, as the runtime sees them."""
    from pyrunc.verbs import lookup

    return lookup.ps(ctx, container_id)


def update(
    ctx: Context,
    container_id: str,
    resources: Resources,
    *,
    l3_cache_schema: str = "",
    mem_bw_schema: str = "",
) -> None:
    """Change the limits that `resources` names, all or none. Device rules are never touched.

    Absent limits, or 0 where that is not a limit, stay unchanged; -1 removes one. JSON paths begin at `resources`.
    """
    from pyrunc.verbs import update as verb

    verb.update(ctx, container_id, resources, l3_cache_schema=l3_cache_schema, mem_bw_schema=mem_bw_schema)


def add_mounts(ctx: Context, container_id: str, mounts: Sequence[Mount]) -> None:
    """Mount these, all or none, in a container that is not stopped. JSON paths in errors begin at `mounts`."""
    from pyrunc.verbs import mounts as verb

    verb.add(ctx, container_id, mounts)


def remove_mounts(ctx: Context, container_id: str, destinations: Sequence[str]) -> None:
    """Unmount these destinations, the last first. Raise ConfigError unless each is a mount that may be removed."""
    from pyrunc.verbs import mounts as verb

    verb.remove(ctx, container_id, destinations)


def pause(ctx: Context, container_id: str) -> None:
    """Freeze all processes. Raise StateError if the container is not running."""
    from pyrunc.verbs import freeze

    freeze.pause(ctx, container_id)


def resume(ctx: Context, container_id: str) -> None:
    """Thaw all processes. Raise StateError if the container is not paused."""
    from pyrunc.verbs import freeze

    freeze.resume(ctx, container_id)


def stats(ctx: Context, container_id: str) -> dict[str, object]:
    """Return a container's usage: the `data` of runc's stats event, times in ns. Raise StateError unless it runs."""
    from pyrunc.verbs import events as verb

    return verb.once(ctx, container_id)


def events(
    ctx: Context, container_id: str, interval: float = 5.0, reader: int = -1
) -> Iterator[dict[str, object]]:
    """Yield stats every `interval` seconds, and out-of-memory events, until the container ends: verbs.events.follow."""
    from pyrunc.verbs import events as verb

    return verb.follow(ctx, container_id, interval, reader)
