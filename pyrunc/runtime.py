"""The operations of the runtime: what a verb of the command line or a Python program calls.

state, start, kill and delete are csrc/container/'s, reached here through the shim and by the `pyrunc` command without
Python; here hooks are added. create, run and exec are loaded when called. All functions raise PyruncError.
"""

from __future__ import annotations

import os

from pyrunc.errors import (
    SHORTAGES,
    BusError,
    ContainerError,
    KernelError,
    PyruncError,
    StateError,
    UsageError,
)
from pyrunc.json_text import document as jsonfast
from pyrunc.kernel import process as kernel
from pyrunc.launch import failures
from pyrunc.plan import numbers, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyrunc.config.load import Config
    from pyrunc.kernel.view import Container
    from pyrunc.requests import (
        CheckpointOptions,
        Context,
        CreateOptions,
        ExecOptions,
        RestoreOptions,
        RunOptions,
    )
    from pyrunc.spec.shapes import Mount, Resources


# The minor version of the specification that first says so; an older configuration means what it was written for.
_POSTSTART_MUST_SUCCEED = 3


def load(ctx: Context, container_id: str) -> Container:
    """One look at a container: status, pid, cgroups. Raises StateError when it does not exist."""
    return kernel.container_state(ctx.root, container_id)


def configuration(ctx: Context, container_id: str) -> Config:
    """The private copy of the configuration that create made: later edits of the bundle do not matter."""
    from pyrunc.config import load as config
    from pyrunc.container import directory as state

    return config.load(f"{ctx.root}/{state.check_id(container_id)}", opener=state.open_ours)


def create(ctx: Context, container_id: str, bundle: str, options: CreateOptions) -> None:
    """Make the container; its program waits for `start`. runtime.md, Create."""
    from pyrunc.verbs import create as runtime_create

    runtime_create.create(ctx, container_id, bundle, options)


def run(ctx: Context, container_id: str, bundle: str, options: RunOptions) -> int:
    """create and start; unless detached wait for the program, delete, and return its exit status (128 + signal)."""
    from pyrunc.verbs import create as runtime_create

    return runtime_create.run(ctx, container_id, bundle, options)


def exec_(ctx: Context, container_id: str, options: ExecOptions) -> int:
    """Run one more process in a container that runs. Its exit status (128 + signal), 0 at once when detached."""
    from pyrunc.verbs import exec as runtime_exec

    return runtime_exec.exec_(ctx, container_id, options)


def checkpoint(ctx: Context, container_id: str, options: CheckpointOptions) -> None:
    """Save a running container as CRIU's image files and, unless it is to be left running, destroy it."""
    from pyrunc.verbs import checkpoint as runtime_checkpoint

    runtime_checkpoint.checkpoint(ctx, container_id, options)


def restore(ctx: Context, container_id: str, bundle: str, options: RestoreOptions) -> int:
    """Bring a saved container back, running; its exit status (128 + signal), 0 at once when detached."""
    from pyrunc.verbs import restore as runtime_restore

    return runtime_restore.restore(ctx, container_id, bundle, options)


def state(ctx: Context, container_id: str) -> dict[str, object]:
    """The state document (runtime.md, State) with runc's additions rootfs, created and owner."""
    return _document(load(ctx, container_id))


def _document(found: Container) -> dict[str, object]:
    document = jsonfast.loads(found.document)
    if not isinstance(document, dict):
        raise StateError("the state of the container is no JSON object")
    return dict(document)


def _undo_start(
    ctx: Context, container_id: str, reason: PyruncError, found: Container | None = None
) -> None:
    """Steps 10 to 13 after a hook of `start` failed: stop, destroy, poststop hooks. runtime.md, Lifecycle."""
    try:
        delete_own(ctx, container_id, (found.init_pid, found.start_time) if found else (0, 0))
    except PyruncError as error:
        reason.add_note(f"while cleaning up: {error}")


def start(ctx: Context, container_id: str) -> None:
    """Let the program run and return when it does. runtime.md, Start.

    With NOTIFY_SOCKET in the environment, at create as well: when it has said that it is ready, or has ended. Raises
    ContainerError when a startContainer hook, the execve or a poststart hook fails; after a failed hook the container
    is destroyed.
    """
    found = load(ctx, container_id)
    if "process" in found.needs and found.status == "created":
        raise StateError("cannot start a container without a process", path="$.process")
    if "notify" not in found.needs or found.status != "created":
        let_run(ctx, container_id, found)
        return
    from pyrunc.host import notify

    if not (address := notify.wanted()):
        let_run(ctx, container_id, found)
        return
    # Both before the program runs: afterwards it may be gone, or have said it already.
    pidfd = kernel.process_open(found.pid, found.start_time)
    if pidfd < 0:
        raise StateError("cannot start a container that has stopped")
    try:
        with notify.Proxy(f"{ctx.root}/{container_id}", address, found.pid) as proxy:
            let_run(ctx, container_id, found)
            proxy.wait(pidfd)
    finally:
        os.close(pidfd)


