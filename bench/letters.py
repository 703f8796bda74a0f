"""Mails by chance, and what each must mean to whoever reads it: for `python -m bench mails` and for the tests.

A letter is drawn as fields of an XADD together with its meaning, which is put down while it is drawn and never
read back out of the fields: our own parser must not be the judge of itself.
"""

from __future__ import annotations

import random
from base64 import b64encode
from dataclasses import dataclass, field

import orjson

__all__ = ["File", "Letter", "letter", "tame_letter"]

TAME = ("order", "Rechnung", "shipped", "a", "is", "Grüße", "on", "its", "way")
WORDS = ("order", "Rechnung", "shipped", "a", "100%", "#17", "re:", "(new)", "x" * 30, "it's", "==", "=?utf-8?q?no?=")
BEYOND = ("Grüße", "Überraschung", "привет", "日本語のメール", "😀", "é", "ñandú", "Ελλάδα", "𝄞𝄞𝄞", "ﬁ", "עברית")
SPECIAL = ("Shop, Inc.", 'O"Brien', "back\\slash", "a <b@c.de>", "semi;colon", "Dr. No", "(x)", "a@b", "q:")
LOCALS = ("bob", "a.b", "o'neil", "x+tag", "_", "n" * 64, "A.B-C", "1", "=?q?=")
DOMAINS = ("example.net", "x.de", "mail.example.org", "xn--mnchen-3ya.de", "a" * 60 + ".example")
ENDS = ("\n", "\r\n", "\r")
TYPES = ("application/pdf", "image/png", "text/csv; charset=utf-8", 'text/calendar; method=REQUEST; name2="a b;c"', "")
NAMES = (
    *("a.pdf", "Rechnung 2024.pdf", "Übersicht.pdf", "日本.txt", "100%.csv", 'a"b.txt', "x" * 120 + ".pdf", "😀" * 30),
    *("=?utf-8?q?x?=.pdf", "back\\slash.txt", "semi;colon.txt", "é" * 200 + ".tar.gz", "no ending " * 12, "it's.txt"),
    "",
)


@dataclass
class File:
    """`name` "" for none; `cid` "" for none; `beside`: it belongs to the html."""

    name: str
    type: str
    cid: str
    disposition: str
    data: bytes
    beside: bool = False


@dataclass
class Letter:
    """`addresses`: by header name, (display name, addr-spec). `text` is "" where none was given, `html` as well;
    line ends are as they were drawn."""

    fields: dict[bytes, bytes] = field(default_factory=dict)
    addresses: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    subject: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""
    html: str = ""
    files: list[File] = field(default_factory=list)
    bcc: str = ""


def _words(dice: random.Random, most: int) -> str:
    pool = WORDS if dice.random() < 0.5 else WORDS + BEYOND
    return " ".join(dice.choice(pool) for _ in range(dice.randint(1, most)))


def _name(dice: random.Random) -> str:
    kind = dice.randrange(5)
    if kind == 0:
        return ""
    if kind == 1:
        return dice.choice(SPECIAL)
    return _words(dice, 1 if kind == 2 else 4)


def _mailbox(dice: random.Random) -> tuple[str, str]:
    return _name(dice), f"{dice.choice(LOCALS)}@{dice.choice(DOMAINS)}"


def _written(mailbox: tuple[str, str]) -> str:
    name, spec = mailbox
    if not name:
        return spec
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + f'" <{spec}>'


def _addresses(one: Letter, dice: random.Random) -> None:
    wanted = {"From": 1, "To": dice.choice((1, 1, 2, 9))}
    for name, chance, most in (("Sender", 0.2, 1), ("Reply-To", 0.3, 2), ("Cc", 0.3, 12)):
        if dice.random() < chance:
            wanted[name] = dice.randint(1, most)
    for name, many in wanted.items():
        drawn = [_mailbox(dice) for _ in range(many)]
        one.addresses[name] = drawn
        written = [_written(each) for each in drawn]
        as_array = dice.random() < 0.3
        value = orjson.dumps(written) if as_array else ", ".join(written).encode()
        one.fields[name.lower().replace("-", "_").encode()] = value
    if dice.random() < 0.3:
        one.bcc = f"hidden{dice.randrange(10**9)}@secret.example"
        one.fields[b"bcc"] = one.bcc.encode()
    one.fields[b"envelope_to"] = one.addresses["To"][0][1].encode()


def _body(dice: random.Random, html: bool) -> str:
    end = dice.choice(ENDS)
    lines = []
    for _ in range(dice.choice((0, 1, 2, 12))):
        line = _words(dice, 12)
        kind = dice.randrange(12)
        if kind == 0:
            line = line * dice.choice((20, 60))
        elif kind == 1:
            line = "." * dice.randint(1, 3) + line
        elif kind == 2:
            line += " " * dice.randint(1, 3)
        elif kind == 3:
            line = "--=_" + line
        elif kind == 4:
            line = "From " + line
        elif kind == 5:
            line = ""
        lines.append(f"<p>{line}</p>" if html else line)
    return end.join(lines) + (end if dice.random() < 0.5 else "")


