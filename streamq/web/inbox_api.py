"""The inbox over HTTP: find mails, wait for one, read it, delete it. docs/inbox.md says what each answer holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from streamq.errors import NotFound
from streamq.inbox import Inbox, Kept, Reader, Wanted
from streamq.inbox.box import delete_files
from streamq.inbox.wanted import FILTERS, Unclear
from streamq.settings.values import duration_ms
from streamq.web.answer import Answer, sure
from streamq.web.inbox_guard import Keys
from streamq.web.inbox_shown import (
    DOWNLOAD_POLICY,
    box_shown,
    disposition,
    frame_policy,
    framed,
    mail_shown,
    summary,
)

__all__ = ["Desk", "inbox_routes"]

AT_ONCE = 2  # readings: each keeps this process's one interpreter busy
LIST_USUAL, LIST_MOST = 50, 200
WAIT_USUAL, WAIT_MOST = "10s", "5m"
FAILURES_SHOWN = 5
LATEST = 5  # mails that are told to who waited for another one
PUSH_SECONDS = 0.25  # between two events of a stream
ALIVE_SECONDS = 15.0  # after which a stream that has nothing to tell finds out whether somebody reads it
BODY_MOST = 1000
# A browser may get these as what they are: whatever else a mail says of its parts is for the JSON.
HARMLESS = frozenset(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "avif", "bmp", "x-icon", "svg+xml"))


class _Mark(BaseModel):
    model_config = ConfigDict(extra="forbid")

    unread: bool


@dataclass(slots=True)
class Desk:
    """The box, who reads it, and when to end."""

    inbox: Inbox
    stopping: asyncio.Event
    reader: Reader = field(default_factory=Reader)
    keys: Keys = field(default_factory=Keys)
    busy: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def chosen(self, wanted: Wanted, mails: Iterable[Kept], most: int) -> list[Kept]:
        known = list(mails)  # the box changes meanwhile
        if not known:
            return []
        async with self.busy:
            return await asyncio.to_thread(wanted.those, known, self.reader, most)

    async def summaries(self, mails: Iterable[Kept]) -> list[dict[str, Any]]:
        """Without those whose files went away."""

        def read() -> list[dict[str, Any]]:
            found = []
            for kept in mails:
                with contextlib.suppress(NotFound):
                    found.append(summary(kept, self.reader))
            return found

        return await asyncio.to_thread(read)

    async def whole(self, kept: Kept) -> dict[str, Any]:
        async with self.busy:
            return await asyncio.to_thread(mail_shown, kept, self.reader, self.keys.of(kept.id))

    async def look(self, wanted: Wanted, seen: int) -> tuple[Kept | None, int]:
        """Of those behind `seen` the newest that fits, or with `after` the first; and up to where it has looked."""
        fresh = list(takewhile(lambda kept: kept.number > seen, self.inbox))
        till = fresh[0].number if fresh else seen
        if wanted.after:
            fresh.reverse()
        found = await self.chosen(wanted, fresh, 1)
        return (found[0] if found else None), till

    async def awaited(self, wanted: Wanted) -> Kept:
        """Returns when there is one. It looks again when the box has changed, and at what is new."""
        seen = wanted.after
        while True:
            version = self.inbox.version
            kept, seen = await self.look(wanted, seen)
            if kept is not None:
                return kept
            await self.inbox.changed(version)

    async def delete(self, mails: list[Kept]) -> dict[str, Any]:
        """How many; and where a Maildir's files stay, how many of those, and why the first few do."""
        before = len(self.inbox)
        files = self.inbox.remove(mails)
        gone = before - len(self.inbox)
        failed = await asyncio.to_thread(delete_files, files) if files else []
        return {"deleted": gone - len(failed), "failed": len(failed), "why": failed[:FAILURES_SHOWN]}


def _sure(answer: Answer) -> Answer:
    disk = ((OSError,), 500, lambda wrong: f"{wrong.filename or 'Maildir'}: {wrong.strerror or wrong}")
    return sure(answer, ((Unclear,), 422, str), disk)


DIGITS = 10  # of a number that is no nonsense


