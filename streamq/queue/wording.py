"""Words for people, the same in commands and on the page: what a mail waits for, why a way is closed, what a limit is.

No more than text: what of it came from others (replies, reasons, names) whoever shows it makes harmless.
"""

from __future__ import annotations

import re

from streamq.queue.gauge import Gauge, Rule
from streamq.queue.routes import Closure
from streamq.queue.steer import ends_rule
from streamq.queue.why import Why

__all__ = [
    "evicts_words",
    "plural",
    "rate_words",
    "rule_words",
    "shown_ms",
    "since_words",
    "throttle_words",
    "waits_words",
    "why_words",
]

PLAIN_ID = re.compile(r"[A-Za-z0-9][\w.:+-]{0,63}", re.ASCII)  # in a shell it stands for itself
_LAYERS = {
    "providers": "provider rules",
    "own": "your provider file",
    "settings": "settings",
    "operator": "operator",
    "": "",
}
_RULES = {"hold": "will be held", "cancel": "will be cancelled", "bounce": "will be bounced"}


def shown_ms(ms: float) -> str:
    """A duration for people: 850 ms, 12.0 s, 5.0 m, 3.2 h, 4.5 d."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m")):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms / 1000:.1f} s"


def plural(many: int, noun: str) -> str:
    """`1 mail`, `2,000 mails`."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def evicts_words(policy: str, evicted: int = 0) -> str:
    """Of a server that throws keys away; whose keys those were that it has, nobody knows."""
    gone = f"; since it started it threw {plural(evicted, 'key')} away" if evicted else ""
    return f"redis throws mails away when it is full: `CONFIG SET maxmemory-policy noeviction` (it is {policy}){gone}"


def rate_words(rate: float) -> str:
    """`16.7/s`, `98.2/d`: mails in the shortest time in which it is one at least."""
    for unit, seconds in (("s", 1), ("m", 60), ("h", 3600)):
        if rate * seconds >= 1:
            return f"{rate * seconds:,.3g}/{unit}"
    return f"{rate * 86_400:,.3g}/d"


def rule_words(rule: Rule) -> str:
    """`50/s, 60000/h (settings)`; `no limit`, and by whom."""
    if not rule:
        return "no limit" + (f" ({_LAYERS[rule.by]})" if rule.by else "")
    whos = {_LAYERS[who]: None for who in (rule.by, rule.connections_by) if who}
    return f"{rule} ({', '.join(whos)})" if whos else str(rule)


def throttle_words(gauge: Gauge) -> str:
    """How its replies slowed it, "" where they did not."""
    if gauge.pace is None:
        return ""
    said = ": ".join(filter(None, (gauge.pace.klass, gauge.pace.reply)))
    what = "" if "|" in gauge.target else f"route {gauge.target} "
    return f"{what}slowed to {rate_words(gauge.pace.rate)}" + (f", {said}" if said else "")


def why_words(closed: Closure, what: str = "") -> str:
    """Why it is closed, and until when, in words. `what` is closed, where that is not plain."""
    if closed.why == "operator":
        kind = "site" if closed.site else "route"
        till = f"until `streamq {kind} resume`" if closed.left_ms is None else f"for {shown_ms(closed.left_ms)}"
        words = f"paused by an operator {till}" + (", its mails wait" if closed.hold else "")
        if closed.site and closed.route != "*":
            words = f"on {closed.route} {words}"
    else:
        of = f" of {closed.of}" if closed.of else ""
        words = f"{closed.why}{of}, probes in {shown_ms(closed.left_ms or 0)}"
    if what and not closed.site:
        words = f"{what}: {words}"
    return f"{words}: {closed.text}" if closed.text else words


def waits_words(found: Why) -> str:
    """What a mail waits for, in one sentence."""
    view, notes = found.view, found.view.notes
    reason = str(notes.get("reason") or notes.get("class") or "")
    match found.waits_for:
        case "read":
            return "to be read: no worker has come to it yet"
        case "rule":
            ends = f" (`{ends_rule(found.standing_rule)}` ends that rule)" if found.standing_rule else ""
            return f"to be read; then it {_RULES.get(found.standing, found.standing)}, as an operator said{ends}"
        case "delivery":
            past = "; its final dot is out, the reply is awaited" if view.past_dot else ""
            return f"in delivery by {view.holder}, heard of {shown_ms(view.idle_ms)} ago{past}"
        case "send_at":
            return f"for its time (send_at, delay, or an operator's){_parks(found)}"
        case "retry":
            return f"for its next attempt, after {notes.get('class') or 'a deferral'}{_parks(found)}"
        case "collapse":
            return f"for newer mails of its collapse_key: the newest is sent{_parks(found)}"
        case "held" if notes.get("fields"):
            return f"held: {reason}; goes by itself when a worker can send it, else mend and send anew"
        case "held":
            return _held(found) + (f": {reason}" if reason else "")
        case "closed":
            return _closed(found)
        case "throttle":
            return throttle_words(found.by) if found.by is not None else ""
        case "at_once":
            return f"for a transaction to its site to end: {rule_words(found.rule)}, all under way"
        case "turn":
            return "for its turn: nothing limits it, the next worker with room takes it"
    whose = {"queue": "the whole queue", "route": "the route", "site": "its site there"}[found.waits_for]
    return f"for the limit of {whose}: {rule_words(found.rule)}"


def _held(found: Why) -> str:
    """And how it ends: of a rule for all that it holds, since alone the next mail would be held again."""
    view = found.view
    if found.standing_rule:
        return f"held until `{ends_rule(found.standing_rule)}`, which ends the rule that holds what comes, too"
    id_ = view.text("id")
    return f"held until `streamq unhold {id_ if PLAIN_ID.fullmatch(id_) and not view.text('tenant') else view.entry}`"


def _parks(found: Why) -> str:
    """What becomes of a scheduled mail whose ways are closed."""
    return f"; then it parks: {_closed(found)}" if found.gauge is not None else ""


def _closed(found: Why) -> str:
    closed = found.gauge.closed if found.gauge is not None else []
    return "; ".join(
        why_words(each, f"route {each.route}") if not each.site else f"its site is {why_words(each)}" for each in closed
    )


def since_words(found: Why) -> str:
    """Since when it waits itself, and since when what it waits for is so; "" where that is not known."""
    if found.since_ms is None or found.waits_for in {"read", "rule"}:
        return ""
    words = [f"{'its last attempt' if found.view.notes.get('last') else 'it came'}, {shown_ms(found.since_ms)} ago"]
    if found.gauge is not None and (found.waits_for == "closed" or found.view.state == "scheduled"):
        for each in found.gauge.closed:
            what = "its site" if each.site else f"route {each.route}"
            words.append(f"{what} was closed {shown_ms(max(0, found.now_ms - each.since_ms))} ago")
    if found.waits_for == "throttle" and found.by is not None and found.by.pace is not None:
        words.append(f"it was slowed {shown_ms(max(0, found.now_ms - found.by.pace.since_ms))} ago")
    return "; ".join(words)
