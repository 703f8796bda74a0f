"""Templates of any kind over variables of any kind, for `python -m bench fuzz --target bombs`: what each filter,
method, test, operator and loop does to what it was not made for. A text, or one of a mail's errors, in bounded time."""

from __future__ import annotations

import random

import orjson
from jinja2.filters import FILTERS as OF_JINJA

from streamq.errors import MailError
from streamq.mail.effort import FILTERS
from streamq.mail.methods import METHODS
from streamq.mail.template import Template

__all__ = ["rendered"]

MOST = 1_000_000  # characters that it may write
NAMES = tuple(sorted(FILTERS & OF_JINJA.keys()))
CALLS = tuple(sorted({name for _, names in METHODS for name in names}))
ERROR_MOST = 2000  # characters
ATOMS = (
    "v", "w", "n", "1", "0", "-1", "9999999999", "1e308", "'x'", "'%s' ", "'{0.__class__}'", "''", "[]", "{}", "[1, 2]",
    "{'a': v}", "none", "true", "range(9)", "range(99999)", "loop", "self", "missing", "v.a", "v['a']", "v[0]", "v[1:]",
    "w|length", "namespace(a=1)", "joiner(',')", "cycler(1, 2)", "dict(a=1)", "lipsum", "v.__class__", "''.__doc__",
    "x.y.z",
)  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "or", "is", "not in")
TESTS = (
    "defined",
    "none",
    "number",
    "string",
    "mapping",
    "iterable",
    "divisibleby(0)",
    "sameas(v)",
    "in v",
    "filter('x')",
)
VALUES: tuple[object, ...] = (
    "x", "", "x" * 100_000, "é" * 999, "\u2028", 0, -1, 10**18, 1e308, -0.0, None, True, [], {}, [[1, [2, [3]]]],
    {"a": {"b": [1, "x"]}}, ["x"] * 5000, {str(n): n for n in range(500)}, "%s%s", "{0}" * 50, "<b>&amp;</b>",
    "2026-01-01",
)  # fmt: skip


def _expression(chance: random.Random, deep: int) -> str:
    if deep <= 0:
        return chance.choice(ATOMS)
    inner = _expression(chance, deep - 1)
    match chance.randrange(7):
        case 0 | 1:
            arguments = _arguments(chance)
            return f"({inner})|{chance.choice(NAMES)}{f'({arguments})' if arguments else ''}"
        case 2:
            return f"({inner}).{chance.choice(CALLS)}({_arguments(chance)})"
        case 3 | 4:
            operator = chance.choice(OPERATORS)
            other = chance.choice(TESTS) if operator == "is" else _expression(chance, deep - 1)
            return f"({inner} {operator} {other})"
        case 5:
            return f"({inner} if {_expression(chance, deep - 2)} else {_expression(chance, deep - 2)})"
        case _:
            return f"[{inner}, {_expression(chance, deep - 2)}]"


def _arguments(chance: random.Random) -> str:
    return ", ".join(chance.choice(ATOMS) for _ in range(chance.choice((0, 0, 1, 1, 2))))


def _source(chance: random.Random) -> str:
    parts = []
    for _ in range(chance.choice((1, 1, 2, 4))):
        made = _expression(chance, chance.choice((0, 1, 2, 3)))
        parts.append(
            chance.choice(
                (
                    f"{{{{ {made} }}}}",
                    f"{{{{ {made} }}}}",
                    f"{{% for i in {made} %}}{{{{ i }}}}{{% endfor %}}",
                    f"{{% for i in {made} %}}{{% for j in {made} %}}{{{{ j }}}}{{% endfor %}}{{% endfor %}}",
                    f"{{% if {made} %}}x{{% endif %}}",
                    f"{{% set v = {made} %}}{{{{ v }}}}",
                    f"{{% macro m(a) %}}{{{{ m({made}) }}}}{{% endmacro %}}{{{{ m(1) }}}}",
                    f"{{% filter {chance.choice(NAMES)} %}}{made}{{% endfilter %}}",
                    made,
                )
            )
        )
    if chance.random() < 0.05:
        parts.append("{{ v")
    return "".join(parts)


def rendered(chance: random.Random) -> str:
    """One case; how it ended."""
    known = orjson.loads(orjson.dumps({name: chance.choice(VALUES) for name in ("v", "w", "n")}))
    template = Template({chance.choice(("subject", "text", "html")): _source(chance)})
    try:
        made = template.render(known, MOST)
    except MailError as wrong:
        kind, said = type(wrong).__name__, str(wrong)
    else:
        kind, said = "rendered", ""
        assert all(len(part) <= MOST for part in made.values())
    assert len(said) < ERROR_MOST, f"an error of {len(said)} characters"
    return f"template: {kind}"
