"""No text makes a pattern slow: that is known from the pattern, and held against a second count of it.

The steps of `re` at one place of the text are at most the ways in which the repeats can be combined, times the
pattern's length; there are at most 1,000 places. A time would say nothing on a busy machine.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.smtp import hints, replies
from streamq.smtp.letter import Stage
from streamq.smtp.patterns import MOST_WAYS, most_ways
from streamq.smtp.replies import READ, default_replies

PATTERNS = sorted({entry.text.pattern for entry in default_replies().entries if entry.text is not None})
OWN = [hints.SPAN, hints.MORE, hints.CLOCK, hints.NAMED, replies.BEHIND, replies.ENHANCED]


def ways(parsed: Any) -> int:
    """The same number, from what `re` itself makes of the pattern; fails where a repeat has no end, or repeats
    what repeats."""
    most = 1
    for op, arg in parsed:
        match str(op):
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, inner = arg
                assert int(high) <= 255, (low, high)
                assert int(high) <= 1 or ways(inner) == 1
                most *= ways(inner) * (int(high) - int(low) + 1)
            case "BRANCH":
                most *= max(ways(branch) for branch in arg[1])
            case "SUBPATTERN":
                most *= ways(arg[3])
            case "ASSERT" | "ASSERT_NOT":
                most *= ways(arg[1])
            case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY" | "AT" | "CATEGORY":
                pass
            case other:
                raise AssertionError(other)
    return most


def parsed(pattern: str) -> Any:
    parser: Any = re._parser  # type: ignore[attr-defined]
    return parser.parse(pattern)


@pytest.mark.parametrize("pattern", [*PATTERNS, *(one.pattern for one in OWN)])
def test_no_pattern_of_ours_can_be_made_slow(pattern: str) -> None:
    assert ways(parsed(pattern)) <= MOST_WAYS
    assert most_ways(pattern) >= ways(parsed(pattern))  # the count that users' tables are held against


def test_nor_can_the_pattern_of_addresses() -> None:
    """A domain is longer than a table's repeats may be; nothing stands behind it."""
    assert ways(parsed(replies.ADDRESS.pattern)) <= MOST_WAYS


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("a*", "without an end"),
        ("a+", "without an end"),
        ("a+?", "without an end"),
        ("a{3,}", "without an end"),
        ("a{,}", "without an end"),
        (".*spam", "without an end"),
        (r"[^\]]*x", "without an end"),
        (r"\d+", "without an end"),
        ("(a{0,9}){0,9}", "repeated group"),
        ("(a|b)+", "repeated group"),
        ("(?:ab)*", "repeated group"),
        ("a{0,101}", "more than 100"),
        ("a{101}", "more than 100"),
        (".{0,99}a.{0,99}b.{0,99}c", "ways"),
        ("a?+", "possessive"),
        ("a{0,9}+", "possessive"),
        ("(?i)a", "no such group"),
        ("(?>a)", "no such group"),
    ],
)
def test_a_pattern_that_could_is_refused(pattern: str, says: str) -> None:
    re.compile(pattern)
    with pytest.raises(ValueError, match=says):
        most_ways(pattern)


@pytest.mark.parametrize(
    ("pattern", "many"),
    [
        ("", 1),
        ("spam", 1),
        ("spams?", 2),
        ("(un)?wanted", 2),
        ("a{0,9}", 10),
        ("a{,9}", 10),
        ("a{9}", 1),
        ("a{0,9}b{0,9}", 100),
        ("a{0,9}|b{0,4}", 10),
        ("x(a{0,9}|b)y?", 20),
        (r"\*\+\{\(", 1),
        ("[*+(){}]?", 2),
        ("[]*]?", 2),
        ("[^]*]?", 2),
        (r"[\]*]?", 2),
        ("a{}", 1),
        ("a{}?", 2),
        ("a{x}", 1),
        ("(?:a|b)(?=c)(?!d)(?<=e)(?<!f)(?P<g>h)", 1),
    ],
)
def test_the_ways_of_a_pattern(pattern: str, many: int) -> None:
    re.compile(pattern)
    assert most_ways(pattern) == many
    assert ways(parsed(pattern)) == many


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # of a nested set: these patterns are random
@given(st.text(alphabet="ab?*+{}(),|[]\\^.0129:=!<", max_size=12))
def test_what_compiles_is_counted_or_refused(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError):
        return
    try:
        many = most_ways(pattern)
    except ValueError:
        return
    assert many >= ways(parsed(pattern))


@pytest.mark.parametrize(
    "letter", ["x", " ", "too many ", "in ", "user ", "1 ", "exceeded messages per ", "[TS(#5.", "a@", "a"]
)
def test_hostile_texts_are_judged(letter: str) -> None:
    """Each makes some pattern begin again at every place."""
    text = letter * (READ // len(letter) + 1)
    for stage in ("mail", "rcpt", "dot"):
        for code in (421, 450, 451, 452, 550, 552, 554):
            assert default_replies().classify(Stage(stage), code, text, True).klass
