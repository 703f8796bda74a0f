"""TLS by route: whom to trust, as whom, at least which version, our own certificate, fingerprints; wrong files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_relay import Expect, Mails, Relay, StartTls, Step, hello, letter, office, on_both_loops, route
from tidy import tidy

from streamq.errors import SettingsError
from streamq.settings import RouteSettings, load_settings
from streamq.smtp.access import Access, check_routes
from streamq.smtp.connection import NotConnected
from streamq.smtp.handshake import connect
from streamq.smtp.letter import Action, Stage
from streamq.smtp.reach import Reach, Target
from streamq.smtp.replies import default_replies
from streamq.worker import Worker

HERE = Path(__file__).parent
PEM = str(HERE / "relay_test.pem")  # localhost and 127.0.0.1
OTHER = str(HERE / "other_test.pem")  # other.test
LOCKED = str(HERE / "relay_test_locked.pem")  # relay_test.pem, its key encrypted with:
PASSWORD = "opensesame"
CERTIFICATE = Path(PEM).read_text()[Path(PEM).read_text().index("-----BEGIN CERT") :]
PIN = hashlib.sha256(ssl.PEM_cert_to_DER_cert(CERTIFICATE)).hexdigest()
STARTTLS = ["250-relay.example", "250-STARTTLS", "250 PIPELINING"]
BOTH_WAYS = pytest.mark.parametrize("scheme", ["smtp", "smtps"])


def server(pem: str = PEM, *, clients: str | None = None, most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    if most is not None:
        context.maximum_version = most
    return context


def script(scheme: str, context: ssl.SSLContext) -> tuple[list[Step], ssl.SSLContext | None]:
    if scheme == "smtps":
        return [*hello(), Mails()], context
    return [*hello(*STARTTLS), Expect("STARTTLS"), "220 go", StartTls(context), Expect("EHLO"), "250 hi", Mails()], None


async def sends(scheme: str, context: ssl.SSLContext, **more: Any) -> str:
    """The version of TLS that a mail went out by."""
    steps, implicit = script(scheme, context)
    async with (
        tidy(),
        Relay(steps, context=implicit) as relay,
        office(route(relay.port, scheme=scheme, tls="require", **more)) as at,
    ):
        (report,) = await at.send(letter())
    assert report.action is Action.SENT, report
    return report.tls


async def fails(scheme: str, context: ssl.SSLContext, **more: Any) -> str:
    """What was wrong with TLS, and that no password was said."""
    steps, implicit = script(scheme, context)
    async with tidy():
        async with Relay(steps, context=implicit) as relay:
            failure = await refused(relay.port, scheme=scheme, **more)
        assert not [line for heard in relay.heard for line in heard.lines if "AUTH" in line]
    assert failure.klass == "tls"
    return failure.said


async def refused(port: int, **more: Any) -> NotConnected:
    access = Access(route(port, tls="require", login="user:s3cretword@", **more))
    with pytest.raises(NotConnected) as raised:
        await connect(access, 0, default_replies())
    assert raised.value.stage is Stage.STARTTLS
    return raised.value


@contextlib.contextmanager
def stern(context: ssl.SSLContext) -> Iterator[int]:
    """A server that says why it refuses a handshake, as OpenSSL's do (asyncio's hangs up without its alert)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as secured:
                secured.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


async def kept_secret(scheme: str, **more: Any) -> bool:
    """Whether a mail that requires TLS went out, to a server that offers REQUIRETLS."""
    steps, implicit = script(scheme, server())
    steps = ["250-hi\r\n250 REQUIRETLS" if step == "250 hi" else step for step in steps]
    if implicit is not None:
        steps = [*hello("250-relay.example", "250 REQUIRETLS"), Mails()]
    async with (
        tidy(),
        Relay(steps, context=implicit) as relay,
        office(route(relay.port, scheme=scheme, tls="require", **more)) as at,
    ):
        (report,) = await at.send(letter(require_tls=True))
    assert [report.klass, bool(relay.bodies)] in (["sent", True], ["require_tls", False])
    return report.klass == "sent"


