"""Whether mail flows, in one line, and what is in its way: what the page says first."""

from __future__ import annotations

from dataclasses import dataclass

from streamq.queue.overview import Overview

__all__ = ["Trouble", "Verdict", "verdict"]

FULL = 0.85  # of maxmemory
UNREAD_MS = 60_000  # of the most urgent priority
UNREAD_LONG_MS = 3_600_000  # of the others: a campaign waits for its turn
LATE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """`stops`: nothing goes while it lasts."""

    words: str
    stops: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`level`: good, idle, warn, bad."""

    level: str
    words: str
    troubles: tuple[Trouble, ...] = ()


def verdict(seen: Overview) -> Verdict:
    now = seen.status
    troubles = (*_ways(seen), *_workers(seen), *_waits(seen))
    if any(each.stops for each in troubles) and now.live:
        return Verdict("bad", "Mail does not flow", troubles)
    if troubles:
        return Verdict("warn", "Mail flows, with trouble" if now.live else "Nothing waits, with trouble", troubles)
    return Verdict("good", "Mail flows") if now.live else Verdict("idle", "Nothing waits")


def _ways(seen: Overview) -> list[Trouble]:
    closed = [view for view in seen.routes if view.closed]
    every = len(closed) == len(seen.routes)
    found = [Trouble(f"Route {view.name} is closed: {_why(view.closed[0].why)}", every) for view in closed]
    if seen.rules.get("all") == "hold":
        found.append(Trouble("Every mail is held: a standing rule", True))
    sites = {view.site for view in seen.sites if any(each.site for each in view.closed)}
    if sites:
        names = ", ".join(sorted(sites)[:3]) + (" …" if len(sites) > 3 else "")
        found.append(Trouble(f"{_many(len(sites), 'site')} closed: {names}"))
    return found


def _why(why: str) -> str:
    return "an operator paused it" if why == "operator" else why.replace("_", " ")


def _workers(seen: Overview) -> list[Trouble]:
    now = seen.status
    if not now.workers:
        return [Trouble("No worker runs", True)] if now.live else []
    return [] if now.swept else [Trouble("No worker leads the sweeps")]


def _waits(seen: Overview) -> list[Trouble]:
    now = seen.status
    found = []
    if now.memory_max and now.memory > FULL * now.memory_max:
        found.append(Trouble(f"Redis is {100 * now.memory // now.memory_max} % full: XADD will be refused"))
    for nth, (name, ages) in enumerate(now.aged_ms.items()):
        if ages.get("waiting", 0) > (UNREAD_LONG_MS if nth else UNREAD_MS):
            found.append(Trouble(f"Mail of priority {name} has waited {ages['waiting'] // 1000:,} s to be read"))
    if now.late_ms > LATE_MS:
        found.append(Trouble(f"The schedule is {now.late_ms // 1000:,} s behind"))
    return found


def _many(many: int, noun: str) -> str:
    return f"{many:,} {noun}{'' if many == 1 else 's'}"
