"""The access token of a route: fetched, kept, renewed (OAuth 2.0, RFC 6749).

NAME     Tokens: one per route and process, so that its connections share a token; Token
CACHE    A token is kept until EARLY seconds before its `expires_in` (a quarter of it, if that is less); without
         one for KEPT seconds; never less than LEAST, or an endpoint that gives a new one each time, good for nothing,
         would be asked for each connection, and each token would close the connections of the one before. If it is
         over sooner, a 535 says so. A file is read again whenever it changes, and an `expires_in` in it counts for
         nothing: nobody knows from when.
ONE      fetch at a time. Whoever waited for it takes its token, or its failure.
SERIAL   counts the values that were seen: a connection that logged in with an older one is not used on.
FAILS    `TokenError`; no text in here holds a secret.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from streamq.errors import SettingsError
from streamq.settings import TokenSettings
from streamq.smtp.token_command import token_of_command
from streamq.smtp.token_grant import Grant
from streamq.smtp.token_reply import MAX_REPLY, TokenError, TokenReply, read_token

__all__ = ["Token", "Tokens"]

EARLY = 60.0  # seconds
KEPT = 300.0  # seconds
LEAST = 30.0  # seconds
FOREVER = float("inf")
LONGEST = 86_400.0  # seconds that an `expires_in` is believed

Mark = tuple[int, int, int]  # of a file's state: time of change in ns, size, inode


@dataclass(frozen=True, slots=True)
class Token:
    value: str = field(repr=False)
    serial: int


class Tokens:
    """`where` stands before the setting in errors; `clock` gives seconds. Raises `SettingsError` where the file or
    the command is not there."""

    def __init__(
        self, settings: TokenSettings, where: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: Token | None = None
        self._until = 0.0
        self._mark: Mark | None = None
        self._fetches = 0
        self._failure = ""  # of the last fetch
        self._grant = Grant(settings) if settings.url is not None else None
        self._check(where)

    @property
    def serial(self) -> int:
        """Of the token that is kept; 0: none was seen yet."""
        return self._token.serial if self._token is not None else 0

    def holds(self, serial: int) -> bool:
        """Whether a connection that logged in with that serial (0: with a password) may go on."""
        return not serial or (serial == self.serial and not self._file_changed())

    async def get(self) -> Token:
        """The kept one, or a new one where that is over. Raises `TokenError`."""
        if self._token is not None and self._clock() < self._until and not self._file_changed():
            return self._token
        try:
            return await self._fetch()
        except TokenError:
            if self._settings.file is None or self._token is None:
                raise
            return self._token  # whoever writes the file is in the middle of it; if not, a 535 will say so

    async def renew(self, refused: Token) -> Token | None:
        """Another one than the server refused; None: there is none to be had. Raises `TokenError`."""
        if self._settings.value is not None:
            return None
        token = self._token
        if token is None or token.serial == refused.serial:
            token = await self._fetch()
        return token if token.serial != refused.serial else None

    # -- inside ----------------------------------------------------------------------------------------------

    def _check(self, where: str) -> None:
        settings = self._settings
        if settings.file is not None:
            try:
                self._read_file()
            except TokenError as wrong:
                raise SettingsError(f"{where}file: {wrong}: {settings.file!r}") from None
        if settings.command is not None and shutil.which(settings.command[0]) is None:
            raise SettingsError(f"{where}command: no such program: {settings.command[0]!r}")

    async def _fetch(self) -> Token:
        seen = self._fetches
        async with self._lock:
            if self._fetches != seen:
                if self._failure or self._token is None:
                    raise TokenError(self._failure)
                return self._token
            try:
                reply = await self._ask()
            except TokenError as wrong:
                self._fetches += 1
                self._failure = str(wrong)
                raise
            self._fetches += 1
            self._failure = ""
            return self._keep(reply)

    async def _ask(self) -> TokenReply:
        settings = self._settings
        if settings.value is not None:
            return TokenReply(settings.value.get_secret_value(), FOREVER)
        if self._grant is not None:
            return await self._grant.ask()
        try:
            if settings.command is not None:
                return await token_of_command(settings.command, settings.timeout / 1000)
            return self._read_file()
        except TokenError as wrong:
            raise TokenError(f"token {'file' if settings.command is None else 'command'}: {wrong}") from None

    def _keep(self, reply: TokenReply) -> Token:
        if self._token is None or self._token.value != reply.value:
            self._token = Token(reply.value, self.serial + 1)
        lifetime = reply.seconds
        if lifetime is None:
            lifetime = KEPT
        elif lifetime != FOREVER:
            lifetime = min(lifetime, LONGEST)
            lifetime = max(LEAST, lifetime - min(EARLY, lifetime / 4))
        self._until = self._clock() + lifetime
        return self._token

    def _file_changed(self) -> bool:
        """A file that is gone has not changed: whoever replaces it may be in the middle of it."""
        if self._settings.file is None:
            return False
        try:
            return _mark(os.stat(self._settings.file)) != self._mark
        except (OSError, ValueError):
            return False

    def _read_file(self) -> TokenReply:
        path = self._settings.file or ""
        try:
            # Not blocking: a FIFO would hold up everything.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise TokenError("not a file")
                text = file.read(MAX_REPLY + 1)
        except (OSError, ValueError) as wrong:  # ValueError: a NUL in the name
            raise TokenError(getattr(wrong, "strerror", None) or "cannot be read") from None
        self._mark = _mark(found)  # also of one that is wrong: it is looked at once
        reply = read_token(text)
        return TokenReply(reply.value, FOREVER)


def _mark(found: os.stat_result) -> Mark:
    return found.st_mtime_ns, found.st_size, found.st_ino
