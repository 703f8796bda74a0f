"""What a client does, without saying how it waits: one text for threads and for tasks.

Each course is a generator that yields what it needs, `Ask` (commands to Redis: it is sent the `Answers`) or `Pause`,
and returns its result; `client` and `async_client` run them. An XADD is repeated only where its reply was lost, under
the same id and with the same bytes, which the queue knows for a duplicate; and only so often.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from streamq.client.depth import Depth
from streamq.client.mail import Mail, check
from streamq.client.result import NotSent, Result, Sent
from streamq.client.sign import Sign
from streamq.errors import (
    MailError,
    NoReply,
    OutOfMemory,
    QueueFull,
    Refused,
    SendError,
    SettingsError,
    TooDeep,
    Unreachable,
)
from streamq.keys import Keys

if TYPE_CHECKING:  # redis and pydantic are loaded by the client that is used, not by the one that is imported
    from streamq.queue.producer import Answers

__all__ = ["Ask", "Dispatch", "Limits", "Pause", "Run", "Steps"]

T = TypeVar("T")
GROWTH = 4  # a message is never so many times its fields, but for a head of a few hundred octets
HEAD = 4096
PAUSE_S = 0.05  # before the first repetition; each further pause is four times as long
LOOK_S = 0.25  # between looks at a stream that is too deep
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Ask:
    commands: Sequence[Sequence[str | bytes | int]]


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Steps: TypeAlias = "Generator[Ask | Pause, Answers | None, T]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`max_depth`: mails in a priority's stream, None for any number; `wait`: seconds to wait for room, 0 refuses at
    once; `tries`: XADDs of one mail whose replies are lost, at most; `timeout` in seconds, `connections` as in `Line`;
    `mails`, `octets` of one write. Raises `SettingsError`."""

    max_depth: int | None
    wait: float
    tries: int
    timeout: float
    connections: int
    mails: int
    octets: int

    def __post_init__(self) -> None:
        for name, value, least in (
            ("max_depth", self.max_depth, 1),
            ("wait", self.wait, 0),
            ("tries", self.tries, 1),
            ("timeout", self.timeout, 0.001),
            ("connections", self.connections, 1),
            ("batch_mails", self.mails, 1),
            ("batch_bytes", self.octets, 1),
        ):
            if value is not None and not value >= least:
                raise SettingsError(f"{name}: at least {least} (got {value!r})")


@dataclass(slots=True)
class _Item:
    """A mail of a batch under way. `lost`: XADDs that went out and were not answered."""

    mail: Mail
    result: Result | None = None
    lost: int = 0
    why: str = ""

    def fail(self, error: SendError | MailError | SettingsError) -> None:
        if self.lost and not isinstance(error, NoReply):  # refused now, but an earlier one may stand
            error = NoReply(f"{_no_reply(self)}; then: {error}")
        self.result = NotSent(self.mail.id, error)


