"""What a mail gives to the `data` of each of its events."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple

from streamq.mail import rules
from streamq.mail.numbers import packed
from streamq.mail.rules import Given

__all__ = ["Carried", "event_members", "hashed_address", "hide_addresses", "read_carried"]


# Generous: what is hashed though it was none harms less than one that stands in the clear. Bounded, and no repeat in it
# can begin at two places.
ADDRESS = re.compile(
    r"(?:\"[^\"\r\n]{1,64}\"|[^\s<>()\[\],;:\"@]{1,64})@(?:\[[^\[\]\s]{1,64}\]|[^\s<>()\[\],;:\"@]{1,255})"
)


class Carried(NamedTuple):
    """The fields that are carried into every event as they are."""

    tenant: str | None
    tags: list[str]
    metadata: dict[str, object] | None
    traceparent: str | None


def read_carried(given: Given) -> Carried:
    """Raises MalformedMail."""
    return Carried(rules.key(given, b"tenant"), rules.tags(given), rules.metadata(given), rules.traceparent(given))


def hashed_address(address: str) -> str:
    """`sha256:` and 16 hexadecimal digits of the address in lower case: as long as a person looks for one
    address, the same in every event."""
    return "sha256:" + sha256(address.lower().encode()).hexdigest()[:16]


def hide_addresses(text: str) -> str:
    """Whatever in it looks like an address is hashed: servers' replies repeat the recipient, or the sender."""
    return ADDRESS.sub(lambda found: hashed_address(found[0]), text) if "@" in text else text


def event_members(carried: Carried, *, rcpt: str, site: str, message_id: str, parent: str = "") -> bytes:
    """The JSON members without the outer braces, under CONTRACT's names (section 3); only what applies. `parent` first:
    lib/dead.lua looks for it there."""
    members: dict[str, object] = {"parent": parent} if parent else {}
    if rcpt:
        members |= {"rcpt": rcpt, "site": site}
    if carried.tags:
        members["tags"] = carried.tags
    if carried.metadata:
        members["metadata"] = carried.metadata
    if carried.tenant:
        members["tenant"] = carried.tenant
    if carried.traceparent:
        members["traceparent"] = carried.traceparent
    if message_id:
        members["message_id"] = message_id
    return packed(members)[1:-1]
