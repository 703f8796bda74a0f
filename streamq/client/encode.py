"""From Python's values to the fields of an XADD: one encoder a kind. What a value may say is `streamq.mail`'s to judge;
here is only what has no form on the wire at all, in the same error."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from streamq.mail.values import TOO_DEEP, wrong

if TYPE_CHECKING:  # it takes the whole of `email` along, which most producers have no use for
    from email.headerregistry import Address

__all__ = ["ENCODERS", "Attachment", "Mailbox", "Mailboxes", "Recipient", "text"]

Mailbox: TypeAlias = "str | Address"  # `Bob <bob@example.net>`
Mailboxes: TypeAlias = "Mailbox | Iterable[Mailbox]"  # of a list each element is one address


BEYOND = "64-bit"  # what orjson says of a whole number that it does not take
DEEP = "ecursion"  # and of what is nested deeper than 254 levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file of a composed mail. `content` is its bytes as they are (base64 is this class's business); with a
    `content_id` and the disposition `inline` an html part shows it as `cid:<content_id>`."""

    filename: str
    content: bytes
    content_type: str | None = None
    content_id: str | None = None
    disposition: str | None = None

    def as_json(self) -> dict[str, Any]:
        content = octets("attachments", self.content)
        made: dict[str, Any] = {"filename": self.filename, "content": b64encode(content).decode("ascii")}
        for name in ("content_type", "content_id", "disposition"):
            if (value := getattr(self, name)) is not None:
                made[name] = value
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One of many in one XADD: each gets a mail of its own, with `vars` for the template over the shared ones. `id`
    stands instead of the mail's `id#n` and is known to the queue as any id is: another mail's must not be the same (a
    user's number would be, in the next campaign; that is what `metadata` is for)."""

    to: Mailbox
    vars: Mapping[str, object] | None = None
    id: str | None = None
    metadata: Mapping[str, object] | None = None

    def as_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {"to": _box("recipients", self.to)}
        for name in ("vars", "id", "metadata"):
            if (value := getattr(self, name)) is not None:
                made[name] = value
        return made


Encoder = Callable[[str, Any], bytes]


MOST = 10**20  # of a number: what the field's rule reads


def _bad(field: str, value: object, why: str) -> Exception:
    return wrong(field, value if isinstance(value, str | bytes) else _shown(value), why)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no int of more than 4,300 digits
        return f"{value:#x}" if isinstance(value, int) else f"<{type(value).__name__}>"
    except RecursionError:
        return f"<{type(value).__name__}>"


def text(field: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise _bad(field, value, f"not a text, but {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError:  # lone surrogates
        raise wrong(field, value.encode("utf-8", "backslashreplace"), "not UTF-8") from None


def octets(field: str, value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _bad(field, value, f"not bytes, but {type(value).__name__}")
    return bytes(value)


def _box(field: str, value: Any) -> str:
    """A text, or what `email.headerregistry.Address` knows of one: its `str` quotes the name where it must."""
    if isinstance(value, str):
        return value
    if hasattr(value, "addr_spec") and hasattr(value, "display_name"):
        return str(value)
    raise _bad(field, value, f"neither a text nor an email.headerregistry.Address, but {type(value).__name__}")


def mailbox(field: str, value: Any) -> bytes:
    return text(field, _box(field, value))


def mailboxes(field: str, value: Any) -> bytes:
    """A text is a list as RFC 5322 writes it; of an iterable each element must be one address, which no comma in a
    name or in an input field can make two."""
    if isinstance(value, str) or hasattr(value, "addr_spec"):
        return mailbox(field, value)
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise _bad(field, value, f"not a mailbox nor a list of them, but {type(value).__name__}")
    return _array(field, [_box(field, one) for one in value])


def texts(field: str, value: Any) -> bytes:
    if isinstance(value, str):
        return text(field, value)
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise _bad(field, value, f"not a list of texts, but {type(value).__name__}")
    return _array(field, list(value))


def _array(field: str, value: list[Any]) -> bytes:
    return _json(field, value) if value else b""


def _json(field: str, value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as broken:  # orjson's JSONEncodeError is one
        if BEYOND in str(broken):
            return _exactly(field, value)
        if DEEP in str(broken):
            raise wrong(field, "", TOO_DEEP) from None
        raise _bad(field, value, f"no JSON ({broken})") from None


def _finite(field: str, value: object, made: bytes) -> bytes:
    """`made` is `value` as JSON; a number that is none became a null in it."""
    if b"null" in made:
        for odd in _not_finite(value):
            raise _bad(field, odd, "no JSON (not a finite number)")
    return made


def _not_finite(value: object) -> Iterator[float]:
    """The last one first: by a list of what is to be looked at, since it may be nested as deep as `json` writes."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, float) and not isfinite(one):
            yield one
        left += one.values() if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else ()


def _exactly(field: str, value: object) -> bytes:
    """Whole numbers that 64 bits do not hold."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode()
    except RecursionError:
        raise wrong(field, "", TOO_DEEP) from None
    except (TypeError, ValueError) as broken:
        raise _bad(field, value, f"no JSON ({broken})") from None


def _plain(value: object) -> object:
    return orjson.loads(orjson.dumps(value))


def mapping(field: str, value: Any) -> bytes:
    if not isinstance(value, Mapping):
        raise _bad(field, value, f"not a mapping, but {type(value).__name__}")
    return _finite(field, value, _json(field, dict(value))) if value else b""


def parts(field: str, value: Any) -> bytes:
    """`attachments`, `recipients`."""
    kind = Attachment if field == "attachments" else Recipient
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise _bad(field, value, f"not a list, but {type(value).__name__}")
    made = []
    for one in value:
        if not isinstance(one, kind):
            raise _bad(field, one, f"not of {kind.__name__}, but of {type(one).__name__}")
        made.append(one.as_json())
    return _finite(field, made, _array(field, made))


def moment(field: str, value: Any) -> bytes:
    """A datetime must know its offset: a local time is another moment on each machine."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise _bad(field, value, "a datetime without tzinfo")
        try:
            return value.astimezone(UTC).isoformat(timespec="milliseconds").encode()
        except OverflowError:
            raise _bad(field, value, "no year of UTC (1 to 9999)") from None
    return text(field, value) if isinstance(value, str) else _number(field, value)


def span(field: str, value: Any) -> bytes:
    """Seconds."""
    if isinstance(value, timedelta):
        return _number(field, value.total_seconds())
    return text(field, value) if isinstance(value, str) else _number(field, value)


def _number(field: str, value: Any) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(field, value, f"not a number, but {type(value).__name__}")
    if isinstance(value, float) and not isfinite(value):
        raise _bad(field, value, "not a finite number")
    if not -MOST < value < MOST:
        raise _bad(field, value, "a number of more than 20 digits")
    return b"%d" % value if isinstance(value, int) else f"{value + 0.0:.3f}".encode()  # -0.0 + 0.0 is 0.0


def flag(field: str, value: Any) -> bytes:
    if not isinstance(value, bool):
        raise _bad(field, value, f"neither True nor False, but {type(value).__name__}")
    return b"1" if value else b""


def no_flag(field: str, value: Any) -> bytes:
    """One that is set where nothing is said."""
    return flag(field, value) or b"0"


ENCODERS: dict[str, Encoder] = {
    "id": text,
    "from": mailbox,
    "sender": mailbox,
    "to": mailboxes,
    "cc": mailboxes,
    "bcc": mailboxes,
    "reply_to": mailboxes,
    "subject": text,
    "text": text,
    "html": text,
    "auto_text": no_flag,
    "headers": mapping,
    "attachments": parts,
    "raw": octets,
    "envelope_from": mailbox,
    "envelope_to": mailboxes,
    "template": text,
    "vars": mapping,
    "recipients": parts,
    "send_at": moment,
    "delay": span,
    "expires_at": moment,
    "ttl": span,
    "collapse_key": text,
    "collapse_seconds": span,
    "on_ambiguous": text,
    "route": text,
    "sensitive": flag,
    "tags": texts,
    "metadata": mapping,
    "tenant": text,
    "traceparent": text,
    "dsn_notify": texts,
    "dsn_ret": text,
    "dsn_envid": text,
    "dsn_orcpt": text,
    "require_tls": flag,
}
