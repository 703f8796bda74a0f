"""The methods that a template may call, by the type of their value: those that change nothing, and whose cost is known
(effort.py). A list of those it may not would be open to what the next Python brings.
"""

from __future__ import annotations

from typing import Any

from jinja2.runtime import LoopContext

from streamq.mail.effort import TooMuch

__all__ = ["allowed"]

METHODS: tuple[tuple[type[Any], frozenset[str]], ...] = (
    (
        str,
        frozenset(
            {
                *(
                    "capitalize",
                    "casefold",
                    "center",
                    "count",
                    "endswith",
                    "expandtabs",
                    "find",
                    "format",
                    "format_map",
                ),
                *("index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower"),
                *("isnumeric", "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip"),
                *("partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition"),
                *("rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
                *("zfill", "striptags", "unescape"),  # the last two: of markup
            }
        ),
    ),
    (list, frozenset({"copy", "count", "index"})),
    (tuple, frozenset({"count", "index"})),
    (dict, frozenset({"copy", "get", "items", "keys", "values"})),
    (range, frozenset({"count", "index"})),
    (int, frozenset({"bit_count", "bit_length"})),
    (float, frozenset({"is_integer"})),
    (LoopContext, frozenset({"changed", "cycle"})),
)
CHARGED_AS = {"count": ".count"}  # compares; the filter of that name is `length`


def allowed(function: Any) -> tuple[str, Any]:
    """How it is charged, and whose it is. Raises TooMuch with the method and its type."""
    method = function if hasattr(function, "__self__") else getattr(function, "__wrapped__", function)  # `format`
    owner = getattr(method, "__self__", None)
    name = str(getattr(method, "__name__", ""))
    for of, names in METHODS:
        if isinstance(owner, of) and name in names:
            return CHARGED_AS.get(name, name), owner
    kind = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    raise TooMuch(f"{name} of {kind} is no method that templates may call")
