"""Hooks that run in the runtime namespace: prestart, createRuntime, poststart, poststop. config.md, "Hooks".

createContainer and startContainer hooks are steps of init's plan.
"""

from __future__ import annotations

import _signal
import errno
import os
import select
import time

from pyrunc.container import process as container_process
from pyrunc.errors import ContainerError, KernelError, PyruncError, strerror
from pyrunc.kernel import container as kernel_container
from pyrunc.kernel import process as kernel_process
from pyrunc.launch.ending import collect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.spec.shapes import Hook, Spec

    # A descriptor that is readable if hooks may have to be ended.
    Stop = tuple[int, Callable[[], bool]]

_KEPT_OUTPUT = 4096
# A pipe holds no more unless it is enlarged, so this reads all that was written before the hook's end.
_PIPE_SIZE = 65536
_SIGKILL, _SIGSTOP = 9, 19
# The longest single wait: poll(2) takes a C int.
_LONGEST_WAIT_MS = 1 << 30
# The time for a process that SIGKILL does not end: it waits for a device, or is frozen.
_KILL_SECONDS = 10.0
# Replaces a wait status that is lost.
_LOST = -1
# A limit, because children could be made faster than they are found.
_KILL_ROUNDS = 20


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


class _Talk:
    """Our ends of a hook's pipes: for the state and for its output."""

    __slots__ = ("_poller", "_rest", "output", "stdin", "stdout")

    def __init__(self, stdin: int, stdout: int, state: bytes) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._rest = memoryview(state)
        self.output = b""
        self._poller = select.poll()
        self._poller.register(stdout, select.POLLIN)
        self._poller.register(stdin, select.POLLOUT)
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)

    def until_gone(self, pidfd: int, deadline: float | None, stop: Stop | None) -> bool:
        """Write the state and read output until the hook has ended. Return whether that was in time."""
        self._poller.register(pidfd, select.POLLIN)
        if stop is not None:
            self._poller.register(stop[0], select.POLLIN)
        while True:
            # Checked in every round: with continuous output poll() never times out.
            left = _LONGEST_WAIT_MS if deadline is None else (deadline - time.monotonic()) * 1000
            if left <= 0:
                return False
            gone = False
            for fd, event in self._poller.poll(min(left, _LONGEST_WAIT_MS)):
                if fd == self.stdin:
                    self._feed(event)
                elif fd == self.stdout:
                    if not self._read():
                        self._poller.unregister(self.stdout)
                elif stop is not None and fd == stop[0]:
                    if stop[1]():
                        return False
                else:
                    gone = True
            if gone:
                self._read()
                return True

    def _feed(self, event: int) -> None:
        try:
            done = os.write(self.stdin, self._rest) if event & select.POLLOUT else len(self._rest)
        except BlockingIOError:
            done = 0
        except BrokenPipeError:
            done = len(self._rest)  # a hook need not read its state
        self._rest = self._rest[done:]
        if not self._rest:
            self._poller.unregister(self.stdin)
            _close(self.stdin)
            self.stdin = -1

    def _read(self) -> bool:
        """Read what the pipe holds, and not what is written meanwhile. Return False if there is no writer any more."""
        try:
            piece = os.read(self.stdout, _PIPE_SIZE)
        except BlockingIOError:
            return True
        self.output = (self.output + piece)[-_KEPT_OUTPUT:]
        return bool(piece)

    def close(self) -> None:
        """Close our ends: other processes with the hook's ends get SIGPIPE, or end of file."""
        _close(self.stdin, self.stdout)


def _facts(pid: int) -> tuple[int, int, int] | None:
    """Return (start time, parent, session) of a process that is alive and visible. proc(5). Raise KernelError."""
    # Those of others are hidden by an option of proc; a hook of ours has the rights that we have, or fewer.
    fields = container_process.stat(pid)
    return (
        None if fields is None or fields[0] in b"ZX" else (int(fields[19]), int(fields[1]), int(fields[3]))
    )


def _family(leader: int) -> dict[int, int]:
    """Return the start times of the hook's session and of its descendants, which may have left that session.

    Raise KernelError.
    """
    try:
        names = os.listdir("/proc")
    except OSError as error:
        raise KernelError("open", error.errno or 0, "/proc") from error
    everybody = {
        int(name): facts for name in names if name.isdigit() and (facts := _facts(int(name))) is not None
    }
    found = {leader}
    more = {pid for pid, (_, _, session) in everybody.items() if session == leader} | found
    while more:
        found |= more
        more = {pid for pid, (_, parent, _) in everybody.items() if parent in found} - found
    return {pid: everybody[pid][0] for pid in found if pid != leader and pid in everybody}