class Dispatch:
    """One queue as a producer knows it. Shared by threads. `trace` gives the caller's `traceparent`, b"" for none."""

    def __init__(
        self,
        queue: str,
        priorities: Sequence[str],
        max_bytes: int,
        limits: Limits,
        clock: Callable[[], float],
        trace: Callable[[], bytes] | None = None,
    ) -> None:
        self.limits = limits
        self._trace = trace
        self._keys = Keys(queue)
        self._priorities = tuple(priorities)
        self._learned = False
        self._max_bytes = max_bytes
        self._clock = clock
        self._depths: dict[str, Depth] = {}
        self._sign = Sign()

    def send(self, mail: Mail) -> Steps[Sent]:
        """Raises `SendError`, `MailError`, `SettingsError`."""
        run = Run(self)
        yield from run.batch([mail])
        (result,) = run.results
        if isinstance(result, NotSent):
            raise result.error
        return result

    def learn(self) -> Steps[None]:
        """The queue's own priorities: their order is part of each entry's name, and never changes. They are the
        settings' as long as nobody has opened the queue, or where the ACL gives this user nothing but XADD."""
        if self._learned:
            return
        found = yield from self._look("HGET", self._keys.meta, "priorities")
        if isinstance(found, bytes):
            self._priorities = tuple(found.decode().split(","))
        self._learned = found is not None

    def opening(self) -> Steps[None]:
        """Wait until the queue takes mail, at all. Raises `QueueFull`, `Unreachable`. Where the ACL lets this user not
        look, nobody does."""
        until = self._clock() + self.limits.wait
        while True:
            now = self._clock()
            if self._sign.wants_look(now):
                self._sign.looked((yield from self._look("GET", self._keys.full)), now)
                if self._sign.full is None:
                    yield from self._count()
            if (full := self._sign.full) is None:
                return
            if now >= until:
                raise full
            yield Pause(min(LOOK_S, until - now))

    def _count(self) -> Steps[None]:
        """By what the last worker left of the queue's bounds. Where the ACL lets this user not look, nobody does."""
        most = yield from self._look("GET", self._keys.bounds)
        if not (isinstance(most, bytes) and most.isdigit()):
            return
        depths = yield from self._replies([("XLEN", self._keys.stream(name)) for name in self._priorities])
        self._sign.counted(sum(many for many in depths if isinstance(many, int)), int(most))

    def room(self, priority: str) -> Steps[None]:
        """Wait until the stream is shallow enough. Raises `TooDeep`, `Unreachable`, `Refused`."""
        most = self.limits.max_depth
        if most is None:
            return
        depth = self._depths.setdefault(priority, Depth())
        until = self._clock() + self.limits.wait
        while True:
            now = self._clock()
            if depth.wants_look(now, most):
                found = yield from self._look("XLEN", self._keys.stream(priority))
                if not isinstance(found, int):
                    raise Refused(f"max_depth needs XLEN of {self._keys.stream(priority)}: {found}")
                depth.looked(found, now)
            if depth.known < most:
                return
            if now >= until:
                waited = f" after {self.limits.wait:g} s" if self.limits.wait else ""
                raise TooDeep(f"{depth.known} mails are in {priority}{waited}, max_depth is {most}")
            yield Pause(min(LOOK_S, until - now))

    def _look(self, *command: str | bytes | int) -> Steps[Any]:
        """The reply, or the error that stands for it."""
        return (yield from self._replies([command]))[0]

    def _replies(self, commands: Sequence[Sequence[str | bytes | int]]) -> Steps[Sequence[Any]]:
        """Or the errors that stand for them. Asked again where one was lost, since they change nothing."""
        why = ""
        for attempt in range(self.limits.tries):
            if attempt:
                yield Pause(PAUSE_S * 4 ** (attempt - 1))
            answers = yield Ask(commands)
            assert answers is not None
            if len(answers.replies) == len(commands):
                return answers.replies
            why = answers.broken
        raise Unreachable(f"no connection to Redis: {why}")

    def command(self, mail: Mail) -> list[str | bytes | int]:
        made: list[str | bytes | int] = ["XADD", self._keys.stream(mail.priority), "*"]
        made += (part for pair in mail.fields.items() for part in pair)
        # Part of no content, so the same mail sent again in another trace is the same mail.
        if self._trace is not None and b"traceparent" not in mail.fields and (where := self._trace()):
            made += (b"traceparent", where)
        return made

    def refused(self, mail: Mail) -> MailError | SettingsError | None:
        """What is wrong with it that only the queue's settings tell."""
        if mail.priority not in self._priorities:
            return SettingsError(f"priority: one of {', '.join(self._priorities)} (got {mail.priority!r})")
        if mail.size * GROWTH + HEAD > self._max_bytes:
            try:
                check(mail.fields, max_bytes=self._max_bytes)
            except MailError as wrong:
                return wrong
        return None

    def settle(self, item: _Item, reply: Any) -> None:
        """The reply to its XADD."""
        if isinstance(reply, bytes):
            entry = f"{self._priorities.index(item.mail.priority)}{reply.decode()}"
            item.result = Sent(item.mail.id, entry, item.lost)
            if depth := self._depths.get(item.mail.priority):
                depth.added(1)
            return
        kind = OutOfMemory if type(reply).__name__ == "OutOfMemoryError" or str(reply).startswith("OOM") else Refused
        said = "Redis is out of memory (maxmemory), nothing was queued" if kind is OutOfMemory else "Redis refused it"
        item.fail(kind(f"id {item.mail.id!r}: {said}: {reply}"))


