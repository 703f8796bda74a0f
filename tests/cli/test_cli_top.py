"""top: what it prints against Redis read raw; a terminal of its own; it ends when asked."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios

import orjson
import pytest
from mailroom import Mailroom
from redis.exceptions import ConnectionError as Away

from cli.conftest import Fill, hostile
from cli.shell import steers, streamq
from streamq.cli import top
from streamq.queue.look import Status
from streamq.queue.overview import Overview
from streamq.queue.pulse import Look, Pulse

pytestmark = pytest.mark.leaves_mail
STATES = ("waiting", "leased", "parked", "scheduled", "held")


async def raw_depth(queue: Mailroom) -> dict[str, list[int]]:
    """By the survey, which knows none of the program's counts."""
    states = await queue.states()
    names = queue.spool.priorities
    return {
        name: [sum(where == state and entry[0] == str(p) for entry, where in states.items()) for state in STATES]
        for p, name in enumerate(names)
    }


async def test_depth_is_the_queues(queue: Mailroom, fill: Fill) -> None:
    await fill()
    lease = await queue.lease("low", id="s1", to="bob@example.net")
    assert await queue.settled("sent", lease) == "ok"
    said = await streamq("top", "-d", "250ms")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("queue streamq  ")
    assert lines[1].startswith("flow      in ")
    at = next(at for at, line in enumerate(lines) if line.startswith("priority"))
    shown = {
        cells[0]: [int(cell) for cell in cells[1:6]] for cells in (line.split() for line in lines[at + 1 : at + 5])
    }
    depth = await raw_depth(queue)
    assert shown == {**depth, "all": [sum(column) for column in zip(*depth.values(), strict=True)]}
    parked = [line for line in lines if line.startswith(("parked ", "          ")) and ".example" in line]
    assert sorted(line.split()[-1 - ("gone" in line) * 3 :][0] for line in parked)
    assert {line.split("parked")[-1].split()[0] for line in parked} == {f"{name}.example" for name in depth}
    assert max(map(len, lines)) <= 80


async def test_the_last_outcomes_are_the_events(queue: Mailroom) -> None:
    for number, op in enumerate(("sent", "defer", "dead")):
        lease = await queue.lease("low", id=f"e{number}", to="bob@example.net")
        tail = b'"rcpt":"bob%d@example.net","code":%d,"reply":"so%d"' % (number, 250 + number, number)
        assert await queue.settled(op, lease, tail=tail) == "ok"
    said = await streamq("top", "-d", "250ms", columns=120)
    lines = said.out.splitlines()
    at = next(at for at, line in enumerate(lines) if line.split()[:2] == ["ago", "event"])
    shown = [line.split()[2:] for line in lines[at + 1 :]]
    events = [event for event in reversed(await queue.events()) if event.kind.startswith("email.")]
    assert shown == [
        [event.kind.removeprefix("email."), event.data["rcpt"], str(event.data["code"]), event.data["reply"]]
        for event in events
    ]


async def test_json_is_a_line_for_each_look(queue: Mailroom, fill: Fill) -> None:
    await fill()
    assert await queue.do("HGET", queue.keys.meta, "salt")  # bytes: for no output
    said = await streamq("top", "--json", "-n", "2", "-d", "250ms")
    first, second = (orjson.loads(line) for line in said.out.splitlines())
    assert {name: list(row.values()) for name, row in first["depth"].items()} == await raw_depth(queue)
    assert first["live"] == len(await queue.states())
    assert not first.keys() & {"salt", "added"}
    assert first["rates"] == {"in": None, "out": None, "outcomes": None}
    assert second["rates"]["in"] == 0
    assert second["routes"][0]["name"] == "relay"
    assert {lane["site"]: lane["many"] for lane in second["lanes"]} == {
        f"{name}.example": 1 for name in queue.spool.priorities
    }


