"""The command line: argv in, output, error report and exit status out. The only file that prints.

Start here to follow a verb: main, _run, verbs.HANDLERS, runtime.
"""

from __future__ import annotations

import os
import sys

from pyrunc import log
from pyrunc.cli import context, options, parse
from pyrunc.errors import SHORTAGES, InternalError, KernelError, LeftError, PyruncError, UsageError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.timing.trace import Trace

_STDOUT, _STDERR = 1, 2
# These must still work if the log cannot be written.
_WITHOUT_LOG = ("state", "kill", "delete")
EXIT_FAILURE = 1
# exec returns the status of the process, so its own failure needs a status that programs rarely use.
EXIT_EXEC = 255
EXIT_INTERRUPTED = 128 + 2
EXIT_BROKEN_PIPE = 128 + 13
# EPERM, ENOSYS: no file is meant, and the kernel itself answers so to none of the calls that pyrunc cannot do without.
_REFUSED = (1, 38)


class _Call:
    """What is known about this call so far, for the error report."""

    __slots__ = ("failure", "globals", "start_record", "trace", "verb")

    def __init__(self, start_record: bytes) -> None:
        self.start_record = start_record
        self.globals = parse.Parsed()
        self.verb = ""
        self.failure = EXIT_FAILURE
        self.trace: Trace | None = None


def _write(fd: int, text: str) -> None:
    """Write the whole text; characters that a terminal would interpret are escaped."""
    if not text.replace("\n", "").isprintable():
        from pyrunc import printable

        text = printable.lines(text)
    data = memoryview(text.encode())
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        # The terminal was hung up or the pipe is closed. The message is lost, the exit status still reports the error.
        if fd != _STDERR:
            if isinstance(error, BrokenPipeError):
                raise
            raise KernelError("write", error.errno or 0, "standard output") from error


def _bad_argv(call: _Call, error: UsageError, words: Sequence[str]) -> int:
    """Report an argv that cannot be parsed as runc does: help on stdout, the error on stderr."""
    from pyrunc import printable
    from pyrunc.cli import help as help_pages

    if error.hint is None:
        error.hint = help_pages.hint(call.verb, error.message, words)
    _write(_STDOUT, f"Incorrect Usage. {printable.line(error.message)}\n\n{help_pages.page(call.verb)}")
    return _report(call, error)


def _choose(words: Sequence[str], at: int, given: parse.Parsed) -> tuple[str, Sequence[str]]:
    """Return the verb and its arguments; words[at] is the first word that is not a global option."""
    if given.switch("version"):
        return "version", ()
    if given.switch("help") or at == len(words):
        return "help", ()
    return "help" if words[at] == "h" else words[at], words[at + 1 :]


def _check_verb(verb: str) -> None:
    if verb not in options.COMMANDS:
        from pyrunc.cli import help as help_pages

        raise UsageError(f"unknown command '{verb}'", hint=help_pages.hint("", verb, ()))


def _help(topic: str) -> int:
    if topic:
        _check_verb(topic)
    from pyrunc.cli import help as help_pages

    _write(_STDOUT, help_pages.page(topic))
    return 0


def _begin_trace(call: _Call) -> Trace:
    """Start measuring. Raise KernelError if the file of --trace cannot be opened."""
    if call.trace is None:
        from pyrunc.timing import trace

        call.trace = trace.current()
        if "trace" in call.globals.given:
            call.trace.open(call.globals.text("trace"))
    return call.trace


def _end_trace(call: _Call, trace: Trace, status: int) -> int:
    trace.verb = call.verb
    try:
        _write(_STDERR, trace.finish())
    except PyruncError as error:
        return _report(call, error) if status == 0 else status
    return status


def _begin_log(given: parse.Parsed, verb: str) -> None:
    form = given.text("log-format") or "text"
    level = given.text("log-level") or ("debug" if given.switch("debug") else "error")
    try:
        log.setup(given.text("log"), form, level, journal=given.switch("systemd-log"))
    except KernelError as problem:
        if verb not in _WITHOUT_LOG:
            raise
        log.setup("", form, level)
        # go-runc reads stdout and stderr of `state` as one JSON text, to which nothing may be added.
        if verb != "state":
            _write(_STDERR, f"pyrunc: {verb}: {problem}\nhint: {problem.hint}\n")


