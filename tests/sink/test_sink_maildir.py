from __future__ import annotations

from pathlib import Path

import pytest

from streamq.sink.maildir import Maildir


def test_a_file_holds_the_content_byte_for_byte(tmp_path: Path) -> None:
    content = b"Subject: x\r\n\r\n.dot\r\nbare\nand\rthese \x00\xff\r\n" * 1000
    path = Maildir(tmp_path / "deep" / "box").add("a@x", ("b@x",), content)
    assert path.read_bytes() == content
    assert path.parent == tmp_path / "deep" / "box" / "new"
    assert not list((tmp_path / "deep" / "box" / "tmp").iterdir())


def test_names_are_unique_also_between_two_of_the_same_directory(tmp_path: Path) -> None:
    boxes = [Maildir(tmp_path), Maildir(tmp_path)]
    paths = {box.add("a@x", (), b"%d" % number) for number in range(50) for box in boxes}
    assert len(paths) == 100
    assert set((tmp_path / "new").iterdir()) == paths


def test_the_envelope_stands_in_front_if_asked_for(tmp_path: Path) -> None:
    path = Maildir(tmp_path, envelope_headers=True).add("", ("b@x", "jörg@x"), b"Subject: x\r\n\r\n")
    assert path.read_bytes() == (
        "Return-Path: <>\r\nDelivered-To: b@x\r\nDelivered-To: jörg@x\r\nSubject: x\r\n\r\n".encode()
    )


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    box = Maildir(tmp_path)
    (tmp_path / "new").rmdir()
    with pytest.raises(FileNotFoundError):
        box.add("a@x", (), b"x")
    assert not list((tmp_path / "tmp").iterdir())
