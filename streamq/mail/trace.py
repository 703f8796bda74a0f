"""`traceparent`: where a trace is, as its producer says it (W3C Trace Context, 3.2)."""

from __future__ import annotations

import re

__all__ = ["read_traceparent"]

# Of a version to come there may be more behind the flags, parted by another dash; ff is none (3.2.2.1).
SHAPE = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


def read_traceparent(text: str) -> tuple[int, int, int] | None:
    """Trace, parent span, flags; None where it is none: then it must not be used, nor be handed on."""
    found = SHAPE.fullmatch(text)
    if found is None or (found[1] == "00" and found[5]):
        return None
    trace, span, flags = (int(found[at], 16) for at in (2, 3, 4))
    return (trace, span, flags) if trace and span else None
