"""What the sink answers where it does not simply accept: rules, first match wins.

    seed = 1                            # of `share`

    [[rule]]
    match = "*@slow.example"            # a glob for the whole address; without "@", for its domain
    stage = "rcpt"                      # one of STAGES, or "*" for all but body
    reply = "450 4.2.1 Mailbox busy"    # left out: the usual reply
    times = 1                           # only the first attempts of each recipient; 0: every one
    share = 0.5                         # of the attempts that get here
    delay_ms = 100

A reply that is a code alone gets a usual text. `match` is held against the client's IP address at greeting,
starttls, rset, noop and quit, the host name it gives at ehlo and helo, the user at auth, the sender at mail
(`<>` is the null sender), the recipient at rcpt, any of the recipients at data, bdat, body and dot.

When a rule applies:

    from_mail       from the connection's so-manieth transaction on (that of this command included)
    after_accepted  once the sink has accepted so many mails in all

What else it may do, at any stage:

    accept          true: the command has its usual effect whatever is replied (MAIL refused and RCPT taken; a 451
                    to a mail that was kept; 354 although no recipient is left). false: it has none (250 to a mail
                    that is thrown away, or a drop behind the dot without the mail). Left out: as the reply says
    drip_bytes, drip_ms   the reply in pieces of so many bytes, each in a packet of its own, so long apart; a
                    piece longer than the reply is how each reply of a pipelined group gets its own packet
    garbage         instead of a reply: text (no code), binary, nul, endless_line, endless_reply (a continuation
                    without end); the endless ones send garbage_bytes and, without an action, end in EOF
    stray           one more reply, which nobody asked for, behind the reply in the same packet; behind the 220 to
                    STARTTLS: plaintext injected before the handshake
    action          eof, rst: close; unread: the client's next bytes are answered with RST, as by a kernel whose
                    server closed without reading them; silent: no reply any more, all is read and thrown away;
                    stall: nothing is read any more, so that the client's writes block
    when            the action comes "instead" of the reply or "after" it. Left out: after, where the rule names
                    something to send. Instead of the reply to the dot: the mail is accepted, unless accept = false
    after_bytes     at stage body: so many bytes of the content have come

421 closes the connection, as a stray does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from hashlib import blake2b
from typing import Literal, NamedTuple, get_args

from streamq.errors import SHOWN, SettingsError
from streamq.sink.auth import Auth, User
from streamq.sink.checks import Check, EntryWrong, is_number, is_reply, is_share, is_text, one_of, require
from streamq.sink.limits import Limit

__all__ = ["STAGES", "Judge", "Rule", "Rules", "Stage", "Verdict", "rule_of_flag", "wire"]

Stage = Literal[
    "greeting",
    "ehlo",
    "helo",
    "starttls",
    "auth",
    "mail",
    "rcpt",
    "data",
    "bdat",
    "body",
    "dot",
    "rset",
    "noop",
    "quit",
]
STAGES: tuple[Stage, ...] = get_args(Stage)
Action = Literal["reply", "eof", "rst", "unread", "silent", "stall"]
ACTIONS: tuple[Action, ...] = get_args(Action)
When = Literal["", "instead", "after"]
Garbage = Literal["", "text", "binary", "nul", "endless_line", "endless_reply"]

TRACKED = 1_000_000  # attempts counted per rule; beyond that the oldest subject starts anew
LONGEST_MS = 3_600_000
MOST_BYTES = 2**31
FLAG = re.compile(r"(?P<match>.+?)=(?P<reply>[2-5][0-9][0-9](?: .*)?)")
TEXTS = {
    "421": "421 4.3.2 Service not available, closing",
    "450": "450 4.2.1 Mailbox busy, try again later",
    "451": "451 4.3.0 Local error, try again later",
    "452": "452 4.2.2 Mailbox full",
    "535": "535 5.7.8 Authentication credentials invalid",
    "550": "550 5.1.1 No such mailbox",
    "552": "552 5.2.2 Mailbox full",
    "554": "554 5.7.1 Refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One answer, or one mischief: the module's text says what each entry does.

    `reply` holds code, enhanced code and text; further lines of it after "\\n". Raises `EntryWrong`.
    """

    match: str = "*"
    stage: Stage | Literal["*"] = "rcpt"
    reply: str = ""
    times: int = 0
    share: float = 1.0
    from_mail: int = 0
    after_accepted: int = 0
    delay_ms: int = 0
    accept: bool | None = None
    drip_bytes: int = 0
    drip_ms: int = 0
    garbage: Garbage = ""
    garbage_bytes: int = 1_000_000
    stray: str = ""
    action: Action = "reply"
    when: When = ""
    after_bytes: int = 0

    def __post_init__(self) -> None:
        require(
            Check("match", self.match, is_text(self.match, 256), "not a glob of 1 to 256 characters"),
            one_of("stage", self.stage, (*STAGES, "*")),
            Check(
                "reply", self.reply, self.reply == "" or is_reply(self.reply), 'not a reply (write "450 4.2.1 text")'
            ),
            Check("times", self.times, is_number(self.times, 0, 10**9), "not a whole number from 0"),
            Check("share", self.share, is_share(self.share), "not a number from 0 to 1"),
            Check("from_mail", self.from_mail, is_number(self.from_mail, 0, 10**9), "not a whole number from 0"),
            Check(
                "after_accepted",
                self.after_accepted,
                is_number(self.after_accepted, 0, 10**12),
                "not a whole number from 0",
            ),
            *(
                Check(name, value, is_number(value, 0, most), f"not a whole number from 0 to {most}")
                for name, value, most in (
                    ("delay_ms", self.delay_ms, LONGEST_MS),
                    ("drip_bytes", self.drip_bytes, MOST_BYTES),
                    ("drip_ms", self.drip_ms, LONGEST_MS),
                    ("after_bytes", self.after_bytes, MOST_BYTES),
                )
            ),
            Check(
                "garbage_bytes",
                self.garbage_bytes,
                is_number(self.garbage_bytes, 1, MOST_BYTES),
                f"not a whole number from 1 to {MOST_BYTES}",
            ),
            Check("accept", self.accept, self.accept is None or isinstance(self.accept, bool), "not true or false"),
            one_of("garbage", self.garbage, get_args(Garbage)),
            Check(
                "stray", self.stray, self.stray == "" or is_reply(self.stray), 'not a reply (write "421 4.3.2 text")'
            ),
            one_of("action", self.action, ACTIONS),
            one_of("when", self.when, get_args(When)),
        )
        self._require_sense()

    def _require_sense(self) -> None:
        says = bool(self.reply or self.garbage or self.stray or self.drip_bytes)
        if not (says or self.delay_ms or self.action != "reply" or self.accept is not None):
            raise EntryWrong("reply", self.reply, "a rule needs a reply, a delay, or something else to do")
        if self.garbage and self.reply:
            raise EntryWrong("garbage", self.garbage, "comes instead of a reply: leave reply out")
        if self.drip_ms and not self.drip_bytes:
            raise EntryWrong("drip_ms", self.drip_ms, "needs drip_bytes, the length of a piece")
        if self.when and self.action == "reply":
            raise EntryWrong("when", self.when, f"needs an action ({', '.join(ACTIONS[1:])})")
        if self.when == "instead" and says:
            raise EntryWrong("when", self.when, 'instead of the reply nothing is sent: leave it out, or write "after"')
        if self.after_bytes and self.stage != "body":
            raise EntryWrong("after_bytes", self.after_bytes, 'needs stage = "body"')
        if self.stage == "body" and self.accept is not None:
            raise EntryWrong("accept", self.accept, "there is nothing to accept yet at stage body")

    @property
    def instead(self) -> bool:
        """Nothing is sent at all: the action comes in the reply's place."""
        if self.when:
            return self.when == "instead"
        return self.action != "reply" and not (self.reply or self.garbage or self.stray or self.drip_bytes)

    @property
    def plain(self) -> bool:
        """A reply, at once and in one piece."""
        return not (self.delay_ms or self.drip_bytes or self.garbage or self.stray or self.action != "reply")


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in the order of their rank, the seed of their shares; limits; who may log in, and how."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0
    limits: tuple[Limit, ...] = ()
    users: tuple[User, ...] = ()
    auth: Auth = Auth()  # noqa: RUF009 (frozen)


