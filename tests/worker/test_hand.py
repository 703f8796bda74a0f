"""The hand: what a process holds, how much more it may take, and who is told when that changes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.mail import Mail
from streamq.worker import hand as hand_file
from streamq.worker.hand import Delivery, Hand


def test_a_newer_lease_of_what_is_here_is_taken() -> None:
    """Parked and released again before the reply that said so was read."""
    hand = Hand(5)
    hand.add(held("11-1", 17))
    assert hand.claim(["11-1"]) == set()
    assert hand.claim(["11-1"], 17) == set()
    assert hand.claim(["11-1"], 18) == {"11-1"}
    assert hand.claim(["11-1"], 18) == set()  # once
    hand.drop_lease("11-1", 17)
    hand.add(held("11-1", 18))
    hand.drop_lease("11-1", 17)
    assert hand.leases() == [("11-1", 18)]


def test_a_lease_of_what_is_being_admitted_is_taken() -> None:
    """Admission parked it, a release gave it back, and the release's reply was read first."""
    hand = Hand(5)
    assert hand.claim(["11-1"]) == {"11-1"}
    assert hand.claim(["11-1"]) == set()
    assert hand.claim(["11-1"], 18) == {"11-1"}
    hand.let_go("11-1", 0)  # the word of admission
    assert "11-1" in hand
    hand.let_go("11-1", 18)
    assert "11-1" not in hand


def held(entry: str, token: int = 17, size: int = 100) -> Delivery:
    return Delivery(
        envelope_from="",
        envelope_to="bob@example.net",
        content=b"x" * size,
        site="example.net",
        entry=entry,
        token=token,
        lane="relay|example.net",
        way="relay",
        mail=cast(Mail, SimpleNamespace()),
        deadline_ms=0,
    )


def test_room_is_what_neither_pending_nor_held_takes() -> None:
    hand = Hand(3)
    hand.pending.update(dict.fromkeys(["1-0", "2-0"], 0))
    assert (hand.room, len(hand)) == (1, 2)
    hand.add(held("1-0"))  # from pending to held: it counts once
    assert (hand.room, len(hand)) == (1, 2)
    assert "1-0" in hand
    assert "2-0" in hand
    assert "3-0" not in hand


def test_the_size_is_soft_and_room_never_negative() -> None:
    hand = Hand(2)
    hand.pending.update(dict.fromkeys(["1-0", "2-0", "3-0"], 0))
    assert (hand.room, len(hand)) == (0, 3)


def test_large_mails_leave_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_file, "HAND_BYTES", 1000)
    hand = Hand(100)
    hand.add(held("1-0", size=999))
    assert hand.room == 99
    hand.add(held("2-0", size=1))
    assert hand.room == 0
    hand.drop("1-0")
    assert hand.room == 99


def test_a_hand_in_which_slots_run_out_holds_fewer_for_a_while() -> None:
    hand = Hand(100, 40)
    hand.ran_out(30)
    assert hand.room == 70
    hand.ran_out(1000)
    assert hand.room == 40, "enough for its connections"
    for number in range(3100):
        hand.add(held(f"1-{number}"))
        hand.drop(f"1-{number}")
        assert hand.room <= 100
        if number == 499:
            assert hand.room in {49, 50}
    assert hand.room == 100
    small = Hand(10, 40)
    small.ran_out(5)
    assert small.room == 10, "no more than there may be"


def test_what_waits_for_admission_is_renewed_too() -> None:
    hand = Hand(10)
    hand.claim(["11-1"])  # read: its delivery count is 1
    hand.claim(["12-1"], 40)  # taken back
    hand.add(held("13-1", token=17))
    assert sorted(hand.beating()) == [("11-1", 1), ("12-1", 40), ("13-1", 17)]


async def test_nobody_waits_for_a_hand_that_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_file, "HAND_BYTES", 1000)
    hand = Hand(10)
    assert await hand.lighter()
    hand.add(held("1-0", size=1000))
    waiting = asyncio.create_task(hand.lighter())
    await asyncio.sleep(0)
    hand.drop("1-0")
    assert await waiting
    hand.add(held("1-0", size=1000))
    waiting = asyncio.create_task(hand.lighter())
    await asyncio.sleep(0)
    hand.close()
    assert not await waiting


def test_a_lease_that_comes_again_counts_once() -> None:
    hand = Hand(10)
    hand.add(held("1-0", token=17, size=500))
    hand.add(held("1-0", token=18, size=700))
    assert (len(hand), hand.bytes, hand.leases()) == (1, 700, [("1-0", 18)])


def test_only_the_lease_that_is_meant_is_dropped() -> None:
    """The same entry may have come back under a new token while the old one's end was under way."""
    hand = Hand(10)
    hand.add(held("1-0", token=18))
    hand.drop_lease("1-0", 17)
    assert "1-0" in hand
    hand.drop_lease("1-0", 18)
    assert "1-0" not in hand
    hand.drop_lease("1-0", 18)
    assert (len(hand), hand.bytes) == (0, 0)


OPS = st.lists(
    st.tuples(st.sampled_from(["pend", "add", "drop", "drop_lease"]), st.integers(0, 5), st.integers(17, 19)),
    max_size=60,
)


@given(OPS)
def test_whatever_happens_it_adds_up(ops: list[tuple[str, int, int]]) -> None:
    hand = Hand(4)
    model: dict[str, tuple[int, int]] = {}
    pending: set[str] = set()
    for op, number, token in ops:
        entry = f"{number}-0"
        if op == "pend" and entry not in model:
            hand.pending[entry] = 0
            pending.add(entry)
        elif op == "add":
            hand.add(held(entry, token, size=number * 10))
            pending.discard(entry)
            model[entry] = (token, number * 10)
        elif op == "drop":
            hand.drop(entry)
            pending.discard(entry)
            model.pop(entry, None)
        elif op == "drop_lease":
            hand.drop_lease(entry, token)
            if model.get(entry, (0, 0))[0] == token:
                del model[entry]
        assert sorted(hand.leases()) == sorted((name, token) for name, (token, _) in model.items())
        assert hand.bytes == sum(size for _, size in model.values())
        assert hand.room == max(0, 4 - len(model) - len(pending))


async def _settle() -> None:
    """Lets everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["drop", "drop_lease", "wake"])
async def test_changed_returns_when_something_has_left(how: str) -> None:
    hand = Hand(1)
    hand.add(held("1-0"))
    waits = asyncio.create_task(hand.changed())
    await _settle()
    assert not waits.done()
    calls: dict[str, Any] = {
        "drop": lambda: hand.drop("1-0"),
        "drop_lease": lambda: hand.drop_lease("1-0", 17),
        "wake": hand.wake,
    }
    calls[how]()
    await waits


async def test_what_left_before_the_call_counts_once() -> None:
    hand = Hand(1)
    hand.drop("1-0")
    await hand.changed()
    again = asyncio.create_task(hand.changed())
    await _settle()
    assert not again.done()
    hand.wake()
    await again


async def test_all_that_wait_are_told() -> None:
    """Reader and releaser wait for the same hand."""
    hand = Hand(1)
    both = [asyncio.create_task(hand.changed()) for _ in range(2)]
    await _settle()
    hand.drop("1-0")
    await asyncio.gather(*both)
