"""Letters that got their slots before their site or route slowed ask for another one."""

from __future__ import annotations

import asyncio
from typing import Any

from streamq.mail import parse
from streamq.smtp.outbox import Outbox
from streamq.worker.hand import Delivery
from streamq.worker.recall import MARKS_MOST, Recall


def delivery(to: str = "bob@example.net", left: int = 0, way: str = "main") -> Delivery:
    raw = {b"from": b"shop@example.com", b"to": to.encode(), b"subject": b"Hi"}
    mail = parse(raw, entry="11700000000000-1", at_ms=1_700_000_000_000, salt=bytes(16), max_bytes=10**6)
    known: dict[str, Any] = {"entry": "11700000000000-1", "token": 17, "lane": f"{way}|{mail.site}", "way": way}
    made = Delivery(
        envelope_from=mail.envelope_from,
        envelope_to=mail.envelope_to,
        content=b"",
        site=mail.site,
        mail=mail,
        deadline_ms=0,
        **known,
    )
    made.hold_slot(f"500000 {left} main 0 0" if left else "", 1e9)
    return made


def stale(*letters: Delivery) -> list[bool]:
    return [letter.fresh_until == 0.0 for letter in letters]


def test_a_refusal_takes_the_slots_of_its_site_s_letters() -> None:
    outbox = Outbox()
    recall = Recall({"main": outbox})
    same, other, unlimited = delivery(left=100), delivery("ann@example.org", left=100), delivery()
    for letter in (same, other, unlimited):
        outbox.put(letter)
    recall.refused(delivery(left=90), "main|example.net")
    assert stale(same, other, unlimited) == [True, False, True]
    assert len(outbox) == 3  # they ask before their MAIL; nobody else waits for them
    recall.refused(delivery(left=90), "main")
    assert stale(other) == [True]


def test_what_got_its_slot_since_stays() -> None:
    outbox = Outbox()
    recall = Recall({"main": outbox})
    old, new = delivery(left=100), delivery(left=201)
    outbox.put(old)
    outbox.put(new)
    recall.hear({"main|example.net": 200, "second|example.net": 900})
    assert stale(old, new) == [True, False]
    recall.refused(delivery(left=150), "main|example.net")  # it left before that: nothing new
    assert stale(new) == [False]
    recall.hear({"main|example.net": 150})
    recall.refused(delivery(left=201), "main|example.net")
    assert stale(new) == [True]


async def test_until_the_queue_knows_of_a_refusal_nothing_goes() -> None:
    outbox = Outbox()
    recall = Recall({"main": outbox})
    woken = asyncio.get_running_loop().create_future()
    refused, other = delivery(left=90), delivery("ann@example.org", left=100)
    outbox.put(other)
    await recall.told()
    recall.refused(refused, "main")
    assert outbox.get_nowait() is None
    assert outbox.first is None
    assert len(outbox) == 1
    telling = asyncio.create_task(recall.told())
    outbox.enlist(woken)
    assert recall.hear({"main": 200}) == ["main"]
    recall.settled("11700000000000-2", 17)  # another one's
    assert outbox.get_nowait() is None
    recall.settled(refused.entry, refused.token)
    await telling
    assert woken.done()
    assert outbox.get_nowait() is other
    assert recall.hear({"main": 200}) == []
    # One without a slot went before there was a pace, or since there is none.
    outbox.put(other)
    recall.refused(delivery(), "main")
    assert outbox.get_nowait() is None
    recall.settled(refused.entry, refused.token)
    assert outbox.get_nowait() is other
    # What left before that says nothing new; a site's refusal stops no other site.
    outbox.put(other)
    recall.refused(delivery(left=150), "main")
    recall.refused(delivery(left=150), "main|example.net")
    assert outbox.get_nowait() is other


def test_marks_are_bounded() -> None:
    recall = Recall({"main": Outbox()})
    for n in range(MARKS_MOST + 50):
        recall.hear({f"main|site{n}.example": n})
    assert len(recall._marks) == MARKS_MOST
    assert "main|site49.example" not in recall._marks
