"""AUTH: what each mechanism says, which one is taken, tokens that are refused, and what never goes out in the clear."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from scripted_relay import (
    CLOSE,
    RESET,
    Expect,
    Mails,
    Relay,
    Script,
    Step,
    hello,
    letter,
    office,
    on_both_loops,
    route,
)
from tidy import tidy
from token_endpoint import Endpoint, answer, token

from streamq.settings import RouteSettings
from streamq.smtp.access import Access
from streamq.smtp.connection import Connection, NotConnected
from streamq.smtp.handshake import Handshake, connect
from streamq.smtp.letter import Action, Scope, Stage
from streamq.smtp.replies import default_replies

USER, PASSWORD = "me@shop.example", "s3cret pass/word"
LOGIN = "me%40shop.example:s3cret%20pass%2Fword@"
BEARER = "me%40shop.example@"
OLD, NEW = "ya29.old-token-value", "ya29.new-token-value"
ALL = ["250-relay.example", "250-AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER", "250 PIPELINING"]
ERROR = {"status": "401", "schemes": "bearer", "scope": "https://mail.example/"}


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def xoauth2(value: str) -> str:
    return b64(f"user={USER}\x01auth=Bearer {value}\x01\x01")


PLAIN = b64(f"\0{USER}\0{PASSWORD}")
CHALLENGE = f"334 {b64(json.dumps(ERROR))}"
OK = "235 2.7.0 ok"
NO = "535 5.7.8 Username and Password not accepted"


def said_no(value: str) -> list[Step]:
    """XOAUTH2's own way: a challenge with the error, an empty line, then the no."""
    return [Expect(f"AUTH XOAUTH2 {xoauth2(value)}\r\n"), CHALLENGE, Expect("\r\n"), NO]


def said_yes(value: str) -> list[Step]:
    return [Expect(f"AUTH XOAUTH2 {xoauth2(value)}\r\n"), OK]


async def logs_in(*script: Step, login: str = LOGIN, ehlo: list[str] = ALL, **more: Any) -> Connection:
    async with tidy(), Relay([*hello(*ehlo), *script, Expect("QUIT"), "221 bye"]) as relay:
        link = await connect(Access(route(relay.port, login=login, **more)), 0, default_replies())
        await link.quit()
    return link


async def refused(*scripts: Script, login: str = LOGIN, connections: int = 1, **more: Any) -> NotConnected:
    async with tidy(), Relay(*[[*hello(*ALL), *script] for script in scripts]) as relay:
        with pytest.raises(NotConnected) as raised:
            await connect(Access(route(relay.port, login=login, **more)), 0, default_replies())
        assert len(relay.heard) == connections
    assert raised.value.stage is Stage.AUTH
    return raised.value


# -- what each says --------------------------------------------------------------------------------------------


@on_both_loops
async def test_plain() -> None:
    await logs_in(Expect(f"AUTH PLAIN {PLAIN}\r\n"), OK, auth=["plain"])


@on_both_loops
async def test_login() -> None:
    user, password = b64(USER), b64(PASSWORD)
    steps: list[Step] = [Expect(f"AUTH LOGIN {user}\r\n"), "334 UGFzc3dvcmQ6", Expect(f"{password}\r\n"), OK]
    await logs_in(*steps, auth=["login"])


@on_both_loops
async def test_an_initial_response_that_is_empty_is_said_to_be_there() -> None:
    """RFC 4954, section 4."""
    steps: list[Step] = [Expect("AUTH LOGIN =\r\n"), "334 UGFzc3dvcmQ6", Expect(f"{b64('secret')}\r\n"), OK]
    await logs_in(*steps, auth=["login"], login=":secret@")


@on_both_loops
async def test_cram_md5_as_in_rfc_2195() -> None:
    challenge = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
    response = "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"
    steps: list[Step] = [Expect("AUTH CRAM-MD5\r\n"), f"334 {challenge}", Expect(f"{response}\r\n"), OK]
    await logs_in(*steps, auth=["cram-md5"], login="tim:tanstaaftanstaaf@")


@on_both_loops
async def test_xoauth2() -> None:
    link = await logs_in(*said_yes(OLD), login=BEARER, auth=["xoauth2"], token={"value": OLD})
    assert link.serial == 1


@on_both_loops
async def test_oauthbearer_as_in_rfc_7628() -> None:
    ehlo = ["250-relay.example", "250 AUTH OAUTHBEARER XOAUTH2"]
    relay_script: Script = [*hello(*ehlo), Expect("AUTH OAUTHBEARER"), OK, Mails()]
    async with Relay(relay_script) as relay:
        port = relay.port
        link = await connect(Access(route(port, login="a%3Db%2Cc@", token={"value": OLD})), 0, default_replies())
        await link.quit()
        sent = base64.b64decode(relay.heard[0].lines[1].split()[-1]).decode()
    assert sent == f"n,a=a=3Db=2Cc,\x01host=127.0.0.1\x01port={port}\x01auth=Bearer {OLD}\x01\x01"


