"""dead ls, show, requeue, rm: by every kind of id, by class, all; bodies stay out of memory and off the terminal."""

from __future__ import annotations

import orjson
import pytest
from mailroom import Mailroom

from cli.conftest import EVIL
from cli.shell import steers, streamq
from streamq.queue.scripts import why
from streamq.queue.wording import plural

pytestmark = pytest.mark.leaves_mail


async def bury(queue: Mailroom, name: str, klass: str = "rejected", **fields: str | bytes) -> tuple[str, str]:
    """A mail that died: its letter, and the entry that it had."""
    known: dict[str, object] = {"id": name, "to": f"{name}@example.net", "subject": "Hi", "text": "Hello", **fields}
    lease = await queue.lease("low", lane=f"main|{name}.example", **known)  # type: ignore[arg-type]
    assert await queue.settled("dead", lease, **{"class": klass, "reason": f"rcpt: 550 {name}"}) == "ok"
    ((letter, _),) = await queue.do("XREVRANGE", queue.keys.dead, "+", "-", "COUNT", 1)
    return letter.decode(), lease.entry


async def names(queue: Mailroom) -> list[str]:
    return [fields["id"] for _, fields in await queue.letters()]


async def test_ls(queue: Mailroom) -> None:
    letter, entry = await bury(queue, "a1")
    await bury(queue, "b2", "mailbox_full")
    said = await streamq("dead", "ls")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split() == ["id", "class", "tries", "to", "reason"]
    assert lines[1].split() == [letter, "rejected", "1", "a1@example.net", "rcpt:", "550", "a1"]
    assert max(map(len, lines)) <= 80
    listed = (await streamq("dead", "ls", "--json")).json
    assert [one["id"] for one in listed] == ["a1", "b2"]
    assert listed[0] == {
        "letter": letter,
        "dead_entry": entry,
        "id": "a1",
        "dead_class": "rejected",
        "dead_reason": "rcpt: 550 a1",
        "dead_at": listed[0]["dead_at"],
        "attempts": "1",
        "last_reply": "550 no",
        "to": "a1@example.net",
        "subject": "Hi",
    }


async def test_ls_of_the_newest(queue: Mailroom) -> None:
    for number in range(30):  # of several pages
        await bury(queue, f"n{number}", "policy" if number % 2 else "mailbox_full")
    listed = (await streamq("dead", "ls", "--newest", "--json")).json
    assert [one["id"] for one in listed] == [f"n{number}" for number in reversed(range(30))]
    said = await streamq("dead", "ls", "--newest", "--class", "policy", "--limit", "1")
    assert [line.split()[3] for line in said.out.splitlines()[1:2]] == ["n29@example.net"]
    assert said.out.splitlines()[2:] == ["… and more: --limit 10"]


async def test_ls_chooses_and_bounds(queue: Mailroom) -> None:
    assert (await streamq("dead", "ls")).out == "no dead letters\n"
    assert (await streamq("dead", "ls", "--json")).json == []
    for number in range(12):
        await bury(queue, f"n{number}", "mailbox_full" if number % 2 else "policy")
    assert len((await streamq("dead", "ls", "--class", "policy", "--json")).json) == 6
    said = await streamq("dead", "ls", "--limit", "5")
    assert said.out.splitlines()[-1] == "… and more: --limit 50"
    assert len((await streamq("dead", "ls", "--limit", "5", "--json")).json) == 5
    assert (await streamq("dead", "ls", "--class", "spam")).out == "no dead letters\n"
    said = await streamq("dead", "ls", "--class", "spamm")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("streamq: --class: one of account, ")
    assert said.err.endswith("(got 'spamm'; did you mean spam?)\n")
    await bury(queue, "own", "our_own")  # of a table of replies that workers have: it has been counted
    assert len((await streamq("dead", "ls", "--class", "our_own", "--json")).json) == 1


async def test_show_by_each_id(queue: Mailroom) -> None:
    letter, entry = await bury(queue, "a1")
    await bury(queue, "b2")
    for name in (letter, entry, "a1"):
        said = await streamq("dead", "show", name)
        assert (said.code, said.err) == (0, "")
        assert said.out.startswith(f"{letter}  died 20")
        assert "id               a1\n" in said.out
        assert "text             (5 bytes: --raw)\n" in said.out
        known = (await streamq("dead", "show", name, "--json")).json
        assert (known["letter"], known["fields"]["id"], "text" in known["fields"]) == (letter, "a1", False)
    assert "text             Hello\n" in (await streamq("dead", "show", "a1", "--raw")).out
    assert (await streamq("dead", "show", "a1", "--raw", "--json")).json["fields"]["text"] == "Hello"


