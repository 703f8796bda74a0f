"""What operators, keepers and people with a redis-cli do to a queue, each step beside the model's book."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import predicted_moves
from actors import AGE_MS
from ground import Ground
from ledger import PRIORITIES, Mail, order
from look import look

from streamq.keys import GROUP

__all__ = ["Operating"]


class Operating(Ground):
    """What is done to a queue beside its workers."""

    def move(self, verb: str, entries: Sequence[str], at_ms: int | None = None) -> None:
        mails = [self.mail(entry) for entry in entries]
        reply = self.run(self.spool.scripts.move(verb, entries, at_ms))
        predicted_moves.move(self.book, verb, mails, at_ms, reply)

    def expire(self) -> None:
        ended, lanes, more = 0, "", 1
        while more or lanes:
            more, lanes, _ = self.run(self.spool.scripts.expire([AGE_MS], lanes))
            ended += more
            assert ended <= len(self.book.mails), f"{ended} have expired, there were {len(self.book.mails)} mails"
        seen = self.run(look(self.spool, self.last_event))
        said = {data["entry"] for kind, _, data in seen.events if kind in {"email.expired", "email.relayed"}}
        predicted_moves.expire(self.book, ended, said)

    def requeue(self, pick: Callable[[Sequence[str]], str]) -> None:
        letters = {id_.decode(): flat for id_, flat in self.raw("XRANGE", self.keys.dead, "-", "+")}
        if not letters:
            return
        letter = pick(sorted(letters))
        fields = dict(zip(letters[letter][::2], letters[letter][1::2], strict=True))
        old = fields[b"dead_entry"].decode()
        said, again = self.run(self.spool.scripts.requeue([letter, letter]))
        assert again == "missing", f"letter {letter} was requeued twice: {again}"
        self.book.letters = [mail for mail in self.book.letters if mail.entry != old]
        mail = self.added(int(old[0]), order(said), self.specs[old])
        assert mail.entry == said, f"requeued as {said}, by the book {mail.entry}"
        self.book.event("email.requeued", said)

    def delete(self, mail: Mail) -> None:
        """Somebody's XDEL."""
        self.raw("XDEL", self.spool.stream(mail.entry), mail.entry[1:])
        mail.deleted = True

    def lose_group(self, p: int) -> None:
        """Until the next call that needs it."""
        self.raw("XGROUP", "DESTROY", self.keys.stream(PRIORITIES[p]), GROUP)
        for mail in self.book.mails.values():
            if mail.p == p:
                mail.pel, mail.late = None, False
        self.book.cursor[p] = (0, 0)
        there = self.book.stream(p)
        self.book.mark[p] = order(there[-1].entry) if there else None

    def rule(self, name: str, verb: str) -> None:
        if verb:
            self.raw("HSET", self.keys.holds, name, verb)
            self.book.rules[name] = verb
        else:
            self.raw("HDEL", self.keys.holds, name)
            self.book.rules.pop(name, None)
