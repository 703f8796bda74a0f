"""Who acts on a queue: producers with their mails, workers with what they believe."""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger import Mail, ident, order

__all__ = ["AGE_MS", "USUAL_ROUTE", "Spec", "Worker"]

AGE_MS = 60 * 60_000  # max_age
USUAL_ROUTE = "main"


@dataclass(frozen=True, slots=True)
class Spec:
    """A mail as a producer thinks of it. Times in ms from the Unix epoch, 0 for none."""

    lane: str
    kind: str = "send"
    id: str = ""
    content: str = "a"
    tenant: str = ""
    send_at: int = 0
    expires_at: int = 0

    def fields(self) -> dict[str, str]:
        route, _, site = self.lane.partition("|")
        given = {"id": self.id, "tenant": self.tenant, "subject": self.content, "to": f"bob@{site}"}
        given |= {"route": route} if route != USUAL_ROUTE else {}
        given |= {name: str(at) for name, at in (("send_at", self.send_at), ("expires_at", self.expires_at)) if at}
        given |= {"field": "x"} if self.kind == "hold" else {}
        return {name: value for name, value in given.items() if value}

    def intake(self, entry: str) -> Mail:
        """What a worker makes of it."""
        age_over = max(order(entry)[0], self.send_at) + AGE_MS
        own = min(filter(None, (self.expires_at, age_over if self.send_at else 0)), default=0)
        deadline = min(own or age_over, age_over)
        content = "\n".join(f"{name}={value}" for name, value in self.fields().items() if name != "id")
        known = ident(self.tenant, self.id, content) if self.id and self.kind == "send" else b""
        tail = f'"site":"{self.lane.partition("|")[2]}"' + (f',"tenant":"{self.tenant}"' if self.tenant else "")
        return Mail(
            entry, self.kind, self.lane, self.fields(), tail,
            due=self.send_at, deadline=deadline, expires=min(own, deadline), ident=known,
        )  # fmt: skip


@dataclass(slots=True)
class Worker:
    """What one process believes: `hand` is entry → token (None: read, not yet admitted); `old` are leases that it
    once had; `ready` may go without being admitted again."""

    name: str
    hand: dict[str, int | None] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    old: list[tuple[str, int]] = field(default_factory=list)
    bell: list[str] = field(default_factory=list)

    def drop(self, entry: str) -> None:
        token = self.hand.pop(entry, None)
        self.ready.discard(entry)
        if token is not None:
            self.old = [*self.old[-20:], (entry, token)]

    def take(self, entry: str, token: int | None, *, ready: bool = False) -> None:
        self.drop(entry)
        self.hand[entry] = token
        if ready:
            self.ready.add(entry)

    @property
    def leases(self) -> list[tuple[str, int]]:
        return [(entry, token) for entry, token in self.hand.items() if token is not None]
