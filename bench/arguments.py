"""Arguments that several benches have."""

from __future__ import annotations

import argparse

__all__ = ["few"]


def few(text: str) -> int:
    """A number of mails of which each needs its event (STREAMQ_EVENTS_KEPT)."""
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"not from 1 to 100000: {text}")
    return number
