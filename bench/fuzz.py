"""`python -m bench fuzz`: hostile bytes, by a seed, for what reads bytes of strangers: an SMTP server's replies, and
the fields of an entry.

replies  whatever a server sends: the wire never raises, keeps a bounded amount, hands on no reply that was not asked
         for, and what it makes of the bytes does not hang on the packets in which they come
intake   whatever an XADD says: a mail, or one of the errors of a mail; the message of a mail is one (no bare line ends,
         no line that is too long, no header that a field smuggled in), the same each time, in bounded time
headers, addresses, tables, bombs: fuzz_headers.py, fuzz_addresses.py, fuzz_tables.py
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from bench.fuzz_addresses import addresses
from bench.fuzz_headers import headers
from bench.fuzz_tables import bomb, tables
from bench.readers import wire_faults
from streamq.errors import MailError
from streamq.mail import parse
from streamq.mail.fields import BUILT
from streamq.smtp.protocol import MAX_LINE, MAX_LINES, MAX_REPLY, Wire

__all__ = ["TARGETS", "Found", "fuzz", "intake", "replies", "table"]

AT_MS = 1_732_237_561_234
MAIL_BYTES = 1 << 20
SLOWEST_SECONDS = 2.0  # of CPU: of a case that is no larger than MAIL_BYTES
SLOWEST_OF = {"tables": 6.0}  # a million characters of tables without a key are 170,000 of them, and tomllib is Python
SHOWN = 10
ERROR_MOST = 2000  # characters: it stands in a dead letter
LARGE_EACH = 5000  # cases have 10 MB
LARGE = 10_000_000

# -- replies ------------------------------------------------------------------------------------------

PARTS = (
    b"250 2.0.0 OK\r\n", b"250-one\r\n", b"354 go\r\n", b"421 4.3.2 bye\r\n", b"550 5.1.1 no\r\n", b"250\r\n",
    b"250-\r\n", b"25", b"\r", b"\n", b"\0", b"\r\n", b"-", b" ", b"2500 x\r\n", b"199 x\r\n", b"600 x\r\n",
    b"\xff\xfe", b"abc\r\n", b"250\t\r\n", b"\xb2\xb5\xb0 x\r\n", b"220 hi\n", b"250 \r\r\n", b"250-a\r\n354 b\r\n",
)  # fmt: skip
SOUND = PARTS[:4]


def _stream(chance: random.Random, number: int) -> bytes:
    if number % LARGE_EACH == LARGE_EACH - 1:
        part = chance.choice((b"x", b"250-more\r\n", b"250 OK\r\n", b"\0", b"\r", b"\n"))
        return b"250 " * chance.randint(0, 1) + part * (LARGE // len(part))
    parts = [chance.choice(PARTS if chance.random() < 0.1 else SOUND) for _ in range(chance.randint(1, 12))]
    if chance.random() < 0.1:
        parts.insert(0, b"250-" + bytes([chance.randrange(256)]) * chance.randint(MAX_LINE - 10, MAX_LINE + 10))
    if chance.random() < 0.05:
        parts.insert(0, b"250-x\r\n" * chance.randint(MAX_LINES - 2, MAX_LINES + 2))
    if chance.random() < 0.05:
        line = b"250-" + b"y" * 4000 + b"\r\n"
        parts.insert(0, line * chance.randint(MAX_REPLY // 4004 - 1, MAX_REPLY // 4004 + 2))
    data = bytearray(b"".join(parts))
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _heard(loop: asyncio.AbstractEventLoop, packets: list[bytes], due: int) -> tuple[object, ...]:
    """What a wire makes of them. Raises what it raises, and `AssertionError` where it keeps too much."""
    wire = Wire(loop)
    wire.due = due
    for packet in packets:
        wire.data_received(packet)
        kept = len(wire._rest) + sum(map(len, wire._lines))
        assert kept <= MAX_REPLY + 2 * MAX_LINE, f"it keeps {kept} octets"
        assert len(wire.replies) <= due, "a reply that nobody asked for"
    assert all(200 <= reply.code < 600 for reply in wire.replies)
    return tuple(wire.replies), wire.fault, wire.why, wire.farewell


def replies(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """One case; how it ended."""
    data, due = _stream(chance, number), chance.choice((0, 1, 1, 3, 100))
    whole = _heard(loop, [data], due)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(0, 8)))
    packets = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    if len(data) < 200 and chance.random() < 0.3:
        packets = [bytes([octet]) for octet in data]
    apart = _heard(loop, packets, due)
    assert apart == whole, f"in {len(packets)} packets {apart}, in one {whole}"
    return str(whole[1]) or "fine"


# -- intake -------------------------------------------------------------------------------------------

EVIL = b"X-Smuggled: 1"
SMUGGLED = re.compile(rb"^x-smuggled:", re.I | re.M)
ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"\0", b"%0d%0a", b"\r\n ")
WORDS = (
    b"bob@example.net", b"Bob <bob@example.net>", b"\"a b\"@example.net", b"bob@\xc3\xbc.example", b"<>", b"@", b",",
    b"a@b,c@d", b"shop@example.com", b"1", b"0", b"-1", b"1732237561", b"9" * 30, b"2026-01-01T00:00:00Z", b"{}",
    b"[]", b"[" * 2000, b"{\"a\":" * 500, b"Hi", b"\xff", b"\xf0\x9f\x93\xa7", b"=?utf-8?q?x?=", b"x" * 1200, b"", b" ",
    b"hold", b'{"X-Ok": "1"}', b'[{"filename": "a.txt", "content": "YQ=="}]', b'[{"to": "a@example.net"}]', b"null",
    b"1e999",
    b"From: a@x.de\r\nTo: b@x.de\r\n\r\nHi\r\n.\r\n", b"\r\n.\r\n", b"xn--a", b"bob@[127.0.0.1]",
    b"(c) bob@example.net",
)  # fmt: skip
FREE = (b"subject", b"text", b"html", b"id", b"tags", b"x_note")  # most values are allowed there
NAMES = (b"filename", b"content_type", b"content_id", b"disposition")


def _value(chance: random.Random) -> bytes:
    parts = [chance.choice(WORDS) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    if chance.random() < 0.3:
        parts += [chance.choice(ENDS), EVIL, chance.choice(ENDS)]
    data = bytearray(b"".join(parts))
    for _ in range(chance.choice((0, 0, 0, 1, 3)) if data else 0):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _text(chance: random.Random) -> str:
    return _value(chance).decode("utf-8", "replace")


def _fields(chance: random.Random) -> dict[bytes, bytes]:
    """A mail that is good, and some of it is not."""
    made = {b"from": b"Shop <shop@example.com>", b"to": b"bob@example.net", b"subject": b"Hi", b"text": b"Hello"}
    if chance.random() < 0.2:
        made = {b"raw": b"From: a@x.de\r\nTo: b@x.de\r\n\r\nHi\r\n"}
    known = sorted(BUILT)
    for _ in range(chance.choice((0, 1, 1, 2))):
        made[chance.choice(known)] = _value(chance)
    for name in chance.sample(FREE, chance.choice((0, 1, 2))):
        made[name] = _value(chance)
    if chance.random() < 0.2:
        names = {name.decode(): _text(chance) for name in NAMES if chance.random() < 0.5}
        made[b"attachments"] = orjson.dumps([{"filename": "a.txt", "content": "YQ==", **names}])
    if chance.random() < 0.2:
        made[b"headers"] = orjson.dumps(
            {chance.choice(("X-Ok", "Reply-To", "References", _text(chance))): _text(chance)}
        )
    if chance.random() < 0.05:
        made[_value(chance)] = _value(chance)
    return made


def _judged(fields: Mapping[bytes, bytes]) -> tuple[str, bytes, bool]:
    """The kind of its end, the message, and whether it may be 8-bit (RFC 6532: an address is)."""
    try:
        mail = parse(fields, entry=f"1{AT_MS}-0", at_ms=AT_MS, salt=b"salt", max_bytes=MAIL_BYTES)
    except MailError as error:
        kind, said = type(error).__name__, str(error)
    else:
        return ("several", b"", False) if mail.several is not None else ("mail", mail.content(), mail.smtputf8)
    assert len(said) < ERROR_MOST, f"an error of {len(said)} characters"
    return kind, b"", False


def intake(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """One case; how it ended."""
    fields = _fields(chance)
    kind, content, eight_bit = _judged(fields)
    assert _judged(fields) == (kind, content, eight_bit), "another message the second time"
    if content and b"raw" not in fields:
        faults = set(wire_faults(content)) - ({"8-bit"} if eight_bit else set())
        assert not faults, f"{faults} in {fields}"
        names = orjson.dumps(fields.get(b"headers", b"").decode("utf-8", "replace")).lower()
        head = content.partition(b"\r\n\r\n")[0]
        assert b"x-smuggled" in names or not SMUGGLED.search(head), f"a header was smuggled in by {fields}"
    return kind


def bombs(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """JSON that is deep, wide, or full of strange numbers: one case; how it ended."""
    fields = bomb(chance, number)
    kind, content, _ = _judged(fields)
    faults = set(wire_faults(content)) if content else set()
    assert not faults, f"{faults} in {list(fields)}"
    return kind


# -- runs ---------------------------------------------------------------------------------------------

Case = Callable[[random.Random, int, asyncio.AbstractEventLoop], str]
TARGETS: Mapping[str, Case] = {
    "replies": replies, "intake": intake, "headers": headers, "addresses": addresses, "tables": tables, "bombs": bombs,
}  # fmt: skip


@dataclass(slots=True)
class Found:
    """`ends`: cases by how they ended; `slowest`, `cpu`: CPU seconds of one case, of all; `wrong`: (number, what)."""

    target: str
    seed: int
    cases: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    wrong: list[tuple[int, str]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.wrong


def fuzz(target: str, cases: int, *, seed: int = 1, first: int = 0) -> Found:
    """Each case has its own draw: (seed, number) makes it again."""
    found, run, begun = Found(target, seed), TARGETS[target], time.monotonic()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        for number in range(first, first + cases):
            before = time.process_time()
            try:
                found.ends[run(random.Random(f"{seed}/{number}"), number, loop)] += 1
            except Exception as error:  # noqa: BLE001 - that is what it looks for
                found.wrong.append((number, f"{type(error).__name__}: {error}"[:1000]))
            took = time.process_time() - before
            found.slowest = max(found.slowest, took)
            found.cpu += took
            if took > SLOWEST_OF.get(target, SLOWEST_SECONDS):
                found.wrong.append((number, f"it took {took:.1f} s"))
            found.cases += 1
            if len(found.wrong) >= SHOWN:
                break
    found.seconds = time.monotonic() - begun
    return found


def table(found: Found) -> str:
    ends = ", ".join(f"{name} {many:,}" for name, many in found.ends.most_common())
    took = f"{found.seconds:.0f} s ({found.cpu:.0f} of CPU)"
    rows = [
        f"{found.target}: {found.cases:,} cases in {took}, seed {found.seed}: {ends}",
        f"slowest {found.slowest * 1000:.0f} ms of CPU; wrong {len(found.wrong)}",
    ]
    return "\n".join([*rows, *(f"case {number}: {what}" for number, what in found.wrong)])


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("fuzz", parents=[common], help="hostile bytes for what reads them")
    one.add_argument("--target", choices=list(TARGETS), action="append", help="one of them (all)")
    one.add_argument("--cases", type=int, default=100_000, help="of each (100000)")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--first", type=int, default=0, help="number of the first one: a long run in parts (0)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    runs = [fuzz(name, asked.cases, seed=asked.seed, first=asked.first) for name in asked.target or TARGETS]
    results = [
        {
            "target": one.target,
            "cases": one.cases,
            "ends": dict(one.ends),
            "slowest": one.slowest,
            "cpu": one.cpu,
            "wrong": one.wrong,
        }
        for one in runs
    ]
    return {"results": results}, all(one.good for one in runs), "\n".join(map(table, runs))
