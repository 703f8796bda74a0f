"""Dead letters out of the queue: dead export, as JSON lines or as messages. One at a time: there may be a gigabyte."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from streamq.cli.app import Json, open_queue, run_async
from streamq.cli.choice import All
from streamq.cli.dead import Class, Ids, dead, of_class, one_way, sizes_of
from streamq.cli.terminal import console, emit, emit_line, note
from streamq.errors import MailError, SettingsError
from streamq.mail import parse
from streamq.queue.letters import DeadLetter, dead_letter
from streamq.queue.spool import Spool, time_ms
from streamq.queue.walk import is_entry

# Of the letter, not of its mail.
OWN = frozenset(
    (
        b"dead_reason",
        b"dead_class",
        b"dead_at",
        b"dead_entry",
        b"dead_body",
        b"dead_head",
        b"dead_made",
        b"attempts",
        b"last_reply",
    )
)
PRIVATE = 0o600


@dead.command("export")
def export(
    ids: Ids = None,
    class_: Class = None,
    everything: All = False,
    eml: Annotated[
        Path | None, typer.Option("--eml", help="messages, a file <id>.eml each, into this directory", metavar="DIR")
    ] = None,
    json: Json = False,
) -> None:
    """Copy them: JSON lines on standard output, or messages as they would be sent. They stay where they are."""
    one_way("export", ids, class_, everything)
    if eml is not None and not eml.is_dir():
        raise SettingsError(f"--eml: no such directory: {str(eml)!r}")

    async def run() -> bool:
        async with open_queue() as spool:
            if eml is None:
                async for letter in _chosen(spool, ids, class_):
                    emit_line({"letter": letter.letter, "fields": _shown(letter.fields)})
                return True
            return await _messages(spool, _chosen(spool, ids, class_), eml, json)

    if not run_async(run):
        raise typer.Exit(1)


async def _chosen(spool: Spool, ids: list[str] | None, class_: str | None) -> AsyncIterator[DeadLetter]:
    if not ids:
        async for letter in of_class(spool, class_):
            yield letter
        return
    for name in await sizes_of(spool, ids):
        found = await dead_letter(spool, name)
        if found is not None:
            yield found


def _shown(fields: Mapping[bytes, bytes]) -> dict[str, object]:
    """Text as text; other bytes as {"base64": "…"}."""
    return {name.decode("utf-8", "backslashreplace"): _text(value) for name, value in fields.items()}


def _text(value: bytes) -> object:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


async def _messages(spool: Spool, letters: AsyncIterator[DeadLetter], folder: Path, json: bool) -> bool:
    """A file for each that is, or was, a message; False where one is none."""
    written = heads = none = 0
    async for letter in letters:
        await spool.templates.know([letter.fields])
        content = _message(spool, letter)
        if content is None:
            none += 1
            continue
        _write(folder / f"{letter.letter}.eml", content)
        written += 1
        heads += b"dead_body" in letter.fields
    if json:
        emit({"exported": written, "without_body": heads, "no_message": none})
        return not none
    console.print(f"exported {written:,} messages")
    if heads:
        note(f"without their bodies, which were not kept: {heads:,}")
    if none:
        note(f"not exported: {none:,} that are no messages (JSON lines have them)")
    return not none


def _message(spool: Spool, letter: DeadLetter) -> bytes | None:
    """The bytes that were sent, or would have been; of a raw mail without its body the head. None for no message."""
    entry = letter.text("dead_entry")
    if not is_entry(entry):
        return None
    fields = {name: value for name, value in letter.fields.items() if name not in OWN}
    if head := letter.fields.get(b"dead_head"):
        fields[b"raw"] = head + b"\n"
    try:
        mail = parse(
            fields,
            entry=entry,
            at_ms=time_ms(entry),
            salt=spool.salt,
            max_bytes=spool.settings.max_mail_bytes,
            template=spool.templates.find,
        )
    except MailError:
        return None
    return mail.content()


def _write(path: Path, content: bytes) -> None:
    """For its owner's eyes: it is somebody's mail."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE), "wb") as file:
        file.write(content)
