from __future__ import annotations

import tracemalloc

from streamq.sink import Mailbox, Received


def mail(number: int, content: bytes = b"x") -> Received:
    return Received(
        envelope_from="a@x",
        envelope_to=(f"{number}@x", "all@x"),
        content=content,
        message_id=b"",
        at_ns=number,
        monotonic_ns=0,
        mail_ns=0,
        peer="",
        helo="",
        eight_bit=False,
        smtputf8=False,
    )


def test_the_last_ones_stay() -> None:
    box = Mailbox(3, 10**6)
    for number in range(5):
        box.add(mail(number))
    assert [kept.at_ns for kept in box] == [2, 3, 4]
    assert (len(box), box[0].at_ns, box[-1].at_ns, box.forgotten) == (3, 2, 4, 2)
    assert [kept.at_ns for kept in box[1:]] == [3, 4]
    assert box.to("3@x") == [mail(3)]
    assert box.to("0@x") == []
    assert len(box.to("all@x")) == 3
    box.clear()
    assert list(box) == []


def test_bytes_are_bounded_too() -> None:
    box = Mailbox(10**6, 1_000_000)
    tracemalloc.start()
    try:
        for number in range(100):
            box.add(mail(number, bytes(100_000)))
        assert tracemalloc.get_traced_memory()[0] < 1_200_000
    finally:
        tracemalloc.stop()
    assert [kept.at_ns for kept in box] == list(range(91, 100))
    box.add(mail(100, bytes(2_000_000)))
    assert len(box) == 0
    box.add(mail(101))
    assert len(box) == 1


def test_small_mails_count_more_than_their_content() -> None:
    box = Mailbox(10**6, 100_000)
    for number in range(1000):
        box.add(mail(number, b""))
    assert len(box) < 101
