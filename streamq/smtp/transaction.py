"""The transaction: MAIL, RCPT, DATA, the body, the dot; every reply read, every ending judged.

NAME       Transaction, made once for a connection and used for each of its mails
PIPELINING `transaction`, and the server offers it (RFC 2920): MAIL, RCPT and DATA in one write, the body in
           the next. Else one by one. `overlap` lost: where a server closes with our bytes unread, TCP's reset
           can eat its last 250.
REFUSALS   The first refusal decides, and all replies are read. If DATA got its 354 nevertheless, exactly `.`
           is sent and its reply ignored (RFC 2920, 3.1); but where RCPT was accepted and only MAIL refused,
           that dot could make an empty mail, so the connection is closed instead.
NOT OURS   The mark is awaited between the 354 and the body. False: the connection is closed before a byte of
           the body, report ABANDON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streamq.settings import RouteSettings
from streamq.smtp.connection import Connection
from streamq.smtp.content import PIECE, ahead_of_last, stuffed
from streamq.smtp.envelope import Unfit, envelope
from streamq.smtp.judge import Judge
from streamq.smtp.letter import Action, Letter, Report, Scope, Stage
from streamq.smtp.replies import Replies

__all__ = ["Mark", "Transaction"]

Mark = Callable[[int, Letter], Awaitable[bool]]


class Transaction:
    """`run` once per letter; `interrupted` says what to report when `run` did not return."""

    def __init__(self, link: Connection, route: RouteSettings, rules: Replies, mark: Mark | None) -> None:
        self.link = link
        self.wire = link.wire
        self.judge = Judge(link, rules)
        self.mark = mark
        self.pipelining = link.offer.pipelining and route.pipelining == "transaction"
        self.command_seconds = route.command_timeout / 1000
        self.data_seconds = route.data_timeout / 1000
        self.body_seconds = route.body_timeout / 1000
        self.dot_seconds = route.dot_timeout / 1000

    async def run(self, letter: Letter) -> Report:
        """Never raises for anything that a server does; cancelling it leaves the letter to `interrupted`."""
        self.judge.begin()
        lines = envelope(letter, self.link.offer)
        if isinstance(lines, Unfit):
            return self.judge.unfit(lines)
        self.link.mails += 1
        refused = await (self._together(*lines) if self.pipelining else self._in_turn(*lines))
        if refused is not None:
            return refused
        # The server says nothing before it has the body: what it said by now is no answer to anything.
        if not self.wire.between_replies:
            self.wire.breach("more replies than commands")
        if self.mark is not None and not self.wire.fault:
            self.wire.disarm()
            if not await self.mark(self.link.number, letter):
                self.link.abort()
                return self.judge.report(Action.ABANDON, Scope.MAIL, "abandoned")
        if self.wire.fault:
            return self.judge.broken()
        return await self._deliver(letter.content)

    def interrupted(self) -> Report:
        """`run` was cancelled, or the mark raised: closes the connection at once."""
        self.link.abort()
        return self.judge.interrupted()

    # -- the envelope ----------------------------------------------------------------------------------------

    async def _together(self, mail_line: bytes, rcpt_line: bytes) -> Report | None:
        """None: all accepted, the 354 has come."""
        wire, link = self.wire, self.link
        reset = link.dirty
        link.dirty = False
        wire.ask(
            (b"RSET\r\n" if reset else b"") + mail_line + rcpt_line + b"DATA\r\n",
            4 if reset else 3,
            self.command_seconds,
        )
        if reset and (broken := await self._reset_done()) is not None:
            return broken
        mail = await wire.read()
        if mail is None:
            return self.judge.broken()
        if self.judge.closes(mail):
            return self.judge.judged(mail, Stage.MAIL)
        refused = None if mail.positive else self.judge.judged(mail, Stage.MAIL)
        self.judge.accepted = mail.positive
        self.judge.stage = Stage.RCPT
        wire.arm(self.command_seconds)
        rcpt = await wire.read()
        if rcpt is None:
            return refused or self.judge.broken()
        if self.judge.closes(rcpt):
            return refused or self.judge.judged(rcpt, Stage.RCPT)
        if refused is None and not rcpt.positive:
            refused = self.judge.judged(rcpt, Stage.RCPT)
        self.judge.stage = Stage.DATA
        wire.arm(self.data_seconds)
        data = await wire.read()
        if data is None:
            return refused or self.judge.broken()
        if self.judge.closes(data):
            return refused or self.judge.judged(data, Stage.DATA)
        if data.code == 354:
            if refused is not None:
                await self._empty_dot(rcpt.positive)
            return refused
        link.dirty = mail.positive or rcpt.positive
        return refused or self.judge.judged(data, Stage.DATA)

    async def _in_turn(self, mail_line: bytes, rcpt_line: bytes) -> Report | None:
        """As `_together`, one command at a time."""
        wire, link = self.wire, self.link
        if link.dirty:
            link.dirty = False
            wire.ask(b"RSET\r\n", 1, self.command_seconds)
            if (broken := await self._reset_done()) is not None:
                return broken
        for stage, line, seconds in (
            (Stage.MAIL, mail_line, self.command_seconds),
            (Stage.RCPT, rcpt_line, self.command_seconds),
            (Stage.DATA, b"DATA\r\n", self.data_seconds),
        ):
            self.judge.stage = stage
            wire.ask(line, 1, seconds)
            reply = await wire.read()
            if reply is None:
                return self.judge.broken()
            if not (reply.code == 354 if stage is Stage.DATA else reply.positive):
                self.judge.closes(reply)
                link.dirty = stage is not Stage.MAIL
                return self.judge.judged(reply, stage)
            self.judge.accepted = True
        return None

    async def _reset_done(self) -> Report | None:
        reply = await self.wire.read()
        if reply is None:
            return self.judge.broken()
        if reply.positive:
            return None
        if not self.judge.closes(reply):
            self.wire.breach(f"RSET was answered with {reply.code}")
            return self.judge.broken()
        return self.judge.judged(reply, Stage.MAIL)

    async def _empty_dot(self, recipient_stands: bool) -> None:
        """End a DATA that nobody wanted."""
        if recipient_stands or not self.wire.between_replies:
            self.link.ended = True
            return
        self.wire.ask(b".\r\n", 1, self.command_seconds)
        reply = await self.wire.read()
        if reply is not None:
            self.judge.closes(reply)

    # -- the body --------------------------------------------------------------------------------------------

    async def _deliver(self, content: bytes) -> Report:
        wire = self.wire
        body = stuffed(content)
        wire.due = 1  # already now: some servers refuse in the middle of the body
        if len(body) > PIECE:
            early = await self._write_ahead(body)
            if early is not None:
                return early
            body = body[ahead_of_last(body) :]
        self.judge.dotted = True
        self.judge.stage = Stage.DOT
        wire.arm(self.dot_seconds)
        wire.write(body + b".\r\n")
        reply = await wire.read()
        if reply is None:
            return self.judge.broken()
        self.judge.closes(reply)
        if reply.code < 400 and not reply.positive:
            self.link.ended = True
            return self.judge.report(Action.AMBIGUOUS, Scope.SESSION, "protocol", reply)
        return self.judge.judged(reply, Stage.DOT)

    async def _write_ahead(self, body: bytes) -> Report | None:
        """All but the last piece, drained: a server that stops reading is met before the dot is out."""
        wire = self.wire
        whole = memoryview(body)
        for at in range(0, ahead_of_last(body), PIECE):
            wire.arm(self.body_seconds)
            wire.write(whole[at : at + PIECE])
            if not await wire.drain():
                break
        if not wire.replies:
            return self.judge.broken() if wire.fault else None
        reply = wire.replies.popleft()
        self.link.ended = True
        if reply.code >= 400:
            return self.judge.judged(reply, Stage.DATA)
        wire.breach(f"{reply.code} in the middle of the body")
        return self.judge.broken()
