"""Reports of mails that end, in a test's hands."""

from __future__ import annotations

from typing import Any

from mailroom import DAY, Mailroom

__all__ = ["AGES", "LOW", "TOLD", "brought", "fields_of", "reports", "telling"]

AGES = [5 * DAY, 5 * DAY, 5 * DAY]
TOLD = {
    "id": "a1",
    "from": "shop@example.com",
    "to": "bob@example.net",
    "subject": "Hi",
    "text": "secret",
    "envelope_from": "bounces@example.com",
}
LOW = "2"


def brought(
    to: str = "bounces@example.com",
    most: int = 10,
    window: int = 3_600_000,
    all: dict[str, int] | None = None,
    **fields: str,
) -> dict[str, Any]:
    whole = {"all": all} if all else {}
    known = {"raw": "Subject: report\r\n\r\n", "envelope_from": "<>", "envelope_to": to, **fields}
    flat = [part for pair in known.items() for part in pair]
    return {"to": to, "most": most, "window": window, **whole, "fields": flat}


async def telling(room: Mailroom) -> None:
    await room.spool.publish_ends()


async def reports(room: Mailroom) -> list[str]:
    return [
        entry for entry, state in (await room.states()).items() if entry[0] == LOW and state in {"waiting", "leased"}
    ]


async def fields_of(room: Mailroom, entry: str) -> dict[bytes, bytes]:
    (found,) = await room.spool.fetch([entry])
    assert found is not None
    return found.fields
