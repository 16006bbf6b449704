"""The answers to init until its container or process is ready, for create, exec and restore.

All functions raise PyruncError.
"""

from __future__ import annotations

import os

from pyrunc import log
from pyrunc.errors import ContainerError, KernelError
from pyrunc.host import console
from pyrunc.kernel import process as kernel_process
from pyrunc.plan import numbers, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.launch import init as launch
    from pyrunc.plan.job import Plan
    from pyrunc.spec.shapes import Spec


def schedule(the_plan: Plan, pid: int) -> None:
    """Set the scheduling policy that init could not set before its last fork. Raise PyruncError."""
    op = the_plan.scheduler
    if op is None:
        return
    attributes = op.fields[0]
    assert isinstance(attributes, bytes)
    try:
        kernel_process.sched_setattr(pid, attributes)
    except KernelError as error:
        message = wire.Message(numbers.SYNC["ERROR"], 0, 0, "sched_setattr", error.errno, 0, 0, "")
        from pyrunc.launch import failures

        raise failures.explain_op(op, message) from error


def send_seccomp_listener(spec: Spec, fd: int, document: bytes, pid: int) -> None:
    """Send the notify descriptor and a ContainerProcessState to linux.seccomp.listenerPath.

    `document` is the container's state as JSON, `pid` the container process as the runtime sees it. Raise
    KernelError: config-linux.md: "If sending fails, the runtime MUST generate an error and terminate the container".
    """
    from pyrunc import SPEC_VERSION
    from pyrunc.seccomp import profile as seccomp_profile

    wanted = (spec.get("linux") or {}).get("seccomp") or {}
    metadata = str(wanted.get("listenerMetadata") or "")
    message = seccomp_profile.process_state(SPEC_VERSION, pid, metadata, document)
    console.send_fd(
        str(wanted.get("listenerPath")),
        fd,
        message,
        "the agent's listenerPath",
        json_path="$.linux.seccomp.listenerPath",
    )


def map_ids(init: launch.Init, plan: Plan) -> None:
    """Write the id maps of init's new user namespace: if it makes one, this is its first request."""
    if plan.uid_maps is None:
        return
    from pyrunc.launch import id_maps

    code, _ = init.receive()
    if code != "MAPS":
        raise init.died()
    log.debug(f"init {init.pid} says {code}")
    id_maps.write(init.pid, plan.uid_maps, plan.gid_maps or ())
    init.go()


def serve(init: launch.Init, answers: dict[str, Callable[[int], None]], *, until: str = "READY") -> None:
    """Answer init until it sends `until`, after which it waits.

    `answers` maps a sync code to the function that handles it.
    """
    while True:
        code, fd = init.receive()
        if not code:
            raise init.died()
        log.debug(f"init {init.pid} says {code}")
        if code == until:
            return
        if code == "SECCOMP" and init.pipes[0] >= 0:
            # The agent gets the pid of the process that continues, unless init waits for the agent's answer.
            init.hold(fd, answers["SECCOMP"])
        else:
            try:
                answers[code](fd)
            finally:
                if fd >= 0:
                    os.close(fd)
        init.go()


def console_answer(console_socket: str, attendance: console.Attendance | None) -> Callable[[int], None]:
    """Handle the pty master: pass it to the console socket, or serve it if attached."""

    def answer(master: int) -> None:
        # Init is inside by now: a process of the container may have taken its place.
        if not console.is_master(master):
            raise ContainerError("init sent something that is no terminal")
        if attendance is not None and not console_socket:
            attendance.take_terminal(os.dup(master))
        else:
            console.send_fd(console_socket, master, b"/dev/ptmx", "--console-socket")

    return answer