def _run(words: Sequence[str], call: _Call) -> int:
    given = call.globals
    try:
        at = parse.global_options(words, given)
    except UsageError as error:
        return _bad_argv(call, error, words)
    verb, rest = _choose(words, at, given)
    _begin_log(given, verb)
    if "trace" in given.given:
        _begin_trace(call)
    _check_verb(verb)
    call.verb = verb
    try:
        parsed = parse.command_options(verb, rest)
    except UsageError as error:
        return _bad_argv(call, error, rest)
    if parsed.switch("help"):
        return _help(verb)
    if verb == "help":
        return _help(parsed.arguments[0] if parsed.arguments else "")
    if verb == "exec":
        call.failure = EXIT_EXEC
    log.debug(f"{verb} {' '.join(rest)}")
    if parsed.switch("timings"):
        _begin_trace(call).timings = True

    from pyrunc.cli import verbs

    parsed.start_record = call.start_record
    result = verbs.HANDLERS[verb](context.from_options(given), parsed)
    if isinstance(result, int):
        return result
    output, remarks = result if isinstance(result, tuple) else (result, "")
    _write(_STDERR, remarks)
    _write(_STDOUT, output)
    return 0


def _traceback(error: BaseException) -> str:
    """Return the traceback. The exception's message is put on one line, and so is each note."""
    import traceback

    from pyrunc import printable

    at: BaseException | None = error
    while at is not None:
        if notes := getattr(at, "__notes__", None):
            notes[:] = [printable.line(note) for note in notes]
        at = at.__cause__ or at.__context__
    ours = ("  File ", "Traceback ", "\n")
    pieces = traceback.format_exception(error)
    return "".join(
        [piece if piece.startswith(ours) else printable.line(piece.rstrip("\n")) + "\n" for piece in pieces]
    )


def _report(call: _Call, error: PyruncError) -> int:
    """Report the error once, on stderr and in the log if there is one. Return the exit status."""
    message = str(error)
    failure = error.status if isinstance(error, LeftError) else call.failure
    logged = log.error(message, error.hint)
    if call.globals.switch("debug"):
        _write(_STDERR, _traceback(error))
    if logged and not call.globals.text("log"):
        return failure
    # Engines that ask for a log also search stderr, for the message without a prefix.
    start = "" if logged else f"pyrunc: {call.verb}: " if call.verb else "pyrunc: "
    lines = [start + message]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    lines += [f"note: {note}" for note in getattr(error, "__notes__", ())]
    _write(_STDERR, "".join([_escaped(line) + "\n" for line in lines]))
    return failure


def _escaped(line: str) -> str:
    try:
        from pyrunc import printable
    except OSError:
        # Without a descriptor to read it by.
        return ascii(line)[1:-1]
    return printable.line(line)


def _unexpected(error: Exception) -> InternalError:
    """Return an error of one line for an unexpected exception. `--debug` shows the traceback."""
    if isinstance(error, OSError) and error.errno:
        where = f" '{error.filename}'" if error.filename else ""
        if error.errno in SHORTAGES:
            found = InternalError(
                f"{strerror(error.errno)}{where}", hint="the host, or a limit, gives no more"
            )
            found.__cause__ = error
            return found
        if error.errno in _REFUSED and not where:
            found = InternalError(
                f"a system call was refused: {strerror(error.errno)}",
                hint="a seccomp filter around pyrunc may forbid it: --debug shows where",
            )
            found.__cause__ = error
            return found
        text = f"unexpected {type(error).__name__}{where}: {strerror(error.errno)}"
    else:
        text = f"unexpected {type(error).__name__}: {error}"
    found = InternalError(text, hint="please report this, with the output of the same call with --debug")
    found.__cause__ = error
    return found


def main(argv: Sequence[str] | None = None, start_record: bytes = b"") -> int:
    """Run one command line (without the program's name; default: this process's) and return its exit status.

    `start_record` is what came of `start`, if the launcher has done that already: see runtime.start.
    """
    words = sys.argv[1:] if argv is None else argv
    call = _Call(start_record)
    status = _answer(words, call)
    return status if call.trace is None else _end_trace(call, call.trace, status)


def _answer(words: Sequence[str], call: _Call) -> int:
    try:
        return _run(words, call)
    except PyruncError as error:
        return _report(call, error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        return _report(call, _unexpected(error))
