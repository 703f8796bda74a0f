"""The table, entry by entry and as a whole; the replies of a corpus that the public can read."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamq.errors import SettingsError
from streamq.smtp.judge import plain_text
from streamq.smtp.letter import Action, Scope, Stage
from streamq.smtp.replies import READ, Replies, Verdict, default_replies, load_replies

CORPUS = tomllib.loads(Path(__file__).with_name("replies_corpus.toml").read_text("utf-8"))
DOCS = Path(__file__).parents[2] / "docs" / "smtp.md"

GMAIL_RATE = (
    b"4.7.28 Gmail has detected an unusual rate of\n4.7.28 unsolicited mail originating from your IP address. To\n"
    b"4.7.28 protect our users from spam, mail has been temporarily rate limited."
)

MEANINGS = [
    # stage, code, text, class, scope, action
    ("dot", 250, "2.0.0 Ok: queued as 4Xyz", "sent", "mail", "sent"),
    ("rcpt", 550, "5.1.1 The email account that you tried to reach does not exist", "bad_address", "recipient", "fail"),
    ("dot", 550, "5.7.1 Message blocked by content filter", "policy", "mail", "fail"),
    ("dot", 554, "5.7.1 Client host [192.0.2.1] blocked by bl.example.org", "blocked", "site", "retry"),
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
    ("dot", 550, "5.7.25 no", "our_host", "route", "retry"),
    ("mail", 451, "4.4.2 bad connection", "idle_close", "session", "park"),
    ("dot", 421, "4.7.28 slower", "site_rate", "site", "retry"),
    ("mail", 553, "this domain is strange", "bad_sender", "sender", "fail"),
    ("rcpt", 450, "4.7.1 <a@example.org>: Sender address rejected: unverified", "bad_sender", "sender", "retry"),
    ("mail", 554, "no", "rejected", "sender", "fail"),
]


def corpus() -> Iterator[tuple[str, int, str, str, str, str]]:
    """Its rows as `MEANINGS` has them."""
    for rows in CORPUS["replies"].values():
        for stage, reply, klass, scope, action, _ in rows:
            yield stage, int(reply[:3]), reply[4:], klass, scope, action


@pytest.mark.parametrize(("stage", "code", "text", "klass", "scope", "action"), [*MEANINGS, *corpus()])
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
        (550, "#5.1.0 Address rejected.", "5.1.0"),
        (550, "sorry, no mailbox here by that name (#5.1.1)", "5.1.1"),
        (450, "sorry (#5.1.1)", ""),
        (450, "4.2 x", ""),
        (450, "x 4.2.1", ""),
        (550, "5.7.1234 x", ""),
        (450, "4.2.1x", ""),
    ],
)
def test_enhanced_codes(code: int, text: str, enhanced: str) -> None:
    assert default_replies().classify(Stage.RCPT, code, text, True).enhanced == enhanced


def test_a_text_asks_before_the_table_does() -> None:
    known = default_replies()
    assert known.classify(Stage.RCPT, 450, "4.2.1 receiving mail too quickly", True).hint_ms == 600_000
    assert (
        known.classify(Stage.RCPT, 450, "4.2.1 receiving mail too quickly, wait 20 minutes", True).hint_ms == 1_200_000
    )
    assert known.classify(Stage.RCPT, 451, "4.7.1 Greylisted", True).hint_ms == 0
    assert known.classify(Stage.DOT, 250, "ok, delivered in 5 minutes", True).hint_ms == 0


def test_a_long_text_is_cut_before_patterns_see_it() -> None:
    text = "x" * READ + " greylisted"
    assert default_replies().classify(Stage.RCPT, 451, text, True).klass == "temporary"


@pytest.mark.parametrize("name", ["spf", "dkim+dmarc", "relay-denied", "greylist", "try.again.in.300.seconds"])
@pytest.mark.parametrize("domain", ["spamhaus.org", "barracudanetworks.com", "rate-limited.example", "\u00fcber.spam"])
@pytest.mark.parametrize("text", ["5.1.1 <{}>: user unknown", "User unknown: {}", "no such user ({})"])
def test_what_somebody_is_called_means_nothing(name: str, domain: str, text: str) -> None:
    """Otherwise whoever picks an address picks what its refusal means to our route."""
    said = default_replies().classify(Stage.RCPT, 550, text.format(f"{name}@{domain}"), True, "")
    assert (said.klass, said.scope, said.hint_ms) == ("bad_address", Scope.RECIPIENT, 0)


def test_every_entry_of_the_table_decides_something() -> None:
    """An entry that stands behind one that takes all of its replies would be dead letters on paper."""
    known = default_replies()
    met = {
        verdict.entry
        for first in (True, False)
        for stage, code, text, *_ in [*MEANINGS, *corpus(), ("mail", 421, "bye", "", "", "")]
        if (verdict := known.classify(Stage(stage), code, text, first)).entry
    }
    assert [(entry.number, entry.klass) for entry in known.entries if entry not in met] == []


def test_the_corpus_is_large_and_each_reply_has_a_source() -> None:
    rows = [tuple(row) for group in CORPUS["replies"].values() for row in group]
    assert len(set(rows)) == len(rows) >= 150
    assert {row[5] for row in rows} == CORPUS["sources"].keys()
    assert all(source.startswith(("https://", "http://", "RFC ")) for source in CORPUS["sources"].values())


def test_every_entry_has_a_source_that_somebody_can_look_up() -> None:
    for entry in default_replies().entries:
        assert "RFC " in entry.source or "https://" in entry.source, entry.number


# -- whose limit it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "relay_for", "klass", "scope"),
    [
        ("450 4.7.1 Error: too much mail from 192.0.2.1", None, "site_rate", Scope.SITE),
        ("450 4.7.1 Error: too much mail from 192.0.2.1", "example.net", "route_rate", Scope.ROUTE),
        ("450 4.7.1 Error: too much mail from 192.0.2.1", "", "route_rate", Scope.ROUTE),
        ("450 4.7.1 Error: too much mail for Example.NET", "example.net", "site_rate", Scope.SITE),
        ("450 4.7.1 rate limit of mx1.example.net", "example.net", "site_rate", Scope.SITE),
        ("450 4.7.1 rate limit of example.network", "example.net", "route_rate", Scope.ROUTE),
        ("450 4.7.1 rate limit of my-example.net", "example.net", "route_rate", Scope.ROUTE),
        ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", "example.net", "site_rate", Scope.SITE),
        ("554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org", "example.net", "blocked", Scope.ROUTE),
        ("452 4.3.1 Insufficient system resources", "example.net", "overloaded", Scope.ROUTE),
        ("550 5.1.1 no such user", "example.net", "bad_address", Scope.RECIPIENT),
    ],
)
def test_a_relay_speaks_of_our_account(reply: str, relay_for: str | None, klass: str, scope: Scope) -> None:
    verdict = default_replies().classify(Stage.RCPT, int(reply[:3]), reply[4:], True, relay_for)
    assert (verdict.klass, verdict.scope) == (klass, scope)


# -- a user's own -------------------------------------------------------------------------------------------------


def test_a_users_own_table_comes_first_and_needs_no_source(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[[reply]]\nclass = "ours"\nscope = "route"\naction = "park"\ncode = "554"\ntext = "tuesday"\nhint = "2h"\n'
    )
    known = load_replies(mine)
    verdict = known.classify(Stage.DOT, 554, "5.1.1 not on Tuesdays", True)
    assert (verdict.klass, verdict.action, verdict.hint_ms) == ("ours", Action.PARK, 7_200_000)
    assert verdict.entry is not None
    assert (verdict.entry.table, verdict.entry.number) == (str(mine), 1)
    assert known.classify(Stage.DOT, 554, "no", True) == default_replies().classify(Stage.DOT, 554, "no", True)
    assert load_replies(None) is default_replies()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[[reply]]\nclass = "x"\nscope = "mail"\naction = "retry"\ncode = "45"\n', "reply 1 (x): code: three digits"),
        (b'[[reply]]\nclass = "x"\nscope = "mail"\naction = "retry"\n', "reply 1 (x): missing: code"),
        (b"[[reply]\n", "Expected"),
        (b"\xff", "not UTF-8"),
        (b"#" * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_a_wrong_table_of_a_user_names_its_file(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        load_replies(path)
    assert str(path) in str(raised.value)
    assert says in str(raised.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"replies: .*nowhere\.toml: No such file"):
        load_replies(tmp_path / "nowhere.toml")


# -- entries that are wrong ---------------------------------------------------------------------------------------


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
        ('names_site = "no"', "names_site"),
        ('class = "two words"', "two words"),
        ("class = 1", "class"),
        ('action = "sent"', "'sent'"),
        ('code = ["450", "250"]', "'retry'"),
        ('code = "٤50"', "٤50"),
        ('hint = "soon"', "soon"),
        ('hint = "2d"', "2d"),
        ("hint = true", "True"),
        ('text = "a*"', "a*"),
        ('text = "(ab)+"', "(ab)+"),
        ('text = "a{0,99}b{0,99}c{0,99}"', "ways"),
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


# -- the documentation --------------------------------------------------------------------------------------------

WHOM = {
    "the session": Scope.SESSION,
    "our account": Scope.ROUTE,
    "the sender": Scope.SENDER,
    "the site": Scope.SITE,
    "the mail": Scope.MAIL,
    "the recipient": Scope.RECIPIENT,
}
THEN = {"relayed": Action.SENT, "attempt": Action.RETRY, "dead letter": Action.FAIL, "parked": Action.PARK}


def test_the_documentation_knows_every_class_with_its_scopes_and_actions() -> None:
    section = DOCS.read_text("utf-8").split("## What a reply means")[1].split("Without a reply:")[0]
    told: dict[str, tuple[set[Scope], set[Action]]] = {}
    for line in section.splitlines():
        if not line.startswith("| `"):
            continue
        names, about, then, _ = (cell.strip() for cell in line.strip("|").split("|"))
        scopes = {scope for words, scope in WHOM.items() if words in about}
        actions = {action for words, action in THEN.items() if words in then}
        told |= {name.strip(" `"): (scopes, actions) for name in names.split(",")}
    known: dict[str, tuple[set[Scope], set[Action]]] = {}
    for entry in default_replies().entries:
        scopes, actions = known.setdefault(entry.klass, (set(), set()))
        scopes.add(entry.scope)
        actions.add(entry.action)
    assert told == known
