"""AUTH (RFC 4954), the server's side: users, and the dialogues of PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195) and
XOAUTH2 (https://developers.google.com/workspace/gmail/imap/xoauth2-protocol).

    [auth]
    mechanisms = ["PLAIN", "LOGIN"]     # left out: all that the users allow
    required = true                     # MAIL without AUTH is 530
    tls_only = false                    # true: offered, and taken, only within TLS

    [[user]]
    name = "shop"
    password = "secret"                 # for PLAIN, LOGIN, CRAM-MD5
    token = "ya29..."                   # for XOAUTH2
    token_seconds = 3600                # from the start of the sink, on its clock; 0: it never expires
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Generator
from dataclasses import dataclass

from streamq.sink.checks import Check, EntryWrong, is_seconds, is_text, require
from streamq.sink.grammar import Refusal

__all__ = ["MECHANISMS", "Auth", "Dialogue", "Directory", "User", "decoded"]

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2")
WRONG = b"535 5.7.8 Authentication credentials invalid\r\n"
EXPIRED = b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}'
LONGEST = 366 * 86_400

Dialogue = Generator[bytes, bytes, str]  # yields challenges, takes responses, returns the user's name


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who may log in. Raises `EntryWrong`."""

    name: str
    password: str = ""
    token: str = ""
    token_seconds: float = 0

    def __post_init__(self) -> None:
        require(
            Check("name", self.name, is_text(self.name, 256), "not a text of 1 to 256 characters"),
            Check("password", "…", self.password == "" or is_text(self.password, 1024), "not a text, or too long"),
            Check("token", "…", self.token == "" or is_text(self.token, 8192), "not a text, or too long"),
            Check(
                "token_seconds",
                self.token_seconds,
                self.token_seconds == 0 or is_seconds(self.token_seconds, LONGEST),
                f"not a number from 0 to {LONGEST}",
            ),
        )
        if not self.password and not self.token:
            raise EntryWrong("name", self.name, "a user needs a password or a token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """How users log in. Raises `EntryWrong`."""

    mechanisms: tuple[str, ...] | list[str] = MECHANISMS
    required: bool = True
    tls_only: bool = False

    def __post_init__(self) -> None:
        given: object = self.mechanisms
        known = isinstance(given, tuple | list) and given and all(name in MECHANISMS for name in given)
        require(
            Check("mechanisms", given, bool(known), f"not a list of {', '.join(MECHANISMS)}"),
            Check("required", self.required, isinstance(self.required, bool), "not true or false"),
            Check("tls_only", self.tls_only, isinstance(self.tls_only, bool), "not true or false"),
        )
        object.__setattr__(self, "mechanisms", tuple(self.mechanisms))  # a list, from a file, has no hash


class Directory:
    """The users of a sink, and the mechanisms that they allow."""

    def __init__(self, users: tuple[User, ...], auth: Auth, clock: Callable[[], float], started: float) -> None:
        self.required = auth.required
        self.tls_only = auth.tls_only
        self._users = {user.name: user for user in users}
        self._clock = clock
        self._started = started
        passwords, tokens = any(user.password for user in users), any(user.token for user in users)
        self.mechanisms = tuple(name for name in auth.mechanisms if (tokens if name == "XOAUTH2" else passwords))

    def dialogue(self, mechanism: str) -> Dialogue | None:
        """A dialogue that waits for `next`; None for a mechanism that is not offered. It raises `Refusal`."""
        if mechanism not in self.mechanisms:
            return None
        dialogues = {"PLAIN": self._plain, "LOGIN": self._login, "CRAM-MD5": self._cram_md5, "XOAUTH2": self._xoauth2}
        return dialogues[mechanism]()

    def _plain(self) -> Dialogue:
        parts = (yield b"").split(b"\0")
        if len(parts) != 3 or parts[0] not in (b"", parts[1]):
            raise Refusal(WRONG)
        return self._known(parts[1], parts[2])

    def _login(self) -> Dialogue:
        name = yield b"Username:"
        password = yield b"Password:"
        return self._known(name, password)

    def _cram_md5(self) -> Dialogue:
        challenge = f"<{secrets.token_hex(16)}@localhost>".encode()
        name, _, digest = (yield challenge).rpartition(b" ")
        user = self._users.get(name.decode("utf-8", "replace"))
        secret = user.password if user is not None else ""
        expected = hmac.new(secret.encode(), challenge, "md5").hexdigest().encode()
        if user is None or not secret or not hmac.compare_digest(expected, digest):
            raise Refusal(WRONG)
        return user.name

    def _xoauth2(self) -> Dialogue:
        response = yield b""
        given = dict(part.partition(b"=")[::2] for part in response.split(b"\1") if part)
        user = self._users.get(given.get(b"user", b"").decode("utf-8", "replace"))
        scheme, _, token = given.get(b"auth", b"").partition(b" ")
        good = user is not None and user.token and hmac.compare_digest(user.token.encode(), token)
        if user is None or not good or scheme.lower() != b"bearer" or self._is_expired(user):
            yield EXPIRED  # the client answers with an empty line, and hears 535 then
            raise Refusal(WRONG)
        return user.name

    def _is_expired(self, user: User) -> bool:
        return bool(user.token_seconds) and self._clock() - self._started >= user.token_seconds

    def _known(self, name: bytes, password: bytes) -> str:
        user = self._users.get(name.decode("utf-8", "replace"))
        if user is None or not user.password or not hmac.compare_digest(user.password.encode(), password):
            raise Refusal(WRONG)
        return user.name


def decoded(text: bytes) -> bytes:
    """A response from its base64. Raises `Refusal`."""
    try:
        return b64decode(text, validate=True)
    except (NotBase64, ValueError):
        raise Refusal(b"501 5.5.2 Not base64\r\n") from None
