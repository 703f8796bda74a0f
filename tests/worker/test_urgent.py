"""A batch that takes long to read is read in turns: what is more urgent is read between them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from crew import crew

from streamq.mail import Mail
from streamq.mail.compose import Composed
from streamq.mail.template import Template
from streamq.queue.rows import AdmitRow
from streamq.queue.spool import Entry
from streamq.worker import admission
from streamq.worker import hand as hand_file
from streamq.worker.admission import Admission
from streamq.worker.intake import Intake

NEWSLETTER = "<p>Hello" * 4000  # without a text: some ten milliseconds each


@pytest.mark.parametrize("priority", ["normal", "low"])
async def test_urgent_mail_is_read_before_a_batch_has_been(
    server_url: str, monkeypatch: pytest.MonkeyPatch, priority: str
) -> None:
    """It comes while the third of thirty is read, and is the next but few: counted, not timed."""
    order: list[str] = []
    admit = Admission._admit

    async with crew(server_url) as c:

        async def noted(self: Admission, entries: Any, whole: Any = ()) -> list[str]:
            order.extend(entry.fields[b"id"].decode() for entry in entries)
            if len(order) >= 3 and not urgent:
                urgent.append(await c.add("high", id="urgent"))
            return await admit(self, entries, whole)

        urgent: list[str] = []
        monkeypatch.setattr(Admission, "_admit", noted)
        for number in range(30):
            await c.add(priority, id=f"news{number}", html=NEWSLETTER, text="")
        await c.worker()
        await c.until("email.relayed", many=31)
        assert len(c.sink.received) == 31
    turn = admission.LOOK_US // Entry("11-1", {b"html": NEWSLETTER.encode()}).labour + 1
    assert order.index("urgent") < 3 + 2 * turn < 30
    assert [name for name in order if name != "urgent"] == [f"news{number}" for number in range(30)]


async def test_so_much_labour_is_a_turn() -> None:
    little, much = {b"text": b"x"}, {b"html": NEWSLETTER.encode()}
    entries = [Entry(f"11-{number}", much) for number in range(30)]
    turn = admission._turn(entries)
    assert 1 < turn < 10
    assert sum(entry.labour for entry in entries[:turn]) <= admission.LOOK_US
    assert admission._turn([Entry("11-1", {b"to": b"x" * 10_000}), *entries]) == 1  # one is one, whatever it takes
    assert admission._turn([Entry(f"11-{number}", little) for number in range(100)]) == 100


@pytest.mark.parametrize(
    ("fields", "here"),
    [
        ({"text": "Hello"}, True),
        ({"html": NEWSLETTER, "text": "Hello"}, True),
        ({"html": NEWSLETTER, "text": ""}, False),
        ({"text": "\r" * 1_000_000}, False),
        ({"text": "\n" * 8_000_000}, False),
        ({"html": "\n" * 1_000_000, "text": "Hello"}, False),
        ({"text": "ü" * 500_000}, False),
        (
            dict.fromkeys(("from", "subject", "text", "to"), "")
            | {"raw": "From: a@x.de\n" + "X: y\n" * 50_000 + "\nHi", "envelope_to": "bob@example.net"},
            False,
        ),
    ],
)
async def test_what_takes_long_is_judged_and_composed_in_a_thread(
    server_url: str, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], here: bool
) -> None:
    """Neither is done where others wait, however often the mail is looked at."""
    places: set[bool] = set()
    composed: list[bool] = []
    read, content = Intake._read, Composed.content

    def reading(self: Intake, entry: Entry, template: Any) -> tuple[AdmitRow, Mail | None]:
        places.add(threading.current_thread() is threading.main_thread())
        return read(self, entry, template)

    def composing(self: Composed) -> bytes:
        composed.append(threading.current_thread() is threading.main_thread())
        return content(self)

    monkeypatch.setattr(Intake, "_read", reading)
    monkeypatch.setattr(Composed, "content", composing)
    async with crew(server_url) as c:
        await c.add(id="one", **fields)
        await c.worker()
        await c.until("email.relayed", "one")
        assert len(c.sink.received) == 1
    assert places == {here}
    assert set(composed) <= {here}
    assert len(composed) <= 1


async def test_it_goes_before_the_rest_of_a_campaign_whose_mails_take_long(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its children are small until they are complete: what they share is what takes long."""
    order: list[str] = []
    admit = Admission._admit

    async with crew(server_url) as c:

        async def noted(self: Admission, entries: Any, whole: Any = ()) -> list[str]:
            order.extend(entry.fields.get(b"id", b"").decode() for entry in entries)
            if len(order) >= 3 and not urgent:
                urgent.append(await c.add("high", id="urgent"))
            return await admit(self, entries, whole)

        urgent: list[str] = []
        monkeypatch.setattr(Admission, "_admit", noted)
        to = ", ".join(f"r{number}@x.example" for number in range(40))
        await c.add("low", id="news", to=to, html=NEWSLETTER, text="")
        await c.worker()
        await c.until("email.relayed", many=41)
        assert len(c.sink.received) == 41
    assert order.index("urgent") < 20


async def test_between_turns_there_is_room_or_the_rest_waits(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the mails take: a hand that is full takes no more of them."""
    monkeypatch.setattr(hand_file, "HAND_BYTES", 3_000_000)
    most = 0
    add = hand_file.Hand.add

    def noted(self: hand_file.Hand, delivery: Any) -> None:
        nonlocal most
        add(self, delivery)
        most = max(most, self.bytes)

    monkeypatch.setattr(hand_file.Hand, "add", noted)
    async with crew(server_url) as c:
        for _ in range(12):
            await c.add(text="x\n" * 750_000)
        await c.worker()
        await c.until("email.relayed", many=12)
        assert len(c.sink.received) == 12
    assert most < 3_000_000 + 2 * 2_300_000


async def test_an_html_that_a_template_makes_becomes_a_text_in_a_thread(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known by the template: while others wait nothing of it is filled in."""
    places: set[bool] = set()
    read = Intake._read

    def reading(self: Intake, entry: Entry, template: Any) -> tuple[AdmitRow, Mail | None]:
        places.add(threading.current_thread() is threading.main_thread())
        return read(self, entry, template)

    monkeypatch.setattr(Intake, "_read", reading)
    async with crew(server_url) as c:
        await c.spool.templates.put("news", Template({"subject": "News", "html": NEWSLETTER + "{{ name }}"}))
        await c.worker()
        many = ",".join(f'{{"to":"r{number}@x.example","vars":{{"name":"{number}"}}}}' for number in range(10))
        await c.add(to="", subject="", text="", template="news", recipients=f"[{many}]")
        await c.until("email.relayed", many=10)
        assert places == {False}
        await c.add(id="own", subject="", text="Mine", template="news", vars='{"name":"x"}')
        await c.until("email.relayed", "own")
        assert places == {False, True}
        assert len(c.sink.received) == 11
