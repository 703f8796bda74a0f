"""Where a mail's html gets addresses with its key, and where it must not."""

from __future__ import annotations

import time

import pytest

from streamq.web.inbox_cid import with_parts

KEY = "/parts/0?key=SECRET"


def shown(html: str) -> str:
    return with_parts(html, {"logo@x": KEY}.get)


@pytest.mark.parametrize(
    ("html", "begins"),
    [
        ('<img src="cid:logo@x">', f'<img src="{KEY}">'),
        ("<p>a<IMG alt='>' SRC = ' CID:logo@x '/>b", f"<p>a<IMG alt='>' SRC = '{KEY}'/>b"),
        ("<img alt=x src=cid:logo@x><img src=cid:logo@x>", f"<img alt=x src={KEY}><img src={KEY}>"),
        ('<table><td background="cid:logo@x">', f'<table><td background="{KEY}">'),
        ('<!--><img src="cid:logo@x">', f'<!--><img src="{KEY}">'),
        ("a < b <img src=cid:logo@x", "a < b <img src=cid:logo@x"),  # no tag: it has no end
        ('<img src="cid:other@x">', '<img src="cid:other@x">'),
        ('<script>"<a b=</script><img src="cid:logo@x">', f'<script>"<a b=</script><img src="{KEY}">'),
        ('<noscript><img src="cid:logo@x">', f'<noscript><img src="{KEY}">'),
    ],
)
def test_images_are_shown(html: str, begins: str) -> None:
    assert shown(html) == begins


@pytest.mark.parametrize(
    "html",
    [
        '<a href="cid:logo@x">see</a>',
        '<a href="https://evil.example/?src=cid:logo@x">see</a>',
        "<a href='https://evil.example/? src=cid:logo@x >'>see</a>",
        '<a href="https://evil.example/<img src=cid:logo@x>">see</a>',
        "<a href=https://evil.example/<img/src=cid:logo@x>see</a>",
        '<!--><a href="https://evil.example/--><img src=cid:logo@x>">',
        '<a title="<!--" href="https://evil.example/--><img src=cid:logo@x>">',
        '<title><a href="</title><a href="https://evil.example/<img src=cid:logo@x>">',
        '<style><a x="</style><a href="https://evil.example/<img src=cid:logo@x>">',
        '<svg><style><a href="https://evil.example/</style><img src=cid:logo@x>">',
        '<script><!--<script></script><a x="</script><a href="https://evil.example/<img src=cid:logo@x>">',
        '<iframe><a href="https://evil.example/</iframe><img src=cid:logo@x>">',
        '<form action="cid:logo@x"><video src="cid:logo@x" poster="cid:logo@x"><img srcset="cid:logo@x 2x">',
        '<p style="background: url(cid:logo@x)">cid:logo@x</p>',
        '<img src="https://evil.example/?cid:logo@x"><img alt="cid:logo@x"><img src="cid:logo@x x">',
    ],
)
def test_nobody_else_gets_the_key(html: str) -> None:
    assert "SECRET" not in shown(html)


@pytest.mark.parametrize(
    "part", ["<", "<a ", "<a b='", '<img src="cid:', "<!--", "<a b=", "<style>", "<a/", "<img src = "]
)
def test_what_is_a_million_characters_takes_no_second_look(part: str) -> None:
    begun = time.process_time()
    assert shown(part * (1_000_000 // len(part))) == part * (1_000_000 // len(part))
    assert time.process_time() - begun < 20  # looked at again for each sign it would be hours