class Verdict(NamedTuple):
    """What a rule says: `reply` is ready for the wire, or empty where the usual one is meant."""

    reply: bytes
    code: int  # 0 where the usual reply is meant
    delay_ms: int
    rule: Rule


class Judge:
    """Rules at work: they count attempts. One judge serves one sink. `stages` are those that have rules."""

    def __init__(self, rules: Rules) -> None:
        live = [_Live(rule, f"{rules.seed}/{number}") for number, rule in enumerate(rules.rules)]
        self._stages: dict[Stage, tuple[_Live, ...]] = {
            stage: tuple(each for each in live if _concerns(each.rule, stage)) for stage in STAGES
        }
        self.stages = frozenset(stage for stage, concerned in self._stages.items() if concerned)
        self.forces_data = any(each.rule.accept for each in self._stages["data"])

    def verdict(self, stage: Stage, subjects: Iterable[str], mail: int = 0, accepted: int = 0) -> Verdict | None:
        """The first rule of `stage` that applies to one of `subjects`; None where none does.

        `mail` is the number of the connection's transaction, `accepted` what the sink has accepted in all.
        """
        rules = self._stages[stage]
        if not rules:
            return None
        lowered = [subject.lower() or "<>" for subject in subjects]
        for live in rules:
            if mail < live.rule.from_mail or accepted < live.rule.after_accepted:
                continue
            for subject in lowered:
                if live.applies(subject):
                    return live.verdict
        return None