async def test_hostile_mails_steer_nothing(queue: Mailroom) -> None:
    await hostile(queue)
    await queue.do(
        "XADD", queue.keys.events, "*", "type", b"\x1b[2J", "id", b"\xff\x9b", "data", b'{"reply":"\\u001b[2J"}'
    )
    await queue.do("XADD", queue.keys.events, "*", "type", "email.relayed", "data", b"[1]")
    await queue.do("XADD", queue.keys.events, "*", "what", "ever")
    said = await streamq("top", "-d", "250ms")
    assert (said.code, steers(said.out)) == (0, set())
    assert steers((await streamq("top", "--json", "-n", "1")).out) == set()


@pytest.mark.parametrize(("text", "says"), [("soon", "--interval: not a duration"), ("10ms", "at least 250ms")])
async def test_a_wrong_interval_is_named(queue: Mailroom, text: str, says: str) -> None:
    said = await streamq("top", "-d", text)
    assert (said.code, said.out) == (2, "")
    assert says in said.err


class Terminal:
    """A program on a terminal of its own, and what it wrote there."""

    def __init__(self, *words: str) -> None:
        self.written = b""
        self.pid, self.there = pty.fork()
        if not self.pid:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # who runs in a shell's background ignores it
            os.execv(sys.executable, [sys.executable, "-m", "streamq", *words])
        fcntl.ioctl(self.there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def until(self, text: bytes) -> None:
        """Reads until it has written that; blocks."""
        while text not in self.written:
            self.written += os.read(self.there, 65536)

    def end(self) -> int:
        """Reads to the end; its exit code."""
        try:
            while part := os.read(self.there, 65536):
                self.written += part
        except OSError:  # how a terminal says that nobody is there any more
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.there)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 0)], ids=["q", "Ctrl-C"])
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
async def test_a_terminal_shows_it_until_asked_to_end(queue: Mailroom, key: bytes, code: int) -> None:
    await queue.add("low", to="bob@example.net")

    def watch() -> tuple[int, bytes]:
        terminal = Terminal("top", "-d", "250ms")
        terminal.until(b"queue streamq")
        terminal.until(b"flow      in ")  # the second look
        os.write(terminal.there, key)
        return terminal.end(), terminal.written

    ended, written = await asyncio.to_thread(watch)
    assert ended == code
    assert b"\x1b[?1049h" in written  # a screen of its own
    assert written.rindex(b"\x1b[?1049l") > written.rindex(b"queue streamq")  # and the old one back
    assert b"mails wait and no worker runs" in written


async def test_a_server_that_is_away_ends_nothing(queue: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover is when somebody looks."""
    seen: list[str] = []
    found = await Pulse(queue.spool, []).look()

    class Flaky(Pulse):
        async def look(self) -> Look:
            if len(seen) == 1:
                raise Away("connection refused")
            return found

    class Screen:
        def __init__(self, **how: object) -> None: ...
        def __enter__(self) -> Screen:
            return self

        def __exit__(self, *how: object) -> None: ...
        def update(self, shown: object, *, refresh: bool) -> None:
            seen.append(str(shown).split("\n")[0])

    monkeypatch.setattr(top, "Live", Screen)
    await top._live("streamq", Flaky(queue.spool, []), 0.001, 3)
    assert seen[0].startswith("queue streamq")
    assert seen[1] == "redis: connection refused; again in 0.001 s"
    assert seen[2] == seen[0]


def test_a_screen_is_as_high_as_it_may_be() -> None:
    depth = {"high": dict.fromkeys(STATES, 0)}
    now = Status(1_700_000_000_000, depth, {"high": 0}, 0, {}, {}, 0, 0, 0, 0, 0)
    quiet = top.screen("streamq", Look(Overview(now), []), [], 24)
    assert quiet.plain.count("\n") < 10
    assert "rates from the second look on" in quiet.plain
    assert top._bars([0, 1, 2, 4]) == " ▃▅█"
    assert top._bars([0, 0]) == ""
