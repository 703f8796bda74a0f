"""Octets of headers and bodies as text, whatever stands in them: nothing here raises."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from email.errors import MessageError
from email.header import decode_header
from typing import TypeVar

__all__ = ["SURPRISES", "clean", "decoded", "header_text", "sure", "text_of_bytes"]

T = TypeVar("T")

# What the standard library's `email` raises on hostile input, as was seen; a bug of another kind may show itself.
SURPRISES = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError, MessageError)
# Names that a mail may give as its charset and that are none, or take time by the square of the length.
NO_CHARSETS = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"})
LONG = 20_000  # characters of a header: beyond that nobody reads
ENCODED = 2_000  # of one with encoded words: the standard library reads half ones in the square of that


def sure(found: Callable[[], T], other: T) -> T:
    """What it gives, or `other` where the mail is too strange for it."""
    try:
        return found()
    except SURPRISES:
        return other


def clean(text: str) -> str:
    """Without lone surrogates, which UTF-8 has no octets for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def decoded(data: bytes, charset: str | None) -> str:
    """By that charset where there is such a one; else UTF-8, else Windows-1252, as mail programs do."""
    name = sure(lambda: codecs.lookup(charset or "utf-8").name, "utf-8")
    if name in NO_CHARSETS or name == "ascii":
        name = "utf-8"
    if name == "utf-8":
        return text_of_bytes(data)
    try:
        return clean(data.decode(name, "replace"))
    except SURPRISES:  # rot13, hex: codecs of another kind
        return text_of_bytes(data)


def text_of_bytes(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def header_text(value: str | bytes) -> str:
    """Unfolded, encoded words (RFC 2047) decoded."""
    text = text_of_bytes(value[:LONG]) if isinstance(value, bytes) else clean(value[:LONG])
    text = text.replace("\r", "").replace("\n", "").replace("\t", " ").strip()
    if "=?" not in text or len(text) > ENCODED:
        return text
    try:
        pieces = decode_header(text)
    except SURPRISES:
        return text
    found = "".join(piece if isinstance(piece, str) else _piece(piece, charset) for piece, charset in pieces)
    return found or text


def _piece(data: bytes, charset: str | None) -> str:
    # Beside an encoded word plain text comes as octets: what was no ASCII there, as escapes.
    return decoded(data, charset) if charset else sure(lambda: clean(data.decode("raw_unicode_escape")), "\ufffd")
