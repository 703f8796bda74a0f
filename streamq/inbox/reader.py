"""Who reads the box's mails, and remembers what was read, within bounds. Its methods belong in threads."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from streamq.inbox.box import Kept
from streamq.inbox.head import MOST_HEAD, Head, Mailbox, head_of
from streamq.inbox.letter import Letter, read_letter
from streamq.mail.plain import converted

__all__ = ["Reader"]

LETTERS = 8
LETTER_BYTES = 64 * 1024 * 1024  # of all letters together; one that is larger stands alone
WORDS_MOST = 20_000  # characters of a mail that a search looks at
WORDS_ALL = 32 * 1024 * 1024  # characters of all together
WORDS_LEAST = 200  # what an entry costs in any case
HEAD_BYTES = 16_000_000  # of heads together: each may name 150 people, most take one or two kilobytes
HTML_MOST = 200_000  # characters that become words


class Reader:
    """Several threads may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._letters: OrderedDict[int, tuple[Letter, int]] = OrderedDict()
        self._words: OrderedDict[int, str] = OrderedDict()
        self._heads: OrderedDict[int, Head] = OrderedDict()
        self._letter_bytes = self._word_characters = self._head_bytes = 0

    def head(self, kept: Kept) -> Head:
        """Raises `NotFound`."""
        with self._lock:
            found = self._heads.get(kept.number)
            if found is not None:
                self._heads.move_to_end(kept.number)
                return found
        head = head_of(kept.content(MOST_HEAD))
        with self._lock:
            if kept.number not in self._heads:
                self._heads[kept.number] = head
                self._head_bytes += head.weight
            while len(self._heads) > 1 and self._head_bytes > HEAD_BYTES:
                _, oldest = self._heads.popitem(last=False)
                self._head_bytes -= oldest.weight
        return head

    def letter(self, kept: Kept) -> Letter:
        """Raises `NotFound`."""
        with self._lock:
            found = self._letters.get(kept.number)
            if found is not None:
                self._letters.move_to_end(kept.number)
                return found[0]
        content = kept.content()
        letter = read_letter(content)
        with self._lock:
            if kept.number not in self._letters:
                self._letters[kept.number] = (letter, len(content))
                self._letter_bytes += len(content)
            while len(self._letters) > 1 and (len(self._letters) > LETTERS or self._letter_bytes > LETTER_BYTES):
                _, (_, size) = self._letters.popitem(last=False)
                self._letter_bytes -= size
        return letter

    def words(self, kept: Kept) -> str:
        """Its text, and what its html says, in small letters. Raises `NotFound`."""
        with self._lock:
            found = self._words.get(kept.number)
            if found is not None:
                self._words.move_to_end(kept.number)
                return found
        letter = read_letter(kept.content())  # not `letter`: a search would push out those that people look at
        html = converted(letter.html[:HTML_MOST]) if letter.html else ""
        words = " ".join(f"{letter.text[:WORDS_MOST]}\n{html[:WORDS_MOST]}".casefold().split())
        with self._lock:
            if kept.number not in self._words:
                self._words[kept.number] = words
                self._word_characters += len(words) + WORDS_LEAST
            while self._word_characters > WORDS_ALL:
                _, oldest = self._words.popitem(last=False)
                self._word_characters -= len(oldest) + WORDS_LEAST
        return words

    def recipients(self, kept: Kept) -> tuple[str, ...]:
        """Of the envelope; where nobody knows it, of To and Cc. Raises `NotFound`."""
        if kept.envelope is not None:
            return kept.envelope.envelope_to
        head = self.head(kept)
        return tuple(each.address for each in (*head.to, *head.cc))

    def senders(self, kept: Kept) -> tuple[str, ...]:
        """From, and the return path. Raises `NotFound`."""
        known = () if kept.envelope is None else (kept.envelope.envelope_from,)
        return (*(each.address for each in self.head(kept).from_), *known)

    def people(self, kept: Kept) -> tuple[Mailbox, ...]:
        """All whom it names. Raises `NotFound`."""
        head = self.head(kept)
        return (
            *head.from_,
            *head.to,
            *head.cc,
            *(Mailbox("", each) for each in (*self.recipients(kept), *self.senders(kept))),
        )
