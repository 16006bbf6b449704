"""Lookup of containers: their state, configuration and processes."""

from __future__ import annotations

import os

from pyrunc.errors import PyruncError, StateError, UsageError
from pyrunc.json_text import document as json_text
from pyrunc.kernel import container as kernel_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.config.load import Config
    from pyrunc.container.directory import StateDir
    from pyrunc.kernel.container import Container
    from pyrunc.requests import Context


def load(ctx: Context, container_id: str) -> Container:
    """One look at a container: status, pid, cgroups. Raise StateError if it does not exist."""
    return kernel_container.state(ctx.root, container_id)


def alive(ctx: Context, container_id: str) -> Container:
    """A container that has a process: created, running or paused. Raise StateError if it has none."""
    found = load(ctx, container_id)
    if found.status not in ("created", "running", "paused"):
        raise StateError(f"container not running: {found.status}")
    return found


def hold(ctx: Context, container_id: str) -> tuple[Container, StateDir]:
    """A container that has a process, and its directory, locked, which the caller closes. Raise StateError."""
    from pyrunc.container import directory as state_directory

    alive(ctx, container_id)
    directory = state_directory.open_(ctx.root, container_id)
    try:
        # Again, as it may have ended while another process had the lock.
        return alive(ctx, container_id), directory
    except BaseException:
        directory.close()
        raise


def configuration(ctx: Context, container_id: str) -> Config:
    """The private copy of the configuration that create made: later edits of the bundle do not matter."""
    from pyrunc.config import load as config
    from pyrunc.container import directory as state_directory

    return config.load(
        f"{ctx.root}/{state_directory.check_id(container_id)}", opener=state_directory.open_ours
    )


def state(ctx: Context, container_id: str) -> dict[str, object]:
    """The state document (runtime.md, State) with runc's additions rootfs, created and owner."""
    return document(load(ctx, container_id))


def document(found: Container) -> dict[str, object]:
    """The state document of a container that was looked at."""
    value = json_text.loads(found.document)
    if not isinstance(value, dict):
        raise StateError("the state of the container is no JSON object")
    return dict(value)


def list_(ctx: Context) -> tuple[list[dict[str, object]], list[str]]:
    """The state documents of all containers below the root, by id, `owner` filled in; and why others are missing."""
    from pyrunc.container.directory import is_id

    documents: list[dict[str, object]] = []
    problems: list[str] = []
    if not kernel_container.check_root(ctx.root):
        return documents, problems
    for name in sorted(filter(is_id, os.listdir(ctx.root))):
        try:
            documents.append({**state(ctx, name), "owner": _owner(f"{ctx.root}/{name}")})
        except PyruncError as error:
            problems.append(f"container '{name}' is left out: {error}")
        except FileNotFoundError:
            continue  # deleted while we looked
    return documents, problems


def matching(ctx: Context, pattern: str) -> list[str]:
    """The ids of the containers below the root in which the regular expression is found. Raise UsageError."""
    import re

    from pyrunc.container.directory import is_id

    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"invalid regular expression '{pattern}': {error}") from None
    names = os.listdir(ctx.root) if kernel_container.check_root(ctx.root) else []
    return sorted(name for name in names if is_id(name) and expression.search(name))


def _owner(path: str) -> str:
    import pwd

    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def ps(ctx: Context, container_id: str) -> list[int]:
    """The pids of all processes of the container, as the runtime sees them."""
    found = load(ctx, container_id)
    if found.status == "stopped":
        return []
    if not found.cgroups:
        return [found.pid]
    from pyrunc.cgroups import choose

    return sorted(choose.from_paths(found.cgroups).pids())
