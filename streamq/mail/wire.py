"""Bodies on the wire: line ends, and the content transfer encodings of RFC 2045."""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from struct import Struct

__all__ = ["base64_lines", "crlf", "is_7bit", "transfer"]

LONGEST = 998  # octets of a line without its CRLF, RFC 5322, section 2.1.1
BASE64_LINE = 76
LINES = Struct(f"{BASE64_LINE}s" * 64)
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
    if is_7bit(data):
        return "7bit", data
    if len(data.translate(None, UNCODED)) * 6 < len(data):
        encoded = b2a_qp(data)
        # b2a_qp takes its line end for soft breaks from the data's first line; there may be none
        return "quoted-printable", encoded if b"\r\n" in data else encoded.replace(b"\n", b"\r\n")
    return "base64", base64_lines(b2a_base64(data, newline=False))


def is_7bit(data: bytes) -> bool:
    """No encoding is needed (RFC 2045, section 2.7); `data` has CRLF for its line ends."""
    return data.isascii() and b"\0" not in data and _short_lines(data)


def base64_lines(flat: bytes) -> bytes:
    """Base64 on lines of 76, the last one without its CRLF. Sixty-four at a time by `struct`: a third of the
    time of slicing, and `binascii` breaks no lines before Python 3.15."""
    lines: list[bytes] = []
    rest = len(flat) - len(flat) % LINES.size
    for at in range(0, rest, LINES.size):
        lines += LINES.unpack_from(flat, at)
    lines += [flat[at : at + BASE64_LINE] for at in range(rest, len(flat), BASE64_LINE)]
    return b"\r\n".join(lines)


def _short_lines(data: bytes) -> bool:
    return len(data) <= LONGEST or max(map(len, data.split(b"\r\n"))) <= LONGEST