async def test_show_takes_the_last_of_several(queue: Mailroom) -> None:
    await bury(queue, "a1", subject="first")
    await bury(queue, "a1", subject="second")
    assert (await streamq("dead", "show", "a1", "--json")).json["fields"]["subject"] == "second"


async def test_by_address(queue: Mailroom) -> None:
    first, _ = await bury(queue, "a1", to="Anna <Anna@Example.NET>")
    last, _ = await bury(queue, "a2", to="bob@example.org, anna@example.net")
    await bury(queue, "b1")
    assert (await streamq("dead", "show", "anna@example.net", "--json")).json["letter"] == last
    said = await streamq("dead", "requeue", "ANNA@example.net", "--dry-run")
    assert said.out == "requeue: 2 dead letters (dry run: nothing was changed)\n"
    assert (await streamq("dead", "rm", "bob@example.org")).out == "discarded 1 dead letter\n"
    assert (await streamq("dead", "requeue", "anna@example.net")).out == "requeued 1 mail\n"
    assert await names(queue) == ["b1"]
    said = await streamq("dead", "requeue", "anna@example.net")
    assert (said.code, said.out) == (1, "")
    assert said.err == "streamq: no dead letter has the id, or recipient, 'anna@example.net'\n"
    assert first != last


async def test_who_asks_for_a_dead_mail_to_go_now_is_told_how(queue: Mailroom) -> None:
    _, entry = await bury(queue, "a1", to="anna@example.net")
    for name in ("a1", entry):
        said = await streamq("retry", name)
        assert (said.code, said.out) == (1, "")
        assert f": `streamq dead requeue {name}` sends it again, while its letter is kept" in said.err
    said = await streamq("retry", "anna@example.net")
    assert (said.code, said.out) == (1, "")
    assert "but 1 dead letter is: `streamq dead requeue anna@example.net` sends it again" in said.err
    said = await streamq("why", "anna@example.net")
    assert "`streamq dead requeue anna@example.net` sends the dead letter again" in said.err + said.out
    await streamq("dead", "rm", "a1")
    assert "dead requeue" not in (await streamq("retry", "anna@example.net")).err
    said = await streamq("why", "anna@example.net")
    assert "dead requeue" not in said.err + said.out


@pytest.mark.parametrize("words", [["show", "none"], ["requeue", "none"], ["rm", "none"], ["rm", "a1", "none", "-y"]])
async def test_what_is_not_there_exits_1(queue: Mailroom, words: list[str]) -> None:
    await bury(queue, "a1")
    said = await streamq("dead", *words)
    assert (said.code, said.out) == (1, "")
    assert said.err == "streamq: no dead letter has the id 'none'\n"
    assert await names(queue) == ["a1"]


async def test_requeue(queue: Mailroom) -> None:
    letter, entry = await bury(queue, "a1")
    for name in ("b2", "c3", "d4"):
        await bury(queue, name)
    assert (await streamq("dead", "requeue", letter)).out == "requeued 1 mail\n"
    assert await names(queue) == ["b2", "c3", "d4"]
    said = await streamq("dead", "requeue", "b2", "c3", "--yes", "--json")
    assert said.code == 0
    assert len(said.json["requeued"]) == 2
    assert (said.json["missing"], said.json["packed"], said.json["sensitive"]) == (0, 0, 0)
    assert (await streamq("dead", "requeue", "--all")).code == 0
    assert await names(queue) == []
    states = await queue.states()
    assert set(states.values()) == {"waiting"}
    assert len(states) == 4
    assert entry not in states


async def test_requeue_of_what_cannot_come_back_exits_1(queue: Mailroom) -> None:
    await bury(queue, "s1", sensitive="1")
    await bury(queue, "a1")
    said = await streamq("dead", "requeue", "--all", "--yes")
    assert (said.code, said.out) == (1, "requeued 1 mail\n")
    assert said.err.startswith("not requeued: 1 whose bodies were not kept (`sensitive`): --set text=")
    assert (await streamq("dead", "requeue", "s1", "--json")).json["sensitive"] == 1


