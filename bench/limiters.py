"""Five ways to count "no more than N in W", as one script each, held against each other.

ours         shortened-tolerance GCRA (streamq/queue/lua/lib/limit.lua): one number
gcra         the usual one, burst N: one number
log          a sorted set of the times of the last window: exact
buckets      the counter of this window and of the last one, weighed by the part of it that is still in sight
sub-buckets  ten counters a window; the whole of the oldest counts

strict   most mails in any window of W, as a share of N, over arrivals that look for the weak spot
use      mails that went, as a share of N for each W, where there is always mail and it is asked when the script says
bytes    of Redis' memory for a target that is full, N = 200
µs       of the server's time for a call; compare it with the row above only: both ran by turns
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.asyncio import Redis

from streamq.queue.connection import command, pipelined

__all__ = ["KINDS", "Row", "limiters", "table"]

# KEYS[1]; ARGV: now (µs), N, W (µs). Returns 0: it may go, else µs at which it may be asked again.
KINDS = {
    "ours": """
        local now, n, w = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local tau = math.min(math.floor(w / 36), 2000000)
        local t = (w + tau + math.floor(tau / 2)) / n
        local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
        if now < tat - tau then return string.format('%.0f', math.ceil(tat - tau)) end
        tat = math.max(now, tat) + t
        redis.call('SET', KEYS[1], string.format('%.0f', math.ceil(tat)), 'PX', math.ceil((tat - now + w) / 1000))
        return '0'""",
    "gcra": """
        local now, n, w = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local tat = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0')) + w / n
        if now < tat - w then return string.format('%.0f', math.ceil(tat - w)) end
        redis.call('SET', KEYS[1], string.format('%.0f', math.ceil(tat)), 'PX', math.ceil((tat - now) / 1000) + 1)
        return '0'""",
    "log": """
        local now, n, w = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - w))
        if redis.call('ZCARD', KEYS[1]) >= n then
          return string.format('%.0f', redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] + w)
        end
        redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1] .. redis.call('ZCARD', KEYS[1]))
        redis.call('PEXPIRE', KEYS[1], math.ceil(w / 1000))
        return '0'""",
    "buckets": """
        local now, n, w = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local at = math.floor(now / w)
        local both = redis.call('HMGET', KEYS[1], at, at - 1)
        local here, last = tonumber(both[1] or '0'), tonumber(both[2] or '0')
        if here + last * (1 - (now - at * w) / w) >= n then
          local wait = last > 0 and here < n and (1 - (n - here) / last) * w or w
          return string.format('%.0f', math.max(now + 1, math.ceil(at * w + wait) + 1))
        end
        redis.call('HINCRBY', KEYS[1], at, 1)
        redis.call('HDEL', KEYS[1], at - 2)
        redis.call('PEXPIRE', KEYS[1], math.ceil(2 * w / 1000))
        return '0'""",
    "sub-buckets": """
        local now, n, w = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local at = math.floor(now / (w / 10))
        local flat, sum, first = redis.call('HGETALL', KEYS[1]), 0, nil
        for i = 1, #flat, 2 do
          local which = tonumber(flat[i])
          if which < at - 10 then redis.call('HDEL', KEYS[1], flat[i])
          else
            sum = sum + flat[i + 1]
            first = math.min(first or which, which)
          end
        end
        if sum >= n then return string.format('%.0f', math.ceil((first + 11) * w / 10)) end
        redis.call('HINCRBY', KEYS[1], at, 1)
        redis.call('PEXPIRE', KEYS[1], math.ceil(w / 1000 * 1.2))
        return '0'""",
}
N, W = 20, 1_000_000
BEGUN = 1_700_000_000_000_000
Ask = Callable[[int], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Row:
    kind: str
    strict: float
    use: float
    bytes: int
    us: float


def most_in_any(went: Sequence[int], w: int) -> int:
    """The most in a half-open window of length `w`, of any phase."""
    first = most = 0
    for last, at in enumerate(went):
        while at - went[first] >= w:
            first += 1
        most = max(most, last - first + 1)
    return most


async def _backlog(ask: Ask, span: int) -> list[int]:
    """There is always mail, and it is asked when the script says."""
    now, went = BEGUN, []
    while now < BEGUN + span:
        again = await ask(now)
        if again == 0:
            went.append(now)
        now = max(again, now)
    return went


async def _after_rest(ask: Ask, chance: random.Random) -> list[int]:
    """Rests of any length, then as much as goes, at any phase of any clock."""
    now, went = BEGUN, []
    for _ in range(40):
        now += chance.randrange(3 * W)
        end = now + chance.randrange(W, 3 * W)
        while now < end:
            if await ask(now) == 0:
                went.append(now)
            else:
                now += chance.randrange(1, W // 50)
    return went


async def _edges(ask: Ask) -> list[int]:
    """A burst just before each edge of a window, another one behind it."""
    went = []
    for window in range(30):
        for at in (W - 5, W + 5):
            now = BEGUN + 2 * window * W + at
            went += [now for _ in range(2 * N) if await ask(now) == 0]
    return went


def _asker(redis: Redis, sha: Any, head: str, name: str) -> Ask:
    async def ask(now: int) -> int:
        return int(await command(redis, "EVALSHA", sha, 1, head + name, now, N, W))

    return ask


async def limiters(redis: Redis) -> list[Row]:
    rows = []
    for number, (kind, script) in enumerate(KINDS.items()):
        sha = await command(redis, "SCRIPT LOAD", script)
        asks = partial(_asker, redis, sha, f"{{bench}}:{number}:")
        chance = random.Random(1)
        runs = [
            await _backlog(asks("a"), 20 * W),
            await _after_rest(asks("b"), chance),
            await _edges(asks("c")),
        ]
        strict = max(most_in_any(went, W) for went in runs) / N
        full = f"{{bench}}:{number}:full"
        times = [BEGUN + i * W // 200 for i in range(200)]
        await pipelined(redis, [("EVALSHA", sha, 1, full, now, 200, W) for now in times])
        used = await command(redis, "MEMORY USAGE", full)
        rows.append(Row(kind, strict, (len(runs[0]) - 1) / (20 * N), used, 0.0))
    return [Row(row.kind, row.strict, row.use, row.bytes, us) for row, us in zip(rows, await _cost(redis), strict=True)]


async def _cost(redis: Redis, rounds: int = 20, calls: int = 500) -> list[float]:
    """By turns, so that a slow minute of the machine is everybody's."""
    shas = [await command(redis, "SCRIPT LOAD", script) for script in KINDS.values()]
    took: list[list[float]] = [[] for _ in shas]
    for turn in range(rounds):
        for number, sha in enumerate(shas):
            before = await _spent(redis)
            now = BEGUN + turn * 10 * W
            calls_ = [
                ("EVALSHA", sha, 1, f"{{bench}}:{number}:c{i % 100}", now + i * W // 1000, 200, W) for i in range(calls)
            ]
            await pipelined(redis, calls_)
            took[number].append((await _spent(redis) - before) / calls)
    return [statistics.median(each) for each in took]


async def _spent(redis: Redis) -> float:
    """µs that EVALSHA took so far."""
    text = (await command(redis, "INFO", "commandstats")).decode()
    line = next((each for each in text.splitlines() if each.startswith("cmdstat_evalsha:")), "usec=0,")
    return float(line.partition("usec=")[2].partition(",")[0])


def table(rows: Sequence[Row]) -> str:
    lines = [f"{'':>12} {'strict':>7} {'use':>7} {'bytes':>7} {'µs':>6}"]
    lines += [f"{row.kind:>12} {row.strict:7.2f} {row.use:7.1%} {row.bytes:7,} {row.us:6.1f}" for row in rows]
    return "\n".join(lines)
