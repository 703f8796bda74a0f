from __future__ import annotations

from pathlib import Path

import pytest
from sink_client import dial

from streamq.errors import SettingsError
from streamq.sink import Auth, Connections, Greylist, Penalty, Rate, Rule, Rules, Sink, User, load_profile, load_rules
from streamq.sink.rules_file import joined, profiles, read_rules

WHOLE = """
seed = 4
[[rule]]
stage = "dot"
action = "rst"
when = "after"
from_mail = 2
[[connections]]
most = 5
[[rate]]
most = 10
seconds = 0.5
[[greylist]]
[[penalty]]
factor = 3
[auth]
mechanisms = ["PLAIN"]
[[user]]
name = "shop"
password = "secret"
"""


def test_all_tables(tmp_path: Path) -> None:
    path = tmp_path / "100%s.toml"
    path.write_text(WHOLE)
    assert load_rules(path) == Rules(
        rules=(Rule(stage="dot", action="rst", when="after", from_mail=2),),
        seed=4,
        limits=(Connections(most=5), Rate(most=10, seconds=0.5), Greylist(), Penalty(factor=3)),
        users=(User(name="shop", password="secret"),),
        auth=Auth(mechanisms=("PLAIN",)),
    )


@pytest.mark.parametrize(
    ("more", "line", "words"),
    [
        ("[[rate]]\nmost = 1\nseconds = -1\n", 24, ["rate 2", "seconds", "-1"]),
        ("[[rate]]\nper = 'all'\n", 22, ["rate 2", "most: is missing"]),
        (
            "[[connections]]\nmost = 1\nat_once = 2\n",
            24,
            ["connections 2", "at_once", "no such entry", "most, per, reply"],
        ),
        ("[[user]]\nname = 'x'\n", 23, ["user 2", "a password or a token", "'x'"]),
        ("[[penalty]]\nreply = '250 fine'\n", 23, ["penalty 2", "reply", "250 fine"]),
        ("[[rule]]\ngarbage = 'much'\n", 23, ["rule 2", "garbage", "much", "endless_line"]),
        ("[[rule]]\naction = 'explode'\n", 23, ["rule 2", "action", "explode", "unread"]),
        ("[[rule]]\naction = 'eof'\nwhen = 'before'\n", 24, ["rule 2", "when", "before"]),
        ("[[rule]]\nreply = '250'\naction = 'eof'\nwhen = 'instead'\n", 25, ["when", "instead", "leave it out"]),
        ("[[rule]]\nreply = '250'\nwhen = 'after'\n", 24, ["when", "needs an action"]),
        ("[[rule]]\ndrip_ms = 5\ndelay_ms = 1\n", 23, ["drip_ms", "needs drip_bytes"]),
        ("[[rule]]\nreply = '250'\nafter_bytes = 5\n", 24, ["after_bytes", 'needs stage = "body"']),
        ("[[rule]]\nstage = 'body'\naccept = true\n", 24, ["accept", "body"]),
        ("[[rule]]\nreply = '250'\ngarbage = 'nul'\n", 24, ["garbage", "nul", "leave reply out"]),
        ("[[rule]]\ngarbage = 'nul'\ngarbage_bytes = 0\n", 24, ["garbage_bytes", "0"]),
        ("[[rule]]\nstray = 'hello'\n", 23, ["stray", "hello"]),
        ("[[rule]]\naccept = 1\n", 23, ["accept", "1"]),
        ("[[rule]]\nreply = '250'\nfrom_mail = 1.5\n", 24, ["from_mail", "1.5"]),
    ],
)
def test_a_mistake_is_named_with_table_line_entry_and_value(more: str, line: int, words: list[str]) -> None:
    with pytest.raises(SettingsError) as wrong:
        read_rules(WHOLE.lstrip("\n") + "\n\n" + more, "rules.toml")
    text = str(wrong.value)
    assert text.startswith(f"rules.toml, line {line}, "), text
    for word in words:
        assert word in text


def test_auth_is_one_table() -> None:
    with pytest.raises(SettingsError, match=r"rules.toml, line 1: auth: write \[auth\]"):
        read_rules("[[auth]]\nrequired = true\n", "rules.toml")
    with pytest.raises(SettingsError, match=r"rules.toml, line 2, auth: required: .*'no'"):
        read_rules("[auth]\nrequired = 'no'\n", "rules.toml")


def test_a_password_is_in_no_error() -> None:
    with pytest.raises(SettingsError) as wrong:
        read_rules("[[user]]\nname = 'x'\npassword = ['geheim']\n", "rules.toml")
    assert "geheim" not in str(wrong.value)


def test_files_join_in_their_rank() -> None:
    first = Rules((Rule(reply="450"),), 3, (Rate(most=1),))
    second = Rules((Rule(reply="550"),), 9, (Rate(most=1), Connections(most=2)), auth=Auth(required=False))
    assert joined(first, second) == Rules(
        (Rule(reply="450"), Rule(reply="550")), 3, (Rate(most=1), Connections(most=2)), auth=Auth(required=False)
    )


def test_each_line_of_a_profile_has_its_source() -> None:
    assert set(profiles()) >= {
        "gmail",
        "microsoft",
        "yahoo",
        "ses",
        "postfix",
        "exim",
        "penalty-box",
        "greylist",
        "tarpit",
    }
    for name in profiles():
        found = load_profile(name)
        assert found.rules or found.limits
    for text in ("[[rate]]\nmost = 1\n", "[[rule]]\nreply = '450'\nsource = ''\n"):
        with pytest.raises(SettingsError, match="source: where can the public read"):
            read_rules(text, "x", sourced=True)
    with pytest.raises(SettingsError, match="source: no such entry"):
        read_rules("[[rule]]\nreply = '450'\nsource = 'here'\n", "x")


async def test_profiles_at_work() -> None:
    now = [0.0]
    async with Sink(rules=load_profile("greylist"), clock=lambda: now[0]) as sink, dial(sink) as client:
        assert await client.mail() == "450 4.2.0"
        now[0] = 300.0
        assert await client.asked("RSET") == ["250 2.0.0"]
        assert await client.mail() == "250 2.0.0"
        sink.follow(load_profile("ses"))
        assert [await client.mail() for _ in range(15)] == ["250 2.0.0"] * 14 + ["454"]
        sink.follow(load_profile("gmail"))
        assert [await client.mail("b@x") for _ in range(61)].count("450 4.2.1") == 1
        await client.ask("RSET")
        now[0] += 5
        codes = [await client.mail(f"{number}@x") for number in range(40)]
        assert codes == ["250 2.0.0"] * 39 + ["421 4.7.28"]
        assert await client.end() == b""
    async with Sink(rules=load_profile("closes-after-5")) as sink, dial(sink) as client:
        assert [await client.mail() for _ in range(5)] == ["250 2.0.0"] * 5
        await client.send(b"NOOP\r\n")
        await sink.wait_for(1, "closed")
        assert sink.counters.drops == {"dot unread": 1}
