"""The sink: a mail server on loopback to test against. It keeps what it gets and answers as told.

    rules = Rules(
        (Rule(stage="dot", action="rst", times=1), Rule(stage="mail", from_mail=6, reply="421 4.7.0 enough")),
        limits=(Connections(most=5), Rate(most=100, seconds=60.0)),
    )
    async with Sink(rules=rules, clock=clock, tls=self_signed(), windows=(1.0, 60.0)) as sink:
        ...                                         # sink.url, sink.host, sink.port
        await sink.wait_for(1, "dropped")           # an event, counted since the start: EVENTS names them
        await sink.wait_until(lambda: sink.counters.replies.get("mail 450", 0) > 3)
        sink.follow(load_profile("greylist"))       # other rules from the next command on
    sink.ledger.mails, sink.counters.drops, sink.windows.most, sink.received

Rules are explained in `rules`, limits in `limits`, users in `auth`, files and profiles in `rules_file`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from streamq.errors import SettingsError
from streamq.sink.certificate import Certificate
from streamq.sink.checks import is_seconds
from streamq.sink.journal import Journal
from streamq.sink.ledger import Counters, Ledger
from streamq.sink.mailbox import Mailbox, Received
from streamq.sink.maildir import Maildir
from streamq.sink.reception import EXTENSIONS, Reception
from streamq.sink.rules import Rules
from streamq.sink.session import Session
from streamq.sink.windows import Windows

__all__ = ["Sink"]

Event = Literal[
    "accepted", "opened", "closed", "turned_away", "begun", "refused", "dropped", "handshaken", "authenticated"
]
EVENTS: dict[Event, Callable[[Counters], int]] = {
    "accepted": lambda counters: counters.accepted,  # mails
    "opened": lambda counters: counters.connections,
    "closed": lambda counters: counters.connections - counters.open,
    "turned_away": lambda counters: counters.connections_refused,
    "begun": lambda counters: counters.transactions,
    "refused": lambda counters: counters.refused,  # commands, with 4xx or 5xx
    "dropped": lambda counters: counters.dropped,  # connections closed, reset or left without a word, by a rule
    "handshaken": lambda counters: counters.handshakes,
    "authenticated": lambda counters: counters.authenticated,
}
BACKLOG = 1024  # connections that the kernel holds until they are accepted
GOODBYE = 1.0  # seconds that clients have to read the 421 of the end
LARGEST = 2**31  # bytes of a mail at most, whatever the setting


class Sink:
    """An SMTP server of this process. `async with Sink() as sink:` starts and closes it.

    The last `keep` mails, of at most `keep_bytes` bytes together, are in `received`; with `maildir` each is a
    file there too; `journal` gets a line per recipient before the 250 goes out. `on_mail` is called for each
    accepted mail before its reply is written, and must neither block nor raise. Mails above `max_size` bytes
    get 552; 0: SIZE 0 is said, no limit. `extensions` are the keywords offered after EHLO. The ledger counts at most
    `ledger_limit` names, and the values of the header `id_header`, where one is named. `tls` offers STARTTLS, or with
    `implicit_tls` begins with the handshake. `clock` (seconds) is what limits and tokens go by. `windows` are lengths
    in seconds whose fullest is found, in `windows.most`.

    Raises `SettingsError` for a host that is not loopback without `allow_remote`: it takes mail from anybody.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rules: Rules = Rules(),  # noqa: B008 (frozen)
        keep: int = 1000,
        keep_bytes: int = 64 * 1024 * 1024,
        maildir: Path | None = None,
        envelope_headers: bool = False,
        max_size: int = 25 * 1024 * 1024,
        extensions: tuple[str, ...] = EXTENSIONS,
        ledger_limit: int = 5_000_000,
        journal: Path | None = None,
        on_mail: Callable[[Received], object] | None = None,
        allow_remote: bool = False,
        clock: Callable[[], float] = time.monotonic,
        tls: Certificate | None = None,
        implicit_tls: bool = False,
        windows: tuple[float, ...] = (),
        id_header: str = "",
    ) -> None:
        if implicit_tls and tls is None:
            raise SettingsError("implicit_tls: needs a certificate")
        for length in windows:
            if not is_seconds(length, 366 * 86_400):
                raise SettingsError(f"windows: not a number of seconds above 0 (got {length!r})")
        _check(host, port, keep, keep_bytes, max_size, extensions, ledger_limit, allow_remote)
        self._host = "127.0.0.1" if host == "localhost" else host  # two addresses would get two free ports
        self._port = port
        self._maildir = maildir
        self._envelope_headers = envelope_headers
        self._journal = journal
        self._server: asyncio.Server | None = None
        self._reception = Reception(
            rules=rules,
            mailbox=Mailbox(keep, keep_bytes),
            keeps=keep > 0,
            ledger=Ledger(ledger_limit),
            on_mail=on_mail,
            max_size=max_size,
            extensions=extensions,
            clock=clock,
            tls=tls.context if tls is not None else None,
            windows=windows,
            id_header=id_header,
        )
        self._implicit_tls = implicit_tls

    async def start(self) -> None:
        """Open the files and listen. Raises `OSError`."""
        if self._server is not None:
            raise RuntimeError("this sink listens already")
        if self._maildir is not None:
            self._reception.maildir = Maildir(self._maildir, envelope_headers=self._envelope_headers)
        journal = Journal(self._journal) if self._journal is not None else None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Session(self._reception),
                self._host,
                self._port,
                backlog=BACKLOG,
                ssl=self._reception.tls if self._implicit_tls else None,
            )
        except OSError:
            if journal is not None:
                journal.close()
            raise
        self._reception.journal = journal
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, say 421 where a reply may stand, close all. The books stay readable.

        Raises `OSError` if the journal's last lines cannot be written.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        reception = self._reception
        for session in tuple(reception.sessions):
            session.shut_down()
        try:
            async with asyncio.timeout(GOODBYE):
                await reception.wait_until(lambda: not reception.sessions)
        except TimeoutError:
            for session in tuple(reception.sessions):
                session.abort()
            await reception.wait_until(lambda: not reception.sessions)
        await server.wait_closed()
        reception.end()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def host(self) -> str:
        return self._host

    @property
    def port(self) -> int:
        """The port it listens on; stays the same after `close`, so that `start` comes back there."""
        return self._port

    @property
    def url(self) -> str:
        """`smtp://127.0.0.1:2525`, or `smtps://…`"""
        return f"smtp{'s' * self._implicit_tls}://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    @property
    def received(self) -> Mailbox:
        """The kept mails, oldest first."""
        return self._reception.mailbox

    @property
    def ledger(self) -> Ledger:
        """Accepted mails per recipient and per Message-ID."""
        return self._reception.ledger

    @property
    def counters(self) -> Counters:
        return self._reception.counters

    @property
    def windows(self) -> Windows | None:
        """The most mails in any window; None where no lengths were given."""
        return self._reception.windows

    def counts(self) -> dict[str, Any]:
        """All counters as JSON takes them, without the names of the ledger."""
        found = self.counters.as_json()
        ledger = self.ledger
        found["repeated"] = sum(count - 1 for count in ledger.mails.values() if count > 1)
        found["complete"] = ledger.complete and (self.windows is None or self.windows.complete)
        if self.windows is not None:
            found["most_in_window"] = {f"{length:g}": most for length, most in self.windows.most.items()}
            found["most_in_window_of"] = {f"{length:g}": each for length, each in self.windows.most_of.items()}
        return found

    @property
    def failed(self) -> OSError | None:
        """Why the journal could not be written: since then nothing is acknowledged any more."""
        return self._reception.failed

    def follow(self, rules: Rules) -> None:
        """Answer by other rules from the next command on.

        Rules begin to count anew; limits that stay the same keep what they know.
        """
        self._reception.follow(rules)

    async def wait_for(self, count: int, event: Event = "accepted") -> None:
        """Return when that has happened `count` times in all, since the start; EVENTS says what there is.

        Raises `ConnectionAbortedError` if the sink is closed before.
        """
        happened = EVENTS[event]
        await self.wait_until(lambda: happened(self._reception.counters) >= count)

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Return when `done()` is true; it is asked after whatever changes the books, and must not raise."""
        await self._reception.wait_until(done)


def _check(
    host: str,
    port: int,
    keep: int,
    keep_bytes: int,
    max_size: int,
    extensions: tuple[str, ...],
    ledger_limit: int,
    allow_remote: bool,
) -> None:
    if not allow_remote and not _is_loopback(host):
        raise SettingsError(
            f"host: the sink takes mail from anybody; to listen beyond loopback, allow it (got {host!r})"
        )
    bounds = {
        "port": (port, 0, 65_535),
        "keep": (keep, 0, 10**9),
        "keep_bytes": (keep_bytes, 0, 2**63),
        "max_size": (max_size, 0, LARGEST),
        "ledger_limit": (ledger_limit, 0, 10**9),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise SettingsError(f"{name}: not from {least} to {most} (got {value})")
    for extension in extensions:
        if extension not in EXTENSIONS:
            raise SettingsError(f"extensions: not one of {', '.join(EXTENSIONS)} (got {extension!r})")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
