"""open.lua, and a group that is gone: the stream is read again, and nothing is sent twice."""

from __future__ import annotations

import pytest
from conftest import MakeSpool
from mailroom import Lease, Mailroom

from streamq.errors import QueueFormat
from streamq.queue.rows import MarkRow
from streamq.queue.spool import FORMAT

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
STREAMS = ("high", "normal", "low")


@pytest.mark.drained
async def test_a_new_queue(make_spool: MakeSpool) -> None:
    spool = await make_spool(events_kept=500)
    assert spool.priorities == STREAMS
    assert len(spool.salt) == 16
    room = Mailroom(spool)
    assert await room.do("HGET", spool.keys.meta, "events_kept") == b"500"
    for name in (*STREAMS, "bell"):
        [group] = await room.do("XINFO", "GROUPS", spool.keys.prefix + name)
        assert group[:2] == [b"name", b"streamq"]
    again = await make_spool(priorities="low,bulk")
    assert again.salt == spool.salt
    assert again.priorities == ("high", "normal", "low", "bulk")  # digits stay


async def test_what_was_there_before_the_first_open_is_read(make_spool: MakeSpool) -> None:
    one = Mailroom(await make_spool(queue="other"))
    await one.do("XADD", "{streamq}:normal", "5-1", "to", "bob@example.net")
    room = Mailroom(await make_spool())
    assert await room.read() == ["15-1"]
    assert await room.admitted("15-1") == ["go"]


async def test_another_format_is_refused(room: Mailroom) -> None:
    await room.do("HSET", room.keys.meta, "format", "99")
    with pytest.raises(QueueFormat, match="format 99"):
        await room.spool.open()
    await room.do("HSET", room.keys.meta, "format", FORMAT)


async def test_digits_are_ten_at_most(make_spool: MakeSpool) -> None:
    await make_spool(priorities=[f"p{n}" for n in range(8)])
    with pytest.raises(Exception, match="at most ten priorities"):
        await make_spool(priorities=["a", "b", "c"])
    assert (await make_spool(priorities=["a"])).priorities == (*(f"p{n}" for n in range(8)), "a")


async def test_groups_gone_with_mails_in_every_state(room: Mailroom) -> None:
    made = {
        (state, name): await room.in_state(state, name)
        for state in ("scheduled", "held", "leased", "parked", "waiting")
        for name in STREAMS
    }
    tokens = {entry: token for entry, (_, token) in (await room.survey()).leases.items()}
    for name in STREAMS:
        await room.do("XGROUP", "DESTROY", room.keys.stream(name), "streamq")
    assert await room.read() == []  # NOGROUP: made again
    index = {entry: state for (state, _), entry in made.items() if state in {"parked", "scheduled", "held"}}
    expected = dict.fromkeys(made.values(), "waiting") | index
    assert await room.states() == expected
    room.tick(60_000)
    assert await room.released() == []  # not before all of them were passed
    read = await room.read("w2")
    assert sorted(read) == sorted(made.values())
    statuses = dict(zip(read, await room.admitted(*read, consumer="w2"), strict=True))
    for (state, _), entry in made.items():
        if state in {"leased", "waiting"}:
            # Their lanes are there before them.
            assert statuses[entry] == "parked", state
        else:
            assert statuses[entry] == "elsewhere", state
    after = await room.survey()
    assert {entry: after.states[entry] for entry in index} == index
    assert after.leases == {}
    # The attempts that were under way come too late: noted, so that the new owner does not send.
    late = Lease(made["leased", "normal"], tokens[made["leased", "normal"]], "w1")
    assert await room.settled("sent", late) == "fenced"
    got = await room.released("w2", 100)
    assert sorted(got) == sorted(
        entry for (state, _), entry in made.items() if state in {"scheduled", "parked", "leased", "waiting"}
    )
    assert (await room.notes(late.entry))["sent"] == ""


@pytest.mark.parametrize("verb", ["settle", "heartbeat", "mark", "reclaim", "release", "reap", "expire"])
async def test_every_script_outlives_the_loss_of_its_group(room: Mailroom, verb: str) -> None:
    lease, entry = await room.lease(), await room.scheduled(after=1)
    room.tick(1)
    for name in (*STREAMS, "bell"):
        await room.do("XGROUP", "DESTROY", room.keys.prefix + name, "streamq")
    match verb:
        case "settle":
            assert await room.settled("defer", lease) == "fenced"
        case "heartbeat":
            assert await room.scripts.heartbeat("w1", [(lease.entry, lease.token)]) == {lease.entry}
        case "mark":
            assert await room.scripts.mark("w1", [MarkRow("main.1", lease.entry, lease.token)]) == ["lost"]
        case "reclaim":
            assert (await room.reclaim()).leases == []
        case "release":
            # It took the mail from the schedule before it met the missing group: waiting again, not lost.
            assert (await room.release()).leases == []
        case "reap":
            assert await room.scripts.reap(0) == []
        case "expire":
            assert await room.scripts.expire([1] * 3) == (0, "", [])
    await room.spool.open()
    states = await room.states()
    assert states[lease.entry] == "waiting"
    assert states[entry] == ("waiting" if verb == "release" else "scheduled")
    read = await room.read()
    assert sorted(read) == sorted([lease.entry, entry])
    expected = {lease.entry: "go", entry: "go" if verb == "release" else "elsewhere"}
    assert dict(zip(read, await room.admitted(*read), strict=True)) == expected


async def test_reading_with_a_block_makes_the_groups_again(room: Mailroom) -> None:
    entry = await room.add()
    await room.do("XGROUP", "DESTROY", room.keys.bell, "streamq")
    assert (await room.spool.wait("w1", 10, 1)).entries == []
    assert [each.entry for each in (await room.spool.wait("w1", 10, 1)).entries] == [entry]


async def test_what_a_lost_reply_delivered_is_listed_without_raising_its_count(room: Mailroom) -> None:
    lease = await room.lease()
    entry = await room.add("high")
    await room.read()
    assert await room.spool.own_pending("w1") == [entry, lease.entry]
    assert (await room.survey()).leases == {entry: ("w1", 1), lease.entry: ("w1", lease.token)}
    assert await room.spool.own_pending("w2") == []


async def test_bodies_are_fetched_in_one_go(room: Mailroom) -> None:
    lease = await room.lease(to="bob@example.net", text="Hello")
    gone = f"1{room.now}-99"
    found = await room.spool.fetch([lease.entry, gone])
    assert found[1] is None
    assert found[0] is not None
    assert found[0].fields == {b"to": b"bob@example.net", b"text": b"Hello"}
