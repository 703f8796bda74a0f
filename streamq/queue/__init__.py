"""All that touches Redis: the spool, its scripts, and what looks at them."""

from streamq.queue.spool import Spool

__all__ = ["Spool"]
