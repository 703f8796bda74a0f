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
import socket
import ssl
from typing import cast

from aiosmtplib import SMTP
from aiosmtplib.errors import (
    SMTPAuthenticationError,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPTimeoutError,
)
from aiosmtplib.response import SMTPResponse

from streamq.settings import RouteSettings
from streamq.smtp.connection import Connection, NotConnected, Offer
from streamq.smtp.letter import Stage
from streamq.smtp.protocol import Wire
from streamq.smtp.reach import own_name, reach
from streamq.smtp.replies import Replies

__all__ = ["connect"]

QUIT_WAIT = 2.0  # seconds for the close
MECHANISMS = ("plain", "login", "cram-md5")
UNKNOWN_COMMAND = {500, 502}  # EHLO is not known here: HELO (RFC 5321, 4.1.4)
OTHER_MECHANISM = {500, 504}  # RFC 4954, 4: the mechanism is not supported after all


async def connect(route: RouteSettings, context: ssl.SSLContext | None, number: int, rules: Replies) -> Connection:
    """Raises `NotConnected`, and closes what it opened."""
    handshake = Handshake(route, context, rules)
    try:
        return await handshake.run(number)
    except NotConnected as failure:
        failure.peer, failure.tls = handshake.peer, handshake.tls
        raise
    finally:
        await handshake.clean_up()


class Handshake:
    """One attempt. `stage` follows where it is."""

    def __init__(self, route: RouteSettings, context: ssl.SSLContext | None, rules: Replies) -> None:
        self.route = route
        self.context = context
        self.rules = rules
        self.stage = Stage.CONNECT
        self.peer = f"{route.host}:{route.port}"
        self.tls = ""
        self.done = False
        self.sock: socket.socket | None = None
        self.smtp: SMTP | None = None
        self.wire = Wire(asyncio.get_running_loop())
        self.seconds = route.command_timeout / 1000

    async def run(self, number: int) -> Connection:
        try:
            offer = await self._talk()
        except SMTPResponseException as no:
            raise self._refused(no.code, no.message) from no
        except SMTPTimeoutError as late:
            raise NotConnected(self.stage, "timeout", late.message) from late
        except ssl.SSLError as wrong:
            raise self._tls_failed(wrong) from wrong
        except (SMTPException, OSError) as lost:
            if isinstance(lost.__cause__, ssl.SSLError):
                raise self._tls_failed(lost.__cause__) from lost
            raise NotConnected(self.stage, "disconnected", str(lost)) from lost
        except ValueError as wrong:  # aiosmtplib: control characters in the EHLO name, the user, the password
            raise NotConnected(self.stage, "settings", str(wrong)) from wrong
        self.done = True
        return Connection(number, self.wire, offer, self.peer, self.tls)

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
        elif self.sock is not None and (self.smtp is None or not self.route.implicit_tls):
            # Nobody may have taken it over; where somebody did, his close comes first. (A TLS layer takes longer
            # over its close, and closes it itself.)
            for _ in range(2):
                await asyncio.sleep(0)
            self.sock.close()

    async def _talk(self) -> Offer:
        sock = self.sock = await reach(self.route)
        self.peer = f"{self.route.host}[{sock.getpeername()[0]}]:{self.route.port}"
        name = self.route.ehlo or own_name(sock)
        smtp = self.smtp = SMTP(
            hostname=self.route.host,
            sock=sock,
            local_hostname=name,
            use_tls=self.route.implicit_tls,
            start_tls=False,
            tls_context=self.context,
            timeout=self.seconds,
        )
        self.stage = Stage.STARTTLS if self.route.implicit_tls else Stage.GREETING
        await smtp.connect(timeout=self.route.greeting_timeout / 1000)
        _still_wanted()
        self._listen(smtp)
        await self._greet(smtp)
        if self.context is not None and not self.tls:
            await self._start_tls(smtp)
        if self.route.user is not None:
            await self._log_in(smtp, self.route.user, self.route.password or "")
        offer = Offer.of(smtp.esmtp_extensions)
        self._take_over(smtp)
        return offer

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
        await smtp.starttls(server_hostname=self.route.host, tls_context=self.context, timeout=self.seconds)
        # What stood in the clear behind the 220 was recorded by the wire before the handshake began.
        self._agree(None)
        self._listen(smtp)
        await self._greet(smtp)

    async def _log_in(self, smtp: SMTP, user: str, password: str) -> None:
        self.stage = Stage.AUTH
        offered = [way for way in MECHANISMS if way in smtp.server_auth_methods]
        if not self.tls and self.route.tls != "none" and not self._on_this_machine():
            offered = [way for way in offered if way == "cram-md5"]
            if not offered:
                raise NotConnected(Stage.AUTH, "tls", "no TLS: not sending a password in the clear (tls = none would)")
        if not offered:
            raise NotConnected(Stage.AUTH, "authentication", "the server offers no AUTH that is known here")
        for left, way in zip(range(len(offered) - 1, -1, -1), offered, strict=True):
            try:
                answer = await {
                    "plain": smtp.auth_plain,
                    "login": smtp.auth_login,
                    "cram-md5": smtp.auth_crammd5,
                }[way](user, password, timeout=self.seconds)
            except SMTPAuthenticationError as no:
                self._agree(SMTPResponse(no.code, no.message))
                if no.code in OTHER_MECHANISM and left:
                    continue
                raise
            self._agree(answer)
            return

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

    def _agree(self, answer: SMTPResponse | None) -> None:
        """The wire heard what aiosmtplib heard, and nothing more. None: only that nothing more was said."""
        _still_wanted()
        heard = self.wire.overheard()
        stray = not self.wire.between_replies or not heard or self.wire.fault == "protocol"
        if answer is not None and not stray:
            last = heard[-1]
            words = answer.message.encode("utf-8", "surrogateescape").split()
            stray = last.code != answer.code or last.text.split() != words
        if stray or (self.stage is not Stage.AUTH and len(heard) != 1):
            raise NotConnected(self.stage, "protocol", self.wire.why or "the server said more than it was asked")

    def _take_over(self, smtp: SMTP) -> None:
        if smtp.transport is None or self.wire.fault or not self.wire.between_replies:
            raise NotConnected(self.stage, "disconnected", self.wire.why or "the connection was lost")
        self.wire.attach(cast(asyncio.Transport, smtp.transport))

    def _refused(self, code: int, message: str) -> NotConnected:
        text = " ".join(message.encode("ascii", "backslashreplace").decode("ascii").split())
        if code < 200:  # aiosmtplib's -1: not a reply
            return NotConnected(self.stage, "protocol", text)
        verdict = self.rules.classify(self.stage, code, text, True)
        return NotConnected(
            self.stage, verdict.klass, text, code=code, enhanced=verdict.enhanced, hint_ms=verdict.hint_ms
        )

    def _tls_failed(self, wrong: ssl.SSLError) -> NotConnected:
        return NotConnected(Stage.STARTTLS, "tls", getattr(wrong, "verify_message", "") or wrong.reason or str(wrong))


def _still_wanted() -> None:
    """aiosmtplib waits by `wait_for`, and that of Python 3.11 forgets a cancellation that meets a result."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
