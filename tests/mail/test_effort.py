"""What a template may do is bounded by counts: of steps, of characters that are looked at, of memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from streamq.errors import MalformedMail
from streamq.mail.effort import FILTERS, LIGHT_STEPS, MOST_STEPS, Heavy
from streamq.mail.methods import METHODS
from streamq.mail.plain import MAX_HTML, MAX_TAGS, text_of
from streamq.mail.template import LIGHT_SOURCE, Template

MUCH = rf"^template: text: takes more than {MOST_STEPS} steps"
PRIME = 2**61 - 1  # every multiple of it has the hash 0


def made(source: str, part: str = "text", **known: Any) -> str:
    return Template({part: source}).render(known, 25_000_000)[part]


def nested(items: int, depth: int) -> list[Any]:
    found: list[Any] = list(range(items))
    for _ in range(depth):
        found = [found]
    return found


GROWING: list[tuple[str, Any]] = [
    ("urlize", "see a.com " * 25_000),
    ("urlize", ")" * 5_000 + "x)"),  # tried from each of them on
    ("urlize", "http://a.b/" + "." * 5_000 + "!,"),
    ("urlize", "a " * 50_000),
    ("wordwrap(20)", "hello you " * 25_000),
    ("wordwrap(1)", "a" * 100_000),  # cut off one by one
    ("wordwrap(20)", "\n" * 100_000),
    ("title", "hello you " * 25_000),
    ("striptags", "<!---->" * 10_000),
    ("striptags", "<a>" * 20_000),
    ("wordcount", "a " * 150_000),
    ("urlencode", "\u00e9" * 250_000),
    ("xmlattr", {str(number): number for number in range(60_000)}),
    ("tojson", [[1]] * 60_000),
    ("pprint", [[1]] * 30_000),
    ("pprint", nested(5_000, 200)),  # written once more for each that it stands in
    ("tojson(indent=1)", nested(90_000, 200)),
    ("tojson(indent='\t\t')", nested(60_000, 250)),
    ("upper", "\u00e9" * 2_500_000),
    ("trim", "\u00e9" * 2_500_000),
    ("string", ["\u00e9" * 2_500_000]),
    ("sort", ["a" * 1000 + str(number) for number in range(5_000)]),
    ("unique", [number * PRIME for number in range(10_000)]),
    ("groupby('a')", [{"a": number} for number in range(60_000)]),
    ("max", list(range(60_000))),
    ("sum", list(range(60_000))),
]


@pytest.mark.parametrize(
    ("name", "value", "by"),
    [(*each, by) for each in GROWING for by in ("|", "map") if by == "|" or not each[0].endswith(")")],
)
def test_what_grows_faster_than_its_input_is_bounded_by_it(name: str, value: Any, by: str) -> None:
    filter_ = name.partition("(")[0]
    source = f"{{{{ v | {name} | list | length }}}}" if by == "|" else f"{{{{ [v] | map('{name}') | list | length }}}}"
    with pytest.raises(MalformedMail, match=rf"{MUCH} \({filter_}\)$"):
        made(source, v=value)


@pytest.mark.parametrize(
    "body",
    [
        "{{ v | wordwrap(3) | length }}",
        "{{ v | urlize | length }}",
        "{{ v | replace(' ', '\n') | e | indent(5) | length }}",
        "{{ v.upper().lower().title() | length }}",
        "{% if v | upper == w | upper | lower %}{% endif %}",
        "{% if w in [v, v, v, v] %}{% endif %}",
        "{% if loop.changed(v ~ 'a') %}{% endif %}",
        "{% if v.rfind(w) %}{% endif %}",
        "{% if v.count(w) %}{% endif %}",
        "{% if [v, v, v, v].count(w) %}{% endif %}",
        "{% if (v, v, v, v).count(v | upper) %}{% endif %}",
        "{% if v.strip('a ' ~ w) %}{% endif %}",
        "{% if v | trim('a ' ~ w) %}{% endif %}",
    ],
)
def test_a_loop_pays_for_what_its_filters_look_at(body: str) -> None:
    assert made("{% for i in range(2) %}" + body + "{% endfor %}", v="a " * 499, w="b" * 100) is not None
    with pytest.raises(MalformedMail, match=MUCH):
        made(
            "{% for i in range(9999) %}{% for k in range(9) %}" + body + "{% endfor %}{% endfor %}", v="a " * 499, w="b"
        )


@pytest.mark.parametrize(
    "source",
    [
        "{{ ([v] * 5000) | join | length }}",
        "{{ ''.join([v] * 5000) | length }}",
        "{{ ('{0[0]}' * 5000).format([v]) | length }}",
        "{{ ('{0:999}' * 10000).format(1) | length }}",
        "{{ '%s' % ([x] * 100) }}",
        "{% set y %}{% for i in range(9999) %}{{ v }}{% endfor %}{% endset %}{{ y | length }}",
        "{% set y %}{% for i in range(9999) %}{% for k in range(9) %}"
        + "t" * 2000
        + "{% endfor %}{% endfor %}{% endset %}",
        "{% macro m() %}{% for i in range(9999) %}{{ v }}{% endfor %}{% endmacro %}{{ m() | length }}",
        "{% filter upper %}{% for i in range(9999) %}{{ v }}{% endfor %}{% endfilter %}",
        "{{ " + " ~ ".join(["v"] * 600) + " }}",
        "{{ ([[1] * 10000] * 3000) | string | length }}",
        "{{ [[1] * 10000] * 3000 }}",
        "{{ ([[1] * 10000] * 3000) | tojson }}",
        "{% if [[v] * 10000] * 100 == [[w] * 10000] * 100 %}{% endif %}",
        "{{ 'x'.encode().center(500000000) | length }}",
        "{{ (1).to_bytes(500000000, 'big') | length }}",
        "{{ (1).from_bytes(x, 'big') }}",
        "{{ {}.fromkeys(x, v) }}",
        "{{ v.translate({120: v}) }}",
        "{{ 5 | round(-3000000) }}",
        "{{ 5 | round(300000, 'ceil') }}",
        "{{ v | int(base=16) }}",
        "{{ lines | indent(9999) }}",
        "{{ lines.expandtabs(9999) }}",
        "{{ x | sum(start=[]) }}",
        "{{ [x, x] | sum(start=[]) }}",
        "{{ v.rfind(v) }}",
        "{{ (v * 100) | list | length }}",
        "{{ ('a ' * 5000 * 1000).split() | length }}",
        "{{ (v * 10) | sort | length }}",
        "{{ (v * 100) | batch(2) | list | length }}",
        "{{ (v * 100) | join(',') | length }}",
        "{{ ('x' * 10000 * 100 * 2000) | length }}",
        "{{ (2000 * ('x' * 10000 * 100)) | length }}",
        "{{ ([1] * 10000 * 2400) | length }}",
        "{{ ((1,) * 10000 * 10000) | length }}",
        "{{ [1, 2] | tojson(indent=300000000) }}",
        "{{ [1, 2] | tojson(300000000) }}",
        "{{ [1, 2] | tojson(indent=v) }}",
        "{{ ('www.example.com ' * 3000) | urlize(rel=v) | length }}",
        "{{ v.strip(w) | length }}",
        "{{ v.lstrip(w) | length }}",
        "{{ v.rstrip(w) | length }}",
        "{{ v | trim(w) | length }}",
        "{{ ([v] * 10000).count(w) }}",
        "{{ ([v] * 10000).index(w) }}",
        "{{ (v,).count((x, x, x, x, x, x, x, x, x, x) * 10) }}",
    ],
)
def test_nothing_fills_the_memory_or_takes_a_second_in_one_call(source: str) -> None:
    known = {"v": "f" * 100_000, "w": "f" * 99_999 + "g", "x": ["y"] * 20_000, "lines": "\n\t" * 50_000}
    template = Template({"text": source})
    with pytest.raises(MalformedMail):
        Template({"text": "{{ 1 / 0 }}"}).render(known, 100)  # what is loaded once
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMail, match=r"^template: text: .* "):
            template.render(known, 25_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64_000_000


def test_what_is_written_in_the_template_itself_is_not_worked_out_beforehand_for_nothing() -> None:
    """Where jinja2 compiles it, nobody would count."""
    with pytest.raises(MalformedMail, match=rf"{MUCH} \(urlize\)"):
        made("{{ '" + ")" * 5_000 + "x)' | urlize }}")


def test_no_chance_decides_what_a_mail_says() -> None:
    with pytest.raises(ValueError, match="No filter named 'random'"):
        Template({"text": "{{ [1, 2] | random }}"}).check()


def test_what_mails_are_made_of_is_far_from_it() -> None:
    orders = [{"sku": f"A-{number}", "name": "A thing & more", "price": 12.5, "count": 2} for number in range(500)]
    row = "<tr><td>{{ loop.index }}<td>{{ o.sku | upper }}<td>{{ o.name | truncate(20) }}<td>{{ o.count }}<td>"
    source = (
        "<h1>Hello {{ name | title }}</h1>" + "<p>Some text of ours.</p>" * 2000 + "<table>"
        "{% for o in orders | sort(attribute='sku') %}"
        + row
        + "{{ '%.2f' | format(o.price) }}</tr>{% endfor %}</table>"
        "<p>{{ orders | sum(attribute='price') }}</p>{{ note | urlize }}{{ orders | tojson | length }}"
        "{{ note | wordwrap(60) | replace('a', 'b') | default('none') }}"
    )
    source += (
        "{% for o in orders %}{% if o.sku in known and o.sku not in sold %}{{ known[o.sku] }}{% endif %}{% endfor %}"
    )
    known = {o["sku"]: {"a": [1] * 50} for o in orders}
    html = made(
        source,
        "html",
        name="ann",
        orders=orders,
        known=known,
        sold=list(known)[:50],
        note="Look at https://example.com/a?b=c (or not). " * 200,
    )
    assert html.count("<tr>") == 500


DEEP = "{% set t = (1, 2) %}" + "{% set t = (t, t) %}" * 15  # 65,536 items, of fifteen


@pytest.mark.parametrize(
    "source",
    [
        "{% set d = {t: 1} %}",
        "{% set d = {1: 2, (1, t): 3} %}",
        "{% if d[t] is defined %}{% endif %}",
        "{% if d[1, t] is defined %}{% endif %}",
        "{% if d[t:] %}{% endif %}",
        "{% if t in d %}{% endif %}",
        "{% if 1 == 1 != t not in d %}{% endif %}",
        "{% if t is in d %}{% endif %}",
        "{% if d.get(t) %}{% endif %}",
        "{% if d | attr(t) is defined %}{% endif %}",
        "{{ [d, d] | map(attribute=t) | list | length }}",
        "{{ [d, d] | groupby(t) | length }}",
        "{{ [d, d] | selectattr(t) | list | length }}",
        "{{ [d, d] | rejectattr(t) | list | length }}",
        "{{ [d, d] | map(t) | list | length }}",
        "{{ [d, d] | select(t) | list | length }}",
        "{{ [d, d] | reject('in', t) | list | length }}",
    ],
)
def test_what_is_looked_for_is_paid_with_all_that_stands_in_it(source: str) -> None:
    """A tuple's hash is made anew of all of it, each time."""
    with pytest.raises(Heavy):
        Template({"text": DEEP + source}).light().render({"d": {"a": 1}}, 100)


