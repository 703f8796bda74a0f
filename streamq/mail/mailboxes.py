"""Address lists as fields give them; long ones are read once, and put on lines once.

Five thousand addresses take a twentieth of a second to read. Each of the five thousand children of such a mail shows
them all, and has the very same octets: what came of the last such lists is kept, as much as `KEPT_BYTES` of them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

import orjson

from streamq.mail.address import Address, WrongAddress, parse_list
from streamq.mail.headers import about, address_field
from streamq.mail.values import listed, text, wrong

__all__ = ["Mailboxes", "is_kept", "octets_of", "read_mailboxes"]

ARRAY = re.compile(rb'\[\s*["\]]')  # and not `[Shop] News <news@example.com>`
ADDRESS_SIZE = 6  # octets: ` <`, `@`, `>,` and its share of a fold
LONG = 1024  # octets: shorter ones are read faster than they are worth keeping
KEPT_BYTES = 2_000_000  # of lists; what is made of them is some ten times that


class Mailboxes(tuple[Address, ...]):
    """Addresses in their order. What hangs on all of them is worked out when it is first asked for."""

    _fields: dict[str, str]
    _ascii: bool
    _octets: int

    @property
    def are_ascii(self) -> bool:
        """Whether all local parts are."""
        if "_ascii" not in self.__dict__:
            self._ascii = all(address.local.isascii() for address in self)
        return self._ascii

    @property
    def octets(self) -> int:
        """In a header, about: of a name that is not ASCII as encoded words, with their frames."""
        if "_octets" not in self.__dict__:
            self._octets = octets_of(self)
        return self._octets

    def field(self, name: str) -> str:
        """The header field, folded, without its last CRLF."""
        made: dict[str, str] = self.__dict__.setdefault("_fields", {})
        if name not in made:
            made[name] = address_field(name, self)
        return made[name]


def octets_of(addresses: Iterable[Address]) -> int:
    """Of them in a header, about: what is not ASCII may be encoded words, with their frames."""
    return sum(ADDRESS_SIZE + about(name) + about(local) + len(domain) for name, local, domain in addresses)


_kept: OrderedDict[bytes, Mailboxes] = OrderedDict()  # the last used one last
_bytes = 0
_lock = Lock()  # held for no longer than it takes to look


def read_mailboxes(field: bytes, value: bytes) -> Mailboxes:
    """A comma list as in RFC 5322, or a JSON array of strings with one address each. Raises WrongAddress,
    or MalformedMail of `field`."""
    if len(value) <= LONG:
        return _read(field, value)
    with _lock:
        found = _kept.get(value)
        if found is not None:
            _kept.move_to_end(value)
            return found
    found = _read(field, value)
    _keep(value, found)
    return found


def is_kept(value: bytes) -> bool:
    """Whether it is read in no time."""
    return value in _kept


def _read(field: bytes, value: bytes) -> Mailboxes:
    if value.startswith(b"[") and ARRAY.match(value):
        return Mailboxes(_single(field, value, at, part) for at, part in enumerate(listed(field, value)))
    return Mailboxes(parse_list(text(field, value)))


def _single(field: bytes, value: bytes, at: int, part: str) -> Address:
    """`at`: which of the elements that are not empty."""
    try:
        found = parse_list(part)
        if len(found) == 1:
            return found[0]
        why = "not one address for each element of the array"
    except WrongAddress as broken:
        why = str(broken)
    place = [place for place, each in enumerate(orjson.loads(value)) if each][at]
    raise wrong(field, part, f"[{place}]: {why}")


def _keep(value: bytes, found: Mailboxes) -> None:
    global _bytes
    with _lock:
        if value not in _kept:  # two threads may have read it at once
            _bytes += len(value)
        _kept[value] = found
        while _bytes > KEPT_BYTES:
            _bytes -= len(_kept.popitem(last=False)[0])
