"""The plain way: what `start` and `finish` take ends as `admit` and `settle` have it; the rest is left to those."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from family import expanded, parent, tail_of
from mailroom import DAY, LANE, Lease, Mailroom, ident

from streamq.queue.plain import IN_VAIN_FIRST, IN_VAIN_LAST, Plain, plain_of
from streamq.queue.rows import AdmitRow, StartRow, TurnRow

pytestmark = pytest.mark.usefixtures("any_server_url")


async def read(room: Mailroom, many: int = 1, **fields: Any) -> list[str]:
    entries = [await room.add(**fields) for _ in range(many)]
    assert await room.read() == entries
    return entries


async def leases(room: Mailroom, many: int = 1) -> list[Lease]:
    await room.well()
    return [await room.lease() for _ in range(many)]


# -- start -----------------------------------------------------------------------------------------


@pytest.mark.leaves_mail
async def test_plain_mails_become_leases_under_one_token(room: Mailroom) -> None:
    entries = await read(room, 3)
    token, letters = await room.start(*entries)
    assert letters == "ggg"
    assert (await room.survey()).leases == dict.fromkeys(entries, ("w1", token))


async def test_what_is_somebody_elses_is_lost(room: Mailroom) -> None:
    [entry] = await read(room)
    assert await room.start(entry, consumer="w2") == (0, "l")
    token, letters = await room.start(entry)
    assert letters == "g"
    assert await room.settled("sent", Lease(entry, token, "w1")) == "ok"
    assert (await room.start(entry))[1] == "l"


async def test_the_first_of_an_id_has_it_and_the_other_is_left(room: Mailroom) -> None:
    first, second, other = await read(room, 3)
    token, letters = await room.start(first, second, seen=ident("a1"))
    assert letters == "ga"
    assert (await room.start(other, seen=ident("a1")))[1] == "a"
    assert await room.admitted(second, other, seen=ident("a1")) == ["duplicate", "duplicate"]
    assert await room.settled("sent", Lease(first, token, "w1")) == "ok"
    room.tick(room.scripts.window_ms)  # into the next generation
    [late] = await read(room)
    assert (await room.start(late, seen=ident("a1")))[1] == "a"
    assert await room.admitted(late, seen=ident("a1")) == ["duplicate"]


Step = Callable[[Mailroom], Awaitable[Any]]


async def slowed(room: Mailroom) -> None:
    await room.do("ZADD", room.keys.throttled, str(9 * 10**15), LANE)


async def many_limits(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, *(part for n in range(101) for part in (f"*|x{n}.de", "50:1000000")))


def field(key: str, name: str, value: str) -> Step:
    return lambda room: room.do("HSET", getattr(room.keys, key), name, value)


SITE_PAUSE = '{"asked":{"till":"9000000000000000","reason":"","since":"1"}}'
IN_THE_WAY: dict[str, Step] = {
    "a pause of the route": field("pauses", "main", '{"down":1,"till":"9000000000000000","since":"1","mark":1}'),
    "a pause of the site": field("pauses", "*|example.net", SITE_PAUSE),
    "a rule": field("holds", "rule:domain:elsewhere.example", "hold"),
    "a pace": slowed,
}


@pytest.mark.leaves_mail
@pytest.mark.parametrize("what", IN_THE_WAY)
async def test_what_may_be_in_the_way_is_left_to_admission(room: Mailroom, what: str) -> None:
    [entry] = await read(room)
    await IN_THE_WAY[what](room)
    assert await room.start(entry) == (0, "a")
    assert (await room.survey()).leases == {entry: ("w1", 1)}  # as it was read


@pytest.mark.leaves_mail
@pytest.mark.parametrize("what", ["a pause of the site", "a pace"])
async def test_what_is_in_the_way_of_others_is_in_nobody_elses(room: Mailroom, what: str) -> None:
    [entry] = await read(room)
    await IN_THE_WAY[what](room)
    assert (await room.start(entry, lane="main|elsewhere.example"))[1] == "g"


@pytest.mark.leaves_mail
@pytest.mark.parametrize("target", ["*", "main", LANE, "*|example.net", "main|*", "*|*"])
@pytest.mark.parametrize("many", [False, True], ids=["few rules", "more than are read at once"])
async def test_windows_are_no_obstacle_while_they_have_room(room: Mailroom, target: str, many: bool) -> None:
    """Three of four go within a window's tolerance; the fourth is left to admission."""
    if many:
        await many_limits(room)
    await room.do("HSET", room.keys.limits, target, "100:1000000")
    entries = await read(room, 4)
    rows = [StartRow(entry, LANE, room.now + DAY, b"") for entry in entries]
    _, _, letters, bound, slots = await room.scripts.start("w1", rows, "main")
    assert letters == "ggga"
    assert [slots[nth].split()[2] for nth in range(3)] == [target if "|" not in target else LANE] * 3
    assert len({slots[nth] for nth in range(3)}) == 3
    bounds = "|" not in target  # the queue and its only route bound reading
    said = bound.opens_us > room.now * 1000, bound.step_us > 0, bound.most
    assert said == ((True, True, 3) if bounds else (False, False, 0))
    found = await room.scripts.admit("w1", [room.row(entries[3])], "main")
    assert [said for said, *_ in found.statuses] == ["wait" if bounds else "parked"]


