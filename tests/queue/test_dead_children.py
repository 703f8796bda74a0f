"""Dead letters of children: what they share is in them, as spool.py has it; who gets it when they are requeued."""

from __future__ import annotations

import orjson
import pytest
from mailroom import Lease, Mailroom, texts

from streamq.mail.several import OF, Shared, merged
from streamq.queue.letters import requeue_dead
from streamq.queue.rows import ChildRow

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
COPY = {"from": "shop@example.com", "to": "typo@bad.example, ok@example.net", "cc": "cc@example.net", "text": "Hi"}
ONE = ChildRow("envelope_to", b"typo@bad.example")


async def dead_child(room: Mailroom, shared: dict[str, str], row: ChildRow, *, personal: bool = False) -> str:
    """The only child of a mail, dead; its letter."""
    entry = await room.add(**shared)
    await room.read()
    lease = Lease(entry, (await room.admit(entry, kind="expand", lane="")).token, "w1")
    fields = {name.encode(): value.encode() for name, value in shared.items()}
    await room.spool.bodies.upload("up", fields, personal)
    made = await room.scripts.expand("w1", entry, lease.token, "p1", b"", [row], upload="up", all_=1)
    [child] = made.children
    await room.read()
    [whole] = await room.spool.fetch([child])
    assert whole is not None
    tail = b'"parent":"%b"' % entry.encode()
    token = (await room.admit(child, tail=tail)).token
    end = room.end("dead", Lease(child, token, "w1"), tail=tail, **{"class": "policy"})
    assert (await room.scripts.settle("w1", [end])).statuses == ["ok"]
    name, found = (await room.letters())[-1]
    assert found.pop("dead_stamp") == (f"{entry}#1" if personal else entry) == whole.stamp
    for part in ("vars", "metadata"):
        assert _object(found.get(part, "")) == _object(whole.fields.get(part.encode(), b"").decode())
    return name


def _object(text: str) -> object:
    return orjson.loads(text) if text.strip() else None


async def requeued(room: Mailroom, name: str, **changes: str) -> dict[str, str]:
    """The new mail's fields."""
    (entry,) = await requeue_dead(room.spool, [(name, 1)], changes)
    (found,) = await room.spool.fetch([entry])
    assert found is not None, entry
    return texts(found.fields)


# -- what is shared ---------------------------------------------------------------------------------------------------

SHARED = [
    '{"month":"May"}\n',
    ' \t\r\n{"month":"May"} \r\n',
    '{ "month" : "May" }',
    "{}",
    "{ \n }\n",
    '{"month":"}"}\n',
    '{"month":"{\\"a\\":{}}","deep":{"x":{"y":[{}]}}}\n',
    '\n{"month":"\\n} "}',
]


@pytest.mark.parametrize("part", ["vars", "metadata"])
@pytest.mark.parametrize("own", ["", "{}", '{"name":"Ann"}', '{"name":"}{","month":"June"}', ' {"name":1}\n'])
@pytest.mark.parametrize("shared", SHARED)
async def test_a_letter_has_what_the_mail_had(room: Mailroom, shared: str, own: str, part: str) -> None:
    row = ChildRow("to", b"bob@example.net", **{part: own.encode()})
    name = await dead_child(room, {"from": "a@b.example", "template": "t", part: shared}, row, personal=True)
    fields = await requeued(room, name)
    body = Shared("11-1", {b"from": b"a@b.example", part.encode(): shared.encode()}, True)
    mine = {OF: b"11-1", b"@n": b"1", **({part.encode(): own.encode()} if own else {})}
    assert _object(fields[part]) == _object(merged(mine, body)[part.encode()].decode())
    assert (fields["to"], fields["template"]) == ("bob@example.net", "t")


# -- who gets it ------------------------------------------------------------------------------------------------------


async def test_a_new_to_is_who_gets_it(room: Mailroom) -> None:
    name = await dead_child(room, COPY, ONE)
    fields = await requeued(room, name, to="Bob <fixed@example.net>")
    assert fields == {**COPY, "to": "Bob <fixed@example.net>", "envelope_to": "Bob <fixed@example.net>"}
    event = (await room.events())[-1]
    assert event.data["changed"] == ["to", "envelope_to"]


async def test_a_new_envelope_leaves_the_headers(room: Mailroom) -> None:
    name = await dead_child(room, COPY, ONE)
    assert await requeued(room, name, envelope_to="fixed@example.net") == {**COPY, "envelope_to": "fixed@example.net"}


