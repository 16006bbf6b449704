"""Results as text: `list` and `ps` as a table or JSON, and the version."""

from __future__ import annotations

from pyrunc import printable
from pyrunc.errors import ContainerError, UsageError
from pyrunc.json_text import document as json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Format as Go's tabwriter does for runc: columns at least 12 wide, 3 spaces between, the last not padded."""
    widths = [max(12, *(len(row[at]) + 3 for row in rows)) for at in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        lines.append("".join(cells) + row[-1] + "\n")
    return "".join(lines)


def _line(values: Sequence[object]) -> str:
    return json_text.dumps(list(values) or None) + "\n"


def list_table(documents: Sequence[Mapping[str, object]]) -> str:
    """Return state documents as a table like runc's."""
    rows = [
        [printable.line(str(document.get(column.lower(), ""))) for column in _COLUMNS]
        for document in documents
    ]
    return _table([_COLUMNS, *rows])


def list_json(documents: Sequence[Mapping[str, object]]) -> str:
    """Return state documents as one line of JSON, `null` if there are none (as Go encodes a nil slice)."""
    return _line(documents)


def ps_json(pids: Sequence[int]) -> str:
    """Return process ids as one line of JSON, `null` if there are none."""
    return _line(pids)


def filter_ps(output: str, pids: Sequence[int]) -> str:
    """Return the heading of ps(1)'s output and the lines whose PID column is in `pids`.

    Raise UsageError if there is no such column, or if a column before it contains spaces, so that it cannot be found.
    """
    heading, _, rest = output.partition("\n")
    titles = heading.split()
    if "PID" not in titles:
        raise UsageError("couldn't find PID field in ps output", hint="ask for it, as in -ef or -o pid,args")
    at = titles.index("PID")
    if at == len(titles) - 1:
        at = -1
    wanted = {str(pid) for pid in pids}
    lines = [heading]
    for line in filter(None, rest.split("\n")):
        word = line.split()[at]
        if not word.isdigit():
            raise UsageError(
                f"unable to parse pid '{word}' in ps output", hint="ask for the pid first, as in -o pid,args"
            )
        if word in wanted:
            lines.append(line)
    return "".join([printable.line(line) + "\n" for line in lines])


def ps_table(pids: Sequence[int], arguments: Sequence[str]) -> str:
    """Return what ps(1) prints about the pids with the options `arguments` (default: -ef). Raise ContainerError."""
    import subprocess

    try:
        done = subprocess.run(
            ["ps", *(arguments or ["-ef"])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError:
        raise ContainerError(
            "the program ps is not installed", hint="ps --format json does without it"
        ) from None
    if done.returncode:
        raise ContainerError(
            f"ps: exit status {done.returncode}: {' '.join((done.stderr + done.stdout).split())}"
        )
    return filter_ps(done.stdout, pids)
