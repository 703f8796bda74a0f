"""A bug in reading one mail stays with that mail: it is held, the log and the counts tell of it, all others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crew import crew, rules_of
from mailroom import Mailroom

from streamq.mail import Mail, parse
from streamq.mail.compose import Composed
from streamq.mail.template import Template
from streamq.queue import reports
from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Entry
from streamq.queue.steer import apply
from streamq.worker import intake as judging

HEAVY = Template({"subject": "Heavy", "text": "{% for i in range(2000) %}{{ v }}{% endfor %}"})
NOTHING = dict.fromkeys(("subject", "text"), "")
SECRET = "4711"


class Bug:
    """`parse`, which fails for mails with a certain subject until it is mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.error = error
        self.mended = False
        self.parse = parse
        monkeypatch.setattr(judging, "parse", self)

    def __call__(self, fields: Any, **known: Any) -> Mail:
        if fields.get(b"subject") == b"Bug" and not self.mended:
            raise self.error
        return self.parse(fields, **known)


@pytest.mark.parametrize("error", [TypeError(SECRET), KeyError(SECRET), RecursionError(SECRET), AssertionError(SECRET)])
async def test_it_is_held_and_the_others_go_on(
    server_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    bug = Bug(monkeypatch, error)
    async with crew(server_url) as c:
        entries = [await c.add(id=f"bad{number}", subject="Bug") for number in range(3)]
        await c.add(id="good")
        await c.worker()
        kind = type(error).__name__
        held, relayed = [], False
        async for event, name, data in c.events():
            relayed = relayed or (event, name) == ("email.relayed", "good")
            if event == "email.held":
                held.append((name, data["class"], data["reason"]))
            if relayed and len(held) == 3:
                break
        assert {name for name, _, _ in held} == {"bad0", "bad1", "bad2"}
        assert {(klass, reason) for _, klass, reason in held} == {
            ("internal", f"reading it raised {kind}: a bug in streamq, which the worker's log tells of")
        }
        assert await command(c.spool.redis, "ZCARD", c.spool.keys.held) == 3
        assert f"{entries[0]}: reading it raised {kind}" in caplog.text
        assert "in __call__" in caplog.text  # the traceback
        assert SECRET not in caplog.text
        bug.mended = True
        assert dict(await apply(c.spool, "unhold", entries)) == {"scheduled": 3}
        await c.until("email.relayed", many=3)
        assert (await check(c.spool)).clean


@pytest.mark.leaves_mail
async def test_so_is_one_whose_recipients_are_read_in_steps(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(entry: Entry) -> None:
        if entry.fields[b"id"] == b"bad":
            raise ZeroDivisionError

    monkeypatch.setattr(Entry, "read_recipients", fails)
    async with crew(server_url) as c:
        many = "[" + ",".join(['{"to":"bob@example.net"}'] * 500) + "]"
        await c.add(id="bad", to="", recipients=many)
        await c.worker()
        (held,) = await c.until("email.held")
        assert held["class"] == "internal"
        await c.add(id="good", to="", recipients=many)
        await c.until("email.relayed", many=500)
        assert (await check(c.spool)).clean


@pytest.mark.leaves_mail
async def test_so_is_one_that_fails_to_be_composed_aside(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Composed) -> bytes:
        raise IndexError

    async with crew(server_url) as c:
        await c.spool.templates.put("heavy", HEAVY)
        await c.worker()
        with monkeypatch.context() as patched:
            patched.setattr(Composed, "content", fails)
            await c.add(id="bad", template="heavy", vars='{"v":"x"}', **NOTHING)
            (held,) = await c.until("email.held")
        assert held["class"] == "internal"
        await c.add(id="good", template="heavy", vars='{"v":"x"}', **NOTHING)
        await c.until("email.relayed", "good")
        assert (await check(c.spool)).clean


async def test_so_is_one_that_fails_to_be_composed_when_it_goes(
    server_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lease and its slot go back, its attempts stay none, and it goes once when that is mended."""
    compose = Composed.content
    mended = False

    def fails(source: Composed) -> bytes:
        if source.subject == "Bug" and not mended:
            raise IndexError(SECRET)
        return compose(source)

    monkeypatch.setattr(Composed, "content", fails)
    async with crew(server_url) as c:
        entries = [await c.add(id=f"bad{number}", subject="Bug") for number in range(2)]
        entries.append(await c.add(id="bad2", subject="Bug", delay="1"))
        await c.add(id="good")
        await c.worker(sites={"example.net": {"connections": 2, "rate": ["100/s"]}})
        held, relayed, reasons = [], False, set()
        async for event, _, data in c.events():
            relayed = relayed or event == "email.relayed"
            if event == "email.held":
                held.append((data["entry"], data["class"], data["rcpt"]))
                reasons.add(data["reason"])
            if relayed and len(held) == 3:
                break
        assert reasons == {"composing it raised IndexError: a bug in streamq, which the worker's log tells of"}
        assert sorted(held) == sorted((entry, "internal", "bob@example.net") for entry in entries)
        assert f"{entries[0]}: composing it raised IndexError" in caplog.text
        assert "in fails" in caplog.text
        assert SECRET not in caplog.text
        states = await Mailroom(c.spool).states()
        assert states == dict.fromkeys(entries, "held")
        mended = True
        assert dict(await apply(c.spool, "unhold", entries)) == {"scheduled": 3}
        again = await c.until("email.relayed", many=3)
        assert {found["attempt"] for found in again} == {1}
        assert len(c.sink.received) == 4
        assert (await check(c.spool)).clean


async def test_a_report_that_fails_keeps_no_mail_from_its_end(
    server_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fails(*args: Any, **known: Any) -> bytes:
        raise IndexError(SECRET)

    monkeypatch.setattr(reports, "compose_report", fails)
    rules = rules_of(tmp_path, '[[rule]]\nmatch = "nobody@*"\nstage = "rcpt"\nreply = "550 5.1.1 nobody"\n')
    async with crew(server_url, rules=rules) as c:
        await c.worker()
        await c.add(id="bad", to="nobody@example.net", envelope_from="a@x.example")
        (bounced,) = await c.until("email.bounced")
        assert "report" not in bounced
        expired = await c.add(id="late", envelope_from="a@x.example", expires_at="1600000000")
        await c.until("email.expired", "late")
        await c.add(id="good")
        await c.until("email.relayed", "good")
        assert f"{expired}: the report of its end raised IndexError" in caplog.text
        assert SECRET not in caplog.text
        assert (await check(c.spool)).clean


async def test_a_process_without_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing of the mail that is read just then."""
    from test_intake import GOOD, entry
    from test_intake import intake as made

    Bug(monkeypatch, MemoryError())
    with pytest.raises(MemoryError):
        made().judge(entry(**GOOD | {"subject": "Bug"}))


async def test_what_is_nested_deep_is_a_dead_letter_of_its_own(
    server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As large as it takes to be read at once, and aside."""
    nest = "[" * 300 + "]" * 300
    pad = " " * 10_000
    deep = [
        nest,
        *(f'{{"to":"a@b.example","{name}":{nest}}}' for name in ("id", "vars", "metadata")),
        f'{{"to":{nest}}}',
    ]
    async with crew(server_url) as c:
        await c.worker()
        for one in deep:
            await c.add(to="", recipients=f"[{one}]")
            await c.add(to="", recipients=f"[{one}{pad}]")
        for depth in (101, 252, 253, 254, 1000):
            await c.add(metadata='{"a":' + "[" * depth + "]" * depth + "}")
        rejected = await c.until("email.rejected", many=15)
        assert {found["class"] for found in rejected} == {"malformed"}
        assert {found["reason"].partition(":")[0] for found in rejected} == {"recipients", "metadata"}
        await c.add(id="good")
        await c.until("email.relayed", "good")
        assert (await check(c.spool)).clean
    assert "a bug in streamq" not in caplog.text
