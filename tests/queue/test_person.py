"""Who is looked for: a first look misses no mail to them."""

from __future__ import annotations

import random

import orjson
import pytest

from bench.fuzz_addresses import mailbox
from streamq.mail.address import parse_list
from streamq.queue.person import person, recipients_of
from streamq.queue.walk import MailView

ANN = "ann@bücher.example"
DECOMPOSED = "ann@bu\u0308cher.example"


@pytest.mark.parametrize(
    ("who", "fields"),
    [
        ("ann@example.net", {"to": '"ann"@example.net'}),
        ("ann@example.net", {"raw": 'To: "ann"@example.net\r\n\r\nHi'}),
        ("ann.lee@example.net", {"to": '"ann"."lee"@example.net'}),
        ("ann@example.net", {"to": "ann@example。net"}),
        ("a/b@example.net", {"recipients": r'[{"to":"a\/b@example.net"}]'}),
        (ANN, {"to": "ann@BÜCHER.example"}),
        (ANN, {"to": DECOMPOSED}),
        (DECOMPOSED, {"to": ANN}),
        ("ann@xn--bcher-kva.example", {"to": ANN}),
        (ANN, {"to": "ann@xn--bcher-kva.example"}),
    ],
)
def test_however_it_is_spelt(who: str, fields: dict[str, str]) -> None:
    given = {name.encode(): value.encode() for name, value in fields.items()} | {b"from": b"s@x.de", b"text": b"Hi"}
    if "raw" in fields:
        given = {b"raw": given[b"raw"], b"envelope_from": b"s@x.de"}
    found = person(who)
    assert found.is_one_of(recipients_of(MailView("11732237561234-0", "normal", "waiting", given)))
    assert found.may_stand_in(given)


def test_no_spelling_is_missed() -> None:
    """Those that fuzzing draws, as a list, a JSON array, and in the headers of a raw mail."""
    chance = random.Random(7)
    seen = 0
    for _ in range(5000):
        text = mailbox(chance)
        try:
            [address] = parse_list(text)
            who = person(address.spec)
        except ValueError:
            continue
        seen += 1
        for fields in ({b"to": text.encode()}, {b"to": orjson.dumps([text])}, {b"raw": f"To: {text}\r\n\r\n".encode()}):
            assert who.may_stand_in(fields), (who.spec, fields)
    assert seen > 500


@pytest.mark.parametrize(
    "fields", [{"to": "bob@example.net"}, {"to": "ann@example.org"}, {"raw": "To: bob@x.de\r\n\r\nann@example.net"}, {}]
)
def test_mails_to_others_are_not_read(fields: dict[str, str]) -> None:
    given = {name.encode(): value.encode() for name, value in fields.items()}
    assert not person("ann@example.net").may_stand_in(given)
