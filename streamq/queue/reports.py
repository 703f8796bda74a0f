"""Bounce reports as the scripts take them (lib/report.lua): when one is due, and what is brought along.

RULES      Only where the producer gave `envelope_from`, and that is not the null sender: so never for a report.
           `dsn_notify` decides (RFC 3461, 4.1; without it failures are told, and delays where the setting says so).
           Never for what a route or our account there did: such a mail is not dead. Malformed mail and poison have
           none: who reads the events can mend and requeue them.
KNOWN      A worker that ends a mail brings its report at once. Where only the script knows that a mail ends (an
           operator's wish, a time that is over, by the server's clock) it says so first: see lib/report.lua.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from streamq.errors import MailError
from streamq.mail import Mail, parse
from streamq.mail.address import parse_list
from streamq.mail.report import DELAYED, FAILED, Notice, compose_report
from streamq.mail.template import Template
from streamq.queue.connection import pipelined
from streamq.queue.rows import SettleRow
from streamq.queue.spool import Entry, Spool, time_ms
from streamq.queue.unforeseen import REPORTING, log_unforeseen
from streamq.queue.walk import notes_from
from streamq.settings import Settings, Window

__all__ = ["NOBODY", "Reports", "delay_is_told", "failure_is_told", "fetch_reports", "is_due"]

log = logging.getLogger("streamq.reports")

NOBODY = b"-"
PAGE = 10  # mails at a time: of 25 MB each they are 250
DUE = b'"report":true'  # in a row's argument, until it is filled; in a JSON text its quotes would be escaped
LATE = frozenset({"email.deferred", "email.throttled"})


def failure_is_told(mail: Mail, settings: Settings) -> bool:
    """Whether its sender hears that it could not be delivered. (What was not expanded yet is no mail to somebody.)"""
    notify = mail.dsn.notify if mail.dsn else ""
    return settings.reports and bool(mail.bounce_to) and mail.several is None and (not notify or "FAILURE" in notify)


def delay_is_told(mail: Mail, settings: Settings, waited_ms: int) -> bool:
    """Whether its sender hears that it was not delivered yet, `waited_ms` after it could have gone."""
    notify = mail.dsn.notify if mail.dsn else ""
    if settings.delay_warning is None or not settings.reports or not mail.bounce_to:
        return False
    return waited_ms >= settings.delay_warning and (not notify or "DELAY" in notify)


def is_due(row: SettleRow) -> bool:
    """Whether a report goes with it."""
    return DUE in row.arg


class Reports:
    """Composes them. `template` finds stored templates, for mails that nobody has read yet."""

    def __init__(
        self,
        settings: Settings,
        salt: bytes,
        template: Callable[[bytes, int], Template | None] = lambda name, at_ms: None,
    ) -> None:
        self.settings = settings
        self.salt = salt
        self.template = template
        self.mta = settings.report_mta or socket.gethostname()
        self.author = parse_list(settings.report_from)[0] if settings.report_from else None

    def made(self, mail: Mail, content: bytes, notice: Notice, entry: str, now_ms: int) -> bytes:
        """JSON for a script: to whom, how many of them in which window, and of all, the fields of its XADD."""
        raw = compose_report(
            mail,
            content,
            notice,
            entry=entry,
            arrived_ms=time_ms(entry),
            now_ms=now_ms,
            salt=self.salt,
            mta=self.mta,
            author=self.author,
        )
        fields = ["raw", raw.decode(), "envelope_from", "<>", "envelope_to", mail.bounce_to, "x_report_of", entry]
        if mail.tenant is not None:
            fields += ["tenant", mail.tenant]
        if mail.sensitive:
            fields += ["sensitive", "1"]
        if mail.require_tls:  # RFC 8689, 5: what tells of such a mail is protected as that mail was
            fields += ["require_tls", "1"]
        cap, whole = self._cap(self.settings.report_rate), self._cap(self.settings.report_rate_all)
        return orjson.dumps({"to": mail.bounce_to, **cap, "all": whole, "fields": fields})

    @staticmethod
    def _cap(rate: Window) -> dict[str, int]:
        return {"most": rate.count, "window": rate.window_ms}

    def filled(self, row: SettleRow, mail: Mail, content: bytes | None, now_ms: int) -> SettleRow:
        """The row with its report, where one is due; `content` None: the mail's own. Not before it is sent: rows are
        kept for ten seconds. A bug here must not keep the mail from its end, which then goes untold."""
        if not is_due(row):
            return row
        try:
            return self._filled(row, mail, mail.content() if content is None else content, now_ms)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the bug is
            log_unforeseen(log, row.entry, error, REPORTING)
            return row._replace(arg=row.arg.replace(DUE, b'"report":false', 1))

    def _filled(self, row: SettleRow, mail: Mail, content: bytes, now_ms: int) -> SettleRow:
        known: dict[str, Any] = orjson.loads(row.arg)
        said: dict[str, Any] = orjson.loads(b"{%b}" % row.tail)
        klass = str(known["class"])
        server = klass != "operator"
        notice = Notice(
            action=DELAYED if row.kind in LATE else FAILED,
            klass=klass,
            status=said.get("enhanced", "") if server else "",
            code=(said.get("code") or known.get("code") or 0) if server else 0,
            reply=(said.get("reply") or known.get("reply") or "") if server else known["reason"],
            peer=said.get("peer", "") if server else "",
            tried_ms=now_ms if "attempt" in said else known.get("last") or 0,
            until_ms=known["deadline"] if row.kind in LATE else 0,
        )
        made = self.made(mail, content, notice, row.entry, now_ms)
        return row._replace(arg=row.arg.replace(DUE, b'"report":' + made, 1))

    def of_entry(self, entry: Entry, notes: Mapping[str, Any], klass: str, now_ms: int) -> bytes:
        """Of a mail that no courier has in hand; NOBODY where it is no mail, or its sender is not told."""
        try:
            mail = parse(
                entry.fields,
                twice=entry.twice,
                entry=entry.stamp or entry.entry,
                at_ms=time_ms(entry.parent or entry.entry),
                salt=self.salt,
                max_bytes=self.settings.max_mail_bytes,
                parent=entry.parent,
                template=self.template,
                recipients=entry.recipients,
            )
        except MailError:
            return NOBODY
        if not failure_is_told(mail, self.settings):
            return NOBODY
        operator = klass == "operator"
        notice = Notice(
            FAILED,
            klass,
            code=0 if operator else notes.get("code", 0),
            reply="bounced by an operator" if operator else notes.get("reply") or "",
            tried_ms=notes.get("last", 0),
        )
        return self.made(mail, mail.content(), notice, entry.entry, now_ms)


async def fetch_reports(spool: Spool, entries: Sequence[str], klass: str) -> dict[str, bytes]:
    """The reports that a script waits for (move.lua, expire.lua), of mails that end with this class."""
    reports = Reports(spool.settings, spool.salt, spool.templates.find)
    made = dict.fromkeys(entries, NOBODY)  # one that is gone by now is nobody's, and must not be asked for again
    for start in range(0, len(entries), PAGE):
        page = entries[start : start + PAGE]
        found = await spool.fetch(page)
        notes = await pipelined(spool.redis, [("HGET", spool.keys.notes, entry) for entry in page])
        for entry, known in zip(found, notes, strict=True):
            if entry is None:
                continue
            told = entry, notes_from(known), klass, spool.now_ms()
            try:
                await entry.read_recipients()
                made[entry.entry] = await asyncio.to_thread(reports.of_entry, *told)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a bug here must not keep the mail from its end
                log_unforeseen(log, entry.entry, error, REPORTING)
    return made
