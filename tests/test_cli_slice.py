"""``maxaffine slice`` end to end, its refusals, and the slice of a report."""

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import FACTORIES, run
from torch import nn

import maxaffine as ma
import maxaffine.report.slicing as slicing
import maxaffine.view
from maxaffine.report.slicing import slice_through

NAMES = {"slice.html", "slice.npz", "slice.png"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with networks, rows and points, as the current one."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "factories", raising=False)
    (tmp_path / "factories.py").write_text(FACTORIES)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(20, 4)), generator.integers(0, 3, 20)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(tmp_path / "bytes.npz", x=(10 * x + 100).astype(np.uint8))
    for name, point in {"o": x[0], "u": x[1], "v": x[2], "line": 2 * x[1] - x[0], "wide": np.ones(5)}.items():
        np.save(tmp_path / f"{name}.npy", point)
    np.save(tmp_path / "nan.npy", np.full(4, np.nan))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    ma.Spline(net, torch.zeros(1, 4)).save(tmp_path / "net.safetensors")
    return tmp_path


def expected(model: str, plane: ma.Plane):
    """With progress, as on the command line: a search in parts has its cells in another order."""
    return ma.partition(ma.load(model), plane, track=lambda parts, _: parts)


def rows(*numbers: int) -> list[torch.Tensor]:
    return list(torch.from_numpy(np.load("data.npz")["x"][list(numbers)]))


