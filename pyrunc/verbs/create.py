"""create and run, in order from top to bottom; and explain, which stops at the plan.

Everything that can fail leaves nothing behind: no state directory, no cgroup, no mount, no process (runtime.md,
Errors). All functions raise PyruncError.
"""

from __future__ import annotations

import os

from pyrunc import log
from pyrunc.config import load as config
from pyrunc.container import directory as state_directory
from pyrunc.errors import LeftError, PyruncError
from pyrunc.host import console, gather
from pyrunc.launch import conversation
from pyrunc.launch import init as launch
from pyrunc.plan import wire
from pyrunc.verbs import lookup, new_container, process_io
from pyrunc.verbs.new_container import NewContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.container.record import Record
    from pyrunc.plan.job import Plan
    from pyrunc.requests import Context, CreateOptions, RunOptions
    from pyrunc.spec.host_facts import HostFacts


def _decide(
    ctx: Context, container_id: str, configuration: config.Config, facts: HostFacts, options: CreateOptions
) -> NewContainer:
    """Return the requested container; nothing is made yet."""
    new_container.check(configuration.spec, facts)
    new = NewContainer(ctx, container_id, configuration, facts)
    new.record.new_keyring = not options.no_new_keyring
    if not configuration.spec.get("process"):
        new.record.needs.append("process")
    elif os.environ.get("NOTIFY_SOCKET"):
        from pyrunc.host import notify

        new.record.needs.append("notify")
        notify.mount(configuration.spec, f"{ctx.root}/{container_id}")
    return new


def explain(ctx: Context, bundle: str, options: CreateOptions) -> Plan:
    """The plan that create would have for this bundle on this host. Makes nothing and needs no root.

    An ordinary user sees what root's create would do where the configuration makes no user namespace, as only root
    could run it. Raise ConfigError for a configuration that create would refuse, too.
    """
    configuration = config.load(bundle, options.config or state_directory.CONFIG)
    spec = configuration.spec
    facts = gather.facts(ctx, spec)
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    if facts.euid != 0 and ctx.rootless is None and not any(item["type"] == "user" for item in namespaces):
        facts.as_root()
    new = _decide(ctx, os.path.basename(configuration.bundle) or "container", configuration, facts, options)
    new.choose_cgroups()
    new.check_size()
    plan = new.plan(options)
    # Only its bytes show whether it is too large.
    wire.encode(
        plan.ops, {field: -1 for op in plan.ops for field in op.fields if isinstance(field, wire.Fd)}
    )
    return plan


def _start_init(new: NewContainer, options: CreateOptions) -> tuple[launch.Init, Plan]:
    """Start init, and make the cgroups while it makes namespaces. Return it with its plan.

    It is started again, with another plan, if an optional cgroup cannot be made.
    """
    while True:
        plan = new.plan(options, filters_in=new.ctx.root)
        log.debug(f"a plan of {len(plan.ops)} steps, cgroups: {[path for _, path in new.manager.paths]}")
        init = new.start_init(plan)
        log.debug(f"init is process {init.pid}")
        conversation.map_ids(init, plan)
        if init.while_it_lives(new.join):
            return init, plan
        new.end_init()


def _answer(
    new: NewContainer, init: launch.Init, options: CreateOptions, attendance: console.Attendance | None
) -> None:
    """Answer init until everything but the program is done."""

    def listener(fd: int) -> None:
        document = new.record.hook_state("creating", init.pid)
        conversation.send_seccomp_listener(new.spec, fd, document, init.pid)

    conversation.serve(
        init,
        {
            "CGROUP": lambda _fd: None,  # it is there by now
            "ENV": lambda _fd: new.in_environment(init.pid),
            "CONSOLE": conversation.console_answer(options.console_socket, attendance),
            "SECCOMP": listener,
        },
    )


