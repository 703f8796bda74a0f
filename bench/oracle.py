"""`python -m bench oracle`: many mails through a real queue, to mail servers that are not ours.

Mails of 1 to 50 KB (evenly over the magnitudes: 13 KB in the mean), of the kinds that servers stumble over, are
XADDed to an embedded server; two worker processes deliver them to a private Postfix, then the same to a private Exim,
at their defaults but for limits (bench/mta.py). Then every file of the Maildir is read:

mails      XADDed
arrived    recipients whose mail is there
doubles    mails there beyond one a recipient
differing  mails there that are not what was sent, byte for byte ("\\n" for CRLF), or from another sender; of a mail
           that we composed, in which its reader does not find what was meant, each attachment byte for byte
ids        mails whose `email.relayed` event holds in its `reply` the queue id that the server itself wrote into
           the mail's Received line
seconds    from before the workers' start to the last mail in the Maildir
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import orjson

from bench.arguments import few
from bench.letters import Letter, letter
from bench.mta import KINDS, QUEUE_ID, Mta, mta
from bench.package import Missing
from bench.programs import Programs, programs, until
from bench.readers import differences
from streamq.queue.connection import command, pipelined
from streamq.queue.spool import Spool
from streamq.settings import RouteSettings, load_settings

__all__ = ["Found", "add", "deliver", "oracle", "table"]

LEAST, MOST = 1_000, 50_000  # bytes of a mail
PROCESSES = 2
BATCH = 100  # XADDs a round trip, about 1.3 MB
SEED = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One mail as it is XADDed, and must arrive: `raw` is such that intake changes nothing in it. One that is to be
    composed is a `letter` instead."""

    sender: str
    rcpt: str
    raw: bytes
    letter: Letter | None = None

    def fields(self) -> list[str | bytes]:
        """Names and values."""
        given = {b"raw": self.raw} if self.letter is None else self.letter.fields
        envelope = {b"envelope_from": (self.sender or "<>").encode(), b"envelope_to": self.rcpt.encode()}
        return [part for pair in {**given, **envelope}.items() for part in pair]

    def arrived(self, content: bytes) -> bool:
        """Whether `content`, with LF for its line ends, is what was sent."""
        if self.letter is None:
            return content == self.raw.replace(b"\r\n", b"\n")
        return not differences(self.letter, content)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it at one server; `skipped` says why it was not asked."""

    server: str
    version: str = ""
    mails: int = 0
    arrived: int = 0
    doubles: int = 0
    differing: int = 0
    ids: int = 0
    seconds: float = 0.0
    skipped: str = ""

    @property
    def good(self) -> bool:
        return bool(self.skipped) or (
            self.arrived == self.ids == self.mails and not self.doubles and not self.differing
        )


def _words(size: int) -> bytes:
    dice = random.Random(SEED)
    signs = b"abcdefghijklmnopqrstuvwxyz     ,."
    return bytes(dice.choices(signs, k=size))


WORDS = _words(2 * MOST)


def _lines(text: bytes, width: int, start: bytes = b"") -> bytes:
    return b"".join(start + text[at : at + width] + b"\r\n" for at in range(0, len(text), width))


BODIES = ("lines", "eight-bit", "long-lines", "dots", "utf8", "quoted", "null-sender", "no-lines", "composed")


def sample(number: int) -> Sample:
    """The same for the same number."""
    dice = random.Random(SEED * 1_000_003 + number)
    size = round(LEAST * (MOST / LEAST) ** dice.random())
    kind = BODIES[number % len(BODIES)]
    sender, local = "shop@sender.example", f"m{number}"
    if kind == "composed":
        return Sample(sender, f"{local}@rcpt.example", b"", letter(dice))
    at = dice.randrange(len(WORDS) - size)
    text = WORDS[at : at + size]
    match kind:
        case "eight-bit":
            body = _lines(text.replace(b"e", "é".encode()), 72)
        case "long-lines":
            body = _lines(text, dice.choice((998, 2_048, 5_000)))
        case "dots":
            body = _lines(text, dice.randrange(1, 60), b"." * dice.randrange(1, 4))
        case "no-lines":
            body = text
        case _:
            body = _lines(text, 76)
    body = body[:size].rstrip(b"\r\n") + b"\r\n" + b".\r\n" * (kind == "dots")
    if kind == "utf8":
        local = f"grüße{number}"
    elif kind == "quoted":
        local = f'"m {number}"'
    elif kind == "null-sender":
        sender = ""
    head = (
        f"From: Shop <shop@sender.example>\r\nTo: <{local}@rcpt.example>\r\nSubject: {kind} {number}\r\n"
        f"Date: Fri, 22 Nov 2024 01:06:01 +0000\r\nMessage-ID: <{number}@sender.example>\r\n\r\n"
    )
    return Sample(sender, f"{local}@rcpt.example", head.encode() + body)


async def _feed(spool: Spool, many: int) -> None:
    for start in range(0, many, BATCH):
        commands = []
        for number in range(start, min(start + BATCH, many)):
            one = sample(number)
            priority = spool.priorities[number % len(spool.priorities)]
            commands.append(
                ("XADD", spool.keys.stream(priority), "*", "id", f"o{number}", *one.fields()),
            )
        await pipelined(spool.redis, commands)


async def _queue_ids(spool: Spool) -> dict[str, list[str]]:
    """By recipient, what stands in the replies of its `email.relayed` events."""
    ids: dict[str, list[str]] = {}
    last = "-"
    while rows := await command(spool.redis, "XRANGE", spool.keys.events, last, "+", "COUNT", 1000):
        for id_, flat in rows:
            last = f"({id_.decode()}"
            if flat[1] == b"email.relayed":
                data = orjson.loads(flat[5])
                said = QUEUE_ID.search(data.get("reply", ""))
                ids.setdefault(data["rcpt"], []).append(said[1] if said else "")
    return ids


async def _arrived(spool: Spool, server: Mta, many: int) -> None:
    """Until the queue is empty, then the server's: what comes twice has come by then, too. Gives up when that takes
    unduly long: the table says what is missing."""

    async def delivered() -> bool:
        return not sum([await command(spool.redis, "XLEN", spool.keys.stream(name)) for name in spool.priorities])

    async def stored() -> bool:
        return not server.queued() and server.count() >= many

    with suppress(TimeoutError):
        await until(delivered, 60 + many / 10)
        await until(stored, 60 + many / 10)


def _compare(server: Mta, many: int, ids: dict[str, list[str]], seconds: float) -> Found:
    expected = {sample(number).rcpt: number for number in range(many)}
    there: Counter[str] = Counter()
    differing = found = 0
    for stored in server.stored():
        there[stored.rcpt] += 1
        number = expected.get(stored.rcpt)
        wanted = sample(number) if number is not None else None
        if wanted is None or stored.envelope_from != wanted.sender or not wanted.arrived(stored.content):
            differing += 1
        found += ids.get(stored.rcpt) == [stored.queue_id]
    return Found(
        server=server.kind,
        version=server.version,
        mails=many,
        arrived=len(there.keys() & expected.keys()),
        doubles=there.total() - len(there),
        differing=differing,
        ids=found,
        seconds=round(seconds, 1),
    )


async def deliver(p: Programs, server: Mta, many: int, way: str = "") -> Found:
    """`many` mails through the queue of `p`, by two workers; `way`: further lines of their route's table."""
    spool = await Spool.connect(load_settings(), p.url)
    p.stack.push_async_callback(spool.close)
    await _feed(spool, many)
    begun = time.monotonic()
    for _ in range(PROCESSES):
        await p.worker(f'[routes.oracle]\nurl = "{server.url}"\n{way}\n')
    await _arrived(spool, server, many)
    seconds = time.monotonic() - begun
    await p.stop_workers()
    return _compare(server, many, await _queue_ids(spool), seconds)


