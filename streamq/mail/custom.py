"""The field `headers`: what a producer may add to a composed mail.

May not be set, because the mail has a field of its own for it: From, Sender, Reply-To, To, Cc, Subject.
May not be set, because it says how the body is written, and that is decided here: MIME-Version, Content-*.
May not be set, because it would betray or forge: Bcc, Resent-Bcc, Received, Return-Path, Delivered-To,
X-Original-To, Authentication-Results, DKIM-Signature, DomainKey-Signature, ARC-*.
May be overridden, in their RFC 5322 form, once each: Date, Message-ID. All others are taken as they are, encoded
where they must be; References, In-Reply-To, List-* and their like are read by programs and can't be: they are ASCII.
"""

from __future__ import annotations

import re

from streamq.errors import MalformedMail
from streamq.mail.headers import LONGEST, can_stand
from streamq.mail.values import BREAKING, json_object, wrong

__all__ = ["FORBIDDEN", "FORBIDDEN_PREFIXES", "OVERRIDABLE", "Headers", "custom_headers"]

FORBIDDEN = frozenset(
    {
        *("from", "sender", "reply-to", "to", "cc", "subject"),
        *("mime-version",),
        *("bcc", "resent-bcc", "received", "return-path", "delivered-to", "x-original-to"),
        *("authentication-results", "dkim-signature", "domainkey-signature"),
    }
)
FORBIDDEN_PREFIXES = ("content-", "arc-")

MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
OVERRIDABLE = {
    "date": re.compile(  # RFC 5322, section 3.3, without its obsolete zones
        rf"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ?)?[0-9]{{1,2}} (?:{MONTH}) [0-9]{{4}}"
        r" [0-9]{2}:[0-9]{2}(?::[0-9]{2})? [+-][0-9]{4}"
    ),
    "message-id": re.compile(r"<(?=[!-~]{3,248}>)[^<>@\s]+@[^<>@\s]+>"),  # section 3.6.4
}
NAME = re.compile(r"[!-9;-~]{1,76}")  # section 2.2: any printable but the colon

Headers = list[tuple[str, str]]
FIELD = b"headers"


def custom_headers(value: bytes) -> tuple[Headers, dict[str, str]]:
    """`headers` as (name, value) pairs in their order, and the overrides by lower-case name.

    Raises MalformedMail. No CR, LF or NUL stands in any value.
    """
    headers: Headers = []
    overrides: dict[str, str] = {}
    for name, given in json_object(FIELD, value).items():
        lower = name.lower()
        _check_name(name, lower)
        values = given if isinstance(given, list) else [given]
        for one in values:
            if not isinstance(one, str):
                raise wrong(FIELD, name, "the value is neither text nor an array of texts")
            if BREAKING.search(one):
                raise _broken(name, one, "CR, LF or NUL in it")
            if not (one := one.strip(" \t")):
                continue
            if rule := OVERRIDABLE.get(lower):
                if lower in overrides:
                    raise wrong(FIELD, name, "may stand only once")
                if not rule.fullmatch(one):
                    raise _broken(name, one, "not in its RFC 5322 form")
                overrides[lower] = one
            elif not can_stand(name, one):
                raise _broken(name, one, f"not ASCII, or a word of more than {LONGEST} characters: it can't be encoded")
            else:
                headers.append((name, one))
    return headers, overrides


def _check_name(name: str, lower: str) -> None:
    if not NAME.fullmatch(name):
        raise wrong(FIELD, name, "not a header's name")
    if lower in FORBIDDEN or lower.startswith(FORBIDDEN_PREFIXES):
        raise wrong(FIELD, name, "may not be set here")


def _broken(name: str, value: str, why: str) -> MalformedMail:
    return wrong(FIELD, f"{name}: {value[:200]}", why)
