"""What `throughput` compares with what, and how it says so; readings of servers and sinks, by their own texts."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.bars import Bar, bars
from bench.cases import BASE, STANDARD, Case, Run, asked_for
from bench.debian_sink import read_count
from bench.facts import filesystem, processor
from bench.promises import kept
from bench.server_books import Books, read_books
from bench.throughput import by_case, ratios, results, table
from streamq.settings import load_settings

INFO = """\
# CPU\r
used_cpu_sys:1.5\r
used_cpu_user:2.25\r
used_cpu_sys_children:40.0\r
# Stats\r
total_commands_processed:900\r
total_reads_processed:100\r
# Commandstats\r
cmdstat_evalsha:calls=30,usec=100,usec_per_call=3.3,rejected_calls=0,failed_calls=0\r
cmdstat_xreadgroup:calls=12,usec=9,usec_per_call=0.75,rejected_calls=0,failed_calls=0\r
cmdstat_config|set:calls=1,usec=9,usec_per_call=9.0,rejected_calls=0,failed_calls=0\r
"""
POSTFIX = Case(client="postfix", processes=2)


def run(case: Case, rate: float, **more: object) -> Run:
    made = Run(case, "1.0", 100, {"mails_per_s": rate, "worker_cpu_s_per_1000": 0.1}, {"each mail once": True})
    return replace(made, settings={"command": ["peer worker"]}, **more)  # type: ignore[arg-type]


def test_without_a_word_the_standard_cases() -> None:
    assert asked_for(client=None, mode=[]) == STANDARD
    assert len(set(STANDARD)) == len(STANDARD)
    assert {case.client for case in STANDARD} == {"streamq", "postfix", "dramatiq", "taskiq", "celery"}


def test_every_combination_of_what_is_named() -> None:
    cases = asked_for(mode=["off", "bdat"], processes=[1, 2], limited=[True])
    assert len(cases) == 4
    assert {(case.mode, case.processes) for case in cases} == {("off", 1), ("off", 2), ("bdat", 1), ("bdat", 2)}
    assert all(case.limited and case.fsync == BASE.fsync for case in cases)


def test_a_peer_has_no_settings_of_ours() -> None:
    cases = asked_for(client=["postfix", "celery"], mode=["off", "overlap"], what=["drain", "flow"], limited=[True])
    assert cases == (POSTFIX, replace(POSTFIX, what="flow"), Case(client="celery"))


@pytest.mark.parametrize("case", [case for case in STANDARD if case.client == "streamq"])
def test_settings_of_a_case_are_settings(case: Case, tmp_path: object) -> None:
    file = f"{tmp_path}/streamq.toml"
    with open(file, "w", encoding="utf-8") as text:
        text.write(case.settings.replace("[routes.main]\n", '[routes.main]\nurl = "smtp://127.0.0.1:25"\n'))
    route = load_settings(config=file).ways["main"]
    assert (route.pipelining, route.chunking, route.connections) == (
        case.pipelining,
        case.chunking,
        20 * case.processes,
    )


def test_like_is_compared_with_like_round_by_round() -> None:
    ours, one = replace(BASE, processes=2), BASE
    dramatiq = Case(client="dramatiq", processes=2)
    flow = replace(POSTFIX, what="flow")
    runs = []
    for slow in (1, 2, 1):
        runs += [run(ours, 4000 / slow), run(one, 3000 / slow), run(POSTFIX, 400 / slow), run(dramatiq, 800 / slow)]
        runs += [run(flow, 100 / slow)]
    assert ratios(runs) == [
        (ours, "postfix", 10.0),
        (ours, "dramatiq", 5.0),
        (one, "postfix", 7.5),
    ]


def test_the_table_says_what_was_not_so_and_who_was_not_there() -> None:
    bad = run(BASE, 1000, checks={"check is clean": False})
    runs = [bad, run(POSTFIX, 100), Run(Case(client="celery"), skipped="celery is not installed")]
    shown = table(runs)
    assert f"{BASE.name}: not so: check is clean" in shown
    assert "skipped: celery is not installed" in shown
    assert f"{BASE.name}: 10.0 times postfix" in shown
    assert not bad.good
    assert list(by_case(runs)) == [BASE, POSTFIX]
    found = results(runs)
    assert found["medians"][BASE.name]["mails_per_s"] == 1000
    assert [one["good"] for one in found["runs"]] == [False, True, True]


def test_promises_hold_with_limits_and_without() -> None:
    limited = replace(BASE, limited=True)
    two, flow = replace(BASE, processes=2), replace(BASE, what="flow", processes=2, fsync="always")
    medians = {
        BASE: {"worker_cpu_s_per_1000": 0.09, "round_trips_per_mail": 0.2},
        limited: {"worker_cpu_s_per_1000": 0.1},
        replace(BASE, kind="50k"): {"worker_cpu_s_per_1000": 9.0},
        two: {"worker_cpu_s_per_1000": 9.0},
    }
    found = kept(medians, [(two, "dramatiq", 4.4), (flow, "postfix", 10.0), (two, "celery", 0.1)])
    assert [each.good for each in found] == [True, False, False, False, True]
    assert found[2].words == f"{limited.name}: worker_cpu_s_per_1000 0.100, at most 0.09: broken"


def test_a_server_s_books() -> None:
    now = read_books(INFO)
    assert now == Books(cpu=3.75, reads=100, scripts=30, reading=12, commands=900, script_us=100)
    found = now.since(Books(cpu=1.75, reads=0, scripts=10, reading=2, commands=100, script_us=50), 100)
    assert found == {
        "redis_cpu_s_per_1000": 20.0,
        "socket_reads_per_mail": 1.0,
        "script_calls_per_mail": 0.2,
        "round_trips_per_mail": 0.3,
        "script_us_per_mail": 0.5,
        "commands_per_mail": 8.0,
    }


def test_a_sink_s_running_counters() -> None:
    assert read_count(b"") == 0
    assert read_count(b"sess=1 quit=0 mesg=9\rsess=1 quit=0 mesg=10\r") == 10
    assert read_count(b"sess=1 quit=0 mesg=9\rsess=1 quit=0 mesg=1") == 9  # 10 is not written out yet


def test_the_machine_s_name() -> None:
    assert processor("vendor_id\t: X\nmodel name\t: Some CPU: 3 GHz\n") == "Some CPU: 3 GHz"
    assert processor("") == ""


def test_what_the_runs_lie_on() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\nproc /proc proc rw 0 0\n"
    assert filesystem(mounts, "/tmp/x") == "tmpfs"
    assert filesystem(mounts, "/tmp/disk/x") == "xfs"
    assert filesystem(mounts, "/tmpfile") == "ext4"
    assert filesystem("", "/x") == "unknown"


def test_a_picture_has_a_bar_for_each() -> None:
    drawn = bars("a < b", [("mails a second", [Bar("ours & all", 10.0, True), Bar("theirs", 5.0, False)], ",.0f")])
    root = ElementTree.fromstring(drawn)
    widths = [float(each.attrib["width"]) for each in root.iter() if each.attrib.get("class") in ("ours", "theirs")]
    assert widths[0] == pytest.approx(2 * widths[1])
    ElementTree.fromstring(bars("nothing", [("none", [], "g")]))
