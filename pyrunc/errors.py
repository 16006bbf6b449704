"""The exceptions. Every failure a user can see is one of these; only `cli` prints them."""

from __future__ import annotations

import os

# ENOMEM, ENFILE, EMFILE as numbers, which saves importing errno.
SHORTAGES = (12, 23, 24)


class PyruncError(Exception):
    """A failure, with a message that a user can act on.

    `path` is a JSON path as jsonschema prints it (`$.linux.namespaces[2].path`), `hint` is one line that says what to
    do.
    """

    def __init__(self, message: str, *, path: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class UsageError(PyruncError):
    """The command line is wrong: unknown option, missing argument."""


class ConfigError(PyruncError):
    """The configuration is invalid or asks for something unsupported."""


class StateError(PyruncError):
    """The container's state does not allow the operation: not found, exists, running."""


class KernelError(PyruncError):
    """A system call failed.

    `syscall` is the name of the call, `arg` its argument, `errno` the error (a positive number).
    """

    def __init__(
        self,
        syscall: str,
        errno: int,
        arg: str | None = None,
        *,
        path: str | None = None,
        hint: str | None = None,
    ) -> None:
        what = syscall if arg is None else f"{syscall} '{arg}'"
        super().__init__(f"{what}: {strerror(errno)}", path=path, hint=hint)
        self.syscall = syscall
        self.errno = errno
        self.arg = arg


def check_shortage(call: str, error: OSError, arg: str) -> None:
    """Raise KernelError if a call failed for lack of descriptors or memory, which answers no question.

    For callers that take any other failure as an answer, such as "does not exist".
    """
    if error.errno in SHORTAGES:
        raise KernelError(call, error.errno or 0, arg) from error


class BusError(PyruncError):
    """A service manager refused a request or did not answer.

    `name` is the D-Bus error of the answer (`org.freedesktop.systemd1.NoSuchUnit`), "" if there was no answer.
    """

    def __init__(
        self, message: str, *, name: str = "", path: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.name = name


class CriuError(PyruncError):
    """CRIU is missing or too old, or a request to it failed."""


class ContainerError(PyruncError):
    """The container's init failed at a step, or a hook failed."""


class LeftError(PyruncError):
    """The program of `run` has ended, with this exit status, and its container could not be deleted."""

    def __init__(self, container_id: str, status: int, error: PyruncError) -> None:
        hint = error.hint or f"try: pyrunc delete --force {container_id}"
        super().__init__(f"the container is not deleted: {error}", hint=hint)
        self.status = status


class InternalError(PyruncError):
    """A bug in pyrunc: please report it."""


def absolute(path: str) -> str:
    """Return the absolute path. Raise KernelError if `path` is relative and the current directory is gone."""
    try:
        return os.path.abspath(path)
    except OSError as error:
        hint = f"'{path}' is relative: give an absolute path, or call from a directory that exists"
        raise KernelError("getcwd", error.errno or 0, hint=hint) from error


def strerror(errno: int) -> str:
    """Return the errno's text in lower case, as in Go's messages, which engines match on."""
    text = os.strerror(errno)
    return text[:1].lower() + text[1:]
