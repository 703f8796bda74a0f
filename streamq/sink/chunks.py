"""BDAT: RFC 3030. A chunk is so many bytes as its command said, whatever is in them."""

from __future__ import annotations

import re

from streamq.sink.grammar import Refusal

__all__ = ["Chunk", "chunk_of"]

ARGUMENT = re.compile(rb"([0-9]{1,20})( +LAST)?", re.IGNORECASE)


class Chunk:
    """Takes its bytes; they go to `held`, or nowhere if `refusal` says why it is not wanted."""

    __slots__ = ("_held", "last", "left", "refusal", "size")

    def __init__(self, size: int, *, last: bool, held: bytearray, refusal: bytes) -> None:
        self.size = size
        self.left = size
        self.last = last
        self.refusal = refusal
        self._held = held

    def take(self, buffer: bytes, at: int) -> int:
        """Take from `at` on; returns where commands go on if `left` is 0, else the buffer's length."""
        end = min(at + self.left, len(buffer))
        if not self.refusal:
            self._held += memoryview(buffer)[at:end]
        self.left -= end - at
        return end


def chunk_of(rest: bytes) -> tuple[int, bool]:
    """Size and LAST of a BDAT command. Raises `Refusal`: where the chunk ends is not known then."""
    found = ARGUMENT.fullmatch(rest)
    if found is None:
        raise Refusal(b"521 5.5.4 Syntax: BDAT size [LAST]; closing\r\n")
    return int(found[1]), found[2] is not None
