"""The interactive page: what it holds is the partition, and in a browser each cell is found and told exactly."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from test_page_in_browser import CHROMIUM, CONTRAST, OVERFLOW, QUIET
from torch import nn

import maxaffine as ma
import maxaffine.view
from maxaffine.errors import InputError
from maxaffine.view import view_page, write_view

POINTS = torch.tensor([[0.3, 0.2], [-0.6, 0.5]], dtype=torch.float64)
TYPES = {"colours": np.uint8, "codes": np.uint8, "A": np.float32, "b": np.float32}
EXACT = ("vertices", "centres", "areas", "boundary")


def network(outputs: int) -> nn.Module:
    torch.manual_seed(2)
    layers = (nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, outputs))
    net = nn.Sequential(*layers).double().requires_grad_(False)
    for p in net.parameters():
        p *= 2
    return net


def cut(outputs: int):
    spline = ma.Spline(network(outputs), torch.zeros(2, 2, dtype=torch.float64))
    directions = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    return spline, ma.partition(spline, ma.Plane.square(torch.tensor([0.2, -0.1]), *directions))


@pytest.fixture(scope="module")
def three():
    return cut(3)


def held(page: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The data of a page and its arrays, as the script reads them."""
    data = json.loads(re.search(r"const DATA = (.*?);</script>", page, re.DOTALL)[1])
    kinds = {name: TYPES.get(name, np.float64 if name in EXACT else np.int32) for name in data["arrays"]}
    return data, {name: np.frombuffer(base64.b64decode(a), kinds[name]) for name, a in data["arrays"].items()}


def test_the_page_holds_the_partition(three):
    spline, plane = three
    data, arrays = held(view_page(plane, points=POINTS, labels=["a", "b"]))
    assert np.array_equal(arrays["vertices"].reshape(-1, 2), plane.vertices)
    assert np.array_equal(arrays["offsets"], plane.cells[0])
    assert np.array_equal(arrays["corners"], plane.cells[1])
    assert np.array_equal(arrays["neighbours"].reshape(-1, 2), plane.neighbours)
    assert np.allclose(arrays["A"].reshape(plane.A.shape), plane.A, rtol=1e-6)
    assert np.allclose(arrays["b"].reshape(plane.b.shape), plane.b, rtol=1e-6)
    ids = spline.code(plane.embed(plane.centres)).ids()
    assert arrays["codes"].tobytes() == b"".join(i[:4] for i in ids)
    for e in range(len(plane.edges)):
        rows = slice(*arrays["switches"][e : e + 2])
        pairs = zip(arrays["operator"][rows], arrays["unit"][rows], strict=True)
        assert tuple((data["operators"][o], int(u)) for o, u in pairs) == plane.edge_units[e]
    assert [p["text"] for p in data["points"]] == ["a", "b"]
    assert np.allclose(plane.embed(np.array([p["at"] for p in data["points"]])), POINTS)
    assert data["aspect"] == 0.5


def test_the_page_asks_for_nothing_and_cannot_be_broken_out_of(three):
    _, plane = three
    title = "</title><script>alert(1)</script>%DATA%"
    page = view_page(plane, title=title, points=POINTS, labels=["</script><b>", "<!--"])
    assert page.count("<script>") == page.count("</script>") == 2
    assert page.count("<b>") == 0 and "<!--" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|src=|@import|url\(", page)
    assert [p["text"] for p in held(page)[0]["points"]] == ["</script><b>", "<!--"]


def test_of_many_outputs_the_leading_ones_are_held():
    spline, plane = cut(40)
    data, arrays = held(view_page(plane))
    best = spline(plane.embed(plane.centres)).argmax(1).tolist()
    leading = sorted(set(best), key=best.count)[-20:]
    assert data["total"] == 40
    assert len(data["outputs"]) == 20
    assert set(leading) <= set(data["outputs"]) or len(leading) == 20
    assert arrays["b"].size == 20 * len(plane)


def test_what_does_not_fit_is_refused(three, tmp_path, monkeypatch):
    _, plane = three
    with pytest.raises(InputError, match="2 points need as many labels, got 1"):
        write_view(plane, tmp_path / "view.html", points=POINTS, labels=["a"])
    monkeypatch.setattr(maxaffine.view, "CELLS", len(plane) - 1)
    with pytest.raises(InputError, match=f"up to {len(plane) - 1} cells, this partition has {len(plane)}"):
        write_view(plane, tmp_path / "view.html")
    assert list(tmp_path.iterdir()) == []


# ---- in a browser ----

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=[3, 1])
def page(request, tmp_path_factory):
    spline, plane = cut(request.param)
    path = tmp_path_factory.mktemp("view") / "view.html"
    title = "A slice through a_network_with_quite_a_long_name.safetensors"
    return spline, plane, write_view(plane, path, title=title, points=POINTS, labels=["first", "second"])


def opened(browser, path, width=1280, scheme="light"):
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 500)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_timeout(60)
    return tab, said, asked


