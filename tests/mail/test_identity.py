import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.errors import MalformedMail
from streamq.mail.identity import child_digest, collapse_digest, content_hash, digest
from streamq.mail.rules import key


def test_the_key_is_tenant_and_id() -> None:
    assert len(digest("", "a")) == 10
    assert len({digest("", "ab"), digest("a", "b"), digest("ab", ""), digest("", "b")}) == 4


def test_a_child_without_an_id_is_known_by_its_place_and_no_producer_s_id_is_that() -> None:
    assert len({child_digest("11-1", 2), child_digest("11-12", 2), child_digest("11-1", 3)}) == 3
    assert child_digest("11-1", 2) not in {digest("", "11-1#2"), digest("11-1", "2"), digest("11-1#2", "")}
    for control in ("\0", "\x1f"):
        with pytest.raises(MalformedMail, match="control"):
            key({b"id": f"{control}11-1#2".encode()}, b"id")


def test_content_is_all_but_id_and_traceparent() -> None:
    fields = {b"to": b"a@x", b"text": b"hi"}
    same = {b"text": b"hi", b"id": b"1", b"to": b"a@x", b"traceparent": b"00"}
    assert len(content_hash(fields)) == 4
    assert content_hash(fields) == content_hash(same)


@settings(max_examples=200, deadline=None)
@given(*[st.dictionaries(st.sampled_from([b"to", b"text", b"tex", b"x_a"]), st.binary(max_size=9))] * 2)
def test_other_content_has_another_hash(one: dict[bytes, bytes], two: dict[bytes, bytes]) -> None:
    assert (content_hash(one) == content_hash(two)) is (one == two)


def test_a_byte_may_not_move_between_name_value_and_neighbour() -> None:
    hashes = [
        content_hash(fields)
        for fields in ({b"ab": b"c"}, {b"a": b"bc"}, {b"a": b"b", b"c": b""}, {b"a": b"", b"b": b"c"})
    ]
    assert len(set(hashes)) == 4


def test_only_the_newest_of_one_mailbox_is_sent_and_case_tells_mailboxes_apart() -> None:
    """RFC 5321, section 2.4: a local part is its own server's to read, a domain has no case."""
    bob = collapse_digest("t", "bob@example.net", "k")
    assert bob == collapse_digest("t", "bob@Example.NET", "k")
    assert len(bob) == 20
    others = [("t", "Bob@example.net", "k"), ("", "bob@example.net", "k"), ("t", "bob@example.net", "K")]
    assert len({bob, *(collapse_digest(*other) for other in others)}) == 4
    assert collapse_digest("", '"a@B"@x.de', "k") != collapse_digest("", '"a@b"@x.de', "k")
