"""What the mails of a bench hold: 1, 4 or 50 KB of raw message (or a line), or text and html to be composed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["BODY", "KINDS", "message"]

LINE = b"The quick brown fox jumps over the lazy dog, and over it again and again..\r\n"
HEAD = b"From: Shop <shop@example.com>\r\nTo: a@example.net\r\nSubject: Order\r\n\r\n"
BODY = HEAD + LINE * 53  # 4 KB
LONG = HEAD + LINE * 664  # 50 KB

TEXT = "Thank you for your order, which we send tomorrow. Grüße aus Köln.\n" * 20
HTML = "<p>Thank you for your order, which we send <b>tomorrow</b>. Grüße aus Köln.</p>\n" * 30

Pairs = tuple[str | bytes, ...]


def _raw(body: bytes) -> Callable[[str], Pairs]:
    return lambda to: ("envelope_from", "shop@example.com", "envelope_to", to, "raw", body)


def _composed(to: str) -> Pairs:
    return (
        "from", "Shop <shop@example.com>", "to", to, "subject", "Your order, with thanks", "text", TEXT, "html", HTML,
    )  # fmt: skip


# The fields of an XADD, beside the id, by recipient.
KINDS: Mapping[str, Callable[[str], Pairs]] = {
    "small": _raw(HEAD + LINE),
    "1k": _raw(HEAD + LINE * 13),
    "4k": _raw(BODY),
    "50k": _raw(LONG),
    "composed": _composed,
}


def message(kind: str) -> bytes:
    """The same for who sends messages and nothing else; of `composed` what they would have composed beforehand."""
    return {"small": HEAD + LINE, "1k": HEAD + LINE * 13, "50k": LONG}.get(kind, BODY)
