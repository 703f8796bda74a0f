"""The judge: what a reply, or the lack of one, makes of the mail under way.

BREAKS     Time-outs, resets, closes and garbage, by where they happen:
             before MAIL was accepted    PARK: nobody judged this mail
             up to the dot               RETRY: an attempt. A mail that kills its connection each time (a
                                         content filter that hangs, a server that crashes on it) would
                                         otherwise go round for ever without growing older on its schedule
             after the dot               AMBIGUOUS (RFC 1047)
           "After the dot" begins when the dot (with BDAT: the last byte of the body) is handed to the system, not
           when the server has it.
"""

from __future__ import annotations

import asyncio

from streamq.smtp.connection import CUT, Connection
from streamq.smtp.envelope import Unfit
from streamq.smtp.letter import Action, Report, Scope, Stage
from streamq.smtp.protocol import Reply
from streamq.smtp.replies import Replies
from streamq.smtp.words import one_line

__all__ = ["Judge", "plain_text"]


class Judge:
    """One for a connection; `begin` for each of its mails. `stage` follows where the mail is; `accepted`: MAIL was;
    `dotted`: the dot is out."""

    __slots__ = ("_begun", "_site", "accepted", "dotted", "link", "now", "rules", "stage", "wire")

    def __init__(self, link: Connection, rules: Replies) -> None:
        self.link = link
        self.wire = link.wire
        self.rules = rules
        self.stage = Stage.MAIL
        self.accepted = False
        self.dotted = False
        self.now = asyncio.get_running_loop().time
        self._begun = 0.0
        self._site = ""

    def begin(self, site: str) -> float:
        """A mail to that site. Loop time."""
        self._begun = self.now()
        self._site = site
        self.stage = Stage.MAIL
        self.accepted = self.dotted = False
        return self._begun

    def closes(self, reply: Reply) -> bool:
        """421 closes the connection, whatever it was given to (RFC 5321, 3.8)."""
        if reply.code == 421:
            self.link.ended = True
            return True
        return False

    def judged(self, reply: Reply, stage: Stage) -> Report:
        if reply.code < 400 and stage is not Stage.DOT:  # 250 to DATA, 354 to MAIL
            self.stage = stage
            self.wire.breach(f"{stage} was answered with {reply.code}")
            return self.broken()
        text = plain_text(reply.text)
        verdict = self.rules.classify(stage, reply.code, text, self.link.mails == 1, self._site)
        self.stage = stage
        report = self.report(verdict.action, verdict.scope, verdict.klass, reply, text)
        report.enhanced = verdict.enhanced
        report.hint_ms = verdict.hint_ms
        report.about_recipient = verdict.about_recipient
        if verdict.action is Action.PARK and verdict.scope is Scope.SESSION:
            self.link.ended = True  # this session takes no more mail, whatever the code's digits say
        return report

    def broken(self) -> Report:
        wire = self.wire
        self.link.ended = True
        if wire.farewell is not None and not self.dotted:
            return self.judged(wire.farewell, self.stage)
        before = Action.RETRY if self.accepted else Action.PARK
        action = Action.AMBIGUOUS if self.dotted else before
        report = self.report(action, Scope.SESSION, wire.fault)
        report.reply = wire.why
        return report

    def unfit(self, unfit: Unfit) -> Report:
        report = self.report(Action.FAIL, Scope.MAIL, unfit.klass)
        report.enhanced = unfit.enhanced
        report.reply = unfit.why
        return report

    def interrupted(self) -> Report:
        action = Action.AMBIGUOUS if self.dotted else Action.PARK
        return self.report(action, Scope.SESSION, "interrupted")

    def report(
        self, action: Action, scope: Scope, klass: str, reply: Reply | None = None, text: str | None = None
    ) -> Report:
        if reply is not None and text is None:
            text = plain_text(reply.text)
        return Report(
            action=action,
            stage=self.stage,
            scope=scope,
            klass=klass,
            code=0 if reply is None else reply.code,
            reply=(text or "")[:CUT],
            peer=self.link.peer,
            tls=self.link.tls,
            duration_ms=round((self.now() - self._begun) * 1000),
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
    return one_line(text.decode("utf-8", "backslashreplace"))
