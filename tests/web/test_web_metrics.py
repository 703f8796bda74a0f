"""`/metrics` of a queue and of a worker: read by the library's parser, compared with Redis read by hand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mailroom import Mailroom
from prometheus_client.metrics_core import Metric
from redis.exceptions import ConnectionError as RedisConnectionError
from webbed import asking, numbers, serving

from streamq.queue.overview import Overviews
from streamq.queue.steer import set_rule
from streamq.settings import load_settings
from streamq.web.exposition import QueueNumbers, worker_families
from streamq.web.worker import worker_app
from streamq.worker import Worker
from streamq.worker.tally import Tally

pytestmark = pytest.mark.leaves_mail


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"streamq_{name}", frozenset((key.rstrip("_"), value) for key, value in labels.items())


async def _by_hand(room: Mailroom) -> dict[Any, float]:
    """What there is, by commands of the test's own."""
    do, prefix = room.do, "{streamq}:"
    found: dict[Any, float] = {}
    for p, name in enumerate(("high", "normal", "low")):
        live = await do("XLEN", prefix + name)
        leased = (await do("XPENDING", prefix + name, "streamq"))[0]
        held = sum(entry.startswith(b"%d" % p) for entry in await do("ZRANGE", prefix + "held", 0, -1))
        due = sum(entry.startswith(b"%d" % p) for entry in await do("ZRANGE", prefix + "schedule", 0, -1))
        parked = sum(
            member.rpartition(b"|")[2].startswith(b"%d" % p) for member in await do("ZRANGE", prefix + "parked", 0, -1)
        )
        counted = {"leased": leased, "held": held, "scheduled": due, "parked": parked}
        counted["waiting"] = live - sum(counted.values())
        found |= {of("mails", priority=name, state=state): many for state, many in counted.items()}
    flat = await do("HGETALL", prefix + "counts")
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        kind, _, name = field.decode().partition(":")
        if kind == "total":
            found[of("outcomes_total", outcome=name)] = int(value)
        elif kind == "class":
            found[of("classes_total", class_=name)] = int(value)
    found[of("dead_letters")] = await do("XLEN", prefix + "dead")
    found[of("events")] = await do("XLEN", prefix + "events")
    return found


async def _mails_in_all_states(room: Mailroom) -> None:
    for nth, name in enumerate(("high", "normal", "low")):
        for state in ("scheduled", "held", "parked", "leased"):
            for n in range(nth + 1):
                site = f"{state}.example" if state == "leased" else "gmail.com"
                lane = {"lane": f"main|{site}"} if state in {"leased", "parked"} else {}
                await room.in_state(state, name, **lane, id=f"{name}-{state}-{n}", to=f"bob@{site}")
    dead = await room.lease("low", lane="main|dead.example")
    assert await room.settled("dead", dead, lane="main|dead.example") == "ok"
    slow = await room.lease("low", lane="main|slow.example")
    assert await room.settled("defer", slow, lane="main|slow.example") == "ok"
    for n in range(3):
        await room.add("normal", to=f"b{n}@example.net")


async def test_a_queues_numbers_are_those_of_redis(room: Mailroom) -> None:
    await _mails_in_all_states(room)
    async with serving(room.spool) as client:
        said = await client.get("/metrics")
    assert said.status_code == 200
    assert said.headers["content-type"].startswith("text/plain")
    found = numbers(said.text)
    expected = await _by_hand(room)
    assert {key: found.get(key) for key in expected} == expected
    assert sum(many for (name, _), many in expected.items() if name == "streamq_mails") == 28
    assert found[of("accepted_total")] == 29
    assert found[of("parked", provider="google")] == 6
    assert found[of("redis_up")] == 1


async def test_what_never_happened_is_told_as_none(room: Mailroom) -> None:
    """Else the first burst of it is no increase to Prometheus."""
    async with serving(room.spool) as client:
        found = numbers((await client.get("/metrics")).text)
    for name in ("relayed", "bounced", "ambiguous"):
        assert found[of("outcomes_total", outcome=name)] == 0
    assert of("outcomes_total", outcome="held") not in found  # a state, which nobody counts
    for name in ("blocked", "temporary", "poison"):
        assert found[of("classes_total", class_=name)] == 0


