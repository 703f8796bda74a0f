"""The envelope: the lines of MAIL and RCPT, with what the server's EHLO offers; or why it cannot get this mail."""

from __future__ import annotations

from typing import NamedTuple

from streamq.smtp.connection import Offer
from streamq.smtp.letter import Letter

__all__ = ["Envelope", "Unfit", "envelope"]


class Envelope(NamedTuple):
    """Two lines with their CRLF."""

    mail: bytes
    rcpt: bytes


class Unfit(NamedTuple):
    """This server cannot get this mail: class, enhanced status code (RFC 3463), reason."""

    klass: str
    enhanced: str
    why: str


def envelope(letter: Letter, offer: Offer) -> Envelope | Unfit:
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
    addresses = letter.envelope_from + letter.envelope_to
    # Checked when the mail was read; here is the last place where a line break could become a command.
    if not addresses.isprintable() or not (letter.smtputf8 or addresses.isascii()):
        return Unfit("bad_envelope", "5.1.3", "a character that no envelope address may hold")
    return Envelope(
        f"MAIL FROM:<{letter.envelope_from}>{options}\r\n".encode(),
        f"RCPT TO:<{letter.envelope_to}>\r\n".encode(),
    )
