"""Every arrow of the state diagram is one script (or one Redis command): from here to there in one call.

XADD ► waiting ► leased ► gone · parked · scheduled · held · dead, and the ways back
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from mailroom import DAY, Lease, Mailroom, ident
from sifting import sift

from streamq.queue.rows import ChildRow, ResettleRow
from streamq.queue.script import VERBS
from streamq.queue.scripts import why

pytestmark = [pytest.mark.usefixtures("any_server_url"), pytest.mark.leaves_mail]
Step = Callable[[Mailroom, str, Lease], Awaitable[Any]]


@dataclass(frozen=True)
class Arrow:
    """`verb` takes a mail from one state to another ("" is gone, "dead" a dead letter, "read" read by w1 and not
    yet admitted); `step` does it.."""

    name: str
    verb: str
    start: str
    end: str
    step: Step
    before: Callable[[Mailroom, str], Awaitable[Any]] | None = None


async def slots_used_up(room: Mailroom, entry: str) -> None:
    await room.do("HSET", room.keys.limits, "*|*", "1:60000000")
    await room.do("HSET", room.keys.limit("main|example.net"), "60000000", f"{(room.now + 60_000) * 1000}:62499999")


async def all_is_well(room: Mailroom, entry: str) -> None:
    await room.well()


async def silence(room: Mailroom, entry: str) -> None:
    await room.silent(entry, "w1")


async def a_day_passes(room: Mailroom, entry: str) -> None:
    room.tick(DAY)


async def asked_to_cancel(room: Mailroom, entry: str) -> None:
    await room.do("HSET", room.keys.holds, f"intent:{entry}", "cancel")


async def the_first_of_its_id(room: Mailroom, entry: str) -> None:
    other = await room.add("high", id="a1", to="bob@example.net")
    await room.read("w3")
    await room.admit(other, consumer="w3", seen=ident("a1"))
    [(token, _)] = [lease[::-1] for lease in (await room.survey()).leases.values() if lease[0] == "w3"]
    await room.settle("sent", Lease(other, token, "w3"))


async def a_250_that_comes_late(room: Mailroom, entry: str) -> None:
    await room.do("HSET", room.keys.notes, entry, '{"sent":""}')


async def its_group_is_gone(room: Mailroom, entry: str) -> None:
    await room.do("XGROUP", "DESTROY", room.keys.stream("normal"), "streamq")


async def parked_where_one_of_two_ways_is_closed(room: Mailroom, entry: str) -> None:
    await room.scripts.pause("pause", ["main", "other"])
    assert await room.admitted(entry, lane="main>other|example.net") == ["parked"]
    await room.scripts.pause("resume", ["other"])


async def breaker_trips(room: Mailroom, entry: str) -> None:
    closed = (
        f'{{"down":1,"till":"{(room.now + 1000) * 1000}","since":"1","class":"breaker","of":"bad_address","mark":99}}'
    )
    await room.do("HSET", room.keys.pauses, "main", closed)


KEY = "0123456789abcdef0123"


async def their_body_is_there(room: Mailroom, entry: str) -> None:
    await room.spool.bodies.upload("up", {b"text": b"Hello"}, False)


async def a_newer_one_waits(room: Mailroom, entry: str) -> None:
    newer = await room.add()
    await room.read("w3")
    await room.admit(newer, consumer="w3", collapse=f"{KEY}{room.now + 90_000}")


async def it_stands_in_none(room: Mailroom, entry: str) -> None:
    await room.do("XACK", room.keys.stream("normal"), "streamq", entry[1:])


def admits(**known: Any) -> Step:
    return lambda room, entry, lease: room.admit(entry, **known)


def expands(verb: str) -> Step:
    rows = [ChildRow("envelope_to", b"bob@example.net")]
    return lambda room, entry, lease: room.scripts.expand(
        "w1", entry, lease.token, "a1", b"", rows if verb == "more" else [], verb=verb, upload="up", all_=1
    )


def sifts(*, stows: bool = False) -> Step:
    return lambda room, *_: sift(room, room_for=1, stows=stows)


def settles(op: str, **arg: Any) -> Step:
    return lambda room, entry, lease: room.settle(op, lease, **arg)


def moves(verb: str) -> Step:
    return lambda room, entry, lease: room.move(verb, entry)


def wrong(klass: str, **more: Any) -> bytes:
    return why(reason="because", **{"class": klass}, **more)


ARROWS = [
    Arrow("admitted", "admit", "read", "leased", admits()),
    Arrow("admitted, a plain one", "start", "read", "leased", lambda room, entry, lease: room.start(entry)),
    Arrow("several recipients", "expand", "leased", "", expands("more"), their_body_is_there),
    Arrow("several recipients, its worker stops", "expand", "leased", "scheduled", expands("back")),
    Arrow("a newer one of its key", "admit", "read", "", admits(collapse=f"{KEY}1700000090000"), a_newer_one_waits),
    Arrow("waits for newer ones", "admit", "read", "scheduled", admits(collapse=f"{KEY}1700000090000")),
    Arrow("delivered", "settle", "leased", "", settles("sent")),
    Arrow("delivered, a plain one", "finish", "leased", "", lambda room, entry, lease: room.finish(lease), all_is_well),
    Arrow("silent for too long", "reclaim", "leased", "leased", lambda room, *_: room.reclaim(), silence),
    Arrow("read, and its worker died", "reclaim", "read", "leased", lambda room, *_: room.reclaim(), silence),
    Arrow("poison", "reclaim", "leased", "dead", lambda room, *_: room.reclaim(most=0), silence),
    Arrow("duplicate", "admit", "read", "", admits(seen=ident("a1")), the_first_of_its_id),
    Arrow("id conflict", "admit", "read", "dead", admits(seen=ident("a1", x="y")), the_first_of_its_id),
    Arrow("malformed", "admit", "read", "dead", admits(kind="dead", why=wrong("malformed"))),
    Arrow("unknown field", "admit", "read", "held", admits(kind="hold", why=wrong("unknown_field", fields=["colour"]))),
    Arrow("no slot", "admit", "read", "parked", admits(), slots_used_up),
    Arrow("no slot, seen from its stream", "sift", "waiting", "parked", sifts(), slots_used_up),
    Arrow("no slot, of a page that parks", "stow", "waiting", "parked", sifts(stows=True), slots_used_up),
    Arrow("passed over, for a worker to judge", "sift", "waiting", "leased", sifts()),
    Arrow("slot free", "release", "parked", "leased", lambda room, *_: room.release(), a_day_passes),
    Arrow("send_at ahead", "admit", "read", "scheduled", admits(due=1_700_000_090_000)),
    Arrow("due", "release", "scheduled", "leased", lambda room, *_: room.release(), a_day_passes),
    Arrow("class says retry", "settle", "leased", "scheduled", settles("defer")),
    Arrow("retry past its time", "settle", "leased", "dead", settles("defer", deadline=0)),
    Arrow("site slows, shutdown", "settle", "leased", "parked", settles("park")),
    Arrow("route is down", "settle", "leased", "parked", settles("park", down=True)),
    Arrow(
        "another way is open",
        "release",
        "read",
        "leased",
        lambda room, *_: room.release(),
        parked_where_one_of_two_ways_is_closed,
    ),
    Arrow(
        "the breaker holds its route", "settle", "leased", "parked", settles("dead", text="policy no"), breaker_trips
    ),
    Arrow("class says final", "settle", "leased", "dead", settles("dead")),
    Arrow("ambiguous, to be held", "settle", "leased", "held", settles("hold")),
    Arrow("asked to cancel while leased", "settle", "leased", "", settles("defer"), asked_to_cancel),
    Arrow("asked to cancel before it was read", "admit", "read", "", admits(), asked_to_cancel),
    Arrow("a late 250", "admit", "read", "", admits(), a_250_that_comes_late),
    Arrow("too old when read", "admit", "read", "dead", admits(deadline=0)),
    *(
        Arrow(f"{verb}, {start}", "move", start, end, moves(verb))
        for verb, end in (("cancel", ""), ("bounce", "dead"), ("expire", "dead"))
        for start in ("waiting", "parked", "scheduled", "held")
    ),
    *(Arrow(f"hold, {start}", "move", start, "held", moves("hold")) for start in ("parked", "scheduled")),
    Arrow("its fields are known now", "adopt", "held", "leased", lambda room, e, _: room.scripts.adopt("w1", [e])),
    Arrow("release of a held one", "move", "held", "scheduled", moves("unhold")),
    *(
        Arrow(
            f"too old, {start}",
            "expire",
            start,
            "dead",
            lambda room, *_: room.scripts.expire([DAY, DAY, DAY]),
            a_day_passes,
        )
        for start in ("waiting", "parked", "held")
    ),
    *(
        Arrow(
            f"ended before the server lost its last second, {start}",
            "resettle",
            start,
            "",
            lambda room, entry, _: room.scripts.resettle([ResettleRow(entry, entry, "email.relayed", b"", b"", "x.1")]),
        )
        for start in ("waiting", "leased", "parked", "scheduled", "held")
    ),
    *(
        Arrow(f"group gone, {start}", "open", start, end, lambda room, *_: room.spool.open(), its_group_is_gone)
        for start, end in (
            ("read", "waiting"),
            ("leased", "waiting"),
            ("parked", "parked"),
            ("scheduled", "scheduled"),
            ("held", "held"),
        )
    ),
    Arrow(
        "mended",
        "repair",
        "leased",
        "scheduled",
        lambda room, entry, _: room.scripts.repair([(entry, "lost")]),
        it_stands_in_none,
    ),
]

# Scripts that move no mail, and why they exist.
NO_ARROW = {
    "requeue": "its arrow starts at a dead letter: the test below",
    "hush": "blanks reasons: test_hush",
    "bounds": "looks how full the queue is, and says so: test_bounds",
    "anew": "makes a stream anew, in which each mail stays where it is: test_anew",
    "discard": "dead letters, not mails",
    "trim": "dead letters, not mails",
    "heartbeat": "a lease stays a lease",
    "mark": "says before the dot that it goes out",
    "grant": "connections, not mails",
    "measure": "how fast mails went, not mails",
    "renew": "slots that leases have, not mails",
    "turn": "slots; a lease stays a lease",
    "pause": "closes a route, or opens it; its mails stay where they are",
    "leader": "which process sweeps",
    "hear": "a webhook's events, not mails: test_webhook_listener",
    "heard": "a webhook's events, not mails: test_webhook_listener",
    "whose": "who delivers the queue: workers, or a `streamq up`",
    "template": "what mails are built of, no mail",
    "limits": "limits, not mails",
    "reap": "consumers, not mails",
    "find": "looks up an id",
    "search": "looks for an id, or an address",
    "check": "looks, changes nothing",
    "gauge": "looks at limits, takes nothing",
    "heads": "looks at the oldest, takes nothing",
}


async def _place(room: Mailroom, entry: str) -> str:
    state = await room.state(entry)
    if state:
        return state
    return "dead" if any(fields["dead_entry"] == entry for _, fields in await room.letters()) else ""


@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: arrow.name)
async def test_an_arrow_is_one_call(room: Mailroom, arrow: Arrow) -> None:
    lease = Lease("", 0, "w1")
    if arrow.start == "leased":
        lease = await room.lease(id="a1", to="bob@example.net")
        entry = lease.entry
    elif arrow.start == "read":
        entry = await room.add(id="a1", to="bob@example.net")
        assert await room.read() == [entry]
    else:
        entry = await room.in_state(arrow.start, id="a1", to="bob@example.net")
    if arrow.before:
        await arrow.before(room, entry)
    calls = dict(room.spool.caller.calls)
    await arrow.step(room, entry, lease)
    made = {
        verb: many - calls.get(verb, 0) for verb, many in room.spool.caller.calls.items() if many != calls.get(verb, 0)
    }
    assert made == {arrow.verb: 1}
    assert await _place(room, entry) == arrow.end


async def test_a_dead_letter_is_waiting_again_in_one_call(room: Mailroom) -> None:
    await room.settle("dead", await room.lease())
    [(letter, _)] = await room.letters()
    [entry] = await room.scripts.requeue([letter])
    assert room.spool.caller.calls["requeue"] == 1
    assert (await _place(room, entry), await room.letters()) == ("waiting", [])


def test_every_script_is_in_the_diagram_or_has_a_reason() -> None:
    drawn = {arrow.verb for arrow in ARROWS}
    assert not drawn & set(NO_ARROW)
    assert drawn | set(NO_ARROW) == set(VERBS)
