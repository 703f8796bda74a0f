"""Every case at every stage in every mode: what the report says, what the relay took, what became of the others.

Three mails, A, B and C, go over one connection; the fault meets the first or the second. With `overlap` B's commands
are out before A's 250, and C's before B's. A mail that was parked, deferred or ambiguous is put again until it is
sent or refused, as the queue would.
"""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest
from faulty_relay import BREAKS, CASES, GOOD, Fault, FaultyRelay
from scripted_relay import letter, on_both_loops, route

from streamq.smtp.connection import Connection
from streamq.smtp.courier import Courier
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Letter, Report, Scope, Stage
from streamq.smtp.outbox import Outbox

MODES: dict[str, dict[str, Any]] = {
    "off": {"pipelining": "off"},
    "transaction": {"pipelining": "transaction"},
    "overlap": {"pipelining": "overlap"},
    "bdat off": {"pipelining": "off", "chunking": True},
    "bdat": {"pipelining": "transaction", "chunking": True},
    "bdat overlap": {"pipelining": "overlap", "chunking": True},
}
STAGES = [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT]
POSITIONS = [1, 2]
CELLS = [*product(MODES, STAGES, CASES, POSITIONS)]

REFUSED: dict[str, tuple[Action, str]] = {
    "4xx": (Action.RETRY, "temporary"),
    "5xx": (Action.FAIL, "rejected"),
    "421": (Action.RETRY, "site_rate"),
    "multi-line": (Action.FAIL, "bad_address"),
    "no enhanced code": (Action.FAIL, "rejected"),
    "wrong enhanced code": (Action.RETRY, "temporary"),
    "believed by nobody": (Action.FAIL, "rejected"),
}
SENT = (Action.SENT, "sent", Stage.DOT)


def expected(mode: str, stage: Stage, case: str, position: int) -> tuple[Action, str, Stage]:
    """Action, class and stage of the first report about the mail that the fault meets."""
    whole = mode == "bdat"  # envelope and body went out together
    if "bdat" in mode and stage is Stage.DATA:
        stage = Stage.DOT  # there is no DATA: it happens while the relay reads the chunk
    if case == "421 leaving":
        return (Action.RETRY if stage is Stage.DOT else Action.PARK), "shutting_down", stage
    if case == "believed by nobody" and whole and stage is Stage.MAIL:
        return Action.AMBIGUOUS, "protocol", Stage.DOT  # sender refused, recipient and body taken
    if case in REFUSED:
        return *REFUSED[case], stage
    if case in BREAKS:
        klass = {"close": "disconnected", "reset": "disconnected", "silence": "timeout"}.get(case, "protocol")
        if whole or stage is Stage.DOT:
            return Action.AMBIGUOUS, klass, stage
        return (Action.PARK if stage is Stage.MAIL else Action.RETRY), klass, stage
    if case == "drip":
        return SENT
    if case == "goodbye":
        return goodbye(stage, whole)
    return stray(mode, stage, case, position)


def goodbye(stage: Stage, whole: bool) -> tuple[Action, str, Stage]:
    """A 421 right behind the usual reply: it is the next command's, or nobody's."""
    if stage is Stage.DOT:
        return SENT
    if whole and stage is Stage.RCPT:  # taken for the body's; the body was not read
        return Action.RETRY, "shutting_down", Stage.DOT
    return Action.PARK, "shutting_down", Stage.RCPT if stage is Stage.MAIL else Stage.DATA


def stray(mode: str, stage: Stage, case: str, position: int) -> tuple[Action, str, Stage]:
    """One reply too many. It is seen before the body, or nothing is believed."""
    if mode == "bdat":
        return Action.AMBIGUOUS, "protocol", Stage.DOT
    if stage is Stage.DOT:
        return SENT
    seen_at = Stage.DATA
    at_rcpt = mode.endswith("off") or (mode == "bdat overlap" and case == "stray 550")
    if at_rcpt and stage is Stage.MAIL:
        seen_at = Stage.RCPT
    return Action.RETRY, "protocol", seen_at