async def test_both_say_what_they_say(room: Mailroom) -> None:
    name = await dead_child(room, COPY, ONE)
    changes = {"to": "ok@example.net", "envelope_to": "fixed@example.net", "cc": ""}
    fields = await requeued(room, name, **changes)
    assert fields == {**{k: v for k, v in COPY.items() if k != "cc"}, **{k: v for k, v in changes.items() if v}}


@pytest.mark.parametrize(
    "changes",
    [
        {"envelope_to": ""},
        {"to": "", "envelope_to": ""},
        {"cc": "more@example.net"},
        {"to": "fixed@example.net", "bcc": "more@example.net"},
        {"to": "fixed@example.net", "envelope_to": ""},
        {"to": "fixed@example.net", "raw": "Subject: Hi\r\n\r\n"},
    ],
)
async def test_changes_that_would_mail_others_or_nobody_new_are_refused(
    room: Mailroom, changes: dict[str, str]
) -> None:
    name = await dead_child(room, COPY, ONE)
    assert await requeue_dead(room.spool, [(name, 1)], changes) == ["envelope"]
    assert [letter for letter, _ in await room.letters()] == [name]
    assert await room.states() == {}


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
@pytest.mark.parametrize("envelope", ["", "a@example.net"])
async def test_a_raw_mail_is_sent_where_its_envelope_says(room: Mailroom, field: str, envelope: str) -> None:
    lease = await room.lease(raw="To: a@example.net\r\n\r\n", envelope_to=envelope)
    assert await room.settled("dead", lease, **{"class": "policy"}) == "ok"
    [(name, _)] = await room.letters()
    assert await requeue_dead(room.spool, [(name, 1)], {field: "fixed@example.net"}) == ["envelope"]
    assert (await requeued(room, name, envelope_to="fixed@example.net"))["envelope_to"] == "fixed@example.net"


async def test_recipients_may_take_the_place_of_all(room: Mailroom) -> None:
    name = await dead_child(room, COPY, ONE)
    fields = await requeued(room, name, recipients='[{"to":"x@y.example"}]', to="", cc="", envelope_to="")
    assert fields == {"from": COPY["from"], "text": "Hi", "recipients": '[{"to":"x@y.example"}]'}


async def test_one_of_recipients_has_an_address_and_values_of_its_own(room: Mailroom) -> None:
    shared = {"from": "a@b.example", "template": "t", "vars": '{"month":"May"}\n'}
    row = ChildRow("to", b"typo@bad.example", b'{"name":"Ann"}', child=b"mine")
    name = await dead_child(room, shared, row, personal=True)
    fields = await requeued(room, name, to="fixed@example.net", vars='{"name":"Eve"}')
    assert fields == {
        "from": "a@b.example",
        "template": "t",
        "to": "fixed@example.net",
        "vars": '{"name":"Eve"}',
        "id": "mine",
    }


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"vars": '{"name":"Eve"}'}, ""),
        ({"vars": "{}", "template": ""}, "bodiless"),
        ({"vars": ""}, "bodiless"),
        ({"template": "other"}, ""),
    ],
)
async def test_values_are_the_body_of_a_template_that_was_kept(
    room: Mailroom, changes: dict[str, str], status: str
) -> None:
    lease = await room.lease(to="bob@example.net", template="t", vars='{"name":"Ann"}')
    assert await room.settled("dead", lease, **{"class": "bad_address"}) == "ok"
    [(name, found)] = await room.letters()
    assert (found.get("vars"), found["template"]) == (None, "t")
    [said] = await requeue_dead(room.spool, [(name, 1)], changes)
    assert (said if status else "") == status


@pytest.mark.parametrize("entry", ["", "x", "9", "91-1", "1", "11", "11-", "-", "1\n1-1", "11-1 ", "\x001-1", "11-x"])
async def test_letters_of_nobody_s_stop_no_requeue(room: Mailroom, entry: str) -> None:
    """Whoever may XADD can write one."""
    theirs = (await room.do("XADD", room.keys.dead, "*", "to", "x", "dead_entry", entry)).decode()
    lease = await room.lease(to="bob@example.net")
    assert await room.settled("dead", lease, **{"class": "policy"}) == "ok"
    mine = (await room.letters())[-1][0]
    said = await requeue_dead(room.spool, [(theirs, 1), (mine, 1)])
    assert said[0] == "packed"
    assert await room.states() == {said[1]: "waiting"}
