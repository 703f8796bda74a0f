"""Both clients on real servers: what stands in the streams afterwards, what is refused, and what arrives."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from cli.delivery import delivering
from conftest import MakeSpool
from lossy import Lossy
from mailroom import Mailroom
from server.processes import ended

from client.faces import Opener, calls, error_of, ids, letter, rows
from streamq import (
    AsyncClient,
    Attachment,
    Client,
    Mail,
    MailError,
    NotSent,
    OutOfMemory,
    Recipient,
    Refused,
    Sent,
    SettingsError,
    Unreachable,
)
from streamq.settings import load_settings
from streamq.sink.certificate import self_signed

pytestmark = pytest.mark.leaves_mail


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


async def test_a_queue_that_nobody_has_opened_yet(server_url: str, make_spool: MakeSpool, open_client: Opener) -> None:
    """It goes by the settings; once there is a worker, by what that one said."""
    async with open_client(server_url, queue="new") as client:
        assert (await client.send(letter("m1"))).entry.startswith("1")
        room = Mailroom(await make_spool(queue="new", priorities="low,high,normal"))
        assert (await client.send(letter("m2"))).entry.startswith("2")
        before = await calls(room, "hget")
        await client.send(letter("m3"))
        assert await calls(room, "hget") == before
    assert await ids(room) == ["m1", "m2", "m3"]


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


# -- what is refused ---------------------------------------------------------------------------------------------


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
    assert b"b2@example.net" not in received["b2@example.net"]
