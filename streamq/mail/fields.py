"""From the fields of an entry to a checked mail: the rules of CONTRACT, section 2, and their order.

First a field that this version does not know (a later version's rules may differ in all else), then one that was
given twice, then a known field that breaks its rule, then what is missing or contradicts, last a template that is not
there. A new field stands in `BUILT`, has its rule, and is used in `_mail`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from streamq.errors import SHOWN, MalformedMail, UnknownFields
from streamq.mail import rules
from streamq.mail.attachments import largest
from streamq.mail.building import Find, build
from streamq.mail.dsn import DSN_FIELDS, Dsn, read_dsn, read_require_tls
from streamq.mail.event import Carried, event_members, hashed_address, read_carried
from streamq.mail.identity import child_digest, collapse_digest, content_hash, digest
from streamq.mail.mail import Built, Mail
from streamq.mail.message import COMPOSING
from streamq.mail.recipients import Recipients
from streamq.mail.rules import Given
from streamq.mail.several import OF
from streamq.mail.template import installed
from streamq.mail.values import wrong

__all__ = ["BUILT", "SENSITIVE", "able", "is_flagged", "knows", "lacking", "parse"]

BUILT = frozenset(
    {
        *COMPOSING,
        *(b"id", b"raw", b"envelope_from", b"envelope_to", b"recipients", b"route", b"tenant", b"v"),
        *(b"send_at", b"delay", b"expires_at", b"ttl"),
        *(b"collapse_key", b"collapse_seconds"),
        *(b"on_ambiguous", b"sensitive", b"tags", b"metadata", b"traceparent"),
        *(*DSN_FIELDS, b"require_tls"),
    }
)
IGNORED_PREFIX = b"x_"
SENSITIVE = b"sensitive"

VERSION = b"1"
NAMES_TOLD = 20  # unknown fields that an error names; an entry can have as many as its producer likes
READ_FOR_A_REASON = 2  # times the cap: more is not worth its memory
ON_AMBIGUOUS = frozenset({b"resend", b"hold", b"assume_delivered"})


def able(need: str) -> bool:
    """Whether this version can do what a mail was held for: one name out of `UnknownFields.fields` or
    `UnsupportedFields.fields`."""
    return need.encode("utf-8", "replace") in BUILT and (need != "template" or installed())


def knows(given: Given) -> bool:
    """Whether this version knows all that stands there."""
    strange = given.keys() - BUILT
    return given.get(b"v", VERSION) == VERSION and all(name.startswith(IGNORED_PREFIX) for name in strange)


def lacking(need: str) -> str:
    """The class under which a mail is held that waits for it."""
    for kind, klass in (("template=", "unknown_template"), ("route=", "unknown_route")):
        if need.startswith(kind):
            return klass
    return "unsupported" if need.encode("utf-8", "replace") in BUILT else "unknown_field"


def is_flagged(value: bytes) -> bool:
    """Whether what `sensitive` says hides a body: what is no flag was meant as one, too (lib/letter.lua)."""
    return value not in (b"", b"0")


def parse(
    fields: Mapping[bytes, bytes],
    *,
    entry: str,
    at_ms: int,
    salt: bytes,
    max_bytes: int,
    pii: str = "full",
    parent: str = "",
    nth: int = 0,
    template: Find = lambda name, at_ms: None,
    recipients: Recipients | None = None,
    twice: Collection[bytes] = (),
) -> Mail:
    """Check an entry's fields; an empty value is no value.

    `at_ms` is the entry's time, from which `delay` and `ttl` count; `salt` is the queue's; `max_bytes` caps
    the fields together and the built message. With `pii="hash"` no address stands in `event`. Of a child (`fields`
    are merged with what it shares) `parent` is the entry that it came of, `nth` which of its children it is, from 1,
    `entry` the name by which its message is stamped, `at_ms` its parent's time. `template` finds a stored one.
    `recipients`: what came of reading that field, where that was done already, in steps. `twice`: fields that stand
    more than once in the entry: nobody can tell which of them was meant. Raises UnknownFields, MalformedMail,
    UnsupportedFields or UnknownTemplate and nothing else, whatever the bytes.
    """
    given = {name: value for name, value in fields.items() if value}
    if not given.keys() <= BUILT or given.get(b"v", VERSION) != VERSION:
        _refuse_unknown(given)
    try:
        if twice:
            _refuse_twice(given, twice)
        return _mail(given, entry, at_ms, salt, max_bytes, pii == "hash", parent, nth, template, recipients)
    except MalformedMail as found:
        # The reason goes into events and dead letters: it must not say there what they are not to hold
        if found.value and (pii == "hash" or is_flagged(given.get(SENSITIVE, b""))):
            raise MalformedMail(found.field, "", found.why) from None
        raise


def _refuse_unknown(given: Given) -> None:
    """A later version's mail (`v`) waits for it under a name that says which (`v=2`); see `able`."""
    if OF in given:
        raise wrong(OF, given[OF], "not one of the children of that mail, or what they share is gone")
    unknown = [name for name in given.keys() - BUILT if not name.startswith(IGNORED_PREFIX)]
    version = given.get(b"v", VERSION)
    if version.isdigit() and len(version) < 10 and int(version) > 1:
        unknown.append(b"v=%d" % int(version))
    if unknown:
        shown = sorted(unknown)[:NAMES_TOLD]
        raise UnknownFields(name[:SHOWN].decode("utf-8", "backslashreplace") for name in shown)
    if version != VERSION:
        raise wrong(b"v", version, "not a version of the field table")


