"""Partitions of segments against the network itself, dense sampling, and a slow partition in rational numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from assets import asset, needs_assets
from hypothesis import given, settings
from net import Net, Of, example_of, inputs_of, model_of, output_of
from nets import BY_NAME, NETS, captured
from real_nets import REAL_NETS
from strategies import Drawn, networks
from test_custom_operator import LargerHalf, Reference
from test_custom_operator import Net as HalvesNet
from test_random_nets import wholly_padded
from torch import Tensor, nn

import maxaffine as ma
from maxaffine.geometry import line_cut
from maxaffine.geometry.line import LinePartition, partition_segments
from maxaffine.slice import Segment

Truth = Callable[[Tensor], Tensor]
RESOLVED = 1e-9  # samples closer than this to a knot may lie on either side of it


def judged(name: str) -> tuple[ma.Spline, Truth]:
    """The spline of a network of the list, and the network as a function of the spline's input."""
    net, judge = BY_NAME[name], model_of(BY_NAME[name])
    return captured(name), lambda x: output_of(net, judge, x.clone()).detach()


def line_of(spline: ma.Spline, x0: Tensor, x1: Tensor) -> LinePartition:
    return partition_segments(spline, [Segment(x0, x1)])[0]


def splined(model: nn.Module, dim: int) -> ma.Spline:
    return ma.Spline(model, torch.zeros(1, dim, dtype=torch.float64))


# The laws of one partition.


def ends_of(line: LinePartition) -> np.ndarray:
    return np.concatenate(([0.0], line.knots, [1.0]))


def at(line: LinePartition, piece: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """The maps of those pieces at those places."""
    return line.b[piece] + tau.reshape(-1, *[1] * (line.A.ndim - 1)) * line.A[piece]


def assert_close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-9) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0) <= tolerance * max(1.0, np.abs(wanted).max(initial=0))


def assert_knots(line: LinePartition) -> None:
    """Sorted, strictly inside, and every array has its shape."""
    assert line.knots.dtype == line.A.dtype == line.b.dtype == np.float64
    assert len(line) == len(line.codes) == len(line.A) == len(line.b) == len(line.units) + 1
    assert (np.diff(ends_of(line)) > 0).all()


def assert_codes(line: LinePartition, spline: ma.Spline) -> None:
    """The code of the middle of each piece; units are exactly what differs between neighbours, never nothing."""
    ends = ends_of(line)
    wanted = spline.code(line.segment.embed(torch.tensor((ends[1:] + ends[:-1]) / 2)))
    assert wanted.signature == line.codes.signature
    assert bool((wanted == line.codes).all())
    for k, units in enumerate(line.units):
        before, after = line.codes[k], line.codes[k + 1]
        names = [o.name for o in spline.operators]
        moved = [(n, i) for n in names for i in (before[n] != after[n]).flatten().nonzero().flatten().tolist()]
        assert list(units) == moved != []


def assert_codes_where_units_are_not_noise(line: LinePartition, spline: ma.Spline) -> None:
    """For ReLU networks with equal functions inside: units that are zero up to rounding are off."""
    ends = ends_of(line)
    x = line.segment.embed(torch.tensor((ends[1:] + ends[:-1]) / 2))
    for operator in spline.operators:
        z = spline.at(x, output=operator.name)(x)
        assert bool(((z > 1e-12 * z.abs().max()) == line.codes[operator.name].bool()).all())


def assert_maps(line: LinePartition, spline: ma.Spline, truth: Truth) -> None:
    """The network inside each piece; its derivative there; neighbouring maps agree at their knot."""
    ends, pieces = ends_of(line), np.arange(len(line))
    for fraction in (0.03, 0.4, 0.97):
        tau = ends[:-1] + fraction * np.diff(ends)
        assert_close(at(line, pieces, tau), truth(line.segment.embed(torch.tensor(tau))).numpy())
    x = line.segment.embed(torch.tensor((ends[1:] + ends[:-1]) / 2))
    along = (line.segment.x1.double() - line.segment.x0.double()).expand_as(x)
    assert_close(line.A, spline.at(x).mv(along).numpy())
    assert_close(at(line, pieces[:-1], line.knots), at(line, pieces[1:], line.knots))


