"""The convexity certificate of networks, and training that keeps it: judged by midpoints and by matrices."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maxaffine.approximation import approximate
from maxaffine.convexity import (
    Certificate,
    curvature,
    is_convex,
    parametrize_nonnegative,
    project_nonnegative,
)
from maxaffine.errors import InputError, NotPiecewiseAffineError
from maxaffine.operators.registry import declare
from maxaffine.program.plan import Plan
from maxaffine.spline import Spline

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def certify(net: nn.Module, *shape: int) -> Certificate:
    return is_convex(Spline(net.eval(), torch.zeros(1, *shape)))


def is_midpoint_convex(net: nn.Module, *shape: int) -> bool:
    """f((p + q) / 2) <= (f(p) + f(q)) / 2 for every output, on 3000 random pairs at several scales."""
    exact = net.eval().double()
    scale = torch.tensor([0.3, 1.0, 4.0], dtype=F64).repeat(1000).reshape(-1, *[1] * len(shape))
    p, q = scale * torch.randn(3000, *shape, dtype=F64), scale * torch.randn(3000, *shape, dtype=F64)
    with torch.no_grad():
        return bool((exact((p + q) / 2) <= (exact(p) + exact(q)) / 2 + 1e-9).all())


class Passthrough(nn.Module):
    """An input-convex network: hidden layers also read the input, with any sign."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.skip = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(3, 4)
        self.last, self.end = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.first(x))
        z = F.leaky_relu(self.second(z) + self.skip(x), 0.1)
        return self.last(z) + self.end(x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(x)
        return z + self.outer(F.relu(self.inner(z)))


class Recurrent(nn.Module):
    """Three steps of a relu cell on a sequence given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, 3, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        h = x[:, 0, :1] * torch.zeros(3)
        for step in range(3):
            h = F.relu(F.linear(x[:, step], self.cell.weight_ih, self.cell.bias_ih) + h @ self.cell.weight_hh.T)
        return h


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(2, 3)
        self.last.weight.data.abs_()

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x).unflatten(1, (2, 4)).amax(2)
        z = torch.maximum(self.last(z), torch.cat([x[:, :2], -x[:, :1]], dim=1))
        return z.flip(1).mean(1, keepdim=True) - x[:, :1]


def image_net() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    first = (nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.MaxPool2d(2, padding=1))
    second = (nn.Conv2d(4, 4, 2, groups=2), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.AvgPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(4, 3))


def transposed_net() -> nn.Module:
    first = (nn.Linear(3, 8), nn.ReLU(), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 3, 2, stride=2))
    return nn.Sequential(*first, nn.PReLU(3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.AdaptiveMaxPool2d(2))


def mlp(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), *between, nn.Linear(8, 2))


CONVEX: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, tuple[str, ...]]] = {
    "mlp": (lambda: mlp(nn.ReLU(), nn.Linear(8, 8), nn.ReLU()), (3,), "2.weight", ("0",)),
    "abs first": (lambda: mlp(Absolute(), nn.Linear(8, 8), nn.ReLU()), (3,), "4.weight", ("0",)),
    "image": (image_net, (2, 7, 7), "4.weight", ("0", "1")),
    "image norm": (image_net, (2, 7, 7), "5.weight", ("0", "1")),
    "passthrough": (Passthrough, (3,), "second.weight", ("first", "skip", "end")),
    "residual": (Residual, (3,), "outer.weight", ()),
    "transposed": (transposed_net, (3,), "3.weight", ("0",)),
    "maxout": (Maxout, (3,), "last.weight", ("first",)),
}


class Absolute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@pytest.mark.parametrize("name", CONVEX)
def test_certified_networks_pass_the_midpoint_test_and_a_sign_flip_fails_it(name: str) -> None:
    """Row 14 of the list: non-negativity from layer 2 on, monotone activations, sign of batch norm."""
    build, shape, flipped, free = CONVEX[name]
    net = build()
    project_nonnegative(net, skip=free)
    certificate = certify(net, *shape)
    assert certificate and certificate.convex, certificate.reason
    assert is_midpoint_convex(net, *shape)
    with torch.no_grad():
        weight = net.get_parameter(flipped)
        weight.neg_()
    certificate = certify(net.float(), *shape)
    assert not certificate
    assert certificate.reason.startswith(f"{flipped.removesuffix('.weight')}: ")
    assert not is_midpoint_convex(net, *shape)


def test_recurrence_is_convex_with_non_negative_recurrent_weights() -> None:
    net = Recurrent()
    net.cell.weight_hh.data.abs_()
    assert certify(net, 3, 2) and is_midpoint_convex(net, 3, 2)
    net.cell.weight_hh.data.neg_()
    assert not certify(net.float(), 3, 2) and not is_midpoint_convex(net, 3, 2)


def test_the_reason_names_the_one_negative_weight() -> None:
    net = mlp(nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    project_nonnegative(net)
    net[2].weight.data[5, 3] = -0.25
    said = "2: weight[5, 3] = -0.25 is negative and meets a value that is convex but not affine"
    assert certify(net, 3).reason == said
    conv = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Conv2d(2, 3, 2))
    project_nonnegative(conv)
    conv[2].weight.data[1, 0, 1, 1] = -2
    assert certify(conv, 1, 5, 5).reason.startswith("2: weight[1, 0, 1, 1] = -2 is negative")


def test_a_negative_weight_on_what_is_affine_is_allowed() -> None:
    """Unit 3 is an identity, not an activation: its weight may have any sign."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            z = self.first(x)
            return self.last(torch.cat([F.relu(z[:, :3]), z[:, 3:]], dim=1))

    net = Half()
    project_nonnegative(net)
    net.last.weight.data[0, 3] = -1
    assert certify(net, 2) and is_midpoint_convex(net, 2)
    net.float().last.weight.data[0, 1] = -1
    assert certify(net, 2).reason.startswith("last: weight[0, 1] = -1 ")


class Negated(nn.Module):
    """-min(x, 0) = relu(-x), and a minimum of negated things: convex although negative weights occur."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = -torch.clamp(self.first(x), max=0.5)
        return 1 - torch.minimum(-z, -z.flip(1)).amin(1, keepdim=True)


def test_concave_parts_with_negative_weights_are_convex() -> None:
    assert certify(Negated(), 3) and is_midpoint_convex(Negated(), 3)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.Hardtanh(), "1: hardtanh: the slope falls from 1 to 0 at the knot 1, a concave knot"),
        (nn.ReLU6(), "1: relu6: the slope falls from 1 to 0 at the knot 6, a concave knot"),
        (nn.Hardsigmoid(), "1: hardsigmoid: the slope falls from 0.166667 to 0 at the knot 3"),
        (nn.Softshrink(), "1: softshrink: the slope falls from 1 to 0 at the knot -0.5"),
        (nn.PReLU(init=1.5), "1: prelu: the slope falls from 1.5 to 1 at the knot 0"),
    ],
)
def test_what_is_no_maso_is_refused_by_its_concave_knot(layer: nn.Module, says: str) -> None:
    net = mlp(layer)
    project_nonnegative(net, skip=("0", "1") if type(layer) is nn.PReLU else ("0",))
    assert certify(net, 3).reason.startswith(says)
    assert not is_midpoint_convex(net, 3)


def test_a_two_sided_clamp_a_minimum_and_a_later_abs_are_refused() -> None:
    class Clamp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.clamp(x, -1, 2)

    class Least(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.minimum(x, x.flip(1))

    for layer, says in (
        (Clamp(), "1: clamp: the slope falls from 1 to 0 at the knot 2"),
        (Least(), "1: minimum is a minimum: concave"),
        (nn.Sequential(nn.ReLU(), nn.Linear(8, 8), Absolute()), "1.2: abs decreases on a piece"),
    ):
        net = mlp(layer)
        project_nonnegative(net)
        assert certify(net, 3).reason.startswith(says)
        assert not is_midpoint_convex(net, 3)


def test_a_declared_activation_is_judged_by_its_knots() -> None:
    class Bump(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return F.relu(z) - 2 * F.relu(z - 1)

    class Tangents(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.maximum(torch.maximum(-z, 0.25 * z), z - 1)

    declare(Bump, knots=[0, 1], slopes=[0, 1, -1])
    declare(Tangents, knots=[0, 4 / 3], slopes=[-1, 0.25, 1])
    net = mlp(Bump())
    project_nonnegative(net)
    assert "slope falls from 1 to -1 at the knot 1" in certify(net, 3).reason
    assert certify(nn.Sequential(nn.Linear(3, 2), Tangents()), 3)


def test_what_is_not_piecewise_affine_is_refused() -> None:
    with pytest.raises(NotPiecewiseAffineError, match="gelu"):
        certify(mlp(nn.GELU()), 3)


# --- the rules against the explicit matrix ---------------------------------------------------------------


class Everything(nn.Module):
    """Affine operations of all kinds behind something bent."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(2, 4, 2, 2, 1, groups=2), nn.ConvTranspose2d(4, 2, 2, 2)
        self.norm, self.line = nn.BatchNorm2d(4).eval(), nn.Linear(6, 6)
        nn.init.normal_(self.norm.weight)
        self.factor = nn.Parameter(torch.randn(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.cat([F.relu(x[:, :1]), -F.relu(-x[:, 1:])], dim=1)  # one convex channel, one concave
        z = torch.stack([z[..., 0], 2 * x[..., 1], z[..., 2], z[..., 3] - z[..., 1]], dim=-1)
        z = self.norm(self.conv(z)) * self.factor
        z = self.line(F.avg_pool2d(self.up(z), 2, 1, 1).flip(2).flatten(2)[..., :6]) - x.sum((1, 2, 3))[:, None, None]
        z = torch.lerp(z.permute(0, 2, 1), z.transpose(1, 2).roll(1, 1), 0.3)
        return F.pad(F.interpolate(z, scale_factor=2, mode="linear").diff(dim=1).cumsum(1), (1, 2)) / -3


@pytest.mark.parametrize("seed", range(2))
def test_the_fast_rules_are_the_rule_of_the_explicit_matrix(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(seed)
    spline = Spline(Everything().eval(), torch.zeros(1, 2, 4, 4)).to(F64)
    plan = Plan(spline.captured.graph)
    tensors = [source.read().detach() for source in spline.captured.sources]
    for tensor in tensors:  # many exact zeros: entries that are reached by nothing
        tensor[torch.rand(tensor.shape) < 0.6] = 0
    fast = curvature.curvatures(plan, tensors).found
    monkeypatch.setattr(curvature, "WEIGHTED", {})
    monkeypatch.setattr(curvature, "ONE_SIGN", "")
    slow = curvature.curvatures(plan, tensors).found
    kinds = set()
    for node, found in fast.items():
        assert torch.equal(found.not_convex, slow[node].not_convex), plan.graph.nodes[node]
        assert torch.equal(found.not_concave, slow[node].not_concave), plan.graph.nodes[node]
        kinds |= set(zip(found.not_convex.flatten().tolist(), found.not_concave.flatten().tolist(), strict=True))
    assert len(kinds) == 4  # affine, convex, concave and neither all occur


def test_the_matrix_law_sees_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cubic interpolation has weights of both signs: as a one-sign operation it would be certified."""
    net = nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(), nn.Unflatten(1, (1, 2, 4)), nn.Upsample(scale_factor=2, mode="bicubic")
    )
    assert not certify(net, 3) and not is_midpoint_convex(net, 3)
    monkeypatch.setattr(curvature, "ONE_SIGN", f"{curvature.ONE_SIGN} upsample_bicubic2d.vec")
    assert certify(net.float(), 3)


# --- training --------------------------------------------------------------------------------------------


def fitted(net: nn.Module, after_step: Callable[[nn.Module], object]) -> float:
    """Fit |x|^2 for 150 steps; the final mean squared error."""
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    x = 2 * torch.rand(256, 2) - 1
    target = (x**2).sum(1, keepdim=True)
    for _ in range(150):
        optimiser.zero_grad()
        loss = F.mse_loss(net(x), target)
        loss.backward()
        optimiser.step()
        after_step(net)
    return F.mse_loss(net(x), target).item()


def small_net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.LeakyReLU(0.1), nn.Linear(24, 1))


def test_training_with_projection_stays_convex_and_without_it_does_not() -> None:
    net = small_net()
    project_nonnegative(net)
    error = fitted(net, project_nonnegative)
    assert error < 0.02
    assert certify(net, 2) and is_midpoint_convex(net, 2)
    assert all((net[i].weight >= 0).all() for i in (2, 4)) and (net[0].weight < 0).any()
    free = small_net()
    fitted(free, lambda _: None)
    assert not certify(free, 2)


def test_training_with_softplus_weights_stays_convex() -> None:
    net = small_net()
    before = [net[i].weight.detach().clone() for i in (2, 4)]
    assert parametrize_nonnegative(net) == ("2", "4")
    for i, weight in zip((2, 4), before, strict=True):
        torch.testing.assert_close(net[i].weight, weight.abs().clamp(min=1e-6), rtol=1e-3, atol=1e-6)
    assert fitted(net, lambda _: None) < 0.02
    assert all((net[i].weight > 0).all() for i in (2, 4))
    assert certify(net, 2) and is_midpoint_convex(net, 2)


def test_projection_refuses_what_it_cannot_do() -> None:
    net = small_net()
    with pytest.raises(InputError, match="'7' has no weight"):
        project_nonnegative(net, skip=("7",))
    parametrize_nonnegative(net)
    with pytest.raises(InputError, match=r"2\.weight is parametrized"):
        project_nonnegative(net)


def test_projection_keeps_prelu_convex_and_skips_the_first_layer() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.PReLU(4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    net[1].weight.data = torch.tensor([-1.0, 0.5, 1.5, 3.0])
    net[2].weight.data.neg_()
    first = net[0].weight.clone()
    assert project_nonnegative(net) == ("1", "2", "3")
    assert net[1].weight.tolist() == [0, 0.5, 1, 1] and torch.equal(net[0].weight, first)
    assert (net[2].weight >= 0).all() and certify(net, 2)


def test_an_approximated_softplus_is_certified_like_its_original() -> None:
    """An approximation from below of a convex function by tangents is convex; the tube's spline is, too."""
    g = approximate("softplus", pieces=7)
    assert (g.slopes.diff() > 0).all()
    assert not (approximate("tanh", pieces=7).slopes.diff() > 0).all()
