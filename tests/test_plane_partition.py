"""Partitions of planes: every law on every small network and on drawn ones, and the exact reference on tiny ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import plane_laws as laws
import pytest
import torch
from exact_partition import partition as exact_partition
from exact_partition import torch_net
from exact_plane import as_plane, assert_same
from hypothesis import assume, event, given
from hypothesis import strategies as st
from net import Net, example_of, inputs_of, model_of
from nets import BY_NAME, NETS, captured
from strategies import POLYGONS, Drawn, Tiny, networks, slices, tiny_networks
from test_random_nets import wholly_padded
from torch import nn

import maxaffine as ma

FLAT = [net for net in NETS if np.prod(net.shape) > 1]  # one input has no plane
GENERAL = ("mlp", "ramp_leaky_relu", "ramp_abs", "ramp_hardtanh", "residual", "rnn", "generator", "grouped")


def plane_of(net: Net, polygon: str = "square", reach: float = 1.0) -> ma.Plane:
    """A plane through three inputs of a network."""
    origin, u, v = inputs_of(net, 3)
    return ma.Plane.polygon(origin, reach * u, reach * v, POLYGONS[polygon])


def mlp(*widths: int, seed: int = 0) -> ma.Spline:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        layers += [nn.Linear(into, out), nn.ReLU()]
    return ma.Spline(nn.Sequential(*layers[:-1]).double(), torch.zeros(1, widths[0], dtype=torch.float64))


def flat_square(reach: float = 1.0) -> ma.Plane:
    return ma.Plane.square(torch.zeros(2), torch.tensor([reach, 0.0]), torch.tensor([0.0, reach]))


# ---- the laws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", FLAT, ids=lambda net: net.name)
def test_laws(net: Net) -> None:
    spline = captured(net.name)
    for polygon, reach in (("square", 1.0), ("pentagon", 0.1)):
        plane = ma.partition(spline, plane_of(net, polygon, reach))
        laws.check_all(spline, plane, 3000)


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("polygon", POLYGONS)
def test_polygons_and_the_number_of_sides(name: str, polygon: str) -> None:
    spline = captured(name)
    laws.check_all(spline, ma.partition(spline, plane_of(BY_NAME[name], polygon)), 1000, general=True)


@pytest.mark.parametrize("name", ["mlp", "ramp_hardtanh", "maxout", "cnn", "two_live", "degenerate"])
def test_level_sets(name: str) -> None:
    spline = captured(name)
    plane = ma.partition(spline, plane_of(BY_NAME[name]))
    cell = int(plane.areas.argmax())
    outputs = laws.at_cells(plane, np.array([cell]), plane.centres[[cell]]).reshape(-1)
    for level in (outputs[0], outputs[0] + 0.1, 1e6):
        laws.assert_level_set(spline, plane, 0, level=level)
    laws.assert_level_set(spline, plane, 0, 1, level=outputs[0] - outputs[1])
    laws.assert_level_set(spline, plane, 1, 0)
    assert len(plane.level_set(0, level=outputs[0])) > 0 and plane.level_set(0, level=1e6) == []


def test_a_closed_curve_closes() -> None:
    """|s| + |t| == 1/2."""
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
        net[2].weight.fill_(1.0)
        for layer in (net[0], net[2]):
            layer.bias.zero_()
    spline = ma.Spline(net, torch.zeros(1, 2, dtype=torch.float64))
    plane = ma.partition(spline, flat_square())
    (curve,) = plane.level_set(0, level=0.5)
    assert np.array_equal(curve[0], curve[-1]) and len(curve) == 5
    laws.assert_level_set(spline, plane, 0, level=0.5)


def test_a_million_points_are_in_known_cells() -> None:
    spline = mlp(2, 24, 24, 24, 2)
    plane = ma.partition(spline, flat_square(4.0))
    assert len(plane) > 400
    laws.check_all(spline, plane, 1_000_000, general=True)


def test_a_network_without_operators_is_one_cell() -> None:
    plane = ma.partition(captured("affine"), plane_of(BY_NAME["affine"], "pentagon"))
    laws.check_all(captured("affine"), plane, 1000, general=True)
    assert len(plane) == 1 and len(plane.vertices) == len(plane.edges) == 5


def test_no_plane_of_one_cell_is_cut() -> None:
    """So small a domain that nothing switches: the map is that of the point."""
    net = BY_NAME["mlp"]
    plane = ma.partition(captured("mlp"), plane_of(net, reach=1e-9))
    assert len(plane) == 1
    f = captured("mlp").at(inputs_of(net, 1))
    np.testing.assert_allclose(plane.b[0], f(inputs_of(net, 1))[0], rtol=1e-12)


def test_the_partition_follows_the_slice() -> None:
    """The same points in other coordinates: u and v doubled, the polygon halved."""
    spline, net = captured("cnn"), BY_NAME["cnn"]
    origin, u, v = inputs_of(net, 3)
    corners = np.array(POLYGONS["pentagon"])
    one = ma.partition(spline, ma.Plane.polygon(origin, u, v, corners))
    two = ma.partition(spline, ma.Plane.polygon(origin, 2 * u, 2 * v, corners / 2))
    order = {i: k for k, i in enumerate(two.codes[:].ids())}
    places = [order[i] for i in one.codes[:].ids()]
    assert len(one) == len(two)
    np.testing.assert_allclose(one.areas, 4 * two.areas[places], rtol=1e-9, atol=1e-15)


def test_the_same_call_gives_the_same_arrays() -> None:
    spline, slice_ = captured("residual"), plane_of(BY_NAME["residual"])
    one, two = ma.partition(spline, slice_), ma.partition(spline, slice_)
    for name in ("vertices", "edges", "neighbours", "areas", "A", "b", "centres"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_a_float32_network_is_cut_in_float64() -> None:
    net = BY_NAME["mlp"]
    spline = ma.Spline(model_of(net, torch.float32), example_of(net, torch.float32))
    plane = ma.partition(spline, plane_of(net))
    laws.check_all(spline.to(torch.float64), plane, 1000, general=True)


def test_codes_of_some_cells() -> None:
    plane = ma.partition(captured("mlp"), plane_of(BY_NAME["mlp"]))
    ids = plane.codes[:].ids()
    assert len(plane) > 20 and len(plane.codes) == len(plane)
    assert plane.codes[3:9].ids() == ids[3:9] and plane.codes[-2:].ids() == ids[-2:]
    assert isinstance(plane.codes[3:9], ma.Code)


# ---- drawn networks ---------------------------------------------------------------------------------------


@given(st.data(), networks())
def test_laws_on_a_drawn_network_and_slice(data: st.DataObject, drawn: Drawn) -> None:
    assume(np.prod(drawn.shape) > 1)
    spline = ma.Spline(drawn.model, torch.zeros(1, *drawn.shape, dtype=torch.float64))
    assume(not wholly_padded(spline, torch.zeros(1, *drawn.shape, dtype=torch.float64)))
    slice_ = data.draw(slices(drawn.shape))
    try:
        plane = ma.partition(spline, slice_)
    except ma.errors.DegenerateSliceError:
        event("refused")
        assert laws.vanishes_somewhere(spline, slice_)
        return
    event(f"{min(len(plane) // 10, 20)}x10 cells")
    laws.check_all(spline, plane, 1000)


@given(st.sampled_from((1, 2, 1024)).flatmap(tiny_networks))
def test_tiny_networks_are_cut_as_in_rational_arithmetic(tiny: Tiny) -> None:
    spline = ma.Spline(torch_net(tiny.layers), torch.zeros(1, len(tiny.axes[0]), dtype=torch.float64))
    exact = exact_partition(tiny.layers, tiny.corners, *tiny.axes)
    event(f"{min(len(exact.cells) // 10, 10)}x10 cells")
    assert_same(as_plane(exact, spline, tiny.plane), ma.partition(spline, tiny.plane))


# ---- bad input --------------------------------------------------------------------------------------------


def test_a_slice_of_another_input_space_is_refused() -> None:
    for shape in ((3,), (5,), (2, 2), (1, 4)):
        origin, u, v = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        with pytest.raises(ma.errors.InputError, match=r"\(4,\)") as refusal:
            ma.partition(captured("mlp"), ma.Plane.square(origin, u, v))
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.GELU(), nn.Tanh()], ids=lambda m: type(m).__name__)
def test_a_network_that_is_not_piecewise_affine_is_refused(last: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), last).double()
    with pytest.raises(ma.errors.NotPiecewiseAffineError, match="until='1'") as refusal:
        ma.partition(ma.Spline(net, torch.zeros(1, 2, dtype=torch.float64)), flat_square())
    assert "\n" not in str(refusal.value)


def test_what_is_no_slice_is_refused() -> None:
    for wrong in (torch.zeros(3, 4), None, "square"):
        with pytest.raises(ma.errors.InputError):
            ma.partition(captured("mlp"), wrong)
    with pytest.raises(ma.errors.InputError, match=r"ma\.Spline"):
        ma.partition(nn.ReLU(), flat_square())  # pyright: ignore


@pytest.mark.parametrize("option", ["limit", "memory", "workers"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_numbers_that_make_no_sense_are_refused(option: str, value: float) -> None:
    with pytest.raises(ma.errors.InputError, match=f"{option}={value}"):
        ma.partition(mlp(2, 4, 1), flat_square(), **{option: value})
    with pytest.raises(ma.errors.InputError, match="are for a Plane"):
        ma.partition(mlp(2, 4, 1), ma.Segment(torch.zeros(2), torch.ones(2)), **{option: 5})


@pytest.mark.parametrize("device", ["cuda:99", "meta", "nowhere"])
def test_devices_that_cannot_serve(device: str) -> None:
    with pytest.raises(ma.errors.InputError, match=device.split(":")[0]) as refusal:
        ma.partition(mlp(2, 4, 1), flat_square(), device=device)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("corners", [400, 500, 520, 2000])
def test_a_polygon_with_many_corners_is_cut_or_refused(corners: int) -> None:
    turn = 2 * np.pi * np.arange(corners) / corners
    round_ = ma.Plane.polygon(torch.zeros(2), *torch.eye(2), np.stack([np.cos(turn), np.sin(turn)], 1).tolist())
    spline = ma.Spline(nn.ReLU(), torch.zeros(1, 2, dtype=torch.float64))
    if corners < 500:
        assert len(ma.partition(spline, round_)) == 4
    for device in (None, "cpu") if corners >= 500 else ():
        with pytest.raises(ma.errors.InputError, match="fewer corners"):
            ma.partition(spline, round_, device=device)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_larger_polygon_has_all_cells_of_a_smaller_one_or_is_refused(device: str | None) -> None:
    spline, least, refused = mlp(2, 32, 32, 2, seed=3), 0, 0
    for reach in 10.0 ** np.array([0, 3, 6, 7, 9, 11, 13, 15, 40, 300]):
        try:
            axes = reach * torch.eye(2, dtype=torch.float64)
            cells = len(ma.partition(spline, ma.Plane.square(torch.zeros(2), *axes), device=device))
        except ma.errors.DegenerateSliceError:
            refused += 1
        else:
            assert cells >= least, reach
            least = cells
    assert least > 2000 and 5 <= refused < 10


class Flat(nn.Module):
    """relu(|s| - 1), 0 in a whole band, and |s| - |t|."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s, t = x.abs().unbind(1)
        return torch.stack([torch.relu(s - 1), s - t], 1)


def test_a_level_set_is_the_border_of_what_lies_below() -> None:
    plane = ma.partition(ma.Spline(Flat(), torch.zeros(1, 2, dtype=torch.float64)), flat_square(2.0))
    assert plane.level_set(0) == []  # never below, and 0 on whole cells
    assert sorted(np.ptp(line, axis=0).tolist() for line in plane.level_set(0, level=0.5)) == [[0.0, 2.0], [0.0, 2.0]]
    for level in (1.0, 0.0, -1.0, 1e-14):  # through corners of cells
        lines = plane.level_set(1, level=level)
        assert len(lines) == 2 and all((np.diff(line, axis=0) != 0).any(1).all() for line in lines)
    assert plane.level_set(1, level=2.0) == [] and plane.level_set(1, level=-1.0)
    for wrong in ({"i": 0.5}, {"i": 7}, {"i": 0, "level": float("nan")}):
        with pytest.raises(ma.errors.InputError):
            plane.level_set(**wrong)


def test_units_of_edges_can_be_sliced() -> None:
    units = ma.partition(mlp(2, 4, 1), flat_square()).edge_units
    assert units[1:3] == [units[1], units[2]]
