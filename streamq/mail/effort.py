"""What an operation of a template costs, before it is done: in steps of about a microsecond, and never timed, since the
same mail must come of it on a machine that is busy.

PLAIN     by what they look at: a step for 250 characters or 2 items, all that stands in them, as often as it does.
          A filter that is in none of these sets is not there for templates: its cost is not known
SHALLOW   look at no more than how many items there are, or hand them on as they are: a step for 10
COMPARING look at all that stands there, too: a step for 10 items, and for a dict where it is looked for a key
SIGNWISE  look at each character by itself, in C, as all do that write a list: a step for 25 characters
SLOW      write each character or item by itself, in Python: a step for 2 characters, or for an item
ORDERING  compare: two steps an item, and their characters as often as they are compared
PIECEMEAL take a text for a list of characters or lines, or make one of it: a step for 10, for one of what is markup
Some are worse than that at one thing (`_worse`); what they make is weighed, too. What makes much of little
(MULTIPLYING) is looked at before: no call keeps all threads waiting for more than some tens of milliseconds, none fills
the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

__all__ = [
    "FILTERS",
    "FUNCTIONS",
    "LIGHT_STEPS",
    "MOST_STEPS",
    "Heavy",
    "TooMuch",
    "before",
    "counting",
    "foresee",
    "settled",
    "spend",
    "spend_on",
    "spend_on_key",
    "spend_to_compare",
]

MOST_STEPS = 100_000  # of a part: some tenths of a second
LIGHT_STEPS = 2_000  # some milliseconds: as long as others may be kept waiting
MOST_FACTOR = 10_000  # `text * number`, `text | center(number)`
MOST_BITS = 4096  # of a number
MOST_DIGITS = 1300  # the same, written
MOST_PRECISION = 100
MOST_SIZE = 25_000_000  # characters and items of one value, and of what comes of those that are put together
MOST_DEPTH = 2_000  # of what is looked into: a hash is made without a look at how much stack is left
CALL_STEPS = 3
SIGNS_A_STEP, ITEMS_A_STEP = 250, 2
SHALLOW_ITEMS, SLOW_SIGNS, SIGNWISE_SIGNS = 10, 2, 25
TEXTUAL_ITEM = 8
LONG_WORD = 100
CROSSED = 1_000  # characters of one and the other
MOST_INDENT = 100  # of `tojson`
HASH_BITS = 61  # greater numbers may be made to share one hash

# Views by their own types: their abstract classes are slow to ask
CONTAINERS: tuple[type[Any], ...] = (
    *(dict, list, tuple, set, frozenset, range),
    *(type({}.keys()), type({}.values()), type({}.items())),
)
FUNCTIONS: tuple[type[Any], ...] = (BuiltinFunctionType, FunctionType, MethodType)  # of these kinds are methods
SHALLOW = frozenset(
    {
        *("attr", "batch", "copy", "count", "d", "default", "first", "get", "items", "keys", "last", "length", "list"),
        *("map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "values"),
        *("boolean", "callable", "defined", "escaped", "filter", "float", "integer", "iterable", "mapping", "none"),
        *("number", "sameas", "sequence", "test", "undefined", "false", "true", "divisibleby", "even", "odd"),
    }
)
COMPARING = frozenset(
    {
        *("in", "eq", "equalto", "ne", "ge", "greaterthan", "gt", "le", "lessthan", "lt", "changed"),
        *("index", ".count"),  # methods; the filter `count` is `length`
        *("==", "!=", ">=", ">", "<=", "<"),
    }
)
STRIPPING = frozenset({"lstrip", "rstrip", "strip", "trim"})
SIGNWISE = STRIPPING | {
    *("capitalize", "casefold", "isalnum", "isalpha", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric"),
    *("isprintable", "isspace", "istitle", "isupper", "lower", "swapcase", "upper"),
}
SLOW = frozenset(
    {"pprint", "striptags", "title", "tojson", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr", "unescape"}
)
ORDERING = frozenset({"dictsort", "groupby", "max", "min", "sort", "sum", "unique"})
PLAIN = frozenset(
    {
        *("abs", "center", "e", "escape", "filesizeformat", "forceescape", "format", "int", "replace", "round", "safe"),
        *("string", "truncate"),
    }
)
PIECEMEAL = frozenset({"batch", "indent", "join", "list", "rsplit", "slice", "split", "splitlines"})
TEXTUAL = frozenset({"striptags", "title", "urlize", "wordcount", "wordwrap"})  # of a list they take what it looks like
CROSSING = STRIPPING | {"rfind", "rindex", "rpartition", "rsplit"}  # look at one for each of the other
MULTIPLYING = CROSSING | {"expandtabs", "format", "format_map", "indent", "join", "replace", "urlize", "wordwrap"}
PASSING = frozenset({"attr", "map", "reject", "rejectattr", "select", "selectattr"})  # look up what they are given
FILTERS = PLAIN | SIGNWISE | SHALLOW | SLOW | ORDERING | PIECEMEAL
WIDE = frozenset({"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "wordwrap", "zfill"})
WIDTH = re.compile(r"%[^%A-Za-z]*(?:\d{4}|\*)|\{[^{}]*(?:\d{4}|\{)")
SOME_WIDTH = re.compile(r"%[^%A-Za-z]*\d{3}|\{[^{}]*\d{3}")
TAIL = ")>.,;"  # urlize tries each of them for an end, from each of them on


class TooMuch(ValueError):
    """A template wants more than it may."""


class Heavy(Exception):
    """A template wants more than may be done while others wait."""


@dataclass(slots=True)
class _Meter:
    left: int
    light: bool


_meter: ContextVar[_Meter] = ContextVar("steps_left")


def counting(*, light: bool = False) -> None:
    """The steps of a part begin."""
    _meter.set(_Meter(LIGHT_STEPS if light else MOST_STEPS, light))


def spend(steps: int, name: str = "") -> None:
    """Raises TooMuch, or Heavy while little is allowed. `name`: of the filter or method that costs it."""
    meter = _meter.get()
    meter.left -= steps
    if meter.left < 0:
        if meter.light:
            raise Heavy
        raise TooMuch(f"takes more than {MOST_STEPS} steps" + (f" ({name})" if name else ""))


def spend_on(value: object, *, shallow: bool = False, items_a_step: int = ITEMS_A_STEP) -> None:
    """A step, and what it costs to look at a value, or to write it."""
    items, signs = _size(value, shallow=shallow)
    written = items_a_step == ITEMS_A_STEP and isinstance(value, CONTAINERS)
    spend(
        1
        + items // (SHALLOW_ITEMS if shallow else items_a_step)
        + signs // (SIGNWISE_SIGNS if written else SIGNS_A_STEP)
    )


def spend_to_compare(value: object, *, for_a_key: bool) -> None:
    """`for_a_key`: it is looked for one, which a dict has at hand."""
    if for_a_key and isinstance(value, dict):
        spend(1)
    else:
        spend_on(value, items_a_step=SHALLOW_ITEMS)


def spend_on_key(value: object) -> None:
    """What is looked for, in a dict above all: a tuple's hash is made of all that stands in it, as often as it stands
    there, and each time anew. A text remembers its own."""
    if isinstance(value, CONTAINERS):
        spend_on(value, items_a_step=SHALLOW_ITEMS)


def foresee(value: object, times: int = 1) -> None:
    """Raises before a text, list or tuple is made that is as long as this one so many times, where that could not be
    paid. Its price is asked for when it is there."""
    if isinstance(value, (str, list, tuple)):
        size = _bounded(len(value) * max(0, times))
        steps = size // (SIGNS_A_STEP if isinstance(value, str) else SHALLOW_ITEMS)
        if steps > _meter.get().left:
            spend(steps)


def settled(name: str, value: Any, lazy: type) -> Any:
    """What a filter or method gets in place of a value: an iterator's items cost a step each, and are known before all
    that looks at more than one. `lazy`: iterators that stay what they are."""
    if isinstance(value, Iterator) and not isinstance(value, lazy):
        items = _each(value)
        return items if name in SHALLOW else list(items)
    return value


def _each(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        spend(1)
        yield value


def before(name: str, values: Sequence[object]) -> None:
    """Pays for a filter, a test or a method of these values. Raises TooMuch, Heavy."""
    sizes = [_size(value, shallow=_is_shallow(name, value, place)) for place, value in enumerate(values)]
    items, signs = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
    if name in SLOW:
        cost = (TEXTUAL_ITEM if name in TEXTUAL else 1) * items + signs // SLOW_SIGNS
    elif name in ORDERING:
        items += sum(len(value) for value in values if isinstance(value, str))
        cost = 2 * items + signs * items.bit_length() // SIGNS_A_STEP
    else:
        few = name in SHALLOW or name in COMPARING
        signwise = name in SIGNWISE or (not few and any(_is_written(name, value) for value in values))
        cost = items // (SHALLOW_ITEMS if few else ITEMS_A_STEP)
        cost += signs // (SIGNWISE_SIGNS if signwise else SIGNS_A_STEP)
        if name in PIECEMEAL:
            cost += sum(_pieces(value) for value in values if isinstance(value, str))
    spend(CALL_STEPS + cost, name)
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            _bound_number(name, value)
    if name in MULTIPLYING:
        _bound_product(name, values, sizes)
    _worse(name, values, sizes)


def _is_written(name: str, value: Any) -> bool:
    """A list, as a list is written, with its brackets."""
    if name == "join" and isinstance(value, CONTAINERS):
        return any(isinstance(each, CONTAINERS) for each in value)
    return isinstance(value, CONTAINERS)


def _pieces(text: str) -> int:
    """Steps: a piece of what is markup is made an object by itself."""
    return len(text) // (SHALLOW_ITEMS if type(text) is str else 1)


def _is_shallow(name: str, value: object, place: int) -> bool:
    if name in PASSING:
        return place == 0
    return name in SHALLOW or (name == "in" and isinstance(value, dict))


def _size(value: Any, *, shallow: bool) -> tuple[int, int]:
    """Items and characters: with all that stands in it, as often as it stands there."""
    if isinstance(value, str):
        return 0, _bounded(len(value))
    if not isinstance(value, CONTAINERS):
        _refuse_function(value, shallow)
        return 0, 0
    if shallow or isinstance(value, range):
        return _bounded(len(value)), 0
    most = (_meter.get().left + 1) * ITEMS_A_STEP
    items = signs = depth = 0
    level: list[Any] = [value]
    while level:
        if depth > MOST_DEPTH:
            raise TooMuch(f"a list in a list more than {MOST_DEPTH} deep")
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                signs += len(each)
            elif isinstance(each, CONTAINERS):
                items += len(each)
                if items > most:
                    spend(items // ITEMS_A_STEP + 1)
                if not isinstance(each, range):
                    below.extend(each)
                if isinstance(each, dict):
                    below.extend(each.values())
            else:
                _refuse_function(each, shallow)
        level, depth = below, depth + 1
    return _bounded(items), _bounded(signs)


def _refuse_function(value: object, shallow: bool) -> None:
    """Written, it would be an address of memory; who does not look at what it is does not write it."""
    if shallow or value is None or isinstance(value, (int, float)):
        return
    if isinstance(value, FUNCTIONS):
        raise TooMuch(f"{getattr(value, '__name__', 'a method')} is not called: it is no text")
    if isinstance(value, Iterator) and not type(value).__module__.startswith("jinja2."):
        raise TooMuch("what a filter gives many of is no text: | join, | list")


def _bounded(size: int) -> int:
    if size > MOST_SIZE:
        raise TooMuch(f"a text or list of more than {MOST_SIZE}")
    return size


def _bound_number(name: str, value: int) -> None:
    if value.bit_length() > MOST_BITS:
        raise TooMuch(f"{name} of a number of more than {MOST_BITS} bits")
    if name in WIDE and value > MOST_FACTOR:
        raise TooMuch(f"{name} by more than {MOST_FACTOR}")


def _bound_product(name: str, values: Sequence[object], sizes: Sequence[tuple[int, int]]) -> None:
    product = _product(sizes)
    if name in ("expandtabs", "indent"):
        product *= max((value for value in values if isinstance(value, int)), default=1) or 1
    if name in ("format", "format_map"):
        pattern = next((value for value in values if isinstance(value, str)), "")  # and not what is put into it
        if WIDTH.search(pattern):
            raise TooMuch(f"{name} with a width of more than three digits, or one that is a value")
        if SOME_WIDTH.search(pattern):
            product *= 1000
    if product > MOST_SIZE:
        raise TooMuch(f"{name} of too much")


def _product(sizes: Sequence[tuple[int, int]]) -> int:
    product = 1
    for items, signs in sizes:
        product *= max(1, items + signs)
    return product


def _worse(name: str, values: Sequence[object], sizes: Sequence[tuple[int, int]]) -> None:
    """What grows faster than what is looked at."""
    texts = [value for value in values if isinstance(value, str)]
    if name in CROSSING:
        spend(_product(sizes) // CROSSED, name)
    elif name == "urlize":
        spend(4 * sum(len(text.split()) for text in texts), name)
        spend(_product(sizes) // SIGNS_A_STEP if len(sizes) > 1 else 0, name)  # its `rel` and `target` at each of them
        for word in _long_words(texts):
            spend(sum(map(word.count, TAIL)) ** 2 // 25, name)
    elif name == "wordwrap":
        spend(sum(4 * len(text.splitlines()) for text in texts), name)
        spend(sum(len(word) ** 2 for word in _long_words(texts)) // 25_000, name)
    elif name == "striptags":
        spend(sum(text.count("<") * len(text) for text in texts) // 10_000, name)
    elif name in ("format", "format_map"):  # what a pair of braces stands for is put there in Python
        spend(sum(text.count("{") + text.count("%") // SHALLOW_ITEMS for text in texts[:1]), name)
    elif name == "pprint":  # writes an item once more for each that it stands in
        items, signs = _depths(values[0])
        spend(3 * items + signs // SIGNS_A_STEP, name)
    elif name == "tojson":
        _indented(name, values)
    elif name == "unique":
        large = sum(_greatest(value) for value in values)
        spend(large * large // 100, name)
    elif name == "sum" and sum(isinstance(value, (list, tuple)) for value in values) > 1:
        raise TooMuch("sum is for numbers")
    elif name == "round" and any(isinstance(value, int) and abs(value) > MOST_PRECISION for value in values[1:]):
        raise TooMuch(f"round to more than {MOST_PRECISION} digits")
    elif name == "int" and any(len(text) > MOST_DIGITS for text in texts):
        raise TooMuch(f"int of more than {MOST_DIGITS} digits")


def _indented(name: str, values: Sequence[object]) -> None:
    """Each item has a line, which begins with `indent` for each that it stands in."""
    width = max(
        (len(each) if isinstance(each, str) else each for each in values[1:] if isinstance(each, (str, int))), default=0
    )
    if width > MOST_INDENT:
        raise TooMuch(f"{name} with an indent of more than {MOST_INDENT}")
    if len(values) > 1:
        deep, _ = _depths(values[0])
        spend(deep // SHALLOW_ITEMS + deep * max(0, width) // SIGNS_A_STEP, name)
        _bounded(deep * max(0, width))


def _depths(value: object) -> tuple[int, int]:
    """Items and characters, each once for all that it stands in. To be asked when they have been paid once."""
    items = signs = 0
    level = [value]
    depth = 0
    while level:
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                signs += depth * len(each)
            elif isinstance(each, CONTAINERS):
                items += (depth + 1) * len(each)
                below.extend(each)
                if isinstance(each, dict):
                    below.extend(each.values())
        level, depth = below, depth + 1
    return items, signs


def _long_words(texts: Iterable[str]) -> Iterator[str]:
    return (word for text in texts for word in text.split() if len(word) > LONG_WORD)


def _greatest(value: object) -> int:
    """How many numbers of a list are so large that they may all have one hash."""
    if not isinstance(value, (list, tuple)):
        return 0
    return sum(isinstance(each, int) and each.bit_length() >= HASH_BITS for each in value)
