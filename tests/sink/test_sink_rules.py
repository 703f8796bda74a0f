from __future__ import annotations

from pathlib import Path

import pytest

from streamq.errors import SettingsError
from streamq.sink import Rule, Rules, load_rules
from streamq.sink.rules import Judge, Stage, rule_of_flag


def said(judge: Judge, subject: str, stage: Stage = "rcpt") -> int:
    """The code of the verdict, 0 where no rule applies."""
    verdict = judge.verdict(stage, (subject,))
    return verdict.code if verdict else 0


def test_globs_match_addresses_with_at_and_domains_without() -> None:
    judge = Judge(
        Rules(
            (
                Rule(match="bob@example.net", reply="551 5.1.1 a"),
                Rule(match="*+spam@*", reply="552 5.1.1 b"),
                Rule(match="*.example.net", reply="553 5.1.1 c"),
                Rule(match="EXAMPLE.org", reply="554 5.1.1 d"),
            )
        )
    )
    assert said(judge, "BOB@Example.net") == 551
    assert said(judge, "x+spam@anywhere") == 552
    assert said(judge, "x@mail.example.net") == 553
    assert said(judge, "x@example.net") == 0
    assert said(judge, "x@example.org") == 554
    assert said(judge, "example.org@other") == 0
    assert said(judge, "bob@example.net", "mail") == 0


def test_the_null_sender_has_a_name() -> None:
    judge = Judge(Rules((Rule(match="<>", stage="mail", reply="550 5.7.1 no"),)))
    assert said(judge, "", "mail") == 550
    assert said(judge, "a@b", "mail") == 0


def test_first_match_wins_and_a_rule_that_is_used_up_gives_way() -> None:
    judge = Judge(Rules((Rule(match="x", reply="450", times=2), Rule(match="*", reply="550", times=1))))
    assert [said(judge, "a@x") for _ in range(4)] == [450, 450, 550, 0]
    assert [said(judge, "b@x") for _ in range(2)] == [450, 450]
    assert [said(judge, "a@y") for _ in range(2)] == [550, 0]


def test_any_recipient_of_the_transaction_can_match() -> None:
    judge = Judge(Rules((Rule(match="b@x", stage="dot", reply="451"),)))
    assert judge.verdict("dot", ("a@x", "b@x")) is not None
    assert judge.verdict("dot", ("a@x", "c@x")) is None


def test_a_share_is_drawn_by_seed_whatever_the_order() -> None:
    names = [f"user{number}@x" for number in range(2000)]
    rules = (Rule(match="x", reply="450", share=0.3),)

    def refused(seed: int, order: list[str]) -> set[str]:
        judge = Judge(Rules(rules, seed))
        return {name for name in order if said(judge, name)}

    first = refused(7, names)
    assert 500 < len(first) < 700
    assert refused(7, names[::-1]) == first
    assert refused(8, names) != first


def test_a_share_is_drawn_anew_for_each_attempt() -> None:
    judge = Judge(Rules((Rule(reply="450", share=0.5),)))
    codes = [said(judge, "a@x") for _ in range(200)]
    assert 60 < codes.count(450) < 140


def test_a_share_of_first_attempts_refuses_once_at_most() -> None:
    judge = Judge(Rules((Rule(reply="450", share=0.5, times=1),)))
    names = [f"{number}@x" for number in range(100)]
    assert 0 < sum(said(judge, name) == 450 for name in names) < 100
    assert all(said(judge, name) == 0 for name in names)


def test_replies_for_the_wire() -> None:
    rules = (
        Rule(match="a", reply="450"),
        Rule(match="b", reply="550 5.1.1 one\n5.1.1 two"),
        Rule(match="c", reply="599"),
        Rule(match="d", delay_ms=5),
    )
    judge = Judge(Rules(rules))
    replies = [judge.verdict("rcpt", (f"x@{name}",)) for name in "abcd"]
    assert [verdict and verdict.reply for verdict in replies] == [
        b"450 4.2.1 Mailbox busy, try again later\r\n",
        b"550-5.1.1 one\r\n550 5.1.1 two\r\n",
        b"599 5.0.0 As told\r\n",
        b"",
    ]
    assert [verdict and (verdict.code, verdict.delay_ms) for verdict in replies][3] == (0, 5)


