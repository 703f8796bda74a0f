"""`python -m bench fuzz`: hostile bytes, by a seed, for what reads bytes of strangers: an SMTP server's replies, and
the fields of an entry.

intake   whatever an XADD says: a mail, or one of the errors of a mail; the message of a mail is one (no bare line ends,
         no line that is too long, no header that a field smuggled in), the same each time, in bounded time
replies, headers, addresses, tables, bombs: fuzz_replies.py, fuzz_headers.py, fuzz_addresses.py, fuzz_tables.py,
         fuzz_templates.py; what intake is fed with: fuzz_content.py
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
from bench.fuzz_content import files_of, held_on_the_wire, html, named, raw
from bench.fuzz_headers import headers
from bench.fuzz_replies import replies
from bench.fuzz_tables import bomb, tables
from bench.fuzz_templates import rendered
from bench.readers import wire_faults
from streamq.errors import MailError
from streamq.mail import parse
from streamq.mail.fields import BUILT
from streamq.mail.glance import glance, plain_site
from streamq.mail.labour import labour
from streamq.mail.sure import read_sure

__all__ = ["TARGETS", "Found", "fuzz", "intake", "replies", "table"]

AT_MS = 1_732_237_561_234
MAIL_BYTES = 1 << 20
SLOWEST_SECONDS = 2.0  # of CPU: of a case that is no larger than MAIL_BYTES
SLOWEST_OF = {"tables": 6.0}  # a million characters of tables without a key are 170,000 of them, and tomllib is Python
SHOWN = 10
ERROR_MOST = 2000  # characters: it stands in a dead letter

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
GOOD = {
    b"auto_text": b"1", b"bcc": b"c@example.net", b"cc": b"c@example.net", b"collapse_key": b"quota",
    b"collapse_seconds": b"60", b"delay": b"60", b"dsn_envid": b"a1", b"dsn_notify": b"failure,delay",
    b"dsn_orcpt": b"rfc822;bob@example.org", b"dsn_ret": b"full", b"envelope_from": b"b@example.com",
    b"envelope_to": b"bob@example.net", b"expires_at": b"2024-12-01T00:00:00Z", b"metadata": b'{"a": 1}',
    b"on_ambiguous": b"hold", b"reply_to": b"help@example.com", b"require_tls": b"1", b"route": b"main",
    b"send_at": b"1732237661", b"sender": b"s@example.com", b"sensitive": b"1", b"tags": b"a,b", b"tenant": b"t1",
    b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"ttl": b"3600", b"v": b"1",
    b"headers": b'{"References": "<a@x.de> <b@x.de>", "List-Id": "<x.de>", "Date": "Fri, 22 Nov 2024 01:06:01 +0000"}',
}  # fmt: skip
HEADERS = (
    "X-Ok", "Reply-To", "References", "In-Reply-To", "List-Unsubscribe", "List-Id", "Date", "Message-ID", "Autocrypt",
    "Resent-To", "Resent-Date", "Disposition-Notification-To", "Auto-Submitted", "Bcc", "Received", "x-ok", "X:", "X Y",
)  # fmt: skip
SAID = (
    "<a@x.de>", "<a@x.de> <b@x.de>", "Fri, 22 Nov 2024 01:06:01 +0000", "32 Nov 2024", "Bob <bob@example.net>",
    "<https://x.de/u?a=1>", "addr=a@x.de; keydata=YWJj", "auto-replied", "x" * 900, "é" * 200, "a b " * 90, "<" * 50,
)  # fmt: skip


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


def _headers(chance: random.Random) -> bytes:
    """Most of them such as people set."""
    made = {}
    for _ in range(chance.choice((1, 1, 3))):
        name = chance.choice(HEADERS) if chance.random() < 0.9 else _text(chance)
        said = chance.choice(SAID) if chance.random() < 0.7 else _text(chance)
        made[name] = [said, chance.choice(SAID)] if chance.random() < 0.1 else said
    return orjson.dumps(made)


def _fields(chance: random.Random) -> dict[bytes, bytes]:
    """A mail that is good, and some of it is not."""
    made = {b"from": b"Shop <shop@example.com>", b"to": b"bob@example.net", b"subject": b"Hi", b"text": b"Hello"}
    if chance.random() < 0.3:
        made = {b"raw": raw(chance)}
        if chance.random() < 0.7:
            made |= {b"envelope_from": b"a@example.com", b"envelope_to": b"bob@example.net"}
    for name in chance.sample(sorted(GOOD), chance.choice((0, 0, 1, 3))):
        if b"raw" not in made or name not in (b"cc", b"bcc", b"reply_to", b"sender", b"headers", b"auto_text"):
            made[name] = GOOD[name]
    known = sorted(BUILT)
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        made[chance.choice(known)] = _value(chance)
    for name in chance.sample(FREE if b"raw" not in made else FREE[-1:], chance.choice((0, 0, 0, 1))):
        made[name] = _value(chance)
    if b"raw" not in made and chance.random() < 0.3:
        made[b"html"] = html(chance)
        if chance.random() < 0.7:
            del made[b"text"]
    if b"raw" not in made and chance.random() < 0.3:
        made[b"attachments"] = orjson.dumps(files_of(chance))
    if b"raw" not in made and chance.random() < 0.2:
        made[b"headers"] = _headers(chance)
    if b"collapse_seconds" in made:
        made.setdefault(b"collapse_key", b"quota")
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


def _quick_agree(fields: Mapping[bytes, bytes]) -> None:
    """What looks at a mail without reading all of it says the same of it, or nothing."""
    glanced, site, sure = glance(fields, MAIL_BYTES), plain_site(fields), read_sure(fields)
    assert labour(fields) > 0, "no labour at all"
    try:
        mail = parse(fields, entry=f"1{AT_MS}-0", at_ms=AT_MS, salt=b"salt", max_bytes=MAIL_BYTES)
    except MailError:
        return
    if mail.several is not None:
        return
    assert site in ("", mail.site), f"its site is {mail.site!r}, and {site!r} at a glance, of {fields}"
    assert sure.id in (None, mail.id), f"its id is {mail.id!r}, and surely {sure.id!r}, of {fields}"
    if glanced is not None:
        whole = (mail.id or "", mail.site, (mail.digest or b"") + mail.content_hash)
        seen = (glanced.id, glanced.site, glanced.seen)
        assert seen == whole, f"{whole} when it is read, {seen} at a glance, of {fields}"


def intake(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """One case; how it ended."""
    fields = _fields(chance)
    kind, content, eight_bit = _judged(fields)
    _quick_agree(fields)
    assert _judged(fields) == (kind, content, eight_bit), "another message the second time"
    if content:
        held_on_the_wire(content, chance, whole=b"raw" in fields)
    if content and fields.get(b"attachments"):
        named(content, orjson.loads(fields[b"attachments"]))
    if content and b"raw" not in fields:
        faults = set(wire_faults(content)) - ({"8-bit"} if eight_bit else set())
        assert not faults, f"{faults} in {fields}"
        names = orjson.dumps(fields.get(b"headers", b"").decode("utf-8", "replace")).lower()
        head = content.partition(b"\r\n\r\n")[0]
        assert b"x-smuggled" in names or not SMUGGLED.search(head), f"a header was smuggled in by {fields}"
    return kind


def bombs(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """JSON that is deep, wide, or full of strange numbers, and each fourth a template: one case; how it ended."""
    if number % 4 == 3:
        return rendered(chance)
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
