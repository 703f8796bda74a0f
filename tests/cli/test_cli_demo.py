"""The demo: what a newcomer sees, that it tells the truth, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import fcntl
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pids import gone, processes_of

from cli.shell import program, steers, streamq
from streamq.cli import demo
from streamq.cli.demo import Story
from streamq.server import lock

ADDED = 1_700_000_000_000


def story(*notes: tuple[str, str], sent: tuple[str, ...] = ("news-1", "code-1")) -> Story:
    made = Story(sent={name: "low" if name.startswith("news") else "high" for name in sent})
    for kind, name in notes:
        priority = made.sent.get(name, "low")
        made.note(kind, name, {"entry": f"1{ADDED}-0", "at": ADDED + 40, "priority": priority})
    return made


def test_a_story_is_sound_when_each_mail_has_one_end() -> None:
    made = story(("email.relayed", "news-1"), ("email.bounced", "code-1"))
    assert made.sound
    assert made.unaccounted == []
    assert made.latency == {"low": [40]}
    assert made.newsletters == 1


def test_a_mail_without_an_end_is_unaccounted() -> None:
    made = story(("email.relayed", "news-1"), ("email.deferred", "code-1"))
    assert not made.sound
    assert made.unaccounted == ["code-1"]
    assert made.deferred == 1


def test_a_mail_with_two_ends_is_told() -> None:
    made = story(("email.relayed", "news-1"), ("email.relayed", "news-1"), ("email.relayed", "code-1"))
    assert not made.sound
    assert (made.twice, made.newsletters) == (1, 1)


def test_a_retried_mail_counts_for_no_latency() -> None:
    made = story(("email.deferred", "news-1"), ("email.relayed", "news-1"), ("email.relayed", "code-1"))
    assert made.sound
    assert made.retried == {"news-1"}
    assert made.latency == {"high": [40]}


def test_nothing_sent_is_no_success() -> None:
    assert not Story().sound


KINDS = st.sampled_from(["email.relayed", "email.bounced", "email.rejected", "email.deferred", "route.paused"])
NAMES = tuple(f"{kind}-{number}" for kind in ("news", "code") for number in range(3))


@given(st.lists(st.tuples(KINDS, st.sampled_from(NAMES)), max_size=20))
def test_sound_means_exactly_one_end_each(notes: list[tuple[str, str]]) -> None:
    ends = [name for kind, name in notes if kind in demo.FINAL]
    assert story(*notes, sent=NAMES).sound == (sorted(ends) == sorted(NAMES))


# -- as it runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo makes its own; afterwards no process of it and no file of it may be there."""
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr("tempfile.tempdir", str(short))
    yield short
    for each in short.glob("streamq-demo-*"):  # after a SIGKILL: nobody could remove it
        for name in ("keeper.lock", "server.lock"):
            with suppress(FileNotFoundError):
                _wait_for(each / "redis" / name)
        shutil.rmtree(each)
    assert _processes_of(short) == []


def _wait_for(path: Path) -> None:
    if path.exists():
        held = lock.open_lock(path)
        assert lock.take_lock(held, fcntl.LOCK_EX, time.monotonic() + 20)
        lock.close_lock(held)


def _left(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def _processes_of(folder: Path) -> list[str]:
    """Sink, workers, keeper and server all have the folder in their words or their environment."""
    return [f"{pid} {words!r}" for pid, words in processes_of(folder).items()]


async def test_the_demo_delivers_and_accounts_for_all(folder: Path) -> None:
    environment = {
        "STREAMQ_RELAY": "smtp://nowhere.invalid",
        "STREAMQ_PRIORITIES": "a,b",
        "REDIS_URL": "redis://nowhere",
    }
    process = await program("demo", "--mails", "200", environment=environment)
    out, err = (text.decode() for text in await process.communicate())
    assert (process.returncode, err) == (0, "")
    rows = dict(re.findall(r"^(\w+) +([\d,]+) ", out, re.M))
    assert int(rows["sent"]) >= 220
    assert int(rows["bounced"]) == 2
    assert int(rows["deferred"]) == 4
    assert int(rows["retried"]) == 4
    assert int(rows["relayed"]) == int(rows["sent"]) - 2
    assert int(rows["unaccounted"]) == 0
    assert "twice" not in rows
    assert "the conservation law holds" in out
    assert re.search(r"^one-time codes +XADD to 250: 50 % within", out, re.M)
    assert f"redis-cli -s {folder}/streamq-demo-" in out
    assert steers(out) == set()
    assert _left(folder) == []


async def test_a_mail_that_does_not_end_is_the_demos_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "RULES", demo.RULES.replace("times = 1", ""))  # busy for ever
    monkeypatch.setattr(demo, "START_S", 120.0)  # a busy machine's workers may be slow to come
    monkeypatch.setattr(demo, "LONGEST_S", 1.5)
    monkeypatch.setattr(demo, "MAILS_A_SECOND", 10**6)
    assert await demo._demo(100, 1) is False
    out = capsys.readouterr().out
    found = re.search(r"^unaccounted +(\d+) +of these we know no end", out, re.M)
    assert found
    assert int(found[1]) >= 2
    assert out.count("unaccounted for: ") == min(int(found[1]), 5)
    assert "the last lines of the workers' log:" in out
    assert _left(folder) == []


async def test_the_demo_exits_1_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(mails: int, processes: int) -> bool:
        return (mails, processes) != (50, 3)

    monkeypatch.setattr(demo, "_demo", fails)
    assert (await streamq("demo", "--mails", "50", "--processes", "3")).code == 1
    assert (await streamq("demo")).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    process = await program("demo", "--mails", "5000", "--processes", "1")
    while not (await process.stdout.readline()).startswith(b"mails"):
        pass
    process.send_signal(number)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert _left(folder) == []
    assert _processes_of(folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_killed_demo_leaves_no_process(folder: Path) -> None:
    process = await program("demo", "--mails", "5000", "--processes", "1")
    while not (await process.stdout.readline()).startswith(b"mails"):
        pass
    process.kill()
    await process.communicate()
    while pids := processes_of(folder):  # each ends by itself; looking without a pause would keep a core from them
        assert [await asyncio.to_thread(gone, pid) for pid in pids] == [True] * len(pids)


@pytest.mark.parametrize("words", [["--redis-url", "redis://h"], ["--queue", "q"], ["--config", "f"]])
async def test_the_demo_takes_no_queue(words: list[str]) -> None:
    said = await streamq(*words, "demo")
    assert (said.code, said.out) == (2, "")
    assert f"(got {words[0]})" in said.err