@pytest.mark.leaves_mail
@pytest.mark.parametrize("rule", [";c2", "100:1000000;c2"])
async def test_so_many_at_once_and_no_more(room: Mailroom, rule: str) -> None:
    await room.do("HSET", room.keys.limits, "*|*", rule)
    await room.well()
    entries = await read(room, 3)
    token, letters = await room.start(*entries)
    assert letters == "cca"
    assert sorted(await room.do("ZRANGE", room.keys.slots(LANE), 0, -1)) == sorted(
        [b"main|example.net", *(f"w1 {entry}".encode() for entry in entries[:2])]
    )
    assert await room.admitted(entries[2]) == ["parked"]
    assert (await room.release()).leases == []
    first, second = [Lease(entry, token, "w1") for entry in entries[:2]]
    assert await room.finish(first, at_once=1) == "o"
    assert [lease.entry for lease in (await room.release()).leases] == [entries[2]]
    assert await room.finish(second, at_once=1) == "o"


@pytest.mark.leaves_mail
async def test_whoever_waits_for_one_at_once_is_told_of_its_end(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, LANE, ";c1")
    plain = Plain(room.scripts)
    first, second = await read(room, 2)
    found = await plain.admit("w1", [room.row(first), room.row(second)])
    assert [(said.status, said.target) for said in found.statuses] == [("go", LANE), ("parked", "")]
    end = room.end("sent", Lease(first, found.statuses[0].token, "w1"))._replace(arg=b"", way=LANE)
    other = await room.lease(lane="main|elsewhere.example")
    assert (await plain.settle("w1", [room.end("sent", other)])).statuses == ["ok"]  # the route takes mail
    settled = await plain.settle("w1", [end])
    assert (settled.statuses, settled.next_us) == (["ok"], settled.now_us)
    assert room.spool.caller.calls["finish"] == 1
    assert [lease.entry for lease in (await room.release()).leases] == [second]


@pytest.mark.leaves_mail
async def test_nobody_overtakes_in_a_limited_lane(room: Mailroom) -> None:
    """Neither one that is left to admission in the script, nor one that its worker kept for that."""
    await room.do("HSET", room.keys.limits, LANE, "360:1000000")
    first, noted, behind, other = await read(room, 4)
    await room.do("HSET", room.keys.notes, noted, '{"attempts":1}')
    assert (await room.start(first, noted, behind))[1] == "gaa"
    rows = [StartRow(other, LANE, room.now + DAY, b"")]
    assert (await room.scripts.start("w1", rows, "", [LANE, "main|x.de"])).letters == "a"
    assert (await room.scripts.start("w1", rows, "", ["main|x.de"])).letters == "g"


