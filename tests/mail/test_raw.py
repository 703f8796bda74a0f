import re
from email import policy
from email.parser import BytesParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail import raw as file
from streamq.mail.raw import MAX_HEAD, RawHead

DATE = "Fri, 22 Nov 2024 01:06:01 +0000"
HEAD = b"From: a@x.de\r\nDate: x\r\nMessage-ID: <1@x>\r\n"


def sent(raw: bytes) -> bytes:
    """What `raw` becomes, with the Date and Message-ID that are given where it has none."""
    head = RawHead(raw)
    message_id = "" if head.message_id is not None else "<new@x>"
    message = head.message(date="" if head.has_date else DATE, message_id=message_id)
    content = message.content()
    assert message.size == len(content)
    assert message.eight_bit is not content.isascii()
    return content


def normal(data: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\r\n", data)


def test_a_whole_message_is_not_touched() -> None:
    raw = HEAD + b"Subject: hi\r\n there\r\n\r\n.body\r\n..\r\n \r\n\r\n"
    assert RawHead(raw).message(date="", message_id="").content() is raw


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"Bcc: x@y", b".", b" ", b"\xff", b"a" * 1200]), max_size=12))
def test_the_body_stays_but_for_its_line_ends(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    expected = HEAD + b"\r\n" + normal(body)
    assert sent(HEAD.replace(b"\r\n", b"\n") + b"\n" + body) == expected + (
        b"" if expected.endswith(b"\r\n") else b"\r\n"
    )


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000).filter(lambda body: b"\0" not in body))
def test_any_bytes_are_a_body(body: bytes) -> None:
    # CRLF before and a letter after: no line end of the body joins one of ours
    assert sent(HEAD + b"\r\n" + body + b"z") == HEAD + b"\r\n" + normal(body) + b"z\r\n"


