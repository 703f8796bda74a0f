"""The rule of each field that is not part of the message itself, and of address fields.

Each function reads its field out of the given ones, gives None (or an empty tuple) where it is unset, and
raises MalformedMail with the field's name where it breaks its rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from streamq.mail.address import Address, WrongAddress
from streamq.mail.headers import MAX_FIELD, is_too_long
from streamq.mail.mailboxes import Mailboxes, read_mailboxes
from streamq.mail.numbers import exact, written
from streamq.mail.times import YEAR_MS, moment_ms, span_ms
from streamq.mail.values import CONTROL, json_object, line, listed, plain, text, wrong

__all__ = [
    "MAX_HEADER",
    "MAX_MAILBOX",
    "NAME",
    "Given",
    "body",
    "choice",
    "collapse",
    "expires_at_ms",
    "fits",
    "flag",
    "header_line",
    "key",
    "mailbox",
    "mailboxes",
    "metadata",
    "name",
    "send_at_ms",
    "tags",
    "traceparent",
    "variables",
]

Given = Mapping[bytes, bytes]  # the fields that are set: an empty value was left out

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
FLAG = frozenset({b"0", b"1"})
MAX_KEY = 256  # octets of id, tenant, traceparent
MAX_TAGS = 50
MAX_TAG = 100  # characters
MAX_TAGS_SIZE = 4 * MAX_TAGS * MAX_TAG + 4096
MAX_METADATA = 8192
MAX_VARS = 1_000_000  # octets: a parser of JSON keeps all others waiting while it reads
COLLAPSE_MS = 60_000  # where a mail does not say how long
# Octets of one value that goes into a header: parsing it must not hold up a worker. Some 4,000 addresses: more than
# that are the field `recipients`.
MAX_HEADER = MAX_FIELD
MAX_MAILBOX = 1000  # octets of a field that holds one address: 254 of it, and a name
NOBODY = Mailboxes()
USUAL = 256  # octets of a sender that is kept


def key(given: Given, field: bytes) -> str | None:
    """`id`, `tenant`: at most 256 octets of text without control characters (so without the NUL that parts
    them in the idempotency key)."""
    return plain(field, given[field], MAX_KEY) if field in given else None


def name(given: Given, field: bytes) -> str | None:
    """`route`: whether there is one of that name is the worker's to know."""
    if field not in given:
        return None
    value = plain(field, given[field], MAX_KEY)
    if not NAME.fullmatch(value):
        raise wrong(field, value, "not a name (letters, digits, '.', '_', '-', at most 63)")
    return value


def choice(given: Given, field: bytes, choices: frozenset[bytes]) -> str | None:
    if field not in given:
        return None
    if given[field] not in choices:
        raise wrong(field, given[field], f"not one of {', '.join(sorted(map(bytes.decode, choices)))}")
    return given[field].decode("ascii")


def flag(given: Given, field: bytes, *, default: bool) -> bool:
    """`sensitive`, `auto_text`: 0 or 1."""
    found = choice(given, field, FLAG)
    return default if found is None else found == "1"


def traceparent(given: Given) -> str | None:
    """Carried, not read: W3C Trace Context lets later versions look otherwise."""
    value = key(given, b"traceparent")
    if value and not value.isascii():
        raise wrong(b"traceparent", value, "not ASCII")
    return value


def tags(given: Given) -> list[str]:
    if b"tags" not in given:
        return []
    value = given[b"tags"]
    if len(value) > MAX_TAGS_SIZE:
        raise wrong(b"tags", value, f"longer than {MAX_TAGS_SIZE} bytes")
    found = listed(b"tags", value)
    if len(found) > MAX_TAGS:
        raise wrong(b"tags", value, f"more than {MAX_TAGS}")
    if any(len(tag) > MAX_TAG for tag in found):
        raise wrong(b"tags", value, f"one longer than {MAX_TAG} characters")
    if any(map(CONTROL.search, found)):
        raise wrong(b"tags", value, "control characters in it")
    return found


def metadata(given: Given) -> dict[str, object] | None:
    """For events: numbers as they were written (numbers.py)."""
    if b"metadata" not in given:
        return None
    if len(given[b"metadata"]) > MAX_METADATA:
        raise wrong(b"metadata", given[b"metadata"], f"longer than {MAX_METADATA} bytes")
    return json_object(b"metadata", given[b"metadata"], written)