@pytest.mark.parametrize("source", ["{% set d = {t: 1} %}", "{{ [t, t] | unique | list | length }}", "{{ d.get(t) }}"])
def test_a_key_is_not_nested_without_end(source: str) -> None:
    """Its hash would take the stack, and the worker with it."""
    nested_ = "{% set t = " + "(" * 30 + "t" + ",)" * 30 + " %}"
    with pytest.raises(MalformedMail, match=r"^template: text: a list in a list more than 2000 deep$"):
        made("{% set t = 1 %}" + nested_ * 70 + source, d={})


def test_who_looks_into_a_dict_does_not_pay_for_all_of_it() -> None:
    keys = [str(number) for number in range(1_000)]
    source = "{% for k in keys %}{{ d[k] + d.get(k) if k in d }}{% endfor %}"
    assert made(source, d=dict.fromkeys(map(str, range(20_000)), 1), keys=keys) == "2" * 1_000


@pytest.mark.parametrize(
    "source",
    [
        "{{ v | map(attribute=path, default=1) | list | length }}",
        "{{ v | sort(attribute=path) | length }}",
        "{{ v | map(attribute=path | replace(',', '.'), default=1) | list | length }}",
        "{{ v | selectattr(path) | list | length }}",
    ],
)
def test_each_step_of_a_path_is_paid_for_each_item(source: str) -> None:
    """Twice the steps that there are, and so before long."""
    path = "a" + (",a" if "sort" in source or "replace" in source else ".a") * 199
    given: Any = {"a": 1}
    for _ in range(0 if "sort" in source else 200):  # which looks at each of them anyway
        given = {"a": given}
    with pytest.raises(Heavy):
        Template({"text": source}).light().render({"v": [given] * 20, "path": path}, 100)


