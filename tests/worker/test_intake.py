"""Intake: what becomes of an entry that was read; and that a glance and a judgement agree."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.queue.rows import AdmitRow
from streamq.queue.spool import Entry
from streamq.settings import load_settings
from streamq.worker.intake import Intake
from streamq.worker.ways import Ways

AT = 1_700_000_000_000
NAME = f"1{AT}-3"
SALT = bytes(16)
DAY = 86_400_000
GOOD = {"from": "shop@example.com", "to": "bob@example.net", "subject": "Hi", "text": "Hello"}


def intake(routes: tuple[str, ...] = ("relay",), **settings: Any) -> Intake:
    """Its routes by name: the first is the usual one, the others are reserved."""
    ways = {name: {"url": "smtp://h", "reserved": at > 0} for at, name in enumerate(routes)}
    known = load_settings(routes=ways, **settings)
    return Intake(known, SALT, Ways(known, SALT, known.priorities))


def entry(**fields: str | bytes) -> Entry:
    flat = {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in fields.items()}
    return Entry(NAME, flat)


def judged(one: Entry, *routes: str, **settings: Any) -> AdmitRow:
    row, mail = intake(routes or ("relay",), **settings).judge(one)
    assert (mail is not None) == (row.kind in {"send", "expand"})
    assert row.entry == NAME
    return row


def why(row: AdmitRow) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(row.why)
    return found


# -- what may be sent --------------------------------------------------------------------------------------------


def test_a_mail_is_sent() -> None:
    row = judged(entry(**GOOD))
    assert (row.kind, row.lane, row.due, row.expires, row.seen) == ("send", "relay|example.net", 0, 0, b"")
    assert (row.id, row.deadline, row.why) == (NAME, AT + 5 * DAY, b"")
    assert orjson.loads(b"{%b}" % row.tail)["rcpt"] == "bob@example.net"


def test_its_id_is_a_digest_of_tenant_and_id_with_its_contents_hash() -> None:
    rows = [
        judged(entry(**GOOD, id="a1")),
        judged(entry(**GOOD, id="a1", tenant="acme")),
        judged(entry(**GOOD | {"text": "Other"}, id="a1")),
        judged(entry(**GOOD, id="a2")),
    ]
    assert {len(row.seen) for row in rows} == {14}
    digests, hashes = [row.seen[:10] for row in rows], [row.seen[10:] for row in rows]
    assert digests[0] == digests[2]
    assert len({*digests}) == 3
    assert hashes[0] == hashes[3] != hashes[2]
    assert [row.id for row in rows] == ["a1", "a1", "a1", "a2"]


def test_a_trace_does_not_make_another_mail() -> None:
    one, other = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")
    rows = [judged(entry(**GOOD, id="a1", traceparent=trace)) for trace in (one, other)]
    assert rows[0].seen == rows[1].seen


def test_later_than_now_counts_from_then() -> None:
    row = judged(entry(**GOOD, send_at=str(AT + DAY)))
    assert (row.due, row.deadline, row.expires) == (AT + DAY, AT + 6 * DAY, AT + 6 * DAY)


def test_its_own_deadline_is_never_later_than_its_age() -> None:
    assert judged(entry(**GOOD, ttl="60")).deadline == AT + 60_000
    row = judged(entry(**GOOD, ttl=str(30 * 86_400)), max_age="2d")
    assert (row.deadline, row.expires) == (AT + 2 * DAY, AT + 2 * DAY)


def test_its_own_route() -> None:
    assert judged(entry(**GOOD, route="bulk"), "relay", "bulk").lane == "bulk|example.net"
    assert judged(entry(**GOOD), "first", "second").lane == "first|example.net"


# -- what may not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"from": "shop@example.com", "subject": "Hi"}, "to: "),
        ({**GOOD, "to": "nobody"}, "to: "),
        ({**GOOD, "to": b"\xff@example.net"}, "to: not UTF-8"),
        ({**GOOD, "subject": "a\r\nBcc: x@y.example"}, "subject: CR, LF or NUL"),
        ({**GOOD, "id": "x" * 257}, "id: longer than"),
        ({**GOOD, "expires_at": "soon"}, "expires_at: "),
        ({}, "from: "),
    ],
)
def test_malformed_is_dead_and_says_why(fields: dict[str, str | bytes], says: str) -> None:
    row = judged(entry(**fields))
    assert (row.kind, row.lane, row.seen) == ("dead", "", b"")
    assert why(row)["class"] == "malformed"
    assert why(row)["reason"].startswith(says)


def test_a_malformed_mails_id_is_shown_as_far_as_it_can_be() -> None:
    row = judged(entry(**GOOD | {"to": "nobody"}, id=b"\xff" + b"x" * 10_000))
    assert row.id == "\ufffd" + "x" * 255
    assert len(row.why) < 1000


def test_unknown_fields_are_held() -> None:
    row = judged(entry(**GOOD, colour="red", shape="round"))
    assert (row.kind, row.lane, row.seen) == ("hold", "", b"")
    assert why(row) == {
        "reason": "unknown fields: colour, shape",
        "fields": ["colour", "shape"],
        "class": "unknown_field",
    }


@pytest.mark.parametrize(
    ("times", "end"),
    [
        ({"ttl": "60"}, AT + 60_000),
        ({"delay": "864000"}, AT + 15 * DAY),
        ({"delay": "864000", "expires_at": str(AT + 12 * DAY)}, AT + 12 * DAY),
        ({"ttl": "soon"}, 0),
        ({}, 0),
    ],
)
def test_what_is_held_ends_when_it_says(times: dict[str, str], end: int) -> None:
    """Of the mail's own times those count that can be read, whatever it is held for; else its age."""
    for more in ({"colour": "red"}, {"route": "nowhere"}):
        row = judged(entry(**GOOD, **more, **times))
        if times.get("ttl") != "soon" or "colour" in more:
            assert (row.kind, row.expires) == ("hold", end)
            assert row.deadline == (end or AT + 5 * DAY)