def _file(dice: random.Random, number: int, html: bool) -> tuple[File, dict[str, str]]:
    data = dice.randbytes(dice.choice((0, 1, 2, 3, 56, 57, 58, 3647, 3648, 3649, 9000)))
    if dice.random() < 0.3:
        data = "\r\n.\n\r--=_ Grüße,1;2\n".encode() * dice.randint(0, 40)
    name, type_ = dice.choice(NAMES), dice.choice(TYPES)
    cid = dice.choice(("", f"img{number}", f"img{number}@shop.example"))
    disposition = dice.choice(("", "inline", "attachment"))
    flat = b64encode(data).decode()
    if dice.random() < 0.2:
        flat = "\r\n".join(flat[at : at + 60] for at in range(0, len(flat), 60)) + "\n"
    given = {"filename": name, "content": flat, "content_type": type_, "disposition": disposition}
    if cid:
        given["content_id"] = f"<{cid}>" if dice.random() < 0.5 else cid
    shown = disposition or ("inline" if cid else "attachment")
    beside = html and bool(cid) and shown == "inline"
    drawn = File(name.strip(), type_ or "application/octet-stream", cid, shown, data, beside)
    return drawn, {member: value for member, value in given.items() if value or member == "content"}


def tame_letter(dice: random.Random) -> Letter:
    """One that `policy.SMTP` builds as it is meant, in the least of the Pythons that we run on: at a subject of many
    words beyond ASCII, a look-alike of an encoded word, a name with a percent sign it fails."""
    one = Letter()
    for name, many in (("From", 1), ("Reply-To", dice.randrange(3)), ("To", 1), ("Cc", dice.randrange(4))):
        if many:
            one.addresses[name] = [
                (
                    " ".join(dice.choices(TAME[:5], k=dice.randrange(4))) or ("Jürgen" if many == 1 else "Shop, Inc."),
                    spec,
                )
                for spec in (f"{dice.choice(('bob', 'a.b', 'x+y'))}@example.net" for _ in range(many))
            ]
            written = ", ".join(map(_written, one.addresses[name]))
            one.fields[name.lower().replace("-", "_").encode()] = written.encode()
    one.fields[b"envelope_to"] = one.addresses["To"][0][1].encode()
    one.subject = " ".join(dice.choices(TAME, k=dice.randint(1, 4)))
    one.text = "".join(" ".join(dice.choices(TAME, k=9)) + "\n" for _ in range(dice.randint(1, 9)))
    one.fields.update({b"subject": one.subject.encode(), b"text": one.text.encode()})
    if dice.random() < 0.6:
        one.html = f"<p>{one.text}</p>\n"
        one.fields[b"html"] = one.html.encode()
    files = []
    for number in range(dice.randrange(4)):
        name, type_ = (
            dice.choice(("a.pdf", "Übersicht.pdf", "two words.txt")),
            dice.choice(("application/pdf", "image/png")),
        )
        beside = bool(one.html) and dice.random() < 0.5
        cid, shown = (f"img{number}@shop.example", "inline") if beside else ("", "attachment")
        file = File(name, type_, cid, shown, dice.randbytes(dice.randrange(300)), beside)
        one.files.append(file)
        content = b64encode(file.data).decode()
        files.append({"filename": name, "content_type": type_, "content_id": cid, "content": content})
    one.fields[b"attachments"] = orjson.dumps(files)
    return one


def letter(dice: random.Random) -> Letter:
    """The same for the same dice."""
    one = Letter()
    _addresses(one, dice)
    one.subject = _words(dice, dice.choice((1, 6, 30)))
    one.fields[b"subject"] = one.subject.encode()
    kind = dice.randrange(4)
    if kind != 0:
        one.text = _body(dice, html=False)
        one.fields[b"text"] = one.text.encode()
    if kind in (0, 1):
        one.html = _body(dice, html=True)
        one.fields[b"html"] = one.html.encode()
        if dice.random() < 0.3:
            one.fields[b"auto_text"] = b"0"
    if dice.random() < 0.5:
        drawn = [_file(dice, number, bool(one.html)) for number in range(dice.choice((1, 1, 2, 5)))]
        one.files = [file for file, _ in drawn]
        one.fields[b"attachments"] = orjson.dumps([given for _, given in drawn])
    if dice.random() < 0.4:
        ids = " ".join(f"<{dice.randrange(10**12)}.{number}@mail.example>" for number in range(dice.randint(1, 30)))
        note = _words(dice, 9)
        one.headers = [("References", ids), ("X-Note", note), ("X-Note", "two")]
        one.fields[b"headers"] = orjson.dumps({"References": ids, "X-Note": [note, "two"]})
    return one
