"""An expansion that ends half made: what its dead letter says, and who gets a mail by a requeue."""

from __future__ import annotations

import orjson
import pytest
from family import FIELDS, TO, end, expand, expanded
from mailroom import Lease, Mailroom

from streamq.queue.check import check
from streamq.queue.letters import DeadLetter, dead_letters, requeue_dead
from streamq.queue.rows import Expanded

pytestmark = [pytest.mark.usefixtures("any_server_url")]


async def half_made(room: Mailroom, **given: str) -> DeadLetter:
    """The letter of a mail that died when some of its children were there."""
    entry = await room.add(**{"to": ",".join(TO), "text": "Hello", **given})
    await room.read()
    found = await room.admit(entry, kind="expand", lane="")
    lease = Lease(entry, found.token, "w1")
    await expanded(room, lease, 3)
    await room.moved("bounce", entry)
    await expand(room, lease, start=3)
    [letter] = [each async for each in dead_letters(room.spool)]
    assert letter.text("dead_made") == "3"
    return letter


@pytest.mark.parametrize("changes", [{}, {"text": "Other"}, {"id": ""}, {"id": "a2", "expires_at": ""}])
@pytest.mark.parametrize("given", [{}, {"id": "a1"}])
async def test_who_has_his_mail_gets_no_other_by_a_requeue(
    room: Mailroom, given: dict[str, str], changes: dict[str, str]
) -> None:
    letter = await half_made(room, **given)
    first = list(await room.states())
    [entry] = await requeue_dead(room.spool, [(letter.letter, 100)], changes)
    await room.read()
    found = await room.admit(entry, kind="expand", lane="")
    lease = Lease(entry, found.token, "w1")
    assert await expand(room, lease) == Expanded("resume", 3, [])
    assert await expand(room, lease, start=3) == Expanded("upload", 3, [])
    await room.spool.bodies.upload("up", FIELDS, False)
    some = await expand(room, lease, start=3, many=1)
    assert (some.status, some.made, len(some.children)) == ("ok", 4, 1)
    assert await room.do("HGET", room.keys.body(entry), "left") == b"2"
    rest = await expand(room, lease, start=4)
    assert (rest.status, rest.made) == ("done", 5)
    fetched = await room.spool.fetch([*some.children, *rest.children])
    assert [(each.nth, each.fields[b"envelope_to"]) for each in fetched if each] == [
        (4, TO[3].encode()),
        (5, TO[4].encode()),
    ]
    assert (await check(room.spool)).clean
    for child in (*first, *some.children, *rest.children):
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.bodies, room.keys.notes, room.keys.body(entry)) == 0


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        *(({}, {name: "bob4@example.net"}) for name in ("to", "cc", "bcc", "envelope_to")),
        ({}, {"to": ""}),
        ({"id": "a1"}, {"recipients": '[{"to":"bob4@example.net"}]', "to": ""}),
        ({"to": "", "raw": "To: a@b.example, c@d.example\r\n\r\n"}, {"raw": "To: e@f.example\r\n\r\n"}),
        ({"to": "", "recipients": "[…]", "sensitive": "1"}, {"text": "Other"}),
        ({}, {"raw": "To: e@f.example\r\n\r\n"}),
    ],
)
async def test_of_one_that_died_half_made_nobody_says_who_the_others_are(
    room: Mailroom, given: dict[str, str], changes: dict[str, str]
) -> None:
    letter = await half_made(room, **given)
    assert await requeue_dead(room.spool, [(letter.letter, 100)], changes) == ["partly"]
    assert (await room.survey()).depth == {"waiting": 3}
    for each in await room.states():
        assert await end(room, "sent", each) == "ok"


@pytest.mark.parametrize("begun", [False, True])
async def test_it_may_die_half_made_more_than_once(room: Mailroom, begun: bool) -> None:
    letter = await half_made(room)
    for made in (3, 3 + begun):
        [entry] = await requeue_dead(room.spool, [(letter.letter, 100)])
        await room.read()
        lease = Lease(entry, (await room.admit(entry, kind="expand", lane="")).token, "w1")
        if begun and made == 3:
            await room.spool.bodies.upload("up", FIELDS, False)
            assert (await expand(room, lease, start=3, many=1)).made == 4
        await room.moved("bounce", entry)
        await expand(room, lease, start=3 + begun)
        [letter] = [each async for each in dead_letters(room.spool)]
        assert letter.text("dead_made") == str(3 + begun)
    assert (await check(room.spool)).clean
    for child in await room.states():
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.bodies, room.keys.notes) == 0


async def test_one_whose_recipients_all_have_theirs_is_done(room: Mailroom) -> None:
    """By the list of a worker that finds fewer of them."""
    letter = await half_made(room)
    first = list(await room.states())
    [entry] = await requeue_dead(room.spool, [(letter.letter, 100)])
    await room.read()
    lease = Lease(entry, (await room.admit(entry, kind="expand", lane="")).token, "w1")
    assert await expand(room, lease, TO[:2], start=3) == Expanded("done", 3, [])
    assert (await room.kinds())[-1] == "email.expanded"
    for child in first:
        assert await end(room, "sent", child) == "ok"
    assert await room.do("EXISTS", room.keys.bodies, room.keys.body(entry)) == 0


@pytest.mark.parametrize("said", ["x", "-1", "", "9" * 30])
async def test_whatever_stands_in_dead_made(room: Mailroom, said: str) -> None:
    fields = ("to", "bob@example.net", "text", "Hi", "dead_entry", "11-1", "dead_made", said)
    letter = (await room.do("XADD", room.keys.dead, "*", *fields)).decode()
    [entry] = await requeue_dead(room.spool, [(letter, 1)])
    assert await room.states() == {entry: "waiting"}
    notes = await room.do("HGET", room.keys.notes, entry)
    assert notes is None or int(orjson.loads(notes)["made"]) < 10**8
    await room.moved("cancel", entry)
    if await room.states():
        await room.read()
        assert await room.admitted(entry) == ["cancelled"]
