"""Mails for several recipients, from XADD to the sink."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.policy import default

import orjson
import pytest
from crew import Crew, crew
from family import expand, parent
from mailroom import Lease, Mailroom
from redis.exceptions import OutOfMemoryError

from streamq.mail import Mail
from streamq.mail.labour import LIGHT_US
from streamq.mail.several import Child
from streamq.queue import walk
from streamq.queue.bodies import Bodies
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.rows import AdmitRow
from streamq.queue.spool import Entry, Spool
from streamq.worker import admission, expander, hand
from streamq.worker.expander import chunk
from streamq.worker.hand import Hand, Held
from streamq.worker.intake import Intake


def by_recipient(c: Crew) -> dict[str, bytes]:
    found = {mail.envelope_to[0]: mail.content for mail in c.sink.received}
    assert len(found) == len(c.sink.received)  # nobody got it twice
    assert all(len(mail.envelope_to) == 1 for mail in c.sink.received)
    return found


async def nothing_left(c: Crew) -> None:
    assert (await check(c.spool)).clean
    assert await command(c.spool.redis, "EXISTS", c.spool.keys.bodies) == 0


async def test_to_cc_and_bcc_get_the_same_bytes(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        entry = await c.add(
            id="a1", to="a@x.example, B <b@y.example>", cc="c@x.example, A@x.example", bcc="d@z.example"
        )
        relayed = await c.until("email.relayed", many=5)
        found = by_recipient(c)
        await nothing_left(c)
    assert found.keys() == {"a@x.example", "b@y.example", "c@x.example", "A@x.example", "d@z.example"}
    assert len(set(found.values())) == 1
    mail = message_from_bytes(found["d@z.example"], policy=default)
    assert (mail["To"], mail["Cc"], mail["Bcc"]) == (
        "a@x.example, B <b@y.example>",
        "c@x.example, A@x.example",
        None,
    )
    assert {event["parent"] for event in relayed} == {entry}
    assert len({event["message_id"] for event in relayed}) == 1


async def test_a_mailbox_that_is_named_twice_gets_one_copy_and_each_of_recipients_its_own_mail(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        await c.add(id="a1", to="a@x.example, A B <a@X.example>", cc="a@x.example, b@x.example", bcc="b@x.example")
        both = '[{"to":"a@x.example","metadata":{"seat":1}},{"to":"a@x.example","metadata":{"seat":2}}]'
        await c.add(id="a2", to="", recipients=both)
        relayed = await c.until("email.relayed", many=4)
        await nothing_left(c)
        found = [mail.envelope_to[0] for mail in c.sink.received]
    assert sorted(found) == ["a@x.example"] * 3 + ["b@x.example"]
    assert sorted(event["metadata"]["seat"] for event in relayed if "metadata" in event) == [1, 2]


async def test_each_of_recipients_gets_a_mail_of_its_own(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        recipients = [
            {"to": "a@x.example"},
            {"to": "B <b@x.example>", "id": "mine", "metadata": {"n": 2}},
            {"to": "no address"},
            {"to": "two@x.example, more@x.example"},
        ]
        await c.add(id="a1", to="", recipients=orjson.dumps(recipients), metadata='{"campaign":"may"}')
        seen = {}
        async for kind, id_, data in c.events():
            seen[id_] = (kind, data)
            if len(seen) == 5:
                break
        found = by_recipient(c)
        await nothing_left(c)
    assert {id_: kind for id_, (kind, _) in seen.items()} == {
        "a1": "email.expanded",
        "a1#1": "email.relayed",
        "mine": "email.relayed",
        "a1#3": "email.rejected",
        "a1#4": "email.rejected",
    }
    assert seen["a1#3"][1]["reason"] == "to: not an address (no @): 'no address'"
    assert seen["a1#4"][1]["reason"].startswith("to: more than one address")
    assert seen["mine"][1]["metadata"] == {"campaign": "may", "n": 2}
    heads = {to: message_from_bytes(content, policy=default) for to, content in found.items()}
    assert {to: mail["To"] for to, mail in heads.items()} == {
        "a@x.example": "a@x.example",
        "b@x.example": "B <b@x.example>",
    }
    assert len({mail["Message-ID"] for mail in heads.values()}) == 2


async def test_a_raw_message_goes_to_many(server_url: str) -> None:
    raw = b"From: shop@example.com\r\nTo: list@example.com\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n\xff\r\n"
    async with crew(server_url) as c:
        await c.worker()
        fields = dict.fromkeys(("from", "to", "subject", "text"), "")
        await c.add(**fields, raw=raw, envelope_to="a@x.example, b@x.example")
        await c.add(**fields, raw=raw, recipients='[{"to":"c@x.example"},{"to":"d@x.example"}]')
        await c.until("email.relayed", many=4)
        found = by_recipient(c)
        await nothing_left(c)
    assert found == dict.fromkeys((f"{name}@x.example" for name in "abcd"), raw)


async def test_the_same_campaign_again_is_a_duplicate(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        for _ in range(2):
            await c.add(id="a1", to="a@x.example, b@x.example")
        await c.until("email.duplicate", "a1")
        await c.until("email.relayed", many=2)
        await nothing_left(c)
        assert len(by_recipient(c)) == 2


async def test_large_children_come_into_the_hand_as_it_empties(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their stream they are small, and are read by the hundred."""
    monkeypatch.setattr(hand, "HAND_BYTES", 400_000)
    monkeypatch.setattr(admission, "BURIED_BYTES", 100_000)
    most = 0
    add = Hand.add

    def weighed(self: Hand, delivery: Held) -> None:
        nonlocal most
        add(self, delivery)
        most = max(most, self.bytes)

    monkeypatch.setattr(Hand, "add", weighed)
    to = [f"r{n}@x.example" for n in range(60)]
    async with crew(server_url) as c:
        await c.add(to=orjson.dumps(to), text="Hello you\n" * 5_000)
        await c.worker()
        await c.until("email.relayed", many=60)
        assert by_recipient(c).keys() == set(to)
        await nothing_left(c)
    assert 100_000 < most < 700_000  # and not 60 times 55,000