def test_a_slice_through_three_rows_is_written(place, capsys):
    words = "slice net.safetensors --data data.npz --through 3 7 12 --out a/b --workers 2 --memory 1GB"
    code, out, err = run(capsys, *words.split())
    assert (code, err) == (0, "")
    *paths, sizes, exact = out.splitlines()
    assert {path.name for path in (place / "a" / "b").iterdir()} == NAMES
    assert sorted(paths) == [str(place / "a" / "b" / name) for name in sorted(NAMES)]
    plane = expected("net.safetensors", ma.Plane.through(*rows(3, 7, 12)))
    assert sizes.startswith(f"{len(plane):,} cells, {len(plane.vertices):,} vertices, {len(plane.edges):,} edges in ")
    assert float(exact.split(" = ")[1].split(",")[0]) < 1e-12
    assert f"{len(plane):,} cells max" in exact and f"the codes of {len(plane):,} of them" in exact
    picture = np.asarray(Image.open("a/b/slice.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert "<title>A slice through net.safetensors</title>" in (place / "a/b/slice.html").read_text()


def test_the_arrays_are_those_of_the_partition(place, capsys):
    assert (
        run(capsys, *["slice", "net.safetensors", "--origin", "o.npy", "--u", "u.npy", "--v", "v.npy", "--out", "o"])[0]
        == 0
    )
    o, u, v = (torch.from_numpy(np.load(f"{name}.npy")) for name in "ouv")
    plane = expected("net.safetensors", ma.Plane.square(o, u, v))
    stored = np.load("o/slice.npz")
    assert int(stored["format"]) == 1 and str(stored["maxaffine"]) == ma.__version__
    for name in ("vertices", "offsets", "indices", "edges", "neighbours", "areas", "centres", "A", "b"):
        assert np.array_equal(stored[name], getattr(plane, name)), name
    assert np.array_equal(stored["corners"], plane.plane.corners)
    assert np.array_equal(stored["u"], u)
    for e in range(len(plane.edges)):
        row = slice(*stored["edge_offsets"][e : e + 2])
        pairs = zip(stored["operators"][stored["edge_operators"][row]], stored["edge_units"][row], strict=True)
        assert tuple((str(name), int(unit)) for name, unit in pairs) == plane.edge_units[e]


def test_rows_are_fed_as_the_report_feeds_them(place, capsys):
    words = "--data bytes.npz --scale 1/10 --mean 10 --std 2 --through 0 1 2 --out o --until 1"
    assert run(capsys, "slice", "factories:smooth", *words.split())[0] == 2  # no such operator or module
    code, _, err = run(capsys, "slice", "factories:smooth", *words.replace("--until 1", "--until 0").split())
    assert (code, err) == (0, "")
    x = torch.from_numpy((np.load("bytes.npz")["x"][:3] / 10 - 10) / 2)
    stored = np.load("o/slice.npz")
    plane = ma.Plane.through(*x)
    assert np.allclose(stored["origin"], plane.origin) and np.allclose(stored["u"], plane.u)
    assert stored["b"].shape[1:] == (3,)


def test_too_many_cells_for_a_page_leave_it_out(place, capsys, monkeypatch):
    words = ["slice", "net.safetensors", "--data", "data.npz", "--through", "3", "7", "12", "--out", "o"]
    assert run(capsys, *words)[0] == 0
    monkeypatch.setattr(maxaffine.view, "CELLS", 3)
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert {path.name for path in (place / "o").iterdir()} == NAMES - {"slice.html"}
    assert out.splitlines()[-1] == "no slice.html: it holds up to 3 cells"


BAD = {
    "no plane": ("net.safetensors --data data.npz", "--through A B C, or --origin"),
    "half a plane": ("net.safetensors --origin o.npy --u u.npy", "--through A B C, or --origin"),
    "two planes": ("net.safetensors --data data.npz --through 0 1 2 --origin 3 --u 4 --v 5", "--through A B C, or"),
    "no data": ("net.safetensors --through 0 1 2", "--data"),
    "no row": ("net.safetensors --data data.npz --through 0 1 20", "rows 0 to 19"),
    "equal rows": ("net.safetensors --data data.npz --through 0 1 0", "span no plane"),
    "on a line": ("net.safetensors --through o.npy u.npy line.npy", "span no plane"),
    "parallel": ("net.safetensors --origin o.npy --u u.npy --v u.npy", "span no plane"),
    "wide": ("net.safetensors --through o.npy u.npy wide.npy", "wide.npy: an array of shape (5,)"),
    "nan": ("net.safetensors --through o.npy u.npy nan.npy", "NaN"),
    "words": ("net.safetensors --through o.npy u.npy words.npy", "words.npy: not a readable array"),
    "broken": ("net.safetensors --through o.npy u.npy broken.npy", "broken.npy: not a readable array"),
    "no file": ("net.safetensors --through o.npy u.npy nothere.npy", "nothere.npy: no such file"),
    "no point": ("net.safetensors --through o.npy u.npy data.npz", "a .npy file"),
    "no model": ("nothere.onnx --through o.npy u.npy v.npy", "nothere.onnx"),
    "smooth": ("factories:smooth --through o.npy u.npy v.npy", "softmax"),
    "unscaled": ("net.safetensors --data bytes.npz --through 0 1 2", "--scale"),
    "limit": ("net.safetensors --data data.npz --through 0 1 2 --limit 2", "stopped after 2 cells"),
    "memory": ("net.safetensors --data data.npz --through 0 1 2 --memory much", "--memory much"),
    "no memory": ("net.safetensors --data data.npz --through 0 1 2 --memory 2kB", "--memory"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(place, capsys, case):
    words, message = BAD[case]
    code, out, err = run(capsys, "slice", *words.split(), "--out", "page/here")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert message in err
    assert not (place / "page").exists()


def test_a_failed_slice_keeps_the_one_before(place, capsys, monkeypatch):
    words = ["slice", "net.safetensors", "--data", "data.npz", "--through", "3", "7", "12", "--out", "o"]
    assert run(capsys, *words)[0] == 0
    before = {path.name: path.read_bytes() for path in (place / "o").iterdir()}
    monkeypatch.setattr(slicing, "check_cells", lambda *_: signal.raise_signal(signal.SIGINT))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, err = run(capsys, *words[:-4], "0", "1", "--out", "o")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert (code, err) == (130, "stopped; no slice was written\n")
    assert {path.name: path.read_bytes() for path in (place / "o").iterdir()} == before


# ---- the slice of a report ----


def small(outputs: int = 3) -> ma.Spline:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, outputs)).double()
    return ma.Spline(net, torch.zeros(2, 4, dtype=torch.float64))


def points() -> torch.Tensor:
    """Three inputs, the first two with different largest outputs."""
    return 3 * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def test_a_small_partition_is_shown_whole():
    spline, x = small(), points()
    found = slice_through(spline, x, [4, 5, 6])
    plane = ma.partition(spline, ma.Plane.through(*x))
    assert (found.rows, found.share, found.note, found.overview) == ((4, 5, 6), 1.0, "", None)
    assert len(found.partition) == len(plane) > 50
    assert torch.allclose(found.partition.plane.embed(found.places), x, atol=1e-12)
    exact = found.exactness
    assert exact.same == exact.points == min(len(plane), 1000)
    assert 0 < exact.worst < 1e-12


def test_of_a_large_partition_a_square_at_the_decision_boundary_is_shown(monkeypatch):
    spline, x = small(), points()
    monkeypatch.setattr(slicing, "CELLS", 60)
    monkeypatch.setattr(slicing, "ENOUGH", 20)
    found = slice_through(spline, x, [0, 1, 2])
    assert 0 < found.share < 1
    assert 1 < len(found.partition) <= 60
    whole = ma.Plane.through(*x)
    overview = found.overview
    assert (overview.classes.ravel() == spline(whole.embed(overview.window.centres())).argmax(1).numpy()).all()
    assert torch.allclose(whole.embed(overview.places), x, atol=1e-12)
    centre = found.partition.plane.origin
    assert np.allclose(overview.square.mean(0), whole.coordinates(centre[None])[0])
    assert found.turned
    best = spline(torch.cat([x[:2], centre[None]])).topk(2, dim=1)
    assert best.indices[0, 0] != best.indices[1, 0]
    assert float(best.values[2, 0] - best.values[2, 1]) < 1e-9  # the centre is where two outputs tie,
    direction = (centre - x[0]) / (x[1] - x[0])  # on the line from the first input to the second
    assert float(direction.max() - direction.min()) < 1e-9


def test_what_cannot_be_cut_is_said(monkeypatch):
    spline, x = small(), points()
    assert slice_through(spline, x[:2], [0, 1]) is None
    assert "span no plane" in slice_through(spline, x[[0, 1, 0]], [0, 1, 0]).note

    def stopped(spline, plane, limit):
        raise ma.errors.MemoryBudgetError(f"stopped after {limit} cells")

    monkeypatch.setattr(slicing, "partition", stopped)
    found = slice_through(spline, x, [0, 1, 2])
    assert found.partition is None
    assert "more than 20,000 regions" in found.note
    torch.manual_seed(0)
    one = ma.Spline(nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2)).double(), torch.zeros(2, 1).double())
    assert slice_through(one, torch.rand(3, 1).double(), [0, 1, 2]) is None


def test_a_wrong_map_of_a_cell_is_seen():
    spline, x = small(), points()
    plane = ma.partition(spline, ma.Plane.through(*x))
    plane.b[len(plane) // 2] += 1e-3
    assert slicing.check_cells(spline, plane).worst == pytest.approx(1e-3)


def test_the_report_has_the_slice(place, capsys):
    code, _, err = run(capsys, *["report", "net.safetensors", "--data", "data.npz", "--out", "o"])
    assert (code, err) == (0, "")
    told = json.loads((place / "o" / "report.json").read_text())["slice"]
    plane = expected("net.safetensors", ma.Plane.through(*rows(*told["rows"])))
    assert (told["cells"], told["vertices"], told["edges"]) == (len(plane), len(plane.vertices), len(plane.edges))
    page = (place / "o" / "index.html").read_text()
    assert f"{len(plane):,} regions around the three inputs" in page
    assert page.count('class="tag input"') == 3
