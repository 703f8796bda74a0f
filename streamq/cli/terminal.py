"""What commands print: text that nobody else's bytes can steer, tables, JSON, and the one question they ask.

Field values, replies and names come from producers, mail servers and other operators. Nothing of them is
markup here (rich's is switched off), and what is not printable (C0, C1, escapes, bidirectional overrides) is
replaced before it can reach a terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import orjson
import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

__all__ = [
    "ask",
    "clip",
    "console",
    "emit",
    "emit_line",
    "errors",
    "json_line",
    "note",
    "progress",
    "safe",
    "table",
]

GAP = "  "
MANY = 1000  # from so many on, progress is shown
LEAST_COLUMN = 6
PIPED_COLUMNS = 240  # no terminal: the next program cuts, not we
# Legal in JSON as they are, and still orders to some terminals.
STEERING = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream is not None and stream.isatty()
    forced = "COLUMNS" in os.environ or "FORCE_COLOR" in os.environ or "TTY_COMPATIBLE" in os.environ
    width = None if terminal or forced else PIPED_COLUMNS
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


console = _console(stderr=False)
errors = _console(stderr=True)


def note(text: str, style: str | None = None) -> None:
    """A line beside the output, on standard error."""
    errors.print(text, style=style, soft_wrap=True)


def safe(text: str) -> str:
    """Several lines stay several; everything else that is not printable is replaced."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in text.replace("\r\n", "\n"))


def clip(text: str, most: int) -> str:
    """One line of at most so many characters. Looks at no more than a few times that, however long it is."""
    line = " ".join(safe(text[: 4 * most].replace("\t", " ")).split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = (), firm: int = 0) -> Text:
    """Lines of aligned columns, their names dim. Nothing wraps: where it is narrow the widest columns are cut, but
    for the first `firm` ones. (rich's own tables cut all alike, entries first, and these are what is copied.)"""
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    room = console.width - len(GAP) * (len(widths) - 1)
    while sum(widths) > room and max(widths[firm:], default=0) > LEAST_COLUMN:
        widths[widths.index(max(widths[firm:]), firm)] -= 1
    lines = []
    for cells in (columns, *rows):
        fitted = [_fit(cell, width, name in right) for cell, width, name in zip(cells, widths, columns, strict=True)]
        lines.append(Text(GAP.join(fitted).rstrip(), style="dim" if cells is columns else ""))
    return Text("\n").join(lines)


def _fit(cell: str, width: int, right: bool) -> str:
    if cell_len(cell) > width:
        cell = set_cell_size(cell, width - 1).rstrip() + "…"
    blank = " " * (width - cell_len(cell))
    return blank + cell if right else cell + blank


def emit(data: object) -> None:
    """One JSON value on standard output."""
    text = orjson.dumps(data, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    typer.echo(STEERING.sub(_escaped, text))


def emit_line(data: object) -> None:
    """One JSON value on one line: for output that has no end in sight."""
    typer.echo(json_line(data))


def json_line(data: object) -> str:
    """One JSON value, on one line, that steers nothing."""
    return STEERING.sub(_escaped, orjson.dumps(data).decode())


def _escaped(found: re.Match[str]) -> str:
    """RFC 8259, 7: beyond 16 bits as a surrogate pair."""
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise TypeError(type(value).__name__)


@contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where somebody looks and it is worth it; what this gives is told how many more are
    done. (A bar that is told of each of a million costs more than the million.)"""
    with Progress(console=errors, transient=True, disable=quiet or total < MANY or not errors.is_terminal) as shown:
        bar = shown.add_task(what, total=total)
        pending = 0

        def done(many: int) -> None:
            nonlocal pending
            pending += many
            if pending >= MANY // 10:
                shown.advance(bar, pending)
                pending = 0

        yield done


def ask(question: str) -> None:
    """Go on, or abort (exit 1). Asks people only: what waits in a pipe was meant for nobody's question, and a
    pipe that nobody writes to would hang us."""
    if sys.stdin is None or not sys.stdin.isatty():
        note(f"{question} No terminal to ask: say --yes, or look first with --dry-run")
        raise typer.Exit(1)
    note(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise typer.Abort