@BOTH_WAYS
@on_both_loops
async def test_what_requires_tls_goes_where_the_server_proved_who_it_is(scheme: str) -> None:
    assert await kept_secret(scheme, tls_ca=PEM)
    assert await kept_secret(scheme, verify=False, tls_pin=PIN)
    assert not await kept_secret(scheme, verify=False)


@BOTH_WAYS
@on_both_loops
async def test_a_ca_of_ones_own(scheme: str) -> None:
    assert await sends(scheme, server(), tls_ca=PEM) == "TLSv1.3"


@BOTH_WAYS
@on_both_loops
async def test_a_ca_file_stands_instead_of_the_systems(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", PEM)
    assert "self-signed" in await fails(scheme, server(), tls_ca=OTHER)


@BOTH_WAYS
@on_both_loops
async def test_a_name_to_verify(scheme: str) -> None:
    assert await sends(scheme, server(OTHER), tls_ca=OTHER, tls_name="other.test")
    assert "not valid for" in await fails(scheme, server(OTHER), tls_ca=OTHER)
    assert "not valid for" in await fails(scheme, server(OTHER), tls_ca=OTHER, tls_name="third.test")


@on_both_loops
async def test_the_dot_behind_a_host_is_no_part_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(reach: Reach) -> list[Target]:
        return [Target(socket.AF_INET, socket.SOCK_STREAM, 6, ("127.0.0.1", reach._route.port))]

    monkeypatch.setattr(Reach, "_look_up", found)
    assert await sends("smtps", server(), tls_ca=PEM, host="localhost.")


@on_both_loops
async def test_the_lowest_version() -> None:
    old = ssl.TLSVersion.TLSv1_2
    assert await sends("smtp", server(most=old), tls_ca=PEM) == "TLSv1.2"
    with stern(server(most=old)) as port:
        failure = await refused(port, scheme="smtps", tls_ca=PEM, tls_min="1.3")
    assert failure.klass == "tls"
    assert "VERSION" in failure.said


@BOTH_WAYS
@on_both_loops
async def test_a_client_certificate(scheme: str) -> None:
    asks = server(clients=PEM)
    assert await sends(scheme, asks, tls_ca=PEM, tls_cert=PEM)
    assert await sends(scheme, asks, tls_ca=PEM, tls_cert=PEM, tls_key=LOCKED, tls_key_password=PASSWORD)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@on_both_loops
async def test_a_server_that_asks_for_a_certificate_and_gets_none(version: ssl.TLSVersion) -> None:
    """In TLS 1.3 its no comes when our side of the handshake is over: it is about TLS all the same."""
    with stern(server(clients=PEM, most=version)) as port:
        failure = await refused(port, scheme="smtps", tls_ca=PEM)
    assert failure.klass == "tls"
    assert "ALERT" in failure.said


@BOTH_WAYS
@on_both_loops
async def test_a_fingerprint(scheme: str) -> None:
    colons = "sha256 Fingerprint=" + ":".join(PIN[at : at + 2].upper() for at in range(0, 64, 2))
    assert await sends(scheme, server(), verify=False, tls_pin=PIN)
    assert await sends(scheme, server(), verify=False, tls_pin=["0" * 64, colons])
    assert PIN in await fails(scheme, server(), verify=False, tls_pin="0" * 64)
    assert "self-signed" in await fails(scheme, server(), tls_pin=PIN), "a pin does not replace what `verify` asks"


# -- settings, and the files that they name --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tls_ca": "/nowhere.pem"}, "tls_ca: No such file or directory: '/nowhere.pem'"),
        ({"tls_ca": "/"}, "tls_ca: not a file: '/'"),
        ({"tls_ca": __file__}, f"tls_ca: no certificate (PEM) in it: {__file__!r}"),
        ({"tls_ca": "a\0b"}, "tls_ca: embedded null byte: 'a\\x00b'"),
        ({"tls_cert": "/nowhere.pem"}, "tls_cert: No such file or directory: '/nowhere.pem'"),
        ({"tls_cert": __file__}, f"tls_cert: no certificate (PEM) in it: {__file__!r}"),
        ({"tls_cert": PEM, "tls_key": "/nowhere.key"}, "tls_key: No such file or directory: '/nowhere.key'"),
        ({"tls_cert": PEM, "tls_key": __file__}, f"tls_key: no private key (PEM) in it: {__file__!r}"),
        ({"tls_cert": PEM, "tls_key": OTHER}, f"tls_key: not the key of {PEM!r}: {OTHER!r}"),
        ({"tls_cert": LOCKED}, f"tls_key_password: the key is encrypted, and no password is set: {LOCKED!r}"),
        ({"tls_cert": LOCKED, "tls_key_password": "wrongword"}, f"tls_key_password: does not open the key: {LOCKED!r}"),
        ({"tls_cert": LOCKED, "tls_key_password": "w" * 2000}, f"tls_key_password: does not open the key: {LOCKED!r}"),
    ],
)
def test_a_file_that_is_missing_or_wrong_is_met_at_the_start(more: dict[str, Any], says: str) -> None:
    way = RouteSettings.model_validate({"url": "smtp://h", **more})
    with pytest.raises(SettingsError) as raised:
        check_routes({"main": way})
    assert str(raised.value) == f"routes.main.{says}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(Path(PEM).read_text())
    path.chmod(0)
    with pytest.raises(SettingsError, match=r"routes\.main\.tls_ca: Permission denied: "):
        check_routes({"main": RouteSettings.model_validate({"url": "smtp://h", "tls_ca": str(path)})})


