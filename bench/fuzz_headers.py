"""`python -m bench fuzz --target headers`: where the words of strangers go behind the message that `intake` looks at.

A field, a recipient's own values, a template's variables, a server's reply, a worker's host name: each is tried with
line ends and a header, a command, or a second message behind it. Held are the two commands of the envelope, the
messages of children, and bounce reports, whose headers and delivery-status repeat what others wrote.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping

import orjson

from bench.fuzz_addresses import OFFER
from bench.readers import wire_faults
from streamq.errors import MailError
from streamq.mail import Mail, parse
from streamq.mail.report import DELAYED, FAILED, Notice, compose_report
from streamq.mail.several import NTH, OF, Shared, merged
from streamq.mail.template import Template
from streamq.sink.grammar import mail_arguments, rcpt_arguments
from streamq.smtp.envelope import Unfit, envelope
from streamq.smtp.letter import Letter

__all__ = ["headers"]

AT_MS = 1_732_237_561_234
SALT = b"salt"
EVIL = "X-Smuggled: 1"
SMUGGLED = re.compile(rb"^x-smuggled:", re.I | re.M)
ENDS = (
    "\r\n",
    "\n",
    "\r",
    "\r\r\n",
    "\r\n\r\n",
    "\x0b",
    "\x0c",
    "\x85",
    "\u2028",
    "\0",
    "%0d%0a",
    "\\r\\n",
    "\r\n ",
    "\r\n.\r\n",
    "=0D=0A",
    " ",
    "",
)
STATUS_FIELDS = frozenset(
    b"reporting-mta original-envelope-id arrival-date original-recipient final-recipient action status remote-mta "
    b"diagnostic-code last-attempt-date will-retry-until".split()
)
TEMPLATE = Template({"subject": "Hi {{ name }}", "text": "{{ name }}", "html": "<b>{{ name }}</b>"})
PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "REQUIRETLS"})


def _evil(chance: random.Random, before: str) -> str:
    made = before
    for _ in range(chance.choice((0, 1, 1, 2))):
        made += chance.choice(ENDS) + chance.choice((EVIL, "RCPT TO:<c@y.de>", "Bcc: c@y.de", "x", ""))
    if chance.random() < 0.3 and made:
        at = chance.randrange(len(made))
        made = made[:at] + chr(chance.choice((chance.randrange(160), chance.randrange(0x2100)))) + made[at + 1 :]
    return made


def _fields(chance: random.Random) -> dict[bytes, bytes]:
    """Most of it good, so that more than the first field is looked at."""
    evil: Callable[[str], str] = lambda before: _evil(chance, before) if chance.random() < 0.08 else before  # noqa: E731
    made = {
        "from": evil("Shop <shop@example.com>"), "envelope_from": evil("bounces@example.com"), "id": evil("order-1"),
        "tenant": evil("t1"), "dsn_envid": evil("order 18+a"), "dsn_notify": "failure", "dsn_ret": evil("hdrs"),
        "traceparent": evil("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "tags": evil("a,b"),
        "reply_to": evil("Help <help@example.com>"),
    }  # fmt: skip
    made = {name: value for name, value in made.items() if name == "from" or chance.random() < 0.6}
    own = {"List-Unsubscribe": evil("<mailto:u@example.com>"), "X-Note": evil("ä" * chance.choice((1, 80)))}
    if chance.random() < 0.5:
        made["headers"] = orjson.dumps(
            {name: value for name, value in own.items() if chance.random() < 0.6}, option=0
        ).decode()
    if chance.random() < 0.3:
        made |= {"template": "welcome", "vars": _json({"name": evil("Bob")})}
    else:
        made |= {"subject": evil("Hi"), "text": evil("Hello")}
    if chance.random() < 0.3:
        file = {
            "filename": evil("bücher 1.pdf"),
            "content_type": evil("application/pdf; name=x"),
            "content_id": evil("pic@x"),
        }
        made["attachments"] = _json([{**{k: v for k, v in file.items() if chance.random() < 0.6}, "content": "YQ=="}])
    if chance.random() < 0.4:
        whom = {
            "to": evil("Ann <ann@example.net>"),
            "vars": {"name": evil("Ann")},
            "id": evil("a1"),
            "metadata": {evil("k"): evil("v")},
        }
        made["recipients"] = _json([whom, {"to": "bob@example.net"}])
    else:
        made["to"] = evil("Bob <bob@example.net>") if chance.random() < 0.7 else evil("jürgen@münchen.de")
        made["dsn_orcpt"] = evil("rfc822;bob@example.org") if chance.random() < 0.3 else ""
    return {name.encode(): value.encode("utf-8", "surrogatepass") for name, value in made.items()}


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _parsed(fields: Mapping[bytes, bytes], nth: int = 0) -> Mail:
    entry = f"1{AT_MS}-0"
    return parse(
        fields, entry=f"{entry}#{nth}" if nth else entry, at_ms=AT_MS, salt=SALT, max_bytes=1 << 20,
        parent=entry if nth else "", nth=nth, template=lambda name, at_ms: TEMPLATE,
    )  # fmt: skip


def headers(chance: random.Random, number: int, loop: asyncio.AbstractEventLoop) -> str:
    """One case; how it ended."""
    fields = _fields(chance)
    try:
        mail = _parsed(fields)
    except MailError as wrong:
        return type(wrong).__name__
    if mail.several is None:
        return _mail(mail, chance, fields)
    shared = Shared(f"1{AT_MS}-0", mail.several.fields, mail.several.personal)
    ends = []
    for nth, child in enumerate(mail.several.children, 1):
        own = {OF: shared.parent.encode(), NTH: b"%d" % nth, child.name.encode(): child.value}
        own |= {n: v for n, v in ((b"vars", child.vars), (b"metadata", child.metadata), (b"id", child.id)) if v}
        try:
            ends.append(_mail(_parsed(merged(own, shared), nth), chance, fields))
        except MailError as wrong:
            ends.append(type(wrong).__name__)
    return "children: " + ", ".join(sorted(set(ends)))


def _mail(mail: Mail, chance: random.Random, fields: Mapping[bytes, bytes]) -> str:
    content = mail.content()
    faults = set(wire_faults(content)) - ({"8-bit"} if mail.smtputf8 else set())
    assert not faults, f"{faults} in {fields}"
    assert not SMUGGLED.search(content.partition(b"\r\n\r\n")[0]), f"a header was smuggled in by {fields}"
    assert b"\n" not in mail.event, "an event of two lines"
    _envelope(mail, content, fields)
    if mail.bounce_to:
        _report(mail, content, chance)
    return "mail"


def _envelope(mail: Mail, content: bytes, fields: Mapping[bytes, bytes]) -> None:
    letter = Letter(
        envelope_from=mail.envelope_from, envelope_to=mail.envelope_to, content=content, site=mail.site,
        eight_bit=mail.eight_bit, smtputf8=mail.smtputf8, dsn=mail.dsn,
    )  # fmt: skip
    made = envelope(letter, OFFER, verified=True)
    assert not isinstance(made, Unfit), f"no envelope: {made}"
    for one in made:
        assert one.count(b"\r") == one.count(b"\n") == one.endswith(b"\r\n") == 1, f"two commands: {one!r} of {fields}"
    sender, recipient = mail_arguments(made.mail[5:-2]), rcpt_arguments(made.rcpt[5:-2])
    assert (sender.sender, recipient.recipient) == (mail.envelope_from, mail.envelope_to), f"{made} of {fields}"
    assert sender.parameters.keys() <= PARAMETERS, made.mail
    assert recipient.parameters.keys() <= {"NOTIFY", "ORCPT"}, made.rcpt


def _report(mail: Mail, content: bytes, chance: random.Random) -> None:
    notice = Notice(
        chance.choice((FAILED, DELAYED)), "bad_address", _evil(chance, "5.1.1"), chance.choice((0, 550)),
        _evil(chance, "5.1.1 no such user"), _evil(chance, "mx1.example.net[192.0.2.1]:25"), AT_MS, AT_MS,
    )  # fmt: skip
    made = compose_report(
        mail,
        content,
        notice,
        entry=f"1{AT_MS}-0",
        arrived_ms=AT_MS,
        now_ms=AT_MS + 1,
        salt=SALT,
        mta=_evil(chance, "worker.example"),
    )
    faults = {fault for fault in wire_faults(made) if not fault.startswith("a header's line")} - (
        {"8-bit"} if mail.smtputf8 else set()
    )
    faults -= {"8-bit"} if not mail.bounce_to.isascii() else set()
    assert not faults, f"{faults} in a report: {made[:2000]!r}"
    head, _, rest = made.partition(b"\r\n\r\n")
    assert not SMUGGLED.search(head), f"a header of a report was smuggled in: {head!r}"
    parts = rest.split(b"\r\nContent-Type: message/")
    assert len(parts) >= 2, f"a report without its status: {made[:2000]!r}"
    status = parts[1].partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
    if b"Content-Transfer-Encoding" not in parts[1].partition(b"\r\n\r\n")[0]:
        names = {line.partition(b":")[0].lower() for line in status.split(b"\r\n") if line and line[:1] not in b" \t"}
        assert names <= STATUS_FIELDS, f"fields of a report that nobody wrote: {names - STATUS_FIELDS}"
