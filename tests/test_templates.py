"""Templates against autograd, loops and Monte Carlo: bank, reading, optimum, noise, norms and sign steps."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import pytest
import torch
from net import Net, differentiable, inputs_of, model_of, output_of
from nets import BY_NAME, NETS, captured
from torch import Tensor, nn
from torch.nn import functional as F

import maxaffine as ma
from maxaffine import templates as tm
from maxaffine.errors import InputError, MemoryBudgetError

JUDGED = ("mlp", "cnn", "residual", "ramp_abs", "maxout")
CLASSIFIERS = ("mlp", "cnn", "ramp_abs")
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@lru_cache
def bank_of(name: str, count: int = 4) -> tm.Templates:
    x = inputs_of(BY_NAME[name], count)
    return tm.templates(captured(name).at(x), x)


def jacobian(name: str, x: Tensor) -> Tensor:
    """(N, C, *in): one backward pass of the original model for each row and class."""
    net = BY_NAME[name]
    model = differentiable(model_of(net))
    rows = []
    for point in x:
        leaf = point[None].clone().requires_grad_()
        outputs = output_of(net, model, leaf).flatten()
        rows.append(torch.stack([torch.autograd.grad(o, leaf, retain_graph=True)[0][0] for o in outputs]))
    return torch.stack(rows)


def mlp(*widths: int, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1]).double()


# ---- the bank ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_score_is_template_times_signal_plus_bias(net: Net) -> None:
    bank, x = bank_of(net.name), inputs_of(net, 4)
    truth = output_of(net, model_of(net), x.clone()).detach().reshape(len(x), -1)
    by_hand = torch.stack([(a * p).flatten(1).sum(1) for a, p in zip(bank.A, x, strict=True)])
    torch.testing.assert_close(bank.inner, by_hand, **EXACT)
    torch.testing.assert_close(bank.scores, truth, **EXACT)


@pytest.mark.parametrize("name", JUDGED)
def test_templates_are_gradients_of_the_scores(name: str) -> None:
    bank = bank_of(name)
    torch.testing.assert_close(bank.A, jacobian(name, bank.x), **EXACT)


@pytest.mark.parametrize("name", JUDGED)
def test_margins_norms_and_cosines_by_loops(name: str) -> None:
    bank = bank_of(name)
    A, x = jacobian(name, bank.x).flatten(2), bank.x.flatten(1)
    for n in range(len(A)):
        for c in range(A.shape[1]):
            assert float(bank.norms[n, c]) == pytest.approx(math.dist(A[n, c].tolist(), [0.0] * A.shape[2]))
            aligned = F.cosine_similarity(A[n, c], x[n], dim=0)
            torch.testing.assert_close(bank.alignments[n, c], aligned, **EXACT)
            for d in range(A.shape[1]):
                torch.testing.assert_close(bank.margins[n, c, d], (A[n, c] - A[n, d]) @ x[n], **EXACT)
                cosine = F.cosine_similarity(A[n, c], A[n, d], dim=0)
                torch.testing.assert_close(bank.cosines[n, c, d], cosine, **EXACT)


def test_a_zero_template_has_no_direction() -> None:
    A = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    bank = tm.Templates(A, torch.zeros(1, 2), torch.ones(1, 2), torch.arange(2))
    assert bank.cosines[0].isnan().tolist() == [[False, True], [True, True]]
    assert bank.alignments[0].isnan().tolist() == [False, True]


def test_templates_of_some_classes() -> None:
    bank = bank_of("mlp")
    some = tm.templates(captured("mlp").at(bank.x), bank.x, classes=[2, 0, -1])
    assert some.classes.tolist() == [2, 0, bank.A.shape[1] - 1]
    torch.testing.assert_close(some.A, bank.A[:, some.classes])
    torch.testing.assert_close(some.scores, bank.scores[:, some.classes], **EXACT)


def test_templates_of_a_layer_are_those_of_its_pre_activations() -> None:
    model, x = mlp(5, 7, 6, 3), drawn(4, 5)
    spline = ma.Spline(model, x)
    first = tm.templates(spline.at(x, output="1"), x)
    torch.testing.assert_close(first.A, model[0].weight.detach().expand(4, 7, 5))
    torch.testing.assert_close(first.b, model[0].bias.detach().expand(4, 7))
    second = tm.templates(spline.at(x, output="3"), x)
    torch.testing.assert_close(second.scores, model[:3](x).detach(), **EXACT)
    slopes = (model[0](x) > 0).double()  # the closed form W2 diag(slopes) W1
    wanted = torch.einsum("kj,nj,ji->nki", model[2].weight, slopes, model[0].weight)
    torch.testing.assert_close(second.A, wanted.detach(), **EXACT)


def test_templates_can_be_trained_on() -> None:
    model, x = mlp(4, 6, 3), drawn(3, 4)
    spline = ma.Spline(model, x)
    bank = tm.templates(spline.at(x, create_graph=True), x)
    [found] = torch.autograd.grad(bank.cosines.square().sum(), model[0].weight)
    bumped, step = [], 1e-6
    for sign in (1, -1):
        with torch.no_grad():
            model[0].weight[1, 2] += sign * step
            bumped.append(tm.templates(spline.at(x), x).cosines.square().sum())
            model[0].weight[1, 2] -= sign * step
    assert float(found[1, 2]) == pytest.approx(float(bumped[0] - bumped[1]) / (2 * step), rel=1e-5)


def test_correct_and_wrong_take_all_apart() -> None:
    values, labels = drawn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    for n, y in enumerate(labels.tolist()):
        assert tm.correct(values, labels)[n] == values[n, y]
        assert tm.wrong(values, labels)[n].tolist() == [float(values[n, c]) for c in range(4) if c != y]


# ---- the reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_reading_splits_the_gap(name: str) -> None:
    bank = bank_of(name)
    read = tm.reading(bank)
    for n in range(len(bank)):
        scores = sorted(((float(s), c) for c, s in enumerate(bank.scores[n])), reverse=True)
        assert (int(read.winner[n]), int(read.rival[n])) == (scores[0][1], scores[1][1])
        assert float(read.gap[n]) == pytest.approx(scores[0][0] - scores[1][0])
        difference = bank.A[n, read.winner[n]] - bank.A[n, read.rival[n]]
        assert float(read.inner[n]) == pytest.approx(float((difference * bank.x[n]).sum()))
        assert float(read.bias[n]) == pytest.approx(float(bank.b[n, read.winner[n]] - bank.b[n, read.rival[n]]))
        assert int(read.alone[n]) == max(range(bank.b.shape[1]), key=lambda c, n=n: float(bank.inner[n, c]))
    assert len(str(read).splitlines()) == len(read) == len(bank)
    assert tm.reading(bank, rival=1).rival.tolist() == [1] * len(bank)


# ---- the optimum ---------------------------------------------------------------------------------------------


def test_reference_values_of_the_optimum() -> None:
    right, wrong = tm.optimal_scores(10, 1.0)
    assert (round(float(right), 6), round(float(wrong), 6)) == (0.948683, -0.105409)
    assert round(math.exp(-float(tm.optimal_loss(10))), 4) == 0.2417


@pytest.mark.parametrize(("classes", "alpha", "length"), [(2, 1.0, 1.0), (3, 1.0, 1.0), (10, 4.0, 2.5), (5, 50.0, 0.7)])
def test_projected_gradient_reaches_the_optimum(classes: int, alpha: float, length: float) -> None:
    for seed in range(3):
        x, label = F.normalize(drawn(6, seed=seed), dim=0) * length, seed % classes
        A = drawn(classes, 6, seed=seed + 10) * (alpha / classes / 6) ** 0.5
        for k in range(400):
            A.requires_grad_()
            loss = F.cross_entropy((A @ x)[None], torch.tensor([label]))
            [slope] = torch.autograd.grad(loss, A)
            A = A.detach() - 0.3 * alpha**0.5 / (1 + k / 100) * slope / slope.norm()
            A = A * min(1.0, alpha**0.5 / float(A.norm()))
        wanted = tm.optimal_templates(x[None], [label], classes, alpha)[0]
        torch.testing.assert_close(A, wanted, rtol=0, atol=1e-9 * alpha**0.5)
        torch.testing.assert_close(loss.detach(), tm.optimal_loss(classes, alpha, length), rtol=1e-9, atol=0)
        right, wrong = tm.optimal_scores(classes, alpha, length)
        scores = [float(right) if c == label else float(wrong) for c in range(classes)]
        torch.testing.assert_close(wanted @ x, torch.tensor(scores, dtype=torch.float64))
        assert float(tm.optimal_gap(classes, alpha, length)) == pytest.approx(
            length * math.sqrt(alpha * classes / (classes - 1))
        )


def best_bank(alpha: float, scale: float = 1.0) -> tuple[tm.Templates, Tensor]:
    x, labels = drawn(5, 2, 3), torch.tensor([0, 1, 2, 3, 0])
    A = scale * tm.optimal_templates(x, labels, 4, alpha)
    return tm.Templates(A, torch.zeros(5, 4, dtype=torch.float64), x, torch.arange(4)), labels


def test_optimal_templates_are_copies_of_the_input_within_the_budget() -> None:
    bank, labels = best_bank(alpha=3.0)
    torch.testing.assert_close(bank.A.flatten(1).square().sum(1), torch.full((5,), 3.0, dtype=torch.float64))
    assert bool((tm.correct(bank.alignments, labels) > 1 - 1e-12).all())
    assert bool((tm.wrong(bank.alignments, labels) < -1 + 1e-12).all())
    assert bool((tm.wrong(tm.correct(bank.cosines, labels), labels) < -1 + 1e-12).all())


def test_distance_to_the_optimum() -> None:
    bank, labels = best_bank(alpha=3.0)
    zero, one = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(tm.distance_to_optimal(bank, labels, alpha=3.0), zero)
    torch.testing.assert_close(tm.distance_to_optimal(bank, labels, alpha=12.0), math.sqrt(3) * one)
    for scale, wanted in [(7.0, 0.0), (0.1, 0.0), (-1.0, 2.0)]:
        torch.testing.assert_close(tm.distance_to_optimal(best_bank(3.0, scale)[0], labels), wanted * one)
    common = tm.Templates(bank.A + drawn(5, 1, 2, 3, seed=9), bank.b, bank.x, bank.classes)
    assert bool((tm.distance_to_optimal(common, labels) > 0.1).all())
    torch.testing.assert_close(tm.distance_to_optimal(common, labels, centred=True), zero)


def test_the_scale_free_distance_is_an_angle() -> None:
    bank, labels = bank_of("mlp"), torch.tensor([0, 1, 2, 0])
    best = tm.optimal_templates(bank.x, labels, bank.A.shape[1])
    cosine = F.cosine_similarity(bank.A.flatten(1), best.flatten(1), dim=1)
    torch.testing.assert_close(tm.distance_to_optimal(bank, labels), (2 - 2 * cosine).sqrt(), **EXACT)


# ---- noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sigma"), [("mlp", 1.0), ("ramp_abs", 0.3), ("cnn", 1.0)])
def test_pairwise_errors_against_monte_carlo(name: str, sigma: float) -> None:
    bank, draws = bank_of(name), 5_000
    label = int(bank.scores[0].argmax())
    found = tm.noisy_errors(captured(name), bank.x[0], sigma, draws, generator=torch.Generator().manual_seed(3))
    assert found.label == label and float(found.predicted[label]) == 0
    assert 0.01 < float(found.predicted.max()) < 0.5  # or there is nothing to compare
    bars = (found.predicted * (1 - found.predicted) / draws).sqrt()
    assert bool(((found.frozen - found.predicted).abs() <= 4 * bars).all())
    assert 0 <= found.stayed < 1 and not torch.equal(found.frozen, found.network)


def test_inside_one_region_the_network_is_what_was_predicted() -> None:
    spline = ma.Spline(mlp(3, 4), torch.zeros(1, 3, dtype=torch.float64))
    found = tm.noisy_errors(spline, drawn(3), 1.0, 1000, label=2, generator=torch.Generator().manual_seed(0))
    assert found.stayed == 1 and torch.equal(found.frozen, found.network) and found.label == 2


def test_errors_of_equal_templates_are_certain() -> None:
    bank = tm.Templates(torch.ones(1, 3, 2), torch.tensor([[1.0, 1.0, 0.0]]), torch.zeros(1, 2), torch.arange(3))
    assert tm.pairwise_error(bank, 1.0, [0]).tolist() == [[0.0, 0.5, 0.0]]
    assert tm.pairwise_error(bank, 1.0, [2]).tolist() == [[1.0, 1.0, 0.0]]


def test_a_tie_of_a_dead_network_is_half_an_error() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
        net[2].bias.copy_(torch.tensor([1.0, 1.0, 0.0]))
    found = tm.noisy_errors(ma.Spline(net, torch.zeros(1, 2).double()), torch.zeros(2).double(), 0.1, 20, label=0)
    assert found.predicted.tolist() == found.frozen.tolist() == found.network.tolist() == [0.0, 0.5, 0.0]


# ---- spectral norm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*JUDGED, "generator"])
def test_spectral_norm_is_the_largest_singular_value(name: str) -> None:
    bank = bank_of(name)
    f = captured(name).at(bank.x)
    wanted = torch.linalg.svdvals(bank.A.flatten(2))[:, 0]
    exact = tm.spectral_norm(f)
    assert exact.method == "gram"
    torch.testing.assert_close(exact.values, wanted, rtol=1e-9, atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    power = tm.spectral_norm(captured(name).at(bank.x, memory=8), tolerance=1e-6, generator=generator)
    assert power.method == "power" and bool((power.residual <= 1e-6).all())
    torch.testing.assert_close(power.values, wanted, rtol=1e-6, atol=1e-12)


def test_spectral_norm_of_dead_maps_is_zero() -> None:
    spline = ma.Spline(nn.ReLU(), torch.zeros(1, 3))
    x = torch.tensor([[-1.0, -1.0, -1.0], [2.0, -1.0, 1.0]])
    for method in ("gram", "power"):
        torch.testing.assert_close(tm.spectral_norm(spline.at(x), method).values, torch.tensor([0.0, 1.0]))


# ---- sign steps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_first_order_change_is_exact_inside_the_region(name: str) -> None:
    net, x = BY_NAME[name], inputs_of(BY_NAME[name], 6)
    A, model, spline = jacobian(name, x), model_of(net), captured(name)
    seen = torch.zeros(2, dtype=torch.long)
    for epsilon in (1e-3, 0.05, 0.5):
        found = tm.sign_perturbation(spline, x, epsilon)
        for n in range(len(x)):
            for k in range(A.shape[1]):
                point = x[n] + epsilon * A[n, k].sign()
                torch.testing.assert_close(found.points[n, k], point, rtol=0, atol=0)
                change = (output_of(net, model, point[None]) - output_of(net, model, x[n : n + 1]))[0].detach()
                torch.testing.assert_close(found.actual[n, k], change, **EXACT)
                torch.testing.assert_close(found.predicted[n, k], (A[n] * (point - x[n])).flatten(1).sum(1), **EXACT)
                stays = bool(spline.region(x[n]).contains(point))
                assert bool(found.stayed[n, k]) == stays
                seen[int(stays)] += 1
                if stays:
                    torch.testing.assert_close(found.actual[n, k], found.predicted[n, k], **EXACT)
    assert bool((seen > 0).all())  # steps that stay and steps that leave


def test_no_step_of_that_size_raises_a_score_more() -> None:
    x, spline = inputs_of(BY_NAME["mlp"], 3), captured("mlp")
    best = tm.sign_perturbation(spline, x, 0.1, classes=[1])
    torch.testing.assert_close(best.predicted[:, 0, 1], 0.1 * bank_of("mlp", 3).A[:, 1].abs().sum(1), **EXACT)
    other = tm.perturbation(spline, x, 0.1 * drawn(3, 50, *x.shape[1:]).sign())
    assert bool((other.predicted[..., 1] <= best.predicted[..., 1] + 1e-12).all())
    lowered = tm.sign_perturbation(spline, x, -0.1, classes=[1])
    torch.testing.assert_close(lowered.predicted, -best.predicted, **EXACT)


# ---- bad input -----------------------------------------------------------------------------------------------


def refused() -> dict[str, tuple[str, object]]:
    """What each wrong call says, and the call."""
    bank, spline = bank_of("mlp"), captured("mlp")
    x = bank.x
    lone = tm.Templates(bank.A[:, :1], bank.b[:, :1], x, torch.arange(1))
    dead = tm.Templates(torch.zeros_like(bank.A), bank.b, x, bank.classes)
    return {
        "other rows": ("made for", lambda: tm.templates(spline.at(x), x[:2])),
        "other dtype": ("float32", lambda: tm.templates(spline.at(x), x.float())),
        "no such class": ("not among", lambda: tm.templates(spline.at(x), x, classes=[99])),
        "labels too large": ("classes have 0 to", lambda: tm.correct(bank.inner, [0, 1, 2, 99])),
        "negative label": ("labels from -1", lambda: tm.wrong(bank.inner, [0, 1, 2, -1])),
        "labels of floats": ("whole numbers", lambda: tm.wrong(bank.inner, [0.0, 1.0, 2.0, 0.5])),
        "labels missing": ("for 4 rows", lambda: tm.correct(bank.inner, [0, 1])),
        "one template": ("at least 2", lambda: tm.reading(lone)),
        "no such rival": ("labels from 99", lambda: tm.reading(bank, rival=99)),
        "one class": ("at least 2", lambda: tm.optimal_loss(1)),
        "no budget": ("alpha=0", lambda: tm.optimal_loss(10, alpha=0.0)),
        "NaN budget": ("alpha=nan", lambda: tm.optimal_gap(10, alpha=math.nan)),
        "no length": ("norm=-1", lambda: tm.optimal_gap(10, norm=-1.0)),
        "zero signal": ("is zero", lambda: tm.optimal_templates(torch.zeros(1, 3), [0], 2)),
        "zero templates": ("give alpha", lambda: tm.distance_to_optimal(dead, [0, 1, 2, 0])),
        "no bank to measure": ("bank is None", lambda: tm.distance_to_optimal(None, [0])),
        "nothing to merge": ("one of both is None", lambda: tm.merge_statistics(None, None)),
        "endless bins": ("power of two up to", lambda: tm.distribution(x, bins=2**40)),
        "no noise": ("sigma=0", lambda: tm.pairwise_error(bank, 0.0)),
        "NaN noise": ("sigma=nan", lambda: tm.pairwise_error(bank, math.nan)),
        "a batch": ("one point of shape", lambda: tm.noisy_errors(spline, x, 1.0)),
        "no method": ("method='svd'", lambda: tm.spectral_norm(spline.at(x), "svd")),
        "not converged": ("residual", lambda: tm.spectral_norm(spline.at(x), "power", tolerance=0.0, iterations=2)),
        "no step": ("epsilon=0", lambda: tm.sign_perturbation(spline, x, 0.0)),
        "NaN step": ("epsilon=nan", lambda: tm.sign_perturbation(spline, x, math.nan)),
        "no maps": ("f is a torch.float64 tensor", lambda: tm.templates(x, x)),
        "signals in a list": ("x is a list", lambda: tm.templates(spline.at(x), x.tolist())),
        "labels of words": ("labels is a list; give whole numbers", lambda: tm.correct(bank.inner, ["a"] * 4)),
        "no labels": ("labels is None", lambda: tm.correct(bank.inner, None)),
        "one row": (r"values is .*; give a tensor \(N, C, \.\.\.\)", lambda: tm.correct(bank.inner[0], [0])),
        "pairs of classes": (r"give a tensor \(N, C\)", lambda: tm.wrong(bank.cosines, [0, 1, 2, 0])),
        "no bank": ("bank is None", lambda: tm.reading(None)),
        "a rival in words": ("labels is 'a'", lambda: tm.reading(bank, rival="a")),
        "noise in words": ("sigma='a'", lambda: tm.pairwise_error(bank, "a")),
        "half a draw": ("draws is 0.5", lambda: tm.noisy_errors(spline, x[0], 1.0, draws=0.5)),
        "a seed": ("generator is 3", lambda: tm.noisy_errors(spline, x[0], 1.0, generator=3)),
        "no point": ("x is None", lambda: tm.noisy_errors(spline, None, 1.0)),
        "no tolerance": ("tolerance=nan", lambda: tm.spectral_norm(spline.at(x), "power", tolerance=math.nan)),
        "no iteration": ("iterations is 0", lambda: tm.spectral_norm(spline.at(x), "power", iterations=0)),
        "a step in words": ("epsilon='a'", lambda: tm.sign_perturbation(spline, x, "a")),
        "no steps": ("delta is None", lambda: tm.perturbation(spline, x, None)),
        "budget in words": ("alpha='a'", lambda: tm.optimal_gap(10, alpha="a")),
        "half a class": ("classes=2.5", lambda: tm.optimal_gap(2.5)),
        "whole signals": ("floating-point signals", lambda: tm.optimal_templates(torch.ones(1, 2).long(), [0], 2)),
        "NaN signal": ("NaN or infinity", lambda: tm.optimal_templates(torch.full((1, 2), math.nan), [0], 2)),
        "budgets of others": ("alpha has shape", lambda: tm.optimal_templates(x, [0] * 4, 3, torch.ones(3))),
        "steps of another shape": ("steps of shape", lambda: tm.perturbation(spline, x, x)),
    }


@pytest.mark.parametrize("case", refused())
def test_bad_input_is_one_clear_line(case: str) -> None:
    said, call = refused()[case]
    with pytest.raises(InputError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_templates_over_the_budget_are_refused() -> None:
    x = inputs_of(BY_NAME["mlp"], 3)
    with pytest.raises(MemoryBudgetError):
        tm.templates(captured("mlp").at(x, memory=8), x)
