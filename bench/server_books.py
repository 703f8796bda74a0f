"""What a Redis says of its own work: CPU, round trips, scripts, commands; differences of two readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from streamq.queue.connection import command

__all__ = ["Books", "books", "read_books"]


@dataclass(frozen=True, slots=True)
class Books:
    """`cpu`: seconds of the server itself, not of its children. `reads`: how often it read from a socket, which is the
    number of round trips, and a little more where a request is larger than its buffer (16 KB). `scripts`, `reading`:
    EVALSHA and XREADGROUP, which no script calls: what workers sent. `commands`: all that were executed, those within
    scripts, too. `script_us`: microseconds in scripts."""

    cpu: float
    reads: int
    scripts: int
    reading: int
    commands: int
    script_us: int

    def since(self, before: Books, mails: int) -> dict[str, float]:
        """Per mail; the CPU in seconds per 1,000."""
        return {
            "redis_cpu_s_per_1000": (self.cpu - before.cpu) / mails * 1000,
            "socket_reads_per_mail": (self.reads - before.reads) / mails,
            "script_calls_per_mail": (self.scripts - before.scripts) / mails,
            "round_trips_per_mail": (self.scripts + self.reading - before.scripts - before.reading) / mails,
            "script_us_per_mail": (self.script_us - before.script_us) / mails,
            "commands_per_mail": (self.commands - before.commands) / mails,
        }


def read_books(info: str) -> Books:
    """Of INFO's sections cpu, stats and commandstats."""
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    named = {name[8:]: _stats(text) for name, text in facts.items() if name.startswith("cmdstat_")}
    calls = {name: int(stats["calls"]) for name, stats in named.items()}
    script_us = sum(int(named[name]["usec"]) for name in ("evalsha", "eval") if name in named)
    return Books(
        cpu=float(facts["used_cpu_sys"]) + float(facts["used_cpu_user"]),
        reads=int(facts["total_reads_processed"]),
        scripts=calls.get("evalsha", 0) + calls.get("eval", 0),
        reading=calls.get("xreadgroup", 0),
        commands=int(facts["total_commands_processed"]),
        script_us=script_us,
    )


def _stats(text: str) -> Mapping[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


async def books(redis: Redis) -> Books:
    parts = [(await command(redis, "INFO", section)).decode() for section in ("cpu", "stats", "commandstats")]
    return read_books("\n".join(parts))
