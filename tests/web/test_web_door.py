"""web/door.py by real sockets: who says nothing, or half of it, keeps nobody out; probes are always answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamq.settings import Place
from streamq.web.door import REQUEST_SECONDS, REQUESTS, ROOM
from streamq.web.listener import listening

Joint = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Clock:
    """Its timers run when a test says that so much time has passed."""

    timers: list[tuple[float, asyncio.Handle]] = field(default_factory=list)
    now: float = 0.0

    def call_later(self, seconds: float, then: Callable[[], None]) -> asyncio.Handle:
        handle = asyncio.Handle(then, (), asyncio.get_running_loop())
        self.timers.append((self.now + seconds, handle))
        return handle

    @property
    def running(self) -> int:
        return sum(not handle.cancelled() for _, handle in self.timers)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        due = [handle for at, handle in self.timers if at <= self.now and not handle.cancelled()]
        self.timers = [(at, handle) for at, handle in self.timers if at > self.now]
        for handle in due:
            handle._run()


class House:
    """A server whose `/slow` answers when the test opens; `busy` and `said` tell what is under way there."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.opened = asyncio.Event()
        self.busy = 0
        self.moved = asyncio.Event()
        self.place = Place("127.0.0.1", 0)
        self.joints: list[Joint] = []
        self.app = Starlette(
            routes=[
                Route("/livez", self.ok),
                Route("/quick", self.ok),
                Route("/slow", self.slow),
                Route("/body", self.body, methods=["POST"]),
            ]
        )

    async def ok(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def slow(self, request: Request) -> Response:
        self._move(1)
        await self.opened.wait()
        self._move(-1)
        return PlainTextResponse("at last\n")

    async def body(self, request: Request) -> Response:
        self._move(1)
        return PlainTextResponse(f"{len(await request.body())}\n")

    def _move(self, by: int) -> None:
        self.busy += by
        self.moved.set()

    async def until_busy(self, many: int) -> None:
        while self.busy != many:
            self.moved.clear()
            await self.moved.wait()

    async def connect(self, said: bytes = b"") -> Joint:
        joint = await asyncio.open_connection(self.place.host, self.place.port)
        self.joints.append(joint)
        joint[1].write(said)
        return joint

    async def ask(self, path: str) -> tuple[int, Joint]:
        """The status, on a connection of its own that is kept."""
        joint = await self.connect(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
        return await status_of(joint), joint


async def status_of(joint: Joint) -> int:
    """Of an answer that is read whole."""
    head = (await joint[0].readuntil(b"\r\n\r\n")).decode().lower()
    length = next(line for line in head.splitlines() if line.startswith("content-length:"))
    await joint[0].readexactly(int(length.partition(":")[2]))
    return int(head.split()[1])


async def is_over(joint: Joint) -> bool:
    """Waits for the end of a connection on which nothing comes any more."""
    try:
        return await joint[0].read() == b""
    except ConnectionResetError:
        return True


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    one = House()
    async with (
        asyncio.timeout(60),
        listening(one.app, one.place, "--port", call_later=one.clock.call_later) as one.place,
    ):
        try:
            yield one
        finally:
            one.opened.set()
            for _, writer in one.joints:
                writer.close()


async def test_silent_connections_keep_nobody_out() -> None:
    async with house() as h:
        for _ in range(REQUESTS):
            await h.connect()
        assert [(await h.ask(path))[0] for path in ("/livez", "/quick")] == [200, 200]


async def test_of_more_than_there_is_room_for_the_oldest_silent_ones_go() -> None:
    async with house() as h:
        talking = await h.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await h.until_busy(1)
        silent = [await h.connect() for _ in range(ROOM)]
        assert (await h.ask("/livez"))[0] == 200
        assert [await is_over(joint) for joint in silent[:2]] == [True, True]
        silent[2][1].write(b"GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await status_of(silent[2]) == 200  # it is still there
        h.opened.set()
        assert await status_of(talking) == 200  # and who was here first, and talked


async def test_where_all_have_a_request_under_way_probes_are_answered() -> None:
    async with house() as h:
        for _ in range(REQUESTS):
            await h.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await h.until_busy(REQUESTS)
        assert [(await h.ask(path))[0] for path in ("/quick", "/livez", "/slow")] == [503, 200, 503]
        h.opened.set()
        await h.until_busy(0)
        assert (await h.ask("/quick"))[0] == 200


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /quick HTTP/1.1\r\nHost: loc",
        b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1234",
    ],
    ids=["nothing", "half a head", "half a body"],
)
async def test_a_request_has_its_time(said: bytes) -> None:
    async with house() as h:
        joint = await h.connect(said)
        if said.startswith(b"POST"):
            await h.until_busy(1)
        else:
            assert (await h.ask("/livez"))[0] == 200  # by then that one was let in, too
        h.clock.tick(REQUEST_SECONDS - 0.1)
        assert (await h.ask("/livez"))[0] == 200  # an end of that one would be here by now
        assert not joint[0].at_eof()
        h.clock.tick(0.1)
        assert await is_over(joint)


async def test_letters_one_by_one_win_no_time() -> None:
    async with house() as h:
        joint = await h.connect(b"GET /quick HTTP/1.1\r\n")
        for letter in b"Host":
            joint[1].write(bytes([letter]))
            assert (await h.ask("/livez"))[0] == 200
            h.clock.tick(REQUEST_SECONDS / 4)
        assert await is_over(joint)


async def test_an_answer_takes_as_long_as_it_takes() -> None:
    async with house() as h:
        joint = await h.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await h.until_busy(1)
        assert h.clock.running == 0
        h.clock.tick(3600)
        h.opened.set()
        assert await status_of(joint) == 200
        joint[1].write(b"GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n")  # the next one, on the same
        assert await status_of(joint) == 200
        h.clock.tick(REQUEST_SECONDS)
        assert await is_over(joint)
