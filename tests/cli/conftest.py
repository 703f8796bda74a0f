"""A queue that the commands find by their settings, with mails in every state."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mailroom import Mailroom

EVIL = b"\x1b[31mred\x1b[0m [bold]x[/bold] [/] \x9b31m \xff\xfe :smile: \xe2\x80\xae\xc2\x9b2J\nnewline\ttab \x07 end"
EVIL += b" \xf3\xa0\x80\x81\xe1\xa0\x8e\xef\xbf\xb9"  # a tag, a vowel separator, an annotation

Fill = Callable[[], Awaitable[dict[str, str]]]


@pytest.fixture
def queue(room: Mailroom, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Mailroom:
    """The commands' queue. What the test does to it happens now, by the commands' clock: ids are known for a day."""
    monkeypatch.setenv("STREAMQ_REDIS_URL", server_url)
    monkeypatch.delenv("COLUMNS", raising=False)
    room.to(time.time_ns() // 1_000_000)
    return room


@pytest.fixture
def fill(queue: Mailroom) -> Fill:
    """`await fill()`: a mail in every state of every priority; `<priority>-<state>` is its id."""

    async def make() -> dict[str, str]:
        entries = {}
        for priority in queue.spool.priorities:
            for state in ("leased", "parked", "scheduled", "held"):
                lane = {"lane": f"main|{priority}.example"} if state in {"leased", "parked"} else {}
                known = {"from": "shop@example.com", "to": f"bob@{priority}.example", "text": "Hello"}
                name = f"{priority}-{state}"
                entries[name] = await queue.in_state(state, priority, **lane, **known, id=name)
        for priority in queue.spool.priorities:
            name = f"{priority}-waiting"
            known = {"id": name, "from": "shop@example.com", "to": f"bob@{priority}.example", "text": "Hello"}
            entries[name] = await queue.add(priority, **known)
        return entries

    return make


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="sq-"))
    yield path
    shutil.rmtree(path)


async def hostile(queue: Mailroom) -> list[str]:
    """Mails that nobody means well with, in several states; their entries."""
    known: dict[str, Any] = {
        "id": EVIL,
        "to": EVIL,
        "subject": EVIL,
        "text": EVIL,
        "tenant": EVIL,
        "tags": EVIL,
        "[red]x[/red]": EVIL,
    }
    lease = await queue.lease("low", consumer="\x1b[2Jw[bold]1", lane="main|\x1b[7msite", **known)
    return [
        lease.entry,
        await queue.held("low", **known),
        await queue.scheduled("low", **known),
        await queue.parked("low", lane="main|\x1b[7m[red]site", **known),
        await queue.add("low", **known | {"\x1b]0;pwned\x07": "1", "subject": b"S" * 200_000}),
    ]


async def intents(queue: Mailroom) -> dict[str, str]:
    flat = [part.decode() for part in await queue.do("HGETALL", queue.keys.holds)]
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name.removeprefix("intent:"): verb for name, verb in pairs if name.startswith("intent:")}
