"""That the mutations still fit the scripts, cover them all, and that a broken script turns the machine red.

The whole list is a command: `python tests/model/mutations.py`.
"""

from __future__ import annotations

import random

import pytest
from mutations import MUTATIONS, Mutation, hunted, mutated

from streamq.queue.script import VERBS

# Those that a few examples find; a day's tests take two of them, another day's two others.
QUICK = {
    "settle-no-fence",
    "take-without-token",
    "heartbeat-no-fence",
    "release-without-unschedule",
    "settle-defer-without-ack",
    "schedule-uncounted",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_stands_once_in_its_script(mutation: Mutation) -> None:
    assert mutated(mutation)


def test_every_script_is_broken_at_least_once() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert {mutation.file for mutation in MUTATIONS} >= {f"{verb}.lua" for verb in VERBS}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("turn", [0, 1])
def test_a_broken_script_turns_the_machine_red(turn: int) -> None:
    chosen = random.Random(turn).choice([each for each in MUTATIONS if each.name in QUICK])
    assert hunted(chosen, conformance=False) == "machine", chosen.name
