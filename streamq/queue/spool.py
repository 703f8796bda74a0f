"""The spool of one queue: opening it, reading it, fetching bodies; its arrows are in `scripts`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from streamq.errors import QueueFormat
from streamq.keys import GREATEST, GROUP, Keys
from streamq.mail.fields import SENSITIVE, is_flagged
from streamq.mail.labour import labour
from streamq.mail.recipients import Recipients, read_in_steps
from streamq.mail.several import OF, Shared, kinship, merged
from streamq.queue.bodies import Bodies
from streamq.queue.connection import Client, command, connect, pipelined
from streamq.queue.rows import Opened
from streamq.queue.script import Caller
from streamq.queue.scripts import Scripts
from streamq.queue.templates import Templates
from streamq.settings import AdaptSettings, Settings

__all__ = ["FORMAT", "Entry", "Reading", "Spool", "time_ms"]

FORMAT = "2"
LONG = 8192  # octets of a field with addresses
BODIES = 10  # shared ones that are weighed, of the oldest and of the newest


@lru_cache(maxsize=4096)  # asked for at intake, for the event, for the deadline
def time_ms(entry: str) -> int:
    """The time that stands in an entry, in ms."""
    return int(entry[1 : entry.index("-")])


@dataclass(slots=True)
class Entry:
    """An entry of the spool. Of the child of an expanded mail that is complete `fields` hold what it shares, too;
    `parent` is the entry that it came of, `nth` which of its children it is, `stamp` the name by which its message is
    stamped (Message-ID, boundaries), `recipients` what came of reading many of them beforehand. `twice`: fields that
    its producer gave more than once; of those `fields` hold the last."""

    entry: str
    fields: dict[bytes, bytes]
    parent: str = ""
    stamp: str = ""
    nth: int = 0
    recipients: Recipients | None = None
    twice: tuple[bytes, ...] = ()
    templated_us: int = field(default=0, init=False, repr=False, compare=False)
    _labour: int = field(default=0, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, entry: str, flat: Sequence[bytes]) -> Entry:
        """As it stands in its stream: name, value, name, value, … Whether a name is there twice is seen by their
        number, which costs a mail nothing that matters."""
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if len(fields) * 2 == len(flat):
            return cls(entry, fields)
        counted = Counter(flat[::2])
        if SENSITIVE in counted:  # whichever of them asks for it hides the body (lib/letter.lua)
            asked = (value for name, value in zip(flat[::2], flat[1::2], strict=True) if name == SENSITIVE)
            fields[SENSITIVE] = max(asked, key=is_flagged)
        return cls(entry, fields, twice=tuple(name for name, many in counted.items() if many > 1))

    @property
    def labour(self) -> int:
        """How long it takes to judge and compose it, in µs, about."""
        if not self._labour:
            self._labour = labour(self.fields) + self.templated_us
        return self._labour

    async def read_recipients(self) -> None:
        """In steps, between which the loop does other things."""
        if len(self.fields.get(b"recipients", b"")) <= LONG or self.recipients is not None:
            return
        steps = read_in_steps({name: value for name, value in self.fields.items() if value})
        while self.recipients is None:
            try:
                next(steps)
            except StopIteration as done:
                self.recipients = done.value
            await asyncio.sleep(0)


@dataclass(slots=True)
class Reading:
    """What one read brought: entries, and the bell's if it rang."""

    entries: list[Entry] = field(default_factory=list)
    bell: list[str] = field(default_factory=list)