@on_both_loops
async def test_oauthbearer_answers_the_error_as_rfc_7628_says() -> None:
    script: Script = [Expect("AUTH OAUTHBEARER"), CHALLENGE, Expect("AQ==\r\n"), NO]
    failure = await refused(script, login=BEARER, token={"value": OLD})
    assert (failure.klass, failure.code) == ("authentication", 535)
    assert '"status": "401"' in failure.said


# -- which one is taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "offered", "taken"),
    [
        ([], "XOAUTH2 CRAM-MD5 LOGIN PLAIN", "PLAIN"),
        (["cram-md5", "plain"], "PLAIN CRAM-MD5", "CRAM-MD5"),
        ("LOGIN, PLAIN", "PLAIN LOGIN", "LOGIN"),
        (["login", "plain"], "PLAIN", "PLAIN"),
    ],
)
@on_both_loops
async def test_the_settings_order_decides(auth: list[str] | str, offered: str, taken: str) -> None:
    async with Relay([*hello("250-relay.example", f"250 AUTH {offered}"), Expect(f"AUTH {taken}"), NO]) as relay:
        with pytest.raises(NotConnected):
            await connect(Access(route(relay.port, login=LOGIN, auth=auth)), 0, default_replies())


@on_both_loops
async def test_what_is_not_allowed_is_not_used() -> None:
    async with Relay(hello("250-relay.example", "250 AUTH PLAIN LOGIN")) as relay:
        with pytest.raises(NotConnected) as raised:
            await connect(Access(route(relay.port, login=LOGIN, auth="cram-md5")), 0, default_replies())
        assert len(relay.heard[0].lines) == 1
    assert (raised.value.stage, raised.value.klass) == (Stage.AUTH, "authentication")
    assert "cram-md5" in raised.value.said


@on_both_loops
async def test_a_mechanism_that_is_not_there_after_all_is_followed_by_the_next() -> None:
    steps: list[Step] = [Expect("AUTH OAUTHBEARER"), "504 5.5.4 no", *said_yes(OLD)]
    await logs_in(*steps, login=BEARER, token={"value": OLD})


# -- a token that is refused -----------------------------------------------------------------------------------


