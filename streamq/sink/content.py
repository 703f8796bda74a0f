"""A mail's content on its way in: RFC 5321 sections 4.1.1.4 and 4.5.2.

It ends with CRLF.CRLF and with nothing else: the look-alikes that mail smuggling lives on (a dot between bare
LF or CR, or one of each) are content, and stay as they are.
"""

from __future__ import annotations

__all__ = ["Content"]

CRLF = b"\r\n"
END = b"\r\n.\r\n"


class Content:
    """Takes bytes until the end has come, in pieces cut anywhere; holds at most about `max_size` of them.

    Then `text` is a CRLF and the content, dot-unstuffed; or `too_big` is true, and `text` is empty. (The CRLF
    is that of the DATA line. With it the first line and the first header begin like every other.)
    """

    __slots__ = ("_held", "_max_size", "_stuffed", "text", "too_big")

    def __init__(self, max_size: int) -> None:
        self.text: bytes | None = None
        self.too_big = False
        self._max_size = max_size
        self._held: bytearray | None = None  # a CRLF and what came, where it did not come in one piece
        self._stuffed = 0  # dots in it that do not count

    def take(self, buffer: bytes, at: int) -> int:
        """Take from `at` on; returns where commands go on if `text` is there, else the buffer's length."""
        if self._held is not None:
            return self._take_more(self._held, buffer, at)
        if buffer.startswith(b".\r\n", at):
            self._finish(CRLF)
            return at + 3
        end = buffer.find(END, at)
        if end >= 0:  # nearly always all of it is here: then it is cut out once
            self._finish(CRLF + buffer[at : end + 2])
            return end + 5
        self._held = bytearray(CRLF)
        return self._take_more(self._held, buffer, at)

    def _take_more(self, held: bytearray, buffer: bytes, at: int) -> int:
        before = len(held)
        held += memoryview(buffer)[at:]
        end = held.find(END, max(before - 4, 0))
        if end >= 0:
            with memoryview(held) as view:
                self._finish(bytes(view[: end + 2]))
            return at + end + 5 - before
        if not self.too_big:
            self._stuffed += held.count(b"\r\n.", max(before - 2, 0))
            # 5: the CRLF in front, and of the end that is still to come "\r\n." may be here already
            self.too_big = len(held) - self._stuffed > self._max_size + 5
        if self.too_big:
            del held[:-4]  # all that can be the beginning of the end
        return len(buffer)

    def _finish(self, stuffed: bytes) -> None:
        text = b"" if self.too_big else stuffed.replace(b"\r\n.", CRLF)
        self.too_big = self.too_big or len(text) - 2 > self._max_size
        self.text = b"" if self.too_big else text
        self._held = None
