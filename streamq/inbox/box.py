"""The box: the last mails that a sink took, bounded in number and in bytes; the oldest go first.

Nothing of a mail is read here: `Inbox.add` is called before the sink's 250, and must cost it next to nothing.
Where the sink writes a Maildir the content stays in its files, and only what the envelope said is in memory.
"""

from __future__ import annotations

import asyncio
import glob
import heapq
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamq.errors import NotFound
from streamq.sink import Received

__all__ = ["Inbox", "Kept", "delete_files"]

OVERHEAD = 3000  # bytes that a mail costs beside its content: its envelope; about
RECIPIENT = 400  # of each recipient but the first: a name, and a table of parameters
MOST_READ = 128 * 1024 * 1024  # bytes of a file: what comes by SMTP has at most --max-size


@dataclass(slots=True, eq=False)
class Kept:
    """One mail of the box."""

    number: int  # Unix time of acceptance, ns; no two are alike, and later ones are greater
    size: int  # bytes of content
    envelope: Received | None  # without its content where that is a file; None: found in the Maildir, nobody knows it
    file: Path | None = None
    unread: bool = True

    @property
    def id(self) -> str:
        """The number as text: JavaScript's numbers end at 2**53."""
        return str(self.number)

    @property
    def weight(self) -> int:
        """Bytes of memory, about."""
        if self.envelope is None:
            return OVERHEAD
        known = self.envelope
        return OVERHEAD + len(known.content) + sum(len(each) + RECIPIENT for each in known.envelope_to[1:])

    def content(self, most: int = MOST_READ) -> bytes:
        """All of it, or its first bytes. Reads a file, perhaps. Raises `NotFound` where somebody took it away."""
        if self.file is None:
            assert self.envelope is not None
            return self.envelope.content[:most]
        try:
            with _found(self.file).open("rb") as file:
                return file.read(most)
        except OSError as wrong:
            raise NotFound(f"its file is gone: {self.file.name}: {wrong.strerror}") from None


class Inbox:
    """At most `most` mails, of `most_bytes` of memory together; `bytes`: of their content, as each one's `size`;
    `weight`: of memory, about; `forgotten` counts those that had to go.

    Not for several threads. `version` rises with each change; `changed` waits for it.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.bytes = 0
        self.weight = 0
        self.unread = 0
        self.forgotten = 0
        self.version = 0
        self._mails: OrderedDict[int, Kept] = OrderedDict()  # a dict would look for its first one ever longer
        self._last = 0
        self._change = asyncio.Event()

    def __len__(self) -> int:
        return len(self._mails)

    def __iter__(self) -> Iterator[Kept]:
        """Newest first."""
        return reversed(self._mails.values())

    @property
    def last(self) -> int:
        """The number of the last mail that came, be it here still or not; 0: none did."""
        return self._last

    def add(self, mail: Received) -> Kept:
        number = max(mail.at_ns, self._last + 1)  # a clock may be set back
        size = len(mail.content)
        envelope = mail if mail.file is None else mail._replace(content=b"")
        kept = Kept(number, size, envelope, mail.file)
        if kept.weight > self.most_bytes:  # it would push out all the others, and go itself
            self._last = number
            self.forgotten += 1
        else:
            self._put(kept)
        self._tell()
        return kept

    def load(self, folder: Path) -> None:
        """What lies in a Maildir already: the newest, with nothing known of their envelopes. Raises `OSError`."""
        many = 0

        def files() -> Iterator[tuple[int, str, int, bool]]:
            nonlocal many
            for part in ("new", "cur"):
                with os.scandir(folder / part) as entries:
                    for entry in entries:
                        if entry.is_file() and not entry.name.startswith("."):
                            many += 1
                            known = entry.stat()
                            yield known.st_mtime_ns, entry.path, known.st_size, part == "new"

        found = heapq.nlargest(self.most, files())
        now_ns = time.time_ns()  # a file may be of tomorrow; the mails that come next are not
        self.forgotten += many - len(found)
        for at_ns, path, size, unread in reversed(found):
            self._put(Kept(max(min(at_ns, now_ns), self._last + 1), size, None, Path(path), unread))
        self._tell()

    def _put(self, kept: Kept) -> None:
        self._last = kept.number
        self._mails[kept.number] = kept
        self.bytes += kept.size
        self.weight += kept.weight
        self.unread += kept.unread
        while len(self._mails) > self.most or self.weight > self.most_bytes:
            _, oldest = self._mails.popitem(last=False)
            self._forget(oldest)
            self.forgotten += 1

    def _forget(self, kept: Kept) -> None:
        self.bytes -= kept.size
        self.weight -= kept.weight
        self.unread -= kept.unread

    def get(self, id_: str) -> Kept:
        """Raises `NotFound`."""
        kept = self._mails.get(int(id_)) if id_.isascii() and id_.isdecimal() and len(id_) < 21 else None
        if kept is None:
            raise NotFound(f"no such mail: it never came, was deleted, or was too old to be kept (got {id_[:40]!r})")
        return kept

    def mark(self, kept: Kept, *, unread: bool) -> None:
        if kept.unread != unread:
            kept.unread = unread
            self.unread += 1 if unread else -1
            self._tell()

    def remove(self, mails: list[Kept]) -> list[Path]:
        """Take them out; returns the files that the caller has to delete."""
        files = []
        for kept in mails:
            if self._mails.pop(kept.number, None) is not None:
                self._forget(kept)
                if kept.file is not None:
                    files.append(kept.file)
        if mails:
            self._tell()
        return files

    def _tell(self) -> None:
        self.version += 1
        self._change.set()
        self._change = asyncio.Event()

    async def changed(self, version: int) -> None:
        """Returns when it is another than that."""
        while self.version == version:
            await self._change.wait()


def delete_files(files: list[Path]) -> list[str]:
    """All that can be; returns of the others which and why. One that is gone already is no error."""
    failed = []
    for file in files:
        try:
            _found(file).unlink(missing_ok=True)
        except OSError as wrong:
            failed.append(f"{file.name}: {wrong.strerror or wrong}")
    return failed


def _found(file: Path) -> Path:
    """Where it is now: who reads a Maildir moves what is new to `cur`, and writes flags behind its name."""
    if file.exists():
        return file
    name = file.name.partition(":")[0]
    return next((file.parent.parent / "cur").glob(glob.escape(name) + "*"), file)
