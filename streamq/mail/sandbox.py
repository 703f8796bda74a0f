"""The sandbox of templates: jinja2's own, and bounds on what it may do. That one keeps a template from the program's
insides; it lets a loop that writes nothing run for ever, and one line make a gigabyte.

STEPS   An iteration, a call, a filter, a test, a comparison cost one, and what they look at by its size. Counted, not
        timed: the same mail must come of it on a machine that is busy.
SIZES   What is multiplied, joined, padded, formatted is looked at before it is made.
Imported only where jinja2 is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, cast

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

__all__ = ["MOST_STEPS", "TooMuch", "compiled", "counting"]

MOST_STEPS = 100_000  # of a part: some tenths of a second
MOST_FACTOR = 10_000  # `text * number`, `text | center(number)`
MOST_BITS = 4096  # of a product
MOST_RANGE = 10_000
MOST_SIZE = 100_000_000  # of a text or a list; and of the sizes of what is put together, multiplied
MACRO_STEPS = 10
ITEMS_A_STEP, SIGNS_A_STEP = 100, 1000
LISTS = (list, tuple, dict, set, frozenset, range)
WIDE = frozenset({"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "wordwrap", "zfill"})
WIDTH = re.compile(r"%[^%A-Za-z]*(?:\d{5}|\*)|\{[^{}]*(?:\d{5}|\{)")
COUNTED, WEIGHED = " counted", " weighed"  # filters that no template can name

_left: ContextVar[list[int]] = ContextVar("steps_left")


class TooMuch(ValueError):
    """A template wants more than it may."""


def counting() -> None:
    """The steps of a part begin."""
    _left.set([MOST_STEPS])


def _spend(steps: int) -> None:
    left = _left.get(None)
    if left is not None:  # an expression of constants is worked out when it is compiled
        left[0] -= steps
        if left[0] < 0:
            raise TooMuch(f"takes more than {MOST_STEPS} steps")


def _weigh(value: object) -> int:
    """In steps."""
    size = len(value) if isinstance(value, (str, *LISTS)) else 0
    if size > MOST_SIZE:
        raise TooMuch(f"a text or list of more than {MOST_SIZE}")
    return size // (SIGNS_A_STEP if isinstance(value, str) else ITEMS_A_STEP)


def _guard(name: str, values: Iterable[object]) -> None:
    """Before a filter, a test or a method of a text or list does what it is there for."""
    product = 1
    for value in values:
        _spend(_weigh(value))
        if isinstance(value, (str, *LISTS)):
            product *= max(1, len(value))
        elif isinstance(value, int) and value > MOST_FACTOR and name in WIDE:
            raise TooMuch(f"{name} by more than {MOST_FACTOR}")
    if product > MOST_SIZE:
        raise TooMuch(f"{name} of too much")
    if name in ("format", "format_map"):
        for value in values:
            if isinstance(value, str) and WIDTH.search(value):
                raise TooMuch(f"{name} with a width of more than four digits, or one that is a value")
            break  # the pattern, and not what is put into it


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # jinja2 looks at its attributes
    def guarded(*args: Any, **known: Any) -> Any:
        _spend(1)
        _guard(name, [*args, *known.values()])
        return function(*args, **known)

    return guarded


def _iterated(found: Iterable[Any]) -> Iterator[Any]:
    for each in found:
        _spend(1)
        yield each


@pass_context  # so that it is never worked out beforehand
def _counted(context: object, found: Iterable[Any]) -> Iterator[Any]:
    return _iterated(found)


@pass_context
def _weighed(context: object, found: object) -> object:
    _spend(1 + _weigh(found))
    return found


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MOST_RANGE:
        raise TooMuch(f"range of more than {MOST_RANGE}")
    return found


class _Bounds(NodeTransformer):
    """Puts those two filters where a template loops, compares, joins and cuts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        node.iter = _filtered(node.iter, COUNTED)
        return node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        node.expr = _filtered(node.expr, WEIGHED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        return _filtered(node, WEIGHED)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        return _filtered(node, WEIGHED) if isinstance(node.arg, nodes.Slice) else node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    place = node.lineno, node.environment
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=place[0], environment=place[1])


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, html: bool) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=html, keep_trailing_newline=True, cache_size=0)
        self.globals = {"range": _range}
        self.filters = {name: _guarded(name, cast(Callable[..., Any], each)) for name, each in self.filters.items()}
        self.tests = {name: _guarded(name, cast(Callable[..., Any], each)) for name, each in self.tests.items()}
        self.filters |= {COUNTED: _counted, WEIGHED: _weighed}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        plain = (int, float)
        numbers = isinstance(left, plain) and isinstance(right, plain)
        if operator == "**":
            raise TooMuch("** is not for that")
        if operator == "*" and not numbers:
            factor = right if isinstance(right, plain) else left if isinstance(left, plain) else 0
            if factor > MOST_FACTOR:
                raise TooMuch(f"* by more than {MOST_FACTOR}")
        elif operator == "%" and not numbers:
            _guard("format", [left, right])
        elif operator == "*" and sum(each.bit_length() for each in (left, right) if isinstance(each, int)) > MOST_BITS:
            raise TooMuch(f"a number of more than {MOST_BITS} bits")  # squared twenty times one takes a minute
        made = super().call_binop(context, operator, left, right)
        if not numbers:
            _spend(1 + _weigh(made))
        return made

    def call(self, context: Any, function: Any, /, *args: Any, **known: Any) -> Any:
        _spend(MACRO_STEPS if isinstance(function, Macro) else 1)
        if isinstance(function, LoopContext) and args:  # a loop that calls itself
            args = (_iterated(args[0]), *args[1:])
        method = getattr(function, "__wrapped__", function)  # `format` comes in a wrapper of jinja2's
        owner = getattr(method, "__self__", None)
        if isinstance(owner, (str, *LISTS)):
            _guard(method.__name__, [owner, *args, *known.values()])
        return super().call(context, function, *args, **known)


_environments: dict[bool, _Sandbox] = {}


def compiled(source: str, *, html: bool) -> Template:
    """Raises jinja2's TemplateSyntaxError, RecursionError."""
    found = _environments.get(html)
    if found is None:
        found = _environments[html] = _Sandbox(html)
    code = found.compile(_Bounds().visit(found.parse(source)))
    return Template.from_code(found, code, found.make_globals(None))
