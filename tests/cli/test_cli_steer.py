"""retry, hold, unhold, cancel, bounce: by id, by choice, as rules; what they say, ask and leave alone."""

from __future__ import annotations

import pytest
from mailroom import Lease, Mailroom, ident

from cli.conftest import Fill, hostile, intents
from cli.shell import steers, streamq
from streamq.queue.connection import pipelined
from streamq.queue.spool import Spool
from streamq.queue.steer import rules, set_rule

pytestmark = pytest.mark.leaves_mail
WOULD = "would be a standing rule"
VERBS = ("retry", "hold", "unhold", "cancel", "bounce")


async def state(queue: Mailroom, entry: str) -> str:
    return await queue.state(entry)


async def snapshot(queue: Mailroom) -> tuple[object, ...]:
    """All that a command may change."""
    holds = await queue.do("HGETALL", queue.keys.holds)
    schedule = await queue.do("ZRANGE", queue.keys.schedule, 0, -1, "WITHSCORES")
    return await queue.states(), holds, schedule, await queue.kinds(), await queue.letters()


# -- by id -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "before", "after", "status"),
    [
        ("retry", "scheduled", "scheduled", "scheduled"),
        ("retry", "parked", "parked", "parked"),
        ("hold", "scheduled", "held", "held"),
        ("hold", "parked", "held", "held"),
        ("hold", "leased", "leased", "intended"),
        ("hold", "waiting", "waiting", "intended"),
        ("unhold", "held", "scheduled", "scheduled"),
        ("cancel", "waiting", "", "cancelled"),
        ("cancel", "leased", "leased", "intended"),
        ("cancel", "parked", "", "cancelled"),
        ("cancel", "scheduled", "", "cancelled"),
        ("cancel", "held", "", "cancelled"),
        ("bounce", "scheduled", "", "bounced"),
    ],
)
async def test_a_verb_on_one_mail(queue: Mailroom, fill: Fill, verb: str, before: str, after: str, status: str) -> None:
    entries = await fill()
    entry = entries[f"low-{before}"]
    said = await streamq(verb, entry)
    assert (said.code, said.out) == (0, f"{verb}: 1 {status}\n")
    assert ("intended" in said.err) == (status == "intended")
    assert await state(queue, entry) == after
    others = {other: where for other, where in (await queue.states()).items() if other != entry}
    assert others == {other: name.split("-")[1] for name, other in entries.items() if other != entry}


async def test_a_producers_id_and_its_tenant(queue: Mailroom) -> None:
    entries = {}
    for tenant in ("", "acme"):
        entries[tenant] = entry = await queue.add(id="a1", tenant=tenant)
        await queue.read()
        await queue.admitted(entry, seen=ident("a1", tenant), due=queue.now + 60_000)
    assert (await streamq("cancel", "a1", "--tenant", "acme")).code == 0
    assert await queue.states() == {entries[""]: "scheduled"}
    assert (await streamq("cancel", "a1")).code == 0
    assert await queue.states() == {}


async def test_several_ids_are_asked_for(queue: Mailroom, fill: Fill) -> None:
    entries = await fill()
    both = (entries["low-held"], entries["low-parked"])
    said = await streamq("cancel", *both)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("cancel 2 mails? No terminal to ask: say --yes")
    assert len(await queue.states()) == 15
    said = await streamq("cancel", *both, both[0], "--yes", "--json")
    assert said.json == {"verb": "cancel", "mails": 2, "dry_run": False, "statuses": {"cancelled": 2}, "rules": {}}


async def test_what_has_ended_is_missing(queue: Mailroom) -> None:
    entry = await queue.add(id="a1")
    await queue.read()
    found = await queue.admit(entry, seen=ident("a1"))
    assert await queue.settled("sent", Lease(entry, found.token, "w1")) == "ok"
    said = await streamq("cancel", "a1")
    assert (said.code, said.out) == (1, "cancel: 1 missing\n")
    assert said.err.startswith("missing: has ended already")
    for verb in VERBS:
        said = await streamq(verb, entry)
        assert (said.code, said.out) == (1, "")
        assert entry in said.err
    assert await rules(queue.spool) == {}


@pytest.mark.parametrize("verb", ["retry", "bounce", "unhold"])
async def test_an_id_not_seen_yet_is_unknown(queue: Mailroom, verb: str) -> None:
    said = await streamq(verb, "a1")
    assert (said.code, said.out) == (1, "")
    assert "'a1'" in said.err
    assert await rules(queue.spool) == {}


