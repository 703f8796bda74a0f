"""From reports to rows: every action, every policy of ambiguity."""

from __future__ import annotations

import pytest
from ended import ADDED, DEADLINE, ENTRY, NOW, arg, delivery, mail, outcomes, report, row, tail

from streamq.smtp.letter import Action, Scope, Stage
from streamq.worker.outcome import BREAKS_MOST, HINT_MOST_MS, PARKS_MOST, THROTTLED_MOST

# -- every action -----------------------------------------------------------------------------------------------


def test_sent_is_relayed() -> None:
    made = row(delivery(attempts=2), report(Action.SENT, enhanced="2.0.0", peer="mx[192.0.2.1]:25", tls="TLSv1.3"))
    assert (made.op, made.kind, made.id, made.arg) == ("sent", "email.relayed", "a1", b"")
    assert tail(made) == {
        "rcpt": "bob@example.net",
        "site": "example.net",
        "message_id": tail(made)["message_id"],
        "route": "relay",
        "peer": "mx[192.0.2.1]:25",
        "attempt": 3,
        "class": "sent",
        "code": 250,
        "enhanced": "2.0.0",
        "reply": "250 2.0.0 queued",
        "stage": "dot",
        "tls": "TLSv1.3",
        "queued_ms": 5000,
        "duration_ms": 0,
    }


def test_a_mail_without_an_id_goes_by_its_entry() -> None:
    assert row(delivery(mail(id="")), report(Action.SENT)).id == ENTRY


def test_a_mail_waits_from_send_at() -> None:
    late = mail(send_at=str(ADDED + 4_000))
    assert tail(row(delivery(late), report(Action.SENT)))["queued_ms"] == 1000


def test_retry_is_deferred() -> None:
    made = row(delivery(), report(Action.RETRY), jitter=0)
    assert (made.op, made.kind) == ("defer", "email.deferred")
    known = {"wait": 60_000, "deadline": DEADLINE, "reply": "451 4.7.1 later", "code": 451, "class": "greylisted"}
    assert arg(made) == known
    assert tail(made)["attempt"] == 1


@pytest.mark.parametrize("klass", ["site_rate", "route_rate", "recipient_rate"])
def test_a_throttle_is_told_as_one(klass: str) -> None:
    made = row(delivery(), report(Action.RETRY, klass=klass))
    assert (made.op, made.kind) == ("defer" if klass == "recipient_rate" else "throttled", "email.throttled")


def test_a_throttle_waits_longer_each_time() -> None:
    waits = [
        (said["wait"], said.get("park", False))
        for many in range(THROTTLED_MOST + 3)
        for said in [arg(row(delivery(notes={"throttled": many}), report(Action.RETRY, klass="route_rate"), jitter=0))]
    ]
    assert waits == [(60_000, True)] * THROTTLED_MOST + [(60_000, False), (300_000, False), (900_000, False)]


def test_a_throttle_says_whose_pace_it_is_and_what_that_was() -> None:
    made = outcomes()
    for at in range(40):
        made.row(delivery(), report(Action.SENT), NOW + at * 50)
    said = made.row(delivery(), report(Action.RETRY, klass="site_rate", scope=Scope.SITE, hint_ms=7), NOW + 2000)
    assert said is not None
    known = {"scope": "site", "took": 20.0, "took_way": 20.0, "hint": 7, "class": "site_rate"}
    assert {name: arg(said)[name] for name in known} == known
    said = made.row(
        delivery(lane="relay|example.org"), report(Action.RETRY, klass="route_rate", scope=Scope.ROUTE), NOW
    )
    assert said is not None
    assert arg(said)["scope"] == "route"


def test_greylisting_is_about_no_pace() -> None:
    assert row(delivery(), report(Action.RETRY, klass="greylisted")).op == "defer"


def test_fail_is_bounced() -> None:
    made = row(delivery(), report(Action.FAIL, about_recipient=True))
    assert (made.op, made.kind) == ("dead", "email.bounced")
    assert arg(made) == {
        "reason": "rcpt: 550 5.1.1 nobody",
        "reply": "550 5.1.1 nobody",
        "judged": True,
        "class": "bad_address",
    }


def test_what_is_not_about_a_recipient_is_counted_by_its_words() -> None:
    said = [
        report(Action.FAIL, klass="policy", code=554, enhanced="5.7.1", reply=f"554 5.7.1 {text}")
        for text in (
            "Rejected: see https://relay.example/help?id=4f2 (qid 4F2A1) for <bob@example.net>",
            "rejected: see https://relay.example/help?id=9c1 (qid 77B0) for <ann@example.org>",
            "Rejected: too big",
        )
    ]
    first, second, third = (arg(row(delivery(), each))["text"] for each in said)
    assert first == second != third
    assert len(arg(row(delivery(), report(Action.FAIL, reply="554 " + "no " * 400)))["text"]) <= 120
    assert "text" not in arg(row(delivery(), report(Action.FAIL, code=0, reply="", klass="too_large")))


