from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from streamq.errors import SettingsError
from streamq.smtp.letter import Action, Scope, Stage
from streamq.smtp.replies import Replies, Verdict, default_replies
from streamq.smtp.transaction import plain_text

GMAIL_RATE = (
    b"4.7.28 Gmail has detected an unusual rate of\n4.7.28 unsolicited mail originating from your IP address. To\n"
    b"4.7.28 protect our users from spam, mail has been temporarily rate limited."
)

MEANINGS = [
    # stage, code, text, class, scope, action
    ("dot", 250, "2.0.0 Ok: queued as 4Xyz", "sent", "mail", "sent"),
    ("rcpt", 550, "5.1.1 The email account that you tried to reach does not exist", "bad_address", "recipient", "fail"),
    ("rcpt", 550, "No such user here", "bad_address", "recipient", "fail"),
    ("rcpt", 552, "5.2.2 The recipient's inbox is out of storage space", "mailbox_full", "recipient", "retry"),
    ("rcpt", 452, "4.2.2 over quota", "mailbox_full", "recipient", "retry"),
    ("rcpt", 451, "4.7.1 Greylisting in action, please come back later", "greylisted", "recipient", "retry"),
    ("rcpt", 450, "4.2.0 <a@b>: Recipient address rejected: Greylisted", "greylisted", "recipient", "retry"),
    (
        "rcpt",
        450,
        "4.2.1 The user you are trying to contact is receiving mail too quickly.",
        "recipient_rate",
        "recipient",
        "retry",
    ),
    ("rcpt", 432, "4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", "recipient_rate", "recipient", "retry"),
    ("dot", 421, plain_text(GMAIL_RATE), "site_rate", "site", "retry"),
    ("mail", 421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", "site_rate", "site", "retry"),
    ("mail", 451, "4.7.650 The mail server has been temporarily rate limited", "site_rate", "site", "retry"),
    ("mail", 454, "Throttling failure: Maximum sending rate exceeded.", "route_rate", "route", "retry"),
    ("dot", 432, "4.3.2 Concurrent connections limit exceeded.", "route_rate", "route", "retry"),
    ("rcpt", 450, "4.2.1 Peak SMTP relay limit exceeded for this customer.", "route_rate", "route", "retry"),
    ("mail", 421, "Maximum message count per session reached.", "session_limit", "session", "park"),
    ("mail", 421, "mx.example too many messages in this connection", "session_limit", "session", "park"),
    ("mail", 421, "4.7.0 mx Error: too many connections from 192.0.2.1", "connection_limit", "session", "park"),
    ("mail", 421, "4.4.2 mx.example Error: timeout exceeded", "idle_close", "session", "park"),
    ("mail", 421, "Idle timeout, bye", "idle_close", "session", "park"),
    (
        "rcpt",
        421,
        "mx.example Service not available, closing transmission channel",
        "shutting_down",
        "session",
        "park",
    ),
    ("dot", 421, "4.3.2 Service shutting down", "shutting_down", "session", "retry"),
    ("mail", 550, "5.4.5 Daily SMTP relay sending limit exceeded for user.", "quota", "route", "park"),
    ("dot", 554, "5.2.0 STOREDRV.Submission.Exception: quota exceeded", "quota", "route", "park"),
    ("mail", 454, "Throttling failure: Daily message quota exceeded.", "quota", "route", "park"),
    ("auth", 535, "5.7.8 Authentication credentials invalid", "authentication", "route", "park"),
    ("mail", 530, "5.7.0 Authentication Required", "authentication", "route", "park"),
    ("mail", 534, "5.7.9 mechanism too weak", "authentication", "route", "park"),
    ("mail", 530, "5.7.0 Must issue a STARTTLS command first", "tls", "route", "park"),
    ("starttls", 454, "4.7.0 TLS not available due to temporary reason", "tls", "route", "park"),
    ("dot", 550, "5.7.1 This message was blocked for policy reasons", "policy", "mail", "fail"),
    ("dot", 554, "5.7.1 Message contains spam", "spam", "mail", "fail"),
    ("dot", 550, "5.7.26 This mail is unauthenticated", "sender_auth", "sender", "fail"),
    ("dot", 421, "4.7.27 SPF did not pass", "sender_auth", "sender", "retry"),
    ("mail", 552, "5.3.4 Message size exceeds fixed limit", "too_large", "mail", "fail"),
    ("dot", 552, "message size exceeds fixed maximum message size", "too_large", "mail", "fail"),
    ("dot", 554, "5.6.3 8-bit", "eight_bit", "mail", "fail"),
    ("rcpt", 553, "5.6.7 no SMTPUTF8", "smtputf8", "mail", "fail"),
    ("dot", 554, "5.4.6 Routing loop detected", "loop", "mail", "fail"),
    ("dot", 554, "5.4.0 Error: too many hops", "loop", "mail", "fail"),
    ("mail", 553, "5.1.8 sender's domain does not exist", "bad_sender", "sender", "fail"),
    ("mail", 450, "4.1.8 Sender address rejected: Domain not found", "bad_sender", "sender", "retry"),
    ("rcpt", 451, "4.3.0 later", "temporary", "recipient", "retry"),
    ("mail", 451, "4.3.0 later", "temporary", "sender", "retry"),
    ("data", 451, "4.3.0 later", "temporary", "mail", "retry"),
    ("dot", 451, "4.3.0 later", "temporary", "mail", "retry"),
    ("rcpt", 554, "no", "rejected", "recipient", "fail"),
    ("dot", 554, "no", "rejected", "mail", "fail"),
    ("data", 503, "5.5.1 bad sequence", "sequence", "session", "retry"),
    ("rcpt", 354, "go", "protocol", "session", "park"),
]


@pytest.mark.parametrize(("stage", "code", "text", "klass", "scope", "action"), MEANINGS)
def test_what_a_reply_means(stage: str, code: int, text: str, klass: str, scope: str, action: str) -> None:
    verdict = default_replies().classify(Stage(stage), code, text, True)
    assert (verdict.klass, verdict.scope, verdict.action) == (klass, Scope(scope), Action(action))


@pytest.mark.parametrize(
    ("stage", "code", "text", "about"),
    [
        ("rcpt", 550, "5.1.1 no such user", True),
        ("rcpt", 452, "4.2.2 over quota", True),
        ("rcpt", 451, "4.7.1 Greylisted", True),
        ("dot", 450, "4.2.1 The user you are trying to contact is receiving mail too quickly.", True),
        ("rcpt", 550, "no", False),
        ("rcpt", 451, "later", False),
        ("dot", 550, "5.7.1 blocked for policy reasons", False),
        ("mail", 454, "Throttling failure: Maximum sending rate exceeded.", False),
        ("rcpt", 354, "go", False),
    ],
)
def test_only_words_about_the_recipient_are_about_the_recipient(stage: str, code: int, text: str, about: bool) -> None:
    """A breaker looks at all the others: a bare refusal of RCPT may be meant for us."""
    assert default_replies().classify(Stage(stage), code, text, True).about_recipient is about


@pytest.mark.parametrize("stage", list(Stage))
def test_every_refusal_at_every_stage_has_a_class(stage: Stage) -> None:
    for code in range(400, 600):
        verdict = default_replies().classify(stage, code, "", True)
        assert verdict.klass != "protocol"
        assert verdict.action is not Action.SENT


def test_only_the_first_transaction() -> None:
    """A bare 421 on a connection that has worked is a server that leaves; on a new one it is a refusal."""
    later = default_replies().classify(Stage.MAIL, 421, "bye", False)
    assert (later.klass, later.action) == ("shutting_down", Action.PARK)
    assert default_replies().classify(Stage.MAIL, 421, "bye", True).klass == "temporary"


@pytest.mark.parametrize(
    ("code", "text", "enhanced"),
    [
        (450, "4.2.1 x", "4.2.1"),
        (450, "4.2.1", "4.2.1"),
        (450, "5.2.1 the class contradicts the code", ""),
        (450, "4.2 x", ""),
        (450, "x 4.2.1", ""),
        (550, "5.7.1234 x", ""),
        (450, "4.2.1x", ""),
    ],
)
def test_enhanced_codes(code: int, text: str, enhanced: str) -> None:
    assert default_replies().classify(Stage.RCPT, code, text, True).enhanced == enhanced


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again in 300 seconds", 300),
        ("Greylisted for 5 minutes", 300),
        ("please come back in 00:04:59", 299),
        ("retry after 60s", 60),
        ("wait 2 hours", 7200),
        ("try again in 9999999 hours", 86400),
        ("try again later", 0),
        ("error 300 seconds", 0),
    ],
)
def test_hints(text: str, seconds: int) -> None:
    assert default_replies().classify(Stage.RCPT, 451, f"4.7.1 {text}", True).hint_ms == seconds * 1000


