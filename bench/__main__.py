"""`python -m bench NAME [--json FILE]`: measurements, each with machine, versions and settings."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from bench import campaign, compose, curves, isolation, latency, limits, mails, memory, scale, scheduler, throughput
from bench.facts import machine, versions
from bench.heart import heart
from bench.oracle import oracle, table
from streamq import __version__
from streamq.server import find_binary
from streamq.settings import RouteSettings, load_settings
from streamq.simulate.yardstick import CASES

LATER = (throughput, memory, latency, isolation, scale)  # each brings its flags (`add`), and with them what runs it


def _own(asked: argparse.Namespace) -> int:
    found, good, shown = asked.run(asked)
    record = {"bench": asked.name, "arguments": sys.argv[2:], "machine": machine(), "versions": versions(), **found}
    for name in ("machine", "versions"):
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in record[name].items()))
    print(shown)
    if asked.json:
        asked.json.write_text(json.dumps(record, indent=2, default=str) + "\n")
    return 0 if good else 1


def _mails(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:  # STREAMQ_EVENTS_KEPT: each needs its event
        raise argparse.ArgumentTypeError(f"not from 1 to 100000: {text}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write the record there, too")
    benches = parser.add_subparsers(dest="name", required=True)
    one = benches.add_parser("heart", parents=[common], help="latency, throughput, and sites that hold up nobody")
    one.add_argument("--only", choices=["idle", "drain", "blocked"], default="", help="one part of it")
    one.add_argument("--rounds", type=int, default=5, help="of what is compared by turns (5)")
    one = benches.add_parser("oracle", parents=[common], help="what a Postfix and an Exim store of what we deliver")
    one.add_argument("--mails", type=_mails, default=10_000, help="to each of them (10000)")
    modes = get_args(RouteSettings.model_fields["pipelining"].annotation)
    one.add_argument("--pipelining", choices=modes, default="transaction", help="how the route speaks (transaction)")
    one.add_argument("--chunking", action="store_true", help="by BDAT")
    benches.add_parser("compose", parents=[common], help="from fields to bytes, against email.policy.SMTP")
    one = benches.add_parser("mails", parents=[common], help="mails by chance, read back by the standard library")
    one.add_argument("--count", type=int, default=10_000, help="of them (10000)")
    one.add_argument("--seed", type=int, default=1, help="which ones (1)")
    one.add_argument("--first", type=int, default=0, help="number of the first one: a long run in parts (0)")
    one.add_argument("--processes", type=int, default=1, help="that share the work (1)")
    one = benches.add_parser("campaign", parents=[common], help="mails for many, a worker killed in the middle")
    one.add_argument("--recipients", type=int, default=200_000, help="of all entries (200000)")
    one.add_argument("--entries", type=int, default=200, help="that name them (200)")
    one = benches.add_parser("limits", parents=[common], help="what a limit lets through, and how much of it is used")
    one.add_argument("--scope", choices=limits.SCOPES, action="append", help="what has the limit (each)")
    one.add_argument("--rule", action="append", help="the limit (20/100ms, 100/s, 300/5s)")
    one.add_argument("--workers", type=int, action="append", help="processes (1, 4, 16)")
    one = benches.add_parser("scheduler", parents=[common], help="a server that takes few connections, or a rate")
    one.add_argument("--mails", type=_mails, default=scheduler.MAILS, help=f"of the first case ({scheduler.MAILS})")
    one.add_argument("--case", choices=tuple(scheduler.CASES), action="append", help="the server (each)")
    one.add_argument("--client", choices=scheduler.CLIENTS, action="append", help="who sends (each)")
    one = benches.add_parser("curves", parents=[common], help="the policy against known limits, in virtual time")
    one.add_argument("--case", choices=list(CASES), action="append", default=[], help="of them (each)")
    one.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw those of docs/limits.md there (docs/curves)")
    for bench in LATER:
        bench.add(benches, common)
    asked = parser.parse_args()
    if "run" in asked:
        return _own(asked)
    record: dict[str, Any] = {
        "bench": asked.name,
        "machine": f"{os.cpu_count()} cores, {platform.platform()}",
        "python": platform.python_version(),
        "streamq": __version__,
        "server": str(find_binary(load_settings())),
    }
    good, shown = True, ""
    if asked.name == "oracle":
        way = f'pipelining = "{asked.pipelining}"\nchunking = {str(asked.chunking).lower()}'
        found = asyncio.run(oracle(asked.mails, way))
        record["route"] = way.splitlines()
        record["results"] = [asdict(each) for each in found]
        good = all(each.good for each in found) and not all(each.skipped for each in found)
        shown = table(found)
    elif asked.name == "compose":
        record["results"] = compose.compose()
        shown = compose.table(record["results"])
    elif asked.name == "mails":
        read = mails.mails(asked.count, seed=asked.seed, processes=asked.processes, first=asked.first)
        record["results"] = asdict(read)
        good = read.good
        shown = mails.table(read)
    elif asked.name == "curves":
        ran = curves.curves(load_settings(), asked.pictures, asked.case)
        record["results"] = curves.plain(ran)
        shown = curves.table(ran)
    elif asked.name == "campaign":
        sent = asyncio.run(campaign.campaign(asked.recipients, asked.entries))
        record["results"] = asdict(sent)
        good = sent.good
        shown = campaign.table(sent)
    elif asked.name == "limits":
        rules, workers = asked.rule or limits.RULES, asked.workers or limits.WORKERS
        held = asyncio.run(limits.limits(asked.scope or limits.SCOPES, rules, workers))
        record["results"] = held
        good = held["good"]
        shown = limits.table(held)
    elif asked.name == "scheduler":
        cases, clients = asked.case or tuple(scheduler.CASES), asked.client or scheduler.CLIENTS
        runs = asyncio.run(scheduler.scheduler(asked.mails, cases, clients))
        record["results"] = scheduler.results(runs)
        good = all(run.good for run in runs if run.client == "streamq")
        shown = scheduler.table(runs)
    else:
        record["results"] = asyncio.run(heart(asked.only, asked.rounds))
    text = json.dumps(record, indent=2, default=str)
    print(f"{record['machine']}, Python {record['python']}, streamq {record['streamq']}\n{shown}" if shown else text)
    if asked.json:
        asked.json.write_text(text + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
