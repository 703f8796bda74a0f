"""`python -m bench throughput`: mails a second and CPU seconds, ours and other people's, by turns in one run.

CASES    drain: a backlog that stands, from the moment when its first mail may go; flow: from the first XADD (to
         Postfix: the first mail of smtp-source) to the last delivery. Every combination of what the flags name;
         without any, the standard ones (bench/cases.py).
ROUNDS   Each round runs every case once, each on a fresh server and sink; what is shown are medians, and ratios are
         medians of each round's own: machines are noisy, and what slows one slows its neighbour.
CPU      Of the delivering processes, by /proc, from the moment when all stand ready before the first mail
         (bench/gate.py; a streamq worker has delivered 500 before, a peer has connected, Postfix runs) until the last
         mail is settled. Starting costs nothing here; what each had read ahead by then (streamq: 100 mails of a
         process) was read outside the count.
SINK     streamq's own, a process of its own: a line per recipient in its journal, no body kept, no fsync; or Debian's
         smtp-sink, which counts and keeps nothing.
CHECKS   A run of streamq ends with as many events as mails, a duplicate that is refused, and a clean `check`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.bars import Bar, bars
from bench.cases import CLIENTS, MODES, PEERS, SINKS, WHATS, Case, Run, asked_for
from bench.contenders import run_peer, run_postfix
from bench.content import KINDS
from bench.drain import run_streamq
from bench.figures import columns, middle, ratio, spread
from bench.promises import Kept, kept

__all__ = ["add", "by_case", "ratios", "results", "table", "throughput"]

MAILS, PEER_MAILS, ROUNDS = 50_000, 10_000, 5
SHOWN = {
    "mails_per_s": ("mails/s", ",.0f"),
    "worker_cpu_s_per_1000": ("CPU s/1000", ".3f"),
    "redis_cpu_s_per_1000": ("Redis CPU", ".3f"),
    "round_trips_per_mail": ("trips/mail", ".3f"),
    "script_calls_per_mail": ("scripts", ".3f"),
    "commands_per_mail": ("commands", ".2f"),
    "sink_cpu_s_per_1000": ("sink CPU", ".3f"),
    "worker_peak_mb": ("peak MB", ".0f"),
}


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("throughput", parents=[common], help="mails a second, CPU, against other people's queues")
    one.add_argument("--mails", type=int, default=MAILS, help=f"of a run ({MAILS})")
    one.add_argument("--peer-mails", type=int, default=PEER_MAILS, help=f"of a peer's, which is slower ({PEER_MAILS})")
    one.add_argument("--rounds", type=int, default=ROUNDS, help=f"of all cases by turns ({ROUNDS})")
    one.add_argument("--client", choices=CLIENTS, action="append", help="who delivers")
    one.add_argument("--what", choices=WHATS, action="append", help="a standing backlog, or from XADD on")
    one.add_argument("--kind", choices=tuple(KINDS), action="append", help="of the mails")
    one.add_argument("--processes", type=int, action="append", help="of the worker")
    one.add_argument("--mode", choices=MODES, action="append", help="how the route speaks")
    one.add_argument("--fsync", choices=("everysec", "always"), action="append", help="appendfsync of the server")
    one.add_argument("--limits", choices=("no", "yes"), action="append", help="that bind nobody")
    one.add_argument("--sink", choices=SINKS, action="append", help="who receives")
    one.add_argument("--picture", type=Path, metavar="FILE", help="draw the medians there (SVG)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    cases = asked_for(
        client=asked.client,
        what=asked.what,
        kind=asked.kind,
        processes=asked.processes,
        mode=asked.mode,
        fsync=asked.fsync,
        limited=[word == "yes" for word in asked.limits or ()],
        sink=asked.sink,
    )
    runs = asyncio.run(throughput(cases, asked.rounds, asked.mails, asked.peer_mails))
    if asked.picture:
        asked.picture.write_text(_picture(runs), "utf-8")
    held = _kept(runs)
    good = all(run.good for run in runs) and all(each.good for each in held)
    return {"results": results(runs), "promises": [asdict(each) for each in held]}, good, table(runs)


def _kept(runs: Sequence[Run]) -> list[Kept]:
    return kept({case: middle(run.figures for run in each) for case, each in by_case(runs).items()}, ratios(runs))


async def _one(case: Case, mails: int, peer_mails: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="sqb-") as name:
        folder = Path(name)
        if case.client == "streamq":
            return await run_streamq(folder, case, mails)
        run = run_postfix if case.client == "postfix" else run_peer
        return await run(folder, case, peer_mails)


async def throughput(cases: Sequence[Case], rounds: int, mails: int, peer_mails: int) -> list[Run]:
    """In the order in which they ran; a case that is skipped is not tried again."""
    runs: list[Run] = []
    missing: set[Case] = set()
    for number in range(rounds):
        for case in cases:
            if case in missing:
                continue
            run = await _one(case, mails, peer_mails)
            runs.append(run)
            if run.skipped:
                missing.add(case)
            rate = run.figures.get("mails_per_s")
            print(f"round {number + 1}: {case.name}: {run.skipped or f'{rate:,.0f} mails/s'}", flush=True)
    return runs


def by_case(runs: Sequence[Run]) -> dict[Case, list[Run]]:
    """Without those that were skipped."""
    found: dict[Case, list[Run]] = {}
    for run in runs:
        if not run.skipped:
            found.setdefault(run.case, []).append(run)
    return found


def _rates(runs: Sequence[Run]) -> list[float]:
    return [rate for run in runs if (rate := run.figures["mails_per_s"]) is not None]


def ratios(runs: Sequence[Run]) -> list[tuple[Case, str, float]]:
    """(Case of ours, peer, how many times its mails a second), for the same kind of run, mail and sink. Who has no case
    of the same number of processes is not compared with that peer, but Postfix, which has none."""
    found = by_case(runs)
    made = []
    for case, ours in found.items():
        for other, theirs in found.items():
            alike = (case.what, case.kind, case.sink) == (other.what, other.kind, other.sink)
            as_many = other.client == "postfix" or case.processes == other.processes
            as_durable = other.client == "postfix" or case.fsync == other.fsync
            if case.client == "streamq" and other.client in PEERS and alike and as_many and as_durable:
                made.append((case, other.client, ratio(_rates(ours), _rates(theirs))))
    return made


def table(runs: Sequence[Run]) -> str:
    found = by_case(runs)
    rows = [["case", "rounds", *(head for head, _ in SHOWN.values()), "±", "durable", "version"]]
    for case, each in found.items():
        known = middle(run.figures for run in each)
        cells = [format(known[name], how) if name in known else "" for name, (_, how) in SHOWN.items()]
        off = f"{spread(_rates(each)):.0%}"
        rows.append([case.name, str(len(each)), *cells, off, case.durable, each[0].version])
    lines = [columns(rows), ""]
    lines += [f"{ours.name}: {times:.1f} times {peer}" for ours, peer, times in ratios(runs)]
    lines += ["promises:", *(f"  {each.words}" for each in _kept(runs))]
    lines += [f"{run.case.name}: skipped: {run.skipped}" for run in runs if run.skipped]
    lines += [_checked(found), *_settings(found)]
    return "\n".join(lines)


def _checked(found: dict[Case, list[Run]]) -> str:
    ours = [run for each in found.values() for run in each if run.case.client == "streamq"]
    failed = [f"{run.case.name}: not so: {what}" for run in ours for what, good in run.checks.items() if not good]
    names = ", ".join(ours[0].checks) if ours else ""
    return "\n".join(failed) if failed else f"{names}: in each of {len(ours)} runs" if ours else ""


def _settings(found: dict[Case, list[Run]]) -> list[str]:
    """All settings of the first case of streamq, and of the server; of the others the lines that make them differ."""
    lines: list[str] = []
    for case, each in found.items():
        if case.client != "streamq":
            continue
        if not lines:
            lines.append(f"settings of {case.name}:")
            lines += [f"  {name} = {value}" for name, value in each[0].settings.items()]
            lines.append("server: " + ", ".join(f"{name} {value}" for name, value in each[0].server.items()))
        lines.append(f"{case.name}: " + "; ".join(case.settings.split("\n")[1:-1]))
    for case, each in found.items():
        if case.client not in ("streamq", "postfix"):
            lines.append(f"{case.name}: " + "; ".join(each[0].settings["command"]))
    return lines


def results(runs: Sequence[Run]) -> dict[str, Any]:
    found = by_case(runs)
    return {
        "medians": {case.name: middle(run.figures for run in each) for case, each in found.items()},
        "ratios": [{"case": ours.name, "peer": peer, "times": times} for ours, peer, times in ratios(runs)],
        "runs": [run.as_json() for run in runs],
    }


def _picture(runs: Sequence[Run]) -> str:
    found = by_case(runs)
    drawn = []
    for title, name, how in (
        ("mails a second", "mails_per_s", ",.0f"),
        ("CPU seconds of the workers per 1,000 mails", "worker_cpu_s_per_1000", ".3f"),
    ):
        rows = [
            Bar(case.name, statistics.median(float(run.figures[name] or 0) for run in each), case.client == "streamq")
            for case, each in found.items()
        ]
        drawn.append((title, rows, how))
    rounds = max((len(each) for each in found.values()), default=0)
    return bars(f"streamq and its peers, medians of {rounds} rounds in one run", drawn)
