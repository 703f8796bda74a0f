"""`python -m bench faults`: what is promised when things die, by killing them."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.faults import rows_loss, rows_server, rows_smtp, rows_worker
from bench.faults.mix import WAYS, Piece, piece, plan, way_of
from bench.faults.row import Found, Route
from bench.faults.stages import STAGES

__all__ = ["ROWS", "add"]

COUNTED = ("mails", "lost", "doubles", "unmarked", "unexplained", "marks", "unneeded", "allowed")
ROWS = {one.name: one for part in (rows_worker, rows_server, rows_loss, rows_smtp) for one in part.ROWS}


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("faults", parents=[common], help="workers, servers and lines killed, and what came of it")
    one.add_argument("--seed", type=int, default=1, help="of the first piece; the others count on (1)")
    one.add_argument("--pieces", type=int, default=1, help="runs of the mix, each on a server of its own (1)")
    one.add_argument("--mails", type=int, default=6000, help="of a piece (6000)")
    one.add_argument("--kills", type=int, default=11, help="of workers in a piece (11)")
    one.add_argument("--server-kills", type=int, default=2, help="in a piece (2)")
    one.add_argument("--breaks", type=int, default=5, help="of lines in a piece (5)")
    one.add_argument(
        "--way", choices=list(WAYS), help="how mails go over a connection (by its seed; a row: transaction)"
    )
    one.add_argument("--keep", type=Path, metavar="DIR", help="where the journal and logs of a broken piece are kept")
    one.add_argument("--row", action="append", metavar="NAME", help="instead: a row of the table of faults; `all`")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    if asked.row:
        return asyncio.run(_rows(asked.row, WAYS[asked.way or "transaction"]))
    pieces = asyncio.run(_pieces(asked))
    found: dict[str, Any] = {"pieces": [_record(one) for one in pieces]}
    return found, all(one.verdict.kept for one in pieces), table(pieces)


async def _rows(names: Sequence[str], route: Route) -> tuple[dict[str, Any], bool, str]:
    if unknown := [name for name in names if name != "all" and name not in ROWS]:
        raise SystemExit(f"faults: no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    found: dict[str, Found] = {}
    for name in ROWS if "all" in names else names:
        with tempfile.TemporaryDirectory(prefix="sqf-") as folder:
            found[name] = await ROWS[name].run(Path(folder), route)
        print(f"{name}: {found[name].shown}", flush=True)
    record = {
        name: {"verdict": asdict(one.verdict), "figures": dict(one.figures), "skipped": one.skipped, "good": one.good}
        for name, one in found.items()
    }
    shown = [f"{name}: {ROWS[name].happens}\n    {ROWS[name].promised}\n    {one.shown}" for name, one in found.items()]
    return {"rows": record}, all(one.good for one in found.values()), "\n".join(shown)


async def _pieces(asked: argparse.Namespace) -> list[Piece]:
    found = []
    for seed in range(asked.seed, asked.seed + asked.pieces):
        with tempfile.TemporaryDirectory(prefix="sqf-") as name:
            way = asked.way or way_of(seed)
            made = plan(seed, asked.mails, asked.kills, asked.server_kills, asked.breaks, way)
            try:
                found.append(await piece(Path(name), made))
            finally:
                if asked.keep and not (found and found[-1].seed == seed and found[-1].verdict.kept):
                    shutil.copytree(name, asked.keep / f"seed{seed}", ignore=_no_sockets)
        print(line(found[-1]), flush=True)
    return found


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def _record(one: Piece) -> dict[str, Any]:
    return {
        "seed": one.seed,
        "way": one.way,
        "kept": one.verdict.kept,
        "verdict": asdict(one.verdict),
        "kills": [{"aim": kill.aim, "stages": dict(kill.stages), "leases": kill.leases} for kill in one.kills],
        "server_kills": one.server_kills,
        "breaks": dict(one.breaks),
        "repeated": one.repeated,
        "seen": dict(one.seen),
    }


def line(one: Piece) -> str:
    """One piece."""
    said = one.verdict
    counts = {name: getattr(said, name) for name in COUNTED if name != "mails"} | {
        name: many for name in ("untold", "twice_told") if (many := getattr(said, name))
    }
    words = [
        f"seed {one.seed} by {one.way}: {said.mails} mails, {len(one.kills)} workers killed ({one.caught} past a MAIL)",
        f"lines saw {dict(sorted(one.seen.items()))}",
        f"at {dict(one.stages)}, {one.server_kills} servers, lines {dict(sorted(one.breaks.items()))}",
        ", ".join(f"{name} {many}" for name, many in counts.items()),
        *([f"wrong {said.wrong}"] if said.wrong else []),
        *([f"left {said.left}"] if said.left else []),
        "kept" if said.kept else f"BROKEN {said.names}",
    ]
    return "; ".join(words)


def table(pieces: Sequence[Piece]) -> str:
    """All of them together, and each way by itself where there are several."""
    ways = [[one for one in pieces if one.way == way] for way in WAYS]
    found = [_table(some, some[0].way) for some in ways if some]
    return "\n".join(found if len(found) == 1 else [*found, _table(pieces, "all")])


def _table(pieces: Sequence[Piece], name: str) -> str:
    """The sums, and the stages at the kills."""
    stages = sum((one.stages for one in pieces), Counter[str]())
    total = {name: sum(getattr(one.verdict, name) for one in pieces) for name in COUNTED}
    kills = [kill for one in pieces for kill in one.kills]
    rows = [
        f"{name}, seeds {pieces[0].seed} to {pieces[-1].seed}: {total['mails']:,} mails",
        f"workers killed {len(kills)}, with a mail past its MAIL {sum(kill.caught for kill in kills)}",
        f"servers killed {sum(one.server_kills for one in pieces)}",
        f"lines broken {sum(one.breaks.total() for one in pieces)}",
        ", ".join(f"{name} {many:,}" for name, many in total.items() if name != "mails"),
        f"breaches of the law {sum(len(one.verdict.wrong) for one in pieces)}, "
        f"left behind {sum(len(one.verdict.left) for one in pieces)}",
        "stage of a killed worker's connections   connections   kills that had one there",
    ]
    return "\n".join(
        [
            *rows,
            *(
                f"{stage:>40} {stages[stage]:>13,} {sum(stage in kill.stages for kill in kills):>15,}"
                for stage in STAGES
            ),
        ]
    )
