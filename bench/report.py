"""The figures as tables: on the terminal, in RESULTS.md, and in docs/performance.md between two marks."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import figures as fig
from command import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from figures import Figures, Key, Target

MARK = "<!-- ./dev bench --publish writes from here -->", "<!-- to here -->"
OURS = "pyrunc"
# Pages are added up 32 at a time, for each processor.
KERNEL_BATCH_MB = 0.3
VIEWS = {"v1": "cgroup v1", "v2": "cgroup v2", "host": "the host's cgroups"}
REGIMES = {
    "hot": "commands back to back",
    "cold": "0.3 s of quiet before each command",
}
OTHER = {
    "first": "create when it is the first after a reboot (pyrunc makes its snapshot)",
    "one-by-one": "short lives, one after the other, per container",
    "at-once": "short lives, 20 at a time, per container",
    "python": "create + start + wait + delete: pyrunc's Python API in process, the others by commands",
}

_HEAD = """Written by `./dev bench --publish`. Each cell is the median of all rounds and in brackets the 10th and the
90th percentile. Ratios are taken pair by pair, from values of the same round, and are not the ratio of the medians. The
whole life of a container is create, start, state, kill and delete. Every command is checked: its exit status, and that
it did what it says."""


class Table:
    """A title, a header and rows of the same length."""

    def __init__(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.title = title
        self.header = list(header)
        self.rows = [list(row) for row in rows]

    def text(self) -> str:
        """For the terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            first, *others = cells
            rest = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
            return "  ".join([f"{first:{widths[0]}}", *rest]).rstrip()

        return "\n".join([self.title, *map(line, lines)])

    def markdown(self) -> str:
        """For a file."""
        lines = [f"| {' | '.join(cells)} |" for cells in (self.header, *self.rows)]
        rule = "|---|" + "--:|" * (len(self.header) - 1)
        return "\n".join([f"**{self.title}**", "", lines[0], rule, *lines[1:]])


def number(value: float) -> str:
    """Three figures, and no more than two behind the point."""
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    return f"{value:.{max(min(2 - math.floor(math.log10(abs(value))), 2), 0)}f}"


def _with_spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, high = fig.spread(values)
    return f"{number(fig.median(values))} ({number(low)}-{number(high)})"


def _others(figures: Figures) -> list[str]:
    return [name for name in figures.runtimes() if name != OURS] if OURS in figures.versions else []


def _memory_row(figures: Figures, label: str, key: Key) -> list[str]:
    """In MB. What the kernel has not yet added up when a small process ends is 0 there."""
    cells = _row(figures, label, key, "kb", 1 / 1024)
    small = [not min(figures.values(key, name, "kb"), default=1) for name in figures.runtimes()]
    for at, is_small in enumerate(small, start=1):
        if is_small:
            cells[at] = f"< {KERNEL_BATCH_MB}"
    return ["-" if cell.startswith("0 (") else cell for cell in cells]


def _row(figures: Figures, label: str, key: Key, kind: str = "ms", scale: float = 1.0) -> list[str]:
    """A label, what each runtime needs, and pyrunc's share of each other."""
    cells = [label]
    for name in figures.runtimes():
        cells.append(_with_spread([value * scale for value in figures.values(key, name, kind)]))
    for name in _others(figures):
        cells.append(
            _with_spread(fig.ratios(figures.values(key, OURS, kind), figures.values(key, name, kind)))
        )
    return cells


def _header(figures: Figures, unit: str) -> list[str]:
    return [
        "",
        *(f"{name} {unit}" for name in figures.runtimes()),
        *(f"{OURS} / {x}" for x in _others(figures)),
    ]


def _lives(figures: Figures) -> list[Table]:
    """A table for each view, bundle and regime of whole lives."""
    tables: list[Table] = []
    for view, bundle, regime in dict.fromkeys(
        key[:3] for key in figures.measured() if key[2] in ("hot", "cold")
    ):
        rows = [
            _row(figures, "whole life" if name == "life" else name, (view, bundle, regime, name))
            for name in (*COMMANDS, "life")
        ]
        title = f"{VIEWS[view]}, bundle '{bundle}', {regime}: {REGIMES[regime]}"
        tables.append(Table(title, _header(figures, "ms"), rows))
    return tables


