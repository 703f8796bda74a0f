"""Templates: what they make of a mail's vars, what they may not, and where a mail names one."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.policy import default
from typing import Any

import orjson
import pytest
from jinja2 import nodes

from streamq.errors import MalformedMail, UnknownTemplate
from streamq.mail import Mail, parse
from streamq.mail.effort import Heavy
from streamq.mail.sandbox import MOST_SOURCE, MOST_WORDS
from streamq.mail.several import Shared, merged
from streamq.mail.template import LIGHT_WORDS, PARTS, Template, split_name

WELCOME = Template(
    {
        "subject": "Welcome,\n {{ name }}",
        "text": "Hello {{ name }}\n{% for item in items %}* {{ item.title }}\n{% endfor %}",
        "html": "<p>Hello {{ name }}<ul>{% for item in items %}<li>{{ item.title }}{% endfor %}</ul>",
    }
)
VARS = {"name": "Bj\u00f6rn <b>", "items": [{"title": "A & B"}]}
BASE = {"from": "shop@example.com", "to": "bob@example.net", "template": "welcome"}


def find(asked: bytes, at_ms: int) -> Template | None:
    return {b"welcome": WELCOME, b"plain": Template({"text": "Hi {{ name }}"})}.get(asked)


def read(**fields: Any) -> Mail:
    given = {**BASE, **fields}
    flat = {name.encode(): value if isinstance(value, bytes) else str(value).encode() for name, value in given.items()}
    return parse(flat, entry="11-0", at_ms=1_700_000_000_000, salt=b"salt", max_bytes=100_000, template=find)


def made(source: str, **known: Any) -> str:
    return Template({"text": source}).render(known, 10_000)["text"]


def test_it_gives_subject_text_and_html() -> None:
    mail = message_from_bytes(read(vars=orjson.dumps(VARS)).content(), policy=default)
    assert mail["Subject"] == "Welcome, Bj\u00f6rn <b>"
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content() == "Hello Bj\u00f6rn <b>\r\n* A & B\r\n"
    assert "Hello Bj\u00f6rn &lt;b&gt;<ul><li>A &amp; B</ul>" in html.get_content()


def test_a_missing_variable_rejects_the_mail_and_is_named() -> None:
    with pytest.raises(MalformedMail, match=r"^vars: subject of the template: 'name' is undefined$"):
        read(vars='{"items":[]}')
    with pytest.raises(MalformedMail, match=r"^vars: .*no attribute 'title'"):
        read(vars='{"name":"x","items":[{}]}')
    with pytest.raises(MalformedMail, match="'name' is undefined"):
        read()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"template": "no name"}, "template: not a name"),
        ({"template": "welcome@x"}, "template: not a name, or a name, @ and a version"),
        ({"template": "welcome@"}, "template: not a name, or a name, @ and a version"),
        ({"vars": "[]"}, "vars: not a JSON object"),
        ({"vars": "{"}, "vars: not a JSON object"),
        (
            {"vars": '{"name":"x","items":[]}', "subject": "Hi"},
            "subject: may not stand beside a template that gives one",
        ),
        ({"vars": '{"name":"x","items":[]}', "html": "<p>"}, "html: may not stand beside"),
        ({"raw": "From: a@x.de\n\n", "from": "", "to": ""}, "template: may not stand beside raw"),
        ({"template": "", "text": "Hi", "vars": "{}"}, "vars: say nothing without template"),
    ],
)
def test_what_is_refused(fields: dict[str, str], why: str) -> None:
    with pytest.raises(MalformedMail) as found:
        read(**fields)
    assert str(found.value).startswith(why)


def test_a_template_that_is_not_stored_is_waited_for() -> None:
    with pytest.raises(UnknownTemplate) as found:
        read(template="gone@3")
    assert found.value.name == "gone@3"


def test_what_it_does_not_give_the_mail_may_give() -> None:
    mail = message_from_bytes(read(template="plain", vars='{"name":"x"}', subject="Mine").content(), policy=default)
    assert (mail["Subject"], mail.get_content()) == ("Mine", "Hi x\r\n")


def test_each_of_recipients_has_values_of_its_own() -> None:
    recipients = [{"to": "a@x.example", "vars": {"name": "A"}}, {"to": "b@x.example"}]
    mail = read(to="", recipients=orjson.dumps(recipients), vars='{"items":[]}')
    assert mail.several is not None
    shared = Shared("11-0", mail.several.fields, True)
    first, second = (
        merged(
            {b"@of": b"11-0", b"@n": b"1", b"to": child.value, **({b"vars": child.vars} if child.vars else {})}, shared
        )
        for child in mail.several.children
    )
    read_child = {"entry": "11-0#1", "at_ms": 0, "salt": b"", "max_bytes": 10**6, "template": find, "parent": "11-0"}
    assert b"Subject: Welcome, A\r\n" in parse(first, **read_child).content()  # type: ignore[arg-type]
    with pytest.raises(MalformedMail, match="'name' is undefined"):
        parse(second, **read_child)  # type: ignore[arg-type]


def test_vars_of_recipients_say_nothing_without_a_template() -> None:
    with pytest.raises(MalformedMail, match=r"^recipients: vars say nothing without template"):
        read(to="", template="", text="Hi", recipients='[{"to":"a@x.example","vars":{"a":1}}]')


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ name.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{{ 'a' * 1000000 }}",
        "{{ 1000000 * 'a' }}",
        "{{ [1] * 10001 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for a in range(100000) %}{% endfor %}",
        "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
        "{% include 'other' %}",
        "{% import 'other' as o %}",
        "{{ 1 / 0 }}",
        "{{ '\\ud800' }}",
        "{{ name | nosuch }}",
        "{{ cycler }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_what_a_template_may_not(source: str) -> None:
    with pytest.raises(MalformedMail, match=r"^(vars|template): "):
        made(source, name="n", x=[])


NOTHING = "{% for a in x %}{% for b in x %}{% if b == 9 %}{% endif %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        NOTHING,
        "{% for a in x if a == 2000 %}{% for b in x %}{% endfor %}{% else %}" + NOTHING + "{% endfor %}",
        "{% for a in [x] recursive %}{% if a is iterable %}{{ loop(x) }}{{ loop([x]) }}{% endif %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
        "{% for a in x %}{% if 'y' in long %}{% endif %}{% endfor %}",
        "{% for a in x %}{% if long | length %}{% endif %}{% endfor %}",
        "{% for a in x %}{% if long is string %}{% endif %}{% endfor %}",
        "{% for a in x %}{% if long.count('y') %}{% endif %}{% endfor %}",
        "{% for a in x %}{% if long[1:] %}{% endif %}{% endfor %}",
        "{% for a in x %}{% set y = long ~ 'y' %}{% endfor %}",
        "{% for a in x %}{% set y = long + 'y' %}{% endfor %}",
        "{% set y = 'y' ~ long %}" + "{% set y = y ~ y %}" * 40,
        "{% set y = 'y' ~ long %}" + "{% set y = y + y %}" * 40,
        "{% set y = x %}" + "{% set y = y + y %}" * 40,
    ],
)
def test_what_writes_nothing_ends_all_the_same(source: str) -> None:
    with pytest.raises(MalformedMail, match=r"^template: text: (takes more than 100000 steps|a text or list of more)"):
        made(source, x=list(range(2000)), long="x" * 100_000)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(n) }}",
        "{{ 'x' | indent(width=n) }}",
        "{{ [1] | batch(n, 'x') | list }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (n, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, n) }}",
        "{{ x | join(long) }}",
        "{{ long.join(x) }}",
        "{{ long | replace('x', long) }}",
        "{{ long.replace('x', long) }}",
    ],
)
def test_nothing_large_is_made_of_little(source: str) -> None:
    with pytest.raises(MalformedMail, match=r"^template: text: (center|ljust|indent|batch|format|join|replace) "):
        made(source, x=["y"] * 2000, long="x" * 100_000, n=10**9)


def test_each_part_of_each_mail_has_its_own_steps() -> None:
    template = Template(dict.fromkeys(("subject", "text", "html"), "{% for a in x %}{% endfor %}done"))
    for _ in range(3):
        assert template.render({"x": range(90_000)}, 100) == dict.fromkeys(("subject", "text", "html"), "done")


def test_loops_go_on_as_they_did() -> None:
    assert made("{% for a in x %}{{ loop.index }}/{{ loop.length }}{{ '.' if loop.last }}{% endfor %}", x="ab") == (
        "1/22/2."
    )
    tree = [{"n": 1, "c": [{"n": 2, "c": []}]}, {"n": 3, "c": []}]
    assert made("{% for a in x recursive %}{{ a.n }}({{ loop(a.c) }}){% endfor %}", x=tree) == "1(2())3()"
    assert made("{% for k, v in x.items() if v > 1 %}{{ k }}{% else %}none{% endfor %}", x={"a": 1, "b": 2}) == "b"
    assert made("{% for a in x %}{% else %}none{% endfor %}", x=[]) == "none"
    with pytest.raises(MalformedMail, match="'x' is undefined"):
        made("{% for a in x %}{% endfor %}")
    assert Template({"html": "{{ a ~ b }}{{ c | safe }}"}).render({"a": "<", "b": 1, "c": "<p>"}, 99)["html"] == (
        "&lt;1<p>"
    )
    money = "{{ '%.2f' | format(n) }} {{ '%s of %d' % (n, 4711000000) }} {{ '{:,}'.format(4711000000) }} {{ x[:2] }}"
    assert made(money, n=3, x="abc") == "3.00 3 of 4711000000 4,711,000,000 ab"


def test_a_reason_repeats_no_value() -> None:
    with pytest.raises(MalformedMail) as found:
        made("{{ [1].index(secret) }}", secret="4711")
    assert str(found.value) == "template: text: ValueError"
    with pytest.raises(MalformedMail, match=r"^template: text: range of more than 10000$"):
        made("{{ range(n) | list }}", n=10_001)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ plans[plan] }}", "'dict object' has no element [plan]"),
        ("{{ plans[plan].price }}", "'dict object' has no element [plan]"),
        ("{{ plans[plan ~ 'x'] }}", "'dict object' has no element of that name"),
        ("{% set p = plans[plan] %}{{ [p][0] }}", "'dict object' has no element [plan]"),
        ("{{ plans | attr(plan) }}", "'dict object' has no element of that name"),
        ("{{ [plans] | map(attribute=plan) | join }}", "'dict object' has no element of that name"),
        ("{{ [plans] | sum(attribute=plan) }}", "'dict object' has no element of that name"),
        ("{{ ('{0[' ~ plan ~ ']}').format(plans) }}", "'dict object' has no element of that name"),
        ("{{ ('{' ~ plan ~ '}').format(plans) }}", "KeyError"),
        ("{{ [plans] | map(plan) | list }}", "TemplateRuntimeError"),
        ("{{ [1][number] }}", "'list object' has no element [number]"),
        ("{{ plans.a.b }}", "'dict object' has no attribute 'a'"),
        ("{{ plans['a']['b'] }}", "'dict object' has no attribute 'a'"),
        ("{{ [1][5] }}", "'list object' has no element 5"),
        ("{{ gone }}", "'gone' is undefined"),
        ("{{ [] | first }}", "No first item, sequence was empty."),
    ],
)
def test_a_reason_says_what_is_missing_as_the_template_writes_it(source: str, why: str) -> None:
    with pytest.raises(MalformedMail) as found:
        made(source, plans={}, plan="SECRET-48", number=48)
    assert "48" not in str(found.value)
    assert str(found.value).endswith(why)


def test_what_a_template_may() -> None:
    assert made("{{ 3 * 4 }} {{ '-' * 10 }} {{ name | upper }} {{ range(3) | list }}", name="n") == (
        "12 ---------- N [0, 1, 2]"
    )


def test_a_wrong_source_is_told_with_its_part_and_line() -> None:
    for parts, why in (
        ({"subject": "ok", "text": "a\n{% if %}"}, "text, line 2: "),
        ({"html": "{{ a"}, "html, line 1: "),
        ({"text": "{{ a | nosuch }}"}, "text, line 1: No filter named 'nosuch'"),
        ({}, "neither subject nor text nor html"),
    ):
        with pytest.raises(ValueError, match=f"^{why}"):
            Template(parts).check()


def test_names() -> None:
    assert split_name(b"welcome") == ("welcome", None)
    assert split_name(b"welcome@12") == ("welcome", 12)
    assert split_name("w@\u00b2".encode()) == ("w", None)
    assert split_name(b"w@" + b"9" * 50) == ("w", None)


def test_numbers_do_not_grow_without_bound() -> None:
    """Squared twenty times one takes a minute, in which its worker renews no lease."""
    squares = "{% set a = 99999999999 %}" + "{% set a = a*a %}" * 19 + "{{ a }}"
    with pytest.raises(MalformedMail, match="4096 bits"):
        Template({"text": squares}).render({}, 1000)
    assert Template({"text": "{{ 12345678901 * 98765432109 }}"}).render({}, 1000) == {
        "text": str(12345678901 * 98765432109)
    }


FLAT = {"name": "bj\u00f6rn", "order": {"items": [1, 2], "n": 1}, "list": ["a", "b"]}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ name.upper }}", "name.upper is a method, and is not called: name.upper(), or name['upper'] for a member"),
        ("{{ order.items }}", "order.items is a method, and is not called: order.items(), or order['items'] for a"),
        ("{% for i in order.items %}{% endfor %}", "order.items is a method"),
        ("{{ order['keys'] }}", r"order['keys'] is a method, and is not called: order['keys']()"),
        ("{{ order.n.bit_length }}", "order.n.bit_length is a method"),
        ("{{ name.upper ~ 'x' }}", "name.upper is a method"),
        ("{{ [name.upper] }}", "name.upper is a method"),
        ("{% set f = name.upper %}{{ f() }}", "name.upper is a method"),
        ("{{ name.upper().lower }}", "(…).lower is a method, and is not called"),
        ("{{ list.0.upper }}", "list[0].upper is a method"),
        ("{% for i in list %}{{ loop.cycle }}{% endfor %}", "loop.cycle is a method"),
        ("{{ name | attr('upper') }}", "name | attr is a method, and is not called"),
        ("{{ list | map(attribute='upper') | list }}", "upper is not called: it is no text"),
        ("{{ list | map('attr', 'upper') | join }}", "upper is not called: it is no text"),
        ("{{ '%s' % name | attr('upper') }}", "upper is not called: it is no text"),
        ("{{ '{}'.format(range) }}", "range is not called: it is no text"),
        ("{{ {'a': [range]} }}", "range is not called: it is no text"),
        ("{{ range }}", "range is a method, and is not called: it is no text"),
        ("{{ list | map('upper') }}", "list | map is no text (of a filter that gives many: | join, | list)"),
        ("{{ list | batch(2) ~ 'x' }}", "list | batch is no text"),
        ("{{ '%s' % (list | select) }}", "what a filter gives many of is no text: | join, | list"),
        ("{{ [list | reverse] }}", "what a filter gives many of is no text: | join, | list"),
        ("{% block b %}{% endblock %}{{ self.b }}", "self.b is no text"),
    ],
)
def test_no_address_of_memory_is_written(source: str, why: str) -> None:
    """It would be another one at each attempt."""
    with pytest.raises(MalformedMail, match=rf"^template: text: {re.escape(why)}"):
        made(source, **FLAT)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ name.upper() }}{{ name['upper']() }}", "BJ\u00d6RNBJ\u00d6RN"),
        ("{{ order['items'] | join(',') }}", "1,2"),
        ("{% for key, value in order.items() %}{{ key }}{% endfor %}", "itemsn"),
        ("{{ list | map('upper') | join }}{{ list | batch(2) | list }}", "AB[['a', 'b']]"),
        ("{{ (name | attr('upper'))() }}", "BJ\u00d6RN"),
        ("{% block b %}x{% endblock %}{{ self.b() }}", "xx"),
        ("{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}y{% endcall %}", "y"),
        ("{% for i in list %}{{ loop.cycle('x', 'y') }}{{ loop.index }}{% endfor %}", "x1y2"),
        ("{{ order.nope | default('z') }}{{ order.n.nope is defined }}", "zFalse"),
    ],
)
def test_what_is_called_is_written(source: str, text: str) -> None:
    assert made(source, **FLAT) == text


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x" * (MOST_SOURCE + 1), f"longer than {MOST_SOURCE} characters"),
        ("{{ a }}" * 5000, f"more than {MOST_WORDS} words and signs in its braces"),
        ("{{ " + "+".join("a" * 6000) + " }}", f"more than {MOST_WORDS} words"),
        ("{# a #}x" * 6000, f"more than {MOST_WORDS} words"),
        ("{{ a" + " | e" * 300 + " }}", "nested too deep"),
        ("{{ " + "(" * 200 + "a" + ")" * 200 + " }}", "nested too deep"),
        ("{{ " + "9" * 5000 + " }}", "jinja2 cannot compile it (ValueError)"),
    ],
)
def test_what_would_take_long_to_compile_is_refused(source: str, why: str) -> None:
    """When it is put, and where it was put past that: in the mail that names it."""
    for part in PARTS:
        with pytest.raises(ValueError, match=rf"^{part}: {re.escape(why)}"):
            Template({part: source}).check()
    with pytest.raises(MalformedMail, match=rf"^template: text: {re.escape(why)}"):
        made(source, a=1)


def test_a_long_page_of_a_thousand_values_is_none_of_these() -> None:
    source = "<p>Hello {{ a }}</p>" + "x" * 80
    assert len(Template({"html": source * 2000 + "x" * 800_000}).render({"a": 1}, 10**7)["html"]) > 900_000


def test_an_expression_is_compiled_in_steps_that_grow_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted: jinja2's optimizer looked at each filter of sixty for each of them, and for each of those."""
    looks = 0
    as_const = nodes.Filter.as_const

    def noted(node: nodes.Filter, eval_ctx: Any = None) -> Any:
        nonlocal looks
        looks += 1
        return as_const(node, eval_ctx)

    monkeypatch.setattr(nodes.Filter, "as_const", noted)
    assert made("{{ a" + " | e" * 60 + " }}", a="<") == "&lt;"
    assert looks < 5 * 60


def test_what_takes_a_while_to_compile_is_left_for_later() -> None:
    few = Template({"text": "{{ a }}" * (LIGHT_WORDS // 3)})
    many = Template({"text": "{{ a }}" * (LIGHT_WORDS // 3 + 1)})
    assert few.light().render({"a": 1}, 1000)
    with pytest.raises(Heavy):
        many.light().render({"a": 1}, 1000)
    many.render({"a": 1}, 1000)
    assert many.light().render({"a": 1}, 1000)