@pytest.mark.leaves_mail
@pytest.mark.parametrize("target", ["*", "main"])
async def test_nobody_takes_what_may_be_a_more_urgent_ones_slot(room: Mailroom, target: str) -> None:
    """Of the queue's windows, or of the route's, whatever its own lane."""
    await room.do("HSET", room.keys.limits, target, "360:1000000")
    noted, behind, other = await read(room, 3)
    await room.do("HSET", room.keys.notes, noted, '{"attempts":1}')
    rows = [StartRow(entry, lane, room.now + DAY, b"") for entry, lane in ((noted, LANE), (behind, "main|x.de"))]
    assert (await room.scripts.start("w1", rows)).letters == "aa"
    rows = [StartRow(other, "main|y.de", room.now + DAY, b"")]
    assert (await room.scripts.start("w1", rows, "", ["main|x.de"])).letters == "a"
    assert (await room.scripts.start("w1", rows)).letters == "g"


@pytest.mark.leaves_mail
async def test_a_slot_of_the_plain_way_goes_back_as_any_other(room: Mailroom) -> None:
    await room.do("HSET", room.keys.limits, LANE, "1:60000000")
    first, second = await read(room, 2)
    _, token, letters, _, slots = await room.scripts.start(
        "w1", [StartRow(entry, LANE, room.now + DAY, b"") for entry in (first, second)]
    )
    assert letters == "ga"
    turn = (await room.scripts.turn("w1", [TurnRow(first, token, LANE, slots[0])]))[1]
    assert [said.status for said in turn] != ["lost"]
    assert await room.admitted(second) == ["parked"]


@pytest.mark.leaves_mail
async def test_a_lane_where_others_wait_is_left_to_admission(room: Mailroom) -> None:
    await room.parked()
    there, elsewhere = await read(room, 2)
    assert (await room.start(there))[1] == "a"
    assert (await room.start(elsewhere, lane="main|elsewhere.example"))[1] == "g"


@pytest.mark.leaves_mail
async def test_what_is_noted_or_stands_in_an_index_is_left_to_admission(room: Mailroom) -> None:
    noted, other = await read(room, 2)
    await room.do("HSET", room.keys.notes, noted, '{"attempts":1}')
    assert (await room.start(noted, other))[1] == "ag"
    scheduled = await room.scheduled()
    await room.do("XGROUP", "SETID", room.keys.stream("normal"), "streamq", "0")
    assert scheduled in await room.read()
    assert (await room.start(scheduled))[1] == "a"
    assert await room.admitted(scheduled) == ["elsewhere"]


@pytest.mark.leaves_mail
async def test_what_was_started_is_known_when_it_is_read_again(room: Mailroom) -> None:
    [entry] = await read(room)
    token, letters = await room.start(entry)
    assert (letters, await room.settled("defer", Lease(entry, token, "w1"))) == ("g", "ok")
    await room.do("XGROUP", "SETID", room.keys.stream("normal"), "streamq", "0")
    assert await room.read() == [entry]
    assert (await room.start(entry))[1] == "a"
    assert await room.admitted(entry) == ["elsewhere"]


@pytest.mark.leaves_mail
async def test_too_old_is_left_to_admission(room: Mailroom) -> None:
    [entry] = await read(room)
    room.tick(1)
    row = room.row(entry, deadline=room.now)
    assert list(plain_of([row])) == [0]
    found = await Plain(room.scripts).admit("w1", [row])
    assert [said for said, *_ in found.statuses] == ["expired"]


@pytest.mark.parametrize("rule", ["", ";c2"])
async def test_an_entry_that_somebody_deleted_is_counted(room: Mailroom, rule: str) -> None:
    if rule:
        await room.do("HSET", room.keys.limits, "*|*", rule)
    gone, entry = await read(room, 2)
    await room.do("XDEL", room.keys.stream("normal"), gone[1:])
    token, letters = await room.start(gone, entry)
    goes = "c" if rule else "g"
    if letters == goes * 2:  # Redis 6.2 keeps it in the PEL: settling finds it gone
        assert await room.settled("gone", Lease(gone, token, "w1")) == "ok"
    else:
        assert letters == f"l{goes}"
        assert await room.do("ZCARD", room.keys.slots(LANE)) == bool(rule)
        await room.scripts.expire([5 * DAY], "")
    assert (await room.counts())["vanished"] == 1
    assert await room.settled("sent", Lease(entry, token, "w1")) == "ok"


