"""Fixtures of all tests: real servers, spools on them, and what must hold after every test.

A test that uses `server_url` or `any_server_url` (or `make_spool`, which stands on whichever the test names)
is examined when it ends: the conservation law, by `check` and once more by hand (law.py); groups in place;
nothing that hangs on a mail which is gone; no key that the table of keys does not know; no mail left. Two
markers change the last: `leaves_mail`: it ends with live mail on purpose (the law holds all the same);
`drained`: nothing but events, counts, lease, meta, whose, seen, dead letters, empty streams and keys with a
time to live is left.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis.utils
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from law import leaks, queues, survey
from mailroom import Mailroom
from pydantic_settings import PydanticBaseSettingsSource
from redis.asyncio import Redis
from servers import KINDS, Missing, Server, Servers, executable

from streamq.keys import Keys
from streamq.queue.check import check
from streamq.queue.connection import command, connect
from streamq.queue.spool import Spool
from streamq.settings import Settings

MakeSpool = Callable[..., Awaitable[Spool]]

# Others use the machine, too: how long an example took says nothing.
hypothesis_settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("shared")

# redis-py looks its own version up on disk for each connection that it makes: 2 ms, and a test makes five.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)


class Given(Settings):
    """Settings that are what a test says, and no environment's. (Looking there for each takes some ms, too.)"""

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # the others are not asked
        cls, settings_cls: type[Settings], init_settings: PydanticBaseSettingsSource, **_: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`: half as many processes again as there are cores, since tests wait for programs and timeouts, too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores * 3 // 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`stories`: long ones of one rule, in virtual time, that differ in their numbers, where servers differ in their
    commands. The first server here gets all of them, each other one the last."""
    told = [item for item in items if isinstance(item, pytest.Function) and item.get_closest_marker("stories")]
    last: dict[str, int] = {}
    for item in told:
        last[item.originalname] = max(last.get(item.originalname, 0), _number(item))
    first = next((kind for kind in KINDS if _is_here(kind)), "")
    spared = {id(item) for item in told if _number(item) < last[item.originalname] and _server(item) != first}
    if spared:
        config.hook.pytest_deselected(items=[item for item in items if id(item) in spared])
        items[:] = [item for item in items if id(item) not in spared]


def _server(item: pytest.Function) -> str:
    return str(item.callspec.params["any_server_url"])


def _number(item: pytest.Function) -> int:
    """Which of its cases it is; each story has one `parametrize`."""
    return max(number for name, number in item.callspec.indices.items() if name != "any_server_url")


def _is_here(kind: str) -> bool:
    try:
        return bool(executable(kind))
    except Missing:
        return False


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("STREAMQ_") or name == "REDIS_URL":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    running = Servers()
    yield running
    running.stop()


@pytest.fixture
def server_url(request: pytest.FixtureRequest, servers: Servers) -> Iterator[str]:
    """The default real server, empty."""
    try:
        server = servers.first()
    except Missing as why:
        pytest.fail(f"no test can run without a server: {why}")
    yield from _examined(request, server.url)


@pytest.fixture(params=list(KINDS))
def any_server_url(request: pytest.FixtureRequest, servers: Servers) -> Iterator[str]:
    """Each real server, empty; skipped where this machine has none of that kind."""
    try:
        server = servers.get(request.param)
    except Missing as why:
        pytest.skip(str(why))
    yield from _examined(request, server.url)


@pytest.fixture
def queue_url(request: pytest.FixtureRequest) -> str:
    """Whichever server the test names; the default one if it names none."""
    name = "any_server_url" if "any_server_url" in request.fixturenames else "server_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def own_server() -> Iterator[Callable[..., Server]]:
    """`own_server("--appendonly", "yes", kind="redis-6.2")`: a started server that a test may stop, kill and
    start again. Nobody examines it: call `examine` where that makes sense."""
    made: list[Server] = []

    def make(*options: str, kind: str | None = None) -> Server:
        for each in [kind] if kind else KINDS:
            try:
                server = Server(executable(each), options)
            except Missing as why:
                missing = str(why)
                continue
            made.append(server)
            server.start()
            return server
        pytest.skip(missing)

    yield make
    for server in made:
        server.remove()


@pytest_asyncio.fixture
async def make_spool(queue_url: str) -> AsyncIterator[MakeSpool]:
    """`await make_spool(queue="other", now="1", in_hand=5)`: an open spool on the test's server; `now` is the
    virtual time of its scripts in µs, everything else a setting. Several may share a queue."""
    made: list[Spool] = []

    async def make(*, url: str = queue_url, now: str = "", **settings: Any) -> Spool:
        spool = Spool(Given(**settings), connect(url), connect(url, blocking=True), now=now)
        made.append(spool)
        await spool.open()
        return spool

    yield make
    for spool in made:
        await spool.close()


@pytest_asyncio.fixture
async def spool(make_spool: MakeSpool) -> Spool:
    """One open spool with the default settings."""
    return await make_spool()


@pytest.fixture
def room(spool: Spool) -> Mailroom:
    """That spool in virtual time."""
    return Mailroom(spool)


def _examined(request: pytest.FixtureRequest, url: str) -> Iterator[str]:
    yield url
    wrong = _run(
        _ended(
            url,
            leaves_mail=request.node.get_closest_marker("leaves_mail") is not None,
            drained=request.node.get_closest_marker("drained") is not None,
        )
    )
    if wrong:
        pytest.fail("left behind: " + "; ".join(wrong), pytrace=False)


def _run(work: Coroutine[Any, Any, list[str]]) -> list[str]:
    """By a loop that is nobody's current one: the test's own is gone already, or never was."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def _ended(url: str, *, leaves_mail: bool, drained: bool) -> list[str]:
    redis = connect(url)
    try:
        await command(redis, "CONFIG", "SET", "maxmemory", 0)
        return await examine(redis, leaves_mail=leaves_mail, drained=drained)
    finally:
        await command(redis, "FLUSHALL")
        await redis.aclose()


async def examine(redis: Redis, *, leaves_mail: bool = False, drained: bool = False) -> list[str]:
    """All that is wrong with the queues of a server, in words."""
    wrong = await leaks(redis, drained=drained)
    for queue in await queues(redis):
        seen = await survey(redis, queue)
        wrong += [f"{queue}: {what}" for what in seen.wrong]
        if seen.states and not leaves_mail:
            wrong.append(f"{queue}: mails are left: {dict(seen.depth)}")
        busy = {name: many for name, many in seen.consumers.items() if many}
        if busy and not leaves_mail:
            wrong.append(f"{queue}: consumers have leases: {busy}")
        if any("no group" in what for what in seen.wrong):
            continue  # opening it to check it would make them again
        names = (await command(redis, "HGET", Keys(queue).meta, "priorities")).decode()
        named: dict[str, Any] = {"queue": queue, "priorities": names}
        spool = Spool(Given(**named), redis)
        await spool.open()
        report = await check(spool)
        wrong += [f"{queue}: check says {each.what} {each.entry}" for each in report.wrong]
    return wrong
