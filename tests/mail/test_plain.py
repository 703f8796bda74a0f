import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamq.mail.plain import MAX_HTML, text_of


def text(html: str) -> str:
    return text_of(html.encode()).decode()


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("", ""),
        ("Hello", "Hello\n"),
        ("<p>One</p><p>Two</p>", "One\n\nTwo\n"),
        ("<p>One<p>Two", "One\n\nTwo\n"),
        ("  one \n\t two<br>three<br/>four <br><br><br><br> five", "one two\nthree\nfour\n\nfive\n"),
        ("<div>a</div><div><div>b</div></div>c", "a\nb\nc\n"),
        ("a<b>b</b><i> c</i> <u>d</u>", "ab c d\n"),
        ("<h1>Big</h1>small", "Big\n\nsmall\n"),
        ("a<hr>b", "a\n\n---\n\nb\n"),
        (
            "Fish &amp; chips &lt;3 &euro;5&nbsp;&nbsp;&#x263A;&#9786; &copy &nosuch; &",
            "Fish & chips <3 €5  ☺☺ © &nosuch; &\n",
        ),
        ("a < b, c<3, x <", "a < b, c<3, x <\n"),
    ],
)
def test_words_and_paragraphs(html: str, shown: str) -> None:
    assert text(html) == shown


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ('<a href="https://x.de/?a=1&amp;b=2">Look</a> here', "Look <https://x.de/?a=1&b=2> here\n"),
        ("<a href='http://x.de'>http://x.de/</a>", "http://x.de/\n"),
        ('<A HREF="mailto:bob@x.de?subject=Hi">write</A>', "write <bob@x.de>\n"),
        ('<a href="mailto:bob@x.de">bob@x.de</a>', "bob@x.de\n"),
        ('<a href="tel:+49301">+49301</a>', "+49301\n"),
        ('<a href="#top">top</a> <a name=x>y</a> <a href="javascript:a()">z</a>', "top y z\n"),
        ('<a href="https://x.de/a b<c>">x</a>', "x <https://x.de/ab%3Cc%3E>\n"),
        ('<a href="https://x.de/"><img alt="Buy" src=a></a>', "Buy <https://x.de/>\n"),
        ('<a href="https://x.de/"><img src=a></a>', "<https://x.de/>\n"),
        ('<a href="https://x.de/"><div>Buy <b>now</b></div></a><p>b', "Buy now <https://x.de/>\n\nb\n"),
        ('<a href="https://x.de/">one<a href="https://y.de/">two', "one <https://x.de/> two <https://y.de/>\n"),
        ('<a title="a>b" href=https://x.de/>x</a>', "x <https://x.de/>\n"),
        ("<a title=it's href=https://x.de/>x</a> don't", "x <https://x.de/> don't\n"),
        ('<img src=a alt="A cat">', "A cat\n"),
    ],
)
def test_links_and_images(html: str, shown: str) -> None:
    assert text(html) == shown


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("<ul><li>a<li>b</ul>c", "* a\n* b\n\nc\n"),
        ("<ol><li>a</li><li></li><li>b<ul><li>c</ul></ol>", "1. a\n3. b\n   * c\n"),
        ("<li>a", "* a\n"),
        ("<ul><li><p>a</p><p>b</p></ul>", "* a\n\n  b\n"),
        ("x<blockquote>a<blockquote>b</blockquote></blockquote>c", "x\n\n> a\n>\n> > b\n\nc\n"),
        ("<pre>\n  a\n\n    b </pre>c  d", "  a\n\n    b\n\nc d\n"),
        ("<table><tr><th>a<th>b</tr><tr><td>1</td><td></td><td>3</td></table>", "a | b\n1 | | 3\n"),
        ("<table><tr><td><table><tr><td>a</table><td><p>b</table>", "a\n\nb\n"),
    ],
)
def test_lists_quotes_and_tables(html: str, shown: str) -> None:
    assert text(html) == shown


@pytest.mark.parametrize(
    "html",
    [
        "<style>p {}</style>a",
        "<SCRIPT>if (a < b) '</p>'</script >a",
        "<head><title>T &amp; <b></title></head>a",
        "<!-- x > <p>y</p> -->a",
        "<!--[if mso]><p>x</p><![endif]-->a",
        "<![if !mso]>a<![endif]>",
        "<!---->a<!-->",
        "<!DOCTYPE html>a<?xml b?></ c>",
        '<div style="display:none; x">b<div>c</div></div>a',
        "<p style='DISPLAY : NONE'>b<p>a",
        "<span style=mso-hide:all>b<br><br></span>a",
        "<svg><text>b</text></svg>a<svg/>",
        "a<script>b",
        "a<!-- b",
        "a<p title='b",
        "<div style='display:none'><b>a",
    ],
)
def test_what_is_not_shown(html: str) -> None:
    assert text(html) == "a\n"


def test_nothing_but_pictures_gives_no_text() -> None:
    assert text('<table><tr><td><img src="a"></td><td>&nbsp;</td></tr></table>') == ""


def test_numbers_that_python_refuses_are_no_error() -> None:
    assert text("&#" + "9" * 5000 + ";&#0;&#xD800;&#1;&#x110000;") == "&#" + "9" * 5000 + ";���\n"


def test_above_its_bound_there_is_none() -> None:
    assert text("a" * MAX_HTML) == "a" * MAX_HTML + "\n"
    assert text("a" * (MAX_HTML + 1)) == ""


HOSTILE = [
    *(
        "<",
        "</",
        "<!",
        "<!--",
        "<!-->",
        "<![",
        "<a",
        "<a ",
        "<a b ",
        "<a =",
        "<a b=",
        "<a b='",
        '<a b="',
        "<a b='\"",
        "'\"=",
    ),
    *("&", "&#", "&#1", "&a", "<svg>", "<script>", "<title></title", "</ul>", "<ul>", "<ol><li>a", "<blockquote>a<br>"),
    *("<p style=display:none>", "<div style=display:none>a", "<div style=display:none></div>", "<p display:", "<td>a"),
    *("<a href=http://x>", "<a href=http://x ", "<img alt=a>", "<pre>\n", "<br>", " ", "\0", "<x " + "a" * 999),
]


@pytest.mark.parametrize("start", ["", "<a x='", "<p title=", "<pre>", "<p " + "a " * 9999])
@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_input_ends(piece: str, start: str) -> None:
    """Each as long as is taken at all. What is quadratic in one of them does not end in the time of a test."""
    html = (start + piece * MAX_HTML)[:MAX_HTML]
    found = text(html)
    assert len(found) <= 4 * MAX_HTML
    assert "\n\n\n" not in found


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(["<p>", "</p>", "<br>", "<ul>", "</ul>", "<ol>", "</ol>", "<li>", "<td>", "<tr>", "<pre>"]),
            st.sampled_from(["</pre>", "<blockquote>", "</blockquote>", "<a href='https://x.de'>", "</a>", "<b>", " "]),
            st.sampled_from(["<!--", "-->", "<", "&nbsp;", "\r\n", "\t", "<div style='display:none'>", "</div>"]),
        ),
        max_size=40,
    ).map("".join)
)
def test_anything_is_a_text(html: str) -> None:
    html = html.encode("utf-8", "replace").decode()
    found = text(html)
    assert found == text(html)
    lines = found.split("\n")
    assert lines[-1] == ""
    assert all(line == line.rstrip(" ") for line in lines)
    assert "\n\n\n" not in found
    assert not found or found[0] not in "\n"
    assert not set(found) & set("\r\0\x07")
