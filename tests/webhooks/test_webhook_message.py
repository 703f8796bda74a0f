"""What goes over the wire: the standard's own vector, ids, shapes."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.errors import SettingsError
from streamq.queue.events import Event, event_from
from streamq.settings import WebhookSettings, load_settings
from streamq.settings.webhook import key_of
from streamq.webhooks.message import message, sign
from webhooks.receiver import verified

GOOD = "whsec_" + "A" * 32  # 24 bytes


def event(name: str = "a1", **data: object) -> Event:
    raw = orjson.dumps({"at": 1_700_000_000_123, "event_id": f"1170-0.{name}", **data})
    return event_from((b"1700000000123-4", [b"type", b"email.relayed", b"id", name.encode(), b"data", raw]))


def test_the_standards_vector() -> None:
    """From the specification's repository, its reference libraries' tests."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_one_event_is_as_the_standard_has_it() -> None:
    made = message([event(rcpt="bob@example.net")], batched=False)
    assert made.id == "evt_1170-0_a1"
    assert orjson.loads(made.body) == {
        "type": "email.relayed",
        "timestamp": "2023-11-14T22:13:20.123Z",
        "data": {
            "id": "a1",
            "at": 1_700_000_000_123,
            "event_id": "1170-0.a1",
            "rcpt": "bob@example.net",
        },
    }


def test_a_batch_is_a_list_of_those() -> None:
    both = [event("a1"), event("b2")]
    made = message(both, batched=True)
    known = orjson.loads(made.body)
    assert (known["type"], made.id) == ("batch", "batch_1700000000123-4_1700000000123-4")
    assert known["data"] == [orjson.loads(message([each], batched=False).body) for each in both]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("said", "header"), [(TRACE, TRACE), ("", None), ("00-wrong", None), (TRACE + "\r\nx-forged: 1", None)]
)
def test_a_trace_is_handed_on(said: str, header: str | None) -> None:
    """What is none stays where it stands, in the body."""
    known = event(traceparent=said) if said else event()
    made = message([known], batched=False)
    assert made.headers([b"a" * 24], 1).get("traceparent") == header
    assert orjson.loads(made.body)["data"].get("traceparent", "") == said
    assert "traceparent" not in message([known, known], batched=True).headers([b"a" * 24], 1)


def test_every_key_signs() -> None:
    """While receivers change over."""
    made = message([event()], batched=False)
    headers = made.headers([b"a" * 24, b"b" * 24], 1_700_000_000)
    assert headers["webhook-timestamp"] == "1700000000"
    for key, good in ((b"a" * 24, True), (b"b" * 24, True), (b"c" * 24, False)):
        assert verified(key, headers, made.body) is good
    assert not verified(b"a" * 24, headers | {"webhook-timestamp": "1700000001"}, made.body)
    assert not verified(b"a" * 24, headers, made.body + b" ")


@given(st.text(max_size=300), st.integers(-(2**63), 2**63 - 1))
def test_whatever_stands_in_an_event_the_headers_are_headers(text: str, at: int) -> None:
    shown = Event("1700000000123-4", text, text, b"", {"event_id": text, "at": at})
    made = message([shown], batched=False)
    for value in made.headers([b"a" * 24], 1).values():
        assert re.fullmatch(r"[!-~]+(?: [!-~]+)*", value)
    assert "." not in made.id
    assert orjson.loads(made.body)["data"]["id"] == text


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({"url": "ftp://x"}, "url: not a webhook's address"),
        ({"url": "https://user:hunter2@x/"}, "url: not a webhook's address"),
        ({"url": "https://x/\r\nEvil: 1"}, "url: not an address"),
        ({"secret": "hunter2"}, "secret: not a secret"),
        ({"secret": "whsec_aHVudGVyMg=="}, "secret: not a secret"),
        ({"secret": []}, "secret: a secret, or a list"),
        ({"batch": 0}, "batch: "),
        ({"timeout": "1ms"}, "timeout: from 100ms to 5m"),
        ({"types": ["Email"]}, "types: "),
        ({"domain": "a b"}, "domain: "),
        ({"retry": []}, "retry: at least one step"),
        ({"colour": "red"}, "colour: no such setting"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_wrong_settings_are_named_and_no_secret_is_repeated(known: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load_settings(webhooks={"crm": {"url": "https://x/", "secret": GOOD, **known}})
    assert says in str(wrong.value)
    assert "hunter2" not in str(wrong.value)
    assert "aHVudGVyMg" not in str(wrong.value)


def test_secrets_are_shown_to_nobody() -> None:
    shown = repr(WebhookSettings.model_validate({"url": "https://x/t0ken", "secret": GOOD}))
    assert "AAAA" not in shown
    assert "t0ken" not in shown
