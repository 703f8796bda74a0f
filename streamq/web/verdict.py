"""Whether mail flows, in one line, and what is in its way: what the page says first.

What became of mails in the last minutes decides, before what waits: a queue that is empty since all was bounced is
not well, and one in which thousands wait may be. docs/operations.md has the rules as a table; each sentence has a test.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamq.mail.fields import lacking
from streamq.queue.lately import Lately
from streamq.queue.overview import Overview
from streamq.queue.wording import plural

__all__ = ["Trouble", "Verdict", "verdict"]

FULL = 0.85  # of maxmemory
UNREAD_MS = 60_000  # of the most urgent priority
UNREAD_LONG_MS = 3_600_000  # of the others: a campaign waits for its turn
LATE_MS = 10_000
STALLED_MS = 15_000  # nothing delivered for so long, although mail could go
FEW = 5  # attempts, from which on it means something that none delivered; failures, from which on shares do
SOME = 20  # attempts, from which on shares mean something however few failed
SENT_LEAST = 0.5  # less delivered: most of it does not get through
DEFERRED_MOST = 0.3
BOUNCED_MOST = 0.05  # providers block who sends to so many bad addresses
# Of a recipient or its site, not of us, our account or our relay: where all failures are of one site, it is that one.
THEIRS = frozenset({
    *("bad_address", "restricted", "mailbox_full", "greylisted", "recipient_rate", "site_rate", "overloaded"),
    *("temporary", "rejected", "expired"),
})  # fmt: skip

NAMED = {"unknown_template": "template", "unknown_route": "route"}
TO_DO = {
    "unknown_field": "Mend the producer, cancel them, send them again: streamq ls --state held",
    "unsupported": "What it takes is not installed: streamq ls --state held",
    "unknown_template": "They go when it is stored: streamq template put",
    "unknown_route": "They go when a worker has that route: streamq ls --state held",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """`stops`: nothing goes while it lasts."""

    words: str
    stops: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`level`: good, idle, warn, bad. `lately`: outcomes of the last minutes; "" where there were none."""

    level: str
    words: str
    troubles: tuple[Trouble, ...] = ()
    lately: str = ""


def verdict(seen: Overview) -> Verdict:
    found = (*_stands(seen), *_outcomes(seen), *_ways(seen), *_workers(seen), *_waits(seen), *_held(seen))
    troubles = tuple(sorted(found, key=lambda each: not each.stops))  # the cause before what comes of it
    level, words = _headline(seen, troubles)
    return Verdict(level, words, troubles, _said(seen.lately))


def _headline(seen: Overview, troubles: tuple[Trouble, ...]) -> tuple[str, str]:
    now, lately = seen.status, seen.lately
    if now.live and any(each.stops for each in troubles):
        return "bad", "Mail does not flow"
    if lately.stalled_ms >= STALLED_MS:
        return "bad", f"Nothing has been delivered for {_about(lately.stalled_ms)}, and mail is due"
    lonely = _lonely(seen)
    if lately.tries >= FEW and not lately.sent and not lonely:
        return "bad", "Mail does not flow"
    if not now.workers:
        return "warn", "Nothing waits, and no worker runs"
    if lately.failed >= FEW and lately.sent < SENT_LEAST * lately.tries and not lonely:
        return "bad", "Most mail does not get through"
    if lately.sent:
        return ("warn", "Mail flows, with trouble") if troubles else ("good", "Mail flows")
    if lately.tries:
        return "warn", "Nothing was delivered lately" + (f": all failures are of {lonely:.60}" if lonely else "")
    if not now.live:
        return ("warn", "Nothing waits, with trouble") if troubles else ("idle", "Nothing waits")
    if troubles:
        return "warn", "Mail waits, with trouble"
    return "idle", _idle(seen)


def _lonely(seen: Overview) -> str:
    """The site that all failures are of, and are its own affair: a dead one's retries, time and again, say nothing of
    other mail. "": of several, of us or the relay, or other mail is unread and nothing of it gets through; or not all
    failures were seen."""
    lately = seen.lately
    stuck = lately.sampled or (not lately.sent and seen.status.sum("waiting") >= FEW)
    return "" if stuck or not lately.classes.keys() <= THEIRS else lately.site


def _idle(seen: Overview) -> str:
    """Nothing was tried, and nothing is in the way."""
    now = seen.status
    later = now.sum("held") + (now.sum("scheduled") if not now.late_ms else 0)
    if later == now.live:
        return "Nothing is due"
    limited = now.sum("parked") if now.visit_ms > now.now_ms else 0
    limited += now.sum("waiting") + now.sum("leased") if seen.barred else 0
    return "Mail waits for limits" if later + limited == now.live else "Mail waits, none has gone lately"


def _about(ms: int) -> str:
    """In steps: who has it read aloud hears each change."""
    seconds = ms // 15_000 * 15
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _said(lately: Lately) -> str:
    if not lately.tries:
        return ""
    rows = ((lately.sent, "delivered"), (lately.deferred, "deferred"), (lately.bounced, "bounced"))
    return f"{_span(lately)}: " + ", ".join(f"{many:,} {name} ({_share(many, lately.tries)})" for many, name in rows)