def test_the_counts_of_a_rule_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.sink.rules.TRACKED", 2)
    judge = Judge(Rules((Rule(reply="450", times=1),)))
    assert [said(judge, name) for name in ("a@x", "b@x", "a@x", "c@x", "a@x", "b@x")] == [
        450,
        450,
        0,  # known, and the youngest now
        450,  # pushes b out
        0,
        450,
    ]


def test_flags() -> None:
    assert rule_of_flag("*@slow.example=450 4.2.1 later=now") == Rule(
        match="*@slow.example", reply="450 4.2.1 later=now"
    )
    assert rule_of_flag("a=b@x=550") == Rule(match="a=b@x", reply="550")
    for wrong in ("", "=550", "x=", "x=55", "x=150 no", "x=5500", "x"):
        with pytest.raises(SettingsError, match="reply: not an answer"):
            rule_of_flag(wrong)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        'seed = 3\n[[rule]]\nmatch = "*@slow.example"\nreply = "450 4.2.1 later"\ntimes = 1\nshare = 0.5\n'
        '[[rule]]\nstage = "greeting"\ndelay_ms = 20\n'
    )
    assert load_rules(path) == Rules(
        (
            Rule(match="*@slow.example", reply="450 4.2.1 later", times=1, share=0.5),
            Rule(stage="greeting", delay_ms=20),
        ),
        3,
    )
    path.write_text("")
    assert load_rules(path) == Rules()


GOOD = '# two rules\n[[rule]]\nmatch = "a"\nreply = "450"\n\n[[rule]]\nreply = "550"\n'


@pytest.mark.parametrize(
    ("more", "line", "words"),
    [
        ('stage = "rcptt"', 8, ["rule 2", "stage", "rcptt", "greeting"]),
        ("times = -1", 8, ["times", "-1"]),
        ("times = true", 8, ["times", "True"]),
        ("share = 1.5", 8, ["share", "1.5"]),
        ('match = ""', 8, ["match", "''"]),
        ("match = 5", 8, ["match", "5"]),
        ("\ndelay_ms = 3600001", 9, ["delay_ms", "3600001"]),
        ('wait = "x"', 8, ["wait", "no such entry", "delay_ms"]),
        ("reply = 450", 8, ["overwrite"]),
    ],
)
def test_a_mistake_is_named_with_line_entry_and_value(tmp_path: Path, more: str, line: int, words: list[str]) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(GOOD + more + "\n")
    with pytest.raises(SettingsError) as wrong:
        load_rules(path)
    text = str(wrong.value)
    assert text.startswith(str(path))
    assert f"line {line}" in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("reply", ['"45"', '"150 x"', "450", "0", '"450 a\\u0000"', '"450x"', '"450 a\\r\\nb"'])
def test_a_reply_that_is_none(tmp_path: Path, reply: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(f"[[rule]]\ndelay_ms = 5\nreply = {reply}\n")
    with pytest.raises(SettingsError, match=r"line 3, rule 1: reply: not a reply"):
        load_rules(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rule]\n", "line 1"),
        ("[rule]\n", r"line 1: rule: write \[\[rule\]\]"),
        ("rule = [1]\n", r"line 1: rule: write \[\[rule\]\]"),
        ("\n[[rules]]\nreply = '450'\n", "line 2: rules: no such entry"),
        ("seed = 'x'\n", "line 1: seed: not a whole number .got 'x'"),
        ("[[rule]]\n", "line 1, rule 1: reply: a rule needs a reply, a delay, or something else"),
        ("rule = [{times = -1}]\n", "rule 1: times"),
        ("a = " + "[" * 5000, "nested too deep"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words):
        load_rules(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
        load_rules(tmp_path / "none.toml")
