"""What is read of a token endpoint's reply (RFC 6749, section 5), and what is none."""

from __future__ import annotations

import pytest

from streamq.smtp.token_reply import MAX_REPLY, TokenError, read_token


@pytest.mark.parametrize(
    ("text", "value", "seconds"),
    [
        (b"ya29.a0-_~+/=\n", "ya29.a0-_~+/=", None),
        (b'{"access_token": "abc", "expires_in": 3599}', "abc", 3599.0),
        (b'{"access_token": "abc", "expires_in": "3599", "token_type": "bearer"}', "abc", 3599.0),
        (b'{"access_token": "abc", "expires_in": -5}', "abc", 0.0),
        (b'{"access_token": "abc", "expires_in": true}', "abc", None),
        (b'{"access_token": "abc", "expires_in": "soon"}', "abc", None),
        (b'{"access_token": "abc", "expires_in": 1e999}', None, None),
    ],
)
def test_what_is_read(text: bytes, value: str | None, seconds: float | None) -> None:
    if value is None:
        with pytest.raises(TokenError):
            read_token(text)
        return
    reply = read_token(text)
    assert (reply.value, reply.seconds) == (value, seconds)
    assert value not in repr(reply)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "empty"),
        (b"two words", "no token"),
        (b"line\nline", "no token"),
        ("schlüssel".encode(), "no token"),
        (b"x" * 9000, "no token"),
        (b"x" * (MAX_REPLY + 1), "too long"),
        (b"{", "not JSON"),
        (b'{"a":' * 10_000, "not JSON"),
        (b"{}", "no access_token"),
        (b'{"access_token": 5}', "no access_token"),
        (b'{"access_token": "a b"}', "no access_token"),
        (b'{"access_token": "ab", "token_type": "mac"}', "not Bearer"),
        (b'{"error": "invalid_grant", "error_description": "Token\\u0007 revoked"}', "invalid_grant: Token"),
        (b'{"error": 5}', "an error"),
    ],
)
def test_what_is_no_token(text: bytes, says: str) -> None:
    with pytest.raises(TokenError, match=says):
        read_token(text)
