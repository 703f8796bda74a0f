"""The arguments of SMTP commands: RFC 5321 section 4.1.2, with what SIZE, 8BITMIME, SMTPUTF8, DSN, AUTH and
REQUIRETLS add.

Strict where a lenient server would hide a sender's mistake (a blank after `FROM:`, a missing `<`), with one
exception: host names may hold underscores, as the names of containers do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["MailArguments", "RcptArguments", "Refusal", "host_argument", "mail_arguments", "rcpt_arguments"]

LOCAL_PART = 64  # octets, RFC 5321 section 4.5.3.1.1
DOMAIN = 255  # octets, section 4.5.3.1.2
PATH = 256  # octets with both brackets, section 4.5.3.1.3

# Bytes above 127 are RFC 6531's UTF-8; that they are UTF-8 is checked where they are decoded.
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+"
_QUOTED = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_LABEL = rb"(?!-)[A-Za-z0-9_\x80-\xff-]{1,63}(?<!-)"
_HOST = rb"%b(?:\.%b)*" % (_LABEL, _LABEL)
_LITERAL = rb"\[(?P<tag>[A-Za-z0-9-]*[A-Za-z0-9]:)?(?P<literal>[!-Z^-~]+)\]"
_MAILBOX = rb"(?P<local>%b(?:\.%b)*|%b)@(?P<domain>%b|%b)" % (_ATOM, _ATOM, _QUOTED, _HOST, _LITERAL)
_ROUTE = rb"(?:@%b(?:,@%b)*:)?" % (_HOST, _HOST)

_PATH = re.compile(rb"<%b(?P<mailbox>%b)>(?P<rest>.*)" % (_ROUTE, _MAILBOX), re.DOTALL)
_HOST_ARGUMENT = re.compile(rb"%b|%b" % (_HOST, _LITERAL))
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")


# RFC 3461 sections 4.1 to 4.4, RFC 4954 section 5, RFC 8689 section 2: what a value is held against, and its syntax.
_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
_EVENT = r"(?:SUCCESS|FAILURE|DELAY)"
_OF_MAIL: dict[str, tuple[str | None, str]] = {
    "RET": (r"(?i:FULL|HDRS)", "RET=FULL or RET=HDRS"),
    "ENVID": (rf"(?=.{{1,100}}\Z){_XTEXT}+", "ENVID=xtext, at most 100 characters"),
    "AUTH": (rf"<>|{_XTEXT}+", "AUTH=<> or AUTH=mailbox as xtext"),
    "REQUIRETLS": (None, "REQUIRETLS, without a value"),
}
_OF_RCPT: dict[str, tuple[str | None, str]] = {
    "NOTIFY": (rf"(?i:NEVER|{_EVENT}(?:,{_EVENT}){{0,2}})", "NOTIFY=NEVER or of SUCCESS,FAILURE,DELAY"),
    "ORCPT": (rf"(?=.{{1,500}}\Z)[A-Za-z0-9-]+;{_XTEXT}+", "ORCPT=type;xtext, at most 500 characters"),
}
NONE: Mapping[str, str | None] = MappingProxyType({})


class Refusal(Exception):
    """The command is not to be obeyed; `reply` is the whole line that says so."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


class MailArguments(NamedTuple):
    """`MAIL FROM:<sender>`: `sender` is "" for the null path; `size` is in bytes, 0 when not declared."""

    sender: str
    size: int
    body: str  # "", "7BIT" or "8BITMIME"
    smtputf8: bool
    parameters: Mapping[str, str | None]  # all that were given; keywords in upper case


class RcptArguments(NamedTuple):
    """`RCPT TO:<recipient>`. Source routes are dropped, as section 4.1.1.3 asks."""

    recipient: str
    parameters: Mapping[str, str | None]


def host_argument(text: bytes, *, literals: bool) -> str:
    """The argument of EHLO, or of HELO (which may not be an address literal). Raises `Refusal`."""
    found = _HOST_ARGUMENT.fullmatch(text)
    if (
        found is None
        or len(text) > DOMAIN
        or (found["literal"] is not None and not (literals and _literal_is_one(found)))
    ):
        raise Refusal(b"501 5.5.4 Syntax: EHLO or HELO, then a host name\r\n")
    return _decoded(text, b"501 5.5.4 The host name is not UTF-8\r\n")


