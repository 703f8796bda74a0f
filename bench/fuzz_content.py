"""What stands in a mail that strangers write, for `python -m bench fuzz --target intake`: whole messages, html, files;
and what of it may never be, however the wire cuts it.

SMTP smuggling lives on servers that take another sequence than CRLF.CRLF for the end of a mail, and on clients that let
one pass: so each message is stuffed as for the wire, held against the most lenient of such servers, cut anywhere, and
read again by the sink's reader, which must find the same octets and stop at the same one.
"""

from __future__ import annotations

import random
import re
from email.parser import BytesParser
from email.policy import compat32, default

from streamq.mail.wire import PIECE as CRLF_PIECE
from streamq.sink.content import Content
from streamq.smtp.content import PIECE, stuffed

__all__ = ["files_of", "held_on_the_wire", "html", "named", "raw"]

ENDS = (
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\r\n\r\n",
    b"\x0b",
    b"\x0c",
    b"\xc2\x85",
    b"\r\n ",
    b"",
)
LINES = (
    b"From: a@x.de", b"To: b@x.de", b"Cc: Bob <bob@x.de>,", b"Bcc: secret@x.de", b"bcc : secret@x.de",
    b"BCC:secret@x.de", b"Resent-Bcc: secret@x.de", b"Resent-To: c@x.de", b"Resent-From: a@x.de",
    b"Return-Path: <secret@x.de>", b"Subject: Hi", b"Subject:", b" folded", b"\tBcc: secret@x.de",
    b"Date: Fri, 22 Nov 2024 01:06:01 +0000", b"Message-ID: <1@x.de>", b"Message-ID:",
    b"From someone Fri Nov 22 01:06:01 2024", b">From x", b"no header at all", b"X: y", b": x", b"X-\xff: y",
    b"Sender: s@x.de", b"Received: by x", b"To: a@x.de, b@x.de", b"To: =?utf-8?q?=0d=0a?= <b@x.de>",
    b"To: undisclosed:;", b"\xef\xbb\xbfBcc: secret@x.de", b".", b"..", b". ", b"", b"", b"QUIT",
    b"MAIL FROM:<evil@x.de>", b"BDAT 0 LAST",
)  # fmt: skip
HEAD = b"From: a@x.de\r\nTo: b@x.de\r\n"
LENIENT_END = re.compile(rb"[\r\n]\0*\.\0*[\r\n]")
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
GONE = ("bcc", "resent-bcc", "return-path")
LARGE = 50  # each so manieth of them is longer than a piece
TAGS = (
    "<p>", "</p>", "<br>", "<li>", "<ul>", "</ul>", "<ol>", "<blockquote>", "</blockquote>", "<table>", "<tr>", "<td>",
    "<a href='https://x.de/?a=1&b=2'>", '<a href="javascript:x">', "</a>", "<img alt='x\ny' src=x>", "<pre>", "</pre>",
    "<script>", "</script>", "<style>", "<!--", "-->", "<!", "<?", "<", ">", "&nbsp;", "&#13;&#10;.&#13;&#10;", "&#0;",
    "&#x110000;", "&#xd800;", "&lt;", "&bogus;", "<div style='display:none'>", "</div>", '"', "'", "=", "<svg>", "<p ",
    "<title>", "Hello", " ", "\r\n.\r\n", "\n", "\t", "\u2028", "\x00", "é", "\U0001f4e7", "a" * 1100,
)  # fmt: skip
NAMES = (
    "a", "bücher", "書類", ".pdf", ".tar.gz", " ", ".", "..", "/", "\\", "../../etc/passwd", "%41", "%0d%0a",
    "=?utf-8?q?x?=", '"', "'", "''", "\u202etxt.exe", "\u0301", "\U0001f4e7", "a" * 60, "é" * 60, "x;y", "a=b", "*0*=",
    "UTF-8''a", "~", ":", "con", "\u2028", "\xa0", "\ufeff",
)  # fmt: skip
TYPES = (
    "application/pdf", "text/plain; charset=utf-8", 'text/csv; x="a\\"b;c"', "message/rfc822", "image/png", "text/html",
    "application/octet-stream; name*0=x", "message/partial; id=x; number=1", "TEXT/PLAIN;a=b;c=d", "multipart/mixed",
)  # fmt: skip
CONTENTS = ("YQ==", "", "Lg0KLg0K", "DQouDQo=", "LgouCg==", "AAAA", "/////w==", "YQ", "Y Q==", "RnJvbTogYQoKLgo=")


