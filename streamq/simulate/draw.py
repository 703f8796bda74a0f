"""Rates over time as a picture: SVG by hand, one panel per site, light and dark.

A panel shows what was taken and what was refused, in mails a second, and, dashed, what the model would have taken where
that is a number. Every panel has its own scale: a site of five a second says as much as one of a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, inf, log10

__all__ = ["Panel", "draw"]

WIDTH, PANEL, TOP, LEFT, RIGHT, GAP, FOOT = 860, 132, 92, 64, 36, 44, 0
POINTS = 240
SCALE = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)
# Colours are said twice rather than named once: viewers other than browsers know no var().
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2430; }
  .title { font-size: 15px; font-weight: 600; } .name { font-weight: 600; }
  .end { text-anchor: end; } .mid { text-anchor: middle; }
  .paper { fill: #ffffff; } .dim { fill: #667085; } .grid { stroke: #e4e7ec; stroke-width: 1; }
  .taken { stroke: #1a6fb5; fill: none; stroke-width: 1.8; stroke-linejoin: round; }
  .under { fill: #1a6fb5; opacity: .13; }
  .refused { stroke: #c4320a; fill: none; stroke-width: 1.4; stroke-linejoin: round; }
  .limit { stroke: #667085; fill: none; stroke-width: 1.2; stroke-dasharray: 5 4; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9ef; } .paper { fill: #11151d; } .dim { fill: #98a2b3; } .grid { stroke: #2c3444; }
    .taken { stroke: #6cb6f5; } .under { fill: #6cb6f5; } .refused { stroke: #ff8a65; } .limit { stroke: #98a2b3; }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """`taken`, `refused`: mails a second, a value for each step; `limit`: what could have been, by seconds."""

    name: str
    note: str
    taken: Sequence[float]
    refused: Sequence[float]
    limit: Callable[[float], float] = lambda at: inf


def draw(title: str, panels: Sequence[Panel], step: float) -> str:
    """An SVG document. `step`: seconds between two values."""
    steps = max(len(panel.taken) for panel in panels)
    end = max(step, (steps - 1) * step)
    height = TOP + len(panels) * (PANEL + GAP) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
        _legend(),
    ]
    for at, panel in enumerate(panels):
        parts.append(_panel(panel, TOP + at * (PANEL + GAP), step, end, last=at == len(panels) - 1))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> str:
    marks = []
    for x, kind, words in ((0, "taken", "taken"), (90, "refused", "refused"), (190, "limit", "what the model takes")):
        marks.append(f'<line class="{kind}" x1="{LEFT + x}" x2="{LEFT + x + 22}" y1="44" y2="44"/>')
        marks.append(f'<text class="dim" x="{LEFT + x + 28}" y="48">{words}</text>')
    marks.append(f'<text class="dim end" x="{WIDTH - RIGHT}" y="48">mails a second, over time</text>')
    return "".join(marks)


def _panel(panel: Panel, top: float, step: float, end: float, *, last: bool) -> str:
    bottom, right = top + PANEL, WIDTH - RIGHT
    limits = [(at * end / POINTS, panel.limit(at * end / POINTS)) for at in range(POINTS + 1)]
    known = [rate for _, rate in limits if rate < inf]
    highest = max([*panel.taken, *panel.refused, *known, 0.001])
    usual = sorted(panel.refused)[int(len(panel.refused) * 0.98)] if panel.refused else 0.0
    # A burst of one step must not make a line of all the rest.
    most = _nice(min(highest, 1.15 * max([*panel.taken, *known, usual, 0.001])))

    def x(seconds: float) -> str:
        return f"{LEFT + (right - LEFT) * seconds / end:.1f}"

    def y(rate: float) -> str:
        return f"{bottom - PANEL * min(rate, most) / most:.1f}"

    parts = [
        f'<text class="name" x="{LEFT}" y="{top - 8}">{escape(panel.name)}</text>',
        f'<text class="dim end" x="{right}" y="{top - 8}">{escape(panel.note)}</text>',
    ]
    for rate in (0.0, most / 2, most):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(rate)}" y2="{y(rate)}"/>')
        parts.append(f'<text class="dim end" x="{LEFT - 8}" y="{float(y(rate)) + 4:.1f}">{rate:g}</text>')
    for seconds, words in _ticks(end):
        parts.append(f'<line class="grid" x1="{x(seconds)}" x2="{x(seconds)}" y1="{top}" y2="{bottom}"/>')
        if last:
            parts.append(f'<text class="dim mid" x="{x(seconds)}" y="{bottom + 18}">{words}</text>')
    taken = [f"{x(at * step)},{y(rate)}" for at, rate in enumerate(panel.taken)]
    refused = [f"{x(at * step)},{y(rate)}" for at, rate in enumerate(panel.refused)]
    floor_ = f"{x((len(taken) - 1) * step)},{bottom} {LEFT},{bottom}"
    parts.append(f'<polygon class="under" points="{" ".join(taken)} {floor_}"/>')
    if known:
        parts.append(f'<path class="limit" d="{_steps(limits, x, y)}"/>')
    if any(panel.refused):
        parts.append(f'<polyline class="refused" points="{" ".join(refused)}"/>')
    parts.append(f'<polyline class="taken" points="{" ".join(taken)}"/>')
    return "\n".join(parts)


def _steps(limits: Sequence[tuple[float, float]], x: Callable[[float], str], y: Callable[[float], str]) -> str:
    """A line with corners; nothing where there is no limit."""
    path, before = [], inf
    for seconds, rate in limits:
        if rate == inf:
            before = inf
            continue
        if before == inf:
            path.append(f"M{x(seconds)},{y(rate)}")
        else:
            path.append(f"L{x(seconds)},{y(before)}")
            if rate != before:
                path.append(f"L{x(seconds)},{y(rate)}")
        before = rate
    return "".join(path)


def _nice(most: float) -> float:
    """The next number that people like on a scale, and whose half they like, too."""
    size = 10.0 ** floor(log10(most))
    return next(size * unit for unit in SCALE if size * unit >= most * 0.999)


def _ticks(end: float) -> list[tuple[float, str]]:
    """Seven or so, at times that people say."""
    for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800):
        if end / step <= 8:
            return [(at * step, _clock(at * step)) for at in range(floor(end / step) + 1)]
    step = 86400 * ceil(end / 86400 / 8)
    return [(at * step, _clock(at * step)) for at in range(floor(end / step) + 1)]


def _clock(seconds: int) -> str:
    if seconds == 0:
        return "0"
    if seconds % 86400 == 0:
        return f"{seconds // 86400} d"
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    if seconds >= 3600:
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"
