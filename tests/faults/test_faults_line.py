"""A line breaks as it is told, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from bench.faults.line import Direction, Joint, Line


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def _echo() -> AsyncIterator[tuple[Line, list[bytes]]]:
    """A line to a server that says again what it hears, and ends when its client does; what it heard."""
    heard: list[bytes] = []
    serving: list[asyncio.Task[object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            serving.append(task)
        try:
            while data := await reader.read(1000):
                heard.append(data)
                writer.write(data)
            writer.write(b"bye")
        except ConnectionError:
            heard.append(b"reset")
        finally:
            await _end(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with Line(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as line:
        yield line, heard
    server.close()
    await asyncio.gather(*serving)


async def _joined(line: Line) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Joint]:
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    [joint] = line.joints
    return reader, writer, joint


async def test_it_is_a_wire_until_it_is_told_otherwise() -> None:
    async with _echo() as (line, _):
        reader, writer, joint = await _joined(line)
        big = bytes(2_000_000)
        writer.write(big)
        assert await reader.readexactly(len(big)) == big
        writer.write_eof()
        assert await reader.read() == b"bye"
        assert joint.gone.is_set()
        await _end(writer)


async def test_cut_and_reset() -> None:
    async with _echo() as (line, heard):
        reader, writer, joint = await _joined(line)
        joint.cut()
        assert await reader.read() == b""
        await _end(writer)
        reader, writer, joint = await _joined(line)
        joint.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await _end(writer)
    assert heard[:2] == [b"hello", b"hello"]


@pytest.mark.parametrize("direction", ["there", "back"])
async def test_a_direction_stalls_and_goes_on(direction: Direction) -> None:
    async with _echo() as (line, heard):
        reader, writer, joint = await _joined(line)
        joint.stall(direction)
        writer.write(b"one")
        answer = asyncio.create_task(reader.readexactly(6))
        if direction == "back":
            while b"one" not in heard:  # noqa: ASYNC110 (its list is the loop's next steps)
                await asyncio.sleep(0)
        writer.write(b"two")
        assert not answer.done()
        joint.flow(direction)
        assert await answer == b"onetwo"
        await _end(writer)


async def test_a_half_closed_one_still_hears() -> None:
    async with _echo() as (line, _):
        reader, writer, joint = await _joined(line)
        joint.half_close("there")
        assert await reader.read() == b"bye"
        await _end(writer)


async def test_a_delayed_one_keeps_its_order() -> None:
    async with _echo() as (line, _):
        reader, writer, joint = await _joined(line)
        joint.delay("back", 0.01)
        for number in range(20):
            writer.write(b"%02d" % number)
            await writer.drain()
        assert await reader.readexactly(40) == b"".join(b"%02d" % number for number in range(20))
        await _end(writer)


async def test_a_closed_door_and_nobody_there() -> None:
    async with _echo() as (line, heard):
        line.closed_door = True
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await _end(writer)
    assert heard == []
    async with Line("/nowhere") as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await _end(writer)