def _kill_checked(pid: int, started: int) -> None:
    """Kill the process that was seen, and not one that has reused its pid. Raise KernelError."""
    pidfd = kernel_container.process_open(pid, started)
    if pidfd < 0:
        return
    try:
        _signal.pidfd_send_signal(pidfd, _SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        _close(pidfd)


def _end(leader: int, pidfd: int) -> str | None:
    """Kill a hook with its descendants. One that has left the session and lost its parent cannot be found.

    Return the error that kept us from finding them, or None.
    """
    # It is stopped first: it cannot fork then, and its children can still be found by their parent.
    _signal.pidfd_send_signal(pidfd, _SIGSTOP)
    try:
        for _ in range(_KILL_ROUNDS):
            family = _family(leader)
            for pid, started in family.items():
                _kill_checked(pid, started)
            if not family:
                break
    except PyruncError as error:
        return f"what it has started may be left: {error}"
    finally:
        _signal.pidfd_send_signal(pidfd, _SIGKILL)
    return None


def of(spec: Spec, kind: str) -> Sequence[Hook]:
    """Return the hooks of one kind."""
    found: Sequence[Hook] = (spec.get("hooks") or {}).get(kind) or ()  # type: ignore[assignment]  # the schema says so
    return found


def run_one(kind: str, index: int, hook: Hook, state: bytes, cwd: str, stop: Stop | None = None) -> None:
    """Run a hook until its end. Raise ContainerError with the hook's index, exit status and output if it fails."""
    json_path = f"$.hooks.{kind}[{index}]"
    program = hook["path"]
    argv = [os.fsencode(item) for item in hook.get("args") or [program]]
    env = [os.fsencode(item) for item in hook.get("env") or []]
    timeout = hook.get("timeout")
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    try:
        pid, pidfd = kernel_process.spawn(
            argv,
            env,
            path=program,
            cwd=cwd,
            stdio=(stdin_read, stdout_write, stdout_write),
            new_session=True,
        )
    except KernelError as error:
        _close(stdin_write, stdout_read)
        hint = (
            "the path is looked up on the host, not in the container"
            if error.errno == errno.ENOENT
            else None
        )
        raise ContainerError(
            f"{kind} hook #{index} '{program}': {error.syscall}: {strerror(error.errno)}",
            path=json_path,
            hint=hint,
        ) from error
    finally:
        _close(stdin_read, stdout_write)
    talk = _Talk(stdin_write, stdout_read, state)
    try:
        in_time = talk.until_gone(pidfd, time.monotonic() + timeout if timeout else None, stop)
        left = None if in_time else _end(pid, pidfd)
        status = collect(pid, pidfd, _KILL_SECONDS, lost=_LOST)
    finally:
        talk.close()
        _close(pidfd)
    said = talk.output.decode("utf-8", "replace")
    if not in_time and stop is not None and stop[1]():
        raise ContainerError(f"{kind} hook #{index} '{program}' was interrupted", path=json_path)
    if not in_time:
        from pyrunc.launch import failures

        words = failures.hook_timeout(kind, index, program, float(timeout or 0), said)
        hint = left if status is not None else f"process {pid} could not be killed"
        raise ContainerError(words, path=json_path, hint=hint)
    if status is None or status == _LOST:
        words = f"{kind} hook #{index} '{program}' has ended, and its exit status is not known"
        who = "another process traces it" if status is None else "somebody else has collected it"
        raise ContainerError(words, path=json_path, hint=who)
    if status:
        from pyrunc.launch import failures

        raise ContainerError(failures.hook(kind, index, program, status, said), path=json_path)


def run(kind: str, hooks: Sequence[Hook], state: bytes, cwd: str, stop: Stop | None = None) -> None:
    """Run hooks in listed order and stop at the first failure, which is raised as ContainerError."""
    for index, hook in enumerate(hooks):
        run_one(kind, index, hook, state, cwd, stop)


def run_all(kind: str, hooks: Sequence[Hook], state: bytes, cwd: str) -> list[ContainerError]:
    """Run every hook, even after failures (poststop), and return the failures. runtime.md: MUST log a warning."""
    failed = []
    for index, hook in enumerate(hooks):
        try:
            run_one(kind, index, hook, state, cwd)
        except ContainerError as error:
            failed.append(error)
    return failed
