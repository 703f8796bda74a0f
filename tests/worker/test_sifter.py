"""The sifter: a burst to a site that takes nothing now is parked where it lies, and costs the others nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crew import Crew, crew

from streamq.queue.connection import command

SLOW = '[sites."slow.example"]\nrate = ["2/10m"]\n'


def slow(tmp_path: Path) -> Path:
    config = tmp_path / "slow.toml"
    config.write_text(SLOW)
    return config


async def worker(c: Crew, config: Path, **settings: Any) -> dict[str, int]:
    """One more; the calls that it makes by verb, growing."""
    one = await c.worker(config=config, **settings)
    return one.spool.caller.calls


async def burst(c: Crew, many: int, priority: str = "normal", site: str = "slow.example", **fields: str) -> None:
    for number in range(many):
        await c.add(priority, id=f"{site}{number}", to=f"b{number}@{site}", **fields)


@pytest.mark.leaves_mail
async def test_a_burst_in_front_is_parked_by_few_calls(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url) as c:
        await burst(c, 1000)
        await burst(c, 5, site="fast.example")
        calls = await worker(c, slow(tmp_path))
        await c.until("email.relayed", "fast.example4")
        assert await c.count("parked:1") >= 990  # all but those that had a slot
        # The first hundred came by a read and an admission; then a hundred went by each script.
        assert calls["sift"] + calls["stow"] <= 15
        assert calls["admit"] <= 8
        assert len(c.sink.received) <= 12


@pytest.mark.leaves_mail
async def test_a_small_hand_reads_few_at_a_time_and_sifts_all_the_same(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url) as c:
        await burst(c, 300)
        await c.add(id="last", to="a@fast.example")
        calls = await worker(c, slow(tmp_path), in_hand=5)
        await c.until("email.relayed", "last")
        assert calls["sift"] + calls.get("stow", 0) <= 6
        assert calls["admit"] <= 9


@pytest.mark.leaves_mail
async def test_it_stops_where_it_does_not_pay(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url) as c:
        await burst(c, 300)
        calls = await worker(c, slow(tmp_path), in_hand=20)
        await burst(c, 300, site="fast.example")
        await c.until("email.relayed", "fast.example299")
        assert 1 <= calls["sift"] + calls.get("stow", 0) <= 25  # 80 or more, were it to go on


async def test_its_mails_go_when_their_turn_comes_and_once_by_id(server_url: str, tmp_path: Path) -> None:
    config = tmp_path / "slow.toml"
    config.write_text('[sites."slow.example"]\nrate = ["20/s"]\n')
    async with crew(server_url) as c:
        for _ in range(2):
            await burst(c, 40)
        calls = await worker(c, config, in_hand=20)
        events: dict[str, list[str]] = {}
        async for kind, name, _ in c.events():
            events.setdefault(name, []).append(kind)
            if sum(map(len, events.values())) == 80:
                break
        assert calls["sift"] >= 1
        assert [sorted(kinds) for kinds in events.values()] == [["email.duplicate", "email.relayed"]] * 40
        assert len(c.sink.received) == 40


@pytest.mark.leaves_mail
async def test_other_priorities_are_read_beside_it(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url) as c:
        await burst(c, 500, "low")
        await worker(c, slow(tmp_path), in_hand=20)
        await c.add("high", id="code", to="a@fast.example")
        await c.until("email.relayed", "code")
        await c.add("normal", id="order", to="a@fast.example")
        await c.until("email.relayed", "order")


async def test_malformed_mail_in_its_lane_is_rejected_at_its_turn(server_url: str, tmp_path: Path) -> None:
    config = tmp_path / "slow.toml"
    config.write_text('[sites."slow.example"]\nrate = ["200/s"]\n')
    async with crew(server_url) as c:
        await burst(c, 110)
        for number in range(10):
            await c.add(id=f"bad{number}", to=f"b{number}@slow.example", headers="{")
        calls = await worker(c, config)
        ended = []
        async for kind, name, data in c.events():
            ended.append((kind, name, data.get("reason", "")))
            if len(ended) == 120:
                break
        assert calls["sift"] >= 1
        rejected = [(name, reason) for kind, name, reason in ended if kind == "email.rejected"]
        assert sorted(name for name, _ in rejected) == sorted(f"bad{number}" for number in range(10))
        assert all(reason.startswith("headers:") for _, reason in rejected)


@pytest.mark.leaves_mail
async def test_large_mails_do_not_travel_through_it(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url) as c:
        await burst(c, 60, text="x" * 100_000)
        await c.add(id="last", to="a@fast.example")
        calls = await worker(c, slow(tmp_path))
        await c.until("email.relayed", "last")
        assert not calls.keys() & {"sift", "stow"}
        parked = await command(c.spool.redis, "ZCARD", c.spool.keys.parked)
        assert parked >= 50