def test_a_template_that_is_not_stored_holds_the_mail() -> None:
    fields = {name: value for name, value in GOOD.items() if name not in {"subject", "text"}}
    row = judged(entry(**fields, template="welcome"))
    assert row.kind == "hold"
    assert why(row)["class"] == "unknown_template"
    assert why(row)["fields"] == ["template=welcome"]


def test_several_recipients_are_expanded_and_go_no_way_yet() -> None:
    row = judged(entry(**GOOD, cc="eve@example.org", id="a1"))
    assert (row.kind, row.lane, row.id) == ("expand", "", "a1")
    assert orjson.loads(b"{" + row.tail + b"}").keys() == {"message_id"}


def test_a_child_is_stamped_as_its_parent_and_says_so() -> None:
    one = entry(**GOOD, cc="eve@example.org", envelope_to="bob@example.net")
    other = "11732237569999-7"
    child = Entry(other, one.fields, NAME, NAME)
    row, mail = intake().judge(child)
    assert mail is not None
    assert row.tail.startswith(b'"parent":"%b"' % NAME.encode())
    whole = intake().judge(one)[1]
    assert whole is not None
    assert mail.content() == whole.content()


def test_a_child_s_age_counts_from_when_it_was_made() -> None:
    """Its parent waited nine days for its `send_at`, and no mail gets older than five."""
    made = AT + 9 * DAY
    child = Entry(f"1{made}-7", entry(**GOOD, collapse_key="k").fields, NAME, NAME)
    row, _ = intake().judge(child)
    assert (row.kind, row.deadline, int(row.collapse[20:])) == ("send", made + 5 * DAY, made + 60_000)
    own = Entry(f"1{made}-7", entry(**GOOD, ttl="86400").fields, NAME, NAME)
    assert intake().judge(own)[0].deadline == AT + DAY  # what the producer said counts from its XADD


def test_a_child_without_its_body_is_dead() -> None:
    row = judged(Entry(NAME, {b"@of": b"11-1", b"@n": b"1", b"envelope_to": b"bob@example.net"}))
    assert (row.kind, why(row)["reason"]) == (
        "dead",
        "@of: not one of the children of that mail, or what they share is gone: '11-1'",
    )


def test_an_unknown_route_is_held() -> None:
    row = judged(entry(**GOOD, route="bulk"))
    assert row.kind == "hold"
    assert why(row) == {"reason": "route: no such route: 'bulk'", "fields": ["route=bulk"], "class": "unknown_route"}


def test_a_mail_can_be_built_again_the_same() -> None:
    one = intake()
    first, second = one.judge(entry(**GOOD))[1], one.judge(entry(**GOOD))[1]
    other = intake().judge(entry(**GOOD | {"text": "Other"}))[1]
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.content() == second.content() != other.content()
    assert one.judge(entry(**GOOD | {"to": "nobody"}))[1] is None


# -- a glance ----------------------------------------------------------------------------------------------------

word = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,8}", fullmatch=True)
domains = st.from_regex(r"[A-Za-z0-9]{1,8}(\.[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,4})?){1,3}", fullmatch=True)
addresses = st.builds("{}@{}".format, word, domains)
ids = st.text(st.characters(codec="utf-8"), max_size=12)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=30)
plain = st.fixed_dictionaries(
    {"from": addresses, "to": addresses, "subject": texts, "text": texts},
    optional={
        "id": ids,
        "html": texts,
        "envelope_from": addresses,
        "envelope_to": addresses,
        "reply_to": addresses,
        "sensitive": st.sampled_from(["0", "1", ""]),
        "on_ambiguous": st.sampled_from(["resend", "hold", ""]),
        "metadata": st.sampled_from(["{}", '{"order": 7}', ""]),
        "tenant": st.sampled_from(["", "acme"]),
        "tags": st.sampled_from(["", "a,b"]),
        "delay": st.sampled_from(["", "60"]),
        "route": st.sampled_from(["", "relay"]),
        "raw": st.just(""),
        "x_own": texts,
    },
)