def test_a_long_text_is_cut_before_patterns_see_it() -> None:
    text = "x" * 5_000_000 + " greylisted"
    assert default_replies().classify(Stage.RCPT, 451, text, True).klass == "temporary"


def test_every_entry_of_the_table_can_be_met() -> None:
    """An entry that stands behind one that takes all of its replies would be dead letters on paper."""
    table = tomllib.loads(files("streamq.smtp").joinpath("replies.toml").read_text("utf-8"))
    met = {default_replies().classify(Stage(stage), code, text, True).klass for stage, code, text, *_ in MEANINGS}
    assert {entry["class"] for entry in table["reply"]} <= met


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ('class = ""', "class"),
        ('scope = "galaxy"', "galaxy"),
        ('action = "abandon"', "abandon"),
        ('action = "maybe"', "maybe"),
        ('code = "4x"', "4x"),
        ('code = "650"', "650"),
        ("code = []", "code"),
        ("code = 450", "450"),
        ('enhanced = "4.x.1"', "4.x.1"),
        ('text = "("', "text"),
        ("text = 1", "text"),
        ('stage = "lunch"', "lunch"),
        ('first = "yes"', "first"),
        ("guess = 1", "guess"),
        ('source = " "', "source"),
        ("source", "missing: source"),
        ('colour = "red"', "colour"),
    ],
)
def test_a_wrong_entry_is_named(change: str, named: str) -> None:
    good = {
        "class": '"x"',
        "scope": '"mail"',
        "action": '"retry"',
        "code": '"450"',
        "source": '"RFC 5321"',
    }
    key, _, value = change.partition(" = ")
    wrong = {**good, key: value} if value else {name: given for name, given in good.items() if name != key}

    def entry(fields: dict[str, str]) -> str:
        return "[[reply]]\n" + "".join(f"{name} = {given}\n" for name, given in fields.items())

    assert Replies.read(entry(good)).classify(Stage.MAIL, 450, "", True) == Verdict("x", Scope.MAIL, Action.RETRY)
    with pytest.raises(SettingsError) as raised:
        Replies.read(entry(good) + entry(wrong), "mine.toml")
    assert named in str(raised.value)
    assert "mine.toml: reply 2" in str(raised.value)


@pytest.mark.parametrize("text", ["[[reply", "[other]", 'reply = "x"', "reply = [1]", ""])
def test_a_wrong_table_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=r"mine\.toml"):
        Replies.read(text, "mine.toml")


def test_texts_on_one_line() -> None:
    assert plain_text(b"4.2.1 one\n4.2.1 two\n4.2.1") == "4.2.1 one two"
    assert plain_text(b"one\ntwo") == "one two"
    assert plain_text(b"\x1b[2Jno\x00pe \xff\xc3\xa9") == "[2Jno pe \\xffé"
