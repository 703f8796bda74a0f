"""The command line: `streamq --help`. One file per group of commands."""

from __future__ import annotations

import sys

from streamq.cli.app import app
from streamq.errors import StreamqError

__all__ = ["main"]


def main() -> None:
    """Exit 0: done; 1: failed; 2: bad arguments or settings."""
    from redis.exceptions import RedisError

    from streamq.cli import dead, demo, look, run, send, steer  # noqa: F401  (each adds its commands)
    from streamq.errors import NotFound, SettingsError

    try:
        app()
    except SettingsError as wrong:
        print(f"streamq: {wrong}", file=sys.stderr)
        sys.exit(2)
    except (StreamqError, NotFound) as wrong:
        print(f"streamq: {wrong}", file=sys.stderr)
        sys.exit(1)
    except (RedisError, OSError) as wrong:
        print(f"streamq: redis: {wrong}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
