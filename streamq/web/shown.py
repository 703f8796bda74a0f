"""What the page is told, as plain JSON: numbers and names as they stand in Redis; words and units are the page's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from streamq.queue.children import Family
from streamq.queue.gauge import LaneGauge, Rule
from streamq.queue.letters import DeadGroup, DeadLetter, DeadReason
from streamq.queue.look import age_ms
from streamq.queue.overview import Overview, Overviews
from streamq.queue.routes import Closure, RouteView
from streamq.queue.search import End
from streamq.queue.sites import SiteView
from streamq.queue.steer import ends_rule
from streamq.queue.story import Mailbox, Story
from streamq.queue.why import Ended, Why
from streamq.queue.wording import since_words, waits_words
from streamq.web.acts import RULE_MOST
from streamq.web.verdict import verdict

__all__ = ["letter_shown", "mailbox_shown", "overview_shown", "reason_shown", "sample_shown", "story_shown"]

SITES_SHOWN = 100
WORKERS_SHOWN = 200
DOMAINS_SHOWN = 20  # of a reason
RULES_SHOWN = 20
TEXT_MOST = 2000  # characters of any one value: a field may hold megabytes
BODIES = frozenset({b"text", b"html", b"raw", b"attachments", b"vars", b"recipients"})


def cut(text: str, most: int = TEXT_MOST) -> str:
    return text if len(text) <= most else text[:most] + "…"


def overview_shown(overviews: Overviews, seen: Overview, *, may_change: bool) -> dict[str, Any]:
    now = seen.status
    sites = [view for at, view in enumerate(seen.sites) if at < SITES_SHOWN or view.trouble is not None]
    return {
        "queue": overviews.spool.settings.queue,
        "may_change": may_change,
        "now_ms": now.now_ms,
        "verdict": asdict(verdict(seen)),
        "depth": now.depth,
        "oldest_ms": now.oldest_ms,
        "aged_ms": now.aged_ms,
        "live": now.live,
        "next_due_ms": now.next_due_ms,
        "late_ms": now.late_ms,
        "accepted": now.accepted,
        "totals": now.totals,
        "classes": now.classes,
        "tallies": now.tallies,
        "dead": now.dead,
        "dead_version": seen.graves.version,
        "events": now.events,
        "memory": now.memory,
        "memory_max": now.memory_max,
        "workers": now.workers,
        "consumers": [{**asdict(one), "alive": one.alive} for one in now.consumers[:WORKERS_SHOWN]],
        "routes": [_route(view, seen.limits.get(view.name, Rule()), now.now_ms) for view in seen.routes],
        "sites": [_site(view, now.now_ms) for view in sites],
        "sites_left": seen.sites_left + len(seen.sites) - len(sites),
        "troubled_left": seen.troubled_left,
        "rules": {cut(name, 300): verb for name, verb in seen.rules.items()},
        "standing": [_standing(name, verb) for name, verb in sorted(seen.rules.items())[:RULES_SHOWN]],
        "held_for": {cut(name, 300): many for name, many in seen.needs.items()},
        "visit_ms": now.visit_ms,
        "evicted": now.evicted,
        "sample": sample_shown(overviews, -1) if overviews.samples else None,
    }


def sample_shown(overviews: Overviews, at: int) -> dict[str, Any]:
    since = overviews.flow(at)
    flow = since and {"in": since.came, "out": since.went, "outcomes": since.outcomes}
    return {**asdict(overviews.samples[at]), "flow": flow}


def _standing(name: str, verb: str) -> dict[str, str | None]:
    """`name`: by which it is ended here; None: too long for that."""
    kind, _, value = name.partition(":")
    words = f"{verb} {'all mail' if kind == 'all' else f'{kind} {value}'}"
    known = name if len(name) <= RULE_MOST else None
    return {"name": known, "verb": cut(verb, 20), "words": cut(words, 300), "ends": cut(ends_rule(name), 400)}


def _rule(rule: Rule) -> dict[str, Any]:
    """`connections`: None: nobody says; 0: no limit."""
    return {"words": str(rule), "by": rule.by or rule.connections_by, "connections": rule.connections}


def _closed(each: Closure, now_ms: int) -> dict[str, Any]:
    known = asdict(each) | {"since_ms": max(0, now_ms - each.since_ms), "text": cut(each.text, 500)}
    return known | {"route": each.route, "site": each.site}


def _route(view: RouteView, rule: Rule, now_ms: int) -> dict[str, Any]:
    return {
        "name": view.name,
        "parked": view.parked,
        "granted": view.connections,
        "standing": view.standing,
        "learnt": None if view.learnt is None else asdict(view.learnt),
        "limit": _rule(rule),
        "closed": [_closed(each, now_ms) for each in view.closed],
    }


def _site(view: SiteView, now_ms: int) -> dict[str, Any]:
    return {
        "name": view.site,
        "route": view.route,
        "parked": view.many,
        "limit": _rule(view.rule),
        "rate": view.gauge.rate if view.gauge else None,
        "in_use": view.in_use,
        "next_ms": view.next_ms,
        "drained_ms": view.drained_ms,
        "pace": _pace(view.gauge, now_ms) if view.gauge else None,
        "closed": [_closed(each, now_ms) for each in view.closed],
        "trouble": view.trouble and {**asdict(view.trouble), "words": view.trouble.words},
    }


def _pace(gauge: LaneGauge, now_ms: int) -> dict[str, Any] | None:
    """The slowest that replies taught."""
    paces = [each.pace for each in gauge.gauges if each.pace is not None]
    if not paces:
        return None
    pace = min(paces, key=lambda each: each.rate)
    since = max(0, now_ms - pace.since_ms)
    return {"rate": pace.rate, "class": pace.klass, "reply": cut(pace.reply, 500), "since_ms": since}


# -- dead letters ----------------------------------------------------------------------------------------------------


def reason_shown(reason: DeadReason) -> dict[str, Any]:
    """`domains`: those with the most letters; `domains_left`, `letters_left`: the others."""
    shown = reason.domains[:DOMAINS_SHOWN]
    return {
        "class": reason.klass,
        "gist": reason.gist,
        "many": reason.many,
        "bytes": reason.bytes,
        "newest_ms": reason.newest_ms,
        "reason": cut(reason.reason, 500),
        "reply": cut(reason.reply, 500),
        "newest": max(reason.letters(), key=_age),
        "domains": [_group(group) for group in shown],
        "domains_left": len(reason.domains) - len(shown),
        "letters_left": sum(len(group.letters) for group in reason.domains[DOMAINS_SHOWN:]),
    }


def _group(group: DeadGroup) -> dict[str, Any]:
    known = {"domain": group.domain, "many": len(group.letters), "bytes": sum(group.letters.values())}
    return {**known, "newest_ms": group.newest_ms, "newest": next(iter(group.letters))}


def _age(letter: str) -> tuple[int, int]:
    ms, _, seq = letter.partition("-")
    return int(ms), int(seq)


def letter_shown(letter: DeadLetter) -> dict[str, Any]:
    """Bodies by their sizes: the page is for finding out why, and others may look on."""
    fields = letter.named(lambda value: cut(value[: 4 * TEXT_MOST].decode("utf-8", "replace")), BODIES)
    return {"letter": letter.letter, "fields": fields, "bodies": _bodies(letter.fields)}


def _bodies(fields: dict[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): len(fields[name]) for name in sorted(BODIES & fields.keys())}


# -- a mail ----------------------------------------------------------------------------------------------------------


def story_shown(found: Story) -> dict[str, Any]:
    return {
        "mail": None if found.why is None else _mail(found.why),
        "last": None if found.last is None else _event(found.last),
        "events": [_event(each) for each in found.events],
        "more": found.more,
        "letter": found.letter,
        "family": None if found.family is None else _family(found.family, found),
    }


def _family(family: Family, found: Story) -> dict[str, Any]:
    known = {"entry": family.parent, "recipients": family.all, "more": found.more_children}
    return known | {"mails": [_mail(each) for each in found.children], "ended": _ends(found.ended)}


def _ends(ends: list[End]) -> list[dict[str, Any]]:
    return [_event(Ended(each.kind, each.data | {"at": each.at_ms, "id": each.id})) for each in ends]


def mailbox_shown(found: Mailbox, address: str) -> dict[str, Any]:
    known = {"address": address, "next": found.at, "looked": found.looked, "named": found.named}
    return known | {"mails": [_mail(each) for each in found.mails], "ended": _ends(found.ends)}


def _event(each: Ended) -> dict[str, Any]:
    data = {name: cut(value) if isinstance(value, str) else value for name, value in each.data.items()}
    return {"kind": each.kind, "data": data}


def _mail(found: Why) -> dict[str, Any]:
    view, gauge = found.view, found.gauge
    fields = {
        name.decode("utf-8", "replace"): cut(value[: 4 * TEXT_MOST].decode("utf-8", "replace"))
        for name, value in view.fields.items()
        if name not in BODIES
    }
    return {
        "entry": view.entry,
        "priority": view.priority,
        "state": view.state,
        "site": found.site,
        "age_ms": age_ms(view, found.now_ms),
        "waits_for": found.waits_for,
        "words": cut(waits_words(found)),
        "since": since_words(found),
        "standing": found.standing,
        "standing_rule": cut(found.standing_rule, 300),
        "since_ms": found.since_ms,
        "next_ms": found.next_ms,
        "expected_ms": found.expected_ms,
        "better": found.better,
        "older": found.older,
        "more": found.more,
        "limit": str(found.rule),
        "route": gauge.way if gauge else "",
        "closed": [_closed(each, found.now_ms) for each in gauge.closed] if gauge else [],
        "holder": view.holder,
        "past_dot": view.past_dot,
        "notes": {name: cut(value) if isinstance(value, str) else value for name, value in view.notes.items()},
        "fields": fields,
        "bodies": _bodies(view.fields),
    }
