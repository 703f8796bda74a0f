"""The transaction: MAIL, RCPT, DATA, the body, the dot; every reply read, every ending judged.

NAME       Transaction, made once for a connection and used for each of its mails
PIPELINING where the route wants it and the server offers it (RFC 2920):
             `off`          one command at a time
             `transaction`  MAIL, RCPT and DATA in one write, the body in the next
             `overlap`      and in the body's write the next mail's MAIL, RCPT and DATA
CHUNKING   Where the route wants it and the server offers it (RFC 3030): the body goes behind BDAT … LAST, not
           stuffed, without DATA and dot. With `transaction` a body of one piece goes in the envelope's own write.
           What is said of the dot is said of the body's last byte.
REFUSALS   The first refusal decides, and all replies are read. If DATA got its 354 nevertheless, exactly `.`
           is sent and its reply ignored (RFC 2920, 3.1); but where RCPT was accepted and only MAIL refused,
           that dot could make an empty mail, so the connection is closed instead. If the body went along, its 250
           is read and not believed where RCPT was refused; where only MAIL was, nobody knows: AMBIGUOUS.
OVERLAP    `ahead` is the mail whose commands are out; `run` must be called with it next. At most one mail is past
           its dot: nothing is written between a dot and its reply, so no failing write can eat a 250. A second mail
           past its dot would win nothing over distance and make two mails ambiguous by one reset.
TIME       A mail may have a time of its own, up to its dot (`limits`); after the dot only `dot_timeout` counts,
           since whoever stops listening there makes doubles. A mail whose time is shorter than that wait is not sent
           ahead, where it would sit through another's dot, and its body never goes with its envelope.
NOT OURS   The mark is awaited before the first byte of the body: after the 354, or, where there is none, after RCPT's
           reply, or before the write that holds all. False: not a byte of the body, report ABANDON; if its commands
           are out the connection is closed. A server that left while the mark took longer than LATE_MARK left since it
         heard nothing of us: that is no judgement (PARK, `interrupted`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from streamq.settings import RouteSettings
from streamq.smtp.connection import Connection
from streamq.smtp.content import PIECE, ahead_of_last, stuffed
from streamq.smtp.envelope import Envelope, Unfit, envelope
from streamq.smtp.judge import Judge
from streamq.smtp.letter import Action, Letter, Report, Scope, Stage
from streamq.smtp.protocol import FOREVER, Reply
from streamq.smtp.replies import Replies

__all__ = ["Mark", "Next", "Transaction"]

Mark = Callable[[int, Letter], Awaitable[bool]]
Next = Callable[[Callable[[Letter], bool]], Letter | None]

RSET = b"RSET\r\n"
MOST_PATIENCE = 10
LATE_MARK = 10.0  # seconds


class Transaction:
    """`run` once per letter; `interrupted` says what to report when `run` did not return, `turned_back` what to report
    of a letter in `ahead` that `run` was not called with.

    `limits`: seconds for a whole transaction, by priority; infinite, and beyond the list: none. `take` gives the next
    letter if it fits, None: nothing goes ahead now.
    """

    def __init__(
        self,
        link: Connection,
        route: RouteSettings,
        rules: Replies,
        mark: Mark | None,
        limits: Sequence[float] = (),
        take: Next | None = None,
    ) -> None:
        self.link = link
        self.wire = link.wire
        self.judge = Judge(link, rules)
        self.mark = mark
        self.limits = limits
        offer = link.offer
        self.pipelining = offer.pipelining and route.pipelining != "off"
        self.chunking = offer.chunking and route.chunking
        self.take = take if self.pipelining and route.pipelining == "overlap" else None
        self.at_once = self.chunking and self.pipelining and self.take is None
        self.data_line = b"" if self.chunking else b"DATA\r\n"
        self.envelope_replies = 2 if self.chunking else 3
        self.command_seconds = route.command_timeout / 1000
        self.data_seconds = route.data_timeout / 1000
        self.body_seconds = route.body_timeout / 1000
        self.dot_seconds = route.dot_timeout / 1000
        self.ahead: Letter | None = None
        self._out = False  # its commands are: else it cannot go to this server, and `run` says why

    async def run(self, letter: Letter) -> Report:
        """Never raises for anything that a server does; cancelling it leaves the letter to `interrupted`."""
        out = self._out
        self.ahead, self._out = None, False
        begun = self.judge.begin(letter.site)
        if out:
            self.link.mails += 1
            self.wire.limit = begun + self._limit(letter)
            refused = await self._on_its_way()
        else:
            lines = envelope(letter, self.link.offer, self.link.verified)
            if isinstance(lines, Unfit):
                return self.judge.unfit(lines)
            self.link.mails += 1
            if self.at_once and self._goes_at_once(letter):
                return await self._at_once(letter, lines)
            self.wire.limit = begun + self._limit(letter)
            refused = await (self._together(lines) if self.pipelining else self._in_turn(lines))
        if refused is not None:
            self.wire.limit = FOREVER
            return refused
        self.judge.stage = Stage.DATA
        # The server says nothing before it has the body: what it said by now is no answer to anything.
        if not self.wire.between_replies:
            self.wire.breach("more replies than commands")
        late = False
        if self.mark is not None and not self.wire.fault:
            self.wire.disarm()
            asked_at = self.judge.now()
            if not await self.mark(self.link.number, letter):
                self.link.abort()
                return self.judge.report(Action.ABANDON, Scope.MAIL, "abandoned")
            late = self.judge.now() - asked_at > LATE_MARK
            if not self.wire.between_replies:  # nor by now: half a refusal may be behind a 354 that nobody asked for
                self.wire.breach("more replies than commands")
        if self.wire.fault:
            return self.interrupted() if late else self.judge.broken()
        return await self._deliver(letter.content)

    def interrupted(self) -> Report:
        """`run` was cancelled, or the mark raised: closes the connection at once."""
        self.link.abort()
        return self.judge.interrupted()

    def turned_back(self) -> Report:
        """Of the letter in `ahead`, after the report of the one before it."""
        self.ahead, self._out = None, False
        self.judge.begin("")
        return self.interrupted()

    def _limit(self, letter: Letter) -> float:
        """Seconds. Doubled each time: a server that always takes that long gets the mail in the end."""
        if letter.priority >= len(self.limits):
            return FOREVER
        return self.limits[letter.priority] * (1 << min(letter.patience, MOST_PATIENCE))

    def _unhurried(self, letter: Letter) -> bool:
        return self._limit(letter) >= self.dot_seconds

    def _goes_at_once(self, letter: Letter) -> bool:
        """One piece, since a body for a refused recipient is written in vain; no RSET before it."""
        small = len(letter.content) <= PIECE and not self.link.dirty and self._unhurried(letter)
        return small and letter.fresh_until == FOREVER  # nor the time that the mark takes before MAIL

    # -- the envelope ----------------------------------------------------------------------------------------

    async def _together(self, lines: Envelope) -> Report | None:
        """None: all accepted; without BDAT the 354 has come."""
        reset = self.link.dirty
        self.link.dirty = False
        self.wire.ask(
            (RSET if reset else b"") + lines.mail + lines.rcpt + self.data_line,
            self.envelope_replies + reset,
            self.command_seconds,
        )
        if reset and (broken := await self._reset_done()) is not None:
            return broken
        return await self._answers()

    async def _on_its_way(self) -> Report | None:
        """As `_together`, of a mail whose commands went out behind the body of the one before it."""
        if self.link.ended:  # with that mail; not a byte of this one's body is out
            self.link.abort()
            return self.judge.broken()
        self.wire.arm(self.command_seconds)
        if self.chunking and (broken := await self._reset_done()) is not None:
            return broken
        return await self._answers()

    async def _answers(self) -> Report | None:
        """The replies to MAIL, RCPT and DATA, where that was sent."""
        wire, link, judge = self.wire, self.link, self.judge
        mail = await wire.read()
        if mail is None:
            return judge.broken()
        if judge.closes(mail):
            return judge.judged(mail, Stage.MAIL)
        refused = None if mail.positive else judge.judged(mail, Stage.MAIL)
        judge.accepted = mail.positive
        judge.stage = Stage.RCPT
        wire.arm(self.command_seconds)
        rcpt = await wire.read()
        if rcpt is None:
            return refused or judge.broken()
        if judge.closes(rcpt):
            return refused or judge.judged(rcpt, Stage.RCPT)
        if refused is None and not rcpt.positive:
            refused = judge.judged(rcpt, Stage.RCPT)
        if self.chunking:
            if refused is not None and wire.fault == "protocol":
                return judge.broken()
            link.dirty = refused is not None
            return refused
        judge.stage = Stage.DATA
        wire.arm(self.data_seconds)
        data = await wire.read()
        if data is None:
            return refused or judge.broken()
        if judge.closes(data):
            return refused or judge.judged(data, Stage.DATA)
        if wire.fault == "protocol":  # out of step: what was refused may be another command, or nothing
            return judge.broken()
        if data.code == 354:
            if refused is not None:
                await self._empty_dot(rcpt.positive)
            return refused
        if data.code < 400:  # out of step as well
            return judge.judged(data, Stage.DATA)
        link.dirty = mail.positive or rcpt.positive
        return refused or judge.judged(data, Stage.DATA)

    async def _in_turn(self, lines: Envelope) -> Report | None:
        """As `_together`, one command at a time."""
        wire, link, judge = self.wire, self.link, self.judge
        if link.dirty:
            link.dirty = False
            wire.ask(RSET, 1, self.command_seconds)
            if (broken := await self._reset_done()) is not None:
                return broken
        for stage, line, seconds in (
            (Stage.MAIL, lines.mail, self.command_seconds),
            (Stage.RCPT, lines.rcpt, self.command_seconds),
            (Stage.DATA, self.data_line, self.data_seconds),
        ):
            if not line:
                break
            judge.stage = stage
            wire.ask(line, 1, seconds)
            reply = await wire.read()
            if reply is None:
                return judge.broken()
            if not (reply.code == 354 if stage is Stage.DATA else reply.positive):
                judge.closes(reply)
                link.dirty = stage is not Stage.MAIL
                return judge.judged(reply, stage)
            judge.accepted = True
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
        wire, judge = self.wire, self.judge
        chunk = b"BDAT %d LAST\r\n" % len(content) if self.chunking else b""
        body = chunk + content if chunk else stuffed(content)
        wire.due = 1  # already now: some servers refuse in the middle of the body
        if len(body) > PIECE:
            early = await self._write_ahead(body)
            if early is not None:
                return early
            body = body[ahead_of_last(body) :]
        judge.dotted = True
        judge.stage = Stage.DOT
        wire.limit = FOREVER
        wire.arm(self.dot_seconds)
        if not chunk:
            body += b".\r\n"
        wire.write(body if self.take is None else body + self._next_commands(self.take))
        return self._at_the_dot(await wire.read())

    def _at_the_dot(self, reply: Reply | None) -> Report:
        judge = self.judge
        if reply is None:
            return judge.broken()
        judge.closes(reply)
        if reply.code < 400 and not reply.positive:
            self.link.ended = True
            return judge.report(Action.AMBIGUOUS, Scope.SESSION, "protocol", reply)
        if reply.code >= 400 and self.chunking and not self._out:
            self.link.dirty = True  # what state that leaves is not defined (RFC 3030, 2)
        return judge.judged(reply, Stage.DOT)

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

    def _next_commands(self, take: Next) -> bytes:
        """What goes behind the body: the next mail's commands, or nothing. With BDAT a RSET before them: what state a
        refused chunk leaves is not defined (RFC 3030, 2)."""
        letter = self.ahead = take(self._unhurried)
        if letter is None:
            return b""
        lines = envelope(letter, self.link.offer, self.link.verified)
        if isinstance(lines, Unfit):
            return b""
        self._out = True
        self.wire.due += self.envelope_replies + self.chunking
        return (RSET if self.chunking else b"") + lines.mail + lines.rcpt + self.data_line

    async def _at_once(self, letter: Letter, lines: Envelope) -> Report:
        """Envelope and body in one write, the mark before it. Whatever breaks from then on is AMBIGUOUS, and no time
        limit of the mail's own holds."""
        wire, judge, link = self.wire, self.judge, self.link
        if self.mark is not None:
            if not await self.mark(link.number, letter):
                link.mails -= 1
                return judge.report(Action.ABANDON, Scope.MAIL, "abandoned")
            if wire.fault:
                return judge.broken()
        judge.dotted = True
        wire.ask(
            b"%b%bBDAT %d LAST\r\n%b" % (lines.mail, lines.rcpt, len(letter.content), letter.content),
            3,
            self.dot_seconds,
        )
        mail = await wire.read()
        if mail is None:
            return judge.broken()
        if judge.closes(mail):
            return judge.judged(mail, Stage.MAIL)
        refused = None if mail.positive else judge.judged(mail, Stage.MAIL)
        judge.stage = Stage.RCPT
        wire.arm(self.dot_seconds)
        rcpt = await wire.read()
        if rcpt is None:
            return refused or judge.broken()
        if not rcpt.positive:
            link.dirty = True
            if judge.closes(rcpt):
                return refused or judge.judged(rcpt, Stage.RCPT)
            refused = refused or judge.judged(rcpt, Stage.RCPT)
            if refused.action is Action.AMBIGUOUS:
                return refused
        judge.stage = Stage.DOT
        wire.arm(self.dot_seconds)
        reply = await wire.read()
        if wire.fault == "protocol":  # more replies than commands: none of them says whose it is
            return judge.broken()
        if refused is None:
            return self._at_the_dot(reply)
        link.dirty = True
        if reply is not None:
            judge.closes(reply)
        if rcpt.positive and (reply is None or reply.code < 400):
            # A sender who was refused, a recipient who was not, and the server has the body
            wire.breach("MAIL was refused, and RCPT and the body were not")
            return judge.broken()
        return refused
