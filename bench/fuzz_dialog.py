"""Mails to a server that answers as it likes: `python -m bench fuzz --target replies`, each fourth case.

A transport without a network plays the server. It reads what is written as RFC 5321, 2920 and 3030 say, with the sink's
own readers of content and chunks, answers each command once with whatever code it draws, over any number of lines, cut
into packets anywhere; it hangs up, falls silent or stops reading where it likes. Held, of whatever it does:

* an end for each mail, and none raises; nothing that is in a body is ever read as a command
* `sent`: the server had all of that body, octet by octet, for that recipient, with its end
* what is not `sent` and not `ambiguous`: the server did not say 2xx to that body
* `ambiguous`: the end of its body was out

Half of the servers lie as well: a reply too many, too early, or that is none. Nobody can tell then whose reply is
whose; what stays of the above is the first line, and that what is `sent` was marked. (A server that says 354 to what
is no DATA, and then reads commands where it asked for a body, gets what it asked for.)
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from streamq.settings import RouteSettings
from streamq.sink.chunks import chunk_of
from streamq.sink.content import Content
from streamq.smtp.connection import Connection, Offer
from streamq.smtp.content import PIECE
from streamq.smtp.letter import Action, Letter, Report
from streamq.smtp.protocol import Wire
from streamq.smtp.replies import default_replies
from streamq.smtp.transaction import Transaction

__all__ = ["Mailbox", "dialog"]

KNOWN = re.compile(rb"(?:MAIL FROM:<shop@example\.com>.*|RCPT TO:<(m\d@example\.net)>.*|DATA|RSET|BDAT \d+ LAST|\.)")
POSITIVE = {b"MAIL": 250, b"RCPT": 250, b"DATA": 354, b"RSET": 250, b"BDAT": 250, b"end": 250}
CODES = (200, 211, 250, 251, 252, 299, 300, 354, 399, 421, 421, 450, 451, 452, 500, 503, 550, 550, 552, 554, 599)
TEXTS = (
    b"",
    b" ok",
    b" 2.0.0 ok",
    b" 5.1.1 no such user",
    b" 4.7.1 later",
    b" 250 x",
    b" \xff\x00",
    b" too many messages",
)
LIES = (b"250 ok\r\n", b"550 no\r\n", b"354 go\r\n", b"421 bye\r\n", b"250-", b"\r\n", b"\0", b"2", b"hello\r\n")
SMUGGLED = b"MAIL FROM:<evil@x.de>\r\nRCPT TO:<c@x.de>\r\nDATA\r\n"
BODY_PARTS = (
    b".", b"..", b"\r\n.", b"\r\n..", b"\r\n", b"\r\n", b"x", b"Subject: Hi", SMUGGLED, b"\r\n.x\r\n",
    b"BDAT 1 LAST\r\n", b"RSET\r\n", b"QUIT\r\n", b". \r\n", b".\t\r\n",
)  # fmt: skip
MOST_READ = 1 << 20
IDLE_TURNS = 5  # of the loop: nobody sleeps for as many
MOST_TURNS = 10_000


@dataclass(slots=True)
class Mailbox:
    """What the server had: (recipient, content, the code that it said to it; 0: none), in order; in `wrong`, what no
    client may write."""

    had: list[tuple[str, bytes, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class _Server(asyncio.Transport):
    """`lies`: it says more than it was asked for."""

    def __init__(self, wire: Wire, chance: random.Random, loop: asyncio.AbstractEventLoop, *, lies: bool) -> None:
        super().__init__()
        self.wire, self.chance, self.loop = wire, chance, loop
        self.box = Mailbox()
        self.lies = lies
        self.odd = chance.choice((0.0, 0.05, 0.2))  # the share of replies that no good server gives here
        self.gone = chance.choice((0.0, 0.02, 0.1))  # of commands that end it
        self.closed = self.silent = self.leaving = False
        self.leads_on = False  # it has said 354 to nothing
        self._buffer = b""
        self._content: Content | None = None
        self._chunk = -1  # octets that are still to come; -1: none is due
        self._held = b""
        self._recipient = ""  # that it accepted
        self._out: list[Callable[[], None]] = []

    # -- what the wire calls ----------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self._buffer += data
            if len(data) >= PIECE and self.chance.random() < 0.3:
                self.wire.pause_writing()
                self._later(self.wire.resume_writing)
            self._later(self._read)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.wire.connection_lost, None)

    # -- the server -------------------------------------------------------------------------------

    def _later(self, what: Callable[[], None]) -> None:
        """In order, one a turn of the loop."""
        self._out.append(what)
        if len(self._out) == 1:
            self.loop.call_soon(self._next)

    def _next(self) -> None:
        self._out[0]()
        del self._out[0]
        if self._out:
            self.loop.call_soon(self._next)

    def _read(self) -> None:
        while not self.closed and not self.silent:
            if self._content is not None:
                at = self._content.take(self._buffer, 0)
                self._buffer = self._buffer[at:]
                if self._content.text is None:
                    self._early()
                    return
                text, self._content = self._content.text, None
                self._ended(text[2:])
            elif self._chunk >= 0:
                part, self._buffer = self._buffer[: self._chunk], self._buffer[self._chunk :]
                self._held, self._chunk = self._held + part, self._chunk - len(part)
                if self._chunk:
                    self._early()
                    return
                self._chunk = -1
                self._ended(self._held)
            else:
                line, end, rest = self._buffer.partition(b"\r\n")
                if not end:
                    return
                self._buffer = rest
                self._command(line)

    def _early(self) -> None:
        """In the middle of a body: a refusal, behind which it hangs up (RFC 5321 knows no such reply, servers do)."""
        if self.chance.random() < self.gone:
            if self.chance.random() < 0.5:
                self._say(b"%d 5.3.4 too big\r\n" % self.chance.choice((421, 451, 552, 554)))
            self._hang_up()

    def _ended(self, content: bytes) -> None:
        code = self._answer(b"end")
        self.box.had.append((self._recipient, content, code))
        self._recipient = ""

    def _command(self, line: bytes) -> None:
        found = KNOWN.fullmatch(line)
        if found is None:
            self.box.wrong.append(f"a command {line[:80]!r}")
            self._hang_up()
            return
        if line == b".":  # of a DATA that nobody wanted, as it seems
            self.box.wrong.append("a dot without its DATA")
            return
        verb = line[:4]
        if verb == b"BDAT":
            self._chunk, _ = chunk_of(line[5:])
            self._held = b""
            return
        code = self._answer(verb)
        if verb == b"MAIL":
            self._recipient = ""
        elif verb == b"RCPT" and 200 <= code < 300:
            self._recipient = (found[1] or b"").decode()
        elif verb == b"DATA" and code == 354:
            self._content = Content(MOST_READ)

    def _answer(self, verb: bytes) -> int:
        """Its code; 0: it said nothing."""
        chance = self.chance
        if self.closed or self.silent:
            return 0
        if chance.random() < self.gone:
            if chance.random() < 0.3:
                self.silent = True
            else:
                self._hang_up()
            return 0
        code = 421 if self.leaving else chance.choice(CODES) if chance.random() < self.odd else POSITIVE[verb]
        lines = [
            b"%d%b" % (code, chance.choice(TEXTS).replace(b" ", b"-", 1) or b"-")
            for _ in range(chance.choice((0, 0, 0, 1, 3)))
        ]
        said = b"".join(line + b"\r\n" for line in [*lines, b"%d%b" % (code, chance.choice(TEXTS))])
        if self.lies and chance.random() < 0.1:
            lie = chance.choice(LIES)
            self.leads_on |= lie.startswith(b"354")
            said = lie + said if chance.random() < 0.5 else said + lie
        self._say(said)
        self.leaving = code == 421  # RFC 5321, 3.8: nothing good comes behind it
        if self.leaving and chance.random() < 0.5:
            self._hang_up()
        return code

    def _say(self, said: bytes) -> None:
        cuts = sorted(self.chance.randrange(len(said) + 1) for _ in range(self.chance.choice((0, 0, 1, 2))))
        for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True):
            if a < b:
                self._later(lambda packet=said[a:b]: self._deliver(packet))  # type: ignore[misc]

    def _deliver(self, packet: bytes) -> None:
        if not self.closed:
            self.wire.data_received(packet)

    def _hang_up(self) -> None:
        how = self.chance.choice((None, ConnectionResetError("reset by peer"), "eof"))

        def end() -> None:
            if self.closed:
                return
            if how == "eof":
                self.wire.eof_received()
            self.closed = True
            self.wire.connection_lost(how if isinstance(how, Exception) else None)

        self.silent = True
        self._later(end)

    @property
    def idle(self) -> bool:
        return not self._out

    def last(self) -> None:
        """Its silence has lasted for as long as anybody waits."""
        self.wire.expired = True
        self.wire._wake()


def _body(chance: random.Random) -> bytes:
    parts = [chance.choice(BODY_PARTS) for _ in range(chance.randint(0, 8))]
    if chance.random() < 0.1:  # dots and line ends around where one write ends and the next begins
        parts.insert(0, b"x" * (PIECE - chance.randint(0, 8) - 2) + b"\r\n")
        parts.append(b"\r\n." * chance.randint(0, 3))
        parts.append(b"y" * (PIECE - chance.randint(0, 40)))
    made = b"".join(parts).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return made if made.endswith(b"\r\n") else made + b"\r\n"


async def _run(task: asyncio.Task[Report], server: _Server) -> Report:
    """Where nobody has anything left to do, its time is over; no clock is waited for."""
    turns = idle = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
        idle = idle + 1 if server.idle else 0
        if idle > IDLE_TURNS:
            server.last()
            idle = 0
        assert turns < MOST_TURNS, "it has no end"
    return task.result()


async def dialog(chance: random.Random, loop: asyncio.AbstractEventLoop) -> str:
    """One case; how it ended."""
    lies = chance.random() < 0.5
    way = chance.choice(("off", "transaction", "overlap"))
    chunking = chance.random() < 0.5
    wire = Wire(loop)
    server = _Server(wire, chance, loop, lies=lies)
    wire.attach(server)
    link = Connection(0, wire, Offer(pipelining=True, sizes=True, eight_bit=True, chunking=True), "peer", "")
    route = RouteSettings.model_validate(
        {"url": "smtp://relay.example", "pipelining": way, "chunking": chunking, "transaction_timeout": {"*": "1h"}}
    )
    left = [
        Letter(
            envelope_from="shop@example.com",
            envelope_to=f"m{at}@example.net",
            content=_body(chance),
            site="example.net",
        )
        for at in range(chance.choice((1, 2, 4)))
    ]
    marked: set[str] = set()

    async def mark(_: int, letter: Letter) -> bool:
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        marked.add(letter.envelope_to)
        return chance.random() > 0.02

    transaction = Transaction(link, route, default_replies(), mark, (), lambda fits: left.pop(0) if left else None)
    ends: list[tuple[Letter, Report]] = []
    while transaction.ahead is not None or (left and link.usable):
        letter = transaction.ahead or left.pop(0)
        ends.append((letter, await _run(loop.create_task(transaction.run(letter)), server)))
    link.abort()
    await asyncio.sleep(0)
    for letter, report in ends:
        _held(letter, report, server, marked, lies=lies)
    assert lies or not server.box.wrong, f"{server.box.wrong}, {way}, chunking {chunking}"
    smuggled = [one for one in server.box.wrong if b"evil" in one.encode()]
    assert server.leads_on or not smuggled, f"{smuggled}, {way}, chunking {chunking}"
    shown = "lies" if lies else "odd"
    return f"{shown}: {ends[-1][1].action if ends else 'nothing'}"


def _held(letter: Letter, report: Report, server: _Server, marked: set[str], *, lies: bool) -> None:
    name = letter.envelope_to
    had = [(content, code) for recipient, content, code in server.box.had if recipient == name]
    shown = f"{name} {report.action} at {report.stage} ({report.klass} {report.code} {report.reply!r}), {had}"[:600]
    if report.action is Action.SENT:
        assert name in marked, f"sent without its mark: {shown}"
        assert 200 <= report.code < 300, f"sent by {report.code}: {shown}"
        assert lies or had == [(letter.content, report.code)], f"sent, and the server had not: {shown}"
    elif report.action is Action.AMBIGUOUS:
        assert name in marked, f"ambiguous without its mark: {shown}"
    elif not lies:
        assert not any(200 <= code < 300 for _, code in had), f"not sent, and the server took it: {shown}"