def place_on_screen(tab, s: float, t: float) -> tuple[float, float]:
    box = tab.locator("#canvas").bounding_box()
    x, y = tab.evaluate("([s, t]) => [X(s, view) / dpr, Y(t, view) / dpr]", [s, t])
    return box["x"] + x, box["y"] + y


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_page_is_quiet_and_readable(browser, page, width, scheme):
    _, plane, path = page
    tab, said, asked = opened(browser, path, width, scheme)
    x, y = place_on_screen(tab, *plane.centres[plane.areas.argmax()])
    tab.touchscreen.tap(x, y) if width < 500 else tab.mouse.move(x, y)
    assert f"Cell {plane.areas.argmax()}" in tab.locator("#info").inner_text()
    assert said == []
    assert asked == [path.as_uri(), "data:,"] or asked == [path.as_uri()]
    assert tab.evaluate(OVERFLOW) == 0
    assert tab.evaluate("() => $('info').scrollWidth - $('info').clientWidth") == 0
    contrast, where = tab.evaluate(CONTRAST)
    assert contrast >= 4.5, where
    assert f"{len(plane):,} cells" in tab.locator("#counts").inner_text()
    tab.close()


@needs_browser
def test_every_point_is_found_in_its_cell(browser, page):
    spline, plane, path = page
    tab, _, _ = opened(browser, path)
    points = np.random.default_rng(0).uniform(-1.05, 1.05, (400, 2))
    found = np.array(tab.evaluate("points => points.map(p => cellAt(...p))", points.tolist()))
    within = (np.abs(points) <= 1).all(1)
    assert ((found >= 0) == within).all()
    assert bool((spline.code(plane.embed(points[within])) == plane.codes[found[within]]).all())
    values = tab.evaluate(
        "([cells, points]) => cells.map((c, i) => [...Array(K).keys()].map(k => value(c, k, ...points[i])))",
        [found[within].tolist(), points[within].tolist()],
    )
    assert np.allclose(values, spline(plane.embed(points[within])).flatten(1), atol=1e-5)
    tab.close()


@needs_browser
def test_the_parts_of_cut_cells_are_led_by_their_outputs(browser, page):
    spline, plane, path = page
    tab, _, _ = opened(browser, path)
    parts = tab.evaluate("() => parts")
    f = spline(plane.embed(plane.centres)).flatten(1).numpy()
    assert len(parts) > 4
    areas = np.zeros(len(plane))
    for output, polygon, cell in parts:
        s, t = np.array(polygon).T
        areas[cell] += np.sum(s * np.roll(t, -1) - np.roll(s, -1) * t) / 2
        value = spline(plane.embed(np.array([polygon]).mean(1))).flatten().numpy()
        assert (int(value[0] > 0) if f.shape[1] == 1 else value.argmax()) == output
    cut_cells = areas > 0
    assert np.allclose(areas[cut_cells], plane.areas[cut_cells], rtol=1e-5)
    best = (f[:, 0] > 0) if f.shape[1] == 1 else f.argmax(1)
    assert (np.array(tab.evaluate("() => [...best]")) == best)[~cut_cells].all()
    tab.close()


@needs_browser
def test_a_cell_is_held_left_and_followed_to_its_neighbours(browser, page):
    _, plane, path = page
    tab, said, _ = opened(browser, path)
    cell = int(plane.areas.argmax())
    tab.mouse.click(*place_on_screen(tab, *plane.centres[cell]))
    tab.mouse.move(*place_on_screen(tab, *plane.centres[plane.areas.argmin()]))
    assert f"Cell {cell}\n" in tab.locator("#info").inner_text()
    around = np.flatnonzero((plane.neighbours == cell).any(1))
    text = tab.locator("#info ul").inner_text()
    for e in around:
        for name, unit in plane.edge_units[e]:
            assert f"{name}[{unit}]" in text
    others = sorted(set(plane.neighbours[around].ravel().tolist()) - {cell, -1})
    buttons = tab.locator("#info ul button")
    assert sorted(int(b.replace(",", "")) for b in buttons.all_inner_texts()) == others
    first = buttons.first.inner_text()
    buttons.first.click()
    assert f"Cell {first}\n" in tab.locator("#info").inner_text()
    tab.locator("#canvas").press("Escape")
    assert "No cell yet" in tab.locator("#info").inner_text()
    assert said == []
    tab.close()


@needs_browser
def test_zooming_keeps_the_point_under_the_pointer(browser, page):
    _, _, path = page
    tab, said, _ = opened(browser, path)
    box = tab.locator("#canvas").bounding_box()
    x, y = round(box["x"] + box["width"] * 0.3) - box["x"], round(box["y"] + box["height"] * 0.4) - box["y"]
    tab.mouse.move(box["x"] + x, box["y"] + y)
    before = tab.evaluate("([x, y]) => [S(x), T(y), view.k]", [x, y])
    tab.mouse.wheel(0, -800)
    tab.wait_for_timeout(150)
    after = tab.evaluate("([x, y]) => [S(x), T(y), view.k]", [x, y])
    assert np.allclose(before[:2], after[:2], atol=1e-9)
    assert after[2] > 2 * before[2]
    tab.mouse.down()
    tab.mouse.move(box["x"] + x + 90, box["y"] + y)
    tab.mouse.up()
    moved = tab.evaluate("([x, y]) => [S(x), T(y), view.k]", [x + 90, y])
    assert np.allclose(moved[:2], after[:2], atol=1e-9)
    tab.locator("#fit").click()
    assert tab.evaluate("view.k") == pytest.approx(before[2])
    for mode in ("cells", "area", "number of sides", "norm of the slope"):
        tab.locator("#colour").select_option(mode)
        tab.wait_for_timeout(30)
        assert tab.locator("#legend").is_visible() == (mode != "cells")
    assert said == []
    tab.close()
