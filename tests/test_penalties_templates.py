"""The penalty on the templates: value and every gradient against double backward through the model itself."""

import copy

import pytest
import torch
from net import Net, Of, differentiable, example_of, inputs_of, model_of, output_of
from nets import NETS
from torch import Tensor, nn
from torch.nn import functional as F

import maxaffine as ma
from maxaffine.penalties import Penalty, norm_control, orthogonality, template_orthogonality
from maxaffine.penalties.pooling import poolings

F64 = torch.float64
CHOSEN = ("mlp", "ramp_abs", "ramp_leaky_relu", "ramp_prelu", "residual", "reused", "tied", "weight_norm", "maxout",
          "batch_norm_1d", "time_major", "folded", "rnn", "cnn", "functional_cnn", "pool_overlapping", "pool_padded",
          "adaptive_max", "resnet_block", "generator", "casts", "two_inputs", "dict_output")  # fmt: skip


def double_backward(model: nn.Module, x: Tensor, kind: str) -> Tensor:
    """Brute force: the Jacobian by autograd, differentiable in the parameters."""
    jacobian = torch.autograd.functional.jacobian(lambda z: model(z).flatten(1).sum(0), x, create_graph=True)
    A = jacobian.transpose(0, 1).flatten(2)
    return norm_control(A) if kind == "norm_control" else orthogonality(A, kind)


def assert_same_gradients(found: Tensor, wanted: Tensor, model: nn.Module) -> None:
    parameters = list(model.parameters())
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-16)
    ours = torch.autograd.grad(found, parameters, allow_unused=True)
    theirs = torch.autograd.grad(wanted, parameters, allow_unused=True)
    seen = 0
    for a, b in zip(ours, theirs, strict=True):
        a, b = (torch.zeros((), dtype=F64) if g is None else g for g in (a, b))
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11 * float(1e-9 + b.abs().max()))
        seen += bool((b != 0).any())
    assert seen > 0


@pytest.mark.parametrize("net", [n for n in NETS if n.name in CHOSEN], ids=lambda n: n.name)
def test_value_and_gradients_are_those_of_double_backward(net: Net) -> None:
    model, x = differentiable(model_of(net)), inputs_of(net, 3)
    spline = ma.Spline(model, example_of(net), **net.options)

    class Called(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return output_of(net, model, z)

    wanted = double_backward(Called(), x, "mean")
    assert_same_gradients(template_orthogonality(spline, x), wanted, model)
    wanted = double_backward(Called(), x, "mean")
    assert_same_gradients(template_orthogonality(spline, x, memory=1), wanted, model)  # template by template


def pooled() -> nn.Module:
    """Activations before, between and after poolings that do and do not tile their image."""
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 5, 2, padding=1), nn.MaxPool2d((2, 1)), nn.LeakyReLU(0.3), nn.MaxPool2d((1, 2))),
        *(nn.Conv2d(5, 4, 1), nn.PReLU(4), nn.MaxPool2d(2, 2, ceil_mode=True), nn.Flatten(), nn.Linear(4, 3)),
    )


@pytest.mark.parametrize("kind", ["sum", "mean", "cosine", "authors", "norm_control"])
def test_every_kind_and_poolings_as_masks(kind: str) -> None:
    model = model_of(Net("pooled", pooled, (2, 9, 8)))
    x = torch.randn(4, 2, 9, 8, dtype=F64, generator=torch.Generator().manual_seed(3))
    spline = ma.Spline(model, x)
    assert len(poolings(spline.at(x).maps.plan)) == 3  # the one with ceil_mode is served by its winners
    assert_same_gradients(template_orthogonality(spline, x, kind), double_backward(model, x, kind), model)


