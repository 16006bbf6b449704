"""The error tree. Every failure a user can see is one of these; only `cli` prints them."""

from __future__ import annotations

import os

# ENOMEM, ENFILE, EMFILE, in numbers: errno is a module more for whoever needs nothing else.
SHORTAGES = (12, 23, 24)


class PyruncError(Exception):
    """A failure in words a user can act on.

    `path` is a JSON path as jsonschema prints it (`$.linux.namespaces[2].path`), `hint` one line that says what to do.
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
    """The configuration is wrong or asks for what is not supported."""


class StateError(PyruncError):
    """The operation does not fit the container's state: not found, exists, running."""


class KernelError(PyruncError):
    """The kernel said no.

    `syscall` names the call, `arg` what it was given, `errno` the answer (a positive number).
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
    """Raises KernelError when a call failed for want of descriptors or memory: that says nothing about what it asked.

    For where a failure is an answer otherwise: "cannot be read", "is not there".
    """
    if error.errno in SHORTAGES:
        raise KernelError(call, error.errno or 0, arg) from error


class BusError(PyruncError):
    """A service manager said no, or nothing at all.

    `name` is the D-Bus error it answered with (`org.freedesktop.systemd1.NoSuchUnit`), "" when there was no answer.
    """

    def __init__(
        self, message: str, *, name: str = "", path: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.name = name


class CriuError(PyruncError):
    """CRIU is missing, too old, or could not do what it was asked."""


class ContainerError(PyruncError):
    """The container's init could not do what it was asked, or a hook failed."""


class InternalError(PyruncError):
    """A promise inside pyrunc was broken: please report it."""


def absolute(path: str) -> str:
    """The path made absolute. Raises KernelError where the current directory, which it begins at, is gone."""
    try:
        return os.path.abspath(path)
    except OSError as error:
        hint = f"'{path}' is relative: give an absolute path, or call from a directory that exists"
        raise KernelError("getcwd", error.errno or 0, hint=hint) from error


def strerror(errno: int) -> str:
    """The errno's text with a small first letter, as the messages that engines match on have it (Go's wording)."""
    text = os.strerror(errno)
    return text[:1].lower() + text[1:]
