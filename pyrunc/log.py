"""The log: --log, --log-format, --log-level, --debug. Not the standard library's logging, which costs 12 ms to import.

May be imported by every module. Imports errors, jsonfast (when a line is written) and os, sys, time.

Nobody logs an error and raises it, too: raising is enough, cli logs it once. At the default level nothing but that one
line is written: podman takes the whole file for one JSON value, containerd looks for the last error in it.
"""

from __future__ import annotations

import os
import sys
import time

from pyrunc.errors import KernelError, UsageError

_LEVELS = {"error": 0, "warning": 1, "debug": 2}
_STDERR = 2


class _Target:
    """Where lines go, as what, and up to which level."""

    __slots__ = ("fd", "json", "level")

    def __init__(self) -> None:
        self.fd = _STDERR
        self.json = False
        self.level = 0


_target = _Target()


def setup(path: str = "", form: str = "text", level: str = "error") -> None:
    """Log to the file `path` ("": stderr), appending; `form` is text or json, `level` error, warning or debug.

    Raises UsageError for another form or level, KernelError when the file cannot be opened.
    """
    if form not in ("text", "json"):
        raise UsageError(f"invalid log-format: {form}", hint="give text or json")
    if level not in _LEVELS:
        raise UsageError(f"invalid log-level: {level}", hint="give error, warning or debug")
    _target.json = form == "json"
    _target.level = _LEVELS[level]
    _target.fd = _STDERR
    if path:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC | os.O_CLOEXEC
        try:
            _target.fd = os.open(path, flags, 0o644)
        except OSError as error:
            raise KernelError(
                "open", error.errno or 0, path, hint="the log file cannot be written"
            ) from error


def error(message: str, hint: str | None = None) -> bool:
    """Log an error, for cli only. False when the log is plain stderr, where cli has better words for it."""
    if _target.fd == _STDERR and not _target.json:
        return False
    _write("error", message, hint)
    return True


def warning(message: str) -> None:
    """Log what went wrong without consequence."""
    if _target.level >= 1:
        _write("warning", message, None)


def debug(message: str) -> None:
    """Log a step taken."""
    if _target.level >= 2:
        _write("debug", message, None)


def _now() -> str:
    """RFC 3339 with the local offset."""
    now = time.localtime()
    offset = now.tm_gmtoff // 60
    sign = "-" if offset < 0 else "+"
    zone = f"{sign}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", now) + zone


def _write(level: str, message: str, hint: str | None) -> None:
    from pyrunc import jsonfast

    # A path may hold bytes that are no UTF-8; a line of JSON may not.
    message = message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if _target.json:
        fields = {"level": level, "msg": message, "time": _now()}
        line = jsonfast.dumps({"hint": hint, **fields} if hint else fields)
    else:
        line = f'time="{_now()}" level={level} msg={jsonfast.dumps(message)}'
        line += f" hint={jsonfast.dumps(hint)}" if hint else ""
    try:
        os.write(_target.fd, line.encode("utf-8", "replace") + b"\n")
    except OSError as problem:
        if _target.fd != _STDERR:
            sys.stderr.write(f"pyrunc: write the log: {problem.strerror}\n")
