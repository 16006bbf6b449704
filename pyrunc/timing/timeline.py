"""The measured times as text: Chrome's trace event format, and a chart for the terminal.

The format: "Trace Event Format" of the Chromium project, as chrome://tracing and ui.perfetto.dev read it; times there
are microseconds.
"""

from __future__ import annotations

import itertools
import os

from pyrunc.timing.spans import Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrunc.plan.wire import Op
    from pyrunc.timing.spans import Stamps

# Spans of the runtime that end with a message from init: when it is ready, and when it has executed the program.
_HEARD = ("wait for init", "let init go")
_LABEL_WIDTH = 40
_LEAST_SHARE = 0.004


def _after(spans: Iterable[Span], moment: int, texts: tuple[str, ...], last: int) -> int:
    """Return the end of the first of these spans that ended after `moment`; `last` if none did."""
    return min((span.end for span in spans if span.text in texts and span.end > moment), default=last)


def _words(op: Op) -> str:
    """Return an op's name and its first text or number."""
    from pyrunc.plan import numbers

    if op.name == "SYNC":
        names = [name for name, number in numbers.SYNC.items() if number == op.fields[0]]
        return f"SYNC {names[0]}"
    first = next((field for field in op.fields if isinstance(field, str) and field), "")
    if op.name in ("RLIMIT", "SETNS", "UNSHARE"):
        first = str(next((field for field in op.fields if isinstance(field, int)), ""))
    return f"{op.name} {first}".rstrip()


def _ops(stamps: Stamps, heard: Sequence[Span], last_end: int) -> list[Span]:
    """Return the spans of one init. An op lasts until the next; after a filter, or a FORK, all are one span."""
    begins = stamps.read()
    # The command may have ended before init came to START_WAIT.
    done = [index for index, begin in enumerate(begins) if 0 < begin < last_end]
    if not done:
        return []
    spans = []
    for index, following in itertools.pairwise(done):
        op = stamps.ops[index]
        spans.append(Span(_words(op), begins[index], begins[following], pid=stamps.pid, note=op.path))
    index = done[-1]
    begin, last = begins[index], [_words(op) for op in stamps.ops[index:]]
    for texts in _cut(last) if stamps.ops[index].name in ("SECCOMP", "FORK") else [last[:1]]:
        end = last_end if texts == ["START_WAIT"] else _after(heard, begin, _HEARD, last_end)
        spans.append(Span(", ".join(texts), begin, end, pid=stamps.pid))
        begin = end
    return spans


def _cut(texts: Sequence[str]) -> list[Sequence[str]]:
    """Return spans for ops without times, in two parts if they wait for the start."""
    if "START_WAIT" not in texts:
        return [texts]
    wait = texts.index("START_WAIT")
    return [texts[:wait], texts[wait:]]


def complete(whole: Span, measured: Sequence[Span], inits: Sequence[Stamps]) -> list[Span]:
    """Return all spans: the `whole` command first, then by time, outer spans before inner ones."""
    spans = [*measured]
    for stamps in inits:
        spans += _ops(stamps, measured, whole.end)
    spans.sort(key=lambda span: (span.begin, -span.end))
    return [whole, *spans]


def chrome(verb: str, spans: Sequence[Span]) -> str:
    """The spans as one JSON document in the trace event format."""
    import json

    pid = os.getpid()
    events: list[dict[str, object]] = []
    for thread in sorted({span.pid for span in spans}):
        name = "init" if thread else f"pyrunc {verb}"
        events.append(
            {"ph": "M", "name": "thread_name", "pid": pid, "tid": thread or pid, "args": {"name": name}}
        )
    for span in spans:
        event: dict[str, object] = {
            "name": span.text,
            "cat": "init" if span.pid else "import" if _is_import(span) else "runtime",
            "ph": "X",
            "ts": span.begin / 1000,
            "dur": (span.end - span.begin) / 1000,
            "pid": pid,
            "tid": span.pid or pid,
        }
        if span.note:
            event["args"] = {"path": span.note}
        events.append(event)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, indent=0) + "\n"


# --- The chart --------------------------------------------------------------------------------------------------------


def _levels(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Return the depth of each span below the whole command."""
    found: list[tuple[int, Span]] = []
    open_: list[Span] = []
    for span in spans:
        while open_ and open_[-1].end <= span.begin:
            open_.pop()
        found.append((len(open_), span))
        open_.append(span)
    return found


def _bar(begin: float, end: float, width: int) -> str:
    """A bar between two shares of the width, to an eighth of a character at its end."""
    first = min(int(begin * width), width - 1)
    eighths = max(round(end * width * 8) - first * 8, 1)
    partial = " ▏▎▍▌▋▊▉"[eighths % 8].rstrip()
    return " " * first + "█" * (eighths // 8) + partial


def _row(span: Span, depth: int, whole: Span, width: int) -> str:
    total = whole.end - whole.begin
    label = "  " * depth + span.text
    if len(label) > _LABEL_WIDTH:
        label = label[: _LABEL_WIDTH - 1] + "…"
    bar = _bar((span.begin - whole.begin) / total, (span.end - whole.begin) / total, width)
    return f"{label:{_LABEL_WIDTH}}{(span.end - span.begin) / 1e6:9.2f} ms  {bar}"


def _seen(levels: Sequence[tuple[int, Span]], least: float) -> list[tuple[int, Span]]:
    """Return the spans that took that long, with imports merged first."""
    levels = [item for item in levels if _is_import(item[1]) or item[1].end - item[1].begin >= least]
    return [item for item in _imports_together(levels) if item[1].end - item[1].begin >= least]


def _is_import(span: Span) -> bool:
    return span.text.startswith("import ")


def _imports_together(levels: Sequence[tuple[int, Span]]) -> list[tuple[int, Span]]:
    """Drop the imports inside imports; neighbouring imports become one row."""
    found: list[tuple[int, Span]] = []
    inside = -1
    for depth, span in levels:
        if span.end <= inside:
            continue
        if not _is_import(span):
            found.append((depth, span))
            continue
        inside = span.end
        joined = found and found[-1][0] == depth and found[-1][1].text == "imports"
        begin = found.pop()[1].begin if joined else span.begin
        found.append((depth, Span("imports", begin, span.end)))
    return found


def chart(spans: Sequence[Span]) -> str:
    """Return a chart: a row with a bar for every span that is long enough to see."""
    whole = spans[0]
    try:
        columns = os.get_terminal_size(2).columns
    except OSError:
        columns = 100
    width = max(columns - _LABEL_WIDTH - 15, 20)
    least = (whole.end - whole.begin) * _LEAST_SHARE
    runtime = _levels([span for span in spans if not span.pid])
    rows = [_row(span, depth, whole, width) for depth, span in _seen(runtime, least)]
    inits = [span for span in spans if span.pid]
    for pid in dict.fromkeys(span.pid for span in inits):
        own = [span for span in inits if span.pid == pid]
        rows.append(_row(Span("init", own[0].begin, own[-1].end), 0, whole, width))
        rows += [_row(span, 1, whole, width) for span in own if span.end - span.begin >= least]
    return "\n".join(row.rstrip() for row in rows) + "\n"
