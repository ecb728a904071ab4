"""Training through templates: gradients of A and b, shared parameters, and no graph that was not asked for."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from net import Net, example_of, inputs_of, model_of
from nets import NETS
from torch import Tensor, nn

import maxaffine as ma

PICKLED = ["residual", "maxout", "functional_cnn", "rnn", "time_major", "two_inputs"]


def nets() -> list[nn.Module]:
    torch.manual_seed(3)
    conv = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 4, 3, stride=2), nn.PReLU(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    conv[1].running_mean.normal_()
    return [net.double().eval() for net in (nn.Sequential(nn.Linear(5, 7), nn.LeakyReLU(), nn.Linear(7, 3)), conv)]


INPUTS = [(4, 5), (3, 2, 9, 9)]


def penalty_by_autograd(model: nn.Module, x: Tensor) -> Tensor:
    """sum over samples of the off-diagonal energy of the Jacobian, by double backward through the model itself."""
    x = x.clone().requires_grad_()
    out = model(x)
    rows = [torch.autograd.grad(out[:, c].sum(), x, create_graph=True)[0].flatten(1) for c in range(out.shape[1])]
    return ma.orthogonality(torch.stack(rows, 1))


@pytest.mark.parametrize("k", [0, 1])
def test_gradients_through_templates(k: int) -> None:
    model, x = nets()[k], torch.randn(*INPUTS[k], dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    twin = copy.deepcopy(model)
    f = ma.Spline(model, x).at(x, create_graph=True)
    ma.orthogonality(f.A.flatten(2)).backward()
    penalty_by_autograd(twin, x).backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        wanted = torch.zeros_like(ours) if theirs.grad is None else theirs.grad
        found = torch.zeros_like(ours) if ours.grad is None else ours.grad
        assert torch.allclose(found, wanted, atol=1e-10 * float(wanted.abs().max() + 1))
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters())


@pytest.mark.parametrize("k", [0, 1])
def test_gradients_of_offsets_and_products(k: int) -> None:
    model, x = nets()[k], torch.randn(*INPUTS[k], dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    f = ma.Spline(model, x).at(x, create_graph=True)
    score = (f.mv(x) + f.b).sum()
    wanted = torch.autograd.grad(model(x).sum(), list(model.parameters()), allow_unused=True)
    found = torch.autograd.grad(score, list(model.parameters()), allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(torch.zeros(()) if a is None else a, torch.zeros(()) if b is None else b, atol=1e-10)


def test_no_graph_unless_asked() -> None:
    model, x = nets()[0], torch.randn(4, 5, dtype=torch.float64)
    spline = ma.Spline(model, x)
    f = spline.at(x)
    results = [spline(x), f.A, f.b, f(x), f.mv(x), f.vm(spline(x)), spline.replay(spline.code(x), x)]
    assert not any(r.requires_grad for r in results)


def test_the_spline_follows_the_training() -> None:
    model, x = nets()[1], torch.randn(3, 2, 9, 9, dtype=torch.float64)
    spline = ma.Spline(model, x)
    before = spline.at(x)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).square().sum().backward()
    optimiser.step()
    assert torch.equal(spline(x), model(x))
    f = spline.at(x)
    assert torch.allclose(f(x), model(x), atol=1e-12)
    with pytest.raises(ma.errors.InputError, match="changed since"):
        _ = before.A
    known = spline.at(x)
    _ = known.A
    model[0].weight.data.mul_(2)  # a write that torch does not count
    with pytest.raises(ma.errors.InputError, match="changed since"):
        known(x)


def test_a_replaced_module_is_refused() -> None:
    """Its weights would be the old ones; a module without weights may be another function."""
    model, x = nets()[0], torch.randn(4, 5, dtype=torch.float64)
    spline = ma.Spline(model, x)
    copy, kept = spline.to(torch.float32), pickle.loads(pickle.dumps(spline))
    for place in (0, 1):
        old, model[place] = model[place], nn.Tanh()
        for ask in (lambda: spline(x), lambda: spline.at(x), lambda: spline.to(torch.float32)):
            with pytest.raises(ma.errors.InputError, match=f"module '{place}' of the model was replaced"):
                ask()
        assert kept(x).shape == copy(x.float()).shape  # they share nothing with the model
        model[place] = old
    assert torch.equal(spline(x), model(x))


def test_a_replaced_parameter_is_followed_and_a_moved_model_is_refused(tmp_path: Path) -> None:
    model, x = nets()[0], torch.randn(4, 5, dtype=torch.float64)
    spline = ma.Spline(model, x)
    model[0].weight = nn.Parameter(torch.randn(7, 5, dtype=torch.float64))
    assert torch.equal(spline(x), model(x))
    model.float()
    for kind in (torch.float32, torch.float16):
        model.to(kind)
        for ask in (
            lambda: spline(x),
            lambda: spline.region(x[0]),
            lambda: ma.margin(spline, x),
            lambda: pickle.dumps(spline),
            lambda: spline.save(tmp_path / "net.safetensors"),
        ):
            with pytest.raises(ma.errors.InputError, match="moved after capture"):
                ask()
        copy = spline.to(torch.float32)  # the way out that the refusal names
        torch.testing.assert_close(copy(x.float()), model.float()(x.float()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("net", [n for n in NETS if n.name in PICKLED], ids=lambda n: n.name)
def test_everything_pickles(net: Net) -> None:
    spline = ma.Spline(model_of(net), example_of(net), **net.options)
    x = inputs_of(net, 3)
    twin = pickle.loads(pickle.dumps(spline))
    f = pickle.loads(pickle.dumps(spline.at(x)))
    code = pickle.loads(pickle.dumps(spline.code(x)))
    region = pickle.loads(pickle.dumps(spline.region(x[0])))
    assert torch.equal(twin(x), spline(x)) and torch.equal(f.A, spline.at(x).A)
    assert bool((code == twin.code(x)).all()) and bool(region.contains(x[0]))
