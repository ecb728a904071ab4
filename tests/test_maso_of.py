"""Operators of captured networks as explicit MASOs: the same value and the same code as the network's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maxaffine.errors import InputError, MemoryBudgetError, NotPiecewiseAffineError
from maxaffine.explicit import maso_of
from maxaffine.spline import Spline

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


class Functional(nn.Module):
    """Maximum of two tensors, a constant operand, a channel maximum and a learned slope a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.prelu, self.line = nn.Conv2d(2, 4, 3), nn.PReLU(4), nn.Linear(16, 6)
        nn.init.uniform_(self.prelu.weight, -0.5, 1)
        self.floor = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        z = self.prelu(self.conv(x) + F.avg_pool2d(self.conv(x), 1))
        z = self.line(z.flatten(2).permute(0, 2, 1)[:, :2].amax(1).repeat(1, 4))
        z = torch.maximum(z, self.floor).unflatten(1, (2, 3))
        return torch.maximum(z[:, 0], z[:, 1] - 1).amax(1)


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2),
    )


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutional": (conv_net, (2, 8, 8)),
    "functional": (Functional, (2, 5, 5)),
}


@pytest.mark.parametrize("name", NETS)
def test_every_convex_operator_has_the_network_s_value_and_code(name: str) -> None:
    """Row 30: the code from the pre-activation is the code from the argmax of the explicit operator."""
    build, shape = NETS[name]
    spline = Spline(build().eval().double(), torch.zeros(1, *shape, dtype=F64))
    x = torch.randn(20, *shape, dtype=F64)
    code = spline.code(x)
    source, seen = x.flatten(1), 0
    for i, operator in enumerate(spline.operators):
        maso = maso_of(spline, operator.name)
        assert (maso.K - operator.units, max(maso.R, operator.pieces)) == (0, operator.pieces)
        end = spline.operators[i + 1].name if i + 1 < len(spline.operators) else None
        value = maso(source)
        A, B = maso.selected(source)
        torch.testing.assert_close(torch.einsum("nkd,nd->nk", A, source) + B, value, rtol=1e-12, atol=1e-12)
        if "max_pool2d" not in operator.op or operator.pieces == 4:  # the other pooling is padded
            assert torch.equal(maso.code(source), code[operator.name].reshape(len(x), -1).long())
            seen += 1
        if end is None:
            torch.testing.assert_close(value, spline(x).reshape(value.shape), rtol=1e-12, atol=1e-12)
        source = value
    assert seen >= 2


def test_the_padded_pooling_is_the_framework_s() -> None:
    spline = Spline(conv_net().eval().double(), torch.zeros(1, 2, 8, 8, dtype=F64))
    z = torch.randn(30, 3, 8, 8, dtype=F64) - 5  # zeros of a padding would win
    maso = maso_of(spline, "3")
    assert torch.equal(maso(z.flatten(1)), F.max_pool2d(z, 3, 2, 1).flatten(1))


def test_the_law_sees_a_wrong_operator() -> None:
    spline = Spline(conv_net().eval().double(), torch.zeros(1, 2, 8, 8, dtype=F64))
    x = torch.randn(20, 2, 8, 8, dtype=F64)
    maso = maso_of(spline, "2")
    wrong = type(maso)(maso.A.flip(1), maso.B.flip(1))
    torch.testing.assert_close(wrong(x.flatten(1)), maso(x.flatten(1)))
    assert not torch.equal(wrong.code(x.flatten(1)), spline.code(x)["2"].flatten(1).long())


def test_linear_and_relu_are_the_layer_formula_in_the_network_s_dtype() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.LeakyReLU(0.1))
    for dtype in (torch.float32, F64):
        maso = maso_of(Spline(net.to(dtype), torch.zeros(1, 4, dtype=dtype)), "3")
        assert maso.A.dtype == dtype and not maso.A.requires_grad
        torch.testing.assert_close(maso.A[:, 1], net[2].weight.detach())
        torch.testing.assert_close(maso.A[:, 0], 0.1 * net[2].weight.detach())
        torch.testing.assert_close(maso.B[:, 0], 0.1 * net[2].bias.detach())


class Branches(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.line, self.act = nn.Linear(3, 3), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(F.relu(self.line(x)) + x)


@pytest.mark.parametrize(
    ("act", "name", "error", "says"),
    [
        (F.relu, "relu_1", InputError, "reads the input and relu"),
        (F.relu, "nothing", InputError, "'nothing' is no spline operator .* there are: relu"),
        (lambda z: F.hardtanh(F.relu(z)), None, InputError, "slope falls from 1 to 0 at the knot 1"),
        (lambda z: F.relu(z).amin(1), None, InputError, "is a minimum"),
        (lambda z: F.relu(F.gelu(z)), None, NotPiecewiseAffineError, "gelu"),
    ],
)
def test_what_is_no_single_maso_is_refused(act: Callable, name: str | None, error: type, says: str) -> None:
    spline = Spline(Branches(act), torch.zeros(1, 3))
    name = name and (next((o.name for o in spline.operators[1:] if name == "relu_1"), name))
    with pytest.raises(error, match=says):
        maso_of(spline, name or spline.operators[-1].name)


def test_memory_is_guarded() -> None:
    with pytest.raises(MemoryBudgetError, match="R=9"):
        maso_of(Spline(conv_net().eval(), torch.zeros(1, 2, 8, 8)), "3", memory=10_000)