@pytest.mark.parametrize("kind", ["children", "mails"])
async def test_what_is_taken_back_comes_into_the_hand_as_it_empties(
    server_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A release gives up to a hundred at once."""
    monkeypatch.setattr(hand, "HAND_BYTES", 400_000)
    monkeypatch.setattr(admission, "BURIED_BYTES", 100_000)
    monkeypatch.setattr(walk, "PAGE_BYTES", 200_000)
    most, pages = 0, []
    add, raw = Hand.add, Spool.raw

    def weighed(self: Hand, delivery: Held) -> None:
        nonlocal most
        add(self, delivery)
        most = max(most, self.bytes)

    async def counted(self: Spool, entries: Sequence[str]) -> list[Entry | None]:
        pages.append(len(entries))
        return await raw(self, entries)

    monkeypatch.setattr(Hand, "add", weighed)
    text = "Hello you\n" * 8_000
    async with crew(server_url) as c:
        room = Mailroom(c.spool)
        room.to(c.spool.now_ms())  # young: a worker that is slow would see some of them expire
        fields = {"from": "shop@example.com", "subject": "Hi", "text": text}
        to = [f"r{n}@x.example" for n in range(30)]
        if kind == "children":
            lease = await parent(room)
            await c.spool.bodies.upload("up", {name.encode(): value.encode() for name, value in fields.items()}, False)
            entries = (await expand(room, lease, to, many=30)).children
        else:
            entries = [await room.add(to=each, **fields) for each in to]
        await room.read()
        tail = [b"" if kind == "mails" else b'"parent":"%b"' % lease.entry.encode()] * 30
        rows = [room.row(each, lane="relay|x.example", tail=said) for each, said in zip(entries, tail, strict=True)]
        token = (await room.admit(*rows)).token
        for each in entries:
            assert await room.settled("park", Lease(each, token, "w1"), lane="relay|x.example") == "ok"
        c.spool.scripts.now = ""
        monkeypatch.setattr(Spool, "raw", counted)
        await c.worker()
        await c.until("email.relayed", many=30)
        assert by_recipient(c).keys() == set(to)
        await nothing_left(c)
    assert 100_000 < most < 600_000
    assert pages[0] == 1
    assert max(pages) == (10 if kind == "children" else 2)  # bytes of what is fetched


async def test_another_worker_makes_the_rest(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expander, "CHUNK", 7)
    to = [f"r{n}@x.example" for n in range(100)]
    async with crew(server_url) as c:
        first = c.new_worker()
        run = asyncio.create_task(first.run())
        await c.add(id="a1", to="", recipients=orjson.dumps([{"to": each} for each in to]))
        await c.until("email.relayed", "a1#1")  # some are made, and some are not
        first.stop()
        await run
        assert (await check(c.spool)).clean
        await c.worker()
        await c.until("email.relayed", "a1#100")
        while len(c.sink.received) < 100:
            await c.until("email.relayed")
        assert by_recipient(c).keys() == set(to)
        await nothing_left(c)


async def test_send_at_waits_before_it_becomes_many(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        entry = await c.add(id="a1", to="a@x.example, b@x.example", delay="3600")
        await c.until_state(entry, "scheduled")
        assert await command(c.spool.redis, "EXISTS", c.spool.keys.bodies) == 0
        await c.spool.scripts.move("retry", [entry])
        await c.until("email.relayed", many=2)
        await nothing_left(c)


async def test_a_body_for_which_there_is_no_memory_waits_on_the_schedule(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not put there again and again."""
    tried = 0

    async def full(self: Bodies, name: str, fields: Mapping[bytes, bytes], personal: bool) -> None:
        nonlocal tried
        tried += 1
        raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    async with crew(server_url) as c:
        with monkeypatch.context() as patched:
            patched.setattr(Bodies, "upload", full)
            await c.worker()
            entry = await c.add(id="a1", to="a@x.example, b@x.example")
            await c.until_state(entry, "scheduled")
        assert tried == 1
        await c.spool.scripts.move("retry", [entry])
        await c.until("email.relayed", many=2)
        await nothing_left(c)


def test_a_call_makes_so_many_and_so_many_bytes() -> None:
    children = [Child("to", b"x" * 1000, b"y" * 1500) for _ in range(700)]
    assert len(list(chunk(children, 0))) == 100
    assert len(list(chunk(children, 650))) == 50
    assert len(list(chunk([Child("to", b"a@x.example")] * 700, 0))) == 500
    assert len(list(chunk([Child("to", b"x", b"y" * 1_000_000)] * 2, 0))) == 1  # one always
    assert list(chunk(children, 700)) == []


@pytest.mark.parametrize("name", ["to", "recipients"])
async def test_many_recipients_are_read_while_others_go_on(
    server_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A judgement of many takes its time in a thread; what it reads of JSON was read in steps before."""
    judged: list[tuple[bool, bool]] = []
    judge = Intake.judge

    def noted(self: Intake, entry: Entry) -> tuple[AdmitRow, Mail | None]:
        if entry.labour > LIGHT_US and not entry.parent:
            judged.append((threading.current_thread() is threading.main_thread(), entry.recipients is not None))
        return judge(self, entry)

    monkeypatch.setattr(Intake, "judge", noted)
    to = [f"r{n}@x.example" for n in range(600)]
    given = orjson.dumps(to) if name == "to" else orjson.dumps([{"to": each} for each in to])
    async with crew(server_url) as c:
        await c.worker()
        await c.add(**({"to": given} if name == "to" else {"to": "", "recipients": given}))
        await c.until("email.relayed", many=600)
        assert by_recipient(c).keys() == set(to)
        await nothing_left(c)
    assert judged == [(False, name == "recipients")]
