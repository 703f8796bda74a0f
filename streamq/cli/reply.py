"""Reply: what a server's reply would mean, which entry says so, what would be counted."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from streamq.cli.app import Json, app, settings
from streamq.cli.terminal import clip, console, emit
from streamq.errors import SettingsError
from streamq.limits.rulebook import Rulebook
from streamq.queue.wording import shown_ms
from streamq.settings.values import cut
from streamq.smtp.hints import hint_ms
from streamq.smtp.judge import plain_text
from streamq.smtp.letter import Action, Scope, Stage
from streamq.smtp.replies import Replies, Verdict

LONGEST_LINE = 100_000  # characters: RFC 5321, 4.5.3.1.5 has 512, and more stops nobody
LINE = re.compile(r"([2-5]\d\d)(?:([- ])(.*))?", re.ASCII | re.DOTALL)
BEFORE_MAIL = {Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH}
WHOM = {
    Scope.SESSION: "the session",
    Scope.ROUTE: "the route: our account, our host",
    Scope.SENDER: "the sender",
    Scope.SITE: "the site",
    Scope.MAIL: "the mail",
    Scope.RECIPIENT: "the recipient",
}
THEN = {
    Action.SENT: "relayed: the server has it",
    Action.RETRY: "judged, not now: on the schedule",
    Action.FAIL: "judged, never: a dead letter",
    Action.PARK: "not judged: parked, for a session that takes mail",
}
ROUTE_DOWN = "not judged: the route is down, its mails are parked, one at a time finds out"
GOES_ON = "nothing is refused: the transaction goes on"
AMBIGUOUS = "ambiguous: no answer to the dot, and the server may have the mail"


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as it stood there, and what it means; no verdict: it refuses nothing."""

    code: int
    text: str
    stage: Stage
    verdict: Verdict | None

    @property
    def down(self) -> bool:
        """Before MAIL any refusal is the route's, and so is what an entry parks for the route."""
        known = self.verdict
        return known is not None and (
            self.stage in BEFORE_MAIL or (known.action is Action.PARK and known.scope is Scope.ROUTE)
        )

    @property
    def ambiguous(self) -> bool:
        return self.stage is Stage.DOT and 300 <= self.code < 400

    @property
    def counted(self) -> bool:
        if self.verdict is None or self.down:
            return False
        return self.ambiguous or self.verdict.action is not Action.PARK

    @property
    def then(self) -> str:
        if self.verdict is None:
            return GOES_ON
        return AMBIGUOUS if self.ambiguous else ROUTE_DOWN if self.down else THEN[self.verdict.action]


@app.command()
def reply(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="a reply as a server gives it: 450 4.2.1 try later")
    ] = None,
    stage: Annotated[str, typer.Option(help=f"what it answers: {', '.join(Stage)}", metavar="STAGE")] = "rcpt",
    first: Annotated[bool, typer.Option("--first/--later", help="the connection's first transaction, or not")] = True,
    site: Annotated[str, typer.Option(help="the recipient's domain, where a relay says it", metavar="DOMAIN")] = "",
    mx: Annotated[bool, typer.Option("--mx", help="the server is the recipient's own, not a relay")] = False,
    json: Json = False,
) -> None:
    """What a reply would mean: class, scope, action, wait, the entry that decides. Without TEXT: standard input,
    one reply a line (lines like 550-… belong to the one that ends them)."""
    if stage not in set(Stage):
        raise SettingsError(f"--stage: one of {', '.join(Stage)} (got {cut(stage)})")
    if not texts and (sys.stdin is None or sys.stdin.isatty()):
        raise SettingsError('no reply: streamq reply "450 4.2.1 try later", or one a line on standard input')
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="backslashreplace")  # a log may hold anything
    rules = Rulebook.read(settings()).replies
    given = ((f"TEXT {at}", text) for at, text in enumerate(texts, 1)) if texts else _read(sys.stdin)
    answers = _answers(given, rules, Stage(stage), first, None if mx else site.strip())
    if json:
        known = [_plain(answer) for answer in answers]
        return emit(known[0] if texts is not None and len(texts) == 1 else known)
    for at, answer in enumerate(answers):
        if at:
            console.print()
        _print(answer)
    return None


