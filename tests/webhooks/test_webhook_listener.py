"""Listeners against a receiver on loopback and a real server: signed, in order, again until taken, paused, replayed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson
import pytest
from mailroom import Mailroom

from streamq.mail.event import hashed_address
from streamq.queue.spool import Spool
from streamq.queue.webhooks import Feed
from streamq.settings import WebhookSettings
from streamq.webhooks.listener import Listener
from webhooks.receiver import SECRET, Receiver, receiver

Crm = tuple[Mailroom, Receiver]


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as known:
        yield known
        assert known.unsigned == 0


class Patience:
    """Sleeps that take no time; how long they would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def started(room: Mailroom, there: Receiver) -> AsyncIterator[Any]:
    """`await started(**settings)`: a listener named crm that has begun; its waits are in `patience`."""
    made: list[Listener] = []

    async def start(consumer: str = "l1", spool: Spool | None = None, **known: Any) -> Listener:
        settings = WebhookSettings.model_validate({"url": there.url, "secret": SECRET, "timeout": "20s"} | known)
        one = Listener(spool or room.spool, "crm", settings, consumer, sleep=Patience(), chance=random.Random(1))
        await one.feed.begin()
        made.append(one)
        return one

    yield start
    for one in made:
        one.sender.close()


def waits(listener: Listener) -> list[float]:
    assert isinstance(listener.sleep, Patience)
    return listener.sleep.seconds


