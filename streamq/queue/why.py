"""Why a mail has not gone: what it waits for, since when, until when, and how many are ahead of it.

One mail at a time, O(log) whatever is in the queue; only of a mail that nobody has read yet up to UNREAD_MOST before it
are counted. What it finds may be over when it is read: a look takes several round trips, and the queue goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from streamq.queue.connection import command, pipelined
from streamq.queue.events import OPERATOR, newest_pages
from streamq.queue.gauge import Gauge, LaneGauge, Rule, gauges, in_use, rules_of
from streamq.queue.letters import dead_letters
from streamq.queue.look import age_ms, now_ms, of_tenants, show, status
from streamq.queue.spool import Spool, time_ms
from streamq.queue.steer import id_rule, rules_among, site_of, tags_of
from streamq.queue.walk import PAGE, MailView

__all__ = ["Ended", "Why", "ended", "ended_somewhere", "ends", "letter_end", "why"]

UNREAD_MOST = 1000
ANY = "*\n"  # whatever tenant: no name has a line's end


@dataclass(slots=True)
class Why:
    """`waits_for`: `read` (nobody has read it), `rule` (an operator's, carried out when it is read), `delivery` (a
    worker has it), `send_at`, `retry`, `collapse`, `held`, `closed` (all its ways are), `queue`, `route`, `site` (a
    rate of these), `throttle` (the pace that replies taught), `at_once` (its site's transactions), `turn` (nothing: a
    worker with room takes it).

    `better`, `older`: mails ahead of it in its lane, or unread before it; `more`: there are more of those than were
    counted. `since_ms`: for how long it waits itself, since it came or was tried last (since when
    its ways are closed, or slowed, they say), None where nobody knows. `gauge`: of what is scheduled only where all its
    ways are closed beyond its time. `next_ms`: until the first of
    its lane may go, or it is due. `expected_ms`: until it may go itself at the rate in force. `rule`: the limit `by`
    which it waits; `standing`: the verb of a `rule`, or of one that holds it, and
    `standing_rule` its name, "" for an intent's."""

    view: MailView
    now_ms: int
    site: str
    waits_for: str
    gauge: LaneGauge | None = None
    by: Gauge | None = None
    rule: Rule = field(default_factory=Rule)
    better: int | None = None
    older: int | None = None
    more: bool = False
    since_ms: int | None = None
    next_ms: int | None = None
    expected_ms: int | None = None
    standing: str = ""
    standing_rule: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a mail that is gone: its kind, and what stands in it; or its dead letter's reason."""

    kind: str
    data: dict[str, Any]


async def why(spool: Spool, entry: str) -> Why:
    """Of a live mail. Raises `NotFound`."""
    view = await show(spool, entry)
    found = Why(view, await now_ms(spool), site_of(view), _WAITS.get(view.state, "turn"))
    if view.state == "parked":
        await _parked(spool, found)
    elif view.state == "waiting":
        await _unread(spool, found)
    elif view.state == "scheduled":
        await _scheduled(spool, found)
    elif view.state == "held" and view.klass == OPERATOR:
        found.standing, found.standing_rule = await _standing(spool, view, found.site, "hold")
    elif view.state == "leased":
        view.past_dot = await _is_past_dot(spool, view)
    return found


_WAITS = {"waiting": "read", "leased": "delivery", "held": "held"}


# -- parked ------------------------------------------------------------------------------------------------------


async def _parked(spool: Spool, found: Why) -> None:
    view = found.view
    [gauge] = await gauges(spool, [view.lane])
    found.gauge = gauge
    found.better, found.older = await _ahead(spool, view)
    nth = found.better + found.older + 1
    found.by = gauge.binding(nth) if gauge.open else None
    found.waits_for = "closed" if not gauge.open else _scope(found.by)
    if found.by is not None and found.by.is_throttled(nth, gauge.now_us):
        found.waits_for = "throttle"
    found.since_ms = max(0, found.now_ms - max(time_ms(view.entry), int(view.notes.get("last") or 0)))
    if found.by is not None:
        found.rule = (await rules_of(spool, [found.by.target]))[found.by.target]
    if found.waits_for == "turn":
        target = f"{gauge.way}|{found.site}"
        rule = (await rules_of(spool, [target]))[target]
        if rule.connections is not None and (await in_use(spool, [target], gauge.now_us))[0] >= rule.connections:
            found.waits_for, found.rule = "at_once", rule
    first, mine = gauge.at_us(1), gauge.at_us(nth)
    opens = gauge.opens_us
    found.next_ms = _left(first if first is not None else opens, gauge)
    found.expected_ms = _left(mine, gauge)


