"""What a browser finds that people could not read or press: scripts, each gives a list of what is wrong."""

from __future__ import annotations

from chromium import Page

__all__ = ["CONTRAST", "SMALL", "WIDE", "fits_phones"]

CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const light = (c) => [.2126, .7152, .0722].reduce((sum, part, at) => sum + part * linear(c[at] / 255), 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const hasText = (e) => e.offsetParent && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const ratio = (e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  return [...document.querySelectorAll("body *")].filter(hasText).filter((e) => ratio(e) < 4.5)
    .map((e) => [e.innerText.slice(0, 40), ratio(e)]);
})()"""
# Beside the screen, or in a box that a finger pushes sideways. (innerWidth grows with what is too wide on a phone.)
WIDE = """[...document.querySelectorAll("body *")].filter((e) => {
  const edge = document.documentElement.clientWidth;
  const [r, pushed] = [e.getBoundingClientRect(), ["auto", "scroll"].includes(getComputedStyle(e).overflowX)];
  const pressed = e.offsetParent && e.matches("button, a:not(.skip), input");
  return r.right > edge + 1 || (pressed && r.left < 0) || (pushed && e.scrollWidth > e.clientWidth + 1);
}).map((e) => e.outerHTML.slice(0, 80))"""
SMALL = """[...document.querySelectorAll("button, summary")].filter((e) => e.offsetParent && e.offsetHeight < 40)
  .map((e) => e.innerText)"""


async def fits_phones(page: Page, *scripts: str) -> None:
    """On two narrow screens nothing lies beside it, or is too low for a finger; and what these scripts find."""
    for width in (390, 360):
        await page.size(width, 800)
        await page.drawn()
        assert await page.run(WIDE) == []
        assert await page.run("document.documentElement.scrollWidth") == width
        assert await page.run(SMALL) == []
        for script in scripts:
            assert await page.run(script) == []
