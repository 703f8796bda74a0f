from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest

from streamq.mail.attachments import Attachment
from streamq.mail.mime import body

TEXT, HTML = b"Hello\n", b"<p>Hello <img src='cid:logo'>\n"
LOGO = Attachment("logo.png", ("image/png",), "logo", True, True, b"aGk=")
PDF = Attachment("a.pdf", ("application/pdf",), "", False, True, b"aGk=")
MESSAGE = Attachment("", ("message/rfc822",), "", False, False, b"Subject: a\r\n\r\nHi\r\n")


def read(text: bytes, html: bytes, attachments: tuple[Attachment, ...] = (), boundary: str = "=_0123") -> EmailMessage:
    content = b"MIME-Version: 1.0\r\n" + b"".join(body(text, html, attachments, boundary))
    assert content.endswith(b"\r\n")
    found = BytesParser(EmailMessage, policy=policy.default).parsebytes(content)
    assert not [each for part in found.walk() for each in part.defects]
    return found


def shape(part: Any) -> Any:
    if part.get_content_maintype() == "multipart":
        return {part.get_content_subtype(): [shape(each) for each in part.iter_parts()]}
    return part.get_content_subtype()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((b"", b"", ()), "plain"),
        ((TEXT, b"", ()), "plain"),
        ((b"", HTML, ()), "html"),
        ((TEXT, HTML, ()), {"alternative": ["plain", "html"]}),
        ((TEXT, b"", (PDF,)), {"mixed": ["plain", "pdf"]}),
        ((b"", b"", (PDF,)), {"mixed": ["pdf"]}),
        ((TEXT, b"", (LOGO,)), {"mixed": ["plain", "png"]}),
        ((b"", HTML, (LOGO,)), {"related": ["html", "png"]}),
        ((b"", HTML, (LOGO._replace(inline=False),)), {"mixed": ["html", "png"]}),
        ((b"", HTML, (LOGO._replace(content_id=""),)), {"mixed": ["html", "png"]}),
        ((TEXT, HTML, (PDF, LOGO)), {"mixed": [{"alternative": ["plain", {"related": ["html", "png"]}]}, "pdf"]}),
        ((TEXT, HTML, (PDF, MESSAGE)), {"mixed": [{"alternative": ["plain", "html"]}, "pdf", "rfc822"]}),
    ],
)
def test_parts_are_nested_as_readers_expect(given: Any, shown: Any) -> None:
    assert shape(read(*given)) == shown


def test_a_related_part_names_its_root() -> None:
    """RFC 2387, section 3.1."""
    assert read(b"", HTML, (LOGO,)).get_param("type") == "text/html"


def test_an_attachment_in_full() -> None:
    named = LOGO._replace(filename="Grüße.txt", media_type=("text/plain", "charset=utf-8"))
    (part,) = list(read(b"", b"", (named,)).iter_parts())
    assert part.as_bytes(policy=policy.SMTP.clone(refold_source="none")) == (
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: base64\r\n"
        b"Content-ID: <logo>\r\n"
        b"Content-Disposition: inline; filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt;\r\n"
        b' filename="Gru_e.txt"\r\n'
        b"\r\naGk="
    )


def test_a_boundary_stands_in_no_part() -> None:
    """Were one known beforehand, a text could end its own part and begin another one."""
    mark = b"--=_0123"
    text = b"one\n%b.m\n%b_.a--\n\n%b\n" % (mark, mark, mark)
    message = MESSAGE._replace(data=b"Subject: a\r\n\r\n%b__.m--\r\n" % mark)
    found = read(text, HTML, (PDF, message))
    assert shape(found) == {"mixed": [{"alternative": ["plain", "html"]}, "pdf", "rfc822"]}
    plain = found.get_body(("plain",))
    assert plain is not None
    assert plain.get_payload(decode=True) == text.replace(b"\n", b"\r\n")
    boundaries = [part.get_boundary() for part in found.walk() if part.is_multipart() and part.get_boundary()]
    assert boundaries == ["=_0123___.m", "=_0123___.a"]


def test_every_line_of_an_attachment_is_full_but_the_last() -> None:
    data = b"QUJD" * 1000
    lines = b"".join(body(b"", b"", (PDF._replace(data=data),), "=_0")).split(b"\r\n")
    coded = [line for line in lines if line.startswith((b"QUJD", b"JDQU", b"DQUJ", b"UJDQ"))]
    assert b"".join(coded) == data
    assert {len(line) for line in coded[:-1]} == {76}
