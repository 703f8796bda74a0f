"""script.py and scripts.py against lua/: header, stub and body agree; what a server refused is repeated."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import pytest
from conftest import MakeSpool
from luatext import LIBS, calls, known_keys, library, verb_text, words
from mailroom import Mailroom

from streamq.keys import TABLE
from streamq.queue import connection, script
from streamq.queue.connection import command
from streamq.queue.link import CLOSES, OPENS, inlined, link
from streamq.queue.rows import (
    AdmitRow,
    ChildRow,
    FinishRow,
    GrantRow,
    MarkRow,
    MeasureRow,
    RenewRow,
    ResettleRow,
    SettleRow,
    SiftRow,
    StartRow,
    TurnRow,
)
from streamq.queue.script import VERBS, Caller, load
from streamq.queue.scripts import Scripts
from streamq.queue.stow import Stowage

ROWS: dict[str, Any] = {
    "admit": AdmitRow,
    "settle": SettleRow,
    "mark": MarkRow,
    "turn": TurnRow,
    "resettle": ResettleRow,
    "grant": GrantRow,
    "renew": RenewRow,
    "measure": MeasureRow,
    "expand": ChildRow,
    "start": StartRow,
    "finish": FinishRow,
}

STUBS: dict[str, Callable[[Scripts], Awaitable[Any]]] = {
    "open": lambda stubs: stubs.open("1", b"salt", 100, ["high"]),
    "admit": lambda stubs: stubs.admit("w1", [AdmitRow("send", "11-1")]),
    "settle": lambda stubs: stubs.settle("w1", [SettleRow("sent", "11-1", 1, "", "", "", b"")]),
    "mark": lambda stubs: stubs.mark("w1", [MarkRow("main.1", "11-1", 1)]),
    "turn": lambda stubs: stubs.turn("w1", [TurnRow("11-1", 16, "main|example.net")]),
    "release": lambda stubs: stubs.release("w1", 1, ["1-1"]),
    "heartbeat": lambda stubs: stubs.heartbeat("w1", [("11-1", 1)]),
    "reclaim": lambda stubs: stubs.reclaim("w1", idle_ms=1, room=1, most=1),
    "adopt": lambda stubs: stubs.adopt("w1", ["11-1"]),
    "grant": lambda stubs: stubs.grant("w1", 1, [GrantRow("main", 1, 1, 1, 0)]),
    "renew": lambda stubs: stubs.renew("w1", [RenewRow("11-1", 16, "main|example.net")]),
    "measure": lambda stubs: stubs.measure("w1", [MeasureRow("main", 5.0, 5.0)]),
    "pause": lambda stubs: stubs.pause("pause", ["main"]),
    "gauge": lambda stubs: stubs.gauge(["main|x.de"]),
    "heads": lambda stubs: stubs.heads(),
    "limits": lambda stubs: stubs.limits("change", "operator", {"*|x.de": "5:1000000"}),
    "leader": lambda stubs: stubs.leader("keeper", "w1", 1),
    "hear": lambda stubs: stubs.hear("crm", 100, after="0"),
    "heard": lambda stubs: stubs.heard("crm", ["1-1"], b"{}", failed=False),
    "whose": lambda stubs: stubs.whose("take", "up1", ttl_ms=1),
    "reap": lambda stubs: stubs.reap(1),
    "move": lambda stubs: stubs.move("hold", ["11-1"]),
    "requeue": lambda stubs: stubs.requeue(["1-1"]),
    "discard": lambda stubs: stubs.discard(["1-1"], 1),
    "trim": lambda stubs: stubs.trim(1, 1),
    "expand": lambda stubs: stubs.expand("w1", "11-1", 1, "a1", b"", [ChildRow("to", b"a@x.de")], all_=1),
    "template": lambda stubs: stubs.template("put", "welcome", b"{}"),
    "find": lambda stubs: stubs.find([(None, "a1")]),
    "search": lambda stubs: stubs.search(1, "", 10, id_="a1"),
    "expire": lambda stubs: stubs.expire([1], "", {"11-1": b"-"}),
    "resettle": lambda stubs: stubs.resettle([ResettleRow("11-1", "", "email.relayed", b"", b"", "")]),
    "check": lambda stubs: stubs.check("stream"),
    "stow": lambda stubs: stubs.stow(1, Stowage([("11-1", "m", b"", b"")]), route="main", max_age_ms=1000, behind=""),
    "sift": lambda stubs: stubs.sift("w1", 1, [SiftRow("1-1")], route="main", room=10, max_age_ms=1000, behind=""),
    "start": lambda stubs: stubs.start("w1", [StartRow("11-1", "main|x.de", 1, b"")]),
    "finish": lambda stubs: stubs.finish("w1", [FinishRow("11-1", 16, "main|x.de", "", "email.relayed", b"")]),
    "hush": lambda stubs: stubs.hush(0, [b"ann@example.net"]),
    "bounds": lambda stubs: stubs.bounds(10, 0.9, 1000, 1000, 1000),
    "anew": lambda stubs: stubs.anew("look", 0),
    "repair": lambda stubs: stubs.repair([("11-1", "lost")]),
}


class Asked(Exception):
    """What a stub passes on."""


class Recorder(Caller):
    __slots__ = ()

    async def call(self, verb: str, head: Sequence[Any] = (), rows: Iterable[Sequence[Any]] = ()) -> Any:
        raise Asked(verb, tuple(head), tuple(rows))

    async def pipeline(self, verb: str, calls: Sequence[tuple[Sequence[Any], Iterable[Any]]]) -> list[Any]:
        [(head, rows)] = calls
        return [await self.call(verb, head, rows)]


# -- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_header_says_everything(verb: str) -> None:
    text = verb_text(verb)
    assert text.header.startswith(f"-- {verb}: ")
    assert all(line.startswith("-- ") for line in text.header.splitlines())
    for label in ("needs", "KEYS", "ARGV", "RETURNS", "EVENTS"):
        assert text.said(label), label
    labels = re.findall(r"^-- (needs|[A-Z]+):", text.header, re.M)
    order = ["needs", "KEYS", "ARGV", "EACH", "RETURNS", "EVENTS"]
    assert labels == [label for label in order if label in labels]


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_is_explained(verb: str) -> None:
    """In its own header, or among those that mean the same everywhere."""
    everywhere = library("base").header
    for name in (*load(verb).head, *load(verb).row):
        explained = rf"^--   (?:.*\s{{2,}})?{name}\s{{2,}}\S"
        text = verb_text(verb).header
        assert re.search(explained, text, re.M) or re.search(explained, everywhere, re.M), name


@pytest.mark.parametrize("verb", VERBS)
def test_the_body_takes_what_the_header_names(verb: str) -> None:
    body = verb_text(verb).code
    used = {int(at) for at in re.findall(r"\bARGV\[(\d+)\]", body)}
    assert used == set(range(1, len(load(verb).head) + 1))
    loops = re.findall(r"\bfor ([\w, ]+) in each\(\)", body)
    columns = len(load(verb).row)
    if loops:
        [names] = loops
        assert len(names.split(",")) == columns
    elif columns:
        assert "for at = HEAD + 1, #ARGV, EACH do" in body
        assert {int(at) for at in re.findall(r"\bARGV\[at \+ (\d+)\]", body)} <= set(range(1, columns))


@pytest.mark.parametrize("verb", VERBS)
def test_the_keys_are_those_that_it_can_reach(verb: str) -> None:
    text = verb_text(verb)
    said = text.labelled("KEYS")
    assert said is not None
    assert said[0] == "{streamq}:"
    assert said[1:] == sorted(known_keys(text))
    assert set(said[1:]) <= {key.name for key in TABLE}


@pytest.mark.parametrize("verb", VERBS)
def test_the_events_are_those_of_the_header(verb: str) -> None:
    text = verb_text(verb)
    said = text.said("EVENTS")
    assert said is not None
    body = text.text[len(text.header) :]
    for kind in set(re.findall(r"'((?:email|route|site)\.\w+)'", body)):
        assert kind in said, kind
    assert ("event" in calls(text.code)) == (said != "none")


@pytest.mark.parametrize("verb", VERBS)
def test_what_it_needs_is_complete_and_no_more(verb: str) -> None:
    text = verb_text(verb)
    needs = text.labelled("needs") or []
    defined = {part: library(part).names for part in LIBS}
    for part in needs:
        behind = library(part).labelled("needs") or []
        assert set(behind) <= set(needs[: needs.index(part)]), f"{part} needs {behind} before it"
    for part in LIBS:
        if part not in needs:
            own = words(text.code) - text.names
            assert not calls(text.code) & defined[part] - text.names, f"{part} is missing"
            assert not (own & {name for name in defined[part] if name.isupper()}), f"{part} is missing"
    for part in set(needs) - {"base"}:  # what every script stands on
        others = [text, *(library(other) for other in needs if other != part)]
        assert any(words(other.code) & defined[part] for other in others), f"{part} is not needed"


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_called_before_it_is_defined(verb: str) -> None:
    """In Lua a local that comes later is a global that is nil: an error, and only on that path."""
    source = "\n".join(line for line in load(verb).source.splitlines() if not line.strip().startswith("--"))
    known: set[str] = set()
    for line in source.splitlines():
        for names in re.findall(r"\blocal (?:function )?([\w, ]+)|\bfunction (?:[\w.]+)?\(([\w, ]*)\)", line):
            known |= {name.strip() for part in names for name in part.split(",")}
        for names in re.findall(r"\((\w[\w, ]*)\)|\bfor ([\w, ]+) in\b", line):
            known |= {name.strip() for part in names for name in part.split(",") if "function" in line}
        bare = re.sub(r"'[^']*'|--.*", "''", line)
        for name in calls(bare):
            assert name in known, f"{name}: {line.strip()}"


@pytest.mark.parametrize("part", LIBS)
def test_a_part_says_what_it_needs(part: str) -> None:
    text = library(part)
    assert text.text.startswith(f"-- {part}: ")
    needs = text.labelled("needs") or []
    if part != "base":
        assert "base" in needs
    for other in LIBS:
        if other not in (*needs, part):
            missing = calls(text.code) & set(library(other).chunks) - text.names
            assert not missing, f"{other} is missing: {missing}"
    for other in needs:
        if other != "base":
            assert words(text.code) & library(other).names, f"{other} is not needed"


def test_every_part_is_needed_by_somebody() -> None:
    assert {part for verb in VERBS for part in verb_text(verb).labelled("needs") or []} == set(LIBS)


# -- stubs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
async def test_a_stub_passes_what_its_header_names(verb: str) -> None:
    recorder = Recorder(None, "{streamq}:")  # type: ignore[arg-type]
    with pytest.raises(Asked) as asked:
        await STUBS[verb](Scripts(recorder, window_ms=1))
    called, head, rows = asked.value.args
    assert called == verb
    assert len(load(verb).arguments(head, rows)) == len(head) + sum(map(len, rows))
    assert bool(rows) == bool(load(verb).row)


def test_every_script_has_a_stub() -> None:
    assert set(STUBS) == set(VERBS)


@pytest.mark.parametrize("verb", ROWS)
def test_rows_are_named_as_in_the_header(verb: str) -> None:
    assert ROWS[verb]._fields == load(verb).row


def test_too_few_or_too_many_fail_before_redis_is_asked() -> None:
    find = load("find")
    assert find.arguments(("", 1), [("-", "a1"), ("-", "a2")]) == ["", 1, "-", "a1", "-", "a2"]
    with pytest.raises(TypeError, match=r"find: takes now window, got 1 arguments"):
        find.arguments(("",), [])
    with pytest.raises(TypeError, match=r"find: a row is tenant id, got 1 fields"):
        find.arguments(("", 1), [("a1",)])


# -- calls ---------------------------------------------------------------------------------------


async def calls_of(room: Mailroom, name: str) -> int:
    stats = (await room.do("INFO", "commandstats")).decode()
    found = re.search(rf"^cmdstat_{re.escape(name)}:calls=(\d+)", stats, re.M)
    return int(found[1]) if found else 0


@pytest.mark.usefixtures("any_server_url")
async def test_every_script_is_one_to_the_server(room: Mailroom) -> None:
    """It counts locals, those of loops included, better than a look at the text does."""
    for verb in VERBS:
        assert (await room.do("SCRIPT", "LOAD", load(verb).source)).decode() == load(verb).sha, verb


@pytest.mark.usefixtures("any_server_url")
async def test_a_server_that_lost_its_scripts_is_given_the_one_again(room: Mailroom) -> None:
    await room.scripts.find([(None, "a1")])
    await room.do("SCRIPT", "FLUSH")
    await room.do("CONFIG", "RESETSTAT")
    assert await room.scripts.leader("keeper", "w1", 1000)
    assert (await calls_of(room, "evalsha"), await calls_of(room, "eval")) == (1, 1)
    shas = [load(verb).sha for verb in ("leader", "find")]
    assert await room.do("SCRIPT", "EXISTS", *shas) == [1, 0]
    assert await room.scripts.leader("keeper", "w1", 1000)
    assert (await calls_of(room, "evalsha"), await calls_of(room, "eval")) == (2, 1)


@pytest.mark.leaves_mail
async def test_in_a_pipeline_exactly_what_failed_is_repeated(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = [await room.lease() for _ in range(3)]
    sent: list[list[tuple[Any, ...]]] = []
    real = connection.pipelined
    await room.do("SCRIPT", "LOAD", load("heartbeat").source)

    async def one_refused(redis: Any, commands: Iterable[Sequence[Any]], **known: Any) -> list[Any]:
        asked = [tuple(parts) for parts in commands]
        sent.append(list(asked))
        if len(sent) == 1:
            verb, _, *rest = asked[1]
            asked[1] = (verb, "0" * 40, *rest)
        return await real(redis, asked, **known)

    monkeypatch.setattr(script, "pipelined", one_refused)
    calls = [(("w1",), [(lease.entry, lease.token)]) for lease in leases]
    assert await room.spool.caller.pipeline("heartbeat", calls) == [[], [], []]
    assert sent[1:] == [[sent[0][1]]]


@pytest.mark.leaves_mail
@pytest.mark.usefixtures("any_server_url")
async def test_a_whole_pipeline_that_was_refused(room: Mailroom) -> None:
    leases = [await room.lease() for _ in range(3)]
    await room.do("SCRIPT", "FLUSH")
    calls = [(("w1",), [(lease.entry, 1)]) for lease in leases]
    assert await room.spool.caller.pipeline("heartbeat", calls) == [[each.entry.encode()] for each in leases]


@pytest.mark.leaves_mail
@pytest.mark.usefixtures("any_server_url")
async def test_a_pipeline_outlives_the_loss_of_a_group(room: Mailroom) -> None:
    high, low = await room.lease("high"), await room.lease("low")
    await room.do("XGROUP", "DESTROY", room.keys.stream("high"), "streamq")
    calls = [(("w1",), [(lease.entry, lease.token)]) for lease in (high, low)]
    assert await room.spool.caller.pipeline("heartbeat", calls) == [[high.entry.encode()], []]


async def test_other_errors_are_raised(room: Mailroom) -> None:
    with pytest.raises(Exception, match="no priority"):
        await room.spool.caller.pipeline("heartbeat", [(("w1",), [("91-1", 1)])])
    room.spool.caller.reopen = None
    await room.do("XGROUP", "DESTROY", room.keys.stream("high"), "streamq")
    with pytest.raises(Exception, match="NOGROUP"):
        await room.reclaim()
    with pytest.raises(Exception, match="NOGROUP"):
        await room.spool.caller.pipeline("heartbeat", [(("w1",), [("01-1", 1)])])
    await room.spool.open()


async def test_calls_are_counted(make_spool: MakeSpool) -> None:
    spool = await make_spool()
    await spool.scripts.find([(None, "a1")])
    assert spool.caller.calls == {"open": 1, "find": 1}
    assert await command(spool.redis, "SCRIPT", "EXISTS", load("find").sha) == [1]


# -- linking -------------------------------------------------------------------------------------

PART = """\
-- part: three functions, of which each stands on the one before.
local set = 1
local function a() return set end -- on one line, with a word behind it
-- What nobody reaches.
local function b()
  return a()
