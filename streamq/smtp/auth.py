"""AUTH (RFC 4954): the mechanisms, and which of them, with which secret, in which order.

MECHANISM PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), OAUTHBEARER (RFC 7628), XOAUTH2 (Google, Microsoft): each a
         generator that gives the client's responses and is sent the server's challenges.
CLEAR    A password goes out in the clear only to this machine, or where the route says `tls = "none"`; a token
         only to this machine (RFC 7628, 3: must be over TLS).
TOKEN    One that was kept and is refused (535, or a challenge that tells an error) is renewed once and tried again,
         here if the server goes on, else on a new connection (`NotConnected.again`): a token that was taken back
         early must not take the route down.
FAILS    `NotConnected` at stage auth. A server that repeats what it was sent ("500 unknown command: AUTH PLAIN
         AHVzZXI...") does not get it into our events: `Login.clean`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Generator

from aiosmtplib import SMTP
from aiosmtplib.errors import SMTPException
from aiosmtplib.response import SMTPResponse

from streamq.settings import BEARER_MECHANISMS
from streamq.smtp.access import Access
from streamq.smtp.connection import NotConnected
from streamq.smtp.letter import Stage
from streamq.smtp.token_reply import TokenError, printable
from streamq.smtp.tokens import Token
from streamq.smtp.words import SHORTEST, without

__all__ = ["Login", "Refused"]

OTHER_MECHANISM = {500, 504}  # RFC 4954, 4: the mechanism is not supported after all
MOST_ROUNDS = 4  # LOGIN has two

Responses = Generator[bytes | None, str, None]  # None: no initial response


class Refused(Exception):
    """The server's no, for whoever knows what replies mean. `told`: what a bearer challenge said."""

    def __init__(self, answer: SMTPResponse, told: str = "") -> None:
        super().__init__(answer.code)
        self.answer = answer
        self.told = told


def plain(access: Access, user: str, secret: str) -> Responses:
    yield f"\0{user}\0{secret}".encode()


def login(access: Access, user: str, secret: str) -> Responses:
    """With an initial response: those who cannot do that are older than those who ask for something else first."""
    yield user.encode()
    yield secret.encode()


def cram_md5(access: Access, user: str, secret: str) -> Responses:
    challenge = yield None
    try:
        given = base64.b64decode(challenge, validate=True)
    except (binascii.Error, ValueError):
        raise NotConnected(Stage.AUTH, "protocol", "a CRAM-MD5 challenge that is no base64") from None
    yield f"{user} {hmac.new(secret.encode(), given, 'md5').hexdigest()}".encode()


def xoauth2(access: Access, user: str, secret: str) -> Responses:
    yield f"user={user}\x01auth=Bearer {secret}\x01\x01".encode()
    yield b""  # to the challenge that tells the error


def oauthbearer(access: Access, user: str, secret: str) -> Responses:
    name = user.replace("=", "=3D").replace(",", "=2C")  # RFC 5801, 4
    host, port = access.route.host, access.route.port
    yield f"n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {secret}\x01\x01".encode()
    yield b"\x01"  # RFC 7628, 3.2.3


MECHANISMS: dict[str, Callable[[Access, str, str], Responses]] = {
    "plain": plain,
    "login": login,
    "cram-md5": cram_md5,
    "xoauth2": xoauth2,
    "oauthbearer": oauthbearer,
}


