"""Send one mail from the command line."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from streamq.cli.app import Json, app, console, emit, open_queue, run_async
from streamq.errors import MailError, SettingsError, UnknownFields, UnsupportedFields
from streamq.mail import parse
from streamq.queue.connection import command
from streamq.queue.spool import Spool, time_ms

FINAL = {
    "email.relayed", "email.delivered", "email.bounced", "email.expired", "email.rejected", "email.cancelled",
    "email.duplicate", "email.superseded", "email.failed", "email.held",
}  # fmt: skip
GOOD = {"email.relayed", "email.delivered", "email.duplicate"}


@app.command()
def send(
    from_: Annotated[str | None, typer.Option("--from", help="From")] = None,
    to: Annotated[str | None, typer.Option(help="To")] = None,
    subject: Annotated[str, typer.Option()] = "",
    text: Annotated[str, typer.Option(help="the text; - reads standard input")] = "",
    html: Annotated[str, typer.Option()] = "",
    raw: Annotated[Path | None, typer.Option(help="a whole message from a file; - reads standard input")] = None,
    priority: Annotated[str, typer.Option(help="high, normal, low")] = "normal",
    id_: Annotated[str | None, typer.Option("--id", help="idempotency key; made if absent")] = None,
    field: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="any other field")] = None,
    wait: Annotated[float, typer.Option(help="seconds to wait for its end; 0 does not wait")] = 0.0,
    json: Json = False,
) -> None:
    """XADD one mail; with --wait, say what became of it."""
    fields: dict[str, str | bytes] = {"id": id_ or f"send-{secrets.token_hex(8)}"}
    headers = (("from", from_), ("to", to), ("subject", subject), ("html", html))
    fields |= {name: value for name, value in headers if value}
    if text:
        fields["text"] = sys.stdin.read() if text == "-" else text
    if raw is not None:
        fields["raw"] = sys.stdin.buffer.read() if str(raw) == "-" else raw.read_bytes()
    for one in field or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise SettingsError(f"--field: write NAME=VALUE (got {one!r})")
        fields[name] = value
    if run_async(lambda: _send(fields, priority, wait, json)) is False:
        raise typer.Exit(1)


async def _send(fields: dict[str, str | bytes], priority: str, wait: float, json: bool) -> bool | None:
    async with open_queue() as spool:
        if priority not in spool.priorities:
            raise SettingsError(f"--priority: one of {', '.join(spool.priorities)} (got {priority!r})")
        known = {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in fields.items()}
        _judge(spool, known)
        last = await command(spool.redis, "XREVRANGE", spool.keys.events, "+", "-", "COUNT", 1)
        flat = [part for pair in known.items() for part in pair]
        id_ = (await command(spool.redis, "XADD", spool.keys.stream(priority), "*", *flat)).decode()
        entry = f"{spool.priorities.index(priority)}{id_}"
        if not wait:
            if json:
                emit({"entry": entry, "id": fields["id"]})
            else:
                console.print(f"{entry} is in the queue, id {fields['id']!s}")
            return None
        event = await _ending(spool, entry, last[0][0].decode() if last else "0", wait)
        if json:
            emit(event or {"entry": entry, "type": None})
        elif event is None:
            console.print(f"{entry} has not ended within {wait:g} s: `streamq show {entry}`")
        else:
            took = event["at"] - time_ms(entry)
            console.print(f"{event['type']} after {took} ms  {event.get('reply') or event.get('reason') or ''}")
        return event is not None and event["type"] in GOOD


def _judge(spool: Spool, known: dict[bytes, bytes]) -> None:
    """Say at once what the worker would say; what a later version may know is queued."""
    try:
        parse(known, entry="00-0", at_ms=0, salt=b"", max_bytes=spool.settings.max_mail_bytes)
    except (UnknownFields, UnsupportedFields) as later:
        console.print(f"note: this mail will be held: {later}", style="yellow")
    except MailError as wrong:
        raise SettingsError(str(wrong)) from None


async def _ending(spool: Spool, entry: str, last: str, wait: float) -> dict[str, Any] | None:
    """The event that ends this mail, or None."""
    try:
        async with asyncio.timeout(wait):
            while True:
                found = await command(
                    spool.reader, "XREAD", "COUNT", 100, "BLOCK", 1000, "STREAMS", spool.keys.events, last
                )
                for _, rows in found or ():
                    for id_, flat in rows:
                        last = id_.decode()
                        event = orjson.loads(flat[5])
                        if event.get("entry") == entry and flat[1].decode() in FINAL:
                            return {"type": flat[1].decode(), "id": flat[3].decode(), **event}
    except TimeoutError:
        return None
