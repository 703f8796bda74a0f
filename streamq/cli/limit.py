"""What `site limit` and `route limit` share: a limit as given, the operators' layer, what it was and what holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from streamq.cli.terminal import clip, console, emit, note
from streamq.errors import SettingsError
from streamq.queue.connection import command
from streamq.queue.gauge import Rule, rules_of
from streamq.queue.limits import OPERATOR, operator_text, set_limits
from streamq.queue.spool import Spool
from streamq.queue.wording import rule_words
from streamq.settings import Window, window

__all__ = [
    "AskedLimit",
    "Connections",
    "Rates",
    "Unset",
    "asked_limit",
    "rule_json",
    "set_limit",
]

Rates = Annotated[
    list[str] | None,
    typer.Argument(metavar="RATE", help="mails a window: 50/s, 600/10m, 60000/h; several hold at once; `none`"),
]
Connections = Annotated[int | None, typer.Option(min=0, max=1000, help="at once, over all workers; 0: no limit")]
Unset = Annotated[bool, typer.Option("--unset", help="take away what operators have set: what the files say holds")]

WINDOWS_MOST = 10


@dataclass(frozen=True, slots=True)
class AskedLimit:
    """None: nothing is said of that part. No windows, 0 connections: no limit."""

    windows: tuple[Window, ...] | None
    connections: int | None
    unset: bool


def asked_limit(rates: list[str] | None, connections: int | None, unset: bool) -> AskedLimit:
    """Raises `SettingsError` where the words say nothing, or two things."""
    if unset and (rates or connections is not None):
        raise SettingsError("--unset: takes away all that operators have set: no RATE and no --connections beside it")
    if not unset and not rates and connections is None:
        raise SettingsError("limit: a RATE (50/s), `none`, --connections N, or --unset")
    if rates and len(rates) > WINDOWS_MOST:
        raise SettingsError(f"RATE: at most {WINDOWS_MOST} windows (got {len(rates)})")
    if rates == ["none"]:
        return AskedLimit((), connections, unset)
    try:
        windows = tuple(window(text) for text in rates) if rates else None
    except ValueError as wrong:
        raise SettingsError(f"RATE: {wrong}") from None
    if windows and len({each.window_ms for each in windows}) < len(windows):
        raise SettingsError(f"RATE: one of each window (got {', '.join(map(str, windows))})")
    return AskedLimit(windows, connections, unset)


def rule_json(rule: Rule) -> dict[str, object]:
    """A rule as JSON shows it."""
    return {
        "rate": [str(each) for each in rule.windows],
        "rate_by": rule.by,
        "connections": rule.connections,
        "connections_by": rule.connections_by,
        "field": rule.field,
    }


async def set_limit(spool: Spool, target: str, asked: AskedLimit, *, name: str, dry_run: bool, json: bool) -> None:
    """The operator's layer says that of the target; print what it was and what holds now."""
    was = (await rules_of(spool, [target]))[target]
    if not dry_run:
        await set_limits(spool, OPERATOR, {target: await _text(spool, target, asked)})
    now = (await rules_of(spool, [target]))[target]
    if json:
        known = {"verb": "unset" if asked.unset else "limit", "target": target, "dry_run": dry_run}
        emit(known | {"was": rule_json(was), "now": rule_json(now)})
        return
    if dry_run:
        console.print(f"{clip(name, 300)}: it is {rule_words(was)} (dry run: nothing was changed)", soft_wrap=True)
        return
    console.print(f"{clip(name, 300)}: {rule_words(now)}; it was {rule_words(was)}", soft_wrap=True)
    for other, rule in (await _narrower(spool, target)).items():
        if (rule.windows, rule.connections) != (now.windows, now.connections):
            note(f"{clip(other, 300)} has a limit of its own, which stays: {rule_words(rule)}")


async def _text(spool: Spool, target: str, asked: AskedLimit) -> str:
    """With what operators had set of the other part."""
    if asked.unset:
        return ""
    return await operator_text(spool, target, asked.windows, asked.connections)


async def _narrower(spool: Spool, target: str) -> dict[str, Rule]:
    """Limits of the same site on one route, where the target is the site on all of them."""
    if not target.startswith("*|"):
        return {}
    names = [name.decode("utf-8", "replace") for name in await command(spool.redis, "HKEYS", spool.keys.limits)]
    return await rules_of(spool, [name for name in names if name != target and name.endswith(target[1:])])
