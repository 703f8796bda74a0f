"""Bodies on the wire: line ends, and the content transfer encodings of RFC 2045."""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp

__all__ = ["crlf", "transfer"]

LONGEST = 998  # octets of a line without its CRLF, RFC 5322, section 2.1.1
BASE64_LINE = 76
BARE_CR = re.compile(rb"\r[^\n]")
# Sent as they are by quoted-printable; a blank is, but at the end of a line
UNCODED = bytes(code for code in range(32, 127) if code != 61) + b"\t\r\n"


def crlf(data: bytes) -> bytes:
    """Every CR, LF and CRLF a CRLF, and nothing else changed."""
    if b"\r" not in data:
        return data.replace(b"\n", b"\r\n")
    if data.endswith(b"\n") and data.count(b"\n") == data.count(b"\r") and not BARE_CR.search(data):
        return data  # every CR has its LF and there are no more of these: twice as quick as to count CRLF
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def transfer(data: bytes) -> tuple[str, bytes]:
    """The Content-Transfer-Encoding and the encoded bytes, 7-bit, without a last CRLF of their own.

    7bit where that does; else quoted-printable or base64, by how many octets the former would have to code:
    the shorter one but for soft line breaks, known without encoding twice.
    """
    if data.isascii() and b"\0" not in data and _short_lines(data):
        return "7bit", data
    if len(data.translate(None, UNCODED)) * 6 < len(data):
        encoded = b2a_qp(data)
        # b2a_qp takes its line end for soft breaks from the data's first line; there may be none
        return "quoted-printable", encoded if b"\r\n" in data else encoded.replace(b"\n", b"\r\n")
    flat = b2a_base64(data, newline=False)
    lines = [flat[at : at + BASE64_LINE] for at in range(0, len(flat), BASE64_LINE)]
    return "base64", b"\r\n".join(lines)


def _short_lines(data: bytes) -> bool:
    return len(data) <= LONGEST or max(map(len, data.split(b"\r\n"))) <= LONGEST
