"""A stored template and a mail's `vars` become its subject, text and html, by jinja2 in its sandbox.

A template is an operator's, vars are a producer's: vars are escaped in html, and a variable that is missing rejects the
mail. What a template may do is bounded: by the sandbox (sandbox.py), in its steps (effort.py), in the size of what it
writes. A little of it may be done at once, while others wait; the rest has to be asked for (`Template.light`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from streamq.mail.effort import Heavy, TooMuch, counting
from streamq.mail.labour import as_text
from streamq.mail.values import wrong

if TYPE_CHECKING:
    from jinja2 import Template as Compiled

__all__ = ["PARTS", "Template", "installed", "split_name"]

PARTS = ("subject", "text", "html")
MOST_PIECES = 1_000_000  # of output: a loop that writes ends there
# To compile more takes longer than others may be kept waiting: characters, and jinja2's words among them
LIGHT_SOURCE = 8192
LIGHT_WORDS = 150


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
    is_light: bool = False
    _made: dict[str, Compiled] = field(default_factory=dict, repr=False, compare=False)

    def light(self) -> Template:
        """The same, whose `render` raises Heavy where it takes longer than others may be kept waiting."""
        return Template(self.parts, True, self._made)

    @property
    def labour(self) -> int:
        """µs, about, beside its steps: of an html without a text, which each mail of it gets."""
        return 0 if self.parts.get("text") else _labour_of(self.parts.get("html", ""))

    def _compiled(self) -> dict[str, Compiled]:
        """No lock, as `cached_property` has: two threads may compile it at once, and none waits for the other."""
        from streamq.mail.sandbox import compiled, is_small

        if len(self._made) < len(self.parts):
            if self.is_light and not (
                sum(map(len, self.parts.values())) <= LIGHT_SOURCE
                and all(is_small(source, LIGHT_WORDS) for source in self.parts.values())
            ):
                raise Heavy
            for part, source in self.parts.items():
                try:
                    self._made[part] = compiled(source, html=part == "html")
                except TooMuch as error:
                    raise TooMuch(f"{part}: {error}") from None
        return self._made

    def check(self) -> None:
        """Raises ValueError with the part, and the line where jinja2 does not understand it, or what is too much."""
        from jinja2 import TemplateSyntaxError

        from streamq.mail.sandbox import compiled

        if not self.parts:
            raise ValueError("neither subject nor text nor html")
        for part, source in self.parts.items():
            try:
                compiled(source, html=part == "html")
            except TemplateSyntaxError as error:
                raise ValueError(f"{part}, line {error.lineno}: {error.message}") from None
            except TooMuch as error:
                raise ValueError(f"{part}: {error}") from None

    def render(self, known: Mapping[str, Any], most: int) -> dict[str, str]:
        """The parts with these variables, at most `most` characters each. Raises MalformedMail: of `vars` where one is
        missing or of no use, of `template` where that itself fails; Heavy, of a light one."""
        from jinja2 import TemplateSyntaxError

        try:
            found = self._compiled()
        except TemplateSyntaxError as error:
            raise wrong(b"template", "", f"line {error.lineno}: {error.message}") from None
        except TooMuch as error:
            raise wrong(b"template", "", str(error)) from None
        return {part: self._render(part, found[part], known, most) for part in self.parts}

    def _render(self, part: str, compiled: Compiled, known: Mapping[str, Any], most: int) -> str:
        from jinja2 import UndefinedError

        counting(light=self.is_light)
        try:
            made = "".join(_bounded(compiled.generate(known), most))
            made.encode()  # a template may write half of a surrogate pair
        except Heavy:
            raise
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


@lru_cache(maxsize=64)
def _labour_of(html: str) -> int:
    return as_text(html.encode())


def _bounded(pieces: Iterator[str], most: int) -> Iterator[str]:
    size = 0
    for number, piece in enumerate(pieces):
        size += len(piece)
        if size > most or number > MOST_PIECES:
            raise TooMuch(f"writes more than {most} characters or {MOST_PIECES} pieces")
        yield piece
