"""The envelope: the lines of MAIL and RCPT, with what the server's EHLO offers; or why it cannot get this mail.

8-BIT    Our content has lines of any length that end with CRLF, no other CR or LF and no NUL: 8BITMIME is all that
         it can need, with DATA and with BDAT (RFC 6152, RFC 3030). BINARYMIME is never asked for.
DSN      Parameters go to a server that offers DSN and are left out elsewhere (RFC 3461, 5.2.2). ORCPT goes with
         them: `dsn_orcpt`, else the recipient as the producer knows it, in utf-8-addr-xtext where it is not ASCII
         (RFC 6533, 3).
TLS      `require_tls` needs REQUIRETLS and a certificate that was verified (RFC 8689, 4.2.1), be it that its route
         pins it: a trust anchor for this one server. Else the mail fails with 5.7.30, since to send it otherwise is
         what its producer forbade.
"""

from __future__ import annotations

from typing import NamedTuple

from streamq.mail.dsn import Dsn, xtext
from streamq.smtp.connection import Offer
from streamq.smtp.letter import Letter

__all__ = ["Envelope", "Unfit", "envelope", "orcpt"]

MAX_ORCPT = 500  # characters, RFC 3461, 4.2; an address in quotes may be longer as xtext
SPECIAL = frozenset("+=\\")


class Envelope(NamedTuple):
    """Two lines with their CRLF."""

    mail: bytes
    rcpt: bytes


class Unfit(NamedTuple):
    """This server cannot get this mail: class, enhanced status code (RFC 3463), reason."""

    klass: str
    enhanced: str
    why: str


def envelope(letter: Letter, offer: Offer, verified: bool) -> Envelope | Unfit:
    """`verified`: the connection is over TLS, and whose it is was proved."""
    options = ""
    if offer.sizes:
        size = len(letter.content)
        if offer.size and size > offer.size:
            return Unfit("too_large", "5.3.4", f"{size} bytes; the server takes {offer.size}")
        options = f" SIZE={size}"
    if letter.eight_bit:
        if not offer.eight_bit:
            return Unfit("eight_bit", "5.6.3", "8-bit content; the server does not offer 8BITMIME")
        options += " BODY=8BITMIME"
    if letter.smtputf8:
        if not offer.smtputf8:
            return Unfit("smtputf8", "5.6.7", "needs SMTPUTF8; the server does not offer it")
        options += " SMTPUTF8"
    if letter.require_tls:
        if not (offer.require_tls and verified):
            missing = "does not offer REQUIRETLS" if verified else "was not proved to be itself over TLS"
            return Unfit("require_tls", "5.7.30", f"REQUIRETLS support required; the server {missing}")
        options += " REQUIRETLS"
    addresses = letter.envelope_from + letter.envelope_to
    # Checked when the mail was read; here is the last place where a line break could become a command.
    if not addresses.isprintable() or not (letter.smtputf8 or addresses.isascii()):
        return Unfit("bad_envelope", "5.1.3", "a character that no envelope address may hold")
    asked = ""
    if letter.dsn is not None and offer.dsn:
        returned, asked = _dsn(letter.dsn, letter.envelope_to)
        options += returned
    return Envelope(
        f"MAIL FROM:<{letter.envelope_from}>{options}\r\n".encode(),
        f"RCPT TO:<{letter.envelope_to}>{asked}\r\n".encode(),
    )


def _dsn(dsn: Dsn, recipient: str) -> tuple[str, str]:
    """The parameters of MAIL and of RCPT."""
    of_mail = (f" RET={dsn.ret}" if dsn.ret else "") + (f" ENVID={xtext(dsn.envid)}" if dsn.envid else "")
    kind, _, given = dsn.orcpt.partition(";")
    original = f"{kind};{xtext(given)}" if given else orcpt(recipient)
    of_rcpt = (f" NOTIFY={dsn.notify}" if dsn.notify else "") + (f" ORCPT={original}" if original else "")
    return of_mail, of_rcpt


def orcpt(recipient: str) -> str:
    """`rfc822;…` (RFC 3461, 4.2) or `utf-8;…` (RFC 6533, 3); "" where it would be too long."""
    if recipient.isascii():
        original = f"rfc822;{xtext(recipient)}"
    else:
        original = "utf-8;" + "".join(
            one if "!" <= one <= "~" and one not in SPECIAL else rf"\x{{{ord(one):X}}}" for one in recipient
        )
    return original if len(original) <= MAX_ORCPT else ""