async def test_standing_rules_are_counted(room: Mailroom) -> None:
    async with serving(room.spool) as client:
        assert numbers((await client.get("/metrics")).text)[of("standing_rules", scope="all", verb="hold")] == 0
    for name, verb in (
        ("all", "hold"),
        ("domain:a.example", "hold"),
        ("domain:b.example", "hold"),
        ("tag:x", "cancel"),
    ):
        await set_rule(room.spool, name, verb)
    async with serving(room.spool) as client:
        found = numbers((await client.get("/metrics")).text)
    rules = {tuple(sorted(labels)): many for (name, labels), many in found.items() if name == "streamq_standing_rules"}
    assert rules == {
        (("scope", "all"), ("verb", "hold")): 1,
        (("scope", "domain"), ("verb", "hold")): 2,
        (("scope", "tag"), ("verb", "cancel")): 1,
    }


async def test_routes_and_sites_say_why_they_are_closed(room: Mailroom) -> None:
    await room.parked(lane="relay|gmail.com")
    await room.scripts.pause("pause", ["relay"], reason="move")
    await room.scripts.pause("pause", ["*|gmail.com", "*|a.example", "*|b.example"])
    async with serving(room.spool) as client:
        found = numbers((await client.get("/metrics")).text)
    assert found[of("route_open", route="relay")] == 0
    assert found[of("route_closed", route="relay", why="operator")] == 1
    assert found[of("route_parked", route="relay")] == 1
    assert found[of("sites_closed", provider="google")] == 1
    assert found[of("sites_closed", provider="other")] == 2


async def test_a_site_that_was_slowed_counts_for_its_provider(room: Mailroom) -> None:
    await room.spool.publish_adapt()
    lease = await room.lease(lane="main|gmail.com", to="b@gmail.com")
    assert await room.settled("throttled", lease, lane="main|gmail.com") == "ok"
    async with serving(room.spool) as client:
        found = numbers((await client.get("/metrics")).text)
    assert found[of("sites_throttled", provider="google")] == 1
    assert found[of("outcomes_total", outcome="throttled")] == 1


async def test_no_label_comes_from_a_mail(room: Mailroom) -> None:
    """A million domains, ids, tenants or reasons are no more series than one."""
    await room.well("main")
    for n in range(20):
        known = {"tenant": f"t{n}", "tags": f"g{n}", "id": f"i{n}", "to": f"b@d{n}.example"}
        await room.parked(lane=f"main|d{n}.example", **known)
        lease = await room.lease(lane=f"main|e{n}.example", **known | {"id": f"j{n}"})
        assert await room.settled("dead", lease, lane=f"main|e{n}.example", reason=f"no {n}") == "ok"
    async with serving(room.spool) as client:
        found = numbers((await client.get("/metrics")).text)
    values = {value for (name, labels), _ in found.items() if name.startswith("streamq_") for _, value in labels}
    assert values & {"other", "high", "relay", "bad_address"}
    assert not [value for value in values if value[1:].removesuffix(".example").isdigit()]


async def test_openmetrics_where_it_is_asked_for(room: Mailroom) -> None:
    async with serving(room.spool) as client:
        said = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert said.headers["content-type"].startswith("application/openmetrics-text")
    assert said.text.endswith("# EOF\n")