def test_each_brace_of_a_pattern_is_paid() -> None:
    with pytest.raises(Heavy):
        Template({"text": "{% if ('{0}' * 2000).format(1) %}{% endif %}"}).light().render({}, 100)


def test_what_a_macro_is_given_is_paid() -> None:
    source = "{% macro m() %}{% if varargs %}{% endif %}{% endmacro %}{% for i in range(9) %}{{ m(*v) }}{% endfor %}"
    with pytest.raises(Heavy):
        Template({"text": source}).light().render({"v": list(range(3_000))}, 100)


# -- what may be called ------------------------------------------------------------------------------------------------


VALUES = {str: "a", list: ["a"], tuple: ("a",), dict: {"a": 1}, range: range(3), int: 1, float: 1.5}
GIVEN: dict[str, list[Any]] = {
    **{name: ["a"] for name in ("count", "endswith", "find", "get", "index", "join", "partition", "removeprefix")},
    **{name: ["a"] for name in ("removesuffix", "rfind", "rindex", "rpartition", "startswith")},
    **{name: [9] for name in ("center", "ljust", "rjust", "zfill")},
    "format_map": [{}],
    "replace": ["a", "b"],
}


@pytest.mark.parametrize(
    ("value", "method"),
    [
        *(("a", name) for name in ("encode", "maketrans", "translate")),
        *((1, name) for name in ("to_bytes", "from_bytes", "as_integer_ratio")),
        *((1.5, name) for name in ("hex", "fromhex")),
        ({}, "fromkeys"),
        (Markup("a"), "escape"),
        ({}.keys(), "isdisjoint"),
    ],
)
def test_a_method_that_is_not_known_is_refused_by_its_name(value: Any, method: str) -> None:
    why = rf"^template: text: {method} of [\w]+ is no method that templates may call$"
    with pytest.raises(MalformedMail, match=why):
        made("{{ v." + method + "(1) }}", v=value)
    with pytest.raises(MalformedMail, match=why):
        made("{{ (v | attr(name))(1) }}", v=value, name=method)