def variables(given: Given) -> dict[str, object]:
    """`vars`: whole numbers of any size are what they are."""
    value = given.get(b"vars", b"{}")
    if len(value) > MAX_VARS:
        raise wrong(b"vars", value, f"longer than {MAX_VARS} bytes")
    return json_object(b"vars", value, exact)


def _time(given: Given, field: bytes, read: Callable[[str], int], from_ms: int, at_ms: int) -> int:
    try:
        found = from_ms + read(text(field, given[field]))
    except ValueError as broken:
        raise wrong(field, given[field], str(broken)) from None
    if found > at_ms + YEAR_MS:
        raise wrong(field, given[field], "more than a year ahead")
    return found


def _moment(given: Given, at: bytes, after: bytes, at_ms: int) -> int | None:
    """A moment given as itself or as seconds from the entry's time."""
    if at in given:
        found = _time(given, at, moment_ms, 0, at_ms)
        if after in given:
            raise wrong(after, given[after], f"{at.decode()} says it already")
        return found
    return _time(given, after, span_ms, at_ms, at_ms) if after in given else None


def send_at_ms(given: Given, at_ms: int) -> int | None:
    """`send_at` or `delay`; None where that moment is not after the entry's own."""
    found = _moment(given, b"send_at", b"delay", at_ms)
    return found if found is not None and found > at_ms else None


def expires_at_ms(given: Given, at_ms: int) -> int | None:
    """`expires_at` or `ttl`; at least 0. It may have passed: such a mail expires when it is admitted."""
    found = _moment(given, b"expires_at", b"ttl", at_ms)
    return None if found is None else max(found, 0)


def collapse(given: Given) -> tuple[str, int]:
    """`collapse_key`, "" where it is unset, and `collapse_seconds` in ms."""
    found = key(given, b"collapse_key") or ""
    if b"collapse_seconds" not in given:
        return found, COLLAPSE_MS
    wait = _time(given, b"collapse_seconds", span_ms, 0, 0)
    if not found:
        raise wrong(b"collapse_seconds", given[b"collapse_seconds"], "says nothing without collapse_key")
    return found, wait


def _short(field: bytes, value: bytes) -> None:
    if len(value) > MAX_HEADER:
        raise wrong(field, value, f"longer than {MAX_HEADER} bytes")


def header_line(given: Given, field: bytes) -> str:
    """`subject`: one line of text, "" where it is unset."""
    if field not in given:
        return ""
    _short(field, given[field])
    return line(field, given[field])


def body(given: Given, field: bytes) -> bytes:
    """`text`, `html`: UTF-8 with any line ends, b"" where it is unset."""
    value = given.get(field, b"")
    if not value.isascii():
        text(field, value)
    return value


def mailboxes(given: Given, field: bytes) -> Mailboxes:
    """A comma list as in RFC 5322, or a JSON array of strings with one address each."""
    if field not in given:
        return NOBODY
    value = given[field]
    _short(field, value)
    try:
        return read_mailboxes(field, value)
    except WrongAddress as broken:
        raise wrong(field, broken.shown, str(broken)) from None


def fits(given: Given, field: bytes, made: Callable[[], str]) -> None:
    """Raises MalformedMail where the header field that is made of that one is longer than servers take in one piece."""
    if field in given and is_too_long(len(given[field]), made):
        raise wrong(field, given[field], f"longer than {MAX_HEADER} bytes as a header, encoded and folded")


def mailbox(given: Given, field: bytes) -> Address | None:
    """`from`, `sender`, `envelope_from`: one address."""
    value = given.get(field)
    if value is not None and len(value) > MAX_MAILBOX:
        raise wrong(field, value, f"longer than {MAX_MAILBOX} bytes, and it holds one address")
    return None if value is None else _usual(field, value) if len(value) <= USUAL else _mailbox(given, field)


@lru_cache(maxsize=1024)
def _usual(field: bytes, value: bytes) -> Address | None:
    """Many mails have the same sender."""
    return _mailbox({field: value}, field)


def _mailbox(given: Given, field: bytes) -> Address | None:
    found = mailboxes(given, field)
    if len(found) > 1:
        raise wrong(field, given[field], "more than one address")
    return found[0] if found else None
