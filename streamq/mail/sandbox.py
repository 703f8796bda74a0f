"""The sandbox of templates: jinja2's own, and bounds on what it may do. That one keeps a template from the program's
insides; it lets a loop that writes nothing run for ever, and one line make a gigabyte.

Every iteration, call, filter, test, comparison and output is paid for before it is done (effort.py says what it costs),
so that what a template may do is bounded in time and in memory. Imported only where jinja2 is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from typing import Any, cast

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing, object_type_repr
from jinja2.visitor import NodeTransformer

from streamq.mail.effort import (
    FILTERS,
    MOST_BITS,
    MOST_FACTOR,
    TooMuch,
    before,
    counting,
    foresee,
    settled,
    spend,
    spend_on,
    spend_on_key,
    spend_to_compare,
)
from streamq.mail.methods import allowed

__all__ = ["compiled"]

MOST_RANGE = 10_000
MACRO_STEPS = 10
ARGUMENTS_A_STEP = 10
METHOD_STEPS = 3  # beside what a filter costs
WRITTEN = (Macro, BlockReference, LoopContext, Undefined)  # pay for what is in them, or say that they are not there
COUNTED, WEIGHED, SLICED, COMPARED, SEARCHED, HASHED, NAMED = (
    " counted",
    " weighed",
    " sliced",
    " compared",
    " searched",
    " hashed",
    " named",
)  # filters that no template can name
SHORT = 100  # of a template's own text: paid with what stands beside it


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    unpaid = 1 if hasattr(function, "jinja_pass_arg") else 0  # the environment, or a context

    @wraps(function)  # jinja2 looks at its attributes
    def guarded(*args: Any, **known: Any) -> Any:
        return _paid(name, partial(function, *args[:unpaid]), [], args[unpaid:], known)

    return guarded


def _paid(name: str, function: Callable[..., Any], owner: list[Any], args: Iterable[Any], known: dict[str, Any]) -> Any:
    args = [settled(name, value, LoopContext) for value in args]
    known = {key: settled(name, value, LoopContext) for key, value in known.items()}
    before(name, [*owner, *args, *known.values()])
    made = function(*args, **known)
    if isinstance(made, (str, list, tuple, dict)):
        spend_on(made, shallow=True)
    return made


@pass_context  # so that it is never worked out beforehand
def _counted(context: object, found: Iterable[Any]) -> Iterator[Any]:
    return _iterated(found)


def _iterated(found: Iterable[Any]) -> Iterator[Any]:
    for each in found:
        spend(1)
        yield each


def _paying(spend_for: Callable[[Any], object]) -> Callable[[object, Any], Any]:
    @pass_context
    def paid(context: object, found: Any) -> Any:
        spend_for(found)
        return found

    return paid


_weighed = _paying(spend_on)
_sliced = _paying(partial(spend_on, shallow=True))
_compared = _paying(partial(spend_to_compare, for_a_key=False))
_searched = _paying(partial(spend_to_compare, for_a_key=True))
_hashed = _paying(spend_on_key)


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MOST_RANGE:
        raise TooMuch(f"range of more than {MOST_RANGE}")
    return found


class _Missing(StrictUndefined):
    """Says what is missing as the template writes it. jinja2 would say what it was looked for by, which may be a value
    (`plans[plan]`), and a reason stands in events, whatever the mail says of secrecy."""

    __slots__ = ("written",)

    def __init__(self, *args: Any, **known: Any) -> None:
        super().__init__(*args, **known)
        self.written = ""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint or self._undefined_obj is missing:
            return super()._undefined_message
        return f"{object_type_repr(self._undefined_obj)!r} has no {self.written or 'element of that name'}"


@pass_context
def _named(context: object, found: Any, written: str) -> Any:
    if isinstance(found, _Missing) and not found.written:
        found.written = written
    return found


class _Bounds(NodeTransformer):
    """Puts those filters where a template loops, compares, joins, cuts, looks things up and writes."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        node.iter = _filtered(node.iter, COUNTED)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        node.expr = _keyed(node.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        node.key = _keyed(node.key)
        return node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        node.expr = _filtered(node.expr, SEARCHED if node.op in ("in", "notin") else COMPARED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        node.nodes = [_filtered(each, WEIGHED) for each in node.nodes]
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        """A block, a macro, a loop that calls itself: what they write is put together in memory first."""
        self.generic_visit(node)
        node.nodes = [each if _is_short(each) else _filtered(each, WEIGHED) for each in node.nodes]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            cut = node.arg  # a key as any other, from Python 3.12 on
            cut.start, cut.stop, cut.step = (each and _keyed(each) for each in (cut.start, cut.stop, cut.step))
            return _filtered(node, SLICED)
        return _filtered(node, NAMED, nodes.Const(_written(node.arg)))

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        return _filtered(node, NAMED, nodes.Const(f"attribute {node.attr!r}"))


def _written(key: nodes.Expr) -> str:
    if isinstance(key, nodes.Const):
        return f"{'attribute' if isinstance(key.value, str) else 'element'} {key.value!r}"
    return f"element [{key.name}]" if isinstance(key, nodes.Name) else ""


def _is_short(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData) and len(node.data) <= SHORT


def _keyed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filtered(node, HASHED)


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    place = node.lineno, node.environment
    return nodes.Filter(cast(nodes.Expr, node), name, [*args], [], None, None, lineno=place[0], environment=place[1])


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, html: bool) -> None:
        super().__init__(undefined=_Missing, autoescape=html, keep_trailing_newline=True, cache_size=0)
        self.globals = {"range": _range}
        # Not `random`: each attempt at a mail has to be the same bytes
        known = {name: cast(Callable[..., Any], each) for name, each in self.filters.items() if name in FILTERS}
        self.filters = {name: _guarded(name, each) for name, each in known.items()}
        self.tests = {name: _guarded(name, cast(Callable[..., Any], each)) for name, each in self.tests.items()}
        self.filters |= {COUNTED: _counted, WEIGHED: _weighed, SLICED: _sliced}
        self.filters |= {COMPARED: _compared, SEARCHED: _searched, HASHED: _hashed, NAMED: _named}

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
            before("format", [left, right])
        elif operator == "*" and sum(each.bit_length() for each in (left, right) if isinstance(each, int)) > MOST_BITS:
            raise TooMuch(f"a number of more than {MOST_BITS} bits")  # squared twenty times one takes a minute
        if operator == "*":
            for value, factor in ((left, right), (right, left)):
                foresee(value, factor if isinstance(factor, int) else 1)
        elif operator == "+":
            foresee(left)
            foresee(right)
        made = super().call_binop(context, operator, left, right)
        if not numbers:
            spend_on(made, shallow=True)
        return made

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Of `a[b]`, and of what filters look up: `map(attribute='a.b.c')` three times for each item."""
        spend(1)
        spend_on_key(argument)
        return super().getitem(obj, argument)

    def call(self, context: Any, function: Any, /, *args: Any, **known: Any) -> Any:
        spend((MACRO_STEPS if isinstance(function, Macro) else METHOD_STEPS) + len(args) // ARGUMENTS_A_STEP)
        if isinstance(function, LoopContext) and args:  # a loop that calls itself
            args = (_iterated(args[0]), *args[1:])
        if not callable(function) or function is _range or isinstance(function, WRITTEN):
            return super().call(context, function, *args, **known)
        charge, owner = allowed(function)
        if charge == "get":  # looks at nothing but its key
            spend_on_key(args[0] if args else None)
            return super().call(context, function, *args, **known)

        def call(*args: Any, **known: Any) -> Any:
            return super(_Sandbox, self).call(context, function, *args, **known)

        return _paid(charge, call, [owner], args, known)


_environments: dict[bool, _Sandbox] = {}


def compiled(source: str, *, html: bool) -> Template:
    """Raises jinja2's TemplateSyntaxError, RecursionError."""
    found = _environments.get(html)
    if found is None:
        found = _environments[html] = _Sandbox(html)
    counting()  # what is worked out beforehand: too much of it is left for later
    code = found.compile(_Bounds().visit(found.parse(source)))
    return Template.from_code(found, code, found.make_globals(None))