def _scope(by: Gauge | None) -> str:
    if by is None:
        return "turn"
    return "queue" if by.target == "*" else "site" if "|" in by.target else "route"


def _left(at_us: float | None, gauge: LaneGauge) -> int | None:
    return None if at_us is None else max(0, round(at_us) - gauge.now_us) // 1000


async def _ahead(spool: Spool, view: MailView) -> tuple[int, int]:
    """Of better priority, and older ones of its own, in its lane."""
    p = view.entry[0]
    ms, seq = view.entry[1:].split("-")
    lane = view.lane
    member = f"{lane}|{p}{int(ms):013d}-{int(seq):020d}"
    asked = [("ZLEXCOUNT", spool.keys.parked, f"[{lane}|0", f"({lane}|{p}")]
    asked.append(("ZLEXCOUNT", spool.keys.parked, f"[{lane}|{p}", f"({member}"))
    better, older = await pipelined(spool.redis, asked)
    return better, older


# -- not read yet ------------------------------------------------------------------------------------------------


async def _unread(spool: Spool, found: Why) -> None:
    view = found.view
    found.standing, found.standing_rule = await _standing(spool, view, found.site)
    if found.standing:
        found.waits_for = "rule"
    found.older, found.more = await _unread_before(spool, view)
    ways = list(spool.settings.ways) or ["relay"]
    [gauge] = await gauges(spool, [f"{'>'.join(ways)}|{found.site}"])
    found.gauge = gauge
    gates = gauge.gauges[: 2 if len(ways) == 1 else 1]  # for others it would be read, and park
    if not gauge.open and not any(each.site for each in gauge.closed):
        found.waits_for = "closed"
    elif any(_is_used_up(each, gauge.now_us) for each in gates):
        await _gated(spool, found, gates, gauge)
    found.since_ms = age_ms(view, found.now_ms)


def _is_used_up(gate: Gauge, now_us: int) -> bool:
    """Also where a slot is free for a moment: whoever reads takes it."""
    return gate.at_us(1, now_us) > now_us or any(meter.binds(now_us) for meter in gate.meters)


async def _gated(spool: Spool, found: Why, gates: Sequence[Gauge], gauge: LaneGauge) -> None:
    """Nobody reads on before there is a slot; its own comes when those before it have had theirs."""
    depth = (await status(spool)).depth
    better = spool.priorities[: spool.priorities.index(found.view.priority)]
    found.better = sum(depth[name]["waiting"] for name in better)
    nth, now_us = found.better + (found.older or 0) + 1, gauge.now_us
    found.by = max(gates, key=lambda gate: gate.at_us(nth, now_us))
    found.waits_for = "throttle" if found.by.is_throttled(nth, now_us) else _scope(found.by)
    found.rule = (await rules_of(spool, [found.by.target]))[found.by.target]
    found.next_ms = _left(max(gate.at_us(1, now_us) for gate in gates), gauge)
    found.expected_ms = _left(max(gate.at_us(nth, now_us) for gate in gates), gauge)


async def _standing(spool: Spool, view: MailView, site: str, only: str = "") -> tuple[str, str]:
    """The verb that an intent, or a standing rule, has for it, and the rule's name; "" for none. `only`: that verb."""
    if view.intent:
        return view.intent, ""
    names = ["all", f"priority:{view.priority}", f"domain:{site}", f"tenant:{view.text('tenant')}"]
    names += [f"tag:{tag}" for tag in tags_of(view)]
    if id_ := view.text("id"):
        names.insert(0, id_rule(id_, view.text("tenant") or None))
    standing = await rules_among(spool, names)
    return next(((verb, name) for name, verb in standing.items() if only in {"", verb}), ("", ""))


