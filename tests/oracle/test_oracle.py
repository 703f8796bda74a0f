"""Our courier against servers that are not ours, and against a courier that is not ours.

Debian's Postfix and Exim, each a private instance, and our own sink get the same letters from a plain
aiosmtplib courier and from ours in every way that a route can be told to speak. What they accept must arrive
byte for byte, from both; what they refuse must be refused to both, and be understood.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from correspondence import CASES, CHANGED, REFUSED, letter
from couriers import WAYS, Answer, by_aiosmtplib, by_courier

from bench.mta import QUEUE_ID, SIZE, Mta, Stored, mta
from bench.package import Missing
from bench.programs import until
from streamq.sink import Sink
from streamq.sink.rules import Rule, Rules
from streamq.smtp.judge import plain_text
from streamq.smtp.letter import Action, Letter, Stage
from streamq.smtp.replies import default_replies

pytestmark = pytest.mark.timeout(300)  # the first test that asks for a server waits for all of its mails

PLAIN = "aiosmtplib"
SERVERS = ["postfix", "exim", "sink"]
EVERY = [*CASES, *(case for case, _ in REFUSED.values())]
CODE = {"retry": 4, "fail": 5}  # first digit

SINK_RULES = Rules(
    (
        Rule(match="busy@*", reply="450 4.2.1 Mailbox busy"),
        Rule(match="unknown@*", reply="550 5.1.1 No such mailbox"),
        Rule(match="refused@*", stage="mail", reply="550 5.7.1 Refused"),
        Rule(match="content.*", stage="dot", reply="550 5.7.1 Refused"),
        Rule(match="large-and-refused.*", stage="dot", reply="550 5.7.1 Refused"),
    )
)


@dataclass(frozen=True)
class Posted:
    """One letter by one way: what was said to it, and what stood in the mailbox afterwards."""

    letter: Letter
    answer: Answer
    stored: list[Stored]


def _ended_sessions(log: str) -> list[str]:
    """Postfix's counts of commands, a line per session that had any mail."""
    return [line for line in log.splitlines() if "disconnect from" in line and " rcpt=" in line]


@dataclass(frozen=True)
class Round:
    """One server, every case by every way."""

    posted: dict[str, dict[str, Posted]]  # case -> way -> what came of it
    log: str


async def _carry(
    url: str, arrived: Callable[[], list[Stored]], count: Callable[[], int]
) -> dict[str, dict[str, Posted]]:
    """Every case by every way."""
    letters: dict[str, list[Letter]] = {}
    answers: dict[str, list[Answer]] = {}
    for way in (PLAIN, *WAYS):
        letters[way] = [letter(case, way) for case in EVERY]
        if way == PLAIN:
            answers[way] = await by_aiosmtplib(url, letters[way])
        else:
            answers[way] = await by_courier(url, letters[way], **WAYS[way])
    accepted = sum(answer.accepted for each in answers.values() for answer in each)

    async def all_there() -> bool:
        return count() >= accepted

    with suppress(TimeoutError):  # what is missing is what the tests are about
        await until(all_there, 120)
    by_domain: dict[str, list[Stored]] = {}
    for stored in arrived():
        by_domain.setdefault(stored.rcpt.rpartition("@")[2], []).append(stored)
    return {
        case.name: {
            way: Posted(letters[way][at], answers[way][at], by_domain.get(letters[way][at].site, [])) for way in letters
        }
        for at, case in enumerate(EVERY)
    }


async def _carry_to_mta(server: Mta) -> Round:
    posted = await _carry(server.url, lambda: list(server.stored()), server.count)

    async def logged() -> bool:
        return len(_ended_sessions(server.said())) > len(WAYS)

    if server.kind == "postfix":
        with suppress(TimeoutError):
            await until(logged, 60)
    return Round(posted, server.said())


async def _carry_to_sink() -> Round:
    async with Sink(rules=SINK_RULES, max_size=SIZE, keep_bytes=2**30, keep=10_000) as sink:

        def arrived() -> list[Stored]:
            assert not sink.received.forgotten
            return [
                Stored(mail.envelope_from, mail.envelope_to[0], f"{number:X}", mail.content.replace(b"\r\n", b"\n"))
                for number, mail in enumerate(sink.received, 1)
            ]

        return Round(await _carry(sink.url, arrived, lambda: sink.counters.accepted), "")


def _carried(name: str) -> Round | str:
    """A text says why it cannot be."""
    try:
        if name == "sink":
            return asyncio.run(_carry_to_sink())
        with mta(name) as server:
            return asyncio.run(_carry_to_mta(server))
    except Missing as why:
        return str(why)


