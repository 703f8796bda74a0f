"""Mails by whom they are to, however that is written, wherever they are; a part at a time."""

from __future__ import annotations

import pytest
from mailroom import Lease, Mailroom

from streamq.queue.person import person
from streamq.queue.search import BEGINNING, ends_of, is_place, look_on, mails_to, sought

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
ANNA = "anna@example.org"
GOOD = {"from": "shop@example.com", "subject": "Hi", "text": "Hello"}
RAW = "From: shop@example.com\r\nTo: bob@example.net,\r\n Anna <anna@Example.org>\r\nSubject: Hi\r\n\r\nHello\r\n"


async def entries(room: Mailroom, address: str) -> set[str]:
    return {view.entry async for view in mails_to(room.spool, person(address))}


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"to": ANNA}, "Anna@EXAMPLE.org"),
        ({"to": "bob@example.net, Anna B <ANNA@Example.ORG>"}, ANNA),
        ({"to": r'["bob@example.net", "anna\u0040example.org"]'}, ANNA),
        ({"to": '"anna"@example.org'}, ANNA),
        ({"to": "bob@example.net", "cc": ANNA}, ANNA),
        ({"to": "bob@example.net", "bcc": f"carl@example.net,{ANNA}"}, ANNA),
        ({"to": "bob@example.net", "envelope_to": ANNA}, ANNA),
        ({"to": "bob@example.net", "cc": ANNA, "colour": "red"}, ANNA),  # held, since it is not known what that is
        ({"recipients": '[{"to": "bob@example.net"}, {"to": "Anna <anna@example.org>"}]'}, ANNA),
        ({"raw": RAW, "text": "", "from": "", "subject": ""}, ANNA),
        ({"to": "anna@Bücher.example"}, "anna@xn--bcher-kva.example"),
        ({"to": "anna@XN--bcher-kva.example"}, "Anna@BÜCHER.example"),
        ({"to": "anna@example。org"}, ANNA),
        ({"to": "ännä@example.org"}, "ÄNNÄ@example.org"),
    ],
)
async def test_however_an_address_is_written(room: Mailroom, fields: dict[str, str], address: str) -> None:
    entry = await room.add(**{**GOOD, **fields})
    assert await entries(room, address) == {entry}
    assert (await room.spool.scripts.search(1, "", 10, local="x", domain="example.org"))[2] in (
        [],
        [(entry[1:], "", 0)],
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "xanna@example.org"},
        {"to": "anna@example.org.net"},
        {"to": "bob@example.net", "reply_to": ANNA, "text": ANNA, "headers": f'{{"x-of": "{ANNA}"}}'},
        {"to": "anna@example.net, bob@example.org"},
        {"to": ANNA, "envelope_to": "bob@example.net"},
        {"raw": RAW, "text": "", "from": "", "subject": "", "envelope_to": "bob@example.net"},
    ],
)
async def test_a_mail_to_others_is_not_theirs(room: Mailroom, fields: dict[str, str]) -> None:
    await room.add(**{**GOOD, **fields})
    assert await entries(room, ANNA) == set()


async def test_in_every_state_and_priority_the_newest_first(room: Mailroom) -> None:
    found = {}
    for state in ("leased", "parked", "scheduled", "held", "waiting"):
        for name in room.spool.priorities:
            room.tick(1)
            lane = {"lane": f"main|{name}.{state}"} if state in {"leased", "parked"} else {}
            found[await room.in_state(state, name, **GOOD, to=ANNA, **lane)] = state
    views = [view async for view in mails_to(room.spool, person(ANNA))]
    assert {view.entry: view.state for view in views} == found
    for p in "012":
        assert [view.entry for view in views if view.entry[0] == p] == sorted(
            (entry for entry in found if entry[0] == p), reverse=True
        )


async def test_it_goes_on_where_it_ended_and_passes_few_that_are_large(room: Mailroom) -> None:
    mine = {await room.add("high", **GOOD, to=ANNA) for _ in range(3)}
    for _ in range(6):
        await room.add("high", **{**GOOD, "text": "x" * 100_000}, to="bob@example.net")
    mine |= {await room.add("low", **GOOD, to=ANNA)}
    at, found, looked, parts = BEGINNING, set[str](), 0, 0
    while at:
        assert is_place(room.spool, at)
        page = await look_on(room.spool, person(ANNA), at)
        assert page.looked <= 6
        at, looked, parts = page.at, looked + page.looked, parts + 1
        found |= {view.entry for view in page.views}
    assert (found, looked) == (mine, 10)
    assert parts > 3  # of each priority one, and of the large ones several
    assert not any(is_place(room.spool, text) for text in ("", "7:", "1:x", "1:1-1-1", "1"))


async def test_it_ends_early_where_that_is_enough_and_knows_whose_they_are(room: Mailroom) -> None:
    for number in range(3):
        await room.add(**GOOD, to=ANNA, tenant="acme" if number else "")
    found = await sought(room.spool, person(ANNA), "", most=2)
    assert (len(found.views), found.more) == (2, True)
    found = await sought(room.spool, person(ANNA), "", most=2, tenant="acme")
    assert (len(found.views), found.more, found.looked) == (2, False, 3)
    assert not (await sought(room.spool, person(ANNA), "", tenant="other")).views


async def test_how_the_last_ones_ended(room: Mailroom) -> None:
    """By events; by dead letters, whose events may be gone."""
    dead = await room.lease(**GOOD, id="d1", to="ANNA@example.org")
    assert await room.settled("dead", dead, **{"class": "mailbox_full", "reply": "552 full", "reason": "552"}) == "ok"
    await room.do("DEL", room.keys.events)
    room.tick(10)
    for name, rcpt in (("s1", ANNA), ("s2", "bob@example.org"), ("s3", ANNA)):
        lease = await room.lease(**GOOD, id=name, to=rcpt)
        row = room.end("sent", Lease(lease.entry, lease.token, "w1"), tail=b'"rcpt":"%b","code":250' % rcpt.encode())
        assert (await room.scripts.settle("w1", [row._replace(id=name)])).statuses == ["ok"]
        room.tick(10)
    ends = await ends_of(room.spool, person(ANNA), 10)
    assert [(end.kind, end.id) for end in ends] == [("email.relayed", "s3"), ("email.relayed", "s1"), ("dead", "d1")]
    assert ends[-1].data["reply"] == "552 full"
    assert [end.id for end in await ends_of(room.spool, person(ANNA), 1)] == ["s3"]
