"""What create and exec answer init while it works through its plan, and what they do for it meanwhile."""

from __future__ import annotations

import errno
import os

from pyrunc import log
from pyrunc.errors import ContainerError, KernelError
from pyrunc.host import console
from pyrunc.kernel import process as kernel_process
from pyrunc.launch import failures
from pyrunc.launch import init as launch
from pyrunc.plan import numbers, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.plan.job import Plan
    from pyrunc.spec.shapes import Spec

_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702


def pid_namespace_inside(spec: Spec) -> bool:
    """Whether the pid namespace to join belongs to the user namespace to join, or to one in that. ioctl_nsfs(2).

    Only then privileges over the one are enough to enter the other. Raises KernelError.
    """
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    paths = {item["type"]: item["path"] for item in namespaces if item.get("path")}
    if "user" not in paths or "pid" not in paths:
        return False
    from fcntl import ioctl

    fd = -1
    try:
        wanted = os.stat(paths["user"])
        fd = os.open(paths["pid"], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        request = _NS_GET_USERNS
        while True:
            # Not among our own namespaces or below: above all that we can join.
            above = ioctl(fd, request)
            os.close(fd)
            fd, request = above, _NS_GET_PARENT
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError as error:
        # What is missing, or is no namespace, is said by who opens it for init.
        if error.errno in (errno.EPERM, errno.ENOTTY, errno.ENOENT, errno.ESRCH, errno.EACCES):
            return False
        raise KernelError("ioctl", error.errno or 0, paths["pid"]) from error
    finally:
        if fd >= 0:
            os.close(fd)


def schedule(the_plan: Plan, pid: int) -> None:
    """Give init the scheduling policy that it could not have before its last fork. Raises PyruncError."""
    op = the_plan.scheduler
    if op is None:
        return
    attributes = op.fields[0]
    assert isinstance(attributes, bytes)
    try:
        kernel_process.sched_setattr(pid, attributes)
    except KernelError as error:
        message = wire.Message(numbers.SYNC["ERROR"], 0, 0, "sched_setattr", error.errno, 0, 0, "")
        raise failures.explain_op(op, message) from error


def send_seccomp_listener(spec: Spec, fd: int, document: bytes, pid: int) -> None:
    """Hand the notify descriptor and a ContainerProcessState to linux.seccomp.listenerPath.

    `document` is the container's state as JSON, `pid` the container process as the runtime sees it. Raises
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


def serve(
    init: launch.Init,
    answers: dict[str, Callable[[int], None]],
    afterwards: dict[str, Callable[[], None]] | None = None,
) -> None:
    """Answer init until READY, which is left waiting for its go.

    `answers` maps a sync code to what it asks for, `afterwards` to what is done when init has gone on.
    """
    while True:
        code, fd = init.receive()
        if not code:
            raise init.died()
        log.debug(f"init {init.pid} says {code}")
        if code == "READY":
            return
        if code == "SECCOMP" and init.pipes[0] >= 0:
            # Its agent is told who goes on, unless init waits for an answer of the agent until then.
            init.hold(fd, answers["SECCOMP"])
        else:
            try:
                answers[code](fd)
            finally:
                if fd >= 0:
                    os.close(fd)
        init.go()
        if afterwards and code in afterwards:
            afterwards[code]()


def console_answer(console_socket: str, attendance: console.Attendance | None) -> Callable[[int], None]:
    """What to do with the pty master: pass it to the console socket, or serve it when attached."""

    def answer(master: int) -> None:
        # Init is inside by now: a process of the container may have taken its place.
        if not console.is_master(master):
            raise ContainerError("init sent something that is no terminal")
        if attendance is not None and not console_socket:
            attendance.take_terminal(os.dup(master))
        else:
            console.send_fd(console_socket, master, b"/dev/ptmx", "--console-socket")

    return answer
