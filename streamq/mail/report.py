"""Bounce reports: what a sender is told of a mail that could not be delivered, or not yet.

A multipart/report (RFC 6522) of three parts: words for a person; message/delivery-status (RFC 3464), which carries the
sender's ENVID and ORCPT (RFC 3461); the header section of the mail. Never its body: a report goes to whoever the
envelope named, and a body of 25 MB that bounces would cost twice. Where an address or the mail's head is UTF-8 the
parts are RFC 6533's: message/global-delivery-status, message/global-headers.

All parts are 7-bit, encoded where they have to be: a report that fails for want of 8BITMIME would tell nobody.
(RFC 6522, 3 and RFC 6533, 6 allow it.) Only the sender's own address may ask for SMTPUTF8, in To and the envelope.
"""

from __future__ import annotations

import re
import textwrap
from ipaddress import ip_address
from typing import NamedTuple

from streamq.mail.address import Address
from streamq.mail.custom import OVERRIDABLE
from streamq.mail.headers import address_field
from streamq.mail.mail import Mail
from streamq.mail.stamp import boundary, date, message_id
from streamq.mail.wire import crlf, transfer

__all__ = ["DELAYED", "FAILED", "HEAD_MOST", "Notice", "compose_report"]

FAILED, DELAYED = "failed", "delayed"
HEAD_MOST = 16_384  # octets of the mail's header section that go back
LINE = 76
STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}", re.ASCII)
# Of classes that no server's reply decided: RFC 3463, 3.5: X.4.7 Delivery time expired.
STATUS_OF = {"expired": "4.4.7"}
NO_REPLY = "4.4.2"  # RFC 3463, 3.5: bad connection
MESSAGE_ID = re.compile(rb"^Message-ID:[ \t]*(?:\r\n[ \t]+)?(<[!-~]{3,248}>)[ \t]*\r$", re.I | re.M)
SPECIAL = frozenset("+=\\")
# Whoever reads these compares them: two blanks are two. Each is shorter than a line may be.
EXACT = frozenset({"Original-Envelope-Id", "Original-Recipient", "Final-Recipient"})
UNBROKEN = re.compile(r"\S{240}(?=\S)")  # at most 960 octets: a line has 998 (RFC 5322, 2.1.1)
DAEMON = "Mail Delivery System"


class Notice(NamedTuple):
    """What became of a mail. `action`: FAILED or DELAYED; `klass`: its class; `status`: RFC 3463, "" for none given;
    `code` 0: no server spoke; `peer`: "mx1.example.net[192.0.2.1]:25", "" for none; moments are Unix ms, 0: none."""

    action: str
    klass: str
    status: str = ""
    code: int = 0
    reply: str = ""
    peer: str = ""
    tried_ms: int = 0
    until_ms: int = 0


def compose_report(
    mail: Mail, content: bytes, notice: Notice, *, entry: str, arrived_ms: int, now_ms: int, salt: bytes, mta: str,
    author: Address | None = None,
) -> bytes:  # fmt: skip
    """The whole report, CRLF line ends, to `mail.bounce_to`. `content` is the mail as it is sent; `mta` the name of the
    host that reports. `author` stands in From; None: the mailer-daemon of the sender's own domain, for which the
    relay signs and SPF speaks as for the mail itself."""
    sender, domain = Address("", *_halves(mail.bounce_to)), _halves(mail.bounce_to)[1]
    head = _head(content)
    wide = not (mail.envelope_to.isascii() and head.isascii() and mail.bounce_to.isascii())
    kind = "global-delivery-status" if wide else "delivery-status"
    bound = boundary(salt, f"{entry}/{notice.action}")
    lines = [
        address_field("From", (author or Address(DAEMON, "mailer-daemon", domain),)),
        address_field("To", (sender,)),
        f"Subject: {'Mail could not be delivered' if notice.action == FAILED else 'Mail is delayed'}",
        f"Date: {date(now_ms)}",
        f"Message-ID: {message_id(salt, f'{entry}/{notice.action}', domain)}",
    ]
    if original := _message_id(head):
        lines += [f"In-Reply-To: {original}", f"References: {original}"]
    lines += [
        "Auto-Submitted: auto-replied",  # RFC 3834, 5
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={kind};\r\n boundary="{bound}"',
        "",
        "",
    ]
    parts = (
        _part("text/plain; charset=utf-8", _words(mail, notice, mta).encode()),
        _part(f"message/{kind}", _status(mail, notice, arrived_ms, mta, wide).encode()),
        _part(_head_type(head), head),
    )
    opened = [f"--{bound}\r\n".encode() + part for part in parts]
    return "\r\n".join(lines).encode() + b"".join(opened) + f"--{bound}--\r\n".encode()


def _halves(spec: str) -> tuple[str, str]:
    local, _, domain = spec.rpartition("@")
    return local, domain


def _part(kind: str, data: bytes) -> bytes:
    encoding, body = transfer(data)
    encoded = "" if encoding == "7bit" else f"Content-Transfer-Encoding: {encoding}\r\n"
    return f"Content-Type: {kind}\r\n{encoded}\r\n".encode() + body + b"\r\n"


# -- the mail's head -------------------------------------------------------------------------------------------------


