"""The conversation with CRIU, over its RPC protocol: one `criu swrk` for every question.

    pyrunc                                     criu swrk FD
      request: dump, restore, a question      ──▶ reads descriptors of ours through /proc
      ◀── NOTIFY script                       (only dump and restore) "setup-namespaces", "post-restore", …
      yes, or no: then CRIU undoes what it did ──▶
      ◀── the answer: done, or why not

The protocol and not the command line, as the master of a restored terminal comes only over it, and with it every
step of a restore can still be refused. Imported by runtime; imports errors, criu_log, criu_rpc and kernel.
"""

from __future__ import annotations

import _socket
import os
import select
import shutil
import sys

from pyrunc import criu_log, criu_rpc, kernel
from pyrunc.errors import CriuError, KernelError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.criu_rpc import Message

    # Hears of a step by the script's name, with its pid (0: none) and descriptor (-1: none); raising refuses it.
    Listener = Callable[[str, int, int], None]

# What a question may take; how long a dump or restore takes only the container's memory decides.
_ANSWER_SECONDS = 30.0
_LONGEST_MESSAGE = 1 << 16
# Errors stand at the end of a log, which for a large container has megabytes.
_LOG_TAIL = 1 << 20
_OLDEST = 30000
# What CRIU gets of the caller's environment: it finds iptables by PATH and ~/.criu/default.conf by HOME. Others name
# libraries to load, to the dynamic linker (LD_PRELOAD) as to CRIU itself (CRIU_LIBS_DIR).
_VARIABLES = frozenset((b"PATH", b"HOME"))
_MISSING = "install CRIU (Debian: criu), or put its directory into the PATH of whoever calls pyrunc"


def program() -> str:
    """The path of criu. Raises CriuError when it is not there."""
    path = shutil.which("criu")
    if path is None:
        raise CriuError('criu failed: "criu": executable file not found in $PATH', hint=_MISSING)
    return path


