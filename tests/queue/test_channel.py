"""One connection that many calls share: whose reply it is, and what happens when the server does not play along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streamq.queue.channel import Channel
from streamq.queue.connection import Client, command, connect, pipelined

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(tmp_path: Path, serve: Serve) -> AsyncIterator[str]:
    """A server that does what the test says; its URL."""
    path = tmp_path / "s"
    serving: list[asyncio.Task[None]] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()
        await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(one(reader, writer)))

    server = await asyncio.start_unix_server(begin, path)
    yield f"unix://{path}"
    server.close()
    await server.wait_closed()
    await asyncio.gather(*serving)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pong: bytes) -> None:
    """OK to whatever redis-py says first, and `pong` to PING."""
    while seen := await reader.read(4096):
        writer.write(pong if b"PING" in seen else b"+OK\r\n" * seen.count(b"CLIENT"))


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    made = connect(server_url)
    yield made
    await made.aclose()


@pytest.mark.asyncio
async def test_each_call_gets_its_own_reply(server_url: str, client: Client) -> None:
    numbers = range(300)
    said = await asyncio.gather(
        *(command(client, "ECHO", f"m{number}" * (number * 40 % 7000 or 1)) for number in numbers)
    )
    assert said == [f"m{number}".encode() * (number * 40 % 7000 or 1) for number in numbers]
    clients = (await command(client, "CLIENT LIST")).decode().splitlines()
    assert len(clients) == 1


@pytest.mark.asyncio
async def test_an_error_is_one_call_s_alone(client: Client) -> None:
    asked: list[tuple[str | int, ...]] = [("ECHO", "a"), ("XADD", "no-id"), ("EVALSHA", "0" * 40, 0), ("ECHO", "b")]
    said = await asyncio.gather(*(command(client, *parts) for parts in asked), return_exceptions=True)
    assert [type(each) for each in said] == [bytes, ResponseError, NoScriptError, bytes]
    assert said[::3] == [b"a", b"b"]


@pytest.mark.asyncio
async def test_several_in_one_write(client: Client) -> None:
    commands = [("SET", "channel", "1"), ("INCR", "channel"), ("LPUSH", "channel", "x"), ("DEL", "channel")]
    first, second, wrong, last = await pipelined(client, commands, raising=False)
    assert (first, second, last) == (b"OK", 2, 1)
    assert isinstance(wrong, ResponseError)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await pipelined(client, commands)
    assert await command(client, "EXISTS", "channel") == 0, "all of them were carried out"
    assert await pipelined(client, []) == []


@pytest.mark.asyncio
async def test_the_reply_of_a_cancelled_call_is_nobody_s(client: Client) -> None:
    await command(client, "PING")
    left = asyncio.create_task(command(client, "ECHO", "left"))
    await asyncio.sleep(0)  # it is written
    left.cancel()
    assert await command(client, "ECHO", "mine") == b"mine"
    with pytest.raises(asyncio.CancelledError):
        await left


@pytest.mark.asyncio
async def test_it_opens_again_after_the_server_closed(server_url: str, client: Client) -> None:
    mine = await command(client, "CLIENT ID")
    other = connect(server_url)
    blocked = [asyncio.create_task(command(client, "BLPOP", "nothing", 0)) for _ in range(3)]
    await command(other, "PING")
    while b"cmd=blpop" not in await command(other, "CLIENT LIST"):  # noqa: ASYNC110 (the server has no event for it)
        await asyncio.sleep(0)
    await command(other, "CLIENT KILL", "ID", mine)
    for task in blocked:
        with pytest.raises(RedisConnectionError, match="closed the connection"):
            await task
    again = await asyncio.gather(*(command(client, "CLIENT ID") for _ in range(5)))
    assert len(set(again)) == 1
    assert again[0] != mine
    await other.aclose()


@pytest.mark.asyncio
async def test_those_that_wait_hear_that_it_was_closed(client: Client) -> None:
    await command(client, "PING")
    blocked = asyncio.create_task(command(client, "BLPOP", "nothing", 0))
    await asyncio.sleep(0)
    await client.aclose()
    with pytest.raises(RedisConnectionError, match="this side"):
        await blocked


@pytest.mark.asyncio
async def test_a_silent_server_ends_all_that_wait(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, b"")
        gone.set()

    async with scripted(tmp_path, silent) as url:
        client = connect(url)
        channel = Channel(client.connection_pool, 0.05)
        said = await asyncio.gather(*(channel.call("PING") for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in said] == [RedisTimeoutError] * 3
        await gone.wait()
        channel.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\n", b"+PONG\r\n+and one more\r\n"])
async def test_what_is_no_reply_ends_the_connection(tmp_path: Path, junk: bytes) -> None:
    opened = 0

    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await answer(reader, writer, junk if opened == 1 else b"+PONG\r\n")

    async with scripted(tmp_path, wrong) as url:
        client = connect(url)
        first = (await asyncio.gather(client.channel.call("PING"), return_exceptions=True))[0]
        assert first == b"PONG" or isinstance(first, RedisConnectionError)
        assert await command(client, "PING") == b"PONG"
        assert opened == 2, "nobody trusts the first one any more"
        await client.aclose()


@pytest.mark.asyncio
async def test_nobody_there(tmp_path: Path) -> None:
    client = connect(f"unix://{tmp_path}/nobody")
    for _ in range(2):
        with pytest.raises(RedisConnectionError):
            await command(client, "PING")
    await client.aclose()


@pytest.mark.asyncio
async def test_redis_py_logs_in(server_url: str, client: Client) -> None:
    await command(client, "ACL SETUSER", "carol", "on", ">secret", "+@all", "~*")
    carol = connect(server_url.replace("unix://", "unix://carol:secret@", 1), name="carols")
    assert await command(carol, "ACL WHOAMI") == b"carol"
    assert await command(carol, "CLIENT GETNAME") == b"carols"
    await carol.aclose()
    assert await command(client, "ACL DELUSER", "carol") == 1
