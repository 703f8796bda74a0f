"""From what the courier reports to what the queue is told: retries, bounces, events."""

from __future__ import annotations

import random

import orjson

from streamq.mail import Mail
from streamq.mail.event import hide_addresses
from streamq.queue.events import with_code
from streamq.queue.reports import delay_is_told, failure_is_told
from streamq.queue.rows import SettleRow
from streamq.queue.scripts import why
from streamq.queue.spool import time_ms
from streamq.queue.unforeseen import COMPOSING, reason_of
from streamq.settings import Settings
from streamq.smtp.letter import Action, Report, Scope, Stage
from streamq.worker.hand import Delivery
from streamq.worker.rates import Rates
from streamq.worker.sameness import same_words

__all__ = ["BOUNCING", "EXPIRING", "Outcomes", "ending", "hash_of", "target_kind"]

HINT_MOST_MS = 4 * 3_600_000
PARKS_MOST = 2
OURS = frozenset({Scope.SESSION, Scope.ROUTE})
BOUNCING, EXPIRING = "bouncing", "expiring"  # settle's and admission's words for: end it, and bring its report
# Sessions that may end at one mail, unjudged. Where a server closes after every mail without a word, half of all lose
# one: one in a million loses twenty.
BREAKS_MOST = 20
IN_TRANSACTION = frozenset({Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT})
SLOW = "slow"  # the mail's own time was over
PACES = frozenset({"site_rate", "route_rate"})  # about our pace, and nothing about this mail: no attempt
# Throttles after which a mail stands at the front of its lane again. The next time it goes on the schedule, and each
# time for longer: it may be this mail alone that is refused so, and every probe would be this mail. (A box of a minute
# takes eight.)
THROTTLED_MOST = 8


def ending(status: str, mail: Mail | None, settings: Settings, deadline_ms: int, **known: object) -> tuple[str, bytes]:
    """The event's type and the argument of `dead` for a mail that a script wants ended, with its report: `bouncing`, an
    operator's wish; `expiring`, its time is over. `known`: the last attempt's reply, code, moment."""
    told = {"report": True} if mail is not None and failure_is_told(mail, settings) else {}
    if status == BOUNCING:
        return "email.bounced", why(reason="bounced by an operator", **{"class": "operator"}, **told)
    reason = f"too old: its time was over at {deadline_ms}"
    return "email.expired", why(reason=reason, **{"class": "expired"}, **known, **told)


