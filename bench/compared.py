"""What `streamq status --json`, `/metrics` and the page say of a queue, held against what Redis has (bench/truth.py):
each returns what differs, in words. Names and arithmetic of the outside alone: nothing here is the queue's own code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.truth import STATES, Truth

__all__ = ["Known", "metrics_wrong", "page_wrong", "samples", "status_wrong"]

QUEUE = re.compile(r',?queue="[^"]*"')
LOOKED = 100  # lanes
SITES, WORKERS = 100, 200  # that the page shows
PROVIDERS = {
    "gmail.com": "google",
    "outlook.com": "microsoft",
    "yahoo.com": "yahoo",
    "web.de": "gmx and web.de",
    "icloud.com": "apple",
    "orange.fr": "orange",
}


@dataclass(frozen=True, slots=True)
class Known:
    """What the filler did beside mails. `requeued`: classes of letters that are none any more."""

    workers: int
    requeued: Counter[str] = field(default_factory=Counter)


def _differs(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: it says {found.get(name)!r:.200}, Redis has {value!r:.200}"
        for name, value in expected.items()
        if found.get(name) != value
    ]


def looked(seen: Truth) -> list[str]:
    """The lanes that anybody looks at: those due first, the urgent mail's before the others'."""
    return list(dict.fromkeys(name for lanes in seen.lanes.values() for name in lanes[:LOOKED]))[:LOOKED]


def _common(said: Mapping[str, Any], seen: Truth, known: Known, shown: int) -> list[str]:
    """What `status --json` and the page's answer both have."""
    now = said["now_ms"]
    found = {
        name: said[name]
        for name in ("live", "next_due_ms", "totals", "classes", "tallies", "dead", "events", "workers", "depth")
    } | {name: said[name] for name in ("held_for", "visit_ms", "evicted")}
    found["first"] = {name: now - age for name, age in said["oldest_ms"].items() if age}
    found["aged"] = {(name, state): now - age for name, ages in said["aged_ms"].items() for state, age in ages.items()}
    names = list(seen.lanes)
    expected = {
        "live": seen.live,
        "held_for": dict(seen.needed),
        "visit_ms": seen.visit,
        "evicted": seen.evicted,
        "next_due_ms": seen.next_due,
        "totals": dict(seen.ends),
        "classes": dict(seen.classes + known.requeued),
        "tallies": {
            "dead": seen.dead + known.requeued.total(),
            "dead_bytes": seen.dead_bytes,
            "reclaimed": 1,
            "late": 1,
            "vanished": 1,
        },
        "dead": seen.dead,
        "events": seen.events,
        "workers": known.workers,
        "depth": {name: {state: seen.depth[name, state] for state in STATES} for name in names},
        "first": {name: seen.first[name, ""] for name in names if (name, "") in seen.first},
        "aged": _aged(seen),
    }
    # of workers the page shows two hundred
    found |= {one["name"]: one["pending"] for one in said["consumers"]}
    expected |= {one["name"]: seen.pending[one["name"]] for one in said["consumers"]}
    found["workers shown"], expected["workers shown"] = len(said["consumers"]), min(known.workers, shown)
    return _differs(found, expected)


def _aged(seen: Truth) -> dict[tuple[str, str], int]:
    """What a look tells: waiting, leased, held."""
    known = {key: ms for key, ms in seen.first.items() if key[1] in ("waiting", "leased")}
    return known | {(name, "held"): ms for name, ms in seen.held.items()}


def status_wrong(said: Mapping[str, Any], seen: Truth, known: Known) -> list[str]:
    """`streamq status --json`."""
    full = sorted((-seen.parked[name], name) for name in looked(seen))[:3]
    lanes = [(one["name"], one["many"]) for one in said["lanes"]]
    closed = {name: {each["why"] for each in said["closed"] if each["name"] == name} for name in seen.closed}
    return [
        *_common(said, seen, known, known.workers),
        *_differs(
            {"lanes": lanes, "closed": closed, "swept": said["swept"], "rules": said["rules"]},
            {
                "lanes": [(name, -many) for many, name in full],
                "closed": seen.closed,
                "swept": seen.swept,
                "rules": {name.removeprefix("rule:"): verb for name, verb in seen.holds.items() if name[:5] == "rule:"},
            },
        ),
    ]


