"""Pictures of partitions against brute force: what each pixel, colour, line and curve shows."""

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay
from torch import nn

import maxaffine as ma
from maxaffine import plot
from maxaffine.errors import InputError
from maxaffine.geometry.statistics import statistics
from maxaffine.tiling.boundary import decision_boundary
from maxaffine.tiling.colours import colour_cells
from maxaffine.tiling.levels import edge_operators, edges_of, merge_cells, switching_units
from maxaffine.tiling.paint import (
    class_image,
    class_order,
    darken_edges,
    halve,
    line_weights,
    name_places,
    paint_cells,
    paint_classes,
)
from maxaffine.tiling.palette import class_tints, tints
from maxaffine.tiling.pixels import Window, cell_image, window_of

pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
pyplot.switch_backend("Agg")

SQUARE = ma.Plane.square(torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, 1.0]))
CORNERS = [(-1.0, -0.5), (0.3, -1.0), (1.2, 0.1), (0.4, 1.1), (-0.8, 0.7)]
PENTAGON = ma.Plane.polygon(torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, 1.0]), CORNERS)


@pytest.fixture(autouse=True)
def figures():
    yield
    pyplot.close("all")


def mlp(outputs: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 10), nn.LeakyReLU(0.2), nn.Linear(10, outputs))
    net = nn.Sequential(*layers).double().requires_grad_(False)
    for p in net.parameters():
        p *= 2
    return net


def pooled() -> nn.Module:
    """Two inputs as an image, with max-pooling: cells whose vertices have three sides."""
    torch.manual_seed(3)
    layers = (nn.Linear(2, 36), nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten())
    net = nn.Sequential(*layers, nn.Linear(8, 3)).double().requires_grad_(False)
    net[-1].bias -= net(torch.tensor([[0.1, 0.05]], dtype=torch.float64))[0]  # all three are 0 at one point
    return net


NETS = {"three outputs": mlp(3), "one output": mlp(1, 1), "pooling": pooled()}


def cut(net: nn.Module, plane: ma.Plane):
    spline = ma.Spline(net, torch.zeros(2, 2, dtype=torch.float64))
    return spline, ma.partition(spline, plane)


@pytest.fixture(scope="module", params=NETS)
def case(request):
    return cut(NETS[request.param], PENTAGON)


@pytest.fixture(scope="module")
def three():
    return cut(NETS["three outputs"], SQUARE)


def inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    ahead = np.roll(corners, -1, 0) - corners
    behind = points[:, None] - corners
    return (ahead[:, 0] * behind[..., 1] - ahead[:, 1] * behind[..., 0] >= 0).all(1)


# ---- pixels ----


def test_every_pixel_has_the_cell_of_its_code(case):
    spline, plane = case
    window = window_of(plane.plane.corners, 90)
    ids, points = cell_image(plane, window).ravel(), window.centres()
    within = inside(points, plane.plane.corners)
    assert ((ids >= 0) == within).all()
    assert 0.3 < within.mean() < 0.9
    codes = plane.codes[ids[within]]
    assert bool((spline.code(plane.embed(points[within])) == codes).all())


def test_a_window_of_a_part_shows_that_part(three):
    _, plane = three
    whole = cell_image(plane, Window(-1, 1, -1, 1, 80, 80))
    part = cell_image(plane, Window(-0.5, 0.5, 0.0, 0.75, 40, 30))
    assert (part == whole[40:70, 20:60]).all()
    beyond = cell_image(plane, Window(-2, 2, -2, 2, 160, 160))
    assert (beyond[40:120, 40:120] == whole).all()
    assert (beyond < 0).sum() == 160**2 - 80**2


def test_windows_keep_the_shape_of_the_plane():
    window = window_of(np.array([[0.0, 0.0], [4.0, 1.0]]), 100)
    assert (window.columns, window.rows) == (100, 25)
    assert window.centres()[[0, -1]].tolist() == [[0.02, 0.02], [3.98, 0.98]]


# ---- colours ----


def planar_graph(kind: str, count: int = 400) -> tuple[np.ndarray, int]:
    if kind == "wheel":  # one cell with 399 neighbours in a ring of odd length
        rim = np.arange(1, count)
        return np.concatenate([np.stack([0 * rim, rim], 1), np.stack([rim, np.roll(rim, 1)], 1)]), count
    triangles = Delaunay(np.random.default_rng(0).random((count, 2))).simplices
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), count


@pytest.mark.parametrize("kind", ["wheel", "triangulation"])
def test_neighbours_have_different_colours_in_any_planar_graph(kind):
    pairs, count = planar_graph(kind)
    colours = colour_cells(pairs, count)
    assert (colours[pairs[:, 0]] != colours[pairs[:, 1]]).all()
    assert colours.min() >= 0 and colours.max() < 6


