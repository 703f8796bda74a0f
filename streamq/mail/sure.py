"""What is sure of a mail that was not read to its end: it broke a rule, it waits for a later version or for a look.

Its events say whose it is (CONTRACT, section 2: carried into every event), and operators' rules find it by that: of a
tenant's mail whose tenant nobody knows, a rule for an id of no tenant would take hold. Each field stands for itself,
since one that is wrong says nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeVar

from streamq.mail import rules
from streamq.mail.address import Address
from streamq.mail.event import Carried, event_members, hashed_address
from streamq.mail.fields import knows
from streamq.mail.rules import Given
from streamq.mail.several import OF

__all__ = ["Sure", "addressee", "moments", "read_sure"]

TO = frozenset({b"envelope_to", b"to", b"raw", b"recipients", b"cc", b"bcc"})  # what says who gets it
MANY = frozenset({b"raw", b"cc", b"bcc"})  # beside `to` alone: `envelope_to` outranks them

Found = TypeVar("Found")


class Sure(NamedTuple):
    """`id`: None where it has none, or where it or the tenant, without which it names nobody's mail, is not sure.
    `event`: as of a mail that was read, but for `message_id`."""

    id: str | None
    tenant: str | None
    event: bytes


def read_sure(
    fields: Mapping[bytes, bytes], twice: Collection[bytes] = (), *, parent: str = "", pii: str = "full"
) -> Sure:
    """Of the fields of an entry, as for `parse`. Raises nothing, whatever the bytes: what meets a bug here is left out,
    since this tells of mails that met one, too."""
    given = {name: value for name, value in fields.items() if value and name not in twice}
    carried = Carried(
        _sure(lambda: rules.key(given, b"tenant")),
        _sure(lambda: rules.tags(given)) or [],
        _sure(lambda: rules.metadata(given)),
        _sure(lambda: rules.traceparent(given)),
    )
    # Whom it is for a field may say that nobody here knows
    found = _sure(lambda: addressee(given)) if TO.isdisjoint(twice) and knows(given) else None
    shown = "" if found is None else hashed_address(found.spec) if pii == "hash" else found.spec
    site = found.site if found is not None else ""
    event = _sure(lambda: event_members(carried, rcpt=shown, site=site, message_id="", parent=parent))
    if event is None:
        return Sure(None, None, b'"parent":"%b"' % parent.encode() if parent else b"")
    # What a child shares is gone where `@of` still stands, and its tenant with it
    is_known = OF not in given and b"tenant" not in twice and (carried.tenant is not None) == (b"tenant" in given)
    return Sure(_sure(lambda: rules.key(given, b"id")) if is_known else None, carried.tenant, event)


def moments(fields: Mapping[bytes, bytes], twice: Collection[bytes], at_ms: int) -> tuple[int | None, int | None]:
    """When it may go first, and when it is over by its own word (Unix ms); None where it says nothing that is sure. It
    counts for a mail that waits for a later version, too."""
    given = {name: value for name, value in fields.items() if value and name not in twice}
    return _sure(lambda: rules.send_at_ms(given, at_ms)), _sure(lambda: rules.expires_at_ms(given, at_ms))


def addressee(given: Given) -> Address | None:
    """Whom a mail to one address is for; None where it takes more than these fields to know. Raises MalformedMail."""
    field = b"envelope_to" if b"envelope_to" in given else b"to"
    if b"recipients" in given or (field == b"to" and not given.keys().isdisjoint(MANY)):
        return None
    if len(given.get(field, b"")) > rules.MAX_MAILBOX:
        return None
    found = rules.mailboxes(given, field)
    return found[0] if len(found) == 1 else None


def _sure(read: Callable[[], Found]) -> Found | None:
    try:
        return read()
    except MemoryError:  # says nothing of this mail, and the process ends
        raise
    except Exception:  # noqa: BLE001 - MalformedMail, or whatever the bug is
        return None
