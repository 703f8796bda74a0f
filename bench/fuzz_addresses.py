"""`python -m bench fuzz --target addresses`: what stands where addresses should.

A list of them is mailboxes, or one error; the mailboxes read again are the same, on their own and as the header that
is made of them; what SMTP says of each, our sink's grammar reads as that address and nothing beside it; and the
standard library's parser finds no other recipient in the header than we do.
"""

from __future__ import annotations

import asyncio
import random
from email import policy

from streamq.mail.address import MAX_SPEC, Address, parse_list
from streamq.mail.dsn import Dsn
from streamq.mail.headers import address_field
from streamq.sink.grammar import mail_arguments, rcpt_arguments
from streamq.smtp.connection import Offer
from streamq.smtp.envelope import Unfit, envelope
from streamq.smtp.letter import Letter

__all__ = ["addresses", "mailbox"]

OFFER = Offer(pipelining=True, sizes=True, eight_bit=True, smtputf8=True, chunking=True, dsn=True, require_tls=True)
ASKED = Dsn("SUCCESS,FAILURE", "HDRS", "Q 1+1=2")
JUDGED = 16  # each so manieth header is read by the standard library, which takes a hundred times as long
LONG = 200  # each so manieth list is long
LOCALS = (
    "bob", "b.o.b", '"b b"', '"b\\"b"', '"b\\\\"', '""', '"@"', '"> BODY=8BITMIME"', '"<"', "jürgen", "用戶", "b+o=b",
    "a..b", ".a", "a.", "b b", "a" * 64, "a" * 65, '"' + "a" * 62 + '"', "é" * 32, "é" * 33, "=?utf-8?q?x?=", "b(c)",
    "(c)b", '"a"."b"', '"a".b', "-b", "b\t", "\x01", "\x7f", "\ud800", "e\u0301", "\u202e", "a@b", "postmaster", "%",
    "!",
)  # fmt: skip
DOMAINS = (
    "example.net", "EXAMPLE.Net", "münchen.de", "例え。テスト", "straße.de", "xn--mnchen-3ya.de", "xn--a", "xn--",
    "[192.0.2.1]", "[IPv6:2001:db8::1]", "[IPv6:fe80::1%eth0]", "[1.2.3]", "[]", "[x:y]", "a_b.c", "-a.b", "a-.b",
    "ab--ü.de", "a..b", "a.", "localhost", "a" * 63 + ".de", "a" * 64 + ".de", ".".join(["b" * 60] * 4),
    "ü" * 60 + ".de", "☕.example", "a\u200db.de", "℀.com", "example\uff20evil.com", "ｅxample．com", "\u0308a.de",
    "a b.c", "x.de, c@y.de", "x.de> <c@y.de", "x.de(c)", "x.de;", "1.2.3.4", "x.de\r\nRCPT TO:<c@y.de", "ǆ.example",
    "İ.example", "ﬀ.example", "٣.example", "a·b.cat", "ß.ß",
)  # fmt: skip
NAMES = (
    "", "Bob", "Bob B.", '"B., Bob"', '"a\\"b"', "Zoë", "=?utf-8?q?x?=", "[Shop]", "a@b", "(c)", "'", "x" * 300,
    "語" * 90, "a\r\nBcc: c@y.de", "\u2028", "Bob:", "<", '"', "\\", "\ud800", "Team: a@x.de;", "a\tb", "e\u0301",
    "\U0001f4e7",
)  # fmt: skip
BETWEEN = (", ", ",", ",,", " , ", ";", " ", "\t", "(x)", "(", ")", "<", ">", '"', ":", "\r\n ", "\0", ".", "@")


def mailbox(chance: random.Random) -> str:
    spec = (
        chance.choice(LOCALS) + chance.choice(("@", "@", "@", "@", "@", "", "@@", " @", "@ ")) + chance.choice(DOMAINS)
    )
    form = chance.random()
    if form < 0.5:
        return spec
    return f"{chance.choice(NAMES)}{chance.choice((' ', ' ', ''))}<{spec}>"


