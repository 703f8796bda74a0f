from __future__ import annotations

from random import Random

import pytest
from sink_client import CONTENT, dial

from streamq.errors import SettingsError
from streamq.sink import Sink
from streamq.sink.windows import Windows


def test_the_maximum_is_exact() -> None:
    random, now = Random(5), [0.0]
    windows = Windows((1.0, 7.5), lambda: now[0])
    times: dict[str, list[float]] = {"x": [], "y": []}
    for _ in range(500):
        now[0] += random.choice((0.0, 0.1, 0.3, 2.0))
        domain = random.choice("xy")
        times[domain].append(now[0])
        windows.mail()
        windows.recipient(f"a@{domain.upper()}")

    def most(found: list[float], length: float) -> int:
        return max(sum(start <= time < start + length for time in found) for start in found)

    every = sorted(times["x"] + times["y"])
    for length in (1.0, 7.5):
        assert windows.most[length] == most(every, length)
        assert windows.most_of[length] == {domain: most(found, length) for domain, found in times.items()}
    assert windows.complete


def test_what_cannot_be_counted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.sink.windows.DOMAINS", 1)
    windows = Windows((1.0,), lambda: 0.0)
    windows.recipient("a@x")
    assert windows.complete
    windows.recipient("a@y")
    assert (windows.complete, windows.most_of) == (False, {1.0: {"x": 1}})
    monkeypatch.setattr("streamq.sink.windows.STAMPS", 2)
    windows = Windows((1.0,), lambda: 0.0)
    for _ in range(3):
        windows.mail()
    assert not windows.complete


async def test_the_ledger_knows_copies_from_doubles_and_counts_a_header() -> None:
    async with Sink(id_header="X-Shop-Id", windows=(3600.0,)) as sink, dial(sink) as client:
        content = b"X-Shop-ID: order\r\n 7\r\n" + CONTENT % 1
        for to in ("a@x", "b@x", "b@x"):
            assert await client.mail(to, content) == "250 2.0.0"
        assert await client.mail("c@x", CONTENT % 2) == "250 2.0.0"
        assert sink.ledger.repeated() == {(b"<1@example.com>", "b@x"): 2}
        assert sink.ledger.doubles() == {b"<1@example.com>": 3}
        assert sink.ledger.ids == {b"order 7": 3}
        counts = sink.counts()
        assert (counts["repeated"], counts["complete"], counts["transactions"]) == (1, True, 4)
        assert counts["most_in_window"] == {"3600": 4}
        assert counts["most_in_window_of"] == {"3600": {"x": 4}}
        assert counts["replies"]["dot 250"] == 4


@pytest.mark.parametrize("length", [0, -1, float("inf")])
def test_a_window_has_a_length(length: float) -> None:
    with pytest.raises(SettingsError, match=f"windows: .*{length}"):
        Sink(windows=(length,))
