"""The sifter: where most of what waits goes to sites that take nothing now, it is parked without being read.

A burst to a site that takes fifty mails a second stands in front of everybody else's mail. To read each of its mails,
judge it and send it to its lane costs the server and this process several times what it costs to look at it where it
lies, and to say of a hundred at once: these park (`python -m bench heart` measures it). Looks are ahead, and a page is
sent before the one in front of it is answered: this process and the server both work all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streamq.mail import site_and_id
from streamq.mail.identity import NOBODYS, digest_of
from streamq.queue.connection import command
from streamq.queue.rows import Sifted, SiftRow
from streamq.queue.spool import Entry, Spool
from streamq.queue.stow import Stowage, stowage
from streamq.settings import Settings
from streamq.worker.admission import Admission
from streamq.worker.link import Link

__all__ = ["REST_MS", "Sifter", "row"]

LEAST = 10  # mails that say something
MEAN_MOST = 65_536  # bytes: larger mails are read one by one
PAGE = 400  # mails of a look
PART = 200  # mails of a script: 2 to 4 ms of the server's time
CHAIN = 400  # mails of one read, in half pages: what is urgent waits so long to be read
AHEAD = 3  # pages, or halves: the server sends a look's megabytes bit by bit, between scripts that were asked for later
PAGE_BYTES = 2_000_000
REST_MS = 10  # where another worker sifts
PATIENCE = 3  # rests in a row in which nothing was parked: the other one may have been held up for a moment
BULK = 50  # mails that others have parked meanwhile: who has a full hand passes a few at a time, and hinders nobody
TRIES = 3
REFUSED_SECONDS = 1.0  # so long no page is stowed, where the last one could not be
OLD_SECONDS = 1.0  # a look that is older: somebody may have deleted what it saw


@dataclass(slots=True)
class _Page:
    """What stands in a stream behind an id, none left out: id and fields as the server gave them; `rows` of them as the
    script takes them, once they are needed, and `stowed`, where all of them may park."""

    behind: str
    seen_at: float
    found: list[tuple[bytes, list[bytes]]]
    rows: list[SiftRow] = field(default_factory=list)
    stowed: Stowage | None = None

    @property
    def last(self) -> str:
        return self.found[-1][0].decode() if self.found else self.behind

    def glance(self, max_bytes: int) -> None:
        if not self.rows:
            self.rows = [row(name.decode(), flat, max_bytes) for name, flat in self.found]

    def stow(self, p: int, route: str) -> bool:
        """Whether that goes."""
        self.stowed = self.stowed or stowage(self.rows, p, route)
        return self.stowed is not None

    def is_parked(self, said: Sifted) -> bool:
        """All of it."""
        return said.parked == len(self.found)

    def rest(self, many: int) -> _Page | None:
        """Without the first so many."""
        if many == len(self.found):
            return None
        return _Page(self.found[many - 1][0].decode(), self.seen_at, self.found[many:], self.rows[many:])

    def parts(self, *, alone: bool) -> list[_Page]:
        """Halves, so that the server has one while this process looks at the other; one that goes `alone` only where it
        is too large for a script."""
        if alone and len(self.found) <= PART:
            return [self]
        many = (len(self.found) + 1) // 2
        rest = self.rest(many)
        return [_Page(self.behind, self.seen_at, self.found[:many], self.rows[:many]), *([rest] if rest else [])]


@dataclass(slots=True)
class _Rest:
    """`until`: loop time; `parked`: mails when it began; `idle`: rests in a row in which nobody sifted."""

    until: float
    parked: int
    idle: int = 0


def row(name: str, flat: list[bytes], max_bytes: int) -> SiftRow:
    """Of what stands in a stream under an id."""
    site, producer = site_and_id(flat, max_bytes)
    return SiftRow(name, site, digest_of(NOBODYS, producer) if producer else b"", producer)


def _heard(looking: asyncio.Task[_Page]) -> None:
    """Who drops a look need not ask how it ended."""
    if not looking.cancelled():
        looking.exception()


def _is_overtaken(passed: Sequence[tuple[_Page, Sifted]]) -> bool:
    """Whether nothing was passed, because another one has read on."""
    return (
        bool(passed)
        and passed[0][1].behind not in ("", passed[0][0].behind)
        and not any(said.letters for _, said in passed)
    )


class Sifter:
    """One per process. `sifts` are the priorities whose stream is read in this way now."""

    def __init__(self, settings: Settings, spool: Spool, link: Link, consumer: str, admission: Admission) -> None:
        self.settings = settings
        self.spool = spool
        self.link = link
        self.consumer = consumer
        self.admission = admission
        self.sifts: set[str] = set()
        self._few: dict[str, tuple[int, int]] = {}  # priority → read, parked
        self._behind: dict[str, str] = {}  # priority → id of the last mail that was passed
        self._pages: dict[str, list[_Page]] = {}  # priority → the next ones, a few
        self._looking: dict[str, asyncio.Task[_Page]] = {}  # priority → what comes behind them
        self._resting: dict[str, _Rest] = {}  # priorities that another worker sifts
        self._pure: set[str] = set()  # priorities of whose last page all was parked
        self._refused: dict[str, float] = {}  # priority → loop time at which a page was none to be stowed
        self._many = PAGE

    def note(self, name: str, read: int, parked: int) -> None:
        """Of so many that were read of a priority, so many were parked: is this the way to read on? Few say nothing by
        themselves, and a worker that is full reads one or two at a time."""
        few, shut = self._few.pop(name, (0, 0))
        if read and few + read < LEAST:
            self._few[name] = few + read, shut + parked
        elif read and self.admission.intake.plain_route is not None and (shut + parked) * 2 >= few + read:
            self.sifts.add(name)
        else:
            self.sifts.discard(name)
            for kept in (self._pages, self._looking, self._resting):
                kept.pop(name, None)

    def close(self) -> None:
        for looking in self._looking.values():
            looking.cancel()

    def takes(self, name: str, mean: float) -> bool:
        """Whether the priority's next mails, of `mean` bytes each, come through here."""
        self._many = max(1, min(PAGE, 2 * self._many, int(PAGE_BYTES / mean)))
        return name in self.sifts and mean <= MEAN_MOST

    def rests(self) -> set[str]:
        """Priorities that another worker sifts now: two of them would look at the same mails, and one in vain."""
        return self._resting.keys() & self.sifts

    async def read(self, name: str, room: int) -> tuple[list[Entry], int]:
        """On in the stream of a priority: what is ours now, and how many were parked."""
        if not await self._is_ours(name):
            return [], 0
        for _ in range(TRIES):
            passed = await self._pass(name, room)
            if not _is_overtaken(passed):
                return self._gathered(name, passed)
            page, said = passed[0]
            if not self._trimmed(name, page, said.behind):
                await self._rest(name)
                break
        return [], 0

    def _gathered(self, name: str, passed: list[tuple[_Page, Sifted]]) -> tuple[list[Entry], int]:
        """What became of these pages."""
        digit = self.spool.digit(name)
        taken: list[Entry] = []
        parked = 0
        for page, found in passed:
            self.admission.next_due(found.next_us, found.now_us)
            if found.closed_us and len(self.admission.outboxes) == 1:
                self.admission.closed_us, self.admission.now_us = found.closed_us, found.now_us
            seen = zip(page.found, found.letters, strict=False)  # the script may have stopped before its last row
            taken += [Entry.of(f"{digit}{id_.decode()}", flat) for (id_, flat), letter in seen if letter == "t"]
            parked += found.parked
        (self._pure.discard if taken else self._pure.add)(name)
        self.note(name, len(taken) + parked, parked)
        return taken, parked

    def _trimmed(self, name: str, page: _Page, behind: str) -> bool:
        """Another one has passed a few mails of this page: the rest is ours. False: many."""
        at = next((at for at, row in enumerate(page.rows[:BULK], 1) if row.id == behind), 0)
        rest = page.rest(at) if at else None
        if rest is not None:
            self._pages[name] = [rest]
        return rest is not None

    async def _is_ours(self, name: str) -> bool:
        """Whether there is a page to pass, and nobody else who passes many."""
        now = asyncio.get_running_loop().time()
        rest = self._resting.get(name)
        if rest is not None and rest.until > now:
            return False
        pages = [page for page in self._pages.get(name, []) if page.seen_at > now - OLD_SECONDS]
        if pages and pages[0].behind == self._behind.get(name):
            self._pages[name] = pages
            return True
        if rest is not None:
            again = await self._rest(name)
            again.idle = 0 if again.parked - rest.parked >= BULK else rest.idle + 1
            if again.idle < PATIENCE:
                return False
            del self._resting[name]
        behind = await self.link.call(self.spool.passed, name)
        self._behind[name] = behind
        page = await self.link.call(self._look, name, behind)
        self._pages[name] = page.parts(alone=name not in self._pure)
        return True

    async def _rest(self, name: str) -> _Rest:
        self._pages.pop(name, None)
        until = asyncio.get_running_loop().time() + REST_MS / 1000
        field = f"parked:{self.spool.digit(name)}"
        many = int(await self.link.call(command, self.spool.redis, "HGET", self.spool.keys.counts, field) or 0)
        rest = self._resting[name] = _Rest(until, many)
        return rest

    async def _pass(self, name: str, room: int) -> list[tuple[_Page, Sifted]]:
        """The next pages, through the script, until one holds something else than what parks. Each is sent before the
        one in front of it is answered: where that one was not passed as a whole, the script passes nothing of this one.
        """
        ahead = [page for page in self._pages.pop(name) if page.found]
        if name in self._pure and 0 < len(ahead) < AHEAD:
            ahead += await self._look_on(name, ahead[-1].last)
        sent: list[_Page] = []
        asked: list[asyncio.Task[Sifted]] = []
        try:
            while ahead:
                if len(ahead) <= AHEAD:
                    self._begin_look(name, ahead[-1].last)
                    await asyncio.sleep(0)  # it is on its way, like all that is asked for
                ahead[0].glance(self.settings.max_mail_bytes)  # the server works on what was sent
                if self._stows(name) and not ahead[0].stow(self.spool.digit(name), self._route):
                    self._refused[name] = asyncio.get_running_loop().time()
                if sent and (name not in self._pure or sum(len(page.found) for page in sent) >= CHAIN):
                    break
                if len(asked) > 1 and not sent[-2].is_parked(await asked[-2]):
                    break
                sent.append(ahead.pop(0))
                share = (room + 1 - len(asked) % 2) // 2 if name in self._pure else room
                asked.append(asyncio.create_task(self._ask(name, sent[-1], share)))
                await asyncio.sleep(0)
                if not ahead or (name in self._looking and self._looking[name].done()):
                    ahead += await self._look_on(name, (ahead or sent)[-1].last)
            passed = list(zip(sent, [await answer for answer in asked], strict=True))
        finally:
            await asyncio.gather(*asked, return_exceptions=True)
        self._keep(name, passed, ahead)
        return passed

    def _keep(self, name: str, passed: list[tuple[_Page, Sifted]], ahead: list[_Page]) -> None:
        """What was looked at, and is still to be passed."""
        last = max((at for at, (_, found) in enumerate(passed) if found.letters), default=-1)
        if last >= 0:
            page, found = passed[last]
            rest = page.rest(len(found.letters))
            self._behind[name] = found.behind
            self._pages[name] = [*([rest] if rest else []), *(page for page, _ in passed[last + 1 :]), *ahead]
        elif passed:
            self._behind[name] = passed[0][1].behind

    def _begin_look(self, name: str, last: str) -> None:
        """At what is behind that id. It may come after the read that asked for it."""
        if name not in self._looking:
            self._looking[name] = asyncio.create_task(self.link.call(self._look, name, last))
            self._looking[name].add_done_callback(_heard)

    async def _look_on(self, name: str, last: str) -> list[_Page]:
        """What is behind that id; nothing at the end, or where the look that was under way began elsewhere."""
        self._begin_look(name, last)
        page = await self._looking.pop(name)
        if not page.found or page.behind != last:
            return []
        return page.parts(alone=name not in self._pure)

    async def _look(self, name: str, behind: str) -> _Page:
        now = asyncio.get_running_loop().time()
        many = self._many if name in self._pure else min(self._many, PART)
        found = await self.spool.peek(name, behind, many) if behind else []
        size = sum(sum(map(len, flat)) for _, flat in found)
        if size > PAGE_BYTES:  # the next ones may be as large
            self._many = max(1, min(self._many, len(found) * PAGE_BYTES // size))
        return _Page(behind, now, found)

    async def _ask(self, name: str, page: _Page, room: int) -> Sifted:
        p = self.spool.digit(name)
        known: dict[str, Any] = {"route": self._route, "max_age_ms": self.settings.max_age, "behind": page.behind}

        async def ask() -> Sifted:
            if page.stowed is not None and self._stows(name):
                said = await self.spool.scripts.stow(p, page.stowed, **known)
                if said is not None:
                    return said
                self._refused[name] = asyncio.get_running_loop().time()
            return await self.spool.scripts.sift(self.consumer, p, page.rows, room=room, **known)

        return await self.link.call(ask)

    @property
    def _route(self) -> str:
        route = self.admission.intake.plain_route
        assert route is not None
        return route

    def _stows(self, name: str) -> bool:
        """Whether a page may park as a whole, as the last one did."""
        refused = self._refused.get(name)
        return name in self._pure and (refused is None or asyncio.get_running_loop().time() - refused > REFUSED_SECONDS)
