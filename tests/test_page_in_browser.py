"""The page in a real headless browser: complete, quiet, readable on a phone, in light and dark."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import maxaffine as ma
from maxaffine.data import Dataset
from maxaffine.report import Scaling, fit, write

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

# The contrast of text with the first opaque background behind it, as WCAG 2 defines it; the worst of all texts.
CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0.99) return c; } };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e), svg = e.namespaceURI.endsWith('svg');
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
  }
  return worst; }"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN_IMAGES = "() => [...document.images].filter(i => !(i.complete && i.naturalWidth && i.alt)).length"
SMALL_TEXT = """() => Math.min(...[...document.querySelectorAll('p, dd, dt, td, th, figcaption, svg text')].map(e => {
  const size = parseFloat(getComputedStyle(e).fontSize), svg = e.closest('svg');
  return svg ? size * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : size; }))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report on pictures with classes, and one on plain numbers without, with long names in both."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    colour = Dataset(generator.random((30, 3, 8, 8)), generator.integers(0, 3, 30), (), "a" * 60 + ".npz")
    table = Dataset(generator.normal(size=(30, 25)), None, (), "rows.npz")
    nets = (nn.Sequential(*layers), nn.Sequential(nn.Linear(25, 9), nn.ReLU(), nn.Linear(9, 2)))
    paths = {}
    for name, net, data in zip(("pictures", "numbers"), nets, (colour, table), strict=True):
        out = tmp_path_factory.mktemp(name)
        feed = fit(data, None, Scaling())
        spline = ma.Spline(net.double(), feed(data.inputs[:2]))
        classes = ("a very long name of a class", "bee", "sea_lion_or_seal") if data is colour else ()
        write(spline, data, feed, out, name="a_long/name_of_some.network" * 3, command="x " * 90, classes=classes)
        paths[name] = out / "index.html"
    return paths


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["pictures", "numbers"])
def test_the_page_is_complete_quiet_and_readable(browser, pages, name, scheme, width):
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(pages[name].as_uri())
    assert said == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file")] == [pages[name].as_uri()]
    assert tab.evaluate(OVERFLOW) == 0
    assert tab.evaluate(BROKEN_IMAGES) == 0
    assert (tab.locator("img").count() > 20) == (name == "pictures")
    assert tab.locator("h2").count() >= 4
    assert "1,000 other points" in tab.locator(".claim").inner_text()
    contrast, where = tab.evaluate(CONTRAST)
    assert contrast >= 4.5, where
    assert tab.evaluate(SMALL_TEXT) > 8.5
    dark = tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    tab.close()


def test_the_checks_see_a_page_that_is_wrong(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><body style="background:#fff"><div style="width:2000px"><p style="color:#bbb;font-size:6px">x'
        '<img src="data:image/png;base64,AAAA" alt="a"><script>console.log("said")</script>'
        '<img src="other.png" alt="b">'
    )
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(bad.as_uri())
    assert "said" in said
    assert any(url.endswith("other.png") for url in asked)
    assert tab.evaluate(OVERFLOW) > 1000
    assert tab.evaluate(BROKEN_IMAGES) == 2
    assert tab.evaluate(CONTRAST)[0] < 2
    assert tab.evaluate(SMALL_TEXT) == 6
    tab.close()
