"""What a mail gets that its producer did not give: Message-ID, Date, MIME boundary.

All of it derives from the queue's salt and the entry, nothing from a clock or a random source: a retry, by
whichever worker, is the same bytes, and a receiver that got both copies can drop one. Without the salt two
queues, or one queue begun anew, would give two mails one Message-ID.
"""

from __future__ import annotations

import time
from functools import lru_cache
from hashlib import blake2b

__all__ = ["boundary", "date", "message_id"]

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LAST_SECOND = 253_402_300_799  # of the year 9999: an entry's id can say any 64-bit number


def message_id(salt: bytes, entry: str, domain: str) -> str:
    """`<…@domain>`, the brackets with it. RFC 5322, section 3.6.4."""
    digest = blake2b(salt + entry.encode(), digest_size=15, person=b"message-id").hexdigest()
    return f"<{digest}@{domain}>"


def boundary(salt: bytes, entry: str) -> str:
    """A MIME boundary that no producer can know, so none can write it into a part. `=_` is never in base64
    or quoted-printable (RFC 2045, section 6.7). RFC 2046, section 5.1.1."""
    return "=_" + blake2b(salt + entry.encode(), digest_size=15, person=b"boundary").hexdigest()


def date(at_ms: int) -> str:
    """RFC 5322, section 3.3, in UTC."""
    return _date(min(at_ms // 1000, LAST_SECOND))


@lru_cache(maxsize=64)  # a burst's mails are of one second
def _date(second: int) -> str:
    """Not strftime: its names follow the locale."""
    then = time.gmtime(second)
    return (
        f"{DAYS[then.tm_wday]}, {then.tm_mday:02} {MONTHS[then.tm_mon]} {then.tm_year:04}"
        f" {then.tm_hour:02}:{then.tm_min:02}:{then.tm_sec:02} +0000"
    )
