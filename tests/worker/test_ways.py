"""Which routes a mail may take: by name, by rule, by weight; the same for every worker and every attempt."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from streamq.mail import Mail, parse
from streamq.settings import load_settings
from streamq.worker.ways import MOST, UnknownRoute, Ways

AT = 1_700_000_000_000
SALT = bytes(range(16))
PRIORITIES = ("high", "normal", "low")


def ways(salt: bytes = SALT, /, *, choice: Any = (), groups: Any = None, **routes: dict[str, Any]) -> Ways:
    made = {name: {"url": "smtp://h", **known} for name, known in routes.items()}
    known = load_settings(routes=made, choice=choice, groups=groups or {})
    return Ways(known, salt, known.priorities)


def mail(**fields: str) -> Mail:
    given = {"from": "shop@example.com", "to": "bob@example.net", "subject": "Hi", "text": "Hello", **fields}
    raw = {name.encode(): value.encode() for name, value in given.items()}
    return parse(raw, entry=f"1{AT}-0", at_ms=AT, salt=SALT, max_bytes=10**6)


def entries(many: int, priority: int = 1) -> list[str]:
    return [f"{priority}{AT + number // 7}-{number % 7}" for number in range(many)]


def firsts(one: Ways, many: int = 4000, **fields: str) -> Counter[str]:
    a_mail = mail(**fields)
    return Counter(one.of(entry, a_mail)[0] for entry in entries(many))


def test_one_route_is_the_way_of_all() -> None:
    assert firsts(ways(main={}), 50) == {"main": 50}


def test_weights_hold() -> None:
    seen = firsts(ways(a={"weight": 3}, b={}), 8000)
    assert abs(seen["a"] - 6000) < 200  # five standard deviations
    assert seen["a"] + seen["b"] == 8000


def test_the_order_of_the_others_goes_by_weight_too() -> None:
    one = ways(a={"weight": 6}, b={"weight": 3}, c={})
    seconds = Counter(order[1] for entry in entries(4000) if (order := one.of(entry, mail()))[0] == "a")
    assert 2.4 < seconds["b"] / seconds["c"] < 3.7


def test_every_worker_and_every_attempt_draws_alike() -> None:
    one, other = ways(a={}, b={}, c={}), ways(c={}, a={}, b={})  # in whatever order the file names them
    for entry in entries(200):
        assert one.of(entry, mail()) == other.of(entry, mail()) == one.of(entry, mail())
    assert any(
        one.of(entry, mail()) != ways(b"another queue", a={}, b={}, c={}).of(entry, mail()) for entry in entries(50)
    )


def test_a_new_route_moves_only_its_own_share() -> None:
    old, new = ways(a={}, b={}), ways(a={}, b={}, c={})
    moved = [(old.of(entry, mail())[0], new.of(entry, mail())[0]) for entry in entries(1000)]
    assert {after for before, after in moved if before != after} == {"c"}


def test_weight_0_is_only_for_when_the_others_are_closed() -> None:
    one = ways(a={}, spare={"weight": 0})
    assert {one.of(entry, mail()) for entry in entries(100)} == {("a", "spare")}


def test_a_reserved_route_gets_only_what_names_it() -> None:
    one = ways(a={}, bulk={"reserved": True})
    assert {one.of(entry, mail()) for entry in entries(50)} == {("a",)}
    assert one.of(entries(1)[0], mail(route="bulk")) == ("bulk",)


def test_a_name_is_the_only_way_and_a_group_has_several() -> None:
    one = ways(a={}, b={"reserved": True}, c={"reserved": True}, groups={"both": "b,c"})
    assert one.of(entries(1)[0], mail(route="a")) == ("a",)
    assert {frozenset(one.of(entry, mail(route="both"))) for entry in entries(50)} == {frozenset("bc")}
    with pytest.raises(UnknownRoute):
        one.of(entries(1)[0], mail(route="nowhere"))
    assert one.names == {"a", "b", "c", "both"}


def test_the_first_choice_that_fits() -> None:
    choice = [
        {"tenant": ["acme", "acme-*"], "routes": "b"},
        {"priority": "low", "sender": "*.news.example", "routes": "c"},
        {"priority": "low", "routes": "d"},
    ]
    one = ways(a={}, b={"reserved": True}, c={"reserved": True}, d={"reserved": True}, choice=choice)
    low, normal = f"2{AT}-0", f"1{AT}-0"
    news = {"envelope_from": "bounce@A.news.example"}
    assert one.of(low, mail(tenant="acme", **news)) == ("b",)
    assert one.of(normal, mail(tenant="acme-eu")) == ("b",)
    assert one.of(normal, mail(tenant="acm")) == ("a",)
    assert one.of(low, mail(**news)) == ("c",)
    assert one.of(normal, mail(**news)) == ("a",)
    assert one.of(low, mail(envelope_from="<>")) == ("d",)
    assert one.of(low, mail(tenant="acme", route="a")) == ("a",)  # its own word outranks all


def test_a_choice_of_several_goes_by_weight() -> None:
    choice = [{"tenant": "acme", "routes": ["both"]}]
    one = ways(a={}, b={"weight": 3}, c={}, groups={"both": ["b", "c"]}, choice=choice)
    assert 0.7 < firsts(one, 2000, tenant="acme")["b"] / 2000 < 0.8


def test_a_lane_s_name_is_bounded() -> None:
    one = ways(**{f"r{number}": {} for number in range(9)})
    assert {len(one.of(entry, mail())) for entry in entries(20)} == {MOST}


def test_a_glance_tells_the_same_where_it_can_tell() -> None:
    one = ways(a={}, b={}, choice=[{"priority": "low", "routes": "b"}, {"tenant": "acme", "routes": "a"}])
    assert one.at_a_glance
    for entry in (*entries(50), *entries(50, 2)):
        assert one.plain(entry) == one.of(entry, mail())
    assert not ways(a={}, choice=[{"sender": "*.example", "routes": "a"}]).at_a_glance


def test_whether_all_plain_mail_goes_one_way() -> None:
    assert ways(a={}, b={"reserved": True}).only == "a"
    assert ways(a={}, b={"reserved": True}, choice=[{"tenant": "acme", "routes": "b"}]).only == "a"
    assert ways(a={}, b={}).only is None
    assert ways(a={}, b={"reserved": True}, choice=[{"priority": "low", "routes": "b"}]).only is None