end

local function c(x)
  for _ = 1, 2 do if x then return 'end' end end
  return b()
end
"""


def test_a_function_that_nothing_mentions_stays_behind() -> None:
    linked = link([PART], "return b() -- c is but a word here\n")
    assert "local function a()" in linked
    assert "\nfunction b()" in linked
    assert "function c(" not in linked
    assert linked.endswith("\nreturn b() -- c is but a word here\n")


def test_what_runs_when_a_part_is_loaded_stays_and_keeps_what_it_calls() -> None:
    linked = link([PART, "local found = a()\n"], "return 1\n")
    assert "local set = 1" in linked
    assert "\nfunction a()" in linked
    assert "function b()" not in linked


def test_what_only_its_own_part_mentions_is_gone_behind_it() -> None:
    """What others mention is declared before the block: once, however it is written."""
    names = "local set = 1\nlocal none -- yet\nlocal here, there = 2, 3\n"
    part = f"-- part: names.\n{names}local function a() return set end\n"
    assert link([part, "local function b() return there end\n"], "return {a, b, none}\n").splitlines() == [
        "local none, here, there, a",
        OPENS,
        "-- part: names.",
        "local set = 1",
        " -- yet",
        "here, there = 2, 3",
        "function a() return set end",
        "",
        CLOSES,
        "",
        "local function b() return there end",
        "",
        "return {a, b, none}",
    ]


def test_constants_stand_where_they_are_used() -> None:
    """And nowhere else: not in texts, not in comments, not as parts of longer names."""
    part = "-- part: of constants.\nlocal MOST, LIST = 5, 'a, b' -- µs\nlocal MOST_OF = {}\nlocal now = 1\n"
    body = "return {now, MOST_OF, LIST, 'MOST', MOST + 1} -- MOST of it"
    assert link([part], body).splitlines()[1:] == [
        "local MOST_OF = {}",
        "local now = 1",
        "",
        "return {now, MOST_OF, ('a, b'), 'MOST', 5 + 1} -- MOST of it",
    ]


LOCALS = 200  # of a function, in Lua 5.1
SPARE = 20  # for loops, and whoever adds some


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_keeps_clear_of_lua_s_limit_of_locals(verb: str) -> None:
    alive = most = before = 0
    for line in load(verb).source.splitlines():
        if line == OPENS:
            before = alive
        elif line == CLOSES:
            alive = before
        elif found := re.match(r"local (function \w+|[\w, ]+)", line):
            alive += len(found[1].split(","))
            most = max(most, alive)
    assert 0 < most <= LOCALS - SPARE


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_brings_no_function_that_it_does_not_use(verb: str) -> None:
    source = "\n".join(line.split("--")[0] for line in load(verb).source.splitlines())
    declared = re.findall(r"^local (\w+(?:, \w+)*)$", source, re.M)
    shared = {name for names in declared for name in names.split(", ")}
    for name in re.findall(r"^(?:local )?function (\w+)\(", source, re.M):
        assert len(re.findall(rf"\b{name}\b", source)) > 1 + (name in shared), name
    for name in re.findall(r"^(?:function )?K\.(\w+)", source, re.M):
        assert len(re.findall(rf"\bK\.{name}\b", source)) > 1, name


def test_two_constants_of_one_name_are_refused() -> None:
    """One of them stood for both, in silence."""
    assert inlined("local FEW = 4\nreturn FEW\n").strip() == "return 4"
    assert inlined("local FEW = 4\nlocal FEW = 4\nreturn FEW\n").strip() == "return 4"
    with pytest.raises(ValueError, match="constant FEW is 4 and 100"):
        inlined("local FEW = 4\nlocal FEW = 100\nreturn FEW\n")
