"""One run of a peer: Debian's Postfix, tuned; dramatiq, taskiq, celery with kept connections (bench/peers).

POSTFIX   Everything waits in its hold queue and is released (drain), or comes from smtp-source over 20 sessions that
          are kept, and is counted from the first (flow). Tuned: as many connections to its relay as streamq has, taken
          over from mail to mail; no wait before mail is passed on; no limit of clients; an active queue that holds
          all (bench/postfix.py).
OTHERS    Their backlog stands in the same server as streamq's would; measured from the moment when all of them wait for
          the sink's greeting (bench/gate.py).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bench.accounting import used
from bench.cases import CONNECTIONS, Case, Run
from bench.content import message
from bench.debian_sink import debian_sink
from bench.facts import of_server, version
from bench.gate import Receiver, delivered, poised, still
from bench.mta import Mta, mta
from bench.package import Missing, find_package
from bench.postfix import relaying_to, tuned
from bench.programs import programs, rested
from bench.server_books import books
from streamq.queue.connection import command
from streamq.queue.spool import Spool
from streamq.settings import load_settings

__all__ = ["feed_peer", "inject", "peer_workers", "release", "run_peer", "run_postfix"]

THREADS = 16
SECONDS = 900.0
ROOT = Path(__file__).parents[1]
HOW = "pip install -e '.[peers]' installs it"


def _words(peer: str, processes: int) -> list[list[str]]:
    """The command lines of its workers, without the interpreter. Raises `Missing`."""
    needs = {"dramatiq": "dramatiq", "celery": "celery", "taskiq": "taskiq_redis"}[peer]
    if importlib.util.find_spec(needs) is None:
        raise Missing(f"{peer} is not installed; {HOW}")
    if peer == "dramatiq":
        return [["dramatiq", "bench.peers.dramatiq_app", "-p", str(processes), "-t", str(THREADS)]]
    if peer == "taskiq":
        flags = ["--workers", str(processes), "--max-async-tasks", "100", "--log-level", "WARNING"]
        return [["taskiq", "worker", "bench.peers.taskiq_app:broker", *flags]]
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    one = ["celery", "-A", "bench.peers.celery_app", "worker", "-P", "threads", "-c", str(THREADS), *flags]
    return [[*one, "-n", f"w{number}@bench"] for number in range(processes)]


@asynccontextmanager
async def peer_workers(
    peer: str, processes: int, environment: Mapping[str, str], folder: Path
) -> AsyncIterator[list[int]]:
    """Their parents' process ids; all end with the context."""
    with (folder / "peer.log").open("wb") as log:
        started = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *words), env=environment, cwd=ROOT, stdout=log, stderr=log,
                start_new_session=True,
            )
            for words in _words(peer, processes)
        ]  # fmt: skip
        try:
            yield [process.pid for process in started]
        finally:
            for process in started:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)  # nothing of theirs is kept
                await process.wait()


async def feed_peer(
    peer: str, mails: int, kind: str, environment: Mapping[str, str], domain: str = "example*.net"
) -> None:
    """Its backlog, by a process that ends. Raises `RuntimeError`."""
    words = ("-m", "bench.peers.feed", peer, str(mails), kind, domain)
    feeder = await asyncio.create_subprocess_exec(sys.executable, *words, env=environment, cwd=ROOT)
    if await feeder.wait():
        raise RuntimeError(f"{peer}: its backlog could not be made")


