"""create and run: a container comes up, from top to bottom.

Everything that can fail leaves nothing behind: no state directory, no cgroup, no mount, no process (runtime.md,
Errors). All functions raise PyruncError.
"""

from __future__ import annotations

import os

from pyrunc import log
from pyrunc.config import load as config
from pyrunc.config.rules import document as rules
from pyrunc.config.rules import linux as rules_linux
from pyrunc.container import directory as state_directory
from pyrunc.container.record import OWN_PID, Record
from pyrunc.errors import ConfigError, ContainerError, PyruncError
from pyrunc.host import console, gather, proc
from pyrunc.launch import conversation, hooks
from pyrunc.launch import init as launch
from pyrunc.plan import planner
from pyrunc.plan.job import Plan, PlanOptions
from pyrunc.seccomp import filters as seccomp_filters
from pyrunc.spec import id_mappings
from pyrunc.spec.namespaces import NAMESPACES
from pyrunc.verbs import delete as verb_delete
from pyrunc.verbs import lookup, process_io
from pyrunc.verbs import start as verb_start
from pyrunc.verbs.new_container import Attempt, PlanChangedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cgroups.manager import Manager
    from pyrunc.requests import Context, CreateOptions, RunOptions
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Spec


def _no_fd(function: Callable[[], None]) -> Callable[[int], None]:
    return lambda _fd: function()


def _plan(
    configuration: config.Config,
    record: Record,
    facts: HostFacts,
    options: CreateOptions,
    manager: Manager,
    root: str,
) -> Plan:
    count, environment = process_io.extra_fds(options)
    if "notify" in record.needs:
        from pyrunc.host import notify

        environment = [*environment, notify.ENVIRONMENT]
    hook_states: dict[str, bytes] = {}
    if configuration.spec.get("hooks"):
        hook_state = record.hook_state("created", OWN_PID)
        hook_states = {"createContainer": hook_state, "startContainer": hook_state}
    compiled = seccomp_filters.of_spec(configuration.spec, root)
    joins_pid = any(
        item["type"] == "pid" and item.get("path")
        for item in (configuration.spec.get("linux") or {}).get("namespaces") or ()
    )
    process = configuration.spec.get("process") or {}
    return planner.create(
        configuration.spec,
        facts,
        PlanOptions(
            bundle=configuration.bundle,
            container_id=str(record.document["id"]),
            rootfs=str(record.document["rootfs"]),
            no_pivot=options.no_pivot,
            no_new_keyring=options.no_new_keyring,
            preserve_fds=count,
            extra_env=environment,
            hook_states=hook_states,
            seccomp=compiled,
            own_calls=seccomp_filters.own_calls(compiled if joins_pid else None, process),
            cgroup_paths=list(manager.paths),
            attached_late=bool(manager.paths) and not manager.joined_at_birth,
            pid_inside=conversation.pid_namespace_inside(configuration.spec),
        ),
    )


def _check_joined_maps(spec: Spec) -> None:
    """Mappings next to the path of a user namespace must be those it has, as far as /proc shows them.

    Raises ConfigError. A namespace that is kept by a bind mount shows its maps to nobody outside.
    """
    linux = spec.get("linux") or {}
    for item in linux.get("namespaces") or ():
        path = item.get("path") or ""
        if item["type"] != "user" or not path.endswith("/ns/user"):
            continue
        process = path.removesuffix("/ns/user")
        for mappings, name in ((linux.get("uidMappings"), "uid"), (linux.get("gidMappings"), "gid")):
            there = proc.read_file(f"{process}/{name}_map")
            if mappings and there and not id_mappings.matching(id_mappings.rows(mappings), there):
                raise ConfigError(
                    "user namespaces enabled, but both namespace path and non-matching mapping specified",
                    path=f"$.linux.{name}Mappings",
                    hint=f"leave the mappings out, or write what {process}/{name}_map says",
                )


def _check_joined_sysctls(spec: Spec) -> None:
    """A path may lead to the runtime's own namespace, whose values are the host's. Raises ConfigError."""
    linux = spec.get("linux") or {}
    if not linux.get("sysctl"):
        return
    spaces = rules_linux.namespaces(linux, None)
    for kind, path in list(spaces.items()):
        try:
            if path and os.path.samefile(path, f"/proc/self/ns/{NAMESPACES[kind][1]}"):
                del spaces[kind]
        except OSError:
            pass  # said with its path when it is opened
    rules_linux.sysctls(linux, spaces)


def _answer(
    attempt: Attempt,
    init: launch.Init,
    the_plan: Plan,
    beside: Callable[[], None],
    console_answer: Callable[[int], None],
) -> None:
    """Answer init until it is ready; do what is to be done `beside` it while it has something to do."""

    def maps() -> None:
        from pyrunc.launch import id_maps

        id_maps.write(init.pid, the_plan.uid_maps or (), the_plan.gid_maps or ())

    def listener(fd: int) -> None:
        document = attempt.record.hook_state("creating", init.pid)
        conversation.send_seccomp_listener(attempt.spec, fd, document, init.pid)

    try:
        if the_plan.uid_maps is None:
            beside()
        conversation.serve(
            init,
            {
                "MAPS": _no_fd(maps),
                "CGROUP": lambda _fd: None,  # moved there `beside`
                "ENV": _no_fd(lambda: attempt.in_environment(init.pid)),
                "CONSOLE": console_answer,
                "SECCOMP": listener,
            },
            {"MAPS": beside},
        )
    except ContainerError as error:
        attempt.hooks_failed = attempt.hooks_failed or (error.path or "").startswith("$.hooks.")
        raise