@pytest.mark.parametrize(("verb", "done"), [("hold", "held"), ("cancel", "cancelled")])
async def test_an_id_not_seen_yet_becomes_a_rule(queue: Mailroom, verb: str, done: str) -> None:
    said = await streamq(verb, "a1", "--dry-run")
    assert said.code == 0
    assert "dry run" in said.out
    assert await rules(queue.spool) == {}
    said = await streamq(verb, "a1")
    assert said.code == 0
    assert said.out.startswith(
        f"a1: nothing in the queue has this id now: a rule stands, {done} when it comes; mistyped? "
    )
    assert "`streamq unhold a1` drops it" in said.out
    assert await rules(queue.spool) == {"id:a1": verb}
    entry = await queue.add(id="a1")
    await queue.read()
    assert await queue.admitted(entry, id="a1", seen=ident("a1")) == [done]


@pytest.mark.parametrize("verb", ["hold", "cancel"])
async def test_an_id_whose_mail_has_ended_becomes_none(queue: Mailroom, verb: str) -> None:
    """A requeue of its dead letter would be carried off by it."""
    await queue.settle("dead", await queue.lease(id="a1"))
    said = await streamq(verb, "a1")
    assert said.code == 1
    assert "'a1' has ended" in said.err
    assert await rules(queue.spool) == {}
    assert (await streamq(verb, "a1", "--unseen")).code == 0
    assert await rules(queue.spool) == {"id:a1": verb}


@pytest.mark.parametrize(("verb", "done"), [("hold", "held"), ("cancel", "cancelled")])
async def test_an_id_that_comes_between_the_look_and_the_rule_slips_through_neither(
    queue: Mailroom, monkeypatch: pytest.MonkeyPatch, verb: str, done: str
) -> None:
    """Its lane is closed: it would wait there, and go."""

    async def late(spool: Spool, name: str, asked: str) -> None:
        meanwhile = Mailroom(spool)
        await meanwhile.parked()
        entry = await meanwhile.add(id="a1")
        await meanwhile.read()
        assert await meanwhile.admitted(entry, id="a1", seen=ident("a1")) == ["parked"]
        await set_rule(spool, name, asked)

    monkeypatch.setattr("streamq.cli.order.set_rule", late)
    said = await streamq(verb, "a1")
    assert (said.code, said.out) == (0, f"{verb}: 1 {done}\n")
    assert await rules(queue.spool) == {}
    assert sorted((await queue.states()).values()) == (["held", "parked"] if verb == "hold" else ["parked"])


async def test_such_a_rule_is_forgotten_by_unhold(queue: Mailroom) -> None:
    assert (await streamq("cancel", "a1", "--tenant", "acme", "--json")).json["rules"].keys() == {"a1"}
    assert await rules(queue.spool) == {"id:a1\nacme": "cancel"}
    assert (await streamq("unhold", "a1")).code == 1
    assert (await streamq("unhold", "a1", "--tenant", "acme", "--dry-run")).code == 0
    assert await rules(queue.spool) == {"id:a1\nacme": "cancel"}
    said = await streamq("unhold", "a1", "--tenant", "acme")
    assert said.code == 0
    assert "forgotten" in said.out
    assert await rules(queue.spool) == {}


async def test_an_id_like_an_order_number_may_be_a_rule_and_a_gone_entry_not(queue: Mailroom) -> None:
    assert (await streamq("cancel", "2023-17")).code == 0
    assert await rules(queue.spool) == {"id:2023-17": "cancel"}
    assert (await streamq("cancel", f"1{queue.now}-17")).code == 1
    assert await rules(queue.spool) == {"id:2023-17": "cancel"}


# -- by choice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["cancel", "--all"], {"leased": "leased"}),
        (["cancel", "--domain", "LOW.example"], None),
        (["cancel", "--priority", "low"], None),
        (["cancel", "--priority", "low", "--domain", "low.example"], None),
        (["cancel", "--priority", "low", "--domain", "high.example"], {}),
    ],
)
async def test_cancel_by_choice(queue: Mailroom, fill: Fill, words: list[str], names: dict[str, str] | None) -> None:
    entries = await fill()
    many = 15 if "--all" in words else 0 if names == {} else 5
    said = await streamq(*words, "--yes", "--json")
    leased = many // 5
    statuses = {"cancelled": many - leased, "intended": leased} if many else {}
    assert (said.code, said.json["mails"], said.json["statuses"]) == (0, many, statuses)
    left = set((await queue.states()).values())
    assert len(await queue.states()) == 15 - (many - leased)
    assert left == ({"leased"} if many == 15 else {"waiting", "leased", "parked", "scheduled", "held"})
    assert set((await intents(queue)).values()) <= {"cancel"}
    assert entries


