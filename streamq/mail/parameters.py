"""Parameters of MIME fields: file names of any script and length (RFC 2183, RFC 2231).

A name that every reader takes as it stands is a quoted string and nothing else. Any other is given twice: as
`filename*`, percent-encoded UTF-8, over several lines where it is long, for readers of RFC 2231 (Gmail, Apple
Mail, Thunderbird, Outlook since 2010), and beside it as a plain name in ASCII with the same ending, for those
that know neither. Encoded words in a quoted string, which some mailers write, are what RFC 2047, section 5
forbids, and filters take them for an attempt to hide a name.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

__all__ = ["filename"]

ROOM = 76  # of a line: 78 without the blank before a parameter and the semicolon behind it
PLAIN = ROOM - len('filename=""')
STARRED = ROOM - len("filename*=UTF-8''")
FIRST = ROOM - len("filename*0*=UTF-8''")
NEXT = ROOM - len("filename*99*=")
LONGEST_ENDING = 12  # with its dot: `.numbers` and `.tar.gz` are endings, a sentence with a dot has none

# Percent signs are decoded and `=?` is taken for an encoded word by readers that they were not written for;
# quoted pairs are left in the name by others
SIMPLE = re.compile(r"(?!.*=\?)[ !#$&-\[\]-~]+")
ATTRIBUTE_SAFE = "!#$&+-.^_`|~"  # RFC 5987, section 3.2.1: attr-char, with letters and digits
ODD = re.compile(r'[^ -~]|["%\\]|=\?')


def filename(name: str) -> list[str]:
    """The parameters that carry `name`, in their order, without blanks or semicolons between them.

    `name` holds no control character. The starred form stands first: the standard library's parser, for one,
    takes the first of several.
    """
    if len(name) <= PLAIN and SIMPLE.fullmatch(name):
        return [f'filename="{name}"']
    return [*_starred(name), f'filename="{_fallback(name)}"']


def _starred(name: str) -> list[str]:
    encoded = quote(name, safe=ATTRIBUTE_SAFE)
    if len(encoded) <= STARRED:
        return [f"filename*=UTF-8''{encoded}"]
    pieces: list[str] = []
    piece, room = "", FIRST
    for sign in name:  # a character is not split: many readers decode each piece by itself
        step = quote(sign, safe=ATTRIBUTE_SAFE)
        if len(piece) + len(step) > room:
            pieces.append(piece)
            piece, room = "", NEXT
        piece += step
    pieces.append(piece)
    pieces[0] = f"UTF-8''{pieces[0]}"
    return [f"filename*{at}*={piece}" for at, piece in enumerate(pieces)]


def _fallback(name: str) -> str:
    """ASCII, at most PLAIN long, with the name's ending, by which its reader picks a program."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    plain = ODD.sub("_", plain)
    if len(plain) <= PLAIN:
        return plain
    stem, dot, ending = plain.rpartition(".")
    if not dot or len(ending) >= LONGEST_ENDING:
        return plain[:PLAIN].rstrip()
    return stem[: PLAIN - 1 - len(ending)].rstrip() + dot + ending