def assert_sampled(line: LinePartition, spline: ma.Spline, count: int) -> None:
    """Each sample has the code of the piece it lies in: no piece is missing and none is too long."""
    tau = (np.arange(count) + 0.5) / count
    piece = np.searchsorted(line.knots, tau)
    clear = np.abs(ends_of(line)[:, None] - tau).min(0) > RESOLVED if len(line) * count < 10**7 else slice(None)
    found = spline.code(line.segment.embed(torch.tensor(tau[clear])))
    assert bool((found == line.codes[torch.tensor(piece[clear])]).all())
    assert set(np.flatnonzero(np.diff(ends_of(line)) > 2 / count)) <= set(piece.tolist())


def assert_laws(line: LinePartition, spline: ma.Spline, truth: Truth, count: int = 1000) -> None:
    assert_knots(line)
    assert_codes(line, spline)
    assert_maps(line, spline, truth)
    assert_sampled(line, spline, count)


def assert_same(a: LinePartition, b: LinePartition) -> None:
    assert len(a) == len(b) and a.units == b.units and bool((a.codes == b.codes).all())
    for found, wanted in ((a.knots, b.knots), (a.A, b.A), (a.b, b.b)):
        assert_close(found, wanted)


# Every operator, every kind of network.


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_laws(net: Net) -> None:
    spline, truth = judged(net.name)
    x = 3 * inputs_of(net, 6)
    lines = partition_segments(spline, [Segment(a, b) for a, b in zip(x[::2], x[1::2], strict=True)])
    assert sum(map(len, lines)) > 3 or not spline.operators
    for line in lines:
        assert_laws(line, spline, truth)


@pytest.mark.parametrize("name", ["mlp", "cnn", "two_live", "ramp_hardtanh"])
def test_dense_sampling(name: str) -> None:
    spline = captured(name)
    x = 3 * inputs_of(BY_NAME[name], 2)
    assert_sampled(line_of(spline, x[0], x[1]), spline, 20_000)