def _publish(new: NewContainer, init: launch.Init, plan: Plan, options: CreateOptions) -> None:
    """The container is created: write the state and the pid file, and let init wait for start."""
    new.record_process(init.pid)
    conversation.schedule(plan, init.pid)
    if options.record_exit:
        from pyrunc.container import exit_status

        exit_status.start(new.directory, init.pidfd)
    if options.pidfd_socket:
        console.send_fd(options.pidfd_socket, init.pidfd, b"standard", "--pidfd-socket")
    if options.pid_file:
        new.drop_pid_file = process_io.write_pid_file(options.pid_file, init.pid)
    new.publish()
    init.go()
    log.warn_all(plan.warnings, init.warnings, new.manager.warnings)


def _bring_up(
    ctx: Context,
    container_id: str,
    bundle: str,
    options: CreateOptions,
    attendance: console.Attendance | None,
    detached: bool,
) -> tuple[launch.Init, Record]:
    """Create up to the point where init waits for start. Return the init, released, and the record."""
    state_directory.check_id(container_id)
    configuration = config.load(bundle, options.config or state_directory.CONFIG)
    terminal = bool((configuration.spec.get("process") or {}).get("terminal"))
    console.check(terminal=terminal, detached=detached, console_socket=options.console_socket)
    process_io.check_pid_file(options.pid_file)
    facts = gather.facts(ctx, configuration.spec)
    new = _decide(ctx, container_id, configuration, facts, options)
    new.make_directory()
    try:
        if "notify" in new.record.needs:
            from pyrunc.host import notify

            notify.make(new.directory.path)
        new.choose_cgroups()
        new.settle()
        init, plan = _start_init(new, options)
        _answer(new, init, options, attendance)
        _publish(new, init, plan, options)
    except launch.SilentDeathError as error:
        reason = new.out_of_memory() or error
        new.undo(reason)
        raise reason from error.__cause__
    except BaseException as error:
        new.undo(error)
        raise
    new.close()
    return init, new.record


def create(ctx: Context, container_id: str, bundle: str, options: CreateOptions) -> None:
    """Make the container; its program waits for `start`. runtime.md, Create."""
    init, _ = _bring_up(ctx, container_id, bundle, options, None, True)
    init.close()


def _attend(ctx: Context, container_id: str, init: launch.Init, attendance: console.Attendance) -> int:
    """Let the program run and wait for its end; its exit status."""
    from pyrunc.verbs import start as verb_start

    found = lookup.load(ctx, container_id)
    if "notify" not in found.needs:
        verb_start.start(ctx, container_id)
        return attendance.wait(init.pid, init.pidfd)
    from pyrunc.host import notify

    # The service is this process, which runs as long as the program and cleans up after it.
    with notify.Proxy(f"{ctx.root}/{container_id}", notify.wanted(), os.getpid()) as proxy:
        verb_start.let_run(ctx, container_id, found)
        status = attendance.wait(init.pid, init.pidfd, proxy)
        if proxy.failure:
            log.warning(f"readiness is not passed on: {proxy.failure}")
        return status


def run(ctx: Context, container_id: str, bundle: str, options: RunOptions) -> int:
    """create and start; unless detached wait for the program, delete, and return its exit status (128 + signal)."""
    from pyrunc.verbs import delete as verb_delete
    from pyrunc.verbs import start as verb_start

    attendance = None
    if not options.detach:
        attendance = console.Attendance()
        console.adopt_orphans(not options.no_subreaper)
    try:
        init, record = _bring_up(ctx, container_id, bundle, options, attendance, options.detach)
        made = record.pid, record.start_time
        try:
            if attendance is None:
                verb_start.start(ctx, container_id)
                return 0
            status = _attend(ctx, container_id, init, attendance)
        except BaseException as error:
            try:
                verb_delete.delete_own(ctx, container_id, made)
            except PyruncError as later:
                error.add_note(f"while cleaning up: {later}")
            if isinstance(error, PyruncError):
                init.check_words()
            raise
        finally:
            init.close()
        if not options.keep:
            try:
                verb_delete.delete_own(ctx, container_id, made)
            except PyruncError as error:
                raise LeftError(container_id, status, error) from error
        return status
    finally:
        if attendance is not None:
            attendance.close()
