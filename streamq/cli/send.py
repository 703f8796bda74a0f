"""Send one mail from the command line."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from streamq.cli.app import Json, app, open_at, run_async, settings, url_of
from streamq.cli.choice import known_priority
from streamq.cli.once import Once
from streamq.cli.terminal import clip, console, emit, note
from streamq.client import AsyncClient, Mail, Sent
from streamq.errors import MailError, SettingsError
from streamq.queue.connection import command
from streamq.queue.spool import Spool, time_ms

FINAL = {
    *("email.relayed", "email.delivered", "email.bounced", "email.expired", "email.rejected", "email.cancelled"),
    *("email.duplicate", "email.superseded", "email.failed", "email.held"),
}
GOOD = {"email.relayed", "email.delivered", "email.duplicate"}
TEXT = Annotated[str | None, typer.Option(metavar="TEXT")]


@app.command(cls=Once)
def send(
    from_: Annotated[str | None, typer.Option("--from", help="From", metavar="ADDRESS")] = None,
    to: Annotated[list[str] | None, typer.Option(help="To (may be repeated)", metavar="ADDRESS")] = None,
    subject: TEXT = None,
    text: Annotated[str | None, typer.Option(help="the text; - reads standard input", metavar="TEXT")] = None,
    html: TEXT = None,
    raw: Annotated[
        Path | None, typer.Option(help="a whole message from a file; - reads standard input", metavar="FILE")
    ] = None,
    priority: Annotated[str, typer.Option(help="high, normal, low", metavar="NAME")] = "normal",
    id_: Annotated[str | None, typer.Option("--id", help="idempotency key; made if absent", metavar="ID")] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="any other field (may be repeated)")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, max=86_400, help="seconds to wait for its end; 0 does not wait", metavar="SECONDS")
    ] = 0.0,
    json: Json = False,
) -> None:
    """XADD one mail; with --wait, say what became of it: exit 0 only where it was sent."""
    known = settings()
    most = known.max_mail_bytes
    fields: dict[str, bytes] = {"id": (id_ or f"send-{secrets.token_hex(8)}").encode()}
    given = {"from": from_, "to": ", ".join(to or ()), "subject": subject, "text": text, "html": html}
    for name, value in given.items():
        if value:
            fields[name] = value.encode()
    if text == "-":
        fields["text"] = _standard_input("--text", most)
    if raw is not None:
        fields["raw"] = _standard_input("--raw", most) if str(raw) == "-" else _file(raw, most)
    named = {"id"} if id_ else set()
    for one in field or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise SettingsError(f"--field: write NAME=VALUE (got {one[:80]!r})")
        if name in named or (name in fields and name != "id"):
            raise SettingsError(f"--field: {name} is given twice (got {one[:80]!r})")
        named.add(name)
        fields[name] = value.encode()
    if not run_async(lambda: _send(fields, priority, wait, json)):
        raise typer.Exit(1)


def _standard_input(flag: str, most: int) -> bytes:
    if sys.stdin is None:
        raise SettingsError(f"{flag}: there is no standard input (got '-')")
    return _no_more(flag, "-", sys.stdin.buffer.read(most + 1), most)


def _file(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return _no_more("--raw", str(path), file.read(most + 1), most)
    except OSError as wrong:
        raise SettingsError(f"--raw: {wrong.strerror} (got {str(path)!r})") from None


def _no_more(flag: str, value: str, found: bytes, most: int) -> bytes:
    if len(found) > most:
        raise SettingsError(f"{flag}: over the size cap of {most} bytes (got {value!r})")
    return found


async def _send(fields: dict[str, bytes], priority: str, wait: float, json: bool) -> bool:
    known = settings()
    async with url_of(known) as url, open_at(known, url) as spool, AsyncClient(url, settings=known) as client:
        known_priority(spool, priority)
        last = await command(spool.redis, "XREVRANGE", spool.keys.events, "+", "-", "COUNT", 1)
        sent = await _queued(client, fields, priority)
        entry, name = sent.entry, sent.id
        if sent.resent:
            note(f"note: a reply was lost; its XADD went out {sent.resent + 1} times, and is one mail", style="yellow")
        if not wait:
            if json:
                emit({"entry": entry, "id": name})
            else:
                console.print(f"{entry} is in the queue, id {clip(name, 256)}", soft_wrap=True)
            return True
        event = await _ending(spool, sent, last[0][0].decode() if last else "0", wait)
        if json:
            emit(event or {"entry": entry, "id": name, "type": None})
        elif event is None:
            console.print(f"{entry} has not ended within {wait:g} s: `streamq show {entry}`")
        else:
            took = int(event.get("at", time_ms(entry))) - time_ms(entry)
            said = clip(str(event.get("reply") or event.get("reason") or ""), 500)
            console.print(f"{event['type']} after {took:,} ms  {said}".rstrip(), soft_wrap=True)
        return event is not None and event["type"] in GOOD


async def _queued(client: AsyncClient, fields: dict[str, bytes], priority: str) -> Sent:
    """Says at once what the worker would say; what a later version may know is queued."""
    try:
        mail = Mail.from_fields(fields, priority)
        if mail.held:
            note(f"note: this mail will be held: {clip(mail.held, 400)}", style="yellow")
        return await client.send(mail)
    except MailError as wrong:
        raise SettingsError(str(wrong)) from None


async def _ending(spool: Spool, sent: Sent, last: str, wait: float) -> dict[str, Any] | None:
    """The event that ends this mail, or None. Of a mail that went out more often one entry is it, and nobody knows
    which: the others end as duplicates."""
    doubles = sent.resent
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while (left := end - loop.time()) > 0:
        block = max(1, min(1000, int(left * 1000)))  # never cancelled: it ends by itself
        found = await command(spool.reader, "XREAD", "COUNT", 100, "BLOCK", block, "STREAMS", spool.keys.events, last)
        for _, rows in found or ():
            for id_, flat in rows:
                last = id_.decode()
                event = _event(flat)
                if event.get("type") not in FINAL:
                    continue
                if doubles and event["id"] == sent.id and event["type"] == "email.duplicate":
                    doubles -= 1
                elif event["id"] == sent.id if sent.resent else event.get("entry") == sent.entry:
                    return event
    return None


def _event(flat: list[bytes]) -> dict[str, Any]:
    try:
        kind, name, data = (part.decode("utf-8", "replace") for part in flat[1:6:2])
        known = orjson.loads(data)
    except ValueError:  # not one of ours
        return {}
    return {"type": kind, "id": name, **known} if isinstance(known, dict) else {}