@given(networks())
@settings(max_examples=12)
def test_laws_on_a_drawn_network(drawn: Drawn) -> None:
    x = 2 * torch.randn(2, *drawn.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    spline = ma.Spline(drawn.model, x[:1])
    if not wholly_padded(spline, x):
        assert_laws(line_of(spline, x[0], x[1]), spline, lambda z: drawn.model(z.clone()).detach(), 300)


def test_an_operator_of_the_user() -> None:
    torch.manual_seed(0)
    model, x = HalvesNet().double(), 3 * torch.randn(2, 5, dtype=torch.float64)
    judge = Reference().double()
    judge.load_state_dict(model.state_dict())
    ma.register("tests::larger_half", lambda _: LargerHalf())
    spline = ma.Spline(model, x[:1])
    line = line_of(spline, x[0], x[1])
    assert "larger_half" in {name for units in line.units for name, _ in units}
    assert_laws(line, spline, lambda z: judge(z).detach())


@pytest.mark.parametrize("name", ["mlp", "cnn", "time_major", "folded", "two_live", "ramp_softshrink", "gated"])
def test_many_segments_and_small_chunks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spline = captured(name)
    x = inputs_of(BY_NAME[name], 4)
    segments = [Segment(a, b) for a, b in zip(x[::2], x[1::2], strict=True)]
    together = partition_segments(spline, segments)
    for line, segment in zip(together, segments, strict=True):
        assert line.segment is segment
        assert_same(line, partition_segments(spline, [segment])[0])
    largest = max(o.units * o.pieces for o in spline.operators) * 8
    for chunk in (1, 3 * largest):
        monkeypatch.setattr(line_cut, "CHUNK", chunk)
        for a, b in zip(partition_segments(spline, segments), together, strict=True):
            assert_same(a, b)


def test_a_spline_in_float32_is_cut_in_float64() -> None:
    net = BY_NAME["mlp"]
    spline, x = ma.Spline(model_of(net, torch.float32), example_of(net, torch.float32)), 3 * inputs_of(net, 2)
    line, wide = line_of(spline, x[0].float(), x[1].float()), spline.to(torch.float64)
    assert_laws(line, wide, lambda z: wide(z).detach())


def test_reversing_a_segment_reverses_its_partition() -> None:
    spline = captured("cnn")
    x = 2 * inputs_of(BY_NAME["cnn"], 2)
    line, back = line_of(spline, x[0], x[1]), line_of(spline, x[1], x[0])
    assert_close(line.knots, 1 - back.knots[::-1], 1e-12)
    assert_close(line.A, -back.A[::-1])
    assert line.units == back.units[::-1]


def test_variation_and_density() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():  # 2 relu(x - 1) - 3 relu(-x + 2) on [0, 4]
        for parameter, value in zip(model.parameters(), ([[1], [-1]], [-1, 2], [[2, -3]], [0]), strict=True):
            parameter.copy_(torch.tensor(value))
    x = torch.tensor([[0.0], [4.0]], dtype=torch.float64)
    line = line_of(ma.Spline(model, x[:1]), x[0], x[1])
    assert line.knots.tolist() == [0.25, 0.5] and line.A[:, 0].tolist() == [12, 20, 8]
    assert line.variation.tolist() == [20] and line.density == 0.5
    assert line.units == ((("1", 0),), (("1", 1),))


def test_a_network_without_operators_is_one_piece() -> None:
    spline, truth = judged("affine")
    line = line_of(spline, torch.zeros(3), torch.ones(3))
    assert len(line) == 1 and len(line.codes) == 1 and line.variation.tolist() == [0, 0]
    assert_maps(line, spline, truth)


@pytest.mark.parametrize(("depth", "width"), [(1, 96), (3, 32), (6, 16)])
def test_the_density_of_knots_does_not_depend_on_depth(depth: int, width: int) -> None:
    """About half of 96 units bend between two Gaussian points, however they are stacked (Goujon et al. 2022)."""
    linear = [nn.Linear(i, o).double() for i, o in pairwise([20] + [width] * depth)]
    spline = splined(nn.Sequential(*(m for layer in linear for m in (layer, nn.ReLU()))), 20)
    generator, counts = torch.Generator().manual_seed(0), []
    for _ in range(5):
        for layer in linear:
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        x = torch.randn(60, 20, generator=generator, dtype=torch.float64)
        lines = partition_segments(spline, [Segment(a, b) for a, b in zip(x[::2], x[1::2], strict=True)])
        counts += [len(line.knots) for line in lines]
    assert abs(np.mean(counts) - 48) < 7


# A partition in rational numbers.


@dataclass(frozen=True)
class Layer:
    """kind: linear, relu, leaky, abs or max (over neighbouring pairs)."""

    kind: str
    weight: list[list[Fraction]] | None = None
    bias: list[Fraction] | None = None


@dataclass(frozen=True)
class Exact:
    """On (lo, hi): value[u] + tau slope[u]; the code so far; flat: (operator, unit) that lies in a wall."""

    lo: Fraction
    hi: Fraction
    value: list[Fraction]
    slope: list[Fraction]
    code: tuple[tuple[int, ...], ...] = ()
    flat: frozenset[tuple[int, int]] = frozenset()


SLOPES = {"relu": (0, 1), "leaky": (Fraction(1, 4), 1), "abs": (-1, 1)}


def exact_partition(layers: list[Layer], x0: list[Fraction], x1: list[Fraction]) -> list[Exact]:
    pieces = [Exact(Fraction(0), Fraction(1), x0, [b - a for a, b in zip(x0, x1, strict=True)])]
    for layer in layers:
        act = transform if layer.kind == "linear" else bend
        pieces = [new for piece in pieces for new in act(layer, piece)]
    merged = pieces[:1]
    for piece in pieces[1:]:
        if piece.code == merged[-1].code:
            last = merged.pop()
            merged.append(Exact(last.lo, piece.hi, last.value, last.slope, last.code, last.flat | piece.flat))
        else:
            merged.append(piece)
    return merged


def transform(layer: Layer, p: Exact) -> list[Exact]:
    def product(v: list[Fraction]) -> list[Fraction]:
        return [sum((w * x for w, x in zip(row, v, strict=True)), Fraction(0)) for row in layer.weight]

    value = [z + b for z, b in zip(product(p.value), layer.bias, strict=True)]
    return [Exact(p.lo, p.hi, value, product(p.slope), p.code, p.flat)]


def bend(layer: Layer, p: Exact) -> Iterator[Exact]:
    forms = list(zip(p.value, p.slope, strict=True))
    groups = [[z, (Fraction(0), Fraction(0))] for z in forms]
    if layer.kind == "max":
        groups = [list(group) for group in zip(forms[::2], forms[1::2], strict=True)]
    gaps = [(u, a[0] - b[0], a[1] - b[1]) for u, group in enumerate(groups) for a, b in combinations(group, 2)]
    cuts = {p.lo, p.hi, *(t for _, v, s in gaps if s and p.lo < (t := -v / s) < p.hi)}
    flat = p.flat | {(len(p.code), u) for u, v, s in gaps if not v and not s}
    for lo, hi in pairwise(sorted(cuts)):
        middle = (lo + hi) / 2
        heights = [[v + middle * s for v, s in group] for group in groups]
        if layer.kind == "max":
            code = tuple(int(b > a) for a, b in heights)
            chosen = [group[c] for group, c in zip(groups, code, strict=True)]
        else:
            code = tuple(int(z > 0) for z, _ in heights)
            slopes = [SLOPES[layer.kind][c] for c in code]
            chosen = [(k * v, k * s) for k, (v, s) in zip(slopes, forms, strict=True)]
        yield Exact(lo, hi, [v for v, _ in chosen], [s for _, s in chosen], (*p.code, code), flat)


ARCHITECTURES = {
    "relu": [(2, 4), "relu", (4, 4), "relu", (4, 3), "relu", (3, 1)],
    "leaky": [(3, 4), "leaky", (4, 3), "leaky", (3, 2)],
    "abs": [(2, 3), "abs", (3, 3), "abs", (3, 2), "abs"],
    "max": [(2, 6), "max", (3, 6), "max", (3, 4), "max", (2, 1)],
    "mixed": [(2, 4), "max", (2, 4), "relu", (4, 4), "abs", (4, 2), "max"],
}
MODULES = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.25),
    "abs": lambda: Of(lambda _, x: x.abs()),
    "max": lambda: Of(lambda _, x: x.unflatten(1, (-1, 2)).amax(2)),
}


