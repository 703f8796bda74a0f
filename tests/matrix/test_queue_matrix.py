"""Every fault at every stage in every mode, through the whole queue: nothing lost, doubles marked, attempts earned.

A cell is a queue and a sink of its own and one worker. Four mails go out over one connection; the fault meets the
second of them (or, before MAIL, the session), once. At the end each mail has ended once, in the way that the fault
deserves; what arrived twice is marked ambiguous; an attempt was burnt only where a server judged, or where a
transaction broke in its middle. None of the cells is a sample: all combinations run.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from streamq.queue.check import check
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings
from streamq.sink import Certificate, Rule, Rules, Sink, User, self_signed
from streamq.worker import Worker

MODES: dict[str, dict[str, Any]] = {
    "off": {"pipelining": "off"},
    "transaction": {"pipelining": "transaction"},
    "overlap": {"pipelining": "overlap"},
    "bdat": {"pipelining": "transaction", "chunking": True},
}
BEFORE = ("greeting", "ehlo", "starttls", "auth")
DURING = ("mail", "rcpt", "data", "dot")
FAULTS = ("4xx", "5xx", "421", "eof", "rst", "timeout", "garbage")
CELLS = [*product(MODES, (*BEFORE, *DURING), FAULTS)]
MAILS = 4
VICTIM = 1

REFUSALS = {"4xx": "451 4.3.0 Try later", "5xx": "554 5.3.0 No", "421": "421 4.3.2 Service not available"}


class Cell(NamedTuple):
    mode: str
    stage: str
    fault: str

    @property
    def stage_of_sink(self) -> str:
        """There is no DATA with BDAT: a break meets the body on its way, a refusal is one of many lines."""
        if self.mode != "bdat" or self.stage != "data":
            return self.stage
        return "dot" if self.fault in {"4xx", "5xx"} else "body"

    def rule(self) -> Rule:
        match = {"mail": f"s{VICTIM}@example.com", "rcpt": f"r{VICTIM}@example.net", "data": f"r{VICTIM}@example.net"}
        known: dict[str, Any] = {"stage": self.stage_of_sink, "times": 1, "match": "*"}
        if self.stage in DURING:
            known["match"] = match.get(self.stage, f"r{VICTIM}@example.net")
        if self.fault in REFUSALS:
            reply = REFUSALS[self.fault]
            lines = f"{reply[:3]} no\n{reply[:3]} enhanced code" if self.stage_of_sink != self.stage else reply
            return Rule(reply=lines, **known)
        if self.fault == "garbage":
            return Rule(garbage="text", **known)
        known["action"] = "silent" if self.fault == "timeout" else self.fault
        return Rule(**known)


class Outcome(NamedTuple):
    """`ends`: final events per mail; `tries`: events that burnt an attempt of the victim; `got`: per recipient."""

    ends: dict[str, list[str]]
    tries: Counter[str]
    attempt: int
    got: Counter[str]


@asynccontextmanager
async def _worker(cell: Cell, url: str, sink: Sink, name: str, folder: Path) -> AsyncIterator[Spool]:
    config = folder / f"{name}.toml"
    route = {
        "url": sink.url.replace("smtp://", "smtp://user:secret@"),
        "connections": 1,
        "tls": "require" if cell.stage == "starttls" else "none",
        "verify": False,
        "greeting_timeout": "500ms",
        "command_timeout": "500ms",
        "data_timeout": "500ms",
        "dot_timeout": "500ms",
        **MODES[cell.mode],
    }
    lines = [f"{key} = {orjson.dumps(value).decode()}" for key, value in route.items()]
    config.write_text("\n".join(["[routes.main]", *lines]))
    settings = load_settings(config=config, queue=name, retry="50ms", jitter=0)
    spool = await Spool.connect(settings, url)
    try:
        for number in range(MAILS):
            await command(
                spool.redis, "XADD", spool.keys.stream("normal"), "*", "id", f"m{number}", "from",
                f"s{number}@example.com", "to", f"r{number}@example.net", "subject", "Hi", "text", "Hello",
            )  # fmt: skip
        worker = Worker(settings, url)
        task = asyncio.create_task(worker.run())
        try:
            yield spool
        finally:
            worker.stop()
            await task
        assert (await check(spool)).wrong == []
    finally:
        await spool.close()


FINAL = {"email.relayed", "email.bounced", "email.rejected", "email.expired", "email.failed", "email.cancelled"}
BURNS = {"email.deferred", "email.throttled", "email.ambiguous"}


async def _run(cell: Cell, url: str, name: str, folder: Path, tls: Certificate) -> Outcome:
    ends: dict[str, list[str]] = {}
    tries: Counter[str] = Counter()
    attempt, last = 0, "0"
    got: Counter[str] = Counter()
    rules = Rules(rules=(cell.rule(),), users=(User(name="user", password="secret"),))
    async with (
        Sink(rules=rules, tls=tls, on_mail=lambda mail: got.update(mail.envelope_to)) as sink,
        _worker(cell, url, sink, name, folder) as spool,
    ):
        while sum(map(len, ends.values())) < MAILS:
            found = await command(
                spool.reader, "XREAD", "COUNT", 100, "BLOCK", 5000, "STREAMS", spool.keys.events, last
            )
            for id_, flat in (row for _, rows in found or () for row in rows):
                last = id_.decode()
                kind, mail, data = flat[1].decode(), flat[3].decode(), orjson.loads(flat[5])
                if kind in FINAL:
                    ends.setdefault(mail, []).append(kind)
                if mail == f"m{VICTIM}":
                    tries[kind] += kind in BURNS
                    attempt = data.get("attempt", attempt)
    return Outcome(ends, +tries, attempt, got)


def expected(cell: Cell) -> tuple[str, int, int]:
    """The victim's end, how many attempts burnt before it, how often it may have arrived."""
    if cell.stage in BEFORE:
        return "email.relayed", 0, 1
    stage = "dot" if cell.mode == "bdat" and cell.stage == "data" else cell.stage
    if cell.fault == "5xx":
        return "email.bounced", 0, 0
    if cell.fault == "4xx":
        return "email.relayed", 1, 1
    if cell.fault == "421":  # "leaving" says nothing of a mail, but behind the body it is the mail's only answer
        return "email.relayed", int(stage == "dot"), 1
    past_dot = stage == "dot" or (cell.mode == "bdat" and cell.stage in DURING)
    if past_dot:
        return "email.relayed", 1, 2
    return "email.relayed", int(stage != "mail"), 1


