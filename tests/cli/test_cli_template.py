"""template put, ls, show, rm: as an operator sees them."""

from __future__ import annotations

from pathlib import Path

from mailroom import Mailroom

from cli.shell import streamq


async def test_put_ls_show_rm(queue: Mailroom, tmp_path: Path) -> None:
    html = tmp_path / "welcome.html"
    html.write_text("<p>Hello {{ name }}\n")
    put = ("template", "put", "welcome", "--subject", "Hi {{ name }}", "--html", str(html))
    assert (await streamq(*put, "--dry-run")).out.startswith("welcome: good; version 0 stays")
    assert (await streamq("template", "ls", "--json")).json == []
    assert (await streamq(*put)).out == "welcome: version 1\n"
    assert (await streamq(*put)).out == "welcome: version 1 (as it was)\n"
    html.write_text("<p>Dear {{ name }}\n")
    assert (await streamq(*put, "--json")).json == {"name": "welcome", "version": 2, "changed": True, "dry_run": False}
    listed = (await streamq("template", "ls")).out.splitlines()
    assert listed[1].split()[:2] == ["welcome", "2"]
    assert listed[1].endswith("subject, html")
    assert (await streamq("template", "show", "welcome@1")).out == (
        "welcome@1\n\nsubject:\nHi {{ name }}\n\nhtml:\n<p>Hello {{ name }}\n"
    )
    tried = await streamq("template", "show", "welcome", "--vars", '{"name":"<Bob>"}', "--json")
    assert tried.json["parts"] == {"subject": "Hi <Bob>", "html": "<p>Dear &lt;Bob&gt;\n"}
    missing = await streamq("template", "show", "welcome", "--vars", "{}")
    assert (missing.code, missing.err) == (1, "streamq: vars: subject of the template: 'name' is undefined\n")
    assert "2 versions removed (dry run" in (await streamq("template", "rm", "welcome", "--dry-run")).out
    assert (await streamq("template", "rm", "welcome", "--yes")).out == "welcome: 2 versions removed\n"
    assert (await streamq("template", "show", "welcome")).code == 1


async def test_what_is_wrong_is_said(queue: Mailroom, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_bytes(b"\xff")
    for words, why in (
        (("put", "no name", "--subject", "x"), "NAME: letters"),
        (("put", "a"), "a: neither subject nor text nor html"),
        (("put", "a", "--subject", "{{"), "a: subject, line 1: "),
        (("put", "a", "--text", str(text)), "--text: "),
        (("show", "a", "--vars", "["), "no template 'a'"),
        (("rm", "a", "--yes"), "no template 'a'"),
    ):
        said = await streamq("template", *words)
        assert said.code in {1, 2}
        assert said.err.startswith(f"streamq: {why}"), said.err