@lru_cache
def built(name: str) -> tuple[nn.Sequential, ma.Spline]:
    parts = [nn.Linear(*part) if isinstance(part, tuple) else MODULES[part]() for part in ARCHITECTURES[name]]
    model = nn.Sequential(*parts).double()
    return model, ma.Spline(model, torch.zeros(1, parts[0].in_features, dtype=torch.float64))


def drawn_layers(name: str, model: nn.Sequential, draw: Callable[[torch.Size], Tensor]) -> list[Layer]:
    """New weights in the captured model, and the same network in rational numbers."""
    layers = []
    with torch.no_grad():
        for kind, module in zip(ARCHITECTURES[name], model, strict=True):
            if isinstance(kind, str):
                layers.append(Layer(kind))
                continue
            module.weight.copy_(draw(module.weight.shape))
            module.bias.copy_(draw(module.bias.shape))
            weight = [[Fraction(w) for w in row] for row in module.weight.tolist()]
            layers.append(Layer("linear", weight, [Fraction(b) for b in module.bias.tolist()]))
    return layers


def assert_exact(line: LinePartition, wanted: list[Exact], shape: tuple[int, ...]) -> None:
    assert len(line) == len(wanted)
    assert_close(line.knots, np.array([float(p.lo) for p in wanted[1:]]), 1e-12)
    assert_close(line.b, np.array([p.value for p in wanted], dtype=float).reshape(-1, *shape), 1e-12)
    assert_close(line.A, np.array([p.slope for p in wanted], dtype=float).reshape(-1, *shape), 1e-12)
    codes = [tuple(tuple(v[k].flatten().tolist()) for v in line.codes.values) for k in range(len(line))]
    assert codes == [p.code for p in wanted]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_generic_networks_against_rational_numbers(name: str) -> None:
    generator, (model, spline) = torch.Generator().manual_seed(1), built(name)
    knots = 0
    for _ in range(12):
        layers = drawn_layers(name, model, lambda s: torch.randn(s, generator=generator, dtype=torch.float64))
        x = 3 * torch.randn(2, *spline.in_shape, generator=generator, dtype=torch.float64)
        wanted = exact_partition(layers, *([Fraction(v) for v in row] for row in x.tolist()))
        line = line_of(spline, x[0], x[1])
        assert_exact(line, wanted, spline.out_shape)
        knots += len(line.knots)
    assert knots > 24


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_coincidences_against_rational_numbers(name: str) -> None:
    """Weights and points in {-1, 0, 1} and halves: vertices on the segment, equal units, dead units, zero rows, ties.

    Sums of them are exact in float64, so only quotients (thirds) can turn an exact zero into rounding noise.
    """
    generator, (model, spline) = torch.Generator().manual_seed(2), built(name)

    def small(shape: torch.Size) -> Tensor:
        return torch.randint(-1, 2, shape, generator=generator, dtype=torch.float64)

    refused = several = flat = 0
    for _ in range(80):
        layers = drawn_layers(name, model, small)
        x = torch.randint(-4, 5, (2, *spline.in_shape), generator=generator, dtype=torch.float64) / 2
        if bool((x[0] == x[1]).all()):
            continue
        wanted = exact_partition(layers, *([Fraction(v) for v in row] for row in x.tolist()))
        walls = {(spline.operators[o].name, u) for p in wanted for o, u in p.flat}
        try:
            line = line_of(spline, x[0], x[1])
        except ma.errors.DegenerateSliceError as refusal:
            refused += 1
            assert any(f"unit {u} of operator {name!r}" in str(refusal) for name, u in walls)
            continue
        assert_exact(line, wanted, spline.out_shape)
        several += any(len(units) > 1 for units in line.units)
        flat += bool(walls)
    assert several > 5 and flat > 5 and refused < 8