async def test_one_whose_body_was_not_kept_says_so(queue: Mailroom) -> None:
    letter, _ = await bury(queue, "b1", "bad_address")
    said = await streamq("dead", "requeue", "b1")
    assert (said.code, said.out) == (1, "requeued 0 mails\n")
    why = (
        "b1 to b1@example.net: no letter of class bad_address keeps its body (bad_address, loop, too_large: sent again"
    )
    assert f"\n  {letter}: {why}" in said.err
    assert (await streamq("dead", "requeue", letter, "--json")).json["not_requeued"][letter].startswith(why)
    assert said.err.startswith("not requeued: 1 whose bodies were not kept (for their class or size): --set text=")
    assert (await streamq("dead", "requeue", "b1", "--json")).json["bodiless"] == 1
    await bury(queue, "c1")
    said = await streamq("dead", "requeue", "--all", "--dry-run")
    assert (said.code, said.out) == (0, "requeue: 2 dead letters (dry run: nothing was changed)\n")
    assert said.err.startswith("would not be requeued: 1 whose bodies were not kept (for their class or size)")
    assert (await streamq("dead", "requeue", "--all", "--dry-run", "--json")).json["kept"] == {"bodiless": 1}
    said = await streamq("dead", "requeue", "--all", "--set", "text=hi", "--dry-run")
    assert (said.err, await names(queue)) == ("", ["b1", "c1"])