@lru_cache(maxsize=1024)  # a sender repeats itself, and this is the longest line of a transaction
def mail_arguments(text: bytes) -> MailArguments:
    """Read `FROM:<path> [parameters]`. Raises `Refusal`; which keywords are offered is not judged here."""
    if text[:5].upper() != b"FROM:":
        raise Refusal(b"501 5.5.2 Syntax: MAIL FROM:<address>\r\n")
    if text[5:7] == b"<>":
        sender, rest = "", text[7:]
    else:
        sender, rest = _path(text[5:], b"501 5.1.7 Bad sender address syntax\r\n")
    given = _parameters(rest)
    size = given.get("SIZE", "0")
    if size is None or not re.fullmatch(r"[0-9]{1,20}", size):
        raise Refusal(b"501 5.5.4 Syntax: SIZE=number\r\n")
    body = (given.get("BODY", "") or "").upper()
    if "BODY" in given and body not in {"7BIT", "8BITMIME"}:
        raise Refusal(b"501 5.5.4 Syntax: BODY=7BIT or BODY=8BITMIME\r\n")
    if given.get("SMTPUTF8") is not None:
        raise Refusal(b"501 5.5.4 SMTPUTF8 takes no value\r\n")
    _check(given, _OF_MAIL)
    return MailArguments(sender, int(size), body, "SMTPUTF8" in given, MappingProxyType(given))


def rcpt_arguments(text: bytes) -> RcptArguments:
    """Read `TO:<path> [parameters]`; `<Postmaster>` needs no domain. Raises `Refusal`."""
    if text[:3].upper() != b"TO:":
        raise Refusal(b"501 5.5.2 Syntax: RCPT TO:<address>\r\n")
    if text[3:15].lower() == b"<postmaster>":
        recipient, rest = text[4:14].decode("ascii"), text[15:]
    else:
        recipient, rest = _path(text[3:], b"501 5.1.3 Bad recipient address syntax\r\n")
    if not rest:
        return RcptArguments(recipient, NONE)
    given = _parameters(rest)
    _check(given, _OF_RCPT)
    return RcptArguments(recipient, given)


def _path(text: bytes, wrong: bytes) -> tuple[str, bytes]:
    found = _PATH.fullmatch(text)
    if (
        found is None
        or len(found["local"]) > LOCAL_PART
        or len(found["domain"]) > DOMAIN
        or found.end("rest") - len(found["rest"]) > PATH
        or (found["literal"] is not None and not _literal_is_one(found))
    ):
        raise Refusal(wrong)
    return _decoded(found["mailbox"], wrong), found["rest"]


def _literal_is_one(found: re.Match[bytes]) -> bool:
    """`[192.0.2.1]` or `[IPv6:…]`; RFC 5321 registers no other tag."""
    literal = found["literal"].decode("latin-1")
    try:
        if found["tag"] is None:
            IPv4Address(literal)
            return True
        IPv6Address(literal)
    except AddressValueError:
        return False
    return bool(found["tag"].lower() == b"ipv6:")


def _parameters(text: bytes) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    if not text:
        return given
    if not text.startswith(b" "):
        raise Refusal(b"501 5.5.4 A blank is missing after the address\r\n")
    for part in text.split(b" "):
        if not part:
            continue
        found = _PARAMETER.fullmatch(part)
        if found is None:
            raise Refusal(b"501 5.5.4 Bad parameter syntax\r\n")
        name = found[1].decode("ascii").upper()
        if name in given:
            raise Refusal(b"501 5.5.4 A parameter is given twice\r\n")
        given[name] = None if found[2] is None else found[2].decode("ascii")
    return given


def _check(given: dict[str, str | None], syntax: Mapping[str, tuple[str | None, str]]) -> None:
    for name, (pattern, wanted) in syntax.items():
        if name not in given:
            continue
        value = given[name]
        good = value is None if pattern is None else value is not None and re.fullmatch(pattern, value) is not None
        events = (value or "").upper().split(",") if name == "NOTIFY" else []
        if not good or len(set(events)) < len(events):
            raise Refusal(f"501 5.5.4 Syntax: {wanted}\r\n".encode())


def _decoded(text: bytes, wrong: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(wrong) from None
