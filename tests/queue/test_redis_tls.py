"""rediss://: a server must prove who it is, to every client of ours; with a CA of one's own it can."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from streamq import AsyncClient, Client, Mail, Sent, Unreachable
from streamq.queue.connection import command, connect
from streamq.queue.spool import Spool
from streamq.settings import load_settings

PEM = Path(__file__).parents[1] / "smtp" / "relay_test.pem"  # localhost and 127.0.0.1, self-signed
OTHER = PEM.with_name("other_test.pem")  # other.test
MAIL = Mail(from_="shop@example.com", to="bob@example.net", subject="Hi", id="a1")

pytestmark = pytest.mark.leaves_mail


@asynccontextmanager
async def secured(url: str, pem: Path = PEM) -> AsyncIterator[int]:
    """TLS before that server, whatever it was built with; the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        inward, outward = await asyncio.open_unix_connection(url.removeprefix("unix://"))
        await asyncio.gather(carry(reader, outward), carry(inward, writer))
        for each in (outward, writer):
            with contextlib.suppress(OSError):
                await each.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, family=socket.AF_INET)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*served)


async def refused(url: str) -> list[str]:
    """What each client says of it."""
    said = []
    client = connect(url)
    with pytest.raises(RedisConnectionError) as error:
        await command(client, "PING")
    said.append(str(error.value))
    await client.aclose()
    with pytest.raises(RedisConnectionError) as error:
        await Spool.connect(load_settings(), url)
    said.append(str(error.value))
    async with AsyncClient(url, tries=1) as producer:
        with pytest.raises(Unreachable) as away:
            await producer.send(MAIL)
    said.append(str(away.value))

    def send() -> str:
        with Client(url, tries=1) as client, pytest.raises(Unreachable) as away:
            client.send(MAIL)
        return str(away.value)

    return [*said, await asyncio.to_thread(send)]


async def test_a_certificate_that_nobody_vouches_for_is_refused(server_url: str) -> None:
    async with secured(server_url) as port:
        said = await refused(f"rediss://127.0.0.1:{port}")
    assert len(said) == 4
    assert all("CERTIFICATE_VERIFY_FAILED" in one for one in said), said


async def test_one_of_another_name_is_refused_though_its_ca_is_known(server_url: str) -> None:
    async with secured(server_url, OTHER) as port:
        said = await refused(f"rediss://127.0.0.1:{port}?ssl_ca_certs={OTHER}")
    assert all("CERTIFICATE_VERIFY_FAILED" in one for one in said), said


async def test_with_its_ca_it_is_taken(server_url: str) -> None:
    async with secured(server_url) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={PEM}"
        spool = await Spool.connect(load_settings(), url)
        async with AsyncClient(url) as producer:
            assert isinstance(await producer.send(MAIL), Sent)

        def send() -> Sent:
            with Client(url) as client:
                return client.send(MAIL)

        await asyncio.to_thread(send)
        assert await command(spool.redis, "XLEN", spool.keys.stream("normal")) == 2
        await spool.close()


async def test_a_server_without_tls_gets_no_password(server_url: str) -> None:
    """Nothing but a hello of TLS goes out."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65_536))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    client = connect(f"rediss://shop:s3cret@127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(RedisConnectionError):
        await command(client, "PING")
    await client.aclose()
    server.close()
    assert heard
    assert b"s3cret" not in heard
