"""How long a mail holds a processor: to be judged and composed, in µs, about, by the lengths of its fields and by signs
in them that are counted in no time.

Known before anything is read of it, so that whoever has a hundred mails in hand can do other things between them, and
leaves to a thread what takes long. Never timed: the same mail goes the same way on a machine that is busy. (A template
says itself what it costs, when it is filled in: effort.py.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamq.mail.attachments import MAX_ATTACHMENTS
from streamq.mail.custom import ADDRESSES
from streamq.mail.mailboxes import is_kept
from streamq.mail.plain import MAX_HTML, MAX_TAGS
from streamq.mail.raw import MAX_HEAD

__all__ = ["LIGHT_US", "LONG_US", "as_text", "labour"]

LIGHT_US = 5_000  # as long as others may be kept waiting
LONG_US = 100_000  # what takes longer is left for when nobody waits for it
LEAST_US = 50
TEMPLATE_US = 1_000  # of a light one
TAG_US = 4  # of an html that has to become a text, too
LITTLE = 8192  # octets: nothing that is this short takes long but an html
LONG_VARS = 65_536
LONG_HEAD = 16_384  # of a raw
LINE = 998  # octets, at most
HEAD_ENDS = (b"\n\n", b"\n\r\n")

FEW = 512  # octets of addresses
LETTER_US = 3  # of an address
OCTETS_A_US = 200  # of what is looked at a few times, in C
SIGNS_A_US = 30  # of line ends that become two octets, and of what is encoded since it is not ASCII
LETTERS_A_US = 10  # of html that becomes text, and of a header
LISTS = frozenset({b"to", b"cc", b"bcc", b"reply_to", b"envelope_to"})  # of addresses, read in Python
MANY = LISTS | {b"recipients", b"headers"}

# Of what is judged piece by piece in Python, measured of the slowest that are taken: 740 recipients, 500 headers, a
# hundred attachments, a hundred names of 255 letters that are not ASCII
RECIPIENT_US = 9
QUOTE_US = 2  # four stand around a header and its name
ATTACHMENT_US = 20
NAMED = 1_500  # octets of an attachment's name and type, which are at most 255 and 500 letters
NAMED_A_US = 4  # of them, where they have to be encoded, or have parameters
LARGE = 1_000_000  # octets: nobody looks through it for what is 1 ms of its 5
SLOWER = {b"subject": 5, b"metadata": 15, b"tags": 15}  # octets a µs
PIECED = frozenset({b"attachments", b"headers", b"raw", b"recipients"})

# Headers that hold addresses; their names may be written with escapes (`\u0054o`)
HOLDING = (*sorted(name.encode() for name in ADDRESSES if not name.startswith("resent-")), b"resent-")
ESCAPED = re.compile(rb"\\u00[2-7]")
NAMING = re.compile(rb"\n(?:resent-)?(?:to|cc|bcc|from|sender)[ \t]*+:((?>(?:[^\n]++|\n[ \t])*))")  # in lower case


def labour(fields: Mapping[bytes, bytes]) -> int:
    """`fields` as an entry has them, those of a child with what it shares. Lists of addresses that have just been read
    take none."""
    total = sum(map(len, fields.values()))
    took = LEAST_US + total // OCTETS_A_US
    if b"template" in fields:
        took += TEMPLATE_US
    if (html := fields.get(b"html")) and not fields.get(b"text") and fields.get(b"auto_text") != b"0":
        took += as_text(html)
    if sum([len(fields[name]) for name in LISTS if name in fields]) > FEW:
        took += _of_lists(fields)
    for name, octets_a_us in SLOWER.items():
        if value := fields.get(name):
            took += len(value) // octets_a_us
    if not PIECED.isdisjoint(fields):
        took += _of_pieces(fields)
    return took if total <= LITTLE else took + _of_long(fields)


def _of_pieces(fields: Mapping[bytes, bytes]) -> int:
    took = 0
    if attachments := fields.get(b"attachments"):
        took += _of_attachments(attachments)
    if (headers := fields.get(b"headers")) and len(headers) <= LITTLE:
        took += headers.count(b'"') * QUOTE_US
        took += len(headers) * LETTER_US if len(headers) > FEW and _is_holding(headers) else 0
    if (recipients := fields.get(b"recipients")) and len(recipients) <= LITTLE:
        took += recipients.count(b"{") * RECIPIENT_US
    if (raw := fields.get(b"raw")) and not fields.get(b"envelope_to"):
        took += _of_head(raw)
    return took


def _of_attachments(value: bytes) -> int:
    """Base64 has no brace; what of a large one are names, only a parser could tell."""
    many, at = 0, value.find(b"{")
    while at >= 0 and many < MAX_ATTACHMENTS:  # `count` is ten times as slow where there are few
        many, at = many + 1, value.find(b"{", at + 1)
    odd = len(value) > LARGE or not value.isascii() or b"%" in value or b"\\" in value or b";" in value
    return many * ATTACHMENT_US + (min(len(value), many * NAMED) // NAMED_A_US if odd else 0)


def _is_holding(headers: bytes) -> bool:
    lower = headers.lower()
    return any(name in lower for name in HOLDING) or ESCAPED.search(lower) is not None


def _of_head(raw: bytes) -> int:
    """Of the addresses in it, where they say who gets it. What is no header ends it sooner than an empty line, or not
    at all in what is looked at: then it is long (below)."""
    end = LONG_HEAD
    for mark in (
        HEAD_ENDS if raw.find(b"\r", 0, LINE) < 0 else HEAD_ENDS[::-1]
    ):  # the likely one shortens the other's way
        at = raw.find(mark, 0, end)
        end = at if at >= 0 else end
    if end == LONG_HEAD < len(raw):
        return 0
    head = b"\n" + raw[:end].lower()
    if b"\r" in head:
        head = head.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    octets = sum(map(len, NAMING.findall(head)))
    return octets * LETTER_US if octets > FEW else 0


def _of_lists(fields: Mapping[bytes, bytes]) -> int:
    lists = [fields[name] for name in LISTS if name in fields]
    return sum(len(value) * LETTER_US for value in lists if len(value) <= LITTLE and not is_kept(value))


def as_text(html: bytes) -> int:
    """Of an html that has to become a text."""
    tags = html.count(b"<") if len(html) <= MAX_HTML else MAX_TAGS + 1
    return tags * TAG_US + len(html) // LETTERS_A_US if tags <= MAX_TAGS else 0


def _of_long(fields: Mapping[bytes, bytes]) -> int:
    took = 0
    for name, value in fields.items():
        if len(value) > LITTLE and name in MANY and not (name in LISTS and is_kept(value)):
            took += LONG_US
    for name in (b"text", b"html"):
        if value := fields.get(name, b""):
            took += (value.count(b"\n") + value.count(b"\r")) // SIGNS_A_US
            took += 0 if value.isascii() else len(value) // SIGNS_A_US
    if raw := fields.get(b"raw", b""):
        took += (raw.count(b"\n") + raw.count(b"\r")) // SIGNS_A_US
        if len(raw) > LONG_HEAD and all(raw.find(end, 0, LONG_HEAD) < 0 for end in HEAD_ENDS):
            took += min(len(raw), MAX_HEAD) // LETTERS_A_US if fields.get(b"envelope_to") else LONG_US
    return took + LONG_US * (len(fields.get(b"vars", b"")) > LONG_VARS)
