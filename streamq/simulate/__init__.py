"""The simulation: the same scripts, settings and workers in virtual time, against models of providers."""

from __future__ import annotations

from streamq.simulate.models import MODELS
from streamq.simulate.picture import picture
from streamq.simulate.result import Result, SiteResult
from streamq.simulate.run import Terms, simulate
from streamq.simulate.scenario import Scenario, read_scenario

__all__ = ["MODELS", "Result", "Scenario", "SiteResult", "Terms", "picture", "read_scenario", "simulate"]
