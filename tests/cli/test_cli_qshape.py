"""qshape: what it prints against entries read raw."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from mailroom import Mailroom

from cli.conftest import Fill, hostile
from cli.shell import steers, streamq

pytestmark = pytest.mark.leaves_mail
MINUTE = 60_000


async def young(queue: Mailroom) -> None:
    """Entries of many ages, past and present."""
    now = time.time_ns() // MINUTE // 1_000_000 * MINUTE
    for minutes, domain in [(700, "old.example"), (90, "mid.example"), (90, "old.example"), (0, "new.example")]:
        queue.to(now - minutes * MINUTE)
        await queue.add("low", to=f"bob@{domain}")


async def raw_domains(queue: Mailroom) -> Counter[str]:
    found: Counter[str] = Counter()
    for priority in queue.spool.priorities:
        for _, flat in await queue.do("XRANGE", queue.keys.stream(priority), "-", "+"):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            found[fields[b"to"].decode().rpartition("@")[2]] += 1
    return found


async def test_it_prints_domains_by_age(queue: Mailroom) -> None:
    await young(queue)
    said = await streamq("qshape")
    assert (said.code, said.err) == (0, "")
    rows = [line.split() for line in said.out.splitlines()]
    assert rows == [
        ["domain", "T", "5m", "10m", "20m", "40m", "80m", "160m", "320m", "640m", "1280m", "1280m+"],
        ["TOTAL", "4", "1", "0", "0", "0", "0", "2", "0", "0", "1", "0"],
        ["old.example", "2", "0", "0", "0", "0", "0", "1", "0", "0", "1", "0"],
        ["mid.example", "1", "0", "0", "0", "0", "0", "1", "0", "0", "0", "0"],
        ["new.example", "1", "1", "0", "0", "0", "0", "0", "0", "0", "0", "0"],
    ]
    assert {row[0]: int(row[1]) for row in rows[2:]} == await raw_domains(queue)
    assert max(map(len, said.out.splitlines())) <= 80


async def test_columns_and_rows_are_as_asked(queue: Mailroom) -> None:
    await young(queue)
    said = await streamq("qshape", "-t", "1h", "-b", "3", "-l", "1")
    lines = said.out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["domain", "T", "1h", "2h", "4h", "4h+"],
        ["TOTAL", "4", "1", "2", "0", "1"],
        ["old.example", "2", "0", "1", "0", "1"],
    ]
    assert lines[3:] == ["… and 2 more with 2 mails: --limit 10"]


async def test_json(queue: Mailroom) -> None:
    await young(queue)
    known = (await streamq("qshape", "-b", "2", "-l", "1", "--json")).json
    assert known == {
        "by": "domain",
        "bounds_ms": [300_000, 600_000],
        "total": 4,
        "ages": [1, 0, 3],
        "rows": 3,
        "shown": [{"domain": "old.example", "total": 2, "ages": [0, 0, 2]}],
    }


@pytest.mark.parametrize(
    ("words", "many"),
    [
        ([], 15),
        (["--state", "parked"], 3),
        (["--priority", "low"], 5),
        (["--priority", "low", "--state", "held"], 1),
        (["--domain", "low.example"], 5),
        (["--class", "unknown_field"], 3),
        (["--tenant", "none"], 0),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else str(each),
)
async def test_choices_are_those_of_ls(queue: Mailroom, fill: Fill, words: list[str], many: int) -> None:
    await fill()
    known = (await streamq("qshape", *words, "--json")).json
    assert (known["total"], sum(known["ages"])) == (many, many)
    assert many == len((await streamq("ls", *words, "--json")).json)
    assert (await streamq("qshape", *words)).out.splitlines()[1].split()[:2] == ["TOTAL", str(many)]


async def test_postfix_queues_are_words(queue: Mailroom, fill: Fill) -> None:
    await fill()

    async def states(*words: str) -> dict[str, int]:
        known = (await streamq("qshape", *words, "--by", "state", "--json")).json
        return {row["state"]: row["total"] for row in known["shown"]}

    assert await states("deferred") == {"parked": 3, "scheduled": 3}
    assert await states("active", "hold", "active") == {"leased": 3, "held": 3}
    assert await states("incoming") == {"waiting": 3}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--by", "colour"], "--by: one of domain, sender, tenant, class, priority, state (got 'colour')"),
        (["--first", "soon"], "--first: not a duration"),
        (["--first", "0s"], "--first: longer than nothing (got '0s')"),
        (["--state", "gone"], "--state: one of waiting"),
        (["maildrop"], "qshape: no such queue: one of incoming, active, deferred, hold; or --state (got 'maildrop')"),
        (["hold", "--state", "held"], "--state: either a state or Postfix's queues, not both (got 'held' and 'hold')"),
        (["--priority", "urgent"], "--priority: one of high, normal, low (got 'urgent')"),
    ],
)
async def test_what_is_wrong_is_named(queue: Mailroom, words: list[str], says: str) -> None:
    said = await streamq("qshape", *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err


async def test_hostile_mails_steer_nothing(queue: Mailroom) -> None:
    await hostile(queue)
    for by in ("domain", "sender", "tenant", "class"):
        said = await streamq("qshape", "--by", by)
        assert (said.code, steers(said.out)) == (0, set())
        assert steers((await streamq("qshape", "--by", by, "--json")).out) == set()
