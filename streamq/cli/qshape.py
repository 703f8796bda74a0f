"""qshape: domain by age, as Postfix's qshape(1) has it."""

from __future__ import annotations

from typing import Annotated

import typer

from streamq.cli.app import Json, app, open_queue, run_async
from streamq.cli.choice import Class, Domain, Priority, State, Tag, Tenant, To, chosen, known_choice, known_states
from streamq.cli.complete import one_of
from streamq.cli.terminal import clip, console, emit, progress, table
from streamq.errors import SettingsError
from streamq.queue.look import status
from streamq.queue.shape import BY, Shape, ages, shape
from streamq.queue.wording import plural
from streamq.settings import duration_ms

POSTFIX = {"incoming": ("waiting",), "active": ("leased",), "deferred": ("parked", "scheduled"), "hold": ("held",)}
NAME_MOST = 60
DAY_MS = 86_400_000
UNITS = ((DAY_MS, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))


@app.command()
def qshape(
    queues: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"as in Postfix: {', '.join(POSTFIX)}; without one all",
            metavar="QUEUE",
            autocompletion=one_of(POSTFIX),
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help=f"rows: {', '.join(BY)}", metavar="WHAT", autocompletion=one_of(BY))
    ] = "domain",
    state: State = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    first: Annotated[
        str, typer.Option("-t", "--first", help="age of the first column; each is twice the one before", metavar="TIME")
    ] = "5m",
    columns: Annotated[int, typer.Option("-b", "--columns", min=1, max=30, help="so many, and one more")] = 9,
    limit: Annotated[int, typer.Option("-l", "--limit", min=1, help="so many rows at most", metavar="N")] = 20,
    json: Json = False,
) -> None:
    """How many mails, how old, for whom: domains by age. One that stands out in the old columns has a problem; many
    young ones are a burst.

    Reads the whole queue, a hundred mails at a time: a minute or two for a million.
    """
    if by not in BY:
        raise SettingsError(f"--by: one of {', '.join(BY)} (got {by!r})")
    selector = chosen(priority, domain, tenant, tag, class_, to).among(*_states(queues or [], state))
    bounds = ages(_age(first), columns)

    async def run() -> None:
        async with open_queue() as spool:
            await known_choice(spool, selector)
            now = await status(spool)
            many = sum(now.sum(each) for each in selector.states)
            with progress("looking", many, quiet=json) as looked:
                found = await shape(spool, selector, bounds, now.now_ms, by, looked)
            if json:
                emit(_plain(found, by, limit))
            else:
                _print(found, by, limit)

    run_async(run)


def _states(queues: list[str], state: str | None) -> tuple[str, ...]:
    """Of Postfix's queues, or of the one state."""
    if not queues:
        return known_states(state)
    if state is not None:
        raise SettingsError(
            f"--state: either a state or Postfix's queues, not both (got {state!r} and {queues[0]!r:.80})"
        )
    for name in queues:
        if name not in POSTFIX:
            raise SettingsError(f"qshape: no such queue: one of {', '.join(POSTFIX)}; or --state (got {name[:80]!r})")
    return tuple(dict.fromkeys(each for name in queues for each in POSTFIX[name]))


def _age(text: str) -> int:
    try:
        ms = duration_ms(text)
    except ValueError as wrong:
        raise SettingsError(f"--first: {wrong}") from None
    if ms <= 0:
        raise SettingsError(f"--first: longer than nothing (got {text!r})")
    return ms


def _heads(bounds: tuple[int, ...]) -> list[str]:
    """Ages in the largest unit in which the first one is whole, as Postfix has minutes throughout."""
    size, unit = next((size, unit) for size, unit in UNITS if bounds[0] % size == 0)
    return [*(f"{ms // size}{unit}" for ms in bounds), f"{bounds[-1] // size}{unit}+"]


def _print(found: Shape, by: str, limit: int) -> None:
    rows = found.sorted()
    lines = [["TOTAL", sum(found.total), *found.total], *([name, sum(row), *row] for name, row in rows[:limit])]
    cells = [[clip(str(name), NAME_MOST), *(f"{many}" for many in numbers)] for name, *numbers in lines]
    names = (by, "T", *_heads(found.bounds))
    console.print(table(names, cells, right=names[1:]), soft_wrap=True)
    if len(rows) > limit:
        rest = sum(sum(row) for _, row in rows[limit:])
        console.print(
            f"… and {len(rows) - limit:,} more with {plural(rest, 'mail')}: --limit {limit * 10}", style="dim"
        )


def _plain(found: Shape, by: str, limit: int) -> dict[str, object]:
    rows = found.sorted()
    shown = [{by: name, "total": sum(row), "ages": row} for name, row in rows[:limit]]
    total = {"total": sum(found.total), "ages": found.total, "rows": len(rows)}
    return {"by": by, "bounds_ms": list(found.bounds), **total, "shown": shown}
