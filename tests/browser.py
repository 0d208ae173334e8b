"""Pages in a headless Chromium: what is wider than the window, cut or hidden, and what axe-core finds."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "" if CHROMIUM and find_spec("axe_playwright_python") else "no Chromium or no axe-playwright-python here"
WIDTHS = (1280, 390)  # of a window and of a phone, in pixels
SERIOUS = ("serious", "critical")

LOOK = """() => {
  const found = [], room = document.documentElement.clientWidth;
  const box = each => each.getBoundingClientRect();
  const style = each => getComputedStyle(each);
  const fault = (what, each) => found.push(`${what}: ${each.tagName} ${each.textContent.trim().slice(0, 40)}`);
  const scrolled = each => {  // in a box that a reader can scroll
    for (let outer = each.parentElement; outer && outer !== document.body; outer = outer.parentElement)
      if (style(outer).overflowX !== 'visible' && box(outer).right <= room + 1) return true;
    return false;
  };
  if (document.documentElement.scrollWidth > room) fault('scrolls sideways', document.body);
  for (const each of document.querySelectorAll('body *'))
    if (each.checkVisibility({visibilityProperty: true, opacityProperty: true}) && box(each).width
        && box(each).right > room + 1 && !scrolled(each)) fault('wider than the window', each);
  for (const each of document.querySelectorAll('code .whole'))
    if (each.getClientRects().length > 1) fault('cut', each);
  const range = document.createRange();
  for (const each of document.querySelectorAll('dd, td')) {
    const texts = document.createTreeWalker(each, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
      for (const number of texts.currentNode.data.matchAll(/[−+]?\\d[\\d.,]*\\d/g)) {
        range.setStart(texts.currentNode, number.index);
        range.setEnd(texts.currentNode, number.index + number[0].length);
        const places = [...range.getClientRects()].map(line => line.top);
        if (/[.,−+]/.test(number[0]) && Math.max(...places) > Math.min(...places) + 5) fault('number cut', each);
      }
  }
  for (const button of document.querySelectorAll('pre button')) {
    const above = box(button), pre = button.closest('pre');
    const texts = document.createTreeWalker(pre.querySelector('code'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
      for (const word of texts.currentNode.data.matchAll(/\\S+/g)) {
        range.setStart(texts.currentNode, word.index);
        range.setEnd(texts.currentNode, word.index + word[0].length);
        for (const text of range.getClientRects())
          if (text.right > above.left && text.left < above.right && text.bottom > above.top && text.top < above.bottom)
            fault('under a button', pre);
      }
  }
  return [...new Set(found)];
}"""
"""JavaScript: what does not suit a window of this width."""


@contextmanager
def window(width: int = WIDTHS[0]) -> Iterator[Any]:
    """A page of Playwright's that is so many pixels wide."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_context(viewport={"width": width, "height": 900}, bypass_csp=True).new_page()
        browser.close()


def faults(pages: Collection[Path], audited: Collection[Path] = ()) -> set[str]:
    """What is wrong with pages at both widths; axe-core, which takes a second a page, looks at ``audited``."""
    from axe_playwright_python.sync_playwright import Axe

    axe, found = Axe(), set()
    for width in WIDTHS:
        with window(width) as tab:
            for page in pages:
                tab.goto(page.as_uri())
                found |= {f"{page.stem} at {width}: {fault}" for fault in tab.evaluate(LOOK)}
                rules = axe.run(tab).response["violations"] if page in audited else []
                for rule in [rule for rule in rules if rule["impact"] in SERIOUS]:
                    where = [" ".join(map(str, node["target"])) for node in rule["nodes"]][:3]
                    found.add(f"{page.stem} at {width}: {rule['id']}, {rule['help']}: {where}")
    return found
