"""Tokens in a test's hands: sources, a clock of its own, and that a failure says nothing secret."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from token_endpoint import Endpoint

from streamq.settings import TokenSettings
from streamq.smtp.token_reply import TokenError
from streamq.smtp.tokens import Tokens

__all__ = ["CLIENT", "REFRESH", "Clock", "failed", "granted", "tokens"]

REFRESH = "1//refresh-s3cret"
CLIENT = "client-s3cret"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock | None = None, **settings: Any) -> Tokens:
    return Tokens(TokenSettings.model_validate(settings), clock=clock or Clock())


def granted(endpoint: Endpoint, clock: Clock | None = None, **more: Any) -> Tokens:
    values = {"refresh_token": REFRESH, "client_id": "shop", "client_secret": CLIENT, "scope": "mail send", **more}
    return tokens(clock, url=endpoint.url, **values)


async def failed(asked: Tokens) -> str:
    with pytest.raises(TokenError) as raised:
        await asked.get()
    text = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert REFRESH not in text
    assert CLIENT not in text
    return str(raised.value)