class Login:
    """One connection's. `agree` checks each answer against the wire; `renewable`: a kept token may be renewed."""

    def __init__(
        self,
        access: Access,
        smtp: SMTP,
        agree: Callable[[SMTPResponse], None],
        *,
        secured: bool,
        here: bool,
        kept: Token | None,
    ) -> None:
        self.access = access
        self.serial = 0  # of the token that opened it
        self._smtp = smtp
        self._agree = agree
        self._secured = secured
        self._here = here
        self._kept = kept
        self._sent: list[str] = []  # secrets, in each form that went out

    async def run(self, user: str) -> None:
        ways = self._ways()
        for left, way in zip(range(len(ways) - 1, -1, -1), ways, strict=True):
            try:
                await (self._with_token(way, user) if way in BEARER_MECHANISMS else self._with_password(way, user))
            except Refused as no:
                if no.answer.code in OTHER_MECHANISM and left:
                    continue
                raise
            return

    def clean(self, text: str) -> str:
        """Without what we sent, whole or in part."""
        return without(text, self._sent)

    # -- inside ----------------------------------------------------------------------------------------------

    def _ways(self) -> list[str]:
        route = self.access.route
        ways = [way for way in route.mechanisms if way in self._smtp.server_auth_methods]
        if not ways:
            allowed = ", ".join(route.mechanisms)
            raise NotConnected(Stage.AUTH, "authentication", f"the server offers no AUTH that is allowed ({allowed})")
        if self._secured or self._here:
            return ways
        ways = [way for way in ways if way not in BEARER_MECHANISMS and (way == "cram-md5" or route.tls == "none")]
        if not ways:
            raise NotConnected(Stage.AUTH, "tls", "no TLS: not sending a password or token in the clear")
        return ways

    async def _with_password(self, way: str, user: str) -> None:
        await self._exchange(way, user, self.access.route.password or "")

    async def _with_token(self, way: str, user: str) -> None:
        tokens = self.access.tokens
        if tokens is None:
            raise AssertionError("the settings see to it")
        try:
            token = self._kept or await tokens.get()
            try:
                await self._exchange(way, user, token.value)
            except Refused as no:
                if self._kept is None or not (no.told or no.answer.code == 535):
                    raise
                newer = await tokens.renew(token)
                if newer is None:
                    raise
                await self._once_more(way, user, newer)
                token = newer
        except TokenError as wrong:
            raise NotConnected(Stage.AUTH, "authentication", str(wrong)) from None
        self.serial = token.serial

    async def _once_more(self, way: str, user: str, newer: Token) -> None:
        """A server that has had enough of us says 421, or nothing: then a new connection shows the new token."""
        try:
            await self._exchange(way, user, newer.value)
        except Refused as no:
            if no.answer.code != 421:
                raise
        except (SMTPException, OSError, NotConnected):
            pass
        else:
            return
        failure = NotConnected(Stage.AUTH, "disconnected", "the server did not go on after it refused a token")
        failure.again = True
        raise failure

    async def _exchange(self, way: str, user: str, secret: str) -> None:
        responses = MECHANISMS[way](self.access, user, secret)
        self._sent.append(secret)
        told = ""
        words = [b"AUTH", way.upper().encode()]
        first = next(responses)
        if first is not None:
            words.append(self._encoded(first) or b"=")  # RFC 4954, 4: one that is empty
        answer = await self._say(*words)
        for _ in range(MOST_ROUNDS):
            if answer.code != 334:
                break
            try:
                response = responses.send(answer.message)
            except StopIteration:
                raise NotConnected(Stage.AUTH, "protocol", "a challenge more than the mechanism has") from None
            if way in BEARER_MECHANISMS:
                told = _told(answer.message)
            answer = await self._say(self._encoded(response or b""))
        if answer.code != 235:
            raise Refused(answer, told)

    async def _say(self, *words: bytes) -> SMTPResponse:
        answer = await self._smtp.execute_command(*words)
        self._agree(answer)
        return answer

    def _encoded(self, response: bytes) -> bytes:
        encoded = base64.b64encode(response)
        if len(encoded) >= SHORTEST:
            self._sent.append(encoded.decode())
        return encoded


def _told(challenge: str) -> str:
    """RFC 7628, 3.2.2: JSON in base64; shown as it is, since no two servers agree on what is in it."""
    try:
        return printable(base64.b64decode(challenge, validate=True).decode("utf-8", "replace")) or "an error"
    except (binascii.Error, ValueError):
        return printable(challenge) or "an error"
