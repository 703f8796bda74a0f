"""What the sink answers where it does not simply accept: rules, first match wins.

    seed = 1                            # of `share`

    [[rule]]
    match = "*@slow.example"            # a glob for the whole address; without "@", for its domain
    stage = "rcpt"
    reply = "450 4.2.1 Mailbox busy"    # left out: the usual reply, after `delay_ms`
    times = 1                           # only the first attempts of each recipient; 0: every one
    share = 0.5                         # of the attempts that get here
    delay_ms = 100

A reply that is a code alone gets a usual text. `match` is held against the client's IP address at greeting,
rset and quit, the host name it gives at ehlo and helo, the sender at mail (`<>` is the null sender), the
recipient at rcpt, any of the recipients at data and dot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from hashlib import blake2b
from typing import Literal, NamedTuple, get_args

from streamq.errors import SHOWN, SettingsError

__all__ = ["Judge", "Rule", "RuleWrong", "Rules", "Stage", "Verdict", "is_number", "rule_of_flag"]

Stage = Literal["greeting", "ehlo", "helo", "mail", "rcpt", "data", "dot", "rset", "quit"]
STAGES: tuple[Stage, ...] = get_args(Stage)

TRACKED = 1_000_000  # attempts counted per rule; beyond that the oldest subject starts anew
LONGEST_DELAY_MS = 3_600_000
REPLY = re.compile(r"[2-5][0-9][0-9]( [^\x00-\x1f\x7f]{0,500})?(\n[^\x00-\x1f\x7f]{0,500}){0,99}")
FLAG = re.compile(r"(?P<match>.+?)=(?P<reply>[2-5][0-9][0-9](?: .*)?)")
TEXTS = {
    "421": "421 4.3.2 Service not available, closing",
    "450": "450 4.2.1 Mailbox busy, try again later",
    "451": "451 4.3.0 Local error, try again later",
    "452": "452 4.2.2 Mailbox full",
    "550": "550 5.1.1 No such mailbox",
    "552": "552 5.2.2 Mailbox full",
    "554": "554 5.7.1 Refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One answer. `reply` holds code, enhanced code and text; further lines of it after "\\n"."""

    match: str = "*"
    stage: Stage = "rcpt"
    reply: str = ""
    times: int = 0
    share: float = 1.0
    delay_ms: int = 0

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, object, bool, str], ...] = (
            ("match", self.match, _is_text(self.match, 256), "not a glob of 1 to 256 characters"),
            ("stage", self.stage, str(self.stage) in STAGES, f"not one of {', '.join(STAGES)}"),
            (
                "reply",
                self.reply,
                self.reply == "" or _is_reply(self.reply),
                'not a reply (write "450 4.2.1 text")',
            ),
            ("times", self.times, is_number(self.times, 0, 10**9), "not a whole number from 0"),
            ("share", self.share, _is_share(self.share), "not a number from 0 to 1"),
            (
                "delay_ms",
                self.delay_ms,
                is_number(self.delay_ms, 0, LONGEST_DELAY_MS),
                f"not a whole number from 0 to {LONGEST_DELAY_MS}",
            ),
        )
        for name, value, good, why in checks:
            if not good:
                raise RuleWrong(name, value, why)
        if not self.reply and not self.delay_ms:
            raise RuleWrong("reply", self.reply, "a rule needs a reply or a delay")


class RuleWrong(SettingsError):
    """A rule's entry is wrong; `entry` names it."""

    def __init__(self, entry: str, value: object, why: str) -> None:
        shown = repr(value)
        super().__init__(f"{entry}: {why} (got {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'})")
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in the order of their rank, and the seed of their shares."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0


class Verdict(NamedTuple):
    """What a rule says: `reply` is ready for the wire, or empty where the usual one is meant."""

    reply: bytes
    code: int  # 0 where the usual reply is meant
    delay_ms: int


class Judge:
    """Rules at work: they count attempts. One judge serves one sink."""

    def __init__(self, rules: Rules) -> None:
        live = [_Live(rule, f"{rules.seed}/{number}") for number, rule in enumerate(rules.rules)]
        self._stages: dict[Stage, tuple[_Live, ...]] = {
            stage: tuple(rule for rule in live if rule.stage == stage) for stage in STAGES
        }

    def verdict(self, stage: Stage, subjects: Iterable[str]) -> Verdict | None:
        """The first rule of `stage` that applies to one of `subjects`; None where none does."""
        rules = self._stages[stage]
        if not rules:
            return None
        lowered = [subject.lower() or "<>" for subject in subjects]
        for rule in rules:
            for subject in lowered:
                if rule.applies(subject):
                    return rule.verdict
        return None


class _Live:
    __slots__ = ("_address", "_attempts", "_pattern", "_salt", "_share", "_times", "stage", "verdict")

    def __init__(self, rule: Rule, salt: str) -> None:
        self.stage = rule.stage
        self.verdict = Verdict(_wire(rule.reply), int(rule.reply[:3] or 0), rule.delay_ms)
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


def _wire(reply: str) -> bytes:
    """`450 4.2.1 one\\ntwo` as the lines of RFC 5321 section 4.2.1; a code alone gets a usual text."""
    if not reply:
        return b""
    if len(reply) == 3:
        reply = TEXTS.get(reply, f"{reply} {reply[0]}.0.0 As told")
    code, texts = reply[:3], reply[4:].split("\n")
    lines = [f"{code}-{text}\r\n" for text in texts[:-1]]
    return "".join([*lines, f"{code} {texts[-1]}\r\n"]).encode()


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest


def _is_reply(value: object) -> bool:
    return isinstance(value, str) and REPLY.fullmatch(value) is not None


def is_number(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