def _concerns(rule: Rule, stage: Stage) -> bool:
    return rule.stage == stage or (rule.stage == "*" and stage != "body")


class _Live:
    __slots__ = ("_address", "_attempts", "_pattern", "_salt", "_share", "_times", "rule", "verdict")

    def __init__(self, rule: Rule, salt: str) -> None:
        self.rule = rule
        self.verdict = Verdict(wire(rule.reply), int(rule.reply[:3] or 0), rule.delay_ms, rule)
        self._pattern = re.compile(translate(rule.match.lower()))
        self._address = "@" in rule.match
        self._share = rule.share
        self._times = rule.times
        self._salt = salt
        self._attempts: dict[str, int] = {}

    def applies(self, subject: str) -> bool:
        text = subject if self._address else subject.rpartition("@")[2]
        if not self._pattern.match(text):
            return False
        if not self._times and self._share >= 1:
            return True
        before = self._attempts.pop(subject, 0)
        self._attempts[subject] = before + 1
        if len(self._attempts) > TRACKED:
            del self._attempts[next(iter(self._attempts))]
        if self._times and before >= self._times:
            return False
        return self._share >= 1 or self._drawn(subject, before) < self._share

    def _drawn(self, subject: str, attempt: int) -> float:
        """From 0 to 1, fixed by seed, rule, subject and attempt.

        A random sequence would hang on the order in which connections happen to be served.
        """
        text = f"{self._salt}/{attempt}/{subject}".encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2.0**64


def rule_of_flag(text: str) -> Rule:
    """Read `GLOB=CODE [text]` as a flag gives it: a reply to RCPT, every time. Raises `SettingsError`."""
    found = FLAG.fullmatch(text)
    if not found:
        raise SettingsError(f'reply: not an answer (write "*@slow.example=450 4.2.1 text"): {text[:SHOWN]!r}')
    return Rule(match=found["match"], reply=found["reply"].rstrip())


def wire(reply: str) -> bytes:
    """`450 4.2.1 one\\ntwo` as the lines of RFC 5321 section 4.2.1; a code alone gets a usual text."""
    if not reply:
        return b""
    if len(reply) == 3:
        reply = TEXTS.get(reply, f"{reply} {reply[0]}.0.0 As told")
    code, texts = reply[:3], reply[4:].split("\n")
    lines = [f"{code}-{text}\r\n" for text in texts[:-1]]
    return "".join([*lines, f"{code} {texts[-1]}\r\n"]).encode()