def test_float32_and_chunks_agree_with_float64() -> None:
    model = model_of(Net("pooled", pooled, (2, 9, 8)))
    x = torch.randn(7, 2, 9, 8, dtype=F64)
    exact = template_orthogonality(ma.Spline(model, x), x)
    single = copy.deepcopy(model).float()
    found = template_orthogonality(ma.Spline(single, x.float()), x.float())
    assert found.dtype == torch.float32 and torch.allclose(found.double(), exact, rtol=1e-4)
    wanted = torch.autograd.grad(exact, list(model.parameters()), allow_unused=True)
    ours = torch.autograd.grad(found, list(single.parameters()), allow_unused=True)
    for a, b in zip(ours, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a.double(), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.LeakyReLU(0.2), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x = torch.randn(4, 3, dtype=F64)
    spline = ma.Spline(model, x)
    assert torch.autograd.gradcheck(lambda *_: template_orthogonality(spline, x), tuple(model.parameters()), eps=1e-7)


def test_a_code_that_is_not_followed_is_found_out() -> None:
    """The judge can fail: the gradient at another input's code is another one."""
    net = next(n for n in NETS if n.name == "cnn")
    model, x = model_of(net), inputs_of(net, 3)
    with pytest.raises(AssertionError):
        assert_same_gradients(
            template_orthogonality(ma.Spline(model, x), x + 1), double_backward(model, x, "mean"), model
        )


def test_only_parameters_that_require_gradients_get_them() -> None:
    model = model_of(Net("pooled", pooled, (2, 9, 8))).train()
    model[4].requires_grad_(False)
    x = torch.randn(3, 2, 9, 8, dtype=F64, requires_grad=True)
    Penalty(model, 1.0, on="templates")(x).backward()
    assert x.grad is None and model[4].weight.grad is None and model[0].weight.grad is not None
    assert model[0].bias.grad is None or not model[0].bias.grad.any()  # a bias does not move a template
    with torch.no_grad():
        assert not Penalty(model, 1.0, on="templates")(x.detach()).requires_grad
    model.requires_grad_(False)
    assert not Penalty(model, 1.0, on="templates")(x.detach()).requires_grad


def test_batch_norm_enters_with_its_running_statistics_and_the_modes_stay() -> None:
    torch.manual_seed(0)
    model = model_of(Net("pooled", pooled, (2, 9, 8))).train()
    model[6].eval()
    modes = [m.training for m in model.modules()]
    x = torch.randn(5, 2, 9, 8, dtype=F64)
    penalty = Penalty(model, 0.5, on="templates")
    before = penalty(x)
    statistics = model[1].running_mean.clone()
    assert [m.training for m in model.modules()] == modes
    model(x)  # moves the statistics
    assert not torch.equal(model[1].running_mean, statistics)
    after = penalty(x)
    twin = copy.deepcopy(model).eval()
    assert torch.allclose(after, 0.5 * double_backward(twin, x, "mean"), rtol=1e-10)
    assert not torch.allclose(before, after, rtol=1e-6)
    with torch.no_grad():
        model[12].weight.mul_(2)
    assert torch.allclose(penalty(x), 16 * after)  # the weights are read anew


def test_a_share_of_the_batch_is_an_unbiased_estimate() -> None:
    model = model_of(Net("mlp", lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3)), (3,)))
    x = torch.randn(5, 3, dtype=F64)
    spline, generator = ma.Spline(model, x), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for kind in ("mean", "sum"):
            whole = template_orthogonality(spline, x, kind)
            single = torch.stack([template_orthogonality(spline, row[None], kind) for row in x])
            scale = 5 if kind == "sum" else 1
            drawn = [template_orthogonality(spline, x, kind, 0.2, generator) for _ in range(40)]
            assert torch.allclose(single.mean() * scale, whole)
            assert all(bool((d - single * scale).abs().min() < 1e-14) for d in drawn)
            assert len({float(d) for d in drawn}) == len({float(s) for s in single}) > 3  # two share a region
        twice = [template_orthogonality(spline, x, "mean", 0.4, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(twice[0], twice[1])


def test_a_training_step_takes_the_gradient_of_the_sum() -> None:
    """In train mode: the gradient of loss + penalty(x) is the sum of the two, computed apart by torch."""
    model = model_of(Net("pooled", pooled, (2, 9, 8))).train()
    x, y = torch.randn(6, 2, 9, 8, dtype=F64), torch.arange(6) % 3
    penalty = Penalty(model, 2.0, on="templates", example=x)
    twin = copy.deepcopy(model)
    (F.cross_entropy(model(x), y) + penalty(x)).backward()
    F.cross_entropy(twin(x), y).backward()  # the same step of the running statistics
    wanted = torch.autograd.grad(double_backward(twin.eval(), x, "mean"), list(twin.parameters()), allow_unused=True)
    for ours, theirs, more in zip(model.parameters(), twin.parameters(), wanted, strict=True):
        total = theirs.grad if more is None else theirs.grad + 2 * more
        assert torch.allclose(ours.grad, total, rtol=1e-9, atol=1e-12)


def test_bad_batches_and_networks() -> None:
    smooth = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double()
    x = torch.randn(2, 3, dtype=F64)
    with pytest.raises(ma.errors.NotPiecewiseAffineError, match="gelu"):
        Penalty(smooth, 1.0, on="templates")(x)
    spline = ma.Spline(nn.Sequential(nn.Linear(3, 4), nn.ReLU()).double(), x)
    with pytest.raises(ma.errors.InputError, match="shape"):
        template_orthogonality(spline, x[:, :2])
    with pytest.raises(ma.errors.InputError, match="kind='soft'"):
        template_orthogonality(spline, x, "soft")
    with pytest.raises(ma.errors.InputError, match=r"share=1\.5"):
        template_orthogonality(spline, x, share=1.5)


def test_a_second_derivative_is_refused_and_inference_mode_is_not() -> None:
    """The gradients are computed with the value, as numbers: a derivative of them would be 0 without a word."""
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double(), torch.randn(6, 4, dtype=F64)
    penalty, weight = Penalty(model, 1.0, on="templates", example=x), model[2].weight
    (first,) = torch.autograd.grad(model(x).square().sum() + penalty(x), weight, create_graph=True)
    assert torch.allclose(first, torch.autograd.grad(model(x).square().sum() + penalty(x), weight)[0])
    with pytest.raises(ma.errors.InputError, match="no derivative"):
        torch.autograd.grad(first.square().sum(), weight)
    with torch.inference_mode():
        assert torch.equal(penalty(x), penalty(x.clone()))
    assert torch.allclose(penalty(x), double_backward(model, x, "mean"))


def test_a_converted_model_is_captured_anew() -> None:
    model = Of(lambda m, x: m.b(F.relu(m.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    penalty = Penalty(model, 1.0, on="templates", example=torch.randn(1, 3))
    x = torch.randn(4, 3)
    first = penalty(x)
    model.double()
    assert torch.allclose(penalty(x.double()).float(), first, rtol=1e-4)
