"""`python -m bench NAME [--json FILE]`: measurements, each with machine, versions and settings."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench import (
    agree,
    blackfriday,
    campaign,
    compose,
    curves,
    fuzz,
    heart,
    isolation,
    latency,
    limits,
    mails,
    memory,
    oracle,
    scale,
    scheduler,
    throughput,
)  # fmt: skip
from bench.facts import machine, versions
from bench.faults import command as faults
from streamq.server import find_binary
from streamq.settings import load_settings

# Each brings its flags (`add`), and with them what runs it: (what goes into the record, whether all is well, a table).
BENCHES = (
    throughput, latency, isolation, memory, scale, agree, blackfriday,
    heart, limits, scheduler, curves, campaign, compose, mails, oracle, faults, fuzz,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write the record there, too")
    benches = parser.add_subparsers(dest="name", required=True)
    for bench in BENCHES:
        bench.add(benches, common)
    asked = parser.parse_args()
    record: dict[str, Any] = {
        "bench": asked.name,
        "arguments": sys.argv[2:],
        "machine": machine(),
        "versions": {**versions(), "server": str(find_binary(load_settings()))},
    }
    found, good, shown = asked.run(asked)
    for name in ("machine", "versions"):
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in record[name].items()))
    print(shown)
    if asked.json:
        asked.json.write_text(json.dumps(record | found, indent=2, default=str) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
