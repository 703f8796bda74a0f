"""`python -m bench compose`: from the fields of an entry to the bytes of its mail, ours against the standard library's.

The input of both is the same: the fields as a worker reads them, the attachment (20,480 bytes by chance) base64 in
JSON. Ours is the whole of intake (`parse`: every rule of every field) and `content()`; theirs is `EmailMessage` with
`policy.SMTP`, from decoded fields to `as_bytes()`, nothing checked. Both by turns, so that what else the machine
does meets both, in CPU time; of each the median of the rounds, and the least.

plain       subject, text
both        subject, text, html
attachment  the same and the attachment: asked is a ratio of 20
html        html alone, from which we make a text, and they do not (a new one each time: nothing is remembered)
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from email import policy
from email.message import EmailMessage
from typing import Any

import orjson

from streamq.mail import parse

__all__ = ["add", "compose", "inputs", "ours", "table", "theirs"]

Fields = dict[bytes, bytes]

ROUNDS = 15
ROUND_S = 0.05  # of each, about
SIZE = 20_480
TEXT = "Thank you for your order. It leaves us today, and you will hear from us then.\n" * 12
HTML = "<tr><td>Item 4711, blue</td><td><a href='https://shop.example/i/4711'>look</a></td><td>3.20</td></tr>\n" * 20


def inputs() -> dict[str, Fields]:
    plain: Fields = {
        b"id": b"order-18-receipt",
        b"from": b"My Shop <shop@example.com>",
        b"to": "Bob Müller <bob@example.net>".encode(),
        b"subject": "Your order 18 – thank you".encode(),
        b"text": TEXT.encode(),
    }
    both = {**plain, b"html": f"<table>\n{HTML}</table>\n".encode()}
    file = {
        "filename": "receipt-18.pdf",
        "content_type": "application/pdf",
        "content": b64encode(random.Random(1).randbytes(SIZE)).decode(),
    }
    html = {name: value for name, value in both.items() if name != b"text"}
    return {"plain": plain, "both": both, "attachment": {**both, b"attachments": orjson.dumps([file])}, "html": html}


def ours(fields: Fields) -> bytes:
    return parse(
        fields, entry="11732237561234-0", at_ms=1_732_237_561_234, salt=b"salt", max_bytes=25_000_000
    ).content()


def theirs(fields: Fields) -> bytes:
    mail = EmailMessage(policy=policy.SMTP)
    for name, field in (("From", b"from"), ("To", b"to"), ("Subject", b"subject")):
        mail[name] = fields[field].decode()
    mail["Date"] = "Fri, 22 Nov 2024 01:06:01 +0000"
    mail["Message-ID"] = "<0123456789abcdef@example.com>"
    if b"text" in fields:
        mail.set_content(fields[b"text"].decode())
        if b"html" in fields:
            mail.add_alternative(fields[b"html"].decode(), subtype="html")
    else:
        mail.set_content(fields[b"html"].decode(), subtype="html")
    for file in orjson.loads(fields.get(b"attachments", b"[]")):
        main, _, sub = file["content_type"].partition("/")
        mail.add_attachment(b64decode(file["content"]), maintype=main, subtype=sub, filename=file["filename"])
    return mail.as_bytes()


def _seconds(build: Callable[[Fields], bytes], inputs: list[Fields]) -> float:
    begun = time.process_time()
    for fields in inputs:
        build(fields)
    return (time.process_time() - begun) / len(inputs)


def _varied(fields: Fields, many: int, start: int) -> list[Fields]:
    """Where there is html alone, one that was not seen before."""
    if b"text" in fields:
        return [fields] * many
    return [{**fields, b"html": fields[b"html"] + b"<!--%d-->" % number} for number in range(start, start + many)]


def _compare(fields: Fields) -> dict[str, float]:
    builds = {"ours": ours, "theirs": theirs}
    many = {name: max(1, round(ROUND_S / _seconds(build, [fields] * 3))) for name, build in builds.items()}
    took: dict[str, list[float]] = {name: [] for name in builds}
    for number in range(ROUNDS):
        for name, build in builds.items():
            took[name].append(_seconds(build, _varied(fields, many[name], number * many[name])))
    middle = {name: statistics.median(found) for name, found in took.items()}
    least = {name: min(found) for name, found in took.items()}
    return {
        "ours_us": middle["ours"] * 1e6,
        "theirs_us": middle["theirs"] * 1e6,
        "ratio": middle["theirs"] / middle["ours"],
        "least_ours_us": least["ours"] * 1e6,
        "least_theirs_us": least["theirs"] * 1e6,
        "least_ratio": least["theirs"] / least["ours"],
        "bytes": len(ours(fields)),
    }


def compose() -> dict[str, Any]:
    return {name: _compare(fields) for name, fields in inputs().items()}


def table(results: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(results.values())))
    lines = ["            " + "".join(name.rjust(17) for name in columns)]
    lines += [name.ljust(12) + "".join(f"{one[each]:17.1f}" for each in columns) for name, one in results.items()]
    return "\n".join(lines)


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("compose", parents=[common], help="from fields to bytes, against email.policy.SMTP")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    found = compose()
    return {"results": found}, True, table(found)