async def test_requeue_with_changed_fields(queue: Mailroom) -> None:
    await bury(queue, "a1", "bad_address", ttl="60")
    words = ("--set", "to=bob=b@example.org", "--set", "text=once more", "--set", "ttl=", "--set", "x_why=asked for")
    said = await streamq("dead", "requeue", "a1", *words)
    assert (said.code, said.out) == (0, "requeued 1 mail\n")
    (entry,) = await queue.states()
    (found,) = await queue.spool.fetch([entry])
    assert found is not None
    assert found.fields == {
        b"id": b"a1",
        b"to": b"bob=b@example.org",
        b"subject": b"Hi",
        b"text": b"once more",
        b"x_why": b"asked for",
    }
    assert (await queue.events())[-1].data["changed"] == ["to", "text", "ttl", "x_why"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "colour=red"], "not FIELD=VALUE with a field of a mail: 'colour=red'"),
        (["--set", "to"], "not FIELD=VALUE with a field of a mail: 'to'"),
        (["--set", "=x"], "not FIELD=VALUE with a field of a mail: '=x'"),
        (["--set", "dead_entry=01-1"], "not FIELD=VALUE with a field of a mail: 'dead_entry=01-1'"),
        (["--set", "to=a@b.example", "--set", "to=c@d.example"], "--set: to twice"),
    ],
)
async def test_a_change_that_is_none_is_named(queue: Mailroom, words: list[str], says: str) -> None:
    await bury(queue, "a1")
    said = await streamq("dead", "requeue", "a1", *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert await names(queue) == ["a1"]


async def test_rm(queue: Mailroom) -> None:
    await bury(queue, "a1")
    await bury(queue, "b2", "policy")
    await bury(queue, "c3", "policy")
    assert (await streamq("dead", "rm", "a1")).out == "discarded 1 dead letter\n"
    assert (await streamq("dead", "rm", "--class", "policy", "--yes", "--json")).json == {"removed": 2}
    assert (await streamq("dead", "rm", "--all")).out == "discarded 0 dead letters\n"


@pytest.mark.parametrize("verb", ["requeue", "rm"])
async def test_dry_run_and_no_answer_change_nothing(queue: Mailroom, verb: str) -> None:
    for name in ("a1", "b2", "c3"):
        await bury(queue, name)
    for words in (["--all"], ["--class", "rejected"], ["a1", "b2", "c3"]):
        said = await streamq("dead", verb, *words, "--dry-run")
        assert (said.code, said.out) == (0, f"{verb}: 3 dead letters (dry run: nothing was changed)\n")
        known = (await streamq("dead", verb, *words, "--dry-run", "--json")).json
        assert known == {"verb": verb, "letters": 3, "dry_run": True}
        said = await streamq("dead", verb, *words)
        assert (said.code, said.out) == (1, "")
        assert said.err.startswith(f"{verb} 3 dead letters? No terminal to ask")
    assert await names(queue) == ["a1", "b2", "c3"]
    assert await queue.states() == {}


@pytest.mark.parametrize("verb", ["requeue", "rm"])
@pytest.mark.parametrize("words", [[], ["a1", "--all"], ["--class", "x", "--all"], ["a1", "--class", "x"]])
async def test_letters_are_named_one_way(queue: Mailroom, verb: str, words: list[str]) -> None:
    await bury(queue, "a1")
    said = await streamq("dead", verb, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"streamq: dead {verb}: name dead letters by ID, or by --class, --domain")
    assert await names(queue) == ["a1"]


CHOICES = [
    (["--domain", "B.Example"], ["b2", "c3"]),
    (["--tenant", "acme"], ["c3"]),
    (["--tag", "news"], ["b2"]),
    (["--priority", "low"], ["a1", "b2", "c3"]),
    (["--priority", "high"], []),
    (["--class", "policy"], ["a1", "b2"]),
    (["--class", "policy", "--domain", "b.example"], ["b2"]),
]


@pytest.mark.parametrize(("words", "meant"), CHOICES, ids=lambda each: " ".join(each))
async def test_letters_are_chosen_as_mails_are(queue: Mailroom, words: list[str], meant: list[str]) -> None:
    await bury(queue, "a1", "policy", to="x@a.example", tenant="other")
    await bury(queue, "b2", "policy", to="x@b.example", tags="vip,news")
    await bury(queue, "c3", "rejected", to="x@a.example", envelope_to="x@b.example", tenant="acme", tags="newsletter")
    assert [each["id"] for each in (await streamq("dead", "ls", *words, "--json")).json] == meant
    said = (await streamq("dead", "rm", *words, "--dry-run", "--json")).json
    assert (said["letters"], await names(queue)) == (len(meant), ["a1", "b2", "c3"])
    lines = (await streamq("dead", "export", *words)).out.splitlines()
    assert [orjson.loads(line)["fields"]["id"] for line in lines] == meant
    assert (await streamq("dead", "rm", *words, "--yes")).out == f"discarded {plural(len(meant), 'dead letter')}\n"
    assert await names(queue) == [name for name in ("a1", "b2", "c3") if name not in meant]


async def test_hostile_letters_steer_no_terminal_and_break_no_json(queue: Mailroom) -> None:
    await bury(queue, "e1", to=EVIL, subject=EVIL, text=EVIL)
    flat = (b"\xff\x1b[2J[red]", EVIL, "dead_reason", EVIL, "dead_class", EVIL, "dead_at", "9" * 30, "id", EVIL)
    letter = (await queue.do("XADD", queue.keys.dead, "*", *flat, "attempts", "x" * 100_000)).decode()
    commands = [["ls"], ["show", "e1"], ["show", "e1", "--raw"], ["show", letter], ["show", letter, "--raw"]]
    for words in commands:
        said = await streamq("dead", *words)
        assert (said.code, said.err) == (0, "")
        assert steers(said.out) == set()
        said = await streamq("dead", *words, *(["--json"]))
        assert said.json
        assert steers(said.out) == set()
    assert (await streamq("dead", "rm", "--all", "--yes")).code == 0


async def test_bodies_are_not_kept(queue: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be a gigabyte of them: `--all` keeps ids and sizes."""
    from streamq.cli import dead

    for number in range(30):
        await bury(queue, f"n{number}", text="x" * 20_000)
    kept: list[dict[str, int]] = []
    asked = dead._asked

    async def noted(*words: object) -> dict[str, int]:
        kept.append(await asked(*words))  # type: ignore[arg-type]
        return kept[-1]

    monkeypatch.setattr(dead, "_asked", noted)
    assert (await streamq("dead", "requeue", "--all", "--yes")).code == 0
    assert len(kept[0]) == 30
    assert all(size > 20_000 for size in kept[0].values())


async def test_a_body_s_lines_are_taken_for_no_fields(queue: Mailroom) -> None:
    await bury(queue, "a1", text="Hello\ndead_class       spam\r\nbye")
    said = await streamq("dead", "show", "a1", "--raw")
    assert "text             Hello\n" + " " * 17 + "dead_class       spam\n" + " " * 17 + "bye\n" in said.out
    assert [line for line in said.out.splitlines() if line.startswith("dead_class")] == ["dead_class       rejected"]


async def test_a_list_shows_the_beginning_of_what_is_huge(queue: Mailroom) -> None:
    letter, _ = await bury(queue, "a1", subject="ä" * 1_000_000, to="x" * 16_384)
    (listed,) = (await streamq("dead", "ls", "--json")).json
    assert (listed["subject"], listed["to"]) == ("ä" * 8192 + "…", "x" * 16_384)
    assert (await streamq("dead", "show", letter, "--json")).json["fields"]["subject"] == "ä" * 1_000_000


async def test_what_was_given_twice_is_shown_twice(queue: Mailroom) -> None:
    doubled = ["to", "first@example.net", "to", "second@example.net"]
    entry = await queue.do("XADD", queue.keys.stream("normal"), f"{queue.now}-1", "id", "a1", *doubled)
    await queue.read()
    reason = why(reason="to: given more than once: 'second@example.net'", **{"class": "malformed"})
    assert await queue.admitted(f"{queue.spool.digit('normal')}{entry.decode()}", kind="dead", why=reason) == ["dead"]
    shown = await streamq("dead", "show", "a1")
    assert shown.out.index("first@example.net") < shown.out.rindex("second@example.net")
    for asked in (("show", "a1", "--json"), ("export", "a1")):
        said = await streamq("dead", *asked)
        assert orjson.loads(said.out)["fields"]["to"] == ["first@example.net", "second@example.net"]
