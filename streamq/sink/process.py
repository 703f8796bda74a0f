"""The sink as a process of its own: `run` is what `streamq sink` and `python -m streamq.sink` call."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import orjson
import uvloop

from streamq.errors import SettingsError
from streamq.sink.certificate import Certificate, from_files, self_signed
from streamq.sink.ledger import write_whole
from streamq.sink.mailbox import Received
from streamq.sink.reception import EXTENSIONS
from streamq.sink.rules import Rules, rule_of_flag
from streamq.sink.rules_file import joined, load_profile, load_rules
from streamq.sink.server import Sink

__all__ = ["Beside", "Options", "run"]

LINES_A_SECOND = 20  # a terminal that scrolls faster tells nobody anything, and costs more than the mails
SHOWN_NAMES = 3  # recipients of a mail in its line


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the flags say. `reply` holds `GLOB=CODE [text]` texts, which outrank the rules file."""

    host: str = "127.0.0.1"
    port: int = 2525
    rules: Path | None = None
    reply: tuple[str, ...] = ()
    maildir: Path | None = None
    envelope_headers: bool = False
    keep: int = 1000
    keep_bytes: int = 64 * 1024 * 1024
    max_size: int = 25 * 1024 * 1024
    without: tuple[str, ...] = ()  # extensions not to offer
    ledger: Path | None = None  # JSON, written at the end
    ledger_limit: int = 5_000_000
    journal: Path | None = None
    quiet: bool = False
    ready_fd: int | None = None  # gets the port and a newline, and is closed, when the sink listens
    allow_remote: bool = False
    profile: tuple[str, ...] = ()  # names; the rules file outranks them
    tls: bool = False  # offer STARTTLS, with a certificate of its own unless `cert` names one
    implicit_tls: bool = False
    cert: Path | None = None
    key: Path | None = None
    cert_out: Path | None = None  # gets the certificate, for clients to trust
    counters: Path | None = None  # JSON without the ledger's names, at the end and at SIGUSR1
    window: tuple[float, ...] = ()  # seconds
    id_header: str = ""


def rules_of(options: Options) -> Rules:
    """What flags, rules file and profiles say together. Raises `SettingsError`."""
    flags = Rules(tuple(map(rule_of_flag, options.reply)))
    filed = load_rules(options.rules) if options.rules else Rules()
    found = joined(filed, *map(load_profile, options.profile))
    return replace(found, rules=(*flags.rules, *found.rules))


def certificate_of(options: Options) -> Certificate | None:
    """Raises `SettingsError`."""
    if options.key is not None and options.cert is None:
        raise SettingsError(f"key: needs --cert, the certificate that it belongs to (got {str(options.key)!r})")
    if options.cert is not None:
        found = from_files(options.cert, options.key)
    elif options.tls or options.implicit_tls or options.cert_out is not None:
        found = self_signed()
    else:
        return None
    if options.cert_out is not None:
        try:
            options.cert_out.write_bytes(found.pem)
        except OSError as wrong:
            raise SettingsError(f"cert_out: {options.cert_out}: {wrong.strerror}") from None
    return found


class Beside(Protocol):
    """What gets every mail, too, and runs as long as the sink: the inbox, which the sink itself knows nothing of."""

    def take(self, mail: Received) -> object:
        """Before its 250; neither blocks nor raises."""

    def running(self, stopped: asyncio.Event) -> AbstractAsyncContextManager[Iterable[str]]:
        """Gives what is to be printed of it. `stopped`: the sink is to end."""