@given(plain)
def test_a_glance_sees_what_a_judgement_finds(fields: dict[str, str]) -> None:
    one = entry(**fields)
    seen = intake().glance(one)
    row, mail = intake().judge(one)
    if seen is None or mail is None:
        return
    assert seen.kind == row.kind == "send"
    for part in ("entry", "lane", "due", "deadline", "expires", "seen", "id"):
        assert getattr(seen, part) == getattr(row, part), part
    shown, known = (orjson.loads(b"{%b}" % each.tail) for each in (seen, row))
    assert shown.items() <= known.items()


@given(addresses, addresses, texts)
def test_a_plain_mail_is_glanced_at(author: str, to: str, text: str) -> None:
    """Else parking would cost as much as judging, for all."""
    one = entry(**{"from": author, "to": to, "subject": text, "text": text, "id": "a-1"})
    assert intake().glance(one) is not None


@pytest.mark.parametrize(
    "fields",
    [
        {**GOOD, "tenant": "acme"},
        {**GOOD, "send_at": "1800000000"},
        {**GOOD, "route": "bulk"},
        {**GOOD, "colour": "red"},
        {**GOOD, "to": "Bob <bob@example.net>"},
        {**GOOD, "to": "bob@example.net, eve@example.net"},
        {**GOOD, "to": "b\u00f6b@example.net"},
        {**GOOD, "id": 'quote"'},
        {"raw": "To: bob@example.net\r\n\r\nHi"},
        {},
    ],
)
def test_what_needs_a_closer_look_is_not_glanced_at(fields: dict[str, str]) -> None:
    assert intake().glance(entry(**fields)) is None


def test_a_glance_shows_no_address_where_none_may_stand() -> None:
    assert intake(pii="hash").glance(entry(**GOOD)) is None
    assert b"bob@" not in judged(entry(**GOOD), pii="hash").tail


@pytest.mark.parametrize("field", ["id", "to", "from", "text", "sensitive", "raw", "collapse_key"])
def test_a_field_that_is_there_twice_is_a_dead_letter_that_names_it(field: str) -> None:
    flat = [part.encode() for pair in GOOD.items() for part in pair]
    first = [] if field in GOOD else [field.encode(), b"1"]
    one = Entry.of(NAME, [*flat, *first, field.encode(), b"a@x.example"])
    row = judged(one)
    assert (row.kind, why(row)["class"]) == ("dead", "malformed")
    assert why(row)["reason"].startswith(f"{field}: given more than once")
    assert intake().glance(one) is None
    assert intake().glance(Entry.of(NAME, flat)) is not None


@pytest.mark.parametrize("said", [(b"0", b"1"), (b"1", b"0"), (b"", b"yes"), (b"1", b"")])
def test_a_value_is_hidden_where_one_of_several_flags_says_so(said: tuple[bytes, bytes]) -> None:
    one = Entry.of(NAME, [b"to", b"oops", b"sensitive", said[0], b"to", b"secret", b"sensitive", said[1]])
    assert why(judged(one))["reason"] == "sensitive: given more than once"
    only = Entry.of(NAME, [b"to", b"oops", b"sensitive", said[0], b"a", b"b", b"sensitive", said[1]])
    assert only.fields[b"sensitive"] in (b"1", b"yes")


@pytest.mark.parametrize(
    ("fields", "is_known"),
    [
        ({}, True),
        ({"to": "Bob <bob@EXAMPLE.net>"}, True),
        ({"envelope_to": "bob@example.net", "to": "a@b.example, c@d.example"}, True),
        ({"to": "bob@example.net, eve@example.net"}, False),
        ({"cc": "eve@example.net"}, False),
        ({"to": "nobody"}, False),
        ({"to": "x" * 1001}, False),
        ({"collapse_key": ""}, False),
        ({"collapse_seconds": "x"}, False),
        ({"tenant": "other"}, False),
    ],
)
def test_the_collapse_key_of_what_is_looked_at_later_is_that_of_what_was(
    fields: dict[str, str], is_known: bool
) -> None:
    """Or none, where it takes more than a glance to know whose it is."""
    key = {"collapse_key": "quota", "collapse_seconds": "60", "to": "bob@example.net"}
    judged = intake().judge(entry(**GOOD | key))[0].collapse
    assert judged
    row = intake().unread(entry(**GOOD | key | fields), 1)
    assert (row.kind, row.collapse == judged) == ("later", is_known)
    if not is_known:
        assert (row.collapse == "") is ("tenant" not in fields)
