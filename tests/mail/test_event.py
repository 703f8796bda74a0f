import orjson
import pytest

from streamq.mail.event import Carried, event_members, hashed_address, hide_addresses, read_carried


def test_members_are_only_what_applies() -> None:
    bare = event_members(Carried(None, [], None, None), rcpt="b@x.de", site="x.de", message_id="")
    assert bare == b'"rcpt":"b@x.de","site":"x.de"'
    given = {b"tenant": b"t", b"tags": b"a,b", b"metadata": b'{"n":1}', b"traceparent": b"00-1"}
    whole = event_members(read_carried(given), rcpt="b@x.de", site="x.de", message_id="<1@x>")
    assert orjson.loads(b"{" + whole + b"}") == {
        "rcpt": "b@x.de",
        "site": "x.de",
        "tags": ["a", "b"],
        "metadata": {"n": 1},
        "tenant": "t",
        "traceparent": "00-1",
        "message_id": "<1@x>",
    }


def test_a_hashed_address_does_not_care_for_case() -> None:
    assert hashed_address("Bob@Example.net") == hashed_address("bob@example.net") != hashed_address("b@example.net")
    assert len(hashed_address("b@x.de")) == len("sha256:") + 16


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("550 5.1.1 <bob@example.net>: no such user", "550 5.1.1 <{0}>: no such user"),
        ("BOB@Example.NET, bob@example.net.", "{0}, {1}"),
        ("queued as 4@", "queued as 4@"),
        ("nobody", "nobody"),
        ('no "bob smith"@example.net here', "no {2} here"),
        ("<bob@[192.0.2.1]>", "<{3}>"),
        ("", ""),
    ],
)
def test_addresses_in_a_text_are_hashed(text: str, shown: str) -> None:
    named = ("bob@example.net", "bob@example.net.", '"bob smith"@example.net', "bob@[192.0.2.1]")
    known = [hashed_address(each) for each in named]
    assert hide_addresses(text) == shown.format(*known)


def test_hiding_takes_no_time_without_bound() -> None:
    """A reply is a server's; no place is begun at for longer than a local part may be."""
    assert hide_addresses("a@" * 10_000).count("sha256:") == 5_000
    assert hide_addresses("a" * 100_000 + "@").endswith("a@")
