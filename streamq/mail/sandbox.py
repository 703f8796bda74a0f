"""The sandbox of templates: jinja2's own, and bounds on what it may do. That one keeps a template from the program's
insides; it lets a loop that writes nothing run for ever, and one line make a gigabyte.

Every iteration, call, filter, test, comparison and output is paid for before it is done (effort.py says what it costs),
so that what a template may do is bounded in time and in memory. Imported only where jinja2 is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from itertools import islice
from typing import Any, cast

from jinja2 import StrictUndefined, Template, TemplateError, nodes, pass_context
from jinja2.runtime import BlockReference, LoopContext, Macro, TemplateReference, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing, object_type_repr
from jinja2.visitor import NodeTransformer

from streamq.mail.effort import (
    FILTERS,
    FUNCTIONS,
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

__all__ = ["MOST_SOURCE", "MOST_WORDS", "compiled", "is_small"]

MOST_SOURCE = 1_000_000  # characters of a part
MOST_WORDS = 10_000  # of its own, in braces: some tenths of a second to compile
MOST_RANGE = 10_000
MACRO_STEPS = 10
ARGUMENTS_A_STEP = 10
METHOD_STEPS = 3  # beside what a filter costs
NAMELESS = (BlockReference, TemplateReference)
WRITTEN = (Macro, BlockReference, LoopContext, Undefined)  # pay for what is in them, or say that they are not there
CALLED, COUNTED, WEIGHED, SLICED, COMPARED, SEARCHED, HASHED, NAMED = (
    " called",
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


@pass_context
def _weighed(context: object, found: Any, path: str) -> Any:
    """What is written where Python has no better word for it than an address of its memory is no text: it differs from
    worker to worker, and from attempt to attempt."""
    if isinstance(found, FUNCTIONS):
        raise TooMuch(f"{path} is a method, and is not called: it is no text")
    if isinstance(found, NAMELESS) or (isinstance(found, Iterator) and not isinstance(found, LoopContext)):
        raise TooMuch(f"{path} is no text (of a filter that gives many: | join, | list)")
    spend_on(found)
    return found


_sliced = _paying(partial(spend_on, shallow=True))
_compared = _paying(partial(spend_to_compare, for_a_key=False))
_searched = _paying(partial(spend_to_compare, for_a_key=True))
_hashed = _paying(spend_on_key)


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MOST_RANGE:
        raise TooMuch(f"range of more than {MOST_RANGE}")
    return found


_range.__name__ = "range"  # for reasons


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
def _named(context: object, found: Any, written: str, path: str) -> Any:
    """What was looked up, to be used and not to be called. A method comes before a member of that name."""
    if isinstance(found, FUNCTIONS):
        front, _, name = path.rpartition(".")
        other = f", or {front}['{name}'] for a member of that name" if front and name.isidentifier() else ""
        raise TooMuch(f"{path} is a method, and is not called: {path}(){other}")
    return _called(context, found, written, path)


@pass_context
def _called(context: object, found: Any, written: str, path: str) -> Any:
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
        paths = [nodes.Const(_path(each)) for each in node.nodes]
        self.generic_visit(node)
        node.nodes = [_filtered(each, WEIGHED, path) for each, path in zip(node.nodes, paths, strict=True)]
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        """A block, a macro, a loop that calls itself: what they write is put together in memory first."""
        paths = [nodes.Const(_path(each)) for each in node.nodes]
        self.generic_visit(node)
        node.nodes = [
            each if _is_short(each) else _filtered(each, WEIGHED, path)
            for each, path in zip(node.nodes, paths, strict=True)
        ]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        path = _path(node)
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            cut = node.arg  # a key as any other, from Python 3.12 on
            cut.start, cut.stop, cut.step = (each and _keyed(each) for each in (cut.start, cut.stop, cut.step))
            return _filtered(node, SLICED)
        return _filtered(node, NAMED, nodes.Const(_written(node.arg)), nodes.Const(path))

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        path = _path(node)
        self.generic_visit(node)
        return _filtered(node, NAMED, nodes.Const(f"attribute {node.attr!r}"), nodes.Const(path))

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802 - jinja2 calls it so
        self.generic_visit(node)
        if isinstance(node.node, nodes.Filter) and node.node.name == NAMED:
            node.node.name = CALLED
        return node


def _written(key: nodes.Expr) -> str:
    if isinstance(key, nodes.Const):
        return f"{'attribute' if isinstance(key.value, str) else 'element'} {key.value!r}"
    return f"element [{key.name}]" if isinstance(key, nodes.Name) else ""


def _path(node: nodes.Node) -> str:
    """As the template writes it; of what is no plain name what it is."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_path(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{_path(node.node)}[{node.arg.value!r}]"
    if isinstance(node, nodes.Filter) and node.node is not None:
        return f"{_path(node.node)} | {node.name}"
    return "(…)"


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
        # Its optimizer looks at all that an expression is made of, for each part of it, twice: thirty seconds for
        # three hundred filters one behind the other
        super().__init__(undefined=_Missing, autoescape=html, keep_trailing_newline=True, cache_size=0, optimized=False)
        self.globals = {"range": _range}
        # Not `random`: each attempt at a mail has to be the same bytes
        known = {name: cast(Callable[..., Any], each) for name, each in self.filters.items() if name in FILTERS}
        self.filters = {name: _guarded(name, each) for name, each in known.items()}
        self.tests = {name: _guarded(name, cast(Callable[..., Any], each)) for name, each in self.tests.items()}
        self.filters |= {COUNTED: _counted, WEIGHED: _weighed, SLICED: _sliced}
        self.filters |= {COMPARED: _compared, SEARCHED: _searched, HASHED: _hashed, NAMED: _named, CALLED: _called}

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


def _environment(html: bool) -> _Sandbox:
    found = _environments.get(html)
    if found is None:
        found = _environments[html] = _Sandbox(html)
    return found


def is_small(source: str, most: int) -> bool:
    """Whether it has no more than `most` words and signs of jinja2's language; a text around them is one. Each takes
    some tens of µs to compile. Raises jinja2's TemplateSyntaxError."""
    words = (kind for _, kind, _ in _environment(False).lexer.tokeniter(source, None) if kind != "whitespace")
    return next(islice(words, most, None), None) is None


def compiled(source: str, *, html: bool) -> Template:
    """Raises jinja2's TemplateSyntaxError; TooMuch where it is too long, or such as Python cannot compile."""
    if len(source) > MOST_SOURCE:
        raise TooMuch(f"longer than {MOST_SOURCE} characters")
    environment = _environment(html)
    counting()  # what is worked out beforehand: too much of it is left for later
    try:
        if not is_small(source, MOST_WORDS):
            raise TooMuch(f"more than {MOST_WORDS} words and signs in its braces")
        code = environment.compile(_Bounds().visit(environment.parse(source)))
    except (MemoryError, TemplateError, TooMuch):
        raise
    except (RecursionError, SyntaxError):  # the latter: parentheses of what Python is made of it
        raise TooMuch("nested too deep") from None
    except Exception as error:  # noqa: BLE001 - a number of more digits than Python reads, and whatever else
        raise TooMuch(f"jinja2 cannot compile it ({type(error).__name__})") from None
    return Template.from_code(environment, code, environment.make_globals(None))
