"""What a rig stands on: one queue of a real server, its book, virtual time, and who puts mails there.

Time is virtual: every script is given `now`, and entries are added under ids of that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from actors import AGE_MS, Spec, Worker
from ledger import PRIORITIES, Ledger, Mail
from predictions import End

from streamq.queue.connection import Part, command, connect, pipelined
from streamq.queue.limits import windows_text
from streamq.queue.spool import Spool
from streamq.settings import Settings, Window

__all__ = ["Ground"]

START_US = 2_000_000_000_000_000
WINDOW_MS = 30 * 60_000  # as id_window, below
LONGEST_US = 120_000_000  # of a probe
SITES = {
    "few.test": (Window(count=2, window_ms=1000), Window(count=5, window_ms=10_000)),
    "some.test": (Window(count=3, window_ms=1000),),
    "free.test": (),
}

T = TypeVar("T")


class Ground:
    """One queue and its book."""

    def __init__(self, url: str, queue: str, workers: int = 3) -> None:
        given: dict[str, Any] = {"queue": queue, "priorities": PRIORITIES, "id_window": "30m"}
        settings = Settings(**given)
        self.runner = asyncio.Runner()
        self.spool = Spool(settings, connect(url), connect(url, blocking=True))
        self.keys = self.spool.keys
        self.book = Ledger(SITES, WINDOW_MS, AGE_MS, START_US)
        self.specs: dict[str, Spec] = {}
        self.known: dict[str, Mail] = {}
        self.workers = [Worker(f"w{n}") for n in range(workers)]
        self.top = [(0, 0)] * len(PRIORITIES)
        self.ring: list[tuple[End, str]] = []  # what was settled for good since the last snapshot
        self.last_event = "-"
        self.promised: dict[str, int] = {}  # worker → µs at which it comes for what is due next
        self.moved(0)
        self.run(self.spool.open())
        limits = [("HSET", self.keys.limits, f"*|{site}", windows_text(w)) for site, w in SITES.items() if w]
        self.run(pipelined(self.spool.redis, limits))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.get_loop().run_until_complete(work)

    def raw(self, *parts: Part) -> Any:
        return self.run(command(self.spool.redis, *parts))

    def close(self) -> None:
        self.run(self.spool.close())
        self.runner.close()

    def moved(self, by_us: int) -> None:
        self.book.now += by_us
        self.spool.scripts.now = str(self.book.now)

    def mail(self, entry: str) -> Mail:
        return self.book.mails.get(entry) or self.known[entry]

    def produce(self, p: int, spec: Spec) -> Mail:
        ms, seq = self.top[p]
        id_ = (ms, seq + 1) if ms >= self.book.now_ms else (self.book.now_ms, 0)
        fields = [part for pair in spec.fields().items() for part in pair]
        self.raw("XADD", self.keys.stream(PRIORITIES[p]), f"{id_[0]}-{id_[1]}", *fields)
        return self.added(p, id_, spec)

    def added(self, p: int, id_: tuple[int, int], spec: Spec) -> Mail:
        self.top[p] = max(self.top[p], id_)
        entry = f"{p}{id_[0]}-{id_[1]}"
        mail = self.book.mails[entry] = self.known[entry] = spec.intake(entry)
        self.specs[entry] = spec
        return mail

    def routes(self) -> None:
        """How long a route that is down stays closed is the script's to say, within reason."""
        for name, route in self.book.routes.items():
            found = self.raw("HGET", self.keys.pauses, name)
            assert route.down == bool(found), f"route {name}: closed is {found!r}, by the book {route}"
            if route.down:
                closed = orjson.loads(found)
                till = int(closed["till"])
                probe = route.till == self.book.now + 1
                assert not probe or self.book.now < till <= self.book.now + LONGEST_US, f"{name}: {till}"
                route.till, route.mark = till, closed["mark"]
