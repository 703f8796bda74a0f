"""What is sent to every server, by every way: the mails of the oracle, and how each must end.

A case becomes a mail by intake (`parse`), as an XADD with `raw` would. Its recipient's domain names case and
way, so that what a server stored is found without a word in the mail itself.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from bench.mta import SIZE
from streamq.mail import Mail, parse
from streamq.smtp.content import PIECE
from streamq.smtp.letter import Letter

__all__ = ["CASES", "CHANGED", "REFUSED", "Case", "letter"]

FROM = "shop@sender.example"
HEAD = (
    b"From: Shop <shop@sender.example>\r\nDate: Fri, 22 Nov 2024 01:06:01 +0000\r\nMessage-ID: <1@sender.example>\r\n"
)
UTF8 = "Grüße aus Köln, 中文, עברית\r\n".encode()


@dataclass(frozen=True)
class Case:
    """`local` is the recipient's local part, `envelope_from` `<>` for the null sender; `more`: further fields."""

    name: str
    raw: bytes
    envelope_from: str = FROM
    local: str = "bob"
    more: tuple[tuple[bytes, bytes], ...] = ()

    def fields(self) -> dict[bytes, bytes]:
        return {**({b"raw": self.raw} if self.raw else {}), **dict(self.more)}


def _body(name: str, body: bytes) -> Case:
    return Case(name, HEAD + b"Subject: " + name.encode() + b"\r\n\r\n" + body)


def _head(name: str, lines: bytes, envelope_from: str = FROM, local: str = "bob") -> Case:
    return Case(name, HEAD + lines + b"\r\nHello\r\n", envelope_from, local)


def _dsn(name: str, local: str) -> Case:
    """With all parameters of RFC 3461; not asking for a report of success, which would be mail, too."""
    asked = ((b"dsn_notify", b"failure,delay"), (b"dsn_ret", b"hdrs"), (b"dsn_envid", b"order+1=2 \\ ~"))
    return Case(name, HEAD + b"\r\nHello\r\n", local=local, more=asked)


def _composed(name: str, **fields: object) -> Case:
    """Built by us; attachments as (name, type, content id, bytes)."""
    given: dict[str, object] = {
        "from": "Shöp <shop@sender.example>",
        "to": "bob@rcpt.example",
        "subject": name,
        **fields,
    }
    if files := given.get("attachments"):
        assert isinstance(files, list)
        members = ("filename", "content_type", "content_id", "content")
        given["attachments"] = orjson.dumps([dict(zip(members, each, strict=True)) for each in files]).decode()
    return Case(name, b"", more=tuple((field.encode(), str(value).encode()) for field, value in given.items()))


def _file(data: bytes, name: str = "a.bin", cid: str = "") -> tuple[str, str, str, str]:
    return name, "image/png" if cid else "application/octet-stream", cid, b64encode(data).decode()


def _filled(name: str, wire_size: int) -> Case:
    """A body of lines that begin with dots, so that the stuffed content is `wire_size` bytes to the octet."""
    head = HEAD + b"Subject: filled\r\n\r\n"
    many, rest = divmod(wire_size - len(head), 68)
    line = b"." + b"x" * 64 + b"\r\n"  # 67 octets, 68 on the wire
    return Case(name, head + line * (many - 1) + b"y" * (68 + rest - 2) + b"\r\n")


