"""The pages' files: no build, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import HTMLResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

__all__ = ["STATIC", "page_of"]

FOLDER = Path(__file__).parent / "static"
STATIC = Mount("/static", StaticFiles(directory=FOLDER))


def page_of(name: str, *, beside: bool) -> HTMLResponse:
    """`beside`: the other page is there, and the link to it is shown."""
    text = (FOLDER / name).read_text("utf-8")
    return HTMLResponse(text.replace(" data-beside hidden", " data-beside") if beside else text)
