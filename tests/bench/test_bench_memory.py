"""What `memory` and `latency` reckon with: bytes of mails and keys, waits of mails."""

from __future__ import annotations

import pytest

from bench.content import KINDS
from bench.latency import waits
from bench.memory import Held, families, held_by, payload


@pytest.mark.parametrize("more", [(), ("delay", "86400")])
def test_bytes_of_the_fields_that_are_fed(more: tuple[str, ...]) -> None:
    fed = [("id", f"m{at}", *KINDS["4k"](f"m{at}@slow.example"), *more) for at in range(120)]
    assert payload(120, more) == sum(len(part) for fields in fed for part in fields)


def test_buffers_are_no_data() -> None:
    info = "used_memory:1000\r\nused_memory_rss:5\r\nmem_clients_normal:200\r\nmem_aof_buffer:50\r\n"
    assert held_by(info) == 750


def test_keys_go_by_their_family() -> None:
    sizes = {"{streamq}:seen:1:22": 10, "{streamq}:seen:1:23": 5, "{streamq}:normal": 100, "{a}:lane:7": 1}
    assert families(sizes) == {"normal": 100, "seen": 15, "lane": 1}


def test_what_is_promised_of_a_mail() -> None:
    one = Held("parked", 10, 4000.0, 4200.0, 4420.0, {"seen": 40.0}, 60_000_000, clean=True)
    assert (one.added, one.good) == (180.0, True)
    assert not Held("parked", 10, 4000.0, 4200.0, 4420.0, {}, 60_000_000, clean=True).good
    assert not Held("parked", 10, 4000.0, 4401.0, 4420.0, {}, 60_000_000, clean=True).good
    assert not Held("parked", 10, 4000.0, 4200.0, 4300.0, {}, 130_000_000, clean=True).good
    assert not Held("parked", 10, 4000.0, 4200.0, 4300.0, {}, 0, clean=False).good


def test_waits_are_those_of_the_first_acceptance() -> None:
    accepted = [(5_000_000, "b"), (9_000_000, "a"), (20_000_000, "b"), (30_000_000, "other")]
    assert waits({"a": 1_000_000, "b": 3_000_000}, accepted) == [8.0, 2.0]
    with pytest.raises(ValueError, match="1 mails, c among them"):
        waits({"a": 1, "c": 1}, accepted)
