"""`python -m streamq.sink`: the sink where the commands' dependencies are not wanted, in tests above all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamq.errors import SettingsError
from streamq.sink.process import Options, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m streamq.sink", description="A mail server to test against.")
    usual = Options()
    parser.add_argument("--host", default=usual.host)
    parser.add_argument("--port", type=int, default=usual.port, help="0 takes a free one and prints it")
    parser.add_argument("--allow-remote", action="store_true", help="listen on a host beyond loopback")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="TOML: what to answer to whom")
    parser.add_argument(
        "--reply",
        action="append",
        default=[],
        metavar="GLOB=CODE",
        help="answer to RCPT: '*@slow.example=450 4.2.1 text'",
    )
    parser.add_argument("--maildir", type=Path, metavar="DIR")
    parser.add_argument("--envelope-headers", action="store_true", help="Return-Path and Delivered-To in files")
    parser.add_argument("--keep", type=int, default=usual.keep, help="mails in memory")
    parser.add_argument("--keep-bytes", type=int, default=usual.keep_bytes)
    parser.add_argument("--max-size", type=int, default=usual.max_size, help="bytes of a mail")
    parser.add_argument("--without", action="append", default=[], metavar="KEYWORD", help="do not offer it")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="JSON of all counts, written at the end")
    parser.add_argument("--ledger-limit", type=int, default=usual.ledger_limit)
    parser.add_argument("--journal", type=Path, metavar="FILE", help="a line per accepted recipient, at once")
    parser.add_argument("--quiet", action="store_true", help="no line per mail")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write the port there when listening")
    given = vars(parser.parse_args())
    given.update(reply=tuple(given["reply"]), without=tuple(given["without"]))
    try:
        return run(Options(**given))
    except SettingsError as wrong:
        print(f"streamq sink: {wrong}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