def _carried_once(name: str, folder: Path) -> Round | str:
    """By one of the processes that run these tests, for all of them: `folder` is theirs."""
    with (folder / f"round-{name}").open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not (kept := file.read()):
            kept = pickle.dumps(_carried(name))
            file.write(kept)
    found: Round | str = pickle.loads(kept)
    return found


@pytest.fixture(scope="session")
def rounds() -> dict[str, Round | str]:
    """Each server's, carried when a test first asks for it."""
    return {}


@pytest.fixture(params=SERVERS)
def kind(
    request: pytest.FixtureRequest, rounds: dict[str, Round | str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    name: str = request.param
    if name not in rounds:
        base = tmp_path_factory.getbasetemp()
        rounds[name] = _carried_once(name, base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    found = rounds[name]
    if isinstance(found, str):
        pytest.skip(found)
    return name


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_arrives_byte_for_byte_from_both_couriers(kind: str, case: str, rounds: dict[str, Round]) -> None:
    for way, posted in rounds[kind].posted[case].items():
        assert posted.answer.accepted, (way, posted.answer)
        assert len(posted.stored) == 1, way
        (stored,) = posted.stored
        expected = posted.letter.content.replace(b"\r\n", b"\n")
        change = CHANGED.get((kind, case))
        if change is not None:
            assert change(expected) != expected
            expected = change(expected)
        assert stored.content == expected, way
        assert (stored.envelope_from, stored.rcpt) == (posted.letter.envelope_from, posted.letter.envelope_to), way


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_the_report_has_the_queue_id_of_the_server(kind: str, case: str, rounds: dict[str, Round]) -> None:
    for way, posted in rounds[kind].posted[case].items():
        found = QUEUE_ID.search(posted.answer.text)
        assert found is not None, (way, posted.answer)
        assert [found[1]] == [stored.queue_id for stored in posted.stored], way
        if (report := posted.answer.report) is not None:
            assert (report.action, report.stage, report.klass) == (Action.SENT, Stage.DOT, "sent"), way


@pytest.mark.parametrize("case", [name for name in REFUSED if name != "oversize"])
def test_a_refusal_is_what_the_other_courier_saw(kind: str, case: str, rounds: dict[str, Round]) -> None:
    """Code, enhanced code and text are the same; the class is what the reply table makes of them."""
    outcome = REFUSED[case][1]
    seen = rounds[kind].posted[case][PLAIN].answer
    assert seen.code // 100 == CODE[outcome], seen
    for way, posted in rounds[kind].posted[case].items():
        assert posted.stored == [], way
        report = posted.answer.report
        if report is None:
            continue
        assert (report.code, report.enhanced) == (seen.code, seen.enhanced), way
        said = plain_text(seen.text.encode()).replace(f".{PLAIN}.", f".{way}.")
        assert report.reply == said, way
        verdict = default_replies().classify(report.stage, seen.code, said, False)
        assert (report.klass, report.scope, report.action) == (verdict.klass, verdict.scope, verdict.action), way
        assert report.action == outcome, way


def test_a_mail_above_the_servers_size_is_not_sent_and_would_have_been_refused(
    kind: str, rounds: dict[str, Round]
) -> None:
    seen = rounds[kind].posted["oversize"][PLAIN].answer
    assert seen.code == 552
    verdict = default_replies().classify(Stage.MAIL, seen.code, seen.text, False)
    for way, posted in rounds[kind].posted["oversize"].items():
        assert posted.stored == [], way
        report = posted.answer.report
        if report is not None:
            assert report.code == 0
            assert (report.klass, report.action) == ("too_large", Action.FAIL) == (verdict.klass, verdict.action), way
            assert report.enhanced == "5.3.4"
            assert seen.enhanced in ("5.3.4", ""), seen


@pytest.mark.parametrize(("case", "stage"), [("busy", Stage.RCPT), ("unknown", Stage.RCPT), ("content", Stage.DOT)])
def test_a_refusal_has_its_stage(kind: str, case: str, stage: Stage, rounds: dict[str, Round]) -> None:
    for way, posted in rounds[kind].posted[case].items():
        if (report := posted.answer.report) is not None:
            assert report.stage is stage, way


@pytest.mark.parametrize("kind", ["postfix"], indirect=True)
def test_each_way_was_spoken_on_one_connection(kind: str, rounds: dict[str, Round]) -> None:
    """By the server's own count of commands, in the order of the connections."""
    counts = _ended_sessions(rounds[kind].log)
    assert len(counts) == 1 + len(WAYS)
    for way, line in zip([PLAIN, *WAYS], counts, strict=True):
        chunks = bool(WAYS.get(way, {}).get("chunking"))
        assert (" bdat=" in line, " data=" in line) == (chunks, not chunks), (way, line)