# Degenerate cases.


def plain(weight: list[list[float]], bias: list[float]) -> nn.Sequential:
    first, last = nn.Linear(len(weight[0]), len(weight)).double(), nn.Linear(len(weight), 1, bias=False).double()
    with torch.no_grad():
        first.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        first.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return nn.Sequential(first, nn.ReLU(), last)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_lines_that_meet_in_a_point_make_one_knot() -> None:
    angles = torch.linspace(0, 3, 7, dtype=torch.float64)
    normals = torch.stack((angles.cos(), angles.sin()), 1)
    vertex = vector(0.3, -0.7)
    spline = splined(plain(normals.tolist(), (-normals @ vertex).tolist()), 2)
    line = line_of(spline, vertex - vector(1, 0.3), vertex + vector(2, 0.6))
    assert len(line) == 2 and abs(line.knots[0] - 1 / 3) < 1e-15
    assert line.units == (tuple(("1", i) for i in range(7)),)
    assert_laws(line, spline, lambda z: spline(z).detach())


def test_a_network_without_biases_through_the_origin() -> None:
    torch.manual_seed(3)
    layers = [nn.Linear(6, 20, bias=False), nn.ReLU(), nn.Linear(20, 20, bias=False), nn.ReLU()]
    spline = splined(nn.Sequential(*layers, nn.Linear(20, 3, bias=False)).double(), 6)
    x = torch.randn(6, dtype=torch.float64)
    line = line_of(spline, -0.37 * x, x)
    assert len(line) == 2 and abs(line.knots[0] - 0.37 / 1.37) < 1e-15
    assert len([unit for unit in line.units[0] if unit[0] == "1"]) == 20
    assert_laws(line, spline, lambda z: spline(z).detach())


def test_a_module_called_again_on_the_same_values_shares_its_knots() -> None:
    def twice(m: Of, x: Tensor) -> Tensor:
        return torch.relu(m.a(x)) + torch.relu(m.a(x) * 3) - torch.relu(-m.a(x))

    torch.manual_seed(1)
    spline = splined(Of(twice, a=nn.Linear(3, 5)).double(), 3)
    x = 4 * torch.randn(1, 3, dtype=torch.float64).expand(2, 3) * torch.tensor([[-1.0], [1.0]])
    line = line_of(spline, x[0], x[1])
    assert len(line) > 2 and all(len(units) == 3 for units in line.units)
    assert_laws(line, spline, lambda z: spline(z).detach())


