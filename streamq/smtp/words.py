"""What servers say, made fit for a log, an event, a terminal: one line, no control characters, no secret of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["SECRET", "SHORTEST", "one_line", "without"]

SECRET = "[secret]"
SHORTEST = 8  # characters of a secret that are known again on their own


def one_line(text: str) -> str:
    """What is not printable (C0 and C1 controls, escapes, bidirectional overrides) is a blank: a greeting could
    otherwise write to whoever reads the log on a terminal."""
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text.strip()


def without(text: str, secrets: Iterable[str]) -> str:
    """Without what we sent, whole or in part."""
    known = sorted(filter(None, secrets), key=len, reverse=True)

    def known_again(found: re.Match[str]) -> str:
        word = found[0].rstrip(".,;:!")
        return SECRET if len(word) >= SHORTEST and any(word in secret for secret in known) else found[0]

    text = re.sub(r"[^\s\"'<>]{8,}", known_again, text)
    for secret in known:
        whole = re.escape(secret) if len(secret) >= SHORTEST else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(whole, SECRET, text)
    return text
