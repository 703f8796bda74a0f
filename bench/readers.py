"""What the standard library reads in a built mail, held against what was meant; and what its own builder makes.

The parser of `email.policy.default` is the judge. Where it is known to read wrongly what is right (it keeps the
blanks between the encoded words of a name, for one), `email.header` is asked, too: one of them must get the meaning.
"""

from __future__ import annotations

import re
from email import policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.utils import getaddresses
from functools import lru_cache
from typing import Any

from bench.letters import File, Letter

__all__ = ["differences", "rebuilt", "wire_faults"]


@lru_cache(maxsize=4096)
def _parsed(name: str, value: str) -> Any:
    return policy.default.header_fetch_parse(name, value)


class Remembering(policy.EmailPolicy):
    """`policy.default`, which parses a field anew each time that it is asked for, a Content-Type eight times."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        return _parsed(name, value)


MODERN = BytesParser(EmailMessage, policy=Remembering())
CLASSIC = BytesParser(policy=policy.compat32)
ENDS = re.compile(r"\r\n|\r|\n")
ENCODED = re.compile(rb"(?<![^ \t(])=\?utf-8\?\S+\?=(?![^ ,)])")  # a word by itself (RFC 2047, section 5)


def _lines(text: str) -> str:
    return ENDS.sub("\r\n", text)


def wire_faults(content: bytes) -> list[str]:
    """What no composed mail may have: RFC 5322, section 2.1.1, RFC 2045, RFC 2047, section 2."""
    found = []
    if not content.isascii():
        found.append("8-bit")
    if not content.endswith(b"\r\n") or not content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n"):
        found.append("line ends")
    if b"\0" in content:
        found.append("NUL")
    if b"multipart/related" in content and b'multipart/related; type="text/html";' not in content:
        found.append("no type of a related")  # RFC 2387, section 3.1; policy.SMTP leaves it out, too
    if max(map(len, content.split(b"\r\n"))) > 998:
        found.append("a line over 998")
    for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        words = len(re.sub(rb"^[^ ]+: ", b"", line).split())
        if len(line) > (76 if ENCODED.search(line) else 78) and words > 1:
            found.append(f"a header's line of {len(line)}: {line[:40]!r}")
        found += [
            f"an encoded word of {len(word)}" for word in re.findall(rb"=\?utf-8\?\S*\?=", line) if len(word) > 75
        ]
    return found


def _decoded(value: Any) -> str:
    return str(make_header(decode_header(str(value))))


def _mailboxes(modern: Any, name: str) -> list[tuple[str, str]]:
    return [(each.display_name, each.addr_spec) for each in modern[name].addresses]


def _classic_mailboxes(classic: Message, name: str) -> list[tuple[str, str]]:
    pairs = getaddresses([re.sub(r"\r\n(?=[ \t])", "", str(classic[name]))])
    return [(_decoded(shown), spec) for shown, spec in pairs]


def _bytes_of(part: EmailMessage) -> bytes:
    found = part.get_payload(decode=True)
    assert isinstance(found, bytes)
    return found


def _texts(part: Any) -> tuple[str | None, str | None, list[Any]]:
    """The text, the html, and what stands beside the html; None for none. Nothing else may be in it."""
    kind = part.get_content_type()
    if kind == "multipart/alternative":
        plain, rich = part.iter_parts()
        (text, none, nobody), (neither, html, beside) = _texts(plain), _texts(rich)
        assert none is None
        assert not nobody
        assert neither is None
        return text, html, beside
    if kind == "multipart/related":
        root, *beside = part.iter_parts()
        return None, _texts(root)[1], beside
    assert kind in ("text/plain", "text/html"), kind
    shown = _bytes_of(part).decode()
    return (shown, None, []) if kind == "text/plain" else (None, shown, [])


def _parts(message: Any) -> tuple[str | None, str | None, list[Any], list[Any]]:
    """Text, html, beside the html, attached."""
    if message.get_content_type() != "multipart/mixed":
        return *_texts(message), []
    first, *rest = message.iter_parts()
    if first.get_content_disposition():
        return None, None, [], [first, *rest]
    return *_texts(first), rest


def _file_of(part: EmailMessage) -> File:
    main = part["Content-Type"]
    extra = "".join(f'; {name}="{value}"' for name, value in main.params.items()) if main else ""
    cid = str(part.get("Content-ID", "")).strip("<>")
    name = part.get_filename() or ""
    return File(name, part.get_content_type() + extra, cid, str(part.get_content_disposition()), _bytes_of(part))


def _meant(file: File) -> File:
    """With its parameters quoted, as `_file_of` gives them."""
    kind, *rest = re.split(r"; (?![^\"]*\"$)", file.type)
    extra = "".join(f'; {each.partition("=")[0]}="{each.partition("=")[2].strip(chr(34))}"' for each in rest)
    return File(file.name, kind + extra, file.cid, file.disposition, file.data)


def differences(one: Letter, content: bytes) -> list[str]:
    """What a reader finds that was not meant; nothing is said of a text that was made from the html."""
    modern, classic = MODERN.parsebytes(content), CLASSIC.parsebytes(content, headersonly=True)
    found = [f"defect {each!r}" for part in modern.walk() for each in part.defects]
    for name in ("From", "Sender", "Reply-To", "To", "Cc"):
        wanted = one.addresses.get(name)
        if (wanted is None) != (name not in modern):
            found.append(f"{name}: {modern[name]}")
        elif wanted is not None and wanted not in (_mailboxes(modern, name), _classic_mailboxes(classic, name)):
            found.append(f"{name}: {_mailboxes(modern, name)} for {wanted}")
    if one.subject not in (modern["Subject"], _decoded(ENDS.sub("", str(classic["Subject"])))):
        found.append(f"subject: {modern['Subject']!r}")
    for name in {name for name, _ in one.headers}:
        wanted_values = [value for each, value in one.headers if each == name]
        if modern.get_all(name) != wanted_values:
            found.append(f"{name}: {modern.get_all(name)}")
    if "Bcc" in modern or (one.bcc and one.bcc.encode() in content):
        found.append("Bcc")
    try:
        text, html, beside, attached = _parts(modern)
    except (AssertionError, ValueError) as odd:
        return [*found, f"parts: {odd!r}"]
    found += _text_differences(one, text, html, single=not (beside or attached))
    for parts, wanted_files in (
        (beside, [_meant(each) for each in one.files if each.beside]),
        (attached, [_meant(each) for each in one.files if not each.beside]),
    ):
        read = [_file_of(part) for part in parts]
        found += [f"file: {have} for {want}" for have, want in zip(read, wanted_files, strict=False) if have != want]
        if len(read) != len(wanted_files):
            found.append(f"{len(read)} files for {len(wanted_files)}")
    return found


def _text_differences(one: Letter, text: str | None, html: str | None, *, single: bool) -> list[str]:
    """A message of one part ends with a line end, whatever its producer wrote."""
    found = []
    for name, wanted, have in (("text", one.text, text), ("html", one.html, html)):
        if name == "text" and one.html and not one.text and b"auto_text" not in one.fields:
            continue
        shown, meant = _lines(have or ""), _lines(wanted)
        if single and not (one.text and one.html):
            shown, meant = shown.removesuffix("\r\n"), meant.removesuffix("\r\n")
        if shown != meant:
            found.append(f"{name}: {shown[:200]!r} for {meant[:200]!r}")
    return found


def rebuilt(one: Letter) -> bytes:
    """A tame letter by `policy.SMTP`."""
    mail = EmailMessage(policy=policy.SMTP)
    for name, addresses in one.addresses.items():
        mail[name] = [Address(shown, addr_spec=spec) for shown, spec in addresses]
    mail["Subject"] = one.subject
    mail.set_content(one.text)
    if one.html:
        mail.add_alternative(one.html, subtype="html")
    for file in sorted(one.files, key=lambda each: not each.beside):
        main, _, rest = file.type.partition("/")
        extra = {"cid": f"<{file.cid}>"} if file.cid else {}
        place: Any = mail.get_payload(1) if file.beside else mail
        add = place.add_related if file.beside else place.add_attachment
        add(file.data, maintype=main, subtype=rest, disposition=file.disposition, filename=file.name, **extra)
    return mail.as_bytes()