def test_a_unit_that_only_touches_its_wall_makes_no_knot() -> None:
    def touch(m: Of, x: Tensor) -> Tensor:
        return torch.relu(m.a(x).abs().sum(1, keepdim=True)) + torch.relu(-m.a(x).abs())

    spline = splined(Of(touch, a=nn.Linear(1, 1)).double(), 1)
    with torch.no_grad():
        for source, value in zip(spline.captured.sources, (3.0, -1.0), strict=True):
            source.read().fill_(value)
    line = line_of(spline, vector(-1), vector(1))
    changed = [name for units in line.units for name, _ in units]
    assert len(line.knots) == 1 and {spline.operators[i].op for i in range(4)} == {"abs", "relu"}
    assert {o.op for o in spline.operators if o.name in changed} == {"abs"}
    assert_laws(line, spline, lambda z: spline(z).detach())


def test_knots_at_the_ends_are_not_inside() -> None:
    spline = splined(plain([[1.0, 0], [0, 1.0], [1.0, -2]], [0.0, -1, 0]), 2)
    line = line_of(spline, vector(0, 0), vector(2, 1))  # on two walls at its start, along one, and up to one
    assert len(line) == 1
    assert line.codes["1"].tolist() == [[1, 0, 0]]


def test_exact_zeros_are_piece_zero() -> None:
    """Dead units, a zero row, equal candidates: the lowest index, without an error."""
    spline = splined(plain([[0.0, 0], [1, 2], [0, 0]], [0.0, 0, -1]), 2)
    line = line_of(spline, vector(-1, -1), vector(1, 1))
    assert line.units == ((("1", 1),),) and line.codes["1"].tolist() == [[0, 0, 0], [0, 1, 0]]

    def pooled(m: Of, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x))
        return torch.stack((h, h, 0 * h), 2).amax(2)

    line = line_of(splined(Of(pooled, a=nn.Linear(2, 4)).double(), 2), vector(-3, -4), vector(4, 3))
    assert set(line.codes["amax"].flatten().tolist()) == {0}


def test_a_segment_inside_a_wall_is_refused() -> None:
    """w . x + b = 0 all along, but float64 finds noise there: the error names the unit; beside the wall all is well."""
    torch.manual_seed(5)
    spline = splined(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU()).double(), 4)
    weight, bias = (source.read().detach() for source in spline.captured.sources[:2])
    for unit in range(6):
        w, b = weight[unit], bias[unit]
        along = torch.randn(4, dtype=torch.float64)
        along -= (along @ w) / (w @ w) * w
        foot = torch.randn(4, dtype=torch.float64)
        foot -= (foot @ w + b) / (w @ w) * w
        words = f"segment 0 .* unit {unit} of operator '1'"
        with pytest.raises(ma.errors.DegenerateSliceError, match=words) as refusal:
            line_of(spline, foot - along, foot + along)
        assert "\n" not in str(refusal.value)
        for side in (-1e-6, 1e-6):
            line = line_of(spline, foot - along + side * w, foot + along + side * w)
            assert bool((line.codes["1"][:, unit] == (side > 0)).all())


def test_equal_candidates_computed_in_two_ways_are_a_tie() -> None:
    """float64 finds noise between them, everywhere: the lowest index wins, and nothing changes."""

    def tie(m: Of, x: Tensor) -> Tensor:
        h = m.a(x)
        return torch.maximum(h * 0.1 + h * 0.7, h * 0.8) + torch.relu(torch.stack((h, h - h * 0.1 - h * 0.9), 1)).sum(1)

    torch.manual_seed(0)
    spline = splined(Of(tie, a=nn.Linear(3, 5)).double(), 3)
    line = line_of(spline, vector(-1, 0, 2), vector(1, 3, -1))
    assert {name for units in line.units for name, _ in units} == {"relu"}
    assert not line.codes["maximum"].any() and not line.codes["relu"][:, 1].any()
    assert_knots(line)
    assert_maps(line, spline, lambda z: spline(z).detach())


