"""What is printed: nothing that steers a terminal, nothing that is markup, nothing too wide."""

from __future__ import annotations

import io
import sys

import orjson
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from streamq.cli import terminal
from streamq.cli.terminal import MANY, ask, clip, console, emit, progress, safe, table
from streamq.queue.wording import shown_ms

texts = st.text(st.characters(codec="utf-8"), max_size=200)


@given(texts)
def test_safe_keeps_lines_and_what_can_be_printed(text: str) -> None:
    shown = safe(text)
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert [sign for sign in shown if sign != "�"] == [
        sign for sign in text.replace("\r\n", "\n") if (sign.isprintable() or sign == "\n") and sign != "�"
    ]


@given(texts, st.integers(2, 50))
def test_clip_is_one_line_of_at_most_that(text: str, most: int) -> None:
    shown = clip(text, most)
    assert len(shown) <= most
    assert shown.isprintable()


def test_clip_says_when_it_cut() -> None:
    assert clip("a" * 10, 10) == "a" * 10
    assert clip("a" * 11, 10) == "a" * 9 + "…"
    assert clip("a  b\n\tc", 10) == "a b c"
    assert clip(" " * 1000 + "end", 10) == "…"
    assert clip("\x1b[31m\x9b\u202e", 10) == "�[31m��"


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@given(rows=st.lists(st.tuples(texts, texts, texts), max_size=5))
def test_a_table_fits(columns: int, rows: list[tuple[str, str, str]]) -> None:
    console.width = columns
    cells = [tuple(clip(text, 60) for text in row) for row in rows]
    made = table(("one", "two", "three"), cells, right=("two",))
    lines = made.plain.split("\n")
    assert len(lines) == 1 + len(rows)
    assert all(cell_len(line) <= max(columns, 3 * 6 + 4) for line in lines)


def test_a_tables_firm_columns_are_whole() -> None:
    console.width = 30
    lines = table(("entry", "why"), [("01700000000000-123", "a" * 50)], firm=1).plain.split("\n")
    assert lines[1] == "01700000000000-123  " + "a" * 9 + "…"


def test_markup_and_emoji_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.width = 80
    console.print(table(("a",), [("[red]:smile:[/red]",)]))
    console.print("[bold]x[/] :smile:")
    assert capsys.readouterr().out == "a\n[red]:smile:[/red]\n[bold]x[/] :smile:\n"


@given(texts)
def test_json_is_whole_and_steers_nothing(text: str) -> None:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        emit({"value": text, text: [b"\xff\x1b", 7, None]})
    said = out.getvalue()
    assert orjson.loads(said) == {"value": text, text: ["\\xff\x1b", 7, None]}
    assert not {sign for sign in said if sign in "\x1b\x7f\x80\x9b\u202e\u2028\u200b\ufeff"}


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (90_000, "1.5 m"), (5_400_000, "1.5 h"), (432_000_000, "5.0 d")],
)
def test_durations(ms: int, shown: str) -> None:
    assert shown_ms(ms) == shown


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n"), io.StringIO("")])
def test_nobody_is_asked_where_nobody_sits(
    stdin: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(typer.Exit) as end:
        ask("cancel 2 mails?")
    assert end.value.exit_code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cancel 2 mails? ")
    assert "--yes" in said.err


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False)])
def test_who_sits_there_is_asked(
    answer: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    if goes_on:
        ask("cancel 2 mails?")
    else:
        with pytest.raises(typer.Abort):
            ask("cancel 2 mails?")
    assert capsys.readouterr().out == ""  # which may go to a file, as JSON


def test_no_terminal_is_wide_and_a_terminal_is_as_wide_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal._console(stderr=False).width == terminal.PIPED_COLUMNS
    monkeypatch.setenv("COLUMNS", "100")
    assert terminal._console(stderr=False).width == 100
    assert isinstance(terminal._console(stderr=True), Console)


@pytest.mark.parametrize(
    ("many", "quiet", "shown"), [(MANY, False, True), (MANY - 1, False, False), (MANY, True, False)]
)
def test_progress_is_shown_where_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, many: int, quiet: bool, shown: bool
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=out, force_terminal=True, width=80))
    with progress("looking", many, quiet=quiet) as looked:
        for _ in range(many):
            looked(1)
    assert ("looking" in out.getvalue()) is shown
    assert ("100%" in out.getvalue()) is shown


def test_no_progress_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=out, force_terminal=False))
    with progress("looking", 10 * MANY) as looked:
        looked(10 * MANY)
    assert out.getvalue() == ""
