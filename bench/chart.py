"""The comparison as a picture: a panel for each kind of cgroups, a group of bars for each command.

SVG by hand: it needs rectangles and text. Colours follow the reader's light or dark setting; the background is part of
the picture, so that it can be read where a page decides otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import figures as fig
from command import COMMANDS
from report import VIEWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from figures import Figures

WIDTH = 880
MARGIN = 24
HEAD, FOOT = 92, 48
BAR, BETWEEN, GROUP = 11, 2, 14
LABEL, VALUE = 66, 58
RADIUS = 2

# name: light, dark
COLOURS = {
    "page": ("#ffffff", "#0d1117"),
    "edge": ("#d8dee4", "#30363d"),
    "grid": ("#eaeef2", "#21262d"),
    "text": ("#1f2328", "#e6edf3"),
    "dim": ("#636c76", "#8d96a0"),
    "first": ("#0969da", "#58a6ff"),
    "second": ("#8c959f", "#7d8590"),
    "third": ("#c4ccd4", "#484f58"),
}
_FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


def _style() -> str:
    def rules(which: int) -> str:
        values = {name: pair[which] for name, pair in COLOURS.items()}
        fills = "".join(
            f".{name}{{fill:{values[name]}}}" for name in ("text", "dim", "first", "second", "third")
        )
        return (
            f".page{{fill:{values['page']};stroke:{values['edge']}}}"
            f".grid{{stroke:{values['grid']}}}.spread{{stroke:{values['text']};stroke-opacity:.45}}{fills}"
        )

    return (
        f"<style>text{{font-family:{_FONT};font-size:12px}}.title{{font-size:17px;font-weight:600}}"
        f".head{{font-size:13px;font-weight:600}}.end{{text-anchor:end}}.middle{{text-anchor:middle}}"
        f".strong{{font-weight:600}}{rules(0)}@media (prefers-color-scheme: dark){{{rules(1)}}}</style>"
    )


def _text(x: float, y: float, content: str, classes: str = "text") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape(content)}</text>'


def _bar(x: float, y: float, width: float, classes: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{BAR}" rx="{RADIUS}" class="{classes}"/>'


def _line(begin: tuple[float, float], end: tuple[float, float], classes: str) -> str:
    (x1, y1), (x2, y2) = begin, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def _step(most: float) -> float:
    """Between two lines of the grid: 1, 2 or 5 times a power of ten, so that there are four to ten."""
    raw = most / 7
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)


def _label(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


class Panel:
    """The bars of one view, at a place of the picture."""

    def __init__(self, figures: Figures, view: str, x: float, width: float) -> None:
        self.figures = figures
        self.view = view
        self.x = x
        self.width = width
        self.runtimes = figures.runtimes()
        self.groups = [
            name
            for name in (*COMMANDS, "life")
            if figures.values((view, "minimal", "hot", name), self.runtimes[0])
        ]

    def values(self, command: str, runtime: str) -> list[float]:
        """In ms."""
        return self.figures.values((self.view, "minimal", "hot", command), runtime)

    def most(self) -> float:
        """What the scale must hold."""
        return max(fig.spread(self.values(name, one))[1] for name in self.groups for one in self.runtimes)

    def height(self) -> float:
        """Of all bars."""
        return len(self.groups) * (len(self.runtimes) * (BAR + BETWEEN) + GROUP)

    def draw(self, most: float) -> list[str]:
        """Grid, bars, spreads and labels; `most` ms fill the width."""
        left = self.x + LABEL
        scale = (self.width - LABEL - VALUE) / most
        parts = [_text(left, HEAD - 10, VIEWS[self.view], "text head")]
        bottom = HEAD + self.height()
        step = _step(most)
        for index in range(int(most / step) + 1):
            at = left + index * step * scale
            parts.append(_line((at, HEAD), (at, bottom), "grid"))
            parts.append(
                _text(at, bottom + 14, f"{index * step:g}" + (" ms" if index == 0 else ""), "dim middle")
            )
        y = HEAD + GROUP / 2
        for name in self.groups:
            middle = y + len(self.runtimes) * (BAR + BETWEEN) / 2 + 3
            parts.append(_text(left - 8, middle, "whole life" if name == "life" else name, "text end"))
            for place, one in zip(("first", "second", "third"), self.runtimes, strict=False):
                parts += self._one(name, one, place, (left, y, scale))
                y += BAR + BETWEEN
            y += GROUP
        return parts

    def _one(self, command: str, runtime: str, place: str, at: tuple[float, float, float]) -> list[str]:
        left, y, scale = at
        values = self.values(command, runtime)
        middle, (low, high) = fig.median(values), fig.spread(values)
        line = y + BAR / 2
        return [
            _bar(left, y, middle * scale, place),
            _line((left + low * scale, line), (left + high * scale, line), "spread"),
            _text(
                left + max(high, middle) * scale + 5,
                y + BAR - 1.5,
                _label(middle),
                "text strong" if place == "first" else "dim",
            ),
        ]


def _legend(names: Sequence[str], versions: dict[str, str]) -> list[str]:
    parts, x = [], float(MARGIN)
    for place, name in zip(("first", "second", "third"), names, strict=False):
        parts.append(_bar(x, 47, 16, place))
        words = versions[name] if name in versions[name] else f"{name}, {versions[name]}"
        parts.append(_text(x + 22, 57, words, "text"))
        x += 48 + 6.6 * len(words)
    return parts


def draw(figures: Figures) -> str:
    """The picture as SVG. Raise ValueError if there is nothing to draw."""
    views = [
        view for view in VIEWS if any(key[:3] == (view, "minimal", "hot") for key in figures.measured())
    ]
    if not views:
        raise ValueError("no hot figures of the bundle 'minimal' to draw")
    width = (WIDTH - 2 * MARGIN) / len(views)
    panels = [Panel(figures, view, MARGIN + index * width, width) for index, view in enumerate(views)]
    height = HEAD + max(panel.height() for panel in panels) + FOOT
    most = max(panel.most() for panel in panels)
    machine = figures.machine
    where = f"{machine.get('processor', '')}, Linux {machine.get('kernel', '')}, {machine.get('date', '')}"
    title = "Time for one command, in milliseconds: shorter is better"
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        _style(),
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" class="page"/>',
        _text(MARGIN, 32, title, "text title"),
        *_legend(figures.runtimes(), figures.versions),
        *(part for panel in panels for part in panel.draw(most)),
        _text(MARGIN, height - 12, f"Median; the line is the 10th to the 90th percentile. {where}.", "dim"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
