from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from sink_client import dial, envelope

from streamq.errors import SettingsError
from streamq.sink import Connections, Greylist, Penalty, Rate, Rule, Rules, Sink
from streamq.sink.limits import Guard, Limit, Visitor


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


HERE = Visitor("127.0.0.1")


def guarded(*limits: Limit) -> tuple[Guard, Clock]:
    clock = Clock()
    return Guard(limits, clock), clock


def passes(guard: Guard, stage: str = "mail", who: Visitor = HERE, subject: str = "b@x") -> bool:
    subject = who.sender if stage == "mail" else subject
    return guard.refusal(stage, who, (subject,)) == b""


def test_a_rate_holds_in_every_window_and_uses_all_of_it() -> None:
    guard, clock = guarded(Rate(most=3, seconds=10))
    passed = []
    for step in range(400):
        clock.now = 1000 + step * 0.37
        if passes(guard):
            passed.append(clock.now)
    for start in passed:
        assert sum(start <= time < start + 10 for time in passed) <= 3
    assert len(passed) > 3 * 400 * 0.37 / 10 * 0.9


def test_what_is_refused_counts_only_where_it_shall() -> None:
    for count_refused, passed in ((False, 4), (True, 2)):
        guard, clock = guarded(Rate(most=2, seconds=10, count_refused=count_refused))
        found = 0
        for second in range(12):
            clock.now = 1000.0 + second
            found += passes(guard)
        assert found == passed


def test_several_windows_count_only_what_all_let_through() -> None:
    guard, clock = guarded(Rate(most=1, seconds=1), Rate(most=3, seconds=100))
    found = []
    for half_second in range(20):
        clock.now = 1000 + half_second / 2
        found.append(passes(guard))
    assert found == [True, False] * 3 + [False] * 14
    clock.now = 1100
    assert passes(guard)


@pytest.mark.parametrize(
    ("per", "stage", "same", "other"),
    [
        ("address", "mail", Visitor("127.0.0.1", "a@x"), Visitor("127.0.0.2", "a@x")),
        ("sender", "mail", Visitor("127.0.0.1", "a@x"), Visitor("127.0.0.1", "b@x")),
        ("user", "mail", Visitor("127.0.0.1", "", "shop"), Visitor("127.0.0.1", "", "office")),
    ],
)
def test_each_has_its_own_count(per: str, stage: str, same: Visitor, other: Visitor) -> None:
    guard, _ = guarded(Rate(most=1, seconds=10, per=per))  # type: ignore[arg-type]
    assert [passes(guard, stage, who) for who in (same, same, other, other)] == [True, False, True, False]


def test_recipients_and_domains_have_their_own_counts() -> None:
    guard, _ = guarded(Rate(most=2, seconds=9, per="domain", stage="rcpt"), Rate(most=1, per="recipient", stage="rcpt"))
    names = ("a@x", "A@X", "b@x", "c@x", "c@y")
    assert [passes(guard, "rcpt", subject=name) for name in names] == [True, False, True, False, True]


def test_match_narrows_a_rate() -> None:
    guard, _ = guarded(Rate(most=1, stage="rcpt", match="slow.example"))
    names = ("a@slow.example", "b@x", "b@slow.example", "b@x")
    assert [passes(guard, "rcpt", subject=name) for name in names] == [True, True, False, True]


def test_greylisting_lets_in_who_comes_again_after_its_time() -> None:
    guard, clock = guarded(Greylist(seconds=300, keep_seconds=1000))
    first = Visitor("127.0.0.1", "a@x")
    assert not passes(guard, "rcpt", first)
    clock.now += 299
    assert not passes(guard, "rcpt", first)
    clock.now += 1
    assert passes(guard, "rcpt", first)
    for other in (Visitor("127.0.0.2", "a@x"), Visitor("127.0.0.1", "c@x")):
        assert not passes(guard, "rcpt", other)
    clock.now += 1000
    assert passes(guard, "rcpt", first)
    clock.now += 1001
    assert not passes(guard, "rcpt", first)


def test_the_penalty_box_lengthens_for_who_goes_on_knocking() -> None:
    box = Penalty(offences=2, within_seconds=10, block_seconds=30, factor=2, longest_seconds=100)
    guard, clock = guarded(Rate(most=1, seconds=5), box)
    assert passes(guard)
    assert not passes(guard)
    assert passes(guard, "greeting")
    assert not passes(guard)  # the second offence
    assert not passes(guard, "greeting")  # a knock: 60 from now
    clock.now += 59
    assert not passes(guard, "greeting")  # 100, no longer 120
    assert passes(guard, "greeting", Visitor("127.0.0.2"))
    clock.now += 99
    assert not passes(guard, "greeting")
    clock.now += 100
    assert passes(guard, "greeting")


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEYS", "TRIPLES"):
        monkeypatch.setattr(f"streamq.sink.limits.{name}", 2)
    guard, _ = guarded(Rate(most=1, per="sender"), Greylist(seconds=0.5))
    senders = [Visitor("127.0.0.1", name) for name in ("a", "b", "c")]
    assert all(passes(guard, "mail", who) for who in senders)
    assert [passes(guard, "mail", who) for who in senders[::-1]] == [False, False, True]  # a was pushed out
    monkeypatch.setattr("streamq.sink.limits.STAMPS", 3)
    guard, _ = guarded(Rate(most=3, seconds=9, per="sender"))
    for _ in range(3):
        assert passes(guard, "mail", senders[0])
    assert not passes(guard, "mail", senders[0])
    assert passes(guard, "mail", senders[1])
    assert passes(guard, "mail", senders[0])


