"""What the scripts take, row by row, and what they answer: names and types for the stubs of scripts.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "AdmitRow",
    "Admitted",
    "Bound",
    "ChildRow",
    "Claim",
    "Expanded",
    "FinishRow",
    "Grant",
    "GrantRow",
    "LaneSaid",
    "Leased",
    "MarkRow",
    "MeasureRow",
    "Moved",
    "Opened",
    "Reclaimed",
    "Released",
    "RenewRow",
    "ResettleRow",
    "SettleRow",
    "Settled",
    "SiftRow",
    "Sifted",
    "Sought",
    "StartRow",
    "Status",
    "Turn",
    "TurnRow",
]


class AdmitRow(NamedTuple):
    """What intake made of one entry that was read. See admit.lua."""

    kind: str
    entry: str
    lane: str = ""
    due: int = 0
    deadline: int = 0
    expires: int = 0
    seen: bytes = b""
    id: str = ""
    tail: bytes = b""
    why: bytes = b""
    collapse: str = ""


class Bound(NamedTuple):
    """What bounds reading, at `now_us`: the first free slot is, or was, at `opens_us`; one comes each `step_us` (0:
    nothing bounds it), `most` are free at once."""

    now_us: int
    opens_us: int
    step_us: int
    most: int


class StartRow(NamedTuple):
    """Of a plain mail that was read. See start.lua."""

    entry: str
    lane: str
    deadline: int
    seen: bytes


class Started(NamedTuple):
    """The time in µs, the token, a letter for each row, what bounds reading, and of those that have a slot its mark, by
    their places. See start.lua."""

    now_us: int
    token: int
    letters: str
    bound: Bound
    slots: dict[int, str]


class FinishRow(NamedTuple):
    """A plain mail that was sent. `way`: `<route>|<site>` that it went. See finish.lua."""

    entry: str
    token: int
    way: str
    id: str
    kind: str
    tail: bytes


class SettleRow(NamedTuple):
    """The end of one attempt. See settle.lua."""

    op: str
    entry: str
    token: int
    lane: str
    id: str
    kind: str
    tail: bytes
    arg: bytes = b""
    way: str = ""
    left: int = 0


class ChildRow(NamedTuple):
    """One recipient of an expanded mail. See expand.lua."""

    name: str
    value: bytes
    vars: bytes = b""
    metadata: bytes = b""
    child: bytes = b""


class MarkRow(NamedTuple):
    """A mail whose dot goes out now. `connection`: `<route>.<number>`; `before`: comma list of its
    earlier ones, while they are not settled."""

    connection: str
    entry: str
    token: int
    before: str = ""


class ResettleRow(NamedTuple):
    """A final outcome once more. `seen`: digest of a child that was sent, which may be made again. See resettle.lua."""

    entry: str
    id: str
    kind: str
    tail: bytes
    why: bytes
    event_id: str
    seen: bytes = b""


@dataclass(frozen=True, slots=True)
class Opened:
    """`found` is the format that the keys had, "" for a new queue."""

    found: str
    salt: bytes
    priorities: tuple[str, ...]


class Claim(NamedTuple):
    """What `whose` said: a status of whose.lua; who stands in the way, "" for nobody; how many of them."""

    status: str
    who: str
    many: int


class Status(NamedTuple):
    """Of an admitted mail. `notes`: JSON or b""; `way`: the route that it goes, "" for none; `slot`: the mark of its
    slot there, which begins with how long it lasts in µs; "" where nothing limits it. `target`: the `<route>|<site>`
    where it is one of so many transactions at once, "" where nobody counts them; `token`: of its lease."""

    status: str
    notes: bytes
    way: str
    slot: str
    target: str = ""
    token: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """`statuses` in the order of the rows."""

    now_us: int
    closed_us: int
    token: int
    next_us: int
    bound: Bound
    statuses: list[Status]


class Sought(NamedTuple):
    """What a search came upon: its id in the stream, and its tenant, "" for none. `same`: it has the id that was looked
    for; else it may be to the address."""

    name: str
    tenant: str
    same: bool


class TurnRow(NamedTuple):
    """A leased mail that asks for a slot. `way`: its `target`, as in `Status`, or else its route. See turn.lua."""

    entry: str
    token: int
    lane: str
    slot: str = ""
    way: str = ""


class Turn(NamedTuple):
    """`way`, `slot` and `target` as in `Status`, where it goes."""

    status: str
    way: str
    slot: str
    target: str = ""


class SiftRow(NamedTuple):
    """One mail as it was seen in its stream. See sift.lua."""

    id: str
    site: str = ""
    digest: bytes = b""
    producer: bytes = b""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of the first rows: `letters`, p (parked) or t (this consumer's now). `behind`: id of the last mail
    that was passed, by whomever; "" where this is not the way to read on."""

    now_us: int
    closed_us: int
    next_us: int
    behind: str
    letters: str

    @property
    def parked(self) -> int:
        return self.letters.count("p")


@dataclass(frozen=True, slots=True)
class Settled:
    """`marks`: sites and routes that slowed of late, and when (µs): what got its slot before left at the old pace."""

    now_us: int
    next_us: int
    statuses: list[str]
    marks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expanded:
    """`made`: how many children there are; `children`: those of this call."""

    status: str
    made: int
    children: list[str]


@dataclass(frozen=True, slots=True)
class Leased:
    """A mail that an index gave back. `way`: the route on which it may go at once, with that `slot` and `target`; "":
    it is admitted first."""

    entry: str
    notes: bytes
    way: str = ""
    slot: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Released:
    now_us: int
    next_us: int
    token: int
    left: bool
    leases: list[Leased]


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """`leases`: (entry, notes as JSON, whether its last owner died past its dot)."""

    token: int
    cursor: str
    leases: list[tuple[str, bytes, bool]]


class RenewRow(NamedTuple):
    """A mail that is one of so many transactions at once at `target`. See renew.lua."""

    entry: str
    token: int
    target: str


class GrantRow(NamedTuple):
    """What a worker asks of one route, and what it has seen of it. See grant.lua."""

    route: str
    most: int
    mails: int
    want: int
    open: int
    works: int = 0
    lost: int = 0
    refused: int = 0
    worked: int = 0
    bore: int = 0
    full: int = 0
    sent: int = 0


class MeasureRow(NamedTuple):
    """How fast a target (`<route>`, `<route>|<site>`) took mail from a worker of late, and at least: mails a second."""

    target: str
    took: float
    least: float


@dataclass(frozen=True, slots=True)
class Grant:
    """`allowance`: connections it may have; `closed_us`: until then the route takes nothing, 0: it does; `elsewhere`:
    connections of other workers that stand; `mails`: so many over a connection; `careful`: open them one by one."""

    allowance: int
    closed_us: int
    elsewhere: int
    mails: int
    careful: bool


class LaneSaid(NamedTuple):
    """What gauge.lua says of a lane. `way`: that it goes now, "" while all are closed; then the windows of the queue,
    of the way, of way and site."""

    way: str
    queue: str
    route: str
    site: str


@dataclass(frozen=True, slots=True)
class Moved:
    now_us: int
    next_us: int
    statuses: list[str]
