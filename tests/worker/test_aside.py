"""What takes long to read keeps nobody waiting: neither other mails nor heartbeats."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import orjson
import pytest
from crew import crew
from mailroom import Mailroom

from streamq.mail.compose import Composed
from streamq.mail.template import Template
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Entry
from streamq.queue.steer import apply
from streamq.worker import admission, aside
from streamq.worker import hand as hand_file
from streamq.worker.aside import WAITING_MOST, Aside
from streamq.worker.hand import Hand
from streamq.worker.intake import Intake, Judged

HEAVY = Template({"subject": "Heavy", "text": "{% for i in range(2000) %}{{ v }}{% endfor %}"})
ENDLESS = Template({"subject": "Endless", "html": "{{ v | urlize }}"})
NOTHING = dict.fromkeys(("subject", "text"), "")
WAIT_SECONDS = 30.0  # for a failure to be one


class Gate:
    """Holds the thread in which mails are judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.held: list[bool] = []  # whether it was opened in time
        judge = Intake.judge

        def held(intake: Intake, entry: Entry) -> Judged:
            self.begun.set()
            self.held.append(self.open.wait(WAIT_SECONDS))
            return judge(intake, entry)

        monkeypatch.setattr(Intake, "judge", held)


async def test_others_go_out_while_a_heavy_template_is_filled_in(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    composed: list[bool] = []
    compose = Composed.content

    def noted(source: Composed) -> bytes:
        if source.subject == "Heavy":
            composed.append(threading.current_thread() is threading.main_thread())
        return compose(source)

    monkeypatch.setattr(Composed, "content", noted)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        for number in range(5):
            await c.add(id=f"heavy{number}", template="heavy", vars='{"v":"x"}', **NOTHING)
        await c.worker()
        await asyncio.to_thread(gate.begun.wait, WAIT_SECONDS)
        for number in range(5):
            await c.add(id=f"light{number}")
        await c.until("email.relayed", many=5)
        assert len(c.sink.received) == 5
        gate.open.set()
        await c.until("email.relayed", many=5)
        assert sum(b"x" * 70 in mail.content for mail in c.sink.received) == 5
        assert (await check(c.spool)).clean
    assert gate.held == [True] * 5
    assert set(composed) == {False}  # where others wait nothing long is composed either


async def test_leases_are_renewed_while_a_heavy_template_is_filled_in(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two heartbeats after it began it is still there, and nobody else has it: it goes once."""
    gate = Gate(monkeypatch)
    beats: list[list[str]] = []
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        worker = c.new_worker(lease_seconds=1)
        await c.started(worker)
        heartbeat = worker.spool.scripts.heartbeat
        beaten = asyncio.Event()

        async def noted(consumer: str, leases: Any) -> Any:
            beats.append([entry for entry, _ in leases])
            lost = await heartbeat(consumer, leases)
            assert not lost
            if sum(entry in names for names in beats) > 1:
                beaten.set()
            return lost

        monkeypatch.setattr(worker.spool.scripts, "heartbeat", noted)
        entry = await c.add(id="heavy", template="heavy", vars='{"v":"x"}', **NOTHING)
        await asyncio.wait_for(beaten.wait(), WAIT_SECONDS)
        gate.open.set()
        await c.until("email.relayed", "heavy")
        assert len(c.sink.received) == 1
    assert gate.held == [True]


async def test_a_template_that_wants_too_much_ends_its_mail_alone(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.spool.templates.put("endless", ENDLESS)
        large = orjson.dumps({"v": "see a.com " * 25_000})
        for number in range(10):
            await c.add(id=f"bad{number}", template="endless", vars=large, **NOTHING)
        await c.add(id="good", template="endless", vars='{"v":"see a.com"}', **NOTHING)
        await c.worker()
        rejected = await c.until("email.rejected", many=10)
        assert {found["reason"] for found in rejected} == {"template: html: takes more than 100000 steps (urlize)"}
        if not c.sink.received:
            await c.until("email.relayed", "good")
        assert len(c.sink.received) == 1
        assert (await check(c.spool)).clean


async def test_a_heavy_mail_goes_out_when_its_time_has_come(server_url: str) -> None:
    """Taken back from the schedule and from its lane it is judged anew."""
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        for number in range(3):
            await c.add(id=f"later{number}", template="heavy", vars='{"v":"x"}', delay="1", **NOTHING)
        await c.worker(sites={"*": {"rate": ["20/s"]}})
        await c.until("email.relayed", many=3)
        assert len(c.sink.received) == 3
        assert (await check(c.spool)).clean


async def test_a_worker_that_stops_leaves_nothing_half_read(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        for number in range(3):
            await c.add(id=f"heavy{number}", template="heavy", vars='{"v":"x"}', **NOTHING)
        worker = c.new_worker()
        running = asyncio.create_task(worker.run())
        await asyncio.to_thread(gate.begun.wait, WAIT_SECONDS)
        worker.stop()
        gate.open.set()
        await running
        pending = await command(c.spool.redis, "XPENDING", c.spool.keys.stream("normal"), "streamq")
        assert pending[0] == 0
        assert (await check(c.spool)).clean
        await c.worker()  # what was handed back
        while len(c.sink.received) < 3:
            await c.until("email.relayed")


async def test_the_loop_has_its_turn_between_mails_that_are_read(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: whoever else wants to run does, between two mails of some size, however many came at once."""
    turns = 0
    seen: list[int] = []
    look = Intake.judge_at_once

    def noted(intake: Intake, entry: Entry) -> Judged | None:
        seen.append(turns)
        return look(intake, entry)

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Intake, "judge_at_once", noted)
    async with crew(server_url) as c:
        html = "<p>x" * (admission.TURN_US // 4)
        for _ in range(20):
            await c.add(html=html, text="")
        running = asyncio.create_task(other())
        await c.worker()
        await c.until("email.relayed", many=20)
        running.cancel()
        assert len(c.sink.received) == 20
    assert len(seen) == len(set(seen)) == 20


# -- what waits has weight ---------------------------------------------------------------------------------------------


class Judging:
    """An intake that notes what it judged."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def judge(self, entry: Entry) -> Any:
        self.entries.append(entry.entry)
        return entry.entry, None


async def test_what_waits_to_be_read_leaves_no_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_file, "HAND_BYTES", 1000)
    hand, judging = Hand(10), Judging()
    waiting = Aside(judging, hand)  # type: ignore[arg-type]
    told: list[str] = []

    async def then(judged: Any) -> None:
        told.append(judged[0])

    for entry in ("21-1", "11-1", "01-1"):  # the most urgent one comes last
        hand.claim([entry])
        waiting.put(Entry(entry, {b"text": b"x" * 600}), then)
    assert (hand.room, hand.carried) == (0, 1800)
    running = asyncio.create_task(waiting.run())
    await waiting.flushed()
    assert told == judging.entries == ["01-1", "11-1", "21-1"]
    assert (hand.room, hand.carried) == (7, 0)
    running.cancel()


async def test_nothing_is_read_while_the_hand_is_full_and_it_is_left_where_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hand_file, "HAND_BYTES", 1000)
    hand, judging = Hand(10), Judging()
    hand.bytes = 1000
    waiting = Aside(judging, hand)  # type: ignore[arg-type]

    async def then(judged: Any) -> None:
        raise AssertionError

    hand.claim(["11-1"])
    waiting.put(Entry("11-1", {b"text": b"x"}), then)
    running = asyncio.create_task(waiting.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not judging.entries
    hand.close()
    await waiting.flushed()
    assert (judging.entries, hand.carried, len(hand)) == ([], 0, 0)
    running.cancel()


@pytest.mark.parametrize("named", [{"id": "order-1"}, {"collapse_key": "quota", "collapse_seconds": "1"}])
async def test_what_is_behind_one_of_its_name_waits_for_it(
    server_url: str, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    """The first of an id has it, the last of a collapse key is sent, however long the first one took."""
    gate = Gate(monkeypatch)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        first = await c.add(**NOTHING, **named, template="heavy", vars='{"v":"x"}')
        second = await c.add(**named, subject="Second")
        await c.add(id="other")
        await c.worker()
        await c.until("email.relayed", "other")
        gate.open.set()
        ended: dict[str, str] = {}
        async for kind, _, data in c.events():
            if (entry := data.get("entry")) in {first, second}:
                ended[entry] = kind
            if len(ended) == 2:
                break
    kinds = ("email.relayed", "email.rejected") if "id" in named else ("email.superseded", "email.relayed")
    assert (ended[first], ended[second]) == kinds


async def test_heavy_ones_beyond_a_few_wait_on_the_schedule(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would fill the hand, and keep out what is read at once."""
    gate = Gate(monkeypatch)
    monkeypatch.setattr(admission, "LATER_MS", 50)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        heavy = [await c.add(**NOTHING, id=f"h{n}", template="heavy", vars='{"v":"x"}') for n in range(50)]
        worker = await c.worker()
        await c.add(id="other")
        await c.until("email.relayed", "other")
        # The one that is judged, and those behind it; but while others come back from the schedule, and go there again.
        assert len(heavy) > WAITING_MOST + 1
        while len(worker.hand.pending) > WAITING_MOST + 1:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        double = await c.add(**NOTHING, id="h49", template="heavy", vars='{"v":"y"}')
        gate.open.set()
        ended: dict[str, str] = {}
        async for kind, _, data in c.events():
            if kind != "email.deferred":
                ended[data["entry"]] = kind
            if len(ended) > len(heavy):
                break
    assert ended == dict.fromkeys(heavy, "email.relayed") | {double: "email.rejected"}


async def test_the_newest_of_a_key_is_sent_where_an_older_one_waits_to_be_read(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heavy one that went on the schedule unlooked-at, for longer than its window."""
    gate = Gate(monkeypatch)
    monkeypatch.setattr(aside, "WAITING_MOST", 1)
    named = {"collapse_key": "quota", "collapse_seconds": "1"}
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        for number in range(3):
            await c.add(**NOTHING, id=f"h{number}", template="heavy", vars='{"v":"x"}', to="eve@example.net")
        older = await c.add(**NOTHING, **named, id="70", template="heavy", vars='{"v":"x"}')
        await c.worker()
        await c.until_state(older, "scheduled")
        newest = await c.add(**named, id="90", subject="90 %")
        (superseded,) = await c.until("email.superseded")
        assert (superseded["entry"], superseded["by"]) == (older, newest)
        gate.open.set()
        relayed = await c.until("email.relayed", many=4)
        assert {found["rcpt"] for found in relayed} == {"bob@example.net", "eve@example.net"}
        bobs = [mail.content for mail in c.sink.received if mail.envelope_to == ("bob@example.net",)]
        assert len(bobs) == 1
        assert b"Subject: 90 %" in bobs[0]
        assert (await check(c.spool)).clean


async def test_an_urgent_heavy_one_waits_for_no_less_urgent_ones(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of those wait: it is the next one, and not on the schedule behind them."""
    gate = Gate(monkeypatch)
    monkeypatch.setattr(aside, "WAITING_MOST", 2)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        low = [await c.add("low", **NOTHING, id=f"l{n}", template="heavy", vars='{"v":"x"}') for n in range(6)]
        worker = await c.worker()
        await asyncio.to_thread(gate.begun.wait)
        await c.until_state(low[-1], "scheduled")
        urgent = await c.add("high", **NOTHING, id="now", template="heavy", vars='{"v":"x"}')
        while urgent not in worker.hand.pending:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        gate.open.set()
        ended = [data["entry"] for data in await c.until("email.relayed", many=len(low) + 1)]
    assert ended.index(urgent) <= 1


async def test_of_two_heavy_ones_of_an_id_the_first_has_it_however_many_wait(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(aside, "WAITING_MOST", 2)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        await c.add(**NOTHING, id="judged", template="heavy", vars='{"v":"x"}')
        pairs = [
            await c.add(**NOTHING, id=id_, template="heavy", vars=f'{{"v":"{v}"}}') for v in "xy" for id_ in ("a", "b")
        ]
        await c.worker()
        await asyncio.to_thread(gate.begun.wait)
        gate.open.set()
        ended: dict[str, str] = {}
        async for kind, _, data in c.events():
            if kind != "email.deferred":
                ended[data["entry"]] = kind
            if len(ended) > len(pairs):
                break
    assert [ended[entry] for entry in pairs] == ["email.relayed"] * 2 + ["email.rejected"] * 2


@pytest.mark.parametrize("before", [0, 3])
async def test_of_three_heavy_warnings_the_last_alone_is_sent(
    server_url: str, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Whichever of them wait on the schedule to be looked at."""
    monkeypatch.setattr(aside, "WAITING_MOST", 2)
    monkeypatch.setattr(admission, "LATER_MS", 100)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        for number in range(before):
            await c.add(**NOTHING, id=f"h{number}", template="heavy", vars='{"v":"x"}', to="eve@example.net")
        persons = range(4)
        last: set[str] = set()
        for percent in (70, 80, 90):
            for person in persons:
                entry = await c.add(
                    **NOTHING, id=f"{person}-{percent}", template="heavy", vars=f'{{"v":"{percent}"}}',
                    to=f"u{person}@example.net", collapse_key="quota", collapse_seconds="600",
                )  # fmt: skip
                last |= {entry} if percent == 90 else set()
        await c.worker()
        gone = {data["entry"] for data in await c.until("email.superseded", many=2 * len(persons))}
        assert gone.isdisjoint(last)
        assert await apply(c.spool, "retry", sorted(last)) == {"scheduled": len(last)}
        sent: list[str] = []
        async for kind, _, data in c.events():
            if kind == "email.relayed" and data["rcpt"] != "eve@example.net":
                sent.append(data["entry"])
            if len(sent) == len(persons):
                break
        assert set(sent) == last
        assert (await check(c.spool)).clean


@pytest.mark.leaves_mail
async def test_who_ends_gives_back_what_it_has_not_begun_with(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        heavy = [await c.add(**NOTHING, id=f"h{n}", template="heavy", vars='{"v":"x"}') for n in range(5)]
        worker = await c.worker()
        await asyncio.to_thread(gate.begun.wait)
        worker.stop()
        await c.until_state(heavy[-1], "scheduled")
        gate.open.set()
        await c.until_state(heavy[0], "parked")
        states = await Mailroom(c.spool).states()
    assert states == dict.fromkeys(heavy[1:], "scheduled") | {heavy[0]: "parked"}
