"""Hooks that run in the runtime namespace: prestart, createRuntime, poststart, poststop. config.md, "Hooks".

createContainer and startContainer hooks are steps of init's plan. Imported by runtime; imports errors, failures
and kernel.
"""

from __future__ import annotations

import errno
import os
import select
import time

from pyrunc import failures, kernel
from pyrunc.errors import ContainerError, KernelError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.spec_types import Hook, Spec

_KEPT_OUTPUT = 4096
_SIGKILL = 9


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _feed_and_wait(
    pidfd: int, stdin: int, stdout: int, state: bytes, deadline: float | None
) -> tuple[bytes, bool]:
    """Write `state`, read what comes, until the hook is gone. Returns (the end of its output, in time?)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(stdout, select.POLLIN)
    poller.register(stdin, select.POLLOUT)
    os.set_blocking(stdin, False)
    os.set_blocking(stdout, False)
    output = b""
    rest = memoryview(state)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            events = poller.poll(left)
            if not events:
                return output, False
            gone = False
            for fd, event in events:
                if fd == stdin:
                    # A hook need not read its state: EPIPE is its choice.
                    try:
                        rest = rest[os.write(stdin, rest) :] if event & select.POLLOUT else rest[:0]
                    except BrokenPipeError:
                        rest = rest[:0]
                    if not rest:
                        poller.unregister(stdin)
                        _close(stdin)
                        stdin = -1
                elif fd == stdout:
                    piece = _read(stdout)
                    output = (output + piece)[-_KEPT_OUTPUT:]
                    if not piece:
                        poller.unregister(stdout)
                else:
                    gone = True
            if gone:
                while piece := _read(stdout):
                    output = (output + piece)[-_KEPT_OUTPUT:]
                return output, True
    finally:
        _close(stdin)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def of(spec: Spec, kind: str) -> Sequence[Hook]:
    """The hooks of one kind, none when there are none."""
    found: Sequence[Hook] = (spec.get("hooks") or {}).get(kind) or ()  # type: ignore[assignment]  # the schema says so
    return found


def run_one(kind: str, index: int, hook: Hook, state: bytes, cwd: str) -> None:
    """Run one hook to its end. Raises ContainerError with the hook's place, exit status and output."""
    json_path = f"$.hooks.{kind}[{index}]"
    program = hook["path"]
    argv = [os.fsencode(item) for item in hook.get("args") or [program]]
    env = [os.fsencode(item) for item in hook.get("env") or []]
    timeout = hook.get("timeout")
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    try:
        pid, pidfd = kernel.spawn(
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
    try:
        deadline = time.monotonic() + timeout if timeout else None
        output, in_time = _feed_and_wait(pidfd, stdin_write, stdout_read, state, deadline)
        if not in_time:
            # The hook leads its own group, so its children go with it.
            try:
                os.killpg(pid, _SIGKILL)
            except ProcessLookupError:
                pass  # it ended at the very last moment
        _, status = os.waitpid(pid, 0)
    finally:
        _close(stdout_read, pidfd)
    said = output.decode("utf-8", "replace")
    if not in_time:
        words = failures.hook_timeout(kind, index, program, float(timeout or 0), said)
        raise ContainerError(words, path=json_path)
    if status:
        raise ContainerError(failures.hook(kind, index, program, status, said), path=json_path)


def run(kind: str, hooks: Sequence[Hook], state: bytes, cwd: str) -> None:
    """Run hooks in listed order and stop at the first failure, which is raised as ContainerError."""
    for index, hook in enumerate(hooks):
        run_one(kind, index, hook, state, cwd)


def run_all(kind: str, hooks: Sequence[Hook], state: bytes, cwd: str) -> list[ContainerError]:
    """Run every hook whatever the others did (poststop) and return the failures. runtime.md: MUST log a warning."""
    failed = []
    for index, hook in enumerate(hooks):
        try:
            run_one(kind, index, hook, state, cwd)
        except ContainerError as error:
            failed.append(error)
    return failed
