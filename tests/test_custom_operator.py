"""A user's own operator in a network: all that its spline answers, dense and matrix-free, agrees with autograd."""

import pytest
import torch
from torch import Tensor, nn

import maxaffine as ma
from maxaffine.operators import Custom
from maxaffine.testing import check_operator


@torch.library.custom_op("tests::larger_half", mutates_args=())
def larger_half(z: Tensor) -> Tensor:
    """max(z_1, ..., z_k/2) of each half of axis 1, written with axes counted from the front."""
    return torch.stack([half.amax(1) for half in z.chunk(2, 1)], 1)


@larger_half.register_fake
def _(z: Tensor) -> Tensor:
    return z.new_empty(z.shape[0], 2)


class LargerHalf(Custom):
    name, pieces = "larger_half", 3

    def code(self, z: Tensor) -> Tensor:
        return torch.stack([half.argmax(1) for half in z.chunk(2, 1)], 1).to(torch.uint8)

    def piece(self, code: Tensor, z: Tensor, linear: bool = False) -> Tensor:  # noqa: ARG002
        return z.unflatten(1, (2, 3)).gather(2, code.long().unsqueeze(2)).squeeze(2)

    def walls(self, code: Tensor, z: Tensor, linear: bool = False) -> Tensor:
        halves = z.unflatten(1, (2, 3))
        walls = self.piece(code, z).unsqueeze(2) - halves
        absent = torch.nn.functional.one_hot(code.long(), 3).bool()
        return walls.masked_fill(absent, 0.0 if linear else torch.inf).movedim(2, 0)


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    ma.register("tests::larger_half", lambda shape: LargerHalf())  # noqa: ARG005


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(torch.ops.tests.larger_half(torch.relu(self.first(x)) - 0.3 * self.first(x))))


class Reference(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x)) - 0.3 * self.first(x)
        return self.last(torch.relu(h.unflatten(1, (2, 3)).amax(2)))


def test_the_laws_hold() -> None:
    check_operator(LargerHalf(), shape=(6,), reference=larger_half)


def test_a_network_with_it() -> None:
    torch.manual_seed(0)
    model, x = Net().double(), torch.randn(7, 5, dtype=torch.float64)
    judge = Reference().double()
    judge.load_state_dict(model.state_dict())
    spline = ma.Spline(model, x[:1])
    f, wanted = spline.at(x), torch.func.vmap(torch.func.jacrev(lambda z: judge(z[None])[0]))(x)
    assert [o.name for o in spline.operators] == ["relu", "larger_half", "relu@1"]
    assert torch.allclose(spline(x), judge(x)) and torch.allclose(f(x), judge(x))
    assert torch.allclose(f.A, wanted) and torch.allclose(f.rows([2]), wanted[:, 2:])
    assert torch.allclose(f.mv(x), torch.einsum("noi,ni->no", wanted, x))
    wide = spline.at(x, output="larger_half")
    assert wide.A.shape == (7, 6, 5)
    region, found = spline.region(x[0]), ma.margin(spline, x)
    assert bool(region.contains(x[0])) and torch.allclose(region.margin(), found.values[0])
