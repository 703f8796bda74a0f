"""The sifter: where most of what waits goes to sites that take nothing now, it is parked without being read.

A burst to a site that takes fifty mails a second stands in front of everybody else's mail. To read each of its mails,
judge it and send it to its lane costs the server and this process several times what it costs to look at it where it
lies, and to say of a hundred at once: these park (`python -m bench heart` measures it). Looks are a page ahead: what
this process does with one page and what the server does with the other is done at the same time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from streamq.mail import site_and_id
from streamq.mail.identity import digest
from streamq.queue.connection import command
from streamq.queue.rows import Sifted, SiftRow
from streamq.queue.spool import Entry, Spool
from streamq.settings import Settings
from streamq.worker.admission import Admission
from streamq.worker.link import Link

__all__ = ["REST_MS", "Sifter", "row"]

LEAST = 10  # mails that say something
MEAN_MOST = 65_536  # bytes: larger mails are read one by one
PAGE = 200  # mails of a look: 2 to 4 ms of the server's time in the script
AHEAD = 2  # pages
PAGE_BYTES = 1_000_000
REST_MS = 5  # where another worker sifts
BULK = 50  # mails that others have parked meanwhile: who has a full hand passes a few at a time, and hinders nobody
TRIES = 3
OLD_SECONDS = 1.0  # a look that is older: somebody may have deleted what it saw


@dataclass(slots=True)
class _Page:
    """What stands in a stream behind an id, none left out: id and fields as the server gave them; `rows` of them as the
    script takes them, once they are needed."""

    behind: str
    seen_at: float
    found: list[tuple[bytes, list[bytes]]]
    rows: list[SiftRow] = field(default_factory=list)

    @property
    def last(self) -> str:
        return self.found[-1][0].decode() if self.found else self.behind

    def glance(self, max_bytes: int) -> None:
        if not self.rows:
            self.rows = [row(name.decode(), flat, max_bytes) for name, flat in self.found]

    def rest(self, many: int) -> _Page | None:
        """Without the first so many."""
        if many == len(self.found):
            return None
        return _Page(self.rows[many - 1].id, self.seen_at, self.found[many:], self.rows[many:])


def row(name: str, flat: list[bytes], max_bytes: int) -> SiftRow:
    """Of what stands in a stream under an id."""
    site, producer = site_and_id(flat, max_bytes)
    return SiftRow(name, site, digest("", producer.decode()) if producer else b"", producer)


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
        self._pages: dict[str, list[_Page]] = {}  # priority → the next ones, two at most
        self._rests_until: dict[str, float] = {}  # priority → loop time
        self._parked: dict[str, int] = {}  # priority → mails, when the rest began
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
            self._pages.pop(name, None)

    def takes(self, name: str, mean: float) -> bool:
        """Whether the priority's next mails, of `mean` bytes each, come through here."""
        self._many = max(1, min(PAGE, 2 * self._many, int(PAGE_BYTES / mean)))
        return name in self.sifts and mean <= MEAN_MOST

    def rests(self) -> set[str]:
        """Priorities that another worker sifts now: two of them would look at the same mails, and one in vain."""
        now = asyncio.get_running_loop().time()
        return {name for name, until in self._rests_until.items() if name in self.sifts and until > now}

    async def read(self, name: str, room: int) -> tuple[list[Entry], int]:
        """On in the stream of a priority: what is ours now, and how many were parked."""
        if name in self.rests() or not await self._is_ours(name):
            return [], 0
        for _ in range(TRIES):
            page, found = await self._pass(name, room)
            if found.letters or found.behind in ("", page.behind):
                break
            if not self._trimmed(name, page, found.behind):
                await self._rest(name)
                return [], 0
        else:
            return [], 0
        self.admission.next_due(found.next_us, found.now_us)
        if found.closed_us and len(self.admission.outboxes) == 1:
            self.admission.closed_us, self.admission.now_us = found.closed_us, found.now_us
        self.note(name, len(found.letters), found.parked)
        digit = self.spool.digit(name)
        seen = zip(page.found, found.letters, strict=False)  # the script may have stopped before its last row
        taken = [Entry.of(f"{digit}{id_.decode()}", flat) for (id_, flat), letter in seen if letter == "t"]
        return taken, found.parked

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
        pages = [page for page in self._pages.get(name, []) if page.seen_at > now - OLD_SECONDS]
        if pages and pages[0].behind == self._behind.get(name):
            self._pages[name] = pages
            return True
        if self._rests_until.pop(name, None) is not None:
            before = self._parked[name]
            if await self._rest(name) - before >= BULK:
                return False
            del self._rests_until[name]
        behind = await self.link.call(self.spool.passed, name)
        self._behind[name] = behind
        self._pages[name] = [await self.link.call(self._look, name, behind)]
        return True

    async def _rest(self, name: str) -> int:
        """How many are parked by now."""
        self._pages.pop(name, None)
        self._rests_until[name] = asyncio.get_running_loop().time() + REST_MS / 1000
        field = f"parked:{self.spool.digit(name)}"
        many = int(await self.link.call(command, self.spool.redis, "HGET", self.spool.keys.counts, field) or 0)
        self._parked[name] = many
        return many

    async def _pass(self, name: str, room: int) -> tuple[_Page, Sifted]:
        """The next page, through the script. Meanwhile the second one is glanced at, and the third one looked for."""
        pages = self._pages.pop(name)
        page = pages[0]
        page.glance(self.settings.max_mail_bytes)

        async def both() -> tuple[Sifted, list[_Page]]:
            looking = asyncio.ensure_future(self._look_on(name, pages[1:], pages[-1].last))
            found = await self._ask(name, page, room)
            return found, await looking

        asking = asyncio.ensure_future(self.link.call(both))
        await asyncio.sleep(0)  # it is on its way
        for other in pages[1:]:
            other.glance(self.settings.max_mail_bytes)
        found, ahead = await asking
        self._behind[name] = found.behind
        passed = len(found.letters)
        if passed:
            rest = page.rest(passed)
            self._pages[name] = [rest, *ahead] if rest else ahead
        return page, found

    async def _look_on(self, name: str, pages: list[_Page], last: str) -> list[_Page]:
        """These, and what is missing of two."""
        pages = list(pages)
        while len(pages) < AHEAD:
            pages.append(await self._look(name, pages[-1].last if pages else last))
            if not pages[-1].found:
                return pages[:-1]
        return pages

    async def _look(self, name: str, behind: str) -> _Page:
        now = asyncio.get_running_loop().time()
        found = await self.spool.peek(name, behind, self._many) if behind else []
        size = sum(len(value) for _, flat in found for value in flat)
        if size > PAGE_BYTES:  # the next ones may be as large
            self._many = max(1, min(self._many, len(found) * PAGE_BYTES // size))
        return _Page(behind, now, found)

    async def _ask(self, name: str, page: _Page, room: int) -> Sifted:
        route = self.admission.intake.plain_route
        assert route is not None
        digit = self.spool.digit(name)
        age = self.settings.max_age
        return await self.spool.scripts.sift(
            self.consumer, digit, page.rows, route=route, room=room, max_age_ms=age, behind=page.behind
        )
