"""`python -m bench.orders URL MAILS KIND SEED`: order confirmations to 500 domains, as fast as one producer can.

A domain's share is that of its rank (Zipf, exponent 1): the first one gets a seventh. The producer is a process of its
own, so that whoever measures beside it is not kept waiting.
"""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import accumulate

from bench.content import KINDS
from streamq.keys import Keys
from streamq.queue.connection import connect, pipelined

__all__ = ["DOMAINS", "domain", "shares"]

DOMAINS = 500
PART = 250


def domain(rank: int) -> str:
    """0 is the largest."""
    return f"shop{rank}.example"


def shares(domains: int = DOMAINS) -> list[float]:
    """By rank; together 1."""
    weights = [1 / (rank + 1) for rank in range(domains)]
    return [weight / sum(weights) for weight in weights]


async def _feed(url: str, mails: int, kind: str, seed: int) -> None:
    chance, fields = random.Random(seed), KINDS[kind]
    whole, ranks = list(accumulate(shares())), range(DOMAINS)
    stream = Keys("streamq").stream("normal")
    redis = connect(url)
    for start in range(0, mails, PART):
        many = min(PART, mails - start)
        chosen = chance.choices(ranks, cum_weights=whole, k=many)
        await pipelined(
            redis,
            [
                ("XADD", stream, "*", "id", f"o{start + at}", *fields(f"c{start + at}@{domain(rank)}"))
                for at, rank in enumerate(chosen)
            ],
        )
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(_feed(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
