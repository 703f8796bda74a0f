"""The policy of lib/throttle.lua in virtual time, against models of receivers: campaigns of minutes to hours.

drive.lua runs pace and throttle inside the server, without mails: what a worker and the other scripts do around them is
in test_pace.py. What is asked of the policy is in issue terms: refusals, use, how soon, how steady.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from conftest import MakeSpool
from mailroom import START

from streamq.keys import lua_names
from streamq.queue.connection import command
from streamq.queue.script import LUA
from streamq.queue.spool import Spool
from streamq.settings.adapt import AdaptSettings

DRIVE = Path(__file__).with_name("drive.lua")
PARTS = ("base", "route", "pace", "throttle")
READERS = ("pace", "throttle", "learnt")


class Span(NamedTuple):
    """Ten seconds: mails taken and refused; the least and the greatest pace, 1e9 where there was none."""

    taken: int
    refused: int
    least: float
    most: float
    recovered: int


class Course(tuple[Span, ...]):
    __slots__ = ()

    def part(self, start: int, end: int | None = None) -> Course:
        """From one second to another."""
        return Course(self[start // 10 : None if end is None else end // 10])

    @property
    def rate(self) -> float:
        """Mails taken per second."""
        return sum(span.taken for span in self) / len(self) / 10

    @property
    def share(self) -> float:
        refused = sum(span.refused for span in self)
        return refused / max(1, refused + sum(span.taken for span in self))


async def drive(
    spool: Spool,
    seconds: int,
    *limits: tuple[int, float],
    rtt_ms: int = 100,
    lines: int = 20,
    capacity: int = 500,
    **model: Any,
) -> Course:
    """`limits`: from which second on it takes how many mails a second, -1: all. See drive.lua for the others."""
    await spool.publish_adapt()
    texts = [(LUA / "lib" / f"{part}.lua").read_text("utf-8") for part in PARTS]
    source = "\n".join([lua_names(), "local HEAD, EACH = 6, 0", *texts, DRIVE.read_text("utf-8")])
    said = orjson.dumps({"limits": limits} | model)
    prefix = spool.keys.prefix
    reply = await command(
        spool.reader, "EVAL", source, 1, prefix, said, START * 1000, seconds, rtt_ms * 1000, lines, capacity
    )
    names = Span._fields
    return Course(Span(*(row[name] for name in names)) for row in orjson.loads(reply))


@pytest.mark.parametrize("rtt_ms", [20, 100, 900])
async def test_a_fixed_limit(spool: Spool, rtt_ms: int) -> None:
    course = await drive(spool, 600, (0, 50), rtt_ms=rtt_ms, lines=100)
    assert course.share <= 0.02
    assert course.rate >= 0.9 * 50
    steady = course.part(60)
    assert steady.share <= 0.005
    assert all(0.8 * 50 <= span.least <= span.most <= 1.2 * 50 for span in steady)


@pytest.mark.parametrize("limit", [0.5, 1, 5, 200])
async def test_limits_of_any_size(spool: Spool, limit: float) -> None:
    course = await drive(
        spool, 500 if limit > 1 else 1800, (0, limit), width=max(1, 4 / limit), capacity=1000, lines=100
    )
    assert course.part(300).share <= 0.02
    assert course.part(300).rate >= 0.9 * limit


async def test_a_token_bucket(spool: Spool) -> None:
    course = await drive(spool, 600, (0, 50), burst=100)
    assert course.share <= 0.02
    assert course.rate >= 0.9 * 50
    assert all(span.most <= 1.2 * 50 for span in course.part(120))


async def test_a_doubled_limit_is_used_within_five_minutes(spool: Spool) -> None:
    course = await drive(spool, 1000, (0, 50), (400, 100))
    assert course.share <= 0.02
    assert course.part(700).rate >= 0.9 * 100
    assert all(span.most <= 1.2 * 100 for span in course.part(700))


async def test_a_halved_limit_is_kept_at_once(spool: Spool) -> None:
    course = await drive(spool, 600, (0, 50), (300, 25))
    assert course.share <= 0.02
    assert sum(span.refused for span in course.part(300, 330)) <= 60
    assert all(0.8 * 25 <= span.least <= span.most <= 1.2 * 25 for span in course.part(330))
    assert course.part(330).rate >= 0.9 * 25


async def test_a_tenth_of_it(spool: Spool) -> None:
    course = await drive(spool, 900, (0, 50), (300, 5))
    assert course.part(330).share <= 0.02
    assert course.part(360).rate >= 0.9 * 5


async def test_a_limit_that_goes_away(spool: Spool) -> None:
    course = await drive(spool, 900, (0, 50), (300, -1))
    assert any(span.recovered for span in course.part(300, 600))
    assert course.part(600).rate >= 0.95 * 200  # what the lines can do
    assert course.part(300).share == 0


@pytest.mark.parametrize("grows", [False, True])
async def test_a_penalty_box(spool: Spool, grows: bool) -> None:
    """Refused for a minute, or for a minute since the last knock. Of two hours."""
    course = await drive(spool, 7200, (0, 20), box=60, grows=grows)
    assert course.share <= 0.02
    assert course.rate >= 0.9 * 20


@pytest.mark.parametrize(("burst", "after"), [(50, 1200), (None, 1200), (50, 3600)])
async def test_a_penalty_box_behind_a_bucket_and_behind_a_window(spool: Spool, burst: int | None, after: int) -> None:
    """A minute since the last knock. A full bucket lets twice the rate through at first, and a little more
    than it for long after each box: what seems to hold does not, and each of these mistakes costs a minute."""
    known = {"burst": burst} if burst else {}
    course = await drive(spool, after, (0, 50), box=60, grows=True, capacity=100, **known)
    assert course.share <= 0.002
    assert course.rate >= (0.85 if after < 1800 else 0.89) * 50


BOX = {"box": 30, "grows": True, "offences": 3, "ramp": 30}  # three refusals within a minute


@pytest.mark.parametrize(("limit", "rtt_ms", "after"), [(50, 15, 30), (50, 100, 1200), (5, 100, 1200)])
async def test_a_box_for_three_refusals_a_minute_never_shuts(
    spool: Spool, limit: float, rtt_ms: int, after: int
) -> None:
    """A slow start, and steps that are rare: of half a minute, too."""
    course = await drive(spool, after, (0, limit), rtt_ms=rtt_ms, capacity=1000, **BOX)
    assert course.rate >= 0.9 * limit
    minutes = [course.part(start, start + 60) for start in range(0, after, 60)]
    assert all(sum(span.refused for span in minute) <= 2 for minute in minutes)


async def test_a_doubled_limit_in_front_of_a_box_is_used_within_five_minutes(spool: Spool) -> None:
    course = await drive(spool, 1000, (0, 50), (400, 100), **BOX)
    assert course.part(700).rate >= 0.9 * 100
    assert all(span.taken > 0 for span in course)  # it never shut


async def test_a_quota_by_the_minute(spool: Spool) -> None:
    """Used up quickly, and then nothing for a while: no pace can be read from that, but few mails are refused."""
    course = await drive(spool, 3600, (0, 50), width=60)
    assert course.share <= 0.02
    assert course.part(1800).rate >= 0.7 * 50


@pytest.mark.parametrize(("share", "after"), [(0.02, 900), (0.1, 300), (0.25, 300), (0.4, 600)])
async def test_one_bad_server_of_several_does_not_stop_the_others(spool: Spool, share: float, after: int) -> None:
    """It refuses all that it gets, whatever the pace is; the lines could do 200 a second."""
    course = await drive(spool, after + 300, (0, -1), share=share)
    assert course.part(after).rate >= 0.5 * 200 * (1 - share)


async def test_one_bad_server_behind_a_limit(spool: Spool) -> None:
    course = await drive(spool, 900, (0, 50), share=0.25)
    assert course.part(300).rate >= 0.6 * 50
    assert course.part(300).share <= 0.4


async def test_the_settings_are_the_policy(make_spool: MakeSpool) -> None:
    """A deeper cut, and a longer wait before each step."""
    spool = await make_spool(adapt={"cut": 0.5, "wait": "10m", "wait_most": "1h"})
    course = await drive(spool, 300, (0, 50))
    assert course[0].least <= 25
    assert sum(span.refused for span in course.part(60)) == 0


def test_what_is_published_is_what_the_scripts_read() -> None:
    texts = "".join((LUA / "lib" / f"{part}.lua").read_text("utf-8") for part in READERS)
    published = orjson.loads(AdaptSettings().published())
    for name in published:
        assert f"rule.{name}" in texts or f"adapt().{name}" in texts, name
