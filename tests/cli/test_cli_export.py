"""dead export: JSON lines and messages; nothing is lost on the way, nothing changes in the queue."""

from __future__ import annotations

import base64
import os
import stat
from email import message_from_bytes
from pathlib import Path

import orjson
import pytest
from mailroom import Mailroom

from cli.conftest import EVIL
from cli.delivery import delivering
from cli.shell import steers, streamq
from cli.test_cli_dead import bury
from streamq.mail import Mail, message_id, parse
from streamq.mail.template import Template
from streamq.queue.spool import time_ms
from streamq.sink import Rules, load_rules

pytestmark = pytest.mark.leaves_mail
RAW = "From: shop@example.com\r\nBcc: eve@example.com\r\nSubject: Hi\r\n\r\nsecret\r\n"


async def test_every_letter_is_a_line(queue: Mailroom) -> None:
    letter, entry = await bury(queue, "a1", "policy")
    await bury(queue, "b2", raw=b"\xff\x00")
    said = await streamq("dead", "export", "--all")
    assert (said.code, said.err) == (0, "")
    first, second = map(orjson.loads, said.out.splitlines())
    assert (first["letter"], first["fields"]["dead_entry"], first["fields"]["text"]) == (letter, entry, "Hello")
    assert base64.b64decode(second["fields"]["raw"]["base64"]) == b"\xff\x00"
    assert await queue.do("XLEN", queue.keys.dead) == 2
    only = await streamq("dead", "export", "--class", "policy")
    assert only.out == said.out.splitlines()[0] + "\n"
    assert (await streamq("dead", "export", "b2", letter)).out.count("\n") == 2
    assert (await streamq("dead", "export", "--class", "none")).out == ""


async def test_a_message_is_what_was_sent(queue: Mailroom, tmp_path: Path) -> None:
    letter, entry = await bury(queue, "a1", "policy", **{"from": "shop@example.com"})
    said = await streamq("dead", "export", "a1", "--eml", str(tmp_path))
    assert (said.code, said.out, said.err) == (0, "exported 1 message\n", "")
    file = tmp_path / f"{letter}.eml"
    fields = {"id": "a1", "to": "a1@example.net", "subject": "Hi", "text": "Hello", "from": "shop@example.com"}
    sent = parse(
        {name.encode(): value.encode() for name, value in fields.items()},
        entry=entry, at_ms=time_ms(entry), salt=queue.spool.salt, max_bytes=10**6,
    )  # fmt: skip
    assert file.read_bytes() == sent.content()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await streamq("dead", "export", "a1", "--eml", str(tmp_path))).code == 0  # once more, over it


async def test_without_a_body_there_is_its_head(queue: Mailroom, tmp_path: Path) -> None:
    letter, _ = await bury(
        queue, "r1", "bad_address", raw=RAW, envelope_to="r1@example.net", to="", subject="", text=""
    )
    said = await streamq("dead", "export", "--all", "--eml", str(tmp_path))
    assert (said.code, said.out) == (0, "exported 1 message\n")
    assert said.err == "without their bodies, which were not kept: 1\n"
    found = message_from_bytes((tmp_path / f"{letter}.eml").read_bytes())
    assert (found["Subject"], found["Bcc"], found.get_payload()) == ("Hi", None, "")


REFUSES = """
[[rule]]
match = "*@bad.example"
stage = "data"
reply = "550 5.7.1 by policy"
"""
NEWS = Template({"subject": "{{ month }}", "text": "Hi {{ name }}", "html": "<p>Hi {{ name }}"})


def rules_of(path: Path, text: str) -> Rules:
    file = path / "rules.toml"
    file.write_text(text)
    return load_rules(file)


async def _dead(queue: Mailroom, many: int) -> None:
    """Waits for so many dead letters: blocked reads of events."""
    last = "0"
    while await queue.do("XLEN", queue.keys.dead) < many:
        [(_, rows)] = await queue.do("XREAD", "BLOCK", 5000, "STREAMS", queue.keys.events, last)
        last = rows[-1][0].decode()


