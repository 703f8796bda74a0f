"""send: what it adds, what it refuses at once, and what it says of the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from lossy import Cut, Lossy
from mailroom import Mailroom, texts

from cli.delivery import delivering
from cli.shell import Said, steers, streamq
from streamq.sink import load_rules

pytestmark = pytest.mark.leaves_mail
GOOD = ("--from", "shop@example.com", "--to", "bob@example.net", "--subject", "Hi")
RULES = """
[[rule]]
match = "*@gone.example"
stage = "rcpt"
reply = "550 5.1.1 no [bold]such[/bold] user"
"""


async def added(queue: Mailroom, priority: str = "normal") -> dict[str, str]:
    """The one mail of this priority."""
    ((_, flat),) = await queue.do("XRANGE", queue.keys.stream(priority), "-", "+")
    return texts(dict(zip(flat[::2], flat[1::2], strict=True)))


async def test_a_mail_is_added(queue: Mailroom) -> None:
    said = await streamq("send", *GOOD, "--text", "Hello", "--html", "<b>Hello</b>", "--id", "a1", "--field", "tags=x")
    assert (said.code, said.err) == (0, "")
    (entry,) = await queue.states()
    assert said.out == f"{entry} is in the queue, id a1\n"
    assert await added(queue) == {
        "id": "a1",
        "from": "shop@example.com",
        "to": "bob@example.net",
        "subject": "Hi",
        "text": "Hello",
        "html": "<b>Hello</b>",
        "tags": "x",
    }


async def test_to_several(queue: Mailroom) -> None:
    """The last one alone got it, in silence."""
    assert (await streamq("send", *GOOD, "--to", "Ann <ann@example.org>", "--text", "Hello")).code == 0
    assert (await added(queue))["to"] == "bob@example.net, Ann <ann@example.org>"


async def test_as_json_with_an_id_of_its_own(queue: Mailroom) -> None:
    said = await streamq("send", *GOOD, "--priority", "high", "--json")
    (entry,) = await queue.states()
    fields = await added(queue, "high")
    assert said.json == {"entry": entry, "id": fields["id"]}
    assert fields["id"].startswith("send-")


async def test_text_from_standard_input(queue: Mailroom) -> None:
    assert (await streamq("send", *GOOD, "--text", "-", stdin="héllo\nworld".encode())).code == 0
    assert (await added(queue))["text"] == "héllo\nworld"


async def test_a_raw_message_byte_for_byte(queue: Mailroom, tmp_path: Path) -> None:
    raw = b"From: shop@example.com\r\nTo: bob@example.net\r\n\r\n.caf\xc3\xa9\r\n\xff\r\n"
    (tmp_path / "mail.eml").write_bytes(raw)
    assert (await streamq("send", "--raw", str(tmp_path / "mail.eml"))).code == 0
    assert (await streamq("send", "--raw", "-", "--priority", "low", stdin=raw)).code == 0
    for priority in ("normal", "low"):
        ((_, flat),) = await queue.do("XRANGE", queue.keys.stream(priority), "-", "+")
        assert dict(zip(flat[::2], flat[1::2], strict=True))[b"raw"] == raw


async def test_a_time_ahead_is_one(queue: Mailroom) -> None:
    seconds, _ = await queue.do("TIME")
    assert (await streamq("send", *GOOD, "--field", f"send_at={int(seconds) + 86_400}")).code == 0
    said = await streamq("send", *GOOD, "--field", "send_at=2300000000")
    assert (said.code, said.out) == (2, "")
    assert "more than a year ahead" in said.err


async def test_what_will_be_held_is_said_and_queued(queue: Mailroom) -> None:
    said = await streamq("send", *GOOD, "--field", "colour=red", "--json")
    assert said.code == 0
    assert said.err == "note: this mail will be held: unknown fields: colour\n"
    assert said.json["entry"] in await queue.states()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "bob@example.net"], "from: "),
        ([*GOOD[:2], "--to", "nobody", "--text", "x"], "to: "),
        ([*GOOD, "--id", "a\x1b[31m"], "id: control characters in it: 'a\\x1b[31m'"),
        ([*GOOD, "--priority", "urgent"], "--priority: one of high, normal, low (got 'urgent')"),
        ([*GOOD, "--field", "novalue"], "--field: write NAME=VALUE (got 'novalue')"),
        ([*GOOD, "--field", "=x"], "--field: write NAME=VALUE (got '=x')"),
        ([*GOOD, "--field", "to=eve@example.net"], "--field: to is given twice (got 'to=eve@example.net')"),
        ([*GOOD, "--subject", "Again"], "--subject: given twice; it takes one value"),
        ([*GOOD, "--priority=low", "--priority", "low"], "--priority: given twice; it takes one value"),
        ([*GOOD, "--id", "a", "--id", "b"], "--id: given twice; it takes one value"),
        ([*GOOD, "--id", "a", "--field", "id=b"], "--field: id is given twice (got 'id=b')"),
        ([*GOOD, "--field", "id=a", "--field", "id=b"], "--field: id is given twice (got 'id=b')"),
        ([*GOOD, "--field", "x=", "--field", "x=1"], "--field: x is given twice (got 'x=1')"),
        (["--raw", "/nowhere/mail.eml"], "--raw: No such file or directory (got '/nowhere/mail.eml')"),
        (["--raw", "/"], "--raw: Is a directory (got '/')"),
        (["--wait", "-1"], "--wait"),
        ([*GOOD, "--text", "-"], "--text: there is no standard input (got '-')"),
    ],
)
async def test_bad_words_exit_2_and_add_nothing(queue: Mailroom, words: list[str], says: str) -> None:
    said = await streamq("send", *words, stdin=None)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert steers(said.err) == set()
    assert await queue.states() == {}


async def test_no_more_is_read_than_a_mail_may_have(
    queue: Mailroom, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAMQ_MAX_MAIL_BYTES", "2000")
    (tmp_path / "large").write_bytes(b"x" * 5000)
    for words in (["--raw", str(tmp_path / "large")], ["--raw", "/dev/zero"], [*GOOD, "--text", "-"]):
        said = await streamq("send", *words, stdin=b"x" * 5000)
        assert said.code == 2
        assert "over the size cap of 2000 bytes" in said.err
    assert await queue.states() == {}


# -- until its end ------------------------------------------------------------------------------------------------


async def _sent(*words: str) -> Said:
    return await streamq("send", *GOOD[:2], "--text", "Hello", "--wait", "30", *words)


async def test_wait_says_what_became_of_it(queue: Mailroom, server_url: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    async with delivering(server_url, load_rules(tmp_path / "rules.toml")) as sink:
        said = await _sent("--to", "bob@example.net", "--id", "a1")
        assert said.code == 0
        assert said.out.startswith("email.relayed after ")
        assert (await _sent("--to", "bob@example.net", "--id", "a1", "--json")).json["type"] == "email.duplicate"
        said = await _sent("--to", "bob@gone.example")
        assert said.code == 1
        assert said.out.startswith("email.bounced after ")
        assert "5.1.1 no [bold]such[/bold] user" in said.out
        said = await _sent("--to", "bob@example.net", "--field", "colour=red", "--json")
        assert (said.code, said.json["type"]) == (1, "email.held")
        assert len(sink.received) == 1


async def test_wait_ends(queue: Mailroom) -> None:
    said = await streamq("send", *GOOD, "--wait", "0.01")
    (entry,) = await queue.states()
    assert (said.code, said.out) == (1, f"{entry} has not ended within 0.01 s: `streamq show {entry}`\n")
    said = await streamq("send", *GOOD, "--wait", "0.01", "--json")
    assert (said.code, said.json["type"]) == (1, None)


async def test_events_of_somebody_else_are_passed_by(queue: Mailroom, server_url: str) -> None:
    for data in (b"{not json", b"[]", b"\xff"):
        await queue.do("XADD", queue.keys.events, "*", "type", b"\xff", "id", b"\x1b", "data", data)
    async with delivering(server_url):
        await queue.do("XADD", queue.keys.events, "*", "one", "field")
        assert (await _sent("--to", "bob@example.net")).code == 0


async def test_a_lost_reply_is_one_mail_and_is_said(
    queue: Mailroom, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry that this command knows of ends as a duplicate; what became of the mail is the other one's event."""
    async with delivering(server_url) as sink, Lossy(server_url, [Cut()]) as line:
        monkeypatch.setenv("STREAMQ_REDIS_URL", line.url)
        said = await _sent("--to", "bob@example.net", "--id", "a1")
        assert (said.code, len(sink.received)) == (0, 1)
        assert said.err == "note: a reply was lost; its XADD went out 2 times, and is one mail\n"
        assert said.out.startswith("email.relayed after ")
