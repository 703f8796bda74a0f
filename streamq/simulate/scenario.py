"""What is simulated: mails, sites with their share of them, and what stands at the other end.

    mails = 20000
    add_over = "10m"            # XADDed evenly over that time; "0s": in one go
    rtt = 0.02                        # seconds of a round trip to the relay
    service = 0.05                    # seconds that it needs for a mail

    [relay]                           # of every route of the settings, or [relays.<route>] of one
    model = "connections"
    most = 5

    [[sites]]
    name = "gmail.example"
    share = 4                         # of the mails, in proportion to the others'
    model = "rate"
    rate = 50
    changes = [{ at = "10m", rate = 100 }, { at = "30m", rate = 25 }]

Every mistake ends as a `SettingsError` that names its place and value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

from streamq.errors import SettingsError
from streamq.settings.values import cut, duration_ms
from streamq.simulate.models import MODELS, check, model, parameters
from streamq.simulate.relay import Change, Receiver
from streamq.toml import NotToml, read_toml

__all__ = ["BUILT_IN", "Scenario", "Spec", "read_scenario"]

MOST_MAILS = 1_000_000
MOST_SITES = 1000
LARGEST = 1_000_000  # bytes of a scenario
DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+", re.ASCII)
SCALED = frozenset({"rate", "mails"})
BUILT_IN = """\
[[sites]]
name = "gmail.example"
share = 40
model = "rate"
rate = 50

[[sites]]
name = "outlook.example"
share = 25
model = "penalty"
rate = 25
box = 60

[[sites]]
name = "yahoo.example"
share = 15
model = "connections"
most = 5

[[sites]]
name = "school.example"
share = 5
model = "greylisting"

[[sites]]
name = "bank.example"
share = 5
model = "storm"

[[sites]]
name = "shop.example"
share = 5
model = "one-bad"

