"""How long a mail holds a processor: to be judged and composed, in µs, about, by the lengths of its fields alone.

Known before anything is read of it, so that whoever has a hundred mails in hand can do other things between them, and
leaves to a thread what takes long. Never timed: the same mail goes the same way on a machine that is busy. (A template
says itself what it costs, when it is filled in: effort.py.)
"""

from __future__ import annotations

from collections.abc import Mapping

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
HEAD_ENDS = (b"\n\n", b"\n\r\n")

FEW = 512  # octets of addresses
LETTER_US = 3  # of an address
OCTETS_A_US = 200  # of what is looked at a few times, in C
SIGNS_A_US = 30  # of line ends that become two octets, and of what is encoded since it is not ASCII
LETTERS_A_US = 10  # of html that becomes text, and of a header
LISTS = frozenset({b"to", b"cc", b"bcc", b"reply_to", b"envelope_to"})  # of addresses, read in Python
MANY = LISTS | {b"recipients", b"headers"}


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
    return took if total <= LITTLE else took + _of_long(fields)


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
