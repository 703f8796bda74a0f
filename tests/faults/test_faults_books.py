"""The books of a fault run find what they are kept for."""

from __future__ import annotations

from bench.faults.books import Event, Verdict, judge


def _sent(*names: str) -> list[Event]:
    return [Event("email.relayed", name, f"1{name}") for name in names]


def _marked(name: str) -> Event:
    return Event("email.ambiguous", name, f"1{name}")


def test_all_is_well() -> None:
    found = judge({"a", "b"}, ["b", "a"], _sent("a", "b"))
    assert found == Verdict(mails=2, accepted=2)
    assert found.kept


def test_a_mail_that_nobody_has_is_lost_whatever_the_events_say() -> None:
    assert judge({"a", "b"}, ["a"], _sent("a", "b")).lost == 1
    found = judge({"a", "b"}, ["a"], _sent("a"))
    assert found.lost == 1
    assert not found.kept


def test_a_dead_letter_is_no_loss() -> None:
    found = judge({"a"}, [], [Event("email.bounced", "a", "1a")])
    assert (found.lost, found.dead, found.kept) == (0, 1, True)


def test_a_double_needs_a_mark_and_a_fault() -> None:
    twice = ["a", "a"]
    found = judge({"a"}, twice, _sent("a"))
    assert (found.doubles, found.unmarked, found.unexplained, found.kept) == (1, 1, 1, False)
    assert not judge({"a"}, twice, [_marked("a"), *_sent("a")]).kept, "no fault had it"
    assert not judge({"a"}, twice, _sent("a"), {"a"}).kept, "no mark"
    assert judge({"a"}, twice, [_marked("a"), *_sent("a")], {"a"}).kept
    assert judge({"a"}, twice, [_marked("a"), *_sent("a")], suspected_entries={"1a"}).kept
    assert judge({"a"}, [*twice, "a"], [_marked("a"), *_sent("a")], {"a"}).unmarked == 1, "three need two marks"


def test_marks_that_nobody_needed_have_a_bound() -> None:
    said = [_marked("a"), *_sent("a")]
    assert judge({"a"}, ["a"], said, allowed=1).kept
    found = judge({"a"}, ["a"], said)
    assert (found.unneeded, found.kept) == (1, False)


def test_two_ends_and_none() -> None:
    assert judge({"a"}, ["a"], [*_sent("a"), *_sent("a")]).twice_told == 1
    assert judge({"a"}, ["a"], []).untold == 1
    assert judge({"a"}, ["a"], [*_sent("a"), Event("email.duplicate", "a", "2a")]).kept


def test_what_is_wrong_or_left_is_not_kept() -> None:
    assert not Verdict(wrong=["lost 11-0"]).kept
    assert not Verdict(left=["a key"]).kept
