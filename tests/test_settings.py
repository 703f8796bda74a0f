"""Settings: where they come from, which values they take, and that no error repeats a secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.errors import SettingsError
from streamq.keys import TABLE
from streamq.settings import UNITS_MS, Settings, Window, duration_ms, load_settings, window

SECRET = "hunter2"


def refused(**flags: Any) -> str:
    with pytest.raises(SettingsError) as wrong:
        load_settings(**flags)
    text = str(wrong.value)
    assert "\n" not in text
    assert SECRET not in text
    assert len(text) < 500
    return text


def file_of(folder: Path, text: str) -> Path:
    path = folder / "streamq.toml"
    path.write_text(text)
    return path


# -- durations and rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", 90_000),
        ("5m", 300_000),
        ("1.5h", 5_400_000),
        ("5 d", 432_000_000),
        ("250ms", 250),
        ("30", 30_000),
        (30, 30_000),
        (0.5, 500),
        ("366d", 366 * UNITS_MS["d"]),
    ],
)
def test_a_duration(text: str | float, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "5 minutes", "-5s", "1e3", "5w", "0x10", "١s", "367d", "inf", "5s\n6s", "9" * 400]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not a duration|longer than a year)") as wrong:
        duration_ms(text)
    assert len(str(wrong.value)) < 200


@pytest.mark.parametrize(
    ("text", "count", "window_ms"),
    [("50/s", 50, 1000), ("600/10m", 600, 600_000), ("60000 / h", 60_000, 3_600_000), ("1/100ms", 1, 100)],
)
def test_a_rate(text: str, count: int, window_ms: int) -> None:
    assert window(text) == Window(count=count, window_ms=window_ms)


@pytest.mark.parametrize(
    "text", ["", "50", "0/s", "50/0s", "50/ms", "1/99ms", "9999999999/s", "5/367d", "-1/s", "5/s/s"]
)
def test_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not a rate|a rate is)") as wrong:
        window(text)
    assert "\n" not in str(wrong.value)


@given(st.integers(1, 10**9), st.integers(100, 366 * UNITS_MS["d"]))
def test_a_rate_reads_what_it_writes(count: int, window_ms: int) -> None:
    one = Window(count=count, window_ms=window_ms)
    if len(re.findall(r"/(\d*)", str(one))[0]) <= 9:
        assert window(str(one)) == one


# -- where they come from --------------------------------------------------------------------------------------


def test_the_defaults_are_the_contracts() -> None:
    known = load_settings()
    assert known.redis_url is None
    assert known.queue == "streamq"
    assert known.priorities == ("high", "normal", "low")
    assert known.ways == {}
    assert known.in_hand == 100
    assert known.lease_seconds == 60
    assert known.retry == tuple(duration_ms(step) for step in ("1m", "5m", "15m", "1h", "3h", "6h"))
    assert known.max_age == duration_ms("5d")
    assert known.id_window == duration_ms("24h")
    assert known.sites is None


def test_flags_win_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, 'in_hand = 1\nqueue = "filed"\nmax_age = "1d"')
    monkeypatch.setenv("STREAMQ_CONFIG", str(path))
    monkeypatch.setenv("STREAMQ_IN_HAND", "2")
    monkeypatch.setenv("STREAMQ_QUEUE", "environ")
    known = load_settings(in_hand=3, queue=None)
    assert (known.in_hand, known.queue, known.max_age) == (3, "environ", duration_ms("1d"))


def test_a_flag_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_CONFIG", str(tmp_path / "not-there"))
    assert load_settings(config=file_of(tmp_path, "in_hand = 7")).in_hand == 7


def test_redis_url_is_taken_where_streamqs_own_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://fallback")
    assert load_settings().redis_url == "redis://fallback"
    monkeypatch.setenv("STREAMQ_REDIS_URL", "redis://own")
    assert load_settings().redis_url == "redis://own"
    assert load_settings(redis_url="redis://flag").redis_url == "redis://flag"


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAMQ_REDIS_URL", "REDIS_URL", "STREAMQ_IN_HAND", "STREAMQ_CONFIG", "STREAMQ_RELAY"):
        monkeypatch.setenv(name, "")
    assert load_settings() == Settings.model_construct()


def test_lists_are_comma_lists_or_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, 'retry = ["1s", 2]\npriorities = ["a", "b"]\n[sites."*"]\nrate = "5/s, 9/m"')
    known = load_settings(config=path)
    assert known.retry == (1000, 2000)
    assert known.priorities == ("a", "b")
    assert known.sites is not None
    assert [str(each) for each in known.sites["*"].rate] == ["5/s", "9/m"]
    monkeypatch.setenv("STREAMQ_RETRY", "3s")
    assert load_settings(config=path).retry == (3000,)


# -- routes ----------------------------------------------------------------------------------------------------


def test_the_relay_is_a_route() -> None:
    way = load_settings(relay="smtp://us%40er:p%2Fw@mail.example:587").ways["relay"]
    assert (way.host, way.port, way.user, way.password) == ("mail.example", 587, "us@er", "p/w")
    assert not way.implicit_tls
    assert way.shown == "smtp://mail.example:587"
    assert (way.connections, way.mails_per_connection, way.pipelining, way.tls) == (20, 100, "transaction", "may")


def test_a_relays_port_follows_its_scheme() -> None:
    assert load_settings(relay="smtp://mail.example").ways["relay"].port == 25
    way = load_settings(relay="smtps://mail.example").ways["relay"]
    assert (way.port, way.user, way.password, way.implicit_tls) == (465, None, None, True)


def test_routes_stand_beside_the_relay_which_is_first(tmp_path: Path) -> None:
    path = file_of(tmp_path, '[routes.bulk]\nurl = "smtps://bulk.example"\nconnections = 3\ndot_timeout = "5m"')
    ways = load_settings(config=path, relay="smtp://127.0.0.1:2525").ways
    assert list(ways) == ["relay", "bulk"]
    assert (ways["bulk"].connections, ways["bulk"].dot_timeout) == (3, 300_000)


@pytest.mark.parametrize(
    "relay",
    [
        f"http://user:{SECRET}@mail.example",
        f"smtp://user:{SECRET}",
        f"smtp://user:{SECRET}/x@mail.example:25",
        f"smtp://user:12/{SECRET}@mail.example:25",
        f"smtp://user:12#{SECRET}@mail.example",
        f"smtp://user:12?{SECRET}@mail.example",
        f"smtp://user:{SECRET}@mail.example:99999",
        f"smtp://user:{SECRET}@[::1",
        f"smtp://user:{SECRET}\u2100@mail.example",
        f"smtp://user:{SECRET}@/",
        f"smtp://user:{SECRET}@mail.example/path",
        SECRET,
    ],
)
def test_a_wrong_relay_keeps_its_secret(relay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(relay=relay).startswith("--relay: not a")
    path = file_of(tmp_path, f"[routes.main]\nurl = {relay!r}")
    assert refused(config=path).startswith(f"{path}: routes.main.url: not a")
    monkeypatch.setenv("STREAMQ_RELAY", relay)
    assert refused().startswith("STREAMQ_RELAY: not a")


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@h",
        f":{SECRET}@h",
        f"redis://:{SECRET}@h:port",
        f"redis://u:{SECRET}/2@h",
        f"redis://u:12#{SECRET}@h",
        f"redis://u:{SECRET}@[::1",
    ],
)
def test_a_wrong_redis_url_keeps_its_secret(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(redis_url=url).startswith("--redis-url: not an address")
    monkeypatch.setenv("REDIS_URL", url)
    assert refused().startswith("REDIS_URL: not an address")
    monkeypatch.setenv("STREAMQ_REDIS_URL", url)
    assert refused().startswith("STREAMQ_REDIS_URL: not an address")


@pytest.mark.parametrize("url", ["redis://", "rediss://u:p@h:1/2?ssl_cert_reqs=none", "unix:///a@b/redis.sock?db=1"])
def test_a_redis_url(url: str) -> None:
    assert load_settings(redis_url=url).redis_url == url


def test_what_prints_settings_prints_no_secret() -> None:
    known = load_settings(relay=f"smtp://u:{SECRET}@h", redis_url=f"redis://:{SECRET}@h")
    assert SECRET not in f"{known!r} {known} {known.ways!r} {known.ways}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f'[routes.main]\nurl = "smtp://h"\npassword = "{SECRET}"', "routes.main.password: no such setting"),
        (f'[routes]\nmain = "smtp://u:{SECRET}@h"', "routes.main: "),
        (f'routes = "{SECRET}"', "routes: "),
        (f'relay = ["{SECRET}"]', "relay: "),
        (f'redis_password = "{SECRET}"', "redis_password: no such setting"),
        (f'[routes.main]\nurl = {{a = "{SECRET}"}}', "routes.main.url: "),
        (f'[routes.main]\nuser = "{SECRET}"', "routes.main.url: Field required"),
        (f'[routes.main]\nurl = "smtp://u:{SECRET}%00@h"', "routes.main.url: no user"),
        (f'[routes.main]\nurl = "smtp://u@h"\ntoken = "{SECRET}"', "routes.main.token: "),
        (f'[routes.main]\nurl = "smtp://u@h"\ntoken.value = "{SECRET} b"', "routes.main.token.value: not a bearer"),
        (f'[routes.main]\nurl = "smtp://u@h"\ntoken.refresh_token = ["{SECRET}"]', "routes.main.token.refresh_token: "),
        (
            f'[routes.main]\nurl = "smtp://u@h"\ntoken.command = "{SECRET} \\""',
            "routes.main.token.command: not a command",
        ),
        (f'[routes.main]\nurl = "smtp://h"\ntls_key_password = "{SECRET}"', "routes.main: tls_key_password: needs"),
        (f'toml_values = {{relay = "smtp://u:{SECRET}@h"}}', "toml_values: no such setting"),
    ],
)
def test_no_secret_of_a_file_is_repeated(text: str, place: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, text)
    assert f"{path}: {place}" in refused(config=path)


# -- what is refused, and how it is said ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("in_hand", "many", "got 'many'"),
        ("in_hand", "0", "got '0'"),
        ("in_hand", "10001", "got '10001'"),
        ("lease_seconds", "0.1", "got '0.1'"),
        ("lease_seconds", "nan", "got 'nan'"),
        ("jitter", "0.6", "got '0.6'"),
        ("grace", "soon", "'soon'"),
        ("retry", "1m,soon", "'soon'"),
        ("retry", ",", "at least one step"),
        ("max_age", "-1", "'-1'"),
        ("max_reclaims", "0", "got '0'"),
        ("max_mail_bytes", "1023", "got '1023'"),
        ("events_kept", "99", "got '99'"),
        ("on_ambiguous", "drop", "got 'drop'"),
        ("pii", "none", "got 'none'"),
        ("queue", "a{b}", "'a{b}'"),
        ("queue", "x" * 64, "x"),
        ("priorities", "a,a", "'a,a'"),
        ("priorities", ",", "one to ten"),
        ("priorities", ",".join("abcdefghijk"), "one to ten"),
        ("priorities", "high,a:b", "'a:b'"),
        ("priorities", "high,{b}", "'{b}'"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert says in refused(**{name: value})
    monkeypatch.setenv(f"STREAMQ_{name.upper()}", value)
    assert says in refused()


@pytest.mark.parametrize("name", sorted({key.shape.partition(":")[0] for key in TABLE if key.shape != "<priority>"}))
def test_a_priority_has_no_other_keys_name(name: str) -> None:
    assert repr(name) in refused(priorities=f"high,{name}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('in_hand = "x"', "in_hand: Input should be a valid integer"),
        ("[routes.main]\nurl = 'smtp://h'\nconnections = 0", "routes.main.connections: "),
        ("[routes.main]\nurl = 'smtp://h'\npipelining = 'always'", "(got 'always')"),
        ("[routes.main]\nurl = 'smtp://h'\nidle = 'x'", "routes.main.idle: not a duration"),
        ("[routes.'a|b']\nurl = 'smtp://h'", "'a|b'"),
        ("[routes.main]\nurl = 'smtp://h'\nweight = -1", "routes.main.weight: "),
        ("[routes.main]\nurl = 'smtp://h'\nreserved = true", "routes: all are reserved"),
        ("[groups]\nbulk = 'nowhere'", "groups.bulk: routes, of those that there are: 'nowhere'"),
        ("[groups]\nrelay = 'relay'", "and no route of that name: 'relay'"),
        ("[[choice]]\nroutes = 'relay'", "choice.0: names no mails: give tenant, priority or sender"),
        ("[[choice]]\ntenant = 'a'\nroutes = 'nowhere'", "choice.0.routes: no such route, and no group: 'nowhere'"),
        ("[[choice]]\npriority = 'soon'\nroutes = 'relay'", "choice.0.priority: one of high, normal, low: 'soon'"),
        ("[[choice]]\nsender = 'a@b.example'\nroutes = 'relay'", "choice.0.sender: a domain, or a glob for one"),
        ("[[choice]]\ntenant = 'a'\nroutes = []", "choice.0.routes: "),
        ("[sites.'Gmail.com']\nrate = '1/s'", "'Gmail.com'"),
        ("[sites.'a|b']\nrate = '1/s'", "'a|b'"),
        ("[sites.'gmail.com']\nrate = 'fast'", "sites.gmail.com.rate: not a rate"),
        ("[sites.'gmail.com']\nrates = '1/s'", "sites.gmail.com.rates: no such setting"),
        ("\nin_hand = soon", "line 2"),
        ("in_hand = 1\nin_hand = 2\n", "line 2"),
        ('"a\\u001b[2J\\nb" = 1', r"a\x1b[2J\nb: no such setting"),
        (f"in_hand = '{'x' * 10_000}'", "…"),
    ],
)
def test_a_wrong_file_is_named_with_place_and_value(text: str, says: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, text)
    said = refused(config=path)
    assert str(path) in said
    assert says in said


def test_all_mistakes_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, "jitter = 7")
    monkeypatch.setenv("STREAMQ_GRACE", "never")
    said = refused(config=path, in_hand=0)
    assert f"{path}: jitter: " in said
    assert "STREAMQ_GRACE: " in said
    assert "--in-hand: " in said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(config=tmp_path / "none.toml")
    assert "directory" in refused(config=tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"queue = '\xff'")
    assert "bytes.toml" in refused(config=tmp_path / "bytes.toml")


@pytest.mark.parametrize("name", ["routes", "sites"])
def test_a_variable_that_should_be_json(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"STREAMQ_{name.upper()}", f'{{"main": {{"url": "smtp://u:{SECRET}@h"')
    assert refused().startswith(f"STREAMQ_{name.upper()}: ")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().in_hand = 5


# -- reports ---------------------------------------------------------------------------------------------------


def test_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    known = load_settings()
    assert str(known.report_rate_all) == "1000/h"
    assert (known.reports, str(known.report_rate), known.report_from, known.delay_warning) == (
        True,
        "100/h",
        None,
        None,
    )
    monkeypatch.setenv("STREAMQ_REPORT_RATE", "7/10m")
    monkeypatch.setenv("STREAMQ_REPORTS", "0")
    monkeypatch.setenv("STREAMQ_DELAY_WARNING", "4h")
    known = load_settings(report_from="Post <post@example.com>", report_mta="mq.example.com")
    assert (known.reports, known.report_rate, known.delay_warning) == (
        False,
        Window(count=7, window_ms=600_000),
        14_400_000,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("report_rate", "often"),
        ("report_rate", "1001/h"),
        ("report_rate_all", "10001/h"),
        ("report_from", "Post"),
        ("report_from", "a@example.com, b@example.com"),
        ("report_from", "undisclosed:;"),
        ("report_from", "почта@example.com"),
        ("report_mta", "two words"),
        ("report_mta", "a\r\nb"),
        ("report_mta", ""),
        ("delay_warning", "soon"),
    ],
)
def test_no_reports(name: str, value: str) -> None:
    assert name in refused(**{name: value}).replace("-", "_")
