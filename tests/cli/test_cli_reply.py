"""streamq reply: what a text would mean, for people and for programs; what is no reply."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.shell import program, steers, streamq

TSS04 = "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints"


async def test_a_reply_for_people() -> None:
    said = await streamq("reply", TSS04)
    assert (said.code, said.err) == (0, "")
    lines = [line.split(None, 1) for line in said.out.splitlines()]
    assert said.out.splitlines()[0] == TSS04
    assert lines[1:5] == [
        ["class", "site_rate, about the site"],
        ["then", "judged, not now: on the schedule"],
        ["attempt", "counted"],
        ["wait", "at least 15.0 m, says the entry"],
    ]
    assert lines[5][1].startswith("replies.toml, reply ")
    assert lines[6][1].startswith("https://senders.yahooinc.com/")


async def test_a_reply_for_programs() -> None:
    known = (await streamq("reply", "450 4.2.0 <b@example.net>: Greylisted for 300 seconds", "--json")).json
    entry = known.pop("entry")
    assert known == {
        "code": 450,
        "text": "4.2.0 <b@example.net>: Greylisted for 300 seconds",
        "stage": "rcpt",
        "then": "judged, not now: on the schedule",
        "attempt": True,
        "class": "greylisted",
        "scope": "recipient",
        "action": "retry",
        "enhanced": "4.2.0",
        "hint_ms": 300_000,
        "about_recipient": True,
    }
    assert entry["table"] == "replies.toml"
    assert entry["number"] > 0
    assert "RFC 6647" in entry["source"]
    assert "says the reply" in (await streamq("reply", "450 4.2.0 Greylisted for 300 seconds")).out


@pytest.mark.parametrize(
    ("words", "klass", "scope", "action", "attempt"),
    [
        (["550 no"], "rejected", "recipient", "fail", True),
        (["550 no", "--stage", "mail"], "rejected", "sender", "fail", True),
        (["550 no", "--stage", "dot"], "rejected", "mail", "fail", True),
        (["554 no", "--stage", "greeting"], "rejected", "route", "park", False),
        (["535 5.7.8 no", "--stage", "auth"], "authentication", "route", "park", False),
        (["550 5.4.5 Daily user sending limit exceeded", "--stage", "mail"], "quota", "route", "park", False),
        (["421 too many messages in this connection", "--stage", "mail"], "session_limit", "session", "park", False),
        (["421 bye", "--stage", "mail"], "temporary", "sender", "retry", True),
        (["421 bye", "--stage", "mail", "--later"], "shutting_down", "session", "park", False),
        (["250 ok", "--stage", "dot"], "sent", "mail", "sent", True),
        (["354 go", "--stage", "dot"], "protocol", "session", "ambiguous", True),
        (["450 rate limit"], "route_rate", "route", "retry", True),
        (["450 rate limit", "--mx"], "site_rate", "site", "retry", True),
        (["450 rate limit of example.net", "--site", "example.net"], "site_rate", "site", "retry", True),
        (["450"], "temporary", "recipient", "retry", True),
    ],
)
async def test_where_it_is_said_decides(words: list[str], klass: str, scope: str, action: str, attempt: bool) -> None:
    known = (await streamq("reply", "--json", *words)).json
    assert (known["class"], known["scope"], known["action"], known["attempt"]) == (klass, scope, action, attempt)
    assert (await streamq("reply", *words)).out.splitlines()[1].split()[1] == f"{klass},"


@pytest.mark.parametrize("text", ["250 2.1.5 ok", "354 go on"])
async def test_what_refuses_nothing_has_no_class(text: str) -> None:
    assert (await streamq("reply", text, "--json")).json["class"] is None
    assert "the transaction goes on" in (await streamq("reply", text)).out


@pytest.mark.parametrize(
    "text",
    [
        "550-5.1.1 The account\n550-5.1.1 does not\n550 5.1.1 exist",
        "550-5.1.1 The account\r\n550-5.1.1 does not\r\n550 5.1.1 exist\r\n",
        "550-5.1.1 The account 550-5.1.1 does not 550 5.1.1 exist",  # as Postfix logs it
        "  550 5.1.1 The account does not exist  ",
    ],
)
async def test_several_lines_are_one_reply(text: str) -> None:
    known = (await streamq("reply", text, "--json")).json
    assert (known["code"], known["text"]) == (550, "5.1.1 The account does not exist")
    assert (await streamq("reply", "--json", stdin=text.encode())).json == [known]


async def test_many_replies_on_standard_input() -> None:
    given = b"450 4.2.0 Greylisted\n\n550-5.1.1 no\n550 5.1.1 such user\n250 ok\n421-bye\n"
    known = (await streamq("reply", "--json", stdin=given)).json
    assert [(one["code"], one["text"], one["class"]) for one in known] == [
        (450, "4.2.0 Greylisted", "greylisted"),
        (550, "5.1.1 no such user", "bad_address"),
        (250, "ok", None),
        (421, "bye", "temporary"),
    ]
    assert (await streamq("reply", stdin=given)).out.count("\n\n") == 3
    assert (await streamq("reply", "--json", stdin=b"")).json == []


async def test_several_arguments_are_several_replies() -> None:
    known = (await streamq("reply", "--json", "450 a", "550 b")).json
    assert [one["code"] for one in known] == [450, 550]


@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [
        (["hello"], b"", "TEXT 1: not a reply"),
        (["450 a", "99 b"], b"", "TEXT 2: not a reply"),
        (["650 no"], b"", "'650 no'"),
        (["4500 no"], b"", "'4500 no'"),
        (["\u0664\u0665\u0660 no"], b"", "not a reply"),
        ([""], b"", "not a reply"),
        (["450 a", "--stage", "lunch"], b"", "--stage: one of connect, greeting"),
        ([], b"450 a\n\nwhat\n", "line 3: not a reply"),
        ([], None, "no reply"),
    ],
)
async def test_what_is_no_reply_exits_2(words: list[str], stdin: bytes | None, says: str) -> None:
    said = await streamq("reply", *words, stdin=stdin)
    assert said.code == 2
    assert says in said.err
    assert said.err.count("\n") == 1


async def test_a_table_of_ones_own_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[[reply]]\nclass = "ours"\nscope = "route"\naction = "park"\ncode = "450"\ntext = "monday"\n')
    monkeypatch.setenv("STREAMQ_REPLIES", str(mine))
    said = await streamq("reply", "450 not on Mondays")
    assert f"{mine}, reply 1\n" in said.out
    assert "source   none given" in said.out
    mine.write_text('[[reply]]\nclass = "ours"\nscope = "moon"\naction = "park"\ncode = "450"\n')
    said = await streamq("reply", "450 no")
    assert (said.code, said.out) == (2, "")
    assert f"{mine}: reply 1 (ours): scope: one of session, route" in said.err
    assert "'moon'" in said.err


async def test_a_worker_with_a_wrong_table_exits_2_and_says_where(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[[reply]]\nclass = "ours"\nscope = "route"\naction = "park"\ncode = "450"\ntext = "(a+)+"\n')
    known = {
        "STREAMQ_REPLIES": str(mine),
        "STREAMQ_RELAY": "smtp://127.0.0.1:9",
        "STREAMQ_REDIS_URL": "redis://127.0.0.1:9",
    }
    process = await program("worker", environment=known)
    _, err = await process.communicate()
    assert process.returncode == 2
    assert f"{mine}: reply 1 (ours): text: " in err.decode()
    assert "'(a+)+'" in err.decode()


async def test_hostile_replies_steer_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "450 \x1b[31mred \x9b31m \u202e [bold]x[/bold] \x07"
    for words in ([], ["--json"]):
        said = await streamq("reply", *words, evil)
        assert (said.code, said.err) == (0, "")
        assert steers(said.out) == set()
        said = await streamq("reply", *words, stdin=evil.encode() + b" \xff\xfe\n")
        assert (said.code, said.err) == (0, "")
        assert steers(said.out) == set()
    assert "[bold]x[/bold]" in said.out or "[bold]x" in said.out
