"""Every exception that streamq raises on purpose.

StreamqError
├── SettingsError           a setting is missing or wrong; the text names it and its value
│   └── NotPermitted        Redis does not let this user do what is needed; the text has its words
├── NoServer                there is no Redis to talk to and none to start
├── ServerFailed            a Redis was started and did not come up
├── MailError               an entry of the spool cannot be sent as it is
│   ├── MalformedMail       a field breaks its rule → dead letter
│   ├── UnknownFields       fields that this version does not know → held
│   ├── UnsupportedFields   fields that this version knows and cannot do (yet, or as it is installed) → held
│   └── UnknownTemplate     a template that is not stored → held
└── QueueError              the queue said no
    ├── QueueFormat         the keys were written by a version that this one cannot read
    ├── QueueTaken          a `streamq up` has the queue, and its mails go to a sink
    ├── NotFound            no mail has that ID
    │   └── OfTenants       none without a tenant; mails of tenants have it
    └── SendError           a client's mail was not queued, as far as is known
        ├── Unreachable     no connection to Redis: nothing was queued
        ├── NoReply         the reply was lost: it may be queued, and the same id is sent once
        ├── Refused         Redis refused the XADD in its own words: nothing was queued
        ├── OutOfMemory     Redis is at its maxmemory: nothing was queued
        ├── QueueFull       the queue is at a bound of its own: nothing was queued
        └── TooDeep         the stream is as long as the client lets it grow: nothing was queued
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = [
    "MailError",
    "MalformedMail",
    "NoReply",
    "NoServer",
    "NotFound",
    "NotPermitted",
    "OfTenants",
    "OutOfMemory",
    "QueueError",
    "QueueFormat",
    "QueueFull",
    "QueueTaken",
    "Refused",
    "SendError",
    "ServerFailed",
    "SettingsError",
    "StreamqError",
    "TooDeep",
    "UnknownFields",
    "UnknownTemplate",
    "Unreachable",
    "UnsupportedFields",
]

SHOWN = 80  # characters of a wrong value that an error repeats


class StreamqError(Exception):
    """The root: what streamq raises on purpose."""


class SettingsError(StreamqError):
    """A setting is missing or wrong."""


class NotPermitted(SettingsError):
    """Redis does not let this user do what is needed: no waiting mends it, and no other try."""


class NoServer(StreamqError):
    """There is no Redis to talk to and none to start."""


class ServerFailed(StreamqError):
    """A Redis was started and did not come up."""


class MailError(StreamqError):
    """An entry of the spool cannot be sent as it is."""


class MalformedMail(MailError):
    """A field breaks its rule; `field` names it, `value` is what stood there (cut), `why` the rule."""

    def __init__(self, field: str, value: str | bytes, why: str) -> None:
        shown = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
        if len(shown) > SHOWN:
            shown = shown[:SHOWN] + "…"
        self.field = field
        self.value = shown
        self.why = why
        super().__init__(f"{field}: {why}: {shown!r}" if shown else f"{field}: {why}")


class UnknownFields(MailError):
    """Fields that this version does not know."""

    def __init__(self, fields: Iterable[str]) -> None:
        self.fields = tuple(sorted(fields))
        super().__init__(f"unknown fields: {', '.join(self.fields)}")


class UnsupportedFields(MailError):
    """Fields that this version knows and cannot do, yet or as it is installed."""

    def __init__(self, fields: Iterable[str]) -> None:
        self.fields = tuple(sorted(fields))
        super().__init__(f"not built yet: {', '.join(self.fields)}")


class UnknownTemplate(MailError):
    """A template that is not stored, or of which there is no such version."""

    def __init__(self, name: str) -> None:
        self.name = name[:SHOWN]
        super().__init__(f"template: no such template: {self.name!r}")


class QueueError(StreamqError):
    """The queue said no."""


class QueueFormat(QueueError):
    """The keys were written by a version that this one cannot read."""


class QueueTaken(QueueError):
    """A `streamq up` has the queue: its mails go to a mail server that sends nothing on."""


class NotFound(QueueError):
    """No mail has that ID."""


class OfTenants(NotFound):
    """No live mail without a tenant has that ID; of these tenants there is one. `entries`: tenant → its entry."""

    def __init__(self, text: str, entries: Mapping[str, str]) -> None:
        super().__init__(text)
        self.entries = dict(entries)


class SendError(QueueError):
    """A client's mail was not queued, as far as is known. Sending it again under its `id` is right after each of
    these."""


class Unreachable(SendError):
    """No connection to Redis: nothing was queued."""


class NoReply(SendError):
    """The XADD went out and no reply came back: the mail may be queued."""


class Refused(SendError):
    """Redis refused the XADD; the text holds its words."""


class OutOfMemory(SendError):
    """Redis is at its maxmemory: nothing was queued."""


class QueueFull(SendError):
    """The queue is at a bound of its own: nothing was queued. `bound` is `queue` (live mails, STREAMQ_MAX_QUEUE),
    `memory` (bytes of Redis, STREAMQ_MAX_MEMORY) or `ids` (bytes of them, STREAMQ_IDS_BYTES); `used`, `most`: of it,
    when it was last looked at."""

    def __init__(self, text: str, bound: str = "", used: int = 0, most: int = 0) -> None:
        super().__init__(text)
        self.bound, self.used, self.most = bound, used, most


class TooDeep(SendError):
    """The stream is as long as the client lets it grow: nothing was queued."""