@pytest.mark.parametrize(
    ("kind", "entries", "words"),
    [
        (Connections, {"most": 0}, "most: .*0"),
        (Connections, {"most": 1, "per": "sender"}, "per: not one of address, all"),
        (Connections, {"most": 1, "reply": "250 yes"}, "reply: not a refusal .*250 yes"),
        (Rate, {"most": 1, "seconds": 0}, "seconds: .*0"),
        (Rate, {"most": 1, "per": "domain"}, "per: needs stage"),
        (Rate, {"most": 2_000_000}, "most: .*2000000"),
        (Rate, {"most": 1, "count_refused": 1}, "count_refused: .*1"),
        (Greylist, {"seconds": float("nan")}, "seconds: .*nan"),
        (Penalty, {"factor": 0.5}, "factor: .*0.5"),
        (Penalty, {"stage": "rcpt"}, "stage: not one of greeting, mail"),
    ],
)
def test_what_makes_no_limit(kind: type, entries: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        kind(**entries)


async def test_connections_beyond_the_limit_get_421_and_leave_no_trace() -> None:
    limits = (Connections(most=2, reply="421 4.7.0 too many"),)
    async with Sink(rules=Rules(limits=limits)) as sink:
        for _ in range(3):
            async with AsyncExitStack() as stack:
                for _ in range(2):
                    await stack.enter_async_context(dial(sink))
                third = await stack.enter_async_context(dial(sink, hello=False))
                assert await third.reply() == "421 4.7.0 too many"
                assert await third.end() == b""
                sink.follow(Rules(limits=(Connections(most=2, per="all"),)))
                fourth = await stack.enter_async_context(dial(sink, hello=False))
                assert (await fourth.codes(1)) == ["421 4.7.0"]
                sink.follow(Rules(limits=limits))
            await sink.wait_until(lambda: sink.counters.open == 0)
        assert sink.counters.connections_refused == 6
        assert sink.counters.replies["greeting 220"] == 6


async def test_limits_in_a_session() -> None:
    clock = Clock()
    limits = (Rate(most=2, seconds=60), Rate(most=3, seconds=86_400, reply="550 5.4.5 Daily quota"))
    async with Sink(rules=Rules(limits=limits), clock=clock, windows=(60.0,)) as sink, dial(sink) as client:
        assert [await client.mail() for _ in range(3)] == ["250 2.0.0", "250 2.0.0", "450 4.7.1"]
        clock.now += 60
        assert [await client.mail() for _ in range(2)] == ["250 2.0.0", "550 5.4.5"]
        sink.follow(Rules((Rule(match="gone@*", reply="550"),), limits=limits))  # the same limits know what was
        assert await client.mail() == "550 5.4.5"
        clock.now += 86_400
        assert await client.mail() == "250 2.0.0"
        assert sink.windows is not None
        assert sink.windows.most == {60.0: 2}


async def test_senders_and_connections_have_their_own_counts() -> None:
    limits = (
        Rate(most=1, per="sender", seconds=9),
        Rate(most=2, per="connection", seconds=9, reply="421 4.7.0 enough"),
    )
    async with Sink(rules=Rules(limits=limits), clock=Clock()) as sink:
        async with dial(sink) as client:
            assert await client.asked("MAIL FROM:<a@x>", "RSET", "MAIL FROM:<A@x>") == [
                "250 2.1.0",
                "250 2.0.0",
                "450 4.7.1",
            ]
            assert await client.asked("MAIL FROM:<>", "RSET", "MAIL FROM:<c@x>") == [
                "250 2.1.0",
                "250 2.0.0",
                "421 4.7.0",
            ]
        async with dial(sink) as client:
            assert await client.asked("MAIL FROM:<>", "MAIL FROM:<c@x>") == ["450 4.7.1", "250 2.1.0"]


async def test_who_was_let_in_past_a_limit_is_counted_once() -> None:
    rules = Rules((Rule(stage="greeting", action="silent", times=1),), limits=(Connections(most=1),))
    async with Sink(rules=rules) as sink:
        async with dial(sink, hello=False):  # it is inside, and no limit was asked
            await sink.wait_for(1, "dropped")
            async with dial(sink, hello=False) as client:
                assert await client.codes(1) == ["421 4.7.0"]
        await sink.wait_until(lambda: sink.counters.open == 0)
        async with dial(sink), dial(sink, hello=False) as client:
            assert await client.codes(1) == ["421 4.7.0"]


async def test_a_rule_that_refuses_uses_up_no_limit() -> None:
    rules = Rules((Rule(stage="mail", reply="451", times=2),), limits=(Rate(most=1, seconds=60),))
    async with Sink(rules=rules, clock=Clock()) as sink, dial(sink) as client:
        codes = [await client.mail() for _ in range(4)]
        assert codes == ["451 4.3.0", "451 4.3.0", "250 2.0.0", "450 4.7.1"]


async def test_greylisting_in_a_session() -> None:
    clock = Clock()
    async with Sink(rules=Rules(limits=(Greylist(seconds=60),)), clock=clock) as sink, dial(sink) as client:
        await client.send(envelope("b@x"))
        assert await client.codes(3) == ["250 2.1.0", "451 4.7.1", "554 5.5.1"]
        clock.now += 60
        assert await client.asked("RSET") == ["250 2.0.0"]
        assert await client.mail("b@x") == "250 2.0.0"
