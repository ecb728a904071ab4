"""Statistics of templates over data against loops over every sample, and the pictures of templates."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import real_nets
import torch
from assets import asset, mnist_test, needs_assets
from hypothesis import given
from hypothesis import strategies as st
from net import differentiable, inputs_of, model_of, output_of
from nets import BY_NAME, captured
from torch import Tensor, nn
from torch.nn import functional as F

import maxaffine as ma
from maxaffine import data
from maxaffine import templates as tm
from maxaffine.architectures import mlp
from maxaffine.errors import InputError, MemoryBudgetError

ROWS, BINS = 37, 32
NETS = ("mlp", "cnn", "ramp_abs")


def sample(name: str) -> tuple[Tensor, Tensor]:
    x = inputs_of(BY_NAME[name], ROWS)
    classes = captured(name).out_shape[0]
    return x, torch.randint(classes, (ROWS,), generator=torch.Generator().manual_seed(5))


def by_loops(name: str, x: Tensor, y: Tensor) -> dict[str, list[float]]:
    """Every number, sample by sample and class by class, from gradients of the original network."""
    net = BY_NAME[name]
    model = differentiable(model_of(net))
    keys = ("correct", "incorrect", "margins", "biases", "norms", "between", "aligned_y", "aligned_c")
    found: dict[str, list[float]] = {key: [] for key in (*keys, "hits", "alone")}
    for point, label in zip(x, y.tolist(), strict=True):
        leaf = point[None].clone().requires_grad_()
        out = output_of(net, model, leaf).flatten()
        A = [torch.autograd.grad(o, leaf, retain_graph=True)[0].flatten() for o in out]
        inner = [float(a @ point.flatten()) for a in A]
        b = [o - i for o, i in zip(out.tolist(), inner, strict=True)]
        found["hits"].append(float(int(out.argmax()) == label))
        found["alone"].append(float(max(range(len(A)), key=inner.__getitem__) == label))
        found["correct"].append(inner[label])
        found["aligned_y"].append(float(F.cosine_similarity(A[label], point.flatten(), dim=0)))
        found["norms"] += [float(a.norm()) for a in A]
        for c in set(range(len(A))) - {label}:
            found["incorrect"].append(inner[c])
            found["margins"].append(float((A[label] - A[c]) @ point.flatten()))
            found["biases"].append(b[label] - b[c])
            found["between"].append(float(F.cosine_similarity(A[label], A[c], dim=0)))
            found["aligned_c"].append(float(F.cosine_similarity(A[c], point.flatten(), dim=0)))
    return found


def assert_distribution(found: tm.Distribution, values: list[float], reach: float = math.inf) -> None:
    """Counts, mean, spread and range are those of numpy for the same edges."""
    values = list(np.clip(values, -reach, reach))  # rounding of the judge's cosines
    assert found.counts.tolist() == np.histogram(values, found.edges.numpy())[0].tolist()
    assert (found.count, found.mean, found.std) == pytest.approx((len(values), np.mean(values), np.std(values)))
    assert (found.low, found.high) == pytest.approx((min(values), max(values)))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("chunks", ["one", "many"])
def test_statistics_are_those_of_a_loop_over_all_samples(name: str, chunks: str) -> None:
    (x, y), spline = sample(name), captured(name)
    units = sum(operator.units for operator in spline.operators)
    one = 8 * ((spline.out_shape[0] + 1) * x[0].numel() + 2 * units)
    found = tm.template_statistics(spline, x, y, bins=BINS, memory=2**25 if chunks == "one" else 3 * one)
    truth = by_loops(name, x, y)
    assert found.angles is not None and found.inputs == ROWS and found.classes == spline.out_shape[0]
    assert_distribution(found.correct, truth["correct"])
    assert_distribution(found.incorrect, truth["incorrect"])
    assert_distribution(found.margins, truth["margins"])
    assert_distribution(found.biases, truth["biases"])
    assert_distribution(found.angles.norms, truth["norms"])
    assert_distribution(found.angles.between, truth["between"], reach=1.0)
    assert_distribution(found.angles.correct, truth["aligned_y"], reach=1.0)
    assert_distribution(found.angles.wrong, truth["aligned_c"], reach=1.0)
    assert (found.hits, found.hits_alone) == (sum(truth["hits"]), sum(truth["alone"]))
    assert found.agreements == ROWS and found.completeness < 1e-12
    assert (found.accuracy, found.accuracy_alone) == (found.hits / ROWS, found.hits_alone / ROWS)


@pytest.mark.parametrize("name", NETS)
def test_without_angles_the_rest_is_the_same(name: str) -> None:
    (x, y), spline = sample(name), captured(name)
    full, lean = (tm.template_statistics(spline, x, y, bins=BINS, angles=angles) for angles in (True, False))
    assert lean.angles is None and (lean.hits, lean.hits_alone) == (full.hits, full.hits_alone)
    for key in ("correct", "incorrect", "margins", "biases"):
        assert torch.equal(getattr(lean, key).counts, getattr(full, key).counts)


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    (x, y), spline = sample("mlp"), captured("mlp")
    x = x * torch.logspace(-3, 3, ROWS, dtype=torch.float64)[:, None]  # every part widens the bins again
    whole = tm.template_statistics(spline, x, y, bins=BINS)
    parts = [tm.template_statistics(spline, x[i : i + 5], y[i : i + 5], bins=BINS) for i in range(0, ROWS, 5)]
    for order in (parts, parts[::-1]):
        merged = order[0]
        for part in order[1:]:
            merged = tm.merge_statistics(merged, part)
        for key in ("correct", "incorrect", "margins", "biases"):
            one, other = getattr(merged, key), getattr(whole, key)
            assert torch.equal(one.counts, other.counts) and torch.equal(one.edges, other.edges)
            assert (one.mean, one.std) == pytest.approx((other.mean, other.std))


def test_dead_templates_have_no_cosines_and_the_counts_say_so() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, -2.0]])
    found = tm.template_statistics(ma.Spline(net, x), x, [0, 0, 0], bins=4)
    assert found.angles is not None
    assert (found.angles.norms.count, found.angles.between.count) == (6, 1)
    assert (found.angles.correct.count, found.angles.wrong.count) == (2, 1)
    assert found.correct.count == 3 and found.angles.between.counts.tolist() == [0, 0, 1, 0]


def test_accuracy_is_the_networks_own() -> None:
    """Row 20 of the paper's list: A x + b decides as the network does; without biases A x alone does too."""
    for bias in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            net = nn.Sequential(nn.Linear(6, 9, bias=bias), nn.ReLU(), nn.Linear(9, 4, bias=bias))
            x, y = torch.randn(200, 6), torch.randint(4, (200,))
        found = tm.template_statistics(ma.Spline(net, x), x, y)
        assert found.hits == int((net(x).argmax(1) == y).sum()) and found.agreements == 200
        assert bias or found.hits_alone == found.hits


