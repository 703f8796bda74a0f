"""Mails for many with whole programs: everybody gets one, a worker killed in the middle or not."""

from __future__ import annotations

import pytest

from bench.campaign import campaign

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


@pytest.mark.parametrize(("recipients", "entries"), [(1000, 1), (3000, 3)])
async def test_everybody_gets_one_mail_though_a_worker_is_killed(recipients: int, entries: int) -> None:
    found = await campaign(recipients, entries)
    assert (found.missing, found.unmarked, found.wrong, found.left) == (0, 0, 0, 0)
    if entries > 1:  # of one body alone that is more than a child has
        assert found.bytes_per_child <= 400
