"""CRIU's RPC protocol: one `criu swrk` for every request.

    pyrunc                                     criu swrk FD
      request: dump, restore, a question      ──▶ reads descriptors of ours through /proc
      ◀── NOTIFY script                       (only dump and restore) "setup-namespaces", "post-restore", …
      yes, or no: then CRIU undoes what it did ──▶
      ◀── the answer: done, or why not

The protocol is used instead of the command line because only it delivers the master of a restored terminal, and because
every step of a restore can be refused.
"""

from __future__ import annotations

import _socket
import os
import shutil

from pyrunc.criu import log as criu_log
from pyrunc.criu import process as criu_process
from pyrunc.criu import rpc
from pyrunc.errors import CriuError, KernelError, PyruncError, strerror
from pyrunc.kernel import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.criu.process import Interrupts
    from pyrunc.criu.rpc import Message

    # Called at a step with the script's name, a pid (0: none) and a descriptor (-1: none); raising refuses the step.
    Listener = Callable[[str, int, int], None]

# The time for a question; that of a dump or restore depends on the container's memory.
_ANSWER_SECONDS = 30.0
_END_SECONDS = 2.0
_LONGEST_MESSAGE = 1 << 16
# There is one notification for every step and one for every terminal.
_MOST_NOTIFICATIONS = 10_000
# More than one is an error, which must be noticed.
_MOST_DESCRIPTORS = 8
_OUTPUT_TAIL = 1 << 20
_LONGEST_CAUSE = 300
_OLDEST = 30000
_MISSING = "install CRIU (Debian: criu), or add its directory to the PATH of pyrunc's caller"


def program() -> str:
    """Return the path of criu. Raise CriuError if it is not found."""
    path = shutil.which("criu")
    if path is None:
        raise CriuError('criu failed: "criu": executable file not found in $PATH', hint=_MISSING)
    return path