def test_iterators_have_no_methods() -> None:
    for name in ("send", "throw", "close"):
        with pytest.raises(MalformedMail, match=f"^template: text: {name} of generator is no method"):
            made("{{ (v | map('upper'))." + name + "(1) }}", v=["a"])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in METHODS for name in sorted(names)])
def test_each_method_that_may_be_called_is_one(kind: type[Any], name: str) -> None:
    if kind is LoopContext:
        assert made("{% for a in v %}{{ loop." + name + "(a) }}{% endfor %}", v=[1]) == str(
            {"cycle": 1, "changed": True}[name]
        )
        return
    value = Markup("a") if name in ("striptags", "unescape") else VALUES[kind]
    source = "{% for i in range(999) %}{% if v." + name + "(*args) %}{% endif %}{% endfor %}"
    with pytest.raises(Heavy):  # and not that there is none, or that it may not be called
        Template({"text": source}).light().render(
            {"v": value, "args": [1] if kind is range else GIVEN.get(name, [])}, 9
        )


def test_methods_give_what_they_give() -> None:
    source = (
        "{{ v.upper() }} {{ v.count('a') }} {{ v.strip('ab') }} {{ '{}!'.format(v) }} {{ [1, 2, 1].count(1) }} "
        "{{ d.get('x') }} {{ d.get('y', 7) }} {{ v.split('n') | join('-') }} {{ (1, 2).index(2) }} {{ v.find('n') }}"
    )
    assert made(source, v="banana", d={"x": 5}) == "BANANA 3 nan banana! 2 5 7 ba-a-a 1 2"
    assert made("{{ v.format('<') }}{{ v.upper() }}", "html", v=Markup("<b>{}")) == "<b>&lt;<B>{}"