def test_neighbouring_cells_have_different_colours(case):
    _, plane = case
    colours = colour_cells(plane.neighbours, len(plane))
    a, b = plane.neighbours[(plane.neighbours >= 0).all(1)].T
    assert len(a) > 20
    assert (colours[a] != colours[b]).all()
    assert (colours == colour_cells(plane.neighbours, len(plane))).all()


def test_the_palette_tells_colours_apart():
    for dark in (False, True):
        flat = np.concatenate([tints(dark), class_tints(10, dark).reshape(-1, 3)]).astype(int)
        assert len(np.unique(flat[:6], axis=0)) == 6
        assert len(np.unique(flat[6:], axis=0)) == 60
        assert (flat.mean() < 128) == dark
    assert class_tints(23).shape == (23, 6, 3)


# ---- classes and the decision boundary ----


def network_classes(spline: ma.Spline, plane, points: np.ndarray) -> np.ndarray:
    f = spline(plane.embed(points)).flatten(1)
    return (f.argmax(1) if f.shape[1] > 1 else (f[:, 0] > 0).long()).numpy()


def test_every_pixel_has_the_class_of_the_network(case):
    spline, plane = case
    window = window_of(plane.plane.corners, 120)
    classes, points = class_image(plane, window).ravel(), window.centres()
    within = inside(points, plane.plane.corners)
    expected = network_classes(spline, plane, points)
    assert len(np.unique(expected[within])) > 1
    assert (classes[within] == expected[within]).all()
    assert (classes[~within] == 0).all()


def top_gap(spline: ma.Spline, plane, points: np.ndarray) -> np.ndarray:
    f = spline(plane.embed(points)).flatten(1)
    if f.shape[1] == 1:
        return f[:, 0].abs().numpy()
    top = f.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]).numpy()


def distance(point: np.ndarray, segments: np.ndarray) -> float:
    a, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    share = np.clip(((point - a) * along).sum(1) / (along**2).sum(1), 0, 1)
    return float(np.hypot(*(point - a - share[:, None] * along).T).min())


def test_the_two_largest_outputs_are_equal_on_the_boundary_and_nowhere_else(case):
    spline, plane = case
    segments = decision_boundary(plane)
    for share in (0.0, 0.3, 1.0):
        assert top_gap(spline, plane, segments[:, 0] * (1 - share) + segments[:, 1] * share).max() < 1e-12
    window = window_of(plane.plane.corners, 120)
    classes = class_image(plane, window)
    ids = cell_image(plane, window)
    rows, columns = np.nonzero((classes[:, 1:] != classes[:, :-1]) & (ids[:, 1:] >= 0) & (ids[:, :-1] >= 0))
    assert len(rows) > 20
    width, height = window.pixel
    between = np.stack([window.left + width * (columns + 1), window.bottom + height * (rows + 0.5)], 1)
    assert max(distance(point, segments) for point in between) <= width / 2 + 1e-12


def test_the_boundary_of_two_outputs_is_their_level_set():
    _, plane = cut(mlp(2, 5), SQUARE)
    polylines = plane.level_set(0, 1)
    lengths = [np.hypot(*np.diff(line, axis=0).T).sum() for line in polylines]
    segments = decision_boundary(plane)
    assert np.hypot(*(segments[:, 1] - segments[:, 0]).T).sum() == pytest.approx(sum(lengths), abs=1e-9)
    _, plane = cut(NETS["one output"], SQUARE)
    lengths = [np.hypot(*np.diff(line, axis=0).T).sum() for line in plane.level_set(0, level=0.1)]
    segments = decision_boundary(plane, level=0.1)
    assert sum(lengths) > 0
    assert np.hypot(*(segments[:, 1] - segments[:, 0]).T).sum() == pytest.approx(sum(lengths), abs=1e-9)


class Edge(nn.Module):
    """f = (relu(s) - relu(-s), 0): the outputs tie exactly along the edge between the cells of relu."""

    def forward(self, x):
        s = x[:, :1]
        return torch.cat([torch.relu(s) - torch.relu(-s), 0 * s], 1)


def test_a_boundary_along_an_edge_is_found():
    _, plane = cut(Edge().double(), SQUARE)
    segments = decision_boundary(plane)
    assert len(plane) == 2
    assert (segments[:, :, 0] == 0).all()
    assert np.abs(segments[:, 1, 1] - segments[:, 0, 1]).sum() == 2


