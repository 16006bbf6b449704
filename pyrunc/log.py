"""The log: --log, --log-format, --log-level, --debug. The standard library's logging costs 12 ms to import.

An error is raised and not logged; cli logs it once. At the default level nothing but that one line is written: podman
reads the whole file as one JSON value, containerd looks for the last error in it.
"""

from __future__ import annotations

import os
import sys
import time

from pyrunc.errors import KernelError, UsageError, strerror

_LEVELS = {"error": 0, "warning": 1, "debug": 2}
_STDERR = 2
_NO_FD = -1
# As a number, which saves importing errno.
_EACCES = 13
# syslog(3): levels and the facility LOG_USER.
_SEVERITIES = {"error": 3, "warning": 4, "debug": 7}
_LOG_USER = 8
_JOURNAL = "/run/systemd/journal/socket"
_SYSLOG = "/dev/log"
# The size of a datagram is limited; longer messages are cut.
_MOST_SENT = 1 << 15
_READER_SECONDS = 1.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # level, message
    Send = Callable[[str, str], None]


class _Target:
    """Where lines go, in which format and up to which level. `fd` is -1 if only services get them."""

    __slots__ = ("fd", "json", "level", "services")

    def __init__(self) -> None:
        self.fd = _STDERR
        self.json = False
        self.level = 0
        self.services: list[Send] = []


_target = _Target()


def setup(path: str = "", form: str = "text", level: str = "error", *, journal: bool = False) -> None:
    """Log to the file `path` ("": stderr), appending; `form` is text or json, `level` error, warning or debug.

    `path` may also be `file:PATH`, `journald:ID` or `syslog:ID`, as in crun; `journal`: log to the journal as well.
    Raise UsageError if the form or the level is invalid, KernelError if the file or the service cannot be reached.
    """
    if form not in ("text", "json"):
        raise UsageError(f"invalid log-format: {form}", hint="give text or json")
    if level not in _LEVELS:
        raise UsageError(f"invalid log-level: {level}", hint="give error, warning or debug")
    _target.json = form == "json"
    _target.level = _LEVELS[level]
    _target.fd = _STDERR
    _target.services = []
    kind, colon, rest = path.partition(":")
    if colon and kind == "file":
        path = rest
    elif colon and kind in ("journald", "syslog"):
        path = ""
        _target.services.append(_journal(rest) if kind == "journald" else _syslog(rest))
        _target.fd = _NO_FD
    if journal:
        _target.services.append(_journal(""))
    if path:
        _target.fd = open_file(path, os.O_APPEND | os.O_SYNC, hint="the log file cannot be written")


def open_file(path: str, flags: int, *, hint: str) -> int:
    """Open a file for writing, and create it if it does not exist. Raise KernelError if that fails.

    The directory may be writable by others: a link that belongs to another user is not followed, as the kernel does
    with fs.protected_symlinks in sticky directories, proc_sys_fs(5). The call never blocks: a fifo may have no reader,
    or one that does not read.
    """
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        try:
            return os.open(path, flags | os.O_NOFOLLOW, 0o644)
        except OSError:
            if not os.path.islink(path):
                raise
            owner = os.lstat(path).st_uid
        if owner in (0, os.geteuid()):
            return os.open(path, flags, 0o644)
    except OSError as error:
        raise KernelError("open", error.errno or 0, path, hint=hint) from error
    raise KernelError("open", _EACCES, path, hint=f"it is a symbolic link of user {owner}: {hint}")


def error(message: str, hint: str | None = None) -> bool:
    """Log an error, for cli only. Return False if the log is plain stderr, where cli prints the message itself."""
    if _target.fd == _STDERR and not _target.json:
        _tell("error", message, hint)
        return False
    _write("error", message, hint)
    return True


def warning(message: str) -> None:
    """Log a problem that does not stop the command."""
    if _target.level >= 1:
        _write("warning", message, None)


def debug(message: str) -> None:
    """Log a step and its place in the code."""
    if _target.level >= 2:
        frame = sys._getframe(1)
        # Code loaded from hot.bin has no file name of its own.
        where = {"file": str(frame.f_globals.get("__file__")), "func": frame.f_code.co_qualname}
        _write("debug", message, None, where)


def _now() -> str:
    """RFC 3339 with the local offset."""
    now = time.localtime()
    offset = now.tm_gmtoff // 60
    sign = "-" if offset < 0 else "+"
    zone = f"{sign}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", now) + zone


def put(fd: int, data: bytes) -> None:
    """Write all data. Raise OSError if that fails, or if the reader does not make room within a second."""
    deadline = 0.0
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            import select

            deadline = deadline or time.monotonic() + _READER_SECONDS
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise


def _complain(problem: OSError) -> None:
    sys.stderr.write(f"pyrunc: write the log: {strerror(problem.errno or 0)}\n")


def _connected(path: str, service: str) -> int:
    """Return a connected datagram socket; each write is one message."""
    import socket

    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sender.setblocking(False)
        sender.connect(path)
    except OSError as error:
        sender.close()
        raise KernelError(
            "connect", error.errno or 0, path, hint=f"{service} does not listen here"
        ) from error
    return sender.detach()


def _journal(name: str) -> Send:
    """Return a function that writes to the journal in its native protocol. systemd, docs/JOURNAL_NATIVE_PROTOCOL.md"""
    fd = _connected(_JOURNAL, "journald")

    def tell(level: str, message: str) -> None:
        data = message.encode()
        head = f"PRIORITY={_SEVERITIES[level]}\nSYSLOG_IDENTIFIER={name or 'pyrunc'}\nMESSAGE\n".encode()
        put(fd, head + len(data).to_bytes(8, "little") + data + b"\n")

    return tell


def _syslog(name: str) -> Send:
    fd = _connected(_SYSLOG, "a syslog daemon")

    def tell(level: str, message: str) -> None:
        when = time.strftime("%b %e %H:%M:%S", time.localtime())
        line = f"<{_LOG_USER + _SEVERITIES[level]}>{when} {name or 'pyrunc'}[{os.getpid()}]: {message}"
        put(fd, line.encode("utf-8", "surrogateescape"))

    return tell


def _tell(level: str, message: str, hint: str | None) -> None:
    if not _target.services:
        return
    from pyrunc import printable

    text = printable.line(f"{message} (hint: {hint})" if hint else message)
    for tell in _target.services:
        try:
            tell(level, text[:_MOST_SENT])
        except OSError as problem:
            _complain(problem)


def _write(level: str, message: str, hint: str | None, more: dict[str, str] | None = None) -> None:
    _tell(level, message, hint)
    if _target.fd == _NO_FD:
        return
    from pyrunc import printable
    from pyrunc.json_text import document as json_text

    # JSON's escapes are not enough: engines show the decoded message on terminals.
    message, hint = printable.line(message), printable.line(hint) if hint else None
    if _target.json:
        fields = {**(more or {}), "level": level, "msg": message, "time": _now()}
        line = json_text.dumps({"hint": hint, **fields} if hint else fields)
    else:
        line = f'time="{_now()}" level={level} msg={json_text.dumps(message)}'
        line += f" hint={json_text.dumps(hint)}" if hint else ""
        line += "".join([f" {key}={json_text.dumps(value)}" for key, value in (more or {}).items()])
    try:
        put(_target.fd, line.encode() + b"\n")
    except OSError as problem:
        if _target.fd != _STDERR:
            _complain(problem)


def warn_all(*sources: list[str]) -> None:
    """Log what is missing; not at the default level, as engines take every line for an error."""
    for messages in sources:
        for message in messages:
            warning(message)