def _short(figures: Figures) -> list[Table]:
    tables = []
    for view in dict.fromkeys(key[0] for key in figures.measured()):
        rows = [
            _row(figures, OTHER[key[2]], key)
            for key in figures.measured()
            if key[0] == view and key[2] in OTHER and key[3] != "by commands"
        ]
        if rows:
            tables.append(Table(f"{VIEWS[view]}, other ways", _header(figures, "ms"), rows))
    return tables


def crowds(figures: Figures) -> tuple[str, str]:
    """The regimes of few and of many containers alive, ("", "") when that was not measured."""
    sizes = sorted(
        {int(key[2].removeprefix("alive-")) for key in figures.measured() if key[2].startswith("alive-")}
    )
    return (f"alive-{sizes[0]}", f"alive-{sizes[-1]}") if len(sizes) > 1 else ("", "")


def _scaling(figures: Figures) -> list[Table]:
    few, many = crowds(figures)
    rows = []
    for view in dict.fromkeys(key[0] for key in figures.measured() if key[2] == few):
        for command in (*COMMANDS, "life"):
            cells = [f"{VIEWS[view]}, {'whole life' if command == 'life' else command}"]
            for name in figures.runtimes():
                before = fig.median(figures.values((view, "minimal", few, command), name))
                after = fig.median(figures.values((view, "minimal", many, command), name))
                cells.append(f"{number(before)} → {number(after)}, x {number(after / before)}")
            rows.append(cells)
    title = f"beside {few.removeprefix('alive-')} and {many.removeprefix('alive-')} living containers, ms"
    return [Table(title, ["", *figures.runtimes()], rows)] if rows else []


def _memory(figures: Figures) -> list[Table]:
    view = next(iter(figures.measured()), ("",))[0]
    hot = [key for key in figures.measured() if key[0] == view and key[2] == "hot"]
    rows = [_memory_row(figures, f"{key[3]}, {key[1]}", key) for key in hot if key[3] in COMMANDS]
    rows += [_memory_row(figures, f"waiting init, {key[1]}", key) for key in hot if key[3] == "waiting init"]
    title = "memory: of a command the peak of its largest process (wait4), of a waiting init its share (Pss)"
    return [Table(f"{title}, {VIEWS.get(view, view)}", _header(figures, "MB"), rows)] if rows else []


def _effort(figures: Figures) -> list[Table]:
    """CPU time, and instructions where they are counted."""
    tables = []
    view = next(iter(figures.measured()), ("",))[0]
    keys = [(view, "minimal", "hot", name) for name in COMMANDS]
    if any(figures.values(key, name, "cpu_ms") for key in keys for name in figures.runtimes()):
        rows = [_row(figures, key[3], key, "cpu_ms") for key in keys]
        title = "CPU time of a command and what it waited for, bundle 'minimal', hot"
        tables.append(Table(title, _header(figures, "ms"), rows))
        counts = [count for key in keys for count in figures.values(key, OURS, "instructions")]
        if counts and min(counts) >= 0:
            rows = [_row(figures, key[3], key, "instructions", 1e-6) for key in keys]
            tables.append(Table("instructions, the same", _header(figures, "million"), rows))
    return tables


def counted(figures: Figures) -> bool:
    """Whether this machine counts instructions."""
    return any(min(row.values["instructions"], default=-1) >= 0 for row in figures.rows.values())


def _verdict(target: Target, figures: Figures) -> list[str]:
    value = target.value(figures)
    said = "not measured" if math.isnan(value) else "yes" if value <= target.limit else "**no**"
    return [target.text.format(command=target.key[3]), number(target.limit), number(value), said]


