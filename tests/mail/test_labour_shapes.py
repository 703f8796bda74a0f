"""What was measured of mails that are short and take long: labour knows of each of them.

The table holds CPU time of `parse` and `built` in µs, measured once, nothing kept of an earlier one, so that no test
depends on how busy a machine is. Each was 90 to 570 µs to those who went by lengths alone.
"""

from __future__ import annotations

import base64

import orjson
import pytest

from streamq.mail.labour import LIGHT_US, labour

USUAL = {b"from": b"a@b.example", b"to": b"x@y.example", b"subject": b"Hi", b"text": b"Hello"}
FROM = b"From: a@b.example\n"
MANY = b",".join([b"a@b"] * 2000)
NAMED = [f"u{number}@y{number}.example" for number in range(350)]
FILES = [{"content": "", "filename": chr(0x4E00 + at) * 255, "content_type": "a/b" + ";x=y"} for at in range(100)]
TYPES = ["a/b" + "".join(f";a{at}=b" for at in range(80))] * 100


def of(name: str, value: object) -> dict[bytes, bytes]:
    return USUAL | {name.encode(): value if isinstance(value, bytes) else orjson.dumps(value)}


SHAPES = {
    "attachments": (of("attachments", FILES), 13_200),
    "attachments that are short": (of("attachments", [{"content": "", "filename": "a.pdf"}] * 100), 930),
    "types": (of("attachments", [{"content": "", "content_type": each} for each in TYPES]), 8_200),
    "attachments, escaped": (
        of("attachments", orjson.dumps(FILES[:50]).decode().encode("ascii", "backslashreplace")),
        6_700,
    ),
    "raw": ({b"raw": FROM + b"To: " + MANY + b"," + MANY + b"\n\nHello"}, 29_800),
    "raw, folded": ({b"raw": FROM + b"Cc:\r\n\t" + MANY.replace(b"@b,", b"@b,\r\n ") + b"\r\n\r\nHello"}, 28_400),
    "raw, with CR": ({b"raw": b"RESENT-To : " + MANY + b"\r\rHello"}, 15_100),
    "headers": (of("headers", {"Resent-To": MANY.decode()}), 17_900),
    "headers, named": (of("headers", {"mail-followup-TO": ", ".join(NAMED)}), 4_100),
    "headers, escaped": (of("headers", b'{"\\u0052esent-to":"%b"}' % MANY), 15_700),
    "headers, many": (of("headers", {f"X-{number}": "\u00fc" for number in range(400)}), 1_800),
    "recipients": (
        {b"from": b"a@b.example", b"recipients": orjson.dumps([{"to": "x"}] * 740), b"text": b"Hello"},
        2_900,
    ),
    "subject": (of("subject", "\u00fc".encode() * 20_000), 1_500),
    "tags": (of("tags", b"," * 24_000), 1_100),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_takes_long_though_it_is_short_is_known(shape: str) -> None:
    fields, measured = SHAPES[shape]
    assert measured <= labour(fields) <= 6 * measured


def test_what_is_written_like_them_and_is_quick_stays_light() -> None:
    head = b"".join(b"Received: from a@b, c@d by e%d.example\n\tid 1\n" % number for number in range(200))
    assert labour({b"raw": head + b"To: bob@example.net\n\n" + b"To: a@b\n" * 3000}) < LIGHT_US / 10
    assert labour({b"raw": FROM + b"To: " + MANY + b"\n\n", b"envelope_to": b"bob@example.net"}) < LIGHT_US / 10
    replied = {"In-Reply-To": "<a@b.example>", "References": " ".join(["<a@b.example>"] * 150)}
    assert labour(of("headers", replied)) < LIGHT_US / 10
    content = base64.b64encode(b"x" * 200_000).decode()
    assert labour(of("attachments", [{"content": content, "filename": "ü.pdf"}])) < LIGHT_US / 2
    assert labour(of("attachments", [{"content": content[:20_000], "filename": "a.pdf"}] * 20)) < LIGHT_US
    assert labour(of("recipients", [{"to": "bob@example.net", "vars": {"name": "Bob"}}] * 30)) < LIGHT_US / 4
