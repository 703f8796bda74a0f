"""hush.lua: who is erased is named in no reason why something is closed or slowed; all else stays to the digit."""

from __future__ import annotations

import orjson
import pytest
from mailroom import Mailroom

from streamq.queue.erase import erase, person, traces

pytestmark = pytest.mark.usefixtures("any_server_url")
US = "1732237561234567"  # 16 digits: a double written with 14 has others
SAID = '452 4.2.2 <Ann@Example.net>: slow "down" a/b ü'


async def test_reasons_of_pauses_and_paces(room: Mailroom) -> None:
    pace = {"rate": "2.5", "till": US, "n": int(US), "class": "site_rate", "reply": SAID}
    down = {"down": 2, "since": US, "till": US, "class": "quota", "reply": SAID, "n": int(US)}
    asked = {"asked": {"till": US, "since": US, "reason": "because of ann@example.net"}}
    cjson = "return cjson.encode(cjson.decode(ARGV[1]))"  # as the scripts write it

    async def put(key: str, field: str, value: dict[str, object]) -> None:
        numbers = {name: value.pop(name) for name in list(value) if name == "n"}
        text = (await room.do("EVAL", cjson, 0, orjson.dumps(value))).decode()
        await room.do("HSET", key, field, text[:-1] + "".join(f',"{n}":{v}' for n, v in numbers.items()) + "}")

    await put(room.keys.limit("main|example.net"), "pace", dict(pace))
    await put(room.keys.limit("main|example.org"), "pace", {"reply": "all is well", "rate": "1"})
    await put(room.keys.pauses, "main", dict(down))
    await put(room.keys.pauses, "*|example.net", dict(asked))
    await room.do("ZADD", room.keys.throttled, US, "main|example.net", US, "main|example.org", US, "main|gone")
    who = person("ann@example.net")
    done = await erase(room.spool, who, await traces(room.spool, who))
    assert done.reasons == 3

    async def now(key: str, field: str) -> dict[str, object]:
        found: dict[str, object] = orjson.loads(await room.do("HGET", key, field))
        return found

    assert await now(room.keys.limit("main|example.net"), "pace") == pace | {"reply": ""}
    assert await now(room.keys.limit("main|example.org"), "pace") == {"reply": "all is well", "rate": "1"}
    assert await now(room.keys.pauses, "main") == down | {"reply": ""}
    assert (await now(room.keys.pauses, "*|example.net"))["asked"] == {"till": US, "since": US, "reason": ""}
    assert (await erase(room.spool, who, await traces(room.spool, who))).reasons == 0


async def test_more_than_a_page_of_them_and_an_idn_in_both_forms(room: Mailroom) -> None:
    text = orjson.dumps({"reply": "no: ann@münchen.example", "rate": 1})
    for at in range(501):
        await room.do("HSET", room.keys.limit(f"main|s{at}.example"), "pace", text)
        await room.do("ZADD", room.keys.throttled, at, f"main|s{at}.example")
    who = person("ann@münchen.example")
    assert (await erase(room.spool, who, await traces(room.spool, who))).reasons == 501
    await room.do("DEL", room.keys.throttled, *(room.keys.limit(f"main|s{at}.example") for at in range(501)))
