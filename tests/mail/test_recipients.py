"""The field `recipients`: read in steps, and the same as if it were read at once."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.errors import MalformedMail
from streamq.mail import recipients as file
from streamq.mail.recipients import read_in_steps, read_recipients
from streamq.mail.several import Child
from streamq.queue.spool import Entry

TEXT = st.text(st.sampled_from('a,{}[]":\\\n é\0'), max_size=6)
VALUES = st.recursive(
    TEXT | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
SIGNS = [b"", b",", b'"', b"]", b"}", b"{", b"\\"]
ONE = st.fixed_dictionaries(
    {"to": st.text(min_size=1, max_size=5)},
    optional={
        "vars": st.dictionaries(TEXT, VALUES, max_size=3),
        "metadata": st.dictionaries(TEXT, VALUES, max_size=2),
        "id": TEXT,
    },
)


def read(value: bytes, **others: bytes) -> list[Child]:
    return read_recipients({b"recipients": value, **{name.encode(): each for name, each in others.items()}})


def reason(value: bytes, **others: bytes) -> str:
    with pytest.raises(MalformedMail) as raised:
        read(value, **others)
    return str(raised.value)


@settings(deadline=None, max_examples=100)
@given(st.lists(ONE, min_size=1, max_size=6), st.integers(0, 40), st.booleans())
def test_wherever_it_is_cut_it_is_the_same(found: list[dict[str, Any]], piece: int, indented: bool) -> None:
    value = orjson.dumps(found, option=orjson.OPT_INDENT_2 if indented else 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "PIECE", piece)
        patch.setattr(file, "TOKENS", 3)
        children = read(value)
    assert [child.value.decode() for child in children] == [one["to"] for one in found]
    assert [orjson.loads(child.vars or b"{}") for child in children] == [one.get("vars", {}) for one in found]
    assert [orjson.loads(child.metadata or b"{}") for child in children] == [one.get("metadata", {}) for one in found]
    assert [child.id.decode() for child in children] == [one.get("id", "") for one in found]


@settings(deadline=None, max_examples=200)
@given(st.lists(ONE, min_size=1, max_size=4), st.data(), st.integers(0, 20))
def test_what_is_no_json_is_none_in_pieces(found: list[dict[str, Any]], data: st.DataObject, piece: int) -> None:
    value = bytearray(orjson.dumps(found))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value)))
        value[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(SIGNS))
    try:
        whole = orjson.loads(bytes(value))
    except orjson.JSONDecodeError:
        whole = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "PIECE", piece)
        try:
            children = read(bytes(value))
        except MalformedMail:
            return  # nothing was read that is not there
    assert isinstance(whole, list)
    assert [child.value.decode() for child in children] == [one["to"] for one in whole]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"{}", "not a JSON array with at least one recipient"),
        (b" [ ] ", "not a JSON array with at least one recipient"),
        (b"x", "not a JSON array with at least one recipient"),
        (b'[{"to":"a"}', "not JSON: the array has no end"),
        (b'[{"to":"a', "not JSON: the array has no end"),
        (b'[{"to":"a"}]]', "not JSON: the array's end is not its last character"),
        (b'[{"to":"a"}}', "not JSON: the array's end is not its last character"),
        (b'[{"to":"a"}, ]', "not JSON: "),
        (b'[{"to":"a"}{"to":"b"}]', "not JSON: "),
        (b"[1]", "recipients[0] is not a JSON object"),
        (b'[{"to":"a"},{"to":""}]', "recipients[1].to: not a text with an address"),
        (b'[{"to":"a","id":1}]', "recipients[0].id: not a text"),
        (b'[{"to":"a","vars":[]}]', "recipients[0].vars: not a JSON object"),
        (b'[{"to":"a","cc":"b"}]', "recipients[0]: not one of id, metadata, to, vars"),
        (b'[{"to":"a","vars":{"a":%b}}]' % (b"[" * 300 + b"]" * 300), "recipients[0].vars: nested too deep"),
    ],
)
@pytest.mark.parametrize("piece", [0, 16_384])
def test_what_is_wrong_is_said(value: bytes, why: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "PIECE", piece)
    assert reason(value).startswith(f"recipients: {why}")


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MOST", 3)
    monkeypatch.setattr(file, "MOST_BYTES", 50)
    assert len(read(b'[{"to":"a"},{"to":"b"},{"to":"c"}]')) == 3
    for piece in (0, 16_384):
        monkeypatch.setattr(file, "PIECE", piece)
        assert reason(b"[" + b",".join([b'{"to":"a"}'] * 4) + b"]") == "recipients: more than 3 recipients"
    long = b'[{"to":"a"},{"to":"b","vars":{"x":"%b"}}]' % (b"y" * 60)
    assert reason(long).startswith("recipients: one of them is longer than 50 bytes")
    assert reason(b'[{"to":"a"}]', cc=b"x@x.example").startswith("cc: may not stand beside recipients")


@pytest.mark.parametrize("value", [b'[{"to":"' + b'\\"' * 200_000, b'["' + b"\\\\" * 200_000, b"[" * 400_000])
def test_no_text_is_looked_at_again_and_again(value: bytes) -> None:
    """Of one that has no end each quote could be tried as a beginning: four hundred thousand times half a million."""
    assert "recipients" in reason(value)


def test_a_step_looks_at_so_many_bytes_and_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read_piece = file._read

    def weighed(piece: bytes, name: str, at: int) -> list[Child]:
        sizes.append(len(piece))
        return read_piece(piece, name, at)

    monkeypatch.setattr(file, "_read", weighed)
    value = orjson.dumps([{"to": f"r{n}@x.example", "vars": {"n": [n] * 20}} for n in range(5_000)])
    most = at = 0
    for _ in read_in_steps({b"recipients": value}):
        most, at = max(most, len(sizes) - at), len(sizes)
    assert most == 1
    assert max(sizes) < file.PIECE + 200
    assert sum(sizes) > 0.9 * len(value)
    one = b'[{"to":"a","vars":{"n":[%b]}}]' % b",".join([b"1"] * 100_000)
    assert sum(1 for _ in read_in_steps({b"recipients": one})) > 100_000 / file.TOKENS


async def test_the_loop_goes_on_between_the_steps() -> None:
    value = orjson.dumps([{"to": f"r{n}@x.example"} for n in range(20_000)])
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    entry = Entry("11-1", {b"recipients": value, b"cc": b""})
    await entry.read_recipients()
    task.cancel()
    assert turns >= len(value) / (file.PIECE + 200)
    assert entry.recipients is not None
    assert len(entry.recipients.get()) == 20_000
    few = Entry("11-2", {b"recipients": b'[{"to":"a@x.example"}]'})
    await few.read_recipients()
    assert few.recipients is None  # it is read with the rest