def test_a_filter_whose_cost_is_not_known_is_none() -> None:
    from streamq.mail.sandbox import _Sandbox

    theirs = ImmutableSandboxedEnvironment().filters

    assert set(_Sandbox(html=False).filters) - set(theirs) == {
        *(" called", " counted"),
        *(" weighed", " sliced", " compared", " searched", " hashed", " named"),
    }
    assert set(theirs) - FILTERS == {"random"}


# -- what may be done at once ------------------------------------------------------------------------------------------


LOOP = Template({"subject": "s", "html": "{% for i in x %}{{ i }}{% endfor %}"})


def test_a_little_is_done_at_once_and_the_rest_when_there_is_time() -> None:
    few, many = range(LIGHT_STEPS // 2 - 10), range(LIGHT_STEPS // 2 + 1)
    assert LOOP.light().render({"x": few}, 100_000) == LOOP.render({"x": few}, 100_000)
    with pytest.raises(Heavy):
        LOOP.light().render({"x": many}, 100_000)
    assert LOOP.render({"x": many}, 100_000)["html"].startswith("0123")


@pytest.mark.parametrize("source", ["{{ v | urlize }}", "{{ v | list | sort }}", "{{ [v, v] | map('upper') | join }}"])
def test_what_is_heavy_is_left_before_it_is_begun(source: str) -> None:
    template = Template({"text": source})
    with pytest.raises(Heavy):
        template.light().render({"v": "a " * 1_000_000}, 100_000)


def test_a_long_template_is_compiled_when_there_is_time() -> None:
    template = Template({"text": "{{ a }}" + "x" * LIGHT_SOURCE})
    with pytest.raises(Heavy):
        template.light().render({"a": 1}, 100_000)
    whole = template.render({"a": 1}, 100_000)
    assert template.light().render({"a": 1}, 100_000) == whole  # it has been compiled


def test_a_light_one_says_what_is_wrong_as_the_whole_one_does() -> None:
    for source in ("{{ a.b }}", "{{ 1 / 0 }}", "{{ 9 ** 9 }}", "{{ 'x' * 10001 }}"):
        said = []
        for template in (Template({"text": source}), Template({"text": source}).light()):
            with pytest.raises(MalformedMail) as found:
                template.render({"a": {}}, 1000)
            said.append(str(found.value))
        assert said[0] == said[1]


# -- the text beside an html -------------------------------------------------------------------------------------------


HOSTILE = [
    *("<", "<!--", "<a ", '<a href="', "&", "&#", "<a x='", "<ul><li>", "<blockquote>x", "<style", "<td>x", "<p x="),
    *(
        '<div style="display:none">',
        "<ul></ol>",
        "<svg>",
        "<a href=http://a.b>x",
        "=",
        "\t",
        "<pre>\n",
        "</",
        "<img a ",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_text_is_made_of_html_within_its_bounds(piece: str) -> None:
    """What it is made of is bounded, and what comes of it is no more than some times that."""
    html = piece * min(MAX_HTML // len(piece), MAX_TAGS // max(1, piece.count("<")))
    assert len(text_of(html.encode())) <= 30 * MAX_HTML
    assert text_of((piece * (MAX_HTML // len(piece) + 1)).encode() + b"x") == b""
