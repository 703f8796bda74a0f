"""A real browser, Debian's Chromium without a window, by its DevTools protocol over a pipe: nothing else is installed.

https://chromedevtools.github.io/devtools-protocol/; `--remote-debugging-pipe`: JSON, each ended by a NUL, read from
descriptor 3 and written to 4.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["BROWSER", "WHY_NOT", "Browser", "Page", "browsing"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WHY_NOT = "there is no chromium on PATH (apt-get install chromium)"
HIGH = 20  # descriptors that are neither 3 nor 4
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--font-render-hinting=none", "--lang=en"),
    *(
        "--remote-debugging-pipe",
        "--no-default-browser-check",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ),
)
UNTIL = """new Promise((resolve) => {
  const seen = () => { try { return (() => { %s })(); } catch { return undefined; } };
  const look = () => {
    const found = seen();
    if (found) { watch.disconnect(); resolve(found); }
  };
  const watch = new MutationObserver(look);
  watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  look();
})"""
CENTRE = """(() => {
  const e = document.querySelector(%s);
  e.scrollIntoView({block: "center"});
  const r = e.getBoundingClientRect();
  return [r.x + r.width / 2, r.y + r.height / 2];
})()"""


class Browser:
    def __init__(self, send: int, reader: asyncio.StreamReader) -> None:
        self._send = send
        self._reader = reader
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.heard: dict[str, list[dict[str, Any]]] = {}  # session → events

    async def listen(self) -> None:
        while True:
            said = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if "id" in said:
                waiting = self._waiting.pop(said["id"])
                if "error" in said:
                    waiting.set_exception(RuntimeError(said["error"]["message"]))
                else:
                    waiting.set_result(said["result"])
            else:
                self.heard.setdefault(said.get("sessionId", ""), []).append(said)

    async def call(self, method: str, session: str = "", **params: Any) -> Any:
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        waiting = self._waiting[self._next] = asyncio.get_running_loop().create_future()
        os.write(self._send, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        return await waiting

    async def context(self) -> str:
        """A browser of its own: no storage, lock or connection is shared with another one's pages."""
        return str((await self.call("Target.createBrowserContext"))["browserContextId"])

    async def page(
        self, url: str, *, width: int = 1280, height: int = 1000, dark: bool = False, context: str = ""
    ) -> Page:
        context = context or await self.context()
        target = (await self.call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            await page.call(f"{domain}.enable")
        await page.size(width, height)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await page.call("Emulation.setEmulatedMedia", features=scheme)
        await page.call("Page.navigate", url=url)
        return page


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session

    async def call(self, method: str, **params: Any) -> Any:
        return await self.browser.call(method, self.session, **params)

    async def frame(self) -> Page:
        """The one frame in it, where that is a process of its own (as those without an origin are)."""
        await self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        while True:
            there: list[str] = []
            for said in self.browser.heard.get(self.session, []):
                if said["method"] == "Target.attachedToTarget":
                    there.append(said["params"]["sessionId"])
                elif said["method"] == "Target.detachedFromTarget" and said["params"]["sessionId"] in there:
                    there.remove(said["params"]["sessionId"])
            if there:
                return Page(self.browser, there[-1])
            await self.drawn()

    async def drawn(self) -> None:
        """Waits for the next time that the page is drawn."""
        await self.run("new Promise(requestAnimationFrame)")

    async def until_frame(self, expression: str) -> Any:
        """As `until`, of its frame: that may have no script to wake us, so it is asked whenever the page is drawn."""
        while True:
            with contextlib.suppress(RuntimeError):  # it was another document still
                if found := await (await self.frame()).run(expression):
                    return found
            await self.drawn()

    async def size(self, width: int, height: int) -> None:
        known = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **known)

    async def run(self, script: str) -> Any:
        """What the expression gives; of a promise what comes of it."""
        said = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise RuntimeError(said["exceptionDetails"].get("exception", {}).get("description", script))
        return said["result"].get("value")

    async def until(self, body: str) -> Any:
        """Waits until the function body returns something true, looked at whenever the page changes."""
        while True:
            try:
                return await self.run(UNTIL % body)
            except RuntimeError as gone:  # the page that we asked was not this one yet
                if "navigat" not in str(gone) and "context" not in str(gone):
                    raise

    async def text(self, selector: str) -> str:
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def click(self, selector: str) -> None:
        """By a mouse: what lies over it would get the click."""
        place = await self.run(CENTRE % json.dumps(selector))
        for kind in ("mousePressed", "mouseReleased"):
            known = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type=kind, **known)

    async def write(self, text: str) -> None:
        """Where the focus is."""
        await self.call("Input.insertText", text=text)

    async def key(self, name: str, *, shift: bool = False) -> None:
        code = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowRight": 39, "ArrowDown": 40, "Delete": 46}[name]
        known = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        text = {"Enter": "\r", " ": " "}.get(name)
        await self.call("Input.dispatchKeyEvent", type="keyDown", **known, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    async def picture(self) -> bytes:
        """Of what fits on the screen; PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def tree(self) -> list[tuple[str, str]]:
        """What a screen reader is told: role and name of all that is not hidden from it."""
        nodes = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        shown = (node for node in nodes if not node.get("ignored"))
        return [(str(node["role"]["value"]), str(node.get("name", {}).get("value", ""))) for node in shown]

    @property
    def complaints(self) -> list[str]:
        """Exceptions, and what the browser refused (a policy, a file)."""
        found = []
        for said in self.browser.heard.get(self.session, []):
            if said["method"] == "Runtime.exceptionThrown":
                found.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] in {"error", "warning"}:
                found.append(said["params"]["entry"]["text"])
        return found

    @property
    def asked(self) -> list[str]:
        """All URLs that it asked for."""
        heard = self.browser.heard.get(self.session, [])
        return [each["params"]["request"]["url"] for each in heard if each["method"] == "Network.requestWillBeSent"]


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Browser]:
    assert BROWSER is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    given = [fcntl.fcntl(each, fcntl.F_DUPFD, HIGH) for each in (theirs_in, theirs_out)]
    os.close(theirs_in)
    os.close(theirs_out)
    script = f'exec "$@" 3<&{given[0]} 4>&{given[1]}'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script, "bash", BROWSER, *FLAGS, f"--user-data-dir={folder}", "about:blank"),
        pass_fds=given,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder), "TZ": "UTC"},
        start_new_session=True,
    )
    for each in given:
        os.close(each)
    reader = asyncio.StreamReader(limit=2**28)
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(ours_in, "rb", 0))
    browser = Browser(ours_out, reader)
    listening = asyncio.create_task(browser.listen())
    try:
        yield browser
    finally:
        with contextlib.suppress(RuntimeError, OSError):
            await browser.call("Browser.close")
        await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        transport.close()
        os.close(ours_out)