@pytest.mark.parametrize(
    ("words", "many"),
    [
        (["retry", "--all"], 6),
        (["hold", "--domain", "low.example"], 4),
        (["hold", "--all"], 12),
        (["unhold", "--all"], 3),
        (["cancel", "--all"], 15),
        (["bounce", "--domain", "low.example"], 5),
    ],
)
async def test_dry_run_and_no_answer_change_nothing(queue: Mailroom, fill: Fill, words: list[str], many: int) -> None:
    await fill()
    before = await snapshot(queue)
    said = await streamq(*words, "--dry-run")
    *rules, last = said.out.splitlines()
    assert (said.code, last) == (0, f"{words[0]}: {many} mails (dry run: nothing was changed)")
    standing = words[0] == "hold"
    assert rules == ([f"{words[1][2:]}{':' * (len(words) > 2)}{''.join(words[2:])}: {WOULD}"] if standing else [])
    known = (await streamq(*words, "--dry-run", "--json")).json
    assert (known["mails"], list(known["rules"].values())) == (many, [WOULD] if standing else [])
    for stdin in (b"", b"y\n", None):
        said = await streamq(*words, stdin=stdin)
        assert (said.code, said.out) == (1, "")
        assert f"{words[0]} {many} mails?" in said.err
    assert await snapshot(queue) == before


async def test_one_mail_is_not_asked_for(queue: Mailroom) -> None:
    await queue.scheduled(to="bob@one.example", text="x")
    assert (await streamq("cancel", "--domain", "one.example")).out == "cancel: 1 cancelled\n"
    assert (await streamq("cancel", "--all")).out == "cancel: nothing to do\n"


async def test_bounce_leaves_dead_letters(queue: Mailroom, fill: Fill) -> None:
    await fill()
    assert (await streamq("bounce", "--domain", "low.example", "-y")).out == "bounce: 4 bounced, 1 intended\n"
    assert {fields["dead_class"] for _, fields in await queue.letters()} == {"operator"}


async def test_retry_is_now(queue: Mailroom, fill: Fill) -> None:
    entries = await fill()
    said = await streamq("retry", "--all", "--yes")
    assert said.out == "retry: 3 parked, 3 scheduled\n"
    scores = await queue.do("ZRANGE", queue.keys.schedule, 0, -1, "WITHSCORES")
    seconds, _ = await queue.do("TIME")
    assert {name.decode() for name in scores[::2]} == {entries[f"{p}-scheduled"] for p in ("high", "normal", "low")}
    assert all(float(score) > (int(seconds) - 600) * 1000 for score in scores[1::2])


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name mails by ID"),
        (["a1", "--domain", "example.net"], "either IDs or a choice"),
        (["a1", "--all"], "either IDs or a choice"),
        (["--all", "--domain", "example.net"], "name mails by ID"),
        (["--domain", ""], "--domain: empty (got '')"),
        (["--domain", "a b"], "--domain: not a domain name (got 'a b')"),
        (["--priority", "urgent"], "--priority: one of high, normal, low (got 'urgent')"),
    ],
)
async def test_bad_words_exit_2(queue: Mailroom, verb: str, words: list[str], says: str) -> None:
    said = await streamq(verb, *words, "--yes")
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert await rules(queue.spool) == {}


async def test_a_rule_has_one_part(queue: Mailroom) -> None:
    said = await streamq("hold", "--domain", "example.net", "--tag", "x")
    assert said.code == 2
    assert "(got --domain, --tag)" in said.err
    assert await rules(queue.spool) == {}


@pytest.mark.usefixtures("queue")
async def test_a_wrong_time_is_named() -> None:
    said = await streamq("unhold", "--all", "--in", "40d")
    assert (said.code, "--in: longer than a mail may get old (STREAMQ_MAX_AGE, 5.0 d)" in said.err) == (2, True), said
    said = await streamq("unhold", "--all", "--in", "soon")
    assert (said.code, said.err) == (2, "streamq: --in: not a duration (write 90s, 5m, 1h, 5d): 'soon'\n")


# -- hostile mails, and many -------------------------------------------------------------------------------------


async def test_hostile_mails_are_steered_and_steer_nothing(queue: Mailroom) -> None:
    await hostile(queue)
    for words in (["hold", "--all"], ["unhold", "--all"], ["retry", "--all"], ["cancel", "--all"]):
        said = await streamq(*words, "--yes")
        assert said.code == 0
        assert steers(said.out + said.err) == set()
    assert set((await queue.states()).values()) == {"leased"}
    said = await streamq("cancel", "\x1b[31mred[bold]x")
    assert said.code == 0
    assert steers(said.out + said.err) == set()
    assert "[bold]x" in said.out


