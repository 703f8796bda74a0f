"""What Redis says, by raw commands in two round trips, and where the model says something else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from ledger import AT_ONCE, PRIORITIES, Ledger, order

from streamq.keys import GROUP, Keys
from streamq.queue.connection import pipelined
from streamq.queue.spool import Spool

__all__ = ["Look", "differences", "look"]

ALL = ("-", "+")


@dataclass(slots=True)
class Look:
    """A queue at one moment, as its keys have it."""

    streams: list[list[str]] = field(default_factory=list)
    pel: dict[str, tuple[str, int]] = field(default_factory=dict)
    cursor: list[tuple[int, int]] = field(default_factory=list)
    scheduled: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    due: dict[tuple[str, int], int] = field(default_factory=dict)
    expiry: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    holds: dict[str, str] = field(default_factory=dict)
    dots: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    letters: list[dict[str, str]] = field(default_factory=list)
    bell: int = 0
    last_event: str = "-"


def _pairs(flat: Any) -> dict[str, str]:
    parts = [part.decode("utf-8", "backslashreplace") for part in flat]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _scores(flat: Any) -> dict[str, int]:
    return {member: int(float(score)) for member, score in _pairs(flat).items()}


async def look(spool: Spool, last_event: str = "-") -> Look:
    """`last_event`: events after that id only."""
    keys = spool.keys
    streams = [keys.stream(name) for name in PRIORITIES]
    got = Look()
    replies = iter(await pipelined(spool.redis, _asked(keys, streams, last_event)))
    for p in range(len(PRIORITIES)):
        got.streams.append([f"{p}{row[0].decode()}" for row in next(replies)])
        got.pel |= {f"{p}{row[0].decode()}": (row[1].decode(), row[3]) for row in next(replies)}
        groups = next(replies)
        got.cursor.append(order("0" + groups[0][groups[0].index(b"last-delivered-id") + 1].decode()))
        got.due |= {(lane, p): us for lane, us in _scores(next(replies)).items()}
    got.scheduled, got.held = _scores(next(replies)), _scores(next(replies))
    got.parked = dict(_member(member.decode()) for member in next(replies))
    got.expiry = _scores(next(replies))
    got.counts = {name: int(value) for name, value in _pairs(next(replies)).items()}
    got.notes = {entry: orjson.loads(text) for entry, text in _pairs(next(replies)).items()}
    got.holds, got.dots = _pairs(next(replies)), _pairs(next(replies))
    for id_, fields in next(replies):
        row = _pairs(fields)
        got.events.append((row["type"], row["id"], orjson.loads(row["data"])))
        last_event = "(" + id_.decode()
    got.last_event = last_event
    got.letters = [_pairs(fields) for _, fields in next(replies)]
    got.bell = next(replies)
    for bucket in await pipelined(spool.redis, [("HGETALL", key) for key in next(replies)]):
        got.leads |= _pairs(bucket)
    return got


def _asked(keys: Keys, streams: list[str], last_event: str) -> list[tuple[str | int, ...]]:
    commands: list[tuple[str | int, ...]] = []
    for name, stream in zip(PRIORITIES, streams, strict=True):
        commands += [
            ("XRANGE", stream, *ALL),
            ("XPENDING", stream, GROUP, *ALL, 10_000),
            ("XINFO", "GROUPS", stream),
            ("ZRANGE", keys.due(name), 0, -1, "WITHSCORES"),
        ]
    return [
        *commands,
        ("ZRANGE", keys.schedule, 0, -1, "WITHSCORES"),
        ("ZRANGE", keys.held, 0, -1, "WITHSCORES"),
        ("ZRANGE", keys.parked, 0, -1),
        ("ZRANGE", keys.expiry, 0, -1, "WITHSCORES"),
        ("HGETALL", keys.counts),
        ("HGETALL", keys.notes),
        ("HGETALL", keys.holds),
        ("HGETALL", keys.dots),
        ("XRANGE", keys.events, last_event, "+"),
        ("XRANGE", keys.dead, *ALL),
        ("XLEN", keys.bell),
        ("KEYS", keys.prefix + "lane:*"),
    ]


def _member(member: str) -> tuple[str, str]:
    lane, _, padded = member.rpartition("|")
    ms, _, seq = padded[1:].partition("-")
    return f"{padded[0]}{int(ms)}-{int(seq)}", lane


def differences(book: Ledger, got: Look) -> list[str]:
    """Every point where Redis and the book differ, and every breach of the law. Takes up scores that the book
    left open."""
    wrong: list[str] = []

    def same(what: str, said: object, by_book: object) -> None:
        if said != by_book:
            wrong.append(f"{what}: {said!r}, by the book {by_book!r}")

    _adopt(book, got, wrong)
    placed = _places(book)
    _law(got, wrong)
    for p in range(len(PRIORITIES)):
        same(f"stream {p}", got.streams[p], [mail.entry for mail in book.stream(p)])
        for kind in ("parked", "scheduled", "held"):
            there = sum(1 for entry in placed[kind] if entry.startswith(str(p)))
            same(f"counts {kind}:{p}", got.counts.get(f"{kind}:{p}", 0), there)
    same("last delivered", got.cursor, book.cursor)
    same("leases", got.pel, {m.entry: m.pel for m in book.mails.values() if m.pel})
    same("scheduled", got.scheduled, placed["scheduled"])
    same("held", set(got.held), set(placed["held"]))
    same("parked", got.parked, {m.entry: m.lane for m in book.mails.values() if m.place == "parked"})
    same("lanes' hashes", got.leads, got.parked)
    same("lanes to visit", set(got.due), set(book.lanes()))
    same("deadlines", got.expiry, {m.entry: m.look for m in book.mails.values() if m.look})
    same("dots", got.dots, book.dots)
    _hanging(book, got, same)
    _outcomes(book, got, same)
    wrong += _sleepers(book, got)
    return wrong


def _adopt(book: Ledger, got: Look, wrong: list[str]) -> None:
    for mail in book.mails.values():
        if mail.place == "scheduled" and mail.score == AT_ONCE:
            mail.score = got.scheduled.get(mail.entry, AT_ONCE)
            if not 0 < mail.score <= book.now_ms:
                wrong.append(f"{mail.entry} is due at {mail.score}, should be at once")


def _places(book: Ledger) -> dict[str, dict[str, int]]:
    placed: dict[str, dict[str, int]] = {"scheduled": {}, "held": {}, "parked": {}}
    for mail in book.mails.values():
        if mail.place:
            placed[mail.place][mail.entry] = mail.score
    return placed


def _law(got: Look, wrong: list[str]) -> None:
    """XLEN = waiting + leased + parked + scheduled + held, each in exactly one, from raw commands alone."""
    for p, entries in enumerate(got.streams):
        sums: Counter[str] = Counter()
        for entry in entries:
            where = [
                name
                for name, index in (("scheduled", got.scheduled), ("held", got.held), ("parked", got.parked))
                if entry in index
            ]
            if entry in got.pel and (not where or got.pel[entry][1] >= 16):  # no token: read once more
                where.append("leased")
            if not where and order(entry) > got.cursor[p]:
                where = ["waiting"]
            if len(where) != 1:
                wrong.append(f"{entry} is in {where or 'none'}")
            sums.update(where)
        if sums.total() != len(entries):
            wrong.append(f"the law: XLEN is {len(entries)}, the sum is {sums.total()}: {sums}")


def _hanging(book: Ledger, got: Look, same: Any) -> None:
    """What hangs on mails, and nothing of mails that are gone."""
    intents = {f"intent:{m.entry}": m.intent for m in book.mails.values() if m.intent}
    needed = sum(mail.needs for mail in book.mails.values())
    needs = {"need:x": str(needed)} if needed else {}
    same("holds", got.holds, intents | book.rules | needs)
    same("notes of mails that are gone", set(got.notes) - set(book.mails), set())
    for mail in book.mails.values():
        notes = got.notes.get(mail.entry, {})
        same(f"attempts of {mail.entry}", notes.get("attempts", 0), mail.attempts)
        same(f"reclaims of {mail.entry}", notes.get("reclaims", 0), mail.reclaims)
        same(f"late 250 of {mail.entry}", "sent" in notes, mail.sent)


def _outcomes(book: Ledger, got: Look, same: Any) -> None:
    """Events of this step, and the sums of all."""
    came = Counter((kind, data.get("entry", id_)) for kind, id_, data in got.events)
    same("events", came, Counter(book.events))
    for (kind, _), many in came.items():
        if kind.startswith("email."):
            book.totals[kind.removeprefix("email.")] += many
    book.events.clear()
    totals = {name.removeprefix("total:"): n for name, n in got.counts.items() if name.startswith("total:")}
    same("totals", totals, {name: many for name, many in book.totals.items() if name != "held"})
    same("late", got.counts.get("late", 0), book.late)
    reclaimed = got.counts.get("reclaimed", 0) - book.reclaimed
    same("reclaimed", 0 <= reclaimed <= book.reclaimed_gone, True)
    same("resettled", got.counts.get("resettled", 0), book.resettled)
    same("dead", got.counts.get("dead", 0), book.buried)
    classes = sum(many for name, many in got.counts.items() if name.startswith("class:"))
    same("classes", classes, book.buried + book.deferred)
    letters = {letter["dead_entry"]: int(letter["attempts"]) for letter in got.letters}
    weight = sum(len(name) + len(value) for letter in got.letters for name, value in letter.items())
    same("bytes of dead letters", got.counts.get("dead_bytes", 0), weight)
    same("dead letters", letters, {mail.entry: mail.attempts for mail in book.letters})


def _sleepers(book: Ledger, got: Look) -> list[str]:
    """Lanes that are visited later than they could go."""
    wrong = []
    for (lane, p), us in got.due.items():
        till = book.routes[lane.partition("|")[0]].till
        waits = [until for (waiting, _), until in book.waits.items() if waiting == lane]
        latest = max(book.now, till, int(book.slots.opens(lane)) + 200, *waits)
        if us > latest:
            wrong.append(f"lane {lane} of {p} is visited at {us}, could go at {latest}, now {book.now}")
    return wrong
