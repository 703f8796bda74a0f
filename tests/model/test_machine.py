"""The state machine against the default real server. STREAMQ_MODEL=long: hours rather than seconds."""

from __future__ import annotations

import os

import pytest
from actors import Spec
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Machine
from rig import Rig

PROFILE = os.environ.get("STREAMQ_MODEL", "ci")
COMMON = settings(
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
PROFILES = {
    # The same stories each time: a red run says that something changed. `long` looks for new ones.
    "ci": settings(COMMON, derandomize=True, max_examples=60, stateful_step_count=40),
    "long": settings(COMMON, max_examples=5_000, stateful_step_count=100),
    # One look for a mutation: found is found, a shorter story is not needed.
    "mutant": settings(COMMON, max_examples=120, stateful_step_count=50, phases=[Phase.generate]),
}


@pytest.mark.timeout(0 if PROFILE == "long" else 300)
def test_every_interleaving_keeps_the_law(server_url: str) -> None:
    kind = type("MachineOnAServer", (Machine,), {"url": server_url})
    run_state_machine_as_test(kind, settings=PROFILES[PROFILE])


@pytest.mark.leaves_mail
@pytest.mark.parametrize("ahead", [0, 900, 120_000])
def test_who_comes_for_what_is_read_again_is_known_to_the_book(server_url: str, ahead: int) -> None:
    """Another worker comes behind the one that watches over a mail whose group was made again."""
    rig = Rig(server_url, "again")
    one, two, _ = rig.workers
    rig.produce(1, Spec("main|free.test", send_at=rig.book.now_ms + 1000 + ahead))
    rig.read(one, (1, 1, 1))
    rig.admit(one, list(one.hand))
    rig.release(one, 3)
    rig.lose_group(1)
    rig.run(rig.spool.open())
    for worker in (two, one):
        rig.release(worker, 3)
    rig.close()
