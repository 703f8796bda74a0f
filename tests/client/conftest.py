"""What the client's tests share."""

from __future__ import annotations

import pytest

from client.faces import Opener, opener


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest) -> Opener:
    """Either client, by `async with open_client(url, clock, **options)`."""
    return opener(request.param)
