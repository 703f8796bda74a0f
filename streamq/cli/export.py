"""Dead letters out of the queue: dead export, as JSON lines or as messages. One at a time: there may be a gigabyte."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from streamq.cli.app import Json, open_queue, run_async
from streamq.cli.choice import All, Class, Domain, Priority, Tag, To, chosen, known_choice
from streamq.cli.dead import Ids, Tenant, dead
from streamq.cli.dead_named import Meant, letters_of
from streamq.cli.terminal import console, emit, emit_line, note
from streamq.errors import MailError, SettingsError
from streamq.mail import Mail, parse
from streamq.mail.several import Shared, fields_of, merged
from streamq.queue.letters import DeadLetter, dead_letter
from streamq.queue.spool import Spool, time_ms
from streamq.queue.walk import is_entry
from streamq.queue.wording import plural

NTH_OF = re.compile(r"[0-9]{1,7}")
PRIVATE = 0o600


@dead.command("export")
def export(
    ids: Ids = None,
    priority: Priority = None,
    domain: Domain = None,
    tenant: Tenant = None,
    tag: Tag = None,
    class_: Class = None,
    to: To = None,
    everything: All = False,
    eml: Annotated[
        Path | None, typer.Option("--eml", help="messages, a file <id>.eml each, into this directory", metavar="DIR")
    ] = None,
    json: Json = False,
) -> None:
    """Copy them: JSON lines on standard output, or messages as they would be sent. They stay where they are."""
    meant = Meant.of("export", ids, chosen(priority, domain, tenant, tag, class_, to), everything)
    if eml is not None and not eml.is_dir():
        raise SettingsError(f"--eml: no such directory: {str(eml)!r}")

    async def run() -> bool:
        async with open_queue() as spool:
            if eml is None:
                async for letter in _chosen(spool, meant):
                    emit_line({"letter": letter.letter, "fields": letter.named(_text)})
                return True
            return await _messages(spool, _chosen(spool, meant), eml, json)

    if not run_async(run):
        raise typer.Exit(1)


async def _chosen(spool: Spool, meant: Meant) -> AsyncIterator[DeadLetter]:
    if not meant.ids:
        await known_choice(spool, meant.choice)
        async for letter in letters_of(spool, meant.choice):
            yield letter
        return
    for name in await meant.sizes(spool):
        found = await dead_letter(spool, name)
        if found is not None:
            yield found


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
        for name, content in _contents(spool, letter):
            if content is None:
                none += 1
                continue
            _write(folder / f"{name}.eml", content)
            written += 1
            heads += b"dead_body" in letter.fields
    if json:
        emit({"exported": written, "without_body": heads, "no_message": none})
        return not none
    console.print(f"exported {plural(written, 'message')}")
    if heads:
        note(f"without their bodies, which were not kept: {heads:,}")
    if none:
        note(f"not exported: {none:,} that are no messages (JSON lines have them)")
    return not none


def _contents(spool: Spool, letter: DeadLetter) -> Iterator[tuple[str, bytes | None]]:
    """What was sent, or would have been, by the file's name: one message, or one for each of `recipients` that has none
    yet; of a raw mail without its body the head. None for no message."""
    stamp = letter.text("dead_stamp") or letter.text("dead_entry")
    parent, _, nth = stamp.partition("#")
    if not is_entry(parent) or (nth and not NTH_OF.fullmatch(nth)):
        yield letter.letter, None
        return
    fields = letter.mail
    if head := letter.fields.get(b"dead_head"):
        fields[b"raw"] = head + b"\n"
    mail = _parsed(spool, fields, stamp, parent if b"dead_stamp" in letter.fields else "")
    if mail is None or mail.several is None or not mail.several.personal:
        yield letter.letter, None if mail is None else mail.content()
        return
    shared = Shared(parent, mail.several.fields, True)
    made = letter.text("dead_made")
    start = int(made) if NTH_OF.fullmatch(made) else 0
    for number, child in enumerate(mail.several.children[start:], start + 1):
        own = _parsed(spool, merged(fields_of(child, parent, number), shared), f"{parent}#{number}", parent)
        yield f"{letter.letter}-{number}", None if own is None else own.content()


def _parsed(spool: Spool, fields: Mapping[bytes, bytes], stamp: str, parent: str) -> Mail | None:
    try:
        return parse(
            fields,
            entry=stamp,
            at_ms=time_ms(stamp),
            salt=spool.salt,
            max_bytes=spool.settings.max_mail_bytes,
            parent=parent,
            template=spool.templates.find,
        )
    except MailError:
        return None


def _write(path: Path, content: bytes) -> None:
    """For its owner's eyes: it is somebody's mail."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE), "wb") as file:
        file.write(content)
