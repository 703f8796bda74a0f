"""examples/: each program of each language, run against a real server over a line that loses the reply to each of its
mails once; then a worker delivers, and what the sink has is compared byte for byte.

A program whose tool or library is not on this machine is skipped, and the reason names it; nothing is installed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from cli.delivery import delivering
from lossy import Cut, Lossy
from mailroom import Mailroom

from streamq import Mail
from streamq.mail import parse

EXAMPLES = Path(__file__).parents[2] / "examples"
MESSAGE = EXAMPLES / "order.eml"
GOCODE = Path("/usr/share/gocode")  # where Debian's packages put Go's libraries

RECEIPT = Mail(
    id="order-18-receipt",
    from_="Shop <shop@example.com>",
    to="Bob <bob@example.net>",
    subject="Your order № 18",
    text="Thank you, José.",
)
INVOICE = Mail.raw(MESSAGE.read_bytes(), "bounces@example.com", "bob@example.net", id="order-18-invoice")

Missing = str
# Each mail's first reply is lost: on the second connection the first mail's second XADD is answered
CUTS = (Cut(), Cut(let=1, of=2))


@dataclass(frozen=True)
class Program:
    """`ready` says what is missing on this machine, "" for nothing; `words` are what runs it, in the directory that it
    is given, where it may build."""

    file: str
    ready: Callable[[], Missing]
    words: Callable[[Path, Path], list[str]]
    cuts: tuple[Cut | None, ...] = CUTS
    environment: tuple[tuple[str, str], ...] = ()


def said(*words: str, **environment: str) -> str | None:
    """What a command prints; None where there is none or where it fails."""
    if shutil.which(words[0]) is None:
        return None
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment, timeout=100)
    return done.stdout if done.returncode == 0 else None


def needs(*words: str, **environment: str) -> Callable[[], Missing]:
    @cache
    def ready() -> Missing:
        found = said(*words, **environment)
        return "" if found is not None else f"not on this machine: {' '.join(words)}"

    return ready


@cache
def modules() -> Path:
    """Where `npm install -g` puts packages."""
    return Path((said("npm", "root", "-g") or "/nowhere").strip())


def node(package: str) -> Callable[[], Missing]:
    def ready() -> Missing:
        if shutil.which("node") is None:
            return "not on this machine: node"
        return "" if (modules() / package).is_dir() else f"not on this machine: npm install -g {package}"

    return ready


def beside_modules(program: Path, directory: Path) -> list[str]:
    """Modules of Node look for packages beside themselves; NODE_PATH is for `require` alone."""
    (directory / "node_modules").symlink_to(modules())
    return ["node", str(shutil.copy(str(program), directory))]


def built(program: Path, directory: Path) -> list[str]:
    made = directory / "send"
    subprocess.run(["cc", "-Wall", "-Werror", "-o", made, program, "-lhiredis"], check=True, capture_output=True)
    return [str(made)]


PROGRAMS = [
    # A connection for each command, and each lost reply is one
    Program(
        "shell/send.sh",
        needs("redis-cli", "--version"),
        lambda program, _: ["sh", str(program)],
        (Cut(), None, Cut(), None),
    ),
    Program("node/redis.mjs", node("redis"), beside_modules),
    Program("node/ioredis.mjs", node("ioredis"), beside_modules),
    Program("php/phpredis.php", needs("php", "-r", "new Redis;"), lambda program, _: ["php", str(program)]),
    Program(
        "php/predis.php",
        needs("php", "-r", "require 'Predis/autoload.php';"),
        lambda program, _: ["php", str(program)],
    ),
    Program("ruby/send.rb", needs("ruby", "-e", "require 'redis'"), lambda program, _: ["ruby", str(program)]),
    Program("perl/send.pl", needs("perl", "-MRedis", "-e", "1"), lambda program, _: ["perl", str(program)]),
    Program(
        "go/send.go",
        needs("go", "list", "github.com/gomodule/redigo/redis", GOPATH=str(GOCODE), GO111MODULE="off"),
        lambda program, _: ["go", "run", str(program)],
        environment=(("GOPATH", str(GOCODE)), ("GO111MODULE", "off")),
    ),
    Program("c/send.c", needs("sh", "-c", "echo '#include <hiredis/hiredis.h>' | cc -E -"), built),
    Program("java/Send.java", needs("java", "--list-modules"), lambda program, _: ["java", str(program)]),
    Program("python/redis_py.py", lambda: "", lambda program, _: [sys.executable, str(program)]),
    Program("python/client.py", lambda: "", lambda program, _: [sys.executable, str(program)]),
]


def test_every_example_is_run() -> None:
    programs = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*") if path.is_file()}
    assert programs == {program.file for program in PROGRAMS}


def test_the_message_is_as_eight_bit_as_mail_can_be() -> None:
    raw = MESSAGE.read_bytes()
    assert set(range(128, 256)) <= set(raw)
    assert b"\0" not in raw
    assert raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r")
    assert b"\r\n.\r\n" in raw


@pytest.mark.timeout(300)  # a compiler on a busy machine
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.file)
async def test_it_sends_two_mails_once(program: Program, server_url: str, room: Mailroom, tmp_path: Path) -> None:
    if missing := program.ready():
        pytest.skip(f"{program.file}: {missing}")
    async with Lossy(server_url, program.cuts) as line:
        code, out, err = await run(program, line.url, tmp_path)
        assert code == 0, err
        assert line.cuts == []
    rows = await room.do("XRANGE", room.keys.stream("normal"), "-", "+")
    entries = {id_.decode(): dict(zip(flat[::2], flat[1::2], strict=True)) for id_, flat in rows}
    assert list(entries.values()) == [RECEIPT.fields, RECEIPT.fields, INVOICE.fields, INVOICE.fields]
    told = out.replace('"', "").split()
    assert len(told) == 2
    for entry, name in zip(told, list(entries)[1::2], strict=True):
        assert entry.endswith(name)  # streamq's own client tells the priority's digit, too
    await _delivered(server_url, room, list(entries))


async def run(program: Program, url: str, directory: Path) -> tuple[int | None, str, str]:
    """Exit status, standard output and error."""
    words = await asyncio.to_thread(program.words, EXAMPLES / program.file, directory)
    runs = await asyncio.create_subprocess_exec(
        *words,
        str(MESSAGE),
        env=os.environ | dict(program.environment) | {"REDIS_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await runs.communicate()
    return runs.returncode, out.decode(), err.decode()


async def _delivered(server_url: str, room: Mailroom, entries: list[str]) -> None:
    last = b"0"
    ends: dict[str, str] = {}
    async with delivering(server_url) as sink:
        while len(ends) < len(entries):
            for _, rows in await room.do("XREAD", "BLOCK", 1000, "STREAMS", room.keys.events, last) or ():
                last = rows[-1][0]
            ends = {event.data["entry"][1:]: event.kind for event in await room.events()}
        received = [(mail.envelope_from, mail.envelope_to, mail.content) for mail in sink.received]
    assert [ends[entry] for entry in entries] == ["email.relayed", "email.duplicate"] * 2
    known = parse(
        RECEIPT.fields,
        entry=f"1{entries[0]}",
        at_ms=int(entries[0].partition("-")[0]),
        salt=room.spool.salt,
        max_bytes=10**6,
    )
    assert sorted(received) == sorted(
        [
            ("shop@example.com", ("bob@example.net",), known.content()),
            ("bounces@example.com", ("bob@example.net",), MESSAGE.read_bytes()),
        ]
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.file)
async def test_a_refusal_is_told_and_not_repeated(
    program: Program, server_url: str, room: Mailroom, tmp_path: Path
) -> None:
    """OOM: the program fails, with Redis's words, and does not go on to its second mail."""
    if missing := program.ready():
        pytest.skip(f"{program.file}: {missing}")
    await room.do("CONFIG", "SET", "maxmemory", 1)
    async with Lossy(server_url) as line:
        code, _, err = await run(program, line.url, tmp_path)
        assert (code != 0, line.xadds) == (True, 1), err
    assert "out of memory" in err.lower() or "maxmemory" in err.lower()
    assert await room.length() == 0
