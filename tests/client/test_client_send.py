"""Both clients on real servers: what stands in the streams afterwards, and what the caller was told."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from cli.delivery import delivering
from conftest import MakeSpool
from faces import Clock, Opener, Threaded, error_of, letter, opener
from lossy import Cut, Lossy
from mailroom import Mailroom
from server.processes import ended
from servers import Server

from streamq import (
    AsyncClient,
    Attachment,
    Client,
    Mail,
    MailError,
    NoReply,
    NotSent,
    OutOfMemory,
    Recipient,
    Refused,
    Result,
    Sent,
    SettingsError,
    TooDeep,
    Unreachable,
)
from streamq.queue.connection import command, connect
from streamq.settings import load_settings
from streamq.sink.certificate import self_signed

pytestmark = pytest.mark.leaves_mail


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest) -> Opener:
    """Either client, by `async with open_client(url, clock, **options)`."""
    return opener(request.param)


async def rows(room: Mailroom, priority: str = "normal") -> list[tuple[str, dict[bytes, bytes]]]:
    found = await room.do("XRANGE", room.keys.stream(priority), "-", "+")
    return [(id_.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for id_, flat in found]


async def ids(room: Mailroom, priority: str = "normal") -> list[str]:
    return [fields[b"id"].decode() for _, fields in await rows(room, priority)]


async def calls(room: Mailroom, command: str, kind: str = "calls") -> int:
    """How often the server carried it out, or did not (`rejected_calls`)."""
    text: str = (await room.do("INFO", "commandstats")).decode()
    for line in text.splitlines():
        name, _, facts = line.partition(":")
        if name == f"cmdstat_{command}":
            return int(dict(fact.split("=") for fact in facts.split(","))[kind])
    return 0


# -- what is sent -------------------------------------------------------------------------------------------------


async def test_a_mail_stands_in_its_stream_as_it_was_made(
    any_server_url: str, room: Mailroom, open_client: Opener
) -> None:
    mail = letter("order-1", priority="high", html="<p>Héllo</p>", tags=["a,b", "c"])
    async with open_client(any_server_url) as client:
        sent = await client.send(mail)
    ((entry, fields),) = await rows(room, "high")
    assert sent == Sent("order-1", f"0{entry}")
    assert fields == mail.fields
    assert fields[b"tags"] == b'["a,b","c"]'


async def test_many_keep_their_order_and_priority(any_server_url: str, room: Mailroom, open_client: Opener) -> None:
    mails = [letter(f"m{n}", priority=("high", "normal", "low")[n % 3]) for n in range(1203)]
    async with open_client(any_server_url) as client:
        before = await calls(room, "xadd")
        results = await client.send_many(iter(mails))
    assert await calls(room, "xadd") - before == 1203
    assert [result.id for result in results] == [mail.id for mail in mails]
    assert all(isinstance(result, Sent) and not result.resent for result in results)
    for at, priority in enumerate(("high", "normal", "low")):
        assert [f"{at}{entry}" for entry, _ in await rows(room, priority)] == [
            result.entry for result in results[at::3] if isinstance(result, Sent)
        ]
        assert await ids(room, priority) == [mail.id for mail in mails[at::3]]


async def test_nothing_to_send(server_url: str, room: Mailroom, open_client: Opener) -> None:
    async with open_client(server_url) as client:
        assert await client.send_many([]) == []


async def test_the_queues_own_order_of_priorities_is_in_the_entry(
    server_url: str, make_spool: MakeSpool, open_client: Opener
) -> None:
    spool = await make_spool(priorities="low,normal,urgent")
    async with open_client(server_url) as client:
        sent = await client.send(letter(priority="urgent"))
        assert sent.entry.startswith("2")
        with pytest.raises(SettingsError, match=r"priority: one of low, normal, urgent \(got 'high'\)"):
            await client.send(letter(priority="high"))
    assert spool.stream(sent.entry) == "{streamq}:urgent"


async def test_another_queue(server_url: str, make_spool: MakeSpool, open_client: Opener) -> None:
    room = Mailroom(await make_spool(queue="shop"))
    async with open_client(server_url, queue="shop") as client:
        await client.send(letter())
    assert await ids(room) == ["a1"]


async def test_who_may_only_xadd_can_send(server_url: str, room: Mailroom, open_client: Opener) -> None:
    """The ACL of docs/sending.md."""
    keys = [f"~{room.keys.stream(name)}" for name in room.spool.priorities]
    await room.do("ACL", "SETUSER", "shop", "on", ">secret", *keys, "+xadd")
    try:
        url = server_url.replace("unix://", "unix://shop:secret@")
        async with open_client(url) as client:
            assert (await client.send(letter(priority="low"))).entry[0] == "2"
        async with open_client(url, max_depth=5) as client:
            with pytest.raises(Refused, match=r"max_depth needs XLEN of \{streamq\}:normal: .*"):
                await client.send(letter("a2"))
        async with open_client(server_url.replace("unix://", "unix://shop:wrong@")) as client:
            with pytest.raises(Unreachable, match="invalid username-password"):
                await client.send(letter("a3"))
    finally:
        await room.do("ACL", "DELUSER", "shop")
    assert await ids(room, "low") == ["a1"]


async def test_over_tls(server_url: str, room: Mailroom, open_client: Opener, tmp_path: Path) -> None:
    certificate = self_signed()
    (tmp_path / "ca.pem").write_bytes(certificate.pem)
    async with Lossy(server_url, tls=certificate.context) as line:
        async with open_client(f"{line.url}?ssl_ca_certs={tmp_path / 'ca.pem'}") as client:
            await client.send(letter())
        async with open_client(line.url) as client:
            with pytest.raises(Unreachable, match=r"(?i)certificate"):
                await client.send(letter("a2"))
    assert await ids(room) == ["a1"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sq-"))
    monkeypatch.setenv("XDG_STATE_HOME", str(path))
    yield path
    ended(path / "streamq")
    shutil.rmtree(path)


async def test_without_a_url_it_is_this_machines_server(home: Path) -> None:
    """And the next client finds the mail of the one before."""
    with Client() as client:
        entry = (await asyncio.to_thread(client.send, letter())).entry
    async with AsyncClient(tries=1) as other:
        assert (await other.send(letter())).entry > entry


# -- what is refused ----------------------------------------------------------------------------------------------


async def test_each_mail_has_its_own_error(server_url: str, room: Mailroom, open_client: Opener) -> None:
    await room.do("DEL", room.keys.stream("low"))
    await room.do("SET", room.keys.stream("low"), "no stream")
    mails = [
        letter("good-1"),
        letter("nowhere", priority="urgent"),
        letter("large", text="x" * 3000),
        letter("wrong-key", priority="low"),
        letter("good-2", priority="high"),
    ]
    try:
        async with open_client(server_url, settings=load_settings(max_mail_bytes=2048)) as client:
            first, nowhere, large, wrong, last = await client.send_many(mails)
    finally:
        await room.do("DEL", room.keys.stream("low"))
        await room.spool.open()
    assert isinstance(first, Sent)
    assert isinstance(last, Sent)
    assert str(error_of(nowhere)) == "priority: one of high, normal, low (got 'urgent')"
    assert isinstance(error_of(large), MailError)
    assert str(error_of(large)) == "text: the mail is over the size cap of 2048 bytes"
    assert isinstance(error_of(wrong), Refused)
    assert str(error_of(wrong)).startswith("id 'wrong-key': Redis refused it: WRONGTYPE")
    assert not any(result.may_be_queued for result in (nowhere, large, wrong) if isinstance(result, NotSent))
    assert (await ids(room), await ids(room, "high")) == (["good-1"], ["good-2"])


async def test_out_of_memory_is_said_and_the_rest_is_not_tried(
    any_server_url: str, room: Mailroom, open_client: Opener
) -> None:
    mails = [letter(f"m{n}") for n in range(10)]
    async with open_client(any_server_url, batch_mails=4) as client:
        await room.do("CONFIG", "SET", "maxmemory", 1)
        before = await calls(room, "xadd", "rejected_calls")
        with pytest.raises(OutOfMemory, match=r"^id 'a1': Redis is out of memory \(maxmemory\), nothing was queued: "):
            await client.send(letter())
        results = await client.send_many(mails)
        assert await calls(room, "xadd", "rejected_calls") - before == 1 + 4
        assert all(isinstance(error_of(result), OutOfMemory) for result in results)
        assert [str(error_of(result)).startswith("not tried: ") for result in results] == [False] * 4 + [True] * 6
        assert await ids(room) == []
        await room.do("CONFIG", "SET", "maxmemory", 0)
        again = [mail for mail, result in zip(mails, results, strict=True) if isinstance(result, NotSent)]
        assert all(isinstance(result, Sent) for result in await client.send_many(again))
    assert await ids(room) == [mail.id for mail in mails]


async def test_a_closed_client_says_so(server_url: str, room: Mailroom, open_client: Opener) -> None:
    async with open_client(server_url) as client:
        await client.send(letter())
    with pytest.raises(RuntimeError, match="this client was closed"):
        await client.send(letter("a2"))
    assert await ids(room) == ["a1"]


async def test_only_mails_are_taken(server_url: str, room: Mailroom, open_client: Opener) -> None:
    mails: list[Any] = [letter(), {"to": "bob@example.net"}]
    async with open_client(server_url) as client:
        with pytest.raises(TypeError, match="send_many takes Mail, not dict"):
            await client.send_many(mails)


# -- replies that are lost ----------------------------------------------------------------------------------------


async def test_a_lost_reply_is_one_mail_all_the_same(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    async with Lossy(server_url, [Cut()]) as line, open_client(line.url, clock) as client:
        sent = await client.send(letter())
    (first, fields), (second, again) = await rows(room)
    assert fields == again
    assert sent == Sent("a1", f"1{second}", resent=1)
    assert clock.pauses == [0.05]
    async with delivering(server_url) as sink:
        while len(await rows(room)):
            await room.do("XREAD", "BLOCK", 1000, "COUNT", 1, "STREAMS", room.keys.events, "$")
        assert len(sink.received) == 1
    events = {event.data["entry"]: event for event in await room.events()}
    assert events[f"1{first}"].kind == "email.relayed"
    assert (events[f"1{second}"].kind, events[f"1{second}"].data["of"]) == ("email.duplicate", f"1{first}")


async def test_what_was_answered_is_not_sent_again(server_url: str, room: Mailroom, open_client: Opener) -> None:
    mails = [letter(f"m{n}") for n in range(10)]
    async with Lossy(server_url, [Cut(let=4, of=10)]) as line, open_client(line.url) as client:
        results = await client.send_many(mails)
        assert line.xadds == 16
    assert await ids(room) == [mail.id for mail in mails] + [mail.id for mail in mails[4:]]
    assert [result.resent for result in results if isinstance(result, Sent)] == [0] * 4 + [1] * 6


async def test_it_gives_up_and_says_that_it_may_be_queued(server_url: str, room: Mailroom, open_client: Opener) -> None:
    mails = [letter(f"m{n}") for n in range(4)]
    async with (
        Lossy(server_url, [Cut(of=2), Cut(of=2)]) as line,
        open_client(line.url, tries=2, batch_mails=2) as client,
    ):
        results = await client.send_many(mails)
        assert line.xadds == 4
        later = await client.send(mails[0])  # the line is good again
        assert later.resent == 0
    assert [isinstance(error_of(result), NoReply) for result in results] == [True, True, False, False]
    assert [result.may_be_queued for result in results if isinstance(result, NotSent)] == [True, True, False, False]
    assert str(error_of(results[0])).startswith("id 'm0': no reply to 2 XADDs of it (")
    assert isinstance(error_of(results[2]), Unreachable)
    assert str(error_of(results[2])).startswith("not tried: id 'm0': no reply")
    assert await ids(room) == ["m0", "m1", "m0", "m1", "m0"]


async def test_lost_and_then_refused_may_be_queued(server_url: str, room: Mailroom, open_client: Opener) -> None:
    """The OOM is the answer to the second XADD; the first stands."""
    clock = Clock()
    loop = asyncio.get_running_loop()

    def fill() -> None:
        asyncio.run_coroutine_threadsafe(room.do("CONFIG", "SET", "maxmemory", 1), loop).result()

    clock.meanwhile = fill
    async with Lossy(server_url, [Cut()]) as line, open_client(line.url, clock) as client:
        with pytest.raises(NoReply, match=r"no reply to its XADD .*; then: id 'a1': Redis is out of memory"):
            await client.send(letter())
    assert await ids(room) == ["a1"]


async def test_where_nobody_listens_nothing_is_queued(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    async with Lossy(server_url) as line, open_client(line.url, clock) as client:
        line.closed_door = True
        with pytest.raises(Unreachable, match=r"^no connection to Redis: "):
            await client.send(letter())
        assert (len(clock.pauses), line.xadds) == (2, 0)
        line.closed_door = False
        await client.send(letter())
    assert await ids(room) == ["a1"]


async def test_a_connection_that_was_closed_while_it_idled_loses_nothing(
    server_url: str, room: Mailroom, open_client: Opener
) -> None:
    async with open_client(server_url) as client:
        for n in range(3):
            assert (await client.send(letter(f"m{n}"))).resent == 0
            await room.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await ids(room) == ["m0", "m1", "m2"]


async def test_a_reply_that_does_not_come_is_lost(server_url: str, room: Mailroom, open_client: Opener) -> None:
    async with Lossy(server_url) as line, open_client(line.url, timeout=2, tries=1) as client:
        await client.send(letter("m0"))
        line.keep_back = True
        with pytest.raises(NoReply, match=r"no reply to its XADD \(Timeout"):
            await client.send(letter("m1"))
        line.keep_back = False
        assert (await client.send(letter("m2"))).resent == 0
    assert await ids(room) == ["m0", "m1", "m2"]


async def test_a_master_that_became_a_replica_is_left(own_server: Callable[..., Server], open_client: Opener) -> None:
    server = own_server()
    redis = connect(server.url)
    try:
        async with Lossy(server.url) as line, open_client(line.url) as client:
            await client.send(letter("m0"))
            await command(redis, "REPLICAOF", "127.0.0.1", 1)
            for name in ("m1", "m2"):
                with pytest.raises(Refused, match="read only replica"):
                    await client.send(letter(name))
            assert line.made == 2  # m1's connection was given up, and m2 had a new one
            await command(redis, "REPLICAOF", "NO", "ONE")
            await client.send(letter("m3"))
        assert await command(redis, "XLEN", "{streamq}:normal") == 2
    finally:
        await redis.aclose()


async def test_a_cancelled_send_leaves_no_reply_for_the_next(server_url: str, room: Mailroom) -> None:
    async with Lossy(server_url) as line, AsyncClient(line.url, connections=1) as client:
        await client.send(letter("m0"))
        line.keep_back = True
        task = asyncio.create_task(client.send(letter("m1")))
        await line.answered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        line.keep_back = False
        sent = await client.send(letter("m2"))
    assert [(f"1{entry}", fields[b"id"]) for entry, fields in await rows(room)][2] == (sent.entry, b"m2")


# -- back-pressure ------------------------------------------------------------------------------------------------


async def test_a_deep_stream_is_refused_and_looked_at_again(
    server_url: str, room: Mailroom, open_client: Opener
) -> None:
    clock = Clock()
    async with open_client(server_url, clock, max_depth=3) as client:
        for n in range(3):
            await client.send(letter(f"m{n}"))
        with pytest.raises(TooDeep, match=r"^3 mails are in normal, max_depth is 3$"):
            await client.send(letter("m3"))
        await client.send(letter("urgent", priority="high"))  # each stream has its own bound
        await room.do("XTRIM", room.keys.stream("normal"), "MAXLEN", 0)
        clock.now += 1
        await client.send(letter("m3"))
    assert await ids(room) == ["m3"]
    assert clock.pauses == []


async def test_the_depth_is_not_asked_for_each_mail(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    async with open_client(server_url, clock, max_depth=1000) as client:
        before = await calls(room, "xlen")
        for n in range(50):
            await client.send(letter(f"m{n}"))
        assert await calls(room, "xlen") - before == 1
        clock.now += 1
        await client.send(letter("m50"))
        assert await calls(room, "xlen") - before == 2


async def test_it_waits_for_room(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    loop = asyncio.get_running_loop()

    def drain() -> None:
        if len(clock.pauses) == 3:
            work = room.do("XTRIM", room.keys.stream("normal"), "MAXLEN", 0)
            asyncio.run_coroutine_threadsafe(work, loop).result()

    clock.meanwhile = drain
    async with open_client(server_url, clock, max_depth=2, wait=10, batch_mails=2) as client:
        results = await client.send_many([letter(f"m{n}") for n in range(4)])
    assert all(isinstance(result, Sent) for result in results)
    assert clock.pauses == [0.25, 0.25, 0.25]
    assert await ids(room) == ["m2", "m3"]


async def test_it_waits_so_long_and_once(server_url: str, room: Mailroom, open_client: Opener) -> None:
    clock = Clock()
    mails = [letter(f"m{n}") for n in range(6)]
    mails[5] = letter("m5", priority="high")
    async with open_client(server_url, clock, max_depth=2, wait=0.6, batch_mails=2) as client:
        results = await client.send_many(mails)
    assert [isinstance(result, Sent) for result in results] == [True, True, False, False, False, True]
    assert str(error_of(results[2])) == "2 mails are in normal after 0.6 s, max_depth is 2"
    assert str(error_of(results[4])) == f"not tried: {error_of(results[2])}"
    assert sum(clock.pauses) == pytest.approx(0.6)


# -- threads and tasks --------------------------------------------------------------------------------------------


async def test_threads_share_a_client(server_url: str, room: Mailroom) -> None:
    """More of them than connections; each is told of its own mails."""
    with Client(server_url, connections=3, max_depth=10_000) as client:
        face = Threaded(client)

        def one(thread: int) -> list[Sent]:
            return [client.send(letter(f"t{thread}-{n}")) for n in range(30)]

        singles: list[Awaitable[Sequence[Result]]] = [asyncio.to_thread(one, thread) for thread in range(8)]
        batches: list[Awaitable[Sequence[Result]]] = [
            face.send_many([letter(f"b{thread}-{n}") for n in range(700)]) for thread in range(4)
        ]
        told: list[Result] = []
        for results in await asyncio.gather(*singles, *batches):
            told += results
    stands = {f"1{entry}": fields[b"id"].decode() for entry, fields in await rows(room)}
    assert len(stands) == 8 * 30 + 4 * 700
    assert {result.entry: result.id for result in told if isinstance(result, Sent)} == stands


async def test_tasks_share_a_client(server_url: str, room: Mailroom) -> None:
    async with AsyncClient(server_url, connections=3) as client:
        told = await asyncio.gather(*(client.send(letter(f"m{n}")) for n in range(200)))
    assert {f"1{entry}": fields[b"id"].decode() for entry, fields in await rows(room)} == {
        sent.entry: sent.id for sent in told
    }


async def test_mails_that_come_by_and_by(server_url: str, room: Mailroom) -> None:
    async def source() -> AsyncIterator[Mail]:
        for n in range(7):
            yield letter(f"m{n}")

    async with AsyncClient(server_url, batch_mails=3) as client:
        assert len(await client.send_many(source())) == 7
    assert await ids(room) == [f"m{n}" for n in range(7)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_depth": 0}, r"max_depth: at least 1 \(got 0\)"),
        ({"tries": 0}, r"tries: at least 1 \(got 0\)"),
        ({"wait": float("nan")}, r"wait: at least 0 \(got nan\)"),
        ({"timeout": 0}, r"timeout: at least 0\.001 \(got 0\)"),
        ({"connections": 0}, r"connections: at least 1 \(got 0\)"),
        ({"queue": "a", "settings": load_settings()}, r"queue: the settings say it already \(got 'a'\)"),
        ({"batch_mails": 0}, r"batch_mails: at least 1 \(got 0\)"),
        ({"batch_bytes": -1}, r"batch_bytes: at least 1 \(got -1\)"),
        ({"url": "http://example.com"}, r"url: not an address \(write redis://, rediss:// or unix://\)"),
        ({"queue": "a{b}"}, "queue: "),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], says: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingsError, match=says):
            kind(**options)


async def test_what_it_sends_arrives(server_url: str, room: Mailroom, open_client: Opener) -> None:
    """An attachment, several recipients, a message of the standard library, many recipients: to each one mail."""
    logo = bytes(range(256)) * 9
    shown = Attachment(filename="logo.png", content=logo, content_type="image/png", content_id="logo")
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = "shop@example.com", "b1@example.net", "b2@example.net"
    message.set_content("Hello")
    mails = [
        letter("m1", html="<img src=cid:logo>", attachments=[shown], to=["a1@example.net", "a2@example.net"]),
        Mail.from_message(message, id="m2"),
        letter("m3", to=None, recipients=[Recipient(to=f"c{n}@example.net") for n in range(1, 4)]),
    ]
    last = b"0"
    async with delivering(server_url) as sink, open_client(server_url) as client:
        assert all(isinstance(result, Sent) for result in await client.send_many(mails))
        while await room.length() or len(sink.received) < 7:
            for _, found in await room.do("XREAD", "BLOCK", 1000, "STREAMS", room.keys.events, last) or ():
                last = found[-1][0]
        received = {mail.envelope_to[0]: mail.content for mail in sink.received}
    assert sorted(received) == [
        f"{kind}{n}@example.net" for kind, many in (("a", 2), ("b", 2), ("c", 3)) for n in range(1, many + 1)
    ]
    parsed = BytesParser(policy=policy.default).parsebytes(received["a2@example.net"])
    (image,) = (part for part in parsed.walk() if part.get_content_type() == "image/png")
    assert (image.get_content(), image.get_filename(), image["Content-ID"]) == (logo, "logo.png", "<logo>")
    assert b"b2@" not in received["b2@example.net"]
