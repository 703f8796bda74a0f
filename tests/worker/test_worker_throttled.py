"""A receiver with a limit, as a user sees it: real sinks, real workers, a real server."""

from __future__ import annotations

from collections import Counter

from crew import crew

from streamq.queue.connection import command
from streamq.sink import Rules
from streamq.sink.limits import Rate

SES = "454 4.7.0 Throttling failure: Maximum sending rate exceeded."


async def test_a_relay_that_throttles_slows_its_route_and_every_mail_arrives(server_url: str) -> None:
    """Two workers; hardly more is refused than was under way at the first refusal."""
    many = 300
    async with crew(server_url, rules=Rules(limits=(Rate(most=60, seconds=1.0, reply=SES),))) as c:
        for _ in range(2):
            await c.worker(relay=None, routes={"main": {"url": c.sink.url, "connections": 4}})
        for number in range(many):
            await c.add(to=f"u{number}@site{number % 50}.example", id=f"m{number}")
        kinds: Counter[str] = Counter()
        paced = []
        async for kind, _, data in c.events():
            kinds[kind] += 1
            if kind == "site.throttled":
                paced.append(data)
            if kind == "email.throttled":
                assert data["class"] == "route_rate"
            if kinds["email.relayed"] == many:
                break
        assert [(data["route"], "site" in data) for data in paced] == [("main", False)]
        assert kinds["email.bounced"] == kinds["email.deferred"] == 0
        assert len({mail.envelope_to[0] for mail in c.sink.received}) == len(c.sink.received) == many
        assert await command(c.spool.redis, "ZRANGE", c.spool.keys.throttled, 0, -1) == [b"main"]
        assert kinds["email.throttled"] <= 30


async def test_a_text_that_names_one_site_slows_that_one_alone(server_url: str) -> None:
    said = "450 4.7.1 Too much mail for gmail.com, slow down"
    limit = Rate(most=1, seconds=1.0, stage="rcpt", match="*@gmail.com", reply=said)
    async with crew(server_url, rules=Rules(limits=(limit,))) as c:
        await c.worker()
        for number in range(3):
            await c.add(to=f"u{number}@gmail.com")
        for number in range(40):
            await c.add(to=f"u{number}@example.net")
        relayed: Counter[str] = Counter()
        async for kind, name, data in c.events():
            if kind == "email.relayed":
                relayed[data["site"]] += 1
            if kind == "site.throttled":
                assert name == "relay|gmail.com"
            if relayed.total() == 43:
                break
        assert relayed == {"gmail.com": 3, "example.net": 40}
        assert await command(c.spool.redis, "ZRANGE", c.spool.keys.throttled, 0, -1) == [b"relay|gmail.com"]
        assert await command(c.spool.redis, "EXISTS", c.spool.keys.limit("relay|example.net")) == 0