@pytest.mark.parametrize("kind", ["to", "recipients", "template"])
async def test_a_child_is_exported_as_it_was_sent(
    queue: Mailroom, server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By its parent's stamp, out of the version that was the newest when that was handed over."""
    sent: list[bytes] = []
    built = Mail.built

    def noted(self: Mail) -> bytes:
        sent.append(built(self))
        return sent[-1]

    await queue.spool.templates.put("news", NEWS)
    fields: dict[str, str | bytes] = {"from": "shop@example.com", "to": "a@bad.example, b@bad.example", "text": "Hi"}
    recipients = [{"to": f"{name}@bad.example", "vars": {"name": name}} for name in ("ann", "ben")]
    if kind != "to":
        fields.pop("to")
        shown = recipients if kind == "template" else [{"to": each["to"]} for each in recipients]
        fields["recipients"] = orjson.dumps(shown)
    if kind == "template":
        fields |= {"template": "news", "vars": '{"month":"May"}\n'}
        fields.pop("text")
    flat = [part for pair in fields.items() for part in pair]
    await queue.do("XADD", queue.keys.stream("normal"), "*", *flat)
    queue.tick(2)  # those of the template's next version are no longer its
    with monkeypatch.context() as patched:
        patched.setattr(Mail, "built", noted)
        async with delivering(server_url, rules_of(tmp_path, REFUSES)):
            await _dead(queue, 2)
    await queue.spool.templates.put("news", Template({"subject": "Other", "text": "other"}))
    said = await streamq("dead", "export", "--all", "--eml", str(tmp_path))
    assert (said.code, said.out, said.err) == (0, "exported 2 messages\n", "")
    written = {(tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if name.endswith(".eml")}
    assert written == set(sent)
    assert len(written) == (1 if kind == "to" else 2)


@pytest.mark.parametrize("made", [0, 1])
async def test_of_a_campaign_each_mail_that_was_not_made_is_a_message(
    queue: Mailroom, tmp_path: Path, made: int
) -> None:
    await queue.spool.templates.put("news", NEWS)
    known = {"from": "shop@example.com", "template": "news", "vars": '{"month":"May"}'}
    recipients = [{"to": f"{name}@x.example", "vars": {"name": name}} for name in ("Ann", "Ben", "Cid")]
    recipients.append({"to": "no address", "vars": {"name": "Eve"}})
    flat = [part for pair in known.items() for part in pair]
    dead = ("recipients", orjson.dumps(recipients), "dead_entry", "11732237561234-0", "dead_made", made)
    letter = (await queue.do("XADD", queue.keys.dead, "*", *flat, *dead)).decode()
    said = await streamq("dead", "export", "--all", "--eml", str(tmp_path), "--json")
    assert (said.code, said.json) == (1, {"exported": 3 - made, "without_body": 0, "no_message": 1})
    assert sorted(os.listdir(tmp_path)) == [f"{letter}-{n}.eml" for n in range(1 + made, 4)]
    last = message_from_bytes((tmp_path / f"{letter}-3.eml").read_bytes())
    assert (last["To"], last["Subject"]) == ("Cid@x.example", "May")
    assert last["Message-ID"] == message_id(queue.spool.salt, "11732237561234-0#3", "example.com")
    assert [part.get_payload() for part in last.walk()][1:] == ["Hi Cid", "<p>Hi Cid"]


@pytest.mark.parametrize("stamp", ["x", "1-1", "11-1#x", "11-1#", "../../x", "11-1#" + "9" * 20, "1" * 5000])
async def test_a_stamp_that_nobody_made(queue: Mailroom, tmp_path: Path, stamp: str) -> None:
    known = ("from", "shop@example.com", "to", "bob@example.net", "text", "Hi", "dead_entry", "11-1")
    letter = (await queue.do("XADD", queue.keys.dead, "*", *known, "dead_stamp", stamp)).decode()
    said = await streamq("dead", "export", "--all", "--eml", str(tmp_path))
    assert said.code in {0, 1}
    assert set(os.listdir(tmp_path)) <= {f"{letter}.eml"}
    assert (said.code == 0) == bool(os.listdir(tmp_path))


async def test_what_is_no_message_is_counted(queue: Mailroom, tmp_path: Path) -> None:
    await bury(queue, "a1", to="nobody")
    await queue.do("XADD", queue.keys.dead, "*", "to", "bob@example.net", "dead_entry", "../../x")
    await bury(queue, "b2", **{"from": "shop@example.com"})
    said = await streamq("dead", "export", "--all", "--eml", str(tmp_path))
    assert (said.code, said.out) == (1, "exported 1 message\n")
    assert said.err == "not exported: 2 that are no messages (JSON lines have them)\n"
    said = await streamq("dead", "export", "--all", "--eml", str(tmp_path), "--json")
    assert (said.code, said.json) == (1, {"exported": 1, "without_body": 0, "no_message": 2})
    assert len(os.listdir(tmp_path)) == 1


async def test_no_file_of_somebody_else_s_is_written_to(queue: Mailroom, tmp_path: Path) -> None:
    letter, _ = await bury(queue, "a1", **{"from": "shop@example.com"})
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / f"{letter}.eml").symlink_to(theirs)
    assert (await streamq("dead", "export", "a1", "--eml", str(folder))).code == 1
    assert theirs.read_text() == "precious"


@pytest.mark.parametrize(
    "words", [[], ["a1", "--all"], ["--all", "--class", "x"], ["--all", "--eml", "/nowhere/at/all"]]
)
async def test_wrong_words(queue: Mailroom, words: list[str]) -> None:
    await bury(queue, "a1")
    said = await streamq("dead", "export", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(("streamq: dead export: name dead letters", "streamq: --eml: no such directory"))


async def test_an_id_that_no_letter_has(queue: Mailroom) -> None:
    said = await streamq("dead", "export", "none")
    assert (said.code, said.err) == (1, "streamq: no dead letter has the id 'none'\n")


async def test_hostile_letters_steer_no_terminal(queue: Mailroom) -> None:
    await queue.do("XADD", queue.keys.dead, "*", b"\xff\x1b[2J", EVIL, "dead_reason", EVIL)
    said = await streamq("dead", "export", "--all")
    assert orjson.loads(said.out)
    assert steers(said.out) == set()