def let_run(ctx: Context, container_id: str, found: Container) -> None:
    """`start` without waiting for readiness."""
    if "prestart" in found.needs and found.status == "created":
        _prestart(ctx, container_id, found)
    record = kernel.container_start(ctx.root, container_id)
    if record:
        start_failure(ctx, container_id, record)
    if "poststart" in found.needs:
        _poststart(ctx, container_id, found)


def _prestart(ctx: Context, container_id: str, found: Container) -> None:
    """config.md of version 1.0, Prestart: after `start` is called, before the program is executed."""
    from pyrunc.container.directory import hook_state
    from pyrunc.launch import hooks

    spec = configuration(ctx, container_id).spec
    document = hook_state(_document(found), "created", found.pid)
    try:
        hooks.run("prestart", hooks.of(spec, "prestart"), document, found.bundle)
    except ContainerError as error:
        _undo_start(ctx, container_id, error, found)
        raise


def _poststart(ctx: Context, container_id: str, found: Container) -> None:
    """runtime.md, step 9: a failure ends the container; up to version 1.2 it MUST be a warning and nothing else."""
    from pyrunc import log
    from pyrunc.container.directory import hook_state
    from pyrunc.launch import hooks

    spec = configuration(ctx, container_id).spec
    wanted = hooks.of(spec, "poststart")
    document = hook_state(_document(found), "running", found.pid)
    minor = spec["ociVersion"].split(".")[1]
    if len(minor) == 1 and int(minor) < _POSTSTART_MUST_SUCCEED:
        for problem in hooks.run_all("poststart", wanted, document, found.bundle):
            log.warning(str(problem))
        return
    try:
        hooks.run("poststart", wanted, document, found.bundle)
    except ContainerError as error:
        _undo_start(ctx, container_id, error, found)
        raise


def start_failure(ctx: Context, container_id: str, record: bytes) -> None:
    """Word what init said instead of running the program, and always raise it.

    `record` is a struct sync_message. Only two ops come behind the fifo, so the path follows from op and place.
    """
    message = wire.message(record)
    spec = configuration(ctx, container_id).spec
    error: PyruncError
    if message.step in ("hook", "hook_timeout"):
        kind = numbers.HOOK_KINDS.index("startContainer")
        place = message.hook_place
        listed = (spec.get("hooks") or {}).get("startContainer") or []
        if place >= len(listed):
            raise ContainerError(
                f"init reports a failure of startContainer hook #{place}, which there is not"
            )
        wanted = listed[place]
        timeout = wire.milliseconds(wanted.get("timeout"))
        op = wire.Op(
            "HOOK",
            wanted["path"],
            [],
            [],
            b"",
            timeout,
            place,
            kind,
            path=f"$.hooks.startContainer[{place}]",
        )
        error = failures.explain_op(op, message)
        _undo_start(ctx, container_id, error)
    elif message.step == "seccomp":
        error = failures.explain_op(wire.Op("SECCOMP", b"", 0, 0, path="$.linux.seccomp"), message)
    else:
        process = spec.get("process") or {}
        op = wire.Op("EXEC", list(process.get("args") or []), [], 0, path="$.process.args")
        error = failures.explain_op(op, message)
    raise error


def kill(ctx: Context, container_id: str, signal: int, all: bool = False) -> None:
    """Send a signal to init, or to every process of the container. runtime.md, Kill."""
    kernel.container_kill(ctx.root, container_id, signal, all_processes=all)


def _remove_unit(unit: str, force: bool) -> None:
    from pyrunc import log
    from pyrunc.cgroups.systemd import driver as systemd

    try:
        systemd.remove(unit)
    except BusError as error:
        # Its processes and cgroup are gone, and an empty scope is taken away by systemd itself.
        if not force:
            raise
        log.warning(f"the unit may be left: {error}")


def _delete_in_parts(ctx: Context, container_id: str, force: bool, only: tuple[int, int]) -> None:
    """Delete a container in a systemd unit or a group of resctrl; the state goes last: a failure can be tried again."""
    from pyrunc.container import directory as state

    # Held open from here on: it shows whether this very container is still the one of that name.
    directory = state.look(ctx.root, container_id)
    try:
        found = load(ctx, container_id)
        if only[0] and (found.init_pid, found.start_time) != only:
            return
        kernel.container_delete(ctx.root, container_id, force=force, keep=True, only=only)
        if not directory.lock():
            return  # somebody else was quicker
        if found.unit:
            _remove_unit(found.unit, force)
        if found.rdt:
            from pyrunc.host import resctrl as rdt

            rdt.remove(found.rdt)
        directory.remove()
    finally:
        directory.close()


def delete(ctx: Context, container_id: str, force: bool = False) -> None:
    """Remove what create made, then run the poststop hooks; their failures are warnings. runtime.md, Delete."""
    _delete(ctx, container_id, force, (0, 0))


def delete_own(ctx: Context, container_id: str, only: tuple[int, int]) -> None:
    """`delete` by force of the container whose process has that pid and start time.

    For who made it, or found it, a while ago: the name may by now be that of another one.
    """
    _delete(ctx, container_id, True, only)


