"""The box: what is kept, what has to go, what a Maildir brings along."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from streamq.errors import NotFound
from streamq.inbox import Inbox, Kept, reader
from streamq.inbox.box import delete_files
from streamq.sink import Received
from streamq.sink.maildir import Maildir


def mail(content: bytes = b"x", **known: Any) -> Received:
    usual: dict[str, Any] = {
        "envelope_from": "a@x",
        "envelope_to": ("b@x",),
        "content": content,
        "message_id": b"",
        "at_ns": 0,
        "monotonic_ns": 0,
        "mail_ns": 0,
        "peer": "",
        "helo": "",
        "eight_bit": False,
        "smtputf8": False,
    }
    return Received(**usual | known)


def numbers(inbox: Inbox) -> list[int]:
    return [kept.number for kept in inbox]


def weighed(inbox: Inbox) -> bool:
    """What is counted is what is there."""
    sums = (sum(each.size for each in inbox), sum(each.weight for each in inbox), sum(each.unread for each in inbox))
    return (inbox.bytes, inbox.weight, inbox.unread) == sums


def test_the_last_ones_stay_newest_first() -> None:
    inbox = Inbox(3, 10**6)
    for number in range(1, 6):
        inbox.add(mail(at_ns=number))
    assert numbers(inbox) == [5, 4, 3]
    assert (len(inbox), inbox.forgotten, inbox.last) == (3, 2, 5)
    assert weighed(inbox)
    with pytest.raises(NotFound, match="'1'"):
        inbox.get("1")


def test_a_clock_that_is_set_back_makes_no_two_alike() -> None:
    inbox = Inbox(10, 10**6)
    for at_ns in (50, 50, 20, 90):
        inbox.add(mail(at_ns=at_ns))
    assert numbers(inbox) == [90, 52, 51, 50]


def test_bytes_are_bounded() -> None:
    inbox = Inbox(10**6, 1_000_000)
    tracemalloc.start()
    try:
        for number in range(100):
            inbox.add(mail(bytes(100_000), at_ns=number + 1))
        assert tracemalloc.get_traced_memory()[0] < 1_200_000
    finally:
        tracemalloc.stop()
    assert numbers(inbox) == list(range(100, 91, -1))
    inbox.add(mail(bytes(2_000_000), at_ns=200))  # larger than all that may be: the others stay
    assert (len(inbox), inbox.last, inbox.forgotten, weighed(inbox)) == (9, 200, 92, True)


def test_ten_thousand_small_mails_cost_what_is_said() -> None:
    inbox = Inbox(10_000, 10**9)
    mails = [mail(b"Subject: %d\r\n\r\n" % number, at_ns=number + 1) for number in range(10_000)]
    tracemalloc.start()
    try:
        for each in mails:
            inbox.add(each)
        assert tracemalloc.get_traced_memory()[0] < inbox.weight
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("id_", ["", "x", "-1", "1.0", "٣", "9" * 25, "1e3"])
def test_what_is_no_id_is_not_found(id_: str) -> None:
    with pytest.raises(NotFound):
        Inbox(3, 10**6).get(id_)


def test_read_and_removed_are_counted() -> None:
    inbox = Inbox(10, 10**6)
    one, two, three = (inbox.add(mail(at_ns=number)) for number in (1, 2, 3))
    inbox.mark(one, unread=False)
    inbox.mark(one, unread=False)
    assert (inbox.unread, weighed(inbox)) == (2, True)
    assert inbox.remove([one, two, two]) == []
    assert (numbers(inbox), weighed(inbox), inbox.forgotten) == ([3], True, 0)
    assert inbox.get("3") is three


async def test_who_waits_for_a_change_is_woken_by_each_kind() -> None:
    inbox = Inbox(10, 10**6)
    kept: list[Kept] = []
    changes = (
        lambda: kept.append(inbox.add(mail())),
        lambda: inbox.mark(kept[0], unread=False),
        lambda: inbox.remove(kept),
    )
    for change in changes:
        waiting = asyncio.create_task(inbox.changed(inbox.version))
        await asyncio.sleep(0)
        assert not waiting.done()
        change()
        await asyncio.wait_for(waiting, 30)


# -- in a Maildir ----------------------------------------------------------------------------------------------------


def filed(folder: Path, content: bytes) -> Path:
    return Maildir(folder).add("a@x", ["b@x"], content)


def test_content_that_a_maildir_has_is_not_in_memory(tmp_path: Path) -> None:
    inbox = Inbox(10, 50_000)
    for number in range(5):
        content = b"%d" % number + bytes(100_000)
        inbox.add(mail(content, file=filed(tmp_path, content), at_ns=number + 1))
    assert (len(inbox), inbox.weight < 20_000) == (5, True)
    assert inbox.get("3").content() == b"2" + bytes(100_000)
    assert inbox.get("3").content(1) == b"2"
    assert inbox.get("3").size == 100_001


def test_what_lies_there_already_is_shown(tmp_path: Path) -> None:
    files = [filed(tmp_path, b"Subject: %d\r\n\r\n" % number) for number in range(4)]
    for at, file in enumerate(files):
        os.utime(file, ns=(at + 1, at + 1))
    seen = files[2].rename(tmp_path / "cur" / f"{files[2].name}:2,S")
    inbox = Inbox(3, 10**6)
    inbox.load(tmp_path)
    assert [kept.content()[9:10] for kept in inbox] == [b"3", b"2", b"1"]
    assert [kept.unread for kept in inbox] == [True, False, True]
    assert (inbox.forgotten, weighed(inbox)) == (1, True)
    assert all(kept.envelope is None for kept in inbox)
    assert inbox.get("3").file == seen


def test_a_file_that_a_mail_program_moved_is_found_and_one_that_it_deleted_is_not(tmp_path: Path) -> None:
    file = filed(tmp_path, b"one")
    inbox = Inbox(10, 10**6)
    kept = inbox.add(mail(b"one", file=file))
    file.rename(tmp_path / "cur" / f"{file.name}:2,RS")
    assert kept.content() == b"one"
    delete_files(inbox.remove([kept]))
    assert list((tmp_path / "cur").iterdir()) == []
    with pytest.raises(NotFound, match="its file is gone"):
        kept.content()
    delete_files([file])  # again is no error


def test_a_file_of_tomorrow_dates_no_mail_of_today(tmp_path: Path) -> None:
    file = filed(tmp_path, b"Subject: Hi\r\n\r\n")
    tomorrow = time.time_ns() + 86_400 * 10**9
    os.utime(file, ns=(tomorrow, tomorrow))
    inbox = Inbox(9, 10**6)
    inbox.load(tmp_path)
    [kept] = inbox
    assert kept.number < tomorrow - 3600 * 10**9


def test_what_has_to_go_from_the_list_stays_in_the_maildir(tmp_path: Path) -> None:
    inbox = Inbox(1, 10**6)
    for _ in range(3):
        inbox.add(mail(b"x", file=filed(tmp_path, b"x")))
    assert (len(inbox), inbox.forgotten) == (1, 2)
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_what_cannot_be_deleted_stops_nothing(tmp_path: Path) -> None:
    for part in ("new", "cur"):
        (tmp_path / part).mkdir()
    files = [tmp_path / "new" / name for name in ("1.a", "2.b", "3.c")]
    files[0].mkdir()  # what no unlink takes
    files[1].write_bytes(b"x")
    files[2].mkdir()
    failed = delete_files(files)
    assert not files[1].exists()
    assert [each.partition(": ")[0] for each in failed] == ["1.a", "3.c"]
    assert all(each.partition(": ")[2] for each in failed)


def test_heads_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "HEAD_BYTES", 100_000)
    box, reads = Inbox(1000, 100_000_000), reader.Reader()
    many = ", ".join(f"{'n' * 400} <b{n}@example.net>" for n in range(20))
    for n in range(40):
        box.add(mail(f"Subject: {n}\r\nTo: {many}\r\n\r\n".encode()))
    heads = {kept.number: reads.head(kept) for kept in box}
    assert sorted(int(head.subject) for head in heads.values()) == list(range(40))
    still = [head.weight for number, head in heads.items() if number in reads._heads and head is reads._heads[number]]
    assert 0 < len(still) < 40
    assert reads._head_bytes == sum(still) <= 100_000
    assert min(still) > 8000
    for kept in box:  # what was pushed out is read again
        assert reads.head(kept) == heads[kept.number]