async def _unread_before(spool: Spool, view: MailView) -> tuple[int, bool]:
    """How many of its priority nobody has read, before it; up to UNREAD_MOST."""
    p = int(view.entry[0])
    last = await spool.passed(view.priority) or "0-0"
    many = 0
    for _ in range(UNREAD_MOST // PAGE):
        reached, *rows = await spool.scripts.check("stream", p, last, PAGE)
        for entry, state in zip(rows[::2], rows[1::2], strict=True):
            if entry.decode() == view.entry:
                return many, False
            many += state == b"waiting"
        last = reached.decode()
        if not last:
            return many, False
    return many, True


# -- elsewhere ---------------------------------------------------------------------------------------------------


async def _scheduled(spool: Spool, found: Why) -> None:
    """With its `gauge` where all its ways are closed for longer than it waits: it parks then."""
    view, notes = found.view, found.view.notes
    found.waits_for = "collapse" if "collapse" in notes else "retry" if "last" in notes else "send_at"
    found.next_ms = found.expected_ms = max(0, view.due_ms - found.now_ms)
    since = int(notes.get("last") or time_ms(view.entry))
    found.since_ms = max(0, found.now_ms - since)
    [gauge] = await gauges(spool, [f"{'>'.join(_ways(spool, view))}|{found.site}"])
    opens = gauge.opens_us
    if opens is None or opens > max(view.due_ms * 1000, gauge.now_us):
        found.gauge, found.expected_ms = gauge, _left(gauge.at_us(1), gauge)


def _ways(spool: Spool, view: MailView) -> list[str]:
    """Which it may take: the one that it must, those that it names, or any, as far as these settings know."""
    if stays := view.notes.get("stays"):
        return [str(stays)]
    ways, named = list(spool.settings.ways) or ["relay"], view.text("route")
    return list(spool.settings.groups.get(named, ())) or ([named] if named in ways else ways)


async def _is_past_dot(spool: Spool, view: MailView) -> bool:
    """Whether its holder's dots name it: one field a connection."""
    flat = await command(spool.redis, "HGETALL", spool.keys.dots)
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        who = name.decode("utf-8", "replace").rpartition("/")[0]
        if who == view.holder and view.entry in value.decode("utf-8", "replace").split(","):
            return True
    return False


# -- gone --------------------------------------------------------------------------------------------------------


async def ends(spool: Spool, names: Sequence[str], tenant: str | None = None) -> AsyncIterator[Ended]:
    """Events of any of these ids and entries, the newest first, among the newest 20,000 of all. `tenant`: whose id it
    is."""
    async for rows in newest_pages(spool):
        for _, flat in rows:
            found = end_in(dict(zip(flat[::2], flat[1::2], strict=True)), names, tenant)
            if found is not None:
                yield found


async def ended(spool: Spool, names: Sequence[str], tenant: str | None = None) -> Ended | None:
    """What is known of a mail that is not live any more: the last of its events (`ends`), else its dead letter. None:
    nothing."""
    async for found in ends(spool, names, tenant):
        return found
    return await letter_end(spool, names, tenant)


async def ended_somewhere(spool: Spool, names: Sequence[str], tenant: str | None) -> Ended | None:
    """The same; where no tenant is said and nothing is known without one, of any tenant's mail. Raises `OfTenants`
    where several tenants had one."""
    found = await ended(spool, names, tenant)
    if found is not None or tenant is not None:
        return found
    theirs: dict[str, Ended] = {}
    async for each in ends(spool, names, ANY):
        theirs.setdefault(str(each.data.get("tenant") or ""), each)
    if len(theirs) > 1:
        raise of_tenants(names[0], {whose: str(each.data.get("entry")) for whose, each in theirs.items()}, "mail")
    return next(iter(theirs.values()), None) or await letter_end(spool, names, ANY)


def end_in(said: Mapping[bytes, bytes], names: Sequence[str], tenant: str | None) -> Ended | None:
    """What an event says of a mail of these names; None where it is another's. JSON is read only of events that mention
    one of them."""
    kind, id_, data = (said.get(name, b"").decode("utf-8", "replace") for name in (b"type", b"id", b"data"))
    if not kind.startswith("email.") or not (id_ in names or any(name in data for name in names)):
        return None
    known = _object(data)
    if not (known.get("entry") in names or (id_ in names and tenant in {known.get("tenant"), ANY})):
        return None
    return Ended(kind, known)


async def letter_end(spool: Spool, names: Sequence[str], tenant: str | None) -> Ended | None:
    """What the last dead letter of these names says; its own id is `letter` of the data."""
    found = None
    async for letter in dead_letters(spool):
        same = letter.text("id") in names and tenant in {letter.text("tenant") or None, ANY}
        if same or letter.text("dead_entry") in names:
            known = {"class": letter.text("dead_class"), "reason": letter.text("dead_reason"), "letter": letter.letter}
            found = Ended("dead", known)
            if letter.text("tenant"):
                found.data["tenant"] = letter.text("tenant")
            at = letter.text("dead_at")
            found.data["at"] = int(at) if at.isdecimal() and len(at) < 15 else 0
    return found


def _object(data: str) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