LINES = st.sampled_from(
    [
        *(b"Subject: a", b"Bcc: s3cret@x", b"bcc : s3cret@x", b"RESENT-BCC:s3cret@x", b"Return-Path: <s3cret@x>"),
        *(b" s3cret", b"\t s3cret", b"X-Bcc: kept", b"Bcc-X: kept", b"Date: today", b"To: b@y", b"Message-ID: <a@b>"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(LINES, max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_what_may_not_be_seen_goes_with_its_continued_lines(lines: list[bytes], end: bytes) -> None:
    kept: list[bytes] = []
    dropping = False
    for line in lines:
        if line[:1] not in b" \t":
            dropping = line.lower().startswith((b"bcc:", b"bcc :", b"resent-bcc", b"return-path"))
        if not dropping:
            kept.append(line)
    if lines and lines[0][:1] in b" \t":
        return  # no head: a test of its own
    content = sent(end.join([*lines, b"", b"Bcc: body"]) + end)
    head, _, body = content.partition(b"\r\n\r\n")
    wanted = [line for line in kept if line]
    names = [line.partition(b":")[0].lower() for line in kept]
    if b"date" not in names:
        wanted.append(b"Date: " + DATE.encode())
    if b"message-id" not in names:
        wanted.append(b"Message-ID: <new@x>")
    assert head.split(b"\r\n") == wanted
    assert body == b"Bcc: body\r\n"


ADDED = b"Date: " + DATE.encode() + b"\r\nMessage-ID: <new@x>\r\n"


@pytest.mark.parametrize(
    ("raw", "content"),
    [
        (b"Subject: only\r\n", b"Subject: only\r\n" + ADDED),
        (b"Subject: only", b"Subject: only\r\n" + ADDED),
        (
            b"Subject: a\nno header\nBcc: b@x\n\nrest",
            b"Subject: a\r\n" + ADDED + b"\r\nno header\r\n\r\nrest\r\n",
        ),
        (b"no header\nBcc: b@x\n c@x\nTo: d@x", ADDED + b"\r\nno header\r\nTo: d@x\r\n"),
        (b"\xef\xbb\xbfBcc: b@x\nTo: d@x\n\nBcc: text", ADDED + b"\r\nTo: d@x\r\n\r\nBcc: text\r\n"),
        (b"Subject: a\nb\n\x0bbCC\x0c:b@x\n", b"Subject: a\r\n" + ADDED + b"\r\nb\r\n"),
        (b"To: a@x\nRETURN-path\xa0: <b@x>\nBcc\x0c: c@x\n\n", b"To: a@x\r\n" + ADDED + b"\r\n\r\n"),
        (b"Hello", ADDED + b"\r\nHello\r\n"),
        (b"\n\nHello", ADDED + b"\r\n\r\nHello\r\n"),
        (b"\n", ADDED + b"\r\n"),
        (b" folded: first", ADDED + b"\r\n folded: first\r\n"),
        (b"From bob@x Sat Nov 22 01:15:00 2025\nFrom: a@x\n\nFrom b\n", b"From: a@x\r\n" + ADDED + b"\r\nFrom b\r\n"),
        (b"From : a@x\n\nb\n", b"From : a@x\r\n" + ADDED + b"\r\nb\r\n"),
        (b"Subject: a\r\r\nb", b"Subject: a\r\n" + ADDED + b"\r\nb\r\n"),
        (b"Subject: a\rBcc: b@x\r\rtext", b"Subject: a\r\n" + ADDED + b"\r\ntext\r\n"),
        (b"Bcc: b@x\n", ADDED),
        (b"DATE : x\nmessage-id:\n <1@x>\n\n", b"DATE : x\r\nmessage-id:\r\n <1@x>\r\n\r\n"),
        (b"Dates: x\nX: y\n Date: z\n\n", b"Dates: x\r\nX: y\r\n Date: z\r\n" + ADDED + b"\r\n"),
    ],
)
def test_odd_messages(raw: bytes, content: bytes) -> None:
    assert sent(raw) == content


def test_long_lines_pass() -> None:
    raw = HEAD + b"X: " + b"a" * 5000 + b"\r\n\r\n" + b"b" * 5000 + b"\r\n"
    assert sent(raw) == raw


def test_nul_does_not_pass() -> None:
    with pytest.raises(ValueError, match="NUL"):
        RawHead(HEAD + b"\r\na\0b")


def test_values_are_unfolded_and_in_order() -> None:
    head = RawHead(b"To: a@x.de,\r\n\tb@x.de\r\nCC: C <c@x.de>\r\nto : d@x.de\r\nX-To: n@x.de\r\nTo:\r\n\r\nTo: n@x.de")
    assert head.values(b"to") == ["a@x.de,\tb@x.de", "d@x.de", ""]
    assert [each.spec for each in head.addresses(b"to", b"cc", b"bcc", limit=99)] == [f"{name}@x.de" for name in "abdc"]
    with pytest.raises(ValueError, match="its To is too long"):
        head.addresses(b"to", limit=19)
    with pytest.raises(ValueError, match="its To: not an address"):
        RawHead(b"To: nobody\r\n\r\n").addresses(b"to", limit=99)
    with pytest.raises(ValueError, match="its To: not UTF-8"):
        RawHead(b"To: m\xfcller@x.de\r\n\r\n").addresses(b"to", limit=99)


@pytest.mark.parametrize(
    ("raw", "author"),
    [
        (b"From: A <a@x.de>\nSender: s@x.de\n\n", "a@x.de"),
        (b"From: a@x.de, b@x.de\nSender: s@x.de\n\n", "s@x.de"),
        (b"From: nonsense\nSender: s@x.de\n\n", "s@x.de"),
        (b"From: a@x.de, b@x.de\n\n", None),
        (b"Subject: x\n\nFrom: a@x.de", None),
    ],
)
def test_the_author(raw: bytes, author: str | None) -> None:
    found = RawHead(raw).author(limit=99)
    assert (found and found.spec) == author


OLD = b"From: a@x.de\nTo: b@x.de\nCc: c@x.de\nBcc: d@x.de\n"


@pytest.mark.parametrize(
    ("raw", "to", "author"),
    [
        (OLD, ["b", "c", "d"], "a"),
        (OLD + b"Resent-To: e@x.de\n", ["e"], None),
        (b"Resent-From: g@x.de\nresent-bcc : f@x.de\nResent-Cc: e@x.de\n" + OLD, ["e", "f"], "g"),
        (b"Resent-Sender: h@x.de\nResent-From: g@x.de, i@x.de\nResent-To: e@x.de,\n f@x.de\n" + OLD, ["e", "f"], "h"),
        (b"Resent-Date: x\n" + OLD, [], None),
        (b"X-Resent-To: e@x.de\nSubject: Resent-To: f@x.de\n" + OLD, ["b", "c", "d"], "a"),
        (OLD + b"\nResent-To: e@x.de\n", ["b", "c", "d"], "a"),
    ],
)
def test_of_a_resent_message_the_resent_fields_count(raw: bytes, to: list[str], author: str | None) -> None:
    """RFC 5322, section 3.6.6; as sendmail -t."""
    head = RawHead(raw + b"\nbody")
    assert [each.spec for each in head.recipients(limit=99)] == [f"{name}@x.de" for name in to]
    found = head.author(limit=99)
    assert (found and found.spec) == (author and f"{author}@x.de")
    assert b"resent-bcc" not in sent(raw + b"\nbody").lower()


@pytest.mark.parametrize("name", [b"Resent-" + name for name in (b"Date", b"From", b"Sender", b"Message-ID")])
def test_of_a_message_that_was_resent_twice_nobody_can_tell_whom(name: bytes) -> None:
    head = RawHead(b"%b: new@x.de\nResent-To: e@x.de\n%b: old@x.de\nResent-To: f@x.de\n%b\n" % (name, name, OLD))
    with pytest.raises(ValueError, match="resent more than once"):
        head.recipients(limit=99)
    found = head.author(limit=99)
    assert (found and found.spec) == ("new@x.de" if name in (b"Resent-From", b"Resent-Sender") else None)


@pytest.mark.parametrize("name", [b"Resent-To", b"Resent-Cc", b"resent-bcc"])
def test_nor_where_only_those_to_whom_stand_twice(name: bytes) -> None:
    """Of the first time only some fields are left, as some mailers leave it."""
    head = RawHead(b"%b: new@x.de\nResent-From: g@x.de\n%b : old@x.de\n%b\n" % (name, name, OLD))
    with pytest.raises(ValueError, match="resent more than once"):
        head.recipients(limit=1000)


def test_a_message_id_is_told_cut_and_as_text() -> None:
    assert RawHead(b"Message-ID:\n  <1@x> \n\n").message_id == "<1@x>"
    assert RawHead(b"Message-ID: <\xff" + b"a" * 9999 + b">\n\n").message_id == "<?" + "a" * 253
    assert RawHead(b"Subject: x\n\nMessage-ID: <1@x>").message_id is None


@pytest.mark.parametrize("before", [b"\n", b"\r\n\n", b"From a@x.de Sat Nov  2\n\n"])
def test_what_hides_the_header_is_refused(before: bytes) -> None:
    """To every reader all of it would be body, with its Bcc."""
    with pytest.raises(ValueError, match="in front of its header"):
        RawHead(before + b"From: a@x.de\nBcc: secret@x.de\n\nHello")
    assert sent(before + b"Hello there\n").endswith(b"\r\nHello there\r\n")  # no header at all


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300).filter(lambda raw: b"\0" not in raw))
def test_any_bytes_become_a_message_with_clean_line_ends(raw: bytes) -> None:
    try:
        content = sent(raw)
    except ValueError:  # an empty line stands in front of its header
        assert raw.startswith((b"\r", b"\n", b"From "))
        return
    assert content.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
    found = BytesParser(policy=policy.compat32).parsebytes(content)
    assert found["Date"]
    assert "Message-ID" in found
    assert found["Bcc"] is None


FIELDS = b"From: a@x.de\r\nTo: b@x.de\r\n"


@pytest.mark.parametrize(
    "more",
    [
        b"To: b@y.de\r\n",
        b"X:\r\n",
        b" \r\n",
        b" ",
        b"a",
        b"Bcc: x\r\n y\r\n",
        b"Subject: " + b"x" * MAX_HEAD,
        b"\tx\r\n",
    ],
)
def test_a_header_of_more_than_a_megabyte_is_refused(more: bytes) -> None:
    """Wherever in a field the end of what is looked at falls."""
    for shift in range(len(more) if len(more) < 20 else 1):
        head = FIELDS + b"Y: " + b"z" * shift + b"\r\n" + more * (MAX_HEAD // len(more) + 1)
        with pytest.raises(ValueError, match=f"its header is longer than {MAX_HEAD} bytes"):
            RawHead(head + b"\r\n\r\nBody")


@pytest.mark.parametrize("before", [b"", b"From a@x.de Sat Nov  2\r\n"])
def test_one_of_a_megabyte_is_not(before: bytes) -> None:
    head = FIELDS + b"X: " + b"y" * (MAX_HEAD - len(FIELDS) - 5) + b"\r\n"
    assert len(head) == MAX_HEAD
    for body in (b"\r\nBody: x\r\n", b"", b"\r\n"):
        assert RawHead(before + head + body).message(date="", message_id="").content() == head + body
    with pytest.raises(ValueError, match="longer"):
        RawHead(before + head + b"Z: x\r\n")


@pytest.mark.parametrize("body", [b" x" * MAX_HEAD, b"\xffx" * MAX_HEAD, b"\r\n" * MAX_HEAD, b"\xff\r\n" * MAX_HEAD])
def test_what_is_no_header_may_be_longer(body: bytes) -> None:
    content = RawHead(body).message(date="", message_id="").content()
    assert content.endswith(body.removesuffix(b"\r\n") + b"\r\n")
    assert RawHead(FIELDS + b"\r\n" + body).message(date="", message_id="").content().startswith(FIELDS + b"\r\n")


@given(
    st.lists(st.sampled_from([b"bcc: x", b" y", b"text", b"\tbcc: z", b"Bcc : a", b"", b"b"]), max_size=30),
    st.integers(1, 30),
)
def test_what_strayed_goes_piece_by_piece(lines: list[bytes], size: int) -> None:
    message = FIELDS + b"broken line\r\n" + b"".join(line + b"\r\n" for line in lines)
    whole = RawHead(message).message(date="x", message_id="").content()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(file, "PIECE", size)
        assert RawHead(message).message(date="x", message_id="").content() == whole
