"""The inbox beside a sink: where it listens, what it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from streamq.cli.app import needs_web, settings
from streamq.errors import SettingsError
from streamq.inbox import Inbox
from streamq.settings import Place
from streamq.settings.values import listen
from streamq.sink import Received

__all__ = ["inbox_beside", "inbox_of"]


def inbox_of(keep: int, keep_bytes: int, maildir: Path | None) -> Inbox:
    """With what lies in the Maildir already. Raises `SettingsError`."""
    if not keep or not keep_bytes:
        raise SettingsError("--keep, --keep-bytes: an inbox that keeps nothing shows nothing (got 0)")
    inbox = Inbox(keep, keep_bytes)
    try:
        if maildir is not None and (maildir / "new").is_dir():
            inbox.load(maildir)
    except OSError as wrong:
        raise SettingsError(f"--maildir: {wrong.filename or maildir}: {wrong.strerror}") from None
    return inbox


def inbox_beside(
    web: str, keep: int, keep_bytes: int, maildir: Path | None, *, hosts: tuple[str, ...], allow_remote: bool
) -> InboxBeside:
    """For `streamq sink --web`. Raises `SettingsError`."""
    needs_web("--web")
    place = _place(web)
    is_remote = not ip_address(place.host).is_loopback
    if is_remote and not allow_remote:
        raise SettingsError(f"--web: mails are private: beyond loopback only with --allow-remote (got {web[:80]!r})")
    known = settings().web_token
    if is_remote and known is None:
        raise SettingsError("--web: set STREAMQ_WEB_TOKEN, which whoever looks from afar has to know")
    token = None if known is None else known.get_secret_value()
    return InboxBeside(inbox_of(keep, keep_bytes, maildir), place, token, None if is_remote else hosts)


def _place(web: str) -> Place:
    free = web == "0" or web.endswith(":0")  # a free port, which is printed
    try:
        place = listen(f"{web[:-1]}1" if free else web)
    except ValueError as wrong:
        raise SettingsError(f"--web: {wrong}") from None
    return place._replace(port=0) if free else place


@dataclass(frozen=True, slots=True)
class InboxBeside:
    """As `streamq.sink.process.Beside` has it. `token`, `hosts`: as `Guard` has them."""

    inbox: Inbox
    place: Place
    token: str | None
    hosts: tuple[str, ...] | None

    def take(self, mail: Received) -> object:
        return self.inbox.add(mail)

    @asynccontextmanager
    async def running(self, stopped: asyncio.Event) -> AsyncIterator[Iterable[str]]:
        from streamq.web.inbox import inbox_app
        from streamq.web.inbox_api import Desk
        from streamq.web.listener import listening

        desk = Desk(self.inbox, stopped)
        app = inbox_app(desk, token=self.token, hosts=self.hosts)
        async with listening(app, self.place, "--web", stopped) as bound:
            yield [f"inbox http://{bound}/inbox, for tests http://{bound}/api/mails"]
