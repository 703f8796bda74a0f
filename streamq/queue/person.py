"""Who gets a mail, and whether that is somebody who is looked for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from streamq.errors import MailError
from streamq.mail import parse
from streamq.mail.address import parse_list
from streamq.mail.event import hashed_address
from streamq.mail.glance import plain_recipient
from streamq.queue.events import Event
from streamq.queue.spool import time_ms
from streamq.queue.walk import MailView

__all__ = ["Person", "person", "recipients_of"]

HEAD_END = re.compile(rb"\r?\n\r?\n")
ADDRESSED = (b"to", b"cc", b"bcc", b"envelope_to", b"recipients", b"raw")


@dataclass(frozen=True, slots=True)
class Person:
    """An address in lower case, its domain in A-labels; `forms`: how its text may stand in a mail."""

    spec: str
    forms: tuple[bytes, ...]

    def is_one_of(self, recipients: list[str]) -> bool:
        return any(each.lower() == self.spec for each in recipients)

    def may_stand_in(self, fields: Mapping[bytes, bytes]) -> bool:
        """Without reading who gets it: of a million mails nearly all are to others. True of each mail to them, however
        the address is spelt there: JSON and quotes may escape any sign, a domain in Unicode has many forms."""
        local, domain = self.local.encode(), self.domain.encode()
        for name in ADDRESSED:
            value = fields.get(name, b"")
            value = (HEAD_END.split(value, 1)[0] if name == b"raw" else value).lower()
            is_spelt = local in value or b'"' in value  # "a"."b"@ is a.b@
            if b"\\" in value or (is_spelt and (domain in value or not value.isascii())):
                return True
        return False

    @property
    def local(self) -> str:
        """What its local part has in any spelling, for a first look; "" where nothing is sure."""
        local = self.spec.rpartition("@")[0]
        return local if local.isascii() and '"' not in local else ""

    @property
    def domain(self) -> str:
        """The same of its domain: what is ASCII in it, in whichever form the rest of it stands."""
        domain = self.spec.rpartition("@")[2]
        if "xn--" not in domain:
            return domain
        return max((label for label in domain.split(".") if not label.startswith("xn--")), key=len, default="@")

    def gets(self, event: Event) -> bool:
        """Whether it is the recipient that an event names, hashed or in the clear."""
        return event.text("rcpt").lower() in {self.spec, hashed_address(self.spec)}

    def is_named_in(self, event: Event) -> bool:
        """As a recipient, in a reply, or as the producer's id."""
        return self.gets(event) or any(
            form in event.raw.lower() or form in event.id.lower().encode() for form in self.forms
        )


def person(text: str) -> Person:
    """Raises ValueError where it is no address. Local parts are compared in any case, as nearly all servers do."""
    addresses = parse_list(text)
    if len(addresses) != 1:
        raise ValueError("not one address")
    address = addresses[0]
    spec = f"{address.local}@{address.domain}".lower()
    given = text.strip().lower()
    shown = f"{address.local}@{_unicode(address.domain)}".lower()
    return Person(spec, tuple({each.encode() for each in (spec, shown, given if "@" in given else spec)}))


def _unicode(domain: str) -> str:
    """As people write it."""
    try:
        return domain.encode("ascii").decode("idna")
    except UnicodeError:
        return domain


def recipients_of(view: MailView) -> list[str]:
    """Who gets it, as far as its fields say: of one that is no mail, or that this version does not know all of, whom
    `envelope_to` names, else `to`, `cc`, `bcc` and `recipients`."""
    if plain := plain_recipient(view.fields):
        return [plain]
    try:
        mail = parse(view.fields, entry=view.entry, at_ms=time_ms(view.entry), salt=b"", max_bytes=2**31)
    except MailError:
        given = _listed(view.text("envelope_to"))
        return given or [spec for name in ("to", "cc", "bcc") for spec in _listed(view.text(name))] + _bulk(view)
    if mail.several is None:
        return [mail.envelope_to]
    texts = (child.value.decode("utf-8", "replace") for child in mail.several.children)
    return [spec for text in texts for spec in _specs(text) or [text]]


def _listed(text: str) -> list[str]:
    """Of a comma list, or a JSON array."""
    if text.startswith("["):
        with contextlib.suppress(orjson.JSONDecodeError):
            found = orjson.loads(text)
            return [spec for each in found if isinstance(each, str) for spec in _specs(each)]
    return _specs(text[:10_000])


def _specs(text: str) -> list[str]:
    try:
        return [address.spec for address in parse_list(text)]
    except ValueError:
        return []


def _bulk(view: MailView) -> list[str]:
    try:
        found = orjson.loads(view.fields.get(b"recipients", b"[]"))
    except orjson.JSONDecodeError:
        return []
    each = [one.get("to") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [spec for text in each if isinstance(text, str) for spec in _specs(text)]
