"""The journal: one line per accepted recipient, in the file before the client reads its 250.

    <Unix time, ns> <recipient> <Message-ID>

The first two hold no blank (one in a quoted local part is written `\\x20`), the third may, and is empty where
the mail had none. Whoever is killed, the kernel has what was acknowledged; so no fsync.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Journal"]


class Journal:
    """Appends to a file. Lines gather until `flush`, which must come before their replies."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lines: list[bytes] = []

    def add(self, at_ns: int, recipients: Iterable[str], message_id: bytes) -> None:
        for recipient in recipients:
            name = recipient.replace(" ", "\\x20").encode()
            self._lines.append(b"%d %b %b\n" % (at_ns, name, message_id))

    def flush(self) -> None:
        """Raises `OSError`; then what gathered stays gathered."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        written = os.write(self._descriptor, data)
        self._lines = [data[written:]] if written < len(data) else []
        if self._lines:  # a full disk takes what fits, and says so at the next call
            self.flush()

    def close(self) -> None:
        """Write what is left and close. Raises `OSError`."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)
