"""How rates adapt to what receivers say: `[adapt]`. docs/limits.md explains each.

The scripts read them as one JSON object (`published`), so all workers need the same; times in µs, rates in mails per
second.
"""

from __future__ import annotations

from typing import Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from streamq.settings.values import Duration, OneWindow, Window, duration_ms

__all__ = ["AdaptSettings"]


class AdaptSettings(BaseModel):
    """A throttle slows its site or its route. With `enabled` off it is a retry by the mail's own schedule."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    enabled: bool = True
    cut: float = Field(default=0.85, ge=0.1, le=0.99)
    floor: OneWindow = Window(count=1, window_ms=duration_ms("1m"))
    rest: Duration = duration_ms("500ms")
    rest_most: Duration = duration_ms("15m")
    hint_most: Duration = duration_ms("4h")
    step: float = Field(default=0.04, ge=0.005, le=0.5)
    wait: Duration = duration_ms("15s")
    wait_most: Duration = duration_ms("1m")
    loss: float = Field(default=0.025, ge=0.001, le=0.5)
    cool_down: Duration = duration_ms("1m")
    sites: int = Field(default=3, ge=0, le=20)
    noise: Duration = duration_ms("10m")
    memory: Duration = duration_ms("1h")
    ramp: int = Field(default=30, ge=0, le=1000)

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        for least, most in (("rest", "rest_most"), ("wait", "wait_most")):
            if getattr(self, least) > getattr(self, most):
                raise ValueError(
                    f"adapt.{most}: less than {least}: {getattr(self, most)} ms, {getattr(self, least)} ms"
                )
        if self.rest < 1:
            raise ValueError(f"adapt.rest: at least 1ms: {self.rest} ms")
        if self.sites == 1:
            raise ValueError("adapt.sites: 0 for never, or at least 2: 1")
        return self

    def published(self) -> bytes:
        """What lib/pace.lua and lib/throttle.lua go by; empty where nothing adapts."""
        if not self.enabled:
            return b""
        times = ("rest", "rest_most", "hint_most", "wait", "wait_most", "cool_down", "noise", "memory")
        return orjson.dumps(
            {
                "cut": self.cut,
                "floor": self.floor.count / self.floor.window_ms * 1000,
                "step": self.step,
                "loss": self.loss,
                "sites": self.sites,
                "ramp": self.ramp,
                **{name: getattr(self, name) * 1000 for name in times},
            },
            option=orjson.OPT_SORT_KEYS,
        )