@pytest.mark.parametrize("tiny", [1e-9, 1e-14, 1e-40])
def test_units_with_tiny_weights_are_no_noise(tiny: float) -> None:
    """Weight decay leaves such units behind; beside ordinary ones they still bend where they bend."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = 3 * torch.randn(1, 4, dtype=torch.float64).expand(2, 4) * torch.tensor([[-1.0], [1.0]])
    spline = ma.Spline(model, x[:1])
    before = line_of(spline, x[0], x[1])
    with torch.no_grad():
        for parameter in list(model.parameters())[:2]:
            parameter[:5] *= tiny
        model[2].weight[:, :5] /= tiny
        for parameter in list(model.parameters())[2:4]:
            parameter[:3] *= tiny
        model[4].weight[:, :3] /= tiny
    after = line_of(spline, x[0], x[1])
    assert len(before) > 5
    assert_same(after, before)


def test_a_unit_that_is_tiny_on_the_segment_alone_is_cut_where_it_bends() -> None:
    """A segment at an angle of 1e-8 to a wall, which it crosses at tau = 0.25."""
    spline = splined(plain([[1.0, 0.0], [0.6, 0.8]], [0.0, 3.0]), 2)
    line = line_of(spline, vector(-1e-8, -1), vector(3e-8, 1))
    assert line.units == ((("1", 0),),) and abs(line.knots[0] - 0.25) < 1e-12


def test_knots_that_are_close_but_apart_stay_apart() -> None:
    gap = 1e-10
    spline = splined(plain([[1.0], [1.0], [-1.0]], [-0.3, -0.3 - gap, 0.3 + 2 * gap]), 1)
    line = line_of(spline, vector(0), vector(1))
    assert np.allclose(np.diff(line.knots), gap, rtol=1e-3, atol=0) and len(line.knots) == 3
    assert [units[0][1] for units in line.units] == [0, 1, 2]


# Bad input.


@pytest.mark.parametrize(
    ("build", "x0", "x1", "error", "words"),
    [
        ("mlp", torch.zeros(3), torch.ones(3), ma.errors.InputError, r"segment 0 .*\(3,\).*\(4,\)"),
        ("mlp", torch.ones(4), torch.ones(4).double() + 1e-14, ma.errors.InputError, "too short"),
        ("softmax", torch.zeros(4), torch.ones(4), ma.errors.NotPiecewiseAffineError, "a partition is not defined"),
    ],
)
def test_bad_input_is_one_clear_line(build: str, x0: Tensor, x1: Tensor, error: type, words: str) -> None:
    spline = splined(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).double(), 4)
    spline = spline if build == "softmax" else captured(build)
    with pytest.raises(error, match=words) as refusal:
        line_of(spline, x0, x1)
    assert "\n" not in str(refusal.value)


def test_a_model_that_was_moved_is_noticed() -> None:
    model = model_of(BY_NAME["mlp"])
    spline = ma.Spline(model, example_of(BY_NAME["mlp"]))
    model.float()
    with pytest.raises(ma.errors.InputError, match="moved after capture"):
        line_of(spline, torch.zeros(4), torch.ones(4))


def test_no_segments_no_partitions() -> None:
    assert partition_segments(captured("mlp"), []) == []


# Real networks.

REAL = ["acas_1_1.onnx", "acas_3_3.nnet", "eran_maxpool", "lenet", "resnet_2b.onnx", "resnet20", "bunny_4x32", "tll_8"]


@needs_assets
@pytest.mark.parametrize("net", [net for net in REAL_NETS if net.name in REAL], ids=lambda net: net.name)
def test_real_networks(net) -> None:
    if net.module is None:
        spline = ma.load(asset(net.file))
    else:
        module, example = net.module(net.file), net.inputs(1)
        spline = ma.Spline(module, example.to(next(module.parameters()).dtype))
    x, wide = net.inputs(4).double(), spline.to(torch.float64)
    share = min(1.0, 400 / sum(o.units for o in spline.operators))  # of the way between two inputs
    line = line_of(spline, x[1], x[1] + share * (x[2] - x[1]))
    assert len(line) >= 8
    if net.name.startswith("tll"):
        assert_knots(line)
        assert_codes_where_units_are_not_noise(line, wide)
        assert_maps(line, wide, lambda z: wide(z).detach())
    else:
        assert_laws(line, wide, lambda z: wide(z).detach(), 200)
