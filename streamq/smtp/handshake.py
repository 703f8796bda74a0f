"""From nothing to a connection that is ready for mail: TCP, greeting, EHLO, STARTTLS, AUTH.

NAME     connect; Handshake: one attempt
USE      aiosmtplib speaks until the server knows us; then the `Wire` takes over its transport for good.
FAILS    `NotConnected`, and everything that was opened is closed.
SAFETY   The wire listens from the greeting on: a server that says more than it was asked is not believed,
         whether it is broken or somebody injected (RFC 3207, 4.2; aiosmtplib would drop such bytes silently).
         A server that offers STARTTLS and then refuses it is failing, under `may` too: falling back to the
         clear is what an attacker would want.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from typing import cast

from aiosmtplib import SMTP
from aiosmtplib.errors import (
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPTimeoutError,
)
from aiosmtplib.response import SMTPResponse

from streamq.smtp.access import Access
from streamq.smtp.auth import Login, Refused
from streamq.smtp.connection import QUIT_WAIT, Connection, NotConnected, Offer
from streamq.smtp.letter import Stage
from streamq.smtp.protocol import Wire
from streamq.smtp.reach import own_name
from streamq.smtp.replies import Replies
from streamq.smtp.tls import check_pin
from streamq.smtp.token_reply import TokenError
from streamq.smtp.tokens import Token

__all__ = ["connect"]

UNKNOWN_COMMAND = {500, 502}  # EHLO is not known here: HELO (RFC 5321, 4.1.4)


async def connect(access: Access, number: int, rules: Replies) -> Connection:
    """Raises `NotConnected`, and closes what it opened."""
    kept = await _token(access)
    try:
        return await _attempt(access, number, rules, kept)
    except NotConnected as failure:
        if not failure.again:
            raise
    return await _attempt(access, number, rules, None)


async def _token(access: Access) -> Token | None:
    """A token that was kept since before: the server may find that it is over. It is seen to here, since no server
    likes to wait for a token endpoint in the middle of a session."""
    tokens = access.tokens
    if tokens is None:
        return None
    before = tokens.serial
    try:
        token = await tokens.get()
    except TokenError as wrong:
        failure = NotConnected(Stage.AUTH, "authentication", str(wrong))
        failure.peer = f"{access.route.host}:{access.route.port}"
        raise failure from None
    return token if token.serial == before else None


async def _attempt(access: Access, number: int, rules: Replies, kept: Token | None) -> Connection:
    handshake = Handshake(access, rules, kept)
    try:
        return await handshake.run(number)
    except NotConnected as failure:
        failure.peer, failure.tls = handshake.peer, handshake.tls
        raise
    finally:
        await handshake.clean_up()


class Handshake:
    """One attempt. `stage` follows where it is."""

    def __init__(self, access: Access, rules: Replies, kept: Token | None) -> None:
        self.access = access
        self.route = route = access.route
        self.context = access.context
        self.rules = rules
        self.kept = kept
        self.serial = 0
        self.stage = Stage.CONNECT
        self.peer = f"{route.host}:{route.port}"
        self.tls = ""
        self.verified = False
        self.done = False
        self.sock: socket.socket | None = None
        self.file: tuple[int, int] | None = None  # what the socket's descriptor stands for
        self.smtp: SMTP | None = None
        self.wire = Wire(asyncio.get_running_loop())
        self.seconds = route.command_timeout / 1000
        self.verified_name = route.tls_name or route.host.rstrip(".")  # RFC 6066, 3: without the dot at the end

    async def run(self, number: int) -> Connection:
        try:
            offer = await self._talk()
        except SMTPResponseException as no:
            raise self._refused(no.code, no.message) from no
        except SMTPTimeoutError as late:
            raise NotConnected(self.stage, "timeout", late.message) from late
        except (SMTPException, OSError) as lost:
            if (wrong := _tls_in(lost)) is not None:
                raise NotConnected(Stage.STARTTLS, "tls", _tls_words(wrong)) from lost
            failure = NotConnected(self.stage, "disconnected", str(lost))
            failure.hung_up = self.stage is Stage.GREETING or self._not_secured_yet()
            raise failure from lost
        except ValueError as wrong:  # ssl: a name that no certificate can have
            raise NotConnected(self.stage, "settings", str(wrong)) from wrong
        self.done = True
        return Connection(number, self.wire, offer, self.peer, self.tls, verified=self.verified, serial=self.serial)

    def _not_secured_yet(self) -> bool:
        return self.stage is Stage.STARTTLS and self.route.implicit_tls

    async def clean_up(self) -> None:
        if self.done:
            return
        if self.smtp is not None:
            self.smtp.close()
        transport = self.wire.transport
        if transport is not None:
            self.wire.abort()
            if transport.get_protocol() is self.wire:  # else the TLS layer is told
                await asyncio.wait([self.wire.closed], timeout=QUIT_WAIT)
        elif self.sock is not None:
            # Nobody may have taken it over; where somebody did, his close comes first. (A TLS layer takes longer
            # over its close, and closes it itself.)
            for _ in range(2):
                await asyncio.sleep(0)
            if _file_of(self.sock) != self.file:
                self.sock.detach()  # uvloop closed it by its number: closing it once more could hit somebody else's
            elif self.smtp is None or not self.route.implicit_tls:
                self.sock.close()

    async def _talk(self) -> Offer:
        sock, address = await self.access.reach.open()
        self.sock, self.file = sock, _file_of(sock)
        self.peer = f"{self.route.host}[{address}]:{self.route.port}"
        smtp = self.smtp = SMTP(
            hostname=self.verified_name,
            sock=sock,
            local_hostname=self.route.ehlo or own_name(sock),
            use_tls=self.route.implicit_tls,
            start_tls=False,
            tls_context=self.context,
            timeout=self.seconds,
        )
        await self._be_greeted(smtp)
        _still_wanted()
        self._listen(smtp)
        await self._greet(smtp)
        if self.context is not None and not self.tls:
            await self._start_tls(smtp)
        if self.route.user is not None:
            await self._log_in(smtp, self.route.user)
        offer = Offer.of(smtp.esmtp_extensions)
        self._take_over(smtp)
        return offer

    async def _be_greeted(self, smtp: SMTP) -> None:
        self.stage = Stage.STARTTLS if self.route.implicit_tls else Stage.GREETING
        try:
            await smtp.connect(timeout=self.route.greeting_timeout / 1000)
        except SMTPException as failed:
            # aiosmtplib does both in one go; what came from its own reading came after the TLS handshake.
            if isinstance(failed, SMTPResponseException) or isinstance(failed.__cause__, SMTPException):
                self.stage = Stage.GREETING
            raise

    async def _greet(self, smtp: SMTP) -> None:
        self.stage = Stage.EHLO
        try:
            answer = await smtp.ehlo(timeout=self.seconds)
        except SMTPHeloError as no:
            self._agree(SMTPResponse(no.code, no.message))
            if no.code not in UNKNOWN_COMMAND:
                raise
            answer = await smtp.helo(timeout=self.seconds)
        self._agree(answer)

    async def _start_tls(self, smtp: SMTP) -> None:
        if not smtp.supports_extension("starttls"):
            if self.route.tls == "require":
                raise NotConnected(Stage.STARTTLS, "tls", "the server does not offer STARTTLS")
            return
        self.stage = Stage.STARTTLS
        await smtp.starttls(server_hostname=self.verified_name, tls_context=self.context, timeout=self.seconds)
        # What stood in the clear behind the 220 was recorded by the wire before the handshake began.
        self._agree(None)
        self._listen(smtp)
        await self._greet(smtp)

    async def _log_in(self, smtp: SMTP, user: str) -> None:
        self.stage = Stage.AUTH
        login = Login(
            self.access, smtp, self._agree, secured=bool(self.tls), here=self._on_this_machine(), kept=self.kept
        )
        try:
            await login.run(user)
        except Refused as no:
            told = f" ({no.told})" if no.told else ""
            raise self._refused(no.answer.code, login.clean(_ascii(no.answer.message) + told)) from None
        except SMTPResponseException as garbage:
            raise self._refused(garbage.code, login.clean(_ascii(garbage.message))) from None
        except NotConnected as failure:
            failure.reword(login.clean(failure.said))
            raise
        self.serial = login.serial

    def _on_this_machine(self) -> bool:
        transport = self.wire.transport
        name = transport.get_extra_info("peername") if transport is not None else None
        return name is not None and ipaddress.ip_address(name[0].partition("%")[0]).is_loopback

    def _listen(self, smtp: SMTP) -> None:
        if smtp.transport is None or smtp.protocol is None:
            raise NotConnected(self.stage, "disconnected", "the connection was lost")
        self.wire = Wire(asyncio.get_running_loop())
        self.wire.attach(cast(asyncio.Transport, smtp.transport), smtp.protocol)
        secured = smtp.transport.get_extra_info("ssl_object")
        self.tls = (secured.version() or "TLS") if secured is not None else ""
        self.verified = secured is not None and (check_pin(secured, self.route.tls_pin) or self.route.verify)

    def _agree(self, answer: SMTPResponse | None) -> None:
        """The wire heard what aiosmtplib heard, and nothing more. None: only that nothing more was said."""
        _still_wanted()
        heard = self.wire.overheard()
        stray = not self.wire.between_replies or not heard or self.wire.fault == "protocol"
        if answer is not None and not stray:
            last = heard[-1]
            words = answer.message.encode("utf-8", "surrogateescape").split()
            stray = last.code != answer.code or last.text.split() != words
        if stray or len(heard) != 1:
            raise NotConnected(self.stage, "protocol", self.wire.why or "the server said more than it was asked")

    def _take_over(self, smtp: SMTP) -> None:
        if smtp.transport is None or self.wire.fault or not self.wire.between_replies:
            raise NotConnected(self.stage, "disconnected", self.wire.why or "the connection was lost")
        self.wire.attach(cast(asyncio.Transport, smtp.transport))

    def _refused(self, code: int, message: str) -> NotConnected:
        text = _ascii(message)
        if code < 200 or self.wire.fault == "protocol":  # aiosmtplib's -1: not a reply; it also takes half of one
            return NotConnected(self.stage, "protocol", text)
        verdict = self.rules.classify(self.stage, code, text, True)
        return NotConnected(
            self.stage, verdict.klass, text, code=code, enhanced=verdict.enhanced, hint_ms=verdict.hint_ms
        )


def _file_of(sock: socket.socket) -> tuple[int, int] | None:
    try:
        found = os.fstat(sock.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _ascii(message: str) -> str:
    return " ".join(message.encode("ascii", "backslashreplace").decode("ascii").split())


def _tls_in(lost: BaseException | None) -> ssl.SSLError | None:
    """What broke TLS, however deep: in TLS 1.3 a client learns only from its first read that it was refused."""
    while lost is not None and not isinstance(lost, ssl.SSLError):
        lost = lost.__cause__
    return lost


def _tls_words(wrong: ssl.SSLError) -> str:
    return getattr(wrong, "verify_message", "") or wrong.reason or str(wrong)


def _still_wanted() -> None:
    """aiosmtplib waits by `wait_for`, and that of Python 3.11 forgets a cancellation that meets a result."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