async def test_thousands_go_in_small_calls(queue: Mailroom) -> None:
    """No command and no script of it touches more than a page at once."""
    fields = ("to", "bob@big.example", "from", "shop@example.com", "text", "Hello")
    await pipelined(queue.spool.redis, [("XADD", queue.keys.stream("low"), "*", *fields) for _ in range(3000)])
    await queue.do("CONFIG", "RESETSTAT")
    said = await streamq("cancel", "--domain", "big.example", "--yes", "--json")
    assert said.json["statuses"] == {"cancelled": 3000}
    text = (await queue.do("INFO", "commandstats")).decode()
    calls = {
        line.partition(":")[0].removeprefix("cmdstat_"): int(line.partition("calls=")[2].partition(",")[0])
        for line in text.splitlines()
        if ":" in line
    }
    assert calls["evalsha"] >= 30
    assert calls["xdel"] == 3000
    assert await queue.states() == {}


async def classed(queue: Mailroom) -> dict[str, str]:
    """A mail in each state but waiting whose last reply, or reason, was of the class that its name begins with."""
    entries = {}
    for name, arg in {"greylisted": {}, "mailbox_full": {"class": "mailbox_full", "reply": "452 full"}}.items():
        lease = await queue.lease("low", to="bob@a.example", id=name)
        assert await queue.settled("defer", lease, **arg) == "ok"
        entries[name] = lease.entry
    entries["unknown_field"] = await queue.held("low", to="bob@a.example")
    entries["waiting"] = await queue.add("low", to="bob@b.example")
    return entries


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["retry", "--class", "greylisted"], ["greylisted"]),
        (["cancel", "--class", "unknown_field"], ["unknown_field"]),
        (["bounce", "--class", "mailbox_full", "--domain", "a.example"], ["mailbox_full"]),
        (["bounce", "--class", "mailbox_full", "--domain", "b.example"], []),
        (["unhold", "--class", "unknown_field"], ["unknown_field"]),
        (["hold", "--class", "greylisted"], ["greylisted"]),
    ],
    ids=lambda each: " ".join(each),
)
async def test_a_choice_by_class(queue: Mailroom, words: list[str], meant: list[str]) -> None:
    entries = await classed(queue)
    class_ = words[words.index("--class") + 1]
    listed = (await streamq("ls", "--class", class_, "--json")).json
    assert [entries[class_]] == [each["entry"] for each in listed]
    before = await snapshot(queue)
    assert (await streamq(*words, "--dry-run", "--json")).json["mails"] == len(meant)
    assert await snapshot(queue) == before
    said = (await streamq(*words, "--yes", "--json")).json
    assert (said["mails"], sum(said["statuses"].values()), said["rules"]) == (len(meant), len(meant), {})
    schedule = dict.fromkeys((await queue.do("ZRANGE", queue.keys.schedule, 0, -1)), True)
    after = await queue.states()
    for name, entry in entries.items():
        was = before[0][entry]  # type: ignore[index]  # states
        match words[0] if name in meant else "":
            case "cancel" | "bounce":
                assert entry not in after
            case "hold":
                assert after[entry] == "held"
            case "retry" | "unhold":
                assert after[entry] == "scheduled"
                assert entry.encode() in schedule
            case _:
                assert after[entry] == was


async def test_that_its_events_push_out_others_is_said_before(queue: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_EVENTS_KEPT", "100")
    entries = [await queue.add() for _ in range(51)]
    words = "their 51 events push out the history of older mails: about 100 are kept, STREAMQ_EVENTS_KEPT"
    said = await streamq("cancel", "--all", "--dry-run")
    assert (said.out, said.err) == ("cancel: 51 mails (dry run: nothing was changed)\n", f"{words}\n")
    said = await streamq("cancel", "--all", stdin=b"n\n")
    assert f"cancel 51 mails ({words})?" in said.out + said.err
    assert (await streamq("cancel", *entries, "--yes", "--dry-run")).err == f"{words}\n"
    assert words not in (await streamq("cancel", *entries[1:], "--dry-run")).err
    assert words not in (await streamq("retry", *entries, "--yes", "--dry-run")).err
    said = await streamq("cancel", "--all", "--yes")
    assert (said.out, said.err) == ("cancel: 51 cancelled\n", f"{words}\n")