class Sources:
    """A route whose token was kept before the test begins."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.settings: dict[str, Any] = {"url": endpoint.url, "refresh_token": "r"}

    async def kept(self, port: int, **more: Any) -> Access:
        access = Access(route(port, login=BEARER, auth=["xoauth2"], token=self.settings, **more))
        assert access.tokens is not None
        assert (await access.tokens.get()).value == OLD
        return access


@pytest.mark.parametrize("no", [said_no(OLD), [Expect("AUTH XOAUTH2"), NO]], ids=["challenge", "535"])
@on_both_loops
async def test_a_kept_token_that_is_refused_is_renewed_on_the_same_connection(no: list[Step]) -> None:
    async with (
        tidy(),
        Endpoint(token(OLD), token(NEW)) as endpoint,
        Relay([*hello(*ALL), *no, *said_yes(NEW)]) as relay,
    ):
        access = await Sources(endpoint).kept(relay.port)
        link = await connect(access, 0, default_replies())
        assert link.serial == 2
        assert (len(relay.heard), len(endpoint.asked)) == (1, 2)
        link.abort()


@pytest.mark.parametrize(
    "then",
    [[CLOSE], [RESET], [Expect("AUTH XOAUTH2"), "421 4.7.0 too many errors", CLOSE], [Expect("AUTH"), CLOSE]],
    ids=["closed", "reset", "421", "closed at the second"],
)
@on_both_loops
async def test_a_server_that_does_not_go_on_gets_a_new_connection(then: list[Step]) -> None:
    async with (
        tidy(),
        Endpoint(token(OLD), token(NEW)) as endpoint,
        Relay([*hello(*ALL), *said_no(OLD), *then], [*hello(*ALL), *said_yes(NEW)]) as relay,
    ):
        access = await Sources(endpoint).kept(relay.port)
        link = await connect(access, 0, default_replies())
        assert link.serial == 2
        assert (len(relay.heard), len(endpoint.asked)) == (2, 2)
        link.abort()


@on_both_loops
async def test_a_renewed_token_that_is_refused_is_the_end() -> None:
    async with (
        tidy(),
        Endpoint(token(OLD), token(NEW)) as endpoint,
        Relay([*hello(*ALL), *said_no(OLD), *said_no(NEW)]) as relay,
    ):
        access = await Sources(endpoint).kept(relay.port)
        with pytest.raises(NotConnected) as raised:
            await connect(access, 0, default_replies())
        assert (len(relay.heard), len(endpoint.asked)) == (1, 2)
    assert (raised.value.stage, raised.value.klass, raised.value.code) == (Stage.AUTH, "authentication", 535)


@on_both_loops
async def test_a_refusal_on_the_new_connection_is_the_end_too() -> None:
    async with (
        Endpoint(token(OLD), token(NEW)) as endpoint,
        Relay([*hello(*ALL), *said_no(OLD), CLOSE], [*hello(*ALL), *said_no(NEW)]) as relay,
    ):
        access = await Sources(endpoint).kept(relay.port)
        with pytest.raises(NotConnected) as raised:
            await connect(access, 0, default_replies())
        assert (len(relay.heard), len(endpoint.asked)) == (2, 2)
    assert raised.value.code == 535


@on_both_loops
async def test_a_token_that_was_just_fetched_is_not_renewed() -> None:
    async with tidy(), Endpoint(token(OLD), token(NEW)) as endpoint, Relay([*hello(*ALL), *said_no(OLD)]) as relay:
        way = route(relay.port, login=BEARER, auth="xoauth2", token=Sources(endpoint).settings)
        with pytest.raises(NotConnected):
            await connect(Access(way), 0, default_replies())
        assert len(endpoint.asked) == 1


@pytest.mark.parametrize("no", ["454 4.7.0 Temporary authentication failure", "530 5.7.0 first", "421 4.3.2 later"])
@on_both_loops
async def test_what_does_not_blame_the_token_does_not_renew_it(no: str) -> None:
    async with (
        Endpoint(token(OLD), token(NEW)) as endpoint,
        Relay([*hello(*ALL), Expect("AUTH XOAUTH2"), no]) as relay,
    ):
        access = await Sources(endpoint).kept(relay.port)
        with pytest.raises(NotConnected) as raised:
            await connect(access, 0, default_replies())
        assert (len(relay.heard), len(endpoint.asked)) == (1, 1)
    assert raised.value.code == int(no[:3])


@on_both_loops
async def test_an_endpoint_that_fails_is_met_before_the_relay_and_parks_mail() -> None:
    async with tidy():
        async with Endpoint(answer('{"error": "invalid_client"}', status="401 x")) as endpoint, Relay([]) as relay:
            way = route(relay.port, login=BEARER, token=Sources(endpoint).settings)
            async with office(way) as at:
                reports = await at.send(letter(), letter())
                assert {(r.action, r.scope, r.klass, r.stage) for r in reports} == {
                    (Action.PARK, Scope.ROUTE, "authentication", Stage.AUTH)
                }
                assert reports[0].reply == "token endpoint 127.0.0.1: status 401: invalid_client"
                assert [state.klass for state in at.states] == ["authentication"]
        assert relay.heard == []


@on_both_loops
async def test_an_endpoint_that_fails_when_a_token_was_refused() -> None:
    async with (
        tidy(),
        Endpoint(token(OLD), answer("", status="503 x")) as endpoint,
        Relay([*hello(*ALL), *said_no(OLD)]) as relay,
    ):
        access = await Sources(endpoint).kept(relay.port)
        with pytest.raises(NotConnected) as raised:
            await connect(access, 0, default_replies())
    assert (raised.value.stage, raised.value.klass) == (Stage.AUTH, "authentication")
    assert "status 503" in raised.value.said


@on_both_loops
async def test_a_connection_is_not_used_on_when_its_token_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(OLD)
    first: Script = [*hello(*ALL), *said_yes(OLD), Mails()]
    async with (
        tidy(),
        Relay(first, [*hello(*ALL), *said_yes(NEW), Mails()]) as relay,
        office(route(relay.port, login=BEARER, auth="xoauth2", token={"file": str(path)})) as at,
    ):
        await at.send(letter())
        await at.send(letter())
        assert len(relay.heard) == 1
        path.write_text(f"{NEW}\n")
        (report,) = await at.send(letter())
    assert report.action is Action.SENT
    assert [len(heard.bodies) for heard in relay.heard] == [2, 1]
    assert relay.heard[0].lines[-1] == "QUIT"


@on_both_loops
async def test_a_connection_that_a_password_opened_is_used_on() -> None:
    script: Script = [*hello("250-relay.example", "250 AUTH PLAIN"), Expect("AUTH PLAIN"), OK, Mails()]
    async with Relay(script) as relay, office(route(relay.port, login=LOGIN, token={"value": OLD})) as at:
        for _ in range(3):
            await at.send(letter())
    assert [len(heard.bodies) for heard in relay.heard] == [3]


# -- in the clear ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["may", "none"])
@pytest.mark.parametrize("way", ["xoauth2", "oauthbearer"])
@on_both_loops
async def test_a_token_never_goes_to_strangers_in_the_clear(
    way: str, tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 7628, 3: over TLS, whatever the route says."""
    monkeypatch.setattr(Handshake, "_on_this_machine", lambda _: False)
    async with Relay(hello(*ALL)) as relay:
        values: dict[str, Any] = {"auth": way, "token": {"value": OLD}, "tls": tls}
        with pytest.raises(NotConnected) as raised:
            await connect(Access(route(relay.port, login=BEARER, **values)), 0, default_replies())
        assert [line[:4] for line in relay.heard[0].lines] == ["EHLO"]
    assert (raised.value.stage, raised.value.klass) == (Stage.AUTH, "tls")


