from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest

from bench.compose import SIZE, inputs, ours, table, theirs


def parts(content: bytes) -> list[tuple[str, Any]]:
    found = BytesParser(EmailMessage, policy=policy.default).parsebytes(content)
    leaves = [part for part in found.walk() if not part.is_multipart()]
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in leaves]


@pytest.mark.parametrize("kind", list(inputs()))
def test_both_sides_build_the_same_mail(kind: str) -> None:
    """Else the ratio would say nothing. Of html alone we make one part more."""
    fields = inputs()[kind]
    built = parts(ours(fields))
    assert [(name, data) for name, data in built if kind != "html" or name != "text/plain"] == parts(theirs(fields))
    if kind == "attachment":
        assert len(built[-1][1]) == SIZE


def test_the_table_has_a_line_for_each() -> None:
    shown = table({"plain": {"ours_us": 1.0, "ratio": 20.25}, "both": {"ours_us": 2.0, "ratio": 3.0}}).splitlines()
    assert [line.split() for line in shown] == [["ours_us", "ratio"], ["plain", "1.0", "20.2"], ["both", "2.0", "3.0"]]
