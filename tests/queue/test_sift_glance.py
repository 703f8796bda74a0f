"""The sifter glances at a mail: what only intake can judge is left to it."""

from __future__ import annotations

import pytest
from mailroom import START, Mailroom
from sifting import sift

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "bob@slow.example, eve@slow.example"},
        {"to": "bob@slow.example", "cc": "eve@slow.example"},
        {"to": "bob@slow.example", "send_at": "2030-01-01T00:00:00Z"},
        {"to": "bob@slow.example", "route": "main"},
        {"to": "bob@slow.example", "tenant": "t"},
        {"to": "bob@slow.example", "colour": "red"},
        {"to": "bob@slow.example", "id": "two words"},
        {"to": "bob@slow.example", "id": "x" * 257},
        {"to": "Bob <bob@slow.example>"},
        {"to": '"b b"@slow.example'},
        {"to": "b..b@slow.example"},
        {"to": ".b@slow.example"},
        {"to": "b.@slow.example"},
        {"to": "b@slow.example@slow.example"},
        {"to": "bob@slow..example"},
        {"to": "bob@-slow.example"},
        {"to": "bob@slow-.example"},
        {"to": "bob@slow"},
        {"to": "bob@[192.0.2.1]"},
        {"to": "bób@slow.example"},
        {"to": f"{'b' * 120}@slow.example"},
        {"raw": "no recipient", "to": "bob@slow.example"},
        {"subject": "no recipient"},
        {"envelope_to": "bob@slow.example", "raw": "x" * 1000},
    ],
    ids=lambda fields: ",".join(f"{name}={value[:20]}" for name, value in fields.items()),
)
async def test_what_only_intake_can_judge_is_not_parked(room: Mailroom, fields: dict[str, str]) -> None:
    """All lanes are closed: what parks here was glanced at."""
    await room.do("HSET", room.keys.limits, "*|*", "1:60000000")
    for site in ("slow.example", "slow..example", "-slow.example", "slow-.example", "slow", "[192.0.2.1]"):
        await room.do("HSET", room.keys.limit(f"main|{site}"), "60000000", f"{(START + 90_000) * 1000}:62499999")
    entry = await room.add(**fields)
    found = await sift(room, max_bytes=1000)
    assert [name for name, _ in found.taken] == [entry]
    assert await room.state(entry) == "leased"