def page_wrong(said: Mapping[str, Any], dead: Mapping[str, Any], seen: Truth, known: Known) -> list[str]:
    """What the page is told: `/api/overview`, `/api/dead`."""
    found: dict[str, Any] = {"accepted": said["accepted"]}
    expected: dict[str, Any] = {"accepted": seen.accepted}
    for row in said["sites"]:
        name = f"{row['route']}|{row['name']}"
        found[name] = row["parked"], {each["why"] for each in row["closed"] if each["site"]}
        shut = seen.closed.get(name, set()) | seen.closed.get(f"*|{row['name']}", set())
        expected[name] = seen.parked[name], shut
        if row["trouble"]:
            found[f"last reply of {name}"] = row["trouble"]["reply"]
            expected[f"last reply of {name}"] = seen.replies.get(row["name"])
    named = [f"{row['route']}|{row['name']}" for row in said["sites"]]
    rows = {name for name in looked(seen) if seen.parked[name]} | {name for name in seen.slowed if "|" in name}
    first = named[:SITES]  # behind them those that fail, which count for no lane
    rest = rows - set(first)  # the page shows a hundred, of which those with the most mails come first
    least = min((seen.parked[name] for name in first), default=0)
    found["sites"] = [name for name in rest if len(first) < SITES or seen.parked[name] > least]
    expected["sites"] = []
    for row in said["routes"]:
        name = row["name"]
        found[f"route {name}"] = row["parked"], row["granted"], row["standing"], {each["why"] for each in row["closed"]}
        parked = sum(many for lane, many in seen.parked.items() if lane.startswith((f"{name}|", f"{name}>")))
        grants = seen.granted.get(name, [])
        granted, standing = sum(one for one, _ in grants), sum(one for _, one in grants)
        expected[f"route {name}"] = parked, granted, standing, seen.closed.get(name, set())
    found["routes"] = {row["name"] for row in said["routes"]}
    expected["routes"] = {"relay"} | {name for name in seen.closed if "|" not in name}
    _reasons(dead, seen, found, expected)
    every = set(looked(seen)) | {name for name in {*seen.slowed, *seen.closed, *seen.limited} if "|" in name}
    hidden = len(every - set(named))
    return _common(said, seen, known, WORKERS) + _differs(found, expected) + _left(said["sites_left"], hidden, seen)


