"""Provider rules: what a file of them says, or what is wrong with it, line by line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from streamq.cli.app import Json, settings
from streamq.cli.site import site
from streamq.cli.terminal import clip, console, emit, note, table
from streamq.errors import SettingsError
from streamq.limits.rules import Provider
from streamq.limits.rules_file import check_rules, read_text

Rules = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="provider rules; without it the one of STREAMQ_PROVIDER_RULES")
]


@site.command("check")
def check_file(file: Rules = None, json: Json = False) -> None:
    """Read a file of provider rules and name each mistake by file, line, key and value. Exit 1 where there is one.
    Needs no queue."""
    path = file or settings().provider_rules
    if path is None:
        raise SettingsError("no file: streamq site check FILE, or set STREAMQ_PROVIDER_RULES")
    name = str(path)
    rules, mistakes = check_rules(read_text(path), name)
    if json:
        emit(
            {
                "file": name,
                "mistakes": [asdict(each) for each in mistakes],
                "providers": [_plain(each) for each in rules.providers],
            }
        )
    else:
        for each in mistakes:
            note(each.of(name))
        if not mistakes:
            _print(name, rules.providers)
    if mistakes:
        raise typer.Exit(1)


def _print(name: str, providers: tuple[Provider, ...]) -> None:
    rows = []
    for each in providers:
        cap = each.cap
        rate = ", ".join(map(str, cap.rate or ()))
        numbers = ["–" if many is None else f"{many:,}" for many in (cap.connections, cap.mails_per_connection)]
        rest = [clip(each.name, 40), rate or "–", *numbers, str(len(each.entries) or "–")]
        rows += [[of, *rest] for of in each.domains or each.relays]
    columns = ("domain or relay", "provider", "rate", "connections", "mails per connection", "texts")
    console.print(table(columns, rows, right=columns[3:], firm=1), soft_wrap=True)
    note(f"{name}: no mistake")


def _plain(provider: Provider) -> dict[str, Any]:
    """For JSON."""
    cap = provider.cap
    return {
        "name": provider.name,
        "domains": list(provider.domains),
        "relays": list(provider.relays),
        "rate": None if cap.rate is None else [str(window) for window in cap.rate],
        "connections": cap.connections,
        "mails_per_connection": cap.mails_per_connection,
        "texts": len(provider.entries),
    }
