"""Intake: what to make of an entry that was read. No wire here, neither Redis' nor SMTP's."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from streamq.errors import MalformedMail, UnknownFields, UnknownTemplate, UnsupportedFields
from streamq.mail import Mail, glance, parse
from streamq.mail.building import Find
from streamq.mail.effort import Heavy
from streamq.mail.identity import collapse_digest, content_hash, digest
from streamq.mail.labour import LIGHT_US
from streamq.mail.rules import collapse
from streamq.mail.sure import Sure, addressee, moments, read_sure
from streamq.mail.template import Template
from streamq.queue.lanes import lane_of
from streamq.queue.rows import AdmitRow
from streamq.queue.scripts import why
from streamq.queue.spool import Entry, time_ms
from streamq.queue.unforeseen import log_unforeseen, reason_of
from streamq.settings import Settings
from streamq.worker.ways import UnknownRoute, Ways

__all__ = ["Intake", "Judged"]

log = logging.getLogger("streamq.intake")

Judged = tuple[AdmitRow, Mail | None]  # the mail where it may be sent, or expanded


class Intake:
    """Turns entries into rows for admission. `salt` makes Message-IDs and boundaries, the same each time; `template`
    finds a stored one by the name that a mail gives and the mail's time."""

    def __init__(
        self,
        settings: Settings,
        salt: bytes,
        ways: Ways,
        template: Find = lambda name, at_ms: None,
    ) -> None:
        self.settings = settings
        self.salt = salt
        self.ways = ways
        self.template = template

    @property
    def plain_route(self) -> str | None:
        """The route of every mail that names none; None where that hangs on the mail."""
        return self.ways.only

    def judge(self, entry: Entry) -> Judged:
        """However long it takes."""
        return self._judge(entry, self.template)

    def judge_at_once(self, entry: Entry) -> Judged | None:
        """None where that takes longer than others may be kept waiting."""
        return None if entry.labour > LIGHT_US else self.judge_lightly(entry)

    def judge_lightly(self, entry: Entry) -> Judged | None:
        """None where its template takes long to fill in."""
        try:
            return self._judge(entry, self._light)
        except Heavy:
            return None

    def _light(self, name: bytes, at_ms: int) -> Template | None:
        found = self.template(name, at_ms)
        return found.light() if found is not None else None

    def unforeseen(self, entry: Entry, error: Exception) -> Judged:
        """A bug here: the mail is held, for an operator to let go when it is mended. Nothing is lost, and all others go
        on. (To reject it lost: it may be a good one.)"""
        log_unforeseen(log, entry.entry, error)
        return self._held(entry, "internal", reason_of(error), ()), None

    def _judge(self, entry: Entry, template: Find) -> Judged:
        try:
            return self._read(entry, template)
        except (Heavy, MemoryError):  # the latter says nothing of this mail, and the process ends
            raise
        except Exception as error:  # noqa: BLE001 - whatever the bug is
            return self.unforeseen(entry, error)

    def _read(self, entry: Entry, template: Find) -> Judged:
        at_ms = time_ms(entry.parent or entry.entry)
        try:
            mail = parse(
                entry.fields,
                twice=entry.twice,
                entry=entry.stamp or entry.entry,
                at_ms=at_ms,
                salt=self.salt,
                max_bytes=self.settings.max_mail_bytes,
                pii=self.settings.pii,
                parent=entry.parent,
                nth=entry.nth,
                recipients=entry.recipients,
                template=template,
            )
        except UnknownFields as unknown:
            return self._held(entry, "unknown_field", str(unknown), unknown.fields), None
        except UnsupportedFields as unsupported:
            return self._held(entry, "unsupported", str(unsupported), unsupported.fields), None
        except UnknownTemplate as missing:
            return self._held(entry, "unknown_template", str(missing), (f"template={missing.name}",)), None
        except MalformedMail as wrong:
            reason = why(reason=str(wrong), **{"class": "malformed"})
            return AdmitRow("dead", entry.entry, id=_id(entry), tail=self._sure(entry).event, why=reason), None
        try:
            ways = self.ways.of(entry.entry, mail)
        except UnknownRoute:
            said = f"route: no such route: {mail.route!r}"
            sure = Sure(mail.id, mail.tenant, mail.event)
            return self._held(entry, "unknown_route", said, (f"route={mail.route}",), sure), None
        # A child's age counts from when it was made: its parent may have waited for a send_at further ahead than any
        # mail may get old, or have been held for as long.
        start = max(time_ms(entry.entry), mail.send_at_ms or 0)
        deadline = start + self.settings.max_age
        if mail.expires_at_ms is not None:
            deadline = min(deadline, mail.expires_at_ms)
        own = mail.expires_at_ms is not None or mail.send_at_ms is not None
        row = AdmitRow(
            "send" if mail.several is None else "expand",
            entry.entry,
            lane_of(ways, mail.site, mail.tenant) if mail.several is None else "",
            mail.send_at_ms or 0,
            deadline,
            deadline if own else 0,
            (mail.digest or b"") + mail.content_hash,
            mail.id or entry.entry,
            mail.event,
            collapse=f"{mail.collapse}{time_ms(entry.entry) + mail.collapse_ms}" if mail.collapse else "",
        )
        return row, mail

    def glance(self, entry: Entry) -> AdmitRow | None:
        """The row of a plain mail without judging the rest of it: for a lane that is known to be closed. (With
        `pii=hash` an event must not show what a glance would put there.)"""
        if self.settings.pii == "hash" or not self.ways.at_a_glance or entry.parent or entry.twice:
            return None
        seen = glance(entry.fields, self.settings.max_mail_bytes)
        if seen is None:
            return None
        deadline = time_ms(entry.entry) + self.settings.max_age
        return AdmitRow(
            "send",
            entry.entry,
            lane_of(self.ways.plain(entry.entry), seen.site),
            0,
            deadline,
            0,
            seen.seen,
            seen.id or entry.entry,
            seen.event,
        )

    def unread(self, entry: Entry, due_ms: int) -> AdmitRow:
        """The row of a mail that is to be looked at later: scheduled; of its id and its collapse key that they are
        taken."""
        given = {name: value for name, value in entry.fields.items() if value}
        sure = self._sure(entry)
        seen = b"" if sure.id is None else digest(sure.tenant or "", sure.id) + content_hash(given)
        due = due_ms + self.settings.max_age
        collapse = _collapse(given, sure.tenant, time_ms(entry.entry))
        return AdmitRow(
            "later", entry.entry, "", due_ms, due, 0, seen, sure.id or entry.entry, sure.event, collapse=collapse
        )

    def _held(
        self, entry: Entry, klass: str, reason: str, fields: tuple[str, ...], sure: Sure | None = None
    ) -> AdmitRow:
        """Known by its entry alone where its id is not sure, so that a rule for an id does not take it for another's:
        rules are asked of it, which they are not of a dead letter."""
        sure = sure or self._sure(entry)
        said = why(reason=reason, fields=fields, **{"class": klass})
        starts, ends = moments(entry.fields, entry.twice, time_ms(entry.parent or entry.entry))
        end = max(time_ms(entry.entry), starts or 0) + self.settings.max_age
        end = min(end, ends if ends is not None else end)
        own = end if starts is not None or ends is not None else 0
        id_ = sure.id or entry.entry
        return AdmitRow("hold", entry.entry, deadline=end, expires=own, id=id_, tail=sure.event, why=said)

    def _sure(self, entry: Entry) -> Sure:
        return read_sure(entry.fields, entry.twice, parent=entry.parent, pii=self.settings.pii)


def _collapse(given: Mapping[bytes, bytes], tenant: str | None, at_ms: int) -> str:
    """Of a mail to one address, as its fields say it; "" where it takes more to know that."""
    if b"collapse_key" not in given or (b"tenant" in given) != (tenant is not None):
        return ""
    try:
        found = addressee(given)
        name, wait_ms = collapse(given)
    except MalformedMail:
        return ""
    return f"{collapse_digest(tenant or '', found.spec, name)}{at_ms + wait_ms}" if found and name else ""


def _id(entry: Entry) -> str:
    """The producer's id for an event, as far as it can be shown."""
    given = entry.fields.get(b"id", b"")[:256].decode("utf-8", "replace")
    return given or entry.entry
