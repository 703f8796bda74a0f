"""The text beside an html that came without one: RFC 2046, section 5.1.4; spam filters ask for it, too.

Not `html.parser`: it is quadratic on hostile input before Python 3.11.14 (CVE-2025-6069), and its tokens changed
between patch releases, so that two workers could send two texts of one mail. The scanner here is one pass of
patterns that can't backtrack; what it does not understand it leaves out, as browsers do.

Kept: paragraphs, lists with their signs, tables a row a line, quotes behind `>`, preformatted text, links as
`text <url>`, the texts of images. Left out: script, style, title, comments, and what a style hides (the line
that newsletters give to a mailbox's preview).
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import unescape

from streamq.mail.lines import Lines

__all__ = ["MAX_HTML", "text_of"]

MAX_HTML = 131_072  # octets; Gmail shows no more than 102 KB, and a conversion must not hold up a worker
MAX_URL = 2_000

# A quote counts only behind an equals sign (HTML, section 13.2.5); no group can give back what it took
VALUE = r"""=[ \t\r\n\f]*+(?>"[^"]*+"?|'[^']*+'?)?"""
TOKEN = re.compile(  # text; rest of a comment's start; end tag or not, name, attributes
    rf"([^<]++|<(?![!?/A-Za-z]))|<(/?)([A-Za-z][^\s/>]*+)((?>(?:[^>=]++|{VALUE})*))>?|<!--(-?>|)|<[!?/][^>]*+>?"
)
ATTRIBUTE = re.compile(r"""([^\s"'=<>/]++)(?>(?:[ \t\r\n\f]*+=[ \t\r\n\f]*+(?>"([^"]*+)"?|'([^']*+)'?|([^\s>]++)))?)""")
REFERENCE = re.compile(r"&(?:#[0-9]{1,7}(?![0-9])|#[xX][0-9A-Fa-f]{1,6}(?![0-9A-Fa-f])|[A-Za-z][A-Za-z0-9]{1,31});?")
SPACE = re.compile(r"[ \t\r\n\f]+")
CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f]")
UNSEEN = re.compile(r"display[ ]*+:[ ]*+none|mso-hide[ ]*+:[ ]*+all|visibility[ ]*+:[ ]*+hidden", re.I)
SHOWN_LINK = re.compile(r"(?:https?|mailto|tel|sms):", re.I)

# Their content is no markup, or nothing that a reader of text could use
SKIPPED = {
    tag: re.compile(rf"</{tag}(?=[\s/>])[^>]*+>?", re.I)
    for tag in ("script", "style", "title", "template", "iframe", "noembed", "noframes", "xmp", "svg", "select")
}
VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"])
APART = frozenset(["p", "h1", "h2", "h3", "h4", "h5", "h6", "dl", "table", "figure", "hr"])
ALONE = frozenset(
    {
        *("address", "article", "aside", "body", "caption", "center", "dd", "details", "div", "dt", "fieldset"),
        *("figcaption", "footer", "form", "header", "hgroup", "html", "legend", "li", "main", "menu", "nav"),
        *("section", "summary", "tbody", "tfoot", "thead", "tr"),
    }
)
HOLDING = frozenset(("ul", "ol", "blockquote"))
TOLD = APART | ALONE | HOLDING | {"a", "br", "img", "pre", "td", "th"}  # the others change no text


@lru_cache(maxsize=16)  # a newsletter's entries come one after the other, and a parked mail is read twice
def text_of(html: bytes) -> bytes:
    """UTF-8 with LF line ends, no blanks at their ends; b"" where nothing is to be read, or where `html` (UTF-8)
    is over MAX_HTML."""
    if len(html) > MAX_HTML:
        return b""
    text = html.decode()
    found = _Reader(hiding=True).read(text)
    if found is None:  # hidden up to its end: a start tag without its end tag, more likely than a mail of nothing
        found = _Reader(hiding=False).read(text)
    return (found or "").encode()


