"""erase: what stood there of a person stands there no more, looked for in all keys; of others nothing is touched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from mailroom import Mailroom

from cli.shell import steers, streamq
from streamq.mail.event import hashed_address
from streamq.settings import load_settings

pytestmark = pytest.mark.leaves_mail
GOOD: dict[str, Any] = {"from": "shop@example.com", "subject": "Hi", "text": "Hello"}
TAIL = b'"rcpt":"Ann@Example.net","site":"example.net","reply":"ok"'


def words_in(value: Any) -> Iterable[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from words_in(each)


async def everything(queue: Mailroom) -> bytes:
    """All that the server holds of the queue, as one text in lower case."""
    found = []
    for key in await queue.do("KEYS", "*"):
        kind = (await queue.do("TYPE", key)).decode()
        read: dict[str, tuple[str | bytes | int, ...]] = {
            "stream": ("XRANGE", key, "-", "+"),
            "hash": ("HGETALL", key),
            "zset": ("ZRANGE", key, 0, -1),
            "list": ("LRANGE", key, 0, -1),
            "set": ("SMEMBERS", key),
            "string": ("GET", key),
        }
        found += [key, *words_in(await queue.do(*read[kind]))]
    return b"\n".join(found).lower()


async def history(queue: Mailroom) -> dict[str, str]:
    """Ann and Bob in every state, dead, sent; the entries."""
    entries = {}
    for name in ("ann", "bob"):
        to = f"{name}@example.net"
        sent = await queue.lease("low", **GOOD, to=to, lane="a|example.net")
        tail = TAIL if name == "ann" else TAIL.replace(b"Ann", b"bob")
        assert await queue.settled("sent", sent, tail=tail, lane="a|example.net") == "ok"
        dead = await queue.lease("low", **GOOD, to=to, lane="b|example.net")
        reply = f"550 no such {to}"
        assert await queue.settled("dead", dead, tail=tail, reply=reply, lane="b|example.net") == "ok"
        for state in ("scheduled", "parked", "held"):
            entries[f"{name}-{state}"] = await queue.in_state(state, "low", **GOOD, to=to)
    for name in ("ann", "bob"):
        entries[f"{name}-waiting"] = await queue.add("low", **GOOD, to=f"{name}@example.net")
    return entries


async def test_a_person_is_forgotten_and_nobody_else(queue: Mailroom) -> None:
    entries = await history(queue)
    bobs = {entry for name, entry in entries.items() if name.startswith("bob")}
    assert b"ann@example.net" in await everything(queue)
    said = await streamq("erase", "ANN@example.net", "--yes")
    assert (said.code, said.err) == (0, "")
    assert said.out == "erased 4 mails, 1 dead letter, 6 events\n"  # two stood there, four are of its own ends
    left = await everything(queue)
    assert b"ann@" not in left
    assert left.count(b"bob@example.net") > 0
    assert set(await queue.states()) == bobs
    assert [fields["to"] for _, fields in await queue.letters()] == ["bob@example.net"]
    assert {event.data["rcpt"] for event in await queue.events() if "rcpt" in event.data} == {"bob@Example.net"}


async def test_dry_run_and_no_answer_change_nothing(queue: Mailroom) -> None:
    await history(queue)
    before = await everything(queue)
    said = await streamq("erase", "ann@example.net", "--dry-run")
    assert said.out == "erase: 4 mails, 1 dead letter, 2 events (dry run: nothing was changed)\n"
    known = (await streamq("erase", "ann@example.net", "--dry-run", "--json")).json
    assert (known["mails"], known["letters"], known["events"], known["dry_run"]) == (4, 1, 2, True)
    said = await streamq("erase", "ann@example.net")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("erase 4 mails, 1 dead letter, 2 events? No terminal to ask")
    assert await everything(queue) == before


async def test_what_is_left_is_said(queue: Mailroom) -> None:
    """A mail in delivery, and one to others as well."""
    lease = await queue.lease("low", **GOOD, to="ann@example.net")
    shared = await queue.scheduled("low", **GOOD, to="ann@example.net, bob@example.net")
    said = await streamq("erase", "ann@example.net", "--yes")
    assert said.code == 1
    assert "in delivery: 1;" in said.err
    assert f"left alone, to others as well: 1 ({shared})" in said.err
    assert await queue.states() == {lease.entry: "leased", shared: "scheduled"}
    assert await queue.settled("defer", lease, tail=TAIL) == "cancelled"  # as was asked
    said = await streamq("erase", "ann@example.net", "--yes", "--json")
    assert (said.code, said.json["shared"], said.json["events"]) == (1, [shared], 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "Ann <ANN@example.net>"},
        {"to": '["Ann <ann@example.net>"]'},
        {"to": '["\\u0041nn@example.net"]'},
        {"cc": "ann@example.net"},
        {"bcc": "ann@example.net"},
        {"to": "list@example.com", "envelope_to": "ann@example.net"},
        {"recipients": orjson.dumps([{"to": "ann@example.net"}]).decode()},
        {"raw": "From: shop@example.com\nTo: Ann <ann@example.net>\n\nHi\n"},
    ],
    ids=lambda fields: "+".join(fields),
)
async def test_however_a_mail_names_its_recipient(queue: Mailroom, fields: dict[str, str]) -> None:
    await queue.add("low", **(fields if "raw" in fields else GOOD | fields))
    said = await streamq("erase", "ann@example.net", "--yes")
    assert said.out.startswith("erased 1 mail, 0 dead letters, ")  # and its own end's event, where that names it
    assert await queue.states() == {}
    assert b"ann@" not in await everything(queue)


@pytest.mark.parametrize(
    "fields",
    [{"to": "joann@example.net"}, {"to": "bob@example.net", "text": "ann@example.net"}, {"to": "ann@example.netx"}],
)
async def test_who_is_only_like_it_is_somebody_else(queue: Mailroom, fields: dict[str, str]) -> None:
    entry = await queue.add("low", **(GOOD | fields))
    assert (await streamq("erase", "ann@example.net", "--yes")).code == 0
    assert await queue.states() == {entry: "waiting"}


async def test_hashed_events_are_found(queue: Mailroom) -> None:
    for address in ("ann@example.net", "bob@example.net"):
        data = orjson.dumps({"at": 1, "rcpt": hashed_address(address)})
        await queue.do("XADD", queue.keys.events, "*", "type", "email.relayed", "id", "x", "data", data)
    assert load_settings().pii == "full"
    assert (await streamq("erase", "Ann@EXAMPLE.net", "--yes")).code == 0
    assert [event.data["rcpt"] for event in await queue.events()] == [hashed_address("bob@example.net")]


@pytest.mark.parametrize("pii", ["full", "hash"])
async def test_ends_that_no_worker_saw_are_found(queue: Mailroom, pii: str) -> None:
    await queue.say_pii(pii)
    for name in ("ann", "bob"):
        entry = await queue.held("low", **GOOD, to=f"{name}@Example.net")
        assert await queue.moved("cancel", entry) == ["cancelled"]
    assert (await streamq("erase", "ann@example.net", "--yes")).out == "erased 0 mails, 0 dead letters, 1 event\n"
    [cancelled] = [event.data["rcpt"] for event in await queue.events() if event.kind == "email.cancelled"]
    assert cancelled == ("bob@Example.net" if pii == "full" else hashed_address("bob@example.net"))


async def test_an_idn_domain_in_either_form(queue: Mailroom) -> None:
    for to in ("ann@bücher.example", "ann@xn--bcher-kva.example"):
        await queue.add("low", **GOOD, to=to)
    assert (await streamq("erase", "ann@bücher.example", "--yes")).out.startswith("erased 2 mails")
    assert await queue.states() == {}


@pytest.mark.parametrize("text", ["", "nobody", "a@b.example, c@d.example", "\x1b[2J@x.example"])
async def test_what_is_no_address_is_refused(queue: Mailroom, text: str) -> None:
    said = await streamq("erase", text, "--yes")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("streamq: ADDRESS: ")
    assert steers(said.err) == set()
