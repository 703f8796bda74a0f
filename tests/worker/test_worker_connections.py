"""Workers against a server that takes fewer connections, or fewer mails on each, than the route may have."""

from __future__ import annotations

import asyncio
from pathlib import Path

from crew import Crew, crew, rules_of

from streamq.queue.connection import command
from streamq.queue.routes import Learnt, route_views

FIVE = '[[connections]]\nmost = 5\nper = "all"\nreply = "421 4.7.0 Too many connections"\n'
SLOW = '[[rule]]\nmatch = "*"\nstage = "dot"\ndelay_ms = 20\nreply = "250 2.0.0 slow"\n'
SHORT = '[[rule]]\nstage = "mail"\nfrom_mail = 6\nreply = "421 4.7.0 Too many messages in this session"\n'


async def learnt(c: Crew) -> Learnt:
    [view] = await route_views(c.spool, ["relay"])
    assert view.learnt is not None
    return view.learnt


async def feed(c: Crew, many: int) -> None:
    for number in range(many):
        await c.add(to=f"u{number}@example.net")


async def test_a_server_that_takes_five_of_twenty_refuses_one(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=rules_of(tmp_path, FIVE + SLOW)) as c:
        for _ in range(3):
            await c.worker()
        await feed(c, 800)
        events = await c.until("email.relayed", many=800)
        assert {event["attempt"] for event in events} == {1}
        assert c.sink.counters.most_open <= 6  # the one that is refused counts, too
        # The first, and perhaps a try or two where this takes minutes.
        assert 1 <= c.sink.counters.connections_refused <= 3
        found = await learnt(c)
        assert found.connections in (5, 6)
        assert found.refused_ms is not None


async def test_who_finds_all_taken_by_others_takes_nothing_down(server_url: str, tmp_path: Path) -> None:
    """One connection is all that the server takes; the second worker's own first one is turned away."""
    one = FIVE.replace("most = 5", "most = 1")
    async with crew(server_url, rules=rules_of(tmp_path, one + SLOW)) as c:
        for _ in range(2):
            await c.worker()
        await feed(c, 200)
        await c.until("email.relayed", many=200)
        assert 1 <= c.sink.counters.connections_refused <= 3
        rows = await command(c.spool.redis, "XRANGE", c.spool.keys.events, "-", "+")
        assert {flat[1] for _, flat in rows} == {b"email.relayed"}


async def test_sessions_that_end_are_learnt_by_all(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url, rules=rules_of(tmp_path, SHORT)) as c:
        for _ in range(2):
            await c.worker()
        await feed(c, 400)
        events = await c.until("email.relayed", many=400)
        assert {event["attempt"] for event in events} == {1}
        assert (await learnt(c)).mails == 5
        # Those that were open when the first one was ended.
        assert 1 <= c.sink.counters.refused_by["mail 421"] <= 20


async def test_who_has_no_connection_reads_nothing(server_url: str, tmp_path: Path) -> None:
    """What it read it could only park: one of two workers sent all that the other had not read yet to the lanes."""
    async with crew(server_url, rules=rules_of(tmp_path, SLOW)) as c:
        route = {"relay": None, "routes": {"relay": {"url": c.sink.url, "connections": 1}}}
        first = c.new_worker(**route)
        running = asyncio.create_task(first.run())
        await feed(c, 300)
        await c.until("email.relayed")
        second = await c.worker(**route)
        await c.until("email.relayed", many=299)
        assert not second.spool.caller.calls.keys() & {"admit", "sift", "start", "stow"}
        assert second.spool.caller.calls["grant"] > 2  # it asked, and goes on where the other ends:
        first.stop()
        await running
        await feed(c, 1)
        await c.until("email.relayed")
        await second.settler.flushed()
        assert second.settled == {"sent": 1}
