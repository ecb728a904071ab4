"""Every number of a report against brute force, and files that are whole or not there."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import maxaffine as ma
from maxaffine.data import Dataset
from maxaffine.errors import InputError, NotPiecewiseAffineError
from maxaffine.plot import bins, histogram, signed_bars
from maxaffine.report import Scaling, exactness_line, fit, staged, write
from maxaffine.report.measure import Subject, budget, exactness, margins, measure
from maxaffine.report.page import page
from maxaffine.report.pictures import layout_of
from maxaffine.report.record import accuracy, completeness, scores, template_accuracy

CLASSES = 3


def silently(steps, what):
    return steps


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.LeakyReLU(0.1), nn.Linear(6, CLASSES))
    return nn.Sequential(*layers).double()


def pooled() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, CLASSES))
    return nn.Sequential(*layers).double()


def rows(shape: tuple[int, ...], count: int = 30, labels: bool = True) -> Dataset:
    generator = np.random.default_rng(0)
    marks = generator.integers(0, CLASSES, count) if labels else None
    return Dataset(generator.normal(size=(count, *shape)), marks, (), "rows.npz")


def subject(net: nn.Module, data: Dataset) -> Subject:
    feed = fit(data, None, Scaling())
    return Subject(ma.Spline(net, feed(data.inputs[:2])), data, feed)


@pytest.fixture(scope="module")
def measured():
    net, data = mlp(), rows((4,))
    about = subject(net, data)
    return net, data, measure(about, budget(about.spline, len(data)), silently)


def jacobians(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.autograd.functional.jacobian(lambda z: net(z[None])[0], row) for row in x])


def test_scores_are_inner_products_with_the_jacobian(measured):
    net, data, found = measured
    x = torch.from_numpy(data.inputs)
    inner = torch.einsum("nci,ni->nc", jacobians(net, x), x).numpy()
    outputs = net(x).detach().numpy()
    assert np.allclose(found.outputs.outputs, outputs, atol=1e-12)
    assert np.allclose(found.outputs.biases, outputs - inner, atol=1e-12)
    correct, other = scores(found.outputs) or ([], [])
    picked = inner[np.arange(len(x)), data.labels]
    assert np.allclose(correct, picked, atol=1e-12)
    assert np.allclose(np.sort(other), np.sort(inner[~np.eye(CLASSES, dtype=bool)[data.labels]]), atol=1e-12)
    assert accuracy(found.outputs) == (outputs.argmax(1) == data.labels).mean()
    assert template_accuracy(found.outputs) == (inner.argmax(1) == data.labels).mean()


def test_templates_are_rows_of_the_jacobian_and_sums_are_complete(measured):
    net, data, found = measured
    assert {e.row for e in found.examples} <= set(range(len(data)))
    for shown in found.examples:
        x = torch.from_numpy(data.inputs[shown.row : shown.row + 1])
        matrix, f = jacobians(net, x)[0], net(x)[0].detach()
        assert shown.label in {term.output for term in shown.terms}
        assert shown.terms[0].output == int(f.argmax())
        for term in shown.terms:
            assert np.allclose(term.template, matrix[term.output].numpy(), atol=1e-12)
            assert term.inner == pytest.approx(float(matrix[term.output] @ x[0]), abs=1e-12)
            assert term.inner + term.bias == pytest.approx(float(f[term.output]), abs=1e-12)
    assert completeness(found.examples) < 1e-12


def test_codes_are_counted_and_compared_by_signs(measured):
    net, data, found = measured
    x = torch.from_numpy(data.inputs)
    signs = [(net[:1](x) > 0).numpy(), (net[:3](x) > 0).numpy()]
    assert [layer.codes for layer in found.outputs.layers] == [len(np.unique(s, axis=0)) for s in signs]
    assert found.outputs.regions == len(np.unique(np.hstack(signs), axis=0))
    assert [layer.parameters for layer in found.outputs.layers] == [40, 54]
    for sign, depth in zip(signs, found.neighbours, strict=True):
        distance = (sign[:, None] != sign[None]).mean(2)
        np.fill_diagonal(distance, np.inf)
        assert np.allclose(depth.distances, np.sort(distance[depth.queries])[:, : depth.distances.shape[1]])
        assert np.allclose(depth.distances, np.take_along_axis(distance[depth.queries], depth.rows, 1))
        nearest = distance.argsort(axis=1, kind="stable")[:, 0]
        assert depth.agreement == (data.labels[nearest] == data.labels).mean()


def test_margins_of_one_layer_are_distances_to_its_hyperplanes():
    torch.manual_seed(1)
    net, data = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES)).double(), rows((4,))
    walls = margins(subject(net, data), len(data), silently)
    weight, bias = net[0].weight.detach().numpy(), net[0].bias.detach().numpy()
    expected = (np.abs(data.inputs @ weight.T + bias) / np.linalg.norm(weight, axis=1)).min(1)
    assert np.allclose(walls.distances, expected, atol=1e-12)
    assert walls.operators == ("1",) * len(data)
    assert not len(walls.moved)


class Shifted:
    """A spline whose affine maps are those of a point that is not x: what the exactness must reveal."""

    def __init__(self, spline: ma.Spline) -> None:
        self.spline, self.dtype, self.device = spline, spline.dtype, spline.device

    def __call__(self, x):
        return self.spline(x)

    def code(self, x):
        return self.spline.code(x)

    def at(self, x):
        return self.spline.at(-x)


def test_exactness_holds_and_a_wrong_map_is_seen():
    about = subject(mlp(), rows((4,)))
    walls = margins(about, 30, silently)
    good = exactness(about, walls, 1000, silently)
    assert (good.points, good.rows, good.same) == (1000, 30, 1000)
    assert 0 < good.worst < 1e-13
    bad = exactness(Subject(Shifted(about.spline), about.data, about.feed), walls, 1000, silently)
    assert bad.worst > 1e-2


def test_inputs_on_a_wall_are_stepped_off_it():
    data = rows((1, 8, 8), count=6)
    data.inputs[:3, :, 4:] = 0.5  # a flat background: equal candidates tie in the pooling
    about = subject(pooled(), data)
    walls = margins(about, 6, silently)
    assert (walls.distances[:3] == 0).all() and (walls.distances[3:] > 0).all()
    assert len(walls.moved) == 3 and (walls.moved > 0).all()
    found = exactness(about, walls, 60, silently)
    assert (found.points, found.same) == (60, 60)
    assert found.worst < 1e-13


def written(tmp_path: Path, net: nn.Module, data: Dataset, **said):
    about = subject(net, data)
    return write(about.spline, data, about.feed, tmp_path / "out", **said), tmp_path / "out"


def test_a_report_is_two_whole_files(tmp_path):
    report, out = written(tmp_path, mlp(), rows((4,)), name="<script>x</script>", command="a & b")
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "report.json"]
    text = (out / "index.html").read_text()
    assert text == page(report)
    assert text.rstrip().endswith("</html>")
    assert "<script" not in text
    outside = text.replace("http://www.w3.org/2000/svg", "")
    assert not any(word in outside for word in ("http:", "https:", "@import", "url(", 'src="//', '<link rel="style'))
    record = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    assert record["format"] == 1
    assert record["exactness"]["line"] == exactness_line(report)
    assert record["accuracy"] == accuracy(report.findings.outputs)
    assert [layer["name"] for layer in record["composition"]] == ["1", "3"]
    assert len(record["margins"]["values"]) == 30


@pytest.mark.parametrize("kind", ["regression", "one row", "no labels", "linear", "wide"])
def test_every_kind_of_network_has_a_page(tmp_path, kind):
    nets = {
        "regression": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
        "one row": mlp(),
        "no labels": mlp(),
        "linear": nn.Linear(4, 3),
        "wide": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 500), nn.Unflatten(1, (5, 100))),
    }
    data = rows((4,), count=1 if kind == "one row" else 9, labels=kind == "linear")
    if kind == "regression":
        data = Dataset(data.inputs, np.linspace(0, 1, 9), (), "rows.npz")
    report, _ = written(tmp_path, nets[kind].double(), data)
    found = report.findings
    assert found.exactness.same == found.exactness.points == 1000
    assert found.exactness.worst < 1e-12
    assert (accuracy(found.outputs) is None) == (kind != "linear")
    assert bool(found.neighbours) == (kind not in ("one row", "linear"))
    assert ('id="scores"' in page(report)) == (kind == "linear")
    assert np.isfinite(found.margins.distances).all() == (kind != "linear")


def test_pictures_show_stored_rows_and_templates_in_their_place(tmp_path):
    flat = Dataset(rows((1, 8, 8)).inputs.reshape(30, 64), rows((4,)).labels, (), "rows.npz")
    net = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *pooled())
    report, _ = written(tmp_path, net, flat, picture=(8, 8), classes=("ant", "bee", "cow"))
    text = page(report)
    shown = sum(len(e.terms) + 1 for e in report.findings.examples)
    mosaic = sum(n.rows.size for n in report.findings.neighbours) + len(report.findings.neighbours[0].queries)
    anchors = len(report.findings.slice.rows)
    assert text.count("<img ") == shown + mosaic + anchors == shown + mosaic + 3
    assert text.count('alt="') == text.count("<img ")
    assert ">bee<" in text


def test_refusals_leave_nothing_behind(tmp_path):
    net = nn.Sequential(*mlp(), nn.Softmax(1))
    with pytest.raises(NotPiecewiseAffineError, match="softmax"):
        written(tmp_path, net, rows((4,)))
    bad = Dataset(rows((4,)).inputs, np.full(30, 7), (), "rows.npz")
    for data, said, message in (
        (bad, {}, "labels from 7 to 7"),
        (rows((4,)), {"classes": ("a", "b")}, "2 class names"),
        (rows((4,)), {"margins": 0}, "margins 0"),
        (rows((4,)), {"picture": (3, 3)}, "3 x 3"),
    ):
        with pytest.raises(InputError, match=message):
            written(tmp_path, mlp(), data, **said)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_report_keeps_the_one_before(tmp_path):
    (tmp_path / "index.html").write_text("before")
    with pytest.raises(RuntimeError, match="midway"), staged(tmp_path) as files:
        files["index.html"] = b"after"
        raise RuntimeError("midway")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "before"
    with staged(tmp_path / "a" / "b") as files:
        files["x"] = b"1"
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"1"


def test_a_place_that_is_no_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(InputError, match="cannot write a report there"), staged(out):
            pytest.fail("the work was begun")


@pytest.mark.parametrize(
    ("row", "said", "shape"),
    [
        ((28, 28), None, (28, 28, 1)),
        ((1, 28, 20), None, (28, 20, 1)),
        ((3, 32, 30), None, (32, 30, 3)),
        ((32, 30, 3), None, (32, 30, 3)),
        ((784,), (28, 28), (28, 28, 1)),
        ((48,), (4, 4), (4, 4, 3)),
        ((784,), None, None),
        ((784, 1), None, None),
        ((2, 8, 8), None, None),
    ],
)
def test_rows_are_pictures_only_when_they_look_like_one(row, said, shape):
    layout = layout_of(row, said)
    found = None if layout is None else layout.pixels(np.arange(math.prod(row))).shape
    assert found == shape


def test_a_colour_picture_keeps_its_channels_together():
    layout = layout_of((3, 4, 5))
    assert layout is not None
    assert layout.pixels(np.arange(60))[1, 2].tolist() == [7, 27, 47]


def test_charts_hold_every_value():
    values = np.array([0.0, 0.1, 0.9, 1.0])
    edges = bins(values, 2)
    assert edges.tolist() == [0, 0.5, 1]
    chart = histogram(edges.tolist(), {"a": [2, 2], "b": [0, 4]}, "x").markup
    assert chart.count("Z") == 3  # closed bars: two of a, and the one of b that is not empty
    assert 'aria-label="histogram of x"' in chart
    assert bins(np.array([3.0, 3.0]), 4).tolist() == [3, 3.25, 3.5, 3.75, 4]
    bars = signed_bars(["up", "down"], [2.0, -1.0]).markup
    widths = [float(part.split('"')[0]) for part in bars.split('width="')[2:]]
    assert widths[0] == 2 * widths[1] > 0
