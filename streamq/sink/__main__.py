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
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="answer as that provider does")
    parser.add_argument("--tls", action="store_true", help="offer STARTTLS, with a certificate of its own")
    parser.add_argument("--implicit-tls", action="store_true", help="TLS from the first byte")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="PEM; the certificate to show")
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM; its key, where the first file has none")
    parser.add_argument("--cert-out", type=Path, metavar="FILE", help="write the certificate there, to be trusted")
    parser.add_argument("--counters", type=Path, metavar="FILE", help="JSON, at the end and at SIGUSR1")
    parser.add_argument(
        "--window", type=float, action="append", default=[], metavar="S", help="find the most mails in it"
    )
    parser.add_argument("--id-header", default="", metavar="NAME", help="count its values, too")
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
    given.update({name: tuple(given[name]) for name in ("reply", "without", "profile", "window")})
    try:
        return run(Options(**given))
    except SettingsError as wrong:
        print(f"streamq sink: {wrong}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
