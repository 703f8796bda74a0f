"""deploy/: what others read. Their own checkers where they are installed; names against code and docs everywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.shell import streamq
from starlette.routing import Route

from streamq.queue.connection import connect
from streamq.queue.overview import BARS, Overviews
from streamq.queue.spool import Spool
from streamq.settings import load_settings
from streamq.smtp.classes import class_names
from streamq.web.serve import queue_app
from streamq.web.worker import worker_app
from streamq.worker import Worker

HOME = Path(__file__).parents[2]
DEPLOY = HOME / "deploy"
RULES = DEPLOY / "prometheus" / "streamq.rules.yml"
TESTS = DEPLOY / "prometheus" / "streamq.rules_test.yml"
BOARD = DEPLOY / "grafana" / "streamq.json"
UNITS = sorted(DEPLOY.glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool (apt install prometheus)")


def _ran(*command: str | Path, cwd: Path = HOME) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return groups


def _alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in _groups() for rule in group["rules"] if "alert" in rule}


def _board() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(BOARD.read_text())
    return board


def _board_queries() -> list[str]:
    return [target["expr"] for panel in _board()["panels"] for target in panel["targets"]]


def _manifests() -> list[dict[str, Any]]:
    return [found for path in MANIFESTS for found in yaml.safe_load_all(path.read_text())]


def _of(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in _manifests() if each["kind"] == kind}


def _scaler() -> str:
    [trigger] = _of("ScaledObject")["streamq-worker"]["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


# -- Prometheus ------------------------------------------------------------------------------------------------------


@promtool
def test_the_rules_are_rules_and_fire_where_they_should() -> None:
    _ran("promtool", "check", "rules", RULES)
    _ran("promtool", "test", "rules", TESTS)


def test_each_alert_is_tested_where_it_fires_and_where_it_does_not() -> None:
    tests = yaml.safe_load(TESTS.read_text())["tests"]
    quiet = {each["alertname"] for test in tests for each in test.get("alert_rule_test", ()) if not each["exp_alerts"]}
    fires = set(re.findall(r'"(Streamq\w+)", alertstate="firing", severity|alertname="(\w+)"', TESTS.read_text()))
    names = {name for pair in fires for name in pair if name}
    assert quiet == names == _alerts().keys()


@promtool
def test_without_its_rule_no_alert_fires(tmp_path: Path) -> None:
    """The tests can fail, and do, for each of the alerts."""
    groups = _groups()
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    for group in groups:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = f"({rule['expr'].strip()}) and vector(0) > 1"
    (tmp_path / RULES.name).write_text(yaml.safe_dump({"groups": groups}))
    done = subprocess.run(
        ("promtool", "test", "rules", TESTS.name), cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    failed = set(re.findall(r'alertname=\\?"(\w+)\\?"', done.stdout + done.stderr))
    assert failed == _alerts().keys()


def test_each_alert_says_what_to_do() -> None:
    for name, rule in _alerts().items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"].keys() == {"summary", "description"}, name


def test_each_metric_that_is_asked_for_is_there() -> None:
    """docs/operations.md has all of them, with their labels: tests/web/test_web_metrics.py."""
    rows = re.findall(
        r"^\| `(streamq_[a-z_]+)(?:\{([a-z, ]*)\})?`", (HOME / "docs" / "operations.md").read_text(), re.M
    )
    known = {name: set(labels.replace(" ", "").split(",")) - {""} for name, labels in rows}
    queries = [rule["expr"] for group in _groups() for rule in group["rules"]] + _board_queries() + [_scaler()]
    for query in queries:
        for name, labels in re.findall(r"\b(streamq_[a-z_]+)(?:\{([^}]*)\})?", query):
            plain = re.sub(r"_(bucket|sum|count)$", "", name)
            assert plain in known, query
            asked = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', labels)) - {"job", "queue"}
            assert asked <= known[plain], query


def test_each_class_that_is_asked_for_is_one() -> None:
    known = {*class_names(), "breaker", *BARS}
    for rule in _alerts().values():
        for text in re.findall(r'(?:class|why)[!=]~?"([^"]*)"', rule["expr"]):
            assert set(text.split("|")) <= known, text


@promtool
def test_the_boards_queries_and_the_scalers_are_queries(tmp_path: Path) -> None:
    queries = [*_board_queries(), _scaler()]
    plain = [each.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$queue", ".*") for each in queries]
    rules = [{"record": f"q:{n}", "expr": query} for n, query in enumerate(plain)]
    path = tmp_path / "board.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    _ran("promtool", "check", "rules", path)


@promtool
def test_the_board_shows_a_provider_that_takes_nothing(tmp_path: Path) -> None:
    """A worker exports no outcome that it never met: no `relayed` of who refuses all."""
    [query] = [each for each in _board_queries() if "by (provider)" in each and "/" in each]
    query = query.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$queue", ".*")

    def attempts(provider: str, outcome: str) -> dict[str, str]:
        labels = f'queue="q", job="w", provider="{provider}", outcome="{outcome}"'
        return {"series": f"streamq_attempts_total{{{labels}}}", "values": "0+60x10"}

    series = [("google", "bounced"), ("google", "unjudged"), ("yahoo", "relayed"), ("yahoo", "deferred")]
    seen = [{"labels": '{provider="google"}', "value": 1}, {"labels": '{provider="yahoo"}', "value": 0.5}]
    test: dict[str, Any] = {"interval": "1m", "input_series": [attempts(*each) for each in series]}
    test["promql_expr_test"] = [{"expr": query, "eval_time": "10m", "exp_samples": seen}]
    path = tmp_path / "board.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    _ran("promtool", "test", "rules", path)


def test_the_board_and_the_scaler_tell_queues_apart() -> None:
    """Of workers, too: each metric names its queue (tests/web/webbed.py)."""
    for query in _board_queries():
        metrics = re.findall(r"\bstreamq_[a-z_]+(\{[^}]*\})?", query)
        assert metrics, query
        assert all('queue=~"$queue"' in labels for labels in metrics), query
    assert re.findall(r"\bstreamq_[a-z_]+\{queue=\"(\w+)\"", _scaler()) == [load_settings().queue] * 2
    names = [each["name"] for each in _board()["templating"]["list"]]
    assert names == ["datasource", "queue", "job"]


def test_the_boards_panels_have_room() -> None:
    panels = _board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 15
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


# -- systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_one(path: Path, tmp_path: Path) -> None:
    """All but that its program is there."""
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/streamq/bin/streamq", "/bin/true"))
    done = subprocess.run(("systemd-analyze", "verify", unit), capture_output=True, text=True, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if path.name in line]
    assert said == []


async def _takes(words: list[str]) -> None:
    """The command has each of these flags."""
    text = (await streamq(words[0], "--help", columns=200)).out
    for word in words[1:]:
        assert not word.startswith("--") or word in text, words


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
async def test_a_units_command_is_one(path: Path) -> None:
    await _takes(_command(path).split())


def _command(unit: Path) -> str:
    [line] = re.findall(r"^ExecStart=/opt/streamq/bin/streamq (.*)$", unit.read_text(), re.M)
    return str(line)


# -- Kubernetes ------------------------------------------------------------------------------------------------------


def test_every_manifest_is_named_in_the_kustomization() -> None:
    known = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert {*known["resources"], "kustomization.yaml"} == {path.name for path in MANIFESTS}


def test_selectors_select_and_ports_are_there() -> None:
    deployments = _of("Deployment")
    for each in deployments.values():
        pod = each["spec"]["template"]
        assert each["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        for container in pod["spec"]["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for probe in ("livenessProbe", "readinessProbe"):
                assert container[probe]["httpGet"]["port"] in ports
            assert any(str(number) in " ".join(container["args"]) for number in ports.values())
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
    for each in _of("Service").values():
        fits = [
            one
            for one in deployments.values()
            if each["spec"]["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(fits) == 1
    for each in _of("PodDisruptionBudget").values():
        labels = each["spec"]["selector"]["matchLabels"]
        allowed = {name: value for name, value in each["spec"].items() if name != "selector"}
        assert allowed == {"maxUnavailable": 1}, "an idle queue has one worker: no node would ever be drained"
        assert labels == deployments[each["metadata"]["name"]]["spec"]["selector"]["matchLabels"]


def test_who_is_scaled_is_counted_by_the_scaler_alone() -> None:
    """`replicas` would set it back, each time that the manifests are applied."""
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in _of("ScaledObject").values()}
    deployments = _of("Deployment")
    assert scaled == {"streamq-worker"}
    assert [name for name, each in deployments.items() if "replicas" not in each["spec"]] == sorted(scaled)


async def test_what_pods_run_and_answer_is_there(server_url: str) -> None:
    spool = Spool(load_settings(), connect(server_url))
    await spool.open()
    worker = worker_app(Worker(load_settings(relay="smtp://127.0.0.1:9"), server_url))
    apps = {"worker": worker, "serve": queue_app(Overviews(spool))}
    for name, app in apps.items():
        paths = {route.path for route in app.routes if isinstance(route, Route)}
        pod = _of("Deployment")[f"streamq-{name}"]["spec"]["template"]
        [container] = pod["spec"]["containers"]
        await _takes(container["args"])
        assert container["args"][0] == name
        assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} <= paths
        assert pod["metadata"].get("annotations", {}).get("prometheus.io/path", "/metrics") in paths
    await spool.close()


def test_pods_have_more_time_to_end_than_their_grace() -> None:
    pod = _of("Deployment")["streamq-worker"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] * 1000 > load_settings().grace


def test_scaling_finds_its_workers_and_never_ends_the_last() -> None:
    scaled = _of("ScaledObject")["streamq-worker"]["spec"]
    assert scaled["scaleTargetRef"]["name"] in _of("Deployment")
    assert scaled["minReplicaCount"] >= 1  # who else would release what is scheduled?
    assert "fallback" in scaled
    [trigger] = scaled["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"  # else no series is an empty queue, and no error


@promtool
def test_only_unread_mail_scales_workers_and_only_while_it_could_go(tmp_path: Path) -> None:
    def mails(state: str, many: int, priority: str = "low", queue: str = "streamq") -> dict[str, str]:
        labels = f'queue="{queue}", priority="{priority}", state="{state}"'
        return {"series": f"streamq_mails{{{labels}}}", "values": f"{many}x5"}

    def way(name: str, is_open: int, queue: str = "streamq") -> dict[str, str]:
        return {"series": f'streamq_route_open{{queue="{queue}", route="{name}"}}', "values": f"{is_open}x5"}

    waiting = [mails("waiting", 7000), mails("waiting", 0, "high")]
    other = [mails("waiting", 9000, queue="other"), way("a", 1, queue="other")]
    aside = [mails(state, 10**6) for state in ("parked", "scheduled", "held")]
    cases = [
        ([*waiting, *aside, *other, way("a", 1), way("b", 0)], 7000),
        ([*waiting, *aside, *other, way("a", 0), way("b", 0)], 0),
        ([mails("waiting", 0), *aside, *other, way("a", 1)], 0),
    ]
    tests = [
        {
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [
                {"expr": _scaler(), "eval_time": "2m", "exp_samples": [{"labels": "{}", "value": value}]}
            ],
        }
        for series, value in cases
    ]
    path = tmp_path / "scaler.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "tests": tests}))
    _ran("promtool", "test", "rules", path)
