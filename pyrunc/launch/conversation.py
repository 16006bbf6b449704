"""What create and exec share: descriptors for the program, the pid file, answering init, seccomp and the console.

Imported by runtime_create, runtime_exec and explain; imports console, host, launch and errors.
"""

from __future__ import annotations

import errno
import os
import sys

from pyrunc import log
from pyrunc.errors import ContainerError, KernelError, StateError
from pyrunc.host import console
from pyrunc.host import gather as host
from pyrunc.kernel import process as kernel
from pyrunc.launch import failures
from pyrunc.launch import init as launch
from pyrunc.plan import numbers, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.host.gather import HostFacts
    from pyrunc.plan.planner import Plan
    from pyrunc.requests import Context, ProcessOptions
    from pyrunc.seccomp.profile import Filter
    from pyrunc.spec.shapes import Process, Spec

_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702


def facts(ctx: Context, spec: Spec) -> HostFacts:
    """What the host offers, as far as this configuration asks for it."""
    wants_rdt = (spec.get("linux") or {}).get("intelRdt") is not None
    return host.gather(
        rlimits=bool((spec.get("process") or {}).get("rlimits")),
        rootless=ctx.rootless,
        resctrl=ctx.resctrl if wants_rdt else None,
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def extra_fds(options: ProcessOptions) -> tuple[int, list[str]]:
    """How many descriptors from 3 on the program gets, and what goes into its environment for socket activation.

    LISTEN_FDS of our own environment comes first (sd_listen_fds(3)), then --preserve-fds. Raises StateError when one
    of them was not passed to us: a descriptor of ours may have its number.
    """
    listen, listen_pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "0")
    # No table of descriptors has more than nine digits; int() has a limit of its own.
    listening = int(listen[:9]) if _is_number(listen) and _is_number(listen_pid) else 0
    count = listening + options.preserve_fds
    for fd in range(3, 3 + count):
        try:
            # All of ours are close-on-exec, and none that came through an exec is.
            passed = os.get_inheritable(fd)
        except OSError:
            passed = False
        if not passed:
            raise StateError(
                f"cannot preserve file descriptor {fd}: it is not open",
                hint="check --preserve-fds and LISTEN_FDS",
            )
    return count, [f"LISTEN_FDS={listening}", "LISTEN_PID=1"] if listening else []


def log_warnings(*sources: list[str]) -> None:
    """Say what was done without; at the default level nobody hears it, as engines take every line for an error."""
    for warnings in sources:
        for warning in warnings:
            log.warning(warning)


def check_pid_file(path: str, directory: int | None = None) -> None:
    """Whether write_pid_file() may replace what is at `path`: a file, or nothing. "" is no pid file. Raises StateError.

    Not a link either: that would be /dev/stdout, and a device /dev/null. `directory` is the one that it is in, if it is
    open. KernelError when nobody can tell.
    """
    if not path:
        return
    from stat import S_ISREG

    try:
        name = path if directory is None else os.path.basename(path)
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise KernelError("lstat", error.errno or 0, path, hint="the pid file cannot be written") from error
    if not S_ISREG(mode):
        raise StateError(
            f"the pid file '{path}' is no regular file", hint="it is left as it is; give another name"
        )


def _open_folder(path: str) -> int:
    return os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def write_pid_file(path: str, pid: int) -> Callable[[], None]:
    """Digits and nothing else (go-runc's Atoi takes no newline), at once whole. Raises KernelError, StateError.

    Returns what removes it again, and nothing else that has its name by then. The directory is looked up once: whoever
    owns it may exchange it for a link at any moment.
    """
    call, name = "open", os.path.basename(path)
    # Others may write there: a name that nobody can have made before, and that no runtime which was killed has left.
    temporary = f".pyrunc-{os.urandom(8).hex()}"
    folder = -1
    try:
        folder = _open_folder(path)
        check_pid_file(path, folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(temporary, flags, 0o644, dir_fd=folder)
        try:
            call = "write"
            os.write(fd, b"%d" % pid)
            call = "rename"
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            written = os.fstat(fd)
        except OSError:
            _try_unlink(temporary, folder)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(call, error.errno or 0, path, hint="the pid file cannot be written") from error
    finally:
        if folder >= 0:
            os.close(folder)
    return lambda: _drop_pid_file(path, written)


def _try_unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        pass  # whoever owns the directory was faster; the error on the way has the reason


def _drop_pid_file(path: str, written: os.stat_result) -> None:
    """Remove the file that was written, if it is still there. Raises OSError."""
    folder = _open_folder(path)
    try:
        name = os.path.basename(path)
        try:
            if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), written):
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
    finally:
        os.close(folder)


def compile_seccomp(spec: Spec, root: str) -> Filter | None:
    """The finished filter of linux.seccomp, None when there is none; `root` is where finished ones are kept."""
    wanted = (spec.get("linux") or {}).get("seccomp")
    if not wanted:
        return None
    from pyrunc.seccomp import compile as seccomp

    return seccomp.compile(wanted, root, starts=True)


def own_calls(compiled: Filter | None, process: Process) -> tuple[bytes, int]:
    """What lets init's own calls pass a filter that must be loaded before its last fork: plan.PlanOptions."""
    if compiled is None or (process.get("noNewPrivileges") and not compiled.notify):
        return b"", 0
    # Nobody may guess it: the filter lets pass whoever knows it. A word of this machine has no more bits.
    own = int.from_bytes(os.urandom(8), wire.ORDER) & (2 * sys.maxsize + 1)
    front = kernel.seccomp_own_calls(compiled.bpf, own)
    return front, own if front else 0


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
        kernel.sched_setattr(pid, attributes)
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
