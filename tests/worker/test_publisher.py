"""The publisher: what settings and rules say, for all workers; a changed file is taken while mails go out."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from crew import Crew, crew, rules_of
from servers import Server

from streamq.errors import SettingsError
from streamq.queue.connection import command
from streamq.queue.limits import set_limits
from streamq.queue.spool import Spool
from streamq.settings import Settings, load_settings
from streamq.worker import Worker
from streamq.worker.publisher import Publisher

HOURLY = "1/h"


async def limits(spool: Spool) -> dict[str, str]:
    """What holds."""
    flat = await command(spool.redis, "HGETALL", spool.keys.limits)
    return {name.decode(): text.decode() for name, text in zip(flat[::2], flat[1::2], strict=True)}


async def until_limits(spool: Spool, expected: dict[str, str]) -> None:
    while await limits(spool) != expected:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def until_said(caplog: pytest.LogCaptureFixture, words: str) -> str:
    """Waits for a line of the log; returns it."""
    while True:
        for message in caplog.messages:
            if words in message:
                return message
        await asyncio.sleep(0)


class Files:
    """A worker's settings and rules, which a test changes."""

    def __init__(self, folder: Path, crew: Crew) -> None:
        self.crew = crew
        self.config = folder / "streamq.toml"
        self.rules = folder / "mine.toml"
        self.rules.write_text("")
        self.write()

    def write(self, text: str = "", *, route: str = "") -> None:
        """The settings' file; `route`: of its one route."""
        main = f"[routes.main]\nurl = '{self.crew.sink.url}'\n{route}\n"
        self.config.write_text(f"retry = '50ms'\njitter = 0\nprovider_rules = '{self.rules}'\n{text}\n{main}")

    def rate(self, domain: str, rate: str) -> None:
        limit = f'[[provider.limit]]\nrate = "{rate}"\n'
        self.rules.write_text(f'[[provider]]\nname = "x"\ndomains = ["{domain}"]\n{limit}')

    def read(self) -> Settings:
        return load_settings(config=self.config)

    async def worker(self) -> Worker:
        return await self.crew.started(Worker(self.read(), self.crew.url, reread=self.read))


async def test_a_changed_file_is_taken_while_mails_go_out(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url) as c:
        files = Files(tmp_path, c)
        files.rate("slow.example", HOURLY)
        worker = await files.worker()
        for number in range(20):
            await c.add(id=f"slow-{number}", to="bob@slow.example")
        entry = await c.add(id="parked", to="bob@slow.example")
        await c.add(id="other", to="bob@fast.example")
        await c.until("email.relayed", "other")
        await c.until_state(entry, "parked")
        assert len(c.sink.received) == 2
        files.rate("slow.example", "100000/s")
        worker.reload()
        while worker.settled["sent"] < 22:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await c.count("parked:1") == 0
        assert len(c.sink.received) == 22


async def test_a_mistake_changes_nothing_and_is_told_by_line(
    server_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with crew(server_url) as c:
        files = Files(tmp_path, c)
        files.rate("slow.example", "5/s")
        worker = await files.worker()
        held = {"*|slow.example": "5:1000000"}
        assert await limits(c.spool) == held
        files.rate("slow.example", "fast")
        worker.reload()
        said = await until_said(caplog, "mine.toml")
        assert f"{files.rules}:5: rate: not a rate" in said
        assert "'fast'" in said
        files.rate("slow.example", "7/s")
        files.write("[sites.'a.example']\nrate = 'quick'")
        worker.reload()
        said = await until_said(caplog, "quick")
        assert "(line 5)" in said
        assert "sites.a.example.rate" in said
        files.config.write_text("")
        worker.reload()
        await until_said(caplog, "no route")
        assert await limits(c.spool) == held
        await c.add(id="a1")
        await c.until("email.relayed", "a1")  # it goes on
        files.write()
        worker.reload()
        await until_limits(c.spool, {"*|slow.example": "7:1000000"})


async def test_settings_are_read_again_as_far_as_they_are_limits(
    server_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with crew(server_url) as c:
        files = Files(tmp_path, c)
        worker = await files.worker()
        await set_limits(c.spool, "operator", {"*|b.example": "1:1000000"})
        sites = "[sites.'*']\nconnections = 3\n[sites.'b.example']\nrate = '9/s'\n"
        files.write(f"in_hand = 7\n{sites}[limits]\nrate = '50/s'", route="rate = '40/s'\nidle = '1s'")
        worker.reload()
        await until_limits(
            c.spool,
            {"*": "50:1000000", "main": "40:1000000", "*|*": ";c3", "*|b.example": "1:1000000;c3"},
        )
        said = await until_said(caplog, "take a restart")
        assert said.endswith(": in_hand, routes.main")
        files.write("in_hand = 7", route="idle = '1s'")  # says nothing of limits any more
        worker.reload()
        await until_limits(c.spool, {"*|b.example": "1:1000000"})


async def test_the_package_s_rules_go_on_and_off(server_url: str, tmp_path: Path) -> None:
    async with crew(server_url) as c:
        files = Files(tmp_path, c)
        worker = await files.worker()
        assert await limits(c.spool) == {}
        files.write("providers = 'all'")
        worker.reload()
        while "*|gmail.com" not in await limits(c.spool):  # noqa: ASYNC110
            await asyncio.sleep(0)
        files.write("providers = 'off'")
        worker.reload()
        await until_limits(c.spool, {})


async def test_a_text_is_known_from_the_next_connection_on(server_url: str, tmp_path: Path) -> None:
    rules = rules_of(tmp_path, '[[rule]]\nstage = "rcpt"\nreply = "550 the bees are busy"\ntimes = 1\n')
    async with crew(server_url, rules=rules) as c:
        files = Files(tmp_path, c)
        files.write(route="mails_per_connection = 1")
        worker = await files.worker()
        await c.add(id="a1")
        assert (await c.until("email.bounced", "a1"))[0]["class"] == "rejected"
        files.rules.write_text(
            '[[provider]]\nname = "x"\nrelays = ["127.0.0.1"]\n[[provider.reply]]\nclass = "route_rate"\n'
            'scope = "route"\naction = "retry"\ncode = "550"\ntext = "bees"\n'
        )
        known = worker.publisher.book
        worker.reload()
        while worker.publisher.book is known:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await c.spool.scripts.limits("look")  # its own call is behind it, and so is the telling
        await c.add(id="a2", to="carol@example.net")
        assert (await c.until("email.throttled", "a2"))[0]["class"] == "route_rate"
        await c.until("email.relayed", "a2")


async def test_a_server_that_lost_all_is_told_again(own_server: Callable[..., Server], tmp_path: Path) -> None:
    server = own_server()
    async with crew(server.url) as c:
        files = Files(tmp_path, c)
        files.rate("slow.example", "5/s")
        await files.worker()
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        await asyncio.to_thread(server.start)
        await until_limits(c.spool, {"*|slow.example": "5:1000000"})


def test_a_worker_does_not_start_with_wrong_rules(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[[provider]]\n")
    with pytest.raises(SettingsError, match=r"mine\.toml:1: name: missing"):
        Publisher(load_settings(provider_rules=str(path)))
