"""How far the mail of an SMTP connection has got, read off the bytes of both directions as they pass.

It follows one mail after the other (`pipelining` off or transaction, no BDAT): behind DATA nothing comes before its
354.
"""

from __future__ import annotations

import re

__all__ = ["PAST_MAIL", "STAGES", "Stages"]

# open: before MAIL. mail: MAIL is out. go: the 354 has come. body: some of it is out. dot: its dot is out. told: so is
# the answer to it; whether the worker has read and recorded that, no wire knows.
STAGES = ("open", "mail", "go", "body", "dot", "told")
PAST_MAIL = frozenset(STAGES[1:])
RCPT = re.compile(rb"RCPT TO:<([^>]*)>", re.IGNORECASE)
DOT = b"\r\n.\r\n"
LINE_MOST = 4096  # octets of an unfinished line that are kept


class Stages:
    """`stage` is one of STAGES. `recipient`: whose mail that is; `before`: whose the one before it was."""

    def __init__(self) -> None:
        self.stage = "open"
        self.recipient = ""
        self.before = ""
        self._in_body = False
        self._line = b""  # of a command that is not whole yet
        self._tail = b""  # the last octets of a body

    def there(self, data: bytes) -> bool:
        """From the client. Whether the stage is another one."""
        was = self.stage
        if self._in_body:
            data = self._body(data)
        if data:
            self._commands(data)
        return self.stage != was

    def back(self, data: bytes) -> bool:
        """From the server. Whether the stage is another one."""
        was = self.stage
        if self.stage == "mail" and any(line.startswith(b"354") for line in data.split(b"\r\n")):
            self.stage = "go"
            self._in_body, self._tail = True, b"\r\n"
        elif self.stage == "dot":
            self.stage = "told"
        return self.stage != was

    def _body(self, data: bytes) -> bytes:
        """What stands behind its dot."""
        whole = self._tail + data
        end = whole.find(DOT)
        if end < 0:
            self._tail = whole[-4:]
            self.stage = "body"
            return b""
        self.stage = "dot"
        self._in_body = False
        return whole[end + len(DOT) :]

    def _commands(self, data: bytes) -> None:
        *lines, rest = (self._line + data).split(b"\r\n")
        self._line = rest[-LINE_MOST:]
        for line in lines:
            if line[:5].upper() == b"MAIL ":
                self.stage = "mail"
                self.before, self.recipient = self.recipient, ""
            elif found := RCPT.match(line):
                self.recipient = found[1].decode("ascii", "backslashreplace")