def test_what_is_kept_of_a_reply_has_its_code() -> None:
    """A letter, a pace, what closed a way: none of these has the code beside it."""
    said = {"code": 450, "reply": "4.2.1 slow down"}
    failed = arg(row(delivery(), report(Action.FAIL, **said)))
    assert (failed["reply"], failed["reason"]) == ("450 4.2.1 slow down", "rcpt: 450 4.2.1 slow down")
    for known in ({"klass": "site_rate"}, {"klass": "greylisted"}):
        assert arg(row(delivery(), report(Action.RETRY, **said, **known)))["reply"] == "450 4.2.1 slow down"
    assert arg(row(delivery(), report(Action.PARK, **said)))["reply"] == "450 4.2.1 slow down"


def test_a_hint_for_a_parked_mail_is_honoured_and_capped() -> None:
    session = {"scope": Scope.SESSION, "stage": Stage.MAIL, "klass": "connection_limit"}
    assert arg(row(delivery(), report(Action.PARK, hint_ms=90_000, **session)))["wait"] == 90_000
    assert arg(row(delivery(), report(Action.PARK, hint_ms=10**9)))["hint"] == HINT_MOST_MS
    refused = row(delivery(notes={"parks": PARKS_MOST}), report(Action.PARK, stage=Stage.RCPT, hint_ms=70_000))
    assert (refused.op, arg(refused)["hint"]) == ("defer", 70_000)


def test_only_silence_may_be_our_own_trouble() -> None:
    assert "lonely" in arg(row(delivery(), report(Action.PARK)))
    assert "lonely" not in arg(row(delivery(), report(Action.PARK, code=535, klass="authentication", reply="535 no")))


def test_a_failure_without_a_reply_is_named_by_its_class() -> None:
    assert arg(row(delivery(), report(Action.FAIL, reply="", klass="too_large")))["reason"] == "rcpt: too_large"


def test_a_route_that_is_down_parks_and_is_no_attempt() -> None:
    made = row(delivery(attempts=1), report(Action.PARK))
    assert (made.op, made.kind, made.tail) == ("park", "", b"")
    assert arg(made) == {"down": True, "class": "unreachable", "reply": "", "hint": 0, "lonely": True}
    made = row(delivery(attempts=1), report(Action.PARK, stage=Stage.MAIL, tried=True))
    assert (made.op, made.kind, arg(made)["own"]) == ("park", "", True)


def test_a_mail_that_was_the_probe_too_often_is_judged_itself() -> None:
    """One mail that brings its route down each time would hold it up for as long as it lives."""
    again = delivery(attempts=1, notes={"parks": PARKS_MOST})
    made = row(again, report(Action.PARK, stage=Stage.MAIL, tried=True), jitter=0)
    assert (made.op, made.kind) == ("defer", "email.deferred")
    assert arg(made)["down"] is True
    assert tail(made)["attempt"] == 2
    for other in (
        report(Action.PARK, stage=Stage.MAIL, tried=False),  # parked unseen
        report(Action.PARK, stage=Stage.CONNECT, tried=True),  # it was not its doing
        report(Action.PARK, scope=Scope.SESSION, stage=Stage.MAIL, tried=True),
    ):
        assert row(again, other).op == "park"


def test_a_session_that_ends_before_it_judged_parks_for_at_once() -> None:
    made = row(delivery(), report(Action.PARK, scope=Scope.SESSION, stage=Stage.MAIL, klass="idle"))
    assert (made.op, made.kind, arg(made)) == ("park", "", {"wait": 0, "broke": True})


def test_a_mail_that_ends_every_session_is_judged_for_it() -> None:
    """Else it would go round at once, for ever, as long as others are judged between."""
    broke = report(Action.PARK, scope=Scope.SESSION, stage=Stage.MAIL, klass="disconnected")
    assert row(delivery(notes={"broke": BREAKS_MOST - 1}), broke).op == "park"
    made = row(delivery(notes={"broke": BREAKS_MOST}), broke)
    assert (made.op, made.kind, arg(made)["class"], "down" in arg(made)) == (
        "defer",
        "email.deferred",
        "disconnected",
        False,
    )
    for klass in ("interrupted", "slow"):
        ours = report(Action.PARK, scope=Scope.SESSION, stage=Stage.MAIL, klass=klass)
        made = row(delivery(notes={"broke": BREAKS_MOST}), ours)
        assert (made.op, "broke" in arg(made)) == ("park", False)


def test_sessions_that_go_on_ending_are_asked_ever_more_slowly() -> None:
    one = outcomes(in_hand=10)
    said = report(Action.PARK, scope=Scope.SESSION)

    def wait() -> int:
        made = one.row(delivery(), said, NOW)
        assert made is not None
        return int(arg(made)["wait"])

    waits = [wait() for _ in range(500)]
    assert waits[:30] == [0] * 30
    assert waits[30] > 0
    assert waits == sorted(waits)
    assert max(waits) <= 30_000
    one.row(delivery(), report(Action.SENT), NOW)  # it judges again
    assert wait() == 0


