"""The inbox's API, by real HTTP to a real port."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from inboxed import inboxing

from streamq.inbox.wanted import FILTERS
from streamq.web.inbox_api import AT_ONCE
from streamq.web.inbox_guard import Keys
from streamq.web.inbox_shown import disposition

AT = 1_764_291_600_000_000_000  # 2025-11-28T01:00:00Z
PLAIN = b"From: Shop <shop@example.com>\r\nTo: bob@example.net\r\nSubject: Order %d\r\n\r\nIt is %d.\r\n"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(10)
RICH = (
    b"Subject: Rich\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n"
    b'<!DOCTYPE html><p>gr\xfcn <img src="cid:logo%%40x"><img src="http://evil.example/pixel.png">%b\r\n'
    b"--b\r\nContent-Type: image/png\r\nContent-ID: <logo@x>\r\nContent-Disposition: inline\r\n\r\n" + PNG + b"\r\n"
    b"--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment;\r\n"
    b" filename*=utf-8''..%%2F%%E2%%80%%AEa%%0D%%0AX-Evil%%3A%%20y%%22.html\r\n\r\n"
    b"<script>alert(1)</script>\r\n--b--\r\n"
)


def rich(more: bytes = b"") -> bytes:
    return RICH % more


# -- looking ---------------------------------------------------------------------------------------------------------


async def test_a_mail_by_smtp_with_its_envelope() -> None:
    async with inboxing() as box:
        await box.send(
            PLAIN % (7, 7), "bob@example.net", "ann@example.org", mail=("RET=HDRS", "ENVID=a7"), rcpt=("NOTIFY=NEVER",)
        )
        said = await box.get("/api/mails")
        [mail] = said["mails"]
        assert (said["many"], said["unread"], said["more"], said["last"]) == (1, 1, False, mail["id"])
        assert mail["subject"] == "Order 7"
        assert mail["from"] == [{"name": "Shop", "address": "shop@example.com"}]
        assert mail["envelope_to"] == ["bob@example.net", "ann@example.org"]
        whole = await box.get(f"/api/mails/{mail['id']}")
        assert whole.items() >= mail.items()
        assert whole["text"] == "It is 7.\n"
        assert (whole["html"], whole["html_url"], whole["attachments"]) == ("", None, [])
        envelope = whole["envelope"]
        assert envelope["parameters"] == {"RET": "HDRS", "ENVID": "a7", "SIZE": str(mail["size"])}
        assert envelope["to"][0] == {"address": "bob@example.net", "parameters": {"NOTIFY": "NEVER"}}
        assert (envelope["helo"], envelope["tls"], envelope["user"]) == ("shop.example.com", False, "")
        raw = await box.client.get(f"/api/mails/{mail['id']}/raw")
        assert raw.content == PLAIN % (7, 7)
        assert raw.headers["content-type"] == "message/rfc822"
        assert f'filename="{mail["id"]}.eml"' in raw.headers["content-disposition"]
        assert (await box.client.get(f"/api/mails/{mail['id']}/text")).text == "It is 7.\n"
        assert (await box.get(f"/api/mails/{mail['id']}/html", 404))["error"] == "this mail has no html"


async def test_pages_newest_first() -> None:
    async with inboxing() as box:
        ids = [box.put(PLAIN % (n, n), at_ns=AT + n) for n in range(7)]
        first = await box.get("/api/mails", limit="3")
        assert [mail["id"] for mail in first["mails"]] == [ids[6], ids[5], ids[4]]
        assert first["more"] is True
        last = await box.get("/api/mails", limit="4", before=ids[4])
        assert [mail["id"] for mail in last["mails"]] == [ids[3], ids[2], ids[1], ids[0]]
        assert last["more"] is False
        found = await box.get("/api/mails", q="order 5")
        assert [mail["subject"] for mail in found["mails"]] == ["Order 5"]


async def test_what_is_kept_is_bounded_and_said() -> None:
    async with inboxing(most=3, most_bytes=50_000) as box:
        for n in range(5):
            await box.send(PLAIN % (n, n), "bob@example.net")
        said = await box.get("/api/mails")
        assert [mail["subject"] for mail in said["mails"]] == ["Order 4", "Order 3", "Order 2"]
        assert (said["many"], said["forgotten"], said["most"], said["most_bytes"]) == (3, 2, 3, 50_000)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/mails?form=x@y", 422, "form: no such filter: to, from, subject,"),
        ("/api/mails?limit=0", 422, "limit: from 1 to 200 (got '0')"),
        ("/api/mails?limit=x", 422, "limit: from 1 to 200 (got 'x')"),
        ("/api/mails?limit=" + "0" * 9 + "1", 422, "limit: from 1 to 200 (got '0000000001')"),
        ("/api/mails?limit=000001999999", 422, "limit: from 1 to 200 (got '000001999999')"),
        ("/api/mails?to=", 422, "to: empty (leave it out to have all)"),
        ("/api/mails/wait?to=%20", 422, "to: empty"),
        ("/api/mails?to=a@x.de&to=b@x.de", 422, "to: given twice (got 'a@x.de' and 'b@x.de')"),
        ("/api/mails?after=soon", 422, "after: a mail's id, RFC 3339"),
        ("/api/mails/wait?timeout=soon", 422, "timeout: not a duration"),
        ("/api/mails/wait?timeout=6m", 422, "timeout: at most 5m (got '6m')"),
        ("/api/mails/wait?limit=1", 422, "limit: no such filter"),
        ("/api/mails/17", 404, "no such mail: it never came, was deleted, or was too old to be kept (got '17')"),
        ("/api/mails/%0d%0ax", 404, "no such mail"),
        ("/api/mails/17/parts/0", 404, "no such mail"),
    ],
)
async def test_what_cannot_be_answered_is_said(path: str, status: int, says: str) -> None:
    async with inboxing() as box:
        assert says in (await box.get(path, status))["error"]


# -- waiting ---------------------------------------------------------------------------------------------------------


async def test_wait_gives_what_is_there_or_what_comes_next() -> None:
    async with inboxing() as box:
        old = box.put(PLAIN % (1, 1), at_ns=AT)
        box.put(PLAIN % (2, 2), to="ann@example.org", at_ns=AT + 1)
        assert (await box.get("/api/mails/wait", to="bob@example.net"))["id"] == old
        asked = asyncio.create_task(box.get("/api/mails/wait", to="bob@example.net", after=old, timeout="2m"))
        await box.inbox.until_waiting(1)
        box.put(PLAIN % (3, 3), to="ann@example.org", at_ns=AT + 2)
        await box.send(PLAIN % (4, 4), "bob@example.net")
        found = await asked
        assert (found["subject"], found["text"]) == ("Order 4", "It is 4.\n")


async def test_behind_a_mail_the_next_one_comes_first_and_without_one_the_newest() -> None:
    async with inboxing() as box:
        ids = [box.put(PLAIN % (n, n), at_ns=AT + n) for n in range(4)]
        assert (await box.get("/api/mails/wait", after=ids[0]))["id"] == ids[1]
        assert (await box.get("/api/mails/wait"))["id"] == ids[3]
        assert (await box.get("/api/mails/wait", after="2025-11-28T00:59:59Z"))["id"] == ids[0]


async def test_many_who_wait_get_a_mail_each() -> None:
    async with inboxing() as box:
        names = [f"user{n}@example.net" for n in range(20)]
        asked = [asyncio.create_task(box.get("/api/mails/wait", to=name, timeout="2m")) for name in names]
        await box.inbox.until_waiting(20)
        for n, name in enumerate(names):
            await box.send(PLAIN % (n, n), name)
        found = await asyncio.gather(*asked)
        assert [mail["subject"] for mail in found] == [f"Order {n}" for n in range(20)]


async def test_nothing_in_time_says_what_was_wanted_and_what_came() -> None:
    async with inboxing() as box:
        box.put(PLAIN % (1, 1), at_ns=AT)
        for timeout, when in (("0", "within 0 s"), ("10ms", "within 0.01 s")):
            said = await box.get("/api/mails/wait", 404, to="eve@example.net", subject="Code", timeout=timeout)
            assert said["error"] == f"no such mail {when} (to=eve@example.net, subject=Code)"
            assert said["wanted"] == {"to": "eve@example.net", "subject": "Code"}
            assert [mail["subject"] for mail in said["latest"]] == ["Order 1"]
            assert said["many"] == 1


async def test_the_first_look_is_a_part_of_the_timeout() -> None:
    async with asyncio.timeout(60), inboxing() as box:
        box.put(PLAIN % (1, 1), at_ns=AT)
        for _ in range(AT_ONCE):  # others look through thousands of texts
            await box.desk.busy.acquire()
        said = await box.get("/api/mails/wait", 404, to="bob@example.net", timeout="10ms")
        assert said["error"] == "no such mail within 0.01 s (to=bob@example.net)"
        for _ in range(AT_ONCE):
            box.desk.busy.release()
        assert (await box.get("/api/mails/wait", to="bob@example.net", timeout="0"))["subject"] == "Order 1"


async def test_who_waits_is_told_of_the_end_and_who_has_gone_is_forgotten() -> None:
    async with inboxing() as box:
        asked = asyncio.create_task(box.get("/api/mails/wait", timeout="2m"))
        await box.inbox.until_waiting(1)
        asked.cancel()  # which closes its connection
        await box.inbox.until_waiting(0)
        asked = asyncio.create_task(box.get("/api/mails/wait", 503, timeout="2m"))
        await box.inbox.until_waiting(1)
        box.desk.stopping.set()
        assert (await asked)["error"] == "the inbox ends"


async def test_a_stream_says_what_changes() -> None:
    async with inboxing() as box, box.client.stream("GET", "/api/mails/stream") as stream:
        lines = stream.aiter_lines()

        async def event() -> Any:
            while not (line := await anext(lines)).startswith("data: "):
                pass
            return json.loads(line[6:])

        assert (await event())["many"] == 0
        id_ = box.put(PLAIN % (1, 1), at_ns=AT)
        said = await event()
        assert (said["many"], said["unread"], said["last"]) == (1, 1, id_)
        await box.client.post(f"/api/mails/{id_}", json={"unread": False})
        assert (await event())["unread"] == 0
        await box.client.delete(f"/api/mails/{id_}")
        assert (await event())["many"] == 0


# -- changing --------------------------------------------------------------------------------------------------------


async def test_read_and_deleted() -> None:
    async with inboxing() as box:
        ids = [box.put(PLAIN % (n, n), to=f"u{n % 2}@example.net", at_ns=AT + n) for n in range(6)]
        said = (await box.client.post(f"/api/mails/{ids[0]}", json={"unread": False})).json()
        assert said["unread"] == 5
        assert [mail["id"] for mail in (await box.get("/api/mails", unread="false"))["mails"]] == [ids[0]]
        assert (await box.client.post("/api/mails?to=u1@example.net", json={"unread": False})).json()["marked"] == 3
        assert (await box.get("/api/mails"))["unread"] == 2
        assert (await box.client.delete(f"/api/mails/{ids[5]}")).json()["deleted"] == 1
        assert (await box.client.delete(f"/api/mails/{ids[5]}")).status_code == 404
        assert (await box.client.delete("/api/mails", params={"to": "u1@example.net"})).json()["deleted"] == 2
        assert (await box.client.delete("/api/mails?tu=x")).status_code == 422  # and nothing is gone
        assert [mail["id"] for mail in (await box.get("/api/mails"))["mails"]] == [ids[4], ids[2], ids[0]]
        assert (await box.client.delete("/api/mails")).json().items() >= {"deleted": 3, "many": 0, "bytes": 0}.items()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"unread": "perhaps"}', b'{"unread": true, "x": 1}', b"x" * 2000])
async def test_a_mark_that_is_none_is_refused(body: bytes) -> None:
    async with inboxing() as box:
        id_ = box.put(PLAIN % (1, 1), at_ns=AT)
        said = await box.client.post(f"/api/mails/{id_}", content=body, headers={"content-type": "application/json"})
        assert said.status_code == 422
        assert (await box.get("/api/mails"))["unread"] == 1


async def test_files_that_cannot_be_deleted_are_said(tmp_path: Path) -> None:
    async with inboxing(maildir=tmp_path) as box:
        for n in range(3):
            await box.send(b"Subject: %d\r\n\r\n" % n, "bob@example.net")
        stuck = next(kept.file for kept in box.inbox if kept.file is not None)
        stuck.unlink()
        stuck.mkdir()  # what no unlink takes
        said = (await box.client.delete("/api/mails")).json()
        assert (said["deleted"], said["failed"], said["many"]) == (2, 1, 0)
        assert said["why"][0].startswith(f"{stuck.name}: ")
        assert list((tmp_path / "new").iterdir()) == [stuck]


async def test_a_maildirs_mails_are_there_and_go_with_their_files(tmp_path: Path) -> None:
    async with inboxing(maildir=tmp_path) as box:
        await box.send(PLAIN % (1, 1), "bob@example.net")
        [mail] = (await box.get("/api/mails"))["mails"]
        assert (await box.get(f"/api/mails/{mail['id']}"))["text"] == "It is 1.\n"
    async with inboxing(maildir=tmp_path) as box:
        box.inbox.load(tmp_path)
        found = await box.get("/api/mails/wait", to="bob@example.net", timeout="0")  # by its To: nobody knows more
        assert (found["subject"], found["envelope"], found["envelope_from"]) == ("Order 1", None, None)
        await box.client.delete(f"/api/mails/{found['id']}")
        assert list((tmp_path / "new").iterdir()) == []


# -- hostile mail ----------------------------------------------------------------------------------------------------


def policy(said: httpx.Response) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in said.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in parts}


async def test_html_has_no_rights_and_its_own_images() -> None:
    async with inboxing() as box:
        id_ = box.put(rich(b"<script>alert(1)</script>"), at_ns=AT)
        mail = await box.get(f"/api/mails/{id_}")
        said = await box.client.get(mail["html_url"])
        assert said.headers["content-type"] == "text/html; charset=utf-8"
        assert '<!DOCTYPE html><base target="_blank"><p>grün ' in said.text
        found = policy(said)
        assert found["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
        assert found["default-src"] == found["form-action"] == found["base-uri"] == "'none'"
        assert found["img-src"] == "'self' data:"
        assert "script-src" not in found
        assert policy(await box.client.get(f"{mail['html_url']}&images=1"))["img-src"] == "'self' data: http: https:"
        image = mail["attachments"][0]
        assert f'<img src="{image["url"]}">' in said.text
        frame = {"sec-fetch-site": "cross-site"}  # what a frame without an origin is to its own server
        shown = await box.client.get(image["url"], headers=frame)
        assert (shown.content, shown.headers["content-type"]) == (PNG, "image/png")
        assert shown.headers["cross-origin-resource-policy"] == "cross-origin"
        for url in (image["url"].partition("?")[0], image["url"][:-1], f"/api/mails/{id_}", "/api/mails"):
            assert (await box.client.get(url, headers=frame)).status_code == 403, url


async def test_a_part_never_runs_and_never_breaks_the_header() -> None:
    async with inboxing() as box:
        id_ = box.put(rich(), at_ns=AT)
        [_, part] = (await box.get(f"/api/mails/{id_}"))["attachments"]
        assert part["content_type"] == "text/html"
        said = await box.client.get(f"/api/mails/{id_}/parts/1")
        assert said.content == b"<script>alert(1)</script>"
        assert said.headers["content-type"] == "application/octet-stream"
        assert said.headers["x-content-type-options"] == "nosniff"
        assert policy(said) == {"sandbox": "", "default-src": "'none'", "frame-ancestors": "'none'"}
        assert said.headers["content-disposition"].startswith('attachment; filename="_')
        assert "x-evil" not in said.headers
        assert (await box.client.get(f"/api/mails/{id_}/parts/2")).status_code == 404


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("order.pdf", "attachment; filename=\"order.pdf\"; filename*=UTF-8''order.pdf"),
        ("grün.pdf", "attachment; filename=\"gr_n.pdf\"; filename*=UTF-8''gr%C3%BCn.pdf"),
        ('a"b\\c/d;e', "attachment; filename=\"a_b_c_d_e\"; filename*=UTF-8''a%22b_c_d%3Be"),
        ("a\r\nX: y", "attachment; filename=\"a__X_ y\"; filename*=UTF-8''a__X%3A%20y"),
        ("\u202efdp.exe", "attachment; filename=\"_fdp.exe\"; filename*=UTF-8''_fdp.exe"),
        ("../../etc/passwd", "attachment; filename=\"_.._etc_passwd\"; filename*=UTF-8''_.._etc_passwd"),
        ("", "attachment; filename=\"part-3\"; filename*=UTF-8''part-3"),
        (" . ", "attachment; filename=\"part-3\"; filename*=UTF-8''part-3"),
        ("\ud800", "attachment; filename=\"_\"; filename*=UTF-8''%3F"),
    ],
)
def test_names_of_downloads(filename: str, header: str) -> None:
    assert disposition(filename, "part-3") == header
    header.encode("latin-1")
    assert len(disposition(filename * 1000, "part-3")) < 3000


async def test_a_mail_that_cannot_be_read_whole_is_shown_all_the_same() -> None:
    async with inboxing() as box:
        id_ = box.put(b"Subject: many\r\n\r\n" + b"\n--b" * 10_001, at_ns=AT)
        mail = await box.get(f"/api/mails/{id_}")
        assert (mail["subject"], mail["note"]) == ("many", "not read: it has more than 10,000 parts")
        assert (await box.client.get(f"/api/mails/{id_}/source?most=20")).text == "Subject: many\r\n\r\n\n--"


async def test_what_is_answered_stands_in_the_docs() -> None:
    words = (Path(__file__).parents[2] / "docs" / "inbox.md").read_text("utf-8")
    async with inboxing() as box:
        id_ = box.put(rich(), at_ns=AT)
        mail = await box.get(f"/api/mails/{id_}")
        names = {
            *(await box.get("/api/mails")),
            *mail,
            *mail["attachments"][0],
            *mail["envelope"],
            *mail["envelope"]["to"][0],
        }
        names |= {*FILTERS, *(await box.get("/api/mails/wait", 404, to="x", timeout="0"))}
    assert {name for name in names if not re.search(rf"\b{name}\b", words)} == set()


# -- who may ask -----------------------------------------------------------------------------------------------------


async def test_a_foreign_name_reads_nothing_and_a_foreign_page_changes_nothing() -> None:
    async with inboxing() as box:
        id_ = box.put(PLAIN % (1, 1), at_ns=AT)
        key = box.desk.keys.of(id_)
        evil = {"host": "evil.example"}
        for path in ("/inbox", "/api/mails", f"/api/mails/{id_}/raw?key={key}"):
            assert (await box.client.get(path, headers=evil)).status_code == 421
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            evil,
        ):
            for method in ("DELETE", "POST"):
                for path in ("/api/mails", f"/api/mails/{id_}", f"/api/mails/{id_}?key={key}"):
                    known = headers | {"content-type": "application/json"}
                    said = await box.client.request(method, path, headers=known, content=b'{"unread": false}')
                    assert said.status_code in {403, 421}
        form = {"content-type": "application/x-www-form-urlencoded"}
        for headers in (form, {"content-type": "text/plain"}, {}):
            said = await box.client.post("/api/mails", headers=headers, content=b'{"unread": false}')
            assert said.status_code == 415
        assert (await box.get("/api/mails")).items() >= {"many": 1, "unread": 1}.items()
        assert (await box.client.delete("/api/mails", headers={"origin": box.url})).json()["deleted"] == 1


async def test_from_afar_it_takes_the_token_or_the_mails_key() -> None:
    token = "a-token-of-24-characters"
    known = {"authorization": f"Bearer {token}"}
    async with inboxing(token=token, hosts=None) as box:
        id_ = box.put(rich(), at_ns=AT)
        assert (await box.client.get("/inbox")).status_code == 200
        for path in ("/api/mails", f"/api/mails/{id_}", f"/api/mails/{id_}/raw", f"/api/mails/{id_}/html?key=x"):
            assert (await box.client.get(path)).status_code == 401, path
            assert (await box.client.get(path, headers=known)).status_code == 200, path
        mail = (await box.client.get(f"/api/mails/{id_}", headers=known)).json()
        for url in (mail["html_url"], mail["raw_url"], mail["attachments"][0]["url"]):
            assert (await box.client.get(url)).status_code == 200
        assert (await box.client.delete(f"/api/mails/{id_}?key={box.desk.keys.of(id_)}")).status_code == 401
        assert (await box.client.delete(f"/api/mails/{id_}", headers=known)).status_code == 200


def test_a_key_opens_one_mail() -> None:
    keys = Keys()
    query = f"images=1&key={keys.of('17')}".encode()
    assert keys.fit("/api/mails/17/html", query)
    assert not keys.fit("/api/mails/18/html", query)
    assert not keys.fit("/api/mails", query)
    assert not keys.fit("/api/mails/17/html", b"key=")
    assert not keys.fit("/api/mails/17/html", b"key=\xff")
    assert not Keys().fit("/api/mails/17/html", query)


async def test_every_answer_is_safe_to_show() -> None:
    async with inboxing() as box:
        id_ = box.put(rich(), at_ns=AT)
        for path in ("/inbox", "/", "/api/mails", f"/api/mails/{id_}", f"/api/mails/{id_}/html", "/nowhere"):
            said = await box.client.get(path)
            assert said.headers["x-content-type-options"] == "nosniff"
            assert said.headers["cache-control"] == "no-store"
            assert said.headers["referrer-policy"] == "no-referrer"
            assert policy(said)["default-src"] == "'none'"
            assert "access-control-allow-origin" not in said.headers
        assert policy(await box.client.get("/inbox"))["frame-src"] == "'self'"
