"""The state machine against the default real server. STREAMQ_MODEL=long: hours rather than seconds."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import Machine

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
