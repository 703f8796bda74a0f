"""Bodies on the wire: line ends, and the content transfer encodings of RFC 2045."""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Iterator
from struct import Struct

__all__ = ["PIECE", "base64_lines", "crlf", "is_7bit", "size_with_crlf", "transfer"]

LONGEST = 998  # octets of a line without its CRLF, RFC 5322, section 2.1.1
BASE64_LINE = 76
AT_ONCE = 64
LINES = [Struct(f"{BASE64_LINE}s" * many) for many in range(AT_ONCE + 1)]
BARE_CR = re.compile(rb"\r[^\n]")
CR_TO_LF = bytes.maketrans(b"\r", b"\n")
# Octets that one call looks at: a call in C keeps all threads waiting, and to put a CR before each of twenty million
# line ends takes it a second
PIECE = 262_144
# Sent as they are by quoted-printable; a blank is, but at the end of a line
UNCODED = bytes(code for code in range(32, 127) if code != 61) + b"\t\r\n"


def crlf(data: bytes) -> bytes:
    """Every CR, LF and CRLF a CRLF, and nothing else changed."""
    if len(data) <= PIECE:
        return _crlf(data)
    made = b"".join([_crlf(data[start:end]) for start, end in _pieces(data)])
    return data if made == data else made


def size_with_crlf(data: bytes) -> int:
    """How long `crlf` makes it."""
    ends = data.count(b"\n")
    if b"\r" in data:
        ends += data.count(b"\r") - 2 * data.count(b"\r\n")
    return len(data) + ends


def _crlf(data: bytes) -> bytes:
    if b"\r" not in data:
        return data.replace(b"\n", b"\r\n")
    if data.endswith(b"\n") and data.count(b"\n") == data.count(b"\r") and not BARE_CR.search(data):
        return data  # every CR has its LF and there are no more of these: twice as quick as to count CRLF
    return data.replace(b"\r\n", b"\n").translate(CR_TO_LF).replace(b"\n", b"\r\n")


def _pieces(data: bytes) -> Iterator[tuple[int, int]]:
    """Where to cut: never between a CR and its LF."""
    start = 0
    while start < len(data):
        end = start + PIECE
        end += data[end - 1 : end + 1] == b"\r\n"
        yield start, end
        start = end


def transfer(data: bytes) -> tuple[str, bytes]:
    """The Content-Transfer-Encoding and the encoded bytes, 7-bit, without a last CRLF of their own.

    7bit where that does; else quoted-printable or base64, by how many octets the former would have to code:
    the shorter one but for soft line breaks, known without encoding twice.
    """
    if is_7bit(data):
        return "7bit", data
    if len(data.translate(None, UNCODED)) * 6 < len(data) and (encoded := _quoted(data)) is not None:
        return "quoted-printable", encoded
    return "base64", base64_lines(b2a_base64(data, newline=False))


def _quoted(data: bytes) -> bytes | None:
    """None where a line is so long that nobody would read it in quoted-printable, either."""
    made = []
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + PIECE) + 1 if len(data) - start > PIECE else len(data)
        if not end:
            return None
        encoded = b2a_qp(data[start:end])
        # It takes its line end for soft breaks from the first line of what it gets; there may be none
        made.append(encoded if data.find(b"\n", start, end) >= 0 else encoded.replace(b"\n", b"\r\n"))
        start = end
    return b"".join(made)


def is_7bit(data: bytes) -> bool:
    """No encoding is needed (RFC 2045, section 2.7); `data` has CRLF for its line ends."""
    return data.isascii() and b"\0" not in data and _short_lines(data)


def base64_lines(flat: bytes) -> bytes:
    """Base64 on lines of 76, the last one without its CRLF. Sixty-four at a time by `struct`: a third of the
    time of slicing, and `binascii` breaks no lines before Python 3.15."""
    lines: list[bytes] = []
    whole = len(flat) // BASE64_LINE
    for at in range(0, whole, AT_ONCE):
        lines += LINES[min(AT_ONCE, whole - at)].unpack_from(flat, at * BASE64_LINE)
    if len(flat) % BASE64_LINE:
        lines.append(flat[whole * BASE64_LINE :])
    return b"\r\n".join(lines)


def _short_lines(data: bytes) -> bool:
    """From each line's start to the last line end that is near enough, a thousand octets on: to make a list of the
    lines is a second and a gigabyte where there are twelve million empty ones."""
    start = 0
    while len(data) - start > LONGEST:
        end = data.rfind(b"\n", start, start + LONGEST + len(b"\r\n"))
        if end < 0:
            return False
        start = end + 1
    return True
