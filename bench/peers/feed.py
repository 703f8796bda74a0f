"""`python -m bench.peers.feed PEER MAILS KIND DOMAIN`: hands its mails to one of the task queues. A `*` in the domain
becomes one of 200 numbers."""

from __future__ import annotations

import asyncio
import importlib
import sys

from bench.content import message


def main() -> int:
    peer, mails, kind, domain = sys.argv[1:]
    app = importlib.import_module(f"bench.peers.{peer}_app")
    recipients = [f"m{number}@{domain.replace('*', str(number % 200))}" for number in range(int(mails))]
    asyncio.run(app.hand_over(recipients, message(kind).decode("ascii")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