# -- finish ----------------------------------------------------------------------------------------


async def test_plain_mails_leave_with_their_events(room: Mailroom) -> None:
    held = await leases(room, 2)
    assert await room.finish(*held, tail=b'"site":"example.net"') == "oo"
    assert [(each.kind, each.id, each.data["site"]) for each in await room.events()] == [
        ("email.relayed", lease.entry, "example.net") for lease in held
    ]
    assert (await room.counts())["total:relayed"] == 2


async def test_only_who_holds_it_ends_it_and_only_once(room: Mailroom) -> None:
    [lease] = await leases(room)
    assert await room.finish(Lease(lease.entry, lease.token + 1, "w1")) == "s"
    assert await room.finish(lease, lease) == "os"
    assert await room.finish(lease) == "s"
    assert await room.kinds() == ["email.relayed"]


async def test_what_hangs_on_a_mail_goes_with_it(room: Mailroom) -> None:
    [lease] = await leases(room)
    await room.do("HSET", room.keys.notes, lease.entry, '{"attempts":1}')
    await room.do("ZADD", room.keys.expiry, str(room.now + DAY), lease.entry)
    assert await room.finish(lease) == "o"
    assert await room.do("EXISTS", room.keys.notes, room.keys.expiry) == 0


async def test_the_last_child_takes_the_body_along(room: Mailroom) -> None:
    up = await parent(room)
    children = await expanded(room, up)
    await room.read()
    await room.well()
    for nth, child in enumerate(children, 1):
        tail = await tail_of(room, child)
        token, letters = await room.start(child)
        assert letters == "g"
        assert await room.finish(Lease(child, token, "w1"), tail=tail) == "o"
        assert await room.do("EXISTS", room.keys.body(up.entry)) == (nth < len(children))
    assert await room.do("EXISTS", room.keys.bodies) == 0


@pytest.mark.leaves_mail
async def test_one_that_was_expanded_itself_is_left_to_settle(room: Mailroom) -> None:
    up = await parent(room)
    await expanded(room, up, 2)
    await room.well()
    assert await room.finish(up) == "s"


LEARNS: dict[str, Step] = {
    "nothing good was said of the route of late": lambda room: room.do("DEL", room.keys.limit("main")),
    "another worker said so": lambda room: room.well(consumer="w2"),
    "it is long ago": lambda room: room.do("HSET", room.keys.limit("main"), "good", f"w1 {(room.now - 2000) * 1000}"),
    "it failed of late": lambda room: room.do("HSET", room.keys.limit("main"), "ring", "a..", "texts", '{"a":"no"}'),
    "it is closed": field("pauses", "main", '{"down":1,"till":"9000000000000000","since":"1","mark":1}'),
    "its pace was learnt": slowed,
    "a pace is over": lambda room: room.do("ZADD", room.keys.throttled, "1", "main|elsewhere.example"),
    "an operator asked for something": field("holds", "rule:domain:elsewhere.example", "hold"),
    "somebody waits for newer ones": field("collapse", "0" * 20, "11-1"),
}


@pytest.mark.parametrize("what", LEARNS)
async def test_what_must_be_learnt_or_said_is_left_to_settle(room: Mailroom, what: str) -> None:
    [lease] = await leases(room)
    await LEARNS[what](room)
    assert await room.finish(lease) == "s"
    await room.do("DEL", room.keys.limit("main"), room.keys.pauses, room.keys.throttled)
    await room.do("DEL", room.keys.holds, room.keys.collapse)
    assert await room.settled("sent", lease) == "ok"


async def test_two_others_that_said_so_are_enough(room: Mailroom) -> None:
    [lease] = await leases(room)
    now = room.now * 1000
    await room.do("HSET", room.keys.limit("main"), "good", f"w2 {now},w3 {now}")
    assert await room.finish(lease) == "o"