def run(options: Options, beside: Beside | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. Raises `SettingsError`.

    SIGHUP rereads the rules file, SIGUSR1 writes counters and ledger. With `beside` the sink keeps no mails itself.
    """
    rules = rules_of(options)
    certificate = certificate_of(options)
    for extension in options.without:
        if extension.upper() not in EXTENSIONS:
            raise SettingsError(f"without: not one of {', '.join(EXTENSIONS)} (got {extension!r})")
    if options.ready_fd is not None:
        try:
            os.fstat(options.ready_fd)
        except OSError as wrong:
            raise SettingsError(f"ready_fd: {wrong.strerror} (got {options.ready_fd})") from None
    return uvloop.run(_serve(options, rules, certificate, beside))


def _takers(printer: Printer | None, beside: Beside | None) -> Callable[[Received], object] | None:
    takers = [*((printer.mail,) if printer else ()), *((beside.take,) if beside else ())]
    if len(takers) < 2:
        return takers[0] if takers else None

    def take(mail: Received) -> None:
        for each in takers:
            each(mail)

    return take


async def _serve(options: Options, rules: Rules, certificate: Certificate | None, beside: Beside | None) -> int:
    printer = None if options.quiet else Printer()
    without = {extension.upper() for extension in options.without}
    sink = Sink(
        host=options.host,
        port=options.port,
        rules=rules,
        keep=0 if beside else options.keep,
        keep_bytes=options.keep_bytes,
        maildir=options.maildir,
        envelope_headers=options.envelope_headers,
        max_size=options.max_size,
        extensions=tuple(extension for extension in EXTENSIONS if extension not in without),
        ledger_limit=options.ledger_limit,
        journal=options.journal,
        on_mail=_takers(printer, beside),
        allow_remote=options.allow_remote,
        tls=certificate,
        implicit_tls=options.implicit_tls,
        windows=options.window,
        id_header=options.id_header,
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, _reread, options, sink)
    loop.add_signal_handler(signal.SIGUSR1, _write_now, options, sink)
    try:
        await sink.start()
    except OSError as wrong:
        place = wrong.filename or f"{options.host}:{options.port}"
        raise SettingsError(f"cannot start: {place}: {wrong.strerror or wrong}") from None
    started = time.monotonic()
    try:
        async with beside.running(stopped) if beside else nullcontext(()) as lines:
            _say(f"listening on {sink.url}")
            for line in lines:
                _say(line)
            await _until_told(options, sink, stopped)
    except SettingsError:
        await sink.close()
        raise
    if printer:
        printer.close()
    return await _finish(options, sink, time.monotonic() - started)


async def _until_told(options: Options, sink: Sink, stopped: asyncio.Event) -> None:
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"%d\n" % sink.port)
        os.close(options.ready_fd)
    failure = asyncio.create_task(sink.wait_until(lambda: sink.failed is not None))
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({failure, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    failure.cancel()


async def _finish(options: Options, sink: Sink, seconds: float) -> int:
    wrong = sink.failed
    try:
        await sink.close()
    except OSError as again:
        wrong = wrong or again
    _say(_summary(sink, seconds))
    if wrong is not None:
        print(f"streamq sink: {options.journal}: {wrong.strerror}", file=sys.stderr)
    written = _write(options, sink)
    return 0 if wrong is None and written else 1


def _reread(options: Options, sink: Sink) -> None:
    try:
        sink.follow(rules_of(options))
    except SettingsError as wrong:
        print(f"streamq sink: {wrong}; the rules stay as they were", file=sys.stderr, flush=True)
    else:
        _say("the rules were read again")


def _write_now(options: Options, sink: Sink) -> None:
    if _write(options, sink):
        _say("counters and ledger were written, where a file is named")


def _write(options: Options, sink: Sink) -> bool:
    """Counters and ledger to the files that are named; false where that failed, which is said."""
    good = True
    for path, write in ((options.ledger, _write_ledger), (options.counters, _write_counters)):
        if path is None:
            continue
        try:
            write(sink, path)
        except OSError as failed:
            print(f"streamq sink: {path}: {failed.strerror}", file=sys.stderr, flush=True)
            good = False
    return good


def _write_ledger(sink: Sink, path: Path) -> None:
    sink.ledger.write(path, sink.counters)


def _write_counters(sink: Sink, path: Path) -> None:
    write_whole(path, orjson.dumps(sink.counts(), option=orjson.OPT_INDENT_2))


def _summary(sink: Sink, seconds: float) -> str:
    counters = sink.counters
    doubles = sum(count - 1 for count in sink.ledger.message_ids.values())
    refused = ", ".join(f"{count:,} {name}" for name, count in counters.refused_by.most_common(5))
    dropped = f"{counters.dropped:,} dropped, " if counters.dropped else ""
    windows = sink.windows.most.items() if sink.windows is not None else ()
    most = "".join(f"; at most {_many(most, 'mail')} in {length:g} s" for length, most in windows)
    return (
        f"{_many(counters.accepted, 'mail')} to {_many(len(sink.ledger.recipients), 'recipient')} in {seconds:.1f} s, "
        f"{doubles:,} of them seen before; "
        f"{_many(counters.refused, 'refusal')}{f' ({refused})' if refused else ''}; "
        f"{_many(counters.connections, 'connection')}, {counters.most_open:,} at once, "
        f"{dropped}{counters.cut:,} cut in a mail{most}"
    )


def _many(number: int, noun: str) -> str:
    """`1 mail`, `2,000 mails`. The sink works beside other queues, too: it has no words of ours."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Printer:
    """One line per mail, and beyond `LINES_A_SECOND` one line per second."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._printed = 0
        self._more = 0

    def mail(self, mail: Received) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(1.0, self._second)
        if self._printed >= LINES_A_SECOND:
            self._more += 1
            return
        self._printed += 1
        names = ", ".join(mail.envelope_to[:SHOWN_NAMES])
        if len(mail.envelope_to) > SHOWN_NAMES:
            names += f" and {len(mail.envelope_to) - SHOWN_NAMES} more"
        clock = time.strftime("%H:%M:%S", time.localtime(mail.at_ns / 1e9))
        message_id = mail.message_id.decode("utf-8", "backslashreplace") or "no Message-ID"
        _say(f"{clock} <{mail.envelope_from}> → {names}  {len(mail.content):,} bytes  {message_id}")

    def _second(self) -> None:
        self._timer = None
        self.close()
        self._printed = 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._more:
            _say(f"… and {_many(self._more, 'more mail')}")
            self._more = 0


def _say(text: str) -> None:
    """Print, with what could steer a terminal made visible; nobody may be reading."""
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    try:
        print(shown, flush=True)
    except (BrokenPipeError, UnicodeEncodeError):
        return