async def run_peer(folder: Path, case: Case, mails: int) -> Run:
    try:
        _words(case.client, 1)
        async with programs(folder) as p:
            spool = await Spool.connect(load_settings(), p.url)
            p.stack.push_async_callback(spool.close)
            await command(spool.redis, "CONFIG SET", "appendfsync", case.fsync)
            sink: Receiver
            if case.sink == "own":
                sink = await p.sink(options=("--ledger-limit", "0"))
            else:
                sink = await p.stack.enter_async_context(debian_sink(folder))
            known = {**os.environ, "PEER_REDIS": p.url, "PEER_RELAY": f"127.0.0.1:{sink.port}"}
            await feed_peer(case.client, mails, case.kind, known)
            await rested(spool)
            sink.hold()
            loop = asyncio.get_running_loop()
            async with peer_workers(case.client, case.processes, known, folder) as roots:
                if not await poised(sink, roots, case.processes):
                    log = (folder / "peer.log").read_text("utf-8", "replace")
                    raise RuntimeError(f"{case.client} does not connect: {log[-2000:]}")
                sinks = used(sink.process.pid)
                before, cpu, begun = await books(spool.redis), used(*roots), loop.time()
                sink.go()
                seconds = await delivered(sink, mails, SECONDS) - begun
                await still(roots)  # until the last mails are acknowledged, too
                spent = used(*roots) - cpu
                work = (await books(spool.redis)).since(before, mails)
                sinks = used(sink.process.pid) - sinks
            figures = {
                "mails_per_s": mails / seconds,
                "worker_cpu_s_per_1000": spent / mails * 1000,
                "sink_cpu_s_per_1000": sinks / mails * 1000,
            }
            kept = {"redis_cpu_s_per_1000", "socket_reads_per_mail", "commands_per_mail"}
            return Run(
                case,
                version(case.client),
                mails,
                {**figures, **{name: value for name, value in work.items() if name in kept}},
                {"each mail once": sink.count() == mails},
                {"command": [" ".join(words) for words in _words(case.client, case.processes)]},
                await of_server(spool.redis),
            )
    except Missing as why:
        return Run(case, skipped=str(why))


def _tool_path(name: str) -> str:
    """Of a command of Debian's package postfix, installed or unpacked. Raises `Missing`."""
    found = find_package(("postfix",)).root / "usr/sbin" / name
    if not found.exists():
        raise Missing(f"{found} is not there")
    return str(found)


def tool(server: Mta, *words: str, tries: int = 1) -> None:
    """One of Postfix's own commands, on that instance. Raises `RuntimeError`."""
    command_ = [_tool_path(words[0]), "-c", str(server.place / "etc"), *words[1:]]
    for _ in range(tries):
        done = subprocess.run(command_, env=server.environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def release(server: Mta) -> None:
    """What it holds, at once."""
    tool(server, "postsuper", "-H", "ALL")
    # What postqueue -f says to the queue manager (flush dead, all, deferred): that command wants a pickup service.
    # A queue manager that is busy with what it was told before does not listen.
    tool(server, "postkick", "public", "qmgr", "FAD", tries=100)


async def inject(server: Mta, mails: int, length: int, to: str = "bob@example.net") -> None:
    """By smtp-source, over sessions that are kept. Raises `Missing`, `RuntimeError`."""
    words = ["-d", "-s", str(CONNECTIONS), "-m", str(mails), "-l", str(length), "-f", "shop@example.com"]
    process = await asyncio.create_subprocess_exec(
        _tool_path("smtp-source"), *words, "-t", to, f"127.0.0.1:{server.port}",
        env=server.environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    if await process.wait():
        raise RuntimeError(f"smtp-source ended with {process.returncode}")


async def _postfix(server: Mta, sink: Receiver, case: Case, mails: int) -> tuple[float, float]:
    """Seconds, CPU seconds."""
    loop = asyncio.get_running_loop()
    length = len(message(case.kind))
    drains = case.what == "drain"
    if drains:
        await inject(server, mails, length)
    await still([server.process.pid])
    cpu, begun = used(server.process.pid), loop.time()
    feeding = None
    if drains:
        await asyncio.to_thread(release, server)
    else:
        feeding = asyncio.create_task(inject(server, mails, length))
    seconds = await delivered(sink, mails, SECONDS) - begun
    if feeding is not None:
        await feeding
    await still([server.process.pid])
    return seconds, used(server.process.pid) - cpu


async def run_postfix(folder: Path, case: Case, mails: int) -> Run:
    try:
        async with programs(folder, "unused") as p:
            sink: Receiver
            if case.sink == "own":
                sink = await p.sink(options=("--ledger-limit", "0"))
            else:
                sink = await p.stack.enter_async_context(debian_sink(folder))
            lines = tuned(held=case.what == "drain")
            with mta("postfix", relaying_to(sink.port, CONNECTIONS * case.processes, lines)) as server:
                sinks = used(sink.process.pid)
                seconds, spent = await _postfix(server, sink, case, mails)
                sinks = used(sink.process.pid) - sinks
                return Run(
                    case,
                    server.version,
                    mails,
                    {
                        "mails_per_s": mails / seconds,
                        "worker_cpu_s_per_1000": spent / mails * 1000,
                        "sink_cpu_s_per_1000": sinks / mails * 1000,
                    },
                    {"each mail once": sink.count() == mails},
                    {"main.cf": (server.place / "etc/main.cf").read_text().splitlines()},
                )
    except Missing as why:
        return Run(case, skipped=str(why))