class Run:
    """One call of `send_many`: `results` has one for each mail given so far, in their order.

    What is wrong with the queue ends it: no mail after that is tried (of one priority, where only its stream is
    concerned), and each gets the same error.
    """

    def __init__(self, dispatch: Dispatch) -> None:
        self.results: list[Result] = []
        self._dispatch = dispatch
        self._stopped: dict[str, SendError] = {}

    def batch(self, mails: Sequence[Mail]) -> Steps[None]:
        items = [_Item(mail) for mail in mails]
        self._skip(items)
        if any(item.result is None for item in items):
            yield from self._carry(items)
        for item in items:
            assert item.result is not None
            self.results.append(item.result)

    def _skip(self, items: Sequence[_Item]) -> None:
        """Those that were not written, whatever became of the one that stopped this run."""
        for item in items:
            error = self._stopped.get(EVERY) or self._stopped.get(item.mail.priority)
            if item.result is None and error:
                kind = Unreachable if isinstance(error, NoReply) else type(error)
                again = kind(f"not tried: {error}")
                if isinstance(error, QueueFull) and isinstance(again, QueueFull):
                    again.bound, again.used, again.most = error.bound, error.used, error.most
                item.fail(again)

    def _carry(self, items: Sequence[_Item]) -> Steps[None]:
        dispatch = self._dispatch
        try:
            yield from dispatch.learn()
            for item in items:
                if item.result is None and (wrong := dispatch.refused(item.mail)):
                    item.fail(wrong)
            if any(item.result is None for item in items):
                yield from dispatch.opening()
            yield from self._find_room(items)
        except (Unreachable, QueueFull) as no:
            for item in items:
                if item.result is None:
                    item.fail(no)
        for attempt in range(dispatch.limits.tries):
            open_ = [item for item in items if item.result is None]
            if not open_:
                break
            if attempt:
                yield Pause(PAUSE_S * 4 ** (attempt - 1))
            answers = yield Ask([dispatch.command(item.mail) for item in open_])
            assert answers is not None
            for item, reply in zip(open_, answers.replies, strict=False):
                dispatch.settle(item, reply)
            for item in open_[len(answers.replies) :]:
                item.lost += answers.written
                item.why = answers.broken
        self._close(items)

    def _find_room(self, items: Sequence[_Item]) -> Steps[None]:
        for priority in dict.fromkeys(item.mail.priority for item in items if item.result is None):
            try:
                yield from self._dispatch.room(priority)
            except (TooDeep, Refused) as full:
                for item in items:
                    if item.result is None and item.mail.priority == priority:
                        item.fail(full)

    def _close(self, items: Sequence[_Item]) -> None:
        for item in items:
            if item.result is None:
                item.fail(NoReply(_no_reply(item)) if item.lost else Unreachable(f"no connection to Redis: {item.why}"))
            error = item.result.error if isinstance(item.result, NotSent) else None
            if isinstance(error, Refused | TooDeep):
                self._stopped.setdefault(item.mail.priority, error)
            elif isinstance(error, Unreachable | NoReply | OutOfMemory | QueueFull):
                self._stopped.setdefault(EVERY, error)


def _no_reply(item: _Item) -> str:
    often = "its XADD" if item.lost == 1 else f"{item.lost} XADDs of it"
    return f"id {item.mail.id!r}: no reply to {often} ({item.why}): it may be queued; the same id can be sent again"
