"""`python -m bench NAME [--json FILE]`: measurements, each with machine, versions and settings."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from pathlib import Path

from bench.heart import heart
from streamq import __version__
from streamq.server import find_binary
from streamq.settings import load_settings

BENCHES = {"heart": heart}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there, too")
    parser.add_argument("--only", choices=["idle", "drain", "blocked"], default="", help="one part of it")
    parser.add_argument("--rounds", type=int, default=5, help="of what is compared by turns (5)")
    asked = parser.parse_args()
    record = {
        "bench": asked.name,
        "machine": f"{os.cpu_count()} cores, {platform.platform()}",
        "python": platform.python_version(),
        "streamq": __version__,
        "server": str(find_binary(load_settings())),
        "results": asyncio.run(BENCHES[asked.name](asked.only, asked.rounds)),
    }
    text = json.dumps(record, indent=2, default=str)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