def test_parks_of_one_route_say_nothing_of_another() -> None:
    one = outcomes(in_hand=1)
    said = report(Action.PARK, scope=Scope.SESSION)
    for _ in range(20):
        one.row(delivery(lane="bad|example.net", way="bad"), said, NOW)
    made = one.row(delivery(lane="good|example.net", way="good"), said, NOW)
    assert made is not None
    assert arg(made) == {"wait": 0}


def test_an_abandoned_lease_is_nobodys_row() -> None:
    for mark in ("", "ok", "lost"):
        assert outcomes().row(delivery(mark=mark), report(Action.ABANDON), NOW) is None


def test_abandoned_since_it_was_sent_ends_as_sent() -> None:
    made = row(delivery(mark="sent"), report(Action.ABANDON))
    assert (made.op, made.kind) == ("sent", "email.relayed")


def test_handed_back_is_parked_untried() -> None:
    made = outcomes().handed_back(delivery())
    assert (made.op, made.kind, made.tail, arg(made)) == ("park", "", b"", {"wait": 0})


def test_every_action_has_a_row() -> None:
    for action in Action:
        assert row(delivery(mark="sent"), report(action)).op in {"sent", "dead", "defer", "park", "hold"}


# -- ambiguous --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "op", "kind"),
    [
        ("resend", "defer", "email.ambiguous"),
        ("hold", "hold", "email.held"),
        ("assume_delivered", "sent", "email.relayed"),
    ],
)
def test_an_ambiguous_end_follows_the_policy(policy: str, op: str, kind: str) -> None:
    made = row(delivery(), report(Action.AMBIGUOUS), on_ambiguous=policy)
    assert (made.op, made.kind) == (op, kind)
    assert arg(made)["ambiguous"] is True
    # The mail's own word wins.
    for other in ("resend", "hold", "assume_delivered"):
        made = row(delivery(mail(on_ambiguous=policy)), report(Action.AMBIGUOUS), on_ambiguous=other)
        assert (made.op, made.kind) == (op, kind)


def test_a_mail_that_ends_without_a_reply_is_known_by_its_content_all_the_same() -> None:
    """It may have been parked unlooked-at: its id with other content is no copy of it."""
    named = mail(id="a1")
    for end in (report(Action.SENT), report(Action.AMBIGUOUS)):
        made = row(delivery(named, unhashed=True), end, on_ambiguous="assume_delivered")
        assert (made.op, arg(made)["hash"]) == ("sent", int.from_bytes(named.content_hash))
    assert arg(made)["ambiguous"] is True
    assert "hash" not in arg(row(delivery(named), report(Action.AMBIGUOUS), on_ambiguous="assume_delivered"))


def test_an_ambiguous_mail_waits_for_its_retry() -> None:
    made = row(delivery(attempts=1), report(Action.AMBIGUOUS), retry="1s,2s", jitter=0)
    assert arg(made) == {"wait": 2000, "deadline": DEADLINE, "reply": "", "class": "timeout", "ambiguous": True}
    assert "ambiguous" not in arg(row(delivery(), report(Action.RETRY)))


@pytest.mark.parametrize("policy", ["resend", "hold", "assume_delivered"])
def test_an_ambiguous_mail_stays_with_its_route(policy: str) -> None:
    made = row(delivery(lane="first>second|example.net", way="second"), report(Action.AMBIGUOUS), on_ambiguous=policy)
    assert (made.lane, made.way, arg(made).get("ambiguous")) == ("first>second|example.net", "second", True)
    assert tail(made)["route"] == "second"


# -- a time of its own --------------------------------------------------------------------------------------------


def test_a_mail_that_was_too_slow_before_it_was_judged_parks_and_is_counted() -> None:
    """Its time doubles with what `notes` count."""
    made = row(delivery(), report(Action.PARK, scope=Scope.SESSION, stage=Stage.MAIL, klass="slow"))
    assert (made.op, made.kind, arg(made)) == ("park", "", {"wait": 0, "own": True})


def test_a_slow_server_costs_an_attempt_and_no_wait_but_once() -> None:
    said = report(Action.RETRY, scope=Scope.SESSION, stage=Stage.RCPT, klass="slow", code=0, reply="")
    made = row(delivery(), said, retry="1s,2s", jitter=0)
    assert (made.op, made.kind, arg(made)["wait"]) == ("defer", "email.deferred", 0)
    assert tail(made)["attempt"] == 1
    assert arg(row(delivery(attempts=1), said, retry="1s,2s", jitter=0))["wait"] == 2000


# -- waits ------------------------------------------------------------------------------------------------------

# -- who is told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pii", ["full", "hash"])
def test_a_reply_that_repeats_the_address_hides_it_where_the_event_must(pii: str) -> None:
    """Servers say who was refused; the queue's own notes and dead letters hold the mail with its address anyway."""
    told = report(Action.FAIL, reply="5.1.1 <bob@example.net>: nobody")
    made = outcomes(pii=pii).row(delivery(), told, NOW)
    assert made is not None
    assert (b"<bob@example.net>" in made.tail) == (pii == "full")
    assert (b"<sha256:" in made.tail) == (pii == "hash")
