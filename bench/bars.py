"""Medians as a picture: SVG by hand, one panel per figure, a bar per case; light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "bars"]

WIDTH, TOP, NAMES, RIGHT, ROW, BAR, HEAD = 920, 56, 390, 90, 22, 14, 40
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2430; }
  .title { font-size: 15px; font-weight: 600; } .name { font-weight: 600; } .end { text-anchor: end; }
  .paper { fill: #ffffff; } .ours { fill: #1a6fb5; } .theirs { fill: #98a2b3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9ef; } .paper { fill: #11151d; } .ours { fill: #6cb6f5; } .theirs { fill: #667085; }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    value: float
    ours: bool


def bars(title: str, panels: Sequence[tuple[str, Sequence[Bar], str]]) -> str:
    """An SVG document; a panel is its title, its bars and how their values are written (a format specification)."""
    height = TOP + sum(HEAD + len(rows) * ROW for _, rows, _ in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
    ]
    top = TOP
    for head, rows, how in panels:
        parts.append(f'<text class="name" x="16" y="{top + 12}">{escape(head)}</text>')
        top += HEAD - ROW // 2
        most = max([row.value for row in rows], default=0.0) or 1.0
        for row in rows:
            wide = (WIDTH - NAMES - RIGHT) * row.value / most
            middle = top + BAR - 3
            parts.append(f'<text class="end" x="{NAMES - 8}" y="{middle}">{escape(row.name)}</text>')
            kind = "ours" if row.ours else "theirs"
            parts.append(f'<rect class="{kind}" x="{NAMES}" y="{top}" width="{wide:.1f}" height="{BAR}" rx="2"/>')
            parts.append(f'<text x="{NAMES + wide + 6:.1f}" y="{middle}">{row.value:{how}}</text>')
            top += ROW
        top += ROW // 2
    return "\n".join([*parts, "</svg>"]) + "\n"