def targets(figures: Figures) -> Table:
    """What was promised, and whether it holds."""
    rows = [_verdict(target, figures) for target in fig.targets()]
    return Table("targets", ["", "at most", "measured", "holds"], rows)


def misses(figures: Figures) -> list[str]:
    """Why a target is missed, and what to try next; one line for each."""
    lines = []
    for target in fig.targets():
        if target.value(figures) > target.limit:
            text = target.text.format(command=target.key[3])
            lines.append(f"* {text}: {target.remark or 'no reason is known yet'}")
    return lines


def _all(figures: Figures) -> list[Table]:
    parts: list[Callable[[Figures], list[Table]]] = [_lives, _short, _scaling, _memory, _effort]
    tables = [table for part in parts for table in part(figures)]
    return [*tables, targets(figures)] if OURS in figures.versions else tables


def _facts(figures: Figures) -> list[str]:
    lines = [f"{name}: {value}" for name, value in figures.machine.items()]
    lines += [f"{name}: {version}" for name, version in figures.versions.items()]
    if figures.others:
        lines.append(f"busy with something else while measuring: at most {max(figures.others):.0%}")
    if figures.retaken:
        lines.append(f"rounds taken again because of that: {figures.retaken}")
    if not counted(figures):
        lines.append("instructions: not counted here, the machine has no counter for them")
    return lines


def text(figures: Figures) -> str:
    """Everything, for the terminal."""
    parts = ["\n".join(_facts(figures)), *(table.text() for table in _all(figures))]
    if figures.remarks:
        parts.append("not the same work:\n" + "\n".join(figures.remarks))
    return "\n\n".join(parts) + "\n"


def markdown(figures: Figures) -> str:
    """Everything, as RESULTS.md."""
    parts = [
        "# pyrunc beside other runtimes",
        _HEAD,
        "\n".join(f"* {line}" for line in _facts(figures)),
        *(table.markdown() for table in _all(figures)),
    ]
    if missed := misses(figures):
        parts.append("What misses its target, why, and what could be tried:\n\n" + "\n".join(missed))
    if figures.remarks:
        lines = "\n".join(f"* {line}" for line in figures.remarks)
        parts.append(f"Where the containers were not alike, as seen by `/proc/PID`:\n\n{lines}")
    return "\n\n".join(parts) + "\n"


def summary(figures: Figures) -> str:
    """The table of docs/performance.md: a row for each command, hot, with both kinds of cgroups as far as measured."""
    views = [view for view in VIEWS if any(key[0] == view and key[2] == "hot" for key in figures.measured())]
    header = ["ms, hot"]
    for view in views:
        header += [f"{name}, {view}" for name in figures.runtimes()]
        header += [f"{OURS} / {name}" for name in _others(figures)]
    rows = []
    for command in (*COMMANDS, "life"):
        cells = ["whole life" if command == "life" else f"`{command}`"]
        for view in views:
            key = (view, "minimal", "hot", command)
            ours = figures.values(key, OURS)
            cells += [number(fig.median(figures.values(key, name))) for name in figures.runtimes()]
            cells += [
                number(fig.median(fig.ratios(ours, figures.values(key, name)))) for name in _others(figures)
            ]
        rows.append(cells)
    return Table("", header, rows).markdown().split("\n", 2)[2]


def update_page(figures: Figures, path: str) -> None:
    """Put the table between the marks. Raise ValueError without them."""
    with open(path, encoding="utf-8") as stream:
        before, mark, rest = stream.read().partition(MARK[0])
    _, end, after = rest.partition(MARK[1])
    if not mark or not end:
        raise ValueError(f"{path}: the marks {MARK} are missing")
    machine = figures.machine
    where = f"{machine.get('processor')}, Linux {machine.get('kernel')}, {machine.get('date')}"
    versions = ", ".join(figures.versions.values())
    write(path, f"{before}{mark}\n\n{where}; {versions}.\n\n{summary(figures)}\n\n{end}{after}")


def write(path: str, content: str) -> None:
    """Write a file at once or not at all."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(content)
    os.rename(temporary, path)
