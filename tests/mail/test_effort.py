"""What a template may do is bounded by counts: of steps, of characters that are looked at, of memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from streamq.errors import MalformedMail
from streamq.mail.effort import LIGHT_STEPS, MOST_STEPS, Heavy
from streamq.mail.plain import MAX_HTML, MAX_TAGS, text_of
from streamq.mail.template import LIGHT_SOURCE, Template

MUCH = rf"^template: text: takes more than {MOST_STEPS} steps"
PRIME = 2**61 - 1  # every multiple of it has the hash 0


def made(source: str, part: str = "text", **known: Any) -> str:
    return Template({part: source}).render(known, 25_000_000)[part]


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