@pytest.fixture(scope="module")
def tls() -> Certificate:
    return self_signed()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES)
async def test_every_cell(server_url: str, tmp_path: Path, tls: Certificate, mode: str, fault: str) -> None:
    cells = [cell for cell in (Cell(*each) for each in CELLS) if (cell.mode, cell.fault) == (mode, fault)]
    assert len(cells) == len(BEFORE) + len(DURING)
    names = [f"{mode}-{cell.stage}-{fault}" for cell in cells]
    outcomes = await asyncio.gather(
        *(_run(cell, server_url, name, tmp_path, tls) for cell, name in zip(cells, names, strict=True))
    )
    gc.collect()  # a transport that nobody closed is a ResourceWarning, which is an error
    wrong = []
    for cell, found in zip(cells, outcomes, strict=True):
        end, burnt, most = expected(cell)
        others = {f"m{number}": ["email.relayed"] for number in range(MAILS) if number != VICTIM}
        ends = {**others, f"m{VICTIM}": [end]}
        checks = {
            "ends": (found.ends, ends),
            "attempts burnt": (found.tries.total(), burnt),
            "attempt of its last event": (found.attempt, burnt + 1),
            "others arrived": (
                {name: many for name, many in found.got.items() if name != f"r{VICTIM}@example.net"},
                {f"r{number}@example.net": 1 for number in range(MAILS) if number != VICTIM},
            ),
            "doubles are marked": (
                found.got[f"r{VICTIM}@example.net"] <= 1 or found.tries["email.ambiguous"] == 1,
                True,
            ),
        }
        got = found.got[f"r{VICTIM}@example.net"]
        checks["arrived"] = (min(got, 1) if most else got, min(most, 1))
        checks["no more than"] = (got <= most, True)
        wrong += [f"{cell}: {what}: {said}, should be {due}" for what, (said, due) in checks.items() if said != due]
    assert not wrong, "\n".join(wrong)


def test_no_cell_is_left_out() -> None:
    assert len({Cell(*each) for each in CELLS}) == len(MODES) * (len(BEFORE) + len(DURING)) * len(FAULTS) == 224
