"""STARTTLS (RFC 3207) and AUTH (RFC 4954), the server's side.

Whatever stands behind STARTTLS in the clear would be obeyed after the handshake as if it had come encrypted
(CVE-2011-0411): it is refused, and the connection closed.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode

from streamq.sink.auth import Dialogue, decoded
from streamq.sink.connection import BAD_SEQUENCE, NO_ARGUMENTS, Connection
from streamq.sink.grammar import Refusal
from streamq.sink.reception import Reception

__all__ = ["Secured"]

HANDSHAKE = 30.0  # seconds
NOT_OFFERED = b"502 5.5.1 Command not implemented\r\n"


class Secured(Connection):
    """A connection that can be encrypted and knows its user."""

    def __init__(self, reception: Reception) -> None:
        super().__init__(reception)
        self._keywords: frozenset[str] = frozenset()  # what the last EHLO offered
        self._user = ""
        self._dialogue: Dialogue | None = None
        self._upgrade: asyncio.Task[None] | None = None

    def _forget(self) -> None:
        """All that the client said in the clear is as if it had not been: RFC 3207 section 4.2."""
        raise NotImplementedError

    def _in_transaction(self) -> bool:
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._dialogue is not None:
            self._dialogue.close()
        if self._encrypted:
            self._transport.close()  # asyncio's TLS says of one that the client closed that nobody did

    def abort(self) -> None:
        super().abort()
        if self._upgrade is not None:
            self._upgrade.cancel()  # uvloop leaves a handshake waiting whose transport was aborted

    # -- STARTTLS

    def _starttls(self, rest: bytes) -> None:
        if "STARTTLS" not in self._keywords or self._encrypted:
            self._refuse("starttls", BAD_SEQUENCE if self._encrypted else NOT_OFFERED)
        elif rest:
            self._refuse("starttls", NO_ARGUMENTS)
        else:  # not at once: what else this packet brought is known only when it has been served
            self._handshaking = True
            self._halt()
            self._loop.call_soon(self._go_ahead)

    def _go_ahead(self) -> None:
        if self._lost or self._ending:
            return
        if self._buffer:
            self._handshaking = False
            self._buffer = b""
            self._refuse("starttls", b"554 5.5.0 Nothing may stand behind STARTTLS\r\n")
            self._close()
            return
        self._handshaking = self._answer("starttls", (self._address,), b"220 2.0.0 Ready to start TLS\r\n")
        if self._pieces is None:  # else the last piece of the reply leads on
            self._flush()
            if self._handshaking:
                self._shake_hands()
            else:
                self._resume()
        self._reception.tell()

    def _shake_hands(self) -> None:
        self._upgrade = self._loop.create_task(self._encrypt())

    async def _encrypt(self) -> None:
        context = self._reception.tls
        assert context is not None
        upgraded: asyncio.Transport | None = None
        if (
            self._transport.is_closing()
        ):  # before this task began: a handshake over what is gone would wait for its whole time
            self._handshaking = False
            return
        try:  # None comes back where the client left in the middle of it
            upgraded = await self._loop.start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE
            )
        except OSError:  # ssl.SSLError is one
            pass
        finally:
            self._handshaking = False
            if upgraded is None:
                self._transport.abort()
                if not self._lost:  # the protocol is not told of a handshake that fails
                    self.connection_lost(None)
        if upgraded is None:
            return
        if self._lost:
            upgraded.abort()
            return
        self._transport = upgraded
        self._encrypted = True
        self._reception.counters.handshakes += 1
        self._forget()
        self._resume()

    # -- AUTH

    def _auth(self, rest: bytes) -> None:
        directory = self._reception.directory
        if "AUTH" not in self._keywords:
            self._refuse("auth", NOT_OFFERED)
            return
        if self._user or self._in_transaction():  # section 4
            self._refuse("auth", BAD_SEQUENCE)
            return
        mechanism, _, initial = rest.partition(b" ")
        dialogue = directory.dialogue(mechanism.decode("latin-1").upper())
        if dialogue is None:
            self._refuse("auth", b"504 5.5.4 Unrecognized authentication mechanism\r\n")
            return
        challenge = next(dialogue)
        self._dialogue = dialogue
        self._obey = self._respond
        if not initial:
            self._challenge(challenge)
        elif mechanism.upper() == b"CRAM-MD5":  # the server speaks first there
            self._end_dialogue()
            self._refuse("auth", b"501 5.7.0 This mechanism takes no initial response\r\n")
        else:
            self._respond(b"" if initial == b"=" else initial, may_cancel=False)

    def _challenge(self, challenge: bytes) -> None:
        self._replies.append(b"334 %b\r\n" % b64encode(challenge))

    def _respond(self, line: bytes, *, may_cancel: bool = True) -> None:
        dialogue = self._dialogue
        assert dialogue is not None
        try:
            if may_cancel and line == b"*":
                raise Refusal(b"501 5.7.0 Authentication cancelled\r\n")
            self._challenge(dialogue.send(decoded(line)))
        except StopIteration as found:
            self._end_dialogue()
            if self._answer("auth", (str(found.value),), b"235 2.7.0 Authentication succeeded\r\n"):
                self._user = str(found.value)
                self._reception.counters.authenticated += 1
        except Refusal as wrong:
            self._end_dialogue()
            self._refuse("auth", wrong.reply)

    def _end_dialogue(self) -> None:
        if self._dialogue is not None:
            self._dialogue.close()
        self._dialogue = None
        self._obey = self._command
