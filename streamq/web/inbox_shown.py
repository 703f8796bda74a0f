"""What the inbox tells, as plain JSON, and the html of a mail as a frame may show it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from streamq.inbox.box import Inbox, Kept
from streamq.inbox.head import Mailbox
from streamq.inbox.letter import Letter, Part
from streamq.inbox.reader import Reader
from streamq.web.inbox_cid import with_parts

__all__ = ["DOWNLOAD_POLICY", "box_shown", "disposition", "frame_policy", "framed", "mail_shown", "summary"]

MOST_TEXT = 1_000_000  # characters of a body in the JSON
DOCTYPE = re.compile(r"\s{0,100}<!doctype[^<>]{0,300}>", re.IGNORECASE)
# The policy lets none of these load; Chromium connects to a frame's server before it asks the policy, and fetches ahead
# what a link names once images may come from elsewhere.
INERT = re.compile(r"<(/?)(?=(?:i?frame|frameset|object|embed|applet|portal|fencedframe|link)\b)", re.IGNORECASE)
STEERING = re.compile("[\0-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
# No script, no form, no frame, nothing from elsewhere; a link opens a tab of its own, and is no way back here.
FRAME = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
FRAME += "font-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'; img-src 'self' data:"
DOWNLOAD_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"


def box_shown(inbox: Inbox) -> dict[str, Any]:
    return {
        "many": len(inbox),
        "unread": inbox.unread,
        "bytes": inbox.bytes,
        "most": inbox.most,
        "most_bytes": inbox.most_bytes,
        "forgotten": inbox.forgotten,
        "last": str(inbox.last),
    }


def _people(mailboxes: tuple[Mailbox, ...]) -> list[dict[str, str]]:
    return [each._asdict() for each in mailboxes]


def summary(kept: Kept, reader: Reader) -> dict[str, Any]:
    """Raises `NotFound`."""
    head = reader.head(kept)
    known = kept.envelope
    at = datetime.fromtimestamp(kept.number // 1_000_000 / 1000, UTC).isoformat(timespec="milliseconds")
    return {
        "id": kept.id,
        "at": at.replace("+00:00", "Z"),
        "size": kept.size,
        "unread": kept.unread,
        "subject": head.subject,
        "from": _people(head.from_),
        "to": _people(head.to),
        "cc": _people(head.cc),
        "envelope_from": None if known is None else known.envelope_from,
        "envelope_to": [] if known is None else list(known.envelope_to[:100]),
        "envelope_to_left": 0 if known is None else max(0, len(known.envelope_to) - 100),
        "message_id": head.message_id,
        "date": head.date,
    }


def mail_shown(kept: Kept, reader: Reader, key: str) -> dict[str, Any]:
    """Raises `NotFound`."""
    letter = reader.letter(kept)
    place = f"/api/mails/{kept.id}"
    return {
        **summary(kept, reader),
        "envelope": _envelope(kept),
        "text": letter.text[:MOST_TEXT],
        "html": letter.html[:MOST_TEXT],
        "cut": len(letter.text) > MOST_TEXT or len(letter.html) > MOST_TEXT,
        "links": list(letter.links),
        "headers": [list(each) for each in letter.headers],
        "attachments": [_part(part, f"{place}/parts/{part.number}?key={key}") for part in letter.parts],
        "attachments_left": letter.parts_left,
        "note": letter.note,
        "html_url": f"{place}/html?key={key}" if letter.html else None,
        "raw_url": f"{place}/raw?key={key}",
    }


def _part(part: Part, url: str) -> dict[str, Any]:
    return {
        "number": part.number,
        "filename": part.filename,
        "content_type": part.content_type,
        "content_id": part.content_id,
        "inline": part.inline,
        "size": len(part.data),
        "url": url,
    }


def _envelope(kept: Kept) -> dict[str, Any] | None:
    known = kept.envelope
    if known is None:
        return None
    parameters = iter(known.rcpt_parameters)
    return {
        "from": known.envelope_from,
        "parameters": dict(known.parameters),
        "to": [{"address": address, "parameters": dict(next(parameters, {}))} for address in known.envelope_to],
        "helo": known.helo,
        "peer": known.peer,
        "tls": known.tls,
        "user": known.user,
        "eight_bit": known.eight_bit,
        "smtputf8": known.smtputf8,
    }


# -- what a browser loads by itself ----------------------------------------------------------------------------------


def frame_policy(*, images: bool) -> str:
    return FRAME + (" http: https:" if images else "")


def framed(letter: Letter, urls: Mapping[str, str]) -> str:
    """The html without frames and links to files, the `cid:` addresses of its images as those of the parts (`urls`:
    Content-ID → address), its links for a new tab."""
    html = INERT.sub(r"<\1x-", with_parts(letter.html, lambda cid: urls.get(unquote(cid.replace("&amp;", "&")))))
    doctype = DOCTYPE.match(html)
    at = doctype.end() if doctype else 0
    return f'{html[:at]}<base target="_blank">{html[at:]}'


def disposition(filename: str, other: str) -> str:
    """RFC 6266: a name that is ASCII, and the whole one; neither is a path, steers a terminal or ends the header."""
    name = STEERING.sub("_", filename).replace("/", "_").replace("\\", "_").strip(" .")
    name = name[:150] or other
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in " ._-()+,") else "_" for sign in name)
    whole = quote(name.encode("utf-8", "replace"), safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}"
