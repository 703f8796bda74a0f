"""What a mail asks of the next hop: reports about its delivery (RFC 3461), TLS all the way (RFC 8689)."""

from __future__ import annotations

import re
from typing import NamedTuple

from streamq.mail import rules
from streamq.mail.rules import Given
from streamq.mail.values import listed, text, wrong

__all__ = ["DSN_FIELDS", "Dsn", "read_dsn", "read_require_tls", "xtext"]

DSN_FIELDS = (b"dsn_notify", b"dsn_ret", b"dsn_envid", b"dsn_orcpt")
WHEN = ("success", "failure", "delay")
RETURNED = frozenset({b"full", b"hdrs"})
MAX_ENVID = 100  # characters as xtext, RFC 3461, section 4.4
MAX_ORCPT = 500  # RFC 3461, section 4.2
ORCPT = re.compile(r"[A-Za-z0-9-]{1,40};[!-~]{1,500}")
MAX_NOTIFY = 100  # octets of the field
XTEXT = {code: f"+{code:02X}" for code in (*range(33), ord("+"), ord("="), 127)}


class Dsn(NamedTuple):
    """`notify`: "NEVER", or of SUCCESS, FAILURE, DELAY with commas; `ret`: "FULL", "HDRS"; `envid`: printable ASCII;
    `orcpt`: "rfc822;bob@example.org", the recipient as the sender knows it, printable ASCII; neither is xtext yet. ""
    is unset."""

    notify: str
    ret: str
    envid: str
    orcpt: str = ""


def xtext(value: str) -> str:
    """RFC 3461, section 4, of ASCII."""
    return value.translate(XTEXT)


def read_dsn(given: Given) -> Dsn | None:
    """None where a mail has none of the fields. Raises MalformedMail."""
    if given.keys().isdisjoint(DSN_FIELDS):
        return None
    returned = rules.choice(given, b"dsn_ret", RETURNED)
    return Dsn(_notify(given), (returned or "").upper(), _envid(given), _orcpt(given))


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
    """Blanks inside stay as they are; at its ends no field of a report can hold them (RFC 3464, 2.2.1), and what comes
    back would be another id."""
    value = _repeated(given, b"dsn_envid", MAX_ENVID)
    if value != value.strip():
        raise wrong(b"dsn_envid", value, "a blank at one of its ends")
    if value and len(xtext(value)) > MAX_ENVID:
        raise wrong(
            b"dsn_envid", value, f"longer than {MAX_ENVID} characters as xtext (each blank, + and = takes three)"
        )
    return value


def _orcpt(given: Given) -> str:
    value = _repeated(given, b"dsn_orcpt", MAX_ORCPT)
    if value and not ORCPT.fullmatch(value):
        raise wrong(b"dsn_orcpt", value, "not a type, a semicolon, an address without blanks (rfc822;bob@example.org)")
    if len(xtext(value)) > MAX_ORCPT:
        raise wrong(b"dsn_orcpt", value, f"longer than {MAX_ORCPT} characters as xtext (each + and = takes three)")
    return value


def _repeated(given: Given, field: bytes, most: int) -> str:
    """What reports repeat: printable ASCII, "" where it is unset."""
    if field not in given:
        return ""
    if len(given[field]) > most:
        raise wrong(field, given[field], f"longer than {most} characters")
    value = text(field, given[field])
    if not (value.isascii() and value.isprintable()):
        raise wrong(field, value, "not printable ASCII")
    return value