def _answers(
    given: Iterable[tuple[str, str]], rules: Replies, stage: Stage, first: bool, relay_for: str | None
) -> Iterator[Answer]:
    for where, raw in given:
        code, text = _parsed(raw, where)
        refuses = code >= 400 or stage is Stage.DOT
        yield Answer(code, text, stage, rules.classify(stage, code, text, first, relay_for) if refuses else None)


def _read(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Replies, each with where it begins. What ends in the middle of one is the reply that it is by then."""
    begun: list[str] = []
    where = ""
    for number, line in enumerate(lines, 1):
        line = line[:LONGEST_LINE].strip()
        if not line and not begun:
            continue
        where = where or f"line {number}"
        begun.append(line)
        found = LINE.fullmatch(line)
        if found and found[2] == "-" and f" {found[1]} " not in line and len(begun) < 100:
            continue
        yield where, "\n".join(begun)
        begun, where = [], ""
    if begun:
        yield where, "\n".join(begun)


def _parsed(raw: str, where: str) -> tuple[int, str]:
    """Code, and text as the courier reads it. Several lines (RFC 5321, 4.2.1), or what a log made one line of."""
    found = LINE.fullmatch(raw.strip())
    if found is None:
        raise SettingsError(f"{where}: not a reply (450 4.2.1 try again later): {cut(raw)}")
    lines = [found[3] or ""]
    if found[2] == "-":
        lines = re.split(rf"\s(?={found[1]}[- ])", lines[0])
        lines = [lines[0], *(line[4:] for line in lines[1:])]
    return int(found[1]), plain_text("\n".join(line.strip() for line in lines).encode("utf-8", "backslashreplace"))


def _print(answer: Answer) -> None:
    console.print(clip(f"{answer.code} {answer.text}", 1000), style="bold", soft_wrap=True)
    lines = [("then", answer.then), ("attempt", "counted" if answer.counted else "not counted")]
    known = answer.verdict
    if known is not None:
        lines.insert(0, ("class", f"{known.klass}, about {WHOM[_scope(answer)]}"))
        if known.hint_ms and known.action is not Action.SENT:
            whose = "the reply" if hint_ms(answer.text) else "the entry"
            lines.append(("wait", f"at least {shown_ms(known.hint_ms)}, says {whose}"))
        if known.entry is None:
            lines.append(("entry", "none: no table knows this reply at this stage"))
        else:
            lines.append(("entry", f"{known.entry.table}, reply {known.entry.number}"))
            lines.append(("source", known.entry.source or "none given"))
    for name, text in lines:
        console.print(f"  {name:<8} {clip(text, 1000)}", soft_wrap=True)


def _scope(answer: Answer) -> Scope:
    assert answer.verdict is not None
    return Scope.ROUTE if answer.stage in BEFORE_MAIL else answer.verdict.scope


def _plain(answer: Answer) -> dict[str, Any]:
    """For JSON."""
    plain: dict[str, Any] = {"code": answer.code, "text": answer.text, "stage": str(answer.stage)}
    plain |= {"then": answer.then, "attempt": answer.counted}
    known = answer.verdict
    if known is None:
        return plain | {"class": None}
    plain |= {
        "class": known.klass,
        "scope": str(_scope(answer)),
        "action": str(Action.AMBIGUOUS if answer.ambiguous else Action.PARK if answer.down else known.action),
        "enhanced": known.enhanced,
        "hint_ms": known.hint_ms,
        "about_recipient": known.about_recipient,
        "entry": None,
    }
    if known.entry is not None:
        entry = known.entry
        plain["entry"] = {"table": entry.table, "number": entry.number, "source": entry.source}
    return plain