def _lines(line: bytes, size: int) -> bytes:
    return line * (size // len(line))


EVERY_BYTE = bytes(range(256)) * 80
SMUGGLED = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<evil@x.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nHi\r\n"
LINE_ENDS = {"crlf": b"\r\n", "lf": b"\n", "cr": b"\r", "crcrlf": b"\r\r\n", "lfcr": b"\n\r"}
LONG = (998, 999, 2047, 2048, 2049, 10_000, 70_000)  # Postfix cuts at 2,048, and mends it again
CASES = [
    _body("ascii", b"Hello,\r\n\r\nyour order has left.\r\n"),
    _body("eight-bit-latin", bytes(range(160, 256)) + b"\r\n"),
    _body("eight-bit-utf8", UTF8 * 3),
    _body("every-byte", b"".join(bytes([sign]) * 3 + b" " for sign in range(1, 256) if sign not in (10, 13)) + b"\r\n"),
    Case("utf8-header", HEAD + "Subject: Grüße\r\n\r\n".encode() + UTF8),
    Case("utf8-address", HEAD + "Subject: Grüße\r\nTo: jürgen@x.example\r\n\r\n".encode() + UTF8, local="jürgen"),
    _head("utf8-sender", b"Subject: utf8 sender\r\n", envelope_from="jürgen@sender.example"),
    *(_body(f"line-of-{size}", b"x" * size + b"\r\nshort\r\n") for size in LONG),
    Case("header-of-998", HEAD + b"X-Long: " + b"x" * 990 + b"\r\nSubject: long\r\n\r\nHello\r\n"),
    Case("header-of-5000", HEAD + b"X-Long: " + b"x" * 4_992 + b"\r\nSubject: long\r\n\r\nHello\r\n"),
    Case("header-folded", HEAD + b"X-Long: " + b"x\r\n\ty \r\n  " * 300 + b"z\r\nSubject: long\r\n\r\nHello\r\n"),
    _body("dot-alone", b"one\r\n.\r\ntwo\r\n"),
    _body("dot-first", b".\r\nafter it\r\n"),
    _body("dot-last", b"before it\r\n.\r\n"),
    _body("dots", b".\r\n..\r\n...\r\n.\r\n\r\n.\r\n. \r\n.a\r\n..b\r\n .\r\na.\r\n"),
    _body("dot-no-final-newline", b"before it\r\n."),
    Case("dot-header", b".X-First: 1\r\n" + HEAD + b".X-Dot: 2\r\nSubject: dot\r\n\r\nHello\r\n"),
    _body("empty-body", b""),
    Case("header-only", HEAD + b"Subject: bare\r\n"),
    Case("header-only-no-newline", HEAD + b"Subject: bare"),
    _body("blank-lines", b"\r\n" * 7),
    _body("blank-lines-around", b"\r\n\r\n\r\ntext\r\n\r\n\r\n"),
    _body("blanks", b" \r\n\t\r\n  x  \r\n\ty\t\r\n"),
    _body("no-final-newline", b"last line, not ended"),
    _body("megabyte", _lines(b"The quick brown fox jumps over the lazy dog.\r\n", 1_000_000)),
    _body("dots-of-four-pieces", _lines(b".\r\n", 4 * PIECE)),
    *(_filled(f"piece{extra:+d}", PIECE + extra) for extra in (-2, -1, 0, 1, 2)),
    *(_filled(f"two-pieces{extra:+d}", 2 * PIECE + extra) for extra in (-1, 0, 1)),
    _body("bare-lf", b"one\n.\ntwo\n\n..\nthree"),
    _body("bare-cr", b"one\r.\rtwo\r\r"),
    _body("mixed-ends", b"one\r\r\ntwo\n\r\n\rthree\r\n\r.\r\n\n.\r\n"),
    _body("smuggling", b"one\r\n.\nMAIL FROM:<>\nRCPT TO:<evil@x.example>\nDATA\n\n.\r\nQUIT\r\n"),
    *(
        _body(f"dot-{before}-{after}", b"one" + LINE_ENDS[before] + b"." + LINE_ENDS[after] + SMUGGLED)
        for before in LINE_ENDS
        for after in LINE_ENDS
    ),
    _composed("composed-text", text="Grüße\n.\nüber " + "x " * 700),
    _composed("composed-both", text="one\r.\r", html="<p>" + "ü" * 2000, cc="Jörg <j@x.example>, k@x.example"),
    _composed("composed-html", html="<p>one <a href='https://x.example/'>two</a>" * 40),
    _composed("composed-attachment", text="See\n", attachments=[_file(EVERY_BYTE, "Übersicht " * 12 + ".pdf")]),
    _composed("composed-image", html="<img src=cid:a>", attachments=[_file(EVERY_BYTE, cid="a"), _file(b".\r\n.\n")]),
    _composed("composed-only-files", attachments=[_file(b""), _file(b"\0"), _file(b"\r\n.\r\n")]),
    Case("lf-only", (HEAD + b"Subject: lf\r\n\r\none\r\n.\r\n").replace(b"\r\n", b"\n")),
    Case("mbox-line", b"From shop Fri Nov 22 01:06:01 2024\n" + HEAD + b"\r\nFrom here\r\n>From there\r\n"),
    Case("runs-into-body", HEAD + b"Subject: no gap\r\nThis is no header, it is text.\r\nX: but this looks so\r\n"),
    Case("received", b"Received: by b with SMTP id 1;\r\n\tFri, 22 Nov 2024 01:06:01 +0000\r\n" + HEAD + b"\r\nx\r\n"),
    Case("named-trace", b"Delivered-To: a@x.example\r\nX-Original-To: a@x.example\r\n" + HEAD + b"\r\nx\r\n"),
    _head("blank-before-colon", b"Subject : obsolete\r\nX-Empty:\r\nX-Next: 1\r\n"),
    _head("dropped-here", b"Bcc: s@x.example,\r\n t@x.example\r\nReturn-Path: <a@x.example>\r\nSubject: d\r\n"),
    _head("dropped-there", b"Content-Length: 3\r\nEnvelope-To: a@x.example\r\nDelivery-Date: x\r\nSubject: d\r\n"),
    _head("null-sender", b"Subject: bounce\r\n", envelope_from="<>"),
    _head("quoted-blank", b"Subject: q\r\n", local='"two words"'),
    _head("quoted-dots", b"Subject: q\r\n", local='".two..dots."'),
    _head("quoted-quote", b"Subject: q\r\n", local=r'"a\"b\\c"'),
    _head("quoted-sender", b"Subject: q\r\n", envelope_from='"two words"@sender.example'),
    _head("odd-local", b"Subject: q\r\n", local="a+b=c/d'e&f#g$h*i-j?k^l_m`n{o}p~q"),
    _head("long-local", b"Subject: q\r\n", local="l" * 64),
    _dsn("dsn", "bob"),
    _dsn("dsn-odd", "a+b=c/d'e&f"),
    _dsn("dsn-quoted", r'"two \"words\""'),
    _dsn("dsn-utf8", "jürgen"),
]  # fmt: skip

# Refused mails, and what the queue does with each
REFUSED: dict[str, tuple[Case, str]] = {
    case.name: (case, action)
    for case, action in (
        (_head("busy", b"", local="busy"), "retry"),
        (_head("unknown", b"", local="unknown"), "fail"),
        (_head("sender", b"", envelope_from="refused@sender.example"), "fail"),
        (_head("content", b"X-Refuse: yes\r\n"), "fail"),
        (Case("large-and-refused", HEAD + b"X-Refuse: yes\r\n\r\n" + _lines(b"0123456789\r\n", 3 * PIECE)), "fail"),
        (_body("oversize", _lines(b"0123456789\r\n", SIZE)), "fail"),
    )
}


def _without(*names: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        head, gap, body = content.partition(b"\n\n")
        lines = [line for line in head.split(b"\n") if line.partition(b":")[0].lower() not in names]
        return b"\n".join(lines) + gap + body

    return change


def _gap(content: bytes) -> bytes:
    return content + b"\n"


# What a server makes of a mail by its own rules, whoever sends it (docs/smtp.md); nothing else may differ.
CHANGED: dict[tuple[str, str], Callable[[bytes], bytes]] = {
    ("exim", "header-only"): _gap,
    ("exim", "header-only-no-newline"): _gap,
    ("exim", "dropped-there"): _without(b"envelope-to", b"delivery-date"),
    ("postfix", "dropped-there"): _without(b"content-length"),
    ("postfix", "blank-before-colon"): lambda content: content.replace(b"Subject : ", b"Subject: "),
}


def letter(case: Case, way: str) -> Letter:
    """The case as its mail, to a recipient of this way's own."""
    to = f"{case.local}@{case.name.replace('+', 'plus')}.{way}.example"
    mail: Mail = parse(
        {
            **case.fields(),
            b"envelope_from": case.envelope_from.encode(),
            b"envelope_to": to.encode(),
        },
        entry="n1732237561000-0",
        at_ms=1_732_237_561_000,
        salt=b"salt",
        max_bytes=25_000_000,
    )
    return Letter(
        envelope_from=mail.envelope_from,
        envelope_to=mail.envelope_to,
        content=mail.content(),
        site=mail.site,
        priority=1,  # the most urgent are not sent ahead, whatever the route says
        eight_bit=mail.eight_bit,
        smtputf8=mail.smtputf8,
        dsn=mail.dsn,
    )