@needs_assets
@pytest.mark.parametrize("name", ["smoothhess_mnist", "mnist-net_256x4"])
def test_trained_templates_tell_the_classes_of_mnist_apart(name: str) -> None:
    """Row 22 of the paper's list: after training the mean of the correct class is above 0, of the others below."""
    net = next(net for net in real_nets.REAL_NETS if net.name == name)
    spline = ma.Spline(net.module(net.file), net.inputs(2)) if net.module else ma.load(asset(net.file))
    found = tm.template_statistics(spline, net.inputs(500), mnist_test()[1][:: 10000 // 500][:500])
    assert found.accuracy > 0.95 and found.agreements == 500 and found.completeness < 1e-4
    assert found.correct.mean > 0 > found.incorrect.mean and found.margins.mean > 0


def separation(found: tm.TemplateStatistics) -> float:
    """How far the two modes of the inner products stand apart, in their own width."""
    spread = math.sqrt((found.correct.std**2 + found.incorrect.std**2) / 2)
    return (found.correct.mean - found.incorrect.mean) / spread


@needs_assets
def test_templates_tell_mnist_better_apart_than_cifar10() -> None:
    """Row 22: one network, trained on as many grey images of each; the two modes are further apart on MNIST."""
    apart = {}
    for name, folder in (("mnist", "data/mnist"), ("cifar10-png", "data/cifar10")):
        parts = [data.load(name, asset(folder), train=part) for part in (True, False)]
        images = [torch.from_numpy(part.inputs[:1000]).float().mean(1, keepdim=True) for part in parts]
        (x, z), (y, w) = map(data.normalise, images), (torch.from_numpy(part.labels[:1000]) for part in parts)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = mlp(side=x.shape[-1], widths=(128, 128))
            optimiser = torch.optim.Adam(net.parameters(), 1e-3)
            for _ in range(15):
                for rows in torch.randperm(1000).split(50):
                    optimiser.zero_grad()
                    F.cross_entropy(net(x[rows]), y[rows]).backward()
                    optimiser.step()
        found = tm.template_statistics(ma.Spline(net.eval(), x[:1]), z, w)
        assert found.correct.mean > 0 > found.incorrect.mean
        apart[name] = separation(found)
    assert apart["mnist"] > 2 * apart["cifar10-png"]


# ---- distributions -------------------------------------------------------------------------------------------

numbers = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=12)


@given(st.lists(numbers, min_size=1, max_size=5), st.sampled_from([2, 8, 64]))
def test_widened_bins_count_exactly(chunks: list[list[float]], bins: int) -> None:
    parts = [tm.distribution(torch.tensor(chunk, dtype=torch.float64), bins) for chunk in chunks]
    merged = parts[0]
    for part in parts[1:]:
        merged = tm.merge_distributions(part, merged)
    values = [v for chunk in chunks for v in chunk]
    width = Fraction(2) ** merged.exponent
    counts = [0] * bins
    for v in values:  # rational numbers: no rounding at all
        counts[math.floor(Fraction(v) / width) + bins // 2] += 1
    assert merged.counts.tolist() == counts and merged.count == len(values)
    peak = max(abs(Fraction(v)) for v in values)
    assert peak < width * bins / 2  # wide enough, and no wider than needed
    assert peak * 2 >= width * bins / 2 or merged.exponent == -1000
    assert merged.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert merged.std == pytest.approx(np.std(values), rel=1e-6, abs=1e-6)


def test_numbers_within_a_known_reach_have_its_bins() -> None:
    found = tm.distribution(torch.tensor([-1.0, 1.0, 0.1, math.nan]), bins=4, reach=1.0)
    assert found.edges.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert (found.counts.tolist(), found.count, found.low, found.high) == ([1, 0, 1, 1], 3, -1.0, 1.0)


def test_an_empty_distribution_merges_to_the_other() -> None:
    empty, other = tm.distribution(torch.empty(0), 4), tm.distribution(torch.ones(3), 4)
    assert str(empty) == "none" and math.isnan(empty.std)
    for merged in (tm.merge_distributions(empty, other), tm.merge_distributions(other, empty)):
        assert merged.counts.tolist() == other.counts.tolist() and merged.mean == 1


# ---- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "options", "error", "said"),
    [
        ([0] * (ROWS - 1), {}, InputError, "for 37 rows"),
        ([0] * (ROWS - 1) + [99], {}, InputError, "classes have 0 to"),
        ([0.5] * ROWS, {}, InputError, "whole numbers"),
        ([0] * ROWS, {"bins": 100}, InputError, "power of two"),
        ([0] * ROWS, {"memory": 8}, MemoryBudgetError, "angles=False"),
    ],
)
def test_bad_calls_of_the_statistics(labels: list[float], options: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        tm.template_statistics(captured("mlp"), sample("mlp")[0], torch.tensor(labels), **options)


def test_bad_data_of_the_statistics() -> None:
    (x, y), spline = sample("mlp"), captured("mlp")
    with pytest.raises(InputError, match="at least one row"):
        tm.template_statistics(spline, x[:0], y[:0])
    with pytest.raises(InputError, match="NaN"):
        tm.template_statistics(spline, x * math.nan, y)
    with pytest.raises(InputError, match="1 output"):
        tm.template_statistics(ma.Spline(nn.Linear(2, 1), torch.zeros(1, 2)), torch.zeros(3, 2), [0, 0, 0])
    lean, full = (tm.template_statistics(spline, x, y, angles=angles) for angles in (False, True))
    with pytest.raises(InputError, match="cannot be merged"):
        tm.merge_statistics(lean, full)
    with pytest.raises(InputError, match="cannot be merged"):
        tm.merge_distributions(tm.distribution(torch.ones(1), 4), tm.distribution(torch.ones(1), 8))
    with pytest.raises(InputError, match="infinite"):
        tm.distribution(torch.tensor([math.inf]))
    with pytest.raises(InputError, match="spline is a Linear"):
        tm.template_statistics(nn.Linear(2, 2), x, y)
    with pytest.raises(InputError, match="inputs is a ndarray"):
        tm.template_statistics(spline, x.numpy(), y)
    with pytest.raises(InputError, match="memory is 'much'"):
        tm.template_statistics(spline, x, y, memory="much")


def test_an_overflowing_network_has_no_statistics() -> None:
    """inf - inf is NaN, which distributions leave out: that would be a smaller data set without a word."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    for layer in (net[0], net[2]):
        nn.init.constant_(layer.weight, 1.0)
    spline, x = ma.Spline(net, torch.ones(2, 2)), torch.full((2, 2), 1e38)
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[3.0, 3.0], [3.0, -3.0]]))
    for angles in (True, False):
        with pytest.raises(InputError, match=r"infinite.*use spline\.to\(torch\.float64\)"):
            tm.template_statistics(spline, x, [0, 1], angles=angles)


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ([0.5], {}, "values is a list"),
        (torch.ones(1, dtype=torch.complex64), {}, "complex64"),
        (torch.ones(1), {"bins": "8"}, "bins=8"),
        (torch.tensor([0.5, -3.0]), {"reach": 1.0}, "a value of 3 lies beyond reach=1"),
        (torch.ones(1), {"reach": 3.0}, "reach=3.0; give a power of two"),
        (torch.ones(1), {"reach": math.nan}, "reach=nan"),
    ],
)
def test_bad_calls_of_distributions(values: object, options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tm.distribution(values, **options)


# ---- pictures ------------------------------------------------------------------------------------------------

pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")


@pytest.fixture(autouse=True)
def no_screen():
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def banks(shape: tuple[int, ...]) -> dict[str, tm.Templates]:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(3, 4, *shape, generator=generator) * size for size in (1, 10)]
    x, b = torch.randn(3, *shape, generator=generator), torch.randn(3, 4, generator=generator)
    return {name: tm.Templates(A, b, x, torch.arange(4)) for name, A in zip(("relu", "abs"), parts, strict=True)}


@pytest.mark.parametrize(("shape", "image"), [((5, 4), None), ((20,), (5, 4)), ((3, 5, 4), None), ((1, 5, 4), None)])
def test_the_picture_shows_the_templates(shape: tuple[int, ...], image: tuple[int, ...] | None) -> None:
    from maxaffine import plot

    both = banks(shape)
    figure = plot.templates(both, row=1, classes=[2, 0], label=2, image=image, names=["a", "b", "c", "d"])
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 6  # an input and two templates, twice
    for place, bank in enumerate(both.values()):
        line = drawn[3 * place : 3 * place + 3]
        assert line[0].get_ylabel() == list(both)[place]
        fields = [bank.A[1, c].double().reshape(-1, 5, 4).sum(0).numpy() for c in (2, 0)]
        reach = max(np.abs(field).max() for field in fields)
        for axis, field, c in zip(line[1:], fields, (2, 0), strict=True):
            np.testing.assert_allclose(axis.images[0].get_array(), field)
            assert axis.images[0].get_clim() == pytest.approx((-reach, reach))
            assert f"= {float(bank.inner[1, c]):+.2f}" in axis.get_title()
            assert f"b = {float(bank.b[1, c]):+.2f}" in axis.get_title()
        assert [axis.get_title().split("\n")[0] for axis in line[1:]] == ["c (label)", "a"]


def test_the_label_and_the_largest_scores_are_shown() -> None:
    from maxaffine import plot

    bank = banks((5, 4))["relu"]
    order = bank.scores[2].argsort(descending=True).tolist()
    label = order[3]
    figure = plot.templates(bank, row=2, label=label)
    heads = [axis.get_title().split("\n")[0] for axis in figure.axes if axis.images][1:]
    assert heads == [f"class {label} (label)", f"class {order[0]}", f"class {order[1]}"]


def test_histograms_have_the_shares_of_the_counts() -> None:
    from maxaffine import plot

    (x, y), spline = sample("mlp"), captured("mlp")
    found, lean = (tm.template_statistics(spline, x, y, angles=angles) for angles in (True, False))
    figure = plot.template_histograms({"one": found, "lean": lean})
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 6 and all(axis.patches for axis in shown)
    for axis in shown:
        for patch in axis.patches:
            values, edges, _ = patch.get_data()
            assert float((values * np.diff(edges)).sum()) == pytest.approx(1)
    values, edges, _ = shown[1].patches[0].get_data()
    margins = tm.template_statistics(spline, x, y, bins=2**14).margins
    inside = (margins.edges[:-1] >= edges[0]) & (margins.edges[:-1] < edges[3])
    share = float(margins.counts[inside].sum()) / margins.count
    assert float((values * np.diff(edges))[:3].sum()) == pytest.approx(share)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"row": 9}, "3 inputs"), ({"classes": [7]}, "templates of"), ({"image": (3, 3)}, "image="), ({}, "image=")],
)
def test_bad_calls_of_the_picture(options: dict, said: str) -> None:
    from maxaffine import plot

    with pytest.raises(InputError, match=said):
        plot.templates(banks((20,))["relu"], **options)
    with pytest.raises(InputError, match="nothing to show"):
        plot.templates({})
    for wrong in (None, {"relu": None}):
        with pytest.raises(InputError, match=r"cannot be shown; give templates\(f, x\)"):
            plot.templates(wrong)
        with pytest.raises(InputError, match="cannot be shown; give template_statistics"):
            plot.template_histograms(wrong)
    with pytest.raises(InputError, match="nothing to show"):
        plot.template_histograms({})