def _reasons(dead: Mapping[str, Any], seen: Truth, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """By reason; the truth knows classes and domains. A reason shows its largest domains."""
    classes: Counter[str] = Counter()
    domains: Counter[tuple[str, str]] = Counter()
    for one in dead["reasons"]:
        classes[one["class"]] += one["many"]
        domains.update({(one["class"], each["domain"]): each["many"] for each in one["domains"]})
        name = f"domains of {one['class']}: {one['gist']}"
        found[name] = one["many"]
        expected[name] = sum(each["many"] for each in one["domains"]) + one["letters_left"]
    true: Counter[str] = Counter()
    for (klass, _), many in seen.dead_groups.items():
        true[klass] += many
    found["letters looked at"], expected["letters looked at"] = dead["looked"], seen.dead_groups.total()
    whole = not dead["reasons_left"]
    found["dead by class"] = dict(classes) if whole else [name for name, many in classes.items() if many > true[name]]
    expected["dead by class"] = dict(true) if whole else []
    every = whole and not any(one["domains_left"] for one in dead["reasons"])
    found["dead by domain"] = (
        dict(domains) if every else [key for key, many in domains.items() if many > seen.dead_groups[key]]
    )
    expected["dead by domain"] = dict(seen.dead_groups) if every else []


def _left(said: float, hidden: int, seen: Truth) -> list[str]:
    """How many lanes nobody looked at is said as "at least"."""
    every = {name for lanes in seen.lanes.values() for name in lanes}
    least = max(map(len, seen.lanes.values())) - len(looked(seen))
    most = len(every) - len(looked(seen)) + hidden
    return [] if max(0, least) <= said <= most else [f"lanes left: it says {said}, there are {least} to {most}"]


def samples(text: str) -> dict[str, float]:
    """Of an exposition: series as it is written, but for its queue \u2192 value."""
    found = re.findall(r"^(streamq_[a-z_]+\{[^}]*\}) (\S+)$", text, re.MULTILINE)
    return {QUEUE.sub("", name).replace("{,", "{").replace("{}", ""): float(value) for name, value in found}


def _barred(seen: Truth) -> dict[str, bool]:
    """The filler limits sites alone: what closes each route in use keeps mail from being read."""
    shut = {name: whys for name, whys in seen.closed.items() if "|" not in name}
    used = {*shut, *(name for name, grants in seen.granted.items() if grants)} or {"relay"}
    whys = {"pause" if shut[name] == {"operator"} else "closed" for name in used} if used <= shut.keys() else set()
    return {why: why in whys for why in ("limit", "pause", "throttle", "closed")}


def metrics_wrong(text: str, seen: Truth, known: Known, between_ms: tuple[int, int]) -> list[str]:
    """`/metrics`, which was asked for at a time between these two, by the server's clock."""
    said = samples(text)
    expected: dict[str, float] = {
        **{f'streamq_mails{{priority="{name}",state="{state}"}}': many for (name, state), many in seen.depth.items()},
        "streamq_accepted_total": seen.accepted,
        **{f'streamq_outcomes_total{{outcome="{name}"}}': many for name, many in seen.ends.items()},
        **{f'streamq_classes_total{{class="{name}"}}': n for name, n in (seen.classes + known.requeued).items()},
        **{f"streamq_{name}_total": 1 for name in ("reclaimed", "vanished", "late")},
        "streamq_resettled_total": 0,
        "streamq_died_total": seen.dead + known.requeued.total(),
        "streamq_dead_letters": seen.dead,
        "streamq_dead_letters_bytes": seen.dead_bytes,
        "streamq_events": seen.events,
        "streamq_workers": known.workers,
        "streamq_swept": seen.swept,
        "streamq_redis_up": 1,
        "streamq_redis_evicted_keys_total": seen.evicted,
        "streamq_scheduler_lag_seconds": 0,
        'streamq_held_for{class="unknown_field"}': seen.needed.total(),
    }
    expected |= {f'streamq_barred{{why="{why}"}}': is_so for why, is_so in _barred(seen).items()}
    lanes = looked(seen)
    by = Counter[str]()
    for lane in lanes:
        by[PROVIDERS.get(lane.partition("|")[2], "other")] += seen.parked[lane]
    expected |= {f'streamq_parked{{provider="{name}"}}': many for name, many in by.items() if many}
    for route in {"relay"} | {name for name in seen.closed if "|" not in name}:
        grants = seen.granted.get(route, [])
        label = f'{{route="{route}"}}'
        expected |= {
            f"streamq_route_parked{label}": sum(
                many for lane, many in seen.parked.items() if lane.startswith((f"{route}|", f"{route}>"))
            ),
            f"streamq_route_connections_granted{label}": sum(one for one, _ in grants),
            f"streamq_route_connections{label}": sum(one for _, one in grants),
            f"streamq_route_open{label}": route not in seen.closed,
        }
    for kind, names in (("closed", seen.closed), ("throttled", seen.slowed)):
        sites = {name.partition("|")[2] for name in names if "|" in name}
        many = Counter(PROVIDERS.get(site, "other") for site in sites)
        expected |= {f'streamq_sites_{kind}{{provider="{name}"}}': n for name, n in many.items()}
    rules = Counter({("all", "hold"): 0})
    for name, verb in seen.holds.items():
        if name.startswith(("rule:", "id:")):
            rules[name.removeprefix("rule:").partition(":")[0], verb] += 1
    expected |= {f'streamq_standing_rules{{scope="{scope}",verb="{verb}"}}': n for (scope, verb), n in rules.items()}
    # What never happened is told, too, as 0.
    counted = ("streamq_outcomes_total{", "streamq_classes_total{")
    expected = dict.fromkeys((name for name in said if name.startswith(counted)), 0.0) | expected
    wrong = _differs(said, expected)
    lag = said["streamq_parked_lag_seconds"]
    least, most = (max(0, at - seen.visit) / 1000 if seen.visit else 0.0 for at in between_ms)
    if not least - 1.01 <= lag <= most:
        wrong.append(f"streamq_parked_lag_seconds: it says {lag}, it is between {least} and {most}")
    oldest = {(name, ""): seen.first[name, ""] for name in seen.lanes if (name, "") in seen.first}
    for (name, state), ms in (oldest | _aged(seen)).items():
        series = f'streamq_oldest_in_state_seconds{{priority="{name}",state="{state}"}}'
        series = series if state else f'streamq_oldest_seconds{{priority="{name}"}}'
        early, late = ((at - ms) / 1000 for at in between_ms)
        if not early - 1.01 <= said.get(series, -1) <= late:  # what is told is a second old at most
            wrong.append(f"{series}: it says {said.get(series)}, it is between {early} and {late}")
    return wrong + _left(said["streamq_lanes_not_looked_at"], 0, seen)
