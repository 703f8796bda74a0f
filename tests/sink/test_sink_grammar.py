from __future__ import annotations

import pytest

from streamq.sink.grammar import Refusal, host_argument, mail_arguments, rcpt_arguments

LONGEST_LOCAL = b"l" * 64  # and with the longest host and both brackets: 256
LONGEST_HOST = b".".join([b"d" * 63, b"d" * 63, b"d" * 61])


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (b"bob@example.net", "bob@example.net"),
        (b"Bob.O'Hara+tag=1@Example.NET", "Bob.O'Hara+tag=1@Example.NET"),
        (b"!#$%&'*+-/=?^_`{|}~@x", "!#$%&'*+-/=?^_`{|}~@x"),
        (b'"a b"@example.net', '"a b"@example.net'),
        (b'"a@b\\"c\\\\>"@example.net', '"a@b\\"c\\\\>"@example.net'),
        (b'""@example.net', '""@example.net'),
        (b"bob@[192.0.2.1]", "bob@[192.0.2.1]"),
        (b"bob@[IPv6:2001:db8::1]", "bob@[IPv6:2001:db8::1]"),
        (b"@relay.example,@b.example:bob@example.net", "bob@example.net"),
        (b"bob@my_container", "bob@my_container"),
        ("jörg@müller.example".encode(), "jörg@müller.example"),
        (LONGEST_LOCAL + b"@" + LONGEST_HOST, (LONGEST_LOCAL + b"@" + LONGEST_HOST).decode()),
    ],
)
def test_paths_that_are_ones(path: bytes, address: str) -> None:
    assert rcpt_arguments(b"TO:<" + path + b">").recipient == address
    assert mail_arguments(b"FROM:<" + path + b">").sender == address


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"bob@example.net",
        b"<bob@example.net",
        b"bob@example.net>",
        b" <bob@example.net>",
        b"<bob>",
        b"<bob@>",
        b"<@example.net>",
        b"<bob@@example.net>",
        b"<bob@example..net>",
        b"<bob@example.net.>",
        b"<bob@-example.net>",
        b"<bob@example-.net>",
        b"<.bob@example.net>",
        b"<bob.@example.net>",
        b"<b..ob@example.net>",
        b"<b ob@example.net>",
        b"<b(c)@example.net>",
        b'<"bob@example.net>',
        b'<"b"ob@example.net>',
        b"<bob@[192.0.2.256]>",
        b"<bob@[192.0.2]>",
        b"<bob@[IPv6:2001:db8::g]>",
        b"<bob@[2001:db8::1]>",
        b"<bob@[tag:x]>",
        b"<bob@example.net\x00>",
        b"<bob@exa\nmple.net>",
        b"<b\rob@example.net>",
        b"<b\xffob@example.net>",
        b"<" + b"l" * 65 + b"@x>",
        b"<l@" + b".".join([b"d" * 63] * 4) + b">",
        b"<" + LONGEST_LOCAL + b"@" + LONGEST_HOST + b"d>",
        b"<b@x>SIZE=1",
    ],
)
def test_paths_that_are_none(path: bytes) -> None:
    for prefix, read in ((b"TO:", rcpt_arguments), (b"FROM:", mail_arguments)):
        with pytest.raises(Refusal) as refused:
            read(prefix + path)
        assert refused.value.reply.startswith(b"501 5.")


def test_only_a_sender_may_be_null_and_only_a_recipient_a_bare_postmaster() -> None:
    assert mail_arguments(b"from:<>").sender == ""
    assert mail_arguments(b"FROM:<> SIZE=5").size == 5
    assert rcpt_arguments(b"To:<PostMaster>").recipient == "PostMaster"
    for read, text in ((rcpt_arguments, b"TO:<>"), (mail_arguments, b"FROM:<postmaster>")):
        with pytest.raises(Refusal):
            read(text)


def test_parameters_of_mail() -> None:
    given = mail_arguments(b"FROM:<a@b> size=1000  BODY=8bitmime SMTPUTF8 X-Y=z")
    assert (given.size, given.body, given.smtputf8) == (1000, "8BITMIME", True)
    assert given.parameters == {"SIZE": "1000", "BODY": "8bitmime", "SMTPUTF8": None, "X-Y": "z"}


@pytest.mark.parametrize(
    "parameters",
    [
        b"SIZE",
        b"SIZE=",
        b"SIZE=x",
        b"SIZE=" + b"1" * 21,
        b"BODY",
        b"BODY=9BIT",
        b"SMTPUTF8=yes",
        b"SIZE=1 SIZE=1",
        b"=1",
        b"A=b=c",
        b"A=\x7f",
        b"-A",
    ],
)
def test_parameters_that_are_none(parameters: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        mail_arguments(b"FROM:<a@b> " + parameters)
    assert refused.value.reply.startswith(b"501 5.5.4")


@pytest.mark.parametrize("text", [b"mx1.example", b"localhost", b"container_1", "müller.example".encode()])
def test_host_names(text: bytes) -> None:
    assert host_argument(text, literals=False) == text.decode()


@pytest.mark.parametrize("text", [b"", b"a b", b"a..b", b".", b"a\x00b", b"\xff", b"[x]", b"d" * 64, b"<a>"])
def test_host_names_that_are_none(text: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        host_argument(text, literals=True)
    assert refused.value.reply.startswith(b"501 5.5.4")


def test_an_address_literal_is_for_ehlo_only() -> None:
    assert host_argument(b"[127.0.0.1]", literals=True) == "[127.0.0.1]"
    assert host_argument(b"[IPv6:::1]", literals=True) == "[IPv6:::1]"
    with pytest.raises(Refusal):
        host_argument(b"[127.0.0.1]", literals=False)
