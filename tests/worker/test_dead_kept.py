"""Dead letters of a running worker stay within their bytes between two looks of the keeper."""

from __future__ import annotations

import orjson
from crew import crew

from streamq.queue.check import check
from streamq.queue.connection import command


async def test_a_list_of_wrong_addresses_copies_its_body_no_further_than_the_bound(server_url: str) -> None:
    many, most = 150, 200_000
    async with crew(server_url) as c:
        await c.worker(dead_bytes=most)
        recipients = orjson.dumps([{"to": f"nobody {n}"} for n in range(many)])
        await c.add(id="a1", to="", text="x\n" * 10_000, recipients=recipients)
        await c.until("email.rejected", f"a1#{many}")
        rows = await command(c.spool.redis, "XRANGE", c.spool.keys.dead, "-", "+")
        assert b"nobody %d" % (many - 1) in rows[-1][1], "the newest stay"
        assert 100_000 < sum(len(part) for _, flat in rows for part in flat) <= most
        assert await command(c.spool.redis, "HGET", c.spool.keys.counts, "dead") == b"%d" % many
        assert (await check(c.spool)).clean
