"""Lists of addresses that many mails show: read once, put on lines once, and no more of them kept than is said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamq.errors import MalformedMail
from streamq.mail import Mail, mailboxes, parse
from streamq.mail.address import Address, parse_list
from streamq.mail.headers import address_field
from streamq.mail.mailboxes import LONG, Mailboxes, is_kept, read_mailboxes
from streamq.mail.several import Shared, merged

EVERYONE = ", ".join(f"Number {number} <r{number}@x.example>" for number in range(500))
KEPT_BYTES = 7 * len(EVERYONE)  # not as much as in earnest: each list takes some ms to read
BASE = {b"from": b"shop@example.com", b"subject": b"Hi", b"text": b"Hello"}


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mailboxes._kept.clear()
    monkeypatch.setattr(mailboxes, "_bytes", 0)
    monkeypatch.setattr(mailboxes, "KEPT_BYTES", KEPT_BYTES)
    yield
    mailboxes._kept.clear()


def read(fields: dict[bytes, bytes], parent: str = "") -> Mail:
    return parse(fields, entry="11-0", at_ms=0, salt=b"", max_bytes=10**6, parent=parent)


def test_what_all_children_show_is_read_and_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read_texts: list[str] = []
    written: list[str] = []

    def noted(text: str) -> list[Address]:
        read_texts.append(text)
        return parse_list(text)

    def folded(name: str, addresses: Mailboxes) -> str:
        written.append(name)
        return address_field(name, addresses)

    monkeypatch.setattr(mailboxes, "parse_list", noted)
    monkeypatch.setattr(mailboxes, "address_field", folded)
    mail = read(BASE | {b"to": EVERYONE.encode(), b"cc": b"boss@x.example"})
    assert mail.several is not None
    shared = Shared("11-0", mail.several.fields, False)
    contents = {
        read(merged({b"@of": b"11-0", b"@n": b"%d" % nth, b"envelope_to": child.value}, shared), "11-0").content()
        for nth, child in enumerate(mail.several.children, 1)
    }
    assert len(mail.several.children) == 501
    assert len(contents) == 1
    assert read_texts.count(EVERYONE) == 1
    assert written.count("To") == 1


def test_no_more_is_kept_than_is_said() -> None:
    for number in range(3 * KEPT_BYTES // len(EVERYONE)):
        read_mailboxes(b"to", f"n{number}@x.example, {EVERYONE}".encode())
        assert sum(map(len, mailboxes._kept)) == mailboxes._bytes <= KEPT_BYTES
    assert len(mailboxes._kept) > 1
    assert is_kept(f"n{number}@x.example, {EVERYONE}".encode())
    assert not is_kept(f"n0@x.example, {EVERYONE}".encode())


def test_the_last_used_are_kept() -> None:
    first = EVERYONE.encode()
    found = read_mailboxes(b"to", first)
    for number in range(2 * KEPT_BYTES // len(EVERYONE)):
        read_mailboxes(b"to", f"n{number}@x.example, {EVERYONE}".encode())
        assert read_mailboxes(b"cc", bytes(bytearray(first))) is found


def test_what_is_short_or_wrong_is_not_kept() -> None:
    read_mailboxes(b"to", b"a@x.example")
    for field in (b"to", b"cc"):
        with pytest.raises(MalformedMail, match=f"^{field.decode()}: address 501: not an address"):
            read(BASE | {b"to": b"a@x.example", field: EVERYONE.encode() + b", nobody"})
    with pytest.raises(MalformedMail, match=r"^to: not a JSON array"):
        read(BASE | {b"to": b'["a@x.example"' + b" " * LONG})
    assert not mailboxes._kept


def test_they_say_what_they_would_say_one_by_one() -> None:
    for text in ("a@x.example", "J\u00f6rg <j\u00f6rg@x.example>, B <b@x.example>", EVERYONE):
        addresses = parse_list(text)
        found = Mailboxes(addresses)
        for _ in range(2):
            assert found == tuple(addresses)
            assert found.field("Cc") == address_field("Cc", addresses)
            assert found.field("To") == address_field("To", addresses)
            assert found.are_ascii == all(each.local.isascii() for each in addresses)
            assert found.octets >= sum(len(each.spec) - 1 for each in addresses)