def _refuse_twice(given: Given, twice: Collection[bytes]) -> None:
    """An empty one counts, too: whether the first or the last is read would decide what the mail says."""
    for field in sorted(twice):
        if not field.startswith(IGNORED_PREFIX):
            raise wrong(field[:SHOWN], given.get(field, b""), "given more than once")


def _mail(
    given: Given,
    entry: str,
    at_ms: int,
    salt: bytes,
    max_bytes: int,
    hashed: bool,
    parent: str,
    nth: int,
    template: Find,
    recipients: Recipients | None,
) -> Mail:
    if sum(map(len, given.values())) > max_bytes:
        raise _too_large(given, max_bytes)
    mail_id = rules.key(given, b"id")
    wishes = NONE if WISHES.isdisjoint(given) else _wishes(given, at_ms)
    message, several = build(
        given, template, entry=entry, at_ms=at_ms, salt=salt, max_bytes=max_bytes, recipients=recipients
    )
    envelope_from, addressed, source, stamped = message
    dsn, tenant = wishes.dsn, wishes.carried.tenant or ""
    if several is not None and dsn is not None and dsn.orcpt and len(several.children) > 1:  # RFC 3461, section 4.2
        raise wrong(b"dsn_orcpt", dsn.orcpt, "names one recipient, and this mail has several")
    if several is not None and parent:
        raise wrong(b"to", addressed[1].spec if len(addressed) > 1 else "", "more than one address")
    size = source.size
    if size > max_bytes // 2:  # a size may be half of the truth
        source = Built(source.content(), source.eight_bit, source.smtputf8)
        size = source.size
    if size > max_bytes:
        raise _too_large(given, max_bytes)
    to = addressed[0]
    rcpt = to.spec
    site = to.site
    shown = "" if several is not None else hashed_address(rcpt) if hashed else rcpt
    stamped = "" if several is not None and several.personal else stamped
    return Mail(
        id=mail_id,
        envelope_from=envelope_from,
        envelope_to=rcpt,
        site=site,
        route=wishes.route,
        tenant=wishes.carried.tenant,
        send_at_ms=wishes.send_at_ms,
        expires_at_ms=wishes.expires_at_ms,
        on_ambiguous=wishes.on_ambiguous,
        sensitive=wishes.sensitive,
        eight_bit=source.eight_bit,
        smtputf8=source.smtputf8 or not (rcpt.isascii() and envelope_from.isascii()),
        digest=digest(tenant, mail_id) if mail_id else child_digest(parent, nth) if parent else None,
        content_hash=b"" if mail_id is None else content_hash(given),
        event=event_members(wishes.carried, rcpt=shown, site=site, message_id=stamped, parent=parent),
        size=size,
        source=source,
        dsn=dsn,
        require_tls=wishes.require_tls,
        bounce_to=envelope_from if b"envelope_from" in given else "",
        several=several,
        collapse=collapse_digest(tenant, rcpt, wishes.collapse_key) if wishes.collapse_key else "",
        collapse_ms=wishes.collapse_ms,
    )


class _Wishes(NamedTuple):
    """What a mail asks for beside its message and its recipients. Most ask for nothing."""

    route: str | None
    on_ambiguous: str | None
    sensitive: bool
    send_at_ms: int | None
    expires_at_ms: int | None
    collapse_key: str | None
    collapse_ms: int
    dsn: Dsn | None
    require_tls: bool
    carried: Carried


def _wishes(given: Given, at_ms: int) -> _Wishes:
    return _Wishes(
        rules.name(given, b"route"),
        rules.choice(given, b"on_ambiguous", ON_AMBIGUOUS),
        rules.flag(given, b"sensitive", default=False),
        rules.send_at_ms(given, at_ms),
        rules.expires_at_ms(given, at_ms),
        *rules.collapse(given),
        read_dsn(given),
        read_require_tls(given),
        read_carried(given),
    )


WISHES = BUILT - {*COMPOSING, b"id", b"raw", b"envelope_from", b"envelope_to", b"recipients", b"v"}
NONE = _wishes({}, 0)


def _too_large(given: Given, max_bytes: int) -> MalformedMail:
    field = max(given, key=lambda field: len(given[field]))
    where = name = ""
    if field == b"attachments" and len(given[field]) <= READ_FOR_A_REASON * max_bytes:
        where, name = largest(given[field])
    return wrong(field, name, f"{where}the mail is over the size cap of {max_bytes} bytes")