class Server:
    """One `criu swrk`, which answers one request and ends. `pid` is its process, a child of ours.

    `stdio` and `keep` are the descriptors it has, under our numbers; `cgroup_fd` and `bound` are kernel.spawn's.
    """

    __slots__ = ("_output", "_sock", "pid", "pidfd")

    def __init__(
        self,
        *,
        stdio: tuple[int, int, int] | None = None,
        keep: Sequence[int] = (),
        cgroup_fd: int = -1,
        bound: tuple[str, str] | None = None,
    ) -> None:
        path = program()
        self._output = os.memfd_create("criu-output", os.MFD_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._sock, theirs = _socket.socketpair(
            _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0
        )
        try:
            self.pid, self.pidfd = kernel.spawn(
                [b"criu", b"swrk", b"%d" % theirs.fileno()],
                [b"%s=%s" % item for item in os.environb.items() if item[0] in _VARIABLES],
                path=path,
                stdio=stdio or (null, self._output, self._output),
                keep=[theirs.fileno(), *keep],
                cgroup_fd=cgroup_fd,
                bound=bound,
            )
        except BaseException:
            self._sock.close()
            os.close(self._output)
            raise
        finally:
            theirs.close()
            os.close(null)

    def ask(
        self, request: Message, listener: Listener | None = None, *, seconds: float | None = None
    ) -> Message:
        """Send a criu_req and return the criu_resp that ends it, be it a success or not.

        What `listener` raises is told to CRIU, which then undoes what it did, and raised afterwards.
        """
        self._send(request)
        refusal: BaseException | None = None
        while True:
            answer, fd = self._receive(seconds)
            try:
                if criu_rpc.number(answer, "type") != criu_rpc.NOTIFY:
                    break
                if listener is not None and refusal is None:
                    notify = criu_rpc.part(answer, "notify")
                    listener(criu_rpc.text(notify, "script"), criu_rpc.number(notify, "pid"), fd)
            except BaseException as error:  # noqa: BLE001 - raised again once CRIU has undone its work
                refusal = error
            finally:
                if fd >= 0:
                    os.close(fd)
            self._send({"type": criu_rpc.NOTIFY, "notify_success": refusal is None})
        if refusal is not None:
            raise refusal
        return answer

    def _send(self, request: Message) -> None:
        try:
            self._sock.send(criu_rpc.encode("criu_req", request))
        except BrokenPipeError:
            pass  # it is gone: _receive() says so
        except OSError as error:
            raise KernelError("send", error.errno or 0, "criu's socket") from error

    def _receive(self, seconds: float | None) -> tuple[Message, int]:
        poller = select.poll()
        poller.register(self._sock.fileno(), select.POLLIN)
        if not poller.poll(None if seconds is None else seconds * 1000):
            raise CriuError(f"criu failed: no answer within {seconds:g} s")
        try:
            data, ancillary, _flags, _address = self._sock.recvmsg(
                _LONGEST_MESSAGE, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise CriuError(f"criu failed: {strerror(error.errno or 0)}") from error
        fd = -1
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                fd = int.from_bytes(content[:4], sys.byteorder)
        if not data:
            raise CriuError("criu failed: unexpected EOF")
        return criu_rpc.decode("criu_resp", data), fd

    def output(self) -> list[str]:
        """What it wrote on its own standard output and error, by lines."""
        return os.pread(self._output, _LOG_TAIL, 0).decode("utf-8", "replace").splitlines()

    def close(self) -> int:
        """Hang up and wait until it is gone; its wait status. In the middle of a dump it lets the container go on."""
        self._sock.close()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        os.close(self._output)
        return status


def _question(request: Message) -> Message:
    server = Server()
    try:
        answer = server.ask(request, seconds=_ANSWER_SECONDS)
    finally:
        server.close()
    return answer


def version() -> int:
    """CRIU's version, 31701 for 3.17.1. Raises CriuError when it is missing, or older than its RPC of today."""
    answer = criu_rpc.part(_question({"type": criu_rpc.VERSION}), "version")
    numbers = [criu_rpc.number(answer, field) for field in ("major_number", "minor_number", "sublevel")]
    found = numbers[0] * 10000 + numbers[1] * 100 + numbers[2]
    require(found, _OLDEST, "checkpoint and restore")
    return found


def require(found: int, least: int, what: str) -> None:
    """Raises CriuError when the version `found` is older than `least`."""
    if found < least:
        words = f"criu failed: {what} needs CRIU {_spelled(least)}, this is {_spelled(found)}"
        raise CriuError(words, hint="install a newer CRIU")


def _spelled(version_number: int) -> str:
    return f"{version_number // 10000}.{version_number // 100 % 100}.{version_number % 100}"


def require_feature(field: str, what: str) -> None:
    """Raises CriuError when CRIU or the kernel lack a field of criu_features; `what` needs it."""
    answer = _question({"type": criu_rpc.FEATURE_CHECK, "features": {field: 1}})
    if not criu_rpc.number(criu_rpc.part(answer, "features"), field):
        # As when an error of that name stood in a log.
        _, hint = criu_log.explain([f"Error (): {field}"])
        raise CriuError(f"criu failed: {what} is not possible here: no {field}", hint=hint)


def failure(answer: Message, log_file: str, output: Sequence[str]) -> CriuError:
    """Why a request failed, from its answer and CRIU's log (or, before there was one, its output)."""
    lines = _tail(log_file)
    cause, hint = criu_log.explain(lines)
    if not cause:
        cause, hint = criu_log.explain(output)
    kind = criu_rpc.TYPES.get(criu_rpc.number(answer, "type"), "EMPTY")
    words = f"criu failed: type {kind} errno {criu_rpc.number(answer, 'cr_errno')}"
    cause = cause or criu_rpc.text(answer, "cr_errmsg").strip()
    if cause:
        words += f": {cause}"
    if lines:
        words += f" (log file: {log_file})"
    if hint is None and lines:
        hint = "the log file says more; `criu check` tells whether CRIU works on this host at all"
    return CriuError(words, hint=hint)


def _tail(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, _LOG_TAIL, max(0, size - _LOG_TAIL))
    except OSError:
        return []
    finally:
        os.close(fd)
    return data.decode("utf-8", "replace").splitlines()
