"""`python -m bench mails`: many mails by chance, built by us and read by the standard library.

mails      drawn (bench/letters.py), built, parsed by `email.policy.default`, held against what was meant
differing  in which a reader finds something else, or whose bytes break a rule of the wire
compared   further ones, a tenth as many and tamer, built by `email.policy.SMTP`, too, and read in the same way
unlike     of those, in which the two do not mean the same
"""

from __future__ import annotations

import argparse
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from bench.letters import Letter, letter, tame_letter
from bench.readers import differences, rebuilt, wire_faults
from streamq.mail import parse

__all__ = ["Found", "add", "build", "chunk", "mails", "table", "unlike"]

CHUNK = 500  # mails of a task
EVERY = 10  # one more is drawn that policy.SMTP can build
SHOWN = 20
AT_MS = 1_732_237_561_234


@dataclass(slots=True)
class Found:
    mails: int = 0
    differing: int = 0
    compared: int = 0
    unlike: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.mails > 0 and not self.differing and not self.unlike

    def add(self, other: Found) -> None:
        self.mails += other.mails
        self.differing += other.differing
        self.compared += other.compared
        self.unlike += other.unlike
        self.examples = [*self.examples, *other.examples][:SHOWN]


def build(fields: dict[bytes, bytes]) -> bytes:
    return parse(fields, entry="11732237561234-0", at_ms=AT_MS, salt=b"salt", max_bytes=25_000_000).content()


def chunk(seed: int, start: int, stop: int) -> Found:
    found = Found()
    for number in range(start, stop):
        one = letter(random.Random(seed * 1_000_000_007 + number))
        content = build(one.fields)
        wrong = wire_faults(content) + differences(one, content)
        found.mails += 1
        if wrong:
            found.differing += 1
            found.examples.append(f"{number}: {wrong[0]}")
        if number % EVERY == 0:
            found.compared += 1
            if wrong := unlike(tame_letter(random.Random(seed * 1_000_000_007 + number))):
                found.unlike += 1
                found.examples.append(f"tame {number}: {wrong[0]}")
    return found


def unlike(one: Letter) -> list[str]:
    """What differs between what was meant, what we build, and what `policy.SMTP` builds."""
    ours, theirs = build(one.fields), rebuilt(one)
    return wire_faults(ours) + differences(one, ours) + [f"theirs: {each}" for each in differences(one, theirs)]


def mails(count: int, *, seed: int = 1, processes: int = 1, first: int = 0) -> Found:
    """Those from number `first` on: a long run can be done in parts. Tasks are handed out as others end, so that a
    million of them are never kept."""
    found = Found()
    ranges = ((start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK))
    with ProcessPoolExecutor(processes) as pool:
        waiting = [pool.submit(chunk, seed, *each) for each in islice(ranges, processes * 2)]
        while waiting:
            found.add(waiting.pop(0).result())
            waiting += [pool.submit(chunk, seed, *each) for each in islice(ranges, 1)]
    return found


def table(found: Found) -> str:
    lines = [f"{name:>10} {getattr(found, name)}" for name in ("mails", "differing", "compared", "unlike")]
    return "\n".join([*lines, *found.examples])


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("mails", parents=[common], help="mails by chance, read back by the standard library")
    one.add_argument("--count", type=int, default=10_000, help="of them (10000)")
    one.add_argument("--seed", type=int, default=1, help="which ones (1)")
    one.add_argument("--first", type=int, default=0, help="number of the first one: a long run in parts (0)")
    one.add_argument("--processes", type=int, default=1, help="that share the work (1)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    found = mails(asked.count, seed=asked.seed, processes=asked.processes, first=asked.first)
    return {"results": asdict(found)}, found.good, table(found)