def test_a_worker_does_not_start_without_its_files(tmp_path: Path) -> None:
    path = tmp_path / "streamq.toml"
    path.write_text('[routes.main]\nurl = "smtp://h"\ntls_ca = "/nowhere.pem"')
    known = load_settings(config=path)  # who only looks at the queue needs no file
    with pytest.raises(SettingsError, match=r"routes\.main\.tls_ca: .*/nowhere\.pem"):
        Worker(known, "redis://127.0.0.1:1")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tls": "none", "tls_ca": PEM}, "tls_ca: no TLS with tls = 'none'"),
        ({"tls": "none", "tls_pin": PIN}, "tls_pin: no TLS"),
        ({"tls": "may", "tls_pin": PIN}, "tls_pin: needs tls = 'require': 'may' may go on without TLS"),
        ({"tls_pin": "abc"}, "not a SHA-256 fingerprint (64 hexadecimal digits): 'abc'"),
        ({"verify": False, "tls_ca": PEM}, "tls_ca: nothing is held against it with verify = false"),
        ({"tls_key": PEM}, "tls_key: needs tls_cert"),
        ({"tls_key_password": "x"}, "tls_key_password: needs tls_cert"),
        ({"tls_min": "1.1"}, "'1.2' or '1.3'"),
        ({"tls_name": "a b"}, "a host name"),
    ],
)
def test_settings_that_do_not_go_together(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="validation error") as raised:
        RouteSettings.model_validate({"url": "smtp://h", **more})
    assert says in str(raised.value)


def test_the_lowest_version_may_be_written_as_a_number(tmp_path: Path) -> None:
    path = tmp_path / "streamq.toml"
    path.write_text(
        '[routes.main]\nurl = "smtps://h"\ntls = "none"\ntls_min = 1.3\ntls_key_password = "x"\ntls_cert = "y"'
    )
    way = load_settings(config=path).ways["main"]
    assert way.tls_min == "1.3"
    assert "'x'" not in repr(way)