class Spool:
    """One queue as a worker, a command or a test uses it.

    Two connections: `redis` for scripts and looks, `reader` for reads that block. Raises redis-py's errors
    when the server is away, `QueueFormat` where another version owns the keys.
    """

    def __init__(self, settings: Settings, redis: Redis, reader: Redis | None = None, *, now: str = "") -> None:
        self.settings = settings
        self.keys = Keys(settings.queue)
        self.redis = redis
        self.reader = reader or redis
        self.caller = Caller(redis, self.keys.prefix)
        self.caller.reopen = self._reopen
        self.scripts = Scripts(self.caller, window_ms=settings.id_window, now=now)
        self.bodies = Bodies(redis, self.keys)
        self.templates = Templates(redis, self.keys, self.scripts)
        self.salt = b""
        self.priorities: tuple[str, ...] = ()
        self._digit: dict[bytes, int] = {}

    @classmethod
    async def connect(cls, settings: Settings, url: str, name: str | None = None, *, join: bool = False) -> Spool:
        """Connect and open, or `join`; `name` is the reader's in CLIENT LIST, for `unblock`."""
        spool = cls(settings, connect(url), connect(url, blocking=True, name=name))
        try:
            await (spool.join() if join else spool.open())
        except BaseException:
            await spool.close()
            raise
        return spool

    async def open(self) -> None:
        """Make groups, digits and salt, where they are not there yet."""
        opened = await self.scripts.open(FORMAT, os.urandom(16), self.settings.events_kept, self.settings.priorities)
        self._know(self._accepted(opened))

    async def join(self) -> None:
        """Know the queue, and change nothing: for who may not, and needs no groups. Who comes first opens it."""
        found, salt, names = await command(self.redis, "HMGET", self.keys.meta, "format", "salt", "priorities")
        if found is None or salt is None or names is None:
            await self.open()
        else:
            self._know(self._accepted(Opened(found.decode(), salt, tuple(names.decode().split(",")))))

    def _accepted(self, opened: Opened) -> Opened:
        if opened.found not in {"", FORMAT}:
            raise QueueFormat(
                f"queue {self.settings.queue!r} has key format {opened.found}, this is format {FORMAT}: "
                "use the version of streamq that made it, or another STREAMQ_QUEUE"
            )
        return opened

    def _know(self, opened: Opened) -> None:
        self.salt = opened.salt
        self.priorities = opened.priorities
        self._digit = {self.keys.stream(name).encode(): p for p, name in enumerate(self.priorities)}

    async def _reopen(self) -> None:
        await self.open()

    async def close(self) -> None:
        await self.redis.aclose()
        if self.reader is not self.redis:
            await self.reader.aclose()

    def now_ms(self) -> int:
        """The time of day, by this process's clock; a queue in virtual time has its own."""
        return time.time_ns() // 1_000_000

    def digit(self, priority: str) -> int:
        return self.priorities.index(priority)

    def stream(self, entry: str) -> str:
        return self.keys.stream(self.priorities[int(entry[0])])

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, consumer: str, shares: Sequence[tuple[str, int]]) -> Reading:
        """Read at most that many of each priority, without waiting, in one round trip."""
        commands = [
            ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", many, "STREAMS", self.keys.stream(name), ">")
            for name, many in shares
        ]
        reading = Reading()
        for reply in await pipelined(self.reader, commands, raising=False):
            if isinstance(reply, ResponseError) and "NOGROUP" in str(reply):
                await self.open()
            elif isinstance(reply, Exception):
                raise reply
            else:
                self._add(reading, reply)
        return reading

    async def peek(self, name: str, behind: str, many: int) -> list[tuple[bytes, list[bytes]]]:
        """What stands in a priority's stream behind an id, unread: id and flat fields."""
        if behind == GREATEST:
            return []
        reply = await command(self.redis, "XRANGE", self.keys.stream(name), f"({behind}", "+", "COUNT", many)
        return [(id_, flat) for id_, flat in reply]

    async def passed(self, name: str) -> str:
        """Id of the last mail of a priority that was read, or passed in some other way; "" where there is no group."""
        try:
            groups = await command(self.redis, "XINFO GROUPS", self.keys.stream(name))
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return ""
        known = [dict(zip(group[::2], group[1::2], strict=True)) for group in groups]
        return next((one[b"last-delivered-id"].decode() for one in known if one[b"name"] == GROUP.encode()), "")

    async def wait(self, consumer: str, many: int, block_ms: int, without: Collection[str] = ()) -> Reading:
        """Block until any stream, but those, or the bell brings something. Never cancel it: `unblock` ends it."""
        streams = [*(self.keys.stream(name) for name in self.priorities if name not in without), self.keys.bell]
        marks = [">"] * len(streams)
        reading = Reading()
        try:
            reply = await command(self.reader,
                "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", many, "BLOCK", block_ms, "STREAMS",
                *streams, *marks,
            )  # fmt: skip
        except ResponseError as error:
            if "NOGROUP" in str(error):
                await self.open()
            elif "UNBLOCKED" not in str(error):  # a master that became a replica: the caller reads again
                raise
        else:
            self._add(reading, reply)
        return reading

    async def complete(self, entries: Sequence[Entry], most: int = 0) -> list[Entry]:
        """The first of these, ready to be judged: children with what they share (as new entries: those given stay
        small), and the templates of all are known. As many as weigh `most` bytes together, one at
        least; 0: all. A child whose body is gone, or that is none, stays as it is: no mail, and intake says why."""
        children = [(entry.entry, entry.fields) for entry in entries if OF in entry.fields]
        weights = await self.bodies.weights(children) if children else {}
        if most:
            entries = _first(entries, weights, most)
            children = [(entry.entry, entry.fields) for entry in entries if OF in entry.fields]
        if children:
            bodies = await self.bodies.of(children, weights)
            entries = [_joined(entry, *bodies[entry.entry]) if entry.entry in bodies else entry for entry in entries]
        await self.templates.know(entry.fields for entry in entries)
        for entry in entries:
            if entry.fields.get(b"template"):
                self._weigh(entry)
        return list(entries)

    def _weigh(self, entry: Entry) -> None:
        """Its template's part of the labour."""
        found = self.templates.find(entry.fields[b"template"], time_ms(entry.parent or entry.entry))
        if found is not None and not entry.fields.get(b"text") and entry.fields.get(b"auto_text") != b"0":
            entry.templated_us, entry._labour = found.labour, 0

    def _add(self, reading: Reading, reply: Any) -> None:
        for stream, rows in reply or ():
            if stream == self.keys.bell.encode():
                reading.bell.extend(row[0].decode() for row in rows)
                continue
            p = self._digit[stream]
            for id_, flat in rows:
                reading.entries.append(Entry.of(f"{p}{id_.decode()}", flat))

    async def touch(self, consumer: str) -> None:
        """Be seen: before Redis 7.2 a read that finds nothing neither makes a consumer nor renews its idle time.
        Reading what one holds of the bell does, and changes nothing."""
        try:
            await command(self.redis, "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", 1, "STREAMS", self.keys.bell, 0)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self.open()

    async def unblock(self, name: str) -> None:
        """Ends the blocked read of the reader that connected under this name."""
        text: str = (await command(self.redis, "CLIENT LIST")).decode()
        for line in text.splitlines():
            client = dict(part.split("=", 1) for part in line.split() if "=" in part)
            if client.get("name") == name:
                await command(self.redis, "CLIENT", "UNBLOCK", client["id"])

    async def fetch(self, entries: Sequence[str]) -> list[Entry | None]:
        """Complete mails; None where the entry is gone."""
        found = await self.raw(entries)
        there = iter(await self.complete([entry for entry in found if entry is not None]))
        return [None if entry is None else next(there) for entry in found]

    async def raw(self, entries: Sequence[str]) -> list[Entry | None]:
        """Entries as they stand in their streams, in one round trip; None where one is gone."""
        ranges = [("XRANGE", self.stream(entry), entry[1:], entry[1:]) for entry in entries]
        replies = await pipelined(self.redis, ranges)
        return [Entry.of(entry, rows[0][1]) if rows else None for entry, rows in zip(entries, replies, strict=True)]

    async def mean_bytes(self) -> float:
        """Of a mail, where they are largest: by the streams' memory, which the server samples. Children weigh what they
        share: in their streams they are small, and each has the whole message in the hand."""
        keys = [self.keys.stream(name) for name in self.priorities]
        asked = [(verb, key) for key in keys for verb in (("MEMORY USAGE"), ("XLEN"))]
        ends = [("ZRANGE", self.keys.bodies, 0, BODIES - 1), ("ZRANGE", self.keys.bodies, -BODIES, -1)]
        *flat, oldest, newest = await pipelined(self.redis, [*asked, *ends])
        shared = [self.keys.body(parent.decode()) for parent in {*oldest, *newest}]
        bodies = await pipelined(self.redis, [("MEMORY USAGE", key, "SAMPLES", 0) for key in shared])
        means = ((used or 0) / many if many > 1 else 0.0 for used, many in zip(flat[::2], flat[1::2], strict=True))
        return max(*means, *(float(used or 0) for used in bodies), 0.0)

    async def own_pending(self, consumer: str, many: int = 5000, *, idle_ms: int = 0) -> list[str]:
        """Entries in this consumer's PEL: what a lost reply may have delivered; `idle_ms`: only those without a
        heartbeat for so long. XPENDING, since XREADGROUP 0 raises the delivery counts that hold our tokens."""
        idle = ("IDLE", idle_ms) if idle_ms else ()
        entries: list[str] = []
        for p, name in enumerate(self.priorities):
            stream = self.keys.stream(name)
            rows = await command(self.redis, "XPENDING", stream, GROUP, *idle, "-", "+", many, consumer)
            entries.extend(f"{p}{row[0].decode()}" for row in rows)
        return entries

    def on_lost(self, hear: Callable[[RedisError], None]) -> None:
        """`hear` is told of a connection that was lost while nobody waited for a reply."""
        for client in (self.redis, self.reader):
            if isinstance(client, Client):
                client.channel.on_lost = hear

    def drop(self) -> None:
        """Close both connections; calls that wait fail, and the next ones open others."""
        for client in (self.redis, self.reader):
            if isinstance(client, Client):
                client.channel.close()

    async def run_id(self) -> str:
        """Changes when the server was started anew, or another one took over."""
        text: str = (await command(self.redis, "INFO", "server")).decode()
        found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return found.get("run_id", "")

    # -- settings ----------------------------------------------------------------------------------

    async def publish_ends(self) -> None:
        """What scripts ask that end a mail: whether senders are told of what bounces, where no worker has it in hand;
        how many bytes all dead letters may have; whether events show addresses. A server that is full takes no word; it
        is told again."""
        wanted = {
            "reports": b"1" if self.settings.reports else b"0",
            "dead_bytes": b"%d" % self.settings.dead_bytes,
            "pii": self.settings.pii.encode(),
        }
        if await command(self.redis, "HMGET", self.keys.meta, *wanted) == [*wanted.values()]:
            return
        pairs = [part for pair in wanted.items() for part in pair]
        with contextlib.suppress(OutOfMemoryError):
            await command(self.redis, "HSET", self.keys.meta, *pairs)

    async def publish_adapt(self, adapt: AdaptSettings | None = None) -> None:
        """How rates adapt, for all workers: they must be the same everywhere. (None: as the settings say it.)"""
        wanted = (adapt or self.settings.adapt).published()
        if (await command(self.redis, "HGET", self.keys.meta, "adapt") or b"") == wanted:
            return
        with contextlib.suppress(OutOfMemoryError):
            if wanted:
                await command(self.redis, "HSET", self.keys.meta, "adapt", wanted)
            else:
                await command(self.redis, "HDEL", self.keys.meta, "adapt")


def _first(entries: Sequence[Entry], weights: Mapping[str, int], most: int) -> Sequence[Entry]:
    size = 0
    for at, entry in enumerate(entries):
        said = kinship(entry.fields)
        size += sum(map(len, entry.fields.values())) + (weights.get(said[0], 0) if said is not None else 0)
        if at and size > most:
            return entries[:at]
    return entries


def _joined(child: Entry, shared: Shared, nth: int) -> Entry:
    stamp = f"{shared.parent}#{nth}" if shared.personal else shared.parent
    return Entry(child.entry, merged(child.fields, shared), shared.parent, stamp, nth)
