"""The publisher: what this process's settings and rules say of limits, for all workers; read again when it is told to.

START    The layers that the settings say something of are published (queue/limits.py), so every machine needs the same
         files. A layer that they say nothing of stays as it is.
RELOAD   SIGHUP: settings and rules are read again. A mistake changes nothing and is logged with file, line and value.
         Of the settings the limits, how they adapt, the provider rules and what replies mean are taken; the rest takes
         a restart, and is named. What the files say no more is withdrawn. Mails under way are not touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamq.errors import SettingsError
from streamq.limits.rulebook import Rulebook
from streamq.queue.limits import limit_text, set_limits, settings_layer
from streamq.queue.spool import Spool
from streamq.settings import RouteSettings, Settings
from streamq.smtp.replies import Replies
from streamq.worker.link import Link

__all__ = ["Publisher"]

TAKEN = frozenset({"adapt", "limits", "sites", "providers", "provider_rules", "replies"})
log = logging.getLogger("streamq.limits")


class Publisher:
    """`reread` gives the settings as they stand in their files now; `known` is told what replies mean from now on.
    Raises `SettingsError` where a file that the settings name is wrong."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
        self.book = Rulebook.read(settings)
        self.known: Callable[[Replies], object] = lambda replies: None
        self._reread = reread or (lambda: settings)
        self._said: set[str] = set()
        self._asked = asyncio.Event()

    def reload(self) -> None:
        """Read again, as soon as may be."""
        self._asked.set()

    async def run(self, spool: Spool, link: Link) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            book = await asyncio.to_thread(self._read)  # a large file takes its time, and heartbeats do not wait
            if book is not None:
                self.book = book
                await link.call(self.publish, spool)
                self.known(book.replies)

    async def publish(self, spool: Spool) -> None:
        """Layers that it said something of until now, and does no more, are emptied."""
        layers: dict[str, dict[str, str] | None] = {
            layer: None if caps is None else {name: limit_text(cap.rate, cap.connections) for name, cap in caps.items()}
            for layer, caps in self.book.layers().items()
        }
        layers["settings"] = settings_layer(self.book.settings)
        for layer, rows in layers.items():
            if rows is None and layer not in self._said:
                continue
            changed = await set_limits(spool, layer, rows or {}, whole=True)
            if changed:
                log.info("limits: %d changed by the layer %s", changed, layer)
            self._said.add(layer) if rows is not None else self._said.discard(layer)
        await spool.publish_adapt(self.book.settings.adapt)

    def _read(self) -> Rulebook | None:
        """None where there is a mistake."""
        try:
            book = Rulebook.read(self._reread())
            if not book.settings.ways:  # at the start this is one, too; and so ends a file that is half written
                raise SettingsError("no route")
        except SettingsError as wrong:
            log.error("read again, and nothing changed: %s", wrong)
            return None
        later = sorted(_changed(self.book.settings, book.settings))
        if later:
            log.warning("read again; these take a restart: %s", ", ".join(later))
        log.info("read again: limits, provider rules, what replies mean")
        return book


def _changed(before: Settings, after: Settings) -> set[str]:
    """Settings that changed, of those that are not taken."""
    found = {
        name
        for name in Settings.model_fields
        if name not in {*TAKEN, "routes"} and getattr(before, name) != getattr(after, name)
    }
    return found | {
        f"routes.{name}"
        for name in before.routes.keys() | after.routes.keys()
        if _fixed(before.routes.get(name)) != _fixed(after.routes.get(name))
    }


def _fixed(route: RouteSettings | None) -> RouteSettings | None:
    """Without what is taken."""
    return None if route is None else route.model_copy(update={"rate": ()})
