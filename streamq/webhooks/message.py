"""What goes over the wire: body, id, signature (Standard Webhooks 1.0: https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from streamq.mail.trace import read_traceparent
from streamq.queue.events import Event

__all__ = ["Message", "message", "sign"]

UNSAFE = re.compile(r"[^A-Za-z0-9_-]")  # a dot, too: it parts id, timestamp and body where they are signed
ID_MOST = 200


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `id` is the same at every try, and the same for an event that was written again. `traceparent`: of
    the mail that its one event is about, "" for none."""

    id: str
    body: bytes
    events: tuple[Event, ...]
    traceparent: str = ""

    def headers(self, keys: Iterable[bytes], now_s: int) -> dict[str, str]:
        trace = {"traceparent": self.traceparent} if self.traceparent else {}
        return {
            **trace,
            "content-type": "application/json",
            "user-agent": "streamq",
            "webhook-id": self.id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": sign(keys, self.id, now_s, self.body),
        }


def message(events: Sequence[Event], *, batched: bool) -> Message:
    """One event as the standard has it: `{type, timestamp, data}`; of a batch `data` is the list of those, and its type
    `batch`. `data.id` is the mail's."""
    shown = [_shown(event) for event in events]
    if not batched:
        return Message(f"evt_{_safe(events[0].event_id)}", orjson.dumps(shown[0]), tuple(events), _trace(events[0]))
    first, last = events[0], events[-1]
    body = orjson.dumps({"type": "batch", "timestamp": shown[-1]["timestamp"], "data": shown})
    return Message(f"batch_{first.at}_{last.at}", body, tuple(events))


def sign(keys: Iterable[bytes], id_: str, now_s: int, body: bytes) -> str:
    """`v1,<base64>` of HMAC-SHA256 over `id.timestamp.body`, one for each key, with blanks between."""
    text = f"{id_}.{now_s}.".encode() + body
    made = (base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode() for key in keys)
    return " ".join(f"v1,{each}" for each in made)


def _shown(event: Event) -> dict[str, Any]:
    return {"type": event.kind, "timestamp": _time(event), "data": {"id": event.id, **event.data}}


def _trace(event: Event) -> str:
    text = event.text("traceparent")
    return text if read_traceparent(text) else ""  # it becomes a header: what is none goes no further


def _safe(text: str) -> str:
    return UNSAFE.sub("_", text)[:ID_MOST]


def _time(event: Event) -> str:
    """RFC 3339; of a moment that no clock shows, the one of its entry in the stream."""
    for ms in (event.at_ms, int(event.at.partition("-")[0])):
        try:
            return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        except (ValueError, OverflowError, OSError):
            continue
    return "1970-01-01T00:00:00.000Z"
