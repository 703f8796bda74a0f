"""A moment of `python -m bench fuzz`, of which hours run by command; and that it finds what it looks for."""

from __future__ import annotations

import asyncio
import random

import pytest

from bench import fuzz as fuzzing
from bench.fuzz import TARGETS, fuzz, table
from bench.fuzz_content import held_on_the_wire
from bench.fuzz_replies import LARGE_EACH, heard
from streamq.smtp.judge import Judge
from streamq.smtp.letter import Action, Scope
from streamq.smtp.protocol import Wire
from streamq.smtp.transaction import Transaction


@pytest.mark.parametrize("target", TARGETS)
def test_a_thousand_cases(target: str) -> None:
    found = fuzz(target, 1000, seed=5)
    assert found.good, table(found)
    assert found.cases == found.ends.total() == 1000
    assert len(found.ends) > 1, "all of them ended alike"


def test_a_case_is_its_number() -> None:
    assert fuzz("intake", 50, seed=5, first=100).ends == fuzz("intake", 50, seed=5, first=100).ends
    assert fuzz("replies", 50, seed=5).ends == fuzz("replies", 50, seed=5).ends


def test_a_reply_of_ten_megabytes_is_not_kept() -> None:
    found = fuzz("replies", 1, seed=5, first=LARGE_EACH - 1)
    assert found.good, table(found)


def test_it_finds_a_wire_that_keeps_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.smtp.protocol.MAX_REPLY", 10**9)
    monkeypatch.setattr("streamq.smtp.protocol.MAX_LINES", 10**9)
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(AssertionError, match="it keeps"):
            heard(loop, [b"250-" + b"y" * 4000 + b"\r\n"] * 40, 1)
    finally:
        loop.close()


def test_it_finds_a_wire_whose_packets_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(wire: Wire, data: bytes) -> None:
        for line in data.splitlines():
            wire._take_line(line)

    monkeypatch.setattr(Wire, "_parse", parse)
    assert not fuzz("replies", 500, seed=5).good


def test_it_finds_a_header_that_was_smuggled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(fields: object) -> tuple[str, bytes, bool]:
        return "mail", b"Subject: Hi\r\nX-Smuggled: 1\r\n\r\nHello\r\n", False

    monkeypatch.setattr(fuzzing, "_judged", judged)
    monkeypatch.setattr(fuzzing, "_fields", lambda chance: {b"to": b"bob@example.net"})
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(AssertionError, match="smuggled"):
            fuzzing.intake(random.Random(4), 0, loop)
    finally:
        loop.close()


def found_by(target: str, cases: int = 600) -> str:
    return table(fuzz(target, cases, seed=5))


def test_it_finds_an_address_that_is_two_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.smtp.envelope.xtext", lambda text: f"{text}\r\nRCPT TO:<c@y.de>")
    assert "is two commands" in found_by("addresses")
    assert "two commands" in found_by("headers")


def test_it_finds_a_list_that_is_read_in_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.fuzz_addresses.address_field", lambda name, found: f"{name}: c@y.de")
    assert "is not for" in found_by("addresses")


def test_it_finds_a_report_that_repeats_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.mail.report._field", lambda name, value, wide: f"{name}: x\r\nBcc: c@y.de\r\n")
    assert "fields of a report that nobody wrote" in found_by("headers")


def test_it_finds_a_file_that_ends_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.toml._refuse_extremes", lambda found: None)
    monkeypatch.setattr("streamq.toml.MOST_PARTS", 10_000)
    assert "Error: " in found_by("tables", 1200)


def test_it_finds_json_that_ends_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.mail.recipients.is_deep", lambda found, made: False)
    monkeypatch.setattr("streamq.mail.values.is_deep", lambda found, made: False)
    assert not fuzz("bombs", 2000, seed=5).good


def test_it_finds_a_body_that_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not stuffed: what stands behind a lone dot is a command to the server."""
    monkeypatch.setattr("streamq.smtp.transaction.stuffed", lambda content: content)
    assert "AssertionError" in found_by("replies")


def test_it_finds_a_refusal_that_is_taken_for_a_250(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "judged", lambda judge, reply, stage: judge.report(Action.SENT, Scope.MAIL, "ok", reply))
    assert "AssertionError" in found_by("replies")


def test_it_finds_a_250_that_nobody_believes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Transaction, "_at_the_dot", lambda it, reply: it.judge.report(Action.RETRY, Scope.MAIL, "temporary", reply)
    )
    assert "the server took it" in found_by("replies")


def test_it_finds_a_mail_that_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(wire: Wire) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Wire, "read", read)
    assert "it has no end" in found_by("replies", 20)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a\n.\r\nb\r\n", "bare"),
        (b"a\r.\rb\r\n", "bare"),
        (b"a\0\r\n", "NUL"),
        (b"Bcc: c@y.de\r\n\r\nHi\r\n", "went along"),
    ],
)
def test_what_may_not_be_on_the_wire(content: bytes, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        held_on_the_wire(content, random.Random(1), whole=True)
    held_on_the_wire(b"A: b\r\n\r\n..\r\n.\r\n", random.Random(1), whole=True)


def test_it_finds_a_file_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.mail.mime.filename", lambda name: ('filename="x"',) if name else ())
    assert "are called" in found_by("intake")


def test_it_finds_a_glance_at_another_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "plain_site", lambda fields: "y.de")
    assert "at a glance" in found_by("intake")


def test_it_finds_a_template_that_ends_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.mail.template.Template._render", lambda *_: [][0])
    assert "IndexError" in found_by("bombs", 100)
