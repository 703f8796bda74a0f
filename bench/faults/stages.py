"""How far the mail of an SMTP connection has got, read off the bytes of both directions as they pass.

Commands in one write or behind a body: which reply answers what is counted (RFC 2920, 3.1). With `overlap` the next
mail's commands are out before the reply to a dot: the stage is then still that of the mail at its dot. Behind BDAT
there is neither a 354 nor a dot: its body may go out when RCPT was answered, and ends with its last octet.
"""

from __future__ import annotations

import re
from collections import Counter, deque

__all__ = ["PAST_MAIL", "STAGES", "Stages"]

# open: before MAIL. mail: MAIL is out. go: the 354 has come, or with BDAT the reply to RCPT. body: some of it is out.
# dot: all of it is. told: so is the answer to it; whether the worker has read and recorded that, no wire knows.
STAGES = ("open", "mail", "go", "body", "dot", "told")
PAST_MAIL = frozenset(STAGES[1:])
RCPT = re.compile(rb"RCPT TO:<([^>]*)>", re.IGNORECASE)
BDAT = re.compile(rb"BDAT (\d+) LAST", re.IGNORECASE)
DOT = b"\r\n.\r\n"
LINE_MOST = 4096  # octets of an unfinished line that are kept
RECENT = 3  # at its dot, the one before it, which nobody may have recorded yet, and the one whose commands are out


class Stages:
    """`stage` is one of STAGES. `recent`: whose mails those are, the last one last. `seen`, shared by all of a line:
    mails, those whose commands went out `ahead` of a reply to a dot, and `chunks` by BDAT."""

    def __init__(self, seen: Counter[str] | None = None) -> None:
        self.seen = Counter[str]() if seen is None else seen
        self.stage = "open"
        self.recent: deque[str] = deque(maxlen=RECENT)
        self._due: deque[bytes] = deque()  # what replies are still to come to: the first four letters; "end": a body
        self._in_data = False
        self._chunk = 0  # octets that BDAT announced and that are still to come
        self._line = b""  # of a command that is not whole yet
        self._said = b""  # of a reply
        self._tail = b""  # the last octets of a body

    @property
    def recipient(self) -> str:
        """Whose mail is under way, or was last; of two, the one whose commands went out last."""
        return self.recent[-1] if self.recent else ""

    def there(self, data: bytes) -> bool:
        """From the client. Whether the stage is another one."""
        was = self.stage
        while data:
            if self._in_data:
                data = self._body(data)
            elif self._chunk:
                data = self._piece(data)
            else:
                data = self._command(data)
        return self.stage != was

    def back(self, data: bytes) -> bool:
        """From the server. Whether the stage is another one."""
        was = self.stage
        *lines, rest = (self._said + data).split(b"\n")
        self._said = rest[-LINE_MOST:]
        for line in lines:
            if line[3:4] != b"-" and self._due:
                self._answered(self._due.popleft(), line[:3])
        return self.stage != was

    def _answered(self, what: bytes, code: bytes) -> None:
        if what == b"end":
            self.stage = "told"
        elif what == b"DATA" and code == b"354":
            self.stage, self._in_data, self._tail = "go", True, b"\r\n"
        elif what == b"RCPT" and code[:1] == b"2" and self.stage in ("mail", "told") and b"DATA" not in self._due:
            self.stage = "go"

    def _body(self, data: bytes) -> bytes:
        """What stands behind its dot."""
        whole = self._tail + data
        end = whole.find(DOT)
        if end < 0:
            self._tail = whole[-4:]
            self.stage = "body"
            return b""
        self._in_data = False
        self._ended()
        return whole[end + len(DOT) :]

    def _piece(self, data: bytes) -> bytes:
        """What stands behind its last octet."""
        if len(data) < self._chunk:
            self._chunk -= len(data)
            self.stage = "body"
            return b""
        rest, self._chunk = data[self._chunk :], 0
        self._ended()
        return rest

    def _ended(self) -> None:
        self.stage = "dot"
        self._due.append(b"end")

    def _command(self, data: bytes) -> bytes:
        """What stands behind its line."""
        line, end, rest = (self._line + data).partition(b"\r\n")
        if not end:
            self._line = line[-LINE_MOST:]
            return b""
        self._line = b""
        if found := BDAT.match(line):
            self._chunk = int(found[1])
            self.seen["chunks"] += 1
            return rest
        verb = line[:4].upper()
        self._due.append(verb)
        if verb == b"MAIL":
            self.seen["mails"] += 1
            if self.stage == "dot":
                self.seen["ahead"] += 1
            else:
                self.stage = "mail"
            self.recent.append("")
        elif self.recent and (found := RCPT.match(line)):
            self.recent[-1] = found[1].decode("ascii", "backslashreplace")
        return rest
