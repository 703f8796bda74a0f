"""When two replies say the same: for the breaker, which counts them."""

from __future__ import annotations

from streamq.smtp.letter import Report

__all__ = ["same_words"]

LOOKED_AT = 500
KEPT = 120  # characters: what stands behind them differs by mail, if at all
ASIDE = ".,;:!?()[]<>\"'"


def same_words(report: Report) -> str:
    """Class, codes, and the words without what differs from mail to mail: addresses, names of hosts, ids, times,
    links. Two replies with the same result have one cause, as far as their texts tell."""
    words = (word.strip(ASIDE) for word in report.reply[:LOOKED_AT].lower().split())
    plain = " ".join("#" if _differs(word) else word for word in words)
    return f"{report.klass} {report.code} {report.enhanced} {plain}"[:KEPT]


def _differs(word: str) -> bool:
    return any(sign.isdigit() or sign in "@./=_" for sign in word)