def _outcomes(seen: Overview) -> list[Trouble]:
    """What fails so often that somebody should look, where, and what it mostly dies of."""
    lately, site = seen.lately, seen.lately.site
    tries, found = lately.tries, []
    if tries and not lately.sent:
        found.append(Trouble(f"None of {plural(tries, 'attempt')} delivered"))
    elif tries >= FEW and lately.sent < SENT_LEAST * tries:
        found.append(Trouble(f"{lately.sent:,} of {tries:,} attempts delivered ({_share(lately.sent, tries)})"))
    else:
        for many, most, name in (
            (lately.deferred, DEFERRED_MOST, "deferred"),
            (lately.bounced, BOUNCED_MOST, "bounced"),
        ):
            if (tries >= SOME or many >= FEW) and many > most * tries:
                found.append(Trouble(f"{many:,} of {tries:,} attempts {name} ({_share(many, tries)})"))
    if found and site and lately.failed > 1:
        which = "The newest failures are all" if lately.sampled else f"All {lately.failed:,} failures are"
        found.append(Trouble(f"{which} of {site:.60}"))
    klass, often, reply = lately.commonest
    if found and klass:
        said = f"; the last reply: {reply}" if reply else ""
        found.append(Trouble(f"Most often {klass.replace('_', ' ')}, {plural(often, 'time')}{said}"))
    return found


def _stands(seen: Overview) -> list[Trouble]:
    """Mail that could go and does not; unread mail that becomes more and more."""
    now, lately, found = seen.status, seen.lately, []
    unread, hand = now.sum("waiting"), now.sum("leased")
    oldest = max((ages.get("waiting", 0) for ages in now.aged_ms.values()), default=0)
    if lately.stalled_ms >= STALLED_MS:
        parked = f", {now.sum('parked'):,} parked" if now.parked_late_ms else ""
        found.append(Trouble(f"{unread:,} unread, {hand:,} in hand{parked}: do workers or their relays hang?"))
    if lately.leaves is not None:
        rate = f"{lately.leaves:,.0f}" if lately.leaves >= 10 or not lately.leaves else f"{lately.leaves:.1f}"
        found.append(Trouble(f"Unread mail piles up: {unread:,}, the oldest for {oldest // 1000:,} s; {rate}/s leave"))
    return found


def _span(lately: Lately) -> str:
    """No more than is known: of a busy queue the kept events may go back for seconds."""
    seconds = max(1, round(lately.span_ms / 1000))
    return f"Last {seconds // 60} min" if seconds >= 60 else f"Last {seconds} s"


def _share(many: int, of: int) -> str:
    """Of what is not none, or not all, nothing says so."""
    share = 100 * many / of
    if 0 < share < 1:
        return "under 1 %"
    return "over 99 %" if 99 < share < 100 else f"{share:.0f} %"


def _ways(seen: Overview) -> list[Trouble]:
    closed = [view for view in seen.routes if view.closed]
    every = len(closed) == len(seen.routes)
    found = [Trouble(f"Route {view.name} is closed: {_why(view.closed[0].why)}", every) for view in closed]
    if seen.rules.get("all") == "hold":
        found.append(Trouble("Every mail is held: a standing rule", True))
    sites = {view.site for view in seen.sites if any(each.site for each in view.closed)}
    if sites:
        names = ", ".join(sorted(sites)[:3]) + (" …" if len(sites) > 3 else "")
        found.append(Trouble(f"{plural(len(sites), 'site')} closed: {names}"))
    return found


def _why(why: str) -> str:
    return "an operator paused it" if why == "operator" else why.replace("_", " ")


def _workers(seen: Overview) -> list[Trouble]:
    """Whatever waits: where there are none on purpose (KEDA), a line that says so harms nobody."""
    now = seen.status
    if not now.workers:
        return [Trouble("No worker runs", True)]
    return [] if now.swept else [Trouble("No worker leads the sweeps")]


def _waits(seen: Overview) -> list[Trouble]:
    now = seen.status
    found = []
    if now.evicts:
        gone = f"; since it started it threw {plural(now.evicted, 'key')} away" if now.evicted else ""
        found.append(Trouble(f"Redis throws mails away when it is full: maxmemory-policy is {now.evicts:.40}{gone}"))
    if now.memory_max and now.memory > FULL * now.memory_max:
        found.append(Trouble(f"Redis is {100 * now.memory // now.memory_max} % full: XADD will be refused"))
    for nth, (name, ages) in enumerate(now.aged_ms.items()):
        if ages.get("waiting", 0) > (UNREAD_LONG_MS if nth else UNREAD_MS):
            found.append(Trouble(f"Mail of priority {name} has waited {ages['waiting'] // 1000:,} s to be read"))
    if now.late_ms > LATE_MS:
        found.append(Trouble(f"The schedule is {now.late_ms // 1000:,} s behind"))
    return found


def _held(seen: Overview) -> list[Trouble]:
    """Mails that nobody can send as they are, by what each waits for; not those that somebody holds."""
    by_class: dict[str, list[tuple[int, str]]] = {}
    for need, many in seen.needs.items():
        by_class.setdefault(lacking(need), []).append((-many, need))
    found = []
    for klass, rows in sorted(by_class.items()):
        [(less, need), *others] = sorted(rows)
        more = f" ({-less:,}), and {plural(len(others), 'more name')}" if others else ""
        many = min(-sum(each for each, _ in rows), seen.status.sum("held"))  # one of two such names is of two rows
        name = f"{NAMED[klass]} {need.partition('=')[2]!r:.60}" if klass in NAMED else f"field {need!r:.60}"
        found.append(Trouble(f"{plural(many, 'mail')} held: {klass}, {name}{more}. {TO_DO[klass]}"))
    return found