async def happened(room: Mailroom, *names: str, kind: str = "email.relayed", **data: Any) -> None:
    for name in names:
        known = {"at": time.time_ns() // 1_000_000, "event_id": f"{name}.1", **data}
        await room.do("XADD", room.keys.events, "*", "type", kind, "id", name, "data", orjson.dumps(known))


async def pending(room: Mailroom) -> int:
    return int((await room.do("XPENDING", room.keys.events, "webhook:crm"))[0])


async def state(room: Mailroom) -> dict[str, int]:
    """What is counted of crm, as whoever looks is told."""
    place = await Feed(room.spool, "crm").place()
    assert place is not None
    return {name: place.state[name] for name in ("sent", "failures", "gone", "gone_some")}


async def counts_what_was_added(room: Mailroom) -> bool:
    return b"entries-added" in await room.do("XINFO", "STREAM", room.keys.events)


class Died(Exception):
    pass


async def died(seconds: float) -> None:
    raise Died


async def test_events_come_once_each_signed_and_in_order(room: Mailroom, there: Receiver, started: Any) -> None:
    await happened(room, "before")
    listener = await started(at_once=1)
    names = [f"n{number}" for number in range(250)]
    await happened(room, *names)
    for _ in range(3):
        await listener.step()
    assert there.ids() == names
    assert [each["headers"]["webhook-id"] for each in there.got] == [f"evt_n{number}_1" for number in range(250)]
    assert {each["path"] for each in there.got} == {"/hook?a=1"}
    assert there.connections == 1  # kept
    assert await pending(room) == 0
    place = await listener.feed.place()
    assert place is not None
    assert (place.behind, place.state["sent"], place.state["failures"], place.paused) == (0, 250, 0, {})


async def test_batches(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started(batch=40, at_once=1)
    names = [f"n{number}" for number in range(90)]
    await happened(room, *names)
    await listener.step()
    assert [len(each["body"]["data"]) for each in there.got] == [40, 40, 10]
    assert there.ids() == names


async def test_a_batch_of_more_than_is_read_at_once(
    room: Mailroom, there: Receiver, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.queue.webhooks.STEP", 50)
    listener = await started(batch=120, pause_after=1)
    names = [f"n{number}" for number in range(130)]
    await happened(room, *names)
    there.answer(500)
    for _ in range(3):  # new ones; those that were not taken; the rest
        await listener.step()
        await listener.feed.resume()
    assert [len(each["body"]["data"]) for each in there.got] == [120, 120, 10]
    assert there.ids() == names


@pytest.mark.parametrize(
    ("known", "ids"),
    [
        ({"types": ["email.b*"]}, ["b"]),
        ({"types": "email.bounced,route.*"}, ["b", "r"]),
        ({"domain": "Example.NET"}, ["b"]),
        ({"tenant": "acme"}, ["c"]),
        ({"tag": "vip"}, ["c"]),
        ({"tag": "vip", "types": ["email.bounced"]}, []),
    ],
    ids=str,
)
async def test_filters(room: Mailroom, there: Receiver, started: Any, known: dict[str, Any], ids: list[str]) -> None:
    listener = await started(at_once=1, **known)
    await happened(room, "a")
    await happened(room, "b", kind="email.bounced", site="example.net")
    await happened(room, "c", tenant="acme", tags=["vip"])
    await happened(room, "r", kind="route.paused")
    await listener.step()
    assert there.ids() == ids
    assert await pending(room) == 0  # the others are done with


async def test_a_domain_s_cancelled_mails_are_its_own(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started(at_once=1, domain="Example.NET", types=["email.cancelled"])
    for name, to in (("a", "bob@Example.NET"), ("b", "bob@other.example")):
        assert await room.moved("cancel", await room.held(id=name, to=to)) == ["cancelled"]
    await listener.step()
    assert there.ids() == ["a"]


async def test_what_is_not_taken_is_sent_again_under_its_id(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started(at_once=1, retry="10s,40s")
    there.answer(500, 204, 302)  # a: 500; b: taken; c: a redirect, which nobody follows
    there.answer(503, 503, retry_after="100")
    await happened(room, "a", "b", "c")
    await listener.step()
    tried = [(each["body"]["data"]["id"], each["status"]) for each in there.got]
    assert tried == [("a", 500), ("b", 204), ("c", 302), ("a", 503), ("c", 503), ("a", 204), ("c", 204)]
    ids = {each["body"]["data"]["id"]: set() for each in there.got}  # type: ignore[var-annotated]
    for each in there.got:
        ids[each["body"]["data"]["id"]].add(each["headers"]["webhook-id"])
    assert ids == {"a": {"evt_a_1"}, "b": {"evt_b_1"}, "c": {"evt_c_1"}}
    assert 9 <= sum(waits(listener)) - 100 <= 11  # the first step, and what the receiver asked for
    assert await pending(room) == 0
    place = await listener.feed.place()
    assert place is not None
    assert place.state["failures"] == 0


async def test_repeated_failure_pauses_and_resume_goes_on_where_it_stopped(
    room: Mailroom, there: Receiver, started: Any
) -> None:
    listener = await started(at_once=1, pause_after=3)
    there.answer(500, 500, 500)
    await happened(room, "a")
    await listener.step()
    await happened(room, "b")
    await listener.step()
    assert (len(there.got), await pending(room)) == (3, 1)
    paused = await listener.feed.paused()
    assert (paused["why"], paused["reason"]) == ("failures", "3 rounds failed, the last with 500 Internal Server Error")
    assert await listener.feed.resume()
    await listener.step()
    await listener.step()
    assert there.ids() == ["a", "b"]


async def test_who_is_gone_is_paused_at_once(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started()
    there.answer(410)
    await happened(room, "a")
    await listener.step()
    assert (await listener.feed.paused())["why"] == "gone"
    assert len(there.got) == 1


async def test_an_operators_pause_ends_a_wait(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started(retry="1h")

    async def sleep(seconds: float) -> None:
        await Feed(room.spool, "crm").pause({"why": "operator", "reason": ""})

    listener.sleep = sleep
    there.answer(500)
    await happened(room, "a")
    await listener.step()
    assert (len(there.got), await pending(room)) == (1, 1)


async def test_what_a_dead_listener_had_is_sent_by_the_next(room: Mailroom, there: Receiver, started: Any) -> None:
    await started()
    await happened(room, "a", "b")
    events, *_ = await Feed(room.spool, "crm").read(10)  # and then it died
    assert [event.id for event in events] == ["a", "b"]
    listener = await started("l2", at_once=1)
    await listener.step()
    assert there.ids() == ["a", "b"]


async def test_one_at_a_time_has_the_role(room: Mailroom, there: Receiver, started: Any) -> None:
    first, second = await started("l1"), await started("l2")
    await happened(room, "a")
    await first.step()
    await happened(room, "b")
    await second.step()
    assert (there.ids(), second.leads) == (["a"], False)
    await first.leave()
    await second.step()
    assert there.ids() == ["a", "b"]


async def test_what_was_trimmed_is_counted_and_holds_nothing_up(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started()
    await happened(room, "a", "b")
    await listener.feed.read(10)
    await room.do("XTRIM", room.keys.events, "MAXLEN", 1)
    await happened(room, "c")
    await listener.step()
    await listener.step()
    assert there.ids() == ["b", "c"]
    assert (await state(room), await pending(room)) == ({"sent": 2, "failures": 0, "gone": 1, "gone_some": 0}, 0)


@pytest.mark.usefixtures("any_server_url")
async def test_what_was_trimmed_before_it_was_read_is_said_once_and_counted(
    room: Mailroom, there: Receiver, started: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listener = await started()
    await happened(room, "a", "b")
    await listener.step()
    assert await state(room) == {"sent": 2, "failures": 0, "gone": 0, "gone_some": 0}
    told = await counts_what_was_added(room)
    for times in (1, 2):
        await happened(room, *(f"n{number}" for number in range(40)))
        await room.do("XTRIM", room.keys.events, "MAXLEN", 10)
        gone = {"gone": 30 * times, "gone_some": 0} if told else {"gone": 0, "gone_some": times}
        place = await listener.feed.place()
        assert place is not None
        assert (place.behind, await state(room)) == (10, {"sent": 2 + 10 * (times - 1), "failures": 0} | gone)
        await listener.step()
        assert await state(room) == {"sent": 2 + 10 * times, "failures": 0} | gone
        many = "30 events" if told else "some events (the server cannot say how many)"
        said = [each.getMessage() for each in caplog.records if each.name == "streamq.webhooks"]
        assert said == [f"crm: gone, before it had them: {many} (STREAMQ_EVENTS_KEPT)"] * times
    await happened(room, "c")
    await room.do("XTRIM", room.keys.events, "MAXLEN", 1)  # what it had: no loss, where the server can tell
    if told:
        await listener.step()
        assert (await state(room))["gone"] == 60


@pytest.mark.usefixtures("any_server_url")
async def test_what_it_never_wanted_is_no_loss(room: Mailroom, started: Any) -> None:
    """What was before it, or is gone for whoever asks for all that is kept."""
    await happened(room, "a", "b", "c")
    await room.do("XTRIM", room.keys.events, "MAXLEN", 2)
    listener = await started()
    first = (await room.do("XRANGE", room.keys.events, "-", "+", "COUNT", 1))[0][0].decode()
    ms, seq = first.split("-")
    await listener.feed.go_to(f"{int(ms) - 1}-9" if seq == "0" else f"{ms}-{int(seq) - 1}")
    await listener.step()
    assert await state(room) == {"sent": 2, "failures": 0, "gone": 0, "gone_some": 0}


async def test_what_is_trimmed_on_the_way_back_is_some(room: Mailroom, started: Any) -> None:
    """Where it was moved into the middle nobody knows how many were before; at the end they are known again."""
    listener = await started()
    await happened(room, "a", "b", "c", "d")
    await listener.step()
    ids = [row[0].decode() for row in await room.do("XRANGE", room.keys.events, "-", "+")]
    await listener.feed.go_to(ids[0])
    await room.do("XTRIM", room.keys.events, "MAXLEN", 1)
    await listener.step()
    assert await state(room) == {"sent": 5, "failures": 0, "gone": 0, "gone_some": 1}
    await happened(room, "e", "f", "g")
    await room.do("XTRIM", room.keys.events, "MAXLEN", 1)
    await listener.step()
    assert await state(room) == {"sent": 6, "failures": 0, "gone": 2, "gone_some": 1}


async def test_what_is_counted_outlives_whoever_listens(room: Mailroom, there: Receiver, started: Any) -> None:
    """Failures, too: who restarts after each would never be paused."""
    listener = await started()
    await happened(room, "a", "b")
    await listener.step()
    for nth in range(3):
        await listener.leave()
        listener = await started(f"l{nth + 2}", pause_after=3, at_once=1)
        there.answer(500)
        listener.sleep = died  # while it waits
        if nth == 0:
            await happened(room, "c")
        if nth < 2:
            with pytest.raises(Died):
                await listener.step()
            assert await state(room) == {"sent": 2, "failures": nth + 1, "gone": 0, "gone_some": 0}
    await listener.step()
    assert "3 rounds failed" in (await listener.feed.paused())["reason"]
    await listener.feed.resume()
    await listener.step()
    assert await state(room) == {"sent": 3, "failures": 0, "gone": 0, "gone_some": 0}


async def test_a_lost_group_is_made_again_and_nothing_is_missed(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started()
    await happened(room, "a")
    await listener.step()
    await room.do("XGROUP", "DESTROY", room.keys.events, "webhook:crm")
    await happened(room, "b")
    await listener.step()
    assert set(there.ids()) == {"a", "b"}


async def test_replay_sends_old_ones_again_under_their_ids(room: Mailroom, there: Receiver, started: Any) -> None:
    listener = await started(at_once=1)
    await happened(room, "a", "b", "c")
    await listener.step()
    first = (await room.do("XRANGE", room.keys.events, "-", "+"))[0][0].decode()
    await listener.feed.go_to(first)
    await listener.step()
    assert there.ids() == ["a", "b", "c", "b", "c"]
    assert there.got[1]["headers"]["webhook-id"] == there.got[3]["headers"]["webhook-id"]


async def test_addresses_are_hidden_where_they_must_be(make_spool: Any, there: Receiver, started: Any) -> None:
    spool = await make_spool(pii="hash")
    listener = await started(spool=spool)
    await happened(Mailroom(spool), "a", rcpt="bob@example.net", reply="550 <bob@example.net> no")
    await listener.step()
    data = there.events[0]["data"]
    assert data["rcpt"] == hashed_address("bob@example.net")
    assert "@" not in orjson.dumps(data).decode()


async def test_a_receiver_that_drips_has_no_more_than_its_time(room: Mailroom, there: Receiver, started: Any) -> None:
    """Each byte comes within a socket's own time limit."""
    listener = await started(timeout="200ms", pause_after=1)

    def drip(handler: BaseHTTPRequestHandler) -> bool:
        try:
            for byte in b"HTTP/1.1 204 No Content\r\n" + b"X: y\r\n" * 1000:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(0.01)
        except OSError:
            pass
        handler.close_connection = True
        return True

    there.during = drip
    await happened(room, "a")
    await listener.step()
    assert "no answer within 0.2 s" in (await listener.feed.paused())["reason"]


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n"])
async def test_whatever_a_receiver_says_is_an_answer(
    room: Mailroom, there: Receiver, started: Any, answer: bytes
) -> None:
    listener = await started(pause_after=1)

    def say(handler: BaseHTTPRequestHandler) -> bool:
        handler.wfile.write(answer)
        handler.close_connection = True
        return True

    there.during = say
    await happened(room, "a")
    await listener.step()
    assert (await listener.feed.paused())["why"] == "failures"
    there.during = lambda handler: False
    await listener.feed.resume()
    await listener.step()
    assert there.ids()[-1] == "a"


async def test_a_connection_that_was_closed_meanwhile_is_opened_anew(
    room: Mailroom, there: Receiver, started: Any
) -> None:
    listener = await started(at_once=1)

    def close(handler: BaseHTTPRequestHandler) -> bool:
        handler.close_connection = True  # without having said so
        return False

    there.during = close
    for name in ("a", "b", "c"):
        await happened(room, name)
        await listener.step()
    assert there.ids() == ["a", "b", "c"]
    assert [each["status"] for each in there.got] == [204] * 3
    assert there.connections == 3


async def test_nobody_there_is_an_answer(room: Mailroom, started: Any) -> None:
    listener = await started(url="http://127.0.0.1:1/", pause_after=1)
    await happened(room, "a")
    await listener.step()
    assert "refused" in (await listener.feed.paused())["reason"]
