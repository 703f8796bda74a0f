"""why.py: what a mail waits for, in every state, and what is known of one that is gone."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from mailroom import LANE, Mailroom

from streamq.errors import NotFound
from streamq.queue.limits import limit_text, set_limits
from streamq.queue.rows import MarkRow
from streamq.queue.spool import time_ms
from streamq.queue.steer import ends_rule, id_rule, set_rule
from streamq.queue.why import Why, ended, why
from streamq.queue.wording import since_words, waits_words
from streamq.settings import window

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]


async def limit(room: Mailroom, field: str, *rates: str) -> None:
    await set_limits(room.spool, "settings", {field: limit_text([window(rate) for rate in rates])})


async def parked(room: Mailroom, priority: str = "normal", lane: str = LANE, **fields: str) -> str:
    """Behind its limit, or pause."""
    entry = await room.add(priority, **fields)
    await room.read()
    assert await room.admitted(entry, lane=lane) == ["parked"]
    return entry


async def asked(room: Mailroom, entry: str) -> Why:
    found = await why(room.spool, entry)
    assert found.view.state == (await room.states())[entry]
    return found


# -- parked ------------------------------------------------------------------------------------------------------


async def test_the_rate_of_its_site(room: Mailroom) -> None:
    await limit(room, "*|example.net", "1/s")
    await room.lease()
    for priority in ("low", "normal", "high"):
        for _ in range(3):
            await parked(room, priority)
    last = await parked(room)
    await parked(room)
    found = await asked(room, last)
    assert (found.waits_for, found.site, found.better, found.older) == ("site", "example.net", 3, 3)
    assert found.by is not None
    assert (found.by.target, str(found.rule), found.rule.by) == (LANE, "1/s", "settings")
    assert found.next_ms is not None
    assert 900 < found.next_ms < 1100
    assert found.expected_ms is not None
    expected = room.now + found.expected_ms
    got = await room.release()
    while last not in [lease.entry for lease in got.leases]:
        room.to(-(-got.next_us // 1000))
        got = await room.release()
    assert abs(room.now - expected) <= 2


async def test_the_rate_of_the_route_and_of_the_queue(room: Mailroom) -> None:
    await limit(room, "main", "1/s")
    await limit(room, "other", "9/s")
    await room.scripts.pause("pause", ["*|example.net"])
    entry = await parked(room)
    await room.scripts.pause("resume", ["*|example.net"])
    await room.lease(lane="main|example.org")
    found = await asked(room, entry)
    assert (found.waits_for, found.rule.field) == ("route", "main")
    await limit(room, "*", "1/m")
    await room.lease(lane="third|example.org")
    found = await asked(room, entry)
    assert (found.waits_for, found.rule.field) == ("queue", "*")


async def test_a_pause_of_its_site(room: Mailroom) -> None:
    await room.scripts.pause("pause", ["*|example.net"], till_us=(room.now + 7000) * 1000, reason="they asked")
    entry = await parked(room)
    room.tick(2000)
    found = await asked(room, entry)
    assert found.waits_for == "closed"
    assert found.gauge is not None
    assert [(each.name, each.text) for each in found.gauge.closed] == [("*|example.net", "they asked")]
    assert (found.next_ms, found.expected_ms, found.better, found.older) == (5000, 5000, 0, 0)
    await room.scripts.pause("pause", ["*|example.net"])
    found = await asked(room, entry)
    assert (found.next_ms, found.expected_ms) == (None, None)


async def test_a_route_that_is_down(room: Mailroom) -> None:
    lease = await room.lease()
    await room.settled("park", lease, down=True, reply="454 4.7.0 no", **{"class": "authentication"})
    found = await asked(room, lease.entry)
    assert found.waits_for == "closed"
    assert found.gauge is not None
    assert [(each.why, each.text) for each in found.gauge.closed] == [("authentication", "454 4.7.0 no")]
    assert (found.next_ms, found.expected_ms) == (1000, None)


async def test_a_mail_s_own_wait_is_not_that_of_what_closed_its_way(room: Mailroom) -> None:
    """The clock of scripts is virtual here, an entry's own time is the server's: words are of given times."""
    entry = await room.parked()
    room.tick(60_000)
    await room.scripts.pause("pause", ["main"])
    found = await asked(room, entry)
    assert (found.waits_for, found.since_ms) == ("closed", found.now_ms - time_ms(entry))
    assert found.gauge is not None
    [closed] = found.gauge.closed
    found.since_ms = 10_800_000
    found.gauge = replace(found.gauge, closed=[replace(closed, since_ms=found.now_ms - 120_000)])
    assert since_words(found) == "it came, 3.0 h ago; route main was closed 2.0 m ago"


async def test_nothing_but_a_worker_with_room(room: Mailroom) -> None:
    entry = await room.parked()
    found = await asked(room, entry)
    assert (found.waits_for, found.next_ms, found.expected_ms) == ("turn", 0, 0)


# -- not read yet ------------------------------------------------------------------------------------------------


async def test_nobody_has_read_it(room: Mailroom) -> None:
    await room.lease()
    for _ in range(130):
        await room.add()
    await room.add("high")
    entry = await room.add()
    await room.add()
    found = await asked(room, entry)
    assert (found.waits_for, found.older, found.more, found.better) == ("read", 130, False, None)


async def test_no_more_are_counted_than_a_thousand(room: Mailroom) -> None:
    for _ in range(1001):
        await room.add()
    entry = await room.add()
    found = await why(room.spool, entry)
    assert (found.older, found.more) == (1000, True)


@pytest.mark.parametrize("rule", ["all", "priority:normal", "domain:example.net", "tenant:acme", "tag:news"])
async def test_a_standing_rule_that_admission_will_carry_out(room: Mailroom, rule: str) -> None:
    entry = await room.add(to="bob@example.net", tenant="acme", tags="news,x")
    assert (await asked(room, entry)).waits_for == "read"
    await set_rule(room.spool, rule, "hold")
    found = await asked(room, entry)
    assert (found.waits_for, found.standing) == ("rule", "hold")


async def test_a_rule_for_its_id(room: Mailroom) -> None:
    entry = await room.add(id="a1", to="bob@example.net", tenant="acme")
    await set_rule(room.spool, id_rule("a1"), "cancel")
    found = await asked(room, entry)
    assert found.waits_for == "read"  # another tenant's
    await set_rule(room.spool, id_rule("a1", "acme"), "cancel")
    assert (await asked(room, entry)).standing == "cancel"


async def test_unread_while_nothing_is_read(room: Mailroom) -> None:
    entry = await room.add()
    await limit(room, "*", "1/m")
    await room.admitted(*await room.read(), lane=LANE)
    unread = [await room.add(name) for name in ("normal", "high", "normal")][-1]
    found = await asked(room, unread)
    assert (found.waits_for, found.rule.field) == ("queue", "*")
    assert found.next_ms is not None
    assert found.expected_ms is not None
    assert (found.better, found.older) == (1, 1)
    assert 120_000 <= found.expected_ms - found.next_ms < 130_000
    await room.scripts.pause("pause", ["relay"])
    assert (await asked(room, unread)).waits_for == "closed"
    assert await room.state(entry) == "leased"


async def test_unread_for_a_site_that_is_slower_still_it_waits_for_the_queue(room: Mailroom) -> None:
    """To be read; then it parks."""
    await limit(room, "*", "1/m")
    await limit(room, "relay|example.org", "1/h")
    await room.add()
    await room.admitted(*await room.read(), lane="relay|example.org")
    found = await asked(room, await room.add(to="bob@example.org"))
    assert (found.waits_for, found.better, found.older) == ("queue", 0, 0)
    assert 0 < (found.expected_ms or 0) <= 66_000


async def test_unread_the_limit_that_binds_at_its_place_tells_its_time(room: Mailroom) -> None:
    """A minute's has no slot now; of an hour's there is one more, and none for the second of them."""
    await limit(room, "*", "1/m")
    await limit(room, "relay", "1/h")
    await room.add()
    await room.admitted(*await room.read(), lane="other|example.org")  # the queue's alone
    await room.add()
    found = await asked(room, await room.add())
    assert (found.waits_for, found.older) == ("route", 1)
    assert (found.expected_ms or 0) > 3_500_000


async def test_unread_behind_what_replies_taught(room: Mailroom) -> None:
    entry = await room.add()
    pace = {"rate": 0.5, "till": f"{room.now + 90_000}000", "began": "1", "class": "route_rate", "reply": "421 slower"}
    await room.do("HSET", room.keys.limit("relay"), "pace", orjson.dumps(pace))
    found = await asked(room, entry)
    assert (found.waits_for, found.by and found.by.target) == ("throttle", "relay")


# -- the other states --------------------------------------------------------------------------------------------


async def test_in_delivery(room: Mailroom) -> None:
    lease = await room.lease()
    found = await asked(room, lease.entry)
    assert (found.waits_for, found.view.holder, found.view.past_dot) == ("delivery", "w1", False)
    await room.scripts.mark("w1", [MarkRow("main.1", lease.entry, lease.token)])
    assert (await asked(room, lease.entry)).view.past_dot
    await room.moved("cancel", lease.entry)
    assert (await asked(room, lease.entry)).view.intent == "cancel"


async def test_scheduled_for_its_time_a_retry_or_newer_ones(room: Mailroom) -> None:
    timed = await room.scheduled(after=90_000)
    lease = await room.lease()
    await room.settled("defer", lease, wait=30_000, reply="450 4.2.1 later", **{"class": "recipient_rate"})
    newest = await room.add()
    await room.read()
    key = f"{'k' * 20}{room.now + 20_000}"
    assert await room.admitted(newest, collapse=key) == ["scheduled"]
    room.tick(5_000)
    told = {entry: await asked(room, entry) for entry in (timed, lease.entry, newest)}
    assert [each.waits_for for each in told.values()] == ["send_at", "retry", "collapse"]
    assert told[lease.entry].view.notes["reply"] == "450 4.2.1 later"


async def test_what_waits_for_its_time_parks_where_its_way_is_paused_longer(room: Mailroom) -> None:
    lease = await room.lease(to="bob@example.net")
    await room.settled("defer", lease, wait=30_000, reply="450 4.2.1 later", **{"class": "temporary"})
    for target, name in (("*|example.net", "site"), ("relay", "route")):
        await room.scripts.pause("pause", [target])
        found = await asked(room, lease.entry)
        assert (found.waits_for, found.expected_ms) == ("retry", None)
        assert found.next_ms is not None
        assert found.gauge is not None
        assert [each.name for each in found.gauge.closed] == [target]
        assert waits_words(found).startswith("for its next attempt, after temporary; then it parks: ")
        assert f"until `streamq {name} resume`" in waits_words(found)
        assert "was closed" in since_words(found)
        await room.scripts.pause("resume", [target])
    await room.scripts.pause("pause", ["relay"], till_us=(room.now + 1000) * 1000)  # over by then
    found = await asked(room, lease.entry)
    assert (found.gauge, found.expected_ms) == (None, found.next_ms)


async def test_held(room: Mailroom) -> None:
    found = await asked(room, await room.held())
    assert (found.waits_for, found.view.notes["fields"]) == ("held", ["colour"])


async def test_what_holds_it_and_the_command_that_ends_that(room: Mailroom) -> None:
    """To let go of the mail alone does not do for the next one."""
    entries = [await room.scheduled(id="g1", to="g1@gmail.com"), await room.scheduled(id="-x y", to="g1@gmail.com")]
    await set_rule(room.spool, "all", "bounce")
    await room.moved("hold", *entries)
    found = await asked(room, entries[0])
    assert (waits_words(found), found.standing) == ("held until `streamq unhold g1`: asked for", "")
    assert waits_words(await asked(room, entries[1])) == f"held until `streamq unhold {entries[1]}`: asked for"
    await set_rule(room.spool, "domain:gmail.com", "hold")
    found = await asked(room, entries[0])
    assert (found.waits_for, found.standing, found.standing_rule) == ("held", "hold", "domain:gmail.com")
    assert waits_words(found).startswith("held until `streamq unhold --domain gmail.com`, which ends the rule")
    unread = await asked(room, await room.add(to="g2@gmail.com"))
    assert (unread.waits_for, unread.standing_rule) == ("rule", "all")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("all", "streamq unhold --all"),
        ("tenant:a c", "streamq unhold --tenant 'a c'"),
        ("id:a1", "streamq unhold a1"),
        ("id:a1\nacme", "streamq unhold a1 --tenant acme"),
    ],
)
def test_each_rule_has_its_command(name: str, command: str) -> None:
    assert ends_rule(name) == command


# -- gone --------------------------------------------------------------------------------------------------------


async def test_one_that_is_gone_has_its_last_event(room: Mailroom) -> None:
    lease = await room.lease(id="a1")
    await room.settled("sent", lease, tail=b'"peer":"mx.example.net"')
    with pytest.raises(NotFound):
        await why(room.spool, lease.entry)
    found = await ended(room.spool, ["x", lease.entry])
    assert found is not None
    assert (found.kind, found.data["entry"], found.data["peer"]) == ("email.relayed", lease.entry, "mx.example.net")
    assert await ended(room.spool, ["nobody"]) is None


async def test_one_whose_events_are_trimmed_has_its_dead_letter(room: Mailroom) -> None:
    for id_ in ("a1", "b1"):
        lease = await room.lease(id=id_)
        await room.settled("dead", lease, reason="rcpt: 550 no", **{"class": "bad_address"})
    await room.do("DEL", room.keys.events)
    found = await ended(room.spool, ["b1"])
    assert found is not None
    assert (found.kind, found.data["class"], found.data["at"]) == ("dead", "bad_address", room.now)


async def test_an_id_that_is_part_of_another_is_not_it(room: Mailroom) -> None:
    lease = await room.lease(id="a10")
    await room.scripts.settle("w1", [room.end("sent", lease)._replace(id="a10")])
    assert await ended(room.spool, ["a10"]) is not None
    assert await ended(room.spool, ["a1", lease.entry[:-1]]) is None


async def test_only_a_mail_s_own_events_tell_its_end(room: Mailroom) -> None:
    """A site may have the name of an id, another mail's metadata may name it, another tenant may have used it."""
    await room.scripts.pause("pause", ["*|a1"])
    for id_, tail in (("b1", b'"metadata":{"entry":"a1"}'), ("a1", b'"tenant":"acme"')):
        row = room.end("sent", await room.lease(id=id_), tail=tail)
        await room.scripts.settle("w1", [row._replace(id=id_)])
    assert await ended(room.spool, ["a1"]) is None
    found = await ended(room.spool, ["a1"], "acme")
    assert found is not None
    assert found.data["tenant"] == "acme"
