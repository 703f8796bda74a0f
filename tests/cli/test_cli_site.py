"""site ls, show, limit, pause, resume, and route limit: as an operator sees them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mailroom import Mailroom

from cli.conftest import hostile
from cli.shell import steers, streamq
from streamq.queue.limits import limit_text, set_limits
from streamq.queue.rows import GrantRow
from streamq.settings import window

pytestmark = pytest.mark.leaves_mail
FILE = '[routes.main]\nurl = "smtp://relay.example"\nconnections = 20\n'


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "streamq.toml"
    path.write_text(FILE)
    return str(path)


async def parked(room: Mailroom, many: int, site: str = "example.net", priority: str = "normal") -> None:
    """The rest of them, behind a limit that is set."""
    entries = [await room.add(priority) for _ in range(many)]
    await room.read(many=many)
    await room.admitted(*entries, lane=f"main|{site}")


async def limit(room: Mailroom, field: str, *rates: str) -> None:
    await set_limits(room.spool, "settings", {field: limit_text([window(rate) for rate in rates])})


# -- looks -------------------------------------------------------------------------------------------------------


async def test_ls(queue: Mailroom) -> None:
    assert (await streamq("site", "ls")).out == "no site has a limit, a pause, a parked mail or trouble\n"
    await limit(queue, "*|*", "1/h")
    await limit(queue, "*|example.org", "2/h", "9/d")
    await parked(queue, 4)
    await parked(queue, 1, priority="low")
    await parked(queue, 2, "other.example")
    await streamq("site", "pause", "paused.example", "--reason", "they asked")
    said = await streamq("site", "ls", columns=160)
    assert (said.code, said.err) == (0, "")
    lines = [line.split(None, 6) for line in said.out.splitlines()]
    assert [line[:4] for line in lines] == [
        ["site", "high", "normal", "low"],
        ["example.net", "–", "3", "1"],
        ["other.example", "–", "1", "–"],
        ["paused.example", "–", "–", "–"],
        ["*", "–", "–", "–"],
        ["example.org", "–", "–", "–"],
    ]
    first = said.out.splitlines()[1].split()
    assert first[4:] == [*first[4:8], "1/h", "(settings)", "open"]
    assert " ".join(first[4:8]) in {"60.0 m 4.0 h", "1.0 h 4.0 h"}
    assert "paused by an operator until `streamq site resume`: they asked" in said.out
    assert "2/h, 9/d (settings)" in said.out


async def test_ls_is_bounded(queue: Mailroom) -> None:
    for number in range(7):
        await queue.scripts.pause("pause", [f"*|{number}.example"])
    said = await streamq("site", "ls", "--limit", "3")
    assert len(said.out.splitlines()) == 4
    assert said.err == "… and 4 more: --limit 7\n"
    assert len((await streamq("site", "ls", "--limit", "3", "--json")).json) == 3


async def test_ls_names_the_route_where_there_are_several(queue: Mailroom) -> None:
    await queue.scripts.pause("pause", ["*|example.net"])
    for lane in ("main|example.net", "other|example.net"):
        assert await queue.admitted(await added(queue), lane=lane) == ["parked"]
    lines = [line.split()[:2] for line in (await streamq("site", "ls")).out.splitlines()]
    assert lines == [["site", "route"], ["example.net", "main"], ["example.net", "other"]]


async def added(room: Mailroom) -> str:
    entry = await room.add()
    await room.read()
    return entry


async def test_show(queue: Mailroom) -> None:
    await limit(queue, "*|*", "1/h")
    await parked(queue, 4)
    await parked(queue, 1, priority="high")
    said = await streamq("site", "show", "EXAMPLE.net")
    assert (said.code, said.err) == (0, "")
    lines = dict(line.split(None, 1) for line in said.out.splitlines())
    assert lines["example.net"] == "route main"
    assert lines["limit"] == "1/h (settings), as *|*"
    assert lines["parked"] == "4 mails: 1 high, 3 normal"
    assert lines["next"] in {"in 1.0 h", "in 60.0 m"}
    assert lines["drained"].startswith("in 4.0 h, at 24/d")
    assert lines["state"] == "open"
    await streamq("site", "pause", "example.net", "--for", "2d")
    said = await streamq("site", "show", "example.net")
    assert ": paused by an operator for 2.0 d" in said.out
    [view] = (await streamq("site", "show", "example.net", "--json")).json
    assert view["parked"] == {"high": 1, "normal": 3, "low": 0}
    assert view["limit"] == {
        "rate": ["1/h"],
        "rate_by": "settings",
        "connections": None,
        "connections_by": "",
        "field": "*|*",
    }
    assert 2 * 86_400_000 - 60_000 < view["next_ms"] <= 2 * 86_400_000
    assert view["closed"][0]["name"] == "*|example.net"


async def test_what_nobody_can_tell_is_said(queue: Mailroom) -> None:
    await queue.parked()
    assert "nobody can tell: no rate is set" in (await streamq("site", "show", "example.net")).out
    await streamq("site", "pause", "example.net")
    out = (await streamq("site", "show", "example.net")).out
    assert "nobody can tell: it is closed" in out
    assert "not before it is opened" in out


async def test_status_names_lanes_and_pauses(queue: Mailroom) -> None:
    await limit(queue, "*|*", "1/h")
    for number in range(5):
        await parked(queue, 2 + number, f"{number}.example")
    await streamq("site", "pause", "4.example")
    out = (await streamq("status")).out
    assert "4.example 5, closed; 3.example 4, gone in 4.0 h; 2.example 3, gone in 3.0 h; … and 2 more" in out
    assert "site 4.example: paused by an operator until `streamq site resume`" in out
    known = (await streamq("status", "--json")).json
    first = known["lanes"][0]
    assert (first["site"], first["many"], first["open"]) == ("4.example", 5, False)
    assert known["paused"] == {}


async def test_route_show_names_its_lanes(queue: Mailroom, config: str) -> None:
    await limit(queue, "*|*", "1/h")
    await parked(queue, 3)
    assert "example.net 2, gone in 2.0 h" in (await streamq("--config", config, "route", "show", "main")).out
    [lane] = (await streamq("--config", config, "route", "show", "main", "--json")).json["lanes"]
    assert (lane["site"], lane["many"]) == ("example.net", 2)


# -- limits ------------------------------------------------------------------------------------------------------


async def test_an_operators_limit_stands_over_the_settings(queue: Mailroom) -> None:
    await limit(queue, "*|example.net", "50/s")
    said = await streamq("site", "limit", "Example.NET", "10/s", "600/h")
    assert said.out == "example.net: 10/s, 600/h (operator); it was 50/s (settings)\n"
    said = await streamq("site", "limit", "example.net", "--connections", "5")
    assert said.out == "example.net: 10/s, 600/h, 5 at once (operator); it was 10/s, 600/h (operator)\n"
    said = await streamq("site", "limit", "example.net", "none")
    assert said.out == "example.net: 5 at once (operator); it was 10/s, 600/h, 5 at once (operator)\n"
    assert await queue.do("HGET", queue.keys.limits, "*|example.net") == b";c5"
    said = await streamq("site", "limit", "example.net", "--unset")
    assert said.out == "example.net: 50/s (settings); it was 5 at once (operator)\n"
    assert await queue.do("EXISTS", queue.keys.layer("operator")) == 0


async def test_it_holds_for_the_next_mail_and_wakes_what_waits(queue: Mailroom) -> None:
    await limit(queue, "*|*", "1/h")
    await parked(queue, 3)
    assert (await queue.release()).leases == []
    await streamq("site", "limit", "example.net", "100/s", "--route", "main")
    queue.tick(200)
    assert len((await queue.release()).leases) == 2


async def test_a_narrower_limit_is_named(queue: Mailroom) -> None:
    await limit(queue, "main|example.net", "2/s")
    said = await streamq("site", "limit", "example.net", "10/s")
    assert said.out == "example.net: 10/s (operator); it was no limit\n"
    assert said.err == "main|example.net has a limit of its own, which stays: 2/s (settings)\n"


async def test_a_limit_as_json_and_dry(queue: Mailroom) -> None:
    known = (await streamq("site", "limit", "*", "10/s", "--json")).json
    assert (known["verb"], known["target"], known["was"]["rate"], known["now"]["rate"], known["now"]["rate_by"]) == (
        "limit",
        "*|*",
        [],
        ["10/s"],
        "operator",
    )
    said = await streamq("site", "limit", "*", "--unset", "--dry-run")
    assert said.out == "*: it is 10/s (operator) (dry run: nothing was changed)\n"
    assert await queue.do("HGET", queue.keys.limits, "*|*") == b"10:1000000"


async def test_a_limit_of_a_route(queue: Mailroom, config: str) -> None:
    said = await streamq("--config", config, "route", "limit", "main", "5/s", "--connections", "3")
    assert said.out == "main: 5/s, 3 at once (operator); it was no limit\n"
    assert "5/s, 3 at once (operator)" in (await streamq("--config", config, "route", "ls", columns=120)).out
    assert "0/3" in (await streamq("--config", config, "route", "ls")).out
    assert "limit     5/s, 3 at once (operator)" in (await streamq("--config", config, "route", "show", "main")).out
    assert await learnt(queue) == 3
    said = await streamq("--config", config, "route", "limit", "main", "--unset")
    assert said.out == "main: no limit; it was 5/s, 3 at once (operator)\n"
    assert await learnt(queue) > 3


async def learnt(room: Mailroom) -> int:
    """What a worker of 20 has after a while, if whatever it opens stands."""
    allowed = 0
    for _ in range(20):
        room.tick(1000)
        _, [grant] = await room.scripts.grant("w1", 4000, [GrantRow("main", 20, 100, 20, allowed, works=allowed)])
        allowed = grant.allowance
    return allowed


# -- pauses ------------------------------------------------------------------------------------------------------


async def test_pause_and_resume(queue: Mailroom) -> None:
    await queue.parked()
    said = await streamq("site", "pause", "Example.net", "--for", "2h", "--reason", "they asked")
    assert (said.code, said.out) == (0, "example.net: paused; 1 mail parked for it\n")
    assert await queue.admitted(await added(queue)) == ["parked"]
    said = await streamq("site", "resume", "example.net", "--json")
    assert said.json == {
        "verb": "resume",
        "site": "example.net",
        "route": "*",
        "status": "resumed",
        "parked": 2,
        "dry_run": False,
    }
    again = await streamq("site", "resume", "example.net")
    assert (again.code, again.out) == (1, "example.net: open; 2 mails parked for it\n")
    assert [event.kind for event in await queue.events()] == ["site.paused", "site.resumed"]


async def test_on_one_route(queue: Mailroom, config: str) -> None:
    said = await streamq("--config", config, "site", "pause", "example.net", "--route", "main")
    assert said.out == "example.net on main: paused; 0 mails parked for it\n"
    said = await streamq("site", "resume", "example.net")
    assert (said.code, said.err) == (1, "it is closed still on route main: --route main\n")
    assert (await streamq("site", "resume", "example.net", "--route", "main")).code == 0


async def test_a_dry_run_changes_nothing(queue: Mailroom) -> None:
    said = await streamq("site", "pause", "example.net", "--dry-run")
    assert said.out == "example.net: paused; 0 mails parked for it (dry run: nothing was changed)\n"
    await queue.scripts.pause("pause", ["*|example.net"])
    said = await streamq("site", "resume", "example.net", "--dry-run")
    assert said.out == "example.net: resumed; 0 mails parked for it (dry run: nothing was changed)\n"
    assert await queue.do("HLEN", queue.keys.pauses) == 1


# -- mistakes ----------------------------------------------------------------------------------------------------


async def test_what_is_wrong_is_named(queue: Mailroom) -> None:
    for words, code, says in (
        (
            ("show", "nowhere.example"),
            1,
            "no limit, no pause, no parked mail and no trouble is of the site 'nowhere.example'",
        ),
        (("show", "no domain"), 2, "NAME: not a domain name (got 'no domain')"),
        (("pause", "a|b"), 2, "NAME: not a domain name (got 'a|b')"),
        (("pause", "*"), 2, "NAME: a domain (got '*')"),
        (("pause", "example.net", "--for", "soon"), 2, "--for: not a duration"),
        (("pause", "example.net", "--reason", "x" * 400), 2, "--reason: at most 300"),
        (("pause", "example.net", "--route", "nowhere"), 1, "no route 'nowhere'"),
        (("limit", "example.net"), 2, "limit: a RATE (50/s)"),
        (("limit", "example.net", "5x"), 2, "RATE: not a rate (write 50/s, 600/10m, 60000/h): '5x'"),
        (("limit", "example.net", "5/s", "6/s"), 2, "RATE: one of each window (got 5/s, 6/s)"),
        (("limit", "example.net", "5/s", "none"), 2, "RATE: not a rate"),
        (("limit", "example.net", "5/s", "--unset"), 2, "--unset: takes away all"),
        (("limit", "example.net", "5/s", "--route", "nowhere"), 1, "no route 'nowhere'"),
        (("limit", "example.net", "--connections", "-1"), 2, "connections"),
    ):
        said = await streamq("site", *words)
        assert (said.code, says in said.err, said.out) == (code, True, ""), said.err
    said = await streamq("route", "limit", "nowhere", "5/s")
    assert (said.code, "no route 'nowhere'" in said.err) == (1, True)
    assert await queue.do("EXISTS", queue.keys.pauses, queue.keys.limits) == 0


async def test_hostile_names_do_not_reach_the_terminal(queue: Mailroom) -> None:
    await hostile(queue)
    await queue.scripts.pause("pause", ["*|\x1b[7mevil"], reason="\x1b[2Jgone")
    for words in (("ls",), ("ls", "--json"), ("show", "example.net")):
        said = await streamq("site", *words)
        assert steers(said.out) == set()


async def test_a_site_that_puts_mails_off_is_listed_with_its_last_reply(queue: Mailroom) -> None:
    seconds, _ = await queue.do("TIME")
    queue.to(int(seconds) * 1000)
    lease = await queue.lease(lane="main|busy.example", to="bob@busy.example")
    tail = b'"site":"busy.example","route":"main","class":"greylisted","reply":"450 4.2.0 later"'
    known: dict[str, Any] = {"class": "greylisted", "reply": "450 4.2.0 later", "wait": 3_600_000}
    assert await queue.settled("defer", lease, lane="main|busy.example", tail=tail, **known) == "ok"
    listed = (await streamq("site", "ls")).out
    assert re.search(r"busy\.example .* all attempts failed", listed)
    [row] = (await streamq("site", "ls", "--json")).json
    assert (row["site"], row["trouble"]["failed"], row["trouble"]["reply"]) == ("busy.example", 1, "450 4.2.0 later")
    told = (await streamq("site", "show", "busy.example")).out
    assert re.search(r"trouble   all attempts failed, next try in \S+ [mh]: 450 4\.2\.0 later, ", told)