def _start_init(attempt: Attempt, manager: Manager, the_plan: Plan) -> launch.Init:
    """Start init: on v2 inside its cgroup."""
    fds = [attempt.directory.make_fifo()]
    try:
        cgroup_fd = manager.open()
        if cgroup_fd >= 0:
            fds.append(cgroup_fd)
        init = launch.start(
            the_plan.ops,
            known={"fifo": fds[0]},
            clone_flags=the_plan.clone_flags,
            cgroup_fd=cgroup_fd,
            deadline=not hooks.of(attempt.spec, "createContainer"),
        )
    finally:
        for fd in fds:
            os.close(fd)
    attempt.abort = init.abort
    return init


def _publish(attempt: Attempt, init: launch.Init, the_plan: Plan, options: CreateOptions) -> None:
    """The container is created: tell whoever wants to know, and let init wait for start."""
    directory = attempt.directory
    attempt.born(init.pid)
    conversation.schedule(the_plan, init.pid)
    if options.record_exit:
        from pyrunc.container import exit_status

        exit_status.start(directory, init.pidfd)
    if options.pidfd_socket:
        console.send_fd(options.pidfd_socket, init.pidfd, b"standard", "--pidfd-socket")
    if options.pid_file:
        attempt.drop_pid_file = process_io.write_pid_file(options.pid_file, init.pid)
    attempt.publish()
    init.go()


def _bring_up(
    ctx: Context,
    container_id: str,
    bundle: str,
    options: CreateOptions,
    attendance: console.Attendance | None,
    detached: bool,
) -> tuple[launch.Init, Record]:
    """create up to the point where init waits for start. Returns the init, released, and the record."""
    state_directory.check_id(container_id)
    configuration = config.load(bundle, options.config or state_directory.CONFIG)
    spec = configuration.spec
    process = spec.get("process") or {}
    console.check(
        terminal=bool(process.get("terminal")), detached=detached, console_socket=options.console_socket
    )
    process_io.check_pid_file(options.pid_file)
    facts = gather.facts(ctx, spec)
    rules.check(spec, facts)
    _check_joined_maps(spec)
    _check_joined_sysctls(spec)
    attempt = Attempt(ctx, container_id, configuration, facts)
    record = attempt.record
    record.new_keyring = not options.no_new_keyring
    if not process:
        record.needs.append("process")
    elif os.environ.get("NOTIFY_SOCKET"):
        record.needs.append("notify")
    try:
        if "notify" in record.needs:
            from pyrunc.host import notify

            notify.prepare(spec, attempt.directory.path)
        manager = attempt.settle(ctx, facts)

        def begin() -> tuple[launch.Init, Plan]:
            the_plan = _plan(configuration, record, facts, options, manager, ctx.root)
            cgroups = [path for _, path in manager.paths]
            log.debug(f"a plan of {len(the_plan.ops)} steps, cgroups: {cgroups}")
            init = _start_init(attempt, manager, the_plan)
            log.debug(f"init is process {init.pid}")
            answer = conversation.console_answer(options.console_socket, attendance)

            def beside() -> None:
                init.while_it_lives(lambda: attempt.beside(init.pid, manager, configuration))

            _answer(attempt, init, the_plan, beside, answer)
            return init, the_plan

        try:
            init, the_plan = begin()
        except PlanChangedError:
            attempt.start_again()
            init, the_plan = begin()
        _publish(attempt, init, the_plan, options)
        log.warn_all(the_plan.warnings, init.warnings, manager.warnings)
    except launch.SilentDeathError as error:
        reason = attempt.out_of_memory() or error
        attempt.undo(reason)
        raise reason from error.__cause__
    except BaseException as error:
        attempt.undo(error)
        raise
    attempt.close()
    return init, record


def create(ctx: Context, container_id: str, bundle: str, options: CreateOptions) -> None:
    """Make the container; its program waits for `start`. runtime.md, Create."""
    init, _ = _bring_up(ctx, container_id, bundle, options, None, True)
    init.close()


def _attend(ctx: Context, container_id: str, init: launch.Init, attendance: console.Attendance) -> int:
    """Let the program run and wait for its end; its exit status."""
    found = lookup.load(ctx, container_id)
    if "notify" not in found.needs:
        verb_start.start(ctx, container_id)
        return attendance.wait(init.pid, init.pidfd)
    from pyrunc.host import notify

    # The service is this very process, which lives as long as the program and cleans up behind it.
    with notify.Proxy(f"{ctx.root}/{container_id}", notify.wanted(), os.getpid()) as proxy:
        verb_start.let_run(ctx, container_id, found)
        status = attendance.wait(init.pid, init.pidfd, proxy)
        if proxy.failure:
            log.warning(f"readiness is not passed on: {proxy.failure}")
        return status


def run(ctx: Context, container_id: str, bundle: str, options: RunOptions) -> int:
    """create and start; unless detached wait for the program, delete, and return its exit status (128 + signal)."""
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
            verb_delete.delete_own(ctx, container_id, made)
            if isinstance(error, PyruncError):
                init.check_words()
            raise
        finally:
            init.close()
        if not options.keep:
            verb_delete.delete_own(ctx, container_id, made)
        return status
    finally:
        if attendance is not None:
            attendance.close()