class _Reader:
    """One pass over one html."""

    def __init__(self, *, hiding: bool) -> None:
        self.hiding = hiding
        self.hidden = ""  # the tag that hides what is read now
        self.depth = 0  # of such tags in it
        self.preformatted = 0
        self.url = ""
        self.link: list[str] = []  # what was said since the link's start
        self.lines = Lines()

    def read(self, html: str) -> str | None:
        """None: the end came where nothing is shown."""
        at, size, match = 0, len(html), TOKEN.match
        while at < size:
            found = match(html, at)
            assert found  # every character begins a token
            at = found.end()
            text, slash, tag, attributes, comment = found.groups()
            if text:
                if not self.hidden:
                    self._say(text)
            elif tag:
                at = self._tag(tag.lower(), bool(slash), attributes, html, at)
            elif comment == "":
                at = html.find("-->", at) + 3
                if at < 3:
                    break
        if self.hidden:
            return None
        self._end_link()
        return self.lines.text()

    def _tag(self, tag: str, closes: bool, attributes: str, html: str, at: int) -> int:
        """Where reading goes on."""
        if self.hidden:
            if tag == self.hidden:
                # A paragraph has no other in it: the next one ends it (HTML, section 13.1.2.4)
                self.depth += -1 if closes or tag == "p" else 1
                self.hidden = self.hidden if self.depth else ""
        elif closes:
            if tag in TOLD:
                self._end(tag)
        elif tag in SKIPPED:
            if not attributes.endswith("/"):
                end = SKIPPED[tag].search(html, at)
                return end.end() if end else len(html)
        elif self.hiding and ":" in attributes and tag not in VOID and UNSEEN.search(attributes):
            self.hidden, self.depth = tag, 1
        elif tag in TOLD:
            self._start(tag, attributes)
        return at

    def _start(self, tag: str, attributes: str) -> None:
        if tag == "br":
            self.lines.end_line()
        elif tag in ("td", "th"):
            self.lines.cell()
        elif tag == "a":
            self._end_link()
            self.url = _url(_attribute(attributes, "href"))
            self.link = []
        elif tag == "img":
            if alt := _attribute(attributes, "alt"):
                self._say(alt)
        elif tag in HOLDING:
            self.lines.open(tag)
        elif tag == "pre":
            self.lines.apart()
            self.preformatted += 1
        else:
            self._apart(tag)
            if tag == "li":
                self.lines.item()
            elif tag == "hr":
                self.lines.say("---")
                self.lines.apart()

    def _end(self, tag: str) -> None:
        if tag == "a":
            self._end_link()
        elif tag in HOLDING:
            self.lines.close(tag)
        elif tag == "pre":
            self.lines.apart()
            self.preformatted = max(self.preformatted - 1, 0)
        else:
            self._apart(tag)

    def _apart(self, tag: str) -> None:
        if tag in APART:
            self.lines.apart()
        elif tag in ALONE:
            self.lines.alone()

    def _say(self, text: str) -> None:
        if self.preformatted:
            for number, line in enumerate(_plain(text).splitlines()):
                if number:
                    self.lines.end_line()
                if line.strip():
                    self.lines.say(line)
            if text.endswith("\n"):
                self.lines.end_line()
            return
        words = text if text.isspace() else _plain(SPACE.sub(" ", text))
        if not (said := words.strip()):
            self.lines.blank()
            return
        if self.url:
            self.link.append(said)
        if words[0] == " ":
            self.lines.blank()
        self.lines.say(said)
        if words[-1] == " ":
            self.lines.blank()

    def _end_link(self) -> None:
        if not self.url:
            return
        said = " ".join(self.link)
        if said.rstrip("/") not in (self.url.rstrip("/"), self.url.partition(":")[2]):
            self.lines.glue(f"<{self.url}>")
        self.url = ""


def _attribute(attributes: str, name: str) -> str:
    for found in ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return found[2] or found[3] or found[4] or ""
    return ""


def _url(value: str) -> str:
    """What a link leads to, "" where that is of no use in a text (a place in the page, a script)."""
    url = "".join(_plain(value).split()).replace("<", "%3C").replace(">", "%3E")
    if not SHOWN_LINK.match(url) or len(url) > MAX_URL:
        return ""
    return url[7:].partition("?")[0] if url[:7].lower() == "mailto:" else url


def _plain(text: str) -> str:
    """Character references as what they stand for. `unescape` sees one at a time: it stumbles over numbers of
    more than 4,300 digits."""
    if "&" in text:
        text = REFERENCE.sub(lambda found: unescape(found[0]), text)
    if not text.isprintable():
        text = CONTROL.sub("", text).replace("\xa0", " ")
    return text