class Queue:
    """A courier over one connection at a time, and a queue that puts again what was neither sent nor refused."""

    def __init__(self, port: int, **mode: Any) -> None:
        self.outbox = Outbox()
        self.reports: dict[str, list[Report]] = {}
        self.ended: set[str] = set()
        self._changed = asyncio.Event()
        self.courier = Courier("main", route(port, **mode), self.outbox, self._done, self._mark, rand=lambda: 0.0)
        self.running = asyncio.create_task(self.courier.run())

    async def _mark(self, _: int, __: Letter) -> bool:
        await asyncio.sleep(0)
        return True

    def _done(self, done: Letter, report: Report) -> None:
        reports = self.reports.setdefault(done.envelope_to, [])
        reports.append(report)
        assert len(reports) < 5
        if report.action in {Action.SENT, Action.FAIL}:
            assert done.envelope_to not in self.ended, "reported after its end"
            self.ended.add(done.envelope_to)
        else:
            asyncio.get_running_loop().call_soon(self._again, done)
        self._changed.set()

    def _again(self, done: Letter) -> None:
        self.courier.look_again()  # as if the wait for the probe were over
        self.outbox.put(done)

    async def all_ended(self, letters: list[Letter]) -> None:
        for one in letters:
            self.outbox.put(one)
        while self.ended != {one.envelope_to for one in letters}:
            self._changed.clear()
            await self._changed.wait()
        await self.courier.close(5)
        await self.running


async def pass_the_time(relay: FaultyRelay, links: list[Connection]) -> None:
    """As if a time limit were over, once the relay is silent and the client has read all that was said before."""
    await relay.hangs.wait()
    for _ in range(50):  # both ends turn in this loop
        await asyncio.sleep(0)
    links[0].wire.expired = True
    links[0].wire._wake()


@pytest.mark.parametrize(("mode", "stage", "case", "position"), CELLS)
@on_both_loops
async def test_a_cell(mode: str, stage: Stage, case: str, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[Connection] = []

    async def noted(*how: Any) -> Connection:
        links.append(await connect(*how))
        return links[-1]

    monkeypatch.setattr("streamq.smtp.courier.connect", noted)
    names = ["a@example.net", "b@example.net", "c@example.net"]
    letters = [
        letter(name, f"Subject: {name}\r\n\r\n.{name}\r\n".encode(), priority=1)  # 0 has a time of its own
        for name in names
    ]
    async with FaultyRelay(Fault(position, stage, case)) as relay:
        queue = Queue(relay.port, **MODES[mode])
        clock = asyncio.create_task(pass_the_time(relay, links)) if case == "silence" else None
        await queue.all_ended(letters)
        if clock is not None:
            await clock
    met = names[position - 1]
    first = queue.reports[met][0]
    assert (first.action, first.klass, first.stage) == expected(mode, stage, case, position)
    if first.action is Action.PARK:
        assert (first.scope is Scope.ROUTE) is (position == 1)  # else a kept connection ended, no more
    taken = [name for name, _ in relay.taken]
    for name in names:
        *before, last = queue.reports[name]
        times = taken.count(name)
        ambiguous = sum(report.action is Action.AMBIGUOUS for report in before)
        # Nothing is lost, nothing is sent twice unless it was said, nothing that was taken is called refused.
        assert times == 0 if last.action is Action.FAIL else 1 <= times <= 1 + ambiguous
        if name != met:
            assert last.action is Action.SENT
            others = {report.action for report in before}
            assert others <= ({Action.PARK, Action.RETRY} if case in GOOD and "overlap" in mode else {Action.PARK})
    bodies = {
        name: content if "bdat" in mode else content.replace(b"\r\n.", b"\r\n..")
        for name, content in ((one.envelope_to, one.content) for one in letters)
    }
    assert all(body == bodies[name] for name, body in relay.taken), "an empty mail, or another one's body"


def test_the_matrix_has_no_hole() -> None:
    assert len(CELLS) == len(set(CELLS)) == len(MODES) * len(STAGES) * len(CASES) * len(POSITIONS)
    assert len(CASES) == 18
    assert len(CELLS) == 864
