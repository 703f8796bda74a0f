"""The field `headers`: what a producer may add to a composed mail.

May not be set, because the mail has a field of its own for it: From, Sender, Reply-To, To, Cc, Subject.
May not be set, because it says how the body is written, and that is decided here: MIME-Version, Content-*.
May not be set, because it would betray or forge: Bcc, Resent-Bcc, Received, Return-Path, Delivered-To,
X-Original-To, Authentication-Results, DKIM-Signature, DomainKey-Signature, ARC-*.
May be overridden, in their RFC 5322 form, once each: Date, Message-ID.
Hold addresses (Resent-To, Disposition-Notification-To, …): written as To is, whatever script the names are of; they
name nobody who gets the mail.
May stand once in a mail (References, List-Unsubscribe, …): an array becomes one field.
All others are taken as they are, encoded where they must be; References, In-Reply-To, List-* and their like are read by
programs and can't be: they are ASCII.
"""

from __future__ import annotations

import re
from datetime import date
from functools import partial

from streamq.mail.address import Address, WrongAddress, parse_list
from streamq.mail.headers import MAX_FIELD, address_field, fault, is_too_long, text_field
from streamq.mail.stamp import DAYS, MONTHS
from streamq.mail.twice import doubled
from streamq.mail.values import BREAKING, json_object, wrong

__all__ = ["ADDRESSES", "FORBIDDEN", "FORBIDDEN_PREFIXES", "OVERRIDABLE", "Headers", "custom_headers"]

FORBIDDEN = frozenset(
    {
        *("from", "sender", "reply-to", "to", "cc", "subject"),
        *("mime-version",),
        *("bcc", "resent-bcc", "received", "return-path", "delivered-to", "x-original-to"),
        *("authentication-results", "dkim-signature", "domainkey-signature"),
    }
)
FORBIDDEN_PREFIXES = ("content-", "arc-")

# RFC 5322, section 3.6.6; RFC 8098, section 2.1; the rest as mailers have them
ADDRESSES = frozenset(
    {
        *("resent-from", "resent-sender", "resent-to", "resent-cc", "resent-reply-to"),
        *("disposition-notification-to", "return-receipt-to", "x-confirm-reading-to", "errors-to"),
        *("mail-followup-to", "mail-reply-to"),
    }
)
# At most one of each (RFC 5322, section 3.6; RFC 2369, section 3; RFC 2919, section 3; RFC 8058; RFC 3834, section 5),
# and what stands between the elements of an array; "": it may have one only.
ONCE = {
    **dict.fromkeys(("references", "in-reply-to"), " "),
    **dict.fromkeys(
        ("list-help", "list-unsubscribe", "list-subscribe", "list-post", "list-owner", "list-archive"), ", "
    ),
    **dict.fromkeys(("list-id", "list-unsubscribe-post", "auto-submitted", "date", "message-id"), ""),
    **dict.fromkeys(("resent-date", "resent-message-id", "autocrypt"), ""),
}

MONTH = "|".join(MONTHS[1:])
FWS = "[ \t]+"
WORDS = r"(?:[ \t!-'*-\[\]-~]|\\[ -~])*"  # of a comment (section 3.2.2), in which one more may stand
COMMENT = rf"\({WORDS}(?:\({WORDS}\){WORDS})*\)"
DATE = re.compile(  # RFC 5322, section 3.3, without its obsolete zones; `… +0000 (UTC)` is how many write it
    rf"(?:({'|'.join(DAYS)}),[ \t]*)?([0-9]{{1,2}}){FWS}({MONTH}){FWS}([0-9]{{4}})"
    rf"{FWS}([0-9]{{2}}):([0-9]{{2}})(?::([0-9]{{2}}))?{FWS}[+-]([0-9]{{2}})([0-9]{{2}})(?:[ \t]*{COMMENT})?",
    re.I | re.A,
)
LONGEST_DATE = 100
TOO_LONG = f"longer than {MAX_FIELD} bytes, encoded and folded"
FIRST_YEAR = 1900  # the same
ATOMS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"  # dots wherever: so do some that make ids
# Section 3.6.4, and the quoted left side of RFC 2822
MESSAGE_ID = re.compile(rf'<(?=[!-~]{{3,248}}>)(?:{ATOMS}|"[!#-\[\]-~]+")@(?:{ATOMS}|\[[!-Z^-~]*\])>')
# Of mails of others, who make ids as they like
IDS = re.compile(r"<[!-;=?-~]+>(?:[ \t]*<[!-;=?-~]+>)*")
OVERRIDABLE = {"date": DATE, "message-id": MESSAGE_ID}
NAME = re.compile(r"[!-9;-~]{1,76}")  # section 2.2: any printable but the colon
KEYS = frozenset({"autocrypt", "autocrypt-gossip"})  # whose last part, `keydata=`, is base64 with blanks or without
BASE64 = re.compile(r"[A-Za-z0-9+/= \t]+")
KEY_LINE = 72

