"""Each way to fail at each point of a handshake: stage, class, nothing left open, nothing secret in the clear or in
a text. The cells are generated: POINTS by BREAKS, on both loops."""

from __future__ import annotations

import base64
import ssl
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scripted_relay import CLOSE, DEAF, RESET, Expect, Relay, StartTls, Step, on_both_loops, route, until
from tidy import tidy

from streamq.smtp.access import Access
from streamq.smtp.connection import NotConnected
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Stage
from streamq.smtp.replies import default_replies

PEM = str(Path(__file__).with_name("relay_test.pem"))
USER, PASSWORD, TOKEN = "shopuser", "s3cret-passw0rd", "ya29.s3cret-t0ken-value"
LOGIN, BEARER = f"{USER}:{PASSWORD}@", f"{USER}@"
PLAIN = f"\0{USER}\0{PASSWORD}"
XOAUTH2 = f"user={USER}\x01auth=Bearer {TOKEN}\x01\x01"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SENT = [PASSWORD, TOKEN, b64(PASSWORD), b64(PLAIN), b64(XOAUTH2)]


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


@dataclass
class Point:
    """Where it breaks: what the server did until then, by which route, and what that is called."""

    name: str
    stage: Stage
    before: list[Step]
    route: dict[str, Any] = field(default_factory=dict)
    implicit: bool = False
    raw: bool = False  # TLS is spoken now: a reply is garbage
    heard: list[str] = field(default_factory=list)  # secrets that the server has, and may repeat


GREETING = "220 relay.example ESMTP"
EHLO: list[Step] = [GREETING, Expect("EHLO ")]
OFFER = ["250-relay.example", "250-AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER", "250 PIPELINING"]
UP: list[Step] = [*EHLO, "250-relay.example", "250 STARTTLS", Expect("STARTTLS")]
OVER: dict[str, Any] = {"tls": "require", "tls_ca": PEM}
IMPLICIT: dict[str, Any] = {"scheme": "smtps", "tls_ca": PEM, "tls": "may"}
ERROR = "334 eyJzdGF0dXMiOiI0MDEifQ=="
CHALLENGE = "334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"


def secured(*steps: Step) -> list[Step]:
    return [*UP, "220 go", StartTls(tls()), Expect("EHLO "), *steps]


def auth(name: str, way: str, *steps: Step, heard: list[str]) -> list[Point]:
    """At one point of a mechanism: in the clear to this machine, and over TLS."""
    bearer = way in {"xoauth2", "oauthbearer"}
    how: dict[str, Any] = {"auth": way, "login": BEARER if bearer else LOGIN}
    if bearer:
        how["token"] = {"value": TOKEN}
    first: list[Step] = [*OFFER, Expect(f"AUTH {way.upper()}"), *steps]
    return [
        Point(f"{name} here", Stage.AUTH, [*EHLO, *first], how, heard=heard),
        Point(f"{name} over TLS", Stage.AUTH, secured(*first), {**how, **OVER}, heard=heard),
    ]


