"""What `throughput` measures: a case says who delivers what and how, a run what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

__all__ = ["BASE", "CLIENTS", "MODES", "PEERS", "SINKS", "STANDARD", "WHATS", "Case", "Run", "asked_for"]

PEERS = ("postfix", "dramatiq", "taskiq", "celery")
CLIENTS = ("streamq", *PEERS)
WHATS = ("drain", "flow")  # of a backlog that stands; from the first XADD, workers waiting
MODES = ("off", "transaction", "overlap", "bdat", "overlap+bdat")
SINKS = ("own", "smtp-sink")
CONNECTIONS = 20  # of a process


@dataclass(frozen=True, slots=True)
class Case:
    """`mode`: `pipelining` of the route, and `bdat`: `chunking`. `limited`: by limits that bind nobody."""

    client: str = "streamq"
    what: str = "drain"
    kind: str = "4k"
    processes: int = 1
    mode: str = "transaction"
    fsync: str = "everysec"
    limited: bool = False
    sink: str = "own"

    @property
    def pipelining(self) -> str:
        return {"bdat": "transaction", "overlap+bdat": "overlap"}.get(self.mode, self.mode)

    @property
    def chunking(self) -> bool:
        return "bdat" in self.mode

    @property
    def name(self) -> str:
        """What sets it apart, as a table says it."""
        ours = self.client == "streamq"
        words = [self.client, self.what, self.kind]
        if self.client != "postfix":
            words.append(f"{self.processes} proc")
        if ours:
            words.append(self.mode)
        if self.fsync != "everysec":
            words.append(f"fsync {self.fsync}")
        if self.limited:
            words.append("limits")
        if self.sink != "own":
            words.append(self.sink)
        return ", ".join(words)

    @property
    def durable(self) -> str:
        """What is on the disk when a producer has its answer, and what a mail's end waits for."""
        if self.client == "postfix":
            return "each mail fsynced before its 250"
        return f"AOF, appendfsync {self.fsync}"

    @property
    def settings(self) -> str:
        """Of a streamq worker: streamq.toml without the route's url."""
        lines = [
            "[routes.main]",
            f"connections = {CONNECTIONS * self.processes}",
            f'pipelining = "{self.pipelining}"',
            f"chunking = {str(self.chunking).lower()}",
        ]
        if self.limited:
            lines += ['rate = ["1000000/s"]', '[sites."*"]', 'rate = ["100000/s", "100000000/h"]', "connections = 1000"]
        return "\n".join(lines) + "\n"


BASE = Case()
STANDARD = (
    BASE,
    replace(BASE, mode="overlap"),
    replace(BASE, mode="bdat"),
    replace(BASE, limited=True),
    replace(BASE, fsync="always"),
    replace(BASE, kind="50k"),
    replace(BASE, kind="composed"),
    replace(BASE, processes=2),
    replace(BASE, processes=2, mode="overlap"),
    replace(BASE, processes=2, limited=True),
    replace(BASE, what="flow", processes=2),
    replace(BASE, what="flow", processes=2, fsync="always"),
    *(replace(BASE, client=peer, processes=2) for peer in PEERS),
    replace(BASE, client="postfix", what="flow", processes=2),
)


def asked_for(**choices: Sequence[Any] | None) -> tuple[Case, ...]:
    """Each combination of what is given; what is not given is as in BASE; nothing given: STANDARD. Settings that a
    peer does not have make no more cases of it."""
    given = {name: tuple(values) for name, values in choices.items() if values}
    if not given:
        return STANDARD
    made = [replace(BASE, **dict(zip(given, values, strict=True))) for values in product(*given.values())]
    return tuple(dict.fromkeys(_possible(case) for case in made))


def _possible(case: Case) -> Case:
    if case.client == "streamq":
        return case
    usual = replace(case, mode=BASE.mode, limited=False, kind="4k" if case.kind == "composed" else case.kind)
    return replace(usual, fsync=BASE.fsync, processes=2) if case.client == "postfix" else replace(usual, what="drain")


@dataclass(frozen=True, slots=True)
class Run:
    """`figures`: by name, what a median is made of; `checks`: that nothing was switched off, by name; `version`: the
    client's; `skipped`: why there is none."""

    case: Case
    version: str = ""
    mails: int = 0
    figures: dict[str, float | None] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    server: dict[str, str] = field(default_factory=dict)
    skipped: str = ""

    @property
    def good(self) -> bool:
        return all(self.checks.values())

    def as_json(self) -> dict[str, Any]:
        return {"name": self.case.name, "durable": self.case.durable, **asdict(self), "good": self.good}