async def oracle(many: int, way: str = "") -> list[Found]:
    """Of each server that this machine can run."""
    results = []
    for kind in KINDS:
        try:
            with mta(kind) as server, tempfile.TemporaryDirectory(prefix="sqb-") as name:
                async with programs(Path(name)) as p:
                    results.append(await deliver(p, server, many, way))
        except Missing as why:
            results.append(Found(kind, skipped=str(why)))
    return results


def table(results: list[Found]) -> str:
    columns = ("server", "version", "mails", "arrived", "doubles", "differing", "ids", "seconds")
    rows = [columns, *(tuple(str(asdict(one)[name]) for name in columns) for one in results if not one.skipped)]
    wide = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    lines = ["  ".join(text.rjust(size) for text, size in zip(row, wide, strict=True)) for row in rows]
    return "\n".join([*lines, *(f"{one.server}: skipped: {one.skipped}" for one in results if one.skipped)])


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("oracle", parents=[common], help="what a Postfix and an Exim store of what we deliver")
    one.add_argument("--mails", type=few, default=10_000, help="to each of them (10000)")
    modes = get_args(RouteSettings.model_fields["pipelining"].annotation)
    one.add_argument("--pipelining", choices=modes, default="transaction", help="how the route speaks (transaction)")
    one.add_argument("--chunking", action="store_true", help="by BDAT")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    way = f'pipelining = "{asked.pipelining}"\nchunking = {str(asked.chunking).lower()}'
    found = asyncio.run(oracle(asked.mails, way))
    good = all(each.good for each in found) and not all(each.skipped for each in found)
    return {"route": way.splitlines(), "results": [asdict(each) for each in found]}, good, table(found)