POINTS = [
    Point("greeting", Stage.GREETING, [], {"login": LOGIN}),
    Point("EHLO", Stage.EHLO, EHLO, {"login": LOGIN}),
    Point("HELO", Stage.EHLO, [*EHLO, "502 5.5.1 what", Expect("HELO ")], {"login": LOGIN}),
    Point("STARTTLS", Stage.STARTTLS, UP, {"login": LOGIN, **OVER}),
    Point("STARTTLS, if offered", Stage.STARTTLS, UP, {"login": LOGIN, **OVER, "tls": "may"}),
    Point("TLS after STARTTLS", Stage.STARTTLS, [*UP, "220 go"], {"login": LOGIN, **OVER}, raw=True),
    Point("EHLO over TLS", Stage.EHLO, secured(), {"login": LOGIN, **OVER}),
    Point("implicit TLS", Stage.STARTTLS, [], {"login": LOGIN, **IMPLICIT}, raw=True),
    Point("greeting over TLS", Stage.GREETING, [], {"login": LOGIN, **IMPLICIT}, implicit=True),
    Point("EHLO over implicit TLS", Stage.EHLO, EHLO, {"login": LOGIN, **IMPLICIT}, implicit=True),
    *auth("PLAIN", "plain", heard=[PASSWORD, b64(PLAIN)]),
    *auth("LOGIN", "login", heard=[]),
    *auth("LOGIN, password", "login", "334 UGFzc3dvcmQ6", Expect(""), heard=[PASSWORD, b64(PASSWORD)]),
    *auth("CRAM-MD5", "cram-md5", heard=[]),
    *auth("CRAM-MD5, response", "cram-md5", CHALLENGE, Expect(""), heard=[]),
    *auth("XOAUTH2", "xoauth2", heard=[TOKEN, b64(XOAUTH2)]),
    *auth("XOAUTH2, error", "xoauth2", ERROR, Expect("\r\n"), heard=[TOKEN, b64(XOAUTH2)]),
    *auth("OAUTHBEARER", "oauthbearer", heard=[TOKEN]),
    *auth("OAUTHBEARER, error", "oauthbearer", ERROR, Expect("AQ=="), heard=[TOKEN]),
]
BREAKS: dict[str, list[Step]] = {
    "4xx": ["454 4.7.0 not now"],
    "5xx": ["554 5.7.1 not you"],
    "421": ["421 4.3.2 closing channel", CLOSE],
    "421, left open": ["421 4.3.2 closing channel"],
    "EOF": [CLOSE],
    "RST": [RESET],
    "silence": [],
    "deaf": [DEAF],
    "garbage": ["HTTP/1.1 400 Bad Request"],
    "no digits": [b"\x00\xff\xfe\r\n"],
    "endless line": [b"2" * 50_000],
    "endless reply": [b"250-more\r\n" * 10_000],
    "half a reply, EOF": [b"45", CLOSE],
    "half a reply, silence": [b"454-not\r\n45"],
    "codes that differ": [b"454-not\r\n554 now\r\n"],
}
PERMANENT = {"4xx": "temporary", "5xx": "policy", "421": "shutting_down", "421, left open": "shutting_down"}
NO_REPLY = {
    "EOF": {"disconnected"},
    "RST": {"disconnected"},
    "half a reply, EOF": {"disconnected"},
    "silence": {"timeout"},
    "deaf": {"timeout"},
    "half a reply, silence": {"timeout"},
}
CODES = {"4xx": 454, "5xx": 554, "421": 421, "421, left open": 421}


def expected(point: Point, what: str) -> tuple[set[str], set[int]]:
    """The classes and codes that it may have."""
    if point.raw:
        # OpenSSL waits for the rest of what looks like a record; whether it has seen enough is its business.
        if what in {"silence", "deaf"}:
            return {"timeout"}, {0}
        if what in {"EOF", "RST"}:
            return {"disconnected", "tls"}, {0}
        return {"tls", "disconnected", "timeout", "protocol"}, {0}  # protocol: it came together with the 220
    if what in PERMANENT:
        special = {Stage.STARTTLS: "tls", Stage.AUTH: "authentication"}
        return {special.get(point.stage, PERMANENT[what])}, {CODES[what]}
    if what == "codes that differ" and point.stage is Stage.GREETING:  # aiosmtplib reads it alone, and takes the last
        return {"rejected"}, {554}
    return NO_REPLY.get(what, {"protocol"}), {0}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
@on_both_loops
async def test_a_handshake_that_fails(point: Point, what: str) -> None:
    classes, codes = expected(point, what)
    async with tidy():
        for seconds in (0.1, 1.0, 10.0):
            failure, in_the_clear = await fails(point, BREAKS[what], seconds if "timeout" in classes else 30.0)
            if failure.stage is point.stage or failure.klass != "timeout":
                break  # else the machine was too slow to get there: it gets more time
        assert failure.klass in classes, failure
        assert (failure.stage, failure.code in codes) == (point.stage, True), failure
        shown = "".join(traceback.format_exception(failure)) + f"{failure.said}{failure!r}"
        for secret in SENT:
            assert secret not in in_the_clear + shown


async def fails(point: Point, how: list[Step], seconds: float) -> tuple[NotConnected, str]:
    """The failure, and what was said in the clear where TLS was asked for."""
    told = "".join(f" {secret}" for secret in point.heard)
    steps = [f"{step}{told}" if isinstance(step, str) and " " in step else step for step in how]
    limits = {"greeting_timeout": f"{seconds}s", "command_timeout": f"{seconds}s"}
    async with Relay([*point.before, *steps], context=tls() if point.implicit else None) as relay:
        access = Access(route(relay.port, **point.route, **limits))
        with pytest.raises(NotConnected) as raised:
            await connect(access, 0, default_replies())
        if DEAF not in how:
            await until(lambda: not relay.at_work)  # it has seen our end
    return raised.value, "\n".join(line for heard in relay.heard for line in heard.clear)


def test_how_many_cells() -> None:
    """A point or a break that is lost on the way is missed."""
    assert (len(POINTS), len(BREAKS)) == (28, 15)
