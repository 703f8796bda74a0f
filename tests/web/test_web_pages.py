"""web/pages.py: what both pages have stands in one file, and comes with each of them."""

from __future__ import annotations

import re

import pytest

from streamq.web.pages import FOLDER, page_of


@pytest.mark.parametrize("name", ["index.html", "inbox.html"])
def test_a_page_has_its_parts(name: str) -> None:
    text = bytes(page_of(name, beside=False).body).decode()
    assert "<!--" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"dialog", "dialog-title", "dialog-yes", "dialog-no", "said"} <= set(ids)


def test_the_dialog_stands_in_one_file() -> None:
    assert [path.name for path in FOLDER.glob("*.html") if "<dialog" in path.read_text("utf-8")] == ["dialog.html"]
