"""The operation start: let the program run, with the hooks around it."""

from __future__ import annotations

import os

from pyrunc.errors import ContainerError, PyruncError, StateError
from pyrunc.kernel import container as kernel_container
from pyrunc.verbs import delete as verb_delete
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pyrunc.kernel.container import Container
    from pyrunc.requests import Context

# The minor version of the specification that first says so; an older configuration means what it was written for.
_POSTSTART_MUST_SUCCEED = 3


def _undo_start(
    ctx: Context, container_id: str, reason: PyruncError, found: Container | None = None
) -> None:
    """Steps 10 to 13 after a hook of `start` failed: stop, destroy, poststop hooks. runtime.md, Lifecycle."""
    try:
        verb_delete.delete_own(ctx, container_id, (found.init_pid, found.start_time) if found else (0, 0))
    except PyruncError as error:
        reason.add_note(f"while cleaning up: {error}")


def start(ctx: Context, container_id: str, record: bytes = b"") -> None:
    """Let the program run and return when it does. runtime.md, Start.

    `record`: the command has done that already, and this is what init said instead of running the program.
    With NOTIFY_SOCKET in the environment, at create as well: when it has said that it is ready, or has ended. Raise
    ContainerError if a startContainer hook, the execve or a poststart hook fails; after a failed hook the container
    is destroyed.
    """
    if record:
        _fail(ctx, container_id, record)
    found = lookup.load(ctx, container_id)
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
    pidfd = kernel_container.process_open(found.pid, found.start_time)
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
    record = kernel_container.start(ctx.root, container_id)
    if record:
        _fail(ctx, container_id, record)
    if "poststart" in found.needs:
        _poststart(ctx, container_id, found)


def _prestart(ctx: Context, container_id: str, found: Container) -> None:
    """config.md of version 1.0, Prestart: after `start` is called, before the program is executed."""
    from pyrunc.container.record import hook_state
    from pyrunc.launch import hooks

    spec = lookup.configuration(ctx, container_id).spec
    document = hook_state(lookup.document(found), "created", found.pid)
    try:
        hooks.run("prestart", hooks.of(spec, "prestart"), document, found.bundle)
    except ContainerError as error:
        _undo_start(ctx, container_id, error, found)
        raise


def _poststart(ctx: Context, container_id: str, found: Container) -> None:
    """runtime.md, step 9: a failure ends the container; up to version 1.2 it MUST be a warning and nothing else."""
    from pyrunc import log
    from pyrunc.container.record import hook_state
    from pyrunc.launch import hooks

    spec = lookup.configuration(ctx, container_id).spec
    wanted = hooks.of(spec, "poststart")
    document = hook_state(lookup.document(found), "running", found.pid)
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


def _fail(ctx: Context, container_id: str, record: bytes) -> NoReturn:
    """Raise what init said instead of running the program; `record` is a struct sync_message."""
    from pyrunc.host import gather
    from pyrunc.launch import failures
    from pyrunc.plan import planner, wire
    from pyrunc.plan.job import PlanOptions
    from pyrunc.seccomp import filters

    configuration = lookup.configuration(ctx, container_id)
    spec = configuration.spec
    options = PlanOptions(
        bundle=configuration.bundle,
        container_id=container_id,
        rootfs="",
        seccomp=filters.of_spec(spec, ctx.root),
    )
    ops = planner.after_start(spec, gather.facts(ctx, spec), options)
    message = wire.message(record)
    if not ops:
        raise ContainerError("init reports a failure where its plan has nothing to do")
    # A process that has taken init's place may name any op; the last one is the program.
    op = ops[min(message.op, len(ops) - 1)]
    error = failures.explain_op(op, message)
    if op.name == "HOOK":
        _undo_start(ctx, container_id, error)
    raise error
