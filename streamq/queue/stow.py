"""What stow.lua is told of a page of mails that all park: each row's place in the indexes, made here, since the server
has less time than who looks at the page. Layouts are those of lua/lib/index.lua and lua/lib/seen.lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamq.queue.rows import SiftRow

__all__ = ["StowRow", "Stowage", "stowage"]

NEIGHBOURS, LANE_BUCKETS = 16, 16_384  # lib/index
ID_BUCKETS = 8_192  # lib/seen
UNHASHED = b"\0\0\0\0"
TIME_DIGITS, SEQUENCE_DIGITS = 13, 20
SEQUENCE_MOST = 15  # digits: more are no whole number in Lua


StowRow = tuple[str, str, bytes, bytes]  # entry, member, digest, owner: see stow.lua


@dataclass(slots=True)
class Stowage:
    """`sites`: whose mails these are; `ids`: [bucket, row, many], `lanes`: [bucket, site, row, many], rows and sites
    counted from 1."""

    rows: list[StowRow] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    lanes: list[list[int]] = field(default_factory=list)

    @property
    def head(self) -> tuple[str, str, str]:
        """The lists as the script takes them."""
        return ",".join(self.sites), _listed(self.ids), _listed(self.lanes)


def _listed(runs: Sequence[Sequence[int]]) -> str:
    return ",".join([":".join(map(str, run)) for run in runs])


def stowage(rows: Sequence[SiftRow], p: int, route: str) -> Stowage | None:
    """Of a page of the stream of priority `p`; None where one of its mails is for `sift` to look at, and where their
    ids do not count up: those it takes for less."""
    digests = [row.digest for row in rows if row.digest]
    if not all(row.site for row in rows) or len(set(digests)) < len(digests):
        return None
    digit, found = str(p), Stowage()
    places: dict[str, int] = {}
    ms_now, site_now, place, head, base, taken = "", "", 0, "", 0, b""
    block, kin = -1, b""  # of the last row: which neighbours, and its bucket of ids
    for nth, (id_, site, digest, _) in enumerate(rows, 1):
        ms, _, seq = id_.partition("-")
        if ms != ms_now or site != site_now:
            if len(ms) != TIME_DIGITS or ms[0] == "0":  # no id of our time
                return None
            ms_now, site_now, head = ms, site, f"{route}|{site}|{digit}{ms}-"
            base, taken = int(ms[-9:]) * 31, UNHASHED + digit.encode() + int(ms).to_bytes(6, "big")
            place, block = places.setdefault(site, len(places) + 1), -1
        if len(seq) > SEQUENCE_MOST:
            return None
        number = int(seq)
        if number // NEIGHBOURS == block:
            found.lanes[-1][3] += 1
        else:
            block = number // NEIGHBOURS
            found.lanes.append([(base + number % 10**9 // NEIGHBOURS) % LANE_BUCKETS, place, nth, 1])
        owner = b""
        if digest:
            owner = taken + number.to_bytes((number.bit_length() + 7) // 8, "big")
            if digest[:2] == kin:
                found.ids[-1][2] += 1
            else:
                found.ids.append([int.from_bytes(digest[:2], "big") % ID_BUCKETS, nth, 1])
        kin = digest[:2]
        found.rows.append((digit + id_, head + seq.zfill(SEQUENCE_DIGITS), digest, owner))
    found.sites = list(places)
    return found if 2 * len(found.ids) <= len(digests) + 1 else None
