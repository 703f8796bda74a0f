"""What befalls the SMTP server, or what it does to its clients: the sink's rules, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from bench.faults.books import events
from bench.faults.row import Row, row
from bench.faults.trial import Trial
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["ROWS"]

AWAY_SECONDS = 1.0
DROPS = "".join(
    f'[[rule]]\nstage = "{stage}"\nshare = {share}\naction = "{action}"\n{more}\n'
    for stage, share, action, more in (
        ("greeting", 0.02, "eof", ""),
        ("ehlo", 0.02, "rst", ""),
        ("mail", 0.005, "eof", ""),
        ("rcpt", 0.005, "rst", ""),
        ("data", 0.005, "eof", ""),
        ("body", 0.005, "rst", "after_bytes = 100"),
        ("dot", 0.005, "rst", "accept = false"),
        ("dot", 0.005, "eof", ""),
        ("dot", 0.005, "rst", 'when = "after"'),
    )
)
TARPIT = '[[rule]]\nstage = "greeting"\ndelay_ms = 1000\n[[rule]]\nstage = "*"\ndelay_ms = 20\n'
DRIP = '[[rule]]\nstage = "*"\nshare = 0.2\ndrip_bytes = 1\ndrip_ms = 1\n'
GARBAGE = "".join(
    f'[[rule]]\nstage = "{stage}"\nshare = 0.005\ngarbage = "{kind}"\naction = "eof"\nwhen = "after"\n'
    for stage in ("ehlo", "mail", "dot")
    for kind in ("text", "binary", "nul", "endless_line", "endless_reply")
)
CLOSES = '[[rule]]\nstage = "dot"\nfrom_mail = 5\nwhen = "after"\naction = "unread"\n'


async def _told(room: Trial) -> Mapping[str, Any]:
    """Nothing more befalls: the rules are at work from the first connection on."""
    await room.drained()
    counters = await room.sink.counts()
    return {"connections": counters["connections"], "dropped": counters["dropped"], **await _deferred(room)}


async def _deferred(room: Trial) -> dict[str, Any]:
    spool = await Spool.connect(load_settings(), room.server.url)
    try:
        said = await events(spool)
    finally:
        await spool.close()
    return {"deferred": sum(event.kind == "email.deferred" for event in said)}


async def _gone(room: Trial) -> Mapping[str, Any]:
    """Killed, and another one at its place."""
    old = room.sink
    for one in room.alive:
        for joint in list(one.line.joints):
            room.suspect(joint)
    old.process.kill()
    await old.process.wait()
    await asyncio.sleep(AWAY_SECONDS)
    room.sink = await room.programs.sink(options=("--port", str(old.port)))
    await room.drained()
    return await _deferred(room)


ROWS: tuple[Row, ...] = (
    row(
        "smtp-gone",
        f"the SMTP server is killed, and back {AWAY_SECONDS:.0f} s later",
        "mails wait without an attempt; what was past its dot is marked",
        _gone,
    ),
    row(
        "smtp-drops",
        "it drops connections at every stage, from the greeting to behind its 250",
        "before the dot: sent again, once; behind it without a reply: marked",
        _told,
        rules=DROPS,
        foreign=True,
    ),
    row("smtp-tarpit", "its greeting takes 1 s, every reply 20 ms", "slower, and nothing else", _told, rules=TARPIT),
    row(
        "smtp-drips",
        "a fifth of its replies come octet by octet",
        "slower, and nothing else",
        _told,
        rules=DRIP,
    ),
    row(
        "smtp-garbage",
        "text, binary, NULs, endless lines and replies instead of a reply to EHLO, MAIL, the dot",
        "the connection ends; a dot without a reply that is one is marked",
        _told,
        rules=GARBAGE,
        foreign=True,
    ),
    row(
        "smtp-closes",
        "it closes behind every fifth mail, with our bytes unread (RST)",
        "nothing twice: the 250 counts, though the connection was reset behind it",
        _told,
        rules=CLOSES,
        foreign=True,
    ),
)
