"""The transaction: MAIL, RCPT, DATA, the body, the dot; every reply read, every ending judged.

NAME       Transaction, made once for a connection and used for each of its mails
PIPELINING `transaction`, and the server offers it (RFC 2920): MAIL, RCPT and DATA in one write, the body in
           the next. Else one by one. `overlap` lost: where a server closes with our bytes unread, TCP's reset
           can eat its last 250.
REFUSALS   The first refusal decides, and all replies are read. If DATA got its 354 nevertheless, exactly `.`
           is sent and its reply ignored (RFC 2920, 3.1); but where RCPT was accepted and only MAIL refused,
           that dot could make an empty mail, so the connection is closed instead.
BREAKS     Time-outs, resets, closes and garbage, by where they happen:
             before MAIL was accepted    PARK: nobody judged this mail
             up to the dot               RETRY: an attempt. A mail that kills its connection each time (a
                                         content filter that hangs, a server that crashes on it) would
                                         otherwise go round for ever without growing older on its schedule
             after the dot               AMBIGUOUS (RFC 1047)
           "After the dot" begins when the dot is handed to the system, not when the server has it.
NOT OURS   The mark is awaited between the 354 and the body. False: the connection is closed before a byte of
           the body, report ABANDON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from streamq.settings import RouteSettings
from streamq.smtp.connection import CUT, Connection
from streamq.smtp.letter import Action, Letter, Report, Scope, Stage
from streamq.smtp.protocol import Reply
from streamq.smtp.replies import Replies

__all__ = ["Mark", "Transaction", "plain_text"]

Mark = Callable[[int, Letter], Awaitable[bool]]

PIECE = 65_536  # bytes of a body that are written at once


class Transaction:
    """`run` once per letter; `interrupted` says what to report when `run` did not return."""

    def __init__(self, link: Connection, route: RouteSettings, rules: Replies, mark: Mark | None) -> None:
        self.link = link
        self.wire = link.wire
        self.rules = rules
        self.mark = mark
        self.pipelining = link.offer.pipelining and route.pipelining == "transaction"
        self.command_seconds = route.command_timeout / 1000
        self.data_seconds = route.data_timeout / 1000
        self.body_seconds = route.body_timeout / 1000
        self.dot_seconds = route.dot_timeout / 1000
        self._now = asyncio.get_running_loop().time
        self._begun = 0.0
        self._stage = Stage.MAIL
        self._accepted = False  # MAIL was
        self._dotted = False

    async def run(self, letter: Letter) -> Report:
        """Never raises for anything that a server does; cancelling it leaves the letter to `interrupted`."""
        self._begun = self._now()
        self._stage = Stage.MAIL
        self._accepted = self._dotted = False
        envelope = self._envelope(letter)
        if isinstance(envelope, Report):
            return envelope
        self.link.mails += 1
        refused = await (self._together(*envelope) if self.pipelining else self._in_turn(*envelope))
        if refused is not None:
            return refused
        # The server says nothing before it has the body: what it said by now is no answer to anything.
        if not self.wire.between_replies:
            self.wire.breach("more replies than commands")
        if self.mark is not None and not self.wire.fault:
            self.wire.disarm()
            if not await self.mark(self.link.number, letter):
                self.link.abort()
                return self._report(Action.ABANDON, Scope.MAIL, "abandoned")
        if self.wire.fault:
            return self._broken()
        return await self._deliver(letter.content)

    def interrupted(self) -> Report:
        """`run` was cancelled, or the mark raised: closes the connection at once."""
        self.link.abort()
        action = Action.AMBIGUOUS if self._dotted else Action.PARK
        return self._report(action, Scope.SESSION, "interrupted")

    # -- the envelope ----------------------------------------------------------------------------------------

    def _envelope(self, letter: Letter) -> tuple[bytes, bytes] | Report:
        """The lines of MAIL and RCPT, or why this server cannot get this mail."""
        offer = self.link.offer
        options = ""
        if offer.sizes:
            size = len(letter.content)
            if offer.size and size > offer.size:
                return self._unfit("too_large", "5.3.4", f"{size} bytes; the server takes {offer.size}")
            options = f" SIZE={size}"
        if letter.eight_bit:
            if not offer.eight_bit:
                return self._unfit("eight_bit", "5.6.3", "8-bit content; the server does not offer 8BITMIME")
            options += " BODY=8BITMIME"
        if letter.smtputf8:
            if not offer.smtputf8:
                return self._unfit("smtputf8", "5.6.7", "needs SMTPUTF8; the server does not offer it")
            options += " SMTPUTF8"
        addresses = letter.envelope_from + letter.envelope_to
        # Checked when the mail was read; here is the last place where a line break could become a command.
        if not addresses.isprintable() or not (letter.smtputf8 or addresses.isascii()):
            return self._unfit("bad_envelope", "5.1.3", "a character that no envelope address may hold")
        return (
            f"MAIL FROM:<{letter.envelope_from}>{options}\r\n".encode(),
            f"RCPT TO:<{letter.envelope_to}>\r\n".encode(),
        )

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
            return self._broken()
        if self._closes(mail):
            return self._judged(mail, Stage.MAIL)
        refused = None if mail.positive else self._judged(mail, Stage.MAIL)
        self._accepted = mail.positive
        self._stage = Stage.RCPT
        wire.arm(self.command_seconds)
        rcpt = await wire.read()
        if rcpt is None:
            return refused or self._broken()
        if self._closes(rcpt):
            return refused or self._judged(rcpt, Stage.RCPT)
        if refused is None and not rcpt.positive:
            refused = self._judged(rcpt, Stage.RCPT)
        self._stage = Stage.DATA
        wire.arm(self.data_seconds)
        data = await wire.read()
        if data is None:
            return refused or self._broken()
        if self._closes(data):
            return refused or self._judged(data, Stage.DATA)
        if data.code == 354:
            if refused is not None:
                await self._empty_dot(rcpt.positive)
            return refused
        link.dirty = mail.positive or rcpt.positive
        return refused or self._judged(data, Stage.DATA)

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
            self._stage = stage
            wire.ask(line, 1, seconds)
            reply = await wire.read()
            if reply is None:
                return self._broken()
            if not (reply.code == 354 if stage is Stage.DATA else reply.positive):
                self._closes(reply)
                link.dirty = stage is not Stage.MAIL
                return self._judged(reply, stage)
            self._accepted = True
        return None

    async def _reset_done(self) -> Report | None:
        reply = await self.wire.read()
        if reply is None:
            return self._broken()
        if reply.positive:
            return None
        if not self._closes(reply):
            self.wire.breach(f"RSET was answered with {reply.code}")
            return self._broken()
        return self._judged(reply, Stage.MAIL)

    async def _empty_dot(self, recipient_stands: bool) -> None:
        """End a DATA that nobody wanted."""
        if recipient_stands or not self.wire.between_replies:
            self.link.ended = True
            return
        self.wire.ask(b".\r\n", 1, self.command_seconds)
        reply = await self.wire.read()
        if reply is not None:
            self._closes(reply)

    # -- the body --------------------------------------------------------------------------------------------

    async def _deliver(self, content: bytes) -> Report:
        wire = self.wire
        body = _stuffed(content)
        wire.due = 1  # already now: some servers refuse in the middle of the body
        if len(body) > PIECE:
            early = await self._write_ahead(body)
            if early is not None:
                return early
            body = body[-(len(body) % PIECE or PIECE) :]
        self._dotted = True
        self._stage = Stage.DOT
        wire.arm(self.dot_seconds)
        wire.write(body + b".\r\n")
        reply = await wire.read()
        if reply is None:
            return self._broken()
        self._closes(reply)
        if reply.code < 400 and not reply.positive:
            self.link.ended = True
            return self._report(Action.AMBIGUOUS, Scope.SESSION, "protocol", reply)
        return self._judged(reply, Stage.DOT)

    async def _write_ahead(self, body: bytes) -> Report | None:
        """All but the last piece, drained: a server that stops reading is met before the dot is out."""
        wire = self.wire
        whole = memoryview(body)
        last = (len(body) - 1) // PIECE * PIECE
        for at in range(0, last, PIECE):
            wire.arm(self.body_seconds)
            wire.write(whole[at : at + PIECE])
            if not await wire.drain():
                break
        if not wire.replies:
            return self._broken() if wire.fault else None
        reply = wire.replies.popleft()
        self.link.ended = True
        if reply.code >= 400:
            return self._judged(reply, Stage.DATA)
        wire.breach(f"{reply.code} in the middle of the body")
        return self._broken()

    # -- reports ---------------------------------------------------------------------------------------------

    def _closes(self, reply: Reply) -> bool:
        """421 closes the connection, whatever it was given to (RFC 5321, 3.8)."""
        if reply.code == 421:
            self.link.ended = True
            return True
        return False

    def _judged(self, reply: Reply, stage: Stage) -> Report:
        if reply.code < 400 and stage is not Stage.DOT:  # 250 to DATA, 354 to MAIL
            self._stage = stage
            self.wire.breach(f"{stage} was answered with {reply.code}")
            return self._broken()
        text = plain_text(reply.text)
        verdict = self.rules.classify(stage, reply.code, text, self.link.mails == 1)
        self._stage = stage
        report = self._report(verdict.action, verdict.scope, verdict.klass, reply, text)
        report.enhanced = verdict.enhanced
        report.hint_ms = verdict.hint_ms
        report.about_recipient = verdict.about_recipient
        if verdict.action is Action.PARK and verdict.scope is Scope.SESSION:
            self.link.ended = True  # this session takes no more mail, whatever the code's digits say
        return report

    def _broken(self) -> Report:
        wire = self.wire
        self.link.ended = True
        if wire.farewell is not None and not self._dotted:
            return self._judged(wire.farewell, self._stage)
        before = Action.RETRY if self._accepted else Action.PARK
        action = Action.AMBIGUOUS if self._dotted else before
        report = self._report(action, Scope.SESSION, wire.fault)
        report.reply = wire.why
        return report

    def _unfit(self, klass: str, enhanced: str, why: str) -> Report:
        report = self._report(Action.FAIL, Scope.MAIL, klass)
        report.enhanced = enhanced
        report.reply = why
        return report

    def _report(
        self, action: Action, scope: Scope, klass: str, reply: Reply | None = None, text: str | None = None
    ) -> Report:
        if reply is not None and text is None:
            text = plain_text(reply.text)
        return Report(
            action=action,
            stage=self._stage,
            scope=scope,
            klass=klass,
            code=0 if reply is None else reply.code,
            reply=(text or "")[:CUT],
            peer=self.link.peer,
            tls=self.link.tls,
            duration_ms=round((self._now() - self._begun) * 1000),
        )


def plain_text(text: bytes) -> str:
    """A reply's text on one line.

    An enhanced code that stands on every line (RFC 2034, 4) stays on the first only, or no pattern would find
    words on both sides of a line break. Control characters become blanks, other bytes stay readable.
    """
    if b"\n" in text:
        first, *more = text.split(b"\n")
        code, blank, _ = first.partition(b" ")
        if blank and code.count(b".") == 2:
            more = [line.removeprefix(code).lstrip() for line in more]
        text = b" ".join([first, *more])
    shown = text.decode("utf-8", "backslashreplace")
    if not shown.isprintable():
        shown = "".join(letter if letter.isprintable() else " " for letter in shown)
    return shown.strip()


def _stuffed(content: bytes) -> bytes:
    """RFC 5321, 4.5.2: a line that begins with a dot gets another one."""
    if not content.endswith(b"\r\n"):  # else the dot would not stand alone
        content += b"\r\n"
    if b"\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content if content.startswith(b".") else content