def _delete(ctx: Context, container_id: str, force: bool, only: tuple[int, int]) -> None:
    found, ours = None, None
    try:
        found = load(ctx, container_id)
        ours = configuration(ctx, container_id) if "poststop" in found.needs else None
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
        kernel.container_delete(ctx.root, container_id, force=force, only=only)
    if found is None or ours is None:
        return
    from pyrunc import log
    from pyrunc.container.directory import hook_state
    from pyrunc.launch import hooks

    document = hook_state(_document(found), "stopped", 0)
    wanted = hooks.of(ours.spec, "poststop")
    for problem in hooks.run_all("poststop", wanted, document, found.bundle):
        log.warning(str(problem))


def wait(ctx: Context, container_id: str) -> int:
    """Block until the container's init ends; its exit status (128 + signal). It needs no relation to the caller.

    Raises StateError for a container that does not exist, or whose status the kernel does not tell any more.
    """
    from pyrunc.verbs import wait as runtime_wait

    return runtime_wait.wait(ctx, container_id)


def list_(ctx: Context) -> tuple[list[dict[str, object]], list[str]]:
    """The state documents of all containers below the root, by id, `owner` filled in; and why others are missing."""
    from pyrunc.container.directory import is_id

    documents: list[dict[str, object]] = []
    problems: list[str] = []
    if not kernel.check_root(ctx.root):
        return documents, problems
    for name in sorted(filter(is_id, os.listdir(ctx.root))):
        try:
            document = state(ctx, name)
            document["owner"] = _owner(f"{ctx.root}/{name}")
            documents.append(document)
        except PyruncError as error:
            problems.append(f"container '{name}' is left out: {error}")
        except FileNotFoundError:
            continue  # deleted while we looked
    return documents, problems


def matching(ctx: Context, pattern: str) -> list[str]:
    """The ids of the containers below the root in which the regular expression is found. Raises UsageError."""
    import re

    from pyrunc.container.directory import is_id

    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"invalid regular expression '{pattern}': {error}") from None
    names = os.listdir(ctx.root) if kernel.check_root(ctx.root) else []
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
    from pyrunc.cgroups import manager as cgroups

    return sorted(cgroups.from_paths(found.cgroups).pids())


def _freezer(found: Container) -> Sequence[tuple[str, str]]:
    if not found.cgroups:
        raise StateError(
            "cannot pause: the container has no cgroup", hint="a rootless container needs a delegated one"
        )
    return found.cgroups


def update(
    ctx: Context,
    container_id: str,
    resources: Resources,
    *,
    l3_cache_schema: str = "",
    mem_bw_schema: str = "",
) -> None:
    """Change the limits that `resources` names, all or none. Device rules are never touched.

    Not named, or 0 where that is no limit: left as it is; -1: lifted. JSON paths in errors begin at `resources`.
    """
    from pyrunc.verbs import update as runtime_update

    runtime_update.update(
        ctx, container_id, resources, l3_cache_schema=l3_cache_schema, mem_bw_schema=mem_bw_schema
    )


def add_mounts(ctx: Context, container_id: str, mounts: Sequence[Mount]) -> None:
    """Mount these, all or none, in a container that has not stopped. JSON paths in errors begin at `mounts`."""
    from pyrunc.verbs import mounts as runtime_mounts

    runtime_mounts.add(ctx, container_id, mounts)


def remove_mounts(ctx: Context, container_id: str, destinations: Sequence[str]) -> None:
    """Unmount what is at these destinations, the last first. Raises ConfigError unless each is a mount that may go."""
    from pyrunc.verbs import mounts as runtime_mounts

    runtime_mounts.remove(ctx, container_id, destinations)


def pause(ctx: Context, container_id: str) -> None:
    """Freeze all processes. Raises StateError when the container is not running."""
    found = load(ctx, container_id)
    if found.status not in ("running", "created"):
        raise StateError(f"container not running: {found.status}")
    kernel.cgroup_freeze(_freezer(found))


def resume(ctx: Context, container_id: str) -> None:
    """Thaw all processes. Raises StateError when the container is not paused."""
    found = load(ctx, container_id)
    # Not by the status alone: a created container can be frozen, too, and is still created.
    if found.status == "stopped" or not kernel.cgroup_frozen(found.cgroups):
        raise StateError(f"container not paused: {found.status}")
    kernel.cgroup_thaw(_freezer(found))


def stats(ctx: Context, container_id: str) -> dict[str, object]:
    """What a container uses now: the `data` of runc's stats event, times in ns. Raises StateError unless it runs."""
    from pyrunc.verbs import events as runtime_events

    return runtime_events.once(ctx, container_id)


def events(
    ctx: Context, container_id: str, interval: float = 5.0, reader: int = -1
) -> Iterator[dict[str, object]]:
    """Stats every `interval` seconds, and when memory ran out, until the container ends: runtime_events.follow."""
    from pyrunc.verbs import events as runtime_events

    return runtime_events.follow(ctx, container_id, interval, reader)
