"""When two replies say the same: for the breaker, which counts them."""

from __future__ import annotations

from streamq.mail.alike import alike
from streamq.smtp.letter import Report

__all__ = ["same_words"]

LOOKED_AT = 500
KEPT = 120  # characters: what stands behind them differs by mail, if at all


def same_words(report: Report) -> str:
    """Class, codes, and the words without what differs from mail to mail. Two replies with the same result have one
    cause, as far as their texts tell."""
    return f"{report.klass} {report.code} {report.enhanced} {alike(report.reply[:LOOKED_AT])}"[:KEPT]
