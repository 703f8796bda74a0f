"""A name that stands twice in one JSON object is seen, however it is written; and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.errors import MalformedMail
from streamq.mail import Mail, parse
from streamq.mail.twice import doubled

GOOD = {b"from": b"shop@example.com", b"to": b"bob@example.net", b"text": b"Hi"}


def read(**fields: bytes) -> Mail:
    known = GOOD | {name.encode(): value for name, value in fields.items()}
    return parse({k: v for k, v in known.items() if v}, entry="11-0", at_ms=0, salt=b"", max_bytes=2_000_000)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"headers": b'{"X-A":"1","X-B":"2","X-A":"3"}'}, "headers: a name twice in one object: give an array: 'X-A'"),
        ({"headers": b'{"X-A" : "1" , "X-\\u0041"\n:\t"3"}'}, "headers: a name twice"),
        (
            {"attachments": b'[{"content":""},{"filename":"a","content":"QUJD","content":"WFla"}]'},
            "attachments: a member twice in one of them: 'content'",
        ),
        (
            {"to": b"", "recipients": b'[{"to":"c@x.example"},{"to":"first@x.example","to":"second@x.example"}]'},
            "recipients: a name twice in one object, from recipients[0] on: 'to'",
        ),
        (
            {"to": b"", "recipients": b'[{"to":"a@x.example","metadata":{"n":1.50,"m":[{"a":1,"a":2}]}}]'},
            "recipients: a name twice in one object, from recipients[0] on: 'a'",
        ),
    ],
)
def test_the_field_is_named(fields: dict[str, bytes], says: str) -> None:
    with pytest.raises(MalformedMail) as caught:
        read(**fields)
    assert str(caught.value).startswith(says)


def test_of_what_is_two_objects_made_one_the_last_counts() -> None:
    """So a dead letter of a child looks, and it can be requeued."""
    assert b'"metadata":{"a":2}' in read(metadata=b'{"a":1,"a":2}').event


TEXTS = st.text(st.sampled_from(list('ab":\\{},[ \n')) | st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES: Any = st.recursive(
    st.none() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.sampled_from([None, 1]), st.booleans(), st.sampled_from([":", " : ", ":\n"]))
def test_nothing_else_is_taken_for_one(value: Any, indent: int | None, ascii_only: bool, colon: str) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=(",", colon)).encode()
    assert doubled(text, orjson.loads(text)) is None


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4), st.sampled_from([":", " : ", ":\n"]))
def test_one_more_is_found(known: dict[str, Any], colon: str) -> None:
    text = json.dumps(known, ensure_ascii=False, separators=(",", colon))
    again = json.dumps(next(iter(known)), ensure_ascii=False)
    twice = f"[{text[:-1]},{again}{colon}1}}]".encode()
    assert doubled(twice, orjson.loads(twice)) == next(iter(known))


@pytest.mark.parametrize("more", ["", "filename", "content"])
def test_names_around_a_megabyte_count_as_well(more: str) -> None:
    """Quotes that stand far apart are looked for, and not counted."""
    again = f',"{more}":""' if more else ""
    value = f'[{{"content":"{"QUJD" * 250_000}","filename":"a.pdf"{again}}},{{"content":""}}]'.encode()
    assert doubled(value, orjson.loads(value)) == (more or None)
