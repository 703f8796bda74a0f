"""Lines of plain text, put together from words, breaks, lists and quotes: the writing half of `plain`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lines"]

MAX_DEPTH = 6  # of lists and quotes; what is deeper stands where the sixth does


@dataclass(slots=True)
class Holder:
    tag: str
    indent: str
    items: int = 0


class Lines:
    """Breaks and blanks are remembered and written before the next word, so that none stand at an end and never
    two empty lines follow each other."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._line: list[str] = []
        self._breaks = 0  # line ends to come
        self._blank = False
        self._glued = False  # to the last word, and no blank behind it yet
        self._cells = 0  # of a table's row, ended on this line since the last word
        self._sign = ""  # of a list's item that has no word yet
        self._holders: list[Holder] = []
        self._deeper: dict[str, int] = {}

    def say(self, words: str) -> None:
        """Words without line ends; at least one."""
        if self._breaks:
            self._break()
        if not self._line:
            self._begin()
        elif self._cells:
            self._line.append(" |" * self._cells + " ")
        elif self._blank or (self._glued and words[0].isalnum()):
            self._line.append(" ")
        self._line.append(words)
        self._cells = 0
        self._blank = self._glued = False

    def glue(self, words: str) -> None:
        """Behind the last word, whatever breaks were asked for since."""
        if self._line:
            self._line.append(" " + words)
            self._glued = True
        else:
            self.say(words)

    def blank(self) -> None:
        self._blank = True

    def cell(self) -> None:
        if self._line and not self._breaks:
            self._cells += 1

    def end_line(self) -> None:
        self._breaks = min(self._breaks + 1, 2)

    def alone(self) -> None:
        self._breaks = max(self._breaks, 1)

    def apart(self) -> None:
        self._breaks = 2

    def open(self, tag: str) -> None:
        """`ul`, `ol`, `blockquote`."""
        self._around(tag)
        self._break()  # the empty line before it is outside of it
        if len(self._holders) < MAX_DEPTH:
            self._holders.append(Holder(tag, {"ul": "  ", "ol": "   "}.get(tag, "> ")))
        else:
            self._deeper[tag] = self._deeper.get(tag, 0) + 1

    def close(self, tag: str) -> None:
        self._sign = ""
        if self._deeper.get(tag):
            self._deeper[tag] -= 1
        else:
            for at in range(len(self._holders) - 1, -1, -1):
                if self._holders[at].tag == tag:
                    self._end()  # what is written ends inside, the empty line behind it stands outside
                    del self._holders[at:]
                    break
        self._around(tag)

    def item(self) -> None:
        holder = self._holders[-1] if self._holders else None
        if holder is None or holder.tag != "ol":
            self._sign = "* "
        else:
            holder.items += 1
            self._sign = f"{holder.items}. "

    def text(self) -> str:
        self._end()
        while self._done and not self._done[-1].strip("> "):
            self._done.pop()
        return "".join([line + "\n" for line in self._done])

    def _around(self, tag: str) -> None:
        if tag != "blockquote" and self._holders:
            self.alone()
        else:
            self.apart()

    def _break(self) -> None:
        if self._line:
            self._end()
        if self._breaks > 1 and self._done and self._done[-1].strip("> "):
            self._done.append("".join([each.indent for each in self._holders]).rstrip())
        self._breaks = self._cells = 0
        self._blank = False

    def _begin(self) -> None:
        indents = [each.indent for each in self._holders]
        if self._sign and indents and self._holders[-1].tag != "blockquote":
            indents[-1] = self._sign
        elif self._sign:
            indents.append(self._sign)
        self._line.append("".join(indents))
        self._sign = ""

    def _end(self) -> None:
        if self._line:
            self._done.append("".join(self._line).rstrip())
            self._line = []
