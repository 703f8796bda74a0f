"""What the page, `streamq site ls` and `streamq route ls` say of limits, rates, paces, next slots and ETAs of sites and
routes, held against Redis (bench/truth_ways.py): each returns what differs, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.truth import Truth
from bench.truth_ways import Ways

__all__ = ["page_ways_wrong", "routes_wrong", "sites_wrong"]

OLD_US = 16_000_000  # so old may be what the page tells
SLACK_MS = 2.0
NEAR = 1e-6  # of a rate, relative


def _same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return abs(found - expected) <= NEAR * max(abs(found), abs(expected))


def _site(row: Mapping[str, Any], seen: Truth, known: Ways, between_us: tuple[int, int]) -> list[str]:
    """`row`: name, route, words, by, connections, rate, next_ms, drained_ms, in_use, pace."""
    target = f"{row['route']}|{row['name']}"
    words, most, who = known.rule(target)
    many = seen.parked[target]
    pairs: list[tuple[str, Any, Any]] = [
        ("limit", row["words"], words),
        ("at once", row["connections"], most),
        ("set by", row["by"], who),
    ]
    pace = None if row["route"] == "*" else known.pace(target)
    said = row["pace"] and (round(row["pace"]["rate"], 6), row["pace"]["class"], row["pace"]["reply"])
    pairs.append(("pace and last reply", said, pace and (round(pace.rate, 6), pace.klass, pace.reply)))
    wrong = [f"{target}: {name}: it says {one!r}, Redis has {other!r}" for name, one, other in pairs if one != other]
    rate = None if row["route"] == "*" else known.rate(target)
    if not _same(row["rate"], rate):
        wrong.append(f"{target}: rate: it says {row['rate']}, it is {rate}")
    uses = {known.in_use(target, at) for at in between_us} if most is not None and row["route"] != "*" else {0}
    if not min(uses) <= row["in_use"] <= max(uses):
        wrong.append(f"{target}: in use: it says {row['in_use']}, there are {uses}")
    for name, nth in (("next_ms", 1), ("drained_ms", many)):
        told = many and (name == "next_ms" or rate is not None)  # nobody knows what nothing but the relay limits
        late, early = (known.at_ms(target, nth, at) if told else None for at in reversed(between_us))
        found = row[name]
        if found is None or late is None or early is None:
            if not (found is None and late is None):
                wrong.append(f"{target}: {name}: it says {found}, it is {late}")
        elif not late - SLACK_MS <= found <= early + SLACK_MS:
            wrong.append(f"{target}: {name}: it says {found}, it is between {late} and {early}")
    return wrong


def _route(row: Mapping[str, Any], known: Ways) -> list[str]:
    """`row`: name, words, by, connections, learnt, texts."""
    name = row["name"]
    words, most, who = known.rule(name)
    learnt, pause = known.learnt.get(name), known.pauses.get(name)
    reasons = {str(part.get("reason", part.get("text", ""))) for part in _parts(pause)}
    pairs = [
        ("limit", row["words"], words),
        ("at once", row["connections"], most),
        ("set by", row["by"], who),
        ("its server takes", row["learnt"] and row["learnt"]["connections"], learnt and int(learnt["cap"])),
        ("why closed", row["texts"], reasons),
    ]
    return [f"route {name}: {what}: it says {one!r}, Redis has {two!r}" for what, one, two in pairs if one != two]


def _parts(pause: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if not pause:
        return []
    return [pause["asked"]] if pause.get("asked") else [pause]


def page_ways_wrong(said: Mapping[str, Any], seen: Truth, known: Ways, between_ms: tuple[int, int]) -> list[str]:
    """`/api/overview`."""
    between_us = between_ms[0] * 1000 - OLD_US, between_ms[1] * 1000
    wrong = []
    for row in said["sites"]:
        flat = {**row, "by": row["limit"]["by"], "connections": row["limit"]["connections"]}
        wrong += _site(flat | {"words": _rates(row["limit"]["words"])}, seen, known, between_us)
    for row in said["routes"]:
        flat = {**row, "by": row["limit"]["by"], "connections": row["limit"]["connections"]}
        wrong += _route(flat | {"words": _rates(row["limit"]["words"]), "texts": _texts(row)}, known)
    return wrong


def _rates(words: str) -> list[str]:
    return [part for part in words.split(", ") if part and not part.endswith("at once")]


def _texts(row: Mapping[str, Any]) -> set[str]:
    return {each["text"] for each in row["closed"]}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """As the page has it."""
    limit = row["limit"]
    by = limit["rate_by"] or limit["connections_by"]
    return {**row, "words": limit["rate"], "by": by, "connections": limit["connections"]}


def sites_wrong(said: Sequence[Mapping[str, Any]], seen: Truth, known: Ways, between_ms: tuple[int, int]) -> list[str]:
    """`streamq site ls --json`, `site show --json`."""
    wrong = []
    for row in said:
        slowed = min(row["throttled"], key=lambda each: float(each["rate"]), default=None)
        flat = {**_flat(row), "name": row["site"], "pace": slowed}
        wrong += _site(flat, seen, known, (between_ms[0] * 1000, between_ms[1] * 1000))
        target = f"{row['route']}|{row['site']}"
        if sum(row["parked"].values()) != seen.parked[target]:
            wrong.append(f"{target}: parked: it says {row['parked']}, Redis has {seen.parked[target]}")
    return wrong


def routes_wrong(said: Sequence[Mapping[str, Any]], known: Ways) -> list[str]:
    """`streamq route ls --json`."""
    return [words for row in said for words in _route({**_flat(row), "texts": _texts(row)}, known)]