def test_a_plane_of_one_class_has_no_boundary():
    net = mlp(3)
    net[-1].bias[1] += 1e3
    _, plane = cut(net, SQUARE)
    assert decision_boundary(plane).shape == (0, 2, 2)
    assert (class_image(plane, window_of(plane.plane.corners, 20)) == 1).all()


def test_names_stand_inside_their_class_and_beside_the_points(three):
    spline, plane = three
    window = window_of(plane.plane.corners, 240)
    classes = class_image(plane, window)
    free = name_places(classes, window)
    assert len(free) >= 2
    for points in (None, np.array(list(free.values()))):
        for name, at in name_places(classes, window, points).items():
            assert network_classes(spline, plane, np.array([at]))[0] == name
            near = [np.hypot(at[0] - s, at[1] - t) for s, t in ([] if points is None else points)]
            assert min(near, default=1) > 0.05


# ---- layer by layer, unit by unit ----


def test_joined_cells_are_the_regions_of_the_first_operators(case):
    spline, plane = case
    first, codes = edge_operators(plane), plane.codes[0 : len(plane)]
    for k in range(len(spline.operators)):
        merged = merge_cells(plane.neighbours, len(plane), (first >= 0) & (first <= k))
        head = torch.cat([codes.values[i].flatten(1) for i in range(k + 1)], 1).numpy()
        _, expected = np.unique(head, axis=0, return_inverse=True)
        assert len(np.unique(np.stack([merged, expected.ravel()]), axis=1).T) == merged.max() + 1
        assert merged.max() == expected.max()


def test_the_edges_of_a_unit_are_those_where_it_switches(case):
    spline, plane = case
    for operator in spline.operators:
        codes = plane.codes[0 : len(plane)][operator.name].flatten(1).numpy()
        a, b = plane.neighbours.T
        inner = (plane.neighbours >= 0).all(1)
        counts = {}
        for unit in range(operator.units):
            expected = inner & (codes[a, unit] != codes[b, unit])
            assert (edges_of(plane, operator.name, unit) == expected).all()
            counts[unit] = expected.sum()
        found = switching_units(plane, operator.name).tolist()
        assert set(found) == {unit for unit, number in counts.items() if number}
        assert [counts[unit] for unit in found] == sorted((counts[unit] for unit in found), reverse=True)


# ---- the figures ----


def pixels_of(axis) -> np.ma.MaskedArray:
    return axis.images[0].get_array()


def test_values_are_shown_where_their_cells_are(three):
    _, plane = three
    axis = plot.partition(plane, "area")
    shown = pixels_of(axis)
    window = window_of(plane.plane.corners, len(shown))
    assert np.allclose(shown, plane.areas[cell_image(plane, window)])
    assert axis.images[0].colorbar is not None
    values = np.arange(len(plane), dtype=float)
    axis = plot.partition(plane, values, limits=(2.0, 7.0))
    assert axis.images[0].get_clim() == (2.0, 7.0)
    for name in statistics(plane)._fields:
        plot.partition(plane, name)


def test_cells_and_classes_are_told_apart_by_colour(three):
    spline, plane = three
    shown = pixels_of(plot.partition(plane))
    window = window_of(plane.plane.corners, len(shown))
    ids = cell_image(plane, window)
    _, place = np.unique(ids, return_index=True)
    assert len(place) == len(plane)
    colour = shown.reshape(-1, 4)[place]
    assert (shown == colour[ids]).all()
    a, b = plane.neighbours[(plane.neighbours >= 0).all(1)].T
    assert (colour[a] != colour[b]).any(1).all()
    shown = pixels_of(plot.partition(plane, "class"))
    classes = network_classes(spline, plane, window.centres()).reshape(ids.shape)
    packed = np.asarray(shown).astype(np.int64) @ [1, 256, 65536, 0]
    colours = [set(np.unique(packed[classes == k]).tolist()) for k in np.unique(classes)]
    assert len(colours) >= 2
    assert sum(map(len, colours)) == len(set.union(*colours))


def test_outside_of_a_polygon_nothing_is_painted(case):
    _, plane = case
    window = window_of(plane.plane.corners, 60)
    classes = class_image(plane, window)
    outside = cell_image(plane, window) < 0
    for rgba in (paint_cells(plane, window), paint_classes(plane, window, classes)):
        assert (rgba[outside, 3] == 0).all() and (rgba[~outside, 3] == 255).all()
    assert (darken_edges(paint_cells(plane, window), plane, window)[..., 3] == rgba[..., 3]).all()


def test_halved_pictures_are_averages_of_what_is_opaque():
    rgba = np.random.default_rng(0).integers(0, 256, (6, 8, 4)).astype(np.uint8)
    rgba[:2, :2, 3] = 0
    small = halve(rgba)
    block = rgba[2:4, 4:6].reshape(4, 4).astype(float)
    expected = (block[:, :3] * block[:, 3:]).sum(0) / block[:, 3].sum()
    assert np.abs(small[1, 2, :3] - expected).max() <= 0.5
    assert small[0, 0, 3] == 0
    assert small.shape == (3, 4, 4)


