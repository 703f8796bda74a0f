"""Mails in portions: each is one write, bounded in mails and in octets."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from streamq.client.mail import Mail

__all__ = ["async_batches", "batches"]


class _Batch:
    def __init__(self, mails: int, octets: int) -> None:
        self._most = mails
        self._most_octets = octets
        self._mails: list[Mail] = []
        self._octets = 0

    def add(self, mail: Any) -> list[Mail]:
        """The batch that is full without it, or nothing. A mail larger than a batch is one of its own."""
        if not isinstance(mail, Mail):
            raise TypeError(f"send_many takes Mail, not {type(mail).__name__}")
        size = mail.size
        over = len(self._mails) >= self._most or self._octets + size > self._most_octets
        full = self.rest() if over and self._mails else []
        self._mails.append(mail)
        self._octets += size
        return full

    def rest(self) -> list[Mail]:
        found, self._mails, self._octets = self._mails, [], 0
        return found


def batches(source: Iterable[Mail], mails: int, octets: int) -> Iterator[list[Mail]]:
    """Takes no more from `source` than a batch and one."""
    batch = _Batch(mails, octets)
    for mail in source:
        if full := batch.add(mail):
            yield full
    if rest := batch.rest():
        yield rest


async def async_batches(
    source: Iterable[Mail] | AsyncIterable[Mail], mails: int, octets: int
) -> AsyncIterator[list[Mail]]:
    """The same of either kind."""
    if not isinstance(source, AsyncIterable):
        for full in batches(source, mails, octets):
            yield full
        return
    batch = _Batch(mails, octets)
    async for mail in source:
        if full := batch.add(mail):
            yield full
    if rest := batch.rest():
        yield rest