def _wanted(request: Request, *more: str) -> Wanted:
    """Raises `Unclear`, also where a name is none, or says nothing: misspelt, or of a variable that nobody has set, it
    would mean every mail; and where one is there twice."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in FILTERS and name not in more:
            raise Unclear(f"{name[:80]}: no such filter: {', '.join((*FILTERS, *more))}")
        if not value.strip():
            raise Unclear(f"{name}: empty (leave it out to have all)")
        if name in given:
            raise Unclear(f"{name}: given twice (got {given[name][:80]!r} and {value[:80]!r})")
        given[name] = value
    return Wanted.read(given)


def _number(request: Request, name: str, usual: int, most: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < DIGITS and 1 <= int(text) <= most):
        raise Unclear(f"{name}: from 1 to {most} (got {text[:80]!r})")
    return int(text)


def _timeout(request: Request) -> float:
    """Seconds."""
    text = request.query_params.get("timeout", "") or WAIT_USUAL
    try:
        ms = duration_ms(text)
    except ValueError as wrong:
        raise Unclear(f"timeout: {wrong}") from None
    if ms > duration_ms(WAIT_MOST):
        raise Unclear(f"timeout: at most {WAIT_MOST} (got {text[:80]!r})")
    return ms / 1000


async def _mark(request: Request) -> bool:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MOST:
            raise Unclear(f"at most {BODY_MOST} bytes")
    try:
        return _Mark.model_validate_json(body).unread
    except ValidationError:
        raise Unclear('a body of {"unread": true} or {"unread": false}') from None


def inbox_routes(desk: Desk) -> list[Route]:
    return [*_box_routes(desk), *_mail_routes(desk)]


def _box_routes(desk: Desk) -> list[Route]:
    """Of several mails. They stand before those of one."""
    inbox = desk.inbox

    async def ls(request: Request) -> Response:
        wanted, limit = _wanted(request, "limit"), _number(request, "limit", LIST_USUAL, LIST_MOST)
        found = await desk.chosen(wanted, inbox, limit + 1)
        mails = await desk.summaries(found[:limit])
        return JSONResponse({"mails": mails, "more": len(found) > limit, **box_shown(inbox)})

    async def mark(request: Request) -> Response:
        unread = await _mark(request)
        found = await desk.chosen(_wanted(request), inbox, len(inbox))
        for kept in found:
            inbox.mark(kept, unread=unread)
        return JSONResponse({"marked": len(found), **box_shown(inbox)})

    async def delete(request: Request) -> Response:
        found = await desk.chosen(_wanted(request), inbox, len(inbox))
        return JSONResponse({**await desk.delete(found), **box_shown(inbox)})

    async def wait(request: Request) -> Response:
        return await _waited(desk, request, _wanted(request, "timeout"), _timeout(request))

    async def stream(request: Request) -> Response:
        return StreamingResponse(_events(desk, request), media_type="text/event-stream")

    return [
        Route("/api/mails", _sure(ls)),
        Route("/api/mails", _sure(mark), methods=["POST"]),
        Route("/api/mails", _sure(delete), methods=["DELETE"]),
        Route("/api/mails/wait", _sure(wait)),
        Route("/api/mails/stream", stream),
    ]


async def _waited(desk: Desk, request: Request, wanted: Wanted, seconds: float) -> Response:
    if seconds:  # the first look is a part of it: it reads texts, behind those of others
        kept = await _within(desk, request, wanted, seconds)
    else:
        kept, _ = await desk.look(wanted, wanted.after)
    if kept is not None:
        return JSONResponse(await desk.whole(kept))
    if desk.stopping.is_set():
        return JSONResponse({"error": "the inbox ends"}, 503)
    return await _none(desk, request, f"within {seconds:g} s")


async def _within(desk: Desk, request: Request, wanted: Wanted, seconds: float) -> Kept | None:
    """No polling: it wakes when a mail came, when who asked has gone, when the time is over, when all ends."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    mail = asyncio.create_task(desk.awaited(wanted))
    others = (asyncio.create_task(left()), asyncio.create_task(desk.stopping.wait()))
    try:
        await asyncio.wait({mail, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return mail.result() if mail.done() else None
    finally:
        for task in (mail, *others):
            task.cancel()
        await asyncio.gather(mail, *others, return_exceptions=True)


async def _none(desk: Desk, request: Request, when: str) -> Response:
    """404 and not 408: browsers and proxies send the same again when they read that."""
    filters = {name: value for name, value in request.query_params.items() if name in FILTERS}
    words = ", ".join(f"{name}={value}" for name, value in filters.items()) or "any"
    latest = await desk.summaries([kept for kept, _ in zip(desk.inbox, range(LATEST), strict=False)])
    known = {"error": f"no such mail {when} ({words})", "wanted": filters, "latest": latest}
    return JSONResponse({**known, **box_shown(desk.inbox)}, 404)


async def _events(desk: Desk, request: Request) -> AsyncIterator[str]:
    """Server-sent events: `inbox`, when it is another, four times a second at most."""
    inbox, stopping = desk.inbox, desk.stopping
    yield "retry: 2000\n\n"
    while not (stopping.is_set() or await request.is_disconnected()):
        version = inbox.version
        yield f"event: inbox\ndata: {json.dumps(box_shown(inbox), separators=(',', ':'))}\n\n"
        while not await _either(inbox.changed(version), stopping.wait(), seconds=ALIVE_SECONDS):
            yield ": still here\n\n"
            if await request.is_disconnected():
                return
        await _either(stopping.wait(), seconds=PUSH_SECONDS)


async def _either(*waits: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Whether one of them came to its end in that time."""
    tasks = [asyncio.create_task(each) for each in waits]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return bool(done)


def _mail_routes(desk: Desk) -> list[Route]:
    """Of one mail."""
    inbox = desk.inbox

    def of(request: Request) -> Kept:
        return inbox.get(request.path_params["id"])

    async def show(request: Request) -> Response:
        return JSONResponse(await desk.whole(of(request)))

    async def mark(request: Request) -> Response:
        inbox.mark(of(request), unread=await _mark(request))
        return JSONResponse(box_shown(inbox))

    async def delete(request: Request) -> Response:
        return JSONResponse({**await desk.delete([of(request)]), **box_shown(inbox)})

    async def raw(request: Request) -> Response:
        kept = of(request)
        return _download(await asyncio.to_thread(kept.content), "message/rfc822", f"{kept.id}.eml", "mail.eml")

    async def source(request: Request) -> Response:
        most = _number(request, "most", 200_000, 10_000_000)
        text = (await asyncio.to_thread(of(request).content, most)).decode("utf-8", "replace")
        return Response(text, media_type="text/plain")

    async def text(request: Request) -> Response:
        async with desk.busy:
            letter = await asyncio.to_thread(desk.reader.letter, of(request))
        return Response(letter.text, media_type="text/plain")

    async def html(request: Request) -> Response:
        kept, images = of(request), request.query_params.get("images") == "1"
        async with desk.busy:
            letter = await asyncio.to_thread(desk.reader.letter, kept)
        if not letter.html:
            raise NotFound("this mail has no html")
        key = desk.keys.of(kept.id)
        urls = {part.content_id: f"/api/mails/{kept.id}/parts/{part.number}?key={key}" for part in letter.parts}
        urls.pop("", None)
        policy = {
            "content-security-policy": frame_policy(images=images),
            "x-frame-options": "SAMEORIGIN",
            "x-dns-prefetch-control": "off",
        }
        return HTMLResponse(await asyncio.to_thread(framed, letter, urls), headers=policy)

    async def part(request: Request) -> Response:
        async with desk.busy:
            letter = await asyncio.to_thread(desk.reader.letter, of(request))
        number = request.path_params["number"]
        if number >= len(letter.parts):
            raise NotFound(f"no such part: it has {len(letter.parts)} (got {number})")
        found = letter.parts[number]
        kind = found.content_type if found.content_type in HARMLESS else "application/octet-stream"
        # The frame is nobody's origin, so its images are another's: the key in the address says that they are its own.
        shared = desk.keys.fit(request.url.path, request.scope["query_string"])
        return _download(found.data, kind, found.filename, f"part-{number}", shared=shared)

    place = "/api/mails/{id}"
    return [
        Route(place, _sure(show)),
        Route(place, _sure(mark), methods=["POST"]),
        Route(place, _sure(delete), methods=["DELETE"]),
        Route(f"{place}/raw", _sure(raw)),
        Route(f"{place}/source", _sure(source)),
        Route(f"{place}/text", _sure(text)),
        Route(f"{place}/html", _sure(html)),
        Route(f"{place}/parts/{{number:int}}", _sure(part)),
    ]


def _download(data: bytes, kind: str, filename: str, other: str, *, shared: bool = False) -> Response:
    headers = {
        "content-type": kind,
        "content-disposition": disposition(filename, other),
        "content-security-policy": DOWNLOAD_POLICY,
        "cross-origin-resource-policy": "cross-origin" if shared else "same-origin",
    }
    return Response(data, headers=headers)
