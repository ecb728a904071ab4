"""Variants of the code: ReLU and max-pooling fused, and the smooth surrogate of the distance; row 30 of the paper."""

import pytest
import torch
from torch import Tensor, nn

import maxaffine as ma
from maxaffine import codebook


class Net(nn.Module):
    """Two convolutions; one ReLU read by a padded, overlapping pooling alone, one read by a pooling and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3)
        self.pool, self.out = nn.MaxPool2d(3, 2, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.second(self.pool(torch.relu(self.first(x)))))
        return self.out(nn.functional.max_pool2d(h, 2).flatten(1)) + h.sum((1, 2, 3))[:, None]


@pytest.fixture(scope="module")
def spline() -> ma.Spline:
    torch.manual_seed(0)
    return ma.Spline(Net().double(), torch.zeros(1, 1, 10, 10, dtype=torch.float64))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(30, 1, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_fused_code_is_that_of_the_maximum_of_zero_and_the_window(spline: ma.Spline, x: Tensor) -> None:
    torch.manual_seed(0)
    model = Net().double()
    with torch.no_grad():
        z = model.first(x)
    fused = codebook.fuse_pooling(spline, spline.code(x))
    assert [(u.name, u.kind, u.pieces) for u in fused.signature] == [
        ("relu+pool", "relu+max_pool2d", 10), ("relu@1", "relu", 2), ("max_pool2d", "max_pool2d", 4),
    ]  # fmt: skip
    padded = nn.functional.pad(z, (1, 1, 1, 1), value=-torch.inf)
    windows = padded.unfold(2, 3, 2).unfold(3, 3, 2).flatten(4)  # (N, C, H, W, 9) candidates
    candidates = torch.cat([torch.zeros_like(windows[..., :1]), windows], -1)
    assert torch.equal(fused["relu+pool"].long(), candidates.argmax(-1))
    assert 0.02 < (fused["relu+pool"] == codebook.ALL_OFF).double().mean() < 0.98
    kept = codebook.part(spline.code(x), ["relu@1", "max_pool2d"])
    assert bool((codebook.part(fused, ["relu@1", "max_pool2d"]) == kept).all())


def test_equal_codes_stay_equal_and_distances_stay_metrics(spline: ma.Spline, x: Tensor) -> None:
    code = spline.code(torch.cat([x, x[:5] + 1e-10]))
    fused = codebook.fuse_pooling(spline, code)
    assert bool((fused[30:] == fused[:5]).all()) and fused.weights == code.weights
    d = ma.pairwise_distance(fused, fused)
    assert torch.equal(d, d.T) and bool((d[:, :, None] <= d[:, None, :] + d.T[None] + 1e-12).all())


def test_what_cannot_be_fused_is_said(spline: ma.Spline, x: Tensor) -> None:
    plain = ma.Spline(nn.Sequential(nn.Flatten(), nn.ReLU()).double(), x[:1])
    for one, code, said in ((plain, plain.code(x), "nothing to fuse"), (spline, plain.code(x), "not of this spline")):
        with pytest.raises(ma.errors.InputError, match=said):
            codebook.fuse_pooling(one, code)


class Every(nn.Module):
    """A ReLU, a clip with three pieces, a pooling with padding, a maximum and a minimum of two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.pool = nn.MaxPool1d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.c(nn.functional.hardtanh(self.b(torch.relu(self.a(x))), -0.3, 0.4))
        h = torch.maximum(h, self.b(h))
        return torch.minimum(self.pool(h[:, None])[:, 0], h[:, :4])


def test_the_surrogate_tends_to_the_distance_and_obeys_its_laws() -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 12, 5, dtype=torch.float64)
    net = Every().double()
    spline = ma.Spline(net, x[0, :1])
    codes = [spline.code(part) for part in x]
    for operators in [None, *(o.name for o in spline.operators)]:
        exact = ma.distance(codes[0], codes[1], operators)
        soft = codebook.soft_distance(spline, x[0], x[1], operators, temperature=1e-9)
        assert torch.allclose(soft, exact, rtol=0, atol=1e-9)
        d = [codebook.soft_distance(spline, x[i], x[j], operators) for i, j in ((0, 1), (1, 2), (0, 2), (1, 0), (0, 0))]
        assert bool((d[2] <= d[0] + d[1] + 1e-12).all()) and torch.allclose(d[0], d[3]) and not d[4].any()
        assert bool((d[0] > 0).all()) and bool((d[0] <= 1).all())


def test_the_surrogate_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(3)
    net = Every().double()
    x, y = torch.randn(2, 1, 5, dtype=torch.float64)
    spline = ma.Spline(net, x)
    assert torch.autograd.gradcheck(
        lambda a, b: codebook.soft_distance(spline, a, b), (x.requires_grad_(), y.requires_grad_())
    )
    codebook.soft_distance(spline, x, y).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in (net.a.weight, net.b.weight, net.c.weight))
    assert x.grad is not None and bool(x.grad.any())


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"operators": "nothing"}, {"operators": []}])
def test_surrogates_that_make_no_sense(options: dict) -> None:
    x = torch.zeros(1, 3)
    spline = ma.Spline(nn.Sequential(nn.Flatten(), nn.ReLU()), x)
    with pytest.raises(ma.errors.InputError):
        codebook.soft_distance(spline, x, x, **options)
    with pytest.raises(ma.errors.InputError, match="row by row"):
        codebook.soft_distance(spline, x, torch.zeros(2, 3))


def test_codes_are_those_of_the_explicit_operators() -> None:
    """Row 30: code from the pre-activation = argmax of the operator's MASO; a tie takes piece 0, the lowest index."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Unflatten(1, (1, 9)), nn.MaxPool1d(3), nn.Flatten()).double()
    x = torch.randn(400, 4, dtype=torch.float64)
    spline = ma.Spline(net, x[:1])
    code, hidden = spline.code(x), torch.relu(net[0](x)).detach()
    assert torch.equal(code["1"].long(), ma.maso_of(spline, "1").code(x))
    assert torch.equal(code["1"], (net[0](x) > 0).to(torch.uint8))
    assert torch.equal(code["3"].flatten(1).long(), ma.maso_of(spline, "3").code(hidden))
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0], net[0].bias[3:6] = 0, 0, -100
    tie = spline.code(x)
    assert not tie["1"][:, 0].any() and not tie["3"][:, 0, 1].any()
