"""What all commands share: settings from everywhere, errors in one line, no secret in any of them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from mailroom import Mailroom

from cli.shell import program, steers, streamq
from streamq import __version__
from streamq.queue.spool import FORMAT

pytestmark = pytest.mark.leaves_mail
SECRET = "hunter2"
COMMANDS = [
    ["status"],
    ["ls"],
    ["show", "a1"],
    ["check"],
    ["retry", "a1"],
    ["hold", "a1"],
    ["unhold", "a1"],
    ["cancel", "a1"],
    ["bounce", "a1"],
    ["dead", "ls"],
    ["dead", "show", "a1"],
    ["dead", "requeue", "--all"],
    ["dead", "rm", "--all"],
    ["send", "--from", "a@b.example", "--to", "b@c.example", "--subject", "x"],
]


async def test_help_names_every_command() -> None:
    said = await streamq("--help")
    assert said.code == 0
    names = {"demo", "worker", "sink", "url", "send", "status", "ls", "show", "check"}
    for name in names | {"retry", "hold", "unhold", "cancel", "bounce", "dead"}:
        assert f" {name} " in said.out
        assert (await streamq(name, "--help")).code == 0
    assert (await streamq("--version")).out == f"streamq {__version__}\n"
    assert (await streamq("dead")).code == 2


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_no_redis_is_one_line_and_exit_1(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_REDIS_URL", f"redis://user:{SECRET}@127.0.0.1:1/0")
    said = await streamq(*words)
    assert said.code == 1
    assert said.err.startswith("streamq: redis: ")
    assert said.err.count("\n") == 1
    assert "127.0.0.1:1" in said.err
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize("words", [*COMMANDS, ["url"], ["worker"], ["worker", "--processes", "2"]], ids=" ".join)
async def test_wrong_settings_are_one_line_and_exit_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "streamq.toml"
    path.write_text(f'in_hand = "x"\n[routes.main]\nurl = "smtp://u:{SECRET}/@h:x"\npassword = "{SECRET}"')
    monkeypatch.setenv("STREAMQ_CONFIG", str(path))
    said = await streamq(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"streamq: {path}: in_hand: ")
    assert "(got 'x')" in said.err
    assert said.err.count("\n") == 1
    assert SECRET not in said.err
    assert (await streamq("--config", str(path), *words)).err == said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--redis-url", f"redis://:{SECRET}/@h", "status"], "--redis-url: not an address"),
        (["--redis-url", f"http://:{SECRET}@h", "status"], "--redis-url: not an address"),
        (
            ["--redis-url", f"redis://:{SECRET}@127.0.0.1:1", "status"],
            "--redis-url: a password on a command line is in `ps`",
        ),
        (
            ["worker", "--relay", f"smtp://u:{SECRET}@127.0.0.1:1"],
            "STREAMQ_RELAY, or a file (STREAMQ_CONFIG), keeps it",
        ),
        (["--queue", "a{b}", "status"], "'a{b}'"),
        (["--config", "/nowhere/streamq.toml", "status"], "/nowhere/streamq.toml: No such file or directory"),
        (["worker", "--relay", f"smtp://u:{SECRET}"], "--relay: not a"),
        (["worker", "--relay", "smtp://h", "--in-hand", "0"], "--in-hand: "),
    ],
)
async def test_wrong_flags_are_named(words: list[str], says: str) -> None:
    said = await streamq(*words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert SECRET not in said.err


async def test_the_queue_is_found_by_flag_variable_fallback_and_file(
    queue: Mailroom, server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await queue.add()
    monkeypatch.delenv("STREAMQ_REDIS_URL")
    assert (await streamq("--redis-url", server_url, "ls", "--json")).json[0]["entry"] == entry
    monkeypatch.setenv("REDIS_URL", server_url)
    assert (await streamq("ls", "--json")).json[0]["entry"] == entry
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    (tmp_path / "streamq.toml").write_text(f'redis_url = "{server_url}"')
    monkeypatch.setenv("STREAMQ_CONFIG", str(tmp_path / "streamq.toml"))
    assert (await streamq("ls", "--json")).json[0]["entry"] == entry
    assert (await streamq("--queue", "other", "ls", "--json")).json == []
    monkeypatch.setenv("STREAMQ_QUEUE", "other")
    assert (await streamq("ls", "--json")).json == []


async def test_a_queue_of_another_format_is_left_alone(queue: Mailroom) -> None:
    await queue.do("HSET", queue.keys.meta, "format", "99")
    said = await streamq("ls")
    assert (said.code, said.out) == (1, "")
    assert "key format 99" in said.err
    await queue.do("HSET", queue.keys.meta, "format", FORMAT)


async def test_what_redis_says_steers_nothing(queue: Mailroom) -> None:
    await queue.do("DEL", queue.keys.dead)
    await queue.do("SET", queue.keys.dead, "no stream")
    said = await streamq("dead", "ls")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("streamq: redis: WRONGTYPE")
    assert steers(said.err) == set()
    await queue.do("DEL", queue.keys.dead)


async def test_words_that_are_no_text(queue: Mailroom) -> None:
    for words in (["show", "\udcff"], ["cancel", "--tag", "\udc1b"], ["send", "--subject", "\udcff"]):
        said = await streamq(*words)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("streamq: argument ")
    assert await queue.states() == {}


# -- as a program ------------------------------------------------------------------------------------------------


async def _piped(*words: str, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    process = await program(*words, environment=environment)
    out, err = await process.communicate()
    return process.returncode, out, err


async def test_a_worker_without_redis_is_one_line_and_exit_1() -> None:
    url = f"redis://user:{SECRET}@127.0.0.1:1/0"
    environment = {"STREAMQ_REDIS_URL": url, "STREAMQ_RELAY": f"smtp://u:{SECRET}@127.0.0.1:9"}
    code, out, err = await _piped("worker", environment=environment)
    assert code == 1
    assert err.startswith(b"streamq: redis: ")
    assert err.count(b"\n") == 1
    assert SECRET.encode() not in out + err


async def test_as_a_program(queue: Mailroom, server_url: str) -> None:
    entry = await queue.add(subject="caf\u00e9 \u2026")
    environment = {"STREAMQ_REDIS_URL": server_url}
    code, out, err = await _piped("ls", environment=environment)
    assert (code, err) == (0, b"")
    assert entry in out.decode()
    assert b"\x1b" not in out  # no terminal, no colours
    code, out, _ = await _piped("ls", environment=environment | {"FORCE_COLOR": "1", "COLUMNS": "80"})
    assert b"\x1b[2mentry" in out
    code, out, err = await _piped("ls", environment=environment | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (code, err) == (0, b"")
    assert b"caf?" in out


@pytest.mark.parametrize("closed", ["0<&-", "0<&- 1>&- 2>&-"])
async def test_with_a_standard_descriptor_closed(queue: Mailroom, server_url: str, closed: str) -> None:
    """The next socket would get its number, at which uvloop aborts."""
    await queue.add()
    await queue.add()
    shell = f'exec "$0" -m streamq cancel --all {closed}'
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", shell, sys.executable, env={**os.environ, "STREAMQ_REDIS_URL": server_url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await process.communicate()
    assert process.returncode == 1  # nobody to ask
    assert len(await queue.states()) == 2


async def test_a_reader_that_has_seen_enough(queue: Mailroom, server_url: str) -> None:
    for _ in range(300):
        await queue.add(to="bob@example.net", subject="x" * 1000)
    environment = {"STREAMQ_REDIS_URL": server_url}
    process = await program("ls", "--json", "--limit", "300", environment=environment)
    assert await process.stdout.readline() == b"[\n"
    process.stdout._transport.close()
    assert await process.stderr.read() == b""
    assert await process.wait() in {0, 1}


async def test_a_pipe_that_nobody_writes_to_is_not_waited_for(queue: Mailroom, server_url: str) -> None:
    await queue.add()
    await queue.add()
    process = await program(
        "cancel", "--all", environment={"STREAMQ_REDIS_URL": server_url}, stdin=asyncio.subprocess.PIPE
    )
    assert await process.wait() == 1
    assert b"No terminal to ask" in await process.stderr.read()
    await process.communicate()
    assert len(await queue.states()) == 2
