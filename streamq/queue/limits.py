"""Stub until branch `providers` is merged: the same names, the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from streamq.queue.connection import command
from streamq.queue.spool import Spool, windows_text
from streamq.settings import Window

LAYERS = ("providers", "own", "settings", "operator")


def limit_text(rate: Iterable[Window] | None = None, connections: int | None = None) -> str:
    windows = None if rate is None else windows_text(rate)
    text = "" if windows is None else windows or "-"
    return text if connections is None else f"{text};c{connections}"


async def set_limits(spool: Spool, layer: str, rows: Mapping[str, str], *, whole: bool = False) -> int:
    for field, value in rows.items():
        key = f"{spool.keys.limits}:{layer}"
        if value:
            await command(spool.redis, "HSET", key, field, value)
        else:
            await command(spool.redis, "HDEL", key, field)
        said = [await command(spool.redis, "HGET", f"{spool.keys.limits}:{each}", field) for each in LAYERS]
        holds = next((text.decode() for text in reversed(said) if text), None)
        if holds is None:
            await command(spool.redis, "HDEL", spool.keys.limits, field)
        else:
            await command(spool.redis, "HSET", spool.keys.limits, field, holds.replace("-", "").replace(";c0", ""))
    return len(rows)