def _head(content: bytes) -> bytes:
    """Its fields without the blank line; of one that is too long the first ones, whole."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n", 0, HEAD_MOST)
    if end >= 0:
        return content[: end + 2]
    head = content[:HEAD_MOST]
    while (end := head.rfind(b"\r\n", 0, end if end >= 0 else len(head))) >= 0:
        if head[end + 2 : end + 3] not in (b" ", b"\t", b""):
            return head[: end + 2]
    return b""  # one field that is longer than all that goes back


def _head_type(head: bytes) -> str:
    if head.isascii():
        return "text/rfc822-headers"
    try:
        head.decode()
    except UnicodeDecodeError:
        return "text/rfc822-headers"  # whatever it is, it is not UTF-8: encoded as it stands
    return "message/global-headers"


def _message_id(head: bytes) -> str:
    found = MESSAGE_ID.search(head)
    original = found[1].decode() if found else ""
    return original if OVERRIDABLE["message-id"].fullmatch(original) else ""


# -- what became of it -----------------------------------------------------------------------------------------------


def _status(mail: Mail, notice: Notice, arrived_ms: int, mta: str, wide: bool) -> str:
    """RFC 3464, 2.1: a group of fields about the mail, a blank line, one about its recipient."""
    dsn, host, said = mail.dsn, _host(notice.peer), _said(notice)
    of_mail = {
        "Reporting-MTA": f"dns; {_named(_line(mta))}",
        "Original-Envelope-Id": dsn.envid.strip() if dsn else "",
        "Arrival-Date": date(arrived_ms),
    }
    of_recipient = {
        "Original-Recipient": dsn.orcpt.replace(";", "; ", 1) if dsn else "",
        "Final-Recipient": _recipient(mail.envelope_to),
        "Action": notice.action,
        "Status": _code(notice),
        "Remote-MTA": f"dns; {host}" if host else "",
        "Diagnostic-Code": f"{'smtp' if notice.code else 'x-streamq'}; {said}" if said else "",
        "Last-Attempt-Date": date(notice.tried_ms) if notice.tried_ms else "",
        "Will-Retry-Until": date(notice.until_ms) if notice.until_ms else "",
    }
    groups = ("".join(_field(*each, wide) for each in group.items() if each[1]) for group in (of_mail, of_recipient))
    return "\r\n".join(groups)


def _field(name: str, value: str, wide: bool) -> str:
    """Folded at blanks; nothing here is an encoded word (RFC 3464, 2.1.2 knows none)."""
    shown = value if wide else value.encode("ascii", "backslashreplace").decode()
    if name in EXACT:
        return f"{name}: {shown}\r\n"
    text = UNBROKEN.sub(r"\g<0> ", f"{name}: {_line(shown)}")
    lines = textwrap.wrap(text, LINE, break_long_words=False, break_on_hyphens=False)
    return "\r\n ".join(lines) + "\r\n"


def _line(text: str) -> str:
    """One line of what can be printed: none of a server's words may become a field."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _recipient(address: str) -> str:
    """RFC 3464, 2.3.2; beyond ASCII the utf-8-addr-unitext of RFC 6533, 3."""
    if address.isascii():
        return f"rfc822; {address}"
    coded = (one if one not in SPECIAL and one != " " else rf"\x{{{ord(one):X}}}" for one in address)
    return f"utf-8; {''.join(coded)}"


def _code(notice: Notice) -> str:
    if notice.klass in STATUS_OF:
        return STATUS_OF[notice.klass]
    if STATUS.fullmatch(notice.status):
        return notice.status
    if notice.action == DELAYED:
        return "4.0.0" if notice.code else NO_REPLY
    return "5.0.0"


def _host(peer: str) -> str:
    """The name, or an address as a literal."""
    name, bracket, rest = _line(peer).partition("[")
    if not bracket:
        name = name.rpartition(":")[0]
    return _named(name or rest.partition("]")[0])


def _named(host: str) -> str:
    """As it stands behind `dns;` (RFC 3464, 2.3.5): a domain, or an address in brackets (RFC 5321, 4.1.3)."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host.removesuffix(".")
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


def _said(notice: Notice) -> str:
    """A server's words with its code, or ours."""
    coded = not notice.code or notice.reply.startswith(str(notice.code))
    return _line(notice.reply if coded else f"{notice.code} {notice.reply}")


# -- words -----------------------------------------------------------------------------------------------------------


def _words(mail: Mail, notice: Notice, mta: str) -> str:
    lines = [f"This is the mail system at {mta}.", ""]
    if notice.action == FAILED:
        lines += ["Your mail could not be delivered to"]
    else:
        lines += ["THIS IS A WARNING ONLY. YOU NEED NOT SEND YOUR MAIL AGAIN.", "", "It could not yet be delivered to"]
    lines += ["", f"    {mail.envelope_to}", ""]
    if notice.klass == "expired":
        lines += ["Its time is over; it will not be tried again.", ""]
    elif notice.klass == "operator":
        lines += ["An operator of the mail system ended it; it will not be tried again.", ""]
    if said := _said(notice):
        host = _host(notice.peer)
        who = (f"The server {host} said:" if host else "A server said:") if notice.code else "The reason:"
        lines += [who, "", textwrap.fill(said, LINE, initial_indent="    ", subsequent_indent="    "), ""]
    if notice.until_ms:
        lines += [f"It will be tried again until {date(notice.until_ms)}.", ""]
    lines += ["The details, for programs, and the head of your mail are attached."]
    return crlf("\n".join(lines).encode()).decode() + "\r\n"
