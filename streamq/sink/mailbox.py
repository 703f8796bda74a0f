"""The mails that the sink keeps in memory: the last ones, bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, overload

__all__ = ["Mailbox", "Received"]

OVERHEAD = 1000  # bytes that a mail costs beside its content, about


class Received(NamedTuple):
    """One accepted transaction."""

    envelope_from: str  # "" for the null sender
    envelope_to: tuple[str, ...]  # the recipients that were accepted
    content: bytes  # as it came, dot-unstuffed, lines ended by CRLF (by BDAT: as it came)
    message_id: bytes  # empty where there was none
    at_ns: int  # Unix time of acceptance
    monotonic_ns: int  # the same moment on the monotonic clock
    mail_ns: int  # when MAIL came, monotonic: what a receiver's limits count by
    peer: str  # "127.0.0.1:50312"
    helo: str  # the name that the client gave
    eight_bit: bool  # declared BODY=8BITMIME
    smtputf8: bool
    parameters: Mapping[str, str | None] = MappingProxyType({})  # of MAIL: SIZE, RET, ENVID, AUTH, REQUIRETLS, …
    rcpt_parameters: tuple[Mapping[str, str | None], ...] = ()  # NOTIFY, ORCPT; one for each of `envelope_to`
    tls: bool = False
    user: str = ""  # who logged in
    file: Path | None = None  # where a Maildir has it


class Mailbox(Sequence[Received]):
    """The last `most` mails, oldest first, of at most `most_bytes` bytes in all."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._mails: deque[Received] = deque()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.forgotten = 0  # mails that had to go

    def add(self, mail: Received) -> None:
        self._mails.append(mail)
        self._bytes += _weight(mail)
        while len(self._mails) > self._most or self._bytes > self._most_bytes:
            self._bytes -= _weight(self._mails.popleft())
            self.forgotten += 1

    def clear(self) -> None:
        self._mails.clear()
        self._bytes = 0

    def to(self, recipient: str) -> list[Received]:
        """The kept mails to that recipient, oldest first."""
        return [mail for mail in self._mails if recipient in mail.envelope_to]

    @overload
    def __getitem__(self, index: int) -> Received: ...
    @overload
    def __getitem__(self, index: slice) -> list[Received]: ...
    def __getitem__(self, index: int | slice) -> Received | list[Received]:
        return list(self._mails)[index] if isinstance(index, slice) else self._mails[index]

    def __len__(self) -> int:
        return len(self._mails)


def _weight(mail: Received) -> int:
    return len(mail.content) + OVERHEAD + sum(map(len, mail.envelope_to))