class Outcomes:
    """Turns reports into rows. `chance` decides the jitter."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        self.settings = settings
        self.chance = chance
        self.rates = Rates()
        self._parks: dict[str, int] = {}  # route → parks in a row that no route's failure explains

    def wait_ms(self, attempts: int, hint_ms: int = 0) -> int:
        """How long after this many judged attempts (1 after the first)."""
        steps = self.settings.retry
        step = steps[min(attempts, len(steps)) - 1]
        jitter = self.settings.jitter
        wait = round(step * self.chance.uniform(1 - jitter, 1 + jitter))
        return max(wait, min(hint_ms, HINT_MOST_MS))

    def row(self, delivery: Delivery, report: Report, now_ms: int) -> SettleRow | None:
        """What to settle; None where the lease is somebody else's."""
        if report.action is Action.ABANDON:
            return self._abandoned(delivery, report, now_ms)
        if report.action is Action.PARK:
            if self._is_its_own(delivery, report):
                return self._refused(delivery, report, now_ms, down=True)
            if _breaks_sessions(report) and int(delivery.notes.get("broke", 0)) >= BREAKS_MOST:
                return self._refused(delivery, report, now_ms)
            return self._parked(delivery, report)
        self._parks.pop(delivery.way, None)
        tail = self.tail(delivery, report, now_ms)
        if report.action is Action.RETRY and report.klass in PACES:
            return self._throttled(delivery, report, now_ms, tail)
        for target in (delivery.way, f"{delivery.way}|{delivery.site}"):
            self.rates.took(target, now_ms)
        if report.action is Action.SENT:
            known = _hash(delivery)
            return self._made(delivery, "sent", "email.relayed", tail, why(**known) if known else b"")
        if report.action is Action.FAIL:
            said = why(
                reason=f"{report.stage}: {_said(report) or report.klass}",
                reply=_said(report),
                judged=True,
                **({"text": same_words(report)} if report.code and not report.about_recipient else {}),
                **({"report": True} if self._is_told(delivery, report) else {}),
                **{"class": report.klass},
            )
            return self._made(delivery, "dead", "email.bounced", tail, said)
        if report.action is Action.AMBIGUOUS:
            policy = delivery.mail.on_ambiguous or self.settings.on_ambiguous
            if policy == "assume_delivered":
                return self._made(delivery, "sent", "email.relayed", tail, why(ambiguous=True, **_hash(delivery)))
            if policy == "hold":
                said = why(
                    reason="ambiguous: the dot went out, no reply came", ambiguous=True, **{"class": "ambiguous"}
                )
                return self._made(delivery, "hold", "email.held", tail, said)
        kind = "email.deferred"
        marked = {"ambiguous": True} if report.action is Action.AMBIGUOUS else {}
        if marked:
            kind = "email.ambiguous"
        elif report.klass == "recipient_rate":
            kind = "email.throttled"
        # One slow server: at once, over another connection. A second time it waits as any other mail.
        at_once = report.klass == SLOW and report.action is Action.RETRY and not delivery.attempts
        said = why(
            wait=0 if at_once else self.wait_ms(delivery.attempts + 1, report.hint_ms),
            deadline=delivery.deadline_ms,
            reply=_said(report),
            **({"code": report.code} if report.code else {}),
            **({"report": True} if self._is_late(delivery, report, now_ms) else {}),
            **marked,
            **{"class": report.klass},
        )
        return self._made(delivery, "defer", kind, tail, said)

    def _throttled(self, delivery: Delivery, report: Report, now_ms: int, tail: bytes) -> SettleRow:
        """No attempt: its site slows, or its route."""
        times = int(delivery.notes.get("throttled", 0)) + 1
        said = why(
            scope=target_kind(report),
            words=same_words(report),
            hint=report.hint_ms,
            took=self.rates.of(f"{delivery.way}|{delivery.site}", now_ms),
            took_way=self.rates.of(delivery.way, now_ms),
            least=self.rates.least_of(f"{delivery.way}|{delivery.site}", now_ms),
            least_way=self.rates.least_of(delivery.way, now_ms),
            wait=self.wait_ms(max(1, times - THROTTLED_MOST), report.hint_ms),
            deadline=delivery.deadline_ms,
            reply=_said(report),
            **({"park": True} if times <= THROTTLED_MOST else {}),
            **({"code": report.code} if report.code else {}),
            **({"report": True} if self._is_late(delivery, report, now_ms) else {}),
            **{"class": report.klass},
        )
        return self._made(delivery, "throttled", "email.throttled", tail, said)

    def ended(self, row: SettleRow, delivery: Delivery, status: str) -> SettleRow:
        """The end that settle asks for, of a mail that is still ours (`ending`). That an attempt was made is counted
        already."""
        known = orjson.loads(row.arg) if row.arg else {}
        tail = row.tail or delivery.mail.event
        if status == BOUNCING:
            tail += b',"asked":"bounce"'
        kind, said = ending(status, delivery.mail, self.settings, delivery.deadline_ms, reply=known.get("reply"))
        return row._replace(op="dead", lane="", kind=kind, tail=tail, arg=said)

    def _is_told(self, delivery: Delivery, report: Report) -> bool:
        """Of what our route or our account there did its sender hears nothing."""
        return report.scope not in OURS and failure_is_told(delivery.mail, self.settings)

    def _is_late(self, delivery: Delivery, report: Report, now_ms: int) -> bool:
        """Once a mail. Not where it may have been delivered."""
        if report.scope is Scope.ROUTE or report.action is Action.AMBIGUOUS or delivery.notes.get("warned"):
            return False
        return delay_is_told(delivery.mail, self.settings, self._waited_ms(delivery, now_ms))

    def _waited_ms(self, delivery: Delivery, now_ms: int) -> int:
        return max(0, now_ms - max(time_ms(delivery.entry), delivery.mail.send_at_ms or 0))

    def handed_back(self, delivery: Delivery) -> SettleRow:
        """Back to its lane, untried: shutdown."""
        return self._made(delivery, "park", "", b"", why(wait=0))

    def broken(self, delivery: Delivery, error: Exception) -> SettleRow:
        """Held, since nobody foresaw what composing it raised: for an operator to let go when that is mended."""
        said = why(reason=reason_of(error, COMPOSING), **{"class": "internal"})
        tail = b",".join(part for part in (delivery.mail.event, said[1:-1]) if part)
        return self._made(delivery, "hold", "email.held", tail, said)

    def overdue(self, delivery: Delivery) -> SettleRow:
        """Its time is over, and nobody has tried it since it was leased."""
        return self.ended(self.handed_back(delivery), delivery, EXPIRING)

    def tail(self, delivery: Delivery, report: Report, now_ms: int, *, judged: bool = False) -> bytes:
        """The event's inner JSON."""
        known: dict[str, object] = {
            "route": delivery.way,
            "peer": report.peer,
            "attempt": delivery.attempts + (judged or report.action is not Action.PARK),
            "class": report.klass,
            "code": report.code,
            "enhanced": report.enhanced,
            "reply": hide_addresses(report.reply) if self.settings.pii == "hash" else report.reply,
            "stage": str(report.stage),
            "tls": report.tls,
            "queued_ms": self._waited_ms(delivery, now_ms),
            "duration_ms": report.duration_ms,
        }
        own = orjson.dumps({name: value for name, value in known.items() if value not in ("", None)})[1:-1]
        return delivery.mail.event + b"," + own if delivery.mail.event else own

    def _made(self, delivery: Delivery, op: str, kind: str, tail: bytes, arg: bytes = b"") -> SettleRow:
        name = delivery.mail.id or delivery.entry
        way = delivery.target or delivery.way
        lane, left = delivery.lane, delivery.left_us
        return SettleRow(op, delivery.entry, delivery.token, lane, name, kind, tail, arg, way, left)

    def _abandoned(self, delivery: Delivery, report: Report, now_ms: int) -> SettleRow | None:
        if delivery.mark != "sent":
            return None
        # The 250 came to its last owner, after that one's lease had gone: it ends as what it was.
        return self._made(delivery, "sent", "email.relayed", self.tail(delivery, report, now_ms))

    def _is_its_own(self, delivery: Delivery, report: Report) -> bool:
        """Twice this mail was the probe of a route that went down in its transaction: the third time it is
        judged, whatever the class, or one mail could hold up a route for as long as it lives."""
        down = report.scope is Scope.ROUTE and report.stage in IN_TRANSACTION
        return down and report.tried and int(delivery.notes.get("parks", 0)) >= PARKS_MOST

    def _refused(self, delivery: Delivery, report: Report, now_ms: int, *, down: bool = False) -> SettleRow:
        said = why(
            wait=self.wait_ms(delivery.attempts + 1, report.hint_ms),
            deadline=delivery.deadline_ms,
            reply=_said(report),
            **({"down": True, "hint": min(report.hint_ms, HINT_MOST_MS)} if down else {}),
            **{"class": report.klass},
        )
        return self._made(delivery, "defer", "email.deferred", self.tail(delivery, report, now_ms, judged=True), said)

    def _parked(self, delivery: Delivery, report: Report) -> SettleRow:
        hint = min(report.hint_ms, HINT_MOST_MS)
        if report.scope is Scope.ROUTE:
            known: dict[str, object] = {"down": True, "class": report.klass, "reply": _said(report), "hint": hint}
            if report.tried and report.stage in IN_TRANSACTION:
                known["own"] = True
            if not report.code:  # nobody spoke: it may be our own network
                known["lonely"] = True
            return self._made(delivery, "park", "", b"", why(**known))
        # A session that ended before it judged this mail: again at once, and slower where that goes on.
        parks = self._parks[delivery.way] = self._parks.get(delivery.way, 0) + 1
        wait = (
            0 if parks <= 3 * self.settings.in_hand else min(50 * 2 ** min(parks // self.settings.in_hand, 10), 30_000)
        )
        own = {"own": True} if report.klass == SLOW else {}  # counted: its time doubles
        # By mail as well: one whose sender ends each session would go round at once, for ever, while the others that
        # are judged between say that all is well.
        if _breaks_sessions(report):
            own["broke"] = True
        return self._made(delivery, "park", "", b"", why(wait=max(wait, hint), **own))


def _said(report: Report) -> str:
    """Its reply for what has no code beside it: letters, paces, closures."""
    return with_code(report.code, report.reply) if report.reply else ""


def target_kind(report: Report) -> str:
    """Whose pace a throttle is about: of what a user's own table calls a sender's or a mail's, the site's."""
    return "route" if report.scope is Scope.ROUTE else "site"


def _breaks_sessions(report: Report) -> bool:
    unjudged = report.scope is Scope.SESSION and report.stage in IN_TRANSACTION
    return unjudged and report.klass not in {SLOW, "interrupted"}


def _hash(delivery: Delivery) -> dict[str, int]:
    return hash_of(delivery.mail) if delivery.unhashed else {}


def hash_of(mail: Mail) -> dict[str, int]:
    """What `sent` tells of a mail that may have been parked unlooked-at, where its producer named it. (One with a
    tenant never is.)"""
    if mail.id is None or mail.tenant is not None:
        return {}
    return {"hash": int.from_bytes(mail.content_hash)}
