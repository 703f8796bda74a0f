from __future__ import annotations

import hmac
from base64 import b64decode, b64encode

import aiosmtplib
import pytest
from sink_client import dial

from streamq.errors import SettingsError
from streamq.sink import Auth, Rule, Rules, Sink, User, self_signed

SHOP = User(name="shop", password="geheim")
PHONE = User(name="phone", token="ya29", token_seconds=3600)


def ruled(*rules: Rule, auth: Auth = Auth()) -> Rules:  # noqa: B008 (frozen)
    return Rules(rules, users=(SHOP, PHONE), auth=auth)


def text(data: bytes) -> str:
    return b64encode(data).decode()


async def test_what_is_offered_and_required() -> None:
    async with Sink(rules=ruled()) as sink, dial(sink, hello=False) as client:
        await client.reply()
        await client.send(b"EHLO x\r\n")
        assert "250-AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2" in (await client.reply()).replace("250 AUTH", "250-AUTH")
        assert await client.ask("MAIL FROM:<a@x>") == "530 5.7.0"
        assert await client.ask(f"AUTH PLAIN {text(b'%bshop%bgeheim' % (bytes(1), bytes(1)))}") == "235 2.7.0"
        assert await client.ask("AUTH PLAIN") == "503 5.5.1"
        assert await client.ask("MAIL FROM:<a@x> AUTH=<>") == "250 2.1.0"


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5"])
@pytest.mark.parametrize(("password", "good"), [("geheim", True), ("wrong", False), ("", False)])
async def test_aiosmtplib_agrees(mechanism: str, password: str, good: bool) -> None:
    rules = ruled(auth=Auth(mechanisms=(mechanism.upper(),)))
    async with Sink(rules=rules) as sink:
        client = aiosmtplib.SMTP(hostname=sink.host, port=sink.port, start_tls=False)
        await client.connect()
        if good:
            await client.login("shop", password)
            await client.sendmail("a@x", ["b@x"], b"Subject: x\r\n\r\n")
            assert sink.received[0].user == "shop"
        else:
            with pytest.raises(aiosmtplib.SMTPAuthenticationError) as wrong:
                await client.login("shop", password)
            assert wrong.value.code == 535
        await client.quit()
        assert sink.counters.authenticated == good


DIALOGUES = [
    (["AUTH PLAIN", text(b"\0shop\0geheim")], ["334", "235 2.7.0"]),
    (["AUTH PLAIN", text(b"shop\0shop\0geheim")], ["334", "235 2.7.0"]),
    (["AUTH PLAIN", text(b"root\0shop\0geheim")], ["334", "535 5.7.8"]),
    (["AUTH PLAIN", text(b"\0phone\0")], ["334", "535 5.7.8"]),  # a user without a password has no empty one
    (["AUTH PLAIN", "*"], ["334", "501 5.7.0"]),
    (["AUTH PLAIN *"], ["501 5.5.2"]),
    (["AUTH PLAIN ="], ["535 5.7.8"]),
    (["AUTH PLAIN", "####"], ["334", "501 5.5.2"]),
    (["AUTH LOGIN", text(b"shop"), text(b"geheim")], ["334", "334", "235 2.7.0"]),
    (["AUTH LOGIN " + text(b"shop"), text(b"no")], ["334", "535 5.7.8"]),
    (["AUTH CRAM-MD5 " + text(b"shop")], ["501 5.7.0"]),
    (["AUTH CRAM-MD5", text(b"phone " + hmac.new(b"", b"", "md5").hexdigest().encode())], ["334", "535 5.7.8"]),
    (["AUTH GSSAPI"], ["504 5.5.4"]),
    (["AUTH"], ["504 5.5.4"]),
    (["AUTH XOAUTH2 " + text(b"user=phone\1auth=Bearer ya29\1\1")], ["235 2.7.0"]),
    (["AUTH XOAUTH2 " + text(b"user=phone\1auth=Bearer old\1\1"), ""], ["334", "535 5.7.8"]),
    (["AUTH XOAUTH2 " + text(b"user=shop\1auth=Bearer \1\1"), ""], ["334", "535 5.7.8"]),
    (["AUTH PLAIN", text(b"x" * 9000)], ["334", "535 5.7.8"]),
]


@pytest.mark.parametrize(("lines", "codes"), DIALOGUES)
async def test_dialogues(lines: list[str], codes: list[str]) -> None:
    async with Sink(rules=ruled()) as sink, dial(sink) as client:
        assert await client.asked(*lines) == codes
        assert await client.ask("NOOP") == "250 2.0.0"


async def test_an_expired_token_gets_its_json_and_then_535() -> None:
    now = [0.0]
    async with Sink(rules=ruled(), clock=lambda: now[0]) as sink, dial(sink) as client:
        now[0] = 3600.0
        await client.send(b"AUTH XOAUTH2 " + b64encode(b"user=phone\1auth=Bearer ya29\1\1") + b"\r\n")
        code, _, challenge = (await client.reply()).partition(" ")
        assert code == "334"
        assert b'"status":"401"' in b64decode(challenge)
        assert await client.ask("") == "535 5.7.8"
        assert sink.counters.refused_by == {"auth 535": 1}


async def test_535_after_a_while() -> None:
    rules = ruled(Rule(stage="auth", match="shop", after_accepted=1, reply="535"))
    plain = f"AUTH PLAIN {text(bytes(1) + b'shop' + bytes(1) + b'geheim')}"
    async with Sink(rules=rules) as sink:
        async with dial(sink) as client:
            assert await client.ask(plain) == "235 2.7.0"
            assert await client.mail() == "250 2.0.0"
        async with dial(sink) as client:
            assert await client.asked(plain, "MAIL FROM:<a@x>") == ["535 5.7.8", "530 5.7.0"]
            sink.follow(ruled())  # told otherwise
            assert await client.asked(plain, "MAIL FROM:<a@x>") == ["235 2.7.0", "250 2.1.0"]


async def test_only_within_tls() -> None:
    rules = ruled(auth=Auth(tls_only=True, required=False))
    async with Sink(rules=rules, tls=self_signed()) as sink, dial(sink) as client:
        assert await client.asked("AUTH PLAIN", "MAIL FROM:<a@x>") == ["502 5.5.1", "250 2.1.0"]


@pytest.mark.parametrize(
    ("kind", "entries", "words"),
    [
        (User, {"name": "x"}, "name: a user needs a password or a token"),
        (User, {"name": "x", "password": 5}, "password: not a text"),
        (User, {"name": "x", "token": "t", "token_seconds": -1}, "token_seconds: .*-1"),
        (Auth, {"mechanisms": ["NTLM"]}, "mechanisms: not a list of PLAIN.*NTLM"),
        (Auth, {"mechanisms": []}, "mechanisms"),
        (Auth, {"required": "yes"}, "required: not true or false .*'yes'"),
    ],
)
def test_what_is_wrong(kind: type, entries: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        kind(**entries)
