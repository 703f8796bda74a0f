from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streamq.sink.journal import Journal


def test_lines_are_in_the_file_after_a_flush_and_behind_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("old\n")
    journal = Journal(path)
    journal.add(5, ("a@x", '"b c"@x'), b"<1@x>")
    assert path.read_text() == "old\n"
    journal.flush()
    assert path.read_text() == 'old\n5 a@x <1@x>\n5 "b\\x20c"@x <1@x>\n'
    journal.add(6, ("a@x",), b"")
    journal.close()
    assert path.read_text().splitlines()[3:] == ["6 a@x "]


def test_what_a_short_write_left_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    write: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: write(descriptor, data[:7]))
    journal.add(5, ("a@x", "b@x"), b"<1@x>")
    journal.flush()
    journal.close()
    assert path.read_text() == "5 a@x <1@x>\n5 b@x <1@x>\n"


def test_a_failure_keeps_the_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    path = tmp_path / "journal"
    journal = Journal(path)
    journal.add(5, ("a@x",), b"<1@x>")
    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        with pytest.raises(OSError, match="No space"):
            journal.flush()
    journal.close()
    assert path.read_text() == "5 a@x <1@x>\n"
