"""Mailboxes: RFC 5322 lists as people write them, to addresses as RFC 5321 and 6531 carry them.

A fast path takes `a@b` and `Name <a@b>`, which is nearly all there is; the parser below takes the rest in
one pass. `email.utils` is used nowhere: it guesses where an address is broken, and a guess is a mail to
somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from streamq.mail.domain import HOST, to_wire

__all__ = ["Address", "WrongAddress", "parse_list"]

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
DOT_ATOM = rf"{ATOM}(?>(?:\.{ATOM})*)"
UTF8_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\ud7ff\ue000-\U0010ffff-]++"  # RFC 6531, section 3.3
FAST = re.compile(rf"({DOT_ATOM})@({HOST})|({UTF8_ATOM}(?>(?: {UTF8_ATOM})*)) <({DOT_ATOM})@({HOST})>")
PLAIN_LOCAL = re.compile(rf"{UTF8_ATOM}(?>(?:\.{UTF8_ATOM})*)")
BREAKING = re.compile(r"[\r\n\0]")
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: an environment variable in another encoding has them

TOKEN = re.compile(
    r'(?P<blank>[ \t]++)|(?P<quoted>"(?>(?:[^"\\]|\\.)*)")|(?P<literal>\[[^\[\]\\]*+\])'
    r'|(?P<atom>[^ \t()<>@,:;\\".\[\]]++)|(?P<special>[<>@,:;.])'
)
ESCAPED = re.compile(r"\\(.)")
COMMENT = re.compile(r"[()]|\\.")

MAX_LOCAL = 64  # octets, RFC 5321, section 4.5.3.1.1
MAX_SPEC = 254  # octets: a path is 256 with its angle brackets (4.5.3.1.3, RFC 3696 erratum 1690)
MAX_LABEL = 63

Token = tuple[str, str]  # kind, text


class Address(NamedTuple):
    """One mailbox. `name` is text (no encoded words), "" for none; `local` and `domain` are as on the wire:
    quoted where it must be, UTF-8 only in `local`, A-labels or an address literal in `domain`."""

    name: str
    local: str
    domain: str

    @property
    def spec(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def site(self) -> str:
        """The domain as lanes, rules and events have it."""
        return self.domain if self.domain.startswith("[") else self.domain.lower()


class WrongAddress(ValueError):
    """An address list that is none. `shown`: the address in it that is wrong, which may stand behind a thousand good
    ones; of several the text says which, counted from 1."""

    def __init__(self, why: str, shown: str) -> None:
        super().__init__(why)
        self.shown = shown


def parse_list(text: str) -> list[Address]:
    """All mailboxes of an address list, in order; groups give their members. Raises WrongAddress.

    `text` is one unfolded line. Nothing found is an error, unless a group said so (`undisclosed:;`). It is
    RFC 5322, section 3.4, without routes (`<@a:b@c>`) and without blanks inside an address, and wider in one
    thing: what stands before `<` may be any text but brackets and commas.
    """
    if found := FAST.fullmatch(text):
        name, local, domain = found.group(3, 4, 5) if found[4] else ("", found[1], found[2])
        if len(domain) <= MAX_LABEL and len(local) <= MAX_LOCAL:
            return [Address(name, local, domain)]
    if BREAKING.search(text):
        raise WrongAddress("CR, LF or NUL in it", text)
    if HALF.search(text):
        raise WrongAddress("not UTF-8", text)
    found_addresses: list[Address] = []
    item: list[Token] = []
    had_group = False
    try:
        had_group = _read_list(text, found_addresses, item)
    except ValueError as broken:
        why, *rest = broken.args
        shown = "".join([word for _, word in item]) + "".join(rest)
        place = f"address {len(found_addresses) + 1}: " if "," in text else ""
        raise WrongAddress(place + why, shown.strip() or text) from None
    if not found_addresses and not had_group:
        raise WrongAddress("no address in it", text)
    return found_addresses


def _read_list(text: str, found: list[Address], item: list[Token]) -> bool:
    """Whether a group was in it. What was read, and what it is at, stay in the two lists where it raises ValueError."""
    in_group = had_group = False
    for token in _tokens(text):
        if token == ("special", ","):
            found += _mailbox(item)
            item.clear()
        elif token == ("special", ":") and not in_group:
            if not _trimmed(item) or ("special", "<") in item:
                raise ValueError("not an address list (a stray colon)")
            in_group = had_group = True
            item.clear()
        elif token == ("special", ";") and in_group:
            found += _mailbox(item)
            in_group = False
            item.clear()
        else:
            item.append(token)
    if in_group:
        raise ValueError("a group without its semicolon")
    found += _mailbox(item)
    return had_group


def _tokens(text: str) -> Iterator[Token]:
    """Words and specials; a comment counts as a blank (RFC 5322, section 3.2.2)."""
    at = 0
    while at < len(text):
        if text[at] == "(":
            at = _after_comment(text, at)
            yield "blank", " "
        elif (found := TOKEN.match(text, at)) and found.lastgroup:
            at = found.end()
            yield found.lastgroup, found[0]
        else:
            raise ValueError(f"not an address list (at {text[at]!r})", text[at:])


def _after_comment(text: str, at: int) -> int:
    depth = 0  # counted, not recursed into: depth is the producer's choice
    for found in COMMENT.finditer(text, at):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if not depth:
            return found.end()
    raise ValueError("a comment without its end", text[at:])


def _trimmed(item: list[Token]) -> list[Token]:
    start, end = 0, len(item)
    while start < end and item[start][0] == "blank":
        start += 1
    while start < end and item[end - 1][0] == "blank":
        end -= 1
    return item[start:end]


def _unquoted(token: Token) -> str:
    return ESCAPED.sub(r"\1", token[1][1:-1]) if token[0] == "quoted" else token[1]


def _mailbox(item: list[Token]) -> tuple[Address, ...]:
    """The address of one list item; an empty item (`a@b, , c@d`, obs-mbox-list) has none."""
    item = _trimmed(item)
    if not item:
        return ()
    if ("special", "<") not in item:
        return (_address("", item),)
    opens = item.index(("special", "<"))
    if item[-1] != ("special", ">"):
        raise ValueError("not an address (nothing may follow the angle brackets)")
    name = "".join(" " if token[0] == "blank" else _unquoted(token) for token in _trimmed(item[:opens]))
    return (_address(name, _trimmed(item[opens + 1 : -1])),)


def _address(name: str, item: list[Token]) -> Address:
    try:
        at = item.index(("special", "@"))
    except ValueError:
        raise ValueError("not an address (no @)") from None
    local = _local(item[:at])
    after = item[at + 1 :]
    if [kind for kind, _ in after] != ["literal"] and not all(kind == "atom" or word == "." for kind, word in after):
        raise ValueError("not an address (what follows the @ is no domain)")
    domain = to_wire("".join(word for _, word in after))
    if len(local.encode()) + 1 + len(domain) > MAX_SPEC:
        raise ValueError("an address longer than 254 octets")
    return Address(name, local, domain)


def _local(item: list[Token]) -> str:
    """RFC 5321, section 4.1.2: Dot-string where that does, else Quoted-string; RFC 6531 adds UTF-8."""
    words, dots = item[::2], item[1::2]
    if not len(item) % 2 or any(word != ("special", ".") for word in dots):
        raise ValueError("not an address (what precedes the @ is no local part)")
    if any(kind not in {"atom", "quoted"} for kind, _ in words):
        raise ValueError("not an address (what precedes the @ is no local part)")
    value = ".".join(map(_unquoted, words))
    if not value.isprintable():  # as well: control characters, lone surrogates of a broken decoding
        raise ValueError("not an address (unprintable characters in the local part)")
    if not PLAIN_LOCAL.fullmatch(value):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if len(value.encode()) > MAX_LOCAL:
        raise ValueError("a local part longer than 64 octets")
    return value
