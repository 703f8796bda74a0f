"""The picture of a simulation: what goes into its panels."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from streamq.simulate.draw import Panel, draw
from streamq.simulate.result import Result, SiteResult, rates
from streamq.simulate.scenario import Scenario, Spec

__all__ = ["capacity", "picture"]

STEPS = 240
WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds
PANELS = 12
DRAWN = 0.99  # of all mails


def picture(found: Result, title: str = "") -> str:
    """An SVG document: the sites with most mails, and nothing of the rest."""
    sites = sorted(found.sites, key=lambda site: -site.mails)[:PANELS]
    end = _end(found)
    step = float(next((width for width in WIDTHS if end / width <= STEPS), WIDTHS[-1]))
    specs = {site.name: site for site in found.scenario.sites}
    panels = [
        Panel(
            site.name,
            _note(site),
            _whole(rates(found.record.site(site.name).taken, step, end)),
            _whole(rates(found.record.site(site.name).refused, step, end)),
            capacity(specs[site.name], found.scenario),
        )
        for site in sites
        if site.mails
    ]
    return draw(title or f"{found.scenario.mails:,} mails", panels, step)


def _whole(steps: list[float]) -> list[float]:
    """Without the last step, of which only a part may have been."""
    return steps[:-1] if len(steps) > 1 else steps


def _end(found: Result) -> float:
    """Seconds. A last hundredth of all mails that takes hours is not drawn: the rest would be a line at the left."""
    taken = sorted(at for site in found.record.sites.values() for at in site.taken)
    if not taken:
        return found.seconds or 1.0
    most = taken[int((len(taken) - 1) * DRAWN)]
    return taken[-1] if taken[-1] <= 1.25 * most else most


def capacity(spec: Spec, scenario: Scenario) -> Callable[[float], float]:
    """What a site, or a relay (no name), takes at most, in mails a second, at each time. It is asked in their order."""
    receiver = spec.twin()
    # Of one that takes so many at once: a mail has a connection for two round trips and the server's own time, and is
    # under way from the answer to its recipient on.
    held = scenario.rtt * (1 if spec.name else 2) + scenario.service

    def at(seconds: float) -> float:
        model = receiver.at(seconds)
        return min(model.capacity(seconds), model.connections(seconds) / held if held else inf)

    return at


def _note(site: SiteResult) -> str:
    return f"{site.model}: {site.mails:,} mails, {site.met_share:.1%} met a refusal"