async def test_without_redis_there_are_metrics_that_say_so(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise RedisConnectionError("gone")

    async with serving(room.spool) as client:
        monkeypatch.setattr("streamq.queue.overview.status", away)
        said = await client.get("/metrics")
        ready, alive = await client.get("/readyz"), await client.get("/livez")
        monkeypatch.undo()
        again = await client.get("/readyz")
    assert said.status_code == 200
    found = numbers(said.text)
    assert found[of("redis_up")] == 0
    assert of("mails", priority="high", state="waiting") not in found
    assert (ready.status_code, ready.text, alive.status_code) == (503, "redis: ConnectionError\n", 200)
    assert again.status_code == 200


def _accepted(numbers_: QueueNumbers, many: int, salt: bytes) -> float:
    status = SimpleNamespace(accepted=many, salt=salt, totals={}, classes={}, tallies={}, dead=0, events=0)
    families = numbers_._outcomes(SimpleNamespace(status=status))  # type: ignore[arg-type]
    return next(each for each in families if each.name == "streamq_accepted").samples[0].value


def test_a_counter_never_falls_but_with_its_queue() -> None:
    """Prometheus takes a counter that fell for one that began anew, and adds all of it."""
    found = QueueNumbers({})
    assert [_accepted(found, many, b"a") for many in (100, 120, 119, 130, 10)] == [100, 120, 120, 130, 130]
    assert [_accepted(found, many, b"b") for many in (5, 7, 6)] == [5, 7, 7]


@pytest.mark.parametrize("verb", ["XADD", "XTRIM", "XDEL"])
async def test_who_trims_a_stream_makes_no_counter_fall(room: Mailroom, verb: str) -> None:
    """Whoever may XADD may do so (docs/security.md)."""
    stream = room.keys.stream("normal")
    added = [await room.add() for _ in range(10)]
    async with serving(room.spool) as client:
        assert numbers((await client.get("/metrics")).text)[of("accepted_total")] == 10
    if verb == "XADD":
        await room.do("XADD", stream, "MAXLEN", 1, "*", "to", "bob@example.net")
    elif verb == "XTRIM":
        await room.do("XTRIM", stream, "MAXLEN", 2)
    else:
        await room.do("XDEL", stream, *(entry[1:] for entry in added))
    async with serving(room.spool) as client:  # another process
        assert numbers((await client.get("/metrics")).text)[of("accepted_total")] == 10 + (verb == "XADD")


# -- a worker --------------------------------------------------------------------------------------------------------


async def test_a_workers_numbers(server_url: str) -> None:
    worker = Worker(load_settings(relay="smtp://127.0.0.1:9", metrics="9469"), server_url)
    async with asking(worker_app(worker)) as client:
        early = await client.get("/readyz")
        assert (early.status_code, early.text) == (503, "it is starting\n")
        assert (await client.get("/metrics")).status_code == 503
        task = asyncio.create_task(worker.run())
        await worker.ready.wait()
        assert worker.tally is not None
        worker.tally.attempts["relayed", "sent", 'a"b\\c\nd', "relay"] = 7
        worker.tally.delivered["high"].add(40)
        worker.tally.delivered["high"].add(10**10)
        ready = await client.get("/readyz")
        found = numbers((await client.get("/metrics")).text)
        worker.stop()
        late = await client.get("/readyz")
        await task
    assert (ready.status_code, ready.text) == (200, "ok\n")
    assert (late.status_code, late.text) == (503, "it is stopping\n")
    assert found[of("attempts_total", outcome="relayed", class_="sent", provider='a"b\\c\nd', route="relay")] == 7
    assert found[of("delivery_seconds_bucket", priority="high", le="0.05")] == 1
    assert found[of("delivery_seconds_bucket", priority="high", le="432000.0")] == 1
    assert found[of("delivery_seconds_bucket", priority="high", le="+Inf")] == 2
    assert found[of("delivery_seconds_count", priority="high")] == 2
    assert found[of("delivery_seconds_sum", priority="high")] == pytest.approx(10**7 + 0.04)
    assert found[of("worker_ready")] == 1
    assert found[of("worker_in_hand")] == 0
    assert found["process_resident_memory_bytes", frozenset()] > 10_000_000


def _names(families: Iterable[Metric]) -> dict[str, tuple[str, ...]]:
    return {
        f"{each.name}_total" if each.type == "counter" else each.name: tuple(getattr(each, "_labelnames", ()))
        for each in families
    }


async def test_the_metrics_that_docs_name_are_those_that_there_are(room: Mailroom) -> None:
    """In both directions, with their labels: docs/operations.md has a table of them."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| `(streamq_[a-z_]+)(?:\{([a-z, ]*)\})?`", text, re.M)
    named = {name: tuple(filter(None, labels.replace(" ", "").split(","))) for name, labels in rows}
    overviews = Overviews(room.spool)
    queue = QueueNumbers({}).families(await overviews.get())
    worker = worker_families(
        Tally({}, [], []), settled={}, in_hand=0, connections={}, ready=True, redis_up=True, leads=True
    )
    assert named == _names(queue) | _names(worker)
