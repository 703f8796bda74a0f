"""What a mail asks of the next hop: reports about its delivery (RFC 3461), TLS all the way (RFC 8689)."""

from __future__ import annotations

from typing import NamedTuple

from streamq.mail import rules
from streamq.mail.rules import Given
from streamq.mail.values import listed, text, wrong

__all__ = ["DSN_FIELDS", "Dsn", "read_dsn", "read_require_tls", "xtext"]

DSN_FIELDS = (b"dsn_notify", b"dsn_ret", b"dsn_envid")
WHEN = ("success", "failure", "delay")
RETURNED = frozenset({b"full", b"hdrs"})
MAX_ENVID = 100  # characters as xtext, RFC 3461, section 4.4
MAX_NOTIFY = 100  # octets of the field
XTEXT = {code: f"+{code:02X}" for code in (*range(33), ord("+"), ord("="), 127)}


class Dsn(NamedTuple):
    """`notify`: "NEVER", or of SUCCESS, FAILURE, DELAY with commas; `ret`: "FULL", "HDRS"; `envid`: printable ASCII,
    not yet xtext. "" is unset."""

    notify: str
    ret: str
    envid: str


def xtext(value: str) -> str:
    """RFC 3461, section 4, of ASCII."""
    return value.translate(XTEXT)


def read_dsn(given: Given) -> Dsn | None:
    """None where a mail has none of the fields. Raises MalformedMail."""
    if given.keys().isdisjoint(DSN_FIELDS):
        return None
    returned = rules.choice(given, b"dsn_ret", RETURNED)
    return Dsn(_notify(given), (returned or "").upper(), _envid(given))


def read_require_tls(given: Given) -> bool:
    return rules.flag(given, b"require_tls", default=False)


def _notify(given: Given) -> str:
    field = b"dsn_notify"
    if field not in given:
        return ""
    value = given[field]
    asked = listed(field, value) if len(value) <= MAX_NOTIFY else []
    if asked == ["never"]:
        return "NEVER"
    if not asked or not set(asked) <= set(WHEN):
        raise wrong(field, value, f"not never, nor a list of {', '.join(WHEN)}")
    return ",".join(when.upper() for when in WHEN if when in asked)


def _envid(given: Given) -> str:
    field = b"dsn_envid"
    if field not in given:
        return ""
    if len(given[field]) > MAX_ENVID:
        raise wrong(field, given[field], f"longer than {MAX_ENVID} characters")
    value = text(field, given[field])
    if not (value.isascii() and value.isprintable()):
        raise wrong(field, value, "not printable ASCII")
    if len(xtext(value)) > MAX_ENVID:
        raise wrong(field, value, f"longer than {MAX_ENVID} characters as xtext (each blank, + and = takes three)")
    return value
