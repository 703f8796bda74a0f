"""`python -m bench fuzz --target replies`: bytes of an SMTP server, for what reads them and for what believes them.

Most cases are a stream of bytes in packets: the wire never raises, keeps a bounded amount, hands on no reply that was
not asked for, and what it makes of the bytes does not hang on the packets; each reply gets a class, a bounded wait,
and one line without control characters. Each fourth is a dialog (fuzz_dialog.py), each sixteenth what
a source of tokens answers.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import orjson

from bench.fuzz_dialog import dialog
from streamq.settings.token import is_token
from streamq.smtp.judge import plain_text
from streamq.smtp.letter import Action, Stage
from streamq.smtp.protocol import MAX_LINE, MAX_LINES, MAX_REPLY, Reply, Wire
from streamq.smtp.replies import default_replies
from streamq.smtp.token_reply import TokenError, read_token

__all__ = ["LARGE_EACH", "heard", "replies"]

PARTS = (
    b"250 2.0.0 OK\r\n", b"250-one\r\n", b"354 go\r\n", b"421 4.3.2 bye\r\n", b"550 5.1.1 no\r\n", b"250\r\n",
    b"250-\r\n", b"25", b"\r", b"\n", b"\0", b"\r\n", b"-", b" ", b"2500 x\r\n", b"199 x\r\n", b"600 x\r\n",
    b"\xff\xfe", b"abc\r\n", b"250\t\r\n", b"\xb2\xb5\xb0 x\r\n", b"220 hi\n", b"250 \r\r\n", b"250-a\r\n354 b\r\n",
)  # fmt: skip
SOUND = PARTS[:4]
CODES = (250, 251, 354, 421, 450, 451, 452, 454, 455, 499, 500, 503, 521, 530, 535, 541, 550, 551, 552, 553, 554, 559)
SAYINGS = (
    "", "4.7.1", "5.7.1", "4.2.2", "5.2.2", "5.1.1", "4.7.28", "#4.7.1", "(#5.1.1)", "5.1.1.1", "2.0.0", "9.9.9",
    "Greylisted, try again in 300 seconds", "retry after 1 hour", "come back in 00:04:59", "retry-after: 120",
    "wait 9999999 days and 9999999 hours", "in 1 s, and 2 m", "minutes=5", "in 99:99:99", "try in 0 seconds",
    "too many messages in this session", "4.4.2 idle timeout", "user unknown", "mailbox full", "over quota",
    "Daily sending quota exceeded", "blocked using zen.spamhaus.org", "rate limited", "throttled",
    "too many connections", "<bob@example.net>", "example.net", "bob@spamhaus.org", "http://x.example/?e=421",
    "\x1b[2J", "\u202eevil", "\x07", "=?utf-8?q?x?=", "a" * 600, "1 " * 300, "in " * 200, "for for for 1 s",
    "\u00e9\u00e8", "(" * 200, "[" * 200,
)  # fmt: skip
SECRET = "ya29.S3cretS3cret"
TOKEN_VALUES: tuple[object, ...] = (
    "x", "", "a b", "\r\nX: y", "é", 1, -1, 1e308, -0.0, 10**15, "3600", "9" * 30, "-1", None, True, [], {}, ["x"],
    "MAC", "bearer", "invalid_grant", "\x1b[2J",
)  # fmt: skip
LARGE_EACH = 5000  # cases have 10 MB
LARGE = 10_000_000
LONGEST_WAIT_MS = 24 * 3_600_000


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
    if chance.random() < 0.5:
        parts.insert(chance.randrange(len(parts) + 1), _saying(chance))
    data = bytearray(b"".join(parts))
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _saying(chance: random.Random) -> bytes:
    """A reply of one to four lines, all of one code, most of them; what it says has been said by servers, or is odd."""
    code, lines = chance.choice(CODES), []
    for _ in range(chance.choice((1, 1, 2, 4))):
        text = " ".join(chance.choice(SAYINGS) for _ in range(chance.choice((1, 2, 2, 3))))
        lines.append(text.encode("utf-8", "replace")[:4000])
    *before, last = lines
    return b"".join([b"%d-%b\r\n" % (code, line) for line in before]) + b"%d %b\r\n" % (code, last)


def heard(loop: asyncio.AbstractEventLoop, packets: list[bytes], due: int) -> tuple[object, ...]:
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
    if number % 4 == 3 and number % LARGE_EACH != LARGE_EACH - 1:
        return loop.run_until_complete(dialog(chance, loop))
    if number % 16 == 6:
        return _token(chance)
    data, due = _stream(chance, number), chance.choice((0, 1, 1, 3, 100))
    whole = heard(loop, [data], due)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(0, 8)))
    packets = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    if len(data) < 200 and chance.random() < 0.3:
        packets = [bytes([octet]) for octet in data]
    apart = heard(loop, packets, due)
    assert apart == whole, f"in {len(packets)} packets {apart}, in one {whole}"
    said = whole[0]
    assert isinstance(said, tuple)
    for reply in said[:4]:
        _class_of(reply, chance)
    return str(whole[1]) or "fine"


def _class_of(reply: Reply, chance: random.Random) -> None:
    text = plain_text(reply.text)
    assert text.isprintable(), f"control characters in {text!r}"
    for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT):
        found = default_replies().classify(stage, reply.code, text, chance.random() < 0.5, chance.choice(("", "x.de")))
        assert 0 <= found.hint_ms <= LONGEST_WAIT_MS, f"a wait of {found.hint_ms} ms by {text!r}"
        assert found.action is not Action.SENT or (stage is Stage.DOT and reply.positive) or reply.positive, text
        assert found.action not in (Action.AMBIGUOUS, Action.ABANDON), text
        assert not found.enhanced or found.enhanced[0] == str(reply.code)[0], f"{found.enhanced} of {reply}"


def _token(chance: random.Random) -> str:
    """No secret of an answer that is none stands in the error (RFC 6749, 5.1 and 5.2)."""
    made: dict[str, Any] = {"access_token": SECRET, "token_type": "Bearer", "expires_in": 3600, "refresh_token": SECRET}
    for name in chance.sample([*made, "error", "error_description"], chance.choice((0, 1, 2))):
        made[name] = chance.choice(TOKEN_VALUES)
    text = (
        orjson.dumps(made) if chance.random() < 0.8 else chance.choice((SECRET, "", "[]", "{", "{}" * 40_000)).encode()
    )
    data = bytearray(text)
    for _ in range(chance.choice((0, 0, 1, 3)) if data else 0):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        found = read_token(bytes(data))
    except TokenError as wrong:
        said = str(wrong)
    else:
        assert is_token(found.value), found.value
        assert found.seconds is None or found.seconds >= 0, found.seconds
        return "token"
    assert said.isprintable(), said
    assert SECRET not in said, "a secret in an error"
    return "token: wrong"