[[sites]]
name = "club.example"
share = 5
model = "outage"
"""


@dataclass(frozen=True, slots=True)
class Spec:
    """A receiver as a scenario names it. `share` 0 for a relay."""

    name: str
    model: str = "open"
    share: float = 0.0
    given: Mapping[str, float] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    def made(self, seed: int, *, whose: str) -> Receiver:
        return Receiver(model(self.model, whose, seed, **self.given), list(self.changes))

    def twin(self) -> Receiver:
        """One that nobody asks anything but what it is like."""
        return self.made(1, whose=self.name)

    def scaled(self, by: float) -> Spec:
        known = parameters(MODELS[self.model])
        usual = {name: getattr(model(self.model), name) for name in known if name in SCALED}
        changes = tuple(replace(each, fields=_scaled(dict(each.fields), by)) for each in self.changes)
        return replace(self, given={**self.given, **dict(_scaled({**usual, **self.given}, by))}, changes=changes)


def _scaled(given: Mapping[str, float], by: float) -> tuple[tuple[str, float], ...]:
    many = {name: value * by if name in SCALED else value for name, value in given.items()}
    return tuple((name, max(1, round(value)) if name == "mails" else value) for name, value in many.items())


@dataclass(frozen=True, slots=True)
class Scenario:
    """`adding_s`, `rtt`, `service` in seconds. `relays` by route; "" is that of every other route."""

    sites: tuple[Spec, ...]
    relays: Mapping[str, Spec] = field(default_factory=dict)
    mails: int = 20_000
    adding_s: float = 0.0
    rtt: float = 0.02
    service: float = 0.05

    def relay(self, route: str) -> Spec:
        return self.relays.get(route) or self.relays.get("") or Spec(route)

    def of(self, models: list[str]) -> Scenario:
        """Only the sites of these models. Raises `SettingsError` where there is none of one."""
        for name in models:
            if name not in MODELS:
                raise SettingsError(f"--model: one of {', '.join(MODELS)} (got {cut(name)})")
        there = {site.model for site in self.sites}
        added = [Spec(f"{name}.example", name, 1.0) for name in dict.fromkeys(models) if name not in there]
        kept = [site for site in self.sites if site.model in models]
        return replace(self, sites=(*kept, *added)) if models else self

    def scaled(self, by: float) -> Scenario:
        """Mails, rates and quotas, so that it takes about as long with fewer mails. Connections and times stay."""
        if by == 1:
            return self
        sites = tuple(site.scaled(by) for site in self.sites)
        relays = {name: relay.scaled(by) for name, relay in self.relays.items()}
        return replace(self, sites=sites, relays=relays, mails=max(1, round(self.mails * by)))

    def shared_out(self) -> dict[str, int]:
        """Mails of each site; their sum is `mails` (largest remainders)."""
        total = sum(site.share for site in self.sites)
        exact = {site.name: self.mails * site.share / total for site in self.sites}
        many = {name: int(part) for name, part in exact.items()}
        left = self.mails - sum(many.values())
        for name in sorted(exact, key=lambda each: (many[each] - exact[each], each))[:left]:
            many[name] += 1
        return many


def read_scenario(path: Path | None) -> Scenario:
    """From a file; without one, the mix that comes along."""
    if path is None:
        return _scenario(read_toml(BUILT_IN), "the built-in mix")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise SettingsError(f"{path}: a scenario of more than {LARGEST:,} bytes")
        return _scenario(read_toml(raw.decode("utf-8")), str(path))
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except (NotToml, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None


def _scenario(table: Mapping[str, Any], where: str) -> Scenario:
    known = {"mails", "add_over", "rtt", "service", "relay", "relays", "sites"}
    for name in table:
        if name not in known:
            raise SettingsError(f"{where}: {cut(name)}: a scenario has {', '.join(sorted(known))}")
    rows = table.get("sites")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_SITES:
        raise SettingsError(f"{where}: sites: at least one [[sites]], at most {MOST_SITES}")
    sites = tuple(_spec(row, f"{where}: sites[{at}]", named=True) for at, row in enumerate(rows, 1))
    names = [site.name for site in sites]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"{where}: sites: {twice!r} stands there twice")
    if sum(site.share for site in sites) <= 0:
        raise SettingsError(f"{where}: sites: no site has a share")
    relays = {"": _spec(table["relay"], f"{where}: relay", named=False)} if "relay" in table else {}
    others = table.get("relays", {})
    if not isinstance(others, dict):
        raise SettingsError(f"{where}: relays: a table [relays.<route>] for each (got {cut(others)})")
    relays |= {name: _spec(row, f"{where}: relays.{name}", named=False) for name, row in others.items()}
    mails = table.get("mails", 20_000)
    if not isinstance(mails, int) or isinstance(mails, bool) or not 1 <= mails <= MOST_MAILS:
        raise SettingsError(f"{where}: mails: from 1 to {MOST_MAILS:,} (got {cut(mails)})")
    return Scenario(
        sites,
        relays,
        mails,
        _seconds(table.get("add_over", 0.0), f"{where}: add_over"),
        _seconds(table.get("rtt", 0.02), f"{where}: rtt"),
        _seconds(table.get("service", 0.05), f"{where}: service"),
    )


def _spec(row: object, where: str, *, named: bool) -> Spec:
    if not isinstance(row, dict):
        raise SettingsError(f"{where}: a table (got {cut(row)})")
    given = dict(row)
    name = given.pop("name", "")
    if named and not (isinstance(name, str) and DOMAIN.fullmatch(name)):
        raise SettingsError(f"{where}: name: a domain in lower case and ASCII (got {cut(name)})")
    share = given.pop("share", 1.0 if named else 0.0)
    if not _is_number(share) or (share and not named):
        raise SettingsError(f"{where}: share: a number from 0 on, of a site (got {cut(share)})")
    kind = given.pop("model", "open")
    changes = given.pop("changes", [])
    try:
        if not isinstance(kind, str) or kind not in MODELS:
            raise ValueError(f"model: one of {', '.join(MODELS)} (got {cut(kind)})")
        known = parameters(MODELS[kind])
        plain = {key: _number(value, key, known) for key, value in given.items()}
        model(kind, str(name), **plain)
        return Spec(str(name), kind, float(share), plain, _changes(changes, kind))
    except ValueError as wrong:
        raise SettingsError(f"{where}: {wrong}") from None


def _changes(rows: object, kind: str) -> tuple[Change, ...]:
    if not isinstance(rows, list):
        raise ValueError(f"changes: a list of tables (got {cut(rows)})")
    known = parameters(MODELS[kind])
    found = []
    for at, row in enumerate(rows, 1):
        if not isinstance(row, dict) or "at" not in row:
            raise ValueError(f"changes[{at}]: a table with `at` and what is new (got {cut(row)})")
        fields = {key: _number(value, key, known) for key, value in row.items() if key != "at"}
        for key, value in fields.items():
            if key not in known:
                raise ValueError(f"changes[{at}]: {key}: model {kind!r} knows {', '.join(known) or 'no parameters'}")
            check(key, value, known[key])
        found.append(Change(_seconds(row["at"], f"changes[{at}]: at"), tuple(fields.items())))
    return tuple(sorted(found, key=lambda change: change.at))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf


def _number(value: object, name: str, known: Mapping[str, type]) -> Any:
    """Durations may be written as the settings write them."""
    if known.get(name) is float and isinstance(value, str):
        return _seconds(value, name)
    return value


def _seconds(value: object, where: str) -> float:
    """`"10m"`, or a number of seconds. Raises `SettingsError`."""
    if isinstance(value, str):
        try:
            return duration_ms(value) / 1000
        except ValueError as wrong:
            raise SettingsError(f"{where}: {wrong}") from None
    if not _is_number(value):
        raise SettingsError(f"{where}: seconds, or a time like '10m' (got {cut(value)})")
    return float(value)  # type: ignore[arg-type]