# -- both, as a worker has them --------------------------------------------------------------------


class Hours:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.leaves_mail
async def test_a_try_in_vain_is_not_repeated_at_once(room: Mailroom) -> None:
    await IN_THE_WAY["a pause of the route"](room)
    hours = Hours()
    plain = Plain(room.scripts, hours)

    async def tries() -> int:
        before = room.spool.caller.calls.get("start", 0)
        [entry] = await read(room)
        await plain.admit("w1", [room.row(entry, lane=f"main|x{entry[1:]}.de")])
        return room.spool.caller.calls.get("start", 0) - before

    pause = IN_VAIN_FIRST
    for _ in range(6):
        assert await tries() == 1
        hours.now += pause * 0.9
        assert await tries() == 0
        hours.now += pause * 0.1
        pause = min(2 * pause, IN_VAIN_LAST)
    await room.do("DEL", room.keys.pauses)
    hours.now += IN_VAIN_LAST
    assert [await tries(), await tries()] == [1, 1]


@pytest.mark.leaves_mail
async def test_whose_way_is_not_used_now_is_none_of_it(room: Mailroom) -> None:
    row = AdmitRow("send", "11-1", "main|x.de", deadline=1)
    assert list(plain_of([row])) == list(plain_of([row], "other,main")) == [0]
    assert plain_of([row], "-main,other") == {}


async def test_of_two_of_an_id_the_first_has_it_whatever_it_is(room: Mailroom) -> None:
    first, second = await read(room, 2)
    rows = [room.row(first, due=room.now + 60_000, seen=ident("a1")), room.row(second, seen=ident("a1"))]
    assert plain_of(rows) == {}
    found = await Plain(room.scripts).admit("w1", rows)
    assert [said for said, *_ in found.statuses] == ["scheduled", "duplicate"]
    assert await room.move("cancel", first) is not None


async def test_so_it_is_where_the_first_waits_for_its_site(room: Mailroom) -> None:
    await IN_THE_WAY["a pause of the site"](room)
    first, second, other = await read(room, 3)
    rows = [room.row(first, seen=ident("a1")), room.row(second, lane="main|x.de", seen=ident("a1", subject="Ho"))]
    rows.append(room.row(other, lane="main|x.de", seen=ident("a2")))
    found = await Plain(room.scripts).admit("w1", rows)
    assert [said for said, *_ in found.statuses] == ["parked", "dead", "go"]
    assert await room.settled("sent", Lease(other, found.statuses[2].token, "w1")) == "ok"
    assert await room.moved("cancel", first) == ["cancelled"]


async def test_each_has_the_token_of_its_script(room: Mailroom) -> None:
    await room.well()
    plain = Plain(room.scripts)
    [first] = await leases(room)
    assert (await plain.settle("w1", [room.end("sent", first)._replace(arg=b"")])).statuses == ["ok"]
    entries = await read(room, 3)
    rows = [room.row(entry) for entry in entries]
    rows[1] = rows[1]._replace(expires=room.now + DAY)
    found = await plain.admit("w1", rows)
    assert [said for said, *_ in found.statuses] == ["go"] * 3
    tokens = [status.token for status in found.statuses]
    assert tokens[0] == tokens[2] != tokens[1] == found.token
    assert (await room.survey()).leases == {e: ("w1", t) for e, t in zip(entries, tokens, strict=True)}
    ends = [room.end("sent", Lease(e, t, "w1"))._replace(arg=b"") for e, t in zip(entries, tokens, strict=True)]
    ends[1] = room.end("dead", Lease(entries[1], tokens[1], "w1"))
    assert (await plain.settle("w1", ends)).statuses == ["ok"] * 3
    calls = room.spool.caller.calls
    assert (calls["finish"], calls["settle"]) == (1, 2)  # the first word of a route is told by `settle`
    assert sorted(await room.kinds()) == ["email.bounced", *["email.relayed"] * 3]
