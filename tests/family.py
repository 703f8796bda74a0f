"""An expanded mail and its children, in a test's hands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailroom import Lease, Mailroom, ident

from streamq.queue.rows import ChildRow, Expanded, Status

__all__ = ["FIELDS", "TO", "end", "expand", "expanded", "parent", "tail_of"]

FIELDS = {b"from": b"shop@example.com", b"subject": b"Hi", b"text": b"Hello", b"id": b"a1", b"tenant": b"acme"}
TO = [f"bob{n}@example.net" for n in range(1, 6)]


async def parent(room: Mailroom, consumer: str = "w1", **known: str) -> Lease:
    """A mail with five recipients, leased to be expanded."""
    entry = await room.add(id="a1", tenant="acme", to=",".join(TO), text="Hello", **known)
    await room.read(consumer)
    found = await room.admit(entry, consumer=consumer, kind="expand", lane="", id="a1", seen=ident("a1", "acme"))
    assert found.statuses == [Status("go", b"", "", "", "", found.token)]
    return Lease(entry, found.token, consumer)


async def expand(
    room: Mailroom,
    lease: Lease,
    to: Sequence[str] = TO,
    start: int = 0,
    many: int = 5,
    *,
    verb: str = "more",
    tail: bytes = b'"tag":1',
) -> Expanded:
    rows = [ChildRow("envelope_to", address.encode()) for address in to[start : start + many]]
    return await room.scripts.expand(
        lease.consumer,
        lease.entry,
        lease.token,
        "a1",
        tail,
        rows,
        verb=verb,
        upload="up",
        all_=len(to),
        start=start,
    )


async def expanded(room: Mailroom, lease: Lease, many: int = 5, **known: Any) -> list[str]:
    """With `many` of its children made."""
    await room.spool.bodies.upload("up", FIELDS, False)
    return (await expand(room, lease, many=many, **known)).children


async def tail_of(room: Mailroom, child: str) -> bytes:
    [entry] = await room.spool.fetch([child])
    assert entry is not None
    return b'"parent":"%b"' % entry.parent.encode()


async def end(room: Mailroom, op: str, child: str, rcpt: str = "") -> str:
    await room.read()
    tail = await tail_of(room, child) + (b',"rcpt":"%b"' % rcpt.encode() if rcpt else b"")
    found = await room.admit(child, tail=tail)
    assert found.statuses[0][0] == "go"
    kept = {"class": "policy"} if op == "dead" else {}  # a class that keeps bodies
    row = room.end(op, Lease(child, found.token, "w1"), tail=tail, **kept)
    return (await room.scripts.settle("w1", [row])).statuses[0]
