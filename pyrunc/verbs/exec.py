"""exec: one more process in a running container. All functions raise PyruncError."""

from __future__ import annotations

import errno
import os

from pyrunc import log
from pyrunc.cgroups import choose
from pyrunc.cgroups import manager as cgroup_manager
from pyrunc.config import load as config
from pyrunc.config.rules import process as rules_process
from pyrunc.container import process as container_process
from pyrunc.errors import ContainerError, KernelError, StateError
from pyrunc.host import console, gather, proc
from pyrunc.kernel import container as kernel_container
from pyrunc.launch import conversation
from pyrunc.launch import init as launch
from pyrunc.plan import planner, wire
from pyrunc.plan import process as plan_process
from pyrunc.plan.job import Plan, PlanOptions
from pyrunc.seccomp import filters as seccomp_filters
from pyrunc.verbs import lookup, process_io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.kernel.container import Container
    from pyrunc.requests import Context, ExecOptions
    from pyrunc.spec.shapes import Process, Spec


def _check_status(found: Container, options: ExecOptions) -> None:
    if found.status == "stopped":
        raise StateError("cannot exec in a stopped container")
    if found.status == "creating":
        raise StateError("cannot exec in a container that is still being created")
    # A created container can be frozen, too, and is still created.
    if found.status == "running" or not kernel_container.cgroup_frozen(found.cgroups):
        return
    if not options.ignore_paused:
        raise StateError("cannot exec in a paused container (use --ignore-paused to override)")
    _await_resume(found)


def _await_resume(found: Container) -> None:
    """Wait as --ignore-paused asks. No process of ours enters a frozen cgroup, where it could not be killed."""
    import time

    deadline = time.monotonic() + launch.STEP_SECONDS
    while kernel_container.cgroup_frozen(found.cgroups):
        if container_process.has_ended(found.pid, found.start_time):
            raise StateError("cannot exec in a stopped container")
        if time.monotonic() > deadline:
            raise StateError(
                f"cannot exec in a container that is paused for {launch.STEP_SECONDS} s",
                hint="resume it, then the process runs",
            )
        time.sleep(0.02)


def _process(spec: Spec, options: ExecOptions) -> tuple[Process, str]:
    """Return the process to run, and the JSON path its errors start with."""
    if options.process:
        process = config.load_process(options.process)
        rules_process.check(process, path="$")
        return process, "$"
    from pyrunc.config import exec_process

    process = exec_process.build(spec.get("process") or {}, options)
    rules_process.check(process, path="$.process")
    return process, "$.process"


def _cgroup_directories(recorded: Sequence[tuple[str, str]], options: ExecOptions) -> list[tuple[str, str]]:
    """Return the cgroups of the process: the container's, or those below that --cgroup names.

    `--cgroup /` is the container's own cgroup even when init has left it; otherwise a v2 cgroup that may hold no
    process any more (the container made children with controllers) gives way to the one init is in now.
    """
    if not options.cgroup:
        return list(recorded)
    wanted = dict(options.cgroup)
    chosen = []
    for controller, path in recorded:
        below = wanted.pop(controller, wanted.get("", ""))
        full = os.path.normpath(path + "/" + below) if below else path
        if full != path and not full.startswith(path + "/"):
            raise StateError(
                f"the cgroup '{below}' is not below the container's cgroup", hint="leave out '..'"
            )
        if not os.path.isdir(full):
            raise StateError(
                f"the cgroup '{below}' does not exist in the container", hint=f"no directory {full}"
            )
        chosen.append((controller, full))
    unknown = [name for name in wanted if name]
    if unknown:
        raise StateError(f"the container has no cgroup of the controller '{unknown[0]}'")
    return chosen


def _inits_own_cgroup(pid: int, recorded: Sequence[tuple[str, str]]) -> str:
    """The v2 cgroup directory init is in now. cgroups(7), /proc/PID/cgroup."""
    for controllers, path in proc.cgroups(pid):
        if not controllers:
            return f"/sys/fs/cgroup{path}"
    return recorded[0][1]


def _initial_affinity(process: Process, json_path: str) -> None:
    """config.md, execCPUAffinity: where the parent runs before it enters the cgroup; its child inherits that."""
    initial = ((process.get("execCPUAffinity") or {}).get("initial") or "").strip()
    if not initial:
        return
    mask = int.from_bytes(plan_process.bit_list(initial), wire.ORDER)
    try:
        os.sched_setaffinity(0, [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1])
    except OSError as error:
        path = f"{json_path}.execCPUAffinity.initial"
        hint = "none of these CPUs is there, or pyrunc itself may not use them"
        raise KernelError("sched_setaffinity", error.errno or 0, initial, path=path, hint=hint) from error


