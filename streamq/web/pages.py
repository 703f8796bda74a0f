"""The pages' files: no build, nothing from elsewhere. What both pages have is a file that they name in a comment."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.responses import HTMLResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

__all__ = ["STATIC", "page_of"]

FOLDER = Path(__file__).parent / "static"
PART = re.compile(r"<!-- (\w+\.html) -->\n")
STATIC = Mount("/static", StaticFiles(directory=FOLDER))


def page_of(name: str, *, beside: bool) -> HTMLResponse:
    """`beside`: the other page is there, and the link to it is shown."""
    text = PART.sub(lambda part: _read(part[1]), _read(name))
    return HTMLResponse(text.replace(" data-beside hidden", " data-beside") if beside else text)


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")
