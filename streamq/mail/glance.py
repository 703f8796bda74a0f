"""A glance at a mail whose lane is closed: enough to park it, at a tenth of the price of `parse`.

A burst to a site that takes fifty mails a second stands in front of everybody else's mail. What parks is
looked at again when its turn comes; until then its recipient, its id and its content's hash are all that
admission needs. Only the plain case is glanced at; everything else is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from streamq.mail.identity import content_hash, digest

__all__ = ["Glance", "glance", "plain_recipient", "plain_site", "site_and_id"]

# No field here decides when, which way, or by which rule a mail goes.
PLAIN = frozenset(
    {
        *(b"id", b"raw", b"envelope_from", b"envelope_to", b"from", b"to", b"subject", b"text", b"html"),
        *(b"reply_to", b"sender", b"headers", b"auto_text", b"attachments"),
        *(b"metadata", b"traceparent", b"sensitive", b"on_ambiguous"),
    }
)
ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
LABEL = rb"[A-Za-z0-9]++(?>(?:-++[A-Za-z0-9]++)*)"
ADDRESS = re.compile(rb"%b(?>(?:\.%b)*)@(%b(?>(?:\.%b)+))" % (ATOM, ATOM, LABEL, LABEL))
ID = re.compile(rb"[!#-\[\]-~]{1,256}")  # what JSON shows as it is
MOST = 128
LARGE = 65_536  # bytes: it is hashed before its id is known


@dataclass(slots=True)
class Glance:
    """`seen` is digest and content hash (b"" without an id); `event` as in `Mail`, as far as it was looked at."""

    id: str
    site: str
    seen: bytes
    event: bytes


def plain_recipient(fields: Mapping[bytes, bytes]) -> str:
    """The recipient where nothing but one plain address says who gets the mail, whatever else its fields hold; ""
    where only `parse` can tell."""
    found = _plain(fields)
    return found[0].decode() if found is not None else ""


def plain_site(fields: Mapping[bytes, bytes]) -> str:
    """That one's domain."""
    found = _plain(fields)
    return found[1].decode().lower() if found is not None else ""


def _plain(fields: Mapping[bytes, bytes]) -> re.Match[bytes] | None:
    to = fields.get(b"envelope_to")
    if not to:
        if fields.get(b"raw") or fields.get(b"cc") or fields.get(b"bcc") or fields.get(b"recipients"):
            return None
        to = fields.get(b"to", b"")
    return _address(to)


def _only(plain: Mapping[bytes, bytes]) -> re.Match[bytes] | None:
    """The recipient of a mail that has no other fields than `PLAIN`."""
    return _address(plain.get(b"envelope_to") or (b"" if b"raw" in plain else plain.get(b"to", b"")))


def _address(to: bytes) -> re.Match[bytes] | None:
    return ADDRESS.fullmatch(to) if len(to) <= MOST else None


def glance(fields: Mapping[bytes, bytes], max_bytes: int) -> Glance | None:
    """None where only `parse` can tell."""
    if not fields.keys() <= PLAIN:
        return None
    found = _only(fields)
    if found is None or sum(map(len, fields.values())) > max_bytes:
        return None
    site = found[1].decode().lower()
    event = b'"rcpt":"%b","site":"%b"' % (found[0], site.encode())
    name = fields.get(b"id")
    if not name:
        return Glance("", site, b"", event)
    if not ID.fullmatch(name):
        return None
    given = {field: value for field, value in fields.items() if value}
    text = name.decode()
    return Glance(text, site, digest("", text) + content_hash(given), event)


def site_and_id(flat: Sequence[bytes], max_bytes: int) -> tuple[str, bytes]:
    """Of a mail's fields as they stand in its stream (name, value, …): where it goes, and its producer's id (b""
    without one). ("", b"") where only `parse` can tell, where a field stands there twice, or where a mail is large and
    has an id: a hundred under the id of one of 25 MB, each compared with it, would hold up the server for seconds."""
    names = tuple(flat[::2])
    where = _places(names) if len(names) <= len(PLAIN) and PLAIN.issuperset(names) else None
    if where is None:
        return "", b""
    first, second, named = where
    found = _address((first and flat[first]) or (second and flat[second]) or b"")
    if found is None:
        return "", b""
    name, size = flat[named] if named else b"", sum(map(len, flat[1::2]))
    if size > max_bytes or (name and (size > LARGE or not ID.fullmatch(name))):
        return "", b""
    return _site(found[1]), name


@lru_cache(64)
def _places(names: tuple[bytes, ...]) -> tuple[int, int, int] | None:
    """Of a mail with these fields, all of them plain (no other name is kept here), where among names and values its
    recipient stands, or else does, and its id; 0: nowhere. None where one stands there twice. (Most mails of a producer
    have the same fields.)"""
    if len(set(names)) < len(names):
        return None
    places = {name: 2 * at + 1 for at, name in enumerate(names)}
    to = 0 if b"raw" in places else places.get(b"to", 0)
    return places.get(b"envelope_to", 0), to, places.get(b"id", 0)


@lru_cache(256)
def _site(domain: bytes) -> str:
    return domain.decode().lower()
