"""What `scale` promises, and the wire that is longer: in order, all of it, and no sooner."""

from __future__ import annotations

import asyncio
from typing import cast

from bench.proxy import Later
from bench.scale import Far, kept, table
from streamq.simulate.clock import VirtualLoop


def test_what_is_given_comes_in_order_and_later() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = cast(VirtualLoop, runner.get_loop())
        heard: list[tuple[float, bytes]] = []

        async def run() -> None:
            later = Later(loop, 0.05, lambda data: heard.append((round(loop.time(), 6), data)))
            later.give(b"one")
            later.give(b"two")
            await asyncio.sleep(0.02)
            later.give(b"three")
            later.give(b"")
            await asyncio.sleep(1)

        runner.run(run())
    assert heard == [(0.05, b"one"), (0.05, b"two"), (0.07, b"three"), (0.07, b"")]


def far(part: str, name: str, commands: float = 5.0, rate: float = 1000.0, clean: bool = True) -> Far:
    figures = {"commands_per_mail": commands, "script_us_per_mail": 50.0, "mails_per_s": rate}
    return Far(part, name, figures, clean, {"version": "Valkey 9"})


def test_promises() -> None:
    runs = [
        far("fifo", "1,000"), far("fifo", "10,000", 5.4), far("fifo", "100,000", 5.6),
        far("lanes", "1,000"), far("lanes", "10,000", 9.9), far("lanes", "100,000", 5.0, clean=False),
        far("smtp", "50 ms, transaction", rate=190.0), far("smtp", "50 ms, overlap", rate=340.0),
        far("redis", "1 ms"),
    ]  # fmt: skip
    held = kept(runs)
    assert [part_and_name for part_and_name, good in held.items() if not good] == [
        ("fifo", "100,000"),
        ("lanes", "100,000"),
        ("smtp", "50 ms, overlap"),
    ]
    assert table(runs).count("broken") == 3