# -- a server that repeats what it was told --------------------------------------------------------------------


@pytest.mark.parametrize(
    "echo",
    [
        PLAIN,
        f"AUTH PLAIN {PLAIN[:20]}...",
        f'"{PLAIN}"',
        PASSWORD,
        f"<{PASSWORD}>",
    ],
)
@pytest.mark.parametrize(
    "reply", ["535 5.7.8 bad: {}", "500 unknown command {}", "HTTP/1.1 400 {}", "535-x {}\r\n535 {}"]
)
@on_both_loops
async def test_a_secret_that_is_repeated_is_not_passed_on(reply: str, echo: str) -> None:
    failure = await refused([Expect("AUTH PLAIN"), reply.replace("{}", echo)], auth="plain")
    shown = f"{failure} {failure!r} {failure.said}"
    for secret in (PASSWORD, PLAIN[:20], PLAIN[-12:]):
        assert secret not in shown


@on_both_loops
async def test_a_short_secret_leaves_the_words_of_others() -> None:
    failure = await refused([Expect("AUTH PLAIN"), "535 5.7.8 not good, no"], auth="plain", login="user:no@")
    assert failure.said == "5.7.8 not good, [secret]"


@pytest.mark.parametrize("way", ["plain", "login", "cram-md5", "xoauth2", "oauthbearer"])
@on_both_loops
async def test_challenges_without_end_are_not_answered_for_ever(way: str) -> None:
    bearer = way in {"xoauth2", "oauthbearer"}
    more: dict[str, Any] = {"token": {"value": OLD}, "login": BEARER} if bearer else {}
    rounds = {"plain": 0, "login": 1, "cram-md5": 1}.get(way, 1)
    again: list[Step] = [Expect(""), "334 PDFAeD4="]
    steps: list[Step] = [Expect("AUTH"), "334 PDFAeD4=", *again * rounds]
    failure = await refused(steps, auth=way, **more)
    assert failure.klass == "protocol"


@on_both_loops
async def test_a_cram_md5_challenge_that_is_none() -> None:
    failure = await refused([Expect("AUTH CRAM-MD5"), "334 ***"], auth="cram-md5")
    assert failure.klass == "protocol"


# -- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"auth": "ntlm"}, "auth\n  Value error, mechanisms are"),
        ({"auth": ["plain", "PLAIN"]}, "each mechanism once"),
        ({"auth": "xoauth2"}, "auth: xoauth2 needs a [token]"),
        ({"auth": "plain", "url": "smtp://h"}, "auth: needs a user"),
        ({"token": {"value": OLD}, "url": "smtp://h"}, "token: needs a user"),
        ({"token": {"value": OLD}, "url": "smtp://a%01b@h"}, "token: needs a user"),
        ({"token": {"value": OLD}, "auth": "plain"}, "token: auth allows neither"),
        ({"token": {"value": OLD}, "auth": ["plain", "xoauth2"], "url": "smtp://u@h"}, "no password in the url"),
        ({"url": "smtp://u:s3cret%00@h"}, "holds a NUL"),
        ({"url": "smtp://u%00:p@h"}, "holds a NUL"),
    ],
)
def test_settings_of_auth_that_cannot_be(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="validation error") as raised:
        RouteSettings.model_validate({"url": "smtp://u:p@h", **values})
    assert says in str(raised.value)


def test_a_password_is_the_second_choice_beside_a_token() -> None:
    way = RouteSettings.model_validate({"url": "smtp://u:p@h", "token": {"value": OLD}})
    assert way.mechanisms == ("oauthbearer", "xoauth2", "plain", "login", "cram-md5")
