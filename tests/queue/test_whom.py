"""lib/whom.lua: ends that no worker sees say whose mail it was, as all other events do; and so they are found."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson
import pytest
from family import expanded, parent
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mailroom import DAY, LANE, Mailroom
from redis import Redis
from servers import KINDS, Missing, Servers

from streamq.mail.event import hashed_address
from streamq.mail.fields import BUILT
from streamq.mail.sure import read_sure
from streamq.queue.events import Event, EventFilter, last_events
from streamq.queue.rows import MarkRow
from streamq.queue.script import LUA

pytestmark = pytest.mark.leaves_mail
SPEC, SITE = "Bob@Example.NET", "example.net"
BOB = {"to": f"Bob <{SPEC}>", "id": "a1", "tenant": "acme"}
OWN = ["parent", "rcpt", "site", "tenant", "traceparent"]
KEY = "0123456789abcdef0123"


async def by(room: Mailroom, end: str, **fields: str) -> str:
    """A mail that ended so, or was held; its entry."""
    if end in {"hold", "cancel", "bounce", "expire"}:
        entry = await room.in_state("parked", "low", **fields)
        await room.moved(end, entry)
    elif end == "too old":
        entry = await room.in_state("held", "low", **fields)
        room.tick(5 * DAY)
        assert (await room.scripts.expire([5 * DAY] * 3))[0] == 1
    elif end == "superseded":
        entry = await room.add(**fields)
        newer = await room.add(**fields)
        await room.read()
        tail = b'"rcpt":"%b","site":"%b","tags":["a"]' % (SPEC.encode(), SITE.encode())
        for each in (entry, newer):
            await room.admit(each, tail=tail, collapse=f"{KEY}{room.now + 60_000}")
    else:
        lease = await room.lease("low", **fields)
        entry = lease.entry
        if end == "ambiguous":
            await room.scripts.mark("w1", [MarkRow("main.1", entry, lease.token)])
        await room.silent(entry, "w1")
        await room.reclaim(most=0 if end == "poison" else 3)
    return entry


async def said_of(room: Mailroom, entry: str) -> Event:
    return next(each for each in await last_events(room.spool, 100) if each.text("entry") == entry)


ENDS = ["hold", "cancel", "bounce", "expire", "too old", "superseded", "poison", "ambiguous"]


@pytest.mark.parametrize("end", ENDS)
async def test_every_end_says_to_whom_it_was_and_is_found_by_that(
    any_server_url: str, room: Mailroom, end: str
) -> None:
    await room.say_pii("full")
    event = await said_of(room, await by(room, end, **BOB))
    assert [name for name in event.data if name in OWN] == ["rcpt", "site", "tenant"]
    assert (event.data["rcpt"], event.data["site"]) == (SPEC, SITE)
    for wanted in (EventFilter(rcpt="bob@example.net"), EventFilter(names=(SPEC,)), EventFilter(domain=SITE)):
        assert wanted.fits(event)


@pytest.mark.parametrize("end", [end for end in ENDS if end != "superseded"])  # that says what its successor's does
@pytest.mark.parametrize("said", [True, False])
async def test_no_address_stands_there_in_the_clear_unless_workers_say_it_may(
    any_server_url: str, room: Mailroom, end: str, said: bool
) -> None:
    if said:
        await room.say_pii("hash")
    event = await said_of(room, await by(room, end, **BOB))
    assert (event.data["rcpt"], event.data["site"]) == (hashed_address(SPEC), SITE)
    assert EventFilter(rcpt="bob@example.net").fits(event)


async def test_workers_say_what_pii_is(server_url: str, room: Mailroom) -> None:
    for pii in ("hash", "full"):
        room.spool.settings = room.spool.settings.model_copy(update={"pii": pii})
        await room.spool.publish_ends()
        assert await room.do("HGET", room.keys.meta, "pii") == pii.encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "bob@example.net, eve@example.net"},
        {"to": "bob@example.net", "cc": "eve@example.net"},
        {"raw": "To: bob@example.net\r\n\r\n"},
        {"to": "bob@example.net", "raw": "To: eve@example.net\r\n\r\n"},
        {"to": "bob@example.net", "colour": "red"},
        {"to": "b\u00f6b@b\u00fccher.example"},
        {"to": "bob@[192.0.2.1]"},
        {"to": "bob\x1b@example.net"},
    ],
)
async def test_of_several_or_of_who_knows_whom_it_says_nothing(
    server_url: str, room: Mailroom, fields: dict[str, str]
) -> None:
    await room.say_pii("full")
    event = await said_of(room, await by(room, "cancel", **fields))
    assert not {"rcpt", "site"} & event.data.keys()


async def test_a_child_has_its_own_recipient_behind_its_parent(server_url: str, room: Mailroom) -> None:
    await room.say_pii("full")
    lease = await parent(room)
    child = (await expanded(room, lease))[0]
    assert await room.moved("cancel", child) == ["cancelled"]
    event = await said_of(room, child)
    assert [name for name in event.data if name in OWN] == ["parent", "rcpt", "site", "tenant"]
    assert (event.data["rcpt"], event.data["site"]) == ("bob1@example.net", "example.net")


async def test_a_script_hashes_only_so_many(server_url: str, room: Mailroom) -> None:
    """Ten take 2 ms."""
    await room.say_pii("hash")
    entries = [await room.in_state("held", "low", **BOB) for _ in range(50)]
    assert await room.moved("cancel", *entries) == ["cancelled"] * 10
    assert await room.moved("unhold", *entries[10:]) == ["scheduled"] * 40  # which writes no event
    silent = [await room.lease("low", to=SPEC, lane=LANE) for _ in range(50)]
    for lease in silent:
        await room.silent(lease.entry, "w1")
    cursor, calls = "", 0
    while calls == 0 or cursor:
        cursor, calls = (await room.reclaim(most=0, cursor=cursor)).cursor, calls + 1
    assert (calls, await room.count("total:failed")) == (6, 50)  # the last one finds no more


# -- what Lua and Python make of the same fields -------------------------------------------------------------------


def run(redis: Redis, part: str, code: str, *args: bytes) -> list[bytes]:
    found: list[bytes] = redis.eval((LUA / "lib" / f"{part}.lua").read_text("utf-8") + code, 0, *args)
    return found


def addressee(redis: Redis, flat: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    code = "\nlocal rcpt, site = addressee(ARGV, {}) return {rcpt or '', site or ''}"
    return run(redis, "whom", code, *[part for pair in flat for part in pair])


@pytest.fixture(scope="module")
def server(servers: Servers) -> Redis:
    return Redis.from_url(servers.first().url, protocol=2)


PARTS = [
    *(b"bob", b"a.b", b".", b"@", b"example", b"example.net", b"Example.NET.", b"@x.de", b"-", b"<", b">", b'"', b"\\"),
    *(b" ", b",", b"(c)", b":", b";", b"[", b"]", b'["', b'"]', b"\xc3\xbc", b"\xff", b"\xed\xa0\x80"),
    *(b"x" * 64, b"y" * 190, b"\0", b"\r", b"\n", b"\t", b"\x7f", b"xn--bcher-kva", b"=?utf-8?q?a?="),
    *(b"%", b"$", b"[1.2.3.4]", b"\xf4\x90\x80\x80"),
]
HOSTILE = st.lists(st.sampled_from(PARTS), max_size=8).map(b"".join)
NAMED = st.tuples(
    st.lists(st.sampled_from(PARTS), max_size=4).map(b"".join), st.sampled_from([b"bob@x.de", b"a.b@X.de"])
)
VALUES = HOSTILE | NAMED.map(lambda each: b"%b<%b>" % each) | st.sampled_from([b"", b"bob@x.de", b'["bob@x.de"]', b"1"])
NAMES = [
    b"to",
    b"to",
    b"envelope_to",
    b"cc",
    b"bcc",
    b"raw",
    b"recipients",
    b"v",
    b"x_colour",
    b"colour",
    b"@of",
    b"text",
]


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), min_size=1, max_size=4))
@example([(b"to", b"bob@" + b"a" * 64 + b".de")])
@example([(b"to", b"x" * 65 + b"@x.de")])
@example([(b"to", b"b@" + b"abcdefg." * 32 + b"de")])
def test_whom_lua_names_python_names_too(server: Redis, flat: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in flat]
    twice = {name for name in names if names.count(name) > 1}
    sure = orjson.loads(b"{%b}" % read_sure(dict(flat), twice).event)
    found = addressee(server, flat)
    assert found in ([b"", b""], [sure.get("rcpt", "").encode(), sure.get("site", "").encode()])


@pytest.mark.parametrize(
    "to",
    [
        *("bob@x.de", "<bob@x.de>", "Bob <bob@x.de>", "B\u00f6b B. Smith <bob@x.de>", '"Smith, B\u00f6b" <bob@x.de>'),
        *('["bob@x.de"]', '["Bob <bob@x.de>"]', "o'b+tag/x=y@a-b.xn--bcher-kva.example", "bob@localhost", "bob@X.DE"),
    ],
)
@pytest.mark.parametrize("field", ["to", "envelope_to"])
def test_the_usual_forms_are_all_known(server: Redis, to: str, field: str) -> None:
    fields = {field.encode(): to.encode()} | ({b"raw": b"x", b"cc": b"eve@x.de"} if field == "envelope_to" else {})
    sure = orjson.loads(b"{%b}" % read_sure(fields).event)
    assert addressee(server, list(fields.items())) == [sure["rcpt"].encode(), sure["site"].encode()]


def test_it_knows_the_fields_that_this_version_knows(server: Redis) -> None:
    code = "\naddressee(ARGV, {}) local out = {} for name in pairs(KNOWN) do out[#out + 1] = name end return out"
    assert set(run(server, "whom", code)) == BUILT


@pytest.mark.parametrize("kind", KINDS)
def test_sha256_is_that(servers: Servers, kind: str) -> None:
    try:
        redis = Redis.from_url(servers.get(kind).url, protocol=2)
    except Missing as why:
        pytest.skip(str(why))
    texts = [bytes(33 + at * 7 % 90 for at in range(size)) for size in (0, 1, 55, 56, 63, 64, 119, 120, 254)]
    code = "\nlocal out = {} for at, text in ipairs(ARGV) do out[at] = sha256_16(text) end return out"
    found = run(redis, "sha256", code, *texts)
    assert [each.decode() for each in found] == [sha256(text).hexdigest()[:16] for text in texts]


def test_the_newcomer_s_tail_tells_whom_its_key_is_of(server: Redis) -> None:
    code = "\nreturn {whom_in(ARGV[1])}"
    stub = 'local function parent_in(tail) return tail:match(\'^"parent":"(%d+%-%d+)"\') end\n'
    text = stub + (LUA / "lib" / "whom.lua").read_text("utf-8") + code
    whom = orjson.dumps({"rcpt": '"a\\",\\"site\\":\\"b"@x.de', "site": "x.de"})[1:-1]
    for before in (b"", b'"parent":"11-1",'):
        assert server.eval(text, 0, before + whom + b',"tags":["a"]') == [whom]
    for other in (b"", b'"parent":"11-1"', b'"tags":["rcpt"]'):
        assert server.eval(text, 0, other) == [b""]


@pytest.mark.parametrize(("parent", "fits"), [("11732237561234-0", True), ("", False)])
def test_what_a_mail_became_is_found_by_its_id(parent: str, fits: bool) -> None:
    """A producer's own id with a `#` is no child's."""
    data: dict[str, Any] = {"entry": "11732237561299-0"} | ({"parent": parent} if parent else {})
    assert EventFilter(names=("w3",)).fits(Event("1-1", "email.relayed", "w3#2", b"", data)) is fits