def _list(chance: random.Random, number: int) -> str:
    if number % LONG == LONG - 1:
        part = chance.choice(
            ("bob@example.net, ", "(", "((x)) ", '"a" ', "ü@ü.de,", "a." * 30 + "a@x.de,", "[", "<", "\\", "Bob B ")
        )
        return part * (100_000 // len(part)) + chance.choice(("", "bob@example.net", ")"))
    parts = [mailbox(chance)]
    for _ in range(chance.choice((0, 0, 0, 1, 1, 3))):
        parts += [chance.choice(BETWEEN) if chance.random() < 0.3 else ", ", mailbox(chance)]
    text = "".join(parts)
    for _ in range(chance.choice((0, 0, 0, 0, 1, 3)) if text else 0):
        at = chance.randrange(len(text))
        text = (
            text[:at] + chr(chance.choice((chance.randrange(128), chance.randrange(0x3000), 0xFFFF))) + text[at + 1 :]
        )
    return text


def _commands(address: Address) -> None:
    """What the sink reads of the two lines: this address, and no parameter that nobody asked for."""
    letter = Letter(
        envelope_from=address.spec,
        envelope_to=address.spec,
        content=b"Hi\r\n",
        site=address.site,
        smtputf8=True,
        dsn=ASKED,
    )
    made = envelope(letter, OFFER, verified=True)
    assert not isinstance(made, Unfit), f"no envelope for {address.spec!r}: {made}"
    for one in made:
        assert one.count(b"\r") == one.count(b"\n") == 1, f"{address.spec!r} is two commands"
        assert one.endswith(b"\r\n"), one
    sender, recipient = mail_arguments(made.mail[5:-2]), rcpt_arguments(made.rcpt[5:-2])
    assert sender.sender == recipient.recipient == address.spec, f"{address.spec!r} goes to {recipient.recipient!r}"
    assert sender.parameters.keys() == {"SIZE", "SMTPUTF8", "RET", "ENVID"}, made.mail
    assert recipient.parameters.keys() <= {"NOTIFY", "ORCPT"}, made.rcpt


def addresses(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """One case; how it ended."""
    text = _list(chance, number)
    try:
        found = parse_list(text)
    except ValueError as wrong:
        return str(wrong).rpartition(": ")[2].partition(" (")[0][:40]
    for each in dict.fromkeys(found[:100]):
        assert each.domain.isascii(), f"{each.domain!r} is not ASCII"
        assert each.local.isprintable(), each.local
        assert len(each.spec.encode()) <= MAX_SPEC, f"{each.spec!r} is long"
        assert parse_list(each.spec) == [Address("", each.local, each.domain)], f"{each.spec!r} is another one"
        _commands(each)
    if found and len(found) <= 100:
        _header(found, judged=number % JUDGED == 0)
    return "several" if len(found) > 1 else "one" if found else "none"


def _header(found: list[Address], *, judged: bool) -> None:
    made = address_field("To", found)
    lines = made.split("\r\n")
    assert all(line[:1] in (" ", "\t") for line in lines[1:]), f"a second field in {made!r}"
    assert not set("\r\n\0") & set("".join(lines)), made
    value = "".join(lines).removeprefix("To:")
    specs = [each.spec for each in found]
    assert [each.spec for each in parse_list(value)] == specs, f"{made!r} is not for {specs}"
    # It loses `""`, and decodes an encoded word in a local part, where none may be (RFC 2047, 5): not for us to mend.
    if judged and made.isascii() and not any("=?" in each.local or '"' in each.local for each in found):
        field = policy.default.header_fetch_parse("To", made.partition(":")[2].lstrip(" "))
        more = {each.addr_spec for each in field.addresses} - set(specs)
        assert not more, f"the standard library sends {made!r} to {more}, too"
