"""What goes wrong while a request is answered, as JSON: {"error": text}."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq.errors import NotFound

__all__ = ["Answer", "Wrong", "sure"]

Answer = Callable[[Request], Awaitable[Response]]
Wrong = tuple[tuple[type[Exception], ...], int, Callable[[Any], str]]  # these errors, their status, what is said


def sure(answer: Answer, *wrong: Wrong) -> Answer:
    """With those errors as answers, and 404 for what is not there. Others are the server's: 500, and in its log."""
    kinds = tuple(kind for kinds, _, _ in wrong for kind in kinds)

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except NotFound as gone:
            return JSONResponse({"error": str(gone)}, 404)
        except kinds as error:
            status, says = next((status, says) for of, status, says in wrong if isinstance(error, of))
            return JSONResponse({"error": says(error)}, status)

    return answered
