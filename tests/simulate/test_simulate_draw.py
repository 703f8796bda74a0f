"""draw.py, picture.py: an SVG that every reader takes, with what was measured in it."""

from __future__ import annotations

from math import inf
from xml.etree import ElementTree

import pytest

from streamq.simulate.draw import WIDTH, Panel, draw
from streamq.simulate.models import Answer
from streamq.simulate.picture import capacity, picture
from streamq.simulate.record import Record
from streamq.simulate.relay import Change
from streamq.simulate.result import Result, SiteResult, rates
from streamq.simulate.scenario import Scenario, Spec
from streamq.smtp.replies import default_replies

SPACE = "{http://www.w3.org/2000/svg}"
SLOW = Answer(450, "4.7.1 a.example: too many messages, slow down")


def lines(text: str, kind: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(text)
    found = [each for each in root.iter(f"{SPACE}polyline") if each.get("class") == kind]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in each.attrib["points"].split())] for each in found]


def test_a_line_goes_through_all_values_inside_the_picture() -> None:
    values = [0.0, 2.0, 1.0, 4.0]
    [points] = lines(draw("Title", [Panel("a.example", "", values, [0.0] * 4)], 10.0), "taken")
    xs, ys = zip(*points, strict=True)
    assert list(xs) == sorted(xs)
    assert 0 < min(xs) < max(xs) < WIDTH
    heights = [ys[0] - y for y in ys]  # SVG counts from above
    assert [height / heights[3] for height in heights] == pytest.approx([0, 0.5, 0.25, 1], abs=0.01)


def test_nothing_refused_is_no_line() -> None:
    assert lines(draw("Title", [Panel("a.example", "", [1.0], [0.0])], 1.0), "refused") == []


def test_what_is_written_on_it_is_text() -> None:
    text = draw("<script>&", [Panel('a"<b>', "1 < 2", [1.0, 2.0], [0.0, 0.0])], 1.0)
    root = ElementTree.fromstring(text)
    written = [each.text for each in root.iter(f"{SPACE}text")]
    assert {"<script>&", 'a"<b>', "1 < 2"} <= set(written)


def test_a_limit_without_number_is_not_drawn_and_a_change_has_a_corner() -> None:
    def limit(at: float) -> float:
        return inf if at < 50 else 2.0

    root = ElementTree.fromstring(draw("T", [Panel("a", "", [1.0] * 101, [0.0] * 101, limit)], 1.0))
    [path] = [each.attrib["d"] for each in root.iter(f"{SPACE}path")]
    assert path.count("M") == 1
    none = ElementTree.fromstring(draw("T", [Panel("a", "", [1.0] * 101, [0.0] * 101)], 1.0))
    assert list(none.iter(f"{SPACE}path")) == []


@pytest.mark.parametrize("seconds", [1, 59, 3600, 100_000, 30_000_000])
def test_the_axis_has_a_few_times_that_do_not_repeat(seconds: int) -> None:
    root = ElementTree.fromstring(draw("T", [Panel("a", "", [1.0, 1.0], [0.0, 0.0])], float(seconds)))
    times = [each.text for each in root.iter(f"{SPACE}text") if "mid" in each.get("class", "")]
    assert 1 < len(times) <= 10
    assert len(set(times)) == len(times)


def test_rates_count_each_mail_once() -> None:
    assert rates([0.0, 0.5, 9.9, 10.0, 25.0, 99.0], 10.0, 30.0) == [0.3, 0.1, 0.1, 0.0]


def test_a_picture_has_a_panel_for_each_site_with_mails() -> None:
    record = Record(default_replies())
    for at in range(100):
        record.takes("a.example", f"u{at}@a.example", float(at))
        record.refuses("a.example", f"u{at}@a.example", float(at), SLOW)
    sites = (Spec("a.example", "rate", 1.0, {"rate": 2}), Spec("b.example"))
    made = [
        SiteResult.of(site.name, site.model, many, record.site(site.name))
        for site, many in zip(sites, (100, 0), strict=True)
    ]
    found = Result(Scenario(sites, mails=100), made, 0, 0, 1, 0, record)
    text = picture(found)
    assert len(lines(text, "taken")) == len(lines(text, "refused")) == 1
    assert "100.0% met a refusal" in text
    assert made[0].throttles == made[0].met == made[0].refusals == 100


def test_capacity_follows_changes_and_connections() -> None:
    scenario = Scenario((Spec("a.example"),), rtt=0.1, service=0.4)
    change = (Change(10.0, (("most", 10),)),)
    limit = capacity(Spec("a.example", "connections", 1.0, {"most": 5}, change), scenario)
    assert [limit(9.0), limit(10.0)] == [10.0, 20.0]
    relay = capacity(Spec("", "connections", 0.0, {"most": 6}), scenario)
    assert relay(0.0) == pytest.approx(10.0)
    assert capacity(Spec("a.example"), scenario)(0.0) == inf
