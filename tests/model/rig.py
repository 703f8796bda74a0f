"""Several workers, producers and operators on a real server, each step beside the model's book; and the looks that hold
the two together.
"""

from __future__ import annotations

from typing import Any

from actors import Worker
from ledger import PRIORITIES, ident
from look import Look, differences, look
from operating import Operating
from working import IDLE_MS, Working

from streamq.keys import GROUP
from streamq.mail.event import hashed_address
from streamq.queue.check import CheckReport, Wrong, check

__all__ = ["IDS", "Rig"]

# What expires does so by the server's own time: on a slow machine a limit was forgotten a second later, in no time of
# ours. What has no time to live gets none, since that is a leak.
LAST = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  if redis.call('PTTL', key) > 0 then redis.call('PEXPIRE', key, ARGV[2]) end
end
"""
IDS = ("a1", "a2")


class Rig(Working, Operating):
    """One queue, its book, its workers; and what `law`, `check` and others find there."""

    def next_due(self) -> int:
        """µs at which the next thing falls due; 0 for none."""
        seen = self.run(look(self.spool, self.last_event))
        return min([*(ms * 1000 for ms in seen.scheduled.values()), *seen.due.values()], default=0)

    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """All that are kept."""
        return self.run(look(self.spool)).events

    def bare(self, worker: Worker) -> None:
        """Its bell, too: what it heard and never answered."""
        for id_, who, _, _ in self.raw("XPENDING", self.keys.bell, GROUP, "-", "+", 10):
            if who.decode() == worker.name:
                self.raw("XACK", self.keys.bell, GROUP, id_)
        worker.bell.clear()

    def law(self) -> None:
        self.raw("EVAL", LAST, 0, self.keys.prefix + "limit:*", IDLE_MS)
        got: Look = self.run(look(self.spool, self.last_event))
        self.last_event = got.last_event
        wrong = [*differences(self.book, got), *self._nameless(got)]
        assert not wrong, "; ".join(wrong)

    def _nameless(self, got: Look) -> list[str]:
        """Events that do not say to whom their mail was, whoever wrote them: a worker, or a script alone. Beside a
        field that nobody knows a script says nothing."""
        wrong = []
        for kind, _, data in got.events:
            mail = self.known.get(data.get("entry", ""))
            if mail is None or kind == "email.requeued":
                continue
            silent = "field" in mail.fields and "site" not in data
            rcpt = data.get("rcpt") in (None, hashed_address(f"bob@{mail.site}"))  # no worker said what pii is
            if not rcpt or (data.get("site") != mail.site and not silent):
                wrong.append(f"{kind} of {mail.entry}, to {mail.site}: {data.get('rcpt')}, {data.get('site')}")
        return wrong

    def find(self) -> None:
        """Who owns the producers' ids."""
        asked = [(tenant, id_) for tenant in ("", "t") for id_ in IDS]
        found = self.run(self.spool.scripts.find([(tenant or None, id_) for tenant, id_ in asked]))
        owners = [self.book.owner(ident(tenant, id_, "")[:10]) for tenant, id_ in asked]
        assert found == [owner[0] if owner else "" for owner in owners], f"found {found}, by the book {owners}"

    def lead(self, worker: Worker, ttl_ms: int) -> None:
        """One leads, until it gives that back."""
        leads = self.run(self.spool.scripts.leader("tick", worker.name, ttl_ms))
        may = self.book.leader in {"", worker.name}
        if may:
            self.book.leader = worker.name if ttl_ms else ""
        assert leads == (may and ttl_ms > 0), f"{worker.name} leads: {leads}, the leader is {self.book.leader}"

    def check(self, *, repair: bool = False) -> CheckReport:
        """`streamq check` says the same."""
        report = self.run(check(self.spool, repair=repair))
        orphans = [Wrong(mail.entry, "orphan") for mail in self.book.mails.values() if mail.deleted]
        assert sorted(report.wrong) == sorted(orphans), f"check: {report.wrong}, by the book {orphans}"
        for p, name in enumerate(PRIORITIES):
            states = [self.book.state(mail) for mail in self.book.stream(p)]
            by_book = {state: states.count(state) for state in report.seen[name]}
            assert dict(report.seen[name]) == by_book, f"check: {report.seen[name]}, by the book {by_book}"
        return report
