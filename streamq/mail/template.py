"""A stored template and a mail's `vars` become its subject, text and html, by jinja2 in its sandbox.

A template is an operator's, vars are a producer's: vars are escaped in html, and a variable that is missing rejects the
mail. What a template may do is bounded: by the sandbox, in the size of what it writes, and in the factors that it
multiplies by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from streamq.mail.values import wrong

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2 import Template as Compiled

__all__ = ["PARTS", "Template", "installed", "split_name"]

PARTS = ("subject", "text", "html")
MOST_PIECES = 1_000_000  # of output: a loop that writes ends there
MOST_FACTOR = 10_000  # `text * number`
MOST_RANGE = 10_000


class TooMuch(ValueError):
    """A template wants more than it may."""


def installed() -> bool:
    """Whether this installation can (extra `templates`)."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return False
    return True


def split_name(asked: bytes) -> tuple[str, int | None]:
    """`welcome@3` → welcome, 3; without a version None. Whether the name is one is not said."""
    name, _, version = asked.decode("utf-8", "replace").partition("@")
    return name, int(version) if version.isascii() and version.isdigit() and len(version) < 10 else None


@dataclass(frozen=True)
class Template:
    """Sources by part: subject, text, html; `check` says whether they are any good."""

    parts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _compiled(self) -> dict[str, Compiled]:
        return {part: _environment(part == "html").from_string(source) for part, source in self.parts.items()}

    def check(self) -> None:
        """Raises ValueError with the part and the line where jinja2 does not understand it."""
        from jinja2 import TemplateSyntaxError

        if not self.parts:
            raise ValueError("neither subject nor text nor html")
        for part, source in self.parts.items():
            try:
                _environment(part == "html").from_string(source)
            except TemplateSyntaxError as error:
                raise ValueError(f"{part}, line {error.lineno}: {error.message}") from None
            except RecursionError:
                raise ValueError(f"{part}: nested too deep") from None

    def render(self, known: Mapping[str, Any], most: int) -> dict[str, str]:
        """The parts with these variables, at most `most` characters each. Raises MalformedMail: of `vars` where one is
        missing or of no use, of `template` where that itself fails."""
        from jinja2 import TemplateSyntaxError, UndefinedError

        try:
            found = self._compiled
        except TemplateSyntaxError as error:
            raise wrong(b"template", "", f"line {error.lineno}: {error.message}") from None
        made = {}
        for part, compiled in found.items():
            try:
                made[part] = "".join(_bounded(compiled.generate(known), most))
                made[part].encode()  # a template may write half of a surrogate pair
            except UndefinedError as error:
                raise wrong(b"vars", "", f"{part} of the template: {error}") from None
            except RecursionError:
                raise wrong(b"template", "", f"{part}: nested too deep") from None
            except TooMuch as error:
                raise wrong(b"template", "", f"{part}: {error}") from None
            except Exception as error:  # noqa: BLE001 - whatever an expression does to values of any kind
                # Its text may repeat a value, and a reason stands in events, whatever the mail says of secrecy.
                raise wrong(b"template", "", f"{part}: {type(error).__name__}") from None
        return made


def _bounded(pieces: Iterator[str], most: int) -> Iterator[str]:
    size = 0
    for number, piece in enumerate(pieces):
        size += len(piece)
        if size > most or number > MOST_PIECES:
            raise TooMuch(f"writes more than {most} characters or {MOST_PIECES} pieces")
        yield piece


_environments: dict[bool, Environment] = {}


def _environment(html: bool) -> Environment:
    found = _environments.get(html)
    if found is not None:
        return found
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            plain = (int, float)
            if operator == "**" or not (isinstance(left, plain) and isinstance(right, plain)):
                factor = right if isinstance(right, plain) else left if isinstance(left, plain) else 0
                if operator == "**" or factor > MOST_FACTOR:
                    raise TooMuch(f"{operator} is not for that, or by more than {MOST_FACTOR}")
            return SandboxedEnvironment.call_binop(self, context, operator, left, right)

    made = Bounded(undefined=StrictUndefined, autoescape=html, keep_trailing_newline=True, cache_size=0)
    made.globals = {"range": _range}
    _environments[html] = made
    return made


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MOST_RANGE:
        raise TooMuch(f"range of more than {MOST_RANGE}")
    return found
