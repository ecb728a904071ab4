"""Which walls count: every one that the stored numbers have, however small its unit; none that is rounding alone."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import maxaffine as ma
from maxaffine.errors import InputError

SMALL = (1.0, 1e-8, 1e-14, 1e-40, 1e-120)


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 6), nn.LeakyReLU(0.1), nn.Linear(6, 2)]
    return nn.Sequential(*layers).double().eval()


def rescaled(net: nn.Sequential, layer: int, units: Tensor, scale: float) -> nn.Sequential:
    """The same function: the units of a layer times `scale`, what reads them divided by it."""
    here, reader = net[layer], net[layer + 2]
    assert isinstance(here, nn.Linear) and isinstance(reader, nn.Linear)
    with torch.no_grad():
        here.weight[units] *= scale
        here.bias[units] *= scale
        reader.weight[:, units] /= scale
    return net


def points(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("norm", [1, 2, float("inf")])
@pytest.mark.parametrize("scale", SMALL)
@pytest.mark.parametrize("layer", [0, 2])
def test_scaling_a_unit_moves_no_wall(layer: int, scale: float, norm: float) -> None:
    x, units = points(40, 3), torch.tensor([1, 4, 5])
    wanted = ma.margin(ma.Spline(mlp(0), x[:1]), x, norm)
    spline = ma.Spline(rescaled(mlp(0), layer, units, scale), x[:1])
    found = ma.margin(spline, x, norm)
    assert_close(found.values, wanted.values)
    assert found.operators == wanted.operators and found.units.tolist() == wanted.units.tolist()
    assert len({u for u in found.units.tolist() if u in units}) > 1  # some of the small walls are the nearest
    others = points(300, 3) * 3
    for point in x[:5]:
        region = spline.region(point)
        same = inside(spline, point, others)
        assert region.contains(others).tolist() == same.tolist()
        assert_close(region.margin(norm), ma.margin(spline, point[None], norm).values[0])


def inside(spline: ma.Spline, point: Tensor, others: Tensor) -> Tensor:
    """Whether others have the code of the point: they lie in its region, but for points on walls."""
    return ma.distance(spline.code(others), spline.code(point[None].expand(len(others), -1))) == 0


class Equal(nn.Module):
    """max(f(x), g(x)) of two functions that are equal but for their rounding."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.bn, self.norm = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), norm
        self.bn.load_state_dict({"running_mean": torch.rand(5), "running_var": torch.rand(5) + 0.1}, strict=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        if not self.norm:
            return torch.maximum(h[:, :1] * 0.3 + h[:, 1:2] * 0.6, (h[:, :1] + h[:, 1:2] * 2.0) * 0.3)
        mean, var = self.bn.running_mean, self.bn.running_var
        assert mean is not None and var is not None
        by_hand = (h - mean.reshape(-1, 1, 1)) * (var + self.bn.eps).rsqrt().reshape(-1, 1, 1)
        return torch.maximum(self.bn(self.conv(x)), by_hand)


@pytest.mark.parametrize("norm", [False, True])
def test_equal_functions_have_no_wall_between_them(norm: bool) -> None:
    net = Equal(norm).double().eval()
    x = points(6, 2, 4, 4)
    spline = ma.Spline(net, x[:1])
    assert ma.margin(spline, x).values.tolist() == [torch.inf] * 6
    assert all(len(spline.region(point).owners) == 0 for point in x)


@pytest.mark.parametrize(("scale", "norm"), [(1e-200, 2), (1e-150, 2), (1e-100, 1.5), (1e-4, 1.01), (1e4, 1.01)])
def test_gradients_whose_powers_leave_float64_are_refused_or_scaled(scale: float, norm: float) -> None:
    x = points(8, 3)
    wanted = [ma.Spline(mlp(0), x[:1]).region(point).margin(norm) for point in x]
    spline = ma.Spline(rescaled(mlp(0), 0, torch.arange(7), scale), x[:1])
    with pytest.raises(InputError, match="leave float64"):
        ma.margin(spline, x, norm)
    assert_close(torch.stack([spline.region(point).margin(norm) for point in x]), torch.stack(wanted))
    assert len(spline.region(x[0]).owners) == 13