def raw(chance: random.Random) -> bytes:
    """A message that its producer built, or what it took for one."""
    head = HEAD if chance.random() < 0.7 else b""
    lines = [chance.choice(LINES) + chance.choice(ENDS) for _ in range(chance.choice((0, 1, 3, 6)))]
    body = [chance.choice(LINES) + chance.choice(ENDS) for _ in range(chance.choice((0, 1, 3, 6)))]
    if chance.randrange(LARGE) == 0:
        piece = chance.choice((PIECE, PIECE, CRLF_PIECE))
        room = piece - chance.randint(0, 12) - len(head) - sum(map(len, lines))
        body.insert(0, (b"x" * 70 + b"\r\n") * (room // 72) + b"y" * (room % 72) + chance.choice(ENDS))
        body.append(chance.choice((b"\r", b"\n", b".", b"\r\n.", b"\r\n..")) * chance.randint(1, 6))
    return head + b"".join(lines) + chance.choice(ENDS) + b"".join(body)


def html(chance: random.Random) -> bytes:
    made = "".join(chance.choice(TAGS) for _ in range(chance.choice((1, 4, 12, 60))))
    return made.encode()


def files_of(chance: random.Random) -> list[dict[str, str]]:
    """Attachments with names that file systems, terminals and mail readers stumble over."""
    made = []
    for _ in range(chance.choice((1, 1, 2))):
        one = {"content": chance.choice(CONTENTS if chance.random() < 0.4 else CONTENTS[:1])}
        if chance.random() < 0.9:
            one["filename"] = "".join(chance.choice(NAMES) for _ in range(chance.choice((1, 2, 3, 6))))
        if chance.random() < 0.4:
            one["content_type"] = chance.choice(TYPES)
        if chance.random() < 0.2:
            one["content_id"] = chance.choice(("a@b", "<a@b>", "a", "a b", "@", "a@b@c"))
        if chance.random() < 0.2:
            one["disposition"] = chance.choice(("inline", "attachment", "x"))
        made.append(one)
    return made


def held_on_the_wire(content: bytes, chance: random.Random, *, whole: bool) -> None:
    """`whole`: its producer made it. Raises `AssertionError`."""
    assert content.endswith(b"\r\n"), content[-20:]
    assert not BARE.search(content), "a bare CR or LF, or NUL"
    sent = stuffed(content) + b".\r\n"
    end = LENIENT_END.search(b"\r\n" + sent)
    assert end is not None
    assert end.end() == len(sent) + 1, f"it ends early: {sent[max(end.start() - 30, 0) : end.end()]!r}"
    cuts = sorted(chance.randrange(len(sent) + 1) for _ in range(chance.choice((0, 1, 3, 8))))
    reader, behind = Content(len(content)), b""
    for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        assert reader.text is None or a == b, "a reader finds its end too early"
        if a < b:
            at = reader.take(sent[a:b], 0)
            behind = sent[a + at : b]
    assert reader.text == b"\r\n" + content, "a reader finds another mail"
    assert not behind, f"{behind[:40]!r} stand behind its end"
    if whole:
        head = BytesParser(policy=compat32).parsebytes(content, headersonly=True)
        left = [name for name in GONE if name in head]
        assert not left, f"{left} went along"


def named(content: bytes, files: list[dict[str, str]]) -> None:
    """Each attachment has the name that it was given, to a reader of RFC 2231, and no other beside it."""
    parts = BytesParser(policy=default).parsebytes(content).walk()
    found = sorted(filter(None, [_bare(part.get_filename("")) for part in parts if part.get_content_disposition()]))
    wanted = sorted(filter(None, [_bare(one.get("filename", "")) for one in files]))
    assert found == wanted, f"files {wanted} are called {found}"


def _bare(name: str) -> str:
    """The standard library strips blanks of any kind, and quotes around what was percent-encoded."""
    return name.strip().strip('"').strip()
