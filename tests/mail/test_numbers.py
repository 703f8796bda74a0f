"""Numbers of a producer come back as they were written: in metadata, of each recipient too, and in templates."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.errors import MalformedMail
from streamq.mail import Mail, parse
from streamq.mail.numbers import exact, packed, written
from streamq.mail.template import Template

LONG = "123456789012345678901234567890"
NUMBERS = [
    *(LONG, f"-{LONG}", "18446744073709551616", "-9223372036854775809", "18446744073709551615", "999999999999999999"),
    *("1.10", "0.1000000000000000055", "1E5", "-0", "-0.0", "1e-400", "12345678901234567.89", "0", "42", "-1"),
]
BASE = {"from": "shop@example.com", "to": "bob@example.net", "text": "Hi"}


def read(**fields: str) -> Mail:
    flat = {name.encode(): value.encode() for name, value in (BASE | fields).items() if value}
    find = {b"t": Template({"text": "{{ n }}"})}
    return parse(
        flat, entry="11-0", at_ms=0, salt=b"", max_bytes=2_000_000, template=lambda name, at_ms: find.get(name)
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_metadata_goes_into_events_as_it_was_written(number: str) -> None:
    for text in (f'{{"n":{number}}}', f'{{ "a" : [ {number} , {{ "b":\n{number} }} ] , "c":"{number}" }}'):
        event = read(metadata=text).event
        found = json.loads(b"{%b}" % event, parse_int=str, parse_float=str)["metadata"]
        assert found == json.loads(text, parse_int=str, parse_float=str)


@pytest.mark.parametrize("number", NUMBERS)
def test_so_do_those_of_each_recipient(number: str) -> None:
    one = f'{{"to":"a@x.example","vars":{{"n":{number}}},"metadata":{{"m":[{number}]}}}}'
    mail = read(to="", text="", template="t", recipients=f'[{one},{{"to":"b@x.example"}}]')
    assert mail.several is not None
    assert mail.several.children[0].vars == b'{"n":%b}' % number.encode()
    assert mail.several.children[0].metadata == b'{"m":[%b]}' % number.encode()


def test_a_whole_number_is_that_number_in_a_template() -> None:
    assert LONG.encode() in read(text="", template="t", vars=f'{{"n":{LONG}}}').content()
    assert b"\r\n1.1\r\n" in read(text="", template="t", vars='{"n":1.10}').content()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"vars": '{"n":1' + "0" * 309 + "}"}, "vars: a number of more than 308 digits"),
        ({"vars": '{"n":"' + "x" * 1_000_000 + '"}'}, 'vars: longer than 1000000 bytes: \'{"n":"xxx'),
        ({"vars": '{"n":1e400}'}, "vars: a number of more than 308 digits"),
        ({"vars": '{"n":NaN}'}, "vars: not a JSON object ("),
        ({"vars": '{"n":1.5,"m":' + "[" * 1000 + "]" * 1000 + "}"}, "vars: nested too deep"),
        ({"metadata": '{"n":1e400}'}, "metadata: a number of more than 308 digits"),
        ({"metadata": '{"n":1.5,"m":' + "[" * 1000 + "]" * 1000 + "}"}, "metadata: nested too deep"),
        ({"metadata": '{"n":1.5,"m":' + "[" * 300 + "]" * 300 + "}"}, "metadata: nested too deep"),
    ],
)
def test_what_no_number_can_be_is_refused(fields: dict[str, str], why: str) -> None:
    with pytest.raises(MalformedMail) as found:
        read(**({"text": "", "template": "t"} if "vars" in fields else {}), **fields)
    assert str(found.value).startswith(why)


def test_recipients_that_are_nested_too_deep_are_refused() -> None:
    deep = '[{"to":"a@x.example","metadata":{"n":1.5,"m":' + "[" * 1000 + "]" * 1000 + "}}]"
    with pytest.raises(MalformedMail, match=r"^recipients: nested too deep .*, from recipients\[0\] on"):
        read(to="", recipients=deep)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES, st.sampled_from([None, 1]))
def test_any_value_is_what_it_was(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:  # a lone surrogate in a name
        return
    assert json.loads(packed(written(text.encode()))) == value
    assert exact(text.encode()) == value


@pytest.mark.parametrize("levels", [1, 40, 81, 98])
@pytest.mark.parametrize("digits", [30, 993, 3608, 3689])
def test_however_deep_and_long_it_is_written_whole(levels: int, digits: int) -> None:
    """orjson writes the brackets behind such a one past its buffer's end, and the worker dies of it."""
    text = '{"a":[' * (levels // 2) + f"0.{'1' * digits}" + "]}" * (levels // 2)
    wrapped = '{"n":' + text + ',"s":"ü","e":[{},[],null,true,-0,1e5]}'
    assert packed(written(wrapped.encode())).decode() == wrapped


def test_too_deep_to_write_is_said() -> None:
    with pytest.raises(TypeError):
        packed(written(b"[" * 300 + b"1.10" + b"]" * 300))
