"""Parameters of MIME fields: file names of any script and length (RFC 2183, RFC 2231).

A name that every reader takes as it stands is a quoted string and nothing else. Any other is given twice: as
`filename*`, percent-encoded UTF-8, over several lines where it is long, for readers of RFC 2231 (Gmail, Apple
Mail, Thunderbird, Outlook since 2010), and beside it as a plain name in ASCII with the same ending, for those
that know neither. Encoded words in a quoted string, which some mailers write, are what RFC 2047, section 5
forbids, and filters take them for an attempt to hide a name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import combining, normalize
from urllib.parse import quote

__all__ = ["filename"]

ROOM = 76  # of a line: 78 without the blank before a parameter and the semicolon behind it
PLAIN = ROOM - len('filename=""')
STARRED = ROOM - len("filename*=UTF-8''")
FIRST = ROOM - len("filename*0*=UTF-8''")
NEXT = ROOM - len("filename*99*=")
KEPT = 256  # names of some kilobytes each: a mail asks for its own twice, when it is weighed and when it is composed
LONGEST_ENDING = 12  # with its dot: `.numbers` and `.tar.gz` are endings, a sentence with a dot has none

# Percent signs are decoded and `=?` is taken for an encoded word by readers that they were not written for;
# quoted pairs are left in the name by others
SIMPLE = re.compile(r"(?!.*=\?)[ !#$&-\[\]-~]+")
ATTRIBUTE_SAFE = "!#$&+-.^_`|~"  # RFC 5987, section 3.2.1: attr-char, with letters and digits
CONTINUING = "89AB"  # the first digit of an octet that begins no character
LEAST_COMBINING = "\u0300"
ODD = re.compile(r'[^ -~]|["%\\]|=\?')


@lru_cache(maxsize=KEPT)
def filename(name: str) -> tuple[str, ...]:
    """The parameters that carry `name`, in their order, without blanks or semicolons between them; none for "".

    `name` holds no control character. The starred form stands first: the standard library's parser, for one,
    takes the first of several.
    """
    if not name:
        return ()
    if len(name) <= PLAIN and SIMPLE.fullmatch(name):
        return (f'filename="{name}"',)
    return (*_starred(name), f'filename="{_fallback(name)}"')


def _starred(name: str) -> list[str]:
    encoded = quote(name, safe=ATTRIBUTE_SAFE)
    if len(encoded) <= STARRED:
        return [f"filename*=UTF-8''{encoded}"]
    pieces: list[str] = []
    at, room = 0, FIRST
    while at < len(encoded):
        end = _cut(encoded, at + room)
        pieces.append(encoded[at:end])
        at, room = end, NEXT
    pieces[0] = f"UTF-8''{pieces[0]}"
    return [f"filename*{at}*={piece}" for at, piece in enumerate(pieces)]


def _cut(encoded: str, end: int) -> int:
    """The last place up to there that is in no character: many readers decode each piece by itself."""
    if end >= len(encoded):
        return len(encoded)
    if (at := encoded.rfind("%", end - 2, end)) >= 0:
        end = at
    while encoded[end] == "%" and encoded[end + 1] in CONTINUING:
        end -= len("%80")
    return end


def _fallback(name: str) -> str:
    """ASCII, at most PLAIN long, with the name's ending, by which its reader picks a program."""
    if not name.isascii():
        name = "".join([sign for sign in normalize("NFKD", name) if sign < LEAST_COMBINING or not combining(sign)])
    plain = ODD.sub("_", name)
    if len(plain) <= PLAIN:
        return plain
    stem, dot, ending = plain.rpartition(".")
    if not dot or len(ending) >= LONGEST_ENDING:
        return plain[:PLAIN].rstrip()
    return stem[: PLAIN - 1 - len(ending)].rstrip() + dot + ending