class Server:
    """One `criu swrk`, which answers one request and ends. `process` is its process, a child of ours.

    `stdio` and `keep` are its descriptors, under our numbers; the others are arguments of Process. Its answers are not
    trusted, as it reads images of others: only what was asked for is used.
    """

    __slots__ = ("_answered", "_output", "_sock", "process")

    def __init__(
        self,
        interrupts: Interrupts,
        *,
        stdio: tuple[int, int, int] | None = None,
        keep: Sequence[int] = (),
        cgroup_fd: int = -1,
        bound: tuple[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        path = program()
        self._answered = False
        self._output = os.memfd_create("criu-output", os.MFD_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._sock, theirs = _socket.socketpair(
            _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC, 0
        )
        try:
            self.process = criu_process.Process(
                path,
                [b"criu", b"swrk", b"%d" % theirs.fileno()],
                interrupts,
                stdio=stdio or (null, self._output, self._output),
                keep=[theirs.fileno(), *keep],
                cgroup_fd=cgroup_fd,
                bound=bound,
                new_session=new_session,
            )
        except BaseException:
            self._sock.close()
            os.close(self._output)
            raise
        finally:
            theirs.close()
            os.close(null)

    def ask(
        self,
        request: Message,
        listener: Listener | None = None,
        *,
        seconds: float | None = None,
        stall: float | None = None,
    ) -> Message:
        """Send a criu_req and return the criu_resp that ends it, be it a success or not.

        If `listener` raises, CRIU is told to undo what it did, and the exception is raised afterwards. Raise CriuError
        if an answer takes more than `seconds`, or CRIU does nothing for `stall` seconds.
        """
        self._send(request)
        refusal: BaseException | None = None
        for _ in range(_MOST_NOTIFICATIONS):
            try:
                answer, fd = self._receive(seconds, stall)
            except PyruncError:
                if refusal is not None:
                    raise refusal  # noqa: B904 - how CRIU takes it is no news
                raise
            try:
                if rpc.number(answer, "type") != rpc.NOTIFY:
                    break
                if listener is not None and refusal is None:
                    notify = rpc.part(answer, "notify")
                    listener(rpc.text(notify, "script"), rpc.number(notify, "pid"), fd)
            except BaseException as error:  # noqa: BLE001 - raised again once CRIU has undone its work
                refusal = error
            finally:
                if fd >= 0:
                    os.close(fd)
            self._send({"type": rpc.NOTIFY, "notify_success": refusal is None})
        else:
            raise CriuError(f"criu failed: it has sent {_MOST_NOTIFICATIONS} notifications and no answer")
        if refusal is not None:
            raise refusal
        if rpc.number(answer, "success") and answer.get("type") != request["type"]:
            asked = rpc.TYPES[rpc.number(request, "type")]
            raise CriuError(f"criu failed: the answer to {asked} is one to {_kind(answer)}")
        self._answered = True
        return answer

    def _send(self, request: Message) -> None:
        try:
            self._sock.send(rpc.encode("criu_req", request), _socket.MSG_DONTWAIT)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is gone: _receive() says so
        except BlockingIOError:
            raise CriuError("criu failed: it does not read our answers") from None
        except OSError as error:
            raise KernelError("send", error.errno or 0, "criu's socket") from error

    def _receive(self, seconds: float | None, stall: float | None) -> tuple[Message, int]:
        if not self.process.wait_for(self._sock.fileno(), seconds=seconds, stall=stall):
            raise CriuError(f"criu failed: unexpected EOF: {self.process.how_it_ended()}")
        try:
            data, ancillary, flags, _address = self._sock.recvmsg(
                _LONGEST_MESSAGE,
                _socket.CMSG_SPACE(descriptors.SIZE * _MOST_DESCRIPTORS),
                _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT,
            )
        except ConnectionResetError:
            data, ancillary, flags = b"", [], 0  # it has ended with a message of ours unread
        except OSError as error:
            raise CriuError(f"criu failed: {strerror(error.errno or 0)}") from error
        fds = descriptors.received(ancillary)
        try:
            if not data:
                raise CriuError(f"criu failed: unexpected EOF: {self.process.how_it_ended()}")
            if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC) or len(fds) > 1:
                raise CriuError("criu failed: a message is longer than those of its protocol")
            message = rpc.decode("criu_resp", data)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return message, fds[0] if fds else -1

    def output(self) -> list[str]:
        """Return the lines that it wrote on its standard output and error."""
        return os.pread(self._output, _OUTPUT_TAIL, 0).decode("utf-8", "replace").splitlines()

    def close(self, *, succeeded: bool = False, seconds: float | None = None) -> str | None:
        """Close the socket and wait until it is gone; after a failure, with what it has forked. Return problems.

        In the middle of a dump it resumes the container, for which it has `seconds` (None: UNDO_SECONDS).
        `succeeded`: what it has made stays.
        """
        self._sock.close()
        limit = criu_process.UNDO_SECONDS if seconds is None else seconds
        try:
            return self.process.end(answered=self._answered, succeeded=succeeded, seconds=limit)
        finally:
            os.close(self._output)


def _kind(answer: Message) -> str:
    return rpc.TYPES.get(rpc.number(answer, "type"), "EMPTY")


def _question(request: Message, interrupts: Interrupts) -> Message:
    server = Server(interrupts, new_session=True)
    try:
        return server.ask(request, seconds=_ANSWER_SECONDS)
    finally:
        # There is nothing to undo.
        server.close(seconds=_END_SECONDS)


def version(interrupts: Interrupts) -> int:
    """Return CRIU's version, 31701 for 3.17.1. Raise CriuError if CRIU is missing or too old."""
    answer = rpc.part(_question({"type": rpc.VERSION}, interrupts), "version")
    numbers = [rpc.number(answer, field) for field in ("major_number", "minor_number", "sublevel")]
    found = numbers[0] * 10000 + numbers[1] * 100 + numbers[2]
    require(found, _OLDEST, "checkpoint and restore")
    return found


def require(found: int, least: int, what: str) -> None:
    """Raise CriuError if the version `found` is older than `least`."""
    if found < least:
        message = f"criu failed: {what} needs CRIU {_spelled(least)}, this is {_spelled(found)}"
        raise CriuError(message, hint="install a newer CRIU")


def _spelled(version_number: int) -> str:
    return f"{version_number // 10000}.{version_number // 100 % 100}.{version_number % 100}"


def require_feature(field: str, what: str, interrupts: Interrupts) -> None:
    """Raise CriuError if CRIU or the kernel lacks a field of criu_features, which `what` needs."""
    answer = _question({"type": rpc.FEATURE_CHECK, "features": {field: 1}}, interrupts)
    if not rpc.number(rpc.part(answer, "features"), field):
        # The hint for an error of that name in a log.
        _, hint = criu_log.explain([f"Error (): {field}"])
        raise CriuError(f"criu failed: {what} is not possible here: no {field}", hint=hint)


def failure(answer: Message, lines: Sequence[str], log_file: str, output: Sequence[str]) -> CriuError:
    """Return the error of a request, from its answer and CRIU's log by lines (its output if there is no log)."""
    cause, hint = criu_log.explain(lines)
    if not cause:
        cause, hint = criu_log.explain(output)
    message = f"criu failed: type {_kind(answer)} errno {rpc.number(answer, 'cr_errno')}"
    cause = cause or rpc.text(answer, "cr_errmsg").strip()[:_LONGEST_CAUSE]
    if cause:
        message += f": {cause}"
    if lines:
        message += f" (log file: {log_file})"
    if hint is None and lines:
        hint = "see the log file; `criu check` shows whether CRIU works on this host at all"
    return CriuError(message, hint=hint)
