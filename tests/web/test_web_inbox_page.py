"""The inbox in a real browser: list, mail, frame, files, live, by keyboard; and what hostile mail cannot do there."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from chromium import BROWSER, WHY_NOT, Page, browsing
from inboxed import Inboxed, inboxing
from readable import CONTRAST, WIDE, fits_phones

pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY_NOT)

AT = 1_764_291_600_000_000_000
PNG = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one pixel
EVIL = "\u202egnp.<b>x</b>\x1b[31m"


def plain(number: int, to: str = "bob@example.net", text: str = "It leaves today.") -> bytes:
    return f"From: Shop <shop@example.com>\r\nTo: {to}\r\nSubject: Order {number}\r\n\r\n{text}\r\n".encode()


def html(markup: bytes) -> bytes:
    return (
        b"From: Shop <shop@example.com>\r\nSubject: Html\r\nContent-Type: multipart/related; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + markup + b"\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <logo@x>\r\n\r\n"
        + PNG
        + b"\r\n--b\r\nContent-Type: application/pdf; name=order.pdf\r\nContent-Disposition: attachment\r\n\r\n"
        b"%PDF-1.7\r\n--b--\r\n"
    )


class Open:
    def __init__(self, box: Inboxed, browser: Any, folder: Path) -> None:
        self.box = box
        self.browser = browser
        self.folder = folder

    async def page(self, hash_: str = "", **how: Any) -> Page:
        page: Page = await self.browser.page(f"{self.box.url}/inbox{hash_}", **how)
        await page.until("return document.querySelector('#link').dataset.up === 'yes'")
        return page

    async def opened(self, content: bytes, **how: Any) -> Page:
        id_ = self.box.put(content, at_ns=AT)
        page = await self.page(f"#{id_}", **how)
        await page.until("return document.querySelector('#panel')")
        return page


@pytest.fixture
async def shown() -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sq-", ignore_cleanup_errors=True)))
        box = await stack.enter_async_context(inboxing(most=20_000, most_bytes=10**9))
        browser = await stack.enter_async_context(browsing(folder))
        yield Open(box, browser, folder)


async def subjects(page: Page, many: int) -> list[str]:
    await page.until(f"return document.querySelectorAll('#list li').length === {many}")
    found: list[str] = await page.run("[...document.querySelectorAll('#list .what')].map((e) => e.innerText)")
    return found


# -- the list --------------------------------------------------------------------------------------------------------


async def test_the_list_says_what_there_is(shown: Open) -> None:
    for n in range(3):
        shown.box.put(plain(n), to=f"u{n}@example.net", at_ns=AT + n * 10**9)
    page = await shown.page()
    assert await subjects(page, 3) == ["Order 2", "Order 1", "Order 0"]
    text = (await page.text("#list li")).split("\n")
    assert [each for each in text if each] == [
        "Shop",
        "2025-11-28 01:00:02",
        "Order 2",
        "unread",
        "to u2@example.net",
        f"{len(plain(2))} B",
    ]
    note = await page.text("#box-note")
    assert note.startswith(f"3 mails, 3 unread, {3 * len(plain(0))} B. ")  # as the rows' sizes together
    assert note.endswith("It keeps the last 20,000, in 1.0 GB of memory at most.")
    assert await page.run("document.title") == "(3) inbox – streamq"
    assert {url.split("/")[2] for url in page.asked} == {shown.box.url.split("/")[2]}
    assert page.complaints == []


async def test_a_mail_that_comes_is_there_at_once_and_said(shown: Open) -> None:
    page = await shown.page()
    await page.until("return document.querySelector('#empty').innerText === 'No mail has come yet.'")
    await shown.box.send(plain(7), "bob@example.net")
    assert await subjects(page, 1) == ["Order 7"]
    assert await page.until("return document.querySelector('#said').innerText") == "New: Order 7"
    assert page.complaints == []


async def test_ten_thousand_mails_are_pages(shown: Open) -> None:
    for n in range(10_000):
        shown.box.put(plain(n), at_ns=AT + n)
    page = await shown.page()
    assert (await subjects(page, 50))[0] == "Order 9999"
    assert (await page.text("#box-note")).startswith("10,000 mails")
    assert await page.run("document.querySelectorAll('*').length") < 1000
    await page.click("#older")
    await page.until("return document.querySelector('#list .what').innerText === 'Order 9949'")
    assert await page.run("document.querySelectorAll('*').length") < 1000
    await page.click("#newer")
    await page.until("return document.querySelector('#list .what').innerText === 'Order 9999'")


async def test_search_looks_into_the_text(shown: Open) -> None:
    shown.box.put(plain(1, text="A blue coat"), at_ns=AT)
    shown.box.put(plain(2, text="A red coat"), at_ns=AT + 1)
    page = await shown.page()
    await subjects(page, 2)
    await page.run("document.querySelector('#search-q').focus()")
    await page.write("BLUE shop@")
    await page.key("Enter")
    assert await subjects(page, 1) == ["Order 1"]
    await page.run("document.querySelector('#search-q').select()")
    await page.write("green")
    await page.key("Enter")
    await page.until("return document.querySelector('#empty').innerText === 'No mail has all of: green'")


# -- a mail ----------------------------------------------------------------------------------------------------------


async def test_a_mail_is_opened_and_is_read_then(shown: Open) -> None:
    await shown.box.send(plain(1), "bob@example.net", mail=("ENVID=a7",), rcpt=("NOTIFY=NEVER",))
    page = await shown.page()
    await subjects(page, 1)
    await page.click("#list a")
    assert await page.until("return document.querySelector('#panel pre')?.innerText") == "It leaves today.\n"
    assert await page.text("#mail-title") == "Order 1"
    await page.until("return document.title === 'inbox – streamq'")  # nothing is unread
    assert shown.box.inbox.unread == 0
    names = await page.run("[...document.querySelectorAll('[role=tab]')].map((e) => e.innerText)")
    assert names == ["text", "headers", "source", "envelope"]
    await page.click("#tab-headers")
    assert "Subject\nOrder 1" in await page.text("#panel")
    await page.click("#tab-source")
    await page.until("return document.querySelector('#panel pre').innerText.includes('Subject: Order 1')")
    await page.click("#tab-envelope")
    said = await page.text("#panel")
    for each in ("<shop@example.com> SIZE=", "ENVID=a7", "<bob@example.net> NOTIFY=NEVER", "shop.example.com"):
        assert each in said
    assert await page.run("[...document.querySelectorAll('#mail button')].some((e) => e.innerText === 'Mark unread')")
    assert page.complaints == []


class Trap:
    """A server that should not be asked."""

    def __init__(self) -> None:
        self.connected = 0
        self.asked: list[str] = []
        self._news = asyncio.Event()

    async def heard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        with suppress(ConnectionError):
            line = (await reader.readline()).decode()
            if line:
                self.asked.append(line.split(" ")[1])
                self._news.set()
            writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def until(self, path: str) -> None:
        while path not in self.asked:
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def trap() -> AsyncIterator[tuple[str, Trap]]:
    found = Trap()
    server = await asyncio.start_server(found.heard, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", found
    finally:
        server.close()
        await server.wait_closed()


HOSTILE = """<!DOCTYPE html><html><head><base href="TRAP/base/">
<meta http-equiv="refresh" content="0;url=TRAP/refresh"><link rel="stylesheet" href="TRAP/style.css">
<style>@import url(TRAP/import.css); body { background: url(TRAP/back.png) }
@font-face { font-family: f; src: url(TRAP/font.woff) } p { font-family: f }</style>
<script>parent.document.title = 'pwned'; top.location = 'TRAP/top'; fetch('TRAP/fetch')</script></head>
<body onload="document.title = 'pwned'"><p>Dear Bob</p>
<img id="remote" src="TRAP/pixel.png" onerror="parent.postMessage('pwned', '*')"><img id="own" src="cid:logo@x">
<iframe src="TRAP/frame"></iframe><object data="TRAP/object"></object><embed src="TRAP/embed">
<form action="TRAP/form" id="f"><input name="x" autofocus onfocus="document.forms[0].submit()"></form>
<svg onload="document.title = 'pwned'"><script>document.title = 'pwned'</script><image href="TRAP/svg.png"/></svg>
<video src="TRAP/video" autoplay></video><link rel="prefetch" href="TRAP/prefetch">
<link rel="preconnect" href="TRAP"><link rel="dns-prefetch" href="TRAP"></body></html>"""


# Once all have come or failed: {id: whether it came}
IMAGES = """document.readyState === "complete" && location.search.endsWith("%s") && document.images.length === 2
  && [...document.images].every((e) => e.complete)
  && Object.fromEntries([...document.images].map((e) => [e.id, e.naturalWidth > 0]))"""


async def test_images_from_elsewhere_have_their_button(shown: Open) -> None:
    for markup, there in (
        (b"<img src=//elsewhere.example/a.png>", True),
        (b'<p style="background: url(//elsewhere.example/a.png)">', True),
        (b"<img src='https://elsewhere.example/a.png'>", True),
        (b'<img src="cid:logo@x"><a href="//elsewhere.example/">see</a>', False),
    ):
        page = await shown.opened(html(markup))
        assert await page.run("document.querySelector('#images') !== null") is there, markup


async def test_html_is_shown_and_nothing_of_it_runs_or_asks_elsewhere(shown: Open) -> None:
    async with trap() as (place, elsewhere):
        page = await shown.opened(html(HOSTILE.replace("TRAP", place).encode()))
        assert await page.run("document.querySelector('iframe').contentDocument") is None  # nobody's origin
        frame = await page.frame()
        assert await page.until_frame(IMAGES % "") == {
            "own": True,
            "remote": False,
        }  # by cid:, and from elsewhere
        assert (await frame.text("p"), await frame.run("origin")) == ("Dear Bob", "null")
        assert (elsewhere.connected, elsewhere.asked) == (0, [])
        await page.click("#images")
        assert await page.until_frame(IMAGES % "images=1") == {
            "own": True,
            "remote": False,
        }  # that server has none
        await elsewhere.until("/pixel.png")
        assert set(elsewhere.asked) <= {"/pixel.png", "/back.png", "/svg.png"}
        await page.until("return document.title === 'inbox – streamq'")
        assert await page.run("location.pathname") == "/inbox"


async def test_a_link_of_a_mail_opens_a_tab_of_its_own(shown: Open) -> None:
    async with trap() as (place, elsewhere):
        page = await shown.opened(html(f'<a id="a" href="{place}/confirm?code=7">confirm</a>'.encode()))
        corner = (
            "(() => { const r = document.querySelector('%s')?.getBoundingClientRect(); return r && [r.x, r.y]; })()"
        )
        at, inside, before = [0, 0], [0, 0], None
        while before != (at, inside):  # the page grows while the mail is drawn
            before = (at, inside)
            await page.drawn()
            await page.drawn()
            at, inside = await page.until_frame(corner % "#a"), await page.run(corner % "iframe")
        for kind in ("mousePressed", "mouseReleased"):
            known = {"x": at[0] + inside[0] + 5, "y": at[1] + inside[1] + 5, "button": "left", "clickCount": 1}
            await page.call("Input.dispatchMouseEvent", type=kind, **known)
        await elsewhere.until("/confirm?code=7")
        assert await page.run("location.pathname") == "/inbox"


async def test_names_that_turn_around_or_hold_markup_are_text(shown: Open) -> None:
    head = f'From: "{EVIL}" <a@x>\r\nSubject: {EVIL} <img src=x onerror="document.title=\'pwned\'">\r\n'
    part = f'Content-Disposition: attachment; filename="{EVIL}"\r\n\r\nx\r\n--b--\r\n'
    page = await shown.opened(
        (head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n" + part).encode()
    )
    assert await page.text("#mail-title") == "�gnp.<b>x</b>�[31m <img src=x onerror=\"document.title='pwned'\">"
    assert "�gnp.<b>x</b>�[31m" in await page.text("#files")
    await subjects(page, 1)
    assert await page.text("#list .who") == "�gnp.<b>x</b>�[31m"
    assert await page.run("document.querySelectorAll('#mail b, #mail img, #list b').length") == 0
    assert "pwned" not in await page.run("document.title")
    assert page.complaints == []


async def test_an_attachment_is_a_file_with_its_name(shown: Open) -> None:
    page = await shown.opened(html(b"<p>see it"))
    names = await page.run("[...document.querySelectorAll('#files a')].map((e) => e.innerText)")
    assert names == ["part 0", "order.pdf"]
    links = "[...document.querySelectorAll('#files a')].map((e) => e.href)"
    said = await page.run(
        f"Promise.all({links}.map(async (u) => {{ const a = await fetch(u); return [a.headers.get('content-type'), "
        "a.headers.get('content-disposition'), await a.text()]; }))"
    )
    assert [each[0] for each in said] == ["image/png", "application/octet-stream"]
    assert said[1][1:] == ["attachment; filename=\"order.pdf\"; filename*=UTF-8''order.pdf", "%PDF-1.7"]


# -- acts ------------------------------------------------------------------------------------------------------------


async def test_one_is_deleted_and_then_all(shown: Open) -> None:
    for n in range(3):
        shown.box.put(plain(n), at_ns=AT + n)
    page = await shown.page()
    await subjects(page, 3)
    await page.click("#list a")
    await page.until("return document.querySelector('#panel')")
    await page.click("#delete")
    assert await subjects(page, 2) == ["Order 1", "Order 0"]
    assert await page.run("document.querySelector('#mail').hidden && location.hash === ''")
    await page.click("#delete-all")
    await page.until("return document.querySelector('#dialog').open")
    assert await page.text("#dialog-title") == "Delete 2 mails"
    await page.click("#dialog-yes")
    assert await subjects(page, 0) == []
    assert len(shown.box.inbox) == 0
    assert page.complaints == []


async def test_what_has_gone_is_said(shown: Open) -> None:
    page = await shown.page("#17")
    said = await page.until("return document.querySelector('#mail-error')?.innerText")
    assert said.startswith("no such mail")


async def test_from_afar_the_page_asks_for_the_token(shown: Open) -> None:
    token = "a-token-of-24-characters"
    async with inboxing(token=token, hosts=None) as box:
        box.put(html(b'<p>Dear Bob <img id="own" src="cid:logo@x">'), at_ns=AT)
        page: Page = await shown.browser.page(f"{box.url}/inbox")
        await page.until("return document.querySelector('#dialog').open")
        await page.run("document.querySelector('#field-token').focus()")
        await page.write(token)
        await page.key("Enter")
        assert await subjects(page, 1) == ["Html"]
        await page.until("return !document.querySelector('#dialog').open")  # it lies over them until then
        await page.click("#list a")
        await page.until("return document.querySelector('iframe')")
        # The frame brings no token: its address, and that of its picture, has the key.
        own = "document.images.length && document.images[0].complete && document.images[0].naturalWidth"
        assert await page.until_frame(own) == 1
        links = "[...document.querySelectorAll('#files a, #raw')].map((e) => fetch(e.href).then((a) => a.status))"
        assert await page.run(f"Promise.all({links})") == [200, 200, 200]


# -- for everybody ---------------------------------------------------------------------------------------------------


async def test_by_keyboard(shown: Open) -> None:
    for n in range(3):
        shown.box.put(plain(n), at_ns=AT + n)
    page = await shown.page()
    await subjects(page, 3)
    await page.run("document.querySelector('#list a').focus()")
    await page.key("ArrowDown")
    assert await page.run("document.activeElement.querySelector('.what').innerText") == "Order 1"
    await page.key("Delete")
    assert await subjects(page, 2) == ["Order 2", "Order 0"]
    await page.until("return document.activeElement.querySelector('.what')?.innerText === 'Order 0'")
    await page.key("Enter")
    await page.until("return document.activeElement.id === 'mail-title' && document.querySelector('#panel')")
    await page.until("return document.title === '(1) inbox – streamq'")  # it is read: nothing comes behind that
    opened = [url for url in page.asked if url.rsplit("/", 1)[1].isdecimal()]
    assert len(opened) == 3  # deleted the one; looked at the other and marked it, once
    await page.run("document.querySelector('#tab-text').focus()")
    await page.key("ArrowRight")
    assert await page.run("document.activeElement.id") == "tab-headers"
    assert "Subject\nOrder 0" in await page.text("#panel")
    assert page.complaints == []


async def test_who_has_the_focus_on_a_mail_keeps_it_while_others_come(shown: Open) -> None:
    shown.box.put(plain(1), at_ns=AT)
    page = await shown.page()
    await subjects(page, 1)
    await page.run("document.querySelector('#list a').focus()")
    shown.box.put(plain(2), at_ns=AT + 1)
    await subjects(page, 2)
    assert await page.run("document.activeElement.querySelector('.what').innerText") == "Order 1"


async def test_a_screen_reader_is_told(shown: Open) -> None:
    page = await shown.opened(html(b'<p>Dear Bob <img src="http://127.0.0.1:9/x.png">'))
    tree = await page.tree()
    assert [name for role, name in tree if role in {"button", "searchbox", "link", "tab"} and not name] == []
    for role, name in (
        ("heading", "Html"),
        ("searchbox", "Words in addresses, subject or text"),
        ("tab", "html"),
        ("tabpanel", "html"),
        ("list", "Attachments"),
        ("button", "Load images from elsewhere"),
        ("Iframe", "The mail's html"),
        ("link", "Download .eml"),
    ):
        assert (role, name) in tree, (role, name, tree)


@pytest.mark.parametrize("dark", [False, True])
async def test_text_can_be_read_on_its_ground(shown: Open, dark: bool) -> None:
    shown.box.put(plain(1), at_ns=AT + 1)
    page = await shown.opened(html(b"<p>Dear Bob"), dark=dark)
    assert await page.run(CONTRAST) == []


async def test_on_a_phone_it_is_the_list_or_the_mail(shown: Open) -> None:
    shown.box.put(
        b"Subject: " + b"x" * 2000 + b"\r\nFrom: " + b"y" * 300 + b"@example.com\r\n\r\n" + b"z" * 500, at_ns=AT
    )
    page = await shown.page(width=390, height=800)
    await subjects(page, 1)
    assert await page.run(WIDE) == []
    await page.click("#list a")
    await page.until("return document.querySelector('#panel pre')")
    assert await page.run("document.querySelector('#box').offsetParent") is None
    await fits_phones(page)
    assert await page.run("document.querySelector('#delete').getBoundingClientRect().bottom") < 600  # whatever is long
    assert "x" * 500 not in await page.text("#mail")
    await page.click("#mail-body .pairs summary")
    await page.until("return document.querySelector('#mail-body .pairs details').open")
    assert "x" * 500 in await page.text("#mail")
    await page.click("#back")
    await page.until("return document.querySelector('#box').offsetParent")
    assert await page.run("document.querySelector('#mail').offsetParent") is None