def _start(
    the_plan: Plan,
    manager: cgroup_manager.Manager,
    recorded: Sequence[tuple[str, str]],
    pid: int,
    forced: bool,
) -> launch.Init:
    """Start init inside the container's cgroup: on v2 straight into it, without a migration."""
    cgroup_fd = manager.open()
    try:
        try:
            init = launch.start(
                the_plan.ops, known={}, clone_flags=the_plan.clone_flags, cgroup_fd=cgroup_fd
            )
        except KernelError as error:
            if error.syscall != "clone3" or cgroup_fd < 0:
                raise
            if forced and error.errno == errno.EBUSY:
                raise StateError(
                    f"the cgroup '{manager.paths[0][1]}' holds no processes: controllers are delegated below it",
                    hint="name one of its children by --cgroup, or leave the option out",
                ) from error
            if forced:
                raise
            # EBUSY: the container delegated controllers to children, so its own cgroup holds no processes any more.
            own = _inits_own_cgroup(pid, recorded)
            if kernel_container.cgroup_frozen([("", own)]):
                raise StateError(
                    f"the cgroup '{own}', which the container made for its first process, is frozen",
                    hint="name another one of its children by --cgroup",
                ) from error
            os.close(cgroup_fd)
            cgroup_fd = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            init = launch.start(
                the_plan.ops, known={}, clone_flags=the_plan.clone_flags, cgroup_fd=cgroup_fd
            )
    finally:
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
    if cgroup_fd < 0:
        try:
            init.while_it_lives(manager.attach)
        except BaseException:
            init.abort()
            raise
    return init


def exec_(ctx: Context, container_id: str, options: ExecOptions) -> int:
    """Run a process in the container. Its exit status (128 + signal), or 0 at once when detached. runc-exec(8)."""
    found = lookup.load(ctx, container_id)
    try:
        return _exec(ctx, container_id, options, found)
    except (ContainerError, KernelError) as error:
        # Missing namespaces or cgroups, or a pid namespace without init: all mean that the container has stopped.
        if container_process.is_ending(found.pid, found.start_time):
            raise StateError("cannot exec in a stopped container") from error
        raise


def _exec(ctx: Context, container_id: str, options: ExecOptions, found: Container) -> int:
    _check_status(found, options)
    configuration = lookup.configuration(ctx, container_id)
    spec = configuration.spec
    process, json_path = _process(spec, options)
    terminal = bool(process.get("terminal"))
    console.check(terminal=terminal, detached=options.detach, console_socket=options.console_socket)
    process_io.check_pid_file(options.pid_file)
    count, environment = process_io.extra_fds(options)
    facts = gather.gather(rlimits=bool(process.get("rlimits")), rootless=ctx.rootless)
    rules_process.labels(process, facts, json_path)
    manager = choose.from_paths(_cgroup_directories(found.cgroups, options), unit=found.unit)
    compiled = seccomp_filters.of_spec(spec, ctx.root)
    the_plan = planner.exec_process(
        process,
        spec,
        facts,
        PlanOptions(
            bundle=found.bundle,
            container_id=container_id,
            rootfs="/",
            preserve_fds=count,
            extra_env=environment,
            init_pid=found.pid,
            no_new_keyring=not found.new_keyring,
            seccomp=compiled,
            own_calls=seccomp_filters.own_calls(compiled, process),
            cgroup_paths=list(manager.paths),
            attached_late=bool(manager.paths) and not manager.joined_at_birth,
        ),
        path=json_path,
    )
    _initial_affinity(process, json_path)
    attendance = None if options.detach else console.Attendance()
    try:
        init = _start(the_plan, manager, found.cgroups, found.pid, bool(options.cgroup))
        log.debug(f"process {init.pid}, a plan of {len(the_plan.ops)} steps, cgroups: {manager.paths}")
        try:
            if container_process.has_ended(found.pid, found.start_time):
                raise StateError("cannot exec in a stopped container")
            log.warn_all(the_plan.warnings)
            status = _serve(init, the_plan, options, attendance, found, spec)
        except BaseException:
            init.abort()
            raise
        init.close()
        return status
    finally:
        if attendance is not None:
            attendance.close()


def _serve(
    init: launch.Init,
    the_plan: Plan,
    options: ExecOptions,
    attendance: console.Attendance | None,
    found: Container,
    spec: Spec,
) -> int:
    def listener(fd: int) -> None:
        conversation.send_seccomp_listener(spec, fd, found.document, init.pid)

    conversation.serve(
        init,
        {
            "CGROUP": lambda _fd: None,  # _start has moved it there
            "CONSOLE": conversation.console_answer(options.console_socket, attendance),
            "SECCOMP": listener,
        },
    )
    conversation.schedule(the_plan, init.pid)
    if found.rdt:
        from pyrunc.host import resctrl

        resctrl.attach(found.rdt, init.pid)
    if options.pidfd_socket:
        console.send_fd(options.pidfd_socket, init.pidfd, b"setns", "--pidfd-socket")
    drop = process_io.write_pid_file(options.pid_file, init.pid) if options.pid_file else None
    init.go()
    try:
        init.receive()  # the end of file of a successful execve, or its error
        init.check_program()
    except BaseException as error:
        try:
            if drop is not None:
                drop()
        except OSError as later:
            error.add_note(f"while cleaning up: {later}")
        raise
    if attendance is None:
        return 0
    status = attendance.wait(init.pid, init.pidfd)
    init.pid = 0
    return status
