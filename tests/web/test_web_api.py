"""What the page asks and has done, without a browser: every look, every verb, every wrong order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mailroom import DAY, Mailroom
from redis.exceptions import ConnectionError as RedisConnectionError
from webbed import TOKEN, serving

from streamq.queue.letters import dead_reasons
from streamq.queue.overview import Overviews
from streamq.web import api

pytestmark = pytest.mark.leaves_mail

OURS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


async def ordered(room: Mailroom, **order: Any) -> tuple[int, Any]:
    async with serving(room.spool, token=TOKEN) as client:
        said = await client.post("/api/order", headers=OURS, content=json.dumps(order))
    return said.status_code, said.json()


GOOD: dict[str, Any] = {"from": "shop@example.com", "text": "Hello"}


async def looked(room: Mailroom, path: str) -> tuple[int, Any]:
    async with serving(room.spool) as client:
        said = await client.get(path)
    return said.status_code, said.json()


async def buried(room: Mailroom, site: str, klass: str = "policy", **fields: Any) -> str:
    lane = f"main|{site}"
    lease = await room.lease(lane=lane, to=f"Bob <bob@{site}>", **fields)
    assert await room.settled("dead", lease, lane=lane, **{"class": klass, "reason": f"no {site}"}) == "ok"
    return (await room.letters())[-1][0]


async def test_the_page_and_its_files_are_there(room: Mailroom) -> None:
    async with serving(room.spool) as client:
        page = await client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "<script src=" in page.text
        assert " style=" not in page.text  # the policy would refuse it
        assert "onclick" not in page.text
        for name in ("app.js", "style.css", "uplot.js", "uplot.css", "uplot.LICENSE", "icon.svg", "story.js"):
            assert (await client.get(f"/static/{name}")).status_code == 200, name
        for path in ("/static/../serve.py", "/static/%2e%2e/serve.py", "/static/", "/nowhere"):
            assert (await client.get(path)).status_code == 404, path


async def test_a_stream_tells_what_there_is_and_that_redis_is_away(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Request:
        asked = 0

        async def is_disconnected(self) -> bool:
            self.asked += 1
            return self.asked > 2

    overviews = Overviews(room.spool)
    answers: list[Any] = [{"live": 3}, RedisConnectionError("gone")]

    async def shown() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(api, "PUSH_SECONDS", 0)
    said = [part async for part in api._events(Request(), shown, lambda: 4000, asyncio.Event())]  # type: ignore[arg-type]
    assert said[1:] == [
        'event: overview\ndata: {"live":3}\n\n',
        'event: away\ndata: {"error":"gone","away_ms":4000}\n\n',
    ]
    await overviews.close()


async def test_a_stream_ends_when_the_server_does() -> None:
    class Request:
        async def is_disconnected(self) -> bool:
            return False

    async def shown() -> Any:
        stopping.set()
        return {}

    stopping = asyncio.Event()
    assert len([part async for part in api._events(Request(), shown, lambda: None, stopping)]) == 2  # type: ignore[arg-type]


# -- dead letters ----------------------------------------------------------------------------------------------------


async def test_dead_letters_are_grouped_by_reason_and_inside_by_domain(room: Mailroom) -> None:
    first = await buried(room, "a.example")
    await buried(room, "b.example")
    last = await buried(room, "a.example")
    other = await buried(room, "a.example", "bad_address")
    status, found = await looked(room, "/api/dead")
    assert (status, found["looked"], found["reasons_left"]) == (200, 4, 0)
    many, one = found["reasons"]
    assert (many["class"], many["gist"], many["many"], many["newest"]) == ("policy", "no #", 3, last)
    assert [(each["domain"], each["many"]) for each in many["domains"]] == [("a.example", 2), ("b.example", 1)]
    assert (one["class"], one["newest"]) == ("bad_address", other)
    status, said = await ordered(room, verb="discard", **{"class": "policy", "gist": "no #", "domain": "a.example"})
    assert (status, said["done"]) == (200, {"done": 2})
    assert first not in [name for name, _ in await room.letters()]
    status, said = await ordered(room, verb="requeue", **{"class": "policy", "gist": "no #"})
    assert said["done"] == {"done": 1, "kept": {}}
    assert [name for name, _ in await room.letters()] == [other]


async def test_one_reason_in_a_hundred_domains_is_one_row(room: Mailroom) -> None:
    reason = "rcpt: 550 5.7.1 <b%d@%d.example>: access denied by mx%d.%d.example (id 4f%d)"
    for n in range(100):
        fields = ("dead_class", "policy", "to", f"b@{n}.example", "dead_reason", reason % ((n,) * 5))
        await room.do("XADD", room.keys.dead, f"{n + 1}-0", *fields)
    other = reason.replace("5.7.1", "5.7.9") % ((1,) * 5)
    fields = ("dead_class", "policy", "to", "b@1.example", "dead_reason", other)
    await room.do("XADD", room.keys.dead, "101-0", *fields)
    _, found = await looked(room, "/api/dead")
    one, rest = found["reasons"]
    assert (one["many"], len(one["domains"]), one["domains_left"], one["letters_left"]) == (100, 20, 80, 80)
    assert (one["gist"], rest["many"]) == ("rcpt 550 5.7.1 # access denied by # id #", 1)
    await room.do("DEL", room.keys.dead)


@pytest.mark.parametrize(
    ("to", "domain"),
    [("", ""), ("bob", ""), ('"a@b c"@Example.NET', "example.net"), ("Bob <bob@x.example>, c@y.example", "x.example")],
)
async def test_a_domain_is_read_where_one_is(room: Mailroom, to: str, domain: str) -> None:
    lease = await room.lease(to=to, subject="x")
    assert await room.settled("dead", lease) == "ok"
    [reason], _ = await dead_reasons(room.spool)
    assert [group.domain for group in reason.domains] == [domain]


async def test_only_the_newest_letters_are_looked(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.queue.letters.GROUPED_MOST", 25)
    for n in range(30):
        await room.do("XADD", room.keys.dead, f"{n + 1}-0", "dead_class", "policy", "to", f"b@{n}.example")
    [reason], many = await dead_reasons(room.spool)
    assert (reason.many, many) == (25, 25)
    assert {group.domain for group in reason.domains} == {f"{n}.example" for n in range(5, 30)}
    await room.do("DEL", room.keys.dead)


async def test_a_letter_is_shown_without_its_bodies(room: Mailroom) -> None:
    name = await buried(room, "a.example", id="a1", text="secret words", x_long="y" * 50_000)
    status, found = await looked(room, f"/api/dead/{name}")
    assert (status, found["fields"]["id"], found["bodies"]) == (200, "a1", {"text": 12})
    assert "secret" not in json.dumps(found)
    assert len(found["fields"]["x_long"]) == 2001
    assert await looked(room, "/api/dead/1-1") == (404, {"error": "it is no dead letter any more"})
    assert (await looked(room, "/api/dead/nonsense"))[0] == 404


async def test_a_group_is_requeued_and_another_discarded(room: Mailroom) -> None:
    for site in ("a.example", "a.example", "b.example"):
        await buried(room, site)
    before = await room.length()
    status, said = await ordered(room, verb="requeue", domain="a.example", gist="no #", **{"class": "policy"})
    assert (status, said["done"]) == (200, {"done": 2, "kept": {}})
    assert await room.length() == before + 2
    status, said = await ordered(room, verb="discard", domain="b.example", gist="no #", **{"class": "policy"})
    assert (said["done"], await room.letters()) == ({"done": 1}, [])
    status, said = await ordered(room, verb="discard", domain="b.example", gist="no #", **{"class": "policy"})
    assert said["done"] == {"done": 0}
    for name in room.spool.priorities:
        for id_, _ in await room.do("XRANGE", room.keys.stream(name), "-", "+"):
            await room.do("XDEL", room.keys.stream(name), id_)


async def test_what_cannot_be_requeued_says_why(room: Mailroom) -> None:
    name = await buried(room, "a.example", "bad_address", text="gone")
    status, said = await ordered(room, verb="requeue", letters=[name, "5-5"])
    assert (status, said["done"]) == (200, {"done": 0, "kept": {"bodiless": 1}})


# -- a mail ----------------------------------------------------------------------------------------------------------


async def test_a_story_has_all_events_in_their_order(room: Mailroom) -> None:
    entry = (await room.lease(id="a1", tenant="acme")).entry
    for n in range(3):
        data = {"at": n, "entry": entry, "reply": f"450 no {n}", "tenant": "acme"}
        known = ("type", "email.deferred", "id", "a1", "data", json.dumps(data))
        await room.do("XADD", room.keys.events, "*", *known)
    other = ("type", "email.deferred", "id", "a1", "data", json.dumps({"entry": "11-1"}))
    await room.do("XADD", room.keys.events, "*", *other)
    status, found = await looked(room, f"/api/mail?id={entry}")
    assert status == 200
    assert [each["data"]["reply"] for each in found["events"]] == ["450 no 0", "450 no 1", "450 no 2"]
    assert (found["mail"]["state"], found["mail"]["waits_for"]) == ("leased", "delivery")
    assert found["mail"]["holder"] == "w1"


async def test_a_tenants_mail_that_has_ended_is_found_by_its_bare_id(room: Mailroom) -> None:
    lease = await room.lease(id="a1", tenant="acme", to="bob@example.net")
    await room.settled("sent", lease)
    await room.do("DEL", room.keys.events)
    for kind in ("email.deferred", "email.bounced"):
        data = {"at": 1, "entry": lease.entry, "tenant": "acme", "reply": "550 no"}
        await room.do("XADD", room.keys.events, "*", "type", kind, "id", "a1", "data", json.dumps(data))
    status, found = await looked(room, "/api/mail?id=a1")
    assert (status, found["mail"]) == (200, None)
    assert [each["kind"] for each in found["events"]] == ["email.deferred", "email.bounced"]
    assert found["letter"] == ""


async def test_a_mail_that_nobody_knows(room: Mailroom) -> None:
    status, said = await looked(room, "/api/mail?id=nobody&tenant=acme")
    assert status == 404
    assert "'nobody' of tenant 'acme'" in said["error"]
    for query in ("", "?id=", "?id=%20", f"?id={'x' * 257}", f"?id=a&tenant={'x' * 257}"):
        assert (await looked(room, f"/api/mail{query}"))[0] == 422


@pytest.mark.parametrize(
    ("verb", "state", "status"),
    [("retry", "scheduled", "scheduled"), ("hold", "scheduled", "held"), ("unhold", "held", "scheduled")],
)
async def test_a_mail_is_steered(room: Mailroom, verb: str, state: str, status: str) -> None:
    entry = await room.in_state(state, id="a1")
    code, said = await ordered(room, verb=verb, id=entry)
    assert (code, said["done"]) == (200, {"entry": entry, "status": status})
    assert said["overview"]["depth"]["normal"][status] == 1  # who asked sees it at once


@pytest.mark.parametrize("verb", ["cancel", "bounce"])
async def test_a_mail_is_ended(room: Mailroom, verb: str) -> None:
    entry = await room.scheduled()
    assert (await ordered(room, verb=verb, id=entry))[0] == 200
    assert await room.state(entry) == ""
    assert (await ordered(room, verb=verb, id=entry))[0] == 422


async def test_one_that_would_be_held_again_is_not_let_go(room: Mailroom) -> None:
    odd, fine = await room.held(id="a1", colour="red"), await room.held(id="a2", **GOOD)
    code, said = await ordered(room, verb="unhold", id="a1")
    assert code == 422
    assert said["error"].startswith("unknown fields: colour: a worker like this one would hold it again")
    code, said = await ordered(room, verb="unhold", entries=[odd, fine])
    assert (code, said["done"]) == (200, {"statuses": {"scheduled": 1, "kept": 1}})
    assert await room.state(odd) == "held"


async def test_mails_to_an_address_come_in_parts(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.web.api.ADDRESS_SECONDS", 0.0)
    for name in ("high", "low"):
        await room.scheduled(name, id=name, to="Anna@example.net", tenant="acme", **GOOD)
    at, found, many = "", [], 0
    for part in range(3):
        status, said = await looked(room, f"/api/address?address=anna@Example.NET&from={at}")
        assert (status, said["address"], len(said["ended"])) == (200, "anna@example.net", 0)
        assert bool(said["next"]) == (part < 2)
        at, many = said["next"], many + said["looked"]
        found += [(mail["fields"]["id"], mail["state"], mail["waits_for"]) for mail in said["mails"]]
    assert (found, many) == ([("high", "scheduled", "send_at"), ("low", "scheduled", "send_at")], 2)
    status, said = await looked(room, "/api/address?address=anna@example.net&tenant=other")
    assert (status, said["mails"]) == (200, [])
    for query in ("", "?address=anna", "?address=a@b.example,c@d.example", "?address=a@b.example&from=7:1-1"):
        assert (await looked(room, f"/api/address{query}"))[0] == 422


# -- routes, sites ---------------------------------------------------------------------------------------------------


async def test_limits_are_set_part_by_part_and_unset(room: Mailroom) -> None:
    await room.parked(lane="relay|a.example")

    async def said(**order: Any) -> Any:
        status, _ = await ordered(room, verb="limit", **order)
        assert status == 200
        target = order["name"] if order["kind"] == "route" else f"{order.get('route', '*')}|{order['name'].lower()}"
        return await room.do("HGET", room.keys.layer("operator"), target)

    assert await said(kind="site", name="A.example", rate="5/s,100/h") == b"5:1000000,100:3600000000"
    assert await said(kind="site", name="a.example", connections=3) == b"5:1000000,100:3600000000;c3"
    assert await said(kind="site", name="a.example", rate=["9/s"]) == b"9:1000000;c3"
    assert await said(kind="site", name="a.example", rate=[]) == b"-;c3"
    assert await said(kind="site", name="a.example", unset=True) is None
    assert await said(kind="site", name="*", rate="1/s") == b"1:1000000"
    assert await said(kind="site", name="a.example", route="relay", connections=0) == b";c0"
    assert await said(kind="route", name="relay", rate="7/s") == b"7:1000000"


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({}, "verb"),
        ({"verb": "erase"}, "verb"),
        ({"verb": "pause", "kind": "route"}, "name: Field required"),
        ({"verb": "pause", "kind": "queue", "name": "x"}, "kind"),
        ({"verb": "pause", "kind": "route", "name": "nowhere"}, "route: no such route (got 'nowhere')"),
        ({"verb": "pause", "kind": "site", "name": "a b"}, "name: not a domain name (got 'a b')"),
        ({"verb": "pause", "kind": "site", "name": "*"}, "name: not a domain name (got '*')"),
        ({"verb": "pause", "kind": "site", "name": "a|b"}, "name: not a domain name"),
        ({"verb": "pause", "kind": "site", "name": "a.example", "route": "x"}, "route: no such route (got 'x')"),
        ({"verb": "pause", "kind": "site", "name": "a.example", "for": "soon"}, "for: not a duration"),
        ({"verb": "pause", "kind": "site", "name": "a.example", "for": "0s"}, "for: no time at all"),
        ({"verb": "pause", "kind": "site", "name": "a.example", "reason": "x" * 301}, "reason"),
        ({"verb": "pause", "kind": "site", "name": "a.example", "colour": "red"}, "colour"),
        ({"verb": "limit", "kind": "site", "name": "a.example"}, "limit: a rate, connections, or unset"),
        ({"verb": "limit", "kind": "site", "name": "a.example", "rate": "fast"}, "rate: not a rate"),
        ({"verb": "limit", "kind": "site", "name": "a.example", "rate": "1/s,2/s"}, "rate: one of each window"),
        ({"verb": "limit", "kind": "site", "name": "a.example", "connections": -1}, "connections"),
        ({"verb": "discard"}, "order: letters, or a class and a gist"),
        ({"verb": "discard", "class": "policy"}, "order: letters, or a class and a gist"),
        ({"verb": "discard", "letters": []}, "letters"),
        ({"verb": "requeue", "letters": ["1-1"] * 1001}, "letters"),
        ({"verb": "cancel"}, "order: an id, or entries"),
        ({"verb": "cancel", "id": "a1", "entries": ["11-1"]}, "order: an id, or entries"),
        ({"verb": "cancel", "entries": ["91-1"]}, "entries: not an entry (got '91-1')"),
        ({"verb": "end"}, "rule: Field required"),
        ({"verb": "end", "rule": "domain:a.example"}, "rule: no such rule stands (got 'domain:a.example')"),
        ({"verb": "end", "rule": "x" * 601}, "rule"),
        ({"verb": "cancel", "id": "nobody"}, "no live mail has the entry"),
    ],
)
async def test_a_wrong_order_is_named_and_does_nothing(room: Mailroom, order: dict[str, Any], says: str) -> None:
    await room.scheduled(after=DAY)
    before = await room.do("HGETALL", room.keys.pauses), await room.do("HGETALL", room.keys.layer("operator"))
    status, said = await ordered(room, **order)
    assert status == 422
    assert says in said["error"]
    assert len(said["error"]) < 500
    assert before == (await room.do("HGETALL", room.keys.pauses), await room.do("HGETALL", room.keys.layer("operator")))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"verb": "cancel", "id": "a"}' + b" " * 100_001])
async def test_what_is_no_order(room: Mailroom, body: bytes) -> None:
    async with serving(room.spool, token=TOKEN) as client:
        said = await client.post("/api/order", headers=OURS, content=body)
    assert said.status_code == 422
    assert said.json()["error"]


async def test_redis_that_is_away_is_said(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise RedisConnectionError("refused")

    monkeypatch.setattr("streamq.queue.overview.status", away)
    for path in ("/api/overview", "/api/dead"):
        assert await looked(room, path) == (503, {"error": "redis: refused"})


async def test_values_that_somebody_made_huge_stay_small(room: Mailroom) -> None:
    evil = b"\x1b[31m" + b"\xff" * 200_000
    entry = await room.held(id="a1", subject=evil, **{"<script>": "x" * 100_000})
    async with serving(room.spool) as client:
        said = await client.get(f"/api/mail?id={entry}")
    assert said.status_code == 200
    assert len(said.content) < 50_000
    await asyncio.sleep(0)
