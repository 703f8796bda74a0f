"""`cid:` addresses in a mail's html (RFC 2392) as those of its parts: `src` of an image, `background`, nowhere else.

The address has the mail's key. In a link it would be handed to whoever is linked to, as a part of a longer address, too
(`href="https://elsewhere/?src=cid:logo"`): so tags are read as browsers read them (HTML, 13.2.5), and text is none.
Where other rules begin (`STRANGE`, a script with a comment in it), nothing more is replaced. One pass; nothing is
looked at twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["with_parts"]

CID = re.compile(r"\s{0,100}cid:([^\s\"'<>()]{1,300})\s{0,100}", re.IGNORECASE)
NAME = re.compile(r"[a-z][^\s/>]*", re.IGNORECASE)
GAP = re.compile(r"[\s/]*")
ATTRIBUTE = re.compile(r"[^\s/>][^\s/>=]*")
EQUALS = re.compile(r"\s*=\s*")
BARE = re.compile(r"[^\s>]*")
COMMENT_ENDS = re.compile("--!?>")
RAW = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)
    for name in ("style", "script", "title", "textarea", "xmp", "noembed", "noframes")
}  # the frame runs no script: its `noscript` is none of these
STRANGE = frozenset({"svg", "math", "plaintext"})
SHOWN = {"img": "src", **dict.fromkeys(("body", "table", "thead", "tbody", "tr", "td", "th"), "background")}


def with_parts(html: str, address: Callable[[str], str | None]) -> str:
    """`address`: of a Content-ID as it stands there; None: it stays as it is."""
    found: list[str] = []
    done = at = 0
    while (at := html.find("<", at)) >= 0:
        if html.startswith("<!--", at):
            ends = COMMENT_ENDS.search(html, at + 2)
            at = ends.end() if ends else len(html)
            continue
        name = NAME.match(html, at + 1)
        if name is None:
            at += 1
            continue
        values, at = _attributes(html, name.end())
        tag = name[0].lower()
        for attribute, start, end in values:
            cid = CID.fullmatch(html, start, end) if SHOWN.get(tag) == attribute else None
            url = address(cid[1]) if cid else None
            if url is not None:
                found += html[done:start], url
                done = end
        if tag in STRANGE:
            break
        if tag in RAW:
            ends = RAW[tag].search(html, at)
            if ends is None or (tag == "script" and html.find("<!--", at, ends.start()) >= 0):
                break
            at = ends.start()
    return "".join([*found, html[done:]])


def _attributes(html: str, at: int) -> tuple[list[tuple[str, int, int]], int]:
    """Names, and where their values are; and where the tag is over. Of a tag without an end: none, and all of it."""
    found: list[tuple[str, int, int]] = []
    while True:
        at = _end(GAP, html, at)
        if at == len(html):
            return [], at
        if html[at] == ">":
            return found, at + 1
        begun, at = at, _end(ATTRIBUTE, html, at)
        name = html[begun:at].lower()
        equals = EQUALS.match(html, at)
        if equals is None:
            continue
        start = equals.end()
        quote = html[start : start + 1]
        if quote in {'"', "'"}:
            start += 1
            end = html.find(quote, start)
            if end < 0:
                return [], len(html)
            at = end + 1
        else:
            end = at = _end(BARE, html, start)
        found.append((name, start, end))


def _end(pattern: re.Pattern[str], html: str, at: int) -> int:
    found = pattern.match(html, at)
    return found.end() if found else at