def test_lines_do_not_drown_small_cells(three):
    _, plane = three
    coarse, fine = (line_weights(plane.areas, plane.neighbours, window_of(SQUARE.corners, n)) for n in (8, 8000))
    assert (coarse == 0).mean() > 0.9
    assert (fine > 0).mean() > 0.9
    assert (fine >= coarse).all()


def test_points_and_labels_lie_where_the_inputs_are(three):
    _, plane = three
    points = torch.tensor([[0.2, -0.4], [-0.7, 0.1], [0.5, 0.5]])
    axis = plot.partition(plane, "class", boundary=True, points=points, labels=["a", "b", "c"], names=False)
    assert np.allclose(axis.collections[-1].get_offsets(), points)
    assert [text.get_text() for text in axis.texts] == ["a", "b", "c"]
    axis = plot.partition(plane, points=points, labels=[4, 9, 4])
    colours = axis.collections[-1].get_facecolor()
    assert (colours[0] == colours[2]).all() and (colours[0] != colours[1]).any()


def test_a_wrong_colour_or_label_is_refused(three):
    spline, plane = three
    with pytest.raises(InputError, match=r"no colour is called 'size'.*eccentricity"):
        plot.partition(plane, "size")
    with pytest.raises(InputError, match="one number for each"):
        plot.partition(plane, np.zeros(3))
    with pytest.raises(InputError, match="as many labels"):
        plot.partition(plane, points=torch.zeros(2, 2), labels=["a"])
    with pytest.raises(InputError, match="as many titles"):
        plot.training([plane], ["a", "b"])
    with pytest.raises(InputError, match="no spline operator is called 'x'"):
        plot.units(plane, spline, "x")
    with pytest.raises(InputError, match="has units 0 to 9"):
        plot.units(plane, spline, "1", [10])


def test_layers_say_how_many_cells_each_operator_leaves(three):
    _, plane = three
    figure = plot.layers(plane)
    titles = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    until = ma.partition(ma.Spline(NETS["three outputs"], torch.zeros(2, 2).double(), until="1"), SQUARE)
    assert titles == [f"after '1': {len(until):,} cells", f"after '3': {len(plane):,} cells"]
    assert len(until) < len(plane)


@pytest.mark.parametrize("name", ["three outputs", "pooling"])
def test_units_show_their_values_and_their_edges(name):
    spline, plane = cut(NETS[name], PENTAGON)
    operator = spline.operators[-1]
    chosen = switching_units(plane, operator.name)[:2].tolist()
    figure = plot.units(plane, spline, operator.name, chosen)
    for unit, axis in zip(chosen, figure.axes, strict=False):
        shown = pixels_of(axis)
        points = window_of(plane.plane.corners, max(shown.shape)).centres()[~shown.mask.ravel()]
        pieces = spline.code(plane.embed(points))[operator.name].flatten(1)[:, unit].numpy()
        values = shown.compressed()
        assert ((values > 0) == (pieces > 0)).all() if name == "three outputs" else (values == pieces).all()
        drawn = max(len(lines.get_segments()) for lines in axis.collections[-1:])
        assert drawn == edges_of(plane, operator.name, unit).sum() > 0


def test_training_shows_one_panel_a_snapshot(three):
    _, plane = three
    figure = plot.training([plane] * 3, colour="class", columns=2)
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == [f"{len(plane):,} cells"] * 3


def test_lines_are_the_outputs_along_the_segment():
    net = mlp(3)
    spline = ma.Spline(net, torch.zeros(2, 2, dtype=torch.float64))
    segment = ma.Segment(torch.tensor([-1.0, -0.8]), torch.tensor([1.0, 0.9]))
    found = ma.partition(spline, segment)
    axis = plot.line(found)
    tau = np.linspace(0, 1, 301)
    values = net(segment.embed(torch.from_numpy(tau))).numpy()
    for k, curve in enumerate(axis.lines):
        assert np.abs(np.interp(tau, *curve.get_data()) - values[:, k]).max() < 1e-12
    assert len(axis.lines) == 3 and len(found.knots) > 5
    assert len(plot.line(found, [2]).lines) == 1
    with pytest.raises(InputError, match="outputs 0 to 2"):
        plot.line(found, [3])


def test_orders_of_classes_go_by_size():
    assert class_order(np.array([[3, 3, 3], [1, 1, 7]])).tolist() == [3, 1, 7]
