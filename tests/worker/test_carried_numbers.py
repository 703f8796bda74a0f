"""Numbers of a producer's metadata on their whole way: events, children, dead letters, requeue."""

from __future__ import annotations

from pathlib import Path

from crew import Crew, crew, rules_of

from streamq.queue.connection import command
from streamq.queue.letters import dead_letters, requeue_dead

LONG = "123456789012345678901234567890"
ODD = f'{{"account":{LONG},"price":1.10,"ratio":1E5}}'
MERGED = f'"metadata":{{"account":{LONG},"price":1.10,"ratio":1E5,"user":9{LONG}}}'
REFUSING = '[[rule]]\nmatch = "bad@*"\nstage = "rcpt"\nreply = "550 5.7.1 no"\n'


async def events_as_written(c: Crew) -> list[tuple[str, str, str]]:
    rows = await command(c.spool.redis, "XRANGE", c.spool.keys.events, "-", "+")
    return [(flat[1].decode(), flat[3].decode(), flat[5].decode()) for _, flat in rows]


async def test_they_come_back_as_they_were_written(server_url: str, tmp_path: Path) -> None:
    recipients = ",".join(f'{{"to":"{name}@x.example","metadata":{{"user":9{LONG}}}}}' for name in ("good", "bad"))
    async with crew(server_url, rules=rules_of(tmp_path, REFUSING)) as c:
        await c.worker()
        await c.add(id="one", to="bad@x.example", metadata=ODD)
        await c.add(id="many", to="", metadata=ODD, recipients=f"[{recipients}]")
        await c.until("email.bounced", many=2)
        letters = [letter async for letter in dead_letters(c.spool)]
        assert {letter.text("id"): LONG in letter.text("metadata") for letter in letters} == {
            "one": True,
            "many#2": True,
        }
        changes = {"to": "better@x.example"}
        await requeue_dead(c.spool, [(letter.letter, letter.size) for letter in letters], changes)
        while len(c.sink.received) < 3:
            await c.until("email.relayed")
        found = await events_as_written(c)
    for name, members in (("one", f'"metadata":{ODD}'), ("many#1", MERGED), ("many#2", MERGED)):
        said = [data for kind, id_, data in found if id_ == name and kind in ("email.bounced", "email.relayed")]
        assert said
        assert all(members in data for data in said), said
