"""The whole way, in small: XADD, two worker processes, a mail server that is not ours. `python -m bench oracle`
does it with ten thousand mails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.mails import build
from bench.mta import KINDS, mta
from bench.oracle import BODIES, Found, deliver, sample
from bench.package import Missing
from bench.programs import programs

MAILS = 64


@pytest.mark.acceptance
@pytest.mark.drained
@pytest.mark.parametrize("kind", list(KINDS))
async def test_mails_of_every_kind_arrive_whole_with_the_servers_id_in_their_events(
    kind: str, server_url: str, tmp_path: Path
) -> None:
    try:
        with mta(kind) as server:
            async with programs(tmp_path, server_url) as p:
                found = await deliver(p, server, MAILS)
    except Missing as why:
        pytest.skip(str(why))
    assert found.good
    assert (found.mails, found.arrived, found.ids, found.doubles, found.differing) == (MAILS, MAILS, MAILS, 0, 0)


def test_samples_are_of_every_kind_and_of_the_sizes_that_are_said() -> None:
    samples = [sample(number) for number in range(400)]
    assert samples == [sample(number) for number in range(400)]
    assert len({one.rcpt for one in samples}) == 400
    composed = [one for one in samples if one.letter]
    assert len(composed) == len(samples) // len(BODIES)
    assert any(one.letter.files for one in composed if one.letter)
    samples = [one for one in samples if not one.letter]
    kinds = {one.raw.split(b"Subject: ")[1].split(b" ")[0].decode() for one in samples}
    assert kinds == {*BODIES} - {"composed"}
    sizes = sorted(len(one.raw) for one in samples)
    assert sizes[0] < 2_000
    assert 40_000 < sizes[-1] < 51_000
    assert not any(b"\n" in line for one in samples for line in one.raw.split(b"\r\n"))


def test_a_composed_mail_has_arrived_when_its_reader_finds_what_was_meant() -> None:
    one = next(each for each in map(sample, range(400)) if each.letter and each.letter.files and each.letter.text)
    assert one.letter
    assert one.fields().count(b"envelope_to") == 1
    assert one.rcpt.encode() in one.fields()
    stored = build(one.letter.fields).replace(b"\r\n", b"\n")
    assert one.arrived(stored)
    assert not one.arrived(stored.replace(b"base64", b"7bit"))
    assert not sample(0).arrived(stored)


@pytest.mark.parametrize(
    "wrong", [{"arrived": 9}, {"ids": 9}, {"doubles": 1}, {"differing": 1}], ids=lambda wrong: next(iter(wrong))
)
def test_one_mail_that_went_wrong_is_not_good(wrong: dict[str, int]) -> None:
    right = Found("postfix", mails=10, arrived=10, ids=10)
    assert right.good
    assert not replace(right, **wrong).good  # type: ignore[arg-type]
