"""streamq: an e-mail delivery queue in Redis. The public names; each is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamq.client import AsyncClient, Attachment, Client, Mail, NotSent, Recipient, Result, Sent
    from streamq.errors import (
        MailError,
        MalformedMail,
        NoReply,
        OutOfMemory,
        QueueFull,
        Refused,
        SendError,
        SettingsError,
        StreamqError,
        TooDeep,
        Unreachable,
    )

__version__ = "0.1.0"

_ERRORS = (
    *("MailError", "MalformedMail", "NoReply", "OutOfMemory", "QueueFull", "Refused", "SendError", "SettingsError"),
    *("StreamqError", "TooDeep", "Unreachable"),
)

__all__ = [
    "AsyncClient",
    "Attachment",
    "Client",
    "Mail",
    "MailError",
    "MalformedMail",
    "NoReply",
    "NotSent",
    "OutOfMemory",
    "QueueFull",
    "Recipient",
    "Refused",
    "Result",
    "SendError",
    "Sent",
    "SettingsError",
    "StreamqError",
    "TooDeep",
    "Unreachable",
    "__version__",
]


if not TYPE_CHECKING:  # a type checker would take any name for one that there is

    def __getattr__(name: str) -> object:
        if name.startswith("_") or name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(import_module("streamq.errors" if name in _ERRORS else "streamq.client"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