Headers = list[tuple[str, str | tuple[Address, ...]]]
FIELD = b"headers"


def custom_headers(value: bytes) -> tuple[Headers, dict[str, str]]:
    """`headers` as (name, value) pairs in their order, a value of addresses as these, and the overrides by lower-case
    name.

    Raises MalformedMail. No CR, LF or NUL stands in any value.
    """
    headers: Headers = []
    overrides: dict[str, str] = {}
    had: set[str] = set()
    known = json_object(FIELD, value)
    if (twice := doubled(value, known)) is not None:
        raise wrong(FIELD, twice, "a name twice in one object: give an array")
    for name, given in known.items():
        lower = name.lower()
        _check_name(name, lower)
        texts = _texts(name, given)
        if not texts:
            continue
        if lower in ADDRESSES or lower in ONCE:
            joint = ONCE.get(lower, ", ")
            if lower in had or (len(texts) > 1 and not joint):
                raise wrong(FIELD, texts[-1], f"{name}: may stand only once")
            had.add(lower)
            texts = [joint.join(texts)]
        for text in texts:
            if lower in OVERRIDABLE:
                overrides[lower] = _formed(name, lower, text)
            elif lower in ADDRESSES:
                headers.append((name, _addresses(name, text)))
            else:
                headers.append((name, _formed(name, lower, text)))
    return headers, overrides


def _texts(name: str, given: object) -> list[str]:
    """Of one member, those that are not empty."""
    found = []
    for one in given if isinstance(given, list) else [given]:
        if not isinstance(one, str):
            raise wrong(FIELD, name, "the value is neither text nor an array of texts")
        if BREAKING.search(one):
            raise wrong(FIELD, one, f"{name}: CR, LF or NUL in it")
        if one := one.strip(" \t"):
            found.append(one)
    return found


def _check_name(name: str, lower: str) -> None:
    if not NAME.fullmatch(name):
        raise wrong(FIELD, name, "not a header's name")
    if lower in FORBIDDEN or lower.startswith(FORBIDDEN_PREFIXES):
        raise wrong(FIELD, name, "may not be set here")


def _addresses(name: str, text: str) -> tuple[Address, ...]:
    """An encoded word may stand for a name, never over an address (RFC 2047, section 5)."""
    try:
        if found := parse_list(text):
            if is_too_long(len(text.encode()), partial(address_field, name, found)):
                raise WrongAddress(TOO_LONG, "")
            return tuple(found)
        raise WrongAddress("no address in it", text)
    except WrongAddress as broken:
        raise wrong(FIELD, broken.shown, f"{name}: {broken}") from None


def _formed(name: str, lower: str, text: str) -> str:
    if lower in ("date", "resent-date"):
        why = _date_fault(text)
    elif lower in ("message-id", "resent-message-id"):
        why = "" if MESSAGE_ID.fullmatch(text) else "not in its RFC 5322 form (<left@right>)"
    else:
        text = _folded_key(text) if lower in KEYS else text
        why = fault(name, text)
        if not why and lower in ("references", "in-reply-to") and not IDS.fullmatch(text):
            why = "not message ids in angle brackets, with blanks between them (<left@right>)"
        if not why and is_too_long(len(text.encode()), partial(text_field, name, text)):
            why = TOO_LONG
    if why:
        raise wrong(FIELD, text, f"{name}: {why}")
    return text


def _folded_key(text: str) -> str:
    """With a blank wherever its key may be folded: a key of 1,000 letters is one word else."""
    front, mark, key = text.partition("keydata=")
    if not BASE64.fullmatch(key):
        return text
    key = key.replace(" ", "").replace("\t", "")
    return " ".join([front + mark, *(key[at : at + KEY_LINE] for at in range(0, len(key), KEY_LINE))])


def _date_fault(text: str) -> str:
    if len(text) > LONGEST_DATE or not (found := DATE.fullmatch(text)):
        return "not in its RFC 5322 form (Fri, 22 Nov 2024 01:06:01 +0000)"
    weekday, day, month, year, hour, minute, second, away_hours, away_minutes = found.groups()
    try:
        then = date(int(year), MONTHS.index(month.title()), int(day))
    except ValueError:
        return "no such day"
    if then.year < FIRST_YEAR:
        return f"before the year {FIRST_YEAR}"
    if weekday and weekday.title() != DAYS[then.weekday()]:
        return f"that day is a {DAYS[then.weekday()]}"
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60 or int(away_hours) > 23 or int(away_minutes) > 59:
        return "no such time of day"
    return ""
